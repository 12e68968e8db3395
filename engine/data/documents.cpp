// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/data/documents.h"

#include "engine/data/bytestream.h"
#include "engine/data/corpus.h"
#include "engine/tokenizer/utf8.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace spectra {
namespace {

constexpr std::size_t pieceBytes = 16384;  // a piece ends with the first line end from here on,
constexpr std::size_t atSpaceFrom = 65536; // or, when there is none up to here, before the first space,
constexpr std::size_t longestPiece = 262144; // or, when there is none up to here, between two characters

using Part = std::function<bool(const TextPart &)>;

/// Text that is no text, told by its first wrong byte.
Result<void> checkText(std::string_view text, std::string_view path, std::int64_t line)
{
    const std::size_t valid = utf8::validLength(text, 0);
    const std::size_t nul = text.substr(0, valid).find('\0');
    if (nul == std::string_view::npos && valid == text.size())
        return {};
    const std::size_t at = std::min(nul, valid);
    const std::string where = fmt::format("{}: line {}", path, line + std::count(text.begin(), text.begin() + std::ptrdiff_t(at), '\n'));
    if (nul != std::string_view::npos)
        return inputError("holds a byte 0: this is no text", where, "give UTF-8 text");
    return inputError(fmt::format("is not UTF-8 (byte 0x{:02X})", static_cast<unsigned char>(text[at])), where, "convert the file to UTF-8, e.g. with iconv");
}

/// Takes the mark off that some programs put before UTF-8; another read may be needed to see it.
constexpr std::string_view byteOrderMark = "\xEF\xBB\xBF";

/// Length of the next piece of a text of which `rest` is known; `rest` is whole or at least longestPiece + 4 long.
std::size_t pieceLength(std::string_view rest)
{
    if (rest.size() <= pieceBytes)
        return rest.size();
    if (const std::size_t end = rest.substr(0, atSpaceFrom).find('\n', pieceBytes - 1); end != std::string_view::npos)
        return end + 1;
    if (rest.size() <= atSpaceFrom)
        return rest.size();
    if (const std::size_t end = rest.substr(0, longestPiece).find(' ', pieceBytes); end != std::string_view::npos)
        return end;
    if (rest.size() <= longestPiece)
        return rest.size();
    std::size_t end = longestPiece;
    while (end > longestPiece - 4 && (static_cast<unsigned char>(rest[end]) & 0xC0) == 0x80)
        --end;
    return end - (rest[end - 1] == '\r' && rest[end] == '\n');
}

void withoutCarriageReturns(std::string_view text, std::string &into)
{
    into.clear();
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = std::min(text.find("\r\n", at), text.size());
        into.append(text, at, end - at);
        at = end + (end < text.size());
    }
}

Result<bool> readPlain(ByteStream &stream, const std::string &path, const Part &part, std::stop_token stop)
{
    std::string buffer, converted;
    std::size_t at = 0;
    std::int64_t line = 1;
    bool more = true, first = true, any = false;
    for (;;) {
        while (more && buffer.size() - at < longestPiece + 4) {
            if (at > longestPiece) {
                buffer.erase(0, at);
                at = 0;
            }
            SPECTRA_TRY(more, stream.read(buffer, stop));
        }
        if (std::exchange(first, false) && std::string_view(buffer).starts_with(byteOrderMark))
            at = byteOrderMark.size();
        const std::string_view rest = std::string_view(buffer).substr(at);
        if (rest.empty())
            return true;
        const std::string_view piece = rest.substr(0, pieceLength(rest));
        SPECTRA_CHECK(checkText(piece, path, line));
        line += std::count(piece.begin(), piece.end(), '\n');
        at += piece.size();
        std::string_view text = piece;
        if (piece.find("\r\n") != std::string_view::npos) {
            withoutCarriageReturns(piece, converted);
            text = converted;
        }
        if (!part({text, std::exchange(any, true)}))
            return false;
    }
}

/// Takes one field's text out of a line without building the rest: a line from outside would decide how much memory that is.
class FieldReader final : public nlohmann::json_sax<nlohmann::json> {
public:
    explicit FieldReader(const std::string &field) : m_field(field) {}

    std::string text;
    std::string_view rootKind;  ///< of what the line holds
    std::string_view fieldKind; ///< of what the field holds; empty: it is not there
    std::string otherTexts;     ///< names of fields that hold text
    std::size_t errorAt = 0;

