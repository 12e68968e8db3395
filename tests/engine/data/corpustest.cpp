// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/engine/data/support.h"

#include "engine/core/files.h"
#include "engine/data/manifest.h"

#include <nlohmann/json.hpp>

#include <cmath>
#include <thread>

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

TEST_F(CorpusTest, filtersLeaveDocumentsOut)
{
    CorpusOptions options;
    options.heldOut = 0;
    options.deduplicate = true;
    options.minCharacters = 3;
    options.maxCharacters = 10;
    const std::string same = R"({"text":"äöü"})";
    options.domains = {{"a", {write("a.jsonl", same + "\n" + R"({"text":"ab"})" + "\n" + R"({"text":"abcdefghijk"})" + "\n" + R"({"text":"  \n  "})" + "\n" + same + "\n")}, 1},
                       {"b", {write("b.jsonl", R"({"text":"other"})" "\n" + same + "\n"), write("long.txt", "longer than ten"), write("short.txt", "short one")}, 1}};
    auto corpus = open(options, 1);
    ASSERT_TRUE(corpus.ok()) << shown(corpus.error());
    EXPECT_EQ(m_tokenizer->decode((*corpus)->training(0)), "äöü");
    EXPECT_EQ(m_tokenizer->decode((*corpus)->training(1)), "other<|endoftext|>short one");
    EXPECT_TRUE((*corpus)->heldOut(0).empty());
    const auto manifest = nlohmann::json::parse((*corpus)->manifest());
    EXPECT_EQ(manifest["domains"][0]["files"][0]["documents"], 5);
    EXPECT_EQ(manifest["domains"][0]["files"][0]["kept"], 1);
    EXPECT_EQ(manifest["domains"][1]["files"][1]["kept"], 0);
}

TEST_F(CorpusTest, maxTokensCutsTheTrainingPartOnly)
{
    CorpusOptions options;
    options.domains = {{"a", {write("a.txt", words(400000, 1))}, 1}};
    auto whole = open(options);
    ASSERT_TRUE(whole.ok());
    options.maxTokens = 1000;
    auto cut = open(options);
    ASSERT_TRUE(cut.ok()) << shown(cut.error());
    EXPECT_EQ(copyOf((*cut)->training(0)), copyOf((*whole)->training(0).first(1000)));
    EXPECT_EQ(copyOf((*cut)->heldOut(0)), copyOf((*whole)->heldOut(0)));
}

/// So few documents that none falls on the spread: the middle one.
TEST_F(CorpusTest, oneOfFewIsHeldOut)
{
    CorpusOptions options;
    options.deduplicate = true; // the count before must leave no trace
    options.domains = {{"a", {write("a.jsonl", "{\"text\":\"first\"}\n{\"text\":\"second\"}\n{\"text\":\"third\"}\n")}, 1}};
    auto corpus = open(options, 1);
    ASSERT_TRUE(corpus.ok()) << shown(corpus.error());
    EXPECT_EQ(m_tokenizer->decode((*corpus)->heldOut(0)), "second");
    EXPECT_EQ(m_tokenizer->decode((*corpus)->training(0)), "first<|endoftext|>third");
    options.domains = {{"a", {write("b.jsonl", "{\"text\":\"only\"}\n")}, 1}};
    const auto single = open(options, 1);
    ASSERT_FALSE(single.ok());
    EXPECT_NE(single.error().what.find("nothing can be held out"), std::string::npos);
    // However small the share is, the end is found.
    options.domains = {{"a", {m_folder / "a.jsonl"}, 1}};
    for (const double share : {1e-12, 1e-17, 1e-30, 5e-324}) {
        options.heldOut = share;
        auto tiny = open(options, 1);
        ASSERT_TRUE(tiny.ok()) << share << ": " << shown(tiny.error());
        EXPECT_EQ(m_tokenizer->decode((*tiny)->heldOut(0)), "second") << share;
    }
}

TEST_F(CorpusTest, sharesAreHeldOut)
{
    std::string lines;
    for (int i = 0; i < 1000; ++i)
        lines += "{\"text\":\"number " + std::to_string(i) + "\"}\n";
    const auto file = write("a.jsonl", lines);
    for (const double share : {0.001, 0.01, 0.05, 0.3, 0.5, 0.9}) {
        CorpusOptions options;
        options.domains = {{"a", {file}, 1}};
        options.heldOut = share;
        auto corpus = open(options, 1);
        ASSERT_TRUE(corpus.ok()) << shown(corpus.error());
        const auto manifest = nlohmann::json::parse((*corpus)->manifest());
        EXPECT_NEAR(manifest["domains"][0]["held_out"]["documents"].get<double>(), 1000 * share, 0.51) << share;
    }
}

