// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/app/cli/program.h"

#include <gmock/gmock.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <thread>

namespace spectra::test {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::IsEmpty;

TEST_F(Program, EverySubcommandExplainsItselfWithAnExample)
{
    for (const char *name : {"models", "inspect", "tokenize", "logits", "trace", "upcycle", "calibrate", "metrics", "embed", "sinkhorn", "figure", "report", "train", "sweep", "eval", "placement", "roma-bank"}) {
        const Ran ran = run({name, "--help"});
        EXPECT_EQ(ran.code, 0) << name;
        EXPECT_THAT(ran.out, HasSubstr("Example:\n  spectra " + std::string(name))) << name;
        for (const char *flag : {"--threads", "--device", "--seed", "--quiet", "--log-level", "--overwrite"})
            EXPECT_THAT(ran.out, HasSubstr(flag)) << name;
    }
    EXPECT_THAT(run({"--version"}).out, HasSubstr("spectra"));
}

TEST_F(Program, WrongUsageIsExitTwo)
{
    expect(2, {});
    expect(2, {"no-such-subcommand"});
    expect(2, {"train"});
    expect(2, {"trace"});
    expect(2, {"trace", "moe", "-o", "x.h5"});
    expect(2, {"metrics", "--no-such-flag"});
    expect(2, {"metrics", "t.h5", "--only", "no_such_metric"});
    expect(2, {"metrics", "t.h5", "--by", "moon"});
    expect(2, {"trace", "moe", "--text", "a", "-o", "x.h5", "--capture", "standard,+nonsense"});
    expect(2, {"trace", "moe", "--text", "a", "-o", "x.h5", "--seq-len", "1"});
    expect(2, {"trace", "moe", "--text", "a", "-o", "x.h5", "--mask-expert", "0"});
    expect(2, {"trace", "moe", "--text", "a", "-o", "x.h5", "--mask-expert", "0:99"});
    expect(2, {"trace", "moe", "--text", "a", "-o", "x.h5", "--set", "sinkhorn_epsilon=-1"});
    expect(2, {"trace", "moe", "--text", "a", "-o", "x.h5", "--set", "router_dim=16"});
    expect(2, {"trace", "moe", "--text", "a", "-o", "x.h5", "--set", "sinkhorn_scope=sequence"});
    expect(2, {"trace", "dense", "--text", "a", "-o", "x.h5", "--router", "no_such_router"});
    expect(2, {"figure", "no-such-kind", "t.h5", "-o", "x.pdf"});
    expect(2, {"figure", "gram", "t.h5", "-o", "x.pdf", "--layer", "9"});
    expect(2, {"figure", "gram", "t.h5", "-o", "x.bmp"});
    expect(2, {"figure", "load", "t.h5", "-o", "x.pdf", "--domain", "nowhere"});
    expect(2, {"embed", "t.h5", "--what", "hidden", "--layer", "9", "-o", "x.npy"});
    expect(2, {"tokenize", "moe", "--ids", "1,x"});
    EXPECT_THAT(named("x."), IsEmpty());
}

TEST_F(Program, InputThatIsRefusedIsExitThreeAndLeavesNothing)
{
    expect(3, {"trace", "nowhere", "--text", "a", "-o", "x.h5"});
    expect(3, {"trace", "moe", "--text", "", "-o", "x.h5"});
    expect(3, {"trace", "moe", "-p", "nowhere.txt", "-o", "x.h5"});
    expect(3, {"metrics", "nowhere.h5"});
    std::ofstream(at("binary.txt"), std::ios::binary) << std::string("text\0more", 9);
    expect(3, {"trace", "moe", "-p", "binary.txt", "-o", "x.h5"});
    std::ofstream(at("empty.txt"));
    expect(3, {"trace", "moe", "-p", "empty.txt", "-o", "x.h5"});
    std::ofstream(at("bad.jsonl")) << "{\"text\": \"a\"}\n{\"nothing\": 1}\n";
    EXPECT_THAT(expect(3, {"trace", "moe", "-p", "bad.jsonl", "-o", "x.h5"}).err, HasSubstr("line 2"));
    expect(3, {"trace", "moe", "-p", "-", "-o", "x.h5"}, {.input = "  \n"});
    std::ofstream(at("noise.npy")) << "noise";
    expect(3, {"sinkhorn", "--input", "noise.npy"});
    expect(3, {"embed", "--input", "nowhere.npy"});
    EXPECT_THAT(named("x."), IsEmpty());
}

TEST_F(Program, HostileModelsAndTracesAreRefused)
{
    const auto file = [&](const std::string &name, const std::string &bytes) {
        fs::create_directories(at(name).parent_path());
        std::ofstream(at(name), std::ios::binary) << bytes;
    };
    const auto number = [](std::uint64_t n) {
        std::string bytes(8, '\0');
        std::memcpy(bytes.data(), &n, 8);
        return bytes;
    };
    std::string noise;
    for (unsigned i = 0, x = 1; i < 5000; ++i) {
        x = x * 1664525u + 1013904223u;
        noise += static_cast<char>(x >> 24);
    }
    file("h/empty.gguf", "");
    file("h/short.gguf", std::string("GGUF\x03\0\0\0", 8));
    file("h/counts.gguf", std::string("GGUF\x03\0\0\0", 8) + number(1ull << 63) + number(1ull << 63));
    file("h/noise.gguf", noise);
    file("h/empty.h5", "");
    file("h/noise.h5", "\x89HDF\r\n\x1a\n" + noise);
    std::vector<std::string> models{"h/empty.gguf", "h/short.gguf", "h/counts.gguf", "h/noise.gguf", "h/empty.h5", "h/noise.h5"};
    const std::string header = R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}      )";
    const std::string good = number(header.size()) + header + std::string(4, '\0');
    std::string range = good;
    range.replace(range.find("[0,4]"), 5, "[0,9]");
    const std::string config = R"({"model_type":"llama","hidden_size":4,"num_hidden_layers":1,"num_attention_heads":1,"intermediate_size":4,"vocab_size":4})";
    for (const auto &[name, bytes] : std::vector<std::pair<std::string, std::string>>{
             {"length", number(1ull << 62)}, {"json", number(4) + "{{{{"}, {"range", range}, {"cut", good.substr(0, good.size() - 2)}, {"missing", good}}) {
        file("h/" + name + "/config.json", config);
        file("h/" + name + "/tokenizer.json", tinyTokenizerJson());
        file("h/" + name + "/model.safetensors", bytes);
        models.push_back("h/" + name);
    }
    file("h/pickle/config.json", config);
    file("h/pickle/tokenizer.json", tinyTokenizerJson());
    file("h/pickle/pytorch_model.bin", "\x80\x02}.");
    models.push_back("h/pickle");
    // More than any machine holds.
    (void)tinyModel("llama-gqa", at("h/huge"));
    auto huge = nlohmann::json::parse(readText(at("h/huge/config.json")));
    huge["vocab_size"] = 1000000000;
    huge["hidden_size"] = 1000000;
    file("h/huge/config.json", huge.dump());
    models.push_back("h/huge");
    for (const std::string &model : models) {
        const Ran ran = expect(3, {"trace", model, "--text", "hello", "-o", "x.h5"});
        EXPECT_THAT(ran.err, HasSubstr(fs::path(model).filename().string())) << "the place is named";
    }
    for (const char *trace : {"h/empty.h5", "h/noise.h5", "h/counts.gguf"})
        expect(3, {"metrics", trace});
    expect(3, {"figure", "gram", "h/noise.h5", "-o", "x.pdf"});
    expect(3, {"report", "h/noise.h5", "-o", "x.report"});
    EXPECT_THAT(named("x."), IsEmpty());
}

