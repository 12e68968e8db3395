// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/tracesource.h"
#include "engine/trace/tracespec.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace spectra {

/// The trace of a running job in memory, fed with the records that the writer gets and read by views while they arrive.
/// Thread-safe: one thread appends, any number read; blocks handed out do not change. info() counts the tokens for which
/// every layer has arrived.
///
/// Records are kept as they come (they share the engine's buffers), so memory is that of the captured columns in float32.
/// Above `memoryLimit` the wide columns (vectors, GRU states, hidden states, expert outputs, logits, selection,
/// probabilities) of new tokens are not kept, and asking for them says so; the written file has them.
class LiveTrace final : public TraceSource {
public:
    explicit LiveTrace(const TraceSpec &spec, std::int64_t memoryLimit = std::int64_t(1) << 30);
    ~LiveTrace() override;

    void beginSequence(SequenceInfo info);
    void addTokens(TokenRecord record);
    void addRouting(RoutingRecord record);
    void addSequenceMeans(SequenceMeans means);
    void endSequence(std::int32_t sequence, SequenceInfo info);
    /// The tables of the end of a run; Gram matrices and mean vectors are there from the first sequence on.
    void finish(std::vector<LayerTables> tables);

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
