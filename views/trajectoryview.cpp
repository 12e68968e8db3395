// SPDX-License-Identifier: GPL-3.0-or-later
#include "views/trajectoryview.h"

#include "engine/core/parallel.h"
#include "engine/core/routingrecord.h"
#include "views/paintkit.h"
#include "views/trajectorydata.h"

#include <QJsonArray>
#include <QPainter>

#include <algorithm>
#include <array>
#include <cmath>

namespace spectra {

namespace {

constexpr std::int64_t kTexts = 4096; // tokens whose texts are read at a time

QString shownText(const std::string &text)
{
    QString s = QString::fromStdString(text);
    if (s.trimmed().isEmpty() && !s.isEmpty()) // white space must be seen
        return s.contains(QLatin1Char('\n')) ? QStringLiteral("↵") : s.contains(QLatin1Char('\t')) ? QStringLiteral("⇥") : QStringLiteral("␣");
    s.replace(QLatin1Char('\n'), QStringLiteral("↵"));
    s.replace(QLatin1Char('\t'), QStringLiteral("⇥"));
    return s.trimmed();
}

void rangeOf(TrajectoryData &data, const std::vector<float> &values)
{
    std::vector<float> sample;
    const std::size_t step = std::max<std::size_t>(1, values.size() / 20000);
    for (std::size_t i = 0; i < values.size(); i += step)
        if (std::isfinite(values[i]))
            sample.push_back(values[i]);
    if (sample.empty())
        return;
    std::sort(sample.begin(), sample.end());
    data.low = std::min(data.low, sample[sample.size() / 100]);
    data.high = std::max(data.high, sample[sample.size() - 1 - sample.size() / 100]);
}

} // namespace

TrajectoryView::TrajectoryView(QWidget *parent)
    : View(QStringLiteral("trajectory"), tr("Token trajectory"), parent), m_textJob(std::make_unique<LatestJob>())
{
    addOption({QStringLiteral("color"), tr("Colour"), tr("What the colour of a cell means"),
               {{QStringLiteral("expert"), tr("top expert"), true, {}},
                {QStringLiteral("weight"), tr("top weight"), true, {}},
                {QStringLiteral("entropy"), tr("routing entropy"), true, {}},
                {QStringLiteral("nll"), tr("−log p(next)"), true, {}}},
               0, 0, true, true, QStringLiteral("expert")});
    addOption({QStringLiteral("range"), tr("Range"), tr("Which tokens are in view; the wheel zooms"),
               {{QStringLiteral("sequence"), tr("one sequence"), true, {}}, {QStringLiteral("trace"), tr("whole trace"), true, {}}, {QStringLiteral("free"), tr("zoomed"), true, {}}},
               0, 0, true, true, QStringLiteral("sequence")});
}

TrajectoryView::~TrajectoryView()
{
    m_textJob.reset();
}

void TrajectoryView::sessionReset()
{
    m_data.reset();
    m_texts.reset();
    m_textJob->cancel();
    m_placed = false;
    m_dirty = true;
    m_dragFrom = m_dragTo = -1;
}

void TrajectoryView::setTheme(const Theme &theme)
{
    View::setTheme(theme);
    m_dirty = true;
}

void TrajectoryView::refresh()
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
    setChoices(QStringLiteral("color"),
               {{QStringLiteral("expert"), tr("top expert"), true, {}},
                {QStringLiteral("weight"), tr("top weight"), t->info->has(Column::weights), tr("not in this trace")},
                {QStringLiteral("entropy"), tr("routing entropy"), t->info->has(Column::entropy), tr("not in this trace")},
                {QStringLiteral("nll"), tr("−log p(next)"), t->info->hasNll, tr("not in this trace")}});
    const QString color = option(QStringLiteral("color"));
    load(tr("Reading routes"), [this, source = t->source, color](JobContext &job) -> Result<LatestJob::Apply> {
        const auto info = source->info();
        auto loaded = std::make_shared<TrajectoryData>();
        loaded->color = color;
        loaded->decoderIndex = info->decoderIndex;
        loaded->domains = info->domains;
        loaded->experts = info->experts;
        loaded->tokens = info->tokens;
        SPECTRA_TRY(loaded->columns, tokenColumns(source, job.stop()));
        loaded->low = 1e30f;
        loaded->high = -1e30f;
        for (int l = 0; l < info->layers(); ++l) {
            auto routing = layerRouting(source, l, job.stop());
            if (!routing)
                return routing.error();
            loaded->layers.push_back(*routing);
            if (color == QLatin1String("entropy")) {
                auto entropy = layerColumn(source, Column::entropy, l, job.stop());
                if (!entropy)
                    return entropy.error();
                loaded->entropy.push_back(*entropy);
                rangeOf(*loaded, **entropy);
            }
            job.report({"reading routes", l + 1, info->layers(), "layers"});
        }
        if (color == QLatin1String("nll"))
            rangeOf(*loaded, loaded->columns->nll);
        if (color == QLatin1String("weight") || color == QLatin1String("expert")) {
            loaded->low = 0;
            loaded->high = 1;
        }
        if (!(loaded->high > loaded->low)) {
            loaded->low = 0;
            loaded->high = 1;
        }
        return LatestJob::Apply([this, loaded] {
            m_data = loaded;
            m_dirty = true;
            if (!m_placed) {
                m_placed = true;
                if (option(QStringLiteral("range")) == QLatin1String("trace"))
                    setWindow(0, static_cast<double>(loaded->tokens));
                else
                    showSequenceOf(session()->focusedToken().value_or(0));
            }
            readTexts();
            describe();
            showReady();
        });
    });
}

