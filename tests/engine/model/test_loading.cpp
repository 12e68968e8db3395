// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/engine/model/support.h"

namespace spectra {
namespace {

/// A real checkpoint seen through changes that a damaged or foreign one could have.
class Changed : public Checkpoint {
public:
    explicit Changed(std::shared_ptr<const Checkpoint> source) : m_source(std::move(source)), m_config(m_source->config()) {}
    ModelConfig &change() { return m_config; }
    void hide(const std::string &name) { m_hidden = name; }

    Format format() const override { return m_source->format(); }
    const std::filesystem::path &path() const override { return m_source->path(); }
    const ModelConfig &config() const override { return m_config; }
    const std::vector<TensorInfo> &tensors() const override { return m_source->tensors(); }
    const TensorInfo *find(std::string_view name) const override { return name == m_hidden ? nullptr : m_source->find(name); }
    Result<void> readF32(const TensorInfo &t, std::span<float> out, std::int64_t first, std::int64_t rows) const override
    {
        return m_source->readF32(t, out, first, rows);
    }
    std::span<const std::byte> raw(const TensorInfo &t) const override { return m_source->raw(t); }
    void release(const TensorInfo &t) const override { m_source->release(t); }
    std::optional<std::filesystem::path> tokenizerFile() const override { return {}; }
    std::optional<GgufVocabulary> vocabulary() const override { return {}; }
    Result<std::string> sha256(std::stop_token) const override { return std::string(); }
    std::vector<std::pair<std::string, std::string>> metadata() const override { return {}; }
    std::string configJson() const override { return m_source->configJson(); }

private:
    std::shared_ptr<const Checkpoint> m_source;
    ModelConfig m_config;
    std::string m_hidden;
};

std::shared_ptr<Changed> changed(const char *fixture)
{
    auto source = Checkpoint::open(test::modelFixture(fixture));
    EXPECT_TRUE(source.ok());
    return std::make_shared<Changed>(*source);
}

Error loadError(const std::shared_ptr<const Checkpoint> &checkpoint, const LoadOptions &options = {}, std::stop_token stop = {})
{
    auto model = Model::load(checkpoint, options, {}, stop);
    EXPECT_FALSE(model.ok());
    return model.ok() ? Error{} : model.error();
}

TEST(Loading, MissingAndMisShapedTensorsAreNamed)
{
    auto c = changed("llama-gqa");
    c->hide("model.layers.1.mlp.up_proj.weight");
    Error e = loadError(c);
    EXPECT_EQ(e.kind, ErrorKind::input);
    EXPECT_NE(e.where.find("model.layers.1.mlp.up_proj.weight"), std::string::npos) << e.where;

    c = changed("llama-gqa");
    c->change().intermediate = 48;
    e = loadError(c);
    EXPECT_EQ(e.kind, ErrorKind::input);
    EXPECT_NE(e.what.find("[64, 32]"), std::string::npos) << e.what;
    EXPECT_NE(e.where.find("mlp.gate_proj.weight"), std::string::npos) << e.where;

    c = changed("mixtral-gqa");
    c->hide("model.layers.0.mlp.router.weight");
    e = loadError(c);
    EXPECT_EQ(e.kind, ErrorKind::input);
    EXPECT_NE(e.where.find("router"), std::string::npos) << e.where;
}

TEST(Loading, ImpossibleConfigurationsAreRefused)
{
    const auto kindOf = [](const char *fixture, const std::function<void(ModelConfig &)> &change) {
        auto c = changed(fixture);
        change(c->change());
        return loadError(c).kind;
    };
    EXPECT_EQ(kindOf("llama-gqa", [](ModelConfig &c) { c.kvHeads = 3; }), ErrorKind::input);
    EXPECT_EQ(kindOf("llama-gqa", [](ModelConfig &c) { c.hidden = 0; }), ErrorKind::input);
    EXPECT_EQ(kindOf("llama-gqa", [](ModelConfig &c) { c.activation = "gelu"; }), ErrorKind::input);
    EXPECT_EQ(kindOf("llama-gqa", [](ModelConfig &c) { c.rope.scaling = "longrope"; }), ErrorKind::input);
    EXPECT_EQ(kindOf("mixtral-gqa", [](ModelConfig &c) { c.topK = 5; }), ErrorKind::input);
    EXPECT_EQ(kindOf("mixtral-gqa", [](ModelConfig &c) { c.moeLayers = {0, 5}; }), ErrorKind::input);
}

TEST(Loading, TooLargeForTheMachineIsSaidBeforeAnythingIsAllocated)
{
    auto c = changed("llama-gqa");
    ModelConfig &m = c->change();
    m.vocabulary = 1 << 20;
    m.hidden = 1 << 16;
    m.layers = 200;
    const std::uint64_t before = anonymousMemory();
    const Error e = loadError(c);
    EXPECT_EQ(e.kind, ErrorKind::input);
    EXPECT_NE(e.what.find("too large for this machine"), std::string::npos) << e.what;
    EXPECT_FALSE(e.mend.empty());
    EXPECT_LT(anonymousMemory(), before + (std::uint64_t(64) << 20));
    // No size overflows: a hostile configuration is refused, not wrapped around.
    m.layers = (std::int64_t(1) << 31) - 1;
    m.vocabulary = m.hidden = m.intermediate = (std::int64_t(1) << 31) - 1;
    EXPECT_EQ(loadError(c).kind, ErrorKind::input);
    EXPECT_GT(estimateMemory(m, Compute::f32).weights, std::uint64_t(1) << 62);
}

TEST(Loading, StopsOnRequest)
{
    auto source = Checkpoint::open(test::modelFixture("mixtral-gqa"));
    ASSERT_TRUE(source.ok());
    std::stop_source stop;
    auto model = Model::load(*source, {}, [&](const Progress &) { stop.request_stop(); }, stop.get_token());
    ASSERT_FALSE(model.ok());
    EXPECT_EQ(model.error().kind, ErrorKind::cancelled);
}

TEST(Loading, RouterMayBeOverriddenOrReplaced)
{
    LoadOptions options;
    options.routerJson = R"({"type":"spectra","router_dim":8})";
    const auto replaced = test::loadModel(test::modelFixture("mixtral-gqa"), options);
    ASSERT_TRUE(replaced);
    EXPECT_EQ(replaced->router()->name(), "spectra");
    EXPECT_FALSE(replaced->config().routerTrained);
    options.routerJson = R"({"type":"softmax_topk"})";
    options.topK = 3;
    const auto wider = test::loadModel(test::modelFixture("mixtral-gqa"), options);
    ASSERT_TRUE(wider);
    PassHooks hooks;
    hooks.onLayer = [](const RoutingLayer &l) { EXPECT_EQ(l.step.experts.size(1), 3); };
    test::hiddenOf(*wider, {{1, 2, 3}}, hooks);
    options.topK = 5;
    auto source = Checkpoint::open(test::modelFixture("mixtral-gqa"));
    EXPECT_EQ(loadError(*source, options).kind, ErrorKind::usage);
}

TEST(Passes, WrongInputIsAnErrorAndLeavesTheSequence)
{
    const auto model = test::loadModel(test::modelFixture("llama-gqa"));
    ASSERT_TRUE(model);
    SequenceState state = model->newSequence();
    const auto kindOf = [&](std::vector<std::int32_t> ids) {
        PassInput input;
        input.sequences.push_back({ids, {}, &state});
        auto r = model->forward(input);
        EXPECT_FALSE(r.ok());
        return r.ok() ? ErrorKind::bug : r.error().kind;
    };
    EXPECT_EQ(kindOf({1, 128}), ErrorKind::usage);
    EXPECT_EQ(kindOf({-1}), ErrorKind::usage);
    EXPECT_EQ(kindOf({}), ErrorKind::usage);
    EXPECT_EQ(model->forward({}).error().kind, ErrorKind::usage);
    EXPECT_EQ(state.length(), 0);
}

TEST(Passes, TheCacheGrowsByBlocks)
{
    const auto model = test::loadModel(test::modelFixture("llama-gqa"));
    ASSERT_TRUE(model);
    SequenceState state = model->newSequence(10);
    const std::int64_t first = state.capacity();
    EXPECT_GE(first, 10);
    int growths = 0;
    std::int64_t before = first;
    for (int i = 0; i < 600; ++i) {
        const std::vector<std::int32_t> one = {i % 128};
        PassInput input;
        input.lastOnly = true;
        input.sequences.push_back({one, {}, &state});
        ASSERT_TRUE(model->forward(input).ok());
        growths += state.capacity() != before;
        before = state.capacity();
    }
    EXPECT_EQ(state.length(), 600);
    EXPECT_LE(growths, 2);
}

/// Where only last tokens are asked for, the last layer runs for them alone: same values, same states, same routing seen.
TEST(Passes, LastTokensAloneEqualTheWholePass)
{
    for (const char *name : {"llama-gqa", "llama-mha-tied", "mixtral-gqa"}) {
        SCOPED_TRACE(name);
        const auto model = test::loadModel(test::modelFixture(name));
        ASSERT_TRUE(model);
        std::vector<std::vector<std::int32_t>> sequences(3);
        Random random(11);
        for (const int n : {50, 9, 21})
            for (int i = 0; i < n; ++i)
                sequences[n == 50 ? 0 : n == 9 ? 1 : 2].push_back(static_cast<std::int32_t>(random.below(128)));
        const torch::Tensor whole = test::hiddenOf(*model, sequences);
        const torch::Tensor expected = whole.index_select(0, torch::tensor({49, 58, 79}));
        for (const std::int64_t chunk : {512, 32}) { // 32: pieces in which no sequence ends, and one in which two do
            std::vector<SequenceState> states(3);
            PassInput input;
            input.lastOnly = true;
            input.chunk = chunk;
            for (std::size_t s = 0; s < 3; ++s)
                input.sequences.push_back({sequences[s], {}, &states[s]});
            std::int64_t routed = 0;
            PassHooks hooks;
            hooks.onLayer = [&](const RoutingLayer &l) { routed += l.input.size(0); };
            const auto last = model->forward(input, hooks);
            ASSERT_TRUE(last.ok());
            EXPECT_LE(test::maxDifference(*last, expected), 1e-5);
            EXPECT_EQ(routed, std::string(name) == "mixtral-gqa" ? 80 * model->config().layers : 0);
            // One more token sees the keys and values that the last layer kept.
            for (std::size_t s = 0; s < 3; ++s) {
                std::vector<std::int32_t> longer = sequences[s];
                longer.push_back(5);
                const std::vector<std::int32_t> one = {5};
                PassInput next;
                next.sequences.push_back({one, {}, &states[s]});
                const auto step = model->forward(next);
                ASSERT_TRUE(step.ok());
                EXPECT_LE(test::maxDifference(*step, test::hiddenOf(*model, {longer}).narrow(0, static_cast<std::int64_t>(longer.size()) - 1, 1)), 1e-5);
            }
        }
    }
}

TEST(Bf16, LogitsStayNearAndMemoryHalves)
{
    if (!cpuHasFastBf16()) {
        auto source = Checkpoint::open(test::sampleModel());
        ASSERT_TRUE(source.ok());
        LoadOptions options;
        options.compute = Compute::bf16;
        EXPECT_EQ(loadError(*source, options).kind, ErrorKind::usage);
        return;
    }
    auto expected = test::readExpected(test::modelFixture("smollm2_expected.safetensors"));
    LoadOptions options;
    options.compute = Compute::automatic;
    const auto model = test::loadModel(test::sampleModel(), options);
    ASSERT_TRUE(model);
    EXPECT_EQ(model->compute(), Compute::bf16);
    EXPECT_NEAR(static_cast<double>(model->memory()), 134'515'008 * 2.0, 1e6);
    const torch::Tensor logits = test::logitsOf(*model, test::idsOf(expected.at("input_ids")));
    const torch::Tensor difference = (logits.gather(1, expected.at("top_ids")) - expected.at("top_logits")).abs();
    RecordProperty("bf16_mean_logit_error", std::to_string(difference.mean().item<double>()));
    RecordProperty("bf16_max_logit_error", std::to_string(difference.max().item<double>()));
    std::printf("bf16: mean |Δ logit| %.4f, max %.4f\n", difference.mean().item<double>(), difference.max().item<double>());
    EXPECT_LT(difference.mean().item<double>(), 0.1);
    EXPECT_LT(difference.max().item<double>(), 1.0);
}

} // namespace
} // namespace spectra
