// SPDX-License-Identifier: GPL-3.0-or-later
// Public layouts that the parity fixture does not hold, answers in generated text, and data that are wrong.
#include "engine/tasks/fewshot.h"
#include "engine/tasks/mathanswer.h"
#include "engine/tasks/numbertext.h"
#include "engine/tasks/rollingscore.h"
#include "engine/tasks/tasktext.h"
#include "tests/engine/tasks/taskfakes.h"

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include <array>
#include <cmath>
#include <set>

namespace spectra::test {
namespace {
using testing::ElementsAre;
using testing::HasSubstr;

TEST(Registry, EveryTaskIsWhole)
{
    std::set<std::string> names;
    for (const Task &task : taskRegistry()) {
        EXPECT_TRUE(names.insert(task.name).second) << task.name;
        EXPECT_FALSE(task.title.empty() || task.source.empty() || task.layout.empty() || task.metrics.empty()) << task.name;
        EXPECT_TRUE(task.read && task.judge) << task.name;
        EXPECT_EQ(task.kind == TaskKind::generate, !task.generation.stop.empty()) << task.name;
    }
    const std::map<std::string, int> shots = {{"mmlu", 5}, {"hellaswag", 10}, {"arc_challenge", 25}, {"piqa", 0}, {"boolq", 0}, {"gsm8k", 8}, {"math", 4}};
    for (const auto &[name, count] : shots)
        EXPECT_EQ(taskOf(name).shots, count) << name;
    const auto unknown = findTask("no_such_task");
    ASSERT_FALSE(unknown.ok());
    EXPECT_EQ(unknown.error().kind, ErrorKind::usage);
    EXPECT_THAT(unknown.error().mend, HasSubstr("hellaswag"));
}

TEST(Layouts, Choice)
{
    const auto items = goodTask("choice", R"({"id": "q1", "question": "Two and two?", "choices": ["three", "four"], "answer": 1}
{"context": "The sky is", "choices": ["blue", "loud"], "answer": "blue"}
{"context": "Text.", "question": "What?", "choices": ["a b", "c d", "e"], "answer": "C"})");
    ASSERT_EQ(items.size(), 3u);
    EXPECT_EQ(items[0].context, "Question: Two and two?\nAnswer:");
    EXPECT_THAT(items[0].continuations, ElementsAre(" three", " four"));
    EXPECT_THAT(items[0].gold, ElementsAre(1u));
    EXPECT_EQ(items[0].id, "q1");
    EXPECT_EQ(items[1].context, "The sky is");
    EXPECT_EQ(items[1].id, "2") << "without an id the line names the item";
    EXPECT_EQ(items[2].context, "Text.\nQuestion: What?\nAnswer:");
    EXPECT_THAT(items[2].gold, ElementsAre(2u));
    // One JSON array holds the same items as lines do.
    EXPECT_EQ(goodTask("choice", R"([{"question": "a?", "choices": ["x", "y"], "answer": 0}, {"question": "b?", "choices": ["x", "y"], "answer": 1}])").size(), 2u);
    EXPECT_EQ(goodTask("choice", "\xEF\xBB\xBF{\"question\": \"a?\", \"choices\": [\"x\", \"y\"], \"answer\": 0}\r\n\r\n").size(), 1u);
}

TEST(Layouts, OthersOfTheSameTask)
{
    // AI2's own ARC, BoolQ's own answers, the hub's PubMedQA, the original TruthfulQA.
    const TaskItem arc = oneItem("arc_easy", R"({"id": "x", "question": {"stem": "Hot?", "choices": [{"text": "sun", "label": "A"}, {"text": "ice", "label": "B"}]}, "answerKey": "B"})");
    EXPECT_EQ(arc.context, "Question: Hot?\nAnswer:");
    EXPECT_THAT(arc.gold, ElementsAre(1u));
    EXPECT_THAT(oneItem("boolq", R"({"question": "is it", "title": "It", "answer": true, "passage": "It is."})").gold, ElementsAre(1u));
    const TaskItem pubmed = oneItem("pubmedqa", R"({"pubid": 7, "question": "Q?", "context": {"contexts": ["A.", "B."]}, "final_decision": "maybe"})");
    EXPECT_EQ(pubmed.context, "Abstract: A.\nB.\nQuestion: Q?\nAnswer:");
    EXPECT_EQ(pubmed.id, "7");
    EXPECT_THAT(pubmed.gold, ElementsAre(2u));
    const TaskItem truth = oneItem("truthfulqa", R"({"question": "Q?", "mc1_targets": {"No.": 0, "Yes.": 1}, "mc2_targets": {"Aye.": 1, "No.": 0, "Yes.": 1}})");
    EXPECT_EQ(truth.choices.size(), 5u);
    EXPECT_EQ(truth.extra.at("mc1"), "01");
    EXPECT_THAT(oneItem("hellaswag", R"({"ind": 4, "activity_label": "A", "ctx_a": "b", "ctx_b": "", "endings": ["x", "y"], "label": 1})").gold, ElementsAre(1u));
    EXPECT_THAT(oneItem("mmlu", R"({"question": "Q", "choices": ["w", "x", "y", "z"], "answer": "D"})").gold, ElementsAre(3u));
}

TEST(Layouts, SciFact)
{
    const std::string flat = R"({"id": 1, "claim": "A helps B.", "abstract": ["One.", "Two."], "label": "SUPPORT"}
{"id": 2, "claim": "A harms B.", "abstract": "One. Two.", "label": "CONTRADICT"}
{"id": 3, "claim": "A is C.", "abstract": "One.", "label": "NEI"})";
    const auto items = goodTask("scifact", flat);
    ASSERT_EQ(items.size(), 3u);
    EXPECT_EQ(items[0].context, "Abstract: One. Two.\nClaim: A helps B.\nQuestion: Does the abstract support the claim?\nAnswer:");
    EXPECT_EQ(items[0].gold[0] + 10 * items[1].gold[0] + 100 * items[2].gold[0], 210u);
    const std::string claims = R"({"id": 9, "claim": "A.", "evidence": {"11": [{"sentences": [0], "label": "CONTRADICT"}]}, "cited_doc_ids": [11, 12]})";
    const std::map<std::string, std::string> corpus = {{"corpus.jsonl", "{\"doc_id\": 11, \"title\": \"T\", \"abstract\": [\"One. \", \"Two.\"]}\n{\"doc_id\": 12, \"abstract\": [\"Three.\"]}"}};
    const auto original = goodTask("scifact", claims, "claims.jsonl", corpus);
    ASSERT_EQ(original.size(), 2u);
    EXPECT_EQ(original[0].id, "9:11");
    EXPECT_THAT(original[0].context, HasSubstr("Abstract: One. Two.\n"));
    EXPECT_THAT(original[0].gold, ElementsAre(1u));
    EXPECT_THAT(original[1].gold, ElementsAre(2u)) << "cited without evidence";
    const auto alone = readTask("scifact", claims);
    ASSERT_FALSE(alone.ok());
    EXPECT_THAT(alone.error().mend, HasSubstr("corpus.jsonl"));
}

TEST(Layouts, WikitextFilesArePartedAtTheirTitles)
{
    const auto items = goodTask("wikitext103", "\n = First = \n\n Some text , here . \n\n = = Part = = \n More . \n = Second = \n Last . \n", "wiki.test.tokens");
    ASSERT_EQ(items.size(), 2u);
    EXPECT_THAT(items[0].text, HasSubstr("Some text, here."));
    EXPECT_THAT(items[0].text, HasSubstr("== Part =="));
    EXPECT_EQ(items[1].words, 7) << "counted before detokenisation, as Python's re.split(r'\\s+') parts the page";
    EXPECT_EQ(goodTask("ppl", "One text.\n", "book.txt").front().words, 3) << "the space at the end parts an empty word, as in the harness";
}

TEST(Layouts, Programs)
{
    const TaskItem human = oneItem("humaneval", R"({"task_id": "H/0", "prompt": "def f():\n", "entry_point": "f", "canonical_solution": "    return 1\n", "test": "def check(c):\n    assert c() == 1\n"})");
    EXPECT_EQ(human.reference, "def check(c):\n    assert c() == 1\n\ncheck(f)");
    const TaskItem mbpp = oneItem("mbpp", R"({"task_id": 5, "text": "Add.", "code": "def a(): pass", "test_list": ["assert 1", "assert 2", "assert 3"], "test_setup_code": "import math"})");
    EXPECT_EQ(mbpp.context, "You are an expert Python programmer, and here is your task: Add. Your code should pass these tests:\n\nassert 1\nassert 2\nassert 3\n[BEGIN]\n");
    EXPECT_EQ(mbpp.reference, "import math\nassert 1\nassert 2\nassert 3");
    EXPECT_EQ(mbpp.solution, "def a(): pass\n[DONE]");
}

TEST(Answers, NumbersAsTheHarnessFindsThem)
{
    EXPECT_EQ(strictNumber("so it is 7.\n#### 1,250"), "1,250");
    EXPECT_EQ(strictNumber("#### -3.5 euros #### 4"), "-3.5");
    EXPECT_EQ(strictNumber("#### none, 5"), std::nullopt);
    EXPECT_EQ(strictNumber("####5"), std::nullopt);
    EXPECT_EQ(flexibleNumber("First 3, then $1,200.00 in all."), "$1,200.00");
    EXPECT_EQ(flexibleNumber("It is 42."), "42.");
    EXPECT_EQ(flexibleNumber("minus -7"), "-7");
    EXPECT_EQ(flexibleNumber("7 apples, or so"), "7");
    EXPECT_EQ(flexibleNumber("wait..."), "...") << "the harness's pattern takes it for a number, and so do we";
    EXPECT_EQ(flexibleNumber("none"), std::nullopt);
    EXPECT_EQ(comparableNumber("steps\n#### 1,250"), "1250");
    EXPECT_EQ(comparableNumber("$42."), "42");
}

TEST(Answers, Mathematics)
{
    EXPECT_EQ(lastBoxed("a \\boxed{1} b \\boxed{\\frac{1}{2}} c"), "\\frac{1}{2}");
    EXPECT_EQ(lastBoxed("so $\\boxed 7$."), "7");
    EXPECT_EQ(lastBoxed("\\boxed{never closed"), std::nullopt);
    EXPECT_EQ(lastBoxed("nothing"), std::nullopt);
    EXPECT_EQ(finalAnswer("Work.\nFinal Answer: The final answer is $5$. I hope it is correct. And more."), "$5$");
    EXPECT_EQ(finalAnswer("The final answer is 5"), std::nullopt);
    // Expected forms: normalize_final_answer of lm-evaluation-harness 0.4.13.
    for (const auto &[raw, form] : {std::pair{"x = 5 \\text{ cm}", "5"}, {"\\frac12", "\\frac{1}{2}"}, {"\\sqrt2", "\\sqrt{2}"}, {"\\sqrt[3]5", "\\sqrt[3]{5}"},
                                    {"1,000,000", "1000000"}, {"(0,1)", "(0,1)"}, {"0,1", "0,1"}, {"$\\frac{3}{4}$ of it", "\\frac{3}{4}"},
                                    {"90^\\circ", "90"}, {"\\$12.50", "12.50"}, {"\\left(2,3\\right)", "\\left(2,3\\right)"}, {"2\\pi cm", "2\\pi"},
                                    {"\\text{Evelyn}", "Evelyn"}, {"12 square feet", "12"}, {"10\\%", "10\\%"}, {"\\boxed{x+1}", "x+1"}})
        EXPECT_EQ(normalizedMathAnswer(raw), form) << raw;
    EXPECT_TRUE(sameMathAnswer("0.5", "\\frac{1}{2}"));
    EXPECT_TRUE(sameMathAnswer("-\\frac{2}{3}", "-2/3"));
    EXPECT_TRUE(sameMathAnswer("3.0", "3"));
    EXPECT_FALSE(sameMathAnswer("3", "-3"));
    EXPECT_FALSE(sameMathAnswer("", ""));
    EXPECT_FALSE(sameMathAnswer("x+1", "1+x")) << "no computer algebra: only fewer answers are found right";
}

TEST(Text, AsPythonSeesIt)
{
    EXPECT_EQ(stripped(" \t\xC2\xA0 a b\xE3\x80\x80\n"), "a b");
    EXPECT_EQ(rightStripped("\xE6\x97\xA5 "), "\xE6\x97\xA5");
    EXPECT_EQ(stripped(" \n "), "");
    EXPECT_EQ(codePoints("caf\xC3\xA9 \xF0\x9F\x98\x80"), 6);
    EXPECT_EQ(codePoints("\xFF\xFE"), 2);
    EXPECT_EQ(capitalized("\xC3\xA9L wAy"), "\xC3\x89l way");
    EXPECT_EQ(capitalized(""), "");
    EXPECT_EQ(wordCount("a  b\n"), 3);
    EXPECT_EQ(wordCount(""), 1);
}

TEST(Shots, AreSeededSharedAndNeverTheItemItself)
{
    std::vector<TaskItem> items;
    for (int i = 0; i < 12; ++i) {
        TaskItem item;
        item.id = std::to_string(i);
        item.group = i < 6 ? "a" : "b";
        item.context = "Q" + std::to_string(i) + "?";
        item.solution = " A" + std::to_string(i);
        item.description = "About " + item.group + ".\n\n";
        items.push_back(item);
    }
    FewShot shots(items, 3, 4, false), again(items, 3, 4, false), other(items, 3, 5, false), ordered(items, 3, 4, true);
    std::set<std::string> prefixes;
    bool differs = false;
    for (const TaskItem &item : items) {
        const std::string text = *shots.before(item);
        EXPECT_EQ(text, *again.before(item));
        differs = differs || text != *other.before(item);
        EXPECT_EQ(text.find(item.context), std::string::npos) << "the question stands among its own examples";
        EXPECT_EQ(text.find("About " + item.group), 0u);
        EXPECT_EQ(std::count(text.begin(), text.end(), '?'), 3);
        prefixes.insert(text);
        for (const TaskItem &foreign : items)
            if (foreign.group != item.group) {
                EXPECT_EQ(text.find(foreign.context), std::string::npos) << "an example of another group";
            }
    }
    EXPECT_TRUE(differs) << "another seed, other examples";
    EXPECT_LE(prefixes.size(), 8u) << "items that are no example share theirs";
    EXPECT_EQ(*ordered.before(items[5]), "About a.\n\nQ0? A0\n\nQ1? A1\n\nQ2? A2\n\n");
    EXPECT_EQ(*ordered.before(items[1]), "About a.\n\nQ0? A0\n\nQ2? A2\n\nQ3? A3\n\n");
    FewShot many(items, 6, 4, false);
    const auto few = many.before(items[0]);
    ASSERT_FALSE(few.ok());
    EXPECT_EQ(few.error().kind, ErrorKind::input);
    EXPECT_THAT(few.error().mend, HasSubstr("--shots"));
}

TEST(Choice, NormalisesByCharactersAndBytes)
{
    TaskItem item = oneItem("choice", "{\"question\": \"?\", \"choices\": [\"ab\", \"\xC3\xA9\xC3\xA9\xC3\xA9\", \"abcdefgh\"], \"answer\": 2}");
    TaskAnswer answer;
    // Per character: −1, −0.9, −0.95. Per byte: −1, −0.45, −0.95.
    answer.scores = {{-2, false, 1}, {-2.7, false, 1}, {-7.6, false, 1}};
    const Judgement judged = *taskOf("choice").judge(item, answer, {});
    EXPECT_EQ(judged.answer, "ab");
    EXPECT_EQ(judged.right, 0);
    item.gold = {1};
    const Judgement second = *taskOf("choice").judge(item, answer, {});
    EXPECT_EQ(second.measures[0].value, 0);
    EXPECT_EQ(second.measures[1].value, 1);
    answer.scores = {{-2, false, 1}, {-2, false, 1}, {-2, false, 1}};
    EXPECT_EQ(taskOf("choice").judge(item, answer, {})->answer, "ab") << "of equal ones the first";
}

TEST(TruthfulQa, Mc2DoesNotUnderflow)
{
    const TaskItem item = oneItem("truthfulqa", R"({"question": "Q?", "mc1_targets": {"choices": ["a", "b"], "labels": [1, 0]}, "mc2_targets": {"choices": ["a", "b", "c"], "labels": [1, 0, 1]}})");
    TaskAnswer answer;
    answer.scores = {{-2000, false, 1}, {-2001, false, 1}, {-2000, false, 1}, {-2000 + std::log(2.0), false, 1}, {-2000, false, 1}};
    const Judgement judged = *taskOf("truthfulqa").judge(item, answer, {});
    EXPECT_EQ(judged.measures[0].value, 1);
    EXPECT_NEAR(judged.measures[1].value, 0.5, 1e-12);
}

TEST(Perplexity, WindowsAreThoseOfTheHarness)
{
    // lm_eval.utils.get_rolling_token_windows(list, prefix, length, 1): first token seen (-1: the prefix), first and end of the predicted.
    using Windows = std::vector<std::array<std::ptrdiff_t, 3>>;
    const auto windows = [](std::size_t tokens, std::size_t context) {
        Windows list;
        for (const RollingWindow &w : rollingWindows(tokens, context))
            list.push_back({w.from, static_cast<std::ptrdiff_t>(w.first), static_cast<std::ptrdiff_t>(w.last)});
        return list;
    };
    EXPECT_EQ(windows(5, 8), (Windows{{-1, 0, 5}}));
    EXPECT_EQ(windows(8, 8), (Windows{{-1, 0, 8}}));
    EXPECT_EQ(windows(9, 8), (Windows{{-1, 0, 8}, {0, 8, 9}}));
    EXPECT_EQ(windows(16, 8), (Windows{{-1, 0, 8}, {7, 8, 16}}));
    EXPECT_EQ(windows(21, 8), (Windows{{-1, 0, 8}, {7, 8, 16}, {12, 16, 21}})) << "the last sees all that fits before it";
    EXPECT_EQ(windows(10, 4), (Windows{{-1, 0, 4}, {3, 4, 8}, {5, 8, 10}}));
    EXPECT_EQ(windows(3, 1), (Windows{{-1, 0, 1}, {0, 1, 2}, {1, 2, 3}}));
    EXPECT_TRUE(windows(0, 8).empty());
}

TEST(Perplexity, WindowsStandInForFewTexts)
{
    FakeModel model;
    model.roll = [](const std::string &text) {
        std::vector<WindowScore> windows;
        for (std::size_t at = 0; at < text.size(); at += 10)
            windows.push_back({-20.0 - static_cast<double>(at % 7), 5, at, std::min(at + 10, text.size())});
        return windows;
    };
    const auto items = goodTask("ppl", std::string(95, 'a') + " b", "book.txt");
    const auto result = evaluate(taskOf("ppl"), items, {}, model, {});
    ASSERT_TRUE(result.ok());
    EXPECT_EQ(result->resampled, "windows");
    double nll = 0;
    for (const WindowScore &w : model.roll(items[0].text))
        nll -= w.logp;
    ASSERT_EQ(result->metrics.size(), 4u);
    EXPECT_NEAR(result->metrics[0].value, std::exp(nll / 50), 1e-9);
    EXPECT_NEAR(result->metrics[1].value, std::exp(nll / 2), 1e-6 * std::exp(nll / 2));
    EXPECT_NEAR(result->metrics[2].value, std::exp(nll / 97), 1e-9);
    EXPECT_NEAR(result->metrics[3].value, nll / 97 / std::log(2.0), 1e-9);
    EXPECT_LT(result->metrics[0].low, result->metrics[0].value);
    EXPECT_GT(result->metrics[0].high, result->metrics[0].value);
}

TEST(Programs, PassAtKCountsThePrograms)
{
    TaskItem item = oneItem("humaneval", R"({"task_id": "H/0", "prompt": "def f(x):\n", "entry_point": "f", "test": "def check(c):\n    assert c(2) == 4\n"})");
    TaskAnswer answer;
    answer.texts = {"    return x * 2\n", "    return x\n", "    return x + 2\n", "    while True: pass\n"};
    TaskSettings settings;
    settings.passK = {1, 2};
    settings.programSeconds = 2;
    const auto judged = taskOf("humaneval").judge(item, answer, settings);
    if (!judged.ok()) {
        EXPECT_EQ(judged.error().kind, ErrorKind::work);
        GTEST_SKIP() << judged.error().what;
    }
    EXPECT_EQ(judged->answer, "passed, failed, passed, timed out");
    ASSERT_EQ(judged->measures.size(), 2u);
    EXPECT_DOUBLE_EQ(judged->measures[0].value, 0.5);
    EXPECT_NEAR(judged->measures[1].value, 1 - 1.0 / 6, 1e-12);
    // MBPP's answers bring their own functions.
    const TaskItem mbpp = oneItem("mbpp", R"({"task_id": 5, "text": "Add.", "test_list": ["assert math.floor(a(1.5)) == 2"], "test_setup_code": "import math"})");
    answer.texts = {"def a(x):\n    return x + 1\n"};
    EXPECT_EQ(taskOf("mbpp").judge(mbpp, answer, {})->answer, "passed");
}

TEST(ItemLines, HoldWhatACompareNeeds)
{
    FakeModel model;
    model.signature = RoutingSignature{{{3, 1}, {0, 4}}};
    const auto items = goodTask("choice", R"({"id": "q\u00e9", "question": "a?", "choices": ["x", "yy"], "answer": 0})");
    std::string line;
    const auto result = evaluate(taskOf("choice"), items, {}, model, {}, [&](std::size_t i, const ItemResult &r) -> Result<void> {
        line = itemLine(taskOf("choice"), items[i], r);
        return {};
    });
    ASSERT_TRUE(result.ok());
    const auto json = nlohmann::json::parse(line);
    EXPECT_EQ(json["task"], "choice");
    EXPECT_EQ(json["id"], "q\u00e9");
    EXPECT_EQ(json["right"], 1);
    EXPECT_EQ(json["answer"], "x");
    EXPECT_EQ(json["gold"], "x");
    EXPECT_EQ(json["loglikelihoods"], nlohmann::json({-2, -3}));
    EXPECT_EQ(json["routing"], nlohmann::json({{3, 1}, {0, 4}}));
    EXPECT_EQ(json["metrics"]["acc"], 1);
    EXPECT_EQ(json["metrics"]["acc_norm"], 0) << "-3 of two characters is more than -2 of one";
    EXPECT_EQ(line.find('\n'), std::string::npos);
}

struct Bad {
    const char *task, *content, *says;
};

TEST(Hostile, EveryLineIsNamed)
{
    const Bad list[] = {
        {"choice", "", "holds no items"},
        {"choice", "\n \n", "holds no items"},
        {"choice", "[]", "holds no items"},
        {"choice", "{\"question\": \"a\", \"choices\": [\"x\", \"y\"], \"answ", "is not a JSON object"},
        {"choice", "[{\"question\": \"a\"}", "is not JSON"},
        {"choice", "7", "is not a JSON object"},
        {"choice", "[7]", "is not a JSON object"},
        {"choice", "{\"question\": \"a\", \"choices\": [\"x\"], \"answer\": 0}", "nothing to choose"},
        {"choice", "{\"question\": \"a\", \"choices\": [], \"answer\": 0}", "nothing to choose"},
        {"choice", "{\"question\": \"a\", \"choices\": \"xy\", \"answer\": 0}", "is not a list"},
        {"choice", "{\"question\": \"a\", \"choices\": [\"x\", 7], \"answer\": 0}", "is not a list of strings"},
        {"choice", "{\"question\": \"a\", \"choices\": [\"x\", \"\"], \"answer\": 0}", "empty"},
        {"choice", "{\"question\": \"a\", \"choices\": [\"x\", \"y\"], \"answer\": 2}", "none of the choices"},
        {"choice", "{\"question\": \"a\", \"choices\": [\"x\", \"y\"], \"answer\": -1}", "none of the choices"},
        {"choice", "{\"question\": \"a\", \"choices\": [\"x\", \"y\"], \"answer\": 1e300}", "none of the choices"},
        {"choice", "{\"question\": \"a\", \"choices\": [\"x\", \"y\"], \"answer\": [1]}", "none of the choices"},
        {"choice", "{\"question\": \"a\", \"choices\": [\"x\", \"y\"]}", "has no \"answer\""},
        {"choice", "{\"choices\": [\"x\", \"y\"], \"answer\": 0}", "has no \"question\""},
        {"choice", "{\"question\": 5, \"choices\": [\"x\", \"y\"], \"answer\": 0}", "is not a string"},
        {"choice", "{\"question\": \" \", \"choices\": [\"x\", \"y\"], \"answer\": 0}", "is empty"},
        {"choice", "{\"question\": \"\xFF\", \"choices\": [\"x\", \"y\"], \"answer\": 0}", "is not a JSON object"},
        {"mmlu", "{\"question\": \"a\", \"choices\": [\"x\", \"y\"], \"answer\": 0}", "MMLU has 4"},
        {"mmlu", "{\"question\": \"a\", \"choices\": [\"w\", \"x\", \"y\", \"z\"], \"answer\": 4}", "none of the 4"},
        {"hellaswag", "{\"activity_label\": \"a\", \"ctx_a\": \"b\", \"ctx_b\": \"c\", \"endings\": [\"x\", \"y\"], \"label\": \"\"}", "is not a whole number"},
        {"hellaswag", "{\"activity_label\": \"a\", \"ctx_a\": \"b\", \"ctx_b\": \"c\", \"endings\": [\"x\", \"[y]\"], \"label\": 0}", "empty"},
        {"hellaswag", "{\"ctx_a\": \"b\"}", "activity_label"},
        {"arc_easy", "{\"question\": \"a\", \"choices\": {\"text\": [\"x\"], \"label\": [\"A\", \"B\"]}, \"answerKey\": \"A\"}", "label each"},
        {"arc_easy", "{\"question\": \"a\", \"choices\": [\"x\", \"y\"], \"answerKey\": \"A\"}", "choices"},
        {"arc_easy", "{\"question\": \"a\", \"choices\": {\"text\": [\"x\", \"y\"], \"label\": [\"A\", \"B\"]}, \"answerKey\": \"E\"}", "none of the labels"},
        {"arc_easy", "{\"question\": {\"stem\": \"a\", \"choices\": [7]}, \"answerKey\": \"A\"}", "not an object"},
        {"piqa", "{\"goal\": \"a\", \"sol1\": \"x\", \"sol2\": \"y\"}", "has no \"label\""},
        {"piqa", "{\"goal\": \"a\", \"sol1\": \"x\", \"sol2\": \"y\", \"label\": -1}", "none of the 2"},
        {"boolq", "{\"passage\": \"a\", \"question\": \"b\", \"answer\": \"perhaps\"}", "is not a whole number"},
        {"pubmedqa", "{\"question\": \"a\", \"contexts\": [\"b\"], \"answer\": \"often\"}", "none of yes, no, maybe"},
        {"pubmedqa", "{\"question\": \"a\", \"context\": {}, \"answer\": \"yes\"}", "contexts"},
        {"scifact", "{\"claim\": \"a\", \"abstract\": \"b\", \"label\": \"probably\"}", "none of SUPPORT"},
        {"scifact", "{\"claim\": \"a\"}", "corpus.jsonl"},
        {"truthfulqa", "{\"question\": \"a\", \"mc1_targets\": {\"choices\": [\"x\", \"y\"], \"labels\": [0, 0]}, \"mc2_targets\": {}}", "no right choice"},
        {"truthfulqa", "{\"question\": \"a\", \"mc1_targets\": [1], \"mc2_targets\": {}}", "mc1_targets"},
        {"truthfulqa", "{\"question\": \"a\", \"mc1_targets\": {\"choices\": [\"x\", \"y\"], \"labels\": [1, 2]}, \"mc2_targets\": {}}", "neither 0 nor 1"},
        {"lambada", "{\"text\": \"word\"}", "no word of its own"},
        {"lambada", "{\"text\": \"ends in space \"}", "no word of its own"},
        {"gsm8k", "{\"question\": \"a\", \"answer\": \"seven\"}", "#### NUMBER"},
        {"math", "{\"problem\": \"a\", \"solution\": \"it is 7\"}", "boxed"},
        {"humaneval", "{\"prompt\": \"a\", \"entry_point\": \"f\"}", "has no \"test\""},
        {"mbpp", "{\"text\": \"a\", \"test_list\": []}", "is empty"},
        {"ppl", "{\"nothing\": 1}", "has no \"text\""},
        {"wikitext2", "{\"page\": []}", "is not a string"},
    };
    for (const Bad &bad : list) {
        const auto items = readTask(bad.task, bad.content);
        ASSERT_FALSE(items.ok()) << bad.task << ": " << bad.content;
        EXPECT_EQ(items.error().kind, ErrorKind::input) << bad.content;
        EXPECT_THAT(items.error().what + " " + items.error().mend, HasSubstr(bad.says)) << bad.content;
        EXPECT_THAT(items.error().where, HasSubstr("data.jsonl")) << bad.content;
    }
    const auto second = readTask("choice", "{\"question\": \"a\", \"choices\": [\"x\", \"y\"], \"answer\": 0}\n\n{\"question\": 1}");
    ASSERT_FALSE(second.ok());
    EXPECT_THAT(second.error().where, HasSubstr("line 3"));
    EXPECT_FALSE(readTask("ppl", std::string("a\0b", 3), "book.txt").ok());
    EXPECT_FALSE(readTask("wikitext2", " \n", "wiki.tokens").ok());
    EXPECT_FALSE(readTask("choice", std::string("{}\0", 3)).ok());
}

TEST(Hostile, DeepAndHugeDataDoNotBreakTheReader)
{
    EXPECT_FALSE(readTask("choice", std::string(100000, '[')).ok());
    EXPECT_FALSE(readTask("choice", "{\"question\": " + std::string(100000, '{')).ok());
    std::string many;
    for (int i = 0; i < 20000; ++i)
        many += "{\"question\": \"" + std::string(200, 'q') + "\", \"choices\": [\"x\", \"y\"], \"answer\": 0}\n";
    EXPECT_EQ(goodTask("choice", many).size(), 20000u);
    const std::string word(5000000, 'w');
    EXPECT_EQ(oneItem("lambada", "{\"text\": \"" + word + " " + word + "\"}").choices[0].size(), word.size());
    EXPECT_EQ(oneItem("wikitext2", "{\"page\": \"" + std::string(2000000, '(') + "\"}").bytes, 2000000);
    EXPECT_EQ(flexibleNumber(std::string(2000000, '-')), std::nullopt);
    EXPECT_EQ(lastBoxed("\\boxed{" + std::string(2000000, '{')), std::nullopt);
    EXPECT_FALSE(finalAnswer(replaced(std::string(20000, 'x'), "x", "Final Answer: The final answer is")).has_value());
}

TEST(Evaluation, EndsAtAStopAndSaysWhichItemFailed)
{
    FakeModel model;
    const auto items = goodTask("choice", "{\"id\": \"one\", \"question\": \"a\", \"choices\": [\"x\", \"y\"], \"answer\": 0}\n{\"id\": \"two\", \"question\": \"b\", \"choices\": [\"x\", \"y\"], \"answer\": 0}");
    std::stop_source source;
    EvaluationOptions options;
    options.stop = source.get_token();
    const auto stopped = evaluate(taskOf("choice"), items, {}, model, options, [&](std::size_t, const ItemResult &) -> Result<void> {
        source.request_stop();
        return {};
    });
    ASSERT_FALSE(stopped.ok());
    EXPECT_EQ(stopped.error().kind, ErrorKind::cancelled);
    EXPECT_EQ(model.prompts.size(), 1u);
    EvaluationOptions shots;
    shots.shots = 5;
    const auto few = evaluate(taskOf("choice"), items, items, model, shots);
    ASSERT_FALSE(few.ok());
    EXPECT_THAT(few.error().where, HasSubstr("one"));
    EXPECT_FALSE(evaluate(taskOf("choice"), {}, {}, model, {}).ok());
}

} // namespace
} // namespace spectra::test
