// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tokenizer/bpetrainer.h"

#include "engine/core/files.h"
#include "engine/tokenizer/bpe.h"
#include "engine/tokenizer/pretokenizer.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/utf8.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <limits>
#include <queue>
#include <unordered_map>
#include <utility>

namespace spectra {
namespace {

using Pair = std::uint64_t; // ids of left and right, so that the order of numbers is the order of pairs

Pair pairOf(std::int32_t left, std::int32_t right)
{
    return Pair(std::uint32_t(left)) << 32 | std::uint32_t(right);
}

struct PairHash {
    std::size_t operator()(Pair pair) const
    {
        pair *= 0x9E3779B97F4A7C15u;
        return std::size_t(pair ^ pair >> 32);
    }
};

using WordCounts = std::unordered_map<std::string, std::int64_t, StringHash, std::equal_to<>>;

/// A word's symbols in the common store; they only become fewer.
struct Word {
    std::size_t begin = 0;
    std::uint32_t length = 0;
    std::int64_t count = 0;
};

/// A pair that waits to be merged in some words. A pair can wait more than once: its tokens may meet again through another
/// merge that makes the same token ("ab" + "c" after "a" + "bc").
struct Waiting {
    std::int64_t count;
    Pair pair;
    std::size_t words; // index of the list of words
    bool operator<(const Waiting &other) const { return count != other.count ? count < other.count : pair > other.pair; }
};

/// The merges of one training. Counts of pairs are kept up to date by what each merge changes; a count in the queue may be
/// old, which is noticed when it comes up.
class Merger {
public:
    Merger(const WordCounts &words, const std::array<std::int32_t, 256> &byteIds)
    {
        std::size_t symbols = 0;
        for (const auto &[text, count] : words)
            symbols += text.size();
        m_symbols.reserve(symbols);
        m_words.reserve(words.size());
        for (const auto &[text, count] : words) {
            const auto index = std::uint32_t(m_words.size());
            m_words.push_back({m_symbols.size(), std::uint32_t(text.size()), count});
            for (std::size_t i = 0; i < text.size(); ++i) {
                m_symbols.push_back(byteIds[static_cast<unsigned char>(text[i])]);
                if (i > 0)
                    add(pairOf(m_symbols[m_symbols.size() - 2], m_symbols.back()), count, index);
            }
        }
        enqueue();
    }

    /// The pair of highest count, of equal ones the lowest; none when no count reaches `minimum`.
    [[nodiscard]] bool next(std::int64_t minimum, Waiting &top)
    {
        while (!m_queue.empty()) {
            top = m_queue.top();
            m_queue.pop();
            const std::int64_t now = m_counts[top.pair];
            if (top.count == now)
                return now >= std::max<std::int64_t>(minimum, 1);
            if (now > 0) { // a pair that is gone never comes up again by this entry
                top.count = now;
                m_queue.push(top);
            }
        }
        return false;
    }

    void merge(const Waiting &waiting, std::int32_t id)
    {
        const std::vector<std::uint32_t> words = std::move(m_lists[waiting.words]);
        for (const std::uint32_t index : words)
            mergeIn(index, std::int32_t(waiting.pair >> 32), std::int32_t(std::uint32_t(waiting.pair)), id);
        enqueue();
    }

private:
    void add(Pair pair, std::int64_t count, std::uint32_t word)
    {
        m_counts[pair] += count;
        std::vector<std::uint32_t> &list = m_fresh[pair];
        if (list.empty() || list.back() != word)
            list.push_back(word);
    }
    void enqueue()
    {
        for (auto &[pair, list] : m_fresh) {
            if (const std::int64_t count = m_counts[pair]; count > 0) {
                m_queue.push({count, pair, m_lists.size()});
                m_lists.push_back(std::move(list));
            }
        }
        m_fresh.clear();
    }
    void mergeIn(std::uint32_t index, std::int32_t left, std::int32_t right, std::int32_t id)
    {
        Word &word = m_words[index];
        std::int32_t *const symbols = m_symbols.data() + word.begin;
        std::uint32_t out = 0;
        for (std::uint32_t in = 0; in < word.length; ++in, ++out) {
            if (symbols[in] != left || in + 1 == word.length || symbols[in + 1] != right) {
                symbols[out] = symbols[in];
                continue;
            }
            if (out > 0) {
                m_counts[pairOf(symbols[out - 1], left)] -= word.count;
                add(pairOf(symbols[out - 1], id), word.count, index);
            }
            ++in;
            if (in + 1 < word.length) {
                m_counts[pairOf(right, symbols[in + 1])] -= word.count;
                add(pairOf(id, symbols[in + 1]), word.count, index);
            }
            symbols[out] = id;
        }
        word.length = out;
    }

