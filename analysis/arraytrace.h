// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/tracesource.h"

#include <map>
#include <memory>
#include <utility>
#include <vector>

namespace spectra {

/// A trace in memory out of plain arrays: metrics of arrays, tests, benchmarks. Fill the fields, then call finish().
class ArrayTrace : public TraceSource {
public:
    TraceInfo header; ///< experts, slots, decoderIndex, … ; tokens, sequences, domains are derived
    std::vector<SequenceInfo> sequenceInfo; ///< domain, id; offset and length are derived when length is 0
    TokenBlock all; ///< [N]: id, sequence, position, mask, phase (position, mask, phase may be empty)
    std::map<std::pair<Column, int>, Block> columns; ///< (column, layer) → all N rows, or the sampled rows with `token`
    std::map<std::pair<Table, int>, TableValue> tables;

    /// Derives what was left out and what is missing.
    void finish();
    /// Shorthands: row-major [N,k] and [N,width].
    void setExperts(int layer, std::vector<std::uint16_t> experts, int slots);
    void setColumn(Column column, int layer, std::vector<float> values, std::vector<std::int64_t> inner);

    [[nodiscard]] std::shared_ptr<const TraceInfo> info() const override { return m_info; }
    [[nodiscard]] Result<std::shared_ptr<const std::vector<SequenceInfo>>> sequences() const override
    {
        return m_sequences;
    }
    [[nodiscard]] Result<std::shared_ptr<const TokenBlock>> tokens(TokenRange range,
                                                                   std::stop_token stop = {}) const override;
    [[nodiscard]] Result<std::shared_ptr<const Block>> block(Column column, int layer, TokenRange range,
                                                             std::stop_token stop = {}) const override;
    [[nodiscard]] Result<std::shared_ptr<const TableValue>> table(Table table, int layer) const override;

private:
    std::shared_ptr<const TraceInfo> m_info;
    std::shared_ptr<const std::vector<SequenceInfo>> m_sequences;
};

} // namespace spectra
