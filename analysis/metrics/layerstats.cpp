// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/metrics/layerstats.h"

#include "analysis/metrics/rowkernels.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <utility>

namespace spectra::detail {
namespace {

constexpr std::size_t kTypeBudget = std::size_t(192) << 20; // bytes of TypeCounts per layer

class LayerReader {
public:
    LayerReader(const TraceSource &trace, int layer, const TokenIndex &index, const Units &units, const Slices &slices,
                const LayerPlan &plan, const std::stop_token &stop)
        : m_trace(trace)
        , m_layer(layer)
        , m_index(index)
        , m_units(units)
        , m_slices(slices)
        , m_plan(plan)
        , m_stop(stop)
        , m_info(trace.info())
        , m_experts(m_info->experts)
    {
    }
    Result<LayerStats> run(const std::function<void(std::int64_t)> &tick);

private:
    struct Blocks {
        std::shared_ptr<const Block> experts, weights, probabilities, entropy, dropped, hidden, outputs, routing,
            expression;
    };
    Result<void> start(int slots);
    Result<Blocks> read(TokenRange range);
    Result<void> block(TokenRange range, const Blocks &blocks);
    void token(std::int64_t token, std::size_t row, const Blocks &blocks);
    void sequential(std::int64_t token, const std::uint16_t *experts, double *stats);
    void pairs(const std::uint16_t *experts);
    void types(TypeCounts &counts, std::uint32_t type, const std::uint16_t *experts);
    void addVector(VectorSums &sums, const float *values, std::uint16_t expert);
    void sampleToken(std::int64_t token, std::size_t row, const Blocks &blocks, const std::uint16_t *experts);
    void sampledColumns(TokenRange range, const Blocks &blocks);
    void endSequence();
    void placeOf(std::int64_t token);
    std::size_t stride(std::int64_t all, std::int64_t wanted) const
    {
        return static_cast<std::size_t>(
            std::max<std::int64_t>(1, (all + wanted - 1) / std::max<std::int64_t>(1, wanted)));
    }

    const TraceSource &m_trace;
    const int m_layer;
    const TokenIndex &m_index;
    const Units &m_units;
    const Slices &m_slices;
    const LayerPlan &m_plan;
    const std::stop_token m_stop;
    const std::shared_ptr<const TraceInfo> m_info;
    const int m_experts;
    int m_slots = 0;
    LayerStats m_stats;

