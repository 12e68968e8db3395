// SPDX-License-Identifier: GPL-3.0-or-later
#include "views/metricsview.h"

#include "analysis/metrics/evaluate.h"
#include "views/metricsmodel.h"
#include "views/paintkit.h"

#include <QAction>
#include <QApplication>
#include <QClipboard>
#include <QHeaderView>
#include <QKeyEvent>
#include <QLineEdit>
#include <QMenu>
#include <QPainter>
#include <QPainterPath>
#include <QSortFilterProxyModel>
#include <QStyledItemDelegate>
#include <QTableView>

#include <algorithm>
#include <cmath>

namespace spectra {

namespace {

void drawSparkline(QPainter &p, const QRectF &area, const std::vector<double> &values, int marked, const Theme &theme)
{
    double low = INFINITY, high = -INFINITY;
    for (const double v : values)
        if (std::isfinite(v)) {
            low = std::min(low, v);
            high = std::max(high, v);
        }
    if (!(high >= low) || area.width() < 8)
        return;
    const double span = high > low ? high - low : 1;
    const auto at = [&](std::size_t i) {
        const double x = values.size() > 1 ? area.left() + area.width() * static_cast<double>(i) / static_cast<double>(values.size() - 1) : area.center().x();
        return QPointF(x, high > low ? area.bottom() - (values[i] - low) / span * area.height() : area.center().y());
    };
    QPainterPath path;
    bool pen = false;
    for (std::size_t i = 0; i < values.size(); ++i) {
        if (!std::isfinite(values[i])) {
            pen = false;
            continue;
        }
        if (pen)
            path.lineTo(at(i));
        else
            path.moveTo(at(i));
        pen = true;
    }
    p.save();
    p.setRenderHint(QPainter::Antialiasing);
    p.setBrush(Qt::NoBrush);
    p.setPen(QPen(theme.accent, theme.em() * 0.11));
    p.drawPath(path);
    if (marked >= 0 && static_cast<std::size_t>(marked) < values.size() && std::isfinite(values[static_cast<std::size_t>(marked)]))
        drawGlyph(p, at(static_cast<std::size_t>(marked)), theme.em() * 0.2, Glyph::circle, theme.text);
    p.restore();
}

/// Rows are what is selected: no box around the one cell that has the focus.
class RowDelegate : public QStyledItemDelegate {
public:
    using QStyledItemDelegate::QStyledItemDelegate;

protected:
    void initStyleOption(QStyleOptionViewItem *option, const QModelIndex &index) const override
    {
        QStyledItemDelegate::initStyleOption(option, index);
        option->state &= ~QStyle::State_HasFocus;
    }
};

class SparkDelegate : public RowDelegate {
public:
    explicit SparkDelegate(const View *view) : RowDelegate(const_cast<View *>(view)), m_view(view) {}
    void paint(QPainter *p, const QStyleOptionViewItem &option, const QModelIndex &index) const override
    {
        RowDelegate::paint(p, option, index);
        std::vector<double> values;
        for (const QVariant &v : index.data(MetricsModel::layersRole).toList())
            values.push_back(v.toDouble());
        drawSparkline(*p, QRectF(option.rect).adjusted(6, 4, -6, -4), values, index.data(MetricsModel::layerRole).toInt(), m_view->theme());
    }

private:
    const View *m_view;
};

class Filter : public QSortFilterProxyModel {
public:
    using QSortFilterProxyModel::QSortFilterProxyModel;
    bool showAbsent = false;
    void refilter() { invalidateFilter(); }

protected:
    bool filterAcceptsRow(int row, const QModelIndex &parent) const override
    {
        const QModelIndex i = sourceModel()->index(row, 0, parent);
        if (!showAbsent && i.data(MetricsModel::absentRole).toBool())
            return false;
        const QString wanted = filterRegularExpression().pattern();
        return i.data().toString().contains(wanted, Qt::CaseInsensitive) || i.data(MetricsModel::keyRole).toString().contains(wanted, Qt::CaseInsensitive);
    }
    bool lessThan(const QModelIndex &a, const QModelIndex &b) const override
    {
        const QVariant x = a.data(MetricsModel::sortRole), y = b.data(MetricsModel::sortRole);
        if (x.typeId() != QMetaType::Double)
            return QString::localeAwareCompare(x.toString(), y.toString()) < 0;
        if (std::isnan(x.toDouble()) || std::isnan(y.toDouble())) // what has no value goes to the end, up or down
            return sortOrder() == Qt::AscendingOrder ? !std::isnan(x.toDouble()) : std::isnan(x.toDouble());
        return x.toDouble() < y.toDouble();
    }
};

} // namespace

MetricsView::MetricsView(QWidget *parent)
    : View(QStringLiteral("metrics"), tr("Metrics"), parent)
    , m_model(new MetricsModel(this))
    , m_proxy(new Filter(this))
    , m_table(new QTableView(this))
    , m_filter(new QLineEdit(this))
{
    addOption({QStringLiteral("scope"), tr("Scope"), tr("The shown layer, or the mean over layers"),
               {{QStringLiteral("layer"), tr("this layer"), true, {}}, {QStringLiteral("all"), tr("all layers"), true, {}}}, 0, 0, true, true, QStringLiteral("layer")});
    addOption({QStringLiteral("tokens"), tr("Tokens"), tr("Which tokens are measured"),
               {{QStringLiteral("all"), tr("all tokens"), true, {}}, {QStringLiteral("selection"), tr("selected"), true, {}}}, 0, 0, true, true, QStringLiteral("all")});
    addOption({QStringLiteral("intervals"), tr("Intervals"), tr("95 % intervals by resampling sequences"),
               {{QStringLiteral("on"), tr("with intervals"), true, {}}, {QStringLiteral("off"), tr("without intervals"), true, {}}}, 0, 0, true, false, QStringLiteral("on")});
    addOption({QStringLiteral("absent"), tr("Absent metrics"), tr("Metrics that this trace lacks the data for"),
               {{QStringLiteral("hide"), tr("hidden"), true, {}}, {QStringLiteral("show"), tr("shown, with the reason"), true, {}}}, 0, 0, true, false, QStringLiteral("hide")});
    m_filter->setPlaceholderText(tr("Filter"));
    m_filter->setAccessibleName(tr("Filter the metrics"));
    m_filter->setToolTip(tr("Show only metrics whose name or key contains this"));
    m_filter->setClearButtonEnabled(true);
    m_filter->setMinimumWidth(60);
    m_filter->setMaximumWidth(160);
    addToBar(m_filter);
    m_proxy->setSourceModel(m_model);
    m_proxy->setSortRole(MetricsModel::sortRole);
    connect(m_filter, &QLineEdit::textChanged, this, [this](const QString &text) { m_proxy->setFilterFixedString(text); });
    m_table->setModel(m_proxy);
    m_table->setAccessibleName(title());
    m_table->setFrameShape(QFrame::NoFrame);
    m_table->setShowGrid(false);
    m_table->setSortingEnabled(true);
    m_table->horizontalHeader()->setSortIndicatorClearable(true);
    m_table->horizontalHeader()->setSortIndicator(-1, Qt::AscendingOrder);
    m_table->setSelectionBehavior(QAbstractItemView::SelectRows);
    m_table->setSelectionMode(QAbstractItemView::ExtendedSelection);
    m_table->setTabKeyNavigation(false);
    m_table->setWordWrap(false);
    m_table->setHorizontalScrollMode(QAbstractItemView::ScrollPerPixel);
    m_table->setItemDelegate(new RowDelegate(this));
    m_table->setItemDelegateForColumn(MetricsModel::layersColumn, new SparkDelegate(this));
    m_table->verticalHeader()->hide();
    m_table->horizontalHeader()->setHighlightSections(false);
    m_table->horizontalHeader()->setMinimumSectionSize(30);
    m_table->setContextMenuPolicy(Qt::CustomContextMenu);
    connect(m_table, &QWidget::customContextMenuRequested, this, [this](const QPoint &at) {
        QMenu *menu = createContextMenu(m_table);
        menu->setAttribute(Qt::WA_DeleteOnClose);
        menu->popup(m_table->viewport()->mapToGlobal(at));
    });
    m_table->installEventFilter(this);
    setContentWidget(m_table);
    MetricsView::setTheme(theme());
}

MetricsView::~MetricsView() = default;

void MetricsView::setTheme(const Theme &theme)
{
    View::setTheme(theme);
    QPalette p = theme.palette();
    p.setColor(QPalette::Highlight, theme.selectionTint(0.22));
    p.setColor(QPalette::HighlightedText, theme.text);
    p.setColor(QPalette::Inactive, QPalette::Highlight, theme.selectionTint(0.14));
    m_table->setPalette(p);
    QFont font = theme.font;
    m_table->setFont(font);
    m_table->horizontalHeader()->setFont(theme.small);
    m_table->verticalHeader()->setDefaultSectionSize(static_cast<int>(theme.em() * 1.75));
    auto *header = m_table->horizontalHeader();
    header->setSectionResizeMode(QHeaderView::Interactive);
    header->setSectionResizeMode(MetricsModel::nameColumn, QHeaderView::Stretch);
}

void MetricsView::resizeEvent(QResizeEvent *event)
{
    View::resizeEvent(event);
    // A narrow dock keeps what matters most.
    const double em = theme().em();
    const bool narrow = width() < em * 38;
    auto *header = m_table->horizontalHeader();
    header->resizeSection(MetricsModel::valueColumn, static_cast<int>(em * (narrow ? 4.0 : 4.8)));
    header->resizeSection(MetricsModel::chanceColumn, static_cast<int>(em * (narrow ? 3.9 : 4.8)));
    header->resizeSection(MetricsModel::layersColumn, static_cast<int>(em * (narrow ? 4.4 : 7)));
    header->resizeSection(MetricsModel::intervalColumn, static_cast<int>(em * 9));
    m_table->setColumnHidden(MetricsModel::intervalColumn, narrow);
    m_table->setColumnHidden(MetricsModel::layersColumn, width() < em * 24);
}

void MetricsView::sessionReset()
{
    m_model->setReport(nullptr);
    m_intervals = false;
}

void MetricsView::refresh()
{
    const auto t = current();
    if (t->info->layers() == 0 || t->info->experts == 0) {
        showEmpty(tr("This trace has no layers with experts. Upcycle the model to get some."));
        return;
    }
    if (t->info->tokens == 0) {
        showEmpty(tr("No token has been routed yet."));
        return;
    }
    const bool onlySelected = option(QStringLiteral("tokens")) == QLatin1String("selection");
    if (onlySelected && t->selection.empty()) {
        showEmpty(tr("Select tokens in any view to measure them."));
        return;
    }
    MetricOptions options;
    options.matrices = false;
    if (onlySelected || t->filter.count() != t->filter.size()) {
        auto rows = std::make_shared<RowSet>(t->filter);
        if (onlySelected)
            rows->intersect(t->selection);
        options.selection = rows;
    }
    const bool intervals = option(QStringLiteral("intervals")) == QLatin1String("on");
    const bool quickFirst = !isSynchronous();
    m_intervals = false;
    load(tr("Measuring"), [this, source = t->source, options, intervals, quickFirst](JobContext &job) -> Result<LatestJob::Apply> {
        const auto progress = [&](const Progress &p) { job.report(p); };
        if (quickFirst) {
            // What costs one pass is shown at once; intervals and the slow ones follow.
            MetricOptions quick = options;
            for (const MetricInfo &m : metricTable())
                if (m.cost == MetricCost::tables || m.cost == MetricCost::streaming)
                    quick.keys.push_back(m.key);
            auto report = evaluateMetrics(*source, quick, job.stop(), progress);
            if (!report)
                return report.error();
            auto shared = std::make_shared<const MetricReport>(std::move(*report));
            job.partial([this, shared] { take(shared, false); });
        }
        MetricOptions full = options;
        full.intervals = intervals;
        auto report = evaluateMetrics(*source, full, job.stop(), progress);
        if (!report)
            return report.error();
        auto shared = std::make_shared<const MetricReport>(std::move(*report));
        return LatestJob::Apply([this, shared, intervals] {
            take(shared, intervals);
            showReady();
        });
    });
}

void MetricsView::take(std::shared_ptr<const MetricReport> report, bool intervals)
{
    m_intervals = intervals;
    m_model->setReport(std::move(report));
    rescope();
    if (!hasContent()) {
        showReady();
        if (isWorking())
            showBusy(tr("Intervals follow"));
    }
}

void MetricsView::rescope()
{
    const auto t = current();
    if (!t)
        return;
    const bool layer = option(QStringLiteral("scope")) == QLatin1String("layer");
    const auto &domains = session()->shownDomains();
    m_model->setScope(layer ? std::optional<int>(session()->layer()) : std::nullopt, domains.size() == 1 ? std::optional<int>(domains.front()) : std::nullopt);
    auto *filter = static_cast<Filter *>(m_proxy);
    filter->showAbsent = option(QStringLiteral("absent")) == QLatin1String("show");
    filter->refilter();
    QStringList parts;
    parts << (layer ? tr("layer %1").arg(session()->decoderLayer()) : tr("mean over %1 layers").arg(t->info->layers()));
    if (domains.size() == 1)
        parts << QString::fromStdString(t->info->domains[static_cast<std::size_t>(domains.front())]);
    if (option(QStringLiteral("tokens")) == QLatin1String("selection"))
        parts << tr("%1 selected tokens").arg(formatCount(static_cast<qint64>(t->selection.count())));
    if (m_intervals)
        parts << tr("95 % interval over %1 sequences").arg(formatCount(t->info->sequences));
    setSubtitle(parts.join(QStringLiteral(" · ")));
}

void MetricsView::optionChanged(const QString &key)
{
    if (key == QLatin1String("scope") || key == QLatin1String("absent"))
        rescope();
    else
        refresh();
}

void MetricsView::rowsChanged(RowLayer layer)
{
    if (!current())
        return;
    if (layer == RowLayer::filter || (layer == RowLayer::selection && option(QStringLiteral("tokens")) == QLatin1String("selection")))
        refresh();
}

TableData MetricsView::tableData() const
{
    TableData table;
    table.caption = title() + QStringLiteral(": ") + subtitle();
    table.header << QStringLiteral("key") << QStringLiteral("name") << QStringLiteral("value") << QStringLiteral("low") << QStringLiteral("high")
                 << QStringLiteral("chance");
    std::vector<QVariantList> rows;
    std::size_t layers = 0;
    for (int r = 0; r < m_proxy->rowCount(); ++r)
        layers = std::max(layers, m_model->layers(m_proxy->mapToSource(m_proxy->index(r, 0)).row()).size());
    const auto t = current();
    for (std::size_t l = 0; l < layers; ++l)
        table.header << QStringLiteral("layer %1").arg(t && l < t->info->decoderIndex.size() ? t->info->decoderIndex[l] : static_cast<int>(l));
    for (int r = 0; r < m_proxy->rowCount(); ++r) {
        const int source = m_proxy->mapToSource(m_proxy->index(r, 0)).row();
        const MetricPoint p = m_model->point(source);
        const auto number = [](const std::optional<double> &v) { return QVariant(v.value_or(NAN)); };
        QVariantList row{QString::fromStdString(m_model->result(source).key), MetricsModel::label(m_model->result(source)), number(p.value),
                         number(p.low), number(p.high), number(p.chance)};
        auto values = m_model->layers(source);
        values.resize(layers, NAN);
        for (const double v : values)
            row << v;
        rows.push_back(std::move(row));
    }
    table.rows = static_cast<qsizetype>(rows.size());
    table.cell = [rows](qsizetype r, int c) { return rows[static_cast<std::size_t>(r)][c]; };
    return table;
}

void MetricsView::copyAsText()
{
    // The marked rows, or all: what the table shows, as text.
    QModelIndexList marked = m_table->selectionModel()->selectedRows();
    std::sort(marked.begin(), marked.end(), [](const QModelIndex &a, const QModelIndex &b) { return a.row() < b.row(); });
    if (marked.isEmpty())
        for (int r = 0; r < m_proxy->rowCount(); ++r)
            marked << m_proxy->index(r, 0);
    const TableData table = tableData();
    TableData some = table;
    some.rows = marked.size();
    some.cell = [table, marked](qsizetype r, int c) { return table.cell(marked[r].row(), c); };
    QApplication::clipboard()->setText(QString::fromUtf8(some.separated('\t')));
}

void MetricsView::copyAsLatex()
{
    QApplication::clipboard()->setText(QString::fromUtf8(tableData().latex()));
}

/// Ctrl+C copies rows, where the table's own handler would copy one cell.
bool MetricsView::eventFilter(QObject *watched, QEvent *event)
{
    if (watched == m_table && event->type() == QEvent::KeyPress && static_cast<QKeyEvent *>(event)->matches(QKeySequence::Copy)) {
        copyAsText();
        return true;
    }
    return View::eventFilter(watched, event);
}

QMenu *MetricsView::createContextMenu(QWidget *parent)
{
    QMenu *menu = View::createContextMenu(parent);
    QAction *before = menu->actions().isEmpty() ? nullptr : menu->actions().last();
    auto *text = new QAction(tr("Copy rows as text"), menu);
    auto *tex = new QAction(tr("Copy as LaTeX table"), menu);
    connect(text, &QAction::triggered, this, &MetricsView::copyAsText);
    connect(tex, &QAction::triggered, this, &MetricsView::copyAsLatex);
    menu->insertActions(before, {text, tex});
    return menu;
}

/// The same table for paper: the rows that the filter lets through.
void MetricsView::paintContent(QPainter &p, const QRectF &area, const Theme &theme)
{
    const double h = lineHeight(theme.small) * 1.22, em = theme.em();
    const double spark = area.width() > em * 30 ? em * 6 : 0, interval = m_intervals && area.width() > em * 24 ? em * 8 : 0, chance = em * 4, value = em * 4.2;
    const double name = area.width() - spark - interval - chance - value;
    double y = area.top();
    const auto row = [&](const QString &a, const QString &b, const QString &c, const QString &d, const QColor &ink, const QFont &font) {
        double x = area.left();
        drawLabel(p, QRectF(x, y, name, h), Qt::AlignLeft | Qt::AlignVCenter, a, font, ink);
        x += name;
        drawLabel(p, QRectF(x, y, value, h), Qt::AlignRight | Qt::AlignVCenter, b, font, ink);
        x += value;
        if (interval > 0)
            drawLabel(p, QRectF(x, y, interval, h), Qt::AlignRight | Qt::AlignVCenter, c, font, theme.muted);
        x += interval;
        drawLabel(p, QRectF(x, y, chance, h), Qt::AlignRight | Qt::AlignVCenter, d, font, theme.muted);
    };
    row(tr("metric"), tr("value"), tr("95 % interval"), tr("chance"), theme.muted, theme.small);
    if (spark > 0)
        drawLabel(p, QRectF(area.right() - spark + em, y, spark - em, h), Qt::AlignLeft | Qt::AlignVCenter, tr("layers"), theme.small, theme.muted);
    y += h;
    p.setPen(QPen(theme.faint, theme.hairline()));
    p.drawLine(QPointF(area.left(), y), QPointF(area.right(), y));
    const int rows = m_proxy->rowCount();
    for (int r = 0; r < rows; ++r) {
        if (y + 2 * h > area.bottom() && r + 1 < rows) {
            drawLabel(p, QRectF(area.left(), y, area.width(), h), Qt::AlignLeft | Qt::AlignVCenter, tr("and %1 more").arg(rows - r), theme.small, theme.faint);
            break;
        }
        const auto text = [&](int column) { return m_proxy->index(r, column).data().toString(); };
        row(text(MetricsModel::nameColumn), text(MetricsModel::valueColumn), text(MetricsModel::intervalColumn), text(MetricsModel::chanceColumn), theme.text, theme.small);
        const int source = m_proxy->mapToSource(m_proxy->index(r, 0)).row();
        if (spark > 0)
            drawSparkline(p, QRectF(area.right() - spark + em, y + h * 0.2, spark - em * 1.2, h * 0.6), m_model->layers(source),
                          option(QStringLiteral("scope")) == QLatin1String("layer") ? session()->layer() : -1, theme);
        y += h;
        p.setPen(QPen(theme.grid, theme.hairline()));
        p.drawLine(QPointF(area.left(), y), QPointF(area.right(), y));
    }
}

} // namespace spectra
