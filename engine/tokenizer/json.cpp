// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tokenizer/jsonfields.h"
#include "engine/tokenizer/tables.h"

#include <array>

namespace spectra {
namespace {

constexpr int deepest = 64;

/// The parser itself does not recurse, but destroying what it made does: depth is looked at before.
Result<void> checkDepth(std::string_view text)
{
    int depth = 0;
    bool inText = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (inText) {
            if (c == '\\')
                ++i;
            else if (c == '"')
                inText = false;
        } else if (c == '"') {
            inText = true;
        } else if (c == '[' || c == '{') {
            if (++depth > deepest)
                return inputError("the JSON is nested deeper than 64 levels", "byte " + std::to_string(i));
        } else if (c == ']' || c == '}') {
            --depth;
        }
    }
    return {};
}

Result<std::int64_t> idOf(const nlohmann::json &value)
{
    if (value.is_number_unsigned()) {
        if (value.get<std::uint64_t>() <= std::uint64_t(INT32_MAX))
            return value.get<std::int64_t>();
        return inputError("the id " + value.dump() + " is out of range");
    }
    if (value.is_number_integer())
        return inputError("the id " + value.dump() + " is negative");
    return inputError("a whole number was expected as id");
}

Result<void> readAdded(const nlohmann::json &list, TokenizerSpec &spec)
{
    if (list.is_null())
        return {};
    if (!list.is_array())
        return inputError("a list was expected");
    for (std::size_t i = 0; i < list.size(); ++i) {
        const auto one = [&]() -> Result<void> {
            const auto &entry = list[i];
            if (!entry.is_object())
                return inputError("an object was expected");
            AddedToken token;
            SPECTRA_TRY(token.content, jsonfields::requiredText(entry, "content"));
            const auto id = entry.find("id");
            if (id == entry.end())
                return inputError("the id is missing");
            SPECTRA_TRY(const std::int64_t number, idOf(*id));
            token.id = std::int32_t(number);
            SPECTRA_TRY(token.special, jsonfields::flag(entry, "special", false));
            SPECTRA_TRY(token.singleWord, jsonfields::flag(entry, "single_word", false));
            SPECTRA_TRY(token.lstrip, jsonfields::flag(entry, "lstrip", false));
            SPECTRA_TRY(token.rstrip, jsonfields::flag(entry, "rstrip", false));
            SPECTRA_TRY(token.normalized, jsonfields::flag(entry, "normalized", !token.special));
            spec.added.push_back(std::move(token));
            return {};
        }();
        if (!one)
            return Error(one.error()).in("[" + std::to_string(i) + "]");
    }
    return {};
}

Result<void> readMerge(const nlohmann::json &entry, TokenizerSpec &spec)
{
    if (entry.is_string()) {
        const auto &text = entry.get_ref<const std::string &>();
        const std::size_t space = text.find(' ');
        if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos)
            return inputError("a merge is two pieces with one space between them");
        spec.merges.emplace_back(text.substr(0, space), text.substr(space + 1));
        return {};
    }
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_string())
        return inputError("a merge is a text or a list of two texts");
    spec.merges.emplace_back(entry[0].get<std::string>(), entry[1].get<std::string>());
    return {};
}

Result<void> readModel(const nlohmann::json &model, TokenizerSpec &spec)
{
    if (!model.is_object())
        return inputError("an object was expected");
    SPECTRA_TRY(const std::string type, jsonfields::text(model, "type", "BPE"));
    if (type != "BPE")
        return inputError("the tokenizer model " + type + " is not supported", "type", "use a checkpoint with a BPE tokenizer");
    if (const auto dropout = model.find("dropout");
        dropout != model.end() && !dropout->is_null() && !(dropout->is_number() && dropout->get<double>() == 0.0))
        return inputError("dropout is not supported", "dropout");
    if (const auto unknown = model.find("unk_token"); unknown != model.end() && !unknown->is_null()) {
        SPECTRA_TRY(spec.unknown, jsonfields::requiredText(model, "unk_token"));
        spec.hasUnknown = true;
    }
    SPECTRA_TRY(spec.prefix, jsonfields::text(model, "continuing_subword_prefix", {}));
    SPECTRA_TRY(spec.suffix, jsonfields::text(model, "end_of_word_suffix", {}));
    SPECTRA_TRY(spec.byteFallback, jsonfields::flag(model, "byte_fallback", false));
    SPECTRA_TRY(spec.fuseUnknown, jsonfields::flag(model, "fuse_unk", false));
    SPECTRA_TRY(spec.ignoreMerges, jsonfields::flag(model, "ignore_merges", false));
    const auto vocabulary = model.find("vocab");
    if (vocabulary == model.end() || !vocabulary->is_object())
        return inputError("an object was expected", "vocab");
    spec.vocabulary.reserve(vocabulary->size());
    for (const auto &[piece, id] : vocabulary->items()) {
        auto number = idOf(id);
        if (!number)
            return number.error().in("vocab[\"" + piece.substr(0, 60) + "\"]");
        spec.vocabulary.emplace_back(piece, *number);
    }
    const auto merges = model.find("merges");
    if (merges == model.end() || !merges->is_array())
        return inputError("a list was expected", "merges");
    spec.merges.reserve(merges->size());
    for (std::size_t i = 0; i < merges->size(); ++i) {
        if (auto one = readMerge((*merges)[i], spec); !one)
            return one.error().in("merges[" + std::to_string(i) + "]");
    }
    return {};
}