void TrajectoryView::optionChanged(const QString &key)
{
    if (key == QLatin1String("range") && m_data) {
        const QString range = option(key);
        if (range == QLatin1String("trace"))
            setWindow(0, static_cast<double>(m_data->tokens));
        else if (range == QLatin1String("sequence"))
            showSequenceOf(session()->focusedToken().value_or(static_cast<std::int64_t>((m_first + m_last) / 2)));
        return;
    }
    if (key == QLatin1String("range"))
        m_placed = false;
    refresh();
}

void TrajectoryView::rowsChanged(RowLayer layer)
{
    if (layer == RowLayer::filter)
        m_dirty = true;
    repaintCanvas();
}

void TrajectoryView::expertsChanged()
{
    m_dirty = true;
    repaintCanvas();
}

void TrajectoryView::focusChanged()
{
    const auto focus = session()->focusedToken();
    if (m_data && focus) {
        const auto at = static_cast<double>(*focus);
        if (at < m_first || at + 1 > m_last) {
            if (option(QStringLiteral("range")) == QLatin1String("sequence")) {
                showSequenceOf(*focus);
            } else { // the window follows
                const double width = m_last - m_first;
                setWindow(at + 0.5 - width / 2, at + 0.5 + width / 2);
            }
        }
    }
    repaintCanvas();
}

void TrajectoryView::setWindow(double first, double last)
{
    if (!m_data)
        return;
    const auto n = static_cast<double>(m_data->tokens);
    const double width = std::clamp(last - first, std::min(4.0, n), n);
    const double middle = (first + last) / 2;
    first = std::clamp(middle - width / 2, 0.0, std::max(0.0, n - width));
    m_first = first;
    m_last = std::min(n, first + width);
    m_dirty = true;
    readTexts();
    describe();
    repaintCanvas();
}

