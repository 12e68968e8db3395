// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/prompt/promptsettingspanel.h"

#include <QApplication>
#include <QFormLayout>
#include <QLabel>
#include <QScreen>

namespace spectra {

PromptSettingsPanel::PromptSettingsPanel(QWidget *parent)
    : QFrame(parent, Qt::Popup)
    , m_upcycle(new QCheckBox(tr("Turn into a SPECTRA mixture"), this))
    , m_experts(new QSpinBox(this))
    , m_topK(new QSpinBox(this))
    , m_routerDim(new QSpinBox(this))
    , m_newTokens(new QSpinBox(this))
    , m_sampleTopK(new QSpinBox(this))
    , m_temperature(new QDoubleSpinBox(this))
    , m_topP(new QDoubleSpinBox(this))
    , m_capture(new QComboBox(this))
{
    setObjectName(QStringLiteral("promptSettings"));
    setAccessibleName(tr("Settings of the run"));
    setFrameShape(QFrame::StyledPanel);
    setAutoFillBackground(true);
    m_experts->setRange(2, 1024);
    m_topK->setRange(1, 64);
    m_routerDim->setRange(1, 1024);
    m_newTokens->setRange(0, 100'000);
    m_sampleTopK->setRange(0, 1'000'000);
    m_sampleTopK->setSpecialValueText(tr("all"));
    m_temperature->setRange(0, 100);
    m_temperature->setSingleStep(0.1);
    m_temperature->setSpecialValueText(tr("greedy"));
    m_topP->setRange(0, 1);
    m_topP->setSingleStep(0.05);
    m_capture->setEditable(true);
    m_capture->addItems({QStringLiteral("minimal"), QStringLiteral("standard"), QStringLiteral("full"), QStringLiteral("standard,+hidden,+vectors")});

    auto *form = new QFormLayout(this);
    const auto field = [form](const QString &label, QWidget *widget, const QString &tip) {
        widget->setAccessibleName(label);
        widget->setToolTip(tip);
        form->addRow(label, widget);
    };
    m_upcycle->setToolTip(tr("Copies the feed-forward block of a dense model into experts and puts a fresh SPECTRA router "
                             "before them: random, neither calibrated nor trained"));
    form->addRow(m_upcycle);
    field(tr("Experts"), m_experts, tr("Experts per layer"));
    field(tr("Experts per token"), m_topK, tr("How many experts each token uses (top-k)"));
    field(tr("Router dimension"), m_routerDim, tr("Length of each expert's routing and expression vectors"));
    field(tr("New tokens"), m_newTokens, tr("Tokens to generate after the prompt; 0 only reads it"));
    field(tr("Temperature"), m_temperature, tr("0 always takes the likeliest token"));
    field(tr("Top-p"), m_topP, tr("Samples from the likeliest tokens of this total probability"));
    field(tr("Top-k of sampling"), m_sampleTopK, tr("Samples from this many likeliest tokens"));
    field(tr("Capture"), m_capture, tr("What the trace keeps: minimal, standard or full, then names to add or drop, as in standard,+vectors"));
    const auto enable = [this] {
        for (QWidget *w : {static_cast<QWidget *>(m_experts), static_cast<QWidget *>(m_topK), static_cast<QWidget *>(m_routerDim)})
            w->setEnabled(m_upcycle->isChecked());
        const bool samples = m_temperature->value() > 0;
        m_topP->setEnabled(samples);
        m_sampleTopK->setEnabled(samples);
    };
    show(PromptSettings());
    enable();
    connect(m_upcycle, &QCheckBox::toggled, this, enable);
    connect(m_temperature, &QDoubleSpinBox::valueChanged, this, enable);
    connect(m_upcycle, &QCheckBox::toggled, this, &PromptSettingsPanel::changed);
    for (QSpinBox *spin : {m_experts, m_topK, m_routerDim, m_newTokens, m_sampleTopK})
        connect(spin, &QSpinBox::valueChanged, this, &PromptSettingsPanel::changed);
    for (QDoubleSpinBox *spin : {m_temperature, m_topP})
        connect(spin, &QDoubleSpinBox::valueChanged, this, &PromptSettingsPanel::changed);
    connect(m_capture, &QComboBox::currentTextChanged, this, &PromptSettingsPanel::changed);
}

void PromptSettingsPanel::read(PromptSettings &settings) const
{
    settings.upcycle = m_upcycle->isChecked();
    settings.experts = m_experts->value();
    settings.topK = m_topK->value();
    settings.routerDim = m_routerDim->value();
    settings.maxNewTokens = m_newTokens->value();
    settings.temperature = m_temperature->value();
    settings.topP = m_topP->value();
    settings.sampleTopK = m_sampleTopK->value();
    settings.capture = m_capture->currentText().trimmed();
}

void PromptSettingsPanel::show(const PromptSettings &settings)
{
    m_upcycle->setChecked(settings.upcycle);
    m_experts->setValue(settings.experts);
    m_topK->setValue(settings.topK);
    m_routerDim->setValue(settings.routerDim);
    m_newTokens->setValue(settings.maxNewTokens);
    m_temperature->setValue(settings.temperature);
    m_topP->setValue(settings.topP);
    m_sampleTopK->setValue(settings.sampleTopK);
    m_capture->setCurrentText(settings.capture);
}

void PromptSettingsPanel::popUpBelow(QWidget *anchor)
{
    adjustSize();
    const QRect room = anchor->screen()->availableGeometry();
    QPoint place = anchor->mapToGlobal(QPoint(0, anchor->height() + 2));
    place.setX(std::min(place.x(), room.right() - width()));
    place.setY(std::min(place.y(), room.bottom() - height()));
    move(place);
    QFrame::show();
    m_upcycle->setFocus();
}

} // namespace spectra
