// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/figure/figurepage.h"

#include "views/export.h"

#include <QBuffer>
#include <QFileInfo>
#include <QImage>
#include <QImageWriter>
#include <QJsonArray>
#include <QJsonDocument>
#include <QPageSize>
#include <QPainter>
#include <QPdfWriter>
#include <QSaveFile>
#include <QSvgGenerator>

#include <cmath>

namespace spectra {

namespace {

constexpr double unitsPerMm = 144.0 / 25.4; // half points, as in views/export

Theme pageTheme(const FigureSpec &spec)
{
    Theme theme = Theme::make(spec.theme, spec.family, std::max(1, static_cast<int>(std::lround(spec.fontPt * 2))));
    for (QFont *font : {&theme.font, &theme.small, &theme.bold, &theme.mono})
        font->setHintingPreference(QFont::PreferNoHinting);
    return theme;
}

QRectF pageArea(const FigureSpec &spec)
{
    return {0, 0, spec.sizeMm.width() * unitsPerMm, spec.sizeMm.height() * unitsPerMm};
}

QString pageTitle(const std::vector<View *> &views)
{
    QStringList titles;
    for (const View *view : views)
        titles << view->title();
    return titles.join(QStringLiteral(", "));
}

QByteArray pageProvenance(const FigureSpec &spec, const std::vector<View *> &views)
{
    FigureOptions options;
    options.theme = spec.theme;
    QJsonArray panels;
    for (const View *view : views)
        panels.append(provenance(*view, options));
    return QJsonDocument(QJsonObject{{QStringLiteral("page"), spec.toJson()}, {QStringLiteral("panels"), panels}})
        .toJson(QJsonDocument::Compact);
}

Result<void> checkViews(const std::vector<View *> &views)
{
    if (views.empty())
        return usageError("the figure has no panel", "Figure", "Add a view first.");
    for (const View *view : views) {
        if (view->state() == ViewState::busy)
            return workError("a panel is still being computed", view->title().toStdString(), "Export again when the preview is complete.");
        if (view->state() == ViewState::failed || view->state() == ViewState::empty)
            return workError("a panel shows nothing: " + view->message().toStdString(), view->title().toStdString(),
                             "Remove the panel or mend its cause.");
    }
    return {};
}

Result<QByteArray> pagePdf(const FigureSpec &spec, const std::vector<View *> &views)
{
    QBuffer buffer;
    buffer.open(QIODevice::WriteOnly);
    QPdfWriter writer(&buffer);
    writer.setResolution(1440);
    writer.setPageSize(QPageSize(spec.sizeMm, QPageSize::Millimeter, {}, QPageSize::ExactMatch));
    writer.setPageMargins(QMarginsF());
    writer.setTitle(pageTitle(views));
    writer.setCreator(QStringLiteral("SPECTRA Workbench " SPECTRA_VERSION));
    writer.addFileAttachment(QStringLiteral("provenance.json"), pageProvenance(spec, views), QStringLiteral("application/json"));
    QPainter painter;
    if (!painter.begin(&writer))
        return workError("the PDF could not be begun");
    painter.setRenderHint(QPainter::LosslessImageRendering, true);
    painter.scale(10, 10);
    paintPage(painter, spec, views);
    painter.end();
    return buffer.data();
}

Result<QByteArray> pageSvg(const FigureSpec &spec, const std::vector<View *> &views)
{
    QBuffer buffer;
    buffer.open(QIODevice::WriteOnly);
    QSvgGenerator svg;
    svg.setOutputDevice(&buffer);
    svg.setResolution(144);
    svg.setSize(pageArea(spec).size().toSize());
    svg.setViewBox(pageArea(spec));
    svg.setTitle(pageTitle(views));
    svg.setDescription(QString::fromUtf8(pageProvenance(spec, views)).toHtmlEscaped());
    QPainter painter;
    if (!painter.begin(&svg))
        return workError("the SVG could not be begun");
    paintPage(painter, spec, views);
    painter.end();
    return buffer.data();
}

Result<QByteArray> pagePng(const FigureSpec &spec, const std::vector<View *> &views)
{
    const double scale = spec.dpi / 144.0;
    const QSizeF size = pageArea(spec).size() * scale;
    QImage image(size.toSize(), QImage::Format_RGB32);
    if (image.isNull())
        return workError("not enough memory for the picture", {}, "Lower the resolution or the size.");
    image.fill(pageTheme(spec).panel);
    image.setDotsPerMeterX(static_cast<int>(std::lround(spec.dpi / 0.0254)));
    image.setDotsPerMeterY(image.dotsPerMeterX());
    QPainter painter(&image);
    painter.scale(scale, scale);
    paintPage(painter, spec, views);
    painter.end();
    image.setText(QStringLiteral("spectra-provenance"), QString::fromUtf8(pageProvenance(spec, views)));
    image.setText(QStringLiteral("Title"), pageTitle(views));
    image.setText(QStringLiteral("Software"), QStringLiteral("SPECTRA Workbench " SPECTRA_VERSION));
    QBuffer buffer;
    buffer.open(QIODevice::WriteOnly);
    QImageWriter writer(&buffer, "png");
    if (!writer.write(image))
        return workError("the PNG could not be written: " + writer.errorString().toStdString());
    return buffer.data();
}

} // namespace

QJsonObject FigureSpec::toJson() const
{
    return {{QStringLiteral("width_mm"), sizeMm.width()},  {QStringLiteral("height_mm"), sizeMm.height()},
            {QStringLiteral("columns"), columns},          {QStringLiteral("gap_mm"), gapMm},
            {QStringLiteral("letters"), letters},          {QStringLiteral("headers"), headers},
            {QStringLiteral("font"), family},              {QStringLiteral("font_pt"), fontPt},
            {QStringLiteral("theme"), themeName(theme)},   {QStringLiteral("dpi"), dpi}};
}

void FigureSpec::fromJson(const QJsonObject &object)
{
    FigureSpec read = *this;
    read.sizeMm = {object[QStringLiteral("width_mm")].toDouble(sizeMm.width()), object[QStringLiteral("height_mm")].toDouble(sizeMm.height())};
    read.columns = object[QStringLiteral("columns")].toInt(columns);
    read.gapMm = object[QStringLiteral("gap_mm")].toDouble(gapMm);
    read.letters = object[QStringLiteral("letters")].toString(letters);
    read.headers = object[QStringLiteral("headers")].toBool(headers);
    read.family = object[QStringLiteral("font")].toString(family).left(128);
    read.fontPt = object[QStringLiteral("font_pt")].toDouble(fontPt);
    read.theme = themeByName(object[QStringLiteral("theme")].toString()).value_or(theme);
    read.dpi = object[QStringLiteral("dpi")].toInt(dpi);
    if (!QStringList{QString(), QStringLiteral("a"), QStringLiteral("A"), QStringLiteral("(a)")}.contains(read.letters))
        read.letters = letters;
    if (read.check().ok())
        *this = read;
}

Result<void> FigureSpec::check() const
{
    const auto within = [](double value, double low, double high) { return value >= low && value <= high; };
    if (!within(sizeMm.width(), 20, 2000) || !within(sizeMm.height(), 20, 2000))
        return usageError("the page size is out of range", "Figure", "Give 20 to 2000 mm.");
    if (!within(gapMm, 0, 50) || columns < 1 || columns > 8)
        return usageError("gap or columns are out of range", "Figure", "Give a gap of 0 to 50 mm and 1 to 8 columns.");
    if (!within(fontPt, 3, 72))
        return usageError("the font size is out of range", "Figure", "Give 3 to 72 pt.");
    const double pixels = sizeMm.width() / 25.4 * dpi * (sizeMm.height() / 25.4) * dpi;
    if (dpi < 36 || dpi > 2400 || !(pixels <= 200e6))
        return usageError("the picture would have too many pixels", "Figure", "Lower the resolution or the size.");
    return {};
}

std::vector<QRectF> panelPlaces(const FigureSpec &spec, int count)
{
    std::vector<QRectF> places;
    if (count <= 0)
        return places;
    const int columns = std::min(spec.columns, count), rows = (count + columns - 1) / columns;
    const double height = (spec.sizeMm.height() - spec.gapMm * (rows - 1)) / rows;
    for (int row = 0; row < rows; ++row) {
        const int inRow = std::min(columns, count - row * columns);
        const double width = (spec.sizeMm.width() - spec.gapMm * (inRow - 1)) / inRow;
        for (int column = 0; column < inRow; ++column)
            places.emplace_back(column * (width + spec.gapMm), row * (height + spec.gapMm), width, height);
    }
    return places;
}

QString panelLetter(const QString &form, int index)
{
    if (form.isEmpty())
        return {};
    QString letter;
    for (int i = index; i >= 0; i = i / 26 - 1)
        letter.prepend(QChar(ushort('a' + i % 26)));
    if (form == QLatin1String("A"))
        return letter.toUpper();
    return form == QLatin1String("(a)") ? QLatin1Char('(') + letter + QLatin1Char(')') : letter;
}

void paintPage(QPainter &painter, const FigureSpec &spec, const std::vector<View *> &views)
{
    const Theme theme = pageTheme(spec);
    painter.fillRect(pageArea(spec), theme.panel);
    const auto places = panelPlaces(spec, static_cast<int>(views.size()));
    QFont letterFont = theme.bold;
    letterFont.setWeight(QFont::Bold);
    letterFont.setPixelSize(static_cast<int>(std::lround(theme.em() * 1.3)));
    for (std::size_t i = 0; i < views.size(); ++i) {
        QRectF area(places[i].topLeft() * unitsPerMm, places[i].size() * unitsPerMm);
        const QString letter = panelLetter(spec.letters, static_cast<int>(i));
        if (!letter.isEmpty()) {
            const double width = QFontMetricsF(letterFont).horizontalAdvance(letter) + theme.em() * 0.4;
            painter.setFont(letterFont);
            painter.setPen(theme.text);
            painter.drawText(QRectF(area.left() + theme.em() * 0.3, area.top() + theme.em() * 0.3, width, theme.em() * 1.8), Qt::AlignLeft | Qt::AlignTop, letter);
            area.setLeft(area.left() + width);
        }
        painter.save();
        painter.setClipRect(area);
        views[i]->paintFigure(painter, area, theme, spec.headers);
        painter.restore();
    }
}

Result<void> exportPage(const QString &path, const FigureSpec &spec, const std::vector<View *> &views)
{
    SPECTRA_CHECK(spec.check());
    SPECTRA_CHECK(checkViews(views));
    const QString ending = QFileInfo(path).suffix().toLower();
    Result<QByteArray> bytes = usageError("unknown picture format", path.toStdString(), "End the name in .pdf, .svg or .png.");
    if (ending == QLatin1String("pdf"))
        bytes = pagePdf(spec, views);
    else if (ending == QLatin1String("svg"))
        bytes = pageSvg(spec, views);
    else if (ending == QLatin1String("png"))
        bytes = pagePng(spec, views);
    if (!bytes)
        return bytes.error();
    QSaveFile file(path);
    if (!file.open(QIODevice::WriteOnly) || file.write(*bytes) != bytes->size() || !file.commit())
        return workError("the figure could not be written", path.toStdString(), file.errorString().toStdString());
    return {};
}

} // namespace spectra
