// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tokenizer/tokenizer.h"

#include "engine/core/files.h"
#include "engine/tokenizer/gguf.h"
#include "engine/tokenizer/tables.h"
#include "engine/tokenizer/utf8.h"

#include <algorithm>
#include <array>

namespace spectra {
namespace {

constexpr std::uint64_t largestFile = std::uint64_t(256) << 20;
constexpr std::size_t longText = 2048; // bytes from which on remembering words pays

/// One call of encode().
class Encoder {
public:
    Encoder(const TokenizerTables &tables, std::string_view text, const Tokenizer::EncodeOptions &options, Tokenizer::Encoding &out)
        : m_tables(tables), m_text(text), m_parseSpecial(options.parseSpecial), m_stop(options.stop), m_out(out), m_room(text.size() >= longText)
    {
        m_word = [this](const TextPiece &piece) {
            if (m_stop.stop_requested()) {
                m_error = cancelledError();
                return false;
            }
            m_piece = &piece;
            m_tables.model.encode(piece.text, m_room, m_emit);
            return true;
        };
        m_emit = [this](std::span<const WordToken> tokens) {
            for (const WordToken &token : tokens)
                add(token.id, m_piece->map->origin(m_piece->at + token.at, m_hint), 0);
        };
    }

    Result<void> run()
    {
        for (std::size_t at = 0; at < m_text.size();) {
            const std::size_t valid = utf8::validLength(m_text, at);
            if (valid > 0 && !validPart(at, at + valid))
                return std::move(*m_error);
            at += valid;
            std::size_t end = at;
            while (end < m_text.size() && utf8Length(m_text, end) == 0)
                ++end;
            if (end > at)
                invalidPart(at, end);
            at = end;
        }
        return {};
    }

private:
    void add(std::int32_t id, std::uint32_t at, std::uint8_t special)
    {
        m_out.ids.push_back(id);
        // An unknown character fused over byte tokens comes after them: its place must not go back.
        const std::int32_t last = m_out.byteOffsets.empty() ? 0 : m_out.byteOffsets.back();
        m_out.byteOffsets.push_back(std::max(last, std::int32_t(at)));
        m_out.special.push_back(special);
    }
    void addAdded(std::int32_t index, std::uint32_t at)
    {
        const AddedToken &token = m_tables.added[std::size_t(index)];
        add(token.id, at, token.special ? 1 : 0);
    }
    bool validPart(std::size_t begin, std::size_t end)
    {
        const std::string_view text = m_text.substr(begin, end - begin);
        return splitAddedTokens(text, m_tables.rawFinder, m_tables.added, !m_parseSpecial,
                                [&](std::size_t from, std::size_t to, std::int32_t index) {
                                    if (index < 0)
                                        return plainPart(begin + from, begin + to);
                                    addAdded(index, std::uint32_t(begin + from));
                                    return true;
                                });
    }
    bool plainPart(std::size_t begin, std::size_t end)
    {
        MappedText text(m_text.substr(begin, end - begin), std::uint32_t(begin));
        if (auto normalized = m_tables.normalizer.apply(text, m_matcher); !normalized) {
            m_error = std::move(normalized.error());
            return false;
        }
        m_hint = 0;
        return splitAddedTokens(text.text, m_tables.normalizedFinder, m_tables.added, !m_parseSpecial,
                                [&](std::size_t from, std::size_t to, std::int32_t index) {
                                    if (index >= 0) {
                                        addAdded(index, text.map.origin(from));
                                        return true;
                                    }
                                    const TextPiece piece{text.text.substr(from, to - from), &text.map, from};
                                    return m_tables.preTokenizer.run(piece, m_matcher, m_word, m_error);
                                });
    }
    /// Bytes that are not UTF-8: see Tokenizer.
    void invalidPart(std::size_t begin, std::size_t end)
    {
        const BpeModel &model = m_tables.model;
        if (model.byteLevel) {
            const OffsetMap map{std::uint32_t(begin)};
            (void)m_word({m_text.substr(begin, end - begin), &map, 0});
            return;
        }
        for (std::size_t at = begin; at < end; ++at) {
            const std::int32_t id = model.byteFallback ? model.byteIds[static_cast<unsigned char>(m_text[at])] : -1;
            if (id >= 0) {
                add(id, std::uint32_t(at), 0);
                continue;
            }
            model.encode("\xEF\xBF\xBD", m_room, [&](std::span<const WordToken> tokens) {
                for (const WordToken &token : tokens)
                    add(token.id, std::uint32_t(at), 0);
            });
        }
    }

