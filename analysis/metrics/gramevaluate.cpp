// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/metrics/layerevaluate.h"

#include "analysis/metrics/gram.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <optional>
#include <utility>

namespace spectra::detail {
namespace {

struct ObjectTables {
    GramObject object;
    Table gram, means;
    std::optional<Table> sequenceMeans;
};
constexpr std::array<ObjectTables, kGramObjects> kObjects{{
    {GramObject::routing, Table::gramRouting, Table::meanRouting, Table::sequenceMeanRouting},
    {GramObject::expression, Table::gramExpression, Table::meanExpression, Table::sequenceMeanExpression},
    {GramObject::routerWeights, Table::gramRouterWeights, Table::routerWeights, std::nullopt},
    {GramObject::expertInput, Table::expertInputMean, Table::expertInputMean, std::nullopt},
    {GramObject::expertOutput, Table::expertOutputMean, Table::expertOutputMean, std::nullopt},
}};

/// Mean vectors [E,D] of several sets of tokens.
struct MeanVectors {
    std::int64_t width = 0;
    std::vector<float> whole;
    std::vector<std::vector<float>> domain, withoutGroup, sequence;
    std::vector<std::int64_t> domainTokens;
    std::string missing;
    [[nodiscard]] bool empty() const { return whole.empty(); }
};

using Wanted = std::vector<std::pair<std::string, std::function<double(const GramFigures &)>>>;

class TableEvaluator {
public:
    TableEvaluator(const EvaluationContext &context, const TraceSource &trace, int layer)
        : m_context(context)
        , m_trace(trace)
        , m_layer(layer)
        , m_experts(context.info.experts)
    {
    }

    Result<LayerMetrics> run()
    {
        for (const ObjectTables &object : kObjects)
            SPECTRA_CHECK(gramOf(object));
        SPECTRA_CHECK(alignment());
        return std::move(m_result);
    }

private:
    Result<std::vector<float>> read(Table table, std::int64_t rows, std::int64_t &width) const
    {
        SPECTRA_TRY(const auto value, m_trace.table(table, m_layer));
        const auto size = static_cast<std::int64_t>(value->values.size());
        const std::string place = m_context.info.file + ": layer " +
                                  std::to_string(m_context.info.decoderIndex[static_cast<std::size_t>(m_layer)]);
        if (rows < 1 || size == 0 || size % rows != 0)
            return inputError("a table of the trace has the wrong size", place);
        width = size / rows;
        return value->values;
    }

    Result<MeanVectors> means(const ObjectTables &object) const
    {
        MeanVectors m;
        const TokenIndex &index = m_context.index;
        const bool partial = std::any_of(index.sequencePartial.begin(), index.sequencePartial.end(),
                                         [](std::uint8_t p) { return p != 0; });
        const bool bySequence = object.sequenceMeans && m_context.info.has(*object.sequenceMeans);
        const bool ofTokens = object.object != GramObject::routerWeights;
        if (index.selected && ofTokens && !bySequence) {
            m.missing = "means of these vectors are kept for the whole trace only, not for a selection";
            return m;
        }
        if (index.selected && ofTokens && partial) {
            m.missing = "means of these vectors are kept per sequence: a selection of single tokens has none";
            return m;
        }
        if (m_context.info.has(object.means)) {
            SPECTRA_TRY(m.whole, read(object.means, m_experts, m.width));
        }
        if (!bySequence)
            return m;
        std::int64_t width = 0;
        const auto sequences = static_cast<std::int64_t>(index.domain.size());
        SPECTRA_TRY(const std::vector<float> rows, read(*object.sequenceMeans, sequences * m_experts, width));
        const auto size = static_cast<std::size_t>(width * m_experts);
        using Sums = std::vector<double>;
        Sums all(size, 0.0);
        double tokens = 0;
        const auto domains = static_cast<std::size_t>(m_context.slices.domains),
                   groups = static_cast<std::size_t>(m_context.slices.groups);
        std::vector<Sums> domain(domains, all), group(groups, all);
        std::vector<double> domainTokens(domains, 0.0), groupTokens(groups, 0.0);
        for (std::size_t s = 0; s < index.domain.size(); ++s) {
            const auto n = static_cast<double>(index.sequenceTokens[s]);
            const float *row = rows.data() + s * size;
            if (n <= 0 || !std::all_of(row, row + size, [](float x) { return std::isfinite(x); }))
                continue;
            const auto add = [&](Sums &to, double &count) {
                for (std::size_t i = 0; i < size; ++i)
                    to[i] += n * static_cast<double>(row[i]);
                count += n;
            };
            add(all, tokens);
            if (index.domain[s] >= 0 && domains > 0)
                add(domain[static_cast<std::size_t>(index.domain[s])],
                    domainTokens[static_cast<std::size_t>(index.domain[s])]);
            if (groups > 0) {
                const auto g = static_cast<std::size_t>(
                    m_context.units.group[static_cast<std::size_t>(m_context.units.ofSequence[s])]);
                add(group[g], groupTokens[g]);
            }
        }
        const auto mean = [&](const Sums &sums, double count) {
            std::vector<float> v;
            if (count > 0)
                for (const double x : sums)
                    v.push_back(static_cast<float>(x / count));
            return v;
        };
        if (index.selected || m.whole.empty()) {
            m.whole = mean(all, tokens);
            m.width = width;
        }
        for (std::size_t d = 0; d < domains; ++d) {
            m.domain.push_back(mean(domain[d], domainTokens[d]));
            m.domainTokens.push_back(static_cast<std::int64_t>(domainTokens[d]));
        }
        for (std::size_t g = 0; g < groups; ++g) {
            for (std::size_t i = 0; i < size; ++i)
                group[g][i] = all[i] - group[g][i];
            m.withoutGroup.push_back(mean(group[g], tokens - groupTokens[g]));
        }
        if (m_context.plan.sequences)
            for (std::size_t s = 0; s < index.domain.size(); ++s)
                m.sequence.push_back(
                    index.sequenceTokens[s] > 0
                        ? std::vector<float>(rows.begin() + static_cast<std::ptrdiff_t>(s * size),
                                             rows.begin() + static_cast<std::ptrdiff_t>((s + 1) * size))
                        : std::vector<float>());
        return m;
    }