TEST_F(CorpusTest, severalOpenAtOnce)
{
    CorpusOptions options;
    options.domains = {{"a", {write("a.txt", words(300000, 1))}, 1}};
    std::vector<std::vector<std::int32_t>> tokens(4);
    {
        std::vector<std::jthread> threads;
        for (auto &mine : tokens) {
            threads.emplace_back([&] {
                if (auto corpus = open(options))
                    mine = copyOf((*corpus)->training(0));
            });
        }
    }
    for (const auto &mine : tokens) {
        EXPECT_GT(mine.size(), 1000u);
        EXPECT_EQ(mine, tokens[0]);
    }
    int entries = 0;
    for ([[maybe_unused]] const auto &entry : std::filesystem::directory_iterator(cache() / "corpora"))
        ++entries;
    EXPECT_EQ(entries, 1); // nothing temporary stays
}

TEST_F(CorpusTest, errorsNameTheDomain)
{
    const auto good = write("good.txt", words(200000, 1));
    const auto fails = [&](std::vector<DomainSource> domains, const std::string &what, const std::string &where, ErrorKind kind = ErrorKind::input,
                           double heldOut = 0.05, std::int64_t need = 65) {
        CorpusOptions options;
        options.domains = std::move(domains);
        options.heldOut = heldOut;
        const auto corpus = open(options, need);
        ASSERT_FALSE(corpus.ok()) << what;
        EXPECT_EQ(corpus.error().kind, kind) << shown(corpus.error());
        EXPECT_NE(corpus.error().what.find(what), std::string::npos) << shown(corpus.error());
        EXPECT_NE(corpus.error().where.find(where), std::string::npos) << shown(corpus.error());
    };
    fails({}, "no domain", "domains");
    fails({{"wiki", {good}, 1}, {"code", {}, 1}}, "no file", "domain code");
    fails({{"wiki", {good}, 1}, {"code", {m_folder / "absent.txt"}, 1}}, "no such file", "domain code: " + (m_folder / "absent.txt").string());
    fails({{"wiki", {good}, 1}, {"wiki", {good}, 1}}, "twice", "domain wiki", ErrorKind::usage);
    fails({{"wiki", {good}, -1}}, "weight", "domain wiki", ErrorKind::usage);
    fails({{"wiki", {good}, 0}}, "no domain has a weight", "domains", ErrorKind::usage);
    fails({{"wiki", {good}, 1}}, "held-out share", "held_out", ErrorKind::usage, 1.0);
    fails({{"wiki", {good}, 1}}, "held-out share", "held_out", ErrorKind::usage, std::nan(""));
    fails({{"wiki", {good}, 1}, {"blank", {write("blank.jsonl", "\n\n")}, 1}}, "no text left", "domain blank");
    fails({{"wiki", {good}, 1}, {"bad", {write("bad.jsonl", "{\"text\":\"a\"}\n{}\n")}, 1}}, "no field", "domain bad: " + (m_folder / "bad.jsonl").string() + ": line 2");
    fails({{"wiki", {good}, 1}}, "training tokens, 9000000 are needed", "domain wiki", ErrorKind::input, 0.05, 9000000);
}

TEST_F(CorpusTest, tooLittleTextSaysHowMuchThereIs)
{
    std::string lines;
    for (int i = 0; i < 20; ++i)
        lines += "{\"text\":\"a b c d e f\"}\n";
    CorpusOptions options;
    options.domains = {{"wiki", {write("a.jsonl", lines)}, 1}};
    options.heldOut = 0.1;
    auto corpus = open(options, 1);
    ASSERT_TRUE(corpus.ok());
    const std::size_t training = (*corpus)->training(0).size(), heldOut = (*corpus)->heldOut(0).size();
    const auto first = open(options, std::int64_t(training) + 1);
    ASSERT_FALSE(first.ok());
    EXPECT_EQ(first.error().what, "too little text: " + std::to_string(training) + " training tokens, " + std::to_string(training + 1) + " are needed");
    EXPECT_EQ(first.error().where, "domain wiki");
    const auto second = open(options, std::int64_t(heldOut) + 1);
    ASSERT_FALSE(second.ok());
    EXPECT_EQ(second.error().what, "too little text: " + std::to_string(heldOut) + " held-out tokens, " + std::to_string(heldOut + 1) + " are needed");
    EXPECT_TRUE(open(options, std::int64_t(heldOut)).ok());
}

