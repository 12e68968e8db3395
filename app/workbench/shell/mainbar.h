// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "views/session.h"

#include <QComboBox>
#include <QLabel>
#include <QSlider>
#include <QSpinBox>
#include <QToolBar>
#include <QToolButton>

namespace spectra {

class CommandRegistry;
class DomainChips;

/// A spin box over the layers of a trace: its value is the ordinal, its text the decoder index.
class LayerSpin : public QSpinBox {
    Q_OBJECT
public:
    explicit LayerSpin(QWidget *parent = nullptr) : QSpinBox(parent) {}
    void setLayers(const std::vector<std::int32_t> &decoderIndex);

protected:
    QString textFromValue(int value) const override;
    int valueFromText(const QString &text) const override;
    QValidator::State validate(QString &text, int &position) const override;

private:
    std::vector<std::int32_t> m_index;
};

/// The one tool bar: workspaces, trace, layer, domains, selection, palette. Everything in it follows the session.
class MainBar : public QToolBar {
    Q_OBJECT
public:
    MainBar(Session &session, const CommandRegistry &registry, QWidget *parent);

    [[nodiscard]] QComboBox *traceChooser() const { return m_traces; }
    [[nodiscard]] LayerSpin *layerSpin() const { return m_layer; }
    [[nodiscard]] QSlider *layerSlider() const { return m_slider; }
    [[nodiscard]] QLabel *selectionLabel() const { return m_selection; }

private:
    void showTraces();
    void showLayer();
    void showSelection();

    Session &m_session;
    QComboBox *m_traces;
    LayerSpin *m_layer;
    QLabel *m_layerCount;
    QSlider *m_slider;
    DomainChips *m_chips;
    QLabel *m_selection;
    QToolButton *m_clear;
};

} // namespace spectra