void TrajectoryView::showSequenceOf(std::int64_t token)
{
    if (!m_data)
        return;
    const auto &offsets = m_data->columns->sequenceOffset;
    if (token < 0 || token >= m_data->tokens || offsets.size() < 2) {
        setWindow(0, static_cast<double>(m_data->tokens));
        return;
    }
    const auto s = static_cast<std::size_t>(std::clamp<std::int64_t>(m_data->columns->sequence[static_cast<std::size_t>(token)], 0,
                                                                     static_cast<std::int64_t>(offsets.size()) - 2));
    const auto first = static_cast<double>(offsets[s]), last = static_cast<double>(std::max(offsets[s] + 1, offsets[s + 1]));
    // A long sequence is shown from its start: a hundred tokens can be told apart, a thousand cannot.
    setWindow(first, last);
}

void TrajectoryView::readTexts()
{
    const auto t = current();
    if (!m_data || !t || m_last - m_first > kTexts / 2.0)
        return;
    const auto first = static_cast<std::int64_t>(m_first), last = std::min(m_data->tokens, static_cast<std::int64_t>(std::ceil(m_last)));
    if (m_texts && m_texts->range.first <= first && m_texts->range.last >= last)
        return;
    const std::int64_t middle = (first + last) / 2;
    const TokenRange range{std::max<std::int64_t>(0, middle - kTexts / 2), std::min(m_data->tokens, middle + kTexts / 2)};
    const LatestJob::Function job = [this, source = t->source, range](JobContext &context) -> Result<LatestJob::Apply> {
        auto read = source->tokens(range, context.stop());
        if (!read)
            return read.error();
        auto texts = std::make_shared<TokenTexts>();
        texts->range = range;
        texts->text = (*read)->text;
        texts->text.resize(static_cast<std::size_t>(range.size()));
        return LatestJob::Apply([this, texts] {
            m_texts = texts;
            repaintCanvas();
        });
    };
    if (isSynchronous())
        m_textJob->runNow(job);
    else
        m_textJob->start(job);
}

void TrajectoryView::describe()
{
    if (!m_data)
        return;
    const auto first = static_cast<std::int64_t>(m_first), last = std::min(m_data->tokens, static_cast<std::int64_t>(std::ceil(m_last)));
    QStringList parts;
    if (first < last) {
        const std::int32_t a = m_data->columns->sequence[static_cast<std::size_t>(first)], b = m_data->columns->sequence[static_cast<std::size_t>(last - 1)];
        if (a == b)
            parts << tr("sequence %1").arg(a);
        else
            parts << tr("sequences %1–%2").arg(a).arg(b);
        const int q = m_data->columns->domain(first);
        if (a == b && q >= 0 && !m_data->domains[static_cast<std::size_t>(q)].empty())
            parts << QString::fromStdString(m_data->domains[static_cast<std::size_t>(q)]);
    }
    parts << tr("%1 tokens × %2 layers").arg(formatCount(last - first)).arg(m_data->layers.size());
    if (m_data->color == QLatin1String("expert"))
        parts << (m_data->layers.empty() || m_data->layers[0]->weights.empty() ? tr("colour: top expert") : tr("colour: top expert, brightness: weight"));
    else if (m_data->color == QLatin1String("weight"))
        parts << tr("colour: weight of the top expert");
    else if (m_data->color == QLatin1String("entropy"))
        parts << tr("colour: routing entropy, nats");
    else
        parts << tr("colour: −log p(next token), nats");
    setSubtitle(parts.join(QStringLiteral(" · ")));
}

QRgb TrajectoryView::cellColor(int layer, std::int64_t token, const Theme &theme) const
{
    const LayerRouting &r = *m_data->layers[static_cast<std::size_t>(layer)];
    const std::uint16_t top = r.top(token);
    if (m_data->color == QLatin1String("expert")) {
        if (top == kNoExpert)
            return theme.missing.rgb();
        // Weight as brightness: never so pale that the hue is lost.
        const double strength = r.weights.empty() ? 1.0 : 0.25 + 0.75 * std::clamp(static_cast<double>(r.topWeight(token)), 0.0, 1.0);
        return mixed(theme.panel, expertColor(top), strength).rgb();
    }
    float v = NAN;
    if (m_data->color == QLatin1String("weight"))
        v = top == kNoExpert ? NAN : r.topWeight(token);
    else if (m_data->color == QLatin1String("entropy") && static_cast<std::size_t>(layer) < m_data->entropy.size())
        v = (*m_data->entropy[static_cast<std::size_t>(layer)])[static_cast<std::size_t>(token)];
    else if (!m_data->columns->nll.empty())
        v = m_data->columns->nll[static_cast<std::size_t>(token)];
    if (!std::isfinite(v))
        return theme.missing.rgb();
    return ColorMap::get(theme.isDark() ? ColorMapId::magma : ColorMapId::viridis).rgb((static_cast<double>(v) - static_cast<double>(m_data->low)) / static_cast<double>(m_data->high - m_data->low));
}

