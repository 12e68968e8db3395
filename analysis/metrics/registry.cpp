// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/metrics/gram.h"
#include "analysis/metrics/metric.h"

#include <algorithm>
#include <string>
#include <unordered_map>
#include <utility>

namespace spectra {
namespace {

using enum MetricBetter;
using enum MetricCost;
constexpr MetricGroup A = MetricGroup::loadBalance, B = MetricGroup::specialisation, C = MetricGroup::decision;

const char *const kOlmoe = "OLMoE (Muennighoff et al. 2024)";
const char *const kSklearn = "scikit-learn";

// A table reads best with its rows laid out by hand.
// clang-format off
void addLoadBalance(std::vector<MetricInfo> &t)
{
    const std::vector<Column> e{Column::experts}, w{Column::experts, Column::weights};
    t.push_back({"expert_entropy_bits", "Expert entropy",
        "−Σ p log2 p with p = load / Σ load; at most log2 E",
        "bits", higher, "Shannon 1948", A, streaming, false, false, e, {}});
    t.push_back({"expert_entropy_nats", "Expert entropy (nats)",
        "−Σ p ln p with p = load / Σ load",
        "nats", higher, "Shannon 1948", A, streaming, false, false, e, {}});
    t.push_back({"expert_entropy_normalized", "Expert entropy / log E",
        "entropy of load divided by log E; 1 is even",
        "share", higher, "Shannon 1948", A, streaming, false, false, e, {}});
    t.push_back({"expert_entropy_bits_weighted", "Expert entropy, by weight",
        "expert_entropy_bits with load = Σ routing weight",
        "bits", higher, "Shannon 1948", A, streaming, false, false, w, {}});
    t.push_back({"load_cv", "Coefficient of variation of load",
        "population standard deviation (ddof 0) over mean of load",
        "", lower, "Shazeer et al. 2017", A, streaming, false, false, e, {}});
    t.push_back({"load_cv_weighted", "Coefficient of variation, by weight",
        "load_cv with load = Σ routing weight",
        "", lower, "Shazeer et al. 2017", A, streaming, false, false, w, {}});
    t.push_back({"max_vio", "Maximal violation",
        "max(load) / mean(load) − 1",
        "", lower, "Wang et al. 2024, loss-free balancing", A, streaming, false, false, e, {}});
    t.push_back({"max_vio_weighted", "Maximal violation, by weight",
        "max_vio with load = Σ routing weight",
        "", lower, "Wang et al. 2024, loss-free balancing", A, streaming, false, false, w, {}});
    t.push_back({"max_abs_deviation", "Largest deviation",
        "max |load − mean load|",
        "assignments", lower, "own", A, streaming, false, false, e, {}});
    t.push_back({"load_std", "Standard deviation of load",
        "population standard deviation of load over experts",
        "assignments", lower, "own", A, streaming, false, false, e, {}});
    t.push_back({"gini", "Gini coefficient of load",
        "Σ (2i − E − 1) load_(i) / (E Σ load), loads ascending; 0 is even",
        "", lower, "Gini 1912; LPR", A, streaming, false, false, e, {}});
    t.push_back({"gini_weighted", "Gini coefficient, by weight",
        "gini with load = Σ routing weight",
        "", lower, "Gini 1912; LPR", A, streaming, false, false, w, {}});
    t.push_back({"min_max_ratio", "Least over largest load",
        "min(load) / max(load)",
        "", higher, "LPR", A, streaming, false, false, e, {}});
    t.push_back({"collapse_rate", "Unused experts",
        "share of experts with load 0",
        "share", lower, "own", A, streaming, false, false, e, {}});
    t.push_back({"collapse_rate_1pct", "Nearly unused experts",
        "share of experts below 1 % of the fair share of load",
        "share", lower, "own", A, streaming, false, false, e, {}});
    t.push_back({"load_imbalance", "Load imbalance",
        "max(load) / mean(load)",
        "", lower, "GShard (Lepikhin et al. 2020)", A, streaming, false, false, e, {}});
    t.push_back({"capacity_usage", "Capacity usage",
        "max(load) / (capacity factor · mean(load))",
        "", none, "Switch Transformer (Fedus et al. 2021)", A, streaming, false, false, e, {}});
    t.push_back({"drop_rate", "Dropped slots",
        "slots lost to capacity over all slots",
        "share", lower, "Switch Transformer (Fedus et al. 2021)", A, streaming, false, false,
        {Column::experts, Column::dropped}, {}});
    t.push_back({"switch_aux", "Switch auxiliary value",
        "E Σ f_i P_i with f_i = load_i / (N k) and P_i the mean probability; 1 at balance",
        "", lower, "Switch Transformer (Fedus et al. 2021)", A, wide, false, false,
        {Column::experts, Column::probabilities}, {}});
}

// clang-format on

struct GramSource {
    GramObject object;
    const char *words;
    Table gram, means;
    Column vectors;
};
constexpr GramSource kGramSources[] = {
    {GramObject::routing, "mean routing vectors", Table::gramRouting, Table::meanRouting, Column::routingVectors},
    {GramObject::expression, "mean expression vectors", Table::gramExpression, Table::meanExpression,
     Column::expressionVectors},
    {GramObject::routerWeights, "rows of the linear router", Table::gramRouterWeights, Table::routerWeights,
     Column::experts},
    {GramObject::expertInput, "mean hidden states into the experts", Table::expertInputMean, Table::expertInputMean,
     Column::hidden},
    {GramObject::expertOutput, "mean outputs of the experts", Table::expertOutputMean, Table::expertOutputMean,
     Column::expertOutputs},
};

void addGram(std::vector<MetricInfo> &t)
{
    struct Key {
        const char *key, *name, *definition, *unit;
        MetricBetter better;
        bool matrix;
    };
    const Key keys[] = {
        {"gram_orthogonality", "Gram orthogonality", "1 − ‖G−I‖_F / (E√2), G of the unit-normalised ", "", higher,
         true},
        {"gram_offdiag_mean_abs", "Gram, mean |off-diagonal|", "mean |G_ij| over i ≠ j, G of the unit-normalised ", "",
         lower, false},
        {"gram_condition", "Gram condition number", "λmax / λmin of G of the unit-normalised ", "", lower, false},
        {"gram_logdet", "Gram log determinant", "log det G of the unit-normalised ", "nats", higher, false},
        {"gram_spectrum", "Gram spectrum",
         "largest eigenvalue (all of them in the matrix) of G of the unit-normalised ", "", lower, true},
        {"expert_similarity_mean", "Expert similarity", "mean off-diagonal cosine of the ", "", lower, false},
        {"expert_similarity_std", "Expert similarity, spread", "standard deviation of the off-diagonal cosine of the ",
         "", none, false},
        {"expert_diversity", "Expert diversity", "1 − mean off-diagonal cosine of the ", "", higher, false},
    };
    for (const Key &k : keys) {
        // Across routers the experts' outputs compare: they stand for "the experts" where no object is named.
        const bool bare = std::string_view(k.key).starts_with("expert_");
        if (bare)
            t.push_back({k.key,
                         k.name,
                         std::string(k.definition) + "mean outputs of the experts",
                         k.unit,
                         k.better,
                         "own",
                         B,
                         MetricCost::tables,
                         false,
                         false,
                         {},
                         {Table::expertOutputMean}});
        for (const GramSource &s : kGramSources)
            t.push_back({std::string(k.key) + "." + std::string(gramObjectKey(s.object)),
                         std::string(k.name) + ", " + s.words,
                         std::string(k.definition) + s.words,
                         k.unit,
                         k.better,
                         "own",
                         B,
                         MetricCost::tables,
                         false,
                         k.matrix,
                         {},
                         {s.means}});
    }
    t.push_back({"expert_output_similarity",
                 "Similarity of expert outputs",
                 "cosine matrix of the mean outputs of the experts; the value is its off-diagonal mean",
                 "",
                 lower,
                 "own",
                 B,
                 MetricCost::tables,
                 false,
                 true,
                 {},
                 {Table::expertOutputMean}});
    for (const GramSource &s : kGramSources)
        if (s.object != GramObject::routerWeights)
            t.push_back({"gram_diagonal_quality." + std::string(gramObjectKey(s.object)),
                         std::string("Concentration, ") + s.words,
                         "mean over experts of ‖mean_t v/‖v‖‖² over the vectors behind the " + std::string(s.words) +
                             "; 1: all tokens alike",
                         "",
                         none,
                         "own",
                         B,
                         heavy,
                         false,
                         false,
                         {Column::experts, s.vectors},
                         {}});
}

// clang-format off
void addSpecialisation(std::vector<MetricInfo> &t)
{
    const std::vector<Column> e{Column::experts};
    t.push_back({"expert_overlap_positions", "Expert overlap, positions",
        "mean over pairs of experts of the Jaccard index of the sets of tokens each got; 0 by construction with one "
        "expert per token",
        "share", lower, "Jaccard 1901", B, streaming, false, true, e, {}});
    t.push_back({"expert_overlap_types", "Expert overlap, token types",
        "mean over pairs of experts of the Jaccard index of the sets of vocabulary ids each got; chance: the tokens dealt anew "
        "to the same sets of experts",
        "share", lower, "Jaccard 1901", B, heavy, false, true, e, {}});
    addGram(t);
    t.push_back({"co_activation", "Co-activation",
        "P(j chosen | i chosen), E×E; the value is the mean over experts of the largest",
        "share", none, kOlmoe, B, streaming, false, true, e, {}});
    t.push_back({"expert_affinity", "Expert affinity (lift)",
        "P(expert | domain) / P(expert), E×domains; the value is the mean over experts of the largest",
        "", higher, "own", B, streaming, false, true, e, {}, true});
    t.push_back({"domain_specialization", "Domain specialization",
        "share of a domain's tokens that chose the expert, E×domains, k/E by chance; the value is the mean over "
        "domains of the largest",
        "share", higher, kOlmoe, B, streaming, false, true, e, {}, true});
    t.push_back({"vocabulary_specialization", "Vocabulary specialization",
        "share of a token type's assignments that go to an expert, mean over the expert's types, mean over experts",
        "share", higher, kOlmoe, B, heavy, false, true, e, {}});
    t.push_back({"vocabulary_specialization_predicted", "Vocabulary specialization, predicted token",
        "vocabulary_specialization with the most likely next token in place of the token",
        "share", higher, kOlmoe, B, heavy, false, true, e, {}});
    t.push_back({"domain_purity", "Domain purity",
        "largest share of one domain in an expert's assignments, mean over used experts",
        "share", higher, "own", B, streaming, false, true, e, {}, true});
    t.push_back({"expert_task_correlation", "Expert–domain correlation",
        "point-biserial correlation of an expert's weight (0 where not chosen) with a domain's indicator, E×domains; "
        "the value is the mean over experts of the largest magnitude",
        "", higher, "scipy.stats.pointbiserialr", B, streaming, false, true, {Column::experts, Column::weights}, {}, true});
    t.push_back({"nmi_expert_domain", "NMI of expert and domain",
        "normalised mutual information (arithmetic) of top-1 expert and domain",
        "", higher, kSklearn, B, streaming, false, true, e, {}, true});
    t.push_back({"ami", "AMI of expert and domain",
        "mutual information of top-1 expert and domain, adjusted for chance",
        "", higher, kSklearn, B, heavy, false, false, e, {}, true});
    t.push_back({"cramers_v", "Cramér's V",
        "bias-corrected Cramér's V of top-1 expert and domain",
        "", higher, "Bergsma 2013", B, streaming, false, false, e, {}, true});
    t.push_back({"expert_diversity_nmi", "Expert diversity (NMI)",
        "1 − mean over pairs of experts of the NMI of their assignment indicators",
        "", higher, kSklearn, B, streaming, false, false, e, {}});
    t.push_back({"silhouette", "Silhouette of hidden states",
        "mean silhouette (Euclidean) of sampled router inputs grouped by their top-1 expert",
        "", higher, kSklearn, B, heavy, false, false, {Column::experts, Column::hidden}, {}});
}

void addDecisions(std::vector<MetricInfo> &t)
{
    const std::vector<Column> e{Column::experts}, w{Column::experts, Column::weights},
        p{Column::experts, Column::probabilities};
    t.push_back({"routing_entropy", "Routing entropy",
        "mean entropy of the full routing distribution",
        "nats", none, "Shannon 1948", C, wide, false, false, {Column::experts}, {}});
    t.push_back({"routing_entropy_normalized", "Routing entropy / log E",
        "routing_entropy divided by log E",
        "share", none, "Shannon 1948", C, wide, false, false, {Column::experts}, {}});
    t.push_back({"routing_entropy_chosen", "Entropy over the chosen",
        "mean entropy of the chosen experts' weights, renormalised",
        "nats", none, "Shannon 1948", C, streaming, false, false, w, {}});
    t.push_back({"routing_confidence", "Routing confidence",
        "mean Σ w² over the chosen experts",
        "", none, "own", C, streaming, false, false, w, {}});
    t.push_back({"routing_margin", "Top-1 margin",
        "mean difference of the two largest probabilities",
        "", none, "own", C, wide, false, false, p, {}});
    t.push_back({"sequential_consistency", "Sequential consistency",
        "share of neighbouring tokens with the same top-1 expert; chance Σ q² over top-1 shares",
        "share", none, "own", C, streaming, false, false, e, {}});
    t.push_back({"sequential_consistency_excess", "Sequential consistency above chance",
        "sequential_consistency less its chance level",
        "share", none, "own", C, streaming, false, false, e, {}});
    t.push_back({"topk_overlap", "Top-k overlap of neighbours",
        "mean Jaccard index of the expert sets of neighbouring tokens; chance from random pairs of tokens",
        "share", none, "own", C, streaming, false, false, e, {}});
    t.push_back({"layer_consistency", "Layer consistency",
        "share of tokens with the same top-1 index as in the layer before",
        "share", none, "own", C, streaming, true, true, e, {}});
    t.push_back({"layer_consistency_matched", "Layer consistency, matched",
        "the same after the best one-to-one renaming of the layer's experts (Jonker–Volgenant on co-assignment)",
        "share", none, "scipy.optimize.linear_sum_assignment", C, streaming, false, false, e, {}});
    t.push_back({"score_auc", "AUC of scores",
        "area under the ROC curve of an expert's probability for the domain that most of its tokens come from, mean "
        "over experts",
        "", higher, kSklearn, C, heavy, false, true, p, {}, true});
    t.push_back({"segment_routing_best", "Segment routing, best",
        "share of the assignments in 16 consecutive tokens that k fixed experts can serve (matrix: other lengths)",
        "share", none, "Liang et al. 2025, local routing consistency", C, streaming, false, true, e, {}});
    t.push_back({"segment_cache_hit", "Segment cache hits",
        "hit rate of a least-recently-used cache of 2k experts along a sequence (matrix: other sizes)",
        "share", none, "Liang et al. 2025, local routing consistency", C, streaming, false, true, e, {}});
    t.push_back({"path_entropy", "Path entropy",
        "entropy of the tokens' paths of top-1 experts through all layers",
        "nats", none, "own", C, streaming, false, false, e, {}});
    t.push_back({"path_count", "Distinct paths",
        "number of distinct paths of top-1 experts through all layers",
        "paths", none, "own", C, streaming, false, false, e, {}});
    t.push_back({"alignment", "Alignment",
        "mean over experts of cos(mean expression vector, mean routing vector)",
        "", none, "SPECTRA", C, MetricCost::tables, false, false, {}, {Table::meanRouting, Table::meanExpression}});
    t.push_back({"expression_orthogonality", "Expression orthogonality",
        "Gram orthogonality of the mean expression vectors",
        "", higher, "SPECTRA", C, MetricCost::tables, false, false, {}, {Table::meanExpression}});
    t.push_back({"complementarity", "Complementarity",
        "1 − alignment",
        "", none, "SPECTRA", C, MetricCost::tables, false, false, {}, {Table::meanRouting, Table::meanExpression}});
}

// clang-format on

struct Registry {
    std::vector<MetricInfo> rows;
    std::unordered_map<std::string, std::size_t> byKey;
    Registry()
    {
        addLoadBalance(rows);
        addSpecialisation(rows);
        addDecisions(rows);
        for (std::size_t i = 0; i < rows.size(); ++i)
            byKey.emplace(rows[i].key, i);
    }
};

const Registry &registry()
{
    static const Registry instance;
    return instance;
}

/// Gram figures follow from the Gram matrix as well as from the means.
bool gramInstead(Table means, const TraceInfo &trace)
{
    for (const GramSource &s : kGramSources)
        if (s.means == means && s.gram != s.means && trace.has(s.gram))
            return true;
    return false;
}

} // namespace

std::span<const MetricInfo> metricTable()
{
    return registry().rows;
}

const MetricInfo *findMetric(std::string_view key)
{
    const auto found = registry().byKey.find(std::string(key));
    return found == registry().byKey.end() ? nullptr : &registry().rows[found->second];
}

std::string_view toString(MetricBetter better)
{
    return better == none ? "none" : better == higher ? "higher" : "lower";
}

std::string_view toString(MetricGroup group)
{
    return group == A ? "load balance" : group == B ? "specialisation" : "decisions";
}

std::string whyMissing(const MetricInfo &metric, const TraceInfo &trace)
{
    if (trace.layers() == 0 || trace.experts < 1)
        return "the trace has no layer with experts";
    if (metric.needsDomains && trace.domains.size() < 2)
        return "the trace has fewer than two domains";
    for (const Column column : metric.columns)
        if (!trace.has(column))
            return trace.missingColumns.at(column);
    for (const Table table : metric.tables) {
        const bool gramKey = metric.key != "alignment" && metric.key != "complementarity";
        if (!trace.has(table) && !(gramKey && gramInstead(table, trace)))
            return trace.missingTables.at(table);
    }
    if (metric.key.starts_with("routing_entropy") && metric.key != "routing_entropy_chosen" &&
        !trace.has(Column::entropy) && !trace.has(Column::probabilities))
        return trace.missingColumns.at(Column::entropy);
    if (metric.key == "vocabulary_specialization_predicted" && !trace.hasNextTop1)
        return "the trace does not hold the most likely next tokens";
    if (metric.key == "capacity_usage" && !(trace.model.capacityFactor.value_or(0) > 0))
        return "the router has no capacity factor";
    if (metric.key.starts_with("layer_consistency") && trace.layers() < 2)
        return "the trace has one layer only";
    return {};
}

} // namespace spectra
