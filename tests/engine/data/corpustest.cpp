// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/engine/data/support.h"

#include "engine/core/files.h"

#include <nlohmann/json.hpp>

namespace spectra::testing {
namespace {

class CorpusTest : public DataTest {
protected:
    std::shared_ptr<const Tokenizer> m_tokenizer = byteTokenizer();

    Result<std::shared_ptr<const Corpus>> open(const CorpusOptions &options, std::int64_t need = 65) const
    {
        return Corpus::open(options, m_tokenizer, need, cache(), {}, {});
    }
    [[nodiscard]] std::vector<std::int32_t> encoded(std::string_view text) const { return m_tokenizer->encode(text, {false, false})->ids; }
    static std::vector<std::int32_t> copyOf(std::span<const std::int32_t> ids) { return {ids.begin(), ids.end()}; }
};

/// 40 documents, share 0.1: those held out are 4, 14, 24, 34.
TEST_F(CorpusTest, splitsAndJoinsDocuments)
{
    std::string lines;
    std::vector<std::int32_t> training, heldOut;
    std::size_t heldOutBytes = 0;
    for (int i = 0; i < 40; ++i) {
        const std::string text = "number " + std::to_string(i) + " abc def";
        lines += R"({"text": ")" + text + "\"}\n";
        auto &part = i % 10 == 4 ? heldOut : training;
        if (!part.empty())
            part.push_back(*m_tokenizer->eos());
        for (const std::int32_t id : encoded(text))
            part.push_back(id);
        heldOutBytes += i % 10 == 4 ? text.size() : 0;
    }
    CorpusOptions options;
    options.domains = {{"numbers", {write("a.jsonl", lines)}, 1}};
    options.heldOut = 0.1;
    auto corpus = open(options, 10);
    ASSERT_TRUE(corpus.ok()) << shown(corpus.error());
    EXPECT_EQ(copyOf((*corpus)->training(0)), training);
    EXPECT_EQ(copyOf((*corpus)->heldOut(0)), heldOut);
    EXPECT_EQ((*corpus)->heldOutBytes(0), std::int64_t(heldOutBytes));
    const auto manifest = nlohmann::json::parse((*corpus)->manifest());
    const auto &domain = manifest["domains"][0];
    EXPECT_EQ(domain["files"][0]["documents"], 40);
    EXPECT_EQ(domain["files"][0]["kept"], 40);
    EXPECT_EQ(domain["files"][0]["sha256"], *sha256File(m_folder / "a.jsonl"));
    EXPECT_EQ(domain["training"]["tokens"], training.size());
    EXPECT_EQ(domain["held_out"]["documents"], 4);
    EXPECT_EQ(manifest["tokenizer"]["sha256"], m_tokenizer->sha256());
}

/// Pieces of one text that follow each other have nothing between them; where a held-out one was taken, a new text begins.
TEST_F(CorpusTest, plainTextIsContinuedAcrossPieces)
{
    const std::string text = words(400000, 1);
    CorpusOptions options;
    options.domains = {{"plain", {write("a.txt", text)}, 1}};
    options.heldOut = 0.1;
    auto corpus = open(options);
    ASSERT_TRUE(corpus.ok()) << shown(corpus.error());
    std::vector<std::string> pieces;
    ASSERT_TRUE(readDocuments(m_folder / "a.txt", "text", [&](std::string_view piece) {
                    pieces.emplace_back(piece);
                    return true;
                }).ok());
    std::string together, held;
    std::vector<std::int32_t> training;
    for (std::size_t i = 0; i < pieces.size(); ++i) {
        together += pieces[i];
        if (i % 10 == 4) {
            held += pieces[i];
            continue;
        }
        if (i % 10 == 5)
            training.push_back(*m_tokenizer->eos());
        for (const std::int32_t id : encoded(pieces[i]))
            training.push_back(id);
    }
    EXPECT_EQ(together, text);
    EXPECT_GT(pieces.size(), 20u);
    EXPECT_EQ(copyOf((*corpus)->training(0)), training);
    EXPECT_EQ((*corpus)->heldOutBytes(0), std::int64_t(held.size()));
}

TEST_F(CorpusTest, cacheIsUsedAndKeyedByContent)
{
    CorpusOptions options;
    options.domains = {{"a", {write("a.txt", words(200000, 1))}, 1}, {"b", {write("b.txt", words(200000, 2, 'k'))}, 1}};
    auto first = open(options);
    ASSERT_TRUE(first.ok()) << shown(first.error());
    int read = 0;
    const auto count = [&](const Progress &p) { read += p.stage.starts_with("reading"); };
    auto second = Corpus::open(options, m_tokenizer, 65, cache(), count, {});
    ASSERT_TRUE(second.ok());
    EXPECT_EQ(read, 0);
    EXPECT_EQ((*first)->manifest(), (*second)->manifest());
    options.domains[0].weight = 5; // does not change the tokens
    ASSERT_TRUE(Corpus::open(options, m_tokenizer, 65, cache(), count, {}).ok());
    EXPECT_EQ(read, 0);
    write("a.txt", words(200000, 9)); // same name, other text
    ASSERT_TRUE(Corpus::open(options, m_tokenizer, 65, cache(), count, {}).ok());
    EXPECT_GT(read, 0);
}

TEST_F(CorpusTest, damagedCacheIsMadeAgain)
{
    CorpusOptions options;
    options.domains = {{"a", {write("a.txt", words(200000, 1))}, 1}};
    auto first = open(options);
    ASSERT_TRUE(first.ok());
    const auto tokens = copyOf((*first)->training(0));
    first = workError("closed");
    for (const auto &folder : std::filesystem::directory_iterator(cache() / "corpora")) {
        std::fstream file(folder.path() / "0.training.i32", std::ios::in | std::ios::out | std::ios::binary);
        file.seekp(100);
        file.write("\xFF\xFF\xFF\x7F", 4);
    }
    auto second = open(options);
    ASSERT_TRUE(second.ok()) << shown(second.error());
    EXPECT_EQ(copyOf((*second)->training(0)), tokens);
}

TEST_F(CorpusTest, tokenizerSeesTrainingTextOnly)
{
    // The word of the held-out documents (4, 14, …) would be merged if it were seen.
    std::string lines;
    for (int i = 0; i < 40; ++i)
        lines += i % 10 == 4 ? "{\"text\": \"zzzzzzzzzzzzzzzzzzzzzzzz\"}\n" : "{\"text\": \"abab cdcd efef ghgh\"}\n";
    CorpusOptions options;
    options.domains = {{"a", {write("a.jsonl", lines)}, 1}};
    options.heldOut = 0.1;
    auto json = corpusTokenizer(options, 265, cache(), {}, {});
    ASSERT_TRUE(json.ok()) << shown(json.error());
    EXPECT_EQ(json->find("zz"), std::string::npos);
    auto loaded = Tokenizer::fromJson(*json, "trained", corpusTokenizerConfig());
    ASSERT_TRUE(loaded.ok());
    EXPECT_EQ((*loaded)->size(), 265);
    EXPECT_EQ((*loaded)->eos(), 0);
    auto again = corpusTokenizer(options, 265, cache(), {}, {});
    ASSERT_TRUE(again.ok());
    EXPECT_EQ(*again, *json);
}

} // namespace
} // namespace spectra::testing
