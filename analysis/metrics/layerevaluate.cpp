// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/metrics/layerevaluate.h"

#include "analysis/metrics/additive.h"
#include "analysis/metrics/partition.h"
#include "analysis/metrics/setmetrics.h"
#include "engine/core/random.h"

#include <Eigen/Dense>

#include <algorithm>
#include <cmath>

namespace spectra::detail {
namespace {

using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Rows = std::vector<std::vector<double>>;

/// Sums of units in all the ways that are needed.
struct Sums {
    std::vector<double> all;
    Rows domain, phase, sequence;
    std::vector<Rows> domainGroup; ///< [Q][G]
    Rows group;                    ///< [G]
};

class LayerEvaluator {
public:
    LayerEvaluator(const EvaluationContext &context, int layer, const LayerStats &stats)
        : m_context(context)
        , m_layer(layer)
        , m_stats(stats)
        , m_size(stats.layout.size())
        , m_domains(static_cast<std::size_t>(context.slices.domains))
        , m_groups(static_cast<std::size_t>(context.slices.groups))
    {
    }

    Result<LayerMetrics> run()
    {
        sum();
        additive();
        if (m_context.stop.stop_requested())
            return cancelledError();
        if (m_domains >= 2)
            byDomainTable();
        chanceOfOverlap();
        shapes();
        SPECTRA_CHECK(silhouette());
        evaluateSets(m_context, m_layer, m_stats, m_result);
        if (m_context.stop.stop_requested())
            return cancelledError();
        return std::move(m_result);
    }

private:
    [[nodiscard]] StatView view(const std::vector<double> &row) const { return view(row.data()); }
    [[nodiscard]] StatView view(const double *row) const
    {
        return {row, &m_stats.layout, m_stats.slots, m_context.info.model.capacityFactor.value_or(0)};
    }
    static void add(std::vector<double> &to, const double *from)
    {
        for (std::size_t i = 0; i < to.size(); ++i)
            to[i] += from[i];
    }

    void sum()
    {
        const Units &units = m_context.units;
        const auto count = static_cast<std::size_t>(units.count());
        const std::vector<double> zero(m_size, 0.0);
        m_sums.all = zero;
        m_sums.domain.assign(m_domains, zero);
        m_sums.group.assign(m_groups, zero);
        m_sums.domainGroup.assign(m_domains, Rows(m_groups, zero));
        const int phases = m_context.plan.phases ? 2 : 1;
        if (m_context.plan.phases)
            m_sums.phase.assign(2, zero);
        if (m_context.plan.sequences)
            m_sums.sequence.assign(count, zero);
        for (int p = 0; p < phases; ++p)
            for (std::size_t u = 0; u < count; ++u) {
                const double *row = m_stats.units.data() + (static_cast<std::size_t>(p) * count + u) * m_size;
                add(m_sums.all, row);
                if (const int d = units.domain[u]; d >= 0 && m_domains > 0) {
                    add(m_sums.domain[static_cast<std::size_t>(d)], row);
                    if (m_groups > 0)
                        add(m_sums.domainGroup[static_cast<std::size_t>(d)][static_cast<std::size_t>(units.group[u])],
                            row);
                }
                if (m_groups > 0)
                    add(m_sums.group[static_cast<std::size_t>(units.group[u])], row);
                if (m_context.plan.phases)
                    add(m_sums.phase[static_cast<std::size_t>(p)], row);
                if (m_context.plan.sequences)
                    add(m_sums.sequence[u], row);
            }
    }

    [[nodiscard]] static std::vector<double> without(const std::vector<double> &all, const std::vector<double> &part)
    {
        std::vector<double> rest = all;
        for (std::size_t i = 0; i < rest.size(); ++i)
            rest[i] -= part[i];
        return rest;
    }

