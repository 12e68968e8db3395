// SPDX-License-Identifier: GPL-3.0-or-later
// Prompts letter for letter as lm-evaluation-harness builds them, and its scores from its own log-likelihoods (tests/fixtures/tasks).
#include "engine/core/files.h"
#include "engine/tasks/numbertext.h"
#include "tests/engine/tasks/taskfakes.h"

#include <nlohmann/json.hpp>

#include <cmath>
#include <filesystem>

namespace spectra::test {
namespace {
namespace fs = std::filesystem;

fs::path fixture(const std::string &name)
{
    return fs::path(SPECTRA_TEST_DIR) / "fixtures" / "tasks" / name;
}

std::string content(const std::string &name)
{
    auto text = readTextFile(fixture(name));
    EXPECT_TRUE(text.ok()) << name;
    return text.ok() ? *text : std::string();
}

const nlohmann::json &expected()
{
    static const auto json = nlohmann::json::parse(content("expected.json"));
    return json;
}

class Harness : public testing::TestWithParam<const char *> {};

/// TruthfulQA's two tasks are one here.
std::string oursOf(const std::string &theirs)
{
    return theirs.starts_with("truthfulqa") ? "truthfulqa" : theirs;
}

TEST_P(Harness, PromptsAndScoresAreTheSame)
{
    const nlohmann::json &theirs = expected().at("tasks").at(GetParam());
    const Task &task = taskOf(oursOf(GetParam()));
    const auto items = goodTask(task.name, content(theirs.at("data")), theirs.at("data"));
    std::vector<TaskItem> pool;
    if (theirs.at("shots_data").is_string())
        pool = goodTask(task.name, content(theirs.at("shots_data")), theirs.at("shots_data"));
    const nlohmann::json &answers = theirs.at("items");
    ASSERT_EQ(items.size(), answers.size());

    const bool second = std::string(GetParam()) == "truthfulqa_mc2";
    std::size_t asked = 0;
    FakeModel model;
    std::size_t at = 0;
    std::string lastPrompt;
    model.score = [&](const std::string &prompt, const std::string &) {
        if (prompt != lastPrompt) {
            lastPrompt = prompt;
            at = 0;
            ++asked;
        }
        const nlohmann::json &answer = answers.at(asked - 1);
        EXPECT_EQ(prompt, answer.at("prompts").at(0).get<std::string>());
        // Of TruthfulQA's two sets only one is in this answer; the other gets any number.
        const std::size_t first = task.name == "truthfulqa" && second ? items[asked - 1].extra.at("mc1").size() : 0;
        const std::size_t index = at++;
        if (index < first || index - first >= answer.at("loglikelihoods").size())
            return ContinuationScore{-1000, false, 1};
        return ContinuationScore{answer.at("loglikelihoods").at(index - first), answer.at("greedy").at(index - first), 1};
    };
    model.roll = [&](const std::string &text) {
        const nlohmann::json &answer = answers.at(asked++);
        EXPECT_EQ(text, answer.at("prompts").at(0).get<std::string>());
        return std::vector<WindowScore>{{answer.at("loglikelihood"), 1, 0, text.size()}};
    };
    model.write = [&](const std::string &prompt, const GenerationOptions &) {
        const nlohmann::json &answer = answers.at(asked++);
        EXPECT_EQ(prompt, answer.at("prompts").at(0).get<std::string>());
        return std::vector<std::string>{answer.at("text").get<std::string>()};
    };
    EvaluationOptions options;
    options.shots = theirs.at("shots");
    options.shotsInOrder = true;
    options.generation = task.generation;
    const auto evaluation = evaluate(task, items, pool, model, options);
    ASSERT_TRUE(evaluation.ok()) << evaluation.error().what << " " << evaluation.error().where;
    EXPECT_EQ(asked, items.size());
    const std::map<std::string, std::string> names = {{"exact_match", "exact_match,strict-match"}, {"exact_match_flexible", "exact_match,flexible-extract"}};
    int compared = 0;
    for (const MetricValue &m : evaluation->metrics) {
        std::string name = m.name;
        if (const auto other = names.find(name); other != names.end())
            name = other->second;
        if ((name == "mc1" && !second) || (name == "mc2" && second))
            name = "acc";
        if (!theirs.at("scores").contains(name))
            continue;
        EXPECT_NEAR(m.value, theirs.at("scores").at(name).get<double>(), 1e-4 * std::max(1.0, std::abs(m.value))) << m.name;
        ++compared;
    }
    EXPECT_GE(compared, 1);
}

INSTANTIATE_TEST_SUITE_P(Tasks, Harness,
                         testing::Values("mmlu", "hellaswag", "arc_easy", "arc_challenge", "piqa", "boolq", "pubmedqa", "truthfulqa_mc1", "truthfulqa_mc2",
                                         "lambada", "wikitext2", "gsm8k"),
                         [](const auto &i) { return std::string(i.param); });

} // namespace
} // namespace spectra::test