    [[nodiscard]] static double orNone(const std::optional<double> &x) { return x ? *x : kNone; }

    [[nodiscard]] Wanted wantedOf(GramObject object) const
    {
        const std::string suffix = "." + std::string(gramObjectKey(object));
        Wanted all;
        all.emplace_back("gram_orthogonality" + suffix, [](const GramFigures &f) { return f.orthogonality; });
        all.emplace_back("gram_offdiag_mean_abs" + suffix,
                         [](const GramFigures &f) { return orNone(f.offDiagonalMeanAbs); });
        all.emplace_back("gram_condition" + suffix, [](const GramFigures &f) { return orNone(f.condition); });
        all.emplace_back("gram_logdet" + suffix, [](const GramFigures &f) { return orNone(f.logDet); });
        all.emplace_back("gram_spectrum" + suffix,
                         [](const GramFigures &f) { return f.spectrum.empty() ? kNone : f.spectrum.front(); });
        const auto similarity = [&](const std::string &tail) {
            all.emplace_back("expert_similarity_mean" + tail,
                             [](const GramFigures &f) { return orNone(f.similarityMean); });
            all.emplace_back("expert_similarity_std" + tail,
                             [](const GramFigures &f) { return orNone(f.similarityStd); });
            all.emplace_back("expert_diversity" + tail, [](const GramFigures &f) { return orNone(f.diversity); });
        };
        similarity(suffix);
        if (object == GramObject::expertOutput) {
            similarity("");
            all.emplace_back("expert_output_similarity", [](const GramFigures &f) { return orNone(f.similarityMean); });
        }
        if (object == GramObject::expression)
            all.emplace_back("expression_orthogonality", [](const GramFigures &f) { return f.orthogonality; });
        std::erase_if(all, [&](const auto &entry) { return !m_context.wants(entry.first); });
        return all;
    }

