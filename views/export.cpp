// SPDX-License-Identifier: GPL-3.0-or-later
#include "views/export.h"

#include "engine/core/files.h"

#include <QApplication>
#include <QBuffer>
#include <QClipboard>
#include <QFile>
#include <QFileInfo>
#include <QImageReader>
#include <QImageWriter>
#include <QJsonArray>
#include <QJsonDocument>
#include <QMimeData>
#include <QPageSize>
#include <QPainter>
#include <QPdfWriter>
#include <QRegularExpression>
#include <QSvgGenerator>

#include <cmath>

namespace spectra {

namespace {

// Pictures are laid out in units of 1/144 inch: half points. The print theme's font is 14 of them, 7 pt.
constexpr double kUnitsPerMm = 144.0 / 25.4;
const QString kProvenanceKey = QStringLiteral("spectra-provenance");

Result<void> checkOptions(const FigureOptions &o)
{
    const auto sane = [](double mm) { return std::isfinite(mm) && mm >= 10 && mm <= 2000; };
    if (!sane(o.sizeMm.width()) || !sane(o.sizeMm.height()))
        return usageError("figure size is out of range", "--size", "Give a width and a height of 10 to 2000 mm, as in 85x60mm.");
    if (o.dpi < 36 || o.dpi > 2400)
        return usageError("resolution is out of range", "--dpi", "Give 36 to 2400 dots per inch.");
    const double pixels = o.sizeMm.width() / 25.4 * o.dpi * o.sizeMm.height() / 25.4 * o.dpi;
    if (pixels > 200e6)
        return usageError("the picture would have more than 200 million pixels", "--dpi", "Lower --dpi or --size.");
    return {};
}

Theme themeFor(const FigureOptions &o)
{
    Theme t = Theme::make(o.theme, o.fontFamily, 14);
    for (QFont *f : {&t.font, &t.small, &t.bold, &t.mono})
        f->setHintingPreference(QFont::PreferNoHinting); // one layout at every resolution
    return t;
}

QRectF areaOf(const FigureOptions &o)
{
    return QRectF(0, 0, o.sizeMm.width() * kUnitsPerMm, o.sizeMm.height() * kUnitsPerMm);
}

QString titleOf(const View &view)
{
    return view.subtitle().isEmpty() ? view.title() : view.title() + QStringLiteral(": ") + view.subtitle();
}

Result<void> checkReady(const View &view)
{
    if (view.error())
        return *view.error();
    if (view.state() == ViewState::busy)
        return workError("the view is still reading", view.viewId().toStdString(), "Wait until the picture is there.");
    if (view.state() == ViewState::empty)
        return inputError("nothing to draw: " + view.message().toStdString(), view.viewId().toStdString());
    return {};
}

QByteArray xmp(const View &view, const QByteArray &json)
{
    const auto escaped = [](const QString &s) { return s.toHtmlEscaped().toUtf8(); };
    return "<?xpacket begin=\"\xEF\xBB\xBF\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>\n"
           "<x:xmpmeta xmlns:x=\"adobe:ns:meta/\">\n"
           "<rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\">\n"
           "<rdf:Description rdf:about=\"\" xmlns:dc=\"http://purl.org/dc/elements/1.1/\" xmlns:spectra=\"urn:spectra:figure\">\n"
           "<dc:title><rdf:Alt><rdf:li xml:lang=\"x-default\">"
        + escaped(titleOf(view)) + "</rdf:li></rdf:Alt></dc:title>\n<spectra:provenance>" + escaped(QString::fromUtf8(json))
        + "</spectra:provenance>\n</rdf:Description>\n</rdf:RDF>\n</x:xmpmeta>\n<?xpacket end=\"w\"?>\n";
}

Result<void> writeFile(const QString &path, const QByteArray &bytes, bool overwrite)
{
    auto file = AtomicFile::create(path.toStdString(), overwrite);
    if (!file)
        return file.error();
    file->stream().write(bytes.constData(), static_cast<std::streamsize>(bytes.size()));
    return file->commit();
}

} // namespace

QJsonObject provenance(const View &view, const FigureOptions &options)
{
    QJsonObject o;
    o[QStringLiteral("program")] = QStringLiteral("SPECTRA Workbench");
    o[QStringLiteral("version")] = QStringLiteral(SPECTRA_VERSION);
    o[QStringLiteral("view")] = view.viewId();
    o[QStringLiteral("state")] = view.saveState();
    o[QStringLiteral("title")] = titleOf(view);
    o[QStringLiteral("theme")] = themeName(options.theme);
    if (const Session *session = view.session()) {
        QJsonArray traces;
        for (const auto &t : session->traces()) {
            QJsonObject trace;
            trace[QStringLiteral("uuid")] = QString::fromStdString(t->info->uuid);
            // The plain name only: a picture goes to other people, folders of this machine do not.
            trace[QStringLiteral("file")] = QFileInfo(QString::fromStdString(t->info->file)).fileName();
            trace[QStringLiteral("model")] = QString::fromStdString(t->info->model.name);
            trace[QStringLiteral("checkpoint_sha256")] = QString::fromStdString(t->info->model.checkpointSha256);
            trace[QStringLiteral("tokens")] = static_cast<double>(t->info->tokens);
            if (!t->info->complete)
                trace[QStringLiteral("complete")] = false;
            traces.append(trace);
        }
        o[QStringLiteral("traces")] = traces;
        o[QStringLiteral("session")] = session->saveState();
    }
    if (!options.commandLine.isEmpty())
        o[QStringLiteral("command")] = options.commandLine;
    return o;
}

QJsonObject readProvenance(const QString &path)
{
    QFile file(path);
    if (!file.open(QIODevice::ReadOnly) || file.size() > (qint64(256) << 20))
        return {};
    QByteArray json;
    if (const QByteArray magic = file.peek(8); magic.startsWith("\x89PNG")) {
        QImageReader reader(&file, "png");
        json = reader.text(kProvenanceKey).toUtf8();
        if (json.isEmpty())
            json = reader.read().text(kProvenanceKey).toUtf8();
    } else if (magic.startsWith("%PDF")) {
        const QByteArray all = file.readAll();
        const qsizetype from = all.indexOf("<spectra:provenance>"), to = all.indexOf("</spectra:provenance>");
        if (from < 0 || to < from)
            return {};
        json = all.mid(from + 20, to - from - 20);
        json.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&");
    }
    return QJsonDocument::fromJson(json).object();
}

Result<QByteArray> pictureAsPdf(View &view, const FigureOptions &options)
{
    SPECTRA_CHECK(checkOptions(options));
    SPECTRA_CHECK(checkReady(view));
    QBuffer buffer;
    buffer.open(QIODevice::WriteOnly);
    const QByteArray json = QJsonDocument(provenance(view, options)).toJson(QJsonDocument::Compact);
    {
        QPdfWriter writer(&buffer);
        writer.setResolution(1440);
        writer.setPageSize(QPageSize(options.sizeMm, QPageSize::Millimeter, {}, QPageSize::ExactMatch));
        writer.setPageMargins(QMarginsF());
        writer.setTitle(titleOf(view));
        writer.setCreator(QStringLiteral("SPECTRA Workbench " SPECTRA_VERSION));
        writer.setDocumentXmpMetadata(xmp(view, json));
        QPainter p;
        if (!p.begin(&writer))
            return workError("the PDF could not be begun");
        p.setRenderHint(QPainter::LosslessImageRendering, true);
        p.scale(10, 10); // 1440 dots per inch over 144 units
        view.paintFigure(p, areaOf(options), themeFor(options), options.header);
        p.end();
    }
    return buffer.data();
}

Result<QByteArray> pictureAsSvg(View &view, const FigureOptions &options)
{
    SPECTRA_CHECK(checkOptions(options));
    SPECTRA_CHECK(checkReady(view));
    QBuffer buffer;
    buffer.open(QIODevice::WriteOnly);
    {
        QSvgGenerator svg;
        svg.setOutputDevice(&buffer);
        svg.setResolution(144);
        const QRectF area = areaOf(options);
        svg.setSize(area.size().toSize());
        svg.setViewBox(area);
        svg.setTitle(titleOf(view));
        svg.setDescription(QString::fromUtf8(QJsonDocument(provenance(view, options)).toJson(QJsonDocument::Compact)).toHtmlEscaped());
        QPainter p;
        if (!p.begin(&svg))
            return workError("the SVG could not be begun");
        view.paintFigure(p, area, themeFor(options), options.header);
        p.end();
    }
    return buffer.data();
}

Result<QByteArray> pictureAsPng(View &view, const FigureOptions &options)
{
    SPECTRA_CHECK(checkOptions(options));
    SPECTRA_CHECK(checkReady(view));
    const QRectF area = areaOf(options);
    const double scale = options.dpi / 144.0;
    QImage image(static_cast<int>(std::lround(area.width() * scale)), static_cast<int>(std::lround(area.height() * scale)), QImage::Format_RGB32);
    if (image.isNull())
        return workError("not enough memory for the picture", {}, "Lower --dpi or --size.");
    const Theme theme = themeFor(options);
    image.fill(theme.panel);
    image.setDotsPerMeterX(static_cast<int>(std::lround(options.dpi / 0.0254)));
    image.setDotsPerMeterY(image.dotsPerMeterX());
    {
        QPainter p(&image);
        p.scale(scale, scale);
        view.paintFigure(p, area, theme, options.header);
    }
    image.setText(kProvenanceKey, QString::fromUtf8(QJsonDocument(provenance(view, options)).toJson(QJsonDocument::Compact)));
    image.setText(QStringLiteral("Title"), titleOf(view));
    image.setText(QStringLiteral("Software"), QStringLiteral("SPECTRA Workbench " SPECTRA_VERSION));
    QByteArray bytes;
    QBuffer buffer(&bytes);
    buffer.open(QIODevice::WriteOnly);
    QImageWriter writer(&buffer, "png");
    writer.setCompression(70);
    if (!writer.write(image))
        return workError("the PNG could not be written: " + writer.errorString().toStdString());
    return bytes;
}

Result<void> exportView(View &view, const QString &path, const FigureOptions &options)
{
    const QString ending = QFileInfo(path).suffix().toLower();
    const std::string place = path.toStdString();
    Result<QByteArray> bytes = usageError("unknown picture format", place, "End the name in .pdf, .svg, .png, .csv, .tsv or .tex.");
    if (ending == QLatin1String("pdf"))
        bytes = pictureAsPdf(view, options);
    else if (ending == QLatin1String("svg"))
        bytes = pictureAsSvg(view, options);
    else if (ending == QLatin1String("png"))
        bytes = pictureAsPng(view, options);
    else if (ending == QLatin1String("csv") || ending == QLatin1String("tsv") || ending == QLatin1String("tex")) {
        SPECTRA_CHECK(checkReady(view));
        const TableData table = view.tableData();
        bytes = ending == QLatin1String("tex") ? table.latex() : table.separated(ending == QLatin1String("tsv") ? '\t' : ',');
    }
    if (!bytes)
        return bytes.error();
    return writeFile(path, *bytes, options.overwrite);
}

QMimeData *clipboardData(View &view, FigureOptions options)
{
    auto *mime = new QMimeData;
    if (auto png = pictureAsPng(view, options)) {
        mime->setData(QStringLiteral("image/png"), *png);
        mime->setImageData(QImage::fromData(*png, "PNG"));
    }
    if (auto svg = pictureAsSvg(view, options))
        mime->setData(QStringLiteral("image/svg+xml"), *svg);
    const TableData table = view.tableData();
    constexpr qsizetype rows = 100'000; // what a spreadsheet still takes
    if (table.rows > 0 && table.rows <= rows) {
        const QByteArray tsv = table.separated('\t');
        mime->setData(QStringLiteral("text/tab-separated-values"), tsv);
        mime->setText(QString::fromUtf8(tsv));
    }
    return mime;
}

void copyToClipboard(View &view)
{
    FigureOptions options;
    options.theme = view.theme().isDark() ? ThemeKind::dark : ThemeKind::light;
    options.sizeMm = QSizeF(std::max(60, view.width()), std::max(40, view.height())) * (25.4 / 144.0);
    options.dpi = 288;
    QApplication::clipboard()->setMimeData(clipboardData(view, options));
}

Result<QSizeF> parseFigureSize(const QString &text)
{
    static const QRegularExpression form(QStringLiteral("^\\s*(\\d+(?:\\.\\d+)?)\\s*[x×]\\s*(\\d+(?:\\.\\d+)?)\\s*(?:mm)?\\s*$"));
    const auto match = form.match(text);
    const QSizeF size = match.hasMatch() ? QSizeF(match.captured(1).toDouble(), match.captured(2).toDouble()) : QSizeF();
    if (!match.hasMatch() || size.width() < 10 || size.height() < 10 || size.width() > 2000 || size.height() > 2000)
        return usageError("not a figure size", "--size " + text.toStdString(), "Give width and height in mm, 10 to 2000, as in 85x60mm.");
    return size;
}

} // namespace spectra
