// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/app/cli/program.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

namespace spectra::test {
namespace {
using testing::HasSubstr;
using testing::IsEmpty;

constexpr const char *kItems = "{\"id\": \"a\", \"question\": \"One?\", \"choices\": [\"yes\", \"no\"], \"answer\": 0}\n"
                               "{\"id\": \"b\", \"question\": \"Two?\", \"choices\": [\"yes\", \"no\"], \"answer\": 1}\n";

TEST_F(Program, EvalScoresAndCompares)
{
    std::ofstream(at("choice.jsonl")) << kItems;
    const auto result = json({"eval", "moe", "--task", "choice", "--data", "choice.jsonl", "-o", "items.jsonl"});
    EXPECT_EQ(result["task"], "choice");
    EXPECT_EQ(result["n"], 2);
    for (const char *key : {"value", "low", "high"})
        EXPECT_TRUE(result["metrics"]["acc"][key].is_number()) << key;
    EXPECT_EQ(result["data"]["sha256"].get<std::string>().size(), 64u);
    EXPECT_TRUE(std::filesystem::exists(at("items.jsonl")));
    const auto again = json({"eval", "moe", "--task", "choice", "--data", "choice.jsonl", "--against", "items.jsonl"});
    EXPECT_EQ(again["against"]["compared"], 2);
    EXPECT_TRUE(again["against"]["flips"].empty());
    std::ofstream(at("words.txt")) << "a few words and a few more, to be guessed one by one\n";
    EXPECT_TRUE(json({"eval", "dense", "--task", "ppl", "--data", "words.txt"})["metrics"]["token_perplexity"]["value"].is_number());
    EXPECT_THAT(run({"eval", "moe", "--task", "choice", "--data", "choice.jsonl", "--quiet"}).out, HasSubstr("acc_norm"));
    EXPECT_THAT(run({"eval", "--help"}).out, HasSubstr("Example:\n  spectra eval"));
}

TEST_F(Program, EvalRefusesByTheContract)
{
    std::ofstream(at("choice2.jsonl")) << kItems;
    std::ofstream(at("cut.jsonl")) << "{\"question\": \"One?\", \"cho";
    EXPECT_THAT(expect(2, {"eval", "moe", "--task", "no_such_task", "--data", "choice2.jsonl"}).err, HasSubstr("hellaswag"));
    expect(2, {"eval", "moe", "--data", "choice2.jsonl"});
    expect(2, {"eval", "moe", "--task", "choice"});
    expect(2, {"eval", "moe", "--task", "choice", "--data", "choice2.jsonl", "--shots", "-1"});
    expect(2, {"eval", "moe", "--task", "humaneval", "--data", "choice2.jsonl", "--pass-k", "10"});
    expect(2, {"eval", "dense", "--task", "choice", "--data", "choice2.jsonl", "--router", "expert_choice", "--experts", "4", "-o", "y.jsonl"});
    expect(3, {"eval", "moe", "--task", "choice", "--data", "nowhere.jsonl", "-o", "y.jsonl"});
    EXPECT_THAT(expect(3, {"eval", "moe", "--task", "choice", "--data", "cut.jsonl", "-o", "y.jsonl"}).err, HasSubstr("line 1"));
    expect(3, {"eval", "nowhere", "--task", "choice", "--data", "choice2.jsonl", "-o", "y.jsonl"});
    std::ofstream(at("kept.jsonl")) << "mine";
    expect(1, {"eval", "moe", "--task", "choice", "--data", "choice2.jsonl", "-o", "kept.jsonl"});
    EXPECT_EQ(readText(at("kept.jsonl")), "mine");
    EXPECT_THAT(named("y."), IsEmpty());
}

} // namespace
} // namespace spectra::test
