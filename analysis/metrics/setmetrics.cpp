// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/metrics/setmetrics.h"

#include "analysis/metrics/partition.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>

namespace spectra::detail {
namespace {

using Counts = std::vector<std::uint32_t>;

Counts without(const Counts &all, const Counts &part)
{
    Counts rest = all;
    for (std::size_t i = 0; i < rest.size(); ++i)
        rest[i] -= part[i];
    return rest;
}

/// Evaluates one figure on the whole, on domains and phases, and without each jackknife group.
/// `figure(slice, leftOut)`: leftOut −1 or the slice of the group that is taken away from the whole.
void overSlices(const EvaluationContext &context, LayerMetric &m,
                const std::function<double(int slice, int leftOut)> &figure,
                const std::function<std::int64_t(int slice)> &count)
{
    m.jackknife = true;
    m.value = figure(0, -1);
    m.count = count(0);
    for (int d = 0; d < context.slices.domains; ++d) {
        m.domain.push_back(figure(context.slices.domain(d), -1));
        m.domainCount.push_back(count(context.slices.domain(d)));
    }
    if (context.slices.phases)
        for (int p = 0; p < 2; ++p) {
            m.phase.push_back(figure(context.slices.phase(p), -1));
            m.phaseCount.push_back(count(context.slices.phase(p)));
        }
    for (int g = 0; g < context.slices.groups && !context.stop.stop_requested(); ++g)
        m.replicates.push_back(figure(0, context.slices.group(g)));
}

MetricMatrix square(int layer, std::int64_t n, std::vector<float> values)
{
    MetricMatrix matrix;
    matrix.layer = layer;
    matrix.rows = n;
    matrix.columns = static_cast<std::int64_t>(values.size()) / std::max<std::int64_t>(1, n);
    matrix.values = std::move(values);
    return matrix;
}

double coActivation(const Counts &both, const Counts &load, std::vector<float> *matrix)
{
    const std::size_t e = load.size();
    double sum = 0, used = 0;
    if (matrix)
        matrix->assign(e * e, std::numeric_limits<float>::quiet_NaN());
    for (std::size_t i = 0; i < e; ++i) {
        if (load[i] == 0)
            continue;
        double best = kNone;
        for (std::size_t j = 0; j < e; ++j) {
            const double p = i == j ? 1.0 : static_cast<double>(both[std::min(i, j) * e + std::max(i, j)]) / load[i];
            if (matrix)
                (*matrix)[i * e + j] = static_cast<float>(p);
            if (i != j && !(best >= p))
                best = p;
        }
        if (std::isfinite(best)) {
            sum += best;
            used += 1;
        }
    }
    return used > 0 ? sum / used : kNone;
}

double indicatorDiversity(const Counts &both, const Counts &load, double tokens)
{
    const std::size_t e = load.size();
    if (e < 2 || !(tokens > 0))
        return kNone;
    double sum = 0;
    for (std::size_t i = 0; i < e; ++i)
        for (std::size_t j = i + 1; j < e; ++j)
            sum += indicatorNmi(both[i * e + j], load[i], load[j], tokens);
    return 1 - 2 * sum / static_cast<double>(e * (e - 1));
}

void pairMetrics(const EvaluationContext &context, int layer, const LayerStats &stats, LayerMetrics &into)
{
    const PairCounts &pairs = stats.pairs;
    if (pairs.both.empty())
        return;
    const auto at = [](int i) { return static_cast<std::size_t>(i); };
    using Figure = double (*)(const Counts &, const Counts &, double);
    const auto add = [&](const char *key, Figure figure) -> LayerMetric * {
        if (!context.wants(key))
            return nullptr;
        LayerMetric &m = into[key];
        overSlices(
            context, m,
            [&](int slice, int leftOut) {
                if (leftOut < 0)
                    return figure(pairs.both[at(slice)], pairs.load[at(slice)],
                                  static_cast<double>(pairs.tokens[at(slice)]));
                return figure(without(pairs.both[0], pairs.both[at(leftOut)]),
                              without(pairs.load[0], pairs.load[at(leftOut)]),
                              static_cast<double>(pairs.tokens[0] - pairs.tokens[at(leftOut)]));
            },
            [&](int slice) { return pairs.tokens[at(slice)]; });
        return &m;
    };
    const auto experts = static_cast<std::int64_t>(stats.layout.experts);
    if (LayerMetric *m = add("expert_overlap_positions", [](const Counts &b, const Counts &l, double tokens) {
            return tokens > 0 ? overlapOfCounts(b, l, false).mean : kNone;
        })) {
        if (stats.slots == 1)
            m->note = "0 by construction: one expert per token";
        if (context.options.matrices)
            m->matrices.push_back(square(layer, experts, overlapOfCounts(pairs.both[0], pairs.load[0], true).matrix));
        m->sequence = stats.sequenceOverlapPositions;
    }
    if (LayerMetric *m = add("co_activation",
                             [](const Counts &b, const Counts &l, double) { return coActivation(b, l, nullptr); })) {
        if (experts > 1)
            m->chance = static_cast<double>(stats.slots - 1) / static_cast<double>(experts - 1);
        m->domainChance.assign(m->domain.size(), m->chance);
        if (context.options.matrices) {
            std::vector<float> matrix;
            (void)coActivation(pairs.both[0], pairs.load[0], &matrix);
            m->matrices.push_back(square(layer, experts, std::move(matrix)));
        }
        m->sequence = stats.sequenceCoActivation;
    }
    add("expert_diversity_nmi", indicatorDiversity);
}

/// P(none of the f tokens of a type is among n of N): the product of 1 − n/(N − a), a = 0…f−1; of many factors the later ones by
/// their middle.
double missed(double n, double all, double f)
{
    if (n + f > all)
        return 0;
    double p = 1, a = 0;
    for (; a < 8 && a + 1 <= f; ++a)
        p *= 1 - n / (all - a);
    const double rest = f - a;
    return rest > 0 ? p * std::exp(rest * std::log1p(-n / (all - a - (rest - 1) / 2))) : p;
}

void typeMetrics(const EvaluationContext &context, int layer, const LayerStats &stats, LayerMetrics &into)
{
    const auto experts = static_cast<std::int64_t>(stats.layout.experts);
    const auto figures = [&](const TypeCounts &types, LayerMetric &m,
                             const std::function<double(const Counts &)> &figure) {
        overSlices(
            context, m,
            [&](int slice, int leftOut) {
                const Counts &counts = types.counts[static_cast<std::size_t>(slice)];
                if (leftOut >= 0) {
                    const Counts &group = types.counts[static_cast<std::size_t>(leftOut)];
                    return group.empty() ? kNone : figure(without(types.counts[0], group));
                }
                return counts.empty() ? kNone : figure(counts);
            },
            [&](int) { return types.types; });
        m.domainCount.assign(m.domain.size(), 0);
        for (std::size_t d = 0; d < m.domainCount.size(); ++d) {
            const Counts &counts = types.counts[static_cast<std::size_t>(context.slices.domain(static_cast<int>(d)))];
            for (std::size_t t = 0; t + static_cast<std::size_t>(experts) <= counts.size();
                 t += static_cast<std::size_t>(experts))
                m.domainCount[d] += std::any_of(counts.begin() + static_cast<std::ptrdiff_t>(t),
                                                counts.begin() + static_cast<std::ptrdiff_t>(t) + experts,
                                                [](std::uint32_t c) { return c > 0; });
        }
        if (types.groupsLeftOut && context.slices.groups > 0)
            m.note = "no interval: the counts of token types by group would not fit memory";
    };
    if (context.wants("expert_overlap_types") && !stats.types.counts.empty()) {
        LayerMetric &m = into["expert_overlap_types"];
        const auto control = [&](int slice) {
            const auto at = static_cast<std::size_t>(slice);
            return stats.pairs.both.empty() || stats.types.counts[at].empty()
                       ? kNone
                       : shuffledOverlapOfTypes(stats.types.counts[at], stats.pairs.both[at], stats.pairs.load[at],
                                                stats.pairs.tokens[at], stats.slots);
        };
        figures(stats.types, m,
                [&](const Counts &c) { return c.empty() ? kNone : overlapOfTypes(c, experts, false).mean; });
        if (context.options.matrices)
            m.matrices.push_back(square(layer, experts, overlapOfTypes(stats.types.counts[0], experts, true).matrix));
        m.sequence = stats.sequenceOverlapTypes;
        m.chance = control(0);
        for (std::size_t d = 0; d < m.domain.size(); ++d)
            m.domainChance.push_back(control(context.slices.domain(static_cast<int>(d))));
    }
    const auto vocabulary = [&](const char *key, const TypeCounts &types) {
        if (!context.wants(key) || types.counts.empty())
            return;
        LayerMetric &m = into[key];
        figures(types, m, [&](const Counts &c) { return vocabularySpecialization(c, experts, nullptr); });
        if (context.options.matrices) {
            std::vector<float> perExpert;
            (void)vocabularySpecialization(types.counts[0], experts, &perExpert);
            m.matrices.push_back(square(layer, experts, std::move(perExpert)));
        }
    };
    vocabulary("vocabulary_specialization", stats.types);
    vocabulary("vocabulary_specialization_predicted", stats.nextTypes);
}

/// The order of finite values, by three counting passes over their bits.
void ascending(const std::vector<float> &values, std::vector<std::uint32_t> &order)
{
    constexpr std::uint32_t digits = 2048, mask = digits - 1;
    const std::size_t n = values.size();
    std::vector<std::uint32_t> key(n), other(n);
    for (std::size_t i = 0; i < n; ++i) {
        const auto bits = std::bit_cast<std::uint32_t>(values[i] + 0.0f); // −0 is 0
        key[i] = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    }
    order.resize(n);
    std::iota(order.begin(), order.end(), 0u);
    for (const int shift : {0, 11, 22}) {
        std::vector<std::uint32_t> place(digits + 1, 0);
        for (const std::uint32_t i : order)
            ++place[((key[i] >> shift) & mask) + 1];
        std::partial_sum(place.begin(), place.end(), place.begin());
        for (const std::uint32_t i : order)
            other[place[(key[i] >> shift) & mask]++] = i;
        order.swap(other);
    }
}

void scoreAuc(const EvaluationContext &context, int layer, const LayerStats &stats, LayerMetrics &into)
{
    const TokenSample &sample = stats.sample;
    if (!context.wants("score_auc") || sample.probabilities.empty())
        return;
    const std::size_t n = sample.domain.size(), e = static_cast<std::size_t>(stats.layout.experts);
    const auto domains = static_cast<std::size_t>(context.slices.domains);
    LayerMetric &m = into["score_auc"];
    m.count = static_cast<std::int64_t>(n);
    m.chance = 0.5;
    m.jackknife = true;
    if (!sample.all)
        m.note = "on " + std::to_string(n) + " sampled tokens";
    if (domains < 2)
        return;
    const std::size_t groups = static_cast<std::size_t>(context.slices.groups);
    std::vector<double> leaveSum(groups, 0.0), leaveUsed(groups, 0.0), domainSum(domains, 0.0),
        domainUsed(domains, 0.0);
    std::vector<float> perExpert(e, std::numeric_limits<float>::quiet_NaN());
    // Which domains each expert's assignments in the sample come from.
    std::vector<std::size_t> origin(e * domains, 0);
    for (std::size_t i = 0; i < n; ++i)
        for (std::size_t s = 0; s < static_cast<std::size_t>(sample.slots); ++s)
            if (const std::uint16_t x = sample.experts[i * static_cast<std::size_t>(sample.slots) + s];
                sample.domain[i] >= 0 && x != kNoExpert)
                ++origin[x * domains + static_cast<std::size_t>(sample.domain[i])];
    std::vector<std::uint32_t> order(n);
    std::vector<float> scores(n);
    double sum = 0, used = 0;
    for (std::size_t x = 0; x < e && !context.stop.stop_requested(); ++x) {
        const auto own = origin.begin() + static_cast<std::ptrdiff_t>(x * domains);
        const auto majority = static_cast<std::size_t>(
            std::max_element(own, own + static_cast<std::ptrdiff_t>(domains)) - own); // equals: the first
        if (own[static_cast<std::ptrdiff_t>(majority)] == 0)
            continue;
        for (std::size_t i = 0; i < n; ++i)
            scores[i] = sample.probabilities[i * e + x];
        ascending(scores, order);
        const auto score = [&](std::uint32_t i) { return scores[i]; };
        const auto area = [&](int leftOut) {
            double positives = 0, negatives = 0, wins = 0;
            for (std::size_t i = 0; i < n;) {
                double p = 0, q = 0;
                std::size_t j = i;
                for (; j < n && score(order[j]) == score(order[i]); ++j) {
                    if (leftOut >= 0 && sample.group[order[j]] == leftOut)
                        continue;
                    (sample.domain[order[j]] == static_cast<int>(majority) ? p : q) += 1;
                }
                wins += p * (negatives + 0.5 * q);
                positives += p;
                negatives += q;
                i = j;
            }
            return positives > 0 && negatives > 0 ? wins / (positives * negatives) : kNone;
        };
        const double auc = area(-1);
        if (!std::isfinite(auc))
            continue;
        perExpert[x] = static_cast<float>(auc);
        sum += auc;
        used += 1;
        domainSum[majority] += auc;
        domainUsed[majority] += 1;
        for (std::size_t g = 0; g < groups; ++g)
            if (const double rest = area(static_cast<int>(g)); std::isfinite(rest)) {
                leaveSum[g] += rest;
                leaveUsed[g] += 1;
            }
    }
    m.value = used > 0 ? sum / used : kNone;
    for (std::size_t d = 0; d < domains; ++d) {
        m.domain.push_back(domainUsed[d] > 0 ? domainSum[d] / domainUsed[d] : kNone);
        m.domainChance.push_back(0.5);
        m.domainCount.push_back(static_cast<std::int64_t>(domainUsed[d]));
    }
    for (std::size_t g = 0; g < groups; ++g)
        m.replicates.push_back(leaveUsed[g] > 0 ? leaveSum[g] / leaveUsed[g] : kNone);
    if (context.options.matrices)
        m.matrices.push_back(square(layer, static_cast<std::int64_t>(e), std::move(perExpert)));
}

void concentration(const EvaluationContext &context, const LayerStats &stats, LayerMetrics &into)
{
    const auto e = static_cast<std::size_t>(stats.layout.experts);
    for (int o = 0; o < kGramObjects; ++o) {
        const std::string key = "gram_diagonal_quality." + std::string(gramObjectKey(static_cast<GramObject>(o)));
        const VectorSums &sums = stats.vectors[static_cast<std::size_t>(o)];
        if (!context.wants(key) || sums.sum.empty())
            continue;
        const auto d = static_cast<std::size_t>(sums.width);
        overSlices(
            context, into[key],
            [&](int slice, int leftOut) {
                double total = 0, used = 0;
                for (std::size_t x = 0; x < e; ++x) {
                    const double count = sums.count[static_cast<std::size_t>(slice)][x] -
                                         (leftOut >= 0 ? sums.count[static_cast<std::size_t>(leftOut)][x] : 0);
                    if (!(count > 0))
                        continue;
                    double squares = 0;
                    for (std::size_t i = 0; i < d; ++i) {
                        const double v = sums.sum[static_cast<std::size_t>(slice)][x * d + i] -
                                         (leftOut >= 0 ? sums.sum[static_cast<std::size_t>(leftOut)][x * d + i] : 0);
                        squares += v * v;
                    }
                    total += squares / (count * count);
                    used += 1;
                }
                return used > 0 ? total / used : kNone;
            },
            [&](int slice) {
                const auto &counts = sums.count[static_cast<std::size_t>(slice)];
                return static_cast<std::int64_t>(std::accumulate(counts.begin(), counts.end(), 0.0));
            });
    }
}

} // namespace

OverlapFigures overlapOfCounts(std::span<const std::uint32_t> both, std::span<const std::uint32_t> load,
                               bool withMatrix)
{
    OverlapFigures figures;
    const std::size_t e = load.size();
    if (withMatrix) {
        figures.matrix.assign(e * e, 0.0f);
        for (std::size_t i = 0; i < e; ++i)
            figures.matrix[i * e + i] = load[i] > 0 ? 1.0f : 0.0f;
    }
    double sum = 0;
    for (std::size_t i = 0; i < e; ++i)
        for (std::size_t j = i + 1; j < e; ++j) {
            const double common = both[i * e + j], either = static_cast<double>(load[i]) + load[j] - common;
            const double jaccard = either > 0 ? common / either : 0;
            sum += jaccard;
            if (withMatrix)
                figures.matrix[i * e + j] = figures.matrix[j * e + i] = static_cast<float>(jaccard);
        }
    figures.mean = e > 1 ? 2 * sum / static_cast<double>(e * (e - 1)) : kNone;
    return figures;
}

OverlapFigures overlapOfTypes(std::span<const std::uint32_t> counts, std::int64_t experts, bool withMatrix)
{
    const auto e = static_cast<std::size_t>(experts);
    const std::size_t types = e > 0 ? counts.size() / e : 0, words = (types + 63) / 64;
    std::vector<std::uint64_t> sets(e * words, 0);
    for (std::size_t t = 0; t < types; ++t)
        for (std::size_t x = 0; x < e; ++x)
            if (counts[t * e + x] > 0)
                sets[x * words + t / 64] |= std::uint64_t(1) << (t % 64);
    std::vector<std::uint32_t> both(e * e, 0), load(e, 0);
    for (std::size_t i = 0; i < e; ++i)
        for (std::size_t j = i; j < e; ++j) {
            std::uint32_t common = 0;
            for (std::size_t w = 0; w < words; ++w)
                common += static_cast<std::uint32_t>(std::popcount(sets[i * words + w] & sets[j * words + w]));
            if (i == j)
                load[i] = common;
            else
                both[i * e + j] = common;
        }
    return overlapOfCounts(both, load, withMatrix);
}

double shuffledOverlapOfTypes(std::span<const std::uint32_t> types, std::span<const std::uint32_t> both,
                              std::span<const std::uint32_t> load, std::int64_t tokens, int slots)
{
    const std::size_t e = load.size();
    if (e < 2 || tokens < 1 || slots < 1)
        return kNone;
    // How many types there are of each frequency.
    std::map<double, double> frequencies;
    for (std::size_t t = 0; t + e <= types.size(); t += e)
        if (const double sum = std::accumulate(types.begin() + static_cast<std::ptrdiff_t>(t),
                                               types.begin() + static_cast<std::ptrdiff_t>(t + e), 0.0);
            sum > 0)
            frequencies[sum / slots] += 1;
    const auto all = static_cast<double>(tokens);
    std::vector<double> f, count, none(e * frequencies.size());
    for (const auto &[frequency, types_] : frequencies) {
        for (std::size_t i = 0; i < e; ++i)
            none[i * frequencies.size() + f.size()] = missed(load[i], all, frequency);
        f.push_back(frequency);
        count.push_back(types_);
    }
    double sum = 0, used = 0;
    for (std::size_t i = 0; i < e; ++i)
        for (std::size_t j = i + 1; j < e; ++j) {
            if (load[i] == 0 && load[j] == 0)
                continue;
            const double either = static_cast<double>(load[i]) + load[j] - both[i * e + j];
            double intersection = 0, united = 0;
            for (std::size_t k = 0; k < f.size(); ++k) {
                const double neither = missed(either, all, f[k]);
                intersection += count[k] * std::max(0.0, 1 - none[i * f.size() + k] - none[j * f.size() + k] + neither);
                united += count[k] * (1 - neither);
            }
            sum += united > 0 ? intersection / united : 0;
            used += 1;
        }
    return used > 0 ? sum / used : kNone;
}

double vocabularySpecialization(std::span<const std::uint32_t> counts, std::int64_t experts,
                                std::vector<float> *perExpert)
{
    const auto e = static_cast<std::size_t>(experts);
    std::vector<double> sum(e, 0.0), used(e, 0.0);
    for (std::size_t t = 0; t + e <= counts.size(); t += e) {
        double all = 0;
        for (std::size_t x = 0; x < e; ++x)
            all += counts[t + x];
        if (all <= 0)
            continue;
        for (std::size_t x = 0; x < e; ++x) {
            sum[x] += counts[t + x] / all;
            used[x] += counts[t + x] > 0;
        }
    }
    double total = 0, experienced = 0;
    if (perExpert)
        perExpert->assign(e, std::numeric_limits<float>::quiet_NaN());
    for (std::size_t x = 0; x < e; ++x)
        if (used[x] > 0) {
            total += sum[x] / used[x];
            experienced += 1;
            if (perExpert)
                (*perExpert)[x] = static_cast<float>(sum[x] / used[x]);
        }
    return experienced > 0 ? total / experienced : kNone;
}

void evaluateSets(const EvaluationContext &context, int layer, const LayerStats &stats, LayerMetrics &into)
{
    pairMetrics(context, layer, stats, into);
    typeMetrics(context, layer, stats, into);
    scoreAuc(context, layer, stats, into);
    concentration(context, stats, into);
}

} // namespace spectra::detail
