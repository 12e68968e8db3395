// SPDX-License-Identifier: GPL-3.0-or-later
// From a bank's folder to the targets of a micro-batch: numbers made by hand, and banks that do not fit.
#include "engine/core/npy.h"
#include "engine/run/romatargets.h"
#include "engine/run/romawindows.h"
#include "tests/support/tinymodel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

namespace spectra::test {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;

/// Texts in memory that say of themselves what a manifest must.
class FakeCorpus final : public Corpus {
public:
    explicit FakeCorpus(std::string order) : m_order(std::move(order)), m_domains{{"a", {}, 1}, {"b", {}, 1}}, m_tokens{std::vector<std::int32_t>(14), std::vector<std::int32_t>(9)} {}
    [[nodiscard]] const std::vector<DomainSource> &domains() const override { return m_domains; }
    [[nodiscard]] std::span<const std::int32_t> training(std::size_t domain) const override { return m_tokens.at(domain); }
    [[nodiscard]] std::span<const std::int32_t> heldOut(std::size_t) const override { return {}; }
    [[nodiscard]] std::int64_t heldOutBytes(std::size_t) const override { return 0; }
    [[nodiscard]] std::string manifest() const override
    {
        return R"({"format":"spectra-corpus-1","domains":[],"filters":{},"split":{},"tokenizer":{},"order":")" + m_order + "\"}";
    }

private:
    std::string m_order;
    std::vector<DomainSource> m_domains;
    std::vector<std::vector<std::int32_t>> m_tokens; ///< three windows of 4 and two
};

class Targets : public testing::Test {
protected:
    void SetUp() override
    {
        m_bank = m_folder / "bank";
        fs::create_directories(m_bank);
        m_told.model = "m";
        m_told.sequenceLength = 4;
        m_told.layers = 1;
        m_told.experts = 2;
        m_told.windows = {{0, 0, 0}, {0, 2, -1}, {1, 0, 1}, {1, 1, 2}};
        tell();
        put("queries.npy", {4, 1}, {0, 1, 2, 4});
        put("embeddings.npy", {3, 1}, {0, 2, 4});
        put("routing.npy", {3, 1, 2}, {1, 0, 0.5f, 0.5f, 0.25f, 0.75f});
        std::ofstream(m_bank / "manifest.json") << m_corpus->manifest();
        m_request = {m_bank, {}, 2, 1, 1, 2};
    }
    void tell() const { std::ofstream(m_bank / "windows.json") << m_told.toJson(); }
    void put(const std::string &name, const std::vector<std::int64_t> &shape, const std::vector<float> &values) const
    {
        std::ofstream stream(m_bank / name, std::ios::binary);
        writeNpy(stream, shape, values);
    }
    [[nodiscard]] Result<RomaTargets> open() const { return RomaTargets::open(m_request, *m_corpus, m_sampler, 4); }
    [[nodiscard]] std::string refusal() const
    {
        const auto targets = open();
        EXPECT_FALSE(targets.ok());
        if (targets.ok())
            return {};
        EXPECT_EQ(targets.error().kind, ErrorKind::input);
        return targets.error().what + " | " + targets.error().where + " | " + targets.error().mend;
    }
    [[nodiscard]] BatchSampler::Sequence at(std::size_t domain, std::int64_t begin) const { return {domain, m_corpus->training(domain).subspan(static_cast<std::size_t>(begin), 5), begin}; }

    TemporaryFolder m_folder{"roma"};
    fs::path m_bank;
    RomaWindows m_told;
    std::shared_ptr<const FakeCorpus> m_corpus = std::make_shared<FakeCorpus>("dealt");
    BatchSampler m_sampler{m_corpus, 4, 0, BatchSampler::Cut::fixed};
    RomaRequest m_request;
};

