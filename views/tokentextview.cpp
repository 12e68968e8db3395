// SPDX-License-Identifier: GPL-3.0-or-later
#include "views/tokentextview.h"

#include "views/paintkit.h"

#include <QApplication>
#include <QFontMetricsF>
#include <QHelpEvent>
#include <QKeyEvent>
#include <QMouseEvent>
#include <QPainter>
#include <QScrollBar>
#include <QToolTip>

#include <algorithm>
#include <cmath>

namespace spectra {

namespace {

/// A stretch of one token on one line.
struct Piece {
    int token = 0;
    QRectF rect;   // in the content
    QString text;
};

} // namespace

struct TokenTextView::Private {
    TokenTextView *view = nullptr;
    Session *session = nullptr;
    Theme theme = Theme::make(ThemeKind::light);
    QString placeholder;
    std::vector<ShownToken> tokens;
    std::vector<Piece> pieces;   // in reading order
    std::vector<int> firstPiece; // of each token; −1: it has none (an empty text)
    std::size_t laid = 0;        // tokens whose pieces are known
    double x = 0, y = 0;         // where the next one goes
    double width = 0;
    int hover = -1;
    int dragFrom = -1, dragTo = -1;
    SelectMode mode = SelectMode::replace;

    [[nodiscard]] double margin() const { return 4; }
    [[nodiscard]] double line() const { return std::ceil(QFontMetricsF(theme.mono).height() * 1.22); }

    void reset()
    {
        pieces.clear();
        firstPiece.clear();
        laid = 0;
        x = y = 0;
    }

    /// Lays out what is new: appending a token costs that token.
    void layOut()
    {
        const double room = std::max(40.0, view->viewport()->width() - 2 * margin());
        if (room != width) {
            width = room;
            reset();
        }
        const QFontMetricsF metrics(theme.mono);
        for (; laid < tokens.size(); ++laid) {
            firstPiece.push_back(-1);
            QString text = tokens[laid].text;
            text.replace(QLatin1Char('\t'), QStringLiteral("    "));
            text.remove(QLatin1Char('\r'));
            const QStringList lines = text.split(QLatin1Char('\n'));
            for (qsizetype i = 0; i < lines.size(); ++i) {
                QString rest = lines[i];
                if (i + 1 < lines.size())
                    rest += QChar(0x21b5); // the line's end is part of a token: it has a place to point at
                while (!rest.isEmpty()) {
                    double w = metrics.horizontalAdvance(rest);
                    qsizetype take = rest.size();
                    if (x + w > width && x > 0) { // a token is broken only where a line cannot hold it
                        x = 0;
                        y += line();
                        continue;
                    }
                    while (x + w > width && take > 1) {
                        --take;
                        w = metrics.horizontalAdvance(rest.left(take));
                    }
                    if (firstPiece.back() < 0)
                        firstPiece.back() = static_cast<int>(pieces.size());
                    pieces.push_back({static_cast<int>(laid), QRectF(x, y, w, line()), rest.left(take)});
                    x += w;
                    rest = rest.mid(take);
                }
                if (i + 1 < lines.size()) {
                    x = 0;
                    y += line();
                }
            }
        }
        const int height = static_cast<int>(y + line() + 2 * margin());
        view->verticalScrollBar()->setPageStep(view->viewport()->height());
        view->verticalScrollBar()->setSingleStep(static_cast<int>(line()));
        view->verticalScrollBar()->setRange(0, std::max(0, height - view->viewport()->height()));
    }

