// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/figure/figurepage.h"
#include "views/session.h"

#include <QComboBox>
#include <QDoubleSpinBox>
#include <QFontComboBox>
#include <QListWidget>
#include <QTimer>
#include <QWidget>

#include <functional>
#include <memory>

namespace spectra {

class FigurePreview;

/// The Figure workspace: which views stand on the page, how it is laid out, a preview of exactly what is written, export.
class FigureWorkspace : public QWidget {
    Q_OBJECT
public:
    /// `stateOf` gives how the dock of a view shows it now; a new panel starts from there.
    FigureWorkspace(Session &session, std::function<QJsonObject(const QString &viewId)> stateOf, QWidget *parent = nullptr);
    ~FigureWorkspace() override;

    void addPanel(const QString &viewId);
    void removePanel(int index);
    void movePanel(int index, int by);
    [[nodiscard]] std::vector<View *> panels() const;
    [[nodiscard]] const FigureSpec &spec() const { return m_spec; }
    void setSpec(const FigureSpec &spec);
    [[nodiscard]] View *selectedPanel() const;

    [[nodiscard]] QJsonObject saveState() const;
    void restoreState(const QJsonObject &state);
    [[nodiscard]] bool isWorking() const;
    void setTheme(const Theme &theme);

Q_SIGNALS:
    /// The shell asks for a file name; `view` nullptr: the whole page. `format` is pdf, svg, png, csv or tex.
    void exportRequested(spectra::View *view, const QString &format);
    void changed();

private:
    void readSpec();
    void showSpec();
    void panelsChanged();
    void scheduleRender();

    Session &m_session;
    std::function<QJsonObject(const QString &)> m_stateOf;
    FigureSpec m_spec;
    QWidget *m_stage; ///< holds the panels' views: shown, so that they load, but outside what is seen
    std::vector<View *> m_views;
    FigurePreview *m_preview;
    QListWidget *m_list;
    QDoubleSpinBox *m_width, *m_height, *m_gap, *m_font;
    QComboBox *m_columns, *m_letters, *m_themes, *m_dpi;
    QFontComboBox *m_family;
    class QCheckBox *m_headers;
    QTimer m_render;
    bool m_showing = false;
};

} // namespace spectra
