// SPDX-License-Identifier: GPL-3.0-or-later
// RoMA's bank of successful samples: neighbours and weights against NumPy (tests/fixtures/routers/make_specialised.py), the file
// format and what it refuses, and one router that is drawn to it.
#include "engine/core/npy.h"
#include "engine/train/romabank.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <fstream>

namespace spectra {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::HasSubstr;

const json &fixture()
{
    static const json all = [] {
        std::ifstream stream(std::string(SPECTRA_TEST_DIR) + "/fixtures/routers/specialised.json");
        return json::parse(stream);
    }();
    return all;
}

RomaBank bankOf(const json &c, std::int64_t layers = 2, std::int64_t experts = 4)
{
    RomaBank bank{12, 5, layers, experts, c["bank"].get<std::vector<float>>(), {}};
    for (std::int64_t r = 0; r < bank.samples * layers; ++r)
        for (std::int64_t e = 0; e < experts; ++e)
            bank.routing.push_back(e == r % experts ? 0.7f : 0.3f / static_cast<float>(experts - 1));
    return bank;
}

class BankFolder : public testing::Test {
protected:
    void SetUp() override
    {
        m_folder = fs::temp_directory_path() / ("spectra-bank-" + std::to_string(::getpid()) + "-" + testing::UnitTest::GetInstance()->current_test_info()->name());
        fs::create_directories(m_folder);
    }
    void TearDown() override { fs::remove_all(m_folder); }
    void put(const std::string &name, const std::vector<std::int64_t> &shape, const std::vector<float> &values) const
    {
        std::ofstream stream(m_folder / name, std::ios::binary);
        writeNpy(stream, shape, values);
    }
    fs::path m_folder;
};

TEST(RomaBankTest, NeighboursAndWeightsAreNumPys)
{
    for (const json &c : fixture()["neighbours"]) {
        SCOPED_TRACE(c["k"].dump() + " " + c["sigma"].dump());
        const RomaBank bank = bankOf(c);
        const auto queries = c["queries"].get<std::vector<float>>();
        const auto own = c["own"].get<std::vector<std::int64_t>>();
        const auto found = romaNeighbours(bank, queries, c["k"], c["sigma"], own[0] < 0 ? std::vector<std::int64_t>() : own);
        ASSERT_TRUE(found.ok()) << found.error().what;
        EXPECT_EQ(found->index, c["index"].get<std::vector<std::int64_t>>());
        EXPECT_NEAR(found->sigma, c["width"].get<double>(), 1e-6);
        const auto weights = c["weights"].get<std::vector<double>>();
        ASSERT_EQ(found->weights.size(), weights.size());
        for (std::size_t i = 0; i < weights.size(); ++i)
            EXPECT_NEAR(static_cast<double>(found->weights[i]), weights[i], 1e-6);
    }
}

TEST(RomaBankTest, FarAndEqualSamplesHaveWeightsToo)
{
    RomaBank bank = bankOf(fixture()["neighbours"][0]);
    const std::vector<float> far(5, 1e4f);
    const auto found = romaNeighbours(bank, far, 3, 0.1);
    ASSERT_TRUE(found.ok());
    EXPECT_NEAR(static_cast<double>(found->weights[0] + found->weights[1] + found->weights[2]), 1, 1e-6);
    std::fill(bank.embeddings.begin(), bank.embeddings.end(), 1.0f);
    const auto equal = romaNeighbours(bank, std::vector<float>(5, 1.0f), 4, 0);
    ASSERT_TRUE(equal.ok());
    EXPECT_EQ(equal->index, (std::vector<std::int64_t>{0, 1, 2, 3}));
    EXPECT_EQ(equal->weights, std::vector<float>(4, 0.25f));
}

TEST(RomaBankTest, RefusesWhatCannotBeAnswered)
{
    const RomaBank bank = bankOf(fixture()["neighbours"][0]);
    std::vector<float> query(5, 0.0f);
    EXPECT_FALSE(romaNeighbours(bank, query, 13).ok());
    EXPECT_FALSE(romaNeighbours(bank, query, 0).ok());
    EXPECT_FALSE(romaNeighbours(bank, query, 12, 1, std::vector<std::int64_t>{3}).ok());
    EXPECT_FALSE(romaNeighbours(bank, std::vector<float>(7), 3).ok());
    EXPECT_FALSE(romaNeighbours(bank, query, 3, -1).ok());
    query[2] = NAN;
    const auto broken = romaNeighbours(bank, query, 3);
    ASSERT_FALSE(broken.ok());
    EXPECT_EQ(broken.error().kind, ErrorKind::input);
    const auto found = std::move(*romaNeighbours(bank, std::vector<float>(5, 0.0f), 3));
    EXPECT_FALSE(romaTargets(bank, found, std::vector<std::int64_t>{1}).ok());
}

TEST_F(BankFolder, GoesToDiskAndBack)
{
    const RomaBank bank = bankOf(fixture()["neighbours"][0]);
    ASSERT_TRUE(bank.write(m_folder, false).ok());
    EXPECT_FALSE(bank.write(m_folder, false).ok()) << "nothing is replaced unasked";
    const auto again = RomaBank::open(m_folder);
    ASSERT_TRUE(again.ok()) << again.error().what;
    EXPECT_EQ(again->embeddings, bank.embeddings);
    EXPECT_EQ(again->routing, bank.routing);
    EXPECT_EQ(again->layers, 2);
    EXPECT_EQ(again->experts, 4);
}

TEST_F(BankFolder, HostileFilesAreRefusedByName)
{
    const auto refused = [&] {
        const auto bank = RomaBank::open(m_folder);
        EXPECT_FALSE(bank.ok());
        return bank.ok() ? std::string() : bank.error().what + " " + bank.error().where;
    };
    EXPECT_THAT(refused(), HasSubstr("embeddings.npy"));
    put("embeddings.npy", {2, 3}, {1, 2, 3, 4, 5, 6});
    EXPECT_THAT(refused(), HasSubstr("routing.npy"));
    put("routing.npy", {2, 2}, {0.5f, 0.5f, 1, 0});
    EXPECT_THAT(refused(), HasSubstr("[samples, layers, experts]"));
    put("routing.npy", {1, 2, 2}, {0.5f, 0.5f, 1, 0});
    EXPECT_THAT(refused(), HasSubstr("2 embeddings"));
    put("routing.npy", {2, 1, 2}, {0.5f, 0.5f, 1, 1});
    EXPECT_THAT(refused(), HasSubstr("sample 1, layer 0"));
    put("routing.npy", {2, 1, 2}, {0.5f, 0.5f, NAN, 1});
    EXPECT_THAT(refused(), HasSubstr("sample 1"));
    put("routing.npy", {2, 1, 2}, {0.5f, 0.5f, 1.5f, -0.5f});
    EXPECT_THAT(refused(), HasSubstr("sample 1"));
    put("routing.npy", {2, 1, 2}, {0.5f, 0.5f, 1, 0});
    put("embeddings.npy", {2, 3}, {1, 2, INFINITY, 4, 5, 6});
    EXPECT_THAT(refused(), HasSubstr("sample 0"));
    put("embeddings.npy", {6}, {1, 2, 3, 4, 5, 6});
    EXPECT_THAT(refused(), HasSubstr("[samples, size]"));
    put("embeddings.npy", {0, 3}, {});
    put("routing.npy", {0, 1, 2}, {});
    EXPECT_THAT(refused(), HasSubstr("embeddings.npy")) << "no samples";
    put("embeddings.npy", {2, 3}, {1, 2, 3, 4, 5, 6});
    put("routing.npy", {2, 1, 2}, {0.5f, 0.5f, 1, 0});
    EXPECT_TRUE(RomaBank::open(m_folder).ok());
}

/// Gradient descent on the alignment loss alone brings the last token's routing to its only neighbour's.
TEST(RomaBankTest, ARouterIsDrawnToItsNeighbours)
{
    const RomaBank bank = bankOf(fixture()["neighbours"][0]);
    const auto neighbours = std::move(*romaNeighbours(bank, std::span(bank.embeddings).first(10), 1));
    EXPECT_EQ(neighbours.index, (std::vector<std::int64_t>{0, 1}));
    auto targets = romaTargets(bank, neighbours, std::vector<std::int64_t>{1, -1, 0});
    ASSERT_TRUE(targets.ok());
    EXPECT_EQ(targets->weights[1].sum().item<float>(), 0);
    const auto router = std::move(*makeRouter(R"({"type":"roma_like","manifold_layers":2})", {6, 4, 2, {0, 1}}, 3));
    router->setManifold(*targets);
    torch::manual_seed(1);
    RouterInput input;
    input.x = torch::randn({9, 6});
    input.offsets = {0, 3, 6, 9};
    input.layers = 2;
    input.training = true;
    std::vector<torch::Tensor> weights;
    for (const auto &[name, t] : router->parameters())
        weights.push_back(t);
    torch::optim::Adam adam(weights, torch::optim::AdamOptions(0.1));
    double last = 0;
    for (int i = 0; i < 150; ++i) {
        adam.zero_grad();
        torch::Tensor loss = torch::zeros({});
        for (input.layer = 0; input.layer < 2; ++input.layer) {
            RouterState state;
            loss = loss + router->route(input, state, Capture::standard()).losses.at("manifold");
        }
        loss.backward();
        adam.step();
        last = loss.item<double>();
    }
    EXPECT_LT(last, 1e-4);
    for (input.layer = 0; input.layer < 2; ++input.layer) {
        RouterState state;
        const torch::Tensor p = router->route(input, state, Capture::standard()).probabilities;
        EXPECT_LT((p[2] - targets->routing[0][0][input.layer]).abs().max().item<double>(), 0.03);
        EXPECT_LT((p[8] - targets->routing[2][0][input.layer]).abs().max().item<double>(), 0.03);
    }
}

} // namespace
} // namespace spectra