TrajectoryView::Layout TrajectoryView::layout(const QRectF &area, const Theme &theme) const
{
    Layout l;
    const double h = lineHeight(theme.small), em = theme.em();
    const int layers = static_cast<int>(m_data->layers.size());
    const double labels = textWidth(theme.small, area.width() > em * 26 ? tr("layer 00") : QStringLiteral("00")) + em * 0.5;
    double legend = 0;
    if (m_data->color == QLatin1String("expert")) {
        std::vector<LegendEntry> entries;
        for (int e = 0; e < m_data->experts; ++e)
            entries.push_back({QStringLiteral("E%1").arg(e), {}, Glyph::square, false, e});
        if (area.height() > em * 9)
            legend = legendHeight(area.width() - labels, entries, theme, 1) + em * 0.25;
    }
    const double bar = m_data->color == QLatin1String("expert") || area.width() < em * 20
        ? 0
        : colorBarWidth(theme, textWidth(theme.small, QStringLiteral("00.00"))) + em * 0.4;
    l.cells = area.adjusted(labels, em * 0.5, -bar, -legend);
    l.tokenWidth = l.cells.width() / std::max(1.0, m_last - m_first);
    double texts = 0;
    if (l.tokenWidth >= em * 2.6 && m_last - m_first <= 200)
        texts = h; // texts stand upright
    else if (l.tokenWidth >= h * 0.72 && m_last - m_first <= 400)
        texts = std::min(em * 6.5, l.cells.height() * 0.38);
    else
        texts = h; // an axis of token numbers
    l.cells.setBottom(std::max(l.cells.top() + layers * 2.0, l.cells.bottom() - texts - em * 0.2));
    l.rowHeight = std::min(l.cells.height() / layers, em * 7);
    l.cells.setHeight(l.rowHeight * layers);
    l.selection = QRectF(l.cells.left(), area.top(), l.cells.width(), em * 0.32);
    l.texts = QRectF(l.cells.left(), l.cells.bottom() + em * 0.2, l.cells.width(), texts);
    l.legend = QRectF(l.cells.left(), l.texts.bottom() + em * 0.25, l.cells.width(), h);
    if (legend <= 0)
        l.legend = {};
    return l;
}

