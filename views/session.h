// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/rowset.h"
#include "engine/core/tracesource.h"

#include <QColor>
#include <QJsonObject>
#include <QObject>
#include <QString>
#include <QStringList>

#include <memory>
#include <optional>
#include <vector>

namespace spectra {

/// Layers of a selection that views repaint apart from each other.
enum class RowLayer { filter, selection, highlight };

/// How a new set of rows meets the old selection: replace, Shift add, Ctrl remove, Ctrl+Shift intersect.
enum class SelectMode { replace, add, remove, intersect };

/// The mode that the held modifier keys ask for, the same in every view.
[[nodiscard]] SelectMode selectModeOf(Qt::KeyboardModifiers modifiers);

/// One open trace with its own three row sets.
struct OpenTrace {
    quint64 id = 0;
    QString name;                 ///< for a person; unique among the open ones
    QColor color;
    std::shared_ptr<const TraceSource> source;
    std::shared_ptr<const TraceInfo> info;
    std::shared_ptr<const std::vector<SequenceInfo>> sequences; ///< may be null until read
    RowSet filter;                ///< rows that take part (all when nothing is filtered)
    RowSet selection;
    RowSet highlight;
};

/// A selection kept under a name, of one trace.
struct RowGroup {
    QString name;
    quint64 trace = 0;
    RowSet rows;
};

/// The linked state that all views follow. GUI thread only. Signals say which part changed; views repaint that part.
class Session : public QObject {
    Q_OBJECT
public:
    explicit Session(QObject *parent = nullptr);
    ~Session() override;

    // Traces
    /// The first trace becomes the current one. Sequence texts are read in the background: sequencesRead() tells.
    quint64 addTrace(std::shared_ptr<const TraceSource> source, const QString &name);
    void removeTrace(quint64 id);
    /// A growing trace has new tokens, or a live one was replaced by its file. Row sets are kept and lengthened.
    void updateTrace(quint64 id, std::shared_ptr<const TraceSource> source);
    [[nodiscard]] const std::vector<std::shared_ptr<OpenTrace>> &traces() const;
    [[nodiscard]] std::shared_ptr<OpenTrace> trace(quint64 id) const;
    [[nodiscard]] std::shared_ptr<OpenTrace> current() const;
    /// Switching keeps the decoder layer that is shown where the new trace has it.
    void setCurrent(quint64 id);
    /// Reads in the calling thread from now on: figures without a window, where nobody waits for a picture.
    void setSynchronous(bool on);
    [[nodiscard]] bool isSynchronous() const;

    // Layer: ordinal 0..L-1 of the current trace
    [[nodiscard]] int layer() const;
    void setLayer(int layer);
    /// The decoder index of layer(), -1 without a trace: what a person is shown.
    [[nodiscard]] int decoderLayer() const;

    // Tokens of the current trace
    void select(const RowSet &rows, SelectMode mode, const QString &what);
    void highlight(std::optional<std::int64_t> token);   ///< hover; empty clears
    /// Several rows at once: an expert or a cell under the mouse.
    void highlightRows(const RowSet &rows);
    [[nodiscard]] std::optional<std::int64_t> highlightedToken() const; ///< the single hovered token, if it is one
    void invertSelection();
    void clearSelection();
    void setFilter(const RowSet &rows, const QString &what);
    void clearFilter();
    [[nodiscard]] std::optional<std::int64_t> focusedToken() const; ///< last clicked token
    void focusToken(std::optional<std::int64_t> token);
    /// Steps of selection and filter that can be taken back, each with its name.
    [[nodiscard]] bool canUndo() const;
    [[nodiscard]] bool canRedo() const;
    [[nodiscard]] QString undoText() const;
    [[nodiscard]] QString redoText() const;
    void undo();
    void redo();
    // Named groups of rows
    void saveGroup(const QString &name);
    void removeGroup(const QString &name);
    [[nodiscard]] const std::vector<RowGroup> &groups() const;
    void selectGroup(const QString &name, SelectMode mode);
    /// Replaces the whole list: undo of saving and removing.
    void setGroups(std::vector<RowGroup> groups);

    // Experts of the current layer, and domains shown (empty = all)
    [[nodiscard]] const std::vector<int> &selectedExperts() const;
    void setSelectedExperts(const std::vector<int> &experts);
    /// A click on an expert: replace toggles a sole selection off, the other modes as for rows.
    void selectExpert(int expert, SelectMode mode);
    [[nodiscard]] std::optional<int> highlightedExpert() const;
    void highlightExpert(std::optional<int> expert);
    [[nodiscard]] const std::vector<int> &shownDomains() const;
    void setShownDomains(const std::vector<int> &domains);
    [[nodiscard]] bool domainShown(int domain) const;
    /// The domain of a sequence as an index into TraceInfo::domains, -1 if unknown.
    [[nodiscard]] int domainOf(std::int32_t sequence) const;

    /// Layer, experts, domains, row sets and groups. Traces are matched by uuid; unknown ones are left out.
    [[nodiscard]] QJsonObject saveState() const;
    void restoreState(const QJsonObject &state);

Q_SIGNALS:
    void tracesChanged();
    void currentChanged();
    void traceGrew(quint64 id);
    void sequencesRead(quint64 id);
    void readFailed(quint64 id, const QString &message);
    void layerChanged(int layer);
    void rowsChanged(spectra::RowLayer layer);
    void focusChanged();
    void expertsChanged();
    void expertHighlightChanged();
    void domainsChanged();
    void historyChanged();
    void groupsChanged();

private:
    struct Private;
    std::unique_ptr<Private> d;
};

} // namespace spectra