    const TokenizerTables &m_tables;
    std::string_view m_text;
    bool m_parseSpecial;
    const std::stop_token &m_stop;
    Tokenizer::Encoding &m_out;
    BpeRoom m_room;
    RegexMatcher m_matcher;
    PreTokenizer::Word m_word;
    BpeModel::Emit m_emit;
    const TextPiece *m_piece = nullptr;
    std::optional<Error> m_error;
    std::size_t m_hint = 0;
};

/// bos and eos by the ids of a config.json, where the tokenizer's own files do not say.
void addModelConfig(std::string_view text, TokenizerSpec &spec)
{
    auto root = parseJson(text);
    if (!root || !root->is_object())
        return;
    for (const auto &[key, place] : {std::pair{"bos_token_id", &spec.bos}, {"eos_token_id", &spec.eos}}) {
        auto it = root->find(key);
        if (it == root->end() || *place >= 0)
            continue;
        const nlohmann::json &value = it->is_array() && !it->empty() ? it->front() : *it;
        if (!value.is_number_unsigned())
            continue;
        const auto id = value.get<std::uint64_t>();
        const auto known = [&](const auto &entry) { return entry >= 0 && std::uint64_t(entry) == id; };
        if (std::any_of(spec.vocabulary.begin(), spec.vocabulary.end(), [&](const auto &v) { return known(v.second); })
            || std::any_of(spec.added.begin(), spec.added.end(), [&](const auto &a) { return known(a.id); }))
            *place = std::int64_t(id);
    }
}

} // namespace

Tokenizer::Tokenizer(std::unique_ptr<const TokenizerTables> tables) : m_tables(std::move(tables)) {}
Tokenizer::~Tokenizer() = default;

namespace {
/// Errors of the parts get the source's name in front.
template <typename T> Result<T> named(const std::string &where, Result<T> result)
{
    if (!result)
        result.error().in(where);
    return result;
}
} // namespace

Result<std::shared_ptr<const Tokenizer>> Tokenizer::fromJsonFile(const std::filesystem::path &path)
{
    SPECTRA_TRY(const std::string text, readTextFile(path, largestFile));
    SPECTRA_TRY(TokenizerSpec spec, named(path.string(), specFromJson(text)));
    const auto beside = [&](const char *name) { return path.parent_path() / name; };
    std::error_code ignored;
    if (std::filesystem::exists(beside("tokenizer_config.json"), ignored)) {
        SPECTRA_TRY(const std::string config, readTextFile(beside("tokenizer_config.json"), largestFile));
        SPECTRA_CHECK(named(beside("tokenizer_config.json").string(), addConfig(config, spec)));
    }
    if (std::filesystem::exists(beside("config.json"), ignored)) {
        if (auto config = readTextFile(beside("config.json"), largestFile))
            addModelConfig(*config, spec);
    }
    SPECTRA_TRY(auto tables, named(path.string(), buildTokenizer(std::move(spec))));
    return std::shared_ptr<const Tokenizer>(new Tokenizer(std::move(tables)));
}

Result<std::shared_ptr<const Tokenizer>> Tokenizer::fromJson(std::string_view json, std::string where, std::string_view config)
{
    SPECTRA_TRY(TokenizerSpec spec, named(where, specFromJson(json)));
    if (!config.empty())
        SPECTRA_CHECK(named(where + ": tokenizer_config.json", addConfig(config, spec)));
    SPECTRA_TRY(auto tables, named(where, buildTokenizer(std::move(spec))));
    return std::shared_ptr<const Tokenizer>(new Tokenizer(std::move(tables)));
}

Result<std::shared_ptr<const Tokenizer>> Tokenizer::fromGguf(const GgufVocabulary &vocabulary, std::string where)
{
    SPECTRA_TRY(TokenizerSpec spec, named(where, specFromGguf(vocabulary)));
    SPECTRA_TRY(auto tables, named(where, buildTokenizer(std::move(spec))));
    return std::shared_ptr<const Tokenizer>(new Tokenizer(std::move(tables)));
}

std::vector<std::string> Tokenizer::ggufPreNames()
{
    return ggufPreTokenizerNames();
}

Result<Tokenizer::Encoding> Tokenizer::encode(std::string_view text, EncodeOptions options) const
{
    if (text.size() > std::size_t(INT32_MAX))
        return inputError("the text is longer than 2 GiB", {}, "cut it into several files");
    const TokenizerTables &t = *m_tables;
    Encoding out;
    const auto addAround = [&](const std::vector<std::int32_t> &ids, std::size_t at) {
        for (const std::int32_t id : options.addSpecial ? ids : std::vector<std::int32_t>()) {
            out.ids.push_back(id);
            out.byteOffsets.push_back(std::int32_t(at));
            out.special.push_back(1);
        }
    };
    addAround(t.before, 0);
    SPECTRA_CHECK(Encoder(t, text, options, out).run());
    addAround(t.after, text.size());
    return out;
}

std::string Tokenizer::tokenBytes(std::int32_t id) const
{
    const TokenizerTables &t = *m_tables;
    if (!t.has(id))
        return {};
    const std::string &piece = t.piecesById[std::size_t(id)];
    if ((t.kinds[std::size_t(id)] & TokenizerTables::isAdded) != 0)
        return piece;
    return t.model.byteLevel ? bytealphabet::toBytes(piece) : t.decoder.bytesOf(piece);
}

std::string Tokenizer::piece(std::int32_t id) const
{
    return m_tables->has(id) ? m_tables->piecesById[std::size_t(id)] : std::string();
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skipSpecial) const
{
    std::string out;
    DecodeChain chain(m_tables->decoder);
    for (const std::int32_t id : ids) {
        if (m_tables->has(id) && !(skipSpecial && isSpecial(id)))
            chain.push(m_tables->piecesById[std::size_t(id)], out);
    }
    chain.finish(out);
    return out;
}

std::int32_t Tokenizer::size() const
{
    return std::int32_t(m_tables->kinds.size());
}

std::optional<std::int32_t> Tokenizer::idOf(std::string_view piece) const
{
    const auto it = m_tables->idsByPiece.find(piece);
    return it == m_tables->idsByPiece.end() ? std::nullopt : std::optional(it->second);
}

std::optional<std::int32_t> Tokenizer::bos() const
{
    return m_tables->bos < 0 ? std::nullopt : std::optional(m_tables->bos);
}

std::optional<std::int32_t> Tokenizer::eos() const
{
    return m_tables->eos < 0 ? std::nullopt : std::optional(m_tables->eos);
}

bool Tokenizer::addsBos() const
{
    return !m_tables->before.empty();
}

bool Tokenizer::isSpecial(std::int32_t id) const
{
    return m_tables->has(id) && (m_tables->kinds[std::size_t(id)] & TokenizerTables::isSpecial) != 0;
}

std::vector<std::int32_t> Tokenizer::endIds() const
{
    static constexpr std::array names = {"</s>", "<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>",
                                         "<|end|>", "<|return|>", "<end_of_turn>", "<eos>", "<｜end▁of▁sentence｜>", "[e~["};
    std::vector<std::int32_t> ids;
    for (const std::int32_t id : {m_tables->eos, m_tables->eot}) {
        if (id >= 0)
            ids.push_back(id);
    }
    for (const char *name : names) {
        if (const auto id = idOf(name); id && isSpecial(*id))
            ids.push_back(*id);
    }
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    return ids;
}

std::string Tokenizer::chatTemplate() const
{
    return m_tables->chatTemplate;
}

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skipSpecial)
    : m_tokenizer(std::move(tokenizer)), m_chain(std::make_unique<DecodeChain>(m_tokenizer->m_tables->decoder)),
      m_skipSpecial(skipSpecial)
{
}
StreamDecoder::~StreamDecoder() = default;
StreamDecoder::StreamDecoder(StreamDecoder &&) noexcept = default;
StreamDecoder &StreamDecoder::operator=(StreamDecoder &&) noexcept = default;

std::string StreamDecoder::push(std::int32_t id)
{
    std::string out;
    const TokenizerTables &t = *m_tokenizer->m_tables;
    if (t.has(id) && !(m_skipSpecial && m_tokenizer->isSpecial(id)))
        m_chain->push(t.piecesById[std::size_t(id)], out);
    return out;
}

std::string StreamDecoder::finish()
{
    std::string out;
    m_chain->finish(out);
    return out;
}

} // namespace spectra
