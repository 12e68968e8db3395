// SPDX-License-Identifier: GPL-3.0-or-later
// Tasks whose answers are written text: what is asked, where the answer ends, what is found in it and how it is judged, beside
// lm-evaluation-harness (tests/fixtures/tasks/make_answers.py).
#include "engine/core/files.h"
#include "engine/tasks/mathanswer.h"
#include "engine/tasks/sandbox.h"
#include "tests/engine/tasks/taskfakes.h"

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include <filesystem>

namespace spectra::test {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;

std::string content(const std::string &name)
{
    auto text = readTextFile(fs::path(SPECTRA_TEST_DIR) / "fixtures" / "tasks" / name);
    EXPECT_TRUE(text.ok()) << name;
    return text.ok() ? *text : std::string();
}

const nlohmann::json &expected()
{
    static const auto json = nlohmann::json::parse(content("answers.json"));
    return json;
}

class Written : public testing::TestWithParam<const char *> {};

TEST_P(Written, PromptsStopsAndVerdictsAreTheHarnesss)
{
    const nlohmann::json &theirs = expected().at("tasks").at(GetParam());
    const nlohmann::json &answers = theirs.at("items");
    const Task &task = taskOf(GetParam());
    const auto items = goodTask(task.name, content(theirs.at("data")), theirs.at("data"));
    std::vector<TaskItem> pool;
    if (theirs.at("shots_data").is_string())
        pool = goodTask(task.name, content(theirs.at("shots_data")), theirs.at("shots_data"));
    ASSERT_EQ(items.size(), answers.size());
    if (theirs.at("max_tokens").is_number()) {
        EXPECT_EQ(task.generation.maxTokens, theirs.at("max_tokens"));
    }
    // Where programs cannot be contained they are not run; everything before that is compared all the same.
    const bool judged = !task.programs || checkSandbox().ok();
    std::size_t asked = 0;
    FakeModel model;
    model.write = [&](const std::string &prompt, const GenerationOptions &options) {
        const nlohmann::json &answer = answers.at(asked++);
        EXPECT_EQ(prompt, answer.at("prompt").get<std::string>());
        EXPECT_EQ(options.stop, answer.at("stop").get<std::vector<std::string>>());
        return std::vector<std::string>{answer.at("text").get<std::string>()};
    };
    EvaluationOptions options;
    options.shots = theirs.at("shots");
    options.shotsInOrder = true;
    options.generation = task.generation;
    options.settings.programSeconds = 5;
    Task asking = task;
    if (!judged)
        asking.judge = [](const TaskItem &, const TaskAnswer &, const TaskSettings &) { return Judgement{{{"pass@1", 0, 1}}, "", 0}; };
    double right = 0;
    const auto evaluation = evaluate(asking, items, pool, model, options, [&](std::size_t i, const ItemResult &result) -> Result<void> {
        right += answers.at(i).at("right").get<double>();
        if (judged) {
            EXPECT_EQ(result.judgement.measures.at(0).value, answers.at(i).at("right").get<double>()) << items[i].id << ": " << result.judgement.answer;
        }
        return {};
    });
    ASSERT_TRUE(evaluation.ok()) << evaluation.error().what << " " << evaluation.error().where;
    EXPECT_EQ(asked, items.size());
    if (!judged)
        GTEST_SKIP() << "programs cannot be contained here: prompts were compared, verdicts not";
    EXPECT_NEAR(evaluation->metrics.at(0).value, right / static_cast<double>(items.size()), 1e-12);
}

INSTANTIATE_TEST_SUITE_P(Tasks, Written, testing::Values("math", "humaneval", "mbpp"), [](const auto &i) { return std::string(i.param); });

TEST(WrittenAnswers, NormalFormsAreTheHarnesss)
{
    const nlohmann::json &forms = expected().at("normal_forms");
    EXPECT_GE(forms.size(), 80u);
    for (const nlohmann::json &form : forms)
        EXPECT_EQ(normalizedMathAnswer(form.at(0).get<std::string>()), form.at(1).get<std::string>()) << form.at(0);
}

TEST(WrittenAnswers, TheSentenceIsFoundWhereTheHarnessFindsIt)
{
    for (const nlohmann::json &one : expected().at("final_answers"))
        EXPECT_EQ(finalAnswer(one.at(0).get<std::string>()).value_or("[invalidanswer]"), one.at(1).get<std::string>()) << one.at(0);
}

TEST(WrittenAnswers, TheSolutionsOfTheProblemsPass)
{
    if (const auto can = checkSandbox(); !can.ok())
        GTEST_SKIP() << can.error().what;
    for (const char *name : {"humaneval", "mbpp"}) {
        const Task &task = taskOf(name);
        for (const TaskItem &item : goodTask(name, content(std::string(name) + ".jsonl"))) {
            TaskAnswer answer;
            const std::string solution = item.solution.substr(0, item.solution.find("\n[DONE]"));
            answer.texts = {solution, "    raise ValueError('wrong')\n", "    pass\n"};
            const auto judged = task.judge(item, answer, {});
            ASSERT_TRUE(judged.ok()) << judged.error().what;
            EXPECT_EQ(judged->answer, "passed, failed, failed") << item.id;
        }
    }
}

TEST(WrittenAnswers, EndlessProgramsAreToldFromWrongOnes)
{
    if (const auto can = checkSandbox(); !can.ok())
        GTEST_SKIP() << can.error().what;
    TaskSettings settings;
    settings.programSeconds = 2;
    const auto items = goodTask("mbpp", content("mbpp.jsonl"));
    TaskAnswer answer;
    answer.texts = {"def power(n):\n    while True:\n        pass\n", "def power(n):\n    raise ValueError(n)\n", "def power(n):\n    return 8\n", "def power(n:\n"};
    const auto judged = taskOf("mbpp").judge(items.at(2), answer, settings);
    ASSERT_TRUE(judged.ok()) << judged.error().what;
    EXPECT_EQ(judged->answer, "timed out, failed, failed, failed");
    EXPECT_EQ(judged->right, 0);
}

/// No other program has this task: the expectation is written by hand, after PubMedQA's prompt and SciFact's own files.
TEST(SciFactPrompt, IsOneQuestionPerCitedAbstract)
{
    const std::string corpus = R"({"doc_id": 31, "title": "Left out", "abstract": ["Mice were fed salt.", " Their pressure rose. "], "structured": false}
{"doc_id": 32, "title": "T", "abstract": ["Nothing was seen."], "structured": false}
)";
    const std::string claims = R"({"id": 5, "claim": "Salt raises blood pressure.", "evidence": {"31": [{"sentences": [1], "label": "SUPPORT"}, {"sentences": [0], "label": "SUPPORT"}]}, "cited_doc_ids": [31]}
{"id": 6, "claim": "Salt lowers blood pressure.", "evidence": {"31": [{"sentences": [1], "label": "CONTRADICT"}]}, "cited_doc_ids": [31, 32]}
{"id": 7, "claim": "Salt is blue.", "evidence": {}, "cited_doc_ids": [32]}
)";
    const auto items = goodTask("scifact", claims, "claims_dev.jsonl", {{"corpus.jsonl", corpus}});
    struct Wanted {
        const char *id, *context;
        std::size_t gold;
    };
    const Wanted wanted[] = {
        {"5:31", "Abstract: Mice were fed salt. Their pressure rose.\nClaim: Salt raises blood pressure.\nQuestion: Does the abstract support the claim?\nAnswer:", 0},
        {"6:31", "Abstract: Mice were fed salt. Their pressure rose.\nClaim: Salt lowers blood pressure.\nQuestion: Does the abstract support the claim?\nAnswer:", 1},
        {"6:32", "Abstract: Nothing was seen.\nClaim: Salt lowers blood pressure.\nQuestion: Does the abstract support the claim?\nAnswer:", 2},
        {"7:32", "Abstract: Nothing was seen.\nClaim: Salt is blue.\nQuestion: Does the abstract support the claim?\nAnswer:", 2},
    };
    ASSERT_EQ(items.size(), std::size(wanted));
    FakeModel model;
    model.score = [](const std::string &, const std::string &c) { return ContinuationScore{c == " no" ? -1.0 : -2.0, false, 1}; };
    EvaluationOptions options;
    std::size_t at = 0;
    const auto evaluation = evaluate(taskOf("scifact"), items, {}, model, options, [&](std::size_t i, const ItemResult &result) -> Result<void> {
        EXPECT_EQ(items[i].id, wanted[i].id);
        EXPECT_EQ(model.prompts.at(i).shared + model.prompts.at(i).own, wanted[i].context);
        EXPECT_EQ(items[i].gold, std::vector<std::size_t>{wanted[i].gold});
        EXPECT_EQ(result.judgement.answer, "no");
        EXPECT_EQ(result.judgement.right, wanted[i].gold == 1 ? 1 : 0);
        ++at;
        return {};
    });
    ASSERT_TRUE(evaluation.ok());
    EXPECT_EQ(at, 4u);
    EXPECT_EQ(items[0].continuations, (std::vector<std::string>{" yes", " no", " maybe"}));
    EXPECT_DOUBLE_EQ(evaluation->metrics.at(0).value, 0.25);
    // As a solved example.
    options.shots = 1;
    options.shotsInOrder = true;
    FakeModel shown;
    ASSERT_TRUE(evaluate(taskOf("scifact"), {items[3]}, items, shown, options).ok());
    EXPECT_EQ(shown.prompts.at(0).shared, std::string(wanted[0].context) + " yes\n\n");
    const auto lost = readTask("scifact", R"({"id": 1, "claim": "A.", "evidence": {}, "cited_doc_ids": [99]})", "claims.jsonl", {{"corpus.jsonl", corpus}});
    ASSERT_FALSE(lost.ok());
    EXPECT_THAT(lost.error().what, HasSubstr("99"));
}

} // namespace
} // namespace spectra::test