    Result<void> gramOf(const ObjectTables &object)
    {
        const Wanted wanted = wantedOf(object.object);
        if (wanted.empty())
            return {};
        if (m_context.stop.stop_requested())
            return cancelledError();
        const bool eigenvalues = std::any_of(wanted.begin(), wanted.end(), [](const auto &entry) {
            return entry.first.starts_with("gram_condition") || entry.first.starts_with("gram_logdet") ||
                   entry.first.starts_with("gram_spectrum");
        });
        SPECTRA_TRY(const MeanVectors vectors, means(object));
        std::vector<double> gram;
        if (!vectors.empty()) {
            gram = gramMatrix({vectors.whole.data(), m_experts, vectors.width});
        } else if (vectors.missing.empty() && m_context.info.has(object.gram) && object.gram != object.means) {
            std::int64_t width = 0;
            SPECTRA_TRY(const std::vector<float> stored, read(object.gram, m_experts, width));
            if (width == m_experts)
                gram.assign(stored.begin(), stored.end());
        }
        const std::optional<GramFigures> figures = gramFigures(gram, m_experts, eigenvalues);
        const auto of = [&](const std::vector<float> &v, bool withEigenvalues) {
            return v.empty()
                       ? std::nullopt
                       : gramFigures(gramMatrix({v.data(), m_experts, vectors.width}), m_experts, withEigenvalues);
        };
        std::vector<std::optional<GramFigures>> domain, rest, sequence;
        for (const auto &v : vectors.domain)
            domain.push_back(of(v, eigenvalues));
        for (const auto &v : vectors.withoutGroup) {
            if (m_context.stop.stop_requested())
                return cancelledError();
            rest.push_back(of(v, eigenvalues));
        }
        for (const auto &v : vectors.sequence)
            sequence.push_back(of(v, eigenvalues));
        const double chance = vectors.width > 0 ? gramOrthogonalityChance(m_experts, vectors.width) : kNone;
        for (const auto &[key, figure] : wanted) {
            LayerMetric &m = m_result[key];
            m.jackknife = true;
            m.note = vectors.missing;
            if (!figures)
                continue;
            m.value = figure(*figures);
            m.count = m_experts;
            const bool orthogonality = key.starts_with("gram_orthogonality") || key == "expression_orthogonality";
            if (orthogonality)
                m.chance = chance;
            else if (key.starts_with("gram_offdiag_mean_abs") && vectors.width > 0)
                m.chance = absCosineChance(vectors.width);
            else if (key.starts_with("expert_similarity_mean") || key == "expert_output_similarity")
                m.chance = 0;
            else if (key.starts_with("expert_diversity"))
                m.chance = 1;
            if (std::isnan(m.value) && (key.starts_with("gram_condition") || key.starts_with("gram_logdet")))
                m.note = "the Gram matrix is singular";
            for (std::size_t d = 0; d < domain.size(); ++d) {
                m.domain.push_back(domain[d] ? figure(*domain[d]) : kNone);
                m.domainChance.push_back(m.chance);
                m.domainCount.push_back(vectors.domainTokens[d]);
            }
            for (const auto &f : rest)
                m.replicates.push_back(f ? figure(*f) : kNone);
            for (const auto &f : sequence)
                m.sequence.push_back(f ? figure(*f) : kNone);
            if (!m_context.options.matrices)
                continue;
            MetricMatrix matrix;
            matrix.layer = m_layer;
            matrix.rows = m_experts;
            if (key.starts_with("gram_orthogonality") || key == "expert_output_similarity") {
                matrix.columns = m_experts;
                matrix.values.assign(gram.begin(), gram.end());
                m.matrices.push_back(std::move(matrix));
            } else if (key.starts_with("gram_spectrum")) {
                matrix.columns = 1;
                matrix.columnLabels = {"eigenvalue"};
                for (std::size_t i = 0; i < figures->spectrum.size(); ++i)
                    matrix.rowLabels.push_back(std::to_string(i + 1));
                matrix.values.assign(figures->spectrum.begin(), figures->spectrum.end());
                m.matrices.push_back(std::move(matrix));
            }
        }
        return {};
    }

    [[nodiscard]] double meanCosine(const std::vector<float> &a, const std::vector<float> &b, std::int64_t width) const
    {
        if (a.empty() || a.size() != b.size())
            return kNone;
        double sum = 0, used = 0;
        for (std::int64_t e = 0; e < m_experts; ++e) {
            double ab = 0, aa = 0, bb = 0;
            for (std::int64_t i = e * width; i < (e + 1) * width; ++i) {
                const double x = static_cast<double>(a[static_cast<std::size_t>(i)]),
                             y = static_cast<double>(b[static_cast<std::size_t>(i)]);
                ab += x * y;
                aa += x * x;
                bb += y * y;
            }
            if (aa > 0 && bb > 0 && std::isfinite(ab)) {
                sum += ab / std::sqrt(aa * bb);
                used += 1;
            }
        }
        return used > 0 ? sum / used : kNone;
    }

    Result<void> alignment()
    {
        const bool direct = m_context.wants("alignment"), complement = m_context.wants("complementarity");
        if (!direct && !complement)
            return {};
        SPECTRA_TRY(const MeanVectors routing, means(kObjects[0]));
        SPECTRA_TRY(const MeanVectors expression, means(kObjects[1]));
        LayerMetric m;
        m.jackknife = true;
        m.note = routing.missing;
        m.count = m_experts;
        m.chance = 0;
        m.value = meanCosine(expression.whole, routing.whole, routing.width);
        const auto each = [&](const std::vector<std::vector<float>> &a, const std::vector<std::vector<float>> &b,
                              std::vector<double> &to) {
            for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
                to.push_back(meanCosine(a[i], b[i], routing.width));
        };
        each(expression.domain, routing.domain, m.domain);
        each(expression.withoutGroup, routing.withoutGroup, m.replicates);
        each(expression.sequence, routing.sequence, m.sequence);
        m.domainCount.assign(routing.domainTokens.begin(),
                             routing.domainTokens.begin() + static_cast<std::ptrdiff_t>(m.domain.size()));
        m.domainChance.assign(m.domain.size(), 0.0);
        if (complement) {
            LayerMetric c = m;
            const auto flip = [](double &x) { x = 1 - x; };
            flip(c.value);
            flip(c.chance);
            for (auto *v : {&c.domain, &c.replicates, &c.sequence, &c.domainChance})
                std::for_each(v->begin(), v->end(), flip);
            m_result["complementarity"] = std::move(c);
        }
        if (direct)
            m_result["alignment"] = std::move(m);
        return {};
    }

    const EvaluationContext &m_context;
    const TraceSource &m_trace;
    const int m_layer;
    const std::int64_t m_experts;
    LayerMetrics m_result;
};

} // namespace

Result<LayerMetrics> evaluateTables(const EvaluationContext &context, const TraceSource &trace, int layer)
{
    return TableEvaluator(context, trace, layer).run();
}

} // namespace spectra::detail
