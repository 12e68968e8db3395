// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/figure/figureworkspace.h"

#include "app/workbench/shell/widgets.h"
#include "views/viewfactory.h"

#include <QCheckBox>
#include <QFormLayout>
#include <QHBoxLayout>
#include <QJsonArray>
#include <QMenu>
#include <QPainter>
#include <QPushButton>
#include <QScrollArea>
#include <QToolButton>

namespace spectra {

/// Shows the page as it will be written, scaled to the room there is.
class FigurePreview : public QWidget {
public:
    explicit FigurePreview(QWidget *parent) : QWidget(parent) { setMinimumSize(200, 200); }
    void setPage(const FigureSpec *spec, const std::vector<View *> *views)
    {
        m_spec = spec;
        m_views = views;
    }
    void refresh()
    {
        m_image = QImage();
        update();
    }

protected:
    void resizeEvent(QResizeEvent *) override { m_image = QImage(); }
    void paintEvent(QPaintEvent *) override
    {
        QPainter painter(this);
        if (!m_spec)
            return;
        const double scale = std::min((width() - 32) / m_spec->sizeMm.width(), (height() - 32) / m_spec->sizeMm.height());
        const QSizeF size = m_spec->sizeMm * std::max(0.1, scale);
        const QRectF page(QPointF((width() - size.width()) / 2, (height() - size.height()) / 2), size);
        if (m_image.isNull()) {
            const double dpr = devicePixelRatioF();
            m_image = QImage((size * dpr).toSize().expandedTo(QSize(1, 1)), QImage::Format_RGB32);
            m_image.fill(Qt::white);
            QPainter p(&m_image);
            const double units = m_image.width() / (m_spec->sizeMm.width() * 144.0 / 25.4);
            p.scale(units, units);
            paintPage(p, *m_spec, *m_views);
        }
        painter.setPen(palette().color(QPalette::Mid));
        painter.drawRect(page.adjusted(-1, -1, 0, 0));
        painter.drawImage(page, m_image);
        if (m_views->empty()) {
            painter.setPen(QColor(0x5d6675));
            painter.drawText(page, Qt::AlignCenter | Qt::TextWordWrap, FigureWorkspace::tr("Add a view at the left to begin the figure."));
        }
    }

private:
    const FigureSpec *m_spec = nullptr;
    const std::vector<View *> *m_views = nullptr;
    QImage m_image;
};

FigureWorkspace::FigureWorkspace(Session &session, std::function<QJsonObject(const QString &)> stateOf, QWidget *parent)
    : QWidget(parent)
    , m_session(session)
    , m_stateOf(std::move(stateOf))
    , m_stage(new QWidget(this))
    , m_preview(new FigurePreview(this))
    , m_list(new QListWidget(this))
    , m_width(new QDoubleSpinBox(this))
    , m_height(new QDoubleSpinBox(this))
    , m_gap(new QDoubleSpinBox(this))
    , m_font(new QDoubleSpinBox(this))
    , m_columns(new QComboBox(this))
    , m_letters(new QComboBox(this))
    , m_themes(new QComboBox(this))
    , m_dpi(new QComboBox(this))
    , m_family(new QFontComboBox(this))
    , m_headers(new QCheckBox(tr("Headers"), this))
{
    setObjectName(QStringLiteral("figureWorkspace"));
    setAccessibleName(tr("Figure"));
    m_stage->setGeometry(-6000, -6000, 900, 700);
    m_stage->setEnabled(false); // never takes the keyboard
    m_preview->setPage(&m_spec, &m_views);
    m_preview->setAccessibleName(tr("Preview of the figure"));

    for (auto *spin : {m_width, m_height}) {
        spin->setRange(20, 2000);
        spin->setDecimals(1);
        spin->setSuffix(tr(" mm"));
    }
    m_gap->setRange(0, 50);
    m_gap->setDecimals(1);
    m_gap->setSuffix(tr(" mm"));
    m_font->setRange(3, 72);
    m_font->setDecimals(1);
    m_font->setSuffix(tr(" pt"));
    for (int i = 1; i <= 4; ++i)
        m_columns->addItem(QString::number(i), i);
    m_letters->addItem(tr("a, b, c"), QStringLiteral("a"));
    m_letters->addItem(tr("A, B, C"), QStringLiteral("A"));
    m_letters->addItem(tr("(a), (b), (c)"), QStringLiteral("(a)"));
    m_letters->addItem(tr("none"), QString());
    for (ThemeKind kind : {ThemeKind::print, ThemeKind::light, ThemeKind::dark})
        m_themes->addItem(themeName(kind), static_cast<int>(kind));
    for (int dpi : {150, 300, 600})
        m_dpi->addItem(tr("%1 dpi").arg(dpi), dpi);
    m_family->setMaximumWidth(180);
    m_family->setMinimumWidth(60);

    auto *form = new QFormLayout;
    form->setFieldGrowthPolicy(QFormLayout::AllNonFixedFieldsGrow);
    const auto field = [form](const QString &label, QWidget *widget, const QString &tip) {
        widget->setAccessibleName(label);
        widget->setToolTip(tip);
        form->addRow(label, widget);
    };
    field(tr("&Width"), m_width, tr("Width of the page; a column of a journal is about 85 mm"));
    field(tr("&Height"), m_height, tr("Height of the page"));
    field(tr("&Columns"), m_columns, tr("Panels side by side"));
    field(tr("&Gap"), m_gap, tr("Room between panels"));
    field(tr("&Letters"), m_letters, tr("Letters at the panels' upper left"));
    field(tr("&Font"), m_family, tr("Font of all text; it is embedded in PDF"));
    field(tr("Font &size"), m_font, tr("Size of the main text"));
    field(tr("&Theme"), m_themes, tr("Colours: print is black on white"));
    field(tr("PNG &resolution"), m_dpi, tr("Dots per inch of PNG files"));
    form->addRow(QString(), m_headers);
    m_headers->setToolTip(tr("Each panel says what it shows"));

    m_list->setObjectName(QStringLiteral("figurePanels"));
    m_list->setAccessibleName(tr("Panels"));
    m_list->setMaximumHeight(150);
    auto *add = new QToolButton(this);
    add->setObjectName(QStringLiteral("figureAdd"));
    add->setText(tr("Add view"));
    add->setToolTip(tr("Adds a panel, as its dock shows it now"));
    add->setPopupMode(QToolButton::InstantPopup);
    auto *menu = new QMenu(add);
    for (const ViewKind &kind : viewKinds())
        menu->addAction(kind.title, this, [this, id = kind.id] { addPanel(id); })->setToolTip(kind.description);
    menu->setToolTipsVisible(true);
    add->setMenu(menu);
    const auto button = [this](const QString &text, const QString &tip) {
        auto *b = new QToolButton(this);
        b->setText(text);
        b->setToolTip(tip);
        b->setAccessibleName(tip);
        return b;
    };
    auto *up = button(QStringLiteral("↑"), tr("Move the panel forward"));
    auto *down = button(QStringLiteral("↓"), tr("Move the panel back"));
    auto *remove = button(QStringLiteral("−"), tr("Remove the panel"));
    connect(up, &QToolButton::clicked, this, [this] { movePanel(m_list->currentRow(), -1); });
    connect(down, &QToolButton::clicked, this, [this] { movePanel(m_list->currentRow(), 1); });
    connect(remove, &QToolButton::clicked, this, [this] { removePanel(m_list->currentRow()); });
    auto *tools = new QHBoxLayout;
    tools->addWidget(add);
    tools->addStretch();
    tools->addWidget(up);
    tools->addWidget(down);
    tools->addWidget(remove);

    auto *exports = new QGridLayout;
    const std::pair<QString, const char *> pages[] = {{tr("PDF…"), "pdf"}, {tr("SVG…"), "svg"}, {tr("PNG…"), "png"}};
    int column = 0;
    for (const auto &[label, format] : pages) {
        auto *b = new QPushButton(label, this);
        b->setMinimumWidth(40);
        b->setToolTip(tr("Export the whole figure as %1").arg(QString::fromLatin1(format).toUpper()));
        connect(b, &QPushButton::clicked, this, [this, f = QString::fromLatin1(format)] { Q_EMIT exportRequested(nullptr, f); });
        exports->addWidget(b, 0, column++);
    }
    const std::pair<QString, const char *> tables[] = {{tr("CSV…"), "csv"}, {tr("LaTeX…"), "tex"}};
    column = 0;
    for (const auto &[label, format] : tables) {
        auto *b = new QPushButton(label, this);
        b->setMinimumWidth(40);
        b->setToolTip(tr("Export the data of the selected panel as %1").arg(label.chopped(1)));
        connect(b, &QPushButton::clicked, this, [this, f = QString::fromLatin1(format)] {
            if (View *view = selectedPanel())
                Q_EMIT exportRequested(view, f);
        });
        exports->addWidget(b, 1, column++);
    }

    auto *side = new QWidget;
    auto *sideLayout = new QVBoxLayout(side);
    sideLayout->addWidget(new QLabel(tr("Panels"), side));
    sideLayout->addWidget(m_list);
    sideLayout->addLayout(tools);
    sideLayout->addSpacing(8);
    sideLayout->addLayout(form);
    sideLayout->addSpacing(8);
    sideLayout->addWidget(new QLabel(tr("Export the figure, or the data of the selected panel"), side));
    static_cast<QLabel *>(sideLayout->itemAt(sideLayout->count() - 1)->widget())->setWordWrap(true);
    sideLayout->addLayout(exports);
    sideLayout->addStretch();
    auto *scroll = new QScrollArea(this);
    scroll->setWidget(side);
    scroll->setWidgetResizable(true);
    scroll->setFrameShape(QFrame::NoFrame);
    scroll->setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
    scroll->setFixedWidth(300);
    auto *layout = new QHBoxLayout(this);
    layout->setContentsMargins(0, 0, 0, 0);
    layout->addWidget(scroll);
    layout->addWidget(m_preview, 1);

    showSpec();
    for (auto *spin : {m_width, m_height, m_gap, m_font})
        connect(spin, &QDoubleSpinBox::valueChanged, this, &FigureWorkspace::readSpec);
    for (auto *combo : {m_columns, m_letters, m_themes, m_dpi})
        connect(combo, &QComboBox::currentIndexChanged, this, &FigureWorkspace::readSpec);
    connect(m_family, &QFontComboBox::currentFontChanged, this, &FigureWorkspace::readSpec);
    connect(m_headers, &QCheckBox::toggled, this, &FigureWorkspace::readSpec);
    m_render.setSingleShot(true);
    m_render.setInterval(40);
    connect(&m_render, &QTimer::timeout, this, [this] { m_preview->refresh(); });
}

FigureWorkspace::~FigureWorkspace() = default;

std::vector<View *> FigureWorkspace::panels() const
{
    return m_views;
}

void FigureWorkspace::addPanel(const QString &viewId)
{
    View *view = createView(viewId, m_stage);
    if (!view)
        return;
    view->setGeometry(m_stage->rect());
    view->setSession(&m_session);
    if (m_stateOf)
        view->restoreState(m_stateOf(viewId));
    view->show();
    connect(view, &View::stateChanged, this, &FigureWorkspace::scheduleRender);
    connect(view, &View::subtitleChanged, this, &FigureWorkspace::scheduleRender);
    connect(view, &View::workingChanged, this, &FigureWorkspace::scheduleRender);
    m_views.push_back(view);
    panelsChanged();
    m_list->setCurrentRow(m_list->count() - 1);
}

void FigureWorkspace::removePanel(int index)
{
    if (index < 0 || index >= static_cast<int>(m_views.size()))
        return;
    delete m_views[static_cast<std::size_t>(index)];
    m_views.erase(m_views.begin() + index);
    panelsChanged();
}

void FigureWorkspace::movePanel(int index, int by)
{
    const int to = index + by;
    if (index < 0 || to < 0 || index >= static_cast<int>(m_views.size()) || to >= static_cast<int>(m_views.size()))
        return;
    std::swap(m_views[static_cast<std::size_t>(index)], m_views[static_cast<std::size_t>(to)]);
    panelsChanged();
    m_list->setCurrentRow(to);
}

void FigureWorkspace::panelsChanged()
{
    const int row = m_list->currentRow();
    m_list->clear();
    for (std::size_t i = 0; i < m_views.size(); ++i)
        m_list->addItem(QStringLiteral("%1  %2").arg(panelLetter(QStringLiteral("a"), static_cast<int>(i)), m_views[i]->title()));
    m_list->setCurrentRow(std::min(std::max(row, 0), m_list->count() - 1));
    scheduleRender();
    Q_EMIT changed();
}

View *FigureWorkspace::selectedPanel() const
{
    const int row = m_list->currentRow();
    return row >= 0 && row < static_cast<int>(m_views.size()) ? m_views[static_cast<std::size_t>(row)] : nullptr;
}

void FigureWorkspace::setSpec(const FigureSpec &spec)
{
    m_spec = spec;
    showSpec();
    scheduleRender();
}

void FigureWorkspace::showSpec()
{
    m_showing = true;
    m_width->setValue(m_spec.sizeMm.width());
    m_height->setValue(m_spec.sizeMm.height());
    m_gap->setValue(m_spec.gapMm);
    m_font->setValue(m_spec.fontPt);
    m_columns->setCurrentIndex(m_columns->findData(m_spec.columns));
    m_letters->setCurrentIndex(m_letters->findData(m_spec.letters));
    m_themes->setCurrentIndex(m_themes->findData(static_cast<int>(m_spec.theme)));
    if (m_dpi->findData(m_spec.dpi) < 0)
        m_dpi->addItem(tr("%1 dpi").arg(m_spec.dpi), m_spec.dpi);
    m_dpi->setCurrentIndex(m_dpi->findData(m_spec.dpi));
    m_family->setCurrentFont(m_spec.family.isEmpty() ? font() : QFont(m_spec.family));
    m_headers->setChecked(m_spec.headers);
    m_showing = false;
}

void FigureWorkspace::readSpec()
{
    if (m_showing)
        return;
    m_spec.sizeMm = {m_width->value(), m_height->value()};
    m_spec.gapMm = m_gap->value();
    m_spec.fontPt = m_font->value();
    m_spec.columns = m_columns->currentData().toInt();
    m_spec.letters = m_letters->currentData().toString();
    m_spec.theme = static_cast<ThemeKind>(m_themes->currentData().toInt());
    m_spec.dpi = m_dpi->currentData().toInt();
    m_spec.family = m_family->currentFont().family();
    m_spec.headers = m_headers->isChecked();
    scheduleRender();
    Q_EMIT changed();
}

void FigureWorkspace::scheduleRender()
{
    if (!m_render.isActive())
        m_render.start();
}

QJsonObject FigureWorkspace::saveState() const
{
    QJsonArray panels;
    for (const View *view : m_views)
        panels.append(QJsonObject{{QStringLiteral("view"), view->viewId()}, {QStringLiteral("state"), view->saveState()}});
    return {{QStringLiteral("page"), m_spec.toJson()}, {QStringLiteral("panels"), panels}};
}

void FigureWorkspace::restoreState(const QJsonObject &state)
{
    constexpr int maxPanels = 24;
    while (!m_views.empty())
        removePanel(0);
    m_spec.fromJson(state[QStringLiteral("page")].toObject());
    showSpec();
    for (const QJsonValue &value : state[QStringLiteral("panels")].toArray()) {
        if (m_views.size() >= static_cast<std::size_t>(maxPanels))
            break;
        const QJsonObject panel = value.toObject();
        const std::size_t before = m_views.size();
        addPanel(panel[QStringLiteral("view")].toString());
        if (m_views.size() > before)
            m_views.back()->restoreState(panel[QStringLiteral("state")].toObject());
    }
    scheduleRender();
}

bool FigureWorkspace::isWorking() const
{
    return std::ranges::any_of(m_views, [](const View *view) { return view->isWorking(); }) || m_render.isActive();
}

void FigureWorkspace::setTheme(const Theme &)
{
    m_preview->update();
}

} // namespace spectra