    [[nodiscard]] QPointF offset() const { return {margin(), margin() - view->verticalScrollBar()->value()}; }
    [[nodiscard]] int indexOf(std::int64_t row) const
    {
        const auto at = std::lower_bound(tokens.begin(), tokens.end(), row, [](const ShownToken &t, std::int64_t r) { return t.row < r; });
        return at != tokens.end() && at->row == row ? static_cast<int>(at - tokens.begin()) : -1;
    }
    void show(int index)
    {
        if (index < 0 || static_cast<std::size_t>(index) >= firstPiece.size() || firstPiece[static_cast<std::size_t>(index)] < 0)
            return;
        const QRectF r = pieces[static_cast<std::size_t>(firstPiece[static_cast<std::size_t>(index)])].rect;
        QScrollBar *bar = view->verticalScrollBar();
        if (r.top() < bar->value())
            bar->setValue(static_cast<int>(r.top()));
        else if (r.bottom() + 2 * margin() > bar->value() + view->viewport()->height())
            bar->setValue(static_cast<int>(r.bottom() + 2 * margin() - view->viewport()->height()));
    }
    void follow(bool atEnd)
    {
        layOut();
        if (atEnd)
            view->verticalScrollBar()->setValue(view->verticalScrollBar()->maximum());
        view->viewport()->update();
    }
    [[nodiscard]] bool atEnd() const { return view->verticalScrollBar()->value() >= view->verticalScrollBar()->maximum() - 2; }
};

TokenTextView::TokenTextView(QWidget *parent) : QAbstractScrollArea(parent), d(std::make_unique<Private>())
{
    d->view = this;
    setAccessibleName(tr("Tokens of the text"));
    setFocusPolicy(Qt::StrongFocus);
    setFrameShape(QFrame::NoFrame);
    setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
    viewport()->setMouseTracking(true);
    viewport()->setCursor(Qt::ArrowCursor);
    setMinimumSize(120, 60);
}

TokenTextView::~TokenTextView() = default;

void TokenTextView::setSession(Session *session)
{
    if (d->session != nullptr)
        d->session->disconnect(this);
    d->session = session;
    if (session != nullptr) {
        const auto repaint = [this] { viewport()->update(); };
        connect(session, &QObject::destroyed, this, [this] { d->session = nullptr; });
        connect(session, &Session::layerChanged, this, repaint);
        connect(session, &Session::rowsChanged, this, repaint);
        connect(session, &Session::expertsChanged, this, repaint);
        connect(session, &Session::expertHighlightChanged, this, repaint);
        connect(session, &Session::focusChanged, this, [this] {
            if (const auto focus = d->session->focusedToken())
                d->show(d->indexOf(*focus));
            viewport()->update();
        });
    }
    viewport()->update();
}

void TokenTextView::setTheme(const Theme &theme)
{
    d->theme = theme;
    d->reset();
    d->layOut();
    viewport()->update();
}

void TokenTextView::setPlaceholder(const QString &text)
{
    d->placeholder = text;
    viewport()->update();
}

void TokenTextView::clear()
{
    d->tokens.clear();
    d->hover = d->dragFrom = d->dragTo = -1;
    d->reset();
    d->layOut();
    viewport()->update();
}

void TokenTextView::setTokens(std::vector<ShownToken> tokens)
{
    d->tokens = std::move(tokens);
    d->hover = d->dragFrom = d->dragTo = -1;
    d->reset();
    d->layOut();
    verticalScrollBar()->setValue(0);
    viewport()->update();
}

void TokenTextView::append(const std::vector<ShownToken> &tokens)
{
    const bool end = d->atEnd();
    d->tokens.insert(d->tokens.end(), tokens.begin(), tokens.end());
    d->follow(end);
}

void TokenTextView::append(const TokenRecord &record)
{
    std::vector<ShownToken> fresh;
    for (std::size_t i = 0; i < record.id.size(); ++i) {
        ShownToken t;
        t.text = i < record.text.size() ? QString::fromStdString(record.text[i]) : QStringLiteral("<%1>").arg(record.id[i]);
        t.row = record.firstToken + static_cast<std::int64_t>(i);
        t.generated = i < record.phase.size() && record.phase[i] != 0;
        if (!d->tokens.empty() && t.row <= d->tokens.back().row)
            continue; // told twice
        fresh.push_back(std::move(t));
    }
    append(fresh);
}

void TokenTextView::setRouting(const RoutingRecord &record)
{
    if (record.slots <= 0 || record.layer < 0 || record.layer > 4096)
        return;
    const auto layer = static_cast<std::size_t>(record.layer), k = static_cast<std::size_t>(record.slots);
    for (std::int64_t i = 0; i < record.tokens; ++i) {
        const int index = d->indexOf(record.firstToken + i);
        const auto at = static_cast<std::size_t>(i) * k;
        if (index < 0 || at >= record.expertIds.size())
            continue;
        ShownToken &t = d->tokens[static_cast<std::size_t>(index)];
        if (t.experts.size() <= layer) {
            t.experts.resize(layer + 1, kNoExpert);
            t.weights.resize(layer + 1, 1.0f);
        }
        t.experts[layer] = record.expertIds[at];
        t.weights[layer] = at < record.weights.size() ? record.weights[at] : 1.0f;
    }
    viewport()->update();
}

const std::vector<ShownToken> &TokenTextView::tokens() const
{
    return d->tokens;
}

int TokenTextView::tokenAt(const QPoint &position) const
{
    const QPointF p = QPointF(position) - d->offset();
    // Pieces are sorted by line: the first that ends below.
    const auto from = std::partition_point(d->pieces.begin(), d->pieces.end(), [&](const Piece &piece) { return piece.rect.bottom() <= p.y(); });
    for (auto it = from; it != d->pieces.end() && it->rect.top() <= p.y(); ++it)
        if (it->rect.contains(p))
            return it->token;
    return -1;
}

QRect TokenTextView::tokenRect(int index) const
{
    if (index < 0 || static_cast<std::size_t>(index) >= d->firstPiece.size() || d->firstPiece[static_cast<std::size_t>(index)] < 0)
        return {};
    return d->pieces[static_cast<std::size_t>(d->firstPiece[static_cast<std::size_t>(index)])].rect.translated(d->offset()).toRect();
}

void TokenTextView::paintEvent(QPaintEvent *)
{
    QPainter p(viewport());
    const Theme &theme = d->theme;
    p.fillRect(viewport()->rect(), theme.panel);
    if (d->tokens.empty()) {
        drawParagraph(p, QRectF(viewport()->rect()).adjusted(8, 6, -8, -6), d->placeholder, theme.font, theme.muted);
        return;
    }
    const QPointF offset = d->offset();
    const double top = -offset.y(), bottom = top + viewport()->height();
    const auto layer = static_cast<std::size_t>(d->session != nullptr ? std::max(0, d->session->layer()) : 0);
    const auto open = d->session != nullptr ? d->session->current() : nullptr;
    const auto focus = d->session != nullptr ? d->session->focusedToken() : std::nullopt;
    static const std::vector<int> none;
    const std::vector<int> &experts = d->session != nullptr ? d->session->selectedExperts() : none;
    const QFontMetricsF metrics(theme.mono);
    p.setFont(theme.mono);
    p.setRenderHint(QPainter::Antialiasing);
    const auto from = std::partition_point(d->pieces.begin(), d->pieces.end(), [&](const Piece &piece) { return piece.rect.bottom() < top; });
    const double inset = std::round(d->line() * 0.09);
    const auto lastOf = [&](std::vector<Piece>::const_iterator it) { return it + 1 == d->pieces.end() || (it + 1)->token != it->token; };
    for (auto it = from; it != d->pieces.end() && it->rect.top() <= bottom; ++it) {
        const ShownToken &t = d->tokens[static_cast<std::size_t>(it->token)];
        const QRectF r = it->rect.translated(offset).adjusted(0, inset, 0, -inset);
        const bool known = layer < t.experts.size() && t.experts[layer] != kNoExpert;
        QColor back = theme.panel;
        if (known) {
            // A stream of tokens names experts before it knows their weights.
            const double weight = layer < t.weights.size() ? static_cast<double>(t.weights[layer]) : 0.5;
            double strength = 0.16 + 0.44 * std::clamp(weight, 0.0, 1.0);
            if (!experts.empty() && !std::binary_search(experts.begin(), experts.end(), static_cast<int>(t.experts[layer])))
                strength *= 0.25;
            back = mixed(theme.panel, expertColor(t.experts[layer]), strength);
        }
        p.fillRect(r.adjusted(0, 0, lastOf(it) ? -1 : 0, 0), back); // a hair of panel between tokens
        p.setPen(t.generated ? theme.text : mixed(theme.text, theme.panel, 0.12));
        QFont font = theme.mono;
        if (t.generated)
            font.setWeight(QFont::DemiBold);
        p.setFont(font);
        p.drawText(QPointF(r.left(), r.center().y() + (metrics.ascent() - metrics.descent()) / 2), it->text);
        if (open && t.row >= 0 && open->selection.contains(static_cast<std::size_t>(t.row)))
            p.fillRect(QRectF(r.left(), r.bottom() - 2, r.width() - (lastOf(it) ? 1 : 0), 2.5), theme.selection);
    }
    // Outlines above all texts
    for (auto it = from; it != d->pieces.end() && it->rect.top() <= bottom; ++it) {
        const ShownToken &t = d->tokens[static_cast<std::size_t>(it->token)];
        const QRectF r = it->rect.translated(offset).adjusted(0.5, inset + 0.5, -1.5, -inset - 0.5);
        const bool under = open && t.row >= 0 && open->highlight.contains(static_cast<std::size_t>(t.row));
        const bool dragged = d->dragFrom >= 0 && d->dragTo >= 0 && it->token >= std::min(d->dragFrom, d->dragTo) && it->token <= std::max(d->dragFrom, d->dragTo);
        if (dragged) {
            QColor fill = theme.selection;
            fill.setAlphaF(0.25f);
            p.fillRect(r, fill);
        }
        if (focus && *focus == t.row) {
            p.setPen(QPen(theme.selection, 2));
            p.drawRect(r);
        } else if (under || it->token == d->hover) {
            p.setPen(QPen(theme.hover, 1.2));
            p.drawRect(r);
        }
    }
    if (hasFocus()) {
        p.setRenderHint(QPainter::Antialiasing, false);
        p.setPen(QPen(theme.accent, 1));
        p.drawRect(viewport()->rect().adjusted(0, 0, -1, -1));
    }
}

void TokenTextView::resizeEvent(QResizeEvent *event)
{
    QAbstractScrollArea::resizeEvent(event);
    const bool end = d->atEnd() && verticalScrollBar()->maximum() > 0;
    d->follow(end);
}

void TokenTextView::scrollContentsBy(int, int)
{
    viewport()->update();
}

void TokenTextView::mouseMoveEvent(QMouseEvent *event)
{
    const int index = tokenAt(event->pos());
    if (event->buttons().testFlag(Qt::LeftButton) && d->dragFrom >= 0) {
        if (index >= 0 && (index != d->dragFrom || d->dragTo >= 0)) {
            d->dragTo = index;
            viewport()->update();
        }
        return;
    }
    if (index == d->hover)
        return;
    d->hover = index;
    const std::int64_t row = index >= 0 ? d->tokens[static_cast<std::size_t>(index)].row : -1;
    if (d->session != nullptr)
        d->session->highlight(row >= 0 ? std::optional<std::int64_t>(row) : std::nullopt);
    Q_EMIT tokenHovered(row);
    viewport()->update();
}

void TokenTextView::leaveEvent(QEvent *)
{
    if (d->hover < 0)
        return;
    d->hover = -1;
    if (d->session != nullptr)
        d->session->highlight(std::nullopt);
    Q_EMIT tokenHovered(-1);
    viewport()->update();
}

void TokenTextView::mousePressEvent(QMouseEvent *event)
{
    if (event->button() != Qt::LeftButton) {
        event->ignore();
        return;
    }
    d->mode = selectModeOf(event->modifiers());
    d->dragFrom = tokenAt(event->pos());
    d->dragTo = -1;
}

void TokenTextView::mouseReleaseEvent(QMouseEvent *event)
{
    if (event->button() != Qt::LeftButton || d->dragFrom < 0)
        return;
    const int from = std::min(d->dragFrom, d->dragTo), to = std::max(d->dragFrom, d->dragTo), clicked = d->dragFrom;
    const bool dragged = d->dragTo >= 0;
    d->dragFrom = d->dragTo = -1;
    const auto open = d->session != nullptr ? d->session->current() : nullptr;
    if (dragged && open) {
        RowSet rows(open->selection.size());
        for (int i = from; i <= to; ++i)
            if (const std::int64_t row = d->tokens[static_cast<std::size_t>(i)].row; row >= 0 && row < static_cast<std::int64_t>(rows.size()))
                rows.insert(static_cast<std::size_t>(row));
        d->session->select(rows, d->mode, tr("Select text"));
    } else if (!dragged) {
        const std::int64_t row = d->tokens[static_cast<std::size_t>(clicked)].row;
        if (open && d->mode != SelectMode::replace && row >= 0 && row < static_cast<std::int64_t>(open->selection.size())) {
            RowSet one(open->selection.size());
            one.insert(static_cast<std::size_t>(row));
            d->session->select(one, d->mode, tr("Select token"));
        }
        if (d->session != nullptr && row >= 0)
            d->session->focusToken(row);
        Q_EMIT tokenClicked(row);
    }
    viewport()->update();
}

void TokenTextView::keyPressEvent(QKeyEvent *event)
{
    const auto focus = d->session != nullptr ? d->session->focusedToken() : std::nullopt;
    const int now = focus ? d->indexOf(*focus) : -1;
    const int last = static_cast<int>(d->tokens.size()) - 1;
    int next = -2;
    const auto vertical = [&](int by) {
        const QRect r = tokenRect(now);
        if (now < 0 || r.isNull())
            return now < 0 ? 0 : now;
        int found = -1;
        for (int x = r.center().x(); x >= 0 && found < 0; x -= 6)
            found = tokenAt(QPoint(x, r.center().y() + by * static_cast<int>(d->line())));
        return found >= 0 ? found : now;
    };
    switch (event->key()) {
    case Qt::Key_Left: next = std::max(0, now - 1); break;
    case Qt::Key_Right: next = std::min(last, now + 1); break;
    case Qt::Key_Up: next = vertical(-1); break;
    case Qt::Key_Down: next = vertical(1); break;
    case Qt::Key_Home: next = 0; break;
    case Qt::Key_End: next = last; break;
    case Qt::Key_PageUp:
    case Qt::Key_PageDown:
        if (d->session != nullptr)
            d->session->setLayer(d->session->layer() + (event->key() == Qt::Key_PageDown ? 1 : -1));
        return;
    default: QAbstractScrollArea::keyPressEvent(event); return;
    }
    if (d->session == nullptr || last < 0 || next < 0)
        return;
    const std::int64_t row = d->tokens[static_cast<std::size_t>(next)].row;
    if (event->modifiers().testFlag(Qt::ShiftModifier))
        if (const auto open = d->session->current(); open && row >= 0 && row < static_cast<std::int64_t>(open->selection.size())) {
            RowSet rows(open->selection.size());
            rows.insert(static_cast<std::size_t>(row));
            if (focus && *focus < static_cast<std::int64_t>(rows.size()))
                rows.insert(static_cast<std::size_t>(*focus));
            d->session->select(rows, SelectMode::add, tr("Select text"));
        }
    d->session->focusToken(row);
}

bool TokenTextView::viewportEvent(QEvent *event)
{
    if (event->type() == QEvent::ToolTip) {
        const auto *help = static_cast<QHelpEvent *>(event);
        const int index = tokenAt(help->pos());
        if (index < 0) {
            QToolTip::hideText();
            return true;
        }
        const ShownToken &t = d->tokens[static_cast<std::size_t>(index)];
        QString tip = t.row >= 0 ? tr("token %1 “%2”").arg(formatCount(t.row), t.text) : t.text;
        const auto open = d->session != nullptr ? d->session->current() : nullptr;
        QStringList lines;
        for (std::size_t l = 0; l < t.experts.size() && lines.size() < 40; ++l)
            if (t.experts[l] != kNoExpert) {
                const int decoder = open && l < open->info->decoderIndex.size() ? open->info->decoderIndex[l] : static_cast<int>(l);
                lines << tr("layer %1: E%2 %3").arg(decoder).arg(t.experts[l]).arg(l < t.weights.size() ? formatNumber(static_cast<double>(t.weights[l]), 2) : QString());
            }
        QToolTip::showText(help->globalPos(), lines.isEmpty() ? tip : tip + QStringLiteral("\n") + lines.join(QLatin1Char('\n')), viewport());
        return true;
    }
    return QAbstractScrollArea::viewportEvent(event);
}

} // namespace spectra
