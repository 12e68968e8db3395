// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/shell/mainbar.h"

#include "app/workbench/commands/commandregistry.h"
#include "app/workbench/shell/domainchips.h"

#include <QHBoxLayout>
#include <QLocale>
#include <QPainter>

#include <algorithm>

namespace spectra {

namespace {

QIcon swatch(const QColor &color)
{
    QPixmap pixmap(24, 24);
    pixmap.fill(Qt::transparent);
    QPainter painter(&pixmap);
    painter.setRenderHint(QPainter::Antialiasing);
    painter.setPen(Qt::NoPen);
    painter.setBrush(color);
    painter.drawEllipse(4, 4, 16, 16);
    return QIcon(pixmap);
}

/// A command as a button that shows its own short text.
QToolButton *commandButton(QAction *action, const QString &text, QWidget *parent)
{
    auto *button = new QToolButton(parent);
    button->setDefaultAction(action);
    button->setText(text);
    button->setAutoRaise(true);
    button->setAccessibleName(action->statusTip());
    // The action's own text would come back with every change of it.
    QObject::connect(action, &QAction::changed, button, [button, text] { button->setText(text); });
    return button;
}

} // namespace

void LayerSpin::setLayers(const std::vector<std::int32_t> &decoderIndex)
{
    m_index = decoderIndex;
    setRange(0, std::max(0, static_cast<int>(m_index.size()) - 1));
    update();
}

QString LayerSpin::textFromValue(int value) const
{
    return value >= 0 && value < static_cast<int>(m_index.size()) ? QString::number(m_index[static_cast<std::size_t>(value)]) : QStringLiteral("–");
}

int LayerSpin::valueFromText(const QString &text) const
{
    const int decoder = text.toInt();
    const auto at = std::ranges::lower_bound(m_index, decoder);
    return at == m_index.end() ? maximum() : static_cast<int>(at - m_index.begin());
}

QValidator::State LayerSpin::validate(QString &text, int &) const
{
    if (text.isEmpty())
        return QValidator::Intermediate;
    bool number = false;
    const int decoder = text.toInt(&number);
    if (!number && text != QStringLiteral("–"))
        return QValidator::Invalid;
    return std::ranges::find(m_index, decoder) != m_index.end() ? QValidator::Acceptable : QValidator::Intermediate;
}

MainBar::MainBar(Session &session, const CommandRegistry &registry, QWidget *parent)
    : QToolBar(parent)
    , m_session(session)
    , m_traces(new QComboBox(this))
    , m_layer(new LayerSpin(this))
    , m_layerCount(new QLabel(this))
    , m_slider(new QSlider(Qt::Horizontal, this))
    , m_chips(new DomainChips(session, this))
    , m_selection(new QLabel(this))
    , m_clear(new QToolButton(this))
{
    setObjectName(QStringLiteral("mainBar"));
    setWindowTitle(tr("Main tool bar"));
    setMovable(false);
    setFloatable(false);
    for (const char *id : {"view.explore", "view.compare", "view.train", "view.figure"})
        addWidget(commandButton(registry.action(QLatin1String(id)), registry.find(QLatin1String(id))->title(), this));
    addSeparator();

    m_traces->setObjectName(QStringLiteral("traceChooser"));
    m_traces->setAccessibleName(tr("Trace shown"));
    m_traces->setToolTip(tr("Trace that all views show"));
    m_traces->setMinimumWidth(190);
    m_traces->setMaximumWidth(260);
    m_traces->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
    m_traces->setMinimumContentsLength(22);
    addWidget(m_traces);
    addWidget(commandButton(registry.action(QStringLiteral("file.open")), QStringLiteral("+"), this));
    addSeparator();

    auto *layerBox = new QWidget(this);
    layerBox->setSizePolicy(QSizePolicy::Fixed, QSizePolicy::Preferred);
    auto *layerLayout = new QHBoxLayout(layerBox);
    layerLayout->setContentsMargins(4, 0, 4, 0);
    layerLayout->setSpacing(5);
    auto *layerLabel = new QLabel(tr("Layer"), layerBox);
    m_layer->setObjectName(QStringLiteral("layerSpin"));
    m_layer->setAccessibleName(tr("Layer"));
    m_layer->setToolTip(tr("Layer that all views show, as the decoder counts it"));
    m_layer->setKeyboardTracking(false);
    m_slider->setObjectName(QStringLiteral("layerSlider"));
    m_slider->setAccessibleName(tr("Layer"));
    m_slider->setFixedWidth(90);
    m_slider->setPageStep(1);
    m_slider->setToolTip(m_layer->toolTip());
    layerLayout->addWidget(layerLabel);
    layerLayout->addWidget(m_layer);
    layerLayout->addWidget(m_layerCount);
    layerLayout->addWidget(m_slider);
    addWidget(layerBox);
    addSeparator();

    auto *middle = new QWidget(this);
    middle->setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Preferred);
    auto *middleLayout = new QHBoxLayout(middle);
    middleLayout->setContentsMargins(2, 0, 2, 0);
    middleLayout->addWidget(m_chips, 10);
    middleLayout->addStretch(1);
    addWidget(middle);

