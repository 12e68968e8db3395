// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/arraytrace.h"

#include <algorithm>
#include <utility>

namespace spectra {
namespace {

template <typename T>
std::vector<T> cut(const std::vector<T> &from, std::int64_t first, std::int64_t last, std::int64_t width = 1)
{
    if (static_cast<std::int64_t>(from.size()) < last * width)
        return {};
    return {from.begin() + first * width, from.begin() + last * width};
}

Error outside(TokenRange range, std::int64_t tokens)
{
    return usageError("tokens " + std::to_string(range.first) + " to " + std::to_string(range.last) + " of " +
                      std::to_string(tokens));
}

} // namespace

void ArrayTrace::setExperts(int layer, std::vector<std::uint16_t> experts, int slots)
{
    Block b;
    b.column = Column::experts;
    b.layer = layer;
    b.inner = {slots};
    b.rows = slots > 0 ? static_cast<std::int64_t>(experts.size()) / slots : 0;
    b.u16 = std::move(experts);
    header.slots = std::max(header.slots, slots);
    columns[{Column::experts, layer}] = std::move(b);
}

void ArrayTrace::setColumn(Column column, int layer, std::vector<float> values, std::vector<std::int64_t> inner)
{
    Block b;
    b.column = column;
    b.layer = layer;
    b.inner = std::move(inner);
    b.rows = static_cast<std::int64_t>(values.size()) / std::max<std::int64_t>(1, b.width());
    b.f32 = std::move(values);
    columns[{column, layer}] = std::move(b);
}

void ArrayTrace::finish()
{
    const std::size_t n = all.id.size();
    all.range = {0, static_cast<std::int64_t>(n)};
    header.tokens = static_cast<std::int64_t>(n);
    if (all.sequence.empty())
        all.sequence.assign(n, 0);
    if (all.position.empty())
        for (std::size_t i = 0; i < n; ++i)
            all.position.push_back(i > 0 && all.sequence[i] == all.sequence[i - 1] ? all.position.back() + 1 : 0);
    if (all.mask.empty())
        all.mask.assign(n, 1);
    if (all.phase.empty())
        all.phase.assign(n, 0);
    for (const std::int32_t s : all.sequence)
        while (static_cast<std::int32_t>(sequenceInfo.size()) <= s)
            sequenceInfo.emplace_back();
    for (SequenceInfo &s : sequenceInfo)
        s.length = s.counted = 0;
    for (std::size_t i = 0; i < n; ++i) {
        SequenceInfo &s = sequenceInfo[static_cast<std::size_t>(all.sequence[i])];
        if (s.length++ == 0)
            s.offset = static_cast<std::int64_t>(i);
        s.counted += all.mask[i] != 0;
    }
    for (std::size_t i = 0; i < sequenceInfo.size(); ++i)
        if (sequenceInfo[i].id.empty())
            sequenceInfo[i].id = std::to_string(i);
    header.sequences = static_cast<std::int64_t>(sequenceInfo.size());
    header.domains.clear();
    for (const SequenceInfo &s : sequenceInfo)
        if (std::find(header.domains.begin(), header.domains.end(), s.domain) == header.domains.end())
            header.domains.push_back(s.domain);
    for (const auto &[key, block] : columns)
        while (header.layers() <= key.second)
            header.decoderIndex.push_back(header.layers());
    header.hasNextTop1 = all.nextTop1.size() == n && n > 0;
    header.hasNll = all.nll.size() == n && n > 0;
    header.complete = true;
    header.missingColumns.clear();
    header.missingTables.clear();
    for (int c = 0; c <= static_cast<int>(Column::expertOutputs); ++c)
        if (!columns.contains({static_cast<Column>(c), 0}))
            header.missingColumns[static_cast<Column>(c)] = "not among the arrays given";
    for (int t = 0; t <= static_cast<int>(Table::gruPcaBasis); ++t)
        if (!tables.contains({static_cast<Table>(t), 0}))
            header.missingTables[static_cast<Table>(t)] = "not among the arrays given";
    if (const auto hidden = columns.find({Column::hidden, 0}); hidden != columns.end())
        header.sampledTokens = hidden->second.rows;
    for (auto &[key, block] : columns) {
        const bool sampled = key.first == Column::hidden || key.first == Column::expertOutputs;
        if (sampled && block.token.empty() && block.rows == header.tokens)
            for (std::int64_t i = 0; i < header.tokens; ++i)
                block.token.push_back(i);
        block.range = all.range;
    }
    m_info = std::make_shared<const TraceInfo>(header);
    m_sequences = std::make_shared<const std::vector<SequenceInfo>>(sequenceInfo);
}

Result<std::shared_ptr<const TokenBlock>> ArrayTrace::tokens(TokenRange range, std::stop_token stop) const
{
    if (stop.stop_requested())
        return cancelledError();
    if (range.first < 0 || range.last < range.first || range.last > header.tokens)
        return outside(range, header.tokens);
    auto block = std::make_shared<TokenBlock>();
    block->range = range;
    const auto take = [&](auto &to, const auto &from) { to = cut(from, range.first, range.last); };
    take(block->id, all.id);
    take(block->sequence, all.sequence);
    take(block->position, all.position);
    take(block->byteOffset, all.byteOffset);
    take(block->nextTop1, all.nextTop1);
    take(block->phase, all.phase);
    take(block->mask, all.mask);
    take(block->nll, all.nll);
    take(block->text, all.text);
    return std::shared_ptr<const TokenBlock>(std::move(block));
}

Result<std::shared_ptr<const Block>> ArrayTrace::block(Column column, int layer, TokenRange range,
                                                       std::stop_token stop) const
{
    if (stop.stop_requested())
        return cancelledError();
    if (range.first < 0 || range.last < range.first || range.last > header.tokens)
        return outside(range, header.tokens);
    const auto found = columns.find({column, layer});
    if (found == columns.end())
        return usageError("the column is not there");
    const Block &from = found->second;
    // The whole column asked for: no copy, the caller keeps this trace alive while it reads.
    if (from.token.empty() && range.first == 0 && range.last == header.tokens)
        return std::shared_ptr<const Block>(std::shared_ptr<const Block>(), &from);
    auto block = std::make_shared<Block>();
    block->column = column;
    block->layer = layer;
    block->range = range;
    block->inner = from.inner;
    std::int64_t first = range.first, last = range.last;
    if (column == Column::hidden || column == Column::expertOutputs) {
        first = std::lower_bound(from.token.begin(), from.token.end(), range.first) - from.token.begin();
        last = std::lower_bound(from.token.begin(), from.token.end(), range.last) - from.token.begin();
        block->token.assign(from.token.begin() + first, from.token.begin() + last);
    }
    const std::int64_t width = from.width();
    block->rows = last - first;
    block->f32 = cut(from.f32, first, last, width);
    block->u16 = cut(from.u16, first, last, width);
    block->u8 = cut(from.u8, first, last, width);
    return std::shared_ptr<const Block>(std::move(block));
}

Result<std::shared_ptr<const TableValue>> ArrayTrace::table(Table table, int layer) const
{
    const auto found = tables.find({table, layer});
    if (found == tables.end())
        return usageError("the table is not there");
    return std::make_shared<const TableValue>(found->second);
}

} // namespace spectra