TEST_F(Targets, AreTheNearestSuccessesOfEachWindow)
{
    const auto targets = open();
    ASSERT_TRUE(targets.ok()) << targets.error().what;
    EXPECT_EQ(targets->windows(), 4);
    EXPECT_EQ(targets->allWindows(), 5);
    // 0 lies 2 and 4 from the other samples, 1 lies 1 from two of them, 2 lies 2 from two, 4 lies 2 and 4 away. No sample is its own neighbour.
    EXPECT_EQ(targets->neighbours().index, (std::vector<std::int64_t>{1, 2, 0, 1, 0, 2, 1, 0}));
    const std::vector<BatchSampler::Sequence> batch = {at(0, 8), at(0, 4), at(1, 4), at(0, 0)};
    const auto of = targets->of(batch);
    ASSERT_TRUE(of.ok());
    ASSERT_EQ(of->weights.sizes().vec(), (std::vector<std::int64_t>{4, 2}));
    ASSERT_EQ(of->routing.sizes().vec(), (std::vector<std::int64_t>{4, 2, 1, 2}));
    const double near = 1 / (1 + std::exp(-6)); // e^(-4/2) against e^(-16/2)
    const std::vector<double> weights = {0.5, 0.5, 0, 0, near, 1 - near, near, 1 - near};
    for (std::int64_t i = 0; i < 8; ++i)
        EXPECT_NEAR(of->weights.view({-1})[i].item<double>(), weights[static_cast<std::size_t>(i)], 1e-6) << i;
    const std::vector<float> routing = {1, 0, 0.5f, 0.5f, 0, 0, 0, 0, 0.5f, 0.5f, 1, 0, 0.5f, 0.5f, 0.25f, 0.75f};
    for (std::int64_t i = 0; i < 16; ++i)
        EXPECT_EQ(of->routing.view({-1})[i].item<float>(), routing[static_cast<std::size_t>(i)]) << i;
    m_request.sigma = 0;
    EXPECT_EQ(open()->neighbours().sigma, 2) << "the median of 2 4 1 1 2 2 2 4";
}

TEST_F(Targets, EmbeddingsOfAnotherEmbedderTakeTheBanksPlace)
{
    m_request.embeddings = m_folder / "outside.npy";
    {
        std::ofstream stream(m_request.embeddings, std::ios::binary);
        writeNpy(stream, std::vector<std::int64_t>{4, 2}, std::vector<float>{0, 0, 9, 9, 0, 7, 0, 8});
    }
    const auto targets = open();
    ASSERT_TRUE(targets.ok()) << targets.error().what;
    EXPECT_EQ(targets->bank().dimension, 2);
    EXPECT_EQ(targets->neighbours().index, (std::vector<std::int64_t>{1, 2, 2, 1, 2, 0, 1, 0}));
    m_request.embeddings.clear();
    EXPECT_NE(open()->sha256(), targets->sha256());
    m_request.embeddings = m_folder / "short.npy";
    {
        std::ofstream stream(m_request.embeddings, std::ios::binary);
        writeNpy(stream, std::vector<std::int64_t>{3, 1}, std::vector<float>{0, 1, 2});
    }
    EXPECT_THAT(refusal(), HasSubstr("short.npy"));
}

TEST_F(Targets, ABankThatDoesNotFitIsRefusedWithItsMend)
{
    const RomaRequest right = m_request;
    m_request.layers = 2;
    EXPECT_THAT(refusal(), HasSubstr("router.manifold_layers"));
    m_request = right;
    m_request.experts = 8;
    EXPECT_THAT(refusal(), HasSubstr("2 experts"));
    m_request = right;
    m_request.neighbours = 3;
    EXPECT_THAT(refusal(), HasSubstr("use roma.neighbours <= 2"));
    m_request = right;
    m_request.bank = m_folder / "nowhere";
    EXPECT_THAT(refusal(), testing::AllOf(HasSubstr("nowhere"), HasSubstr("spectra roma-bank")));
    m_request = right;
    m_corpus = std::make_shared<FakeCorpus>("otherwise");
    EXPECT_THAT(refusal(), testing::AllOf(HasSubstr("other texts"), HasSubstr("the order")));
    m_corpus = std::make_shared<FakeCorpus>("dealt");
    m_told.sequenceLength = 8;
    tell();
    EXPECT_THAT(refusal(), HasSubstr("training.sequence_length"));
    m_told.sequenceLength = 4;
    m_told.windows.back().number = 2;
    tell();
    EXPECT_THAT(refusal(), HasSubstr("window 2 of domain 1"));
    m_told.windows = {{0, 0, 0}, {1, 0, 1}};
    tell();
    EXPECT_THAT(refusal(), HasSubstr("do not belong together"));
    m_told.windows = {{0, 0, 0}, {0, 2, -1}, {1, 0, 1}, {1, 1, 2}};
    tell();
    put("queries.npy", {3, 1}, {0, 1, 2});
    EXPECT_THAT(refusal(), HasSubstr("queries.npy"));
    put("queries.npy", {4, 1}, {0, NAN, 2, 4});
    EXPECT_THAT(refusal(), HasSubstr("query 1"));
    put("queries.npy", {4, 2}, std::vector<float>(8));
    EXPECT_THAT(refusal(), HasSubstr("embeddings of 2 numbers"));
    std::ofstream(m_bank / "queries.npy") << "nonsense";
    EXPECT_THAT(refusal(), HasSubstr("NumPy"));
    fs::remove(m_bank / "manifest.json");
    EXPECT_THAT(refusal(), HasSubstr("manifest.json"));
}