    bool null() override { return value("null"); }
    bool boolean(bool) override { return value("boolean"); }
    bool number_integer(number_integer_t) override { return value("number"); }
    bool number_unsigned(number_unsigned_t) override { return value("number"); }
    bool number_float(number_float_t, const string_t &) override { return value("number"); }
    bool binary(binary_t &) override { return value("binary value"); }
    bool string(string_t &s) override
    {
        if (m_depth == 1 && m_isField)
            text = std::move(s);
        else if (m_depth == 1 && otherTexts.size() < 200)
            otherTexts += (otherTexts.empty() ? "" : ", ") + m_key;
        return value("string");
    }
    bool key(string_t &name) override
    {
        if (m_depth == 1) {
            m_isField = name == m_field;
            m_key = printableUtf8(std::string_view(name).substr(0, 60));
        }
        return true;
    }
    bool start_object(std::size_t) override { return start("object"); }
    bool start_array(std::size_t) override { return start("array"); }
    bool end_object() override { return end(); }
    bool end_array() override { return end(); }
    bool parse_error(std::size_t at, const std::string &, const nlohmann::detail::exception &) override
    {
        errorAt = at;
        return false;
    }

private:
    bool value(std::string_view kind)
    {
        if (m_depth == 0)
            rootKind = kind;
        else if (m_depth == 1 && m_isField)
            fieldKind = kind;
        return true;
    }
    bool start(std::string_view kind)
    {
        value(kind);
        m_isField = m_isField && m_depth > 0;
        ++m_depth;
        return true;
    }
    bool end()
    {
        --m_depth;
        return true;
    }
    const std::string &m_field;
    std::string m_key;
    std::size_t m_depth = 0;
    bool m_isField = false;
};

/// The text of one line's object.
Result<std::string> textOf(std::string_view line, const std::string &field, const std::string &where)
{
    constexpr const char *form = R"(every line holds one object, e.g. {"text": "..."})";
    FieldReader reader(field);
    if (!nlohmann::json::sax_parse(line.begin(), line.end(), &reader))
        return inputError(fmt::format("is not valid JSON (byte {})", reader.errorAt), where, form);
    if (reader.rootKind != "object")
        return inputError(fmt::format("is a JSON {}, not an object", reader.rootKind), where, form);
    if (reader.fieldKind.empty())
        return inputError(fmt::format("the object has no field \"{}\"", printableUtf8(field)), where,
                          reader.otherTexts.empty() ? std::string("set text_field to the field that holds the text")
                                                    : "set text_field to one that holds text: " + reader.otherTexts);
    if (reader.fieldKind != "string")
        return inputError(fmt::format("the field \"{}\" is a JSON {}, not a string", printableUtf8(field), reader.fieldKind), where,
                          "set text_field to the field that holds the text");
    return std::move(reader.text);
}

Result<bool> readLines(ByteStream &stream, const std::string &path, const std::string &field, std::size_t longestLine, const Part &part,
                       std::stop_token stop)
{
    std::string buffer;
    std::size_t at = 0, searched = 0; // of the line's start; up to where no line end is
    std::int64_t number = 1;
    bool more = true;
    for (;; ++number) {
        std::size_t end;
        while ((end = buffer.find('\n', searched)) == std::string::npos && more) {
            buffer.erase(0, at);
            at = 0;
            searched = buffer.size();
            if (buffer.size() > longestLine)
                return inputError(fmt::format("is a line of more than {} MiB", longestLine >> 20), fmt::format("{}: line {}", path, number),
                                  "put one document on a line, and cut longer ones");
            SPECTRA_TRY(more, stream.read(buffer, stop));
        }
        const bool last = end == std::string::npos;
        std::string_view line = std::string_view(buffer).substr(at, last ? std::string::npos : end - at);
        if (number == 1 && line.starts_with(byteOrderMark))
            line.remove_prefix(byteOrderMark.size());
        if (line.find_first_not_of(" \t\r") != std::string_view::npos) {
            if (stop.stop_requested())
                return cancelledError();
            SPECTRA_CHECK(checkText(line, path, number));
            SPECTRA_TRY(const std::string text, textOf(line, field, fmt::format("{}: line {}", path, number)));
            if (!part({text, false}))
                return false;
        }
        if (last)
            return true;
        at = searched = end + 1;
    }
}

} // namespace

bool isJsonLines(const std::filesystem::path &file)
{
    return file.extension() == ".jsonl" || (file.extension() == ".zst" && file.stem().extension() == ".jsonl");
}

Result<FileSum> readParts(const std::filesystem::path &file, const std::string &textField, const Part &part, std::stop_token stop,
                          std::size_t longestLine)
{
    SPECTRA_TRY(ByteStream stream, ByteStream::open(file));
    SPECTRA_TRY(const bool whole, isJsonLines(file) ? readLines(stream, file.string(), textField, longestLine, part, stop)
                                                    : readPlain(stream, file.string(), part, stop));
    FileSum sum;
    if (whole) {
        sum.sha256 = stream.sha256();
        sum.bytes = stream.fileBytes();
    }
    return sum;
}

Result<void> readDocuments(const std::filesystem::path &file, const std::string &textField,
                           const std::function<bool(std::string_view text)> &document, std::stop_token stop)
{
    if (auto read = readParts(file, textField, [&](const TextPart &part) { return document(part.text); }, stop); !read)
        return read.error();
    return {};
}

} // namespace spectra