TEST_F(Program, OutputsAreLeftAloneWithoutOverwrite)
{
    writeArray(at("eye.npy"), 3, 3, {1, 0, 0, 0, 1, 0, 0, 0, 1});
    const auto keeps = [&](const std::string &output, std::vector<std::string> arguments) {
        std::ofstream(at(output), std::ios::binary) << "mine";
        expect(1, arguments);
        EXPECT_EQ(readText(at(output)), "mine") << arguments[0];
        arguments.push_back("--overwrite");
        EXPECT_EQ(run(arguments).code, 0) << arguments[0];
        EXPECT_NE(readText(at(output)), "mine") << arguments[0];
    };
    keeps("o.npy", {"sinkhorn", "--input", "eye.npy", "--epsilon", "1", "-o", "o.npy"});
    keeps("o.h5", {"trace", "moe", "--text", "the river", "-o", "o.h5"});
    keeps("l.h5", {"logits", "moe", "--text", "the river", "-o", "l.h5"});
    keeps("o.csv", {"metrics", "t.h5", "--only", "load_cv", "--csv", "o.csv"});
    keeps("o.pdf", {"figure", "gram", "t.h5", "-o", "o.pdf"});
    keeps("e.npy", {"embed", "--input", "eye.npy", "--method", "pca", "-o", "e.npy"});
    expect(1, {"upcycle", "dense", "-o", "moe"});
    EXPECT_EQ(run({"inspect", "moe", "--json"}).code, 0) << "the folder is as it was";
}

