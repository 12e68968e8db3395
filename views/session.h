// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/rowset.h"
#include "engine/core/tracesource.h"

#include <QColor>
#include <QObject>
#include <QString>

#include <memory>
#include <optional>
#include <vector>

namespace spectra {

/// Layers of a selection that views repaint apart from each other.
enum class RowLayer { filter, selection, highlight };

/// How a new set of rows meets the old selection: replace, Shift add, Ctrl remove, Ctrl+Shift intersect.
enum class SelectMode { replace, add, remove, intersect };

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

/// The linked state that all views follow. GUI thread only. Signals say which part changed; views repaint that part.
class Session : public QObject {
    Q_OBJECT
public:
    explicit Session(QObject *parent = nullptr);
    ~Session() override;

    // Traces
    quint64 addTrace(std::shared_ptr<const TraceSource> source, const QString &name);
    void removeTrace(quint64 id);
    /// A growing trace has new tokens, or a live one was replaced by its file.
    void updateTrace(quint64 id, std::shared_ptr<const TraceSource> source);
    [[nodiscard]] const std::vector<std::shared_ptr<OpenTrace>> &traces() const;
    [[nodiscard]] std::shared_ptr<OpenTrace> trace(quint64 id) const;
    [[nodiscard]] std::shared_ptr<OpenTrace> current() const;
    void setCurrent(quint64 id);

    // Layer: ordinal 0..L-1 of the current trace
    [[nodiscard]] int layer() const;
    void setLayer(int layer);

    // Tokens of the current trace
    void select(const RowSet &rows, SelectMode mode, const QString &what);
    void highlight(std::optional<std::int64_t> token);   ///< hover; empty clears
    void invertSelection();
    void clearSelection();
    void setFilter(const RowSet &rows, const QString &what);
    [[nodiscard]] std::optional<std::int64_t> focusedToken() const; ///< last clicked token
    void focusToken(std::optional<std::int64_t> token);

    // Experts of the current layer, and domains shown (empty = all)
    [[nodiscard]] const std::vector<int> &selectedExperts() const;
    void setSelectedExperts(const std::vector<int> &experts);
    [[nodiscard]] const std::vector<int> &shownDomains() const;
    void setShownDomains(const std::vector<int> &domains);

signals:
    void tracesChanged();
    void currentChanged();
    void traceGrew(quint64 id);
    void layerChanged(int layer);
    void rowsChanged(spectra::RowLayer layer);
    void focusChanged();
    void expertsChanged();
    void domainsChanged();

private:
    struct Private;
    std::unique_ptr<Private> d;
};

} // namespace spectra
