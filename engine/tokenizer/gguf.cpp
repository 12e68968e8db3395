// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tokenizer/gguf.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <numeric>

namespace spectra {
namespace {

using nlohmann::json;

constexpr const char *mark = "\xE2\x96\x81"; // ▁
constexpr std::size_t longestScored = 1024;

// The patterns are those of the models' own tokenizer.json files; each entry splits, isolated, what the one before left.
constexpr const char *gpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr const char *llama3 = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char *qwen2 = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char *o200k =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// Kimi writes [set&&[^\p{Han}]]; a look-ahead in front of the set is the same.
constexpr const char *kimi =
    R"([\p{Han}]+)"
    R"(|[^\r\n\p{L}\p{N}]?(?:(?!\p{Han})[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])*(?:(?!\p{Han})[\p{Ll}\p{Lm}\p{Lo}\p{M}])+(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?(?:(?!\p{Han})[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])+(?:(?!\p{Han})[\p{Ll}\p{Lm}\p{Lo}\p{M}])*(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// Cased letters; those that Unicode normalization would change are written as numbers.
constexpr const char *deepseekLetters =
    "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\\x{1F7D}ᾀ-ᾴᾶ-ᾼ\\x{1FBE}ῂ-ῄῆ-ῌῐ-\\x{1FD3}ῖ-\\x{1FDB}ῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\\x{2126}ℨ\\x{212A}-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";
constexpr const char *deepseekWords =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

struct PreName {
    std::vector<const char *> patterns;
    bool digits = false;       // each digit by itself first
    bool ignoreMerges = false;
    bool addBos = false;       // where the file does not say
};

const std::map<std::string, PreName, std::less<>> &preNames()
{
    static const std::map<std::string, PreName, std::less<>> names = [] {
        std::map<std::string, PreName, std::less<>> m;
        m["gpt-2"] = m["gpt2"] = m["olmo"] = m["mpt"] = m["phi-2"] = {{gpt2}};
        m["smollm"] = m["starcoder"] = m["refact"] = m["command-r"] = {{gpt2}, true};
        m["llama-bpe"] = m["llama3"] = m["llama-v3"] = {{llama3}, false, true, true};
        m["dbrx"] = m["smaug-bpe"] = {{llama3}};
        m["qwen2"] = m["stablelm2"] = m["deepseek-r1-qwen"] = {{qwen2}};
        m["deepseek-llm"] = {{"[\r\n]", deepseekLetters, "\\s?[!-/:-~！-／：-～‘-‟　-。]+", "\\s+$", "[一-龥ࠀ-一가-퟿]+", "\\p{N}+"}};
        m["deepseek-v3"] = {{"\\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", deepseekWords}};
        m["gpt-4o"] = m["o200k"] = m["llama4"] = m["minimax-m2"] = {{o200k}};
        m["kimi-k2"] = {{kimi}};
        m["default"] = {{R"([\p{P}\$\+<=>\^~\|]+)", gpt2, R"(\p{N}+)", "[0-9][0-9][0-9]"}};
        return m;
    }();
    return names;
}

json byteLevel(bool useRegex)
{
    return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", useRegex}};
}

/// SmolLM and GPT-2 as their own files write it; all others as Split elements.
json preTokenizer(const PreName &name)
{
    const bool builtIn = name.patterns.size() == 1 && name.patterns[0] == gpt2;
    json list = json::array();
    if (name.digits)
        list.push_back({{"type", "Digits"}, {"individual_digits", true}});
    if (!builtIn) {
        for (const char *pattern : name.patterns)
            list.push_back({{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}});
    }
    list.push_back(byteLevel(builtIn));
    return list.size() == 1 ? list[0] : json{{"type", "Sequence"}, {"pretokenizers", list}};
}

json postProcessor(const GgufVocabulary &vocabulary, bool addBos, bool addEos)
{
    const auto usable = [&](std::int64_t id) { return id >= 0 && std::size_t(id) < vocabulary.tokens.size(); };
    addBos = addBos && usable(vocabulary.bos);
    addEos = addEos && usable(vocabulary.eos);
    if (!addBos && !addEos)
        return nullptr;
    json single = json::array();
    json pair = json::array();
    json tokens = json::object();
    const auto special = [&](std::int64_t id, json &list, int type) {
        const std::string &content = vocabulary.tokens[std::size_t(id)];
        list.push_back({{"SpecialToken", {{"id", content}, {"type_id", type}}}});
        tokens[content] = {{"id", content}, {"ids", json::array({id})}, {"tokens", json::array({content})}};
    };
    for (int i = 0; i < 3; ++i) {
        json &list = i == 0 ? single : pair;
        const int type = i == 2 ? 1 : 0;
        if (addBos)
            special(vocabulary.bos, list, type);
        list.push_back({{"Sequence", {{"id", i == 2 ? "B" : "A"}, {"type_id", type}}}});
        if (addEos)
            special(vocabulary.eos, list, type);
    }
    return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", tokens}};
}

Result<void> addMergesOfFile(const GgufVocabulary &vocabulary, TokenizerSpec &spec)
{
    spec.merges.reserve(vocabulary.merges.size());
    for (std::size_t i = 0; i < vocabulary.merges.size(); ++i) {
        const std::string &merge = vocabulary.merges[i];
        const std::size_t space = merge.find(' ', 1);
        if (space == std::string::npos)
            return inputError("a merge is two pieces with one space between them",
                              "tokenizer.ggml.merges[" + std::to_string(i) + "]");
        spec.merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
    }
    return {};
}

/// SentencePiece joins the two neighbours whose concatenation has the highest score, of equal ones the leftmost (Kudo
/// and Richardson 2018). As merges: every way to cut a token in two tokens, all of one token with one rank.
Result<void> addMergesOfScores(const GgufVocabulary &vocabulary, TokenizerSpec &spec)
{
    const auto &tokens = vocabulary.tokens;
    if (vocabulary.scores.size() != tokens.size())
        return inputError("there is not one score per token", "tokenizer.ggml.scores");
    std::unordered_map<std::string_view, std::size_t> normal;
    std::vector<std::size_t> order;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        if (!vocabulary.types.empty() && vocabulary.types[i] != 1)
            continue;
        if (std::isnan(vocabulary.scores[i]))
            return inputError("a score is not a number", "tokenizer.ggml.scores[" + std::to_string(i) + "]");
        if (tokens[i].size() > longestScored)
            return inputError("a token is longer than 1024 bytes", "tokenizer.ggml.tokens[" + std::to_string(i) + "]");
        if (utf8::validLength(tokens[i], 0) != tokens[i].size())
            return inputError("a token is not UTF-8", "tokenizer.ggml.tokens[" + std::to_string(i) + "]");
        normal.emplace(tokens[i], i);
        order.push_back(i);
    }
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return vocabulary.scores[a] > vocabulary.scores[b]; });
    std::uint32_t rank = 0;
    for (std::size_t n = 0; n < order.size(); ++n) {
        const std::string_view token = tokens[order[n]];
        if (n > 0 && vocabulary.scores[order[n]] != vocabulary.scores[order[n - 1]])
            ++rank;
        for (std::size_t cut = token.size(); cut-- > 1;) { // the longest left side first
            if ((static_cast<unsigned char>(token[cut]) & 0xc0) == 0x80)
                continue;
            const std::string_view left = token.substr(0, cut);
            const std::string_view right = token.substr(cut);
            if (normal.contains(left) && normal.contains(right)) {
                spec.merges.emplace_back(left, right);
                spec.ranks.push_back(rank);
            }
        }
    }
    return {};
}