TEST_F(Program, PlacesThatCannotBeWrittenAreExitOne)
{
    expect(1, {"trace", "moe", "--text", "a", "-o", "/proc/nowhere/x.h5"});
    expect(1, {"trace", "moe", "--text", "a", "-o", "no/such/folder/x.h5"});
    expect(1, {"logits", "moe", "--text", "a", "-o", "/proc/nowhere/x.h5"});
    expect(1, {"upcycle", "dense", "-o", "/proc/nowhere/x"});
    expect(1, {"figure", "gram", "t.h5", "-o", "/proc/nowhere/x.pdf"});
    expect(1, {"report", "t.h5", "-o", "/proc/nowhere/x"});
    EXPECT_EQ(run({"metrics", "t.h5", "--only", "load_cv"}, {.outputPath = "/dev/full"}).code, 1) << "results that are lost are an error";
}

TEST_F(Program, AFullDiskIsExitOneWithNothingHalfWritten)
{
    const RunOptions small{.fileLimit = 20000};
    expect(1, {"trace", "moe", "-p", "law.txt", "-p", "code.txt", "-o", "full.h5"}, small);
    expect(1, {"logits", "moe", "-p", "law.txt", "-o", "full-l.h5"}, small);
    expect(1, {"upcycle", "dense", "-o", "full-moe"}, small);
    EXPECT_THAT(named("full"), IsEmpty());
}

TEST_F(Program, AFullFileSystemIsAnErrorAndLeavesNothing)
{
    fs::create_directory(at("small"));
    int failures = 0;
    for (const std::uint64_t bytes : {4096, 16384, 40960}) { // each fills up somewhere else in the work
        RunOptions small;
        small.smallFolder = at("small");
        small.smallBytes = bytes;
        for (std::vector<std::string> arguments : std::vector<std::vector<std::string>>{
                 {"trace", "moe", "-p", "law.txt", "-p", "code.txt", "--capture", "full", "-o", "small/t.h5", "--ignore-disk-space"},
                 {"logits", "moe", "-p", "law.txt", "-o", "small/l.npy"},
                 {"upcycle", "dense", "-o", "small/moe"},
                 {"calibrate", "moe", "-p", "law.txt", "--batches", "1", "--batch-tokens", "64", "-o", "small/calibrated"},
                 {"embed", "t.h5", "--what", "hidden", "--method", "pca", "-o", "small/e.npy"},
                 {"figure", "gram", "t.h5", "-o", "small/f.png"},
                 {"report", "t.h5", "-o", "small/report"}}) {
            const Ran ran = run(arguments, small);
            if (ran.code == kNoNamespace)
                GTEST_SKIP() << "no mount namespaces here";
            SCOPED_TRACE(arguments.front() + " in " + std::to_string(bytes));
            if (ran.code == 0)
                continue; // it fitted
            ++failures;
            EXPECT_EQ(ran.code, 1) << ran.err;
            EXPECT_THAT(ran.err, HasSubstr("error: "));
            EXPECT_THAT(ran.err, HasSubstr("small"));
            EXPECT_EQ(ran.left, "") << ran.err;
        }
    }
    EXPECT_GE(failures, 15) << "too much room to show anything";
}

