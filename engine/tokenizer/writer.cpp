// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/core/files.h"
#include "engine/tokenizer/tables.h"
#include "engine/tokenizer/tokenizer.h"

#include <algorithm>
#include <tuple>

namespace spectra {
namespace {

std::string inQuotes(const std::string &text)
{
    return nlohmann::json(text).dump();
}

const char *word(bool value)
{
    return value ? "true" : "false";
}

struct Merge {
    std::uint32_t left, right;
    PairTable::Value value;
};

std::vector<Merge> sortedMerges(const TokenizerTables &tables)
{
    std::vector<Merge> merges;
    merges.reserve(tables.model.merges.size());
    tables.model.merges.forEach(
        [&](std::uint32_t left, std::uint32_t right, const PairTable::Value &value) { merges.push_back({left, right, value}); });
    // Merges of one token may share a rank (SentencePiece): the longest left side first.
    std::sort(merges.begin(), merges.end(), [&](const Merge &a, const Merge &b) {
        const auto key = [&](const Merge &m) {
            return std::tuple(m.value.rank, m.value.id, -std::int64_t(tables.piecesById[m.left].size()), m.left, m.right);
        };
        return key(a) < key(b);
    });
    return merges;
}

} // namespace

std::string Tokenizer::toJson() const
{
    const TokenizerTables &t = *m_tables;
    std::string out = "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": [";
    std::vector<AddedToken> added = t.added;
    std::sort(added.begin(), added.end(), [](const AddedToken &a, const AddedToken &b) { return a.id < b.id; });
    bool first = true;
    for (const AddedToken &token : added) {
        out += std::exchange(first, false) ? "\n    " : ",\n    ";
        out += "{\"id\": " + std::to_string(token.id) + ", \"content\": " + inQuotes(token.content)
            + ", \"single_word\": " + word(token.singleWord) + ", \"lstrip\": " + word(token.lstrip)
            + ", \"rstrip\": " + word(token.rstrip) + ", \"normalized\": " + word(token.normalized)
            + ", \"special\": " + word(token.special) + "}";
    }
    out += "],\n  \"normalizer\": " + t.normalizerJson + ",\n  \"pre_tokenizer\": " + t.preTokenizerJson
        + ",\n  \"post_processor\": " + t.postProcessorJson + ",\n  \"decoder\": " + t.decoderJson
        + ",\n  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": "
        + (t.hasUnknown ? inQuotes(t.unknown) : "null") + ",\n    \"continuing_subword_prefix\": "
        + (t.model.prefix.empty() ? "null" : inQuotes(t.model.prefix)) + ",\n    \"end_of_word_suffix\": "
        + (t.model.suffix.empty() ? "null" : inQuotes(t.model.suffix)) + ",\n    \"fuse_unk\": " + word(t.model.fuseUnknown)
        + ",\n    \"byte_fallback\": " + word(t.model.byteFallback) + ",\n    \"ignore_merges\": " + word(t.model.ignoreMerges)
        + ",\n    \"vocab\": {";
    first = true;
    for (std::size_t id = 0; id < t.kinds.size(); ++id) {
        if ((t.kinds[id] & TokenizerTables::inModel) == 0)
            continue;
        out += std::exchange(first, false) ? "\n" : ",\n";
        out += inQuotes(t.piecesById[id]) + ":" + std::to_string(id);
    }
    out += "},\n    \"merges\": [";
    first = true;
    for (const Merge &merge : sortedMerges(t)) {
        out += std::exchange(first, false) ? "\n" : ",\n";
        out += "[" + inQuotes(t.piecesById[merge.left]) + "," + inQuotes(t.piecesById[merge.right]) + "]";
    }
    out += "]\n  }\n}\n";
    return out;
}

std::string Tokenizer::toConfigJson() const
{
    nlohmann::ordered_json config;
    config["tokenizer_class"] = "PreTrainedTokenizerFast";
    config["clean_up_tokenization_spaces"] = false;
    const auto token = [&](const char *key, std::int32_t id) {
        if (id >= 0)
            config[key] = m_tables->piecesById[std::size_t(id)];
    };
    token("bos_token", m_tables->bos);
    token("eos_token", m_tables->eos);
    token("eot_token", m_tables->eot);
    token("unk_token", m_tables->model.unknown);
    if (!m_tables->chatTemplate.empty())
        config["chat_template"] = m_tables->chatTemplate;
    return config.dump(2) + "\n";
}

std::string Tokenizer::sha256() const
{
    Sha256 sha;
    const std::string text = toJson();
    sha.add(std::as_bytes(std::span(text)));
    return sha.hex();
}

} // namespace spectra
