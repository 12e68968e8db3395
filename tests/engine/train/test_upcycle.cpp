// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/engine/train/trainsupport.h"

#include "engine/train/noise.h"

#include <tuple>

namespace spectra {
namespace {

struct Case {
    const char *fixture;
    const char *router;
    int experts, topK, shared, granularity;
    const char *layers;
};

std::string caseName(const testing::TestParamInfo<Case> &info)
{
    const Case &c = info.param;
    std::string name = std::string(c.fixture) + (c.router == std::string(test::kSpectra) ? "_spectra" : "_softmax") + "_E" + std::to_string(c.experts)
        + "k" + std::to_string(c.topK) + "s" + std::to_string(c.shared) + "g" + std::to_string(c.granularity) + "_" + c.layers;
    for (char &ch : name)
        if (!std::isalnum(static_cast<unsigned char>(ch)))
            ch = '_';
    return name;
}

UpcycleOptions optionsOf(const Case &c)
{
    UpcycleOptions o;
    o.experts = c.experts;
    o.topK = c.topK;
    o.shared = c.shared;
    o.granularity = c.granularity;
    o.routerJson = c.router;
    o.noise = 0;
    o.layers = *LayerChoice::parse(c.layers);
    return o;
}

class Exactness : public testing::TestWithParam<Case> {};

TEST_P(Exactness, WithoutNoiseTheLogitsAreTheDenseModels)
{
    const auto source = test::openCheckpoint(test::modelFixture(GetParam().fixture));
    ASSERT_TRUE(source);
    const auto dense = test::load(source);
    const auto experts = test::load(test::upcycle(source, optionsOf(GetParam())));
    ASSERT_TRUE(dense && experts);
    ASSERT_TRUE(experts->router());
    const auto ids = test::someIds(96, 128);
    EXPECT_LE(test::maxDifference(test::logitsOf(*dense, ids), test::logitsOf(*experts, ids)), 1e-4);
}

INSTANTIATE_TEST_SUITE_P(Tiny, Exactness,
                         testing::Values(Case{"llama-gqa", test::kSpectra, 8, 2, 0, 1, "all"}, Case{"llama-gqa", test::kSoftmax, 8, 2, 0, 1, "all"},
                                         Case{"llama-gqa", test::kSpectra, 2, 1, 1, 1, "all"}, Case{"llama-gqa", test::kSoftmax, 5, 5, 1, 1, "all"},
                                         Case{"llama-mha-tied", test::kSpectra, 3, 3, 2, 1, "all"}, Case{"llama-mha-tied", test::kSoftmax, 4, 1, 3, 1, "1"},
                                         Case{"llama-rope-llama3", test::kSpectra, 16, 4, 0, 1, "every:2"},
                                         Case{"llama-rope-yarn-bias", test::kSpectra, 4, 2, 1, 1, "all"},
                                         Case{"llama-rope-yarn-bias", test::kSoftmax, 4, 2, 0, 2, "from:1"},
                                         Case{"llama-gqa", test::kSoftmax, 8, 4, 1, 2, "all"}, Case{"llama-gqa", test::kSpectra, 8, 4, 0, 4, "all"},
                                         Case{"llama-gqa", test::kSpectra, 8, 2, 1, 2, "all"}),
                         caseName);

TEST(Upcycle, SampleModelKeepsItsLogits)
{
    const auto source = test::openCheckpoint(test::sampleModel());
    ASSERT_TRUE(source);
    const auto ids = test::someIds(512, 40000);
    torch::Tensor reference;
    {
        const auto dense = test::load(source);
        ASSERT_TRUE(dense);
        reference = test::logitsOf(*dense, ids);
    }
    for (const Case &c : {Case{"", R"({"type":"spectra","router_dim":32})", 4, 2, 0, 1, "all"}, Case{"", test::kSoftmax, 3, 1, 1, 1, "every:3"}}) {
        const auto experts = test::load(test::upcycle(source, optionsOf(c)));
        ASSERT_TRUE(experts);
        EXPECT_LE(test::maxDifference(reference, test::logitsOf(*experts, ids)), 1e-3) << c.router;
    }
}

TEST(Upcycle, NoiseHasTheStatedSizeAndChangesTheLogits)
{
    const auto source = test::openCheckpoint(test::modelFixture("llama-gqa"));
    UpcycleOptions options;
    options.routerJson = test::kSpectra;
    options.noise = 0.01;
    const auto noisy = test::upcycle(source, options);
    ASSERT_TRUE(noisy);
    const auto values = [](const Checkpoint &checkpoint, const std::string &name) {
        const TensorInfo *const info = checkpoint.find(name);
        std::vector<float> v(static_cast<std::size_t>(info->elements()));
        EXPECT_TRUE(checkpoint.readF32(*info, v).ok());
        return v;
    };
    const auto rms = [](const std::vector<float> &a, const std::vector<float> &b) {
        double s = 0;
        for (std::size_t i = 0; i < a.size(); ++i)
            s += std::pow(static_cast<double>(a[i]) - (b.empty() ? 0.0 : static_cast<double>(b[i])), 2);
        return std::sqrt(s / static_cast<double>(a.size()));
    };
    for (const char *const matrix : {"gate_proj", "up_proj", "down_proj"}) {
        const auto dense = values(*source, std::string("model.layers.1.mlp.") + matrix + ".weight");
        const auto first = values(*noisy, std::string("model.layers.1.mlp.experts.0.") + matrix + ".weight");
        const auto second = values(*noisy, std::string("model.layers.1.mlp.experts.5.") + matrix + ".weight");
        const auto other = values(*noisy, std::string("model.layers.0.mlp.experts.0.") + matrix + ".weight");
        const auto otherDense = values(*source, std::string("model.layers.0.mlp.") + matrix + ".weight");
        // 2,048 values: the standard error of an rms is 1.6 %.
        EXPECT_NEAR(rms(first, dense) / rms(dense, {}), 0.01, 0.0006) << matrix;
        EXPECT_NEAR(rms(second, dense) / rms(dense, {}), 0.01, 0.0006) << matrix;
        EXPECT_NEAR(rms(first, second) / rms(dense, {}), 0.01 * std::sqrt(2), 0.0009) << matrix << ": experts draw apart";
        EXPECT_NEAR(rms(other, otherDense) / rms(otherDense, {}), 0.01, 0.0006) << matrix;
    }
    const auto dense = test::load(source), experts = test::load(noisy);
    const auto ids = test::someIds(64, 128);
    const double change = test::maxDifference(test::logitsOf(*dense, ids), test::logitsOf(*experts, ids));
    EXPECT_GT(change, 1e-3);
    EXPECT_LT(change, 5.0);
}

TEST(Upcycle, NoiseIsStandardNormalAndAnyPartIsTheSame)
{
    std::vector<float> z(200'001, 0.0f);
    const std::uint64_t key = noiseKey(3, 1, 4, 1);
    addNormalNoise(z.data(), static_cast<std::int64_t>(z.size()), key, 0, 1);
    double mean = 0, square = 0, fourth = 0, neighbours = 0;
    for (std::size_t i = 0; i < z.size(); ++i) {
        const auto v = static_cast<double>(z[i]);
        mean += v;
        square += v * v;
        fourth += v * v * v * v;
        neighbours += i > 0 ? v * static_cast<double>(z[i - 1]) : 0;
    }
    const auto n = static_cast<double>(z.size());
    EXPECT_NEAR(mean / n, 0, 0.01);
    EXPECT_NEAR(square / n, 1, 0.015);
    EXPECT_NEAR(fourth / n, 3, 0.15);
    EXPECT_NEAR(neighbours / n, 0, 0.01);
    std::vector<float> part(777, 0.0f);
    for (const std::int64_t first : {0, 1, 1023, 4096, 4099}) {
        std::fill(part.begin(), part.end(), 0.0f);
        addNormalNoise(part.data(), static_cast<std::int64_t>(part.size()), key, first, 1);
        for (std::size_t i = 0; i < part.size(); ++i)
            ASSERT_EQ(part[i], z[static_cast<std::size_t>(first) + i]) << first << " + " << i;
    }
}

TEST(Upcycle, WrittenFolderLoadsAsTheSameModel)
{
    const auto place = std::filesystem::path(SPECTRA_BUILD_DIR) / "test_upcycled";
    std::filesystem::remove_all(place);
    for (const auto &[router, fixture] : {std::pair{test::kSpectra, "llama-gqa"}, {test::kSoftmax, "llama-rope-yarn-bias"}}) {
        UpcycleOptions options;
        options.experts = 4;
        options.shared = 1;
        options.noise = 0.2;
        options.routerJson = router;
        options.layers = *LayerChoice::parse("1");
        const auto made = test::upcycle(test::openCheckpoint(test::modelFixture(fixture)), options);
        ASSERT_TRUE(made);
        FolderOptions folder;
        folder.place = place;
        folder.overwrite = true;
        folder.shardBytes = 60'000;
        const auto written = writeFolder(*made, folder, {}, {});
        ASSERT_TRUE(written.ok()) << written.error().what << ": " << written.error().where;
        const auto first = test::load(made), second = test::loadModel(place);
        ASSERT_TRUE(first && second);
        EXPECT_EQ(second->config().modelType, "spectra");
        EXPECT_EQ(second->config().moeLayers, std::vector<std::int64_t>{1});
        EXPECT_EQ(second->config().sharedScalingFactor, 0.5);
        EXPECT_FALSE(second->config().routerTrained);
        EXPECT_EQ(second->config().upcyclingNote, first->config().upcyclingNote);
        const auto ids = test::someIds(40, 128);
        EXPECT_EQ(test::maxDifference(test::logitsOf(*first, ids), test::logitsOf(*second, ids)), 0);
    }
    std::filesystem::remove_all(place);
}

TEST(Upcycle, ExistingFolderIsRefusedAndUntouched)
{
    const auto place = std::filesystem::path(SPECTRA_BUILD_DIR) / "test_upcycle_exists";
    std::filesystem::create_directories(place);
    const auto made = test::upcycle(test::openCheckpoint(test::modelFixture("llama-gqa")), {});
    FolderOptions folder;
    folder.place = place;
    const auto written = writeFolder(*made, folder, {}, {});
    ASSERT_FALSE(written.ok());
    EXPECT_EQ(written.error().kind, ErrorKind::work);
    EXPECT_TRUE(std::filesystem::is_empty(place));
    std::filesystem::remove_all(place);
    std::stop_source stop;
    stop.request_stop();
    const auto cancelled = writeFolder(*made, folder, {}, stop.get_token());
    ASSERT_FALSE(cancelled.ok());
    EXPECT_EQ(cancelled.error().kind, ErrorKind::cancelled);
    EXPECT_FALSE(std::filesystem::exists(place));
}

TEST(Upcycle, RouterOfAMixtralIsReplacedAndItsExpertsStay)
{
    const auto source = test::openCheckpoint(test::modelFixture("mixtral-gqa"));
    UpcycleOptions options;
    options.routerJson = test::kSpectra;
    options.topK = 0;
    const auto replaced = test::upcycle(source, options);
    ASSERT_TRUE(replaced);
    EXPECT_EQ(replaced->find("model.layers.0.mlp.router.weight"), nullptr);
    EXPECT_NE(replaced->find("model.layers.0.mlp.router.potential"), nullptr);
    const auto place = std::filesystem::path(SPECTRA_BUILD_DIR) / "test_replaced";
    std::filesystem::remove_all(place);
    FolderOptions folder;
    folder.place = place;
    ASSERT_TRUE(writeFolder(*replaced, folder, {}, {}).ok());
    const auto model = test::loadModel(place);
    ASSERT_TRUE(model);
    EXPECT_EQ(model->config().topK, source->config().topK);
    EXPECT_EQ(model->router()->name(), "spectra");
    // One expert forced to do all the work: both models must do the same, whatever their routers say.
    const auto ids = test::someIds(24, 128);
    const auto original = test::load(source);
    PassHooks one;
    for (int l = 0; l < 2; ++l)
        one.interventions[l] = {{0, 1, 2}, {3}};
    EXPECT_LE(test::maxDifference(test::logitsOf(*model, ids, one), test::logitsOf(*original, ids, one)), 1e-4);
    EXPECT_GT(test::maxDifference(test::logitsOf(*model, ids), test::logitsOf(*original, ids)), 1e-2);
    std::filesystem::remove_all(place);
    for (std::int64_t e = 0; e < 4; ++e) {
        const std::string name = "model.layers.1.mlp.experts." + std::to_string(e) + ".down_proj.weight";
        std::vector<float> a(32 * 32), b(32 * 32);
        ASSERT_TRUE(source->readF32(*source->find(name), a).ok());
        ASSERT_TRUE(replaced->readF32(*replaced->find(name), b).ok());
        EXPECT_EQ(a, b) << name;
    }
}

TEST(Upcycle, BadOptionsAreUsageErrors)
{
    const auto source = test::openCheckpoint(test::modelFixture("llama-gqa"));
    const auto kindOf = [&](const auto &change) {
        UpcycleOptions options;
        options.routerJson = test::kSpectra;
        change(options);
        const auto result = upcycled(source, options);
        return result.ok() ? ErrorKind::bug : result.error().kind;
    };
    EXPECT_EQ(kindOf([](UpcycleOptions &o) { o.topK = 9; }), ErrorKind::usage);
    EXPECT_EQ(kindOf([](UpcycleOptions &o) { o.experts = 0; }), ErrorKind::usage);
    EXPECT_EQ(kindOf([](UpcycleOptions &o) { o.granularity = 3; }), ErrorKind::usage);
    EXPECT_EQ(kindOf([](UpcycleOptions &o) { o.noise = -1; }), ErrorKind::usage);
    EXPECT_EQ(kindOf([](UpcycleOptions &o) { o.layers.kind = LayerChoice::Kind::list; o.layers.list = {7}; }), ErrorKind::usage);
    EXPECT_EQ(kindOf([](UpcycleOptions &o) { o.routerJson = R"({"type":"nothing"})"; }), ErrorKind::usage);
    for (const char *const text : {"every:0", "every:", "from:x", "1,,2", "1,b", "-1"})
        EXPECT_FALSE(LayerChoice::parse(text).ok()) << text;
    EXPECT_EQ(*LayerChoice::parse("every:3")->resolve(10), (std::vector<std::int64_t>{2, 5, 8}));
    EXPECT_EQ(*LayerChoice::parse("from:8")->resolve(10), (std::vector<std::int64_t>{8, 9}));
    EXPECT_EQ(*LayerChoice::parse("5,1,1")->resolve(10), (std::vector<std::int64_t>{1, 5}));
}

} // namespace
} // namespace spectra