    void additive()
    {
        std::vector<const AdditiveMetric *> bootstrapped;
        for (const AdditiveMetric &metric : additiveMetrics()) {
            if (!m_context.wants(metric.key))
                continue;
            LayerMetric &m = m_result[metric.key];
            const auto countOf = [&](const StatView &s) { return static_cast<std::int64_t>(s[metric.count]); };
            const StatView all = view(m_sums.all);
            m.value = metric.value(all);
            m.count = countOf(all);
            if (metric.chance)
                m.chance = metric.chance(all);
            for (const std::vector<double> &d : m_sums.domain) {
                m.domain.push_back(metric.value(view(d)));
                m.domainChance.push_back(metric.chance ? metric.chance(view(d)) : kNone);
                m.domainCount.push_back(countOf(view(d)));
            }
            for (const std::vector<double> &p : m_sums.phase) {
                m.phase.push_back(metric.value(view(p)));
                m.phaseCount.push_back(countOf(view(p)));
            }
            if (m_context.plan.sequences)
                for (const int unit : m_context.units.ofSequence) {
                    const StatView s = view(m_sums.sequence[static_cast<std::size_t>(unit)]);
                    m.sequence.push_back(metric.value(s));
                    m.sequenceCount.push_back(countOf(s));
                }
            m.jackknife = metric.jackknife;
            if (metric.jackknife) {
                for (const std::vector<double> &g : m_sums.group)
                    m.replicates.push_back(metric.value(view(without(m_sums.all, g))));
                m.domainReplicates.assign(m_domains, {});
                for (std::size_t d = 0; d < m_domains; ++d)
                    for (const std::vector<double> &g : m_sums.domainGroup[d])
                        m.domainReplicates[d].push_back(metric.value(view(without(m_sums.domain[d], g))));
            } else if (!m_context.bootstrap.empty()) {
                bootstrapped.push_back(&metric);
                m.domainReplicates.assign(m_domains, {});
            }
        }
        if (!bootstrapped.empty())
            bootstrap(bootstrapped);
    }

    /// Resampled statistics are a matrix product: weights [resamples, units] times statistics [units, size].
    void bootstrap(const std::vector<const AdditiveMetric *> &metrics)
    {
        const Units &units = m_context.units;
        const Eigen::Index count = units.count(), size = static_cast<Eigen::Index>(m_size);
        const auto resamples = static_cast<Eigen::Index>(m_context.bootstrap.size()) / std::max<Eigen::Index>(1, count);
        const Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>> weights(
            m_context.bootstrap.data(), resamples, count);
        RowMatrix table = Eigen::Map<const RowMatrix>(m_stats.units.data(), count, size);
        if (m_context.plan.phases)
            table +=
                Eigen::Map<const RowMatrix>(m_stats.units.data() + static_cast<std::size_t>(count * size), count, size);
        std::vector<std::pair<int, int>> ranges = units.range;
        const int labelled = ranges.empty() ? units.count() : ranges.front().first;
        RowMatrix all, part;
        for (Eigen::Index first = 0; first < resamples && !m_context.stop.stop_requested(); first += 64) {
            const Eigen::Index rows = std::min<Eigen::Index>(64, resamples - first);
            const RowMatrix w = weights.middleRows(first, rows).cast<double>();
            all.noalias() = w.leftCols(labelled) * table.topRows(labelled);
            const auto record = [&](const RowMatrix &sums, std::ptrdiff_t d) {
                for (Eigen::Index r = 0; r < rows; ++r)
                    for (const AdditiveMetric *metric : metrics) {
                        LayerMetric &m = m_result.find(std::string_view(metric->key))->second;
                        (d < 0 ? m.replicates : m.domainReplicates[static_cast<std::size_t>(d)])
                            .push_back(metric->value(view(sums.data() + r * size)));
                    }
            };
            for (std::size_t d = 0; d < ranges.size(); ++d) {
                const auto [begin, end] = ranges[d];
                if (begin == end)
                    continue;
                part.noalias() = w.middleCols(begin, end - begin) * table.middleRows(begin, end - begin);
                all += part;
                // One sequence alone in its domain says nothing about the spread there.
                if (end - begin >= 2 && m_domains > 0)
                    record(part, static_cast<std::ptrdiff_t>(d));
            }
            record(all, -1);
        }
    }