    std::vector<std::int32_t> m_symbols;
    std::vector<Word> m_words;
    std::unordered_map<Pair, std::int64_t, PairHash> m_counts;
    std::unordered_map<Pair, std::vector<std::uint32_t>, PairHash> m_fresh;
    std::vector<std::vector<std::uint32_t>> m_lists;
    std::priority_queue<Waiting> m_queue;
};

} // namespace

struct BpeTrainer::Private {
    BpeTrainOptions options;
    std::optional<PreTokenizer> preTokenizer;
    RegexMatcher matcher;
    WordCounts words;
    std::optional<Error> error;

    void count(std::string_view word)
    {
        if (const auto it = words.find(word); it != words.end())
            ++it->second;
        else
            words.emplace(word, 1);
    }
    Result<void> check() const;
    std::string json(const std::vector<std::string> &pieces, const std::vector<Pair> &merges) const;
};

BpeTrainer::BpeTrainer(BpeTrainOptions options) : d(std::make_unique<Private>())
{
    d->options = std::move(options);
    auto made = PreTokenizer::fromJson({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}});
    if (made)
        d->preTokenizer = std::move(*made);
    else
        d->error = made.error();
}

BpeTrainer::~BpeTrainer() = default;

void BpeTrainer::add(std::string_view text)
{
    if (d->error)
        return;
    if (text.size() > std::size_t(INT32_MAX)) {
        d->error = inputError("the text is longer than 2 GiB", {}, "give it in pieces");
        return;
    }
    const OffsetMap map;
    const PreTokenizer::Word word = [&](const TextPiece &piece) {
        d->count(piece.text);
        return true;
    };
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t valid = utf8::validLength(text, at);
        if (valid > 0 && !d->preTokenizer->run({text.substr(at, valid), &map, at}, d->matcher, word, d->error))
            return;
        at += valid;
        const std::size_t begin = at;
        while (at < text.size() && utf8Length(text, at) == 0)
            ++at;
        if (at > begin)
            d->count(text.substr(begin, at - begin));
    }
}

Result<void> BpeTrainer::Private::check() const
{
    if (error)
        return *error;
    const auto least = std::int64_t(256 + options.specialTokens.size());
    if (options.vocabulary < least || options.vocabulary > (1 << 24))
        return usageError("a byte-level vocabulary has " + std::to_string(least) + " (the bytes and the special tokens) to 16777216 tokens, not "
                              + std::to_string(options.vocabulary),
                          "vocabulary");
    for (std::size_t i = 0; i < options.specialTokens.size(); ++i) {
        const std::string &token = options.specialTokens[i];
        if (token.empty() || utf8::validLength(token, 0) != token.size())
            return usageError("a special token is empty or not UTF-8", "special tokens");
        if (std::find(options.specialTokens.begin(), options.specialTokens.begin() + std::ptrdiff_t(i), token)
            != options.specialTokens.begin() + std::ptrdiff_t(i))
            return usageError("the special token " + token + " is given twice", "special tokens");
        if (std::size_t(utf8::lengthOf(token[0])) == token.size() && bytealphabet::toByte(utf8::decode(token, 0)) >= 0)
            return usageError("the special token " + token + " spells a single byte", "special tokens", "take a longer name, e.g. <|endoftext|>");
    }
    return {};
}

