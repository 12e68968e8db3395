// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/metrics/evaluate.h"

#include "analysis/metrics/layerevaluate.h"
#include "analysis/statistics/resampling.h"
#include "engine/core/parallel.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <mutex>
#include <thread>

namespace spectra {
namespace {

using namespace detail;

/// Mean over layers, absent values left out.
struct Mean {
    double sum = 0, used = 0;
    void add(double x)
    {
        if (std::isfinite(x)) {
            sum += x;
            used += 1;
        }
    }
    [[nodiscard]] double value() const { return used > 0 ? sum / used : kNone; }
};

std::optional<double> present(double x)
{
    return std::isfinite(x) ? std::optional<double>(x) : std::nullopt;
}

/// Folds the layers of one metric into its result.
class Combiner {
public:
    Combiner(const MetricInfo &metric, const MetricOptions &options, const TraceInfo &info, std::size_t sequences,
             bool acrossLayers)
        : m_metric(metric)
        , m_options(options)
        , m_domains(info.domains.size())
    {
        m_result.key = metric.key;
        if (!acrossLayers)
            m_result.byLayer.resize(static_cast<std::size_t>(info.layers()));
        if (options.byDomain) {
            m_result.byDomain.resize(m_domains);
            if (!acrossLayers)
                m_result.byLayerDomain.resize(static_cast<std::size_t>(info.layers()) * m_domains);
        }
        m_domain.resize(m_domains);
        m_domainChance.resize(m_domains);
        m_domainReplicates.resize(m_domains);
        if (options.byPhase) {
            m_result.byPhase.resize(2);
            m_phase.resize(2);
        }
        if (options.bySequence) {
            m_result.bySequence.resize(sequences);
            m_sequence.resize(sequences);
        }
    }

    void add(int layer, LayerMetric &&m)
    {
        m_seen = true;
        m_jackknife = m.jackknife;
        m_value.add(m.value);
        if (std::isfinite(m.value))
            m_chance.add(m.chance);
        m_result.overall.count = std::max(m_result.overall.count, m.count);
        if (!m.note.empty())
            m_result.note = m.note;
        merge(m_replicates, m.replicates);
        const auto l = static_cast<std::size_t>(layer);
        if (l < m_result.byLayer.size()) {
            MetricPoint &p = m_result.byLayer[l];
            p.value = present(m.value);
            p.chance = present(m.chance);
            p.count = m.count;
            interval(p, m.value, m.replicates);
        }
        for (std::size_t d = 0; d < std::min(m_domains, m.domain.size()) && m_options.byDomain; ++d) {
            m_domain[d].add(m.domain[d]);
            m_result.byDomain[d].count =
                std::max(m_result.byDomain[d].count, d < m.domainCount.size() ? m.domainCount[d] : 0);
            if (d < m.domainChance.size())
                m_domainChance[d].add(m.domainChance[d]);
            if (d < m.domainReplicates.size())
                merge(m_domainReplicates[d], m.domainReplicates[d]);
            if (l * m_domains + d < m_result.byLayerDomain.size()) {
                MetricPoint &p = m_result.byLayerDomain[l * m_domains + d];
                p.value = present(m.domain[d]);
                p.count = d < m.domainCount.size() ? m.domainCount[d] : 0;
            }
        }
        for (std::size_t i = 0; i < std::min(m_phase.size(), m.phase.size()); ++i) {
            m_phase[i].add(m.phase[i]);
            if (i < m.phaseCount.size())
                m_result.byPhase[i].count = std::max(m_result.byPhase[i].count, m.phaseCount[i]);
        }
        for (std::size_t i = 0; i < std::min(m_sequence.size(), m.sequence.size()); ++i) {
            m_sequence[i].add(m.sequence[i]);
            if (i < m.sequenceCount.size())
                m_result.bySequence[i].count = std::max(m_result.bySequence[i].count, m.sequenceCount[i]);
        }
        for (MetricMatrix &matrix : m.matrices)
            m_result.matrices.push_back(std::move(matrix));
    }