Result<void> fillGpt2(const GgufVocabulary &vocabulary, TokenizerSpec &spec)
{
    const auto name = preNames().find(vocabulary.pre.empty() ? std::string("default") : vocabulary.pre);
    if (name == preNames().end()) {
        std::string known;
        for (const auto &[key, value] : preNames())
            known += (known.empty() ? "" : ", ") + key;
        return inputError("the pre-tokenizer " + vocabulary.pre + " is not supported", "tokenizer.ggml.pre", "known: " + known);
    }
    if (vocabulary.merges.empty())
        return inputError("there are no merges", "tokenizer.ggml.merges");
    spec.preTokenizer = preTokenizer(name->second);
    spec.decoder = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
    spec.ignoreMerges = name->second.ignoreMerges;
    const bool addBos = vocabulary.addBos < 0 ? name->second.addBos : vocabulary.addBos != 0;
    spec.postProcessor = postProcessor(vocabulary, addBos, vocabulary.addEos > 0);
    return addMergesOfFile(vocabulary, spec);
}

Result<void> fillLlama(const GgufVocabulary &vocabulary, TokenizerSpec &spec)
{
    const bool prefix = vocabulary.addSpacePrefix != 0;
    json normalizers = json::array();
    if (prefix)
        normalizers.push_back({{"type", "Prepend"}, {"prepend", mark}});
    normalizers.push_back({{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", mark}});
    spec.normalizer = {{"type", "Sequence"}, {"normalizers", normalizers}};
    json decoders = {{{"type", "Replace"}, {"pattern", {{"String", mark}}}, {"content", " "}},
                     {{"type", "ByteFallback"}},
                     {{"type", "Fuse"}}};
    if (prefix)
        decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
    spec.decoder = {{"type", "Sequence"}, {"decoders", decoders}};
    spec.byteFallback = true;
    spec.fuseUnknown = true;
    if (vocabulary.unknown >= 0 && std::size_t(vocabulary.unknown) < vocabulary.tokens.size()) {
        spec.unknown = vocabulary.tokens[std::size_t(vocabulary.unknown)];
        spec.hasUnknown = true;
    }
    spec.postProcessor = postProcessor(vocabulary, vocabulary.addBos != 0, vocabulary.addEos > 0);
    return addMergesOfScores(vocabulary, spec);
}

} // namespace

std::vector<std::string> ggufPreTokenizerNames()
{
    std::vector<std::string> names;
    for (const auto &[name, value] : preNames())
        names.push_back(name);
    return names;
}

Result<TokenizerSpec> specFromGguf(const GgufVocabulary &vocabulary)
{
    TokenizerSpec spec;
    const auto &tokens = vocabulary.tokens;
    if (tokens.empty())
        return inputError("there are no tokens", "tokenizer.ggml.tokens");
    if (!vocabulary.types.empty() && vocabulary.types.size() != tokens.size())
        return inputError("there is not one type per token", "tokenizer.ggml.token_type");
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        if (utf8::validLength(tokens[i], 0) != tokens[i].size())
            return inputError("a token is not UTF-8", "tokenizer.ggml.tokens[" + std::to_string(i) + "]");
        const std::int32_t type = vocabulary.types.empty() ? 1 : vocabulary.types[i];
        spec.vocabulary.emplace_back(tokens[i], std::int64_t(i));
        if (type < 2 || type > 4 || tokens[i].empty())
            continue; // 1 normal, 5 unused and 6 byte are the model's own
        AddedToken added;
        added.id = std::int32_t(i);
        added.content = tokens[i];
        added.special = type != 4; // 2 unknown, 3 control; 4 user-defined is plain text that is one token
        spec.added.push_back(std::move(added));
    }
    spec.bos = vocabulary.bos;
    spec.eos = vocabulary.eos;
    spec.eot = vocabulary.eot;
    spec.chatTemplate = vocabulary.chatTemplate;
    if (vocabulary.model == "gpt2")
        SPECTRA_CHECK(fillGpt2(vocabulary, spec));
    else if (vocabulary.model == "llama")
        SPECTRA_CHECK(fillLlama(vocabulary, spec));
    else
        return inputError("the tokenizer model " + vocabulary.model + " is not supported", "tokenizer.ggml.model",
                          "gpt2 and llama are");
    return spec;
}

} // namespace spectra