    auto *selectionBox = new QWidget(this);
    auto *selectionLayout = new QHBoxLayout(selectionBox);
    selectionLayout->setContentsMargins(4, 0, 2, 0);
    selectionLayout->setSpacing(2);
    m_selection->setObjectName(QStringLiteral("selectionCount"));
    m_clear->setText(QStringLiteral("×"));
    m_clear->setAutoRaise(true);
    m_clear->setToolTip(tr("Clear the selection"));
    m_clear->setAccessibleName(tr("Clear the selection"));
    selectionLayout->addWidget(m_selection);
    selectionLayout->addWidget(m_clear);
    addWidget(selectionBox);
    addSeparator();
    addWidget(commandButton(registry.action(QStringLiteral("view.palette")), tr("Commands"), this));

    connect(m_traces, &QComboBox::activated, this, [this](int index) { m_session.setCurrent(m_traces->itemData(index).toULongLong()); });
    connect(m_layer, &QSpinBox::valueChanged, &m_session, &Session::setLayer);
    connect(m_slider, &QSlider::valueChanged, &m_session, &Session::setLayer);
    connect(m_clear, &QToolButton::clicked, &m_session, &Session::clearSelection);
    connect(&session, &Session::tracesChanged, this, &MainBar::showTraces);
    connect(&session, &Session::currentChanged, this, &MainBar::showTraces);
    connect(&session, &Session::currentChanged, this, &MainBar::showLayer);
    connect(&session, &Session::currentChanged, this, &MainBar::showSelection);
    connect(&session, &Session::layerChanged, this, &MainBar::showLayer);
    connect(&session, &Session::traceGrew, this, &MainBar::showLayer);
    connect(&session, &Session::traceGrew, this, &MainBar::showSelection);
    connect(&session, &Session::rowsChanged, this, [this](RowLayer layer) {
        if (layer != RowLayer::highlight)
            showSelection();
    });
    showTraces();
    showLayer();
    showSelection();
}

void MainBar::showTraces()
{
    const QSignalBlocker quiet(m_traces);
    m_traces->clear();
    for (const auto &trace : m_session.traces()) {
        m_traces->addItem(swatch(trace->color), trace->name, trace->id);
        const auto &model = trace->info->model;
        m_traces->setItemData(m_traces->count() - 1,
                              QStringLiteral("%1\n%2").arg(QString::fromStdString(trace->info->file.empty() ? std::string("live run") : trace->info->file),
                                                           QString::fromStdString(model.name)),
                              Qt::ToolTipRole);
    }
    const auto current = m_session.current();
    m_traces->setCurrentIndex(current ? m_traces->findData(current->id) : -1);
    m_traces->setPlaceholderText(tr("no trace"));
    m_traces->setEnabled(m_traces->count() > 0);
}

void MainBar::showLayer()
{
    const QSignalBlocker quietSpin(m_layer), quietSlider(m_slider);
    const auto trace = m_session.current();
    const std::vector<std::int32_t> none;
    const auto &index = trace ? trace->info->decoderIndex : none;
    m_layer->setLayers(index);
    m_layer->setValue(m_session.layer());
    m_slider->setRange(0, std::max(0, static_cast<int>(index.size()) - 1));
    m_slider->setValue(m_session.layer());
    const bool on = index.size() > 1;
    m_layer->setEnabled(on);
    m_slider->setEnabled(on);
    m_layerCount->setText(trace ? tr("of %1").arg(index.size()) : QString());
}

void MainBar::showSelection()
{
    const QLocale locale(QLocale::English);
    const auto trace = m_session.current();
    const std::size_t all = trace ? trace->filter.size() : 0, selected = trace ? trace->selection.count() : 0,
                      shown = trace ? trace->filter.count() : 0;
    QString text;
    if (trace && selected > 0)
        text = tr("<b>%1</b> of %2 selected").arg(locale.toString(qulonglong(selected)), locale.toString(qulonglong(all)));
    else if (trace)
        text = tr("%1 tokens").arg(locale.toString(qulonglong(all)));
    QString tip = tr("Tokens selected, of all tokens of the trace");
    if (shown < all) {
        text += tr(", %1 shown").arg(locale.toString(qulonglong(shown)));
        tip += QLatin1Char('\n') + tr("A filter is on: Edit, Clear filter shows all");
    }
    m_selection->setText(text);
    m_selection->setToolTip(tip);
    m_clear->setVisible(selected > 0);
}

} // namespace spectra
