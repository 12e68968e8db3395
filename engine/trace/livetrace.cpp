// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/trace/livetraceimpl.h"

#include "engine/trace/statebasis.h"

#include <cmath>
#include <limits>
#include <set>
#include <span>

namespace spectra {

namespace {
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::span<const float> floats(const RoutingRecord &r, Column column)
{
    switch (column) {
    case Column::weights: return r.weights;
    case Column::logits: return r.logits;
    case Column::selection: return r.selection;
    case Column::probabilities: return r.probabilities;
    case Column::entropy: return r.entropy;
    case Column::routingVectors: return r.routingVectors;
    case Column::expressionVectors: return r.expressionVectors;
    case Column::gruState: return r.gruState;
    case Column::hidden: return r.hiddenStates;
    case Column::expertOutputs: return r.expertOutputs;
    case Column::experts:
    case Column::dropped:
    case Column::gruPca: break;
    }
    return {};
}

/// A copy of the narrow columns alone.
RoutingRecord narrow(const RoutingRecord &r)
{
    RoutingRecord out = r;
    auto buffer = std::make_shared<std::vector<std::byte>>(r.weights.size_bytes() + r.entropy.size_bytes() + r.expertIds.size_bytes() + r.dropped.size_bytes());
    std::size_t used = 0;
    const auto keep = [&](auto &span) {
        using T = typename std::remove_reference_t<decltype(span)>::element_type;
        auto *const at = reinterpret_cast<std::remove_const_t<T> *>(buffer->data() + used);
        std::copy(span.begin(), span.end(), at);
        used += span.size_bytes();
        span = {at, span.size()};
    };
    keep(out.weights);
    keep(out.entropy);
    keep(out.expertIds);
    keep(out.dropped);
    for (auto *span : {&out.logits, &out.selection, &out.probabilities, &out.routingVectors, &out.expressionVectors, &out.gruState, &out.hiddenStates, &out.expertOutputs, &out.sinkhornPotentials})
        *span = {};
    out.buffer = std::move(buffer);
    return out;
}
} // namespace

LiveTrace::LiveTrace(const TraceSpec &spec, std::int64_t memoryLimit) : m_impl(std::make_unique<Impl>())
{
    m_impl->spec = spec;
    m_impl->limit = memoryLimit;
    const auto L = static_cast<std::size_t>(spec.layers());
    m_impl->coverage.resize(L);
    m_impl->records.resize(L);
    m_impl->means.resize(L);
}
LiveTrace::~LiveTrace() = default;

void LiveTrace::beginSequence(SequenceInfo info)
{
    const std::lock_guard lock(m_impl->mutex);
    m_impl->sequences.push_back(std::move(info));
    m_impl->ended.push_back(false);
    ++m_impl->revision;
}

void LiveTrace::endSequence(std::int32_t sequence, SequenceInfo info)
{
    const std::lock_guard lock(m_impl->mutex);
    const auto s = static_cast<std::size_t>(sequence);
    if (sequence < 0 || s >= m_impl->sequences.size())
        return;
    m_impl->sequences[s] = std::move(info);
    m_impl->ended[s] = true;
    ++m_impl->revision;
}

void LiveTrace::addTokens(TokenRecord r)
{
    const std::lock_guard lock(m_impl->mutex);
    TokenBlock &c = m_impl->columns;
    const std::size_t n = r.id.size(), end = static_cast<std::size_t>(r.firstToken) + n;
    const auto place = [&](auto &to, auto &from, auto fill) {
        if (to.size() < end)
            to.resize(end, fill);
        for (std::size_t i = 0; i < std::min(n, from.size()); ++i)
            to[end - n + i] = std::move(from[i]);
    };
    std::vector<std::int32_t> sequence(n, r.sequence);
    place(c.id, r.id, std::int32_t(0));
    place(c.sequence, sequence, std::int32_t(0));
    place(c.position, r.position, std::int32_t(0));
    place(c.byteOffset, r.byteOffset, std::int32_t(0));
    place(c.phase, r.phase, std::uint8_t(0));
    place(c.mask, r.mask, std::uint8_t(1));
    place(c.text, r.text, std::string());
    if (m_impl->spec.holds(Field::nextTop1))
        place(c.nextTop1, r.nextTop1, std::int32_t(-1));
    if (m_impl->spec.holds(Field::nll))
        place(c.nll, r.nll, kNan);
    m_impl->tokenCoverage.add(r.firstToken, r.firstToken + static_cast<std::int64_t>(n));
    m_impl->bytes += static_cast<std::int64_t>(n * 70);
    ++m_impl->revision;
}

void LiveTrace::addRouting(RoutingRecord r)
{
    const std::lock_guard lock(m_impl->mutex);
    Impl &m = *m_impl;
    if (r.layer < 0 || r.layer >= m.spec.layers() || r.tokens <= 0 || r.firstToken < 0)
        return;
    const auto L = static_cast<std::size_t>(m.spec.layers()), E = static_cast<std::size_t>(m.spec.experts), layer = static_cast<std::size_t>(r.layer);
    if (m.spec.holds(Field::sinkhorn) && (r.sinkhornViolation >= 0 || !r.sinkhornPotentials.empty())) {
        auto &v = m.violations[r.firstToken];
        auto &p = m.potentials[r.firstToken];
        v.resize(L, kNan);
        p.resize(L * E, kNan);
        v[layer] = r.sinkhornViolation;
        if (r.sinkhornPotentials.size() == E)
            std::copy(r.sinkhornPotentials.begin(), r.sinkhornPotentials.end(), p.begin() + static_cast<std::ptrdiff_t>(layer * E));
    }
    const std::int64_t size = r.buffer ? static_cast<std::int64_t>(r.buffer->size()) : 0;
    if (m.bytes + size > m.limit) {
        m.full = true;
        r = narrow(r);
    }
    if (layer == 0 && (!r.hiddenStates.empty() || !r.expertOutputs.empty()))
        m.sampled += r.tokens;
    m.bytes += r.buffer ? static_cast<std::int64_t>(r.buffer->size()) : 0;
    m.coverage[layer].add(r.firstToken, r.firstToken + r.tokens);
    const std::int64_t first = r.firstToken;
    m.records[layer].insert_or_assign(first, std::move(r));
    ++m.revision;
}

void LiveTrace::addSequenceMeans(SequenceMeans means)
{
    const std::lock_guard lock(m_impl->mutex);
    if (means.layer < 0 || means.layer >= m_impl->spec.layers())
        return;
    auto &of = m_impl->means[static_cast<std::size_t>(means.layer)];
    const std::int32_t sequence = means.sequence;
    of.insert_or_assign(sequence, std::move(means));
    ++m_impl->revision;
}

void LiveTrace::finish(std::vector<LayerTables> tables, double wallSeconds)
{
    const std::lock_guard lock(m_impl->mutex);
    m_impl->spec.environment.wallSeconds = wallSeconds;
    m_impl->tables = std::move(tables);
    m_impl->finished = true;
    ++m_impl->revision;
}

std::uint64_t LiveTrace::revision() const
{
    const std::lock_guard lock(m_impl->mutex);
    return m_impl->revision;
}

std::int64_t LiveTrace::bytes() const
{
    const std::lock_guard lock(m_impl->mutex);
    return m_impl->bytes;
}

std::shared_ptr<const TraceInfo> LiveTrace::info() const
{
    const std::lock_guard lock(m_impl->mutex);
    const Impl &m = *m_impl;
    if (m.lastInfoRevision == m.revision)
        return m.lastInfo;
    auto info = std::make_shared<TraceInfo>();
    info->generator = m.spec.generator;
    info->formatVersion = std::string(schema::kVersion);
    info->complete = m.finished;
    info->tokens = m.tokens();
    info->experts = m.spec.experts;
    info->slots = m.spec.slots;
    info->routerDim = m.spec.routerDim;
    info->hidden = m.spec.hidden;
    info->decoderIndex = m.spec.decoderIndex;
    info->model = m.spec.model;
    info->environment = m.spec.environment;
    info->hasNll = m.spec.holds(Field::nll);
    info->hasNextTop1 = m.spec.holds(Field::nextTop1);
    info->sampledTokens = m.sampled;
    std::set<std::string> seen;
    for (const SequenceInfo &s : m.sequences) {
        if (s.offset >= info->tokens && info->sequences > 0)
            break;
        ++info->sequences;
        if (seen.insert(s.domain).second)
            info->domains.push_back(s.domain);
    }
    for (int c = 0; c <= static_cast<int>(Column::expertOutputs); ++c)
        if (auto why = m.missing(static_cast<Column>(c)))
            info->missingColumns.emplace(static_cast<Column>(c), *why);
    for (int t = 0; t <= static_cast<int>(Table::gruPcaBasis); ++t) {
        const auto table = static_cast<Table>(t);
        if (m.spec.layers() == 0) {
            info->missingTables.emplace(table, "the model has no experts");
        } else if (auto value = m.table(table, 0); !value) {
            info->missingTables.emplace(table, value.error().mend);
        }
    }
    m.lastInfo = std::move(info);
    m.lastInfoRevision = m.revision;
    return m.lastInfo;
}

Result<std::shared_ptr<const std::vector<SequenceInfo>>> LiveTrace::sequences() const
{
    const std::lock_guard lock(m_impl->mutex);
    const std::int64_t tokens = m_impl->tokens();
    auto list = std::make_shared<std::vector<SequenceInfo>>();
    for (const SequenceInfo &s : m_impl->sequences) {
        if (s.offset >= tokens && !list->empty())
            break;
        list->push_back(s);
        list->back().length = std::min(s.length, tokens - s.offset);
    }
    if (!list->empty() && !m_impl->ended[list->size() - 1])
        list->back().length = tokens - list->back().offset;
    return std::shared_ptr<const std::vector<SequenceInfo>>(std::move(list));
}

Result<std::shared_ptr<const TokenBlock>> LiveTrace::tokens(TokenRange range, std::stop_token) const
{
    const std::lock_guard lock(m_impl->mutex);
    if (range.first < 0 || range.first > range.last || range.last > m_impl->tokens())
        return usageError("tokens outside the trace", "running job");
    const TokenBlock &c = m_impl->columns;
    auto block = std::make_shared<TokenBlock>();
    block->range = range;
    const auto take = [&](const auto &from, auto &to) {
        if (static_cast<std::int64_t>(from.size()) >= range.last)
            to.assign(from.begin() + range.first, from.begin() + range.last);
    };
    take(c.id, block->id);
    take(c.sequence, block->sequence);
    take(c.position, block->position);
    take(c.byteOffset, block->byteOffset);
    take(c.nextTop1, block->nextTop1);
    take(c.phase, block->phase);
    take(c.mask, block->mask);
    take(c.nll, block->nll);
    take(c.text, block->text);
    return std::shared_ptr<const TokenBlock>(std::move(block));
}

Result<std::shared_ptr<const Block>> LiveTrace::block(Column column, int layer, TokenRange range, std::stop_token stop) const
{
    const Impl &m = *m_impl;
    std::vector<RoutingRecord> pieces; // they share their buffers: copied under the lock, read outside it
    {
        const std::lock_guard lock(m.mutex);
        if (layer < 0 || layer >= m.spec.layers())
            return usageError("layer " + std::to_string(layer) + " of " + std::to_string(m.spec.layers()), "running job");
        if (range.first < 0 || range.first > range.last || range.last > m.tokens())
            return usageError("tokens outside the trace", "running job");
        if (auto why = m.missing(column))
            return usageError(std::string(schema::rule(*schema::datasetOf(column)).path) + " is not in the trace", "running job", *why);
        const auto &of = m.records[static_cast<std::size_t>(layer)];
        auto it = of.upper_bound(range.first);
        if (it != of.begin())
            --it;
        for (; it != of.end() && it->first < range.last; ++it)
            if (it->first + it->second.tokens > range.first)
                pieces.push_back(it->second);
    }
    auto block = std::make_shared<Block>();
    block->column = column;
    block->layer = layer;
    block->range = range;
    block->inner = m.inner(column);
    const std::int64_t width = block->width();
    const bool sampled = column == Column::hidden || column == Column::expertOutputs;
    for (const RoutingRecord &r : pieces) {
        if (stop.stop_requested())
            return cancelledError();
        const std::int64_t first = std::max(range.first, r.firstToken), last = std::min(range.last, r.firstToken + r.tokens);
        const auto from = static_cast<std::size_t>((first - r.firstToken) * width), count = static_cast<std::size_t>((last - first) * width);
        const auto copy = [&](const auto &source, auto &to) -> bool {
            if (source.size() < from + count)
                return false;
            to.insert(to.end(), source.begin() + static_cast<std::ptrdiff_t>(from), source.begin() + static_cast<std::ptrdiff_t>(from + count));
            return true;
        };
        bool there = false;
        if (column == Column::experts)
            there = copy(r.expertIds, block->u16);
        else if (column == Column::dropped)
            there = copy(r.dropped, block->u8);
        else
            there = copy(floats(r, column), block->f32);
        if (!there && !sampled)
            return usageError(std::string(schema::rule(*schema::datasetOf(column)).path) + " of these tokens is not kept in memory", "running job",
                              "open the written trace when the run has ended");
        for (std::int64_t t = first; there && sampled && t < last; ++t)
            block->token.push_back(t);
        block->rows += there ? last - first : 0;
    }
    return std::shared_ptr<const Block>(std::move(block));
}

/// Mean vector of the sequences so far, weighted by their counted tokens; [E,D], empty before the first.
std::vector<double> LiveTrace::Impl::mean(int layer, bool expression) const
{
    std::vector<double> sum;
    double weight = 0;
    for (const auto &[sequence, m] : means[static_cast<std::size_t>(layer)]) {
        const std::vector<float> &values = expression ? m.expression : m.routing;
        const auto s = static_cast<std::size_t>(sequence);
        const double counted = s < sequences.size() ? double(sequences[s].counted) : 0;
        if (values.empty() || counted <= 0)
            continue;
        sum.resize(values.size(), 0.0);
        for (std::size_t i = 0; i < sum.size(); ++i)
            sum[i] += counted * double(values[i]);
        weight += counted;
    }
    for (double &x : sum)
        x /= weight;
    return sum;
}

Result<TableValue> LiveTrace::Impl::table(Table wanted, int layer) const
{
    const Dataset d = schema::datasetOf(wanted);
    const auto none = [&](const std::string &why) { return usageError(std::string(schema::rule(d).path) + " is not in the trace", "running job", why); };
    if (!spec.capture.has(schema::fieldOf(d)))
        return none("not captured in this run");
    if (!schema::exists(d, spec))
        return none("the router '" + spec.model.router + "' has none");
    const std::int64_t E = spec.experts, D = spec.routerDim, H = spec.hidden;
    const LayerTables *final = nullptr;
    for (const LayerTables &t : tables)
        if (t.layer == layer)
            final = &t;
    TableValue value;
    const auto fill = [&](std::vector<std::int64_t> shape, const auto &from) {
        value.shape = std::move(shape);
        value.values.assign(from.begin(), from.end());
    };
    const auto gram = [&](const auto &rows, std::int64_t width) {
        std::vector<double> unit(rows.begin(), rows.end());
        const auto W = static_cast<std::size_t>(width), n = static_cast<std::size_t>(E);
        for (std::size_t e = 0; e < n; ++e) {
            double norm = 0;
            for (std::size_t i = 0; i < W; ++i)
                norm += unit[e * W + i] * unit[e * W + i];
            for (std::size_t i = 0; i < W; ++i)
                unit[e * W + i] *= norm > 0 ? 1 / std::sqrt(norm) : 0;
        }
        std::vector<float> out(n * n);
        for (std::size_t a = 0; a < n; ++a) {
            for (std::size_t b = 0; b < n; ++b) {
                double sum = 0;
                for (std::size_t i = 0; i < W; ++i)
                    sum += unit[a * W + i] * unit[b * W + i];
                out[a * n + b] = static_cast<float>(sum);
            }
        }
        fill({E, E}, out);
    };
    const auto &of = means[static_cast<std::size_t>(layer)];
    switch (wanted) {
    case Table::meanRouting:
    case Table::meanExpression:
    case Table::gramRouting:
    case Table::gramExpression: {
        const std::vector<double> m = mean(layer, wanted == Table::meanExpression || wanted == Table::gramExpression);
        if (m.empty())
            return none("there once the first sequence has ended");
        if (wanted == Table::gramRouting || wanted == Table::gramExpression)
            gram(m, D);
        else
            fill({E, D}, m);
        return value;
    }
    case Table::sequenceMeanRouting:
    case Table::sequenceMeanExpression: {
        if (of.empty())
            return none("there once the first sequence has ended");
        value.shape = {static_cast<std::int64_t>(sequences.size()), E, D};
        const auto cell = static_cast<std::size_t>(E * D);
        value.values.assign(sequences.size() * cell, kNan);
        for (const auto &[sequence, m] : of) {
            const std::vector<float> &v = wanted == Table::sequenceMeanExpression ? m.expression : m.routing;
            if (v.size() == cell && static_cast<std::size_t>(sequence) < sequences.size())
                std::copy(v.begin(), v.end(), value.values.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(sequence) * cell));
        }
        return value;
    }
    case Table::sinkhornViolation:
    case Table::sinkhornPotentials: {
        if (violations.empty())
            return none("the run had no transport batches yet");
        const auto L = static_cast<std::size_t>(layer), n = static_cast<std::size_t>(E);
        value.shape = {static_cast<std::int64_t>(violations.size())};
        if (wanted == Table::sinkhornViolation) {
            for (const auto &[first, v] : violations)
                value.values.push_back(v[L]);
        } else {
            value.shape.push_back(E);
            for (const auto &[first, p] : potentials)
                value.values.insert(value.values.end(), p.begin() + static_cast<std::ptrdiff_t>(L * n), p.begin() + static_cast<std::ptrdiff_t>((L + 1) * n));
        }
        return value;
    }
    case Table::gruPcaMean:
    case Table::gruPcaBasis: return none("fitted when the trace is written");
    default: break;
    }
    if (final == nullptr)
        return none("there when the run has ended");
    const auto expertMean = [&](const std::vector<double> &sums) -> bool {
        if (sums.size() != static_cast<std::size_t>(E * H) || final->expertCount.size() != static_cast<std::size_t>(E))
            return false;
        value.shape = {E, H};
        for (std::size_t i = 0; i < sums.size(); ++i) {
            const std::int64_t count = final->expertCount[i / static_cast<std::size_t>(H)];
            value.values.push_back(count > 0 ? static_cast<float>(sums[i] / double(count)) : kNan);
        }
        return true;
    };
    switch (wanted) {
    case Table::gramRouterWeights:
        if (final->routerWeights.empty())
            return none("the run did not give it");
        gram(final->routerWeights, H);
        return value;
    case Table::routerWeights: fill({E, H}, final->routerWeights); break;
    case Table::bufferMeanExpression: fill({E, D}, final->bufferMeanExpression); break;
    case Table::bufferPotential: fill({E}, final->bufferPotential); break;
    case Table::expertInputMean:
    case Table::expertOutputMean:
        if (!expertMean(wanted == Table::expertInputMean ? final->expertInputSum : final->expertOutputSum))
            return none("the run did not give it");
        return value;
    default: break;
    }
    if (value.values.empty())
        return none("the run did not give it");
    return value;
}

Result<std::shared_ptr<const TableValue>> LiveTrace::table(Table table, int layer) const
{
    const std::lock_guard lock(m_impl->mutex);
    if (layer < 0 || layer >= m_impl->spec.layers())
        return usageError("layer " + std::to_string(layer) + " of " + std::to_string(m_impl->spec.layers()), "running job");
    SPECTRA_TRY(TableValue value, m_impl->table(table, layer));
    return std::shared_ptr<const TableValue>(std::make_shared<TableValue>(std::move(value)));
}

} // namespace spectra
