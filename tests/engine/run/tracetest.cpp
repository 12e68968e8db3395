// SPDX-License-Identifier: GPL-3.0-or-later
// Traces end to end on the tiny models: what the file says is what the model did.
#include "engine/trace/livetrace.h"
#include "engine/trace/tracereader.h"
#include "engine/trace/validator.h"
#include "tests/engine/run/runsupport.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <set>

namespace spectra::test {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;

class Traces : public testing::Test {
protected:
    TemporaryFolder m_folder{"traces"};
    Bench m_bench;

    fs::path model(const std::string &name, const TinyTokenizer &options = {}) const { return tinyModel(name, m_folder / ("m-" + name), options); }
    [[nodiscard]] TraceRequest request(const std::string &file) const
    {
        TraceRequest r;
        r.spec.device = "cpu";
        r.output = m_folder / file;
        r.dtype = "f32";
        r.sequenceLength = 48;
        r.prompts = {promptOf(someText(25, 1), "prose", 0), promptOf(someText(60, 2), "law", 1), promptOf("x=1; 3.14", "code", 2), promptOf(someText(12, 4), "prose", 3)};
        for (std::size_t i = 0; i < r.prompts.size(); ++i)
            r.prompts[i].id = "t:" + std::to_string(i + 1);
        return r;
    }
    [[nodiscard]] TraceRequest spectraRequest(const std::string &file) const
    {
        TraceRequest r = request(file);
        r.spec.model = model("llama-gqa").string();
        UpcycleSettings u;
        u.experts = 4;
        u.topK = 2;
        u.noise = 0.5;
        u.set = {"router_dim=8"};
        r.spec.upcycle = u;
        return r;
    }
    static void expectValid(const fs::path &file)
    {
        for (const Finding &f : validateTrace(file))
            if (f.severity == Finding::Severity::error)
                ADD_FAILURE() << file << ": " << f.place << ": " << f.what;
    }
    static std::shared_ptr<const TraceReader> open(const fs::path &file)
    {
        auto trace = TraceReader::open(file);
        EXPECT_TRUE(trace.ok()) << trace.error().what;
        return *trace;
    }
};

/// −log softmax of one row at `id`.
double nllOf(const float *row, std::int64_t width, std::int32_t id)
{
    const float top = *std::max_element(row, row + width);
    double sum = 0;
    for (std::int64_t i = 0; i < width; ++i)
        sum += std::exp(static_cast<double>(row[i]) - static_cast<double>(top));
    return std::log(sum) + static_cast<double>(top) - static_cast<double>(row[id]);
}

TEST_F(Traces, AreValidAndAgreeWithTheLogitsOfTheSameTokens)
{
    for (const bool spectra : {false, true}) {
        TraceRequest r = spectra ? spectraRequest("s.h5") : request("m.h5");
        if (!spectra)
            r.spec.model = model("mixtral-gqa").string();
        r.capture = Capture::full();
        const Summary summary = m_bench.good(r);
        EXPECT_EQ(summary.output, r.output);
        expectValid(r.output);
        const auto trace = open(r.output);
        const auto info = trace->info();
        EXPECT_EQ(info->tokens, summary.tokens);
        EXPECT_EQ(info->sequences, summary.sequences);
        EXPECT_EQ(info->domains, (std::vector<std::string>{"prose", "law", "code"}));
        EXPECT_EQ(info->layers(), 2);
        EXPECT_EQ(info->model.router, spectra ? "spectra" : "softmax_topk");
        EXPECT_EQ(info->model.checkpointSha256.size(), 64u);
        EXPECT_EQ(info->model.note.empty(), !spectra) << "a fresh router is named as such";
        const auto sequences = **trace->sequences();
        ASSERT_GT(sequences.size(), 4u) << "the long prompt is cut";
        for (const SequenceInfo &s : sequences) {
            EXPECT_LE(s.length, 48);
            EXPECT_EQ(s.counted, s.length - 1) << "all but the BOS";
            EXPECT_EQ(s.promptLength, s.length);
        }
        double shares = 0;
        for (const auto &[name, share] : summary.timeShares) {
            EXPECT_GE(share, 0) << name;
            shares += share;
        }
        EXPECT_NEAR(shares, 1, 1e-6);

        // Each sequence again through the logits job, which shares no recording code with the trace.
        for (std::size_t s = 0; s < sequences.size(); ++s) {
            const TokenRange range{sequences[s].offset, sequences[s].offset + sequences[s].length};
            const auto tokens = *trace->tokens(range);
            LogitsRequest l;
            l.spec = r.spec;
            l.prompt.id = "ids";
            l.prompt.ids = tokens->id;
            l.layers = true;
            l.overwrite = true;
            l.output = m_folder / "logits.h5";
            (void)m_bench.good(l);
            const Values logits = readValues(l.output, "/logits");
            const std::int64_t n = range.size(), vocabulary = logits.shape.at(1);
            ASSERT_EQ(logits.shape[0], n);
            for (std::int64_t i = 0; i < n; ++i) {
                const float *row = logits.values.data() + i * vocabulary;
                EXPECT_EQ(tokens->position[static_cast<std::size_t>(i)], i);
                EXPECT_EQ(tokens->nextTop1[static_cast<std::size_t>(i)], std::max_element(row, row + vocabulary) - row);
                if (i + 1 == n) {
                    EXPECT_TRUE(std::isnan(tokens->nll[static_cast<std::size_t>(i)])) << "nothing follows the last token";
                } else {
                    EXPECT_NEAR(static_cast<double>(tokens->nll[static_cast<std::size_t>(i)]), nllOf(row, vocabulary, tokens->id[static_cast<std::size_t>(i + 1)]), 1e-4);
                }
            }
            for (int layer = 0; layer < info->layers(); ++layer) {
                const std::string group = "/router/" + std::to_string(info->decoderIndex[static_cast<std::size_t>(layer)]) + "/";
                const auto near = [&](Column column, const char *name) {
                    const auto block = *trace->block(column, layer, range);
                    const Values expected = readValues(l.output, group + name);
                    ASSERT_EQ(block->f32.size(), expected.values.size()) << name;
                    for (std::size_t i = 0; i < block->f32.size(); ++i)
                        ASSERT_NEAR(block->f32[i], expected.values[i], 2e-5f) << name << " " << i;
                };
                near(Column::probabilities, "probabilities");
                near(Column::logits, "logits");
                near(Column::weights, "weights");
                const auto experts = *trace->block(Column::experts, layer, range);
                const Values expected = readValues(l.output, group + "experts");
                for (std::size_t i = 0; i < experts->u16.size(); ++i)
                    EXPECT_EQ(static_cast<float>(experts->u16[i]), expected.values[i]);
            }
        }
    }
}

TEST_F(Traces, BatchesGiveTheSameTraceWithinRounding)
{
    TraceRequest one = spectraRequest("one.h5"), four = spectraRequest("four.h5");
    one.capture = four.capture = Capture::full();
    four.batch = 4;
    (void)m_bench.good(one);
    (void)m_bench.good(four);
    expectValid(four.output);
    expectSame(readAll(one.output), readAll(four.output), 2e-4f);
}

TEST_F(Traces, AreTheSameEveryTimeAndDoNotDependOnDtypeBeyondRounding)
{
    TraceRequest a = spectraRequest("a.h5"), b = spectraRequest("b.h5"), half = spectraRequest("half.h5");
    half.dtype = "f16";
    for (const TraceRequest &r : {a, b, half})
        (void)m_bench.good(r);
    expectSame(readAll(a.output), readAll(b.output));
    expectSame(readAll(a.output), readAll(half.output), 6e-3f);
}

TEST_F(Traces, GreedyGenerationGivesTheReferencesTokens)
{
    for (const char *name : {"mixtral-gqa", "mixtral-tied"}) {
        const auto expected = readExpectedArrays(fs::path(SPECTRA_TEST_DIR) / "fixtures" / "models" / name / "expected.safetensors");
        std::vector<std::int32_t> ids;
        for (const char *part : {"prompt", "generated"})
            for (std::int64_t id : expected.at(part).i64)
                ids.push_back(static_cast<std::int32_t>(id));
        const std::size_t prompt = expected.at("prompt").i64.size();
        TraceRequest r = request(std::string(name) + ".h5");
        r.spec.model = tinyModel(name, m_folder / "noend", {true, -1}).string();
        Prompt p;
        p.id = "ids";
        p.ids.assign(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(prompt));
        r.prompts = {p};
        r.maxNewTokens = 64;
        const Summary summary = m_bench.good(r);
        expectValid(r.output);
        const auto trace = open(r.output);
        const auto tokens = *trace->tokens({0, trace->info()->tokens});
        EXPECT_EQ(tokens->id, ids) << name;
        for (std::size_t i = 0; i < tokens->id.size(); ++i) {
            EXPECT_EQ(tokens->phase[i], i < prompt ? 0 : 1);
            // Greedy: what came is what was most likely.
            if (i + 1 >= prompt && i + 1 < tokens->id.size()) {
                EXPECT_EQ(tokens->nextTop1[i], tokens->id[i + 1]);
            }
        }
        EXPECT_EQ((**trace->sequences())[0].promptLength, static_cast<std::int32_t>(prompt));
        EXPECT_EQ((**trace->sequences())[0].length, static_cast<std::int64_t>(ids.size()));
        EXPECT_FALSE(summary.text.empty());

        // One token at a time or all at once: the same values.
        TraceRequest whole = r;
        whole.output = m_folder / (std::string(name) + "-whole.h5");
        whole.maxNewTokens = 0;
        whole.prompts[0].ids = ids;
        (void)m_bench.good(whole);
        const FileContent a = readAll(r.output), b = readAll(whole.output);
        for (const char *path : {"/tokens/nll", "/routing/probabilities", "/routing/weights", "/experts/input_mean", "/tokens/next_top1"}) {
            ASSERT_TRUE(a.numbers.contains(path)) << path;
            const auto &x = a.numbers.at(path).values, &y = b.numbers.at(path).values;
            ASSERT_EQ(x.size(), y.size()) << path;
            for (std::size_t i = 0; i < x.size(); ++i)
                if (!std::isnan(x[i]) || !std::isnan(y[i])) {
                    ASSERT_NEAR(x[i], y[i], 2e-4f) << path << " " << i;
                }
        }
    }
}

TEST_F(Traces, AnEndTokenStopsGeneration)
{
    const auto expected = readExpectedArrays(fs::path(SPECTRA_TEST_DIR) / "fixtures" / "models" / "mixtral-gqa" / "expected.safetensors");
    const auto &generated = expected.at("generated").i64;
    // An id that first comes up some tokens into the text.
    std::size_t at = 0;
    for (std::size_t i = 3; at == 0 && i < generated.size(); ++i)
        if (std::find(generated.begin(), generated.begin() + static_cast<std::ptrdiff_t>(i), generated[i]) == generated.begin() + static_cast<std::ptrdiff_t>(i))
            at = i;
    ASSERT_GT(at, 0u);
    TraceRequest r = request("end.h5");
    r.spec.model = tinyModel("mixtral-gqa", m_folder / "end", {true, static_cast<std::int32_t>(generated[at])}).string();
    Prompt p;
    p.id = "ids";
    for (std::int64_t id : expected.at("prompt").i64)
        p.ids.push_back(static_cast<std::int32_t>(id));
    r.prompts = {p};
    r.maxNewTokens = 64;
    (void)m_bench.good(r);
    expectValid(r.output);
    const auto trace = open(r.output);
    ASSERT_EQ(trace->info()->tokens, static_cast<std::int64_t>(p.ids.size() + at));
    const auto tokens = *trace->tokens({0, trace->info()->tokens});
    EXPECT_TRUE(std::isnan(tokens->nll.back()));
    EXPECT_EQ(tokens->nextTop1.back(), generated[at]) << "the end token itself is not part of the text";
}

TEST_F(Traces, SampledTextDependsOnTheSeedOnly)
{
    const auto text = [&](std::uint64_t seed, double temperature) {
        TraceRequest r = request("sample.h5");
        r.spec.model = model("mixtral-gqa").string();
        r.spec.seed = seed;
        r.prompts = {r.prompts[0], r.prompts[0]};
        r.prompts[1].id = "t:2";
        r.maxNewTokens = 24;
        r.sampling.temperature = temperature;
        r.overwrite = true;
        (void)m_bench.good(r);
        expectValid(r.output);
        const auto trace = open(r.output);
        return (*trace->tokens({0, trace->info()->tokens}))->id;
    };
    const auto a = text(1, 1.5);
    EXPECT_EQ(a, text(1, 1.5));
    EXPECT_NE(a, text(2, 1.5));
    EXPECT_NE(a, text(1, 0));
    EXPECT_FALSE(std::equal(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(a.size() / 2), a.begin() + static_cast<std::ptrdiff_t>(a.size() / 2), a.end()))
        << "each sequence draws for itself";
}

TEST_F(Traces, MaskedExpertsNeverAppearAndForcedOnesAlways)
{
    TraceRequest r = request("i.h5");
    r.spec.model = model("mixtral-gqa").string();
    r.maskExperts = {{0, 1}, {1, 0}, {1, 2}};
    r.forceExperts = {{0, 3}};
    (void)m_bench.good(r);
    expectValid(r.output);
    const auto trace = open(r.output);
    const TokenRange all{0, trace->info()->tokens};
    const auto first = *trace->block(Column::experts, 0, all), weights = *trace->block(Column::weights, 0, all), second = *trace->block(Column::weights, 1, all);
    const auto secondIds = *trace->block(Column::experts, 1, all);
    for (std::int64_t i = 0; i < all.last; ++i) {
        bool forced = false;
        for (std::size_t k = 0; k < 2; ++k) {
            const std::size_t at = static_cast<std::size_t>(2 * i) + k;
            forced = forced || first->u16[at] == 3;
            if (first->u16[at] == 1) {
                EXPECT_EQ(weights->f32[at], 0);
            }
            if (secondIds->u16[at] == 0 || secondIds->u16[at] == 2) {
                EXPECT_EQ(second->f32[at], 0);
            }
        }
        EXPECT_TRUE(forced) << i;
    }
    for (const auto &[layer, expert] : {std::pair{7, 0}, {0, 4}}) {
        TraceRequest wrong = request("w.h5");
        wrong.spec.model = r.spec.model;
        wrong.maskExperts = {{layer, expert}};
        const Error error = m_bench.bad(wrong);
        EXPECT_EQ(error.kind, ErrorKind::usage);
        EXPECT_THAT(error.where, HasSubstr("--mask-expert"));
        EXPECT_FALSE(fs::exists(wrong.output) || fs::exists(wrong.output.string() + ".part"));
    }
}

/// Stops a trace when so many tokens have gone through the model.
Error stopAfter(Bench &bench, const TraceRequest &r, std::int64_t tokens)
{
    bench.sink->onEvent([&bench, tokens](const CollectingSink::Event &e) {
        if (e.kind == "progress" && e.progress.stage == "running the model" && e.progress.done >= tokens)
            bench.engine.cancel(e.job);
    });
    const Error error = bench.bad(r);
    bench.sink->onEvent({});
    return error;
}

TEST_F(Traces, AResumedRunGivesTheDatasetsOfAnUninterruptedOne)
{
    struct Case {
        const char *name;
        int batch, newTokens;
        Capture capture;
    };
    for (const Case &c : {Case{"full", 1, 0, Capture::full()}, {"batch", 3, 0, Capture::standard()}, {"minimal", 3, 0, Capture::minimal()}, {"generated", 1, 6, Capture::full()}}) {
        TraceRequest r = spectraRequest(std::string(c.name) + ".h5");
        for (unsigned i = 0; i < 14; ++i) {
            r.prompts.push_back(promptOf(someText(40, 100 + i), i % 2 == 0 ? "even" : "odd", static_cast<int>(10 + i)));
            r.prompts.back().id = "more:" + std::to_string(i);
        }
        r.batch = c.batch;
        r.maxNewTokens = c.newTokens;
        r.capture = c.capture;
        r.hiddenTokens = 200;
        r.sampling.temperature = c.newTokens > 0 ? 1 : 0;
        TraceRequest whole = r;
        whole.output = m_folder / (std::string(c.name) + "-whole.h5");
        (void)m_bench.good(whole);

        const Error error = stopAfter(m_bench, r, 500);
        EXPECT_EQ(error.kind, ErrorKind::cancelled) << c.name;
        const fs::path part = r.output.string() + ".part";
        EXPECT_THAT(error.where, HasSubstr(part.string())) << "what is kept is named";
        EXPECT_THAT(error.mend, HasSubstr("--resume"));
        ASSERT_TRUE(fs::exists(part)) << c.name;
        EXPECT_FALSE(fs::exists(r.output));
        {
            const auto partial = open(part);
            EXPECT_FALSE(partial->info()->complete);
            EXPECT_GT(partial->info()->tokens, 100);
            EXPECT_LT(partial->info()->tokens, open(whole.output)->info()->tokens);
        }
        // With other prompts or settings it is refused, and stays what it is.
        TraceRequest other = r;
        other.resume = true;
        other.prompts[0] = promptOf("another beginning", "prose", 0);
        EXPECT_EQ(m_bench.bad(other).kind, ErrorKind::input) << c.name;
        other = r;
        other.resume = true;
        other.spec.seed = 99;
        EXPECT_EQ(m_bench.bad(other).kind, ErrorKind::input) << c.name;
        ASSERT_TRUE(fs::exists(part)) << c.name;

        r.resume = true;
        (void)m_bench.good(r);
        EXPECT_FALSE(fs::exists(part));
        expectValid(r.output);
        expectSame(readAll(whole.output), readAll(r.output));
        // Finished: there is nothing to go on with, and the file stays.
        EXPECT_EQ(m_bench.bad(r).kind, ErrorKind::work);
        expectSame(readAll(whole.output), readAll(r.output));
    }
}

TEST_F(Traces, ANewRunReplacesAPartAndRefusesAnExistingOutput)
{
    TraceRequest r = spectraRequest("again.h5");
    for (unsigned i = 0; i < 10; ++i)
        r.prompts.push_back(promptOf(someText(40, 100 + i), "more", static_cast<int>(10 + i)));
    (void)stopAfter(m_bench, r, 200);
    ASSERT_TRUE(fs::exists(r.output.string() + ".part"));
    (void)m_bench.good(r);
    const std::string before = readText(r.output);
    const Error error = m_bench.bad(r);
    EXPECT_EQ(error.kind, ErrorKind::work);
    EXPECT_THAT(error.where, HasSubstr("again.h5"));
    EXPECT_EQ(readText(r.output), before);
    r.overwrite = true;
    (void)m_bench.good(r);
    EXPECT_FALSE(fs::exists(r.output.string() + ".part"));
}

TEST_F(Traces, ALiveTraceEqualsTheFile)
{
    TraceRequest r = spectraRequest("file.h5");
    r.capture = Capture::full();
    (void)m_bench.good(r);
    const auto file = open(r.output);
    r.output.clear();
    const Summary summary = m_bench.good(r);
    ASSERT_TRUE(summary.trace);
    const auto live = summary.trace;
    EXPECT_EQ(live->info()->tokens, file->info()->tokens);
    EXPECT_EQ(live->info()->domains, file->info()->domains);
    const TokenRange all{0, file->info()->tokens};
    const auto a = *file->tokens(all), b = *live->tokens(all);
    EXPECT_EQ(a->id, b->id);
    EXPECT_EQ(a->text, b->text);
    EXPECT_EQ(a->mask, b->mask);
    EXPECT_EQ(a->byteOffset, b->byteOffset);
    for (std::size_t i = 0; i < a->nll.size(); ++i)
        EXPECT_TRUE(a->nll[i] == b->nll[i] || (std::isnan(a->nll[i]) && std::isnan(b->nll[i])));
    for (int layer = 0; layer < file->info()->layers(); ++layer)
        for (const Column column : {Column::experts, Column::weights, Column::probabilities, Column::logits, Column::entropy}) {
            ASSERT_EQ(file->info()->has(column), live->info()->has(column));
            const auto x = *file->block(column, layer, all), y = *live->block(column, layer, all);
            EXPECT_EQ(x->f32, y->f32);
            EXPECT_EQ(x->u16, y->u16);
        }
    for (const Table table : {Table::gramExpression, Table::meanExpression, Table::bufferPotential, Table::expertInputMean}) {
        const auto x = file->table(table, 1), y = live->table(table, 1);
        ASSERT_TRUE(x.ok() && y.ok());
        ASSERT_EQ((*x)->values.size(), (*y)->values.size());
        for (std::size_t i = 0; i < (*x)->values.size(); ++i)
            EXPECT_NEAR((*x)->values[i], (*y)->values[i], 1e-5f);
    }
}

TEST_F(Traces, ALiveTraceIsSavedAsTheFileOfTheRun)
{
    TraceRequest r = spectraRequest("file.h5");
    r.capture = Capture::full();
    r.hiddenTokens = 80; // of about 130: some sequences are in the sample, some are not
    (void)m_bench.good(r);
    const auto file = open(r.output);
    r.output.clear();
    const Summary summary = m_bench.good(r);
    const auto live = std::dynamic_pointer_cast<const LiveTrace>(summary.trace);
    ASSERT_TRUE(live);
    const fs::path path = m_folder / "saved.h5";
    const auto saved = live->save(path, false);
    ASSERT_TRUE(saved.ok()) << saved.error().what;
    expectValid(path);
    const auto copy = open(path);
    EXPECT_GT(copy->info()->environment.wallSeconds, 0);
    const TokenRange all{0, file->info()->tokens};
    for (const Column column : {Column::experts, Column::weights, Column::logits, Column::expressionVectors, Column::gruPca, Column::hidden}) {
        ASSERT_EQ(file->info()->has(column), copy->info()->has(column)) << static_cast<int>(column);
        for (int layer = 0; file->info()->has(column) && layer < file->info()->layers(); ++layer) {
            const auto x = *file->block(column, layer, all), y = *copy->block(column, layer, all);
            EXPECT_EQ(x->token, y->token) << static_cast<int>(column);
            EXPECT_EQ(x->u16, y->u16);
            ASSERT_EQ(x->f32.size(), y->f32.size());
            for (std::size_t i = 0; i < x->f32.size(); ++i)
                ASSERT_NEAR(x->f32[i], y->f32[i], 2e-3) << static_cast<int>(column); // a live run keeps the default float16
        }
    }
    EXPECT_GT(copy->info()->sampledTokens, 0);
    EXPECT_LT(copy->info()->sampledTokens, file->info()->tokens);
}

TEST_F(Traces, AStoppedLiveRunHasEndedAndIsSavedAsFarAsItCame)
{
    for (const int newTokens : {0, 8}) {
        TraceRequest r = spectraRequest("none.h5");
        r.output.clear();
        r.batch = 1;
        r.maxNewTokens = newTokens;
        for (unsigned i = 0; i < 12; ++i)
            r.prompts.push_back(promptOf(someText(30, 50 + i), "more", static_cast<int>(10 + i)));
        JobId job = 0;
        m_bench.sink->onEvent([&](const CollectingSink::Event &e) {
            job = e.job;
            if (e.kind == "progress" && e.progress.stage == "running the model" && e.progress.done >= 150)
                m_bench.engine.cancel(e.job);
        });
        EXPECT_EQ(m_bench.bad(r).kind, ErrorKind::cancelled);
        m_bench.sink->onEvent({});
        const auto live = std::dynamic_pointer_cast<const LiveTrace>(m_bench.sink->traceOf(job));
        ASSERT_TRUE(live);
        EXPECT_TRUE(live->info()->complete) << "nothing more comes";
        ASSERT_GE(live->info()->tokens, 100);
        const fs::path path = m_folder / ("stopped" + std::to_string(newTokens) + ".h5");
        const auto saved = live->save(path, false);
        ASSERT_TRUE(saved.ok()) << saved.error().what;
        expectValid(path);
        const auto file = open(path);
        EXPECT_EQ(file->info()->tokens, live->info()->tokens);
        EXPECT_THAT(file->info()->model.note, HasSubstr("stopped"));
        EXPECT_TRUE(file->info()->has(Table::meanExpression)) << "of the sequences that have ended";
    }
}

TEST_F(Traces, GenerateStreamsTheTokensOfItsLiveTrace)
{
    GenerateRequest g;
    g.spec.model = model("mixtral-gqa").string();
    g.text = "the river bends";
    g.maxNewTokens = 12;
    const auto job = m_bench.engine.submit(g);
    ASSERT_TRUE(job.ok());
    const auto result = m_bench.sink->wait(*job);
    ASSERT_TRUE(result.ok()) << result.error().what;
    const auto events = m_bench.sink->tokensOf(*job);
    const auto trace = m_bench.sink->traceOf(*job);
    ASSERT_TRUE(trace);
    ASSERT_EQ(static_cast<std::int64_t>(events.size()), trace->info()->tokens);
    const TokenRange all{0, trace->info()->tokens};
    const auto tokens = *trace->tokens(all);
    for (std::size_t i = 0; i < events.size(); ++i) {
        EXPECT_EQ(events[i].token, static_cast<std::int64_t>(i));
        EXPECT_EQ(events[i].id, tokens->id[i]);
        EXPECT_EQ(events[i].text, tokens->text[i]);
        EXPECT_EQ(events[i].generated, tokens->phase[i] == 1);
        ASSERT_EQ(events[i].topExperts.size(), 2u);
        for (int layer = 0; layer < 2; ++layer)
            EXPECT_EQ(events[i].topExperts[static_cast<std::size_t>(layer)], (*trace->block(Column::experts, layer, all))->u16[2 * i]);
    }
    EXPECT_EQ(m_bench.bad([&] { GenerateRequest empty = g; empty.text.clear(); return empty; }()).kind, ErrorKind::input);
}

TEST_F(Traces, RoutersThatLookAheadNeedLeaveAndGiveNoNll)
{
    for (const char *scope : {"sequence", "batch"}) {
        TraceRequest r = spectraRequest(std::string(scope) + ".h5");
        r.spec.upcycle->set.push_back(std::string("sinkhorn_scope=") + scope);
        const Error error = m_bench.bad(r);
        EXPECT_EQ(error.kind, ErrorKind::usage);
        EXPECT_THAT(error.mend, HasSubstr("--allow-noncausal"));
        EXPECT_FALSE(fs::exists(r.output.string() + ".part"));
        r.allowNonCausal = true;
        r.batch = 2;
        (void)m_bench.good(r);
        expectValid(r.output);
        const auto trace = open(r.output);
        EXPECT_FALSE(trace->info()->hasNll);
        EXPECT_FALSE(trace->info()->model.causal);
        EXPECT_TRUE(trace->info()->hasNextTop1);
        // One entry per transport: a sequence, or the sequences that ran together.
        const auto sequences = static_cast<std::int64_t>((**trace->sequences()).size());
        const std::int64_t transports = std::string(scope) == "sequence" ? sequences : (sequences + 1) / 2;
        const Values violation = readValues(r.output, "/sinkhorn/violation"), offset = readValues(r.output, "/sinkhorn/batch_offset");
        EXPECT_EQ(violation.shape, (std::vector<std::int64_t>{2, transports})) << scope;
        ASSERT_EQ(offset.values.size(), static_cast<std::size_t>(transports) + 1);
        EXPECT_EQ(offset.values.front(), 0);
        EXPECT_EQ(offset.values.back(), static_cast<float>(trace->info()->tokens)) << scope;
    }
}

TEST_F(Traces, DenseModelsHaveTokensAndNoRouting)
{
    TraceRequest r = request("dense.h5");
    r.spec.model = model("llama-gqa").string();
    (void)m_bench.good(r);
    expectValid(r.output);
    const auto info = open(r.output)->info();
    EXPECT_EQ(info->layers(), 0);
    EXPECT_TRUE(info->hasNll);
    EXPECT_EQ(info->model.router, "dense");
}

TEST_F(Traces, RouterSettingsAreCheckedAndShapesStay)
{
    (void)m_bench.good([&] {
        UpcycleRequest u;
        u.spec.model = model("llama-gqa").string();
        u.settings.set = {"router_dim=8"};
        u.output = m_folder / "moe";
        return u;
    }());
    TraceRequest r = request("s.h5");
    r.spec.model = (m_folder / "moe").string();
    r.spec.set = {"sinkhorn_epsilon=0.3"};
    (void)m_bench.good(r);
    EXPECT_NEAR(*open(r.output)->info()->model.sinkhornEpsilon, 0.3, 1e-9);
    const auto refused = [&](std::vector<std::string> set, const char *says) {
        TraceRequest bad = request("bad.h5");
        bad.spec.model = r.spec.model;
        bad.spec.set = std::move(set);
        const Error error = m_bench.bad(bad);
        EXPECT_EQ(error.kind, ErrorKind::usage) << error.what;
        EXPECT_THAT(error.what + " " + error.where + " " + error.mend, HasSubstr(says));
        EXPECT_FALSE(fs::exists(bad.output.string() + ".part"));
    };
    refused({"router_dim=16"}, "router_dim");
    refused({"sinkhorn_epsilon=-1"}, "sinkhorn_epsilon");
    refused({"no_such_thing=1"}, "no_such_thing");
    refused({"sinkhorn_epsilon"}, "sinkhorn_epsilon");
    refused({"gru_axis=sideways"}, "gru_axis");
    TraceRequest unknown = request("bad.h5");
    unknown.spec.model = r.spec.model;
    unknown.spec.upcycle = UpcycleSettings{.router = "no_such_router"};
    EXPECT_EQ(m_bench.bad(unknown).kind, ErrorKind::usage);
    TraceRequest dense = request("bad.h5");
    dense.spec.model = model("llama-gqa").string();
    dense.spec.set = {"sinkhorn_epsilon=0.3"};
    EXPECT_EQ(m_bench.bad(dense).kind, ErrorKind::usage) << "a dense model has no router to set";
}

TEST_F(Traces, PlacesThatCannotBeWrittenAreSaidBeforeTheModelRuns)
{
    TraceRequest r = request("x.h5");
    r.spec.model = model("mixtral-gqa").string();
    r.output = m_folder / "no" / "such" / "x.h5";
    Error error = m_bench.bad(r);
    EXPECT_EQ(error.kind, ErrorKind::work);
    EXPECT_THAT(error.where, HasSubstr("such"));
    EXPECT_FALSE(error.mend.empty());
    r.output = "/proc/nowhere/x.h5";
    EXPECT_EQ(m_bench.bad(r).kind, ErrorKind::work);
    r.output = m_folder / "taken.h5";
    fs::create_directories(r.output);
    r.overwrite = true;
    EXPECT_EQ(m_bench.bad(r).kind, ErrorKind::work) << "a folder is never replaced by a file";
    EXPECT_TRUE(fs::is_directory(r.output));
}

TEST_F(Traces, LongerThanTheContextIsSaid)
{
    TraceRequest r = request("long.h5");
    r.spec.model = model("mixtral-gqa").string();
    r.sequenceLength = 400;
    r.prompts = {promptOf(someText(300, 1))};
    const Summary summary = m_bench.good(r);
    ASSERT_EQ(summary.warnings.size(), 1u);
    EXPECT_THAT(summary.warnings[0], HasSubstr("256"));
}

} // namespace
} // namespace spectra::test