    MetricResult finish(const std::string &bootstrapWords, const std::string &jackknifeWords)
    {
        m_result.overall.value = present(m_value.value());
        m_result.overall.chance = present(m_chance.value());
        interval(m_result.overall, m_value.value(), means(m_replicates));
        if (m_result.overall.low)
            m_result.interval = m_jackknife ? jackknifeWords : bootstrapWords;
        for (std::size_t d = 0; d < m_result.byDomain.size(); ++d) {
            MetricPoint &p = m_result.byDomain[d];
            p.value = present(m_domain[d].value());
            p.chance = present(m_domainChance[d].value());
            interval(p, m_domain[d].value(), means(m_domainReplicates[d]));
        }
        for (std::size_t i = 0; i < m_phase.size(); ++i)
            m_result.byPhase[i].value = present(m_phase[i].value());
        for (std::size_t i = 0; i < m_sequence.size(); ++i)
            m_result.bySequence[i].value = present(m_sequence[i].value());
        if (!m_result.overall.value && m_result.absent.empty())
            m_result.absent = !m_result.note.empty() ? m_result.note
                              : m_seen               ? "undefined for this routing"
                                                     : "no counted token";
        return std::move(m_result);
    }

private:
    static void merge(std::vector<Mean> &to, const std::vector<double> &from)
    {
        if (to.size() < from.size())
            to.resize(from.size());
        for (std::size_t i = 0; i < from.size(); ++i)
            to[i].add(from[i]);
    }
    static std::vector<double> means(const std::vector<Mean> &from)
    {
        std::vector<double> v;
        for (const Mean &m : from)
            v.push_back(m.value());
        return v;
    }
    void interval(MetricPoint &point, double value, const std::vector<double> &replicates) const
    {
        if (replicates.empty() || !std::isfinite(value))
            return;
        const auto range = m_jackknife ? jackknifeInterval(value, replicates, m_options.level)
                                       : percentileInterval(replicates, m_options.level);
        if (!range)
            return;
        point.low = range->first;
        point.high = range->second;
        if (m_jackknife && m_metric.unit == "share") {
            point.low = std::max(0.0, *point.low);
            point.high = std::min(1.0, *point.high);
        }
    }