std::string BpeTrainer::Private::json(const std::vector<std::string> &pieces, const std::vector<Pair> &merges) const
{
    nlohmann::ordered_json root;
    root["version"] = "1.0";
    root["added_tokens"] = nlohmann::ordered_json::array();
    for (std::size_t i = 0; i < options.specialTokens.size(); ++i)
        root["added_tokens"].push_back({{"id", i}, {"content", options.specialTokens[i]}, {"single_word", false}, {"lstrip", false},
                                        {"rstrip", false}, {"normalized", false}, {"special", true}});
    root["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
    root["decoder"] = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
    auto &model = root["model"];
    model["type"] = "BPE";
    auto vocabulary = nlohmann::json::object(); // ordered_json would search all keys at every insertion
    for (std::size_t id = 0; id < pieces.size(); ++id)
        vocabulary[pieces[id]] = id;
    model["vocab"] = vocabulary;
    auto list = nlohmann::ordered_json::array();
    for (const Pair merge : merges)
        list.push_back({pieces[std::size_t(merge >> 32)], pieces[std::size_t(std::uint32_t(merge))]});
    model["merges"] = std::move(list);
    return root.dump();
}

Result<std::string> BpeTrainer::train(const ProgressFunction &progress, std::stop_token stop)
{
    SPECTRA_CHECK(d->check());
    const BpeTrainOptions &options = d->options;
    std::vector<std::string> pieces = options.specialTokens;
    std::unordered_map<std::string, std::int32_t> ids;
    for (std::size_t i = 0; i < pieces.size(); ++i)
        ids.emplace(pieces[i], std::int32_t(i));
    std::array<std::int32_t, 256> byteIds{};
    for (char32_t c = 0, found = 0; found < 256; ++c) { // the bytes in the order of their spelling
        const int byte = bytealphabet::toByte(c);
        if (byte < 0)
            continue;
        ++found;
        byteIds[std::size_t(byte)] = std::int32_t(pieces.size());
        std::string piece;
        utf8::append(piece, c);
        ids.emplace(piece, std::int32_t(pieces.size()));
        pieces.push_back(std::move(piece));
    }
    const auto first = std::int64_t(pieces.size());
    const auto wanted = std::size_t(options.vocabulary);
    Merger merger(d->words, byteIds);
    std::vector<Pair> merges;
    Waiting top{};
    while (pieces.size() < wanted) {
        if (stop.stop_requested())
            return cancelledError();
        if (!merger.next(options.minimumFrequency, top))
            return inputError("too little text for a vocabulary of " + std::to_string(options.vocabulary) + " tokens: it gives "
                                  + std::to_string(pieces.size()),
                              {}, "give more text, or a vocabulary of at most " + std::to_string(pieces.size()));
        std::string piece = pieces[std::size_t(top.pair >> 32)] + pieces[std::size_t(std::uint32_t(top.pair))];
        const auto [it, isNew] = ids.emplace(piece, std::int32_t(pieces.size()));
        if (isNew)
            pieces.push_back(std::move(piece));
        merges.push_back(top.pair);
        merger.merge(top, it->second);
        if (progress && merges.size() % 64 == 0)
            progress({"training the tokenizer", std::int64_t(pieces.size()) - first, options.vocabulary - first, "merges"});
    }
    // A pair that was merged twice (see Waiting) has the later rank.
    std::unordered_map<Pair, std::size_t, PairHash> last;
    for (std::size_t i = 0; i < merges.size(); ++i)
        last[merges[i]] = i;
    std::vector<Pair> kept;
    kept.reserve(merges.size());
    for (std::size_t i = 0; i < merges.size(); ++i) {
        if (last[merges[i]] == i)
            kept.push_back(merges[i]);
    }
    // Through the reader: what it cannot read is never handed out, and the text is the one that Tokenizer::toJson() writes.
    auto loaded = Tokenizer::fromJson(d->json(pieces, kept), "the trained tokenizer");
    if (!loaded)
        return bugError(loaded.error().what, loaded.error().where);
    return (*loaded)->toJson();
}

std::string BpeTrainer::configJson() const
{
    nlohmann::ordered_json config;
    config["tokenizer_class"] = "PreTrainedTokenizerFast";
    config["clean_up_tokenization_spaces"] = false;
    if (!d->options.specialTokens.empty())
        config["eos_token"] = d->options.specialTokens.front();
    return config.dump(2) + "\n";
}

} // namespace spectra