/// A token in tokenizer_config.json: a text or an object with its content.
std::string contentOf(const nlohmann::json &value)
{
    if (value.is_string())
        return value.get<std::string>();
    if (value.is_object()) {
        if (const auto it = value.find("content"); it != value.end() && it->is_string())
            return it->get<std::string>();
    }
    return {};
}

} // namespace

Result<nlohmann::json> parseJson(std::string_view text)
{
    SPECTRA_CHECK(checkDepth(text));
    try {
        return nlohmann::json::parse(text.begin(), text.end());
    } catch (const nlohmann::json::parse_error &error) {
        return inputError("this is not valid JSON", "byte " + std::to_string(error.byte));
    } catch (const nlohmann::json::exception &) {
        return inputError("this is not valid JSON: a number is out of range");
    } catch (const std::bad_alloc &) {
        return workError("out of memory");
    }
}

Result<TokenizerSpec> specFromJson(std::string_view text)
{
    SPECTRA_TRY(nlohmann::json root, parseJson(text));
    if (!root.is_object())
        return inputError("an object was expected");
    TokenizerSpec spec;
    const auto model = root.find("model");
    if (model == root.end())
        return inputError("there is no model", {}, "this is not a tokenizer.json");
    if (auto read = readModel(*model, spec); !read)
        return read.error().in("model");
    model->clear();
    if (auto read = readAdded(root.value("added_tokens", nlohmann::json()), spec); !read)
        return read.error().in("added_tokens");
    for (const auto &[key, place] : {std::pair{"normalizer", &spec.normalizer}, {"pre_tokenizer", &spec.preTokenizer},
                                     {"post_processor", &spec.postProcessor}, {"decoder", &spec.decoder}}) {
        if (const auto it = root.find(key); it != root.end())
            *place = std::move(*it);
    }
    return spec;
}

Result<void> addConfig(std::string_view text, TokenizerSpec &spec)
{
    SPECTRA_TRY(const nlohmann::json root, parseJson(text));
    if (!root.is_object())
        return inputError("an object was expected");
    const auto idOfContent = [&](const std::string &content) -> std::int64_t {
        for (const AddedToken &token : spec.added) {
            if (token.content == content)
                return token.id;
        }
        for (const auto &[piece, id] : spec.vocabulary) {
            if (piece == content)
                return id;
        }
        return -1;
    };
    for (const auto &[key, place] : {std::pair{"bos_token", &spec.bos}, {"eos_token", &spec.eos}, {"eot_token", &spec.eot}}) {
        const auto it = root.find(key);
        if (it == root.end())
            continue;
        if (const std::string content = contentOf(*it); !content.empty()) {
            if (const std::int64_t id = idOfContent(content); id >= 0)
                *place = id;
        }
    }
    const auto chat = root.find("chat_template");
    if (chat != root.end() && chat->is_string())
        spec.chatTemplate = chat->get<std::string>();
    if (chat != root.end() && chat->is_array()) {
        for (const auto &entry : *chat) {
            if (entry.is_object() && contentOf(entry.value("name", nlohmann::json())) == "default")
                spec.chatTemplate = contentOf(entry.value("template", nlohmann::json()));
        }
    }
    return {};
}

} // namespace spectra