    const MetricInfo &m_metric;
    const MetricOptions &m_options;
    const std::size_t m_domains;
    MetricResult m_result;
    bool m_seen = false, m_jackknife = false;
    Mean m_value, m_chance;
    std::vector<Mean> m_replicates, m_domain, m_domainChance, m_phase, m_sequence;
    std::vector<std::vector<Mean>> m_domainReplicates;
};

LayerPlan planFor(const std::map<std::string, const MetricInfo *, std::less<>> &wanted, const TraceInfo &info,
                  const MetricOptions &options)
{
    LayerPlan plan;
    const auto any = [&](std::initializer_list<std::string_view> keys) {
        return std::any_of(keys.begin(), keys.end(),
                           [&](std::string_view k) { return wanted.find(k) != wanted.end(); });
    };
    for (const auto &[key, metric] : wanted)
        for (const Column column : metric->columns) {
            plan.stream = true;
            plan.weights |= column == Column::weights;
            plan.probabilities |= column == Column::probabilities;
            plan.dropped |= column == Column::dropped;
        }
    if (any({"routing_entropy", "routing_entropy_normalized"})) {
        plan.entropy = info.has(Column::entropy);
        plan.probabilities |= !plan.entropy;
    }
    plan.pairs = any({"expert_overlap_positions", "expert_overlap_types", "co_activation", "expert_diversity_nmi"});
    plan.types = any({"expert_overlap_types", "vocabulary_specialization"});
    plan.nextTypes = any({"vocabulary_specialization_predicted"});
    plan.segments = any({"segment_routing_best", "segment_cache_hit"});
    plan.sampleProbabilities = any({"score_auc"});
    plan.sample = plan.sampleProbabilities || any({"topk_overlap"});
    plan.silhouette = any({"silhouette"});
    for (int o = 0; o < kGramObjects; ++o)
        plan.concentration[static_cast<std::size_t>(o)] =
            any({"gram_diagonal_quality." + std::string(gramObjectKey(static_cast<GramObject>(o)))});
    plan.keepTop1 = any({"layer_consistency", "layer_consistency_matched", "path_entropy", "path_count"});
    plan.sequences = options.bySequence;
    plan.phases = options.byPhase;
    plan.blockTokens = options.blockTokens;
    plan.sampleTokens = options.sampleTokens;
    plan.silhouetteTokens = options.silhouetteTokens;
    return plan;
}

/// Metrics whose tables would not fit memory, with the reason: sizes come from the file and are not to be trusted.
std::map<std::string, std::string> tooLarge(const std::map<std::string, const MetricInfo *, std::less<>> &wanted,
                                            const TraceInfo &info, const TokenIndex &index,
                                            const MetricOptions &options)
{
    constexpr double budget = double(std::int64_t(1) << 29);
    const double experts = info.experts;
    const double slices =
        3 + static_cast<double>(info.domains.size()) + (options.intervals ? options.jackknifeGroups : 0);
    std::map<std::string, std::string> result;
    for (const auto &[key, metric] : wanted) {
        double bytes = 0;
        if (key == "expert_overlap_positions" || key == "co_activation" || key == "expert_diversity_nmi")
            bytes = 4 * slices * experts * experts;
        else if (key.starts_with("layer_consistency"))
            bytes = 8 * slices * experts * experts;
        else if (key == "expert_overlap_types") // with its shuffled control, which needs the pairs
            bytes = 4 * experts * static_cast<double>(index.types) + 4 * (slices + 2) * experts * experts;
        else if (key.starts_with("vocabulary_specialization"))
            bytes = 4 * experts * static_cast<double>(std::max(index.types, index.nextTypes)) + 8 * experts * experts;
        else if (key.starts_with("gram_diagonal_quality"))
            bytes = 8 * slices * experts * std::max(1.0, static_cast<double>(std::max(info.routerDim, info.hidden)));
        else if (metric->cost == MetricCost::tables)
            bytes = 64 * experts * experts; // the matrix, its factors and copies
        if (bytes > budget)
            result.emplace(key, "its tables for " + std::to_string(info.experts) + " experts would take " +
                                    std::to_string(static_cast<std::int64_t>(bytes / (1 << 20))) + " MiB");
    }
    return result;
}

Result<void> validate(const MetricOptions &o)
{
    for (const std::string &key : o.keys)
        if (findMetric(key) == nullptr)
            return usageError("there is no metric '" + key + "'", "metric keys",
                              "list them all with `spectra metrics --list`");
    if (!(o.level > 0 && o.level < 1))
        return usageError("the level of intervals lies between 0 and 1");
    if (o.resamples < 2 || o.resamples > 100000 || o.jackknifeGroups < 2 || o.jackknifeGroups > 1000)
        return usageError("2 to 100,000 resamples and 2 to 1,000 jackknife groups are possible");
    if (o.blockTokens < 1 || o.sampleTokens < 2 || o.silhouetteTokens < 2)
        return usageError("block and sample sizes are positive");
    return {};
}

} // namespace

Result<MetricReport> evaluateMetrics(const TraceSource &trace, const MetricOptions &options, std::stop_token stop,
                                     const ProgressFunction &progress)
{
    const auto began = std::chrono::steady_clock::now();
    SPECTRA_CHECK(validate(options));
    const auto info = trace.info();
    MetricReport report;
    report.domains = info->domains;
    report.decoderIndex = info->decoderIndex;

    std::vector<const MetricInfo *> asked;
    std::map<std::string, const MetricInfo *, std::less<>> wanted;
    std::map<std::string, std::string, std::less<>> missing;
    for (const MetricInfo &metric : metricTable()) {
        if (!options.keys.empty() &&
            std::find(options.keys.begin(), options.keys.end(), metric.key) == options.keys.end())
            continue;
        asked.push_back(&metric);
        if (std::string why = whyMissing(metric, *info); !why.empty())
            missing.emplace(metric.key, std::move(why));
        else
            wanted.emplace(metric.key, &metric);
    }
    if (info->experts > kNoExpert)
        return inputError("the trace names " + std::to_string(info->experts) +
                              " experts, more than an index can tell apart",
                          info->file);
    LayerPlan plan = planFor(wanted, *info, options);

    TokenIndexOptions indexOptions;
    indexOptions.types = plan.types;
    indexOptions.nextTypes = plan.nextTypes;
    indexOptions.selection = options.selection.get();
    indexOptions.blockTokens = options.blockTokens;
    if (progress)
        progress({"reading tokens", 0, info->tokens, "tokens"});
    SPECTRA_TRY(const TokenIndex index, readTokenIndex(trace, indexOptions, stop));
    for (auto &[key, why] : tooLarge(wanted, *info, index, options)) {
        wanted.erase(key);
        missing.emplace(key, std::move(why));
    }
    plan = planFor(wanted, *info, options);
    report.countedTokens = index.countedTokens;
    report.excludedTokens = index.excludedTokens;

    StatLayout layout;
    layout.experts = info->experts;
    const std::int64_t limit =
        options.bySequence ? std::max<std::int64_t>(1, static_cast<std::int64_t>(index.domain.size()))
                           : std::max<std::int64_t>(64, (std::int64_t(1) << 28) /
                                                            static_cast<std::int64_t>(layout.size() * sizeof(double) *
                                                                                      (options.byPhase ? 2 : 1)));
    if (options.bySequence &&
        static_cast<double>(limit) * static_cast<double>(layout.size()) > double(std::int64_t(1) << 28))
        return workError("figures by sequence of " + std::to_string(limit) + " sequences would not fit memory",
                         info->file, "leave sequences out of the question, or select some");
    const int domains = static_cast<int>(info->domains.size());
    Units units = makeUnits(index, domains, limit);
    Slices slices{domains, 0, options.byPhase};
    std::vector<float> bootstrap;
    if (options.intervals && units.count() >= 2) {
        slices.groups = plan.groups = std::min(options.jackknifeGroups, units.count());
        units.group = jackknifeGroups(units.domain, slices.groups, options.seed);
        bootstrap = bootstrapWeights(units.domain, options.resamples, options.seed);
    }
    const EvaluationContext context{*info, index, units, slices, plan, options, bootstrap, wanted, stop};

    std::map<std::string, Combiner, std::less<>> combiners;
    for (const auto &[key, metric] : wanted)
        combiners.try_emplace(key, *metric, options, *info, index.domain.size(), key.starts_with("path_"));
    const auto fold = [&](int layer, LayerMetrics &&metrics) {
        for (auto &[key, m] : metrics)
            if (const auto found = combiners.find(key); found != combiners.end())
                found->second.add(layer, std::move(m));
    };

    const int layers = info->layers();
    if (index.countedTokens > 0 && !wanted.empty()) {
        const std::int64_t total = plan.stream ? index.tokens * layers : layers;
        std::atomic<std::int64_t> done{0};
        const auto caller = std::this_thread::get_id();
        const auto tick = [&](std::int64_t tokens) {
            const std::int64_t now = done.fetch_add(tokens) + tokens;
            if (progress && std::this_thread::get_id() == caller)
                progress({"measuring layers", now, total, plan.stream ? "tokens" : "layers"});
        };
        const bool paths = wanted.contains("path_entropy") || wanted.contains("path_count");
        std::vector<std::uint64_t> path(paths ? static_cast<std::size_t>(index.tokens) : 0, 0);
        std::vector<std::uint16_t> before;
        // Layers are independent but for the top-1 experts of the one before: a few at a time, folded in order.
        const int together = std::clamp(threadCount(), 1, 8);
        for (int first = 0; first < layers; first += together) {
            const int count = std::min(together, layers - first);
            std::vector<LayerMetrics> streamed(static_cast<std::size_t>(count)),
                tabled(static_cast<std::size_t>(count));
            std::vector<std::vector<std::uint16_t>> top1(static_cast<std::size_t>(count));
            std::mutex mutex;
            std::optional<Error> error;
            parallelFor(count, count, [&](std::int64_t begin, std::int64_t end, int) {
                for (std::int64_t i = begin; i < end; ++i) {
                    const int layer = first + static_cast<int>(i);
                    const auto work = [&]() -> Result<void> {
                        if (plan.stream) {
                            SPECTRA_TRY(LayerStats stats,
                                        readLayer(trace, layer, index, units, slices, plan, stop, tick));
                            SPECTRA_TRY(streamed[static_cast<std::size_t>(i)], evaluateLayer(context, layer, stats));
                            top1[static_cast<std::size_t>(i)] = std::move(stats.top1);
                        } else {
                            tick(1);
                        }
                        SPECTRA_TRY(tabled[static_cast<std::size_t>(i)], evaluateTables(context, trace, layer));
                        return {};
                    };
                    if (auto result = work(); !result.ok()) {
                        const std::lock_guard lock(mutex);
                        if (!error)
                            error = std::move(result.error());
                    }
                }
            });
            if (stop.stop_requested())
                return cancelledError();
            if (error)
                return *error;
            for (int i = 0; i < count; ++i) {
                const int layer = first + i;
                fold(layer, std::move(streamed[static_cast<std::size_t>(i)]));
                fold(layer, std::move(tabled[static_cast<std::size_t>(i)]));
                if (!plan.keepTop1)
                    continue;
                std::vector<std::uint16_t> &now = top1[static_cast<std::size_t>(i)];
                if (layer > 0) {
                    LayerMetrics pair;
                    evaluateLayerPair(context, layer, before, now, pair);
                    fold(layer, std::move(pair));
                }
                if (paths)
                    extendPaths(path, now);
                before = std::move(now);
            }
        }
        if (paths)
            fold(0, evaluatePaths(context, path));
        if (stop.stop_requested())
            return cancelledError();
    }

    const std::string unit = units.merged ? "groups of sequences" : "sequences";
    const std::string bootstrapWords =
        "percentile bootstrap over " + unit + " within domains, " + std::to_string(options.resamples) + " resamples";
    const std::string jackknifeWords =
        "delete-group jackknife over " + unit + ", " + std::to_string(slices.groups) + " groups";
    for (const MetricInfo *metric : asked) {
        if (const auto why = missing.find(metric->key); why != missing.end()) {
            MetricResult absent;
            absent.key = metric->key;
            absent.absent = why->second;
            report.metrics.push_back(std::move(absent));
        } else {
            report.metrics.push_back(combiners.find(metric->key)->second.finish(bootstrapWords, jackknifeWords));
        }
    }
    report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    return report;
}

} // namespace spectra
