// SPDX-License-Identifier: GPL-3.0-or-later
// Upcycling and calibration as jobs: the folder that they leave is a model like any other.
#include "engine/run/catalog.h"
#include "engine/trace/tracereader.h"
#include "engine/trace/validator.h"
#include "engine/tokenizer/tokenizer.h"
#include "tests/engine/run/runsupport.h"

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include <numeric>

namespace spectra::test {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;

class Upcycling : public testing::Test {
protected:
    TemporaryFolder m_folder{"upcycling"};
    Bench m_bench;
    std::string m_dense = tinyModel("llama-gqa", m_folder / "dense").string();

    [[nodiscard]] UpcycleRequest request(const std::string &output) const
    {
        UpcycleRequest u;
        u.spec.model = m_dense;
        u.spec.device = "cpu";
        u.settings.experts = 4;
        u.settings.noise = 0;
        u.settings.set = {"router_dim=8"};
        u.output = m_folder / output;
        return u;
    }
    Values logits(const fs::path &model)
    {
        LogitsRequest l;
        l.spec.model = model.string();
        l.prompt = promptOf(someText(40, 8));
        l.output = m_folder / "l.h5";
        l.overwrite = true;
        (void)m_bench.good(l);
        return readValues(l.output, "/logits");
    }
    static float difference(const Values &a, const Values &b)
    {
        EXPECT_EQ(a.shape, b.shape);
        float worst = 0;
        for (std::size_t i = 0; i < std::min(a.values.size(), b.values.size()); ++i)
            worst = std::max(worst, std::abs(a.values[i] - b.values[i]));
        return worst;
    }
    static double mean(const std::vector<double> &v) { return std::accumulate(v.begin(), v.end(), 0.0) / static_cast<double>(v.size()); }
};

TEST_F(Upcycling, TheWrittenFolderLoadsAndComputesWhatItsSourceDid)
{
    const Values source = logits(m_dense);
    for (const char *router : {"spectra", "softmax_topk"})
        for (const int shared : {0, 1}) {
            UpcycleRequest u = request(std::string(router) + std::to_string(shared));
            u.settings.router = router;
            u.settings.shared = shared;
            if (u.settings.router != "spectra")
                u.settings.set.clear();
            const Summary summary = m_bench.good(u);
            EXPECT_GE(summary.maxLogitDifference, 0);
            EXPECT_LT(summary.maxLogitDifference, 1e-4);
            EXPECT_GT(summary.tokens, 50) << "of the probe text";
            EXPECT_LT(difference(source, logits(u.output)), 1e-4f) << router << shared;
            const auto description = describeCheckpoint(u.output);
            ASSERT_TRUE(description.ok()) << description.error().what;
            EXPECT_EQ(description->experts, 4);
            EXPECT_EQ(description->topK, 2) << "the default of a dense model";
            EXPECT_THAT(description->note, HasSubstr("fresh router"));
        }
    UpcycleRequest noisy = request("noisy");
    noisy.settings.noise = 0.1;
    EXPECT_GT(m_bench.good(noisy).maxLogitDifference, 1e-3) << "noise shows, and is reported";
}

TEST_F(Upcycling, EveryRouterUpcyclesLoadsAgainAndIsTraced)
{
    const Values source = logits(m_dense);
    int tried = 0;
    for (const RouterEntry &entry : routerCatalog()) {
        if (entry.name == "dense")
            continue;
        SCOPED_TRACE(entry.name);
        ++tried;
        UpcycleRequest u = request(entry.name);
        u.settings.router = entry.name;
        if (entry.name != "spectra")
            u.settings.set.clear();
        u.spec.seed = 3;
        const Summary summary = m_bench.good(u);
        // Weights that sum to one number for all tokens are scaled to 1; of the others the difference is reported.
        const bool varies = entry.name == "switch_top1" || entry.name == "llama4" || !entry.causal || entry.name == "base" || entry.name == "lpr"
            || entry.name == "sparsemixer" || entry.name == "sbase" || entry.name == "stablemoe" || entry.name == "emoe_like";
        if (!varies) {
            EXPECT_LT(summary.maxLogitDifference, 1e-4);
        }
        TraceRequest t;
        t.spec.model = u.output.string();
        t.prompts = {promptOf(someText(30, 2), "a")};
        t.output = m_folder / (entry.name + ".h5");
        t.dtype = "f32";
        if (!entry.causal) {
            t.allowNonCausal = true;
        } else {
            t.maxNewTokens = 4;
        }
        (void)m_bench.good(t);
        for (const Finding &f : validateTrace(t.output))
            EXPECT_NE(f.severity, Finding::Severity::error) << f.place << ": " << f.what;
    }
    EXPECT_GE(tried, 22);
}

TEST_F(Upcycling, TheTokenizerGoesAlong)
{
    m_folder.write("dense/tokenizer_config.json", R"({"bos_token": "<s>", "eos_token": "</s>", "chat_template": "{{ messages }}"})");
    (void)m_bench.good(request("moe"));
    const auto before = openTokenizer(m_dense), after = openTokenizer(m_folder / "moe");
    ASSERT_TRUE(before.ok() && after.ok());
    EXPECT_EQ((*before)->sha256(), (*after)->sha256());
    EXPECT_EQ((*before)->bos(), (*after)->bos());
    EXPECT_EQ((*before)->eos(), (*after)->eos());
    EXPECT_EQ((*after)->chatTemplate(), "{{ messages }}");
    const auto config = nlohmann::json::parse(readText(m_folder / "moe" / "tokenizer_config.json"), nullptr, false);
    EXPECT_TRUE(config.is_object()) << "other programs find the end token there";
}

TEST_F(Upcycling, TracingOnTheFlyEqualsTracingTheFolder)
{
    UpcycleRequest u = request("moe");
    u.settings.noise = 0.3;
    u.spec.seed = 5;
    (void)m_bench.good(u);
    TraceRequest folder;
    folder.spec.model = u.output.string();
    folder.spec.seed = 5;
    folder.prompts = {promptOf(someText(30, 2), "a")};
    folder.output = m_folder / "folder.h5";
    folder.dtype = "f32";
    TraceRequest flying = folder;
    flying.spec.model = m_dense;
    flying.spec.upcycle = u.settings;
    flying.output = m_folder / "flying.h5";
    (void)m_bench.good(folder);
    (void)m_bench.good(flying);
    expectSame(readAll(folder.output), readAll(flying.output));
}

TEST_F(Upcycling, AnotherRouterKeepsTheExpertsOfAModelThatHasThem)
{
    const std::string mixtral = tinyModel("mixtral-tied", m_folder / "mixtral").string();
    UpcycleRequest u = request("swapped");
    u.spec.model = mixtral;
    (void)m_bench.good(u);
    const auto d = describeCheckpoint(u.output);
    ASSERT_TRUE(d.ok());
    EXPECT_EQ(d->experts, 6);
    EXPECT_EQ(d->topK, 3) << "unless told otherwise, as many per token as before";
    EXPECT_THAT(d->router, HasSubstr("spectra"));
    u.settings.topK = 2;
    u.output = m_folder / "two";
    (void)m_bench.good(u);
    EXPECT_EQ(describeCheckpoint(u.output)->topK, 2);
}

TEST_F(Upcycling, OutputsAppearWholeOrNotAtAll)
{
    UpcycleRequest u = request("moe");
    (void)m_bench.good(u);
    const std::string before = readText(u.output / "config.json");
    u.settings.experts = 6;
    EXPECT_EQ(m_bench.bad(u).kind, ErrorKind::work);
    EXPECT_EQ(readText(u.output / "config.json"), before) << "without leave nothing changes";
    u.overwrite = true;
    (void)m_bench.good(u);
    EXPECT_EQ(describeCheckpoint(u.output)->experts, 6);
    // Stopped on the way: the old folder is whole.
    u.settings.experts = 3;
    m_bench.sink->onEvent([&](const CollectingSink::Event &e) {
        if (e.kind == "progress")
            m_bench.engine.cancel(e.job);
    });
    EXPECT_EQ(m_bench.bad(u).kind, ErrorKind::cancelled);
    m_bench.sink->onEvent({});
    EXPECT_EQ(describeCheckpoint(u.output)->experts, 6);
    UpcycleRequest other = request("other");
    m_bench.sink->onEvent([&](const CollectingSink::Event &e) {
        if (e.kind == "progress")
            m_bench.engine.cancel(e.job);
    });
    EXPECT_EQ(m_bench.bad(other).kind, ErrorKind::cancelled);
    m_bench.sink->onEvent({});
    EXPECT_THAT(m_folder.entries(), testing::UnorderedElementsAre("dense", "moe")) << "no half-made folder is left";
}

TEST_F(Upcycling, WrongSettingsAreUsageErrors)
{
    const auto refused = [&](const std::function<void(UpcycleSettings &)> &change) {
        UpcycleRequest u = request("bad");
        change(u.settings);
        const Error error = m_bench.bad(u);
        EXPECT_EQ(error.kind, ErrorKind::usage) << error.what;
        EXPECT_FALSE(fs::exists(u.output));
    };
    refused([](UpcycleSettings &s) { s.topK = 5; });
    refused([](UpcycleSettings &s) { s.router = "no_such_router"; });
    refused([](UpcycleSettings &s) { s.set = {"router_dim=many"}; });
    refused([](UpcycleSettings &s) { s.layers = "from:9"; });
    refused([](UpcycleSettings &s) { s.layers = "0,x"; });
    refused([](UpcycleSettings &s) { s.granularity = 5; });
    refused([](UpcycleSettings &s) { s.scaling = "guess"; });
    refused([](UpcycleSettings &s) { s.dtype = "i8"; });
}

TEST_F(Upcycling, CalibrationBalancesTheLoad)
{
    UpcycleRequest u = request("fresh");
    u.settings.noise = 0.3;
    (void)m_bench.good(u);
    CalibrateRequest c;
    c.spec.model = u.output.string();
    for (unsigned i = 0; i < 12; ++i)
        c.prompts.push_back(promptOf(someText(60, i)));
    c.output = m_folder / "balanced";
    c.batches = 60;
    c.batchTokens = 256;
    c.sequenceLength = 64;
    const Summary summary = m_bench.good(c);
    ASSERT_EQ(summary.cvBefore.size(), 2u);
    ASSERT_EQ(summary.cvAfter.size(), 2u);
    EXPECT_LT(mean(summary.cvAfter), 0.7 * mean(summary.cvBefore)) << mean(summary.cvBefore);
    EXPECT_GT(summary.tokens, 1000);
    const auto d = describeCheckpoint(c.output);
    ASSERT_TRUE(d.ok());
    EXPECT_THAT(d->note, HasSubstr("balanced by calibration"));
    EXPECT_TRUE(openTokenizer(c.output).ok());

    // The load of a trace of the same texts says so too.
    const auto cv = [&](const fs::path &model) {
        TraceRequest r;
        r.spec.model = model.string();
        r.prompts = c.prompts;
        r.sequenceLength = 64;
        r.output = m_folder / (model.filename().string() + ".h5");
        (void)m_bench.good(r);
        const auto trace = *TraceReader::open(r.output);
        double sum = 0;
        for (int layer = 0; layer < 2; ++layer) {
            std::vector<double> load(4);
            const TokenRange all{0, trace->info()->tokens};
            const auto experts = *trace->block(Column::experts, layer, all);
            const auto mask = (*trace->tokens(all))->mask;
            for (std::size_t i = 0; i < experts->u16.size(); ++i)
                load[experts->u16[i]] += mask[i / 2];
            const double average = mean(load);
            double variance = 0;
            for (double x : load)
                variance += (x - average) * (x - average) / 4;
            sum += std::sqrt(variance) / average;
        }
        return sum / 2;
    };
    EXPECT_LT(cv(c.output), 0.8 * cv(u.output));

    c.spec.model = tinyModel("mixtral-gqa", m_folder / "mixtral").string();
    c.output = m_folder / "no";
    EXPECT_EQ(m_bench.bad(c).kind, ErrorKind::usage) << "there is nothing to calibrate in a softmax router";
    EXPECT_FALSE(fs::exists(c.output));
    c.spec.model = m_dense;
    EXPECT_EQ(m_bench.bad(c).kind, ErrorKind::usage);
}

TEST_F(Upcycling, CalibrationWhileUpcyclingIsReported)
{
    UpcycleRequest u = request("both");
    u.settings.noise = 0.3;
    for (unsigned i = 0; i < 6; ++i)
        u.calibration.push_back(promptOf(someText(60, i)));
    u.calibrationBatches = 10;
    u.calibrationBatchTokens = 128;
    const Summary summary = m_bench.good(u);
    ASSERT_EQ(summary.cvAfter.size(), 2u);
    EXPECT_LT(mean(summary.cvAfter), mean(summary.cvBefore));
    EXPECT_THAT(describeCheckpoint(u.output)->note, HasSubstr("calibration"));
}

TEST_F(Upcycling, LogitsOfADescribedCheckpointHaveEveryPart)
{
    UpcycleRequest u = request("moe");
    (void)m_bench.good(u);
    LogitsRequest l;
    l.spec.model = u.output.string();
    l.prompt = promptOf("the river");
    l.layers = true;
    l.output = m_folder / "parts.h5";
    const Summary summary = m_bench.good(l);
    const std::int64_t n = summary.tokens;
    EXPECT_EQ(readValues(l.output, "/ids").shape, (std::vector<std::int64_t>{n}));
    EXPECT_EQ(readValues(l.output, "/ids").values[0], 1) << "the BOS that the tokenizer asks for";
    EXPECT_EQ(readValues(l.output, "/logits").shape, (std::vector<std::int64_t>{n, 128}));
    EXPECT_EQ(readValues(l.output, "/hidden").shape, (std::vector<std::int64_t>{3, n, 32}));
    for (const char *layer : {"0", "1"}) {
        const std::string group = std::string("/router/") + layer + "/";
        EXPECT_EQ(readValues(l.output, group + "input").shape, (std::vector<std::int64_t>{n, 32}));
        EXPECT_EQ(readValues(l.output, group + "logits").shape, (std::vector<std::int64_t>{n, 4}));
        EXPECT_EQ(readValues(l.output, group + "probabilities").shape, (std::vector<std::int64_t>{n, 4}));
        EXPECT_EQ(readValues(l.output, group + "experts").shape, (std::vector<std::int64_t>{n, 2}));
        EXPECT_EQ(readValues(l.output, group + "weights").shape, (std::vector<std::int64_t>{n, 2}));
    }
    EXPECT_EQ(m_bench.bad(l).kind, ErrorKind::work) << "it exists";
}

TEST(Catalog, ListsWhatCanRun)
{
    const auto routers = routerCatalog();
    const auto spectra = std::find_if(routers.begin(), routers.end(), [](const RouterEntry &r) { return r.name == "spectra"; });
    ASSERT_NE(spectra, routers.end());
    for (const RouterEntry &r : routers)
        for (const RouterOptionEntry &o : r.options)
            EXPECT_FALSE(o.name.empty() || o.type.empty() || o.range.empty() || o.meaning.empty() || o.defaultValue.empty()) << r.name << "." << o.name;
    EXPECT_GE(architectureCatalog().size(), 2u);
}

} // namespace
} // namespace spectra::test
