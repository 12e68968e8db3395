// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tokenizer/jsonfields.h"
#include "engine/tokenizer/tables.h"

#include <algorithm>
#include <tuple>

namespace spectra {
namespace {

constexpr std::int64_t largestId = (std::int64_t(1) << 24) - 1;

std::string inQuotes(std::string_view piece)
{
    return "\"" + std::string(piece.substr(0, 60)) + (piece.size() > 60 ? "…\"" : "\"");
}

Result<void> addVocabulary(TokenizerSpec &spec, TokenizerTables &tables)
{
    std::int64_t highest = -1;
    const auto look = [&](std::int64_t id, const std::string &piece) -> Result<void> {
        if (id < 0 || id > largestId)
            return inputError("the id " + std::to_string(id) + " is out of range", inQuotes(piece));
        if (utf8::validLength(piece, 0) != piece.size())
            return inputError("a token is not UTF-8", "id " + std::to_string(id));
        highest = std::max(highest, id);
        return {};
    };
    for (const auto &[piece, id] : spec.vocabulary)
        SPECTRA_CHECK(look(id, piece));
    for (const AddedToken &token : spec.added)
        SPECTRA_CHECK(look(token.id, token.content));
    if (highest < 0)
        return inputError("the vocabulary is empty");
    const auto entries = std::int64_t(spec.vocabulary.size() + spec.added.size());
    if (highest >= 4 * entries + 65536)
        return inputError("the ids have huge gaps: the largest is " + std::to_string(highest) + " in a vocabulary of "
                          + std::to_string(entries));
    tables.piecesById.resize(std::size_t(highest) + 1);
    tables.kinds.resize(std::size_t(highest) + 1);
    for (auto &[piece, id] : spec.vocabulary) {
        const auto at = std::size_t(id);
        if (tables.kinds[at] != 0)
            return inputError("the id " + std::to_string(id) + " is given twice", inQuotes(tables.piecesById[at]) + " and " + inQuotes(piece));
        tables.kinds[at] = TokenizerTables::inModel;
        tables.piecesById[at] = std::move(piece);
    }
    tables.idsByPiece.reserve(std::size_t(entries));
    tables.model.pieces.reserve(spec.vocabulary.size());
    for (std::size_t id = 0; id < tables.kinds.size(); ++id) {
        if (tables.kinds[id] == 0)
            continue;
        const std::string_view piece = tables.piecesById[id];
        if (!tables.idsByPiece.emplace(piece, std::int32_t(id)).second)
            return inputError("a token is in the vocabulary twice", inQuotes(piece));
        tables.model.pieces.emplace(piece, std::int32_t(id));
    }
    return {};
}

Result<void> addAdded(const TokenizerSpec &spec, TokenizerTables &tables, RegexMatcher &matcher)
{
    for (const AddedToken &token : spec.added) {
        const auto at = std::size_t(token.id);
        if (token.content.empty())
            continue; // Hugging Face leaves them out too
        if (token.content.size() > AddedTokenFinder::longestToken)
            return inputError("an added token is longer than 1024 bytes", inQuotes(token.content));
        if (const auto it = tables.idsByPiece.find(token.content); it != tables.idsByPiece.end() && it->second != token.id)
            return inputError("an added token has another id than in the vocabulary: " + std::to_string(token.id) + " and "
                                  + std::to_string(it->second),
                              inQuotes(token.content));
        if (tables.kinds[at] != 0 && tables.piecesById[at] != token.content)
            return inputError("the id " + std::to_string(token.id) + " is given twice",
                              inQuotes(tables.piecesById[at]) + " and " + inQuotes(token.content));
        if ((tables.kinds[at] & TokenizerTables::isAdded) != 0)
            continue;
        if (tables.kinds[at] == 0) {
            tables.piecesById[at] = token.content;
            tables.idsByPiece.emplace(tables.piecesById[at], token.id);
        }
        tables.kinds[at] = std::uint8_t(tables.kinds[at] | TokenizerTables::isAdded | (token.special ? TokenizerTables::isSpecial : 0));
        const auto index = std::int32_t(tables.added.size());
        tables.added.push_back(token);
        if (!token.normalized) {
            tables.rawFinder.add(token.content, index);
            continue;
        }
        MappedText text(tables.added.back().content, 0);
        SPECTRA_CHECK(tables.normalizer.apply(text, matcher));
        tables.normalizedFinder.add(text.text, index);
    }
    return {};
}

Result<void> addMerges(const TokenizerSpec &spec, TokenizerTables &tables)
{
    BpeModel &model = tables.model;
    model.firstChars.resize(tables.piecesById.size());
    model.lastChars.resize(tables.piecesById.size());
    for (std::size_t id = 0; id < tables.piecesById.size(); ++id) {
        const std::string &piece = tables.piecesById[id];
        if (!piece.empty()) {
            model.firstChars[id] = utf8::decode(piece, 0);
            model.lastChars[id] = utf8::decode(piece, utf8::lastStart(piece));
        }
    }
    model.merges.reserve(spec.merges.size());
    std::string whole;
    for (std::size_t i = 0; i < spec.merges.size(); ++i) {
        const auto &[left, right] = spec.merges[i];
        const auto place = [&] { return "model.merges[" + std::to_string(i) + "]"; };
        if (left.empty() || right.empty() || right.size() < model.prefix.size())
            return inputError("a merge has an empty side", place());
        whole.assign(left);
        whole.append(right, model.prefix.size());
        const auto l = model.pieces.find(left);
        const auto r = model.pieces.find(right);
        const auto w = model.pieces.find(whole);
        if (l == model.pieces.end() || r == model.pieces.end() || w == model.pieces.end()) {
            const std::string &missing = l == model.pieces.end() ? left : r == model.pieces.end() ? right : whole;
            return inputError("a merge needs the token " + inQuotes(missing) + ", which the vocabulary does not have", place());
        }
        const auto lid = std::uint32_t(l->second);
        const auto rid = std::uint32_t(r->second);
        model.merges.set(lid, rid, {spec.ranks.empty() ? std::uint32_t(i) : spec.ranks[i], w->second});
        model.joints.set(model.lastChars[lid], model.firstChars[rid], {});
    }
    return {};
}

void addBytes(TokenizerTables &tables)
{
    BpeModel &model = tables.model;
    model.byteIds.fill(-1);
    constexpr char digits[] = "0123456789ABCDEF";
    for (unsigned byte = 0; byte < 256; ++byte) {
        std::string piece;
        if (model.byteLevel)
            utf8::append(piece, bytealphabet::toChar(static_cast<unsigned char>(byte)));
        else if (model.byteFallback)
            piece = std::string("<0x") + digits[byte >> 4] + digits[byte & 15] + ">";
        if (const auto it = model.pieces.find(piece); it != model.pieces.end())
            model.byteIds[byte] = it->second;
    }
    if (model.byteLevel)
        model.byteFallback = false; // the byte alphabet has no characters left to fall back from
}

Result<void> addTemplate(const nlohmann::json &json, TokenizerTables &tables)
{
    const auto single = json.find("single");
    if (single == json.end() || !single->is_array() || single->size() > 64)
        return inputError("a list of at most 64 entries was expected", "single");
    const auto specials = json.find("special_tokens");
    int sequences = 0;
    for (const auto &entry : *single) {
        if (!entry.is_object() || entry.size() != 1)
            return inputError("SpecialToken or Sequence was expected", "single");
        if (const auto sequence = entry.find("Sequence"); sequence != entry.end()) {
            if (!sequence->is_object() || sequence->value("id", nlohmann::json()) != "A" || ++sequences > 1)
                return inputError("one Sequence A was expected", "single");
            continue;
        }
        const auto token = entry.find("SpecialToken");
        if (token == entry.end() || !token->is_object())
            return inputError("SpecialToken or Sequence was expected", "single");
        SPECTRA_TRY(const std::string name, jsonfields::requiredText(*token, "id"));
        if (specials == json.end() || !specials->is_object() || !specials->contains(name) || !(*specials)[name].is_object())
            return inputError("the special token " + inQuotes(name) + " is not described", "special_tokens");
        const auto &described = (*specials)[name];
        const auto ids = described.find("ids");
        if (ids == described.end() || !ids->is_array() || ids->size() > 64)
            return inputError("a list of ids was expected", "special_tokens[" + inQuotes(name) + "]");
        for (const auto &id : *ids) {
            if (!id.is_number_integer() || id.get<std::int64_t>() < 0 || id.get<std::int64_t>() > largestId || !tables.has(id.get<std::int32_t>()))
                return inputError("an id is not in the vocabulary", "special_tokens[" + inQuotes(name) + "]");
            (sequences == 0 ? tables.before : tables.after).push_back(id.get<std::int32_t>());
        }
    }
    if (sequences == 0)
        return inputError("one Sequence A was expected", "single");
    return {};
}

Result<void> addPostProcessor(const nlohmann::json &json, int depth, bool &templated, TokenizerTables &tables)
{
    if (json.is_null())
        return {};
    SPECTRA_TRY(const std::string type, jsonfields::type(json));
    if (type == "ByteLevel")
        return {}; // changes offsets only
    if (type == "TemplateProcessing") {
        if (std::exchange(templated, true))
            return inputError("two TemplateProcessing elements are not supported");
        return addTemplate(json, tables);
    }
    if (type != "Sequence")
        return inputError("the post-processor " + type + " is not supported", "type");
    const auto list = json.find("processors");
    if (depth >= jsonfields::deepestSequence || list == json.end() || !list->is_array())
        return inputError("a list of at most 8 levels was expected", "Sequence.processors");
    for (const auto &element : *list)
        SPECTRA_CHECK(addPostProcessor(element, depth + 1, templated, tables));
    return {};
}

/// The error with the place it came from in front; ok stays ok.
template <typename T> Result<T> in(const char *place, Result<T> result)
{
    if (!result)
        result.error().in(place);
    return result;
}

} // namespace

Result<std::unique_ptr<const TokenizerTables>> buildTokenizer(TokenizerSpec spec)
{
    auto tables = std::make_unique<TokenizerTables>();
    RegexMatcher matcher;
    SPECTRA_TRY(tables->normalizer, in("normalizer", TextNormalizer::fromJson(spec.normalizer)));
    SPECTRA_TRY(tables->preTokenizer, in("pre_tokenizer", PreTokenizer::fromJson(spec.preTokenizer)));
    SPECTRA_TRY(tables->decoder, in("decoder", DecoderSpec::fromJson(spec.decoder)));
    if (spec.prefix.size() > 64 || spec.suffix.size() > 64)
        return inputError("a prefix or suffix is longer than 64 bytes", "model");
    BpeModel &model = tables->model;
    model.byteLevel = tables->preTokenizer.byteLevel();
    model.byteFallback = spec.byteFallback;
    model.fuseUnknown = spec.fuseUnknown;
    model.ignoreMerges = spec.ignoreMerges;
    model.prefix = spec.prefix;
    model.suffix = spec.suffix;
    SPECTRA_CHECK(in("model.vocab", addVocabulary(spec, *tables)));
    SPECTRA_CHECK(in("added_tokens", addAdded(spec, *tables, matcher)));
    SPECTRA_CHECK(addMerges(spec, *tables));
    addBytes(*tables);
    tables->hasUnknown = spec.hasUnknown;
    tables->unknown = spec.unknown;
    if (spec.hasUnknown) {
        const auto it = model.pieces.find(spec.unknown);
        if (it == model.pieces.end())
            return inputError("the unknown token " + inQuotes(spec.unknown) + " is not in the vocabulary", "model.unk_token");
        model.unknown = it->second;
    }
    bool templated = false;
    SPECTRA_CHECK(in("post_processor", addPostProcessor(spec.postProcessor, 0, templated, *tables)));
    for (const auto &[given, place, name] : {std::tuple{spec.bos, &tables->bos, "bos"}, std::tuple{spec.eos, &tables->eos, "eos"},
                                             std::tuple{spec.eot, &tables->eot, "eot"}}) {
        if (given >= 0 && (given > largestId || !tables->has(std::int32_t(given))))
            return inputError("the id " + std::to_string(given) + " is not in the vocabulary", name);
        *place = given >= 0 ? std::int32_t(given) : -1;
    }
    if (tables->bos < 0 && !tables->before.empty())
        tables->bos = tables->before.front();
    if (utf8::validLength(spec.chatTemplate, 0) != spec.chatTemplate.size())
        return inputError("the chat template is not UTF-8");
    tables->chatTemplate = std::move(spec.chatTemplate);
    tables->normalizerJson = spec.normalizer.dump();
    tables->preTokenizerJson = spec.preTokenizer.dump();
    tables->postProcessorJson = spec.postProcessor.dump();
    tables->decoderJson = spec.decoder.dump();
    return std::unique_ptr<const TokenizerTables>(std::move(tables));
}

} // namespace spectra