    std::size_t m_run = 0; // run of the token at hand
    int m_unit = 0, m_domain = -1, m_group = -1, m_phase = 0;
    std::vector<std::uint16_t> m_previous; // experts of the token before
    std::optional<SegmentScanner> m_segments;
    std::size_t m_sampleStride = 1, m_sampleAt = 0, m_hiddenStride = 1, m_hiddenAt = 0;
    int m_sliceList[4] = {};
    int m_sliceCount = 0;
    // the sequence at hand, for figures by sequence
    std::vector<std::uint16_t> m_sequenceExperts;
    std::vector<std::uint32_t> m_sequenceTypes;
};

Result<void> LayerReader::start(int slots)
{
    if (slots < 1 || slots > 4096)
        return inputError("a token has " + std::to_string(slots) + " expert slots", m_info->file + ": routing/experts");
    m_slots = slots;
    m_stats.slots = slots;
    m_stats.layout.experts = m_experts;
    const auto e = static_cast<std::size_t>(m_experts);
    const auto all = static_cast<std::size_t>(m_slices.count());
    m_stats.units.assign(static_cast<std::size_t>(m_units.count()) * m_stats.layout.size() * (m_plan.phases ? 2 : 1),
                         0.0);
    m_previous.assign(static_cast<std::size_t>(slots), kNoExpert);
    if (m_plan.segments)
        m_segments.emplace(m_experts, slots);
    if (m_plan.pairs) {
        m_stats.pairs.both.assign(all, std::vector<std::uint32_t>(e * e, 0));
        m_stats.pairs.load.assign(all, std::vector<std::uint32_t>(e, 0));
        m_stats.pairs.tokens.assign(all, 0);
    }
    const auto prepare = [&](TypeCounts &counts, std::int64_t types) {
        counts.types = types;
        counts.counts.assign(all, {});
        const std::size_t one = static_cast<std::size_t>(types) * e;
        std::size_t left = kTypeBudget / sizeof(std::uint32_t);
        // The whole always; then domains, phases and groups as long as memory allows.
        const auto give = [&](int slice) {
            counts.counts[static_cast<std::size_t>(slice)].assign(one, 0);
            left -= std::min(left, one);
        };
        give(0);
        if (one * static_cast<std::size_t>(m_slices.domains) <= left)
            for (int d = 0; d < m_slices.domains; ++d)
                give(m_slices.domain(d));
        if (m_slices.phases && 2 * one <= left) {
            give(m_slices.phase(0));
            give(m_slices.phase(1));
        }
        if (one * static_cast<std::size_t>(m_slices.groups) <= left) {
            for (int g = 0; g < m_slices.groups; ++g)
                give(m_slices.group(g));
        } else {
            counts.groupsLeftOut = true;
        }
    };
    if (m_plan.types)
        prepare(m_stats.types, m_index.types);
    if (m_plan.nextTypes)
        prepare(m_stats.nextTypes, m_index.nextTypes);
    if (m_plan.sample) {
        const std::int64_t room =
            m_plan.sampleProbabilities ? (std::int64_t(1) << 24) / std::max(1, m_experts) : m_plan.sampleTokens;
        m_sampleStride = stride(m_index.countedTokens, std::min(m_plan.sampleTokens, room));
        m_stats.sample.slots = slots;
        m_stats.sample.all = m_sampleStride == 1;
    }
    if (m_plan.silhouette)
        m_hiddenStride = stride(m_info->sampledTokens, m_plan.silhouetteTokens);
    if (m_plan.keepTop1)
        m_stats.top1.assign(static_cast<std::size_t>(m_index.tokens), kNoExpert);
    if (m_plan.sequences) {
        const double none = std::numeric_limits<double>::quiet_NaN();
        for (auto *v :
             {&m_stats.sequenceOverlapPositions, &m_stats.sequenceOverlapTypes, &m_stats.sequenceCoActivation})
            v->assign(m_index.domain.size(), none);
    }
    return {};
}

Result<LayerReader::Blocks> LayerReader::read(TokenRange range)
{
    Blocks blocks;
    const std::string place =
        m_info->file + ": layer " + std::to_string(m_info->decoderIndex[static_cast<std::size_t>(m_layer)]);
    const auto need = [&](bool wanted, Column column, std::shared_ptr<const Block> &into, std::int64_t width,
                          bool sampled) -> Result<void> {
        if (!wanted)
            return {};
        SPECTRA_TRY(into, m_trace.block(column, m_layer, range, m_stop));
        const std::int64_t rows = sampled ? static_cast<std::int64_t>(into->token.size()) : range.size();
        const auto values = static_cast<std::int64_t>(column == Column::experts   ? into->u16.size()
                                                      : column == Column::dropped ? into->u8.size()
                                                                                  : into->f32.size());
        if ((width > 0 && into->width() != width) || values < rows * into->width())
            return inputError("a block of the trace has the wrong size", place);
        for (std::size_t i = 0; i < into->token.size(); ++i)
            if (into->token[i] < range.first || into->token[i] >= range.last ||
                (i > 0 && into->token[i] <= into->token[i - 1]))
                return inputError("sampled rows name tokens out of order", place);
        return {};
    };
    SPECTRA_CHECK(need(true, Column::experts, blocks.experts, m_slots, false));
    if (m_slots == 0)
        SPECTRA_CHECK(start(static_cast<int>(std::min<std::int64_t>(blocks.experts->width(), 1 << 20))));
    SPECTRA_CHECK(need(m_plan.weights, Column::weights, blocks.weights, m_slots, false));
    SPECTRA_CHECK(need(m_plan.probabilities, Column::probabilities, blocks.probabilities, m_experts, false));
    SPECTRA_CHECK(need(m_plan.entropy, Column::entropy, blocks.entropy, 1, false));
    SPECTRA_CHECK(need(m_plan.dropped, Column::dropped, blocks.dropped, 1, false));
    const auto wants = [&](GramObject o) { return m_plan.concentration[static_cast<std::size_t>(o)]; };
    SPECTRA_CHECK(need(wants(GramObject::routing), Column::routingVectors, blocks.routing, 0, false));
    SPECTRA_CHECK(need(wants(GramObject::expression), Column::expressionVectors, blocks.expression, 0, false));
    SPECTRA_CHECK(need(m_plan.silhouette || wants(GramObject::expertInput), Column::hidden, blocks.hidden, 0, true));
    SPECTRA_CHECK(need(wants(GramObject::expertOutput), Column::expertOutputs, blocks.outputs, 0, true));
    for (const auto &b : {blocks.routing, blocks.expression})
        if (b && b->width() % m_experts != 0)
            return inputError("vectors do not divide into experts", place);
    if (blocks.outputs && blocks.outputs->width() % m_slots != 0)
        return inputError("expert outputs do not divide into slots", place);
    return blocks;
}

void LayerReader::addVector(VectorSums &sums, const float *values, std::uint16_t expert)
{
    const auto d = static_cast<std::size_t>(sums.width);
    double squares = 0;
    for (std::size_t i = 0; i < d; ++i)
        squares += static_cast<double>(values[i]) * static_cast<double>(values[i]);
    if (!std::isfinite(squares)) {
        ++m_stats.invalidRows;
        return;
    }
    if (squares <= 0)
        return;
    if (sums.sum.empty()) {
        const auto all = static_cast<std::size_t>(m_slices.count()), e = static_cast<std::size_t>(m_experts);
        sums.sum.assign(all, std::vector<double>(e * d, 0.0));
        sums.count.assign(all, std::vector<double>(e, 0.0));
    }
    const double scale = 1 / std::sqrt(squares);
    for (int s = 0; s < m_sliceCount; ++s) {
        const auto slice = static_cast<std::size_t>(m_sliceList[s]);
        double *to = sums.sum[slice].data() + expert * d;
        for (std::size_t i = 0; i < d; ++i)
            to[i] += scale * static_cast<double>(values[i]);
        sums.count[slice][expert] += 1;
    }
}

void LayerReader::placeOf(std::int64_t token)
{
    const auto sequence = static_cast<std::size_t>(m_index.runSequence[m_run]);
    m_unit = m_units.ofSequence[sequence];
    m_domain = m_index.domain[sequence];
    m_group = m_units.group.empty() ? -1 : m_units.group[static_cast<std::size_t>(m_unit)];
    m_phase = m_index.has(token, TokenIndex::generated) ? 1 : 0;
    m_sliceCount = 0;
    m_sliceList[m_sliceCount++] = 0;
    if (m_domain >= 0 && m_slices.domains > 0)
        m_sliceList[m_sliceCount++] = m_slices.domain(m_domain);
    if (m_group >= 0 && m_slices.groups > 0)
        m_sliceList[m_sliceCount++] = m_slices.group(m_group);
    if (m_slices.phases)
        m_sliceList[m_sliceCount++] = m_slices.phase(m_phase);
}

void LayerReader::sequential(std::int64_t token, const std::uint16_t *experts, double *stats)
{
    const bool linked = m_index.has(token, TokenIndex::linked);
    if (linked) {
        stats[StatLayout::pairs] += 1;
        stats[StatLayout::sameTop1] += experts[0] != kNoExpert && experts[0] == m_previous[0];
        int common = 0, filled = 0;
        for (int i = 0; i < m_slots; ++i) {
            filled += (experts[i] != kNoExpert) + (m_previous[static_cast<std::size_t>(i)] != kNoExpert);
            for (int j = 0; j < m_slots; ++j)
                common += experts[i] != kNoExpert && experts[i] == m_previous[static_cast<std::size_t>(j)];
        }
        if (filled > common)
            stats[StatLayout::jaccardSum] += static_cast<double>(common) / (filled - common);
    }
    if (m_segments)
        m_segments->add(experts, linked, m_index.has(token, TokenIndex::starts), stats + StatLayout::segments,
                        stats + StatLayout::caches);
    std::copy(experts, experts + m_slots, m_previous.begin());
}

void LayerReader::pairs(const std::uint16_t *experts)
{
    const auto e = static_cast<std::size_t>(m_experts);
    for (int s = 0; s < m_sliceCount; ++s) {
        const auto slice = static_cast<std::size_t>(m_sliceList[s]);
        std::uint32_t *both = m_stats.pairs.both[slice].data(), *load = m_stats.pairs.load[slice].data();
        ++m_stats.pairs.tokens[slice];
        for (int i = 0; i < m_slots; ++i) {
            if (experts[i] == kNoExpert)
                continue;
            ++load[experts[i]];
            for (int j = i + 1; j < m_slots; ++j)
                if (experts[j] != kNoExpert && experts[j] != experts[i])
                    ++both[std::min(experts[i], experts[j]) * e + std::max(experts[i], experts[j])];
        }
    }
}

void LayerReader::types(TypeCounts &counts, std::uint32_t type, const std::uint16_t *experts)
{
    for (int s = 0; s < m_sliceCount; ++s) {
        std::vector<std::uint32_t> &table = counts.counts[static_cast<std::size_t>(m_sliceList[s])];
        if (table.empty())
            continue;
        std::uint32_t *row = table.data() + static_cast<std::size_t>(type) * static_cast<std::size_t>(m_experts);
        for (int i = 0; i < m_slots; ++i)
            if (experts[i] != kNoExpert)
                ++row[experts[i]];
    }
}

void LayerReader::sampleToken(std::int64_t, std::size_t row, const Blocks &blocks, const std::uint16_t *experts)
{
    if (m_sampleAt++ % m_sampleStride != 0)
        return;
    TokenSample &sample = m_stats.sample;
    if (m_plan.sampleProbabilities) {
        const float *p = blocks.probabilities->f32.data() + row * static_cast<std::size_t>(m_experts);
        if (!std::all_of(p, p + m_experts, [](float x) { return std::isfinite(x); }))
            return;
        sample.probabilities.insert(sample.probabilities.end(), p, p + m_experts);
    }
    sample.experts.insert(sample.experts.end(), experts, experts + m_slots);
    sample.domain.push_back(m_domain);
    sample.group.push_back(m_group);
}

void LayerReader::token(std::int64_t token, std::size_t row, const Blocks &blocks)
{
    const std::uint16_t *experts = blocks.experts->u16.data() + row * static_cast<std::size_t>(m_slots);
    const StatLayout &layout = m_stats.layout;
    const std::size_t at = static_cast<std::size_t>(m_unit) +
                           (m_plan.phases && m_phase == 1 ? static_cast<std::size_t>(m_units.count()) : 0);
    double *stats = m_stats.units.data() + at * layout.size();
    stats[StatLayout::tokens] += 1;
    stats[StatLayout::slots] += m_slots;
    double *load = stats + layout.at(StatLayout::load);
    for (int i = 0; i < m_slots; ++i)
        if (experts[i] != kNoExpert) {
            load[experts[i]] += 1;
            stats[StatLayout::filled] += 1;
        }
    if (experts[0] != kNoExpert)
        stats[layout.at(StatLayout::top1) + experts[0]] += 1;
    if (m_plan.dropped)
        stats[StatLayout::dropped] += blocks.dropped->u8[row];
    if (m_plan.weights) {
        const float *w = blocks.weights->f32.data() + row * static_cast<std::size_t>(m_slots);
        double sum = 0, squares = 0, logs = 0;
        for (int i = 0; i < m_slots; ++i)
            if (experts[i] != kNoExpert) {
                const double x = static_cast<double>(w[i]);
                sum += x;
                squares += x * x;
                if (x > 0)
                    logs += x * std::log(x);
            }
        if (!std::isfinite(sum) || !std::isfinite(squares)) {
            ++m_stats.invalidRows;
        } else {
            for (int i = 0; i < m_slots; ++i)
                if (experts[i] != kNoExpert) {
                    const double x = static_cast<double>(w[i]);
                    stats[layout.at(StatLayout::weight) + experts[i]] += x;
                    stats[layout.at(StatLayout::weight2) + experts[i]] += x * x;
                }
            stats[StatLayout::weightTokens] += 1;
            stats[StatLayout::confidenceSum] += squares;
            // H of w/Σw = log Σw − Σ w log w / Σw
            if (sum > 0)
                stats[StatLayout::chosenEntropySum] += std::max(0.0, std::log(sum) - logs / sum);
        }
    }
    if (m_plan.probabilities) {
        const float *p = blocks.probabilities->f32.data() + row * static_cast<std::size_t>(m_experts);
        const RowFigures figures =
            distributionRow(p, m_experts, stats + layout.at(StatLayout::probability), !m_plan.entropy);
        if (!figures.valid) {
            ++m_stats.invalidRows;
        } else {
            stats[StatLayout::probabilityTokens] += 1;
            stats[StatLayout::marginSum] += static_cast<double>(figures.largest - figures.second) * (m_experts > 1);
            if (!m_plan.entropy) {
                stats[StatLayout::entropyTokens] += 1;
                stats[StatLayout::entropySum] += static_cast<double>(figures.entropy);
            }
        }
    }
    if (m_plan.entropy) {
        const float h = blocks.entropy->f32[row];
        if (std::isfinite(h)) {
            stats[StatLayout::entropyTokens] += 1;
            stats[StatLayout::entropySum] += static_cast<double>(h);
        }
    }
    sequential(token, experts, stats);
    if (m_plan.pairs)
        pairs(experts);
    if (m_plan.types)
        types(m_stats.types, m_index.type[static_cast<std::size_t>(token)], experts);
    if (m_plan.nextTypes)
        types(m_stats.nextTypes, m_index.nextType[static_cast<std::size_t>(token)], experts);
    if (m_plan.sample && experts[0] != kNoExpert)
        sampleToken(token, row, blocks, experts);
    if (m_plan.keepTop1)
        m_stats.top1[static_cast<std::size_t>(token)] = experts[0];
    const auto perExpert = [&](GramObject object, const std::shared_ptr<const Block> &from) {
        if (!from)
            return;
        VectorSums &sums = m_stats.vectors[static_cast<std::size_t>(object)];
        sums.width = from->width() / m_experts;
        for (int e = 0; e < m_experts; ++e)
            addVector(sums,
                      from->f32.data() + (row * static_cast<std::size_t>(m_experts) + static_cast<std::size_t>(e)) *
                                             static_cast<std::size_t>(sums.width),
                      static_cast<std::uint16_t>(e));
    };
    perExpert(GramObject::routing, blocks.routing);
    perExpert(GramObject::expression, blocks.expression);
    if (m_plan.sequences) {
        m_sequenceExperts.insert(m_sequenceExperts.end(), experts, experts + m_slots);
        if (m_plan.types)
            m_sequenceTypes.push_back(m_index.type[static_cast<std::size_t>(token)]);
    }
}

/// Overlaps inside one sequence, from bit sets of its own tokens and types.
void LayerReader::endSequence()
{
    if (!m_plan.sequences || m_sequenceExperts.empty())
        return;
    const auto sequence = static_cast<std::size_t>(m_index.runSequence[m_run]);
    std::vector<std::uint32_t> token(m_sequenceExperts.size() / static_cast<std::size_t>(m_slots));
    std::iota(token.begin(), token.end(), 0u);
    double ignored = 0;
    if (m_plan.pairs)
        m_stats.sequenceOverlapPositions[sequence] = overlapInSequence(
            m_sequenceExperts, m_slots, m_experts, token, token.size(), m_stats.sequenceCoActivation[sequence]);
    if (m_plan.types) {
        std::vector<std::uint32_t> sorted = m_sequenceTypes;
        std::sort(sorted.begin(), sorted.end());
        sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
        for (std::uint32_t &t : m_sequenceTypes)
            t = static_cast<std::uint32_t>(std::lower_bound(sorted.begin(), sorted.end(), t) - sorted.begin());
        m_stats.sequenceOverlapTypes[sequence] =
            overlapInSequence(m_sequenceExperts, m_slots, m_experts, m_sequenceTypes, sorted.size(), ignored);
    }
    m_sequenceExperts.clear();
    m_sequenceTypes.clear();
}

void LayerReader::sampledColumns(TokenRange range, const Blocks &blocks)
{
    const std::size_t keep = m_run;
    const auto walk = [&](const Block &block, const auto &visit) {
        m_run = static_cast<std::size_t>(
            std::upper_bound(m_index.firstToken.begin(), m_index.firstToken.end(), range.first) -
            m_index.firstToken.begin() - 1);
        for (std::size_t i = 0; i < block.token.size(); ++i) {
            const std::int64_t token = block.token[i];
            while (token >= m_index.firstToken[m_run + 1])
                ++m_run;
            if (!m_index.has(token, TokenIndex::counted))
                continue;
            placeOf(token);
            const std::uint16_t *experts =
                blocks.experts->u16.data() + static_cast<std::size_t>((token - range.first) * m_slots);
            visit(block.f32.data() + i * static_cast<std::size_t>(block.width()), experts);
        }
    };
    if (blocks.hidden)
        walk(*blocks.hidden, [&](const float *values, const std::uint16_t *experts) {
            const std::int64_t h = blocks.hidden->width();
            VectorSums &sums = m_stats.vectors[static_cast<std::size_t>(GramObject::expertInput)];
            sums.width = h;
            if (m_plan.concentration[static_cast<std::size_t>(GramObject::expertInput)])
                for (int i = 0; i < m_slots; ++i)
                    if (experts[i] != kNoExpert)
                        addVector(sums, values, experts[i]);
            if (m_plan.silhouette && experts[0] != kNoExpert && m_hiddenAt++ % m_hiddenStride == 0) {
                if (!std::all_of(values, values + h, [](float x) { return std::isfinite(x); })) {
                    ++m_stats.invalidRows;
                    return;
                }
                m_stats.hidden.width = h;
                m_stats.hidden.values.insert(m_stats.hidden.values.end(), values, values + h);
                m_stats.hidden.top1.push_back(experts[0]);
                m_stats.hidden.unit.push_back(m_unit);
                m_stats.hidden.domain.push_back(m_domain);
                m_stats.hidden.phase.push_back(m_phase);
            }
        });
    if (blocks.outputs)
        walk(*blocks.outputs, [&](const float *values, const std::uint16_t *experts) {
            VectorSums &sums = m_stats.vectors[static_cast<std::size_t>(GramObject::expertOutput)];
            sums.width = blocks.outputs->width() / m_slots;
            for (int i = 0; i < m_slots; ++i)
                if (experts[i] != kNoExpert)
                    addVector(sums, values + i * sums.width, experts[i]);
        });
    m_run = keep;
}

Result<void> LayerReader::block(TokenRange range, const Blocks &blocks)
{
    const std::vector<std::uint16_t> &ids = blocks.experts->u16;
    const auto used = static_cast<std::size_t>(range.size() * m_slots);
    for (std::size_t i = 0; i < used; ++i)
        if (ids[i] >= m_experts && ids[i] != kNoExpert)
            return inputError("expert " + std::to_string(ids[i]) + " of " + std::to_string(m_experts) + " at token " +
                                  std::to_string(range.first + static_cast<std::int64_t>(i) / m_slots),
                              m_info->file + ": routing/experts, layer " +
                                  std::to_string(m_info->decoderIndex[static_cast<std::size_t>(m_layer)]));
    bool placed = false;
    int phase = -1;
    for (std::int64_t t = range.first; t < range.last; ++t) {
        while (t >= m_index.firstToken[m_run + 1]) {
            endSequence();
            ++m_run;
            placed = false;
        }
        if (!m_index.has(t, TokenIndex::counted))
            continue;
        const int now = m_index.has(t, TokenIndex::generated) ? 1 : 0;
        if (!placed || now != phase) {
            placeOf(t);
            placed = true;
            phase = now;
        }
        token(t, static_cast<std::size_t>(t - range.first), blocks);
    }
    if (blocks.hidden || blocks.outputs)
        sampledColumns(range, blocks);
    return {};
}

Result<LayerStats> LayerReader::run(const std::function<void(std::int64_t)> &tick)
{
    for (std::int64_t first = 0; first < m_index.tokens; first += m_plan.blockTokens) {
        if (m_stop.stop_requested())
            return cancelledError();
        const TokenRange range{first, std::min(m_index.tokens, first + m_plan.blockTokens)};
        SPECTRA_TRY(const Blocks blocks, read(range));
        SPECTRA_CHECK(block(range, blocks));
        tick(range.size());
    }
    if (m_slots == 0)
        SPECTRA_CHECK(start(std::max(1, m_info->slots)));
    else
        endSequence();
    return std::move(m_stats);
}

} // namespace

Units makeUnits(const TokenIndex &index, int domains, std::int64_t limit)
{
    Units units;
    const std::size_t sequences = index.domain.size();
    units.ofSequence.assign(sequences, 0);
    units.range.assign(static_cast<std::size_t>(domains), {0, 0});
    const std::size_t perUnit =
        std::max<std::size_t>(1, (sequences + static_cast<std::size_t>(limit) - 1) / static_cast<std::size_t>(limit));
    units.merged = perUnit > 1;
    for (int d = -1; d < domains; ++d) {
        const int first = units.count();
        std::size_t inUnit = perUnit;
        for (std::size_t s = 0; s < sequences; ++s) {
            if (index.domain[s] != d)
                continue;
            if (inUnit >= perUnit) {
                units.domain.push_back(d);
                units.tokens.push_back(0);
                inUnit = 0;
            }
            ++inUnit;
            units.ofSequence[s] = units.count() - 1;
            units.tokens.back() += index.sequenceTokens[s];
        }
        if (d >= 0)
            units.range[static_cast<std::size_t>(d)] = {first, units.count()};
    }
    return units;
}

Result<LayerStats> readLayer(const TraceSource &trace, int layer, const TokenIndex &index, const Units &units,
                             const Slices &slices, const LayerPlan &plan, const std::stop_token &stop,
                             const std::function<void(std::int64_t)> &tick)
{
    return LayerReader(trace, layer, index, units, slices, plan, stop).run(tick);
}

} // namespace spectra::detail
