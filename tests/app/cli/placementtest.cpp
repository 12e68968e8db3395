// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/app/cli/program.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <numeric>

namespace spectra::test {
namespace {
using testing::HasSubstr;

TEST_F(Program, PlacementPlansEveryLayerOfATrace)
{
    const auto plan = json({"placement", "t.h5", "--nodes", "2", "--gpus", "1", "--json"});
    EXPECT_EQ(plan["nodes"], 2);
    EXPECT_EQ(plan["gpus_per_node"], 1);
    ASSERT_FALSE(plan["layers"].empty());
    for (const auto &layer : plan["layers"]) {
        std::vector<int> all;
        for (const auto &gpu : layer["gpus"])
            for (const int e : gpu)
                all.push_back(e);
        std::sort(all.begin(), all.end());
        std::vector<int> each(all.size());
        std::iota(each.begin(), each.end(), 0);
        EXPECT_EQ(all, each);
        EXPECT_EQ(layer["gpus"].size(), 2u);
        EXPECT_EQ(layer["tried"].size(), 21u);
        const auto sum = [&](const char *which) {
            double total = 0;
            for (const double load : layer[which]["load"])
                total += load;
            return total;
        };
        EXPECT_GT(sum("grouped"), 0);
        EXPECT_EQ(sum("grouped"), sum("contiguous"));
        EXPECT_EQ(sum("grouped"), sum("replicated"));
        EXPECT_GE(layer["replicated"]["imbalance"], 1);
        EXPECT_LE(layer["replicated"]["leaves_gpu"], layer["grouped"]["leaves_gpu"]);
    }
    const int first = plan["layers"][0]["layer"];
    const auto one = json({"placement", "t.h5", "--nodes", "1", "--gpus", "2", "--ratio", "0.5", "--no-copies", "--layer", std::to_string(first), "--json"});
    ASSERT_EQ(one["layers"].size(), 1u);
    EXPECT_EQ(one["layers"][0]["ratio"], 0.5);
    EXPECT_TRUE(one["layers"][0]["copied"].empty());
    EXPECT_EQ(one["layers"][0]["grouped"]["leaves_node"], 0);

    const Ran text = run({"placement", "t.h5", "--nodes", "1", "--gpus", "2"});
    EXPECT_EQ(text.code, 0);
    EXPECT_THAT(text.out, HasSubstr("grouped by affinity"));
    EXPECT_THAT(text.out, HasSubstr("node 0 GPU 1: "));
    EXPECT_THAT(run({"placement", "--help"}).out, HasSubstr("Example:\n  spectra placement"));
}

TEST_F(Program, PlacementRefusesWhatItCannotPlan)
{
    expect(2, {"placement", "t.h5"});
    expect(2, {"placement", "t.h5", "--nodes", "0", "--gpus", "1"});
    expect(2, {"placement", "t.h5", "--nodes", "1", "--gpus", "1", "--ratio", "2"});
    expect(2, {"placement", "t.h5", "--nodes", "1", "--gpus", "1", "--layer", "99"});
    EXPECT_THAT(expect(2, {"placement", "t.h5", "--nodes", "40", "--gpus", "40"}).err, HasSubstr("use fewer GPUs"));
    expect(3, {"placement", "nowhere.h5", "--nodes", "1", "--gpus", "1"});
}

} // namespace
} // namespace spectra::test
