// SPDX-License-Identifier: GPL-3.0-or-later
#include "views/tracecolumns.h"

#include "engine/core/routingrecord.h"

#include <algorithm>
#include <list>
#include <mutex>

namespace spectra {

namespace {

constexpr std::int64_t kRows = 65536;          // tokens read at a time
constexpr std::size_t kCacheBytes = 256u << 20; // of what nobody holds any more

struct Key {
    const TraceSource *source;
    std::int64_t tokens; // a growing trace is another one
    int what, layer;
    friend bool operator==(const Key &, const Key &) = default;
};
struct Entry {
    Key key;
    std::weak_ptr<const TraceSource> source; // a freed address may come again
    std::shared_ptr<const void> value;
    std::size_t bytes;
};

std::mutex cacheMutex;
std::list<Entry> cache; // newest first

std::shared_ptr<const void> lookUp(const Key &key)
{
    const std::lock_guard lock(cacheMutex);
    for (auto it = cache.begin(); it != cache.end();) {
        if (it->source.expired()) {
            it = cache.erase(it);
            continue;
        }
        if (it->key == key) {
            cache.splice(cache.begin(), cache, it);
            return cache.front().value;
        }
        ++it;
    }
    return nullptr;
}

void keep(const Key &key, const std::shared_ptr<const TraceSource> &source, std::shared_ptr<const void> value, std::size_t bytes)
{
    const std::lock_guard lock(cacheMutex);
    cache.push_front({key, source, std::move(value), bytes});
    std::size_t sum = 0;
    for (auto it = cache.begin(); it != cache.end();) {
        sum += it->bytes;
        it = sum > kCacheBytes && it != cache.begin() ? cache.erase(it) : std::next(it);
    }
}

} // namespace

Result<std::shared_ptr<const TokenColumns>> tokenColumns(const std::shared_ptr<const TraceSource> &source, std::stop_token stop)
{
    const auto info = source->info();
    const Key key{source.get(), info->tokens, -1, 0};
    if (auto found = lookUp(key))
        return std::static_pointer_cast<const TokenColumns>(found);
    auto columns = std::make_shared<TokenColumns>();
    columns->tokens = info->tokens;
    auto sequences = source->sequences();
    if (!sequences)
        return sequences.error();
    std::unordered_map<std::string, std::int16_t> index;
    for (std::size_t i = 0; i < info->domains.size(); ++i)
        index.emplace(info->domains[i], static_cast<std::int16_t>(i));
    for (const SequenceInfo &s : **sequences) {
        const auto at = index.find(s.domain);
        columns->domainOfSequence.push_back(at == index.end() ? std::int16_t(-1) : at->second);
        columns->sequenceOffset.push_back(s.offset);
    }
    columns->sequenceOffset.push_back(info->tokens);
    const auto n = static_cast<std::size_t>(info->tokens);
    columns->id.reserve(n);
    columns->sequence.reserve(n);
    columns->mask.reserve(n);
    for (std::int64_t first = 0; first < info->tokens; first += kRows) {
        const TokenRange range{first, std::min(first + kRows, info->tokens)};
        auto read = source->tokens(range, stop);
        if (!read)
            return read.error();
        const TokenBlock &b = **read;
        const auto rows = static_cast<std::size_t>(range.size());
        if (b.id.size() != rows || b.sequence.size() != rows || b.mask.size() != rows)
            return inputError("token columns have different lengths", info->file);
        columns->id.insert(columns->id.end(), b.id.begin(), b.id.end());
        columns->sequence.insert(columns->sequence.end(), b.sequence.begin(), b.sequence.end());
        columns->mask.insert(columns->mask.end(), b.mask.begin(), b.mask.end());
        if (b.nll.size() == rows)
            columns->nll.insert(columns->nll.end(), b.nll.begin(), b.nll.end());
        if (b.nextTop1.size() == rows)
            columns->nextTop1.insert(columns->nextTop1.end(), b.nextTop1.begin(), b.nextTop1.end());
        for (std::size_t i = 0; i < std::min(rows, b.text.size()); ++i)
            columns->text.try_emplace(b.id[i], b.text[i]);
    }
    if (columns->nll.size() != n)
        columns->nll.clear();
    if (columns->nextTop1.size() != n)
        columns->nextTop1.clear();
    keep(key, source, columns, n * 17);
    return std::shared_ptr<const TokenColumns>(columns);
}

Result<std::shared_ptr<const LayerRouting>> layerRouting(const std::shared_ptr<const TraceSource> &source, int layer, std::stop_token stop)
{
    const auto info = source->info();
    const Key key{source.get(), info->tokens, -2, layer};
    if (auto found = lookUp(key))
        return std::static_pointer_cast<const LayerRouting>(found);
    auto routing = std::make_shared<LayerRouting>();
    routing->layer = layer;
    routing->slots = std::max(1, info->slots);
    routing->tokens = info->tokens;
    const auto cells = static_cast<std::size_t>(info->tokens) * static_cast<std::size_t>(routing->slots);
    routing->experts.reserve(cells);
    const bool weighted = info->has(Column::weights);
    for (std::int64_t first = 0; first < info->tokens; first += kRows) {
        const TokenRange range{first, std::min(first + kRows, info->tokens)};
        auto read = source->block(Column::experts, layer, range, stop);
        if (!read)
            return read.error();
        if ((*read)->u16.size() != static_cast<std::size_t>(range.size() * routing->slots))
            return inputError("chosen experts have an unexpected shape", info->file);
        routing->experts.insert(routing->experts.end(), (*read)->u16.begin(), (*read)->u16.end());
        if (!weighted)
            continue;
        auto weights = source->block(Column::weights, layer, range, stop);
        if (!weights)
            return weights.error();
        if ((*weights)->f32.size() != static_cast<std::size_t>(range.size() * routing->slots))
            return inputError("expert weights have an unexpected shape", info->file);
        routing->weights.insert(routing->weights.end(), (*weights)->f32.begin(), (*weights)->f32.end());
    }
    for (std::uint16_t &e : routing->experts)
        if (e >= info->experts)
            e = kNoExpert;
    keep(key, source, routing, cells * 6);
    return std::shared_ptr<const LayerRouting>(routing);
}

Result<std::shared_ptr<const std::vector<float>>> layerColumn(const std::shared_ptr<const TraceSource> &source, Column column, int layer,
                                                              std::stop_token stop)
{
    const auto info = source->info();
    const Key key{source.get(), info->tokens, static_cast<int>(column), layer};
    if (auto found = lookUp(key))
        return std::static_pointer_cast<const std::vector<float>>(found);
    auto values = std::make_shared<std::vector<float>>();
    values->reserve(static_cast<std::size_t>(info->tokens));
    for (std::int64_t first = 0; first < info->tokens; first += kRows) {
        const TokenRange range{first, std::min(first + kRows, info->tokens)};
        auto read = source->block(column, layer, range, stop);
        if (!read)
            return read.error();
        if ((*read)->f32.size() != static_cast<std::size_t>(range.size()))
            return inputError("a column of one value per token has an unexpected shape", info->file);
        values->insert(values->end(), (*read)->f32.begin(), (*read)->f32.end());
    }
    keep(key, source, values, values->size() * 4);
    return std::shared_ptr<const std::vector<float>>(values);
}

} // namespace spectra