TEST_F(Program, CtrlCStopsATraceWithinASecondAndItIsResumable)
{
    std::ofstream stream(at("long.txt"));
    for (int i = 0; i < 200000; ++i)
        stream << "the river number " << i << " in the north bends\n";
    stream.close();
    double afterSignal = 0;
    const auto interrupt = [&](const fs::path &waitFor, pid_t child) {
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
        const auto ended = [child] {
            siginfo_t info{};
            return ::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == child;
        };
        while (!fs::exists(waitFor) && std::chrono::steady_clock::now() < end && !ended())
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
        std::this_thread::sleep_for(std::chrono::milliseconds(1500)); // so that some sequences are done
        afterSignal = static_cast<double>(std::chrono::steady_clock::now().time_since_epoch().count()) / 1e9;
        ::kill(child, SIGINT);
    };
    const std::vector<std::string> arguments{"trace", "moe", "-p", "long.txt", "--max-tokens", "400000", "--seq-len", "64", "-o", "stopped.h5", "--quiet"};
    RunOptions options;
    options.whileRunning = [&](pid_t child) { interrupt(at("stopped.h5.part"), child); };
    const Ran ran = expect(130, arguments, options);
    const double took = static_cast<double>(std::chrono::steady_clock::now().time_since_epoch().count()) / 1e9 - afterSignal;
    EXPECT_LT(took, 10) << "a second on an idle machine";
    EXPECT_THAT(ran.err, HasSubstr("stopped.h5.part"));
    EXPECT_THAT(ran.err, HasSubstr("--resume"));
    EXPECT_EQ(named("stopped"), std::vector<std::string>{"stopped.h5.part"});
    EXPECT_EQ(run({"inspect", "stopped.h5.part", "--json"}).code, 0);
    // Another trace in its place, with what the flag promises.
    expect(3, {"trace", "moe", "-p", "law.txt", "-o", "stopped.h5", "--resume"});
    EXPECT_EQ(named("stopped"), std::vector<std::string>{"stopped.h5.part"});
    EXPECT_EQ(run({"trace", "moe", "-p", "law.txt", "-o", "stopped.h5"}).code, 0) << "a new run replaces it";
    EXPECT_EQ(named("stopped"), std::vector<std::string>{"stopped.h5"});
}

TEST_F(Program, CtrlCStopsTokenisationOfAHugePromptWithoutATrace)
{
    {
        std::ofstream stream(at("huge.txt"), std::ios::binary);
        std::string block;
        while (block.size() < (1u << 20))
            block += "the river in the north bends twice before the mill\n";
        for (int i = 0; i < 100; ++i)
            stream << block;
    }
    RunOptions options;
    options.whileRunning = [](pid_t child) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1500));
        ::kill(child, SIGINT);
    };
    expect(130, {"trace", "moe", "-p", "huge.txt", "-o", "huge.h5", "--quiet"}, options);
    EXPECT_EQ(named("huge.h5"), std::vector<std::string>{});
    // Its beginning is quickly done: a book is not tokenised for its first page.
    EXPECT_EQ(json({"trace", "moe", "-p", "huge.txt", "--max-tokens", "100", "-o", "page.h5"})["sequences"], 1);
    fs::remove(at("huge.txt"));
}

TEST_F(Program, TraceReportsWhatItDid)
{
    const auto t = json({"trace", "moe", "-p", "law=law.txt", "--text", "the river", "-o", "r.h5"});
    for (const char *key : {"tokens", "seconds", "tokens_per_s", "time_share", "sequences", "bytes_per_token"})
        EXPECT_TRUE(t.contains(key)) << key;
    EXPECT_GT(t["tokens"], 50);
    EXPECT_EQ(t["sequences"], 2);
    const auto i = json({"inspect", "r.h5"});
    EXPECT_EQ(i["kind"], "trace");
    EXPECT_EQ(i["domains"], nlohmann::json::array({"law", ""}));
    EXPECT_EQ(run({"inspect", "r.h5", "--validate"}).code, 0);
    const Ran piped = run({"trace", "moe", "-p", "-", "-o", "stdin.h5", "--quiet"}, {.input = "the river from a pipe"});
    EXPECT_EQ(piped.code, 0) << piped.err;
    EXPECT_THAT(piped.err, IsEmpty()) << "--quiet says nothing";
    EXPECT_THAT(piped.out, IsEmpty());
    std::ofstream(at("a=b.txt")) << "the whole name is a file";
    EXPECT_EQ(json({"trace", "moe", "-p", "a=b.txt", "-o", "equals.h5"})["sequences"], 1);
    EXPECT_EQ(json({"inspect", "equals.h5"})["domains"], nlohmann::json::array({""}));
}