    void byDomainTable()
    {
        const auto views = [&](const Rows &rows) {
            std::vector<StatView> v;
            for (const std::vector<double> &r : rows)
                v.push_back(view(r));
            return v;
        };
        const std::vector<StatView> domains = views(m_sums.domain);
        std::int64_t tokens = 0, present = 0;
        for (const StatView &d : domains) {
            tokens += static_cast<std::int64_t>(d[StatLayout::tokens]);
            present += d[StatLayout::tokens] > 0;
        }
        for (const DomainMetric &metric : domainMetrics()) {
            if (!m_context.wants(metric.key))
                continue;
            LayerMetric &m = m_result[metric.key];
            m.count = tokens;
            m.jackknife = true;
            if (present < 2) {
                m.note = "fewer than two domains among the tokens";
                continue;
            }
            m.value = metric.value(domains);
            if (metric.chance)
                m.chance = metric.chance(domains);
            if (metric.ofDomain)
                for (std::size_t d = 0; d < domains.size(); ++d) {
                    m.domain.push_back(metric.ofDomain(domains, d));
                    m.domainChance.push_back(m.chance);
                    m.domainCount.push_back(static_cast<std::int64_t>(domains[d][StatLayout::tokens]));
                }
            for (std::size_t g = 0; g < m_groups; ++g) {
                Rows rest;
                for (std::size_t d = 0; d < m_domains; ++d)
                    rest.push_back(without(m_sums.domain[d], m_sums.domainGroup[d][g]));
                m.replicates.push_back(metric.value(views(rest)));
            }
            if (metric.matrix && m_context.options.matrices) {
                MetricMatrix matrix;
                matrix.layer = m_layer;
                matrix.values = metric.matrix(domains, matrix.rows, matrix.columns);
                if (matrix.columns == static_cast<std::int64_t>(m_domains))
                    matrix.columnLabels = m_context.info.domains;
                m.matrices.push_back(std::move(matrix));
            }
        }
    }

    /// Chance level of topk_overlap: the mean Jaccard index of random pairs of tokens.
    void chanceOfOverlap()
    {
        const auto found = m_result.find(std::string_view("topk_overlap"));
        const TokenSample &sample = m_stats.sample;
        if (found == m_result.end() || sample.domain.empty())
            return;
        const auto k = static_cast<std::size_t>(sample.slots);
        const auto pairsOf = [&](const std::vector<std::size_t> &members, int pairs, std::uint64_t stream) {
            if (members.size() < 2)
                return kNone;
            Random random(m_context.options.seed, stream);
            double sum = 0;
            for (int i = 0; i < pairs; ++i) {
                const std::size_t a = random.below(members.size());
                std::size_t b = random.below(members.size() - 1);
                b += b >= a;
                const std::uint16_t *x = sample.experts.data() + members[a] * k,
                                    *y = sample.experts.data() + members[b] * k;
                int common = 0, filled = 0;
                for (std::size_t s = 0; s < k; ++s) {
                    filled += (x[s] != kNoExpert) + (y[s] != kNoExpert);
                    for (std::size_t t = 0; t < k; ++t)
                        common += x[s] != kNoExpert && x[s] == y[t];
                }
                sum += filled > common ? static_cast<double>(common) / (filled - common) : 0;
            }
            return sum / pairs;
        };
        std::vector<std::size_t> everyone(sample.domain.size());
        std::vector<std::vector<std::size_t>> members(m_domains);
        for (std::size_t i = 0; i < everyone.size(); ++i) {
            everyone[i] = i;
            if (sample.domain[i] >= 0 && m_domains > 0)
                members[static_cast<std::size_t>(sample.domain[i])].push_back(i);
        }
        const auto stream = static_cast<std::uint64_t>(m_layer) << 16;
        found->second.chance = pairsOf(everyone, 100000, stream + 1);
        for (std::size_t d = 0; d < m_domains; ++d)
            found->second.domainChance[d] = pairsOf(members[d], 20000, stream + 2 + d);
    }