TEST_F(Targets, ARunKnowsItsBankAgain)
{
    const auto targets = open();
    ASSERT_TRUE(targets.ok());
    ASSERT_TRUE(keepRomaBank(m_folder.path(), *targets, false).ok());
    EXPECT_TRUE(keepRomaBank(m_folder.path(), *targets, true).ok());
    put("queries.npy", {4, 1}, {0, 1, 2, 5});
    const auto other = keepRomaBank(m_folder.path(), *open(), true);
    ASSERT_FALSE(other.ok());
    EXPECT_EQ(other.error().kind, ErrorKind::input);
    EXPECT_THAT(other.error().what, HasSubstr("another bank"));
}

TEST(RomaWindowsTest, ReadsWhatItWritesAndNothingElse)
{
    RomaWindows told;
    told.model = "\"m\"";
    told.success = "s";
    told.embedding = "e";
    told.sequenceLength = 32;
    told.layers = 2;
    told.experts = 8;
    told.windows = {{0, 0, -1}, {0, 7, 0}, {3, 1, 1}};
    const auto again = RomaWindows::parse(told.toJson(), "w");
    ASSERT_TRUE(again.ok()) << again.error().what;
    EXPECT_EQ(again->toJson(), told.toJson());
    EXPECT_EQ(again->successes(), 2);
    const std::string head = R"({"format":"spectra-roma-bank-1","sequence_length":4,"layers":1,"experts":2,)";
    EXPECT_TRUE(RomaWindows::parse(head + R"("domain":[0],"window":[0],"row":[0]})", "w").ok());
    for (const std::string &bad : std::vector<std::string>{
             "", "[]", "{}", R"({"format":"spectra-roma-bank-2"})", head + R"("domain":[],"window":[],"row":[]})", head + R"("domain":[0],"window":[0]})",
             head + R"("domain":[0],"window":[0,1],"row":[0]})", head + R"("domain":[0],"window":[0],"row":[1]})", head + R"("domain":[0],"window":[0],"row":[-2]})",
             head + R"("domain":[-1],"window":[0],"row":[0]})", head + R"("domain":[0],"window":[1.5],"row":[0]})", head + R"("domain":[0],"window":["0"],"row":[0]})",
             head + R"("domain":[0,0],"window":[1,1],"row":[0,1]})", head + R"("domain":[1,0],"window":[0,0],"row":[0,1]})",
             head + R"("domain":[0],"window":[18446744073709551615],"row":[0]})",
             R"({"format":"spectra-roma-bank-1","sequence_length":0,"layers":1,"experts":2,"domain":[0],"window":[0],"row":[0]})", std::string(100000, '[')}) {
        const auto parsed = RomaWindows::parse(bad, "w.json");
        ASSERT_FALSE(parsed.ok()) << bad.substr(0, 200);
        EXPECT_EQ(parsed.error().kind, ErrorKind::input);
        EXPECT_THAT(parsed.error().where, HasSubstr("w.json"));
    }
}

} // namespace
} // namespace spectra::test