TEST_F(Program, TokenizeGivesTextBackWhateverItLooksLike)
{
    for (const std::string &text : std::vector<std::string>{"the river", "[a, b]", "x=1;\n\ty", "caf\xC3\xA9 \xF0\x9F\x98\x80", "\"quoted\" 'single'", "100% {braces}", "a,b,c"}) {
        const auto t = json({"tokenize", "moe", "--text=" + text, "--no-special"});
        ASSERT_TRUE(t.contains("ids")) << text;
        EXPECT_EQ(t["ids"].size(), t["pieces"].size());
        std::string ids;
        for (const auto &id : t["ids"])
            ids += (ids.empty() ? "" : ",") + std::to_string(id.get<int>());
        EXPECT_EQ(json({"tokenize", "moe", "--ids", ids})["text"], text);
    }
    EXPECT_EQ(json({"tokenize", "moe", "--text", "the"})["ids"][0], 1) << "the BOS comes first unless told otherwise";
}

TEST_F(Program, ModelsListsRoutersWithEveryOption)
{
    const auto m = json({"models"});
    for (const char *key : {"models", "architectures", "routers"}) {
        ASSERT_TRUE(m.contains(key) && !m[key].empty()) << key;
        for (const auto &item : m[key])
            EXPECT_TRUE(item.contains("name"));
    }
    for (const auto &router : m["routers"])
        for (const auto &option : router["options"])
            for (const char *key : {"name", "type", "default", "range", "meaning"})
                EXPECT_TRUE(option.contains(key)) << router["name"] << " " << key;
    EXPECT_THAT(run({"models", "--routers"}).out, HasSubstr("sinkhorn_epsilon"));
}

TEST_F(Program, MetricsComeAsTableJsonCsvAndTex)
{
    const auto list = json({"metrics", "--list"});
    EXPECT_GT(list["metrics"].size(), 15u);
    const auto m = json({"metrics", "t.h5", "--by", "layer,domain", "--only", "load_cv,sequential_consistency", "--ci", "--csv", "m.csv", "--tex", "m.tex"})["metrics"];
    ASSERT_EQ(m.size(), 2u);
    for (const char *key : {"value", "unit", "better", "low", "high", "chance", "by"})
        EXPECT_TRUE(m["load_cv"].contains(key)) << key;
    EXPECT_EQ(m["load_cv"]["by"]["layer"].size(), 2u);
    for (const char *domain : {"law", "code", "prose"})
        EXPECT_TRUE(m["load_cv"]["by"]["domain"].contains(domain)) << domain;
    EXPECT_FALSE(m["sequential_consistency"]["chance"].is_null());
    EXPECT_LE(m["load_cv"]["low"].get<double>(), m["load_cv"]["value"].get<double>());
    EXPECT_THAT(readText(at("m.csv")), HasSubstr("load_cv,domain,law,"));
    EXPECT_THAT(readText(at("m.tex")), HasSubstr("\\begin{tabular}"));
    EXPECT_EQ(json({"metrics", "t.h5", "t.h5", "--only", "load_cv"})["traces"].size(), 2u);
    EXPECT_THAT(run({"metrics", "t.h5"}).out, HasSubstr("counted tokens"));
}

TEST_F(Program, EmbedMapsFilesAndTraces)
{
    std::vector<float> values;
    for (int i = 0; i < 60; ++i)
        for (int j = 0; j < 5; ++j)
            values.push_back(static_cast<float>((i % 3) * 10 + std::sin(i * 7 + j)));
    writeArray(at("p.npy"), 60, 5, values);
    const auto t = json({"embed", "--input", "p.npy", "--perplexity", "10", "-o", "p1.npy", "--seed", "3"});
    for (const char *key : {"kl", "trustworthiness", "continuity", "knn_recall", "seconds"})
        EXPECT_TRUE(t.contains(key)) << key;
    EXPECT_GT(t["kl"].get<double>(), 0);
    for (const char *key : {"knn", "affinities", "optimise"})
        EXPECT_TRUE(t["seconds"].contains(key));
    (void)json({"embed", "--input", "p.npy", "--perplexity", "10", "-o", "p2.npy", "--seed", "3"});
    EXPECT_EQ(readText(at("p1.npy")), readText(at("p2.npy"))) << "the same seed, the same map";
    EXPECT_TRUE(json({"embed", "--input", "p.npy", "--method", "pca"})["kl"].is_null());
    for (const char *what : {"hidden", "routing", "expression", "experts"}) {
        const std::string out = std::string("map-") + what + ".csv";
        EXPECT_EQ(run({"embed", "t.h5", "--what", what, "--method", "pca", "--layer", "1", "-o", out}).code, 0) << what;
        EXPECT_THAT(readText(at(out)), HasSubstr(",x,y\n"));
    }
}

