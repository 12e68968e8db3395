// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/document/sessiondocument.h"

#include <QCheckBox>
#include <QComboBox>
#include <QDoubleSpinBox>
#include <QFrame>
#include <QSpinBox>

namespace spectra {

/// Settings of a run: turning a dense model into a mixture, generation, capture. A popup that stays open while typing.
class PromptSettingsPanel : public QFrame {
    Q_OBJECT
public:
    explicit PromptSettingsPanel(QWidget *parent);
    /// All but the model.
    void read(PromptSettings &settings) const;
    void show(const PromptSettings &settings);
    void popUpBelow(QWidget *anchor);

Q_SIGNALS:
    void changed();

private:
    QCheckBox *m_upcycle;
    QSpinBox *m_experts, *m_topK, *m_routerDim, *m_newTokens, *m_sampleTopK;
    QDoubleSpinBox *m_temperature, *m_topP;
    QComboBox *m_capture;
};

} // namespace spectra