    /// The other segment lengths and cache sizes, as a matrix of one column.
    void shapes()
    {
        const auto fill = [&](std::string_view key, int first, const auto &sizes, int scale, const char *unit) {
            const auto found = m_result.find(key);
            if (found == m_result.end() || !m_context.options.matrices)
                return;
            MetricMatrix matrix;
            matrix.layer = m_layer;
            matrix.rows = static_cast<std::int64_t>(sizes.size());
            matrix.columns = 1;
            matrix.columnLabels = {unit};
            for (std::size_t i = 0; i < sizes.size(); ++i) {
                matrix.rowLabels.push_back(std::to_string(sizes[i] * scale));
                const double over = m_sums.all[static_cast<std::size_t>(first) + 2 * i + 1];
                matrix.values.push_back(
                    over > 0 ? static_cast<float>(m_sums.all[static_cast<std::size_t>(first) + 2 * i] / over)
                             : std::numeric_limits<float>::quiet_NaN());
            }
            found->second.matrices.push_back(std::move(matrix));
        };
        fill("segment_routing_best", StatLayout::segments, kSegmentLengths, 1, "share at this segment length (tokens)");
        fill("segment_cache_hit", StatLayout::caches, kCacheSlots, m_stats.slots,
             "hit rate at this cache size (experts)");
    }

    Result<void> silhouette()
    {
        if (!m_context.wants("silhouette"))
            return {};
        LayerMetric &m = m_result["silhouette"];
        const HiddenSample &hidden = m_stats.hidden;
        const auto n = static_cast<std::int64_t>(hidden.top1.size());
        m.count = n;
        const std::vector<double> s = silhouettes({hidden.values.data(), n, hidden.width}, hidden.top1, m_context.stop);
        if (m_context.stop.stop_requested())
            return cancelledError();
        if (s.empty())
            return {};
        const Units &units = m_context.units;
        std::vector<double> unitSum(static_cast<std::size_t>(units.count()), 0.0), unitCount = unitSum;
        std::vector<double> domainSum(m_domains, 0.0), domainCount = domainSum;
        double total = 0;
        for (std::size_t i = 0; i < s.size(); ++i) {
            total += s[i];
            unitSum[static_cast<std::size_t>(hidden.unit[i])] += s[i];
            unitCount[static_cast<std::size_t>(hidden.unit[i])] += 1;
            if (m_domains > 0 && hidden.domain[i] >= 0) {
                domainSum[static_cast<std::size_t>(hidden.domain[i])] += s[i];
                domainCount[static_cast<std::size_t>(hidden.domain[i])] += 1;
            }
        }
        m.value = total / static_cast<double>(s.size());
        m.note = "on " + std::to_string(n) + " sampled tokens; intervals resample their silhouettes by sequence";
        for (std::size_t d = 0; d < m_domains; ++d) {
            m.domain.push_back(domainCount[d] > 0 ? domainSum[d] / domainCount[d] : kNone);
            m.domainCount.push_back(static_cast<std::int64_t>(domainCount[d]));
        }
        const std::size_t count = unitSum.size();
        for (std::size_t b = 0; count > 0 && b < m_context.bootstrap.size() / count; ++b) {
            double sum = 0, weight = 0;
            for (std::size_t u = 0; u < count; ++u) {
                const double w = static_cast<double>(m_context.bootstrap[b * count + u]);
                sum += w * unitSum[u];
                weight += w * unitCount[u];
            }
            m.replicates.push_back(weight > 0 ? sum / weight : kNone);
        }
        return {};
    }

    const EvaluationContext &m_context;
    const int m_layer;
    const LayerStats &m_stats;
    const std::size_t m_size, m_domains, m_groups;
    Sums m_sums;
    LayerMetrics m_result;
};

} // namespace

Result<LayerMetrics> evaluateLayer(const EvaluationContext &context, int layer, const LayerStats &stats)
{
    return LayerEvaluator(context, layer, stats).run();
}

} // namespace spectra::detail