TEST_F(CorpusTest, cacheThatCannotBeWrittenIsSaid)
{
    CorpusOptions options;
    options.domains = {{"a", {write("a.txt", words(200000, 1))}, 1}};
    write("cache", "a file where the folder should be");
    const auto corpus = open(options);
    ASSERT_FALSE(corpus.ok());
    EXPECT_EQ(corpus.error().kind, ErrorKind::work);
    EXPECT_FALSE(corpus.error().mend.empty());
}

TEST_F(CorpusTest, cancelledLeavesNothing)
{
    CorpusOptions options;
    options.domains = {{"a", {write("a.txt", words(3000000, 1))}, 1}, {"b", {write("b.txt", words(300000, 2))}, 1}};
    std::stop_source source;
    const auto stopLater = [&](const Progress &p) {
        if (p.stage == "reading b")
            source.request_stop();
    };
    const auto corpus = Corpus::open(options, m_tokenizer, 65, cache(), stopLater, source.get_token());
    ASSERT_FALSE(corpus.ok());
    EXPECT_EQ(corpus.error().kind, ErrorKind::cancelled);
    EXPECT_TRUE(std::filesystem::is_empty(cache() / "corpora"));
}

TEST_F(CorpusTest, manifestsTellTheFirstDifference)
{
    CorpusOptions options;
    options.domains = {{"wiki", {write("a.txt", words(200000, 1))}, 1}, {"code", {write("b.txt", words(200000, 2)), write("c.txt", words(200000, 3))}, 1}};
    const auto manifest = [&](const CorpusOptions &o) {
        auto corpus = open(o);
        return corpus.ok() ? (*corpus)->manifest() : shown(corpus.error());
    };
    const std::string before = manifest(options);
    const auto differs = [&](const std::string &now) {
        auto found = manifestDifference(before, now);
        return found.ok() ? *found : shown(found.error());
    };
    EXPECT_EQ(differs(before), "");
    CorpusOptions moved = options;
    std::filesystem::copy(m_folder / "a.txt", m_folder / "moved.txt");
    moved.domains[0].files = {m_folder / "moved.txt"};
    EXPECT_EQ(differs(manifest(moved)), "");
    CorpusOptions other = options;
    other.domains[1].weight = 2;
    EXPECT_EQ(differs(manifest(other)), "domain code: the weight is 2.0, not 1.0 as before");
    other = options;
    std::swap(other.domains[0], other.domains[1]);
    EXPECT_EQ(differs(manifest(other)), "domain 1 is code, not wiki as before");
    other = options;
    other.domains[1].files.pop_back();
    EXPECT_EQ(differs(manifest(other)), "domain code: it has 1 files, not 2 as before");
    other = options;
    std::swap(other.domains[1].files[0], other.domains[1].files[1]);
    EXPECT_EQ(differs(manifest(other)), "domain code: file 1 has other contents (" + (m_folder / "c.txt").string() + ")");
    other = options;
    other.domains.pop_back();
    EXPECT_EQ(differs(manifest(other)), "there are 1 domains, not 2 as before");
    other = options;
    other.maxTokens = 5000;
    EXPECT_EQ(differs(manifest(other)), "filter max_tokens is 5000, not 0 as before");
    other = options;
    other.heldOut = 0.1;
    EXPECT_EQ(differs(manifest(other)), "split: held_out is 0.1, not 0.05 as before");
    BpeTrainer trainer({310, {"<|endoftext|>"}, 2});
    trainer.add(words(20000, 3));
    m_tokenizer = *Tokenizer::fromJson(*trainer.train({}, {}), "test", corpusTokenizerConfig());
    EXPECT_TRUE(differs(manifest(options)).starts_with("tokenizer: ")) << differs(manifest(options));
    for (const char *wrong : {"", "[]", "{}", "{\"format\":\"spectra-corpus-1\"}", "{\"format\":\"spectra-corpus-1\",\"domains\":[{}]}", "{\"format\":\"spectra-corpus-1\",\"domains\":7}"})
        EXPECT_FALSE(manifestDifference(wrong, before).ok()) << wrong;
}

} // namespace
} // namespace spectra::testing