void TrajectoryView::paintImage(QPainter &p, const Layout &l, const Theme &theme)
{
    const int layers = static_cast<int>(m_data->layers.size());
    const double scale = std::clamp(std::abs(p.transform().m11()) * (p.device() != nullptr ? p.device()->devicePixelRatioF() : 1.0), 1.0, 4.0);
    const int width = std::max(1, static_cast<int>(std::lround(l.cells.width() * scale)));
    const double gap = l.rowHeight >= 5 ? std::min(theme.em() * 0.1, l.rowHeight * 0.12) : 0;
    const bool mine = &theme == &this->theme();
    if (m_dirty || !mine || m_image.width() != width || m_image.height() != layers || m_imageFirst != m_first || m_imageLast != m_last) {
        QImage image(width, layers, QImage::Format_RGB32);
        const double perPixel = (m_last - m_first) / width;
        const auto &experts = session()->selectedExperts();
        const int now = session()->layer();
        const bool allDomains = session()->shownDomains().empty();
        std::array<QRgb, 4096> hue{};
        for (int e = 0; e < std::min(4096, m_data->experts); ++e)
            hue[static_cast<std::size_t>(e)] = expertColor(e).rgb();
        const QRgb panel = theme.panel.rgb(), missing = theme.missing.rgb();
        const bool byExpert = m_data->color == QLatin1String("expert");
        parallelFor(layers, 0, [&](std::int64_t begin, std::int64_t end, int) {
            for (int layer = static_cast<int>(begin); layer < end; ++layer) {
                const LayerRouting &r = *m_data->layers[static_cast<std::size_t>(layer)];
                auto *line = reinterpret_cast<QRgb *>(image.scanLine(layer));
                for (int x = 0; x < width; ++x) {
                    const double from = m_first + x * perPixel;
                    std::int64_t token = std::clamp<std::int64_t>(static_cast<std::int64_t>(from), 0, m_data->tokens - 1);
                    QRgb color;
                    if (perPixel > 1.5 && byExpert) {
                        // Many tokens in one pixel: the most frequent top expert of a few of them, paler where they disagree.
                        constexpr int kMost = 12;
                        std::array<std::uint16_t, kMost> tops{};
                        const int n = std::min(kMost, static_cast<int>(perPixel));
                        int best = 0;
                        std::uint16_t top = kNoExpert;
                        double weight = 0;
                        for (int i = 0; i < n; ++i) {
                            const auto at = std::clamp<std::int64_t>(static_cast<std::int64_t>(from + perPixel * i / n), 0, m_data->tokens - 1);
                            tops[static_cast<std::size_t>(i)] = r.top(at);
                            weight += static_cast<double>(r.topWeight(at)) / n;
                        }
                        for (int i = 0; i < n; ++i) {
                            const auto same = static_cast<int>(std::count(tops.begin(), tops.begin() + n, tops[static_cast<std::size_t>(i)]));
                            if (same > best) {
                                best = same;
                                top = tops[static_cast<std::size_t>(i)];
                            }
                        }
                        color = top == kNoExpert ? missing
                                                 : mixed(QColor::fromRgb(panel), QColor::fromRgb(hue[top & 4095]),
                                                         (0.25 + 0.75 * std::clamp(weight, 0.0, 1.0)) * (0.35 + 0.65 * best / n)).rgb();
                    } else {
                        color = cellColor(layer, token, theme);
                    }
                    const int domain = allDomains ? 0 : m_data->columns->domain(token);
                    bool recede = !allDomains && !session()->domainShown(domain);
                    if (!experts.empty() && layer == now && byExpert)
                        recede = recede || !std::binary_search(experts.begin(), experts.end(), static_cast<int>(r.top(token)));
                    if (recede)
                        color = mixed(QColor::fromRgb(color), theme.panel, 0.78).rgb();
                    line[x] = color;
                }
            }
        });
        m_image = image;
        m_imageFirst = m_first;
        m_imageLast = m_last;
        m_dirty = !mine;
    }
    p.save();
    p.setRenderHint(QPainter::LosslessImageRendering, true);
    p.setRenderHint(QPainter::SmoothPixmapTransform, false);
    for (int layer = 0; layer < layers; ++layer)
        p.drawImage(QRectF(l.cells.left(), l.cells.top() + layer * l.rowHeight + gap / 2, l.cells.width(), l.rowHeight - gap), m_image,
                    QRectF(0, layer, width, 1));
    p.restore();
}

