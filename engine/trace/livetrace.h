// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/tracesource.h"
#include "engine/trace/tracespec.h"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <stop_token>
#include <vector>

namespace spectra {

/// The trace of a running job in memory, fed with the records that the writer gets and read by views while they arrive.
/// Thread-safe: one thread appends, any number read; blocks handed out do not change. info() counts the tokens for which
/// every layer has arrived.
///
/// Records are kept as they come (they share the engine's buffers), so memory is that of the captured columns in float32.
/// Above `memoryLimit` the wide columns (vectors, GRU states, hidden states, expert outputs, logits, selection,
/// probabilities) of new tokens are not kept, and asking for them says so; a file that the run writes has them.
class LiveTrace final : public TraceSource {
public:
    explicit LiveTrace(const TraceSpec &spec, std::int64_t memoryLimit = std::int64_t(1) << 30);
    ~LiveTrace() override;

    void beginSequence(SequenceInfo info);
    void addTokens(TokenRecord record);
    void addRouting(RoutingRecord record);
    void addSequenceMeans(SequenceMeans means);
    void endSequence(std::int32_t sequence, SequenceInfo info);
    /// The run has ended, whole or stopped: its last tables. Gram matrices and mean vectors are there from the first sequence
    /// on. Nothing is appended afterwards.
    void finish(std::vector<LayerTables> tables, double wallSeconds = 0);

    /// Writes the trace to `path` as the run itself would have written it there. The file of a run that was stopped holds
    /// the tokens that every layer has, and its note says so. Left out: a wide column that the memory limit left holes in,
    /// hidden states of a sequence of which some are missing, mean vectors when no sequence has ended.
    /// Any thread; blocks while it writes, readers of the trace go on. Nothing is left behind when it fails or is stopped.
    /// Errors: usage (the run has not ended, it has no token), work (as TraceWriter; without `overwrite` also a run that
    /// was cut off and could be continued at this place), cancelled.
    [[nodiscard]] Result<void> save(const std::filesystem::path &path, bool overwrite, std::stop_token stop = {}) const;

    /// Grows with every append: a view that has shown this revision has nothing new to draw.
    [[nodiscard]] std::uint64_t revision() const;
    [[nodiscard]] std::int64_t bytes() const;

    [[nodiscard]] std::shared_ptr<const TraceInfo> info() const override;
    [[nodiscard]] Result<std::shared_ptr<const std::vector<SequenceInfo>>> sequences() const override;
    [[nodiscard]] Result<std::shared_ptr<const TokenBlock>> tokens(TokenRange range, std::stop_token stop = {}) const override;
    [[nodiscard]] Result<std::shared_ptr<const Block>> block(Column column, int layer, TokenRange range,
                                                             std::stop_token stop = {}) const override;
    [[nodiscard]] Result<std::shared_ptr<const TableValue>> table(Table table, int layer) const override;

private:
    class Impl;
    std::unique_ptr<Impl> m_impl;
};

} // namespace spectra
