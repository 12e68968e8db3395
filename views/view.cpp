// SPDX-License-Identifier: GPL-3.0-or-later
#include "views/view.h"

#include "views/export.h"
#include "views/paintkit.h"
#include "views/viewcanvas.h"

#include <QActionGroup>
#include <QComboBox>
#include <QFontInfo>
#include <QEvent>
#include <QHBoxLayout>
#include <QInputDialog>
#include <QLabel>
#include <QMenu>
#include <QPainter>
#include <QSpinBox>
#include <QStandardItemModel>
#include <QStyleOptionComboBox>
#include <QStylePainter>
#include <QToolButton>
#include <QVBoxLayout>

#include <algorithm>
#include <cmath>

namespace spectra {

namespace {

/// A combo box that shrinks to the text that it shows: docks are narrow.
class BarBox : public QComboBox {
public:
    using QComboBox::QComboBox;
    QSize minimumSizeHint() const override
    {
        QStyleOptionComboBox option;
        initStyleOption(&option);
        const QSize content(fontMetrics().horizontalAdvance(currentText()) + 8, fontMetrics().height());
        return {std::min(style()->sizeFromContents(QStyle::CT_ComboBox, &option, content, this).width(), maximumWidth()),
                QComboBox::minimumSizeHint().height()};
    }

protected:
    void paintEvent(QPaintEvent *) override
    {
        QStylePainter p(this);
        QStyleOptionComboBox option;
        initStyleOption(&option);
        p.drawComplexControl(QStyle::CC_ComboBox, option);
        const QRect field = style()->subControlRect(QStyle::CC_ComboBox, &option, QStyle::SC_ComboBoxEditField, this);
        option.currentText = fontMetrics().elidedText(option.currentText, Qt::ElideRight, field.width() - 3);
        p.drawControl(QStyle::CE_ComboBoxLabel, option);
    }
};

} // namespace

View::View(const QString &id, const QString &title, QWidget *parent)
    : QWidget(parent)
    , m_id(id)
    , m_title(title)
    , m_theme(Theme::make(ThemeKind::light))
    , m_job(std::make_unique<LatestJob>())
{
    setObjectName(id);
    setAccessibleName(title);
    auto *layout = new QVBoxLayout(this);
    layout->setContentsMargins(0, 0, 0, 0);
    layout->setSpacing(0);
    m_bar = new QWidget(this);
    m_bar->setObjectName(QStringLiteral("viewBar"));
    QFont barFont = font(); // small: docks are
    barFont.setPixelSize(std::max(9, QFontInfo(barFont).pixelSize() - 1));
    m_bar->setFont(barFont);
    m_bar->setSizePolicy(QSizePolicy::Ignored, QSizePolicy::Fixed); // the bar fits itself to the view, not the view to the bar
    m_bar->installEventFilter(this);
    m_barLayout = new QHBoxLayout(m_bar);
    m_barLayout->setContentsMargins(6, 3, 4, 3);
    m_barLayout->setSpacing(4);
    layout->addWidget(m_bar);
    m_canvas = new ViewCanvas(this);
    layout->addWidget(m_canvas, 1);
    setMinimumSize(160, 120);
    connect(m_job.get(), &LatestJob::failed, this, [this](const Error &error) {
        if (error.kind != ErrorKind::cancelled)
            showFailed(error);
    });
    connect(m_job.get(), &LatestJob::progressed, this, &View::progress);
    connect(m_job.get(), &LatestJob::runningChanged, this, [this](bool running) {
        Q_EMIT workingChanged(running);
        m_canvas->update();
    });
    rebuildBar();
}

View::~View()
{
    m_job.reset(); // waits: what a running job captured is still whole
}

QWidget *View::canvas() const
{
    return m_content != nullptr ? m_content : m_canvas;
}

bool View::isWorking() const
{
    return m_job->isRunning();
}

std::shared_ptr<OpenTrace> View::current() const
{
    return m_session != nullptr ? m_session->current() : nullptr;
}

void View::setSession(Session *session)
{
    if (m_session == session)
        return;
    if (m_session != nullptr)
        m_session->disconnect(this);
    m_session = session;
    if (session != nullptr) {
        const auto whenSeen = [this](auto function) {
            return [this, function](auto &&...args) {
                if (m_synchronous || isVisible())
                    function(args...);
                else
                    m_stale = true;
            };
        };
        connect(session, &QObject::destroyed, this, [this] { m_session = nullptr; });
        connect(session, &Session::currentChanged, this, [this] {
            m_job->cancel();
            m_hasContent = false;
            sessionReset();
            reload();
        });
        connect(session, &Session::traceGrew, this, [this](quint64 id) {
            const auto t = current();
            if (!t || t->id != id)
                return;
            if (m_synchronous || isVisible())
                traceGrew();
            else
                m_stale = true;
        });
        connect(session, &Session::sequencesRead, this, [this](quint64 id) {
            const auto t = current();
            if (t && t->id == id)
                repaintCanvas(); // jobs read sequences themselves: nothing to load again
        });
        connect(session, &Session::layerChanged, this, whenSeen([this](auto &&...) { layerChanged(); }));
        connect(session, &Session::domainsChanged, this, whenSeen([this](auto &&...) { domainsChanged(); }));
        connect(session, &Session::rowsChanged, this, [this](RowLayer layer) {
            if (m_synchronous || isVisible())
                rowsChanged(layer);
            else if (layer != RowLayer::highlight)
                m_stale = true;
        });
        connect(session, &Session::expertsChanged, this, whenSeen([this](auto &&...) { expertsChanged(); }));
        connect(session, &Session::expertHighlightChanged, this, whenSeen([this](auto &&...) { expertsChanged(); }));
        connect(session, &Session::focusChanged, this, whenSeen([this](auto &&...) { focusChanged(); }));
    }
    m_hasContent = false;
    sessionReset();
    reload();
}

void View::setTheme(const Theme &theme)
{
    m_theme = theme;
    m_canvas->update();
    update();
}

void View::reload()
{
    if (!m_synchronous && !isVisible()) {
        m_stale = true;
        return;
    }
    m_stale = false;
    if (!current()) {
        setSubtitle({});
        showEmpty(tr("Open a trace or run a prompt to see its routing here."));
        return;
    }
    refresh();
}

void View::showEvent(QShowEvent *event)
{
    QWidget::showEvent(event);
    if (m_stale)
        reload();
}

void View::cancel()
{
    const bool was = m_job->isRunning();
    m_job->cancel();
    if (was && !m_hasContent)
        showEmpty(tr("Stopped. Choose Reload from the menu to read again."));
    else if (was)
        showReady();
}

void View::load(const QString &what, LatestJob::Function job)
{
    m_error.reset();
    if (m_synchronous) {
        m_job->runNow(job);
        return;
    }
    showBusy(what);
    m_job->start(std::move(job));
}

// ---- state

void View::setState(ViewState state, const QString &message)
{
    const bool changed = state != m_state || message != m_message;
    m_state = state;
    m_message = message;
    m_canvas->showNotice(m_hasContent && state != ViewState::failed ? QString() : state == ViewState::ready ? QString() : message,
                         state == ViewState::failed, m_hasContent);
    m_canvas->update();
    if (changed)
        Q_EMIT stateChanged(state);
}

void View::showEmpty(const QString &whatToDo)
{
    m_hasContent = false;
    m_error.reset();
    setState(ViewState::empty, whatToDo);
}

void View::showReady()
{
    m_hasContent = true;
    m_error.reset();
    setState(ViewState::ready, {});
}

void View::showBusy(const QString &what)
{
    setState(ViewState::busy, what);
}

void View::showFailed(const Error &error)
{
    QString text = QString::fromStdString(error.what);
    if (!error.where.empty())
        text += QStringLiteral("\n") + QString::fromStdString(error.where);
    if (!error.mend.empty())
        text += QStringLiteral("\n") + QString::fromStdString(error.mend);
    m_error = error;
    setState(ViewState::failed, text);
}

void View::setSubtitle(const QString &text)
{
    QString subtitle = text;
    // A fresh router knows nothing: every picture of it says so.
    if (const auto t = current(); t && !text.isEmpty() && !t->info->model.note.empty())
        subtitle += QStringLiteral(" · ") + QString::fromStdString(t->info->model.note);
    if (subtitle == m_subtitle)
        return;
    m_subtitle = subtitle;
    m_canvas->setAccessibleDescription(subtitle);
    Q_EMIT subtitleChanged(subtitle);
}

void View::repaintCanvas()
{
    m_canvas->update();
}

QRectF View::canvasArea() const
{
    const double margin = std::min(8.0, m_canvas->width() * 0.03);
    return QRectF(m_canvas->rect()).adjusted(margin, margin * 0.75, -margin, -margin * 0.75);
}

void View::paintFigure(QPainter &painter, const QRectF &area, const Theme &theme, bool withHeader)
{
    painter.save();
    painter.setRenderHint(QPainter::Antialiasing, true);
    painter.setRenderHint(QPainter::TextAntialiasing, true);
    painter.fillRect(area, theme.panel);
    const double margin = theme.em() * 0.5;
    QRectF inside = area.adjusted(margin, margin, -margin, -margin);
    if (withHeader)
        inside = drawHeader(painter, inside, m_title, m_subtitle, theme);
    if (m_hasContent)
        paintContent(painter, inside, theme);
    else
        paintMessage(painter, inside, theme);
    painter.restore();
}

void View::paintMessage(QPainter &painter, const QRectF &area, const Theme &theme) const
{
    drawParagraph(painter, area, m_message, theme.font, m_state == ViewState::failed ? theme.error : theme.muted);
}

// ---- options

void View::addOption(ViewOption option)
{
    m_options.push_back(std::move(option));
    rebuildBar();
}

static ViewOption *findOption(std::vector<ViewOption> &options, const QString &key)
{
    const auto at = std::find_if(options.begin(), options.end(), [&](const ViewOption &o) { return o.key == key; });
    return at == options.end() ? nullptr : &*at;
}

void View::setChoices(const QString &key, std::vector<ViewOption::Choice> choices)
{
    ViewOption *o = findOption(m_options, key);
    if (o == nullptr)
        return;
    const auto same = [](const ViewOption::Choice &a, const ViewOption::Choice &b) {
        return a.value == b.value && a.label == b.label && a.enabled == b.enabled && a.why == b.why;
    };
    if (std::equal(choices.begin(), choices.end(), o->choices.begin(), o->choices.end(), same))
        return;
    o->choices = std::move(choices);
    const auto usable = [&](const ViewOption::Choice &c) { return c.enabled && c.value == o->value; };
    if (std::none_of(o->choices.begin(), o->choices.end(), usable)) {
        for (const ViewOption::Choice &c : o->choices)
            if (c.enabled) {
                o->value = c.value;
                break;
            }
    }
    rebuildBar();
    Q_EMIT optionsChanged();
}

QString View::option(const QString &key) const
{
    for (const ViewOption &o : m_options)
        if (o.key == key)
            return o.value;
    return {};
}

double View::number(const QString &key) const
{
    return option(key).toDouble();
}

void View::setOptionQuietly(const QString &key, const QString &value)
{
    if (ViewOption *o = findOption(m_options, key); o != nullptr && o->value != value) {
        o->value = value;
        rebuildBar();
        Q_EMIT optionsChanged();
    }
}

Result<void> View::setOption(const QString &key, const QString &value)
{
    ViewOption *o = findOption(m_options, key);
    const std::string place = (m_id + QLatin1Char('.') + key).toStdString();
    if (o == nullptr) {
        QStringList known;
        for (const ViewOption &each : m_options)
            known << each.key;
        return usageError("unknown setting", place, "Settings of this view: " + known.join(QStringLiteral(", ")).toStdString());
    }
    QString stored = value;
    if (o->choices.empty()) {
        bool ok = false;
        const double v = value.toDouble(&ok);
        if (!ok || !std::isfinite(v) || v < o->minimum || v > o->maximum || (o->integer && v != std::floor(v)))
            return usageError("not a number in the range " + QString::number(o->minimum, 'g', 10).toStdString() + " to "
                                  + QString::number(o->maximum, 'g', 10).toStdString(),
                              place + "=" + value.toStdString());
    } else {
        const auto at = std::find_if(o->choices.begin(), o->choices.end(), [&](const ViewOption::Choice &c) { return c.value == value; });
        if (at == o->choices.end()) {
            QStringList known;
            for (const ViewOption::Choice &c : o->choices)
                known << c.value;
            return usageError("unknown value", place + "=" + value.toStdString(),
                              "Values: " + known.join(QStringLiteral(", ")).toStdString());
        }
        if (!at->enabled)
            return usageError("this trace cannot show it: " + at->why.toStdString(), place + "=" + value.toStdString());
    }
    if (o->value == stored)
        return {};
    o->value = stored;
    rebuildBar();
    Q_EMIT optionsChanged();
    if (m_session != nullptr && current()) {
        if (m_synchronous || isVisible())
            optionChanged(key);
        else
            m_stale = true;
    }
    return {};
}

void View::rebuildBar()
{
    for (QWidget *extra : m_barExtras) {
        m_barLayout->removeWidget(extra);
        extra->setParent(m_bar);
    }
    m_barOptions.clear();
    while (QLayoutItem *item = m_barLayout->takeAt(0)) {
        if (item->widget() != nullptr && std::find(m_barExtras.begin(), m_barExtras.end(), item->widget()) == m_barExtras.end()) {
            item->widget()->hide();
            item->widget()->deleteLater(); // it may be the sender of the change
        }
        delete item;
    }
    for (const ViewOption &o : m_options) {
        if (!o.inBar)
            continue;
        QWidget *made = nullptr;
        if (!o.choices.empty()) {
            auto *box = new BarBox(m_bar);
            box->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
            int longest = 4;
            for (const ViewOption::Choice &c : o.choices) {
                box->addItem(c.label, c.value);
                longest = std::max(longest, static_cast<int>(c.label.size()));
                if (auto *model = qobject_cast<QStandardItemModel *>(box->model()); model != nullptr && !c.enabled) {
                    QStandardItem *item = model->item(box->count() - 1);
                    item->setEnabled(false);
                    item->setToolTip(c.why);
                }
            }
            box->setMinimumContentsLength(std::min(longest, 24));
            box->setMaximumWidth(280);
            box->setSizePolicy(QSizePolicy::Preferred, QSizePolicy::Fixed);
            box->setCurrentIndex(box->findData(o.value));
            connect(box, &QComboBox::activated, this, [this, key = o.key, box](int index) { (void)setOption(key, box->itemData(index).toString()); });
            m_barLayout->addWidget(box);
            made = box;
        } else {
            auto *spin = new QDoubleSpinBox(m_bar);
            spin->setDecimals(o.integer ? 0 : 2);
            spin->setRange(o.minimum, o.maximum);
            spin->setValue(o.value.toDouble());
            spin->setPrefix(o.label + QStringLiteral(" "));
            spin->setKeyboardTracking(false);
            connect(spin, &QDoubleSpinBox::valueChanged, this, [this, key = o.key](double v) { (void)setOption(key, QString::number(v, 'g', 10)); });
            m_barLayout->addWidget(spin);
            made = spin;
        }
        m_barOptions.push_back(made);
        made->setObjectName(o.key);
        made->setAccessibleName(o.label);
        made->setToolTip(o.tip.isEmpty() ? o.label : o.tip);
    }
    m_barLayout->addStretch(1);
    for (QWidget *extra : m_barExtras)
        m_barLayout->addWidget(extra);
    auto *more = new QToolButton(m_bar);
    more->setText(QStringLiteral("⋯"));
    more->setAutoRaise(true);
    more->setObjectName(QStringLiteral("more"));
    more->setAccessibleName(tr("Menu of %1").arg(m_title));
    more->setToolTip(tr("Options and export"));
    connect(more, &QToolButton::clicked, this, [this, more] {
        QMenu *menu = createContextMenu(this);
        menu->setAttribute(Qt::WA_DeleteOnClose);
        menu->popup(more->mapToGlobal(QPoint(0, more->height())));
    });
    m_barLayout->addWidget(more);
    m_bar->setVisible(m_barVisible);
    fitBar();
}

void View::fitBar()
{
    // What does not fit whole stands in the menu only, the last first.
    const QMargins margins = m_barLayout->contentsMargins();
    int room = m_bar->width() - margins.left() - margins.right();
    for (int i = 0; i < m_barLayout->count(); ++i)
        if (QWidget *w = m_barLayout->itemAt(i)->widget(); w != nullptr && std::find(m_barOptions.begin(), m_barOptions.end(), w) == m_barOptions.end())
            room -= std::max(w->minimumSizeHint().width(), w->minimumWidth()) + m_barLayout->spacing();
    bool fits = true;
    for (QWidget *w : m_barOptions) {
        room -= w->minimumSizeHint().width() + m_barLayout->spacing();
        fits = fits && room >= 0;
        w->setVisible(fits);
    }
}

bool View::eventFilter(QObject *watched, QEvent *event)
{
    if (watched == m_bar && event->type() == QEvent::Resize)
        fitBar();
    return QWidget::eventFilter(watched, event);
}

void View::addToBar(QWidget *widget)
{
    m_barExtras.push_back(widget);
    rebuildBar();
}

void View::setBarVisible(bool on)
{
    m_barVisible = on;
    m_bar->setVisible(on);
}

void View::setContentWidget(QWidget *widget)
{
    m_content = widget;
    m_canvas->setContent(widget);
}

QJsonObject View::saveState() const
{
    QJsonObject options;
    for (const ViewOption &o : m_options)
        options[o.key] = o.value;
    return {{QStringLiteral("view"), m_id}, {QStringLiteral("options"), options}};
}

void View::restoreState(const QJsonObject &state)
{
    const QJsonObject options = state[QStringLiteral("options")].toObject();
    for (auto it = options.begin(); it != options.end(); ++it)
        (void)setOption(it.key(), it.value().toString());
}

// ---- menu

void View::askNumber(const QString &key)
{
    const ViewOption *o = findOption(m_options, key);
    auto *dialog = new QInputDialog(this);
    dialog->setObjectName(QStringLiteral("askNumber"));
    dialog->setAttribute(Qt::WA_DeleteOnClose);
    dialog->setWindowTitle(m_title);
    dialog->setLabelText(o->tip.isEmpty() ? o->label : QStringLiteral("%1\n%2").arg(o->label, o->tip));
    dialog->setInputMode(QInputDialog::DoubleInput);
    dialog->setDoubleDecimals(o->integer ? 0 : 2);
    dialog->setDoubleRange(o->minimum, o->maximum);
    dialog->setDoubleValue(o->value.toDouble());
    connect(dialog, &QInputDialog::doubleValueSelected, this, [this, key](double v) { (void)setOption(key, QString::number(v, 'g', 12)); });
    dialog->open();
}

QMenu *View::createContextMenu(QWidget *parent)
{
    auto *menu = new QMenu(parent);
    menu->setAccessibleName(tr("Menu of %1").arg(m_title));
    for (const ViewOption &o : m_options) {
        if (o.choices.empty()) {
            QAction *ask = menu->addAction(tr("%1: %2…").arg(o.label, o.value), this, [this, key = o.key] { askNumber(key); });
            ask->setObjectName(o.key);
            ask->setToolTip(o.tip);
            continue;
        }
        QMenu *sub = menu->addMenu(o.label);
        auto *group = new QActionGroup(sub);
        for (const ViewOption::Choice &c : o.choices) {
            QAction *a = sub->addAction(c.label);
            a->setCheckable(true);
            a->setChecked(c.value == o.value);
            a->setEnabled(c.enabled);
            a->setToolTip(c.why);
            group->addAction(a);
            connect(a, &QAction::triggered, this, [this, key = o.key, value = c.value] { (void)setOption(key, value); });
        }
        sub->setToolTipsVisible(true);
    }
    if (!m_options.empty())
        menu->addSeparator();
    if (m_session != nullptr && current()) {
        QAction *invert = menu->addAction(tr("Invert selection"), m_session, &Session::invertSelection);
        invert->setShortcut(QKeySequence(Qt::CTRL | Qt::Key_I));
        QAction *clear = menu->addAction(tr("Clear selection"), m_session, &Session::clearSelection);
        clear->setEnabled(!current()->selection.empty());
        menu->addSeparator();
    }
    const bool ready = m_hasContent;
    QMenu *out = menu->addMenu(tr("Export"));
    out->setEnabled(ready);
    const std::pair<const char *, QString> formats[] = {{"pdf", tr("PDF…")}, {"svg", tr("SVG…")}, {"png", tr("PNG…")},
                                                        {"csv", tr("Data as CSV…")}, {"tex", tr("Data as LaTeX table…")}};
    for (const auto &[format, text] : formats)
        connect(out->addAction(text), &QAction::triggered, this,
                [this, f = QString::fromLatin1(format)] { Q_EMIT exportRequested(this, f); });
    QAction *copy = menu->addAction(tr("Copy picture and data"), this, [this] { copyToClipboard(*this); });
    copy->setEnabled(ready);
    copy->setToolTip(tr("Picture as PNG and SVG, data as tab-separated text"));
    menu->addSeparator();
    menu->addAction(tr("Reload"), this, &View::reload);
    return menu;
}

} // namespace spectra