void TrajectoryView::paintTexts(QPainter &p, const Layout &l, double canvasLeft, const Theme &theme)
{
    const double h = lineHeight(theme.small), em = theme.em();
    const auto first = static_cast<std::int64_t>(m_first), last = std::min(m_data->tokens, static_cast<std::int64_t>(std::ceil(m_last)));
    const bool upright = l.tokenWidth >= em * 2.6 && m_last - m_first <= 200, turned = !upright && l.texts.height() > h * 1.2;
    if (!upright && !turned) {
        const auto ticks = niceTicks(m_first, m_last, std::max(1, static_cast<int>(l.texts.width() / (em * 7))));
        for (const double t : ticks) {
            if (t != std::floor(t))
                continue;
            const double x = l.cells.left() + (t - m_first) * l.tokenWidth;
            const QString label = formatCount(static_cast<qint64>(t));
            const double w = textWidth(theme.small, label);
            if (x - w / 2 < l.cells.left() - em || x + w / 2 > l.cells.right() + em * 0.5)
                continue;
            p.setPen(QPen(theme.faint, theme.hairline()));
            p.drawLine(QPointF(x, l.cells.bottom()), QPointF(x, l.cells.bottom() + em * 0.2));
            drawLabel(p, QRectF(x - w / 2 - 1, l.texts.top(), w + 2, h), Qt::AlignHCenter | Qt::AlignVCenter, label, theme.small, theme.muted);
        }
        const QString unit = tr("token");
        const double w = textWidth(theme.small, unit);
        if (l.cells.left() - canvasLeft >= w + em * 0.6)
            drawLabel(p, QRectF(l.cells.left() - w - em * 0.6, l.texts.top(), w + 1, h), Qt::AlignLeft | Qt::AlignVCenter, unit, theme.small, theme.faint);
        return;
    }
    if (!m_texts)
        return;
    const auto t = current();
    const auto focus = session()->focusedToken();
    for (std::int64_t n = first; n < last; ++n) {
        if (n < m_texts->range.first || n >= m_texts->range.last)
            continue;
        const double x = l.cells.left() + (static_cast<double>(n) - m_first) * l.tokenWidth;
        if (x < l.cells.left() - 1 || x + l.tokenWidth > l.cells.right() + 1)
            continue;
        const QString text = shownText(m_texts->text[static_cast<std::size_t>(n - m_texts->range.first)]);
        const bool hot = focus == n, selected = t && t->selection.contains(static_cast<std::size_t>(n)),
                   under = t && t->highlight.contains(static_cast<std::size_t>(n));
        const QColor ink = hot || selected ? theme.selection : under ? theme.text : theme.muted;
        QFont font = theme.mono;
        font.setPixelSize(theme.small.pixelSize());
        if (upright) {
            drawLabel(p, QRectF(x + 1, l.texts.top(), l.tokenWidth - 2, h), Qt::AlignHCenter | Qt::AlignVCenter, text, font, ink);
            continue;
        }
        p.save();
        p.translate(x + l.tokenWidth / 2, l.texts.top());
        p.rotate(-90);
        drawLabel(p, QRectF(-l.texts.height(), -h / 2, l.texts.height(), h), Qt::AlignRight | Qt::AlignVCenter, text, font, ink);
        p.restore();
    }
}

