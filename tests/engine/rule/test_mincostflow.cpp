// SPDX-License-Identifier: GPL-3.0-or-later
// The flow's assignment against SciPy's linear programme (tests/fixtures/routers/make_structured.py), and by the certificate of optimality: a
// filling is best exactly when no circle of exchanges gains anything.
#include "engine/core/random.h"
#include "engine/rule/mincostflow.h"
#include "engine/rule/softtopk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <numeric>
#include <set>
#include <string>

namespace spectra::rule {
namespace {

using nlohmann::json;

struct Checked {
    double value = 0;
    std::int64_t slots = 0;
    std::vector<std::int64_t> load;
};

/// Adds up an answer, and that it is one: different experts per row, by falling score, empty slots last.
Checked check(const std::vector<float> &scores, std::int64_t experts, std::int64_t k, std::int64_t capacity, const FlowAssignment &answer)
{
    Checked c;
    c.load.assign(static_cast<std::size_t>(experts), 0);
    const std::int64_t n = static_cast<std::int64_t>(scores.size()) / experts;
    EXPECT_EQ(static_cast<std::int64_t>(answer.experts.size()), n * k);
    for (std::int64_t t = 0; t < n; ++t) {
        std::set<std::int64_t> seen;
        bool ended = false;
        double before = INFINITY;
        std::int64_t last = -1;
        for (std::int64_t slot = 0; slot < k; ++slot) {
            const std::int64_t e = answer.experts[static_cast<std::size_t>(t * k + slot)];
            if (e < 0) {
                ended = true;
                continue;
            }
            EXPECT_FALSE(ended) << "an empty slot before a full one";
            EXPECT_TRUE(seen.insert(e).second) << "one expert twice";
            const double s = scores[static_cast<std::size_t>(t * experts + e)];
            EXPECT_TRUE(s < before || (s == before && e > last));
            before = s;
            last = e;
            c.value += s;
            ++c.slots;
            ++c.load[static_cast<std::size_t>(e)];
        }
    }
    EXPECT_LE(*std::max_element(c.load.begin(), c.load.end()), capacity);
    return c;
}

TEST(MinCostFlow, IsWorthAsMuchAsTheOptimum)
{
    std::ifstream stream(std::string(SPECTRA_TEST_DIR) + "/fixtures/routers/flows.json");
    const json all = json::parse(stream);
    int count = 0, full = 0;
    for (const json &i : all["instances"]) {
        SCOPED_TRACE(testing::Message() << count << " " << i["kind"] << " n " << i["n"] << " E " << i["experts"] << " k " << i["k"] << " capacity " << i["capacity"]);
        const auto scores = i["scores"].get<std::vector<float>>();
        const std::int64_t e = i["experts"], k = i["k"], capacity = i["capacity"];
        const auto answer = maxScoreAssignment(scores, e, k, capacity);
        ASSERT_TRUE(answer.ok());
        const Checked c = check(scores, e, k, capacity, *answer);
        EXPECT_EQ(c.slots, i["slots"].get<std::int64_t>());
        EXPECT_NEAR(c.value, i["value"].get<double>(), 1e-6);
        EXPECT_NEAR(answer->value, c.value, 1e-9 * std::max(1.0, std::abs(c.value)));
        ++count;
        full += c.slots == i["n"].get<std::int64_t>() * k;
    }
    EXPECT_GE(count, 150);
    EXPECT_GE(full, 50);
    EXPECT_GE(count - full, 30) << "some must not fit";
}

/// Whether some circle of exchanges over the experts (and the outside, where room is left or slots are empty) gains more than `least`.
bool canGain(const std::vector<float> &scores, std::int64_t experts, std::int64_t k, std::int64_t capacity, const FlowAssignment &answer, double least)
{
    const std::int64_t n = static_cast<std::int64_t>(scores.size()) / experts, nodes = experts + 1;
    std::vector<double> arc(static_cast<std::size_t>(nodes * nodes), INFINITY);
    std::vector<std::int64_t> load(static_cast<std::size_t>(experts), 0);
    for (std::int64_t t = 0; t < n; ++t) {
        std::vector<char> held(static_cast<std::size_t>(experts), 0);
        for (std::int64_t slot = 0; slot < k; ++slot)
            if (const auto e = answer.experts[static_cast<std::size_t>(t * k + slot)]; e >= 0) {
                held[static_cast<std::size_t>(e)] = 1;
                ++load[static_cast<std::size_t>(e)];
            }
        for (std::int64_t a = 0; a < experts; ++a)
            for (std::int64_t b = 0; b < experts; ++b)
                if (held[static_cast<std::size_t>(a)] && !held[static_cast<std::size_t>(b)]) {
                    auto &cost = arc[static_cast<std::size_t>(a * nodes + b)];
                    cost = std::min(cost, static_cast<double>(scores[static_cast<std::size_t>(t * experts + a)]) - static_cast<double>(scores[static_cast<std::size_t>(t * experts + b)]));
                }
    }
    for (std::int64_t e = 0; e < experts; ++e) { // through the sink: any expert's slot may be given up for one of an expert with room
        if (load[static_cast<std::size_t>(e)] < capacity)
            arc[static_cast<std::size_t>(e * nodes + experts)] = 0;
        if (load[static_cast<std::size_t>(e)] > 0)
            arc[static_cast<std::size_t>(experts * nodes + e)] = 0;
    }
    std::vector<double> distance(static_cast<std::size_t>(nodes), 0);
    for (std::int64_t round = 0; round < nodes; ++round)
        for (std::int64_t a = 0; a < nodes; ++a)
            for (std::int64_t b = 0; b < nodes; ++b)
                distance[static_cast<std::size_t>(b)] = std::min(distance[static_cast<std::size_t>(b)], distance[static_cast<std::size_t>(a)] + arc[static_cast<std::size_t>(a * nodes + b)]);
    for (std::int64_t a = 0; a < nodes; ++a)
        for (std::int64_t b = 0; b < nodes; ++b)
            if (distance[static_cast<std::size_t>(a)] + arc[static_cast<std::size_t>(a * nodes + b)] < distance[static_cast<std::size_t>(b)] - least)
                return true;
    return false;
}

TEST(MinCostFlow, LargeBatchesAreOptimalByTheCertificate)
{
    for (const auto &[n, e, k, skew] : {std::tuple{2048, 8, 2, 0.0}, {2048, 64, 2, 2.0}, {1000, 30, 4, 5.0}, {600, 16, 1, 1.0}}) {
        SCOPED_TRACE(testing::Message() << n << " " << e << " " << k);
        Random random(static_cast<std::uint64_t>(n + e));
        std::vector<float> scores;
        for (int t = 0; t < n; ++t)
            for (int j = 0; j < e; ++j)
                scores.push_back(static_cast<float>(random.normal() + skew * (j < 2)));
        const std::int64_t capacity = (n * k + e - 1) / e;
        auto answer = maxScoreAssignment(scores, e, k, capacity);
        ASSERT_TRUE(answer.ok());
        const Checked c = check(scores, e, k, capacity, *answer);
        EXPECT_EQ(c.slots, n * k);
        EXPECT_GT(answer->augmentations, 0);
        EXPECT_FALSE(canGain(scores, e, k, capacity, *answer, 1e-7));
        // The certificate sees an assignment that is not the best: two rows trade against their will.
        for (std::int64_t t = 1; t < n; ++t) {
            auto &a = answer->experts[0], &b = answer->experts[static_cast<std::size_t>(t * k)];
            const auto has = [&](std::int64_t row, std::int64_t x) {
                return std::find(answer->experts.begin() + row * k, answer->experts.begin() + (row + 1) * k, x) != answer->experts.begin() + (row + 1) * k;
            };
            if (has(0, b) || has(t, a))
                continue;
            std::swap(a, b);
            break;
        }
        EXPECT_TRUE(canGain(scores, e, k, capacity, *answer, 1e-7));
    }
}

TEST(MinCostFlow, EdgesAndErrors)
{
    const std::vector<float> scores = {1, 2, 3, 4, 5, 6};
    EXPECT_EQ(maxScoreAssignment(scores, 3, 3, 2)->experts, (std::vector<std::int64_t>{2, 1, 0, 2, 1, 0}));
    EXPECT_EQ(maxScoreAssignment(scores, 3, 2, 0)->experts, (std::vector<std::int64_t>{-1, -1, -1, -1}));
    EXPECT_EQ(maxScoreAssignment(scores, 3, 1, 1000000)->experts, (std::vector<std::int64_t>{2, 2}));
    EXPECT_TRUE(maxScoreAssignment({}, 3, 2, 1)->experts.empty());
    EXPECT_EQ(maxScoreAssignment(std::vector<float>(8, 0.5f), 2, 1, 2)->augmentations, 2) << "all alike: two of four have to move";
    EXPECT_EQ(maxScoreAssignment(scores, 3, 4, 1).error().kind, ErrorKind::usage);
    EXPECT_EQ(maxScoreAssignment(scores, 3, 1, -1).error().kind, ErrorKind::usage);
    std::vector<float> broken = scores;
    broken[4] = NAN;
    const auto bad = maxScoreAssignment(broken, 3, 1, 1);
    ASSERT_FALSE(bad.ok());
    EXPECT_EQ(bad.error().kind, ErrorKind::input);
    EXPECT_THAT(bad.error().where, testing::HasSubstr("row 1"));
}

TEST(SoftTopK, SumsToKAndSharpensToTheChoice)
{
    for (const std::int64_t e : {2, 8, 64})
        for (const std::int64_t k : {std::int64_t(1), e / 2, e - 1, e})
            for (const double temperature : {0.01, 1.0, 100.0})
                for (const double scale : {0.0, 1.0, 1e4}) {
                    SCOPED_TRACE(testing::Message() << e << " " << k << " " << temperature << " " << scale);
                    Random random(7);
                    const std::int64_t n = 200;
                    std::vector<float> s, g(static_cast<std::size_t>(n * e));
                    for (std::size_t i = 0; i < g.size(); ++i)
                        s.push_back(static_cast<float>(scale * random.normal()));
                    softTopK(s, e, k, temperature, g);
                    for (std::int64_t t = 0; t < n; ++t) {
                        const auto row = g.begin() + t * e;
                        EXPECT_NEAR(std::accumulate(row, row + e, 0.0), static_cast<double>(k), 1e-5 * static_cast<double>(e));
                        for (std::int64_t a = 0; a < e; ++a)
                            for (std::int64_t b = 0; b < e && t < 3; ++b)
                                EXPECT_TRUE(!(s[static_cast<std::size_t>(t * e + a)] > s[static_cast<std::size_t>(t * e + b)]) || row[a] >= row[b]);
                    }
                }
    const std::vector<float> s = {0.1f, 3, 2, -1};
    std::vector<float> g(4);
    softTopK(s, 4, 2, 1e-3, g);
    EXPECT_EQ(g, (std::vector<float>{0, 1, 1, 0}));
    const std::vector<float> broken = {0, NAN, 1, 2, INFINITY, 0, 1, 2};
    std::vector<float> wide(8);
    softTopK(broken, 4, 2, 1, wide);
    EXPECT_TRUE(std::all_of(wide.begin(), wide.end(), [](float v) { return std::isnan(v); }));
}

} // namespace
} // namespace spectra::rule
