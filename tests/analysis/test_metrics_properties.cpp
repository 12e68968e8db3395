// SPDX-License-Identifier: GPL-3.0-or-later
// What must hold of the metrics whatever the routing: streaming, resampling, symmetry, controls, odd and damaged input.
#include "analysis/metrics/comparetraces.h"
#include "analysis/metrics/evaluate.h"
#include "analysis/metrics/gram.h"
#include "analysis/metrics/loads.h"
#include "analysis/statistics/resampling.h"
#include "engine/core/parallel.h"
#include "engine/core/random.h"
#include "tests/analysis/metricfixture.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

using namespace spectra;

namespace {

struct Shape {
    int layers = 2, experts = 5, slots = 2, sequences = 16, length = 40, dimension = 7;
    bool structured = true; ///< routing follows domain, token and neighbour; else nothing
};

/// Routing with every column and table, drawn from a seed.
ArrayTrace drawTrace(std::uint64_t seed, const Shape &shape = {})
{
    Random random(seed);
    ArrayTrace t;
    t.header.experts = shape.experts;
    t.header.routerDim = shape.dimension;
    t.header.hidden = shape.dimension;
    t.header.model.capacityFactor = 1.25;
    const int n = shape.sequences * shape.length;
    for (int s = 0; s < shape.sequences; ++s) {
        SequenceInfo info;
        info.domain = std::string(1, static_cast<char>('a' + s % 3));
        info.id = "s" + std::to_string(s);
        t.sequenceInfo.push_back(info);
    }
    for (int i = 0; i < n; ++i) {
        t.all.sequence.push_back(i / shape.length);
        t.all.id.push_back(static_cast<int>(random.below(30)));
        t.all.nextTop1.push_back(static_cast<int>(random.below(20)));
        t.all.mask.push_back(i % shape.length == 0 ? 0 : 1);
        t.all.phase.push_back(i % shape.length > 25 ? 1 : 0);
    }
    const auto E = static_cast<std::size_t>(shape.experts), D = static_cast<std::size_t>(shape.dimension);
    const auto normals = [&](std::size_t count) {
        std::vector<float> v(count);
        for (float &x : v)
            x = static_cast<float>(random.normal());
        return v;
    };
    for (int l = 0; l < shape.layers; ++l) {
        std::vector<float> p, w, entropy;
        std::vector<std::uint16_t> e;
        std::vector<std::uint8_t> dropped;
        for (int i = 0; i < n; ++i) {
            std::vector<double> z(E);
            for (std::size_t x = 0; x < E; ++x) {
                z[x] = random.normal();
                if (shape.structured)
                    z[x] +=
                        1.5 *
                            ((static_cast<std::size_t>(t.all.sequence[static_cast<std::size_t>(i)]) % 3 + x) % 3 == 0) +
                        ((static_cast<std::size_t>(i) / 5 + x) % E == 0) + 0.3 * static_cast<double>(x);
            }
            double sum = 0;
            for (double &v : z)
                sum += v = std::exp(v);
            std::vector<std::uint16_t> order(E);
            std::iota(order.begin(), order.end(), std::uint16_t(0));
            std::sort(order.begin(), order.end(), [&](std::uint16_t a, std::uint16_t b) { return z[a] > z[b]; });
            double top = 0, h = 0;
            for (int k = 0; k < shape.slots; ++k)
                top += z[order[static_cast<std::size_t>(k)]];
            for (int k = 0; k < shape.slots; ++k) {
                e.push_back(order[static_cast<std::size_t>(k)]);
                w.push_back(static_cast<float>(z[order[static_cast<std::size_t>(k)]] / top));
            }
            for (const double v : z) {
                p.push_back(static_cast<float>(v / sum));
                h -= v / sum * std::log(v / sum);
            }
            entropy.push_back(static_cast<float>(h));
            dropped.push_back(i % 50 == 7);
        }
        t.setExperts(l, e, shape.slots);
        t.setColumn(Column::weights, l, w, {shape.slots});
        t.setColumn(Column::probabilities, l, p, {shape.experts});
        t.setColumn(Column::entropy, l, entropy, {});
        t.setColumn(Column::hidden, l, normals(static_cast<std::size_t>(n) * D), {shape.dimension});
        t.setColumn(Column::expertOutputs, l,
                    normals(static_cast<std::size_t>(n) * static_cast<std::size_t>(shape.slots) * D),
                    {shape.slots, shape.dimension});
        t.setColumn(Column::routingVectors, l, normals(static_cast<std::size_t>(n) * E * D),
                    {shape.experts, shape.dimension});
        t.setColumn(Column::expressionVectors, l, normals(static_cast<std::size_t>(n) * E * D),
                    {shape.experts, shape.dimension});
        Block d;
        d.u8 = dropped;
        d.rows = n;
        t.columns[{Column::dropped, l}] = d;
        for (const auto &[sequenceTable, meanTable] :
             {std::pair{Table::sequenceMeanRouting, Table::meanRouting},
              std::pair{Table::sequenceMeanExpression, Table::meanExpression}}) {
            TableValue sequences{{shape.sequences, shape.experts, shape.dimension},
                                 normals(static_cast<std::size_t>(shape.sequences) * E * D)};
            TableValue mean{{shape.experts, shape.dimension}, std::vector<float>(E * D, 0.0f)};
            for (std::size_t i = 0; i < sequences.values.size(); ++i) // every sequence counts the same number of tokens
                mean.values[i % (E * D)] += sequences.values[i] / static_cast<float>(shape.sequences);
            t.tables[{sequenceTable, l}] = sequences;
            t.tables[{meanTable, l}] = mean;
        }
        for (const Table table : {Table::routerWeights, Table::expertInputMean, Table::expertOutputMean})
            t.tables[{table, l}] = {{shape.experts, shape.dimension}, normals(E * D)};
    }
    t.finish();
    return t;
}

void expectEqual(const MetricPoint &a, const MetricPoint &b, const std::string &place)
{
    EXPECT_EQ(a.value, b.value) << place;
    EXPECT_EQ(a.low, b.low) << place;
    EXPECT_EQ(a.high, b.high) << place;
    EXPECT_EQ(a.chance, b.chance) << place;
    EXPECT_EQ(a.count, b.count) << place;
}

void expectEqual(const MetricReport &a, const MetricReport &b)
{
    ASSERT_EQ(a.metrics.size(), b.metrics.size());
    for (std::size_t i = 0; i < a.metrics.size(); ++i) {
        const MetricResult &x = a.metrics[i], &y = b.metrics[i];
        expectEqual(x.overall, y.overall, x.key);
        for (const auto field : {&MetricResult::byLayer, &MetricResult::byDomain, &MetricResult::bySequence,
                                 &MetricResult::byPhase, &MetricResult::byLayerDomain}) {
            ASSERT_EQ((x.*field).size(), (y.*field).size()) << x.key;
            for (std::size_t j = 0; j < (x.*field).size(); ++j)
                expectEqual((x.*field)[j], (y.*field)[j], x.key + " " + std::to_string(j));
        }
        ASSERT_EQ(x.matrices.size(), y.matrices.size()) << x.key;
        for (std::size_t j = 0; j < x.matrices.size(); ++j)
            for (std::size_t k = 0; k < x.matrices[j].values.size(); ++k)
                EXPECT_TRUE(x.matrices[j].values[k] == y.matrices[j].values[k] ||
                            (std::isnan(x.matrices[j].values[k]) && std::isnan(y.matrices[j].values[k])))
                    << x.key;
    }
}

MetricOptions everything()
{
    MetricOptions o;
    o.bySequence = o.byPhase = o.intervals = true;
    o.resamples = 200;
    return o;
}

TEST(Metrics, EveryMetricHasAValueWhereAllIsThere)
{
    const ArrayTrace t = drawTrace(1);
    const auto report = evaluateMetrics(t, everything());
    ASSERT_TRUE(report.ok()) << report.error().what;
    EXPECT_EQ(report->metrics.size(), metricTable().size());
    for (const MetricResult &m : report->metrics) {
        EXPECT_TRUE(m.overall.value.has_value()) << m.key << ": " << m.absent;
        EXPECT_TRUE(m.absent.empty()) << m.key;
        const bool fixed = m.key.find("router_weights") != std::string::npos ||
                           findMetric(m.key)->tables == std::vector{Table::expertInputMean} ||
                           findMetric(m.key)->tables == std::vector{Table::expertOutputMean};
        EXPECT_EQ(m.overall.low.has_value(), !fixed) << m.key;
        if (m.overall.low) {
            EXPECT_LE(*m.overall.low, *m.overall.high) << m.key;
            EXPECT_FALSE(m.interval.empty());
        }
        const MetricInfo *info = findMetric(m.key);
        EXPECT_EQ(info->hasMatrix, !m.matrices.empty()) << m.key;
        EXPECT_FALSE(info->definition.empty() || info->name.empty() || info->source.empty());
    }
    EXPECT_EQ(report->excludedTokens, 16);
    EXPECT_EQ(report->countedTokens, 16 * 39);
}

TEST(Metrics, BlocksAndThreadsChangeNothing)
{
    const ArrayTrace t = drawTrace(2);
    MetricOptions options = everything();
    options.seed = 9;
    const auto reference = evaluateMetrics(t, options);
    ASSERT_TRUE(reference.ok());
    for (const int threads : {1, 4})
        for (const std::int64_t block : {std::int64_t(7), std::int64_t(100)}) {
            setThreadCount(threads);
            options.blockTokens = block;
            const auto other = evaluateMetrics(t, options);
            ASSERT_TRUE(other.ok());
            expectEqual(*reference, *other);
        }
    setThreadCount(0);
    options.seed = 10;
    const auto other = evaluateMetrics(t, options);
    EXPECT_NE(other->find("load_cv")->overall.low, reference->find("load_cv")->overall.low);
    EXPECT_EQ(other->find("load_cv")->overall.value, reference->find("load_cv")->overall.value);
}

/// The engine's intervals against intervals made the slow way: each replicate is an evaluation of its own.
TEST(Metrics, IntervalsAreThoseOfReplicatesDoneOneByOne)
{
    const ArrayTrace t = drawTrace(3);
    MetricOptions options = everything();
    options.jackknifeGroups = 8;
    options.seed = 4;
    const auto report = evaluateMetrics(t, options);
    // Units are the sequences ordered by domain.
    std::vector<int> unitSequence, stratum;
    for (int d = 0; d < 3; ++d)
        for (int s = d; s < 16; s += 3) {
            unitSequence.push_back(s);
            stratum.push_back(d);
        }
    const std::vector<int> group = jackknifeGroups(stratum, 8, 4);
    for (const std::string key :
         {"expert_overlap_types", "expert_overlap_positions", "ami", "vocabulary_specialization", "path_count",
          "score_auc", "collapse_rate_1pct", "co_activation", "layer_consistency_matched"}) {
        std::vector<double> rest;
        for (int g = 0; g < 8; ++g) {
            MetricOptions part;
            part.keys = {key};
            auto rows = std::make_shared<RowSet>(640, true);
            for (std::size_t u = 0; u < group.size(); ++u)
                if (group[u] == g)
                    for (int i = 0; i < 40; ++i)
                        rows->erase(static_cast<std::size_t>(unitSequence[u] * 40 + i));
            part.selection = rows;
            rest.push_back(*evaluateMetrics(t, part)->find(key)->overall.value);
        }
        const MetricResult *m = report->find(key);
        const auto interval = jackknifeInterval(*m->overall.value, rest, 0.95);
        const double floor = findMetric(key)->unit == "share" ? 0 : -1e9,
                     ceiling = findMetric(key)->unit == "share" ? 1 : 1e9;
        EXPECT_NEAR(*m->overall.low, std::max(floor, interval->first), 1e-6) << key;
        EXPECT_NEAR(*m->overall.high, std::min(ceiling, interval->second), 1e-6) << key;
        EXPECT_NE(m->interval.find("jackknife"), std::string::npos);
    }
    // Bootstrap of the load: from the loads of single sequences.
    const Block &experts = t.columns.at({Column::experts, 0});
    const auto interval = bootstrapInterval(stratum, 200, 4, 0.95, [&](std::span<const float> weights) {
        std::vector<double> load(5, 0.0);
        for (std::size_t u = 0; u < weights.size(); ++u)
            for (int i = 1; i < 40; ++i)
                for (int k = 0; k < 2; ++k)
                    load[experts.u16[static_cast<std::size_t>((unitSequence[u] * 40 + i) * 2 + k)]] +=
                        static_cast<double>(weights[u]);
        return coefficientOfVariation(load);
    });
    EXPECT_NEAR(*report->find("load_cv")->byLayer[0].low, interval->first, 1e-9);
    EXPECT_NEAR(*report->find("load_cv")->byLayer[0].high, interval->second, 1e-9);
    EXPECT_NE(report->find("load_cv")->interval.find("bootstrap"), std::string::npos);
}

TEST(Metrics, RenamingExpertsChangesOnlyWhatComparesLabels)
{
    const ArrayTrace t = drawTrace(5);
    ArrayTrace renamed = t;
    const std::vector<std::uint16_t> name{3, 0, 4, 1, 2};
    Block &b = renamed.columns[{Column::experts, 1}];
    for (std::uint16_t &e : b.u16)
        e = name[e];
    Block &p = renamed.columns[{Column::probabilities, 1}];
    for (std::size_t i = 0; i < p.f32.size(); ++i)
        p.f32[i / 5 * 5 + name[i % 5]] = t.columns.at({Column::probabilities, 1}).f32[i];
    renamed.finish();
    MetricOptions options;
    const auto a = evaluateMetrics(t, options), c = evaluateMetrics(renamed, options);
    int dependent = 0;
    for (const MetricResult &m : a->metrics) {
        if (findMetric(m.key)->columns.empty() || m.key.starts_with("gram_"))
            continue;
        const double before = *m.overall.value, after = *c->find(m.key)->overall.value;
        if (findMetric(m.key)->labelDependent) {
            EXPECT_GT(std::abs(before - after), 1e-3) << m.key;
            ++dependent;
        } else {
            EXPECT_NEAR(before, after, 1e-6 * std::max(1.0, std::abs(before))) << m.key;
        }
    }
    EXPECT_EQ(dependent, 1);
    const MetricMatrix &x = a->find("co_activation")->matrices[1], &y = c->find("co_activation")->matrices[1];
    for (int i = 0; i < 5; ++i)
        for (int j = 0; j < 5; ++j)
            EXPECT_FLOAT_EQ(x(i, j), y(name[static_cast<std::size_t>(i)], name[static_cast<std::size_t>(j)]));
}

TEST(Metrics, RoutingWithoutStructureStandsAtChance)
{
    Shape shape;
    shape.structured = false;
    shape.sequences = 90;
    shape.length = 200;
    const ArrayTrace t = drawTrace(6, shape);
    MetricOptions options;
    options.intervals = true;
    const auto report = evaluateMetrics(t, options);
    for (const auto &[key, tolerance] :
         {std::pair{"sequential_consistency", 0.01}, std::pair{"topk_overlap", 0.01},
          std::pair{"expert_affinity", 0.05}, std::pair{"ami", 1e-3}, std::pair{"nmi_expert_domain", 1e-3},
          std::pair{"domain_purity", 0.02}, std::pair{"score_auc", 0.02}, std::pair{"layer_consistency", 0.01},
          std::pair{"switch_aux", 1e-3}}) {
        const MetricResult *m = report->find(key);
        EXPECT_NEAR(*m->overall.value, *m->overall.chance, tolerance) << key;
    }
    EXPECT_LE(*report->find("sequential_consistency")->overall.low,
              *report->find("sequential_consistency")->overall.chance);
    EXPECT_GE(*report->find("sequential_consistency")->overall.high,
              *report->find("sequential_consistency")->overall.chance);
    EXPECT_LT(*report->find("load_cv")->overall.value, 0.03);
    EXPECT_NEAR(*report->find("expert_entropy_bits")->overall.value, std::log2(5.0), 1e-3);
    EXPECT_NEAR(*report->find("path_count")->overall.value, 25, 0);
    // The structured form of the same shape is well above.
    shape.structured = true;
    const auto structured = evaluateMetrics(drawTrace(6, shape), options);
    for (const std::string key : {"sequential_consistency", "ami", "expert_affinity", "score_auc"})
        EXPECT_GT(*structured->find(key)->overall.low, *structured->find(key)->overall.chance) << key;
}

TEST(Metrics, HandComputed)
{
    // Two sequences of four tokens, one layer, E = 3, k = 1: experts 0 0 1 1 | 1 2 2 2.
    ArrayTrace t;
    t.header.experts = 3;
    t.all.id = {5, 5, 6, 7, 7, 8, 5, 8};
    t.all.sequence = {0, 0, 0, 0, 1, 1, 1, 1};
    t.sequenceInfo.resize(2);
    t.sequenceInfo[0].domain = "x";
    t.sequenceInfo[1].domain = "y";
    t.setExperts(0, {0, 0, 1, 1, 1, 2, 2, 2}, 1);
    t.finish();
    const auto r = evaluateMetrics(t, {});
    const auto value = [&](const char *key) { return *r->find(key)->overall.value; };
    EXPECT_DOUBLE_EQ(value("max_vio"), 3 / (8.0 / 3) - 1);
    EXPECT_DOUBLE_EQ(value("sequential_consistency"), 4.0 / 6);
    EXPECT_DOUBLE_EQ(*r->find("sequential_consistency")->overall.chance, (4 + 9 + 9) / 64.0);
    EXPECT_DOUBLE_EQ(value("expert_overlap_positions"), 0);
    EXPECT_FALSE(r->find("expert_overlap_positions")->note.empty());
    // Types: {5}, {6,7}, {8,5}: one of three in common between 0 and 2, of two sets with two members.
    EXPECT_DOUBLE_EQ(value("expert_overlap_types"), (0 + 0.5 + 0) / 3);
    EXPECT_DOUBLE_EQ(value("domain_purity"), (1 + 2.0 / 3 + 1) / 3);
    EXPECT_DOUBLE_EQ(*r->find("sequential_consistency")->byDomain[0].value, 2.0 / 3);
    EXPECT_DOUBLE_EQ(*r->find("sequential_consistency")->byDomain[0].chance, 0.5);
    EXPECT_EQ(r->find("routing_entropy")->absent, "not among the arrays given");
    EXPECT_FALSE(r->find("layer_consistency")->absent.empty());
    EXPECT_FALSE(r->find("drop_rate")->absent.empty());
}

TEST(Metrics, OddRouting)
{
    // One expert; unused experts; tokens without any; masked everything; nothing at all; NaN.
    Shape one;
    one.experts = 1;
    one.slots = 1;
    const auto single = evaluateMetrics(drawTrace(7, one), everything());
    ASSERT_TRUE(single.ok());
    EXPECT_EQ(*single->find("expert_entropy_bits")->overall.value, 0);
    EXPECT_FALSE(single->find("expert_entropy_normalized")->overall.value.has_value());
    EXPECT_FALSE(single->find("expert_overlap_types")->overall.value.has_value());
    EXPECT_FALSE(single->find("expert_overlap_types")->absent.empty());
    EXPECT_EQ(*single->find("sequential_consistency")->overall.value, 1);

    ArrayTrace none = drawTrace(8);
    for (auto &[key, block] : none.columns)
        if (key.first == Column::experts)
            std::fill(block.u16.begin(), block.u16.end(), kNoExpert);
    none.finish();
    const auto dropped = evaluateMetrics(none, everything());
    ASSERT_TRUE(dropped.ok());
    EXPECT_FALSE(dropped->find("load_cv")->overall.value.has_value());
    EXPECT_FALSE(dropped->find("load_cv")->absent.empty());
    EXPECT_EQ(*dropped->find("sequential_consistency")->overall.value, 0);
    EXPECT_FALSE(dropped->find("ami")->overall.value.has_value());

    ArrayTrace unused = drawTrace(9);
    unused.header.experts = 9;
    unused.columns.erase({Column::probabilities, 0});
    unused.columns.erase({Column::probabilities, 1});
    for (int l = 0; l < 2; ++l)
        for (const Column c : {Column::routingVectors, Column::expressionVectors})
            unused.columns.erase({c, l});
    unused.tables.clear();
    unused.finish();
    const auto four = evaluateMetrics(unused, {});
    ASSERT_TRUE(four.ok()) << four.error().what;
    EXPECT_DOUBLE_EQ(*four->find("collapse_rate")->overall.value, 4.0 / 9);
    EXPECT_EQ(*four->find("min_max_ratio")->overall.value, 0);

    ArrayTrace masked = drawTrace(10);
    std::fill(masked.all.mask.begin(), masked.all.mask.end(), std::uint8_t(0));
    masked.finish();
    const auto nothing = evaluateMetrics(masked, everything());
    ASSERT_TRUE(nothing.ok());
    for (const MetricResult &m : nothing->metrics) {
        EXPECT_FALSE(m.overall.value.has_value()) << m.key;
        EXPECT_EQ(m.absent, "no counted token") << m.key;
    }
    ArrayTrace empty;
    empty.finish();
    const auto report = evaluateMetrics(empty, {});
    ASSERT_TRUE(report.ok());
    for (const MetricResult &m : report->metrics)
        EXPECT_FALSE(m.absent.empty()) << m.key;

    ArrayTrace bad = drawTrace(11);
    for (auto &[key, block] : bad.columns)
        if (!block.f32.empty())
            for (std::size_t i = 0; i < block.f32.size(); i += 97)
                block.f32[i] = i % 2 ? std::numeric_limits<float>::quiet_NaN() : std::numeric_limits<float>::infinity();
    bad.finish();
    const auto withNan = evaluateMetrics(bad, everything());
    ASSERT_TRUE(withNan.ok());
    for (const MetricResult &m : withNan->metrics)
        for (const auto &x : {m.overall.value, m.overall.low, m.overall.high, m.overall.chance})
            EXPECT_TRUE(!x || std::isfinite(*x)) << m.key;
    EXPECT_LT(withNan->find("routing_confidence")->overall.count, 624);
}

TEST(Metrics, DamagedTracesAndWrongQuestions)
{
    ArrayTrace t = drawTrace(12);
    t.columns[{Column::experts, 1}].u16[300] = 5;
    t.finish();
    const auto out = evaluateMetrics(t, {});
    ASSERT_FALSE(out.ok());
    EXPECT_EQ(out.error().kind, ErrorKind::input);
    EXPECT_NE(out.error().what.find("token 150"), std::string::npos) << out.error().what;
    EXPECT_EQ(loadTable(t).error().kind, ErrorKind::input);

    ArrayTrace back = drawTrace(13);
    back.all.sequence[100] = 0;
    back.finish();
    EXPECT_EQ(evaluateMetrics(back, {}).error().kind, ErrorKind::input);
    ArrayTrace shortBlock = drawTrace(13);
    shortBlock.columns[{Column::weights, 0}].f32.resize(100);
    shortBlock.finish();
    EXPECT_EQ(evaluateMetrics(shortBlock, {}).error().kind, ErrorKind::input);
    ArrayTrace badTable = drawTrace(13);
    badTable.tables[{Table::meanRouting, 0}].values.resize(33);
    badTable.finish();
    EXPECT_EQ(evaluateMetrics(badTable, {}).error().kind, ErrorKind::input);

    // A file that claims many experts must not make us allocate their squares.
    ArrayTrace many = drawTrace(13);
    many.header.experts = 65000;
    for (const Column c : {Column::probabilities, Column::routingVectors, Column::expressionVectors})
        for (int l = 0; l < 2; ++l)
            many.columns.erase({c, l});
    many.tables.clear();
    many.tables[{Table::meanRouting, 0}] =
        many.tables[{Table::meanRouting, 1}] = {{65000, 1}, std::vector<float>(65000, 1.0f)};
    many.finish();
    const auto large = evaluateMetrics(many, {});
    ASSERT_TRUE(large.ok()) << large.error().what;
    EXPECT_NE(large->find("co_activation")->absent.find("MiB"), std::string::npos);
    EXPECT_NE(large->find("gram_orthogonality.routing")->absent.find("MiB"), std::string::npos);
    EXPECT_TRUE(large->find("load_cv")->overall.value.has_value());
    many.header.experts = 1 << 30;
    many.finish();
    EXPECT_EQ(evaluateMetrics(many, {}).error().kind, ErrorKind::input);
    EXPECT_EQ(loadTable(many).error().kind, ErrorKind::input);

    MetricOptions options;
    options.keys = {"load_cv", "no_such_metric"};
    EXPECT_EQ(evaluateMetrics(drawTrace(1), options).error().kind, ErrorKind::usage);
    options.keys = {"load_cv"};
    options.level = 1;
    EXPECT_EQ(evaluateMetrics(drawTrace(1), options).error().kind, ErrorKind::usage);
    std::stop_source source;
    source.request_stop();
    EXPECT_EQ(evaluateMetrics(drawTrace(1), {}, source.get_token()).error().kind, ErrorKind::cancelled);
}

TEST(Metrics, GramFollowsDomainsAndSelectionsOfWholeSequences)
{
    const ArrayTrace t = drawTrace(14);
    const auto gramOf = [&](Table table, const std::vector<int> &sequences) {
        std::vector<float> mean(35, 0.0f);
        const auto &rows = t.tables.at({table, 0}).values;
        for (const int s : sequences)
            for (std::size_t i = 0; i < 35; ++i)
                mean[i] += rows[static_cast<std::size_t>(s) * 35 + i];
        return gramFigures(gramMatrix({mean.data(), 5, 7}), 5)->orthogonality;
    };
    const auto whole = evaluateMetrics(t, {});
    const MetricResult *m = whole->find("gram_orthogonality.expression");
    EXPECT_NEAR(m->byLayerDomain[1].value.value(), gramOf(Table::sequenceMeanExpression, {1, 4, 7, 10, 13}), 1e-6);
    EXPECT_NEAR(*m->overall.chance, gramOrthogonalityChance(5, 7), 1e-12);
    EXPECT_EQ(*whole->find("expression_orthogonality")->overall.value, *m->overall.value);
    EXPECT_NEAR(*whole->find("alignment")->overall.value + *whole->find("complementarity")->overall.value, 1, 1e-12);
    MetricOptions options;
    auto rows = std::make_shared<RowSet>(640);
    rows->insertRange(2 * 40, 3 * 40);
    rows->insertRange(5 * 40, 6 * 40);
    options.selection = rows;
    const auto some = evaluateMetrics(t, options);
    EXPECT_NEAR(*some->find("gram_orthogonality.expression")->byLayer[0].value,
                gramOf(Table::sequenceMeanExpression, {2, 5}), 1e-6);
    EXPECT_TRUE(some->find("gram_orthogonality.router_weights")->overall.value.has_value());
    EXPECT_FALSE(some->find("gram_orthogonality.expert_input")->absent.empty());
    rows->erase(2 * 40 + 9);
    EXPECT_FALSE(evaluateMetrics(t, options)->find("gram_orthogonality.expression")->absent.empty());
    // A trace that holds the Gram matrix alone still answers.
    ArrayTrace matrix;
    matrix.header.experts = 2;
    matrix.all.id = {1};
    matrix.setExperts(0, {0}, 1);
    matrix.tables[{Table::gramExpression, 0}] = {{2, 2}, {1, 0.5f, 0.5f, 1}};
    matrix.finish();
    EXPECT_NEAR(*evaluateMetrics(matrix, {})->find("gram_offdiag_mean_abs.expression")->overall.value, 0.5, 1e-7);
}

TEST(Metrics, LoadsByDomain)
{
    const ArrayTrace t = drawTrace(15);
    auto rows = std::make_shared<RowSet>(640);
    rows->insertRange(10, 500);
    const auto table = loadTable(t, rows.get());
    ASSERT_TRUE(table.ok());
    std::int64_t all = 0;
    for (int e = 0; e < 5; ++e) {
        std::int64_t count = 0;
        for (std::size_t i = 10; i < 500; ++i)
            if (t.all.mask[i] && t.all.sequence[i] % 3 == 1)
                for (std::size_t k = 0; k < 2; ++k)
                    count += t.columns.at({Column::experts, 1}).u16[2 * i + k] == e;
        EXPECT_EQ(table->count(1, e, 1), count);
        all += table->load(1, e);
    }
    EXPECT_EQ(all, 2 * std::accumulate(table->tokens.begin(), table->tokens.end(), std::int64_t(0)));
    MetricOptions options;
    options.selection = rows;
    EXPECT_NEAR(*evaluateMetrics(t, options)->find("load_cv")->byLayer[1].value,
                coefficientOfVariation(table->loads(1)), 1e-12);
}

TEST(Metrics, RoutingConsistencyFindsARenaming)
{
    const ArrayTrace a = drawTrace(16);
    ArrayTrace b = a;
    const std::vector<std::uint16_t> name{2, 3, 4, 0, 1};
    for (auto &[key, block] : b.columns)
        if (key.first == Column::experts)
            for (std::uint16_t &e : block.u16)
                e = name[e];
    std::swap(b.sequenceInfo[0].id, b.sequenceInfo[1].id); // these two no longer hold the same tokens
    b.finish();
    const auto same = routingConsistency(a, a);
    EXPECT_EQ(same->raw, 1);
    EXPECT_EQ(same->unmatchedTokens, 0);
    const auto got = routingConsistency(a, b);
    ASSERT_TRUE(got.ok());
    EXPECT_LT(got->raw, 0.3);
    EXPECT_GT(got->matched, 0.99);
    EXPECT_GT(got->unmatchedTokens, 40);
    for (std::size_t e = 0; e < 5; ++e)
        EXPECT_EQ(got->layers[0].matching[name[e]], static_cast<int>(e));
    ArrayTrace other = drawTrace(17);
    for (auto &s : other.sequenceInfo)
        s.id += "'";
    other.finish();
    EXPECT_EQ(routingConsistency(a, other).error().kind, ErrorKind::input);
}

} // namespace