TEST_F(Program, SinkhornKeepsItsMarginals)
{
    std::vector<float> scores;
    for (int i = 0; i < 40; ++i)
        for (int e = 0; e < 4; ++e)
            scores.push_back(static_cast<float>(std::sin(i * 3 + e) + 0.5 * e));
    writeArray(at("s.npy"), 40, 4, scores);
    const auto r = json({"sinkhorn", "--input", "s.npy", "--epsilon", "0.3", "--tolerance", "1e-5", "-o", "q.npy"});
    EXPECT_LE(r["violation"].get<double>(), 1e-5);
    const std::string bytes = readText(at("q.npy"));
    std::vector<float> plan(160);
    ASSERT_GE(bytes.size(), 640u);
    std::memcpy(plan.data(), bytes.data() + bytes.size() - 640, 640);
    for (int i = 0; i < 40; ++i)
        EXPECT_NEAR(plan[static_cast<std::size_t>(4 * i)] + plan[static_cast<std::size_t>(4 * i + 1)] + plan[static_cast<std::size_t>(4 * i + 2)] + plan[static_cast<std::size_t>(4 * i + 3)], 1, 1e-5);
    for (int e = 0; e < 4; ++e) {
        float sum = 0;
        for (int i = 0; i < 40; ++i)
            sum += plan[static_cast<std::size_t>(4 * i + e)];
        EXPECT_NEAR(sum, 10, 1e-3);
    }
    EXPECT_EQ(json({"sinkhorn", "--input", "s.npy"})["iterations"], 3) << "the default";
}

TEST_F(Program, FiguresAndReportsAreWhole)
{
    for (const char *kind : {"gram", "load", "space", "trajectory"}) {
        const std::string out = std::string(kind) + ".svg";
        const Ran ran = run({"figure", kind, "t.h5", "-o", out, "--layer", "1"});
        EXPECT_EQ(ran.code, 0) << kind << ran.err;
        EXPECT_THAT(readText(at(out)), HasSubstr("<text")) << kind;
    }
    EXPECT_EQ(run({"report", "t.h5", "-o", "report", "--quiet"}).code, 0);
    const std::string page = readText(at("report/index.html"));
    EXPECT_THAT(page, HasSubstr("load_cv"));
    EXPECT_TRUE(fs::exists(at("report/figures/gram.pdf")) && fs::exists(at("report/tables/metrics.csv")) && fs::exists(at("report/tables/metrics.tex")));
    // What the page shows is there.
    for (std::size_t p = page.find("src=\""); p != std::string::npos; p = page.find("src=\"", p + 5))
        EXPECT_TRUE(fs::exists(at("report") / page.substr(p + 5, page.find('"', p + 5) - p - 5)));
    expect(1, {"report", "t.h5", "-o", "report"});
    expect(3, {"report", "t.h5", "nowhere.h5", "-o", "report2"});
    EXPECT_THAT(named("report2"), IsEmpty());
}

TEST_F(Program, UpcycleAndCalibrateReport)
{
    const auto u = json({"upcycle", "dense", "-o", "moe2", "--experts", "4", "--set", "router_dim=8", "--noise", "0"});
    EXPECT_LT(u["max_logit_difference"].get<double>(), 1e-4);
    EXPECT_THAT(named("moe2"), testing::ElementsAre("moe2"));
    for (const char *file : {"config.json", "tokenizer.json", "tokenizer_config.json"})
        EXPECT_TRUE(fs::exists(at("moe2") / file)) << file;
    const auto c = json({"calibrate", "moe", "-p", "law.txt", "-p", "code.txt", "-o", "balanced", "--batches", "6", "--batch-tokens", "64"});
    EXPECT_EQ(c["cv_before"].size(), 2u);
    EXPECT_EQ(c["cv_after"].size(), 2u);
    EXPECT_EQ(json({"inspect", "moe2"})["experts"], 4);
    EXPECT_EQ(json({"inspect", "moe2/tokenizer.json"})["kind"], "tokenizer");
}

} // namespace
} // namespace spectra::test