void TrajectoryView::paintContent(QPainter &p, const QRectF &area, const Theme &theme)
{
    if (!m_data || m_last <= m_first)
        return;
    const Layout l = layout(area, theme);
    if (l.cells.width() < 10 || l.rowHeight < 0.5)
        return;
    const double h = lineHeight(theme.small), em = theme.em();
    const int layers = static_cast<int>(m_data->layers.size()), now = session()->layer();
    paintImage(p, l, theme);
    const auto t = current();
    const auto first = static_cast<std::int64_t>(m_first), last = std::min(m_data->tokens, static_cast<std::int64_t>(std::ceil(m_last)));
    const auto xOf = [&](double token) { return l.cells.left() + (token - m_first) * l.tokenWidth; };
    // Runs of one expert in a layer stay joined; a thin line stands between different ones.
    if (l.tokenWidth >= 5 && m_data->color == QLatin1String("expert")) {
        p.setPen(QPen(theme.panel, std::min(em * 0.1, l.tokenWidth * 0.14)));
        QList<QLineF> lines;
        for (int layer = 0; layer < layers; ++layer)
            for (std::int64_t n = first + 1; n < last; ++n)
                if (const LayerRouting &r = *m_data->layers[static_cast<std::size_t>(layer)]; r.top(n) != r.top(n - 1))
                    lines << QLineF(xOf(static_cast<double>(n)), l.cells.top() + layer * l.rowHeight, xOf(static_cast<double>(n)), l.cells.top() + (layer + 1) * l.rowHeight);
        p.drawLines(lines);
    }
    // Where sequences meet
    const auto &offsets = m_data->columns->sequenceOffset;
    const auto borders = std::lower_bound(offsets.begin(), offsets.end(), last) - std::upper_bound(offsets.begin(), offsets.end(), first);
    if (static_cast<double>(borders) * em * 2.5 < l.cells.width()) { // else they would hide what they part
        p.setPen(QPen(theme.text, theme.hairline(), Qt::DotLine));
        for (auto it = std::upper_bound(offsets.begin(), offsets.end(), first); it != offsets.end() && *it < last; ++it)
            p.drawLine(QPointF(xOf(static_cast<double>(*it)), area.top()), QPointF(xOf(static_cast<double>(*it)), l.cells.bottom()));
    }
    // Layer labels
    int step = 1;
    while (l.rowHeight * step < h * 0.95)
        ++step;
    const double labelRight = l.cells.left() - em * 0.4;
    const bool wide = area.width() > em * 26 && l.rowHeight >= h * 0.95;
    for (int layer = 0; layer < layers; ++layer) {
        const double y = l.cells.top() + (layer + 0.5) * l.rowHeight, nowY = l.cells.top() + (now + 0.5) * l.rowHeight;
        if (layer != now && (layer % step != 0 || std::abs(y - nowY) < h * 0.9))
            continue;
        const QString number = QString::number(m_data->decoderIndex[static_cast<std::size_t>(layer)]);
        drawLabel(p, QRectF(area.left(), y - h / 2, labelRight - area.left(), h), Qt::AlignRight | Qt::AlignVCenter, wide ? tr("layer %1").arg(number) : number,
                  layer == now ? theme.bold : theme.small, layer == now ? theme.accent : theme.muted);
    }
    p.setBrush(Qt::NoBrush);
    p.setPen(QPen(theme.accent, std::max(1.0, theme.hairline())));
    p.drawRect(QRectF(l.cells.left(), l.cells.top() + now * l.rowHeight, l.cells.width(), l.rowHeight));
    // Selected tokens: a band above; single ones are outlined when they can be told apart.
    if (t && !t->selection.empty()) {
        std::int64_t run = -1;
        for (std::int64_t n = first; n <= last; ++n) {
            const bool in = n < last && t->selection.contains(static_cast<std::size_t>(n));
            if (in && run < 0)
                run = n;
            if (!in && run >= 0) {
                const double x0 = std::max(xOf(static_cast<double>(run)), l.cells.left()), x1 = std::min(xOf(static_cast<double>(n)), l.cells.right());
                p.fillRect(QRectF(x0, l.selection.top(), std::max(1.0, x1 - x0), l.selection.height()), theme.selection);
                run = -1;
            }
        }
    }
    const auto column = [&](std::int64_t n, const QColor &color, double width) {
        if (n < first || n >= last)
            return;
        const double x = xOf(static_cast<double>(n));
        const double w = std::max(l.tokenWidth, em * 0.2);
        drawOutline(p, QRectF(x, l.cells.top(), w, l.cells.height()), color, theme, width);
    };
    if (m_dragFrom >= 0 && m_dragTo >= 0) {
        const double x0 = xOf(static_cast<double>(std::min(m_dragFrom, m_dragTo))), x1 = xOf(static_cast<double>(std::max(m_dragFrom, m_dragTo) + 1));
        QColor fill = theme.selection;
        fill.setAlphaF(0.22f);
        p.fillRect(QRectF(x0, l.cells.top(), x1 - x0, l.cells.height()), fill);
    }
    if (const auto focus = session()->focusedToken())
        column(*focus, theme.selection, em * 0.14);
    if (t)
        if (const std::size_t n = t->highlight.count(); n > 0 && n <= 200)
            t->highlight.forEach([&](std::size_t row) { column(static_cast<std::int64_t>(row), theme.hover, std::max(1.0, theme.hairline())); });
    paintTexts(p, l, area.left(), theme);
    if (m_data->color == QLatin1String("expert")) {
        if (!l.legend.isEmpty() && l.legend.bottom() <= area.bottom() + 2) {
            std::vector<LegendEntry> entries;
            for (int e = 0; e < m_data->experts; ++e)
                entries.push_back({QStringLiteral("E%1").arg(e), expertColor(e), Glyph::square, false, e});
            drawLegend(p, l.legend, entries, theme);
        }
    } else if (area.right() - l.cells.right() > em * 2) {
        const auto ticks = niceTicks(static_cast<double>(m_data->low), static_cast<double>(m_data->high), 4);
        drawColorBar(p, QRectF(l.cells.right() + em * 0.5, l.cells.top(), area.right() - l.cells.right() - em * 0.5, std::max(l.cells.height(), em * 5)),
                     ColorMap::get(theme.isDark() ? ColorMapId::magma : ColorMapId::viridis), ticks, static_cast<double>(m_data->low), static_cast<double>(m_data->high),
                     [](double v) { return formatTick(v); }, {}, theme);
    }
}

