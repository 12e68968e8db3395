// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "views/session.h"

#include <QElapsedTimer>
#include <QObject>
#include <QUndoStack>

namespace spectra {

/// Turns what any view does to the linked state into named steps that can be undone: layer, selection, filter, groups,
/// domains. It listens, so a view needs to know nothing of undo. A step swaps a value for the one before; steps of the
/// same kind that follow at once become one (a slider, a brush stroke). Steps of a closed trace vanish.
class UndoRecorder : public QObject {
    Q_OBJECT
public:
    UndoRecorder(Session &session, QUndoStack &stack, QObject *parent = nullptr);
    ~UndoRecorder() override;

    enum class Kind { layer = 1, selection, filter, groups, domains };
    struct Value {
        int layer = 0;
        RowSet rows = {};
        std::vector<RowGroup> groups = {};
        std::vector<int> domains = {};
    };
    static constexpr int layerMergeMs = 1000, rowsMergeMs = 300;

    /// Makes the next step stand alone even if it follows quickly.
    void endMerge() { m_sinceStep.invalidate(); }

private:
    friend class UndoStep;
    void reread();
    void layerSeen();
    void rowsSeen(RowLayer layer);
    void groupsSeen();
    void domainsSeen();
    void push(Kind kind, Value before, Value after, const QString &text);
    bool apply(quint64 trace, Kind kind, const Value &value);

    Session &m_session;
    QUndoStack &m_stack;
    bool m_applying = false;
    QElapsedTimer m_sinceStep;
    // The linked state as last seen
    quint64 m_trace = 0;
    int m_layer = 0;
    RowSet m_selection, m_filter;
    std::vector<RowGroup> m_groups;
    std::vector<int> m_domains;
};

} // namespace spectra
