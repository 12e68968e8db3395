// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/metrics/layerevaluate.h"
#include "analysis/statistics/assignment.h"

#include <algorithm>
#include <cmath>

namespace spectra::detail {
namespace {

/// Joint counts of the top-1 experts of two layers.
struct Confusion {
    std::vector<double> counts; ///< [E before, E now]
    double total = 0;
    explicit Confusion(std::size_t experts)
        : counts(experts * experts, 0.0)
    {
    }
    [[nodiscard]] Confusion without(const Confusion &part) const
    {
        Confusion rest = *this;
        for (std::size_t i = 0; i < counts.size(); ++i)
            rest.counts[i] -= part.counts[i];
        rest.total -= part.total;
        return rest;
    }
};

struct Agreement {
    double value = kNone, chance = kNone;
};

/// Share on the cells (i, match[i]), and the same if the two layers were independent.
Agreement agreement(const Confusion &c, std::size_t experts, const std::vector<int> &match)
{
    if (!(c.total > 0))
        return {};
    std::vector<double> before(experts, 0.0), now(experts, 0.0);
    for (std::size_t i = 0; i < experts; ++i)
        for (std::size_t j = 0; j < experts; ++j) {
            before[i] += c.counts[i * experts + j];
            now[j] += c.counts[i * experts + j];
        }
    Agreement a{0, 0};
    for (std::size_t i = 0; i < experts; ++i) {
        const auto j = static_cast<std::size_t>(match[i]);
        a.value += c.counts[i * experts + j] / c.total;
        a.chance += before[i] / c.total * (now[j] / c.total);
    }
    return a;
}

std::uint64_t mix(std::uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
}

} // namespace

void evaluateLayerPair(const EvaluationContext &context, int layer, const std::vector<std::uint16_t> &before,
                       const std::vector<std::uint16_t> &now, LayerMetrics &into)
{
    const bool raw = context.wants("layer_consistency"), matched = context.wants("layer_consistency_matched");
    if (!raw && !matched)
        return;
    const auto experts = static_cast<std::size_t>(context.info.experts);
    const Slices &slices = context.slices;
    std::vector<Confusion> tables(static_cast<std::size_t>(slices.count()), Confusion(experts));
    const TokenIndex &index = context.index;
    LayerMetric rawMetric, matchedMetric;
    if (context.plan.sequences)
        rawMetric.sequence.assign(index.domain.size(), kNone);
    for (std::size_t run = 0; run < index.runSequence.size(); ++run) {
        const auto sequence = static_cast<std::size_t>(index.runSequence[run]);
        const int unit = context.units.ofSequence[sequence], domain = index.domain[sequence];
        double same = 0, all = 0;
        for (std::int64_t t = index.firstToken[run]; t < index.firstToken[run + 1]; ++t) {
            const std::uint16_t a = before[static_cast<std::size_t>(t)], b = now[static_cast<std::size_t>(t)];
            if (a == kNoExpert || b == kNoExpert)
                continue;
            same += a == b;
            all += 1;
            const auto add = [&](int slice) {
                Confusion &c = tables[static_cast<std::size_t>(slice)];
                c.counts[a * experts + b] += 1;
                c.total += 1;
            };
            add(0);
            if (domain >= 0 && slices.domains > 0)
                add(slices.domain(domain));
            if (slices.groups > 0)
                add(slices.group(context.units.group[static_cast<std::size_t>(unit)]));
            if (slices.phases)
                add(slices.phase(index.has(t, TokenIndex::generated) ? 1 : 0));
        }
        if (context.plan.sequences && all > 0)
            rawMetric.sequence[sequence] = same / all;
    }
    std::vector<int> identity(experts);
    for (std::size_t i = 0; i < experts; ++i)
        identity[i] = static_cast<int>(i);
    const auto evaluate = [&](LayerMetric &m, bool match) {
        const auto of = [&](const Confusion &c) {
            return agreement(c, experts,
                             match ? assignMaximum(c.counts, context.info.experts, context.info.experts) : identity);
        };
        m.jackknife = true;
        const Agreement whole = of(tables[0]);
        m.value = whole.value;
        m.chance = whole.chance;
        m.count = static_cast<std::int64_t>(tables[0].total);
        for (int d = 0; d < slices.domains; ++d) {
            const Agreement a = of(tables[static_cast<std::size_t>(slices.domain(d))]);
            m.domain.push_back(a.value);
            m.domainChance.push_back(a.chance);
            m.domainCount.push_back(
                static_cast<std::int64_t>(tables[static_cast<std::size_t>(slices.domain(d))].total));
        }
        if (slices.phases)
            for (int p = 0; p < 2; ++p) {
                m.phase.push_back(of(tables[static_cast<std::size_t>(slices.phase(p))]).value);
                m.phaseCount.push_back(
                    static_cast<std::int64_t>(tables[static_cast<std::size_t>(slices.phase(p))].total));
            }
        for (int g = 0; g < slices.groups && !context.stop.stop_requested(); ++g)
            m.replicates.push_back(of(tables[0].without(tables[static_cast<std::size_t>(slices.group(g))])).value);
    };
    if (raw) {
        evaluate(rawMetric, false);
        if (context.options.matrices) {
            MetricMatrix matrix;
            matrix.layer = layer;
            matrix.rows = matrix.columns = context.info.experts;
            matrix.values.assign(tables[0].counts.begin(), tables[0].counts.end());
            rawMetric.matrices.push_back(std::move(matrix));
        }
        rawMetric.note = "of each layer with the one before; compares expert indices; the matrix counts tokens, rows: "
                         "the layer before";
        into["layer_consistency"] = std::move(rawMetric);
    }
    if (matched) {
        evaluate(matchedMetric, true);
        matchedMetric.note = "of each layer with the one before; the matching is fitted to the same tokens";
        into["layer_consistency_matched"] = std::move(matchedMetric);
    }
}

LayerMetrics evaluatePaths(const EvaluationContext &context, const std::vector<std::uint64_t> &paths)
{
    LayerMetrics result;
    const bool entropy = context.wants("path_entropy"), count = context.wants("path_count");
    if (!entropy && !count)
        return result;
    struct Path {
        std::uint64_t hash;
        std::int32_t domain, group;
        std::uint8_t phase;
    };
    const TokenIndex &index = context.index;
    std::vector<Path> all;
    all.reserve(static_cast<std::size_t>(index.countedTokens));
    for (std::size_t run = 0; run < index.runSequence.size(); ++run) {
        const auto sequence = static_cast<std::size_t>(index.runSequence[run]);
        const auto unit = static_cast<std::size_t>(context.units.ofSequence[sequence]);
        for (std::int64_t t = index.firstToken[run]; t < index.firstToken[run + 1]; ++t)
            if (index.has(t, TokenIndex::counted))
                all.push_back({paths[static_cast<std::size_t>(t)], index.domain[sequence],
                               context.units.group.empty() ? -1 : context.units.group[unit],
                               static_cast<std::uint8_t>(index.has(t, TokenIndex::generated))});
    }
    std::sort(all.begin(), all.end(), [](const Path &a, const Path &b) { return a.hash < b.hash; });
    // Entropy of counts n_i with sum N is log N − Σ n_i log n_i / N: only the sums are kept for each part.
    struct Part {
        double tokens = 0, distinct = 0, logs = 0;
        void add(double n)
        {
            tokens += n;
            distinct += n > 0;
            logs += n > 0 ? n * std::log(n) : 0;
        }
        [[nodiscard]] double entropy() const
        {
            return tokens > 0 ? std::max(0.0, std::log(tokens) - logs / tokens) : kNone;
        }
        [[nodiscard]] double paths() const { return tokens > 0 ? distinct : kNone; }
    };
    const auto domains = static_cast<std::size_t>(context.slices.domains),
               groups = static_cast<std::size_t>(context.slices.groups);
    Part whole, phase[2];
    std::vector<Part> domain(domains), rest(groups);
    std::vector<double> inDomain(domains), inGroup(groups);
    for (std::size_t i = 0; i < all.size();) {
        std::fill(inDomain.begin(), inDomain.end(), 0.0);
        std::fill(inGroup.begin(), inGroup.end(), 0.0);
        double inPhase[2] = {};
        std::size_t j = i;
        for (; j < all.size() && all[j].hash == all[i].hash; ++j) {
            if (all[j].domain >= 0 && domains > 0)
                inDomain[static_cast<std::size_t>(all[j].domain)] += 1;
            if (all[j].group >= 0 && groups > 0)
                inGroup[static_cast<std::size_t>(all[j].group)] += 1;
            inPhase[all[j].phase] += 1;
        }
        const auto n = static_cast<double>(j - i);
        whole.add(n);
        for (std::size_t d = 0; d < domains; ++d)
            domain[d].add(inDomain[d]);
        for (std::size_t g = 0; g < groups; ++g)
            rest[g].add(n - inGroup[g]);
        phase[0].add(inPhase[0]);
        phase[1].add(inPhase[1]);
        i = j;
    }
    const auto fill = [&](const char *key, double (Part::*figure)() const) {
        LayerMetric &m = result[key];
        m.jackknife = true;
        m.value = (whole.*figure)();
        m.count = static_cast<std::int64_t>(whole.tokens);
        for (const Part &d : domain) {
            m.domain.push_back((d.*figure)());
            m.domainCount.push_back(static_cast<std::int64_t>(d.tokens));
        }
        if (context.slices.phases)
            for (const Part &p : phase) {
                m.phase.push_back((p.*figure)());
                m.phaseCount.push_back(static_cast<std::int64_t>(p.tokens));
            }
        for (const Part &r : rest)
            m.replicates.push_back((r.*figure)());
        m.note = "grows with the number of tokens while paths are new";
    };
    if (entropy)
        fill("path_entropy", &Part::entropy);
    if (count)
        fill("path_count", &Part::paths);
    return result;
}

void extendPaths(std::vector<std::uint64_t> &paths, const std::vector<std::uint16_t> &top1)
{
    for (std::size_t t = 0; t < paths.size(); ++t)
        paths[t] = mix(paths[t] * 0x9E3779B97F4A7C15ull + top1[t] + 1);
}

} // namespace spectra::detail