TableData TrajectoryView::tableData() const
{
    TableData table;
    if (!m_data)
        return table;
    const auto first = static_cast<std::int64_t>(m_first), last = std::min(m_data->tokens, static_cast<std::int64_t>(std::ceil(m_last)));
    const auto layers = static_cast<qsizetype>(m_data->layers.size());
    table.caption = title() + QStringLiteral(": ") + subtitle();
    table.header << QStringLiteral("token") << QStringLiteral("sequence") << QStringLiteral("text") << QStringLiteral("layer") << QStringLiteral("expert")
                 << QStringLiteral("weight") << QStringLiteral("entropy") << QStringLiteral("nll");
    table.rows = (last - first) * layers;
    table.cell = [data = m_data, first, layers](qsizetype row, int column) -> QVariant {
        const std::int64_t n = first + row / layers;
        const auto i = static_cast<std::size_t>(n);
        const auto l = static_cast<std::size_t>(row % layers);
        const LayerRouting &r = *data->layers[l];
        switch (column) {
        case 0: return static_cast<qlonglong>(n);
        case 1: return data->columns->sequence[i];
        case 2: {
            const auto text = data->columns->text.find(data->columns->id[i]);
            return text == data->columns->text.end() ? QVariant() : QVariant(QString::fromStdString(text->second));
        }
        case 3: return data->decoderIndex[l];
        case 4: return r.top(n) == kNoExpert ? QVariant() : QVariant(static_cast<int>(r.top(n)));
        case 5: return r.weights.empty() || r.top(n) == kNoExpert ? QVariant() : QVariant(r.topWeight(n));
        case 6: return l < data->entropy.size() ? QVariant((*data->entropy[l])[i]) : QVariant();
        default: return data->columns->nll.empty() ? QVariant() : QVariant(data->columns->nll[i]);
        }
    };
    return table;
}

QJsonObject TrajectoryView::saveState() const
{
    QJsonObject state = View::saveState();
    if (m_data)
        state[QStringLiteral("window")] = QJsonArray{m_first, m_last};
    return state;
}

void TrajectoryView::restoreState(const QJsonObject &state)
{
    View::restoreState(state);
    const QJsonArray window = state[QStringLiteral("window")].toArray();
    if (window.size() == 2 && m_data)
        setWindow(window[0].toDouble(), window[1].toDouble());
}

} // namespace spectra
