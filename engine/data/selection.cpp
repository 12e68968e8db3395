// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/data/selection.h"

#include "engine/core/files.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <fstream>

namespace spectra {
namespace {

std::int64_t charactersOf(std::string_view text)
{
    return std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

/// Whether document `index` is held out: each time the share of those before it, plus a half, passes a whole number.
bool fallsOnSpread(std::int64_t index, double share)
{
    return std::floor(double(index + 1) * share + 0.5) > std::floor(double(index) * share + 0.5);
}

Result<FileSum> hashFile(const std::filesystem::path &file, std::stop_token stop)
{
    std::error_code error;
    const auto status = std::filesystem::status(file, error);
    if (!std::filesystem::exists(status))
        return inputError("no such file", file.string());
    if (!std::filesystem::is_regular_file(status))
        return inputError(std::filesystem::is_directory(status) ? "is a folder, not a file" : "is not a regular file", file.string(),
                          "name the text files themselves");
    std::ifstream stream(file, std::ios::binary);
    if (!stream)
        return inputError("cannot be opened", file.string(), "may this user read it?");
    Sha256 sha;
    FileSum sum;
    std::vector<char> buffer(1 << 20);
    while (stream.read(buffer.data(), std::streamsize(buffer.size())) || stream.gcount() > 0) {
        if (stop.stop_requested())
            return cancelledError();
        const auto got = std::size_t(stream.gcount());
        sha.add(std::as_bytes(std::span(buffer).first(got)));
        sum.bytes += std::int64_t(got);
    }
    if (stream.bad())
        return inputError("cannot be read", file.string());
    if (sum.bytes == 0)
        return inputError("is empty", file.string(), "leave it out, or fetch it again");
    sum.sha256 = sha.hex();
    return sum;
}

std::string_view kindOf(const std::filesystem::path &file)
{
    const bool packed = file.extension() == ".zst";
    return isJsonLines(file) ? (packed ? "jsonl.zst" : "jsonl") : (packed ? "text.zst" : "text");
}

} // namespace

Result<void> checkOptions(const CorpusOptions &options)
{
    if (options.domains.empty())
        return inputError("there is no domain to read", "domains", R"(name at least one, e.g. "domains": {"wiki": "wiki.txt"})");
    double weights = 0;
    for (std::size_t i = 0; i < options.domains.size(); ++i) {
        const DomainSource &domain = options.domains[i];
        const std::string where = "domain " + domain.name;
        if (domain.name.empty())
            return usageError("a domain has no name", "domains");
        for (std::size_t j = 0; j < i; ++j) {
            if (options.domains[j].name == domain.name)
                return usageError("the domain is named twice", where, "put its files in one list");
        }
        if (domain.files.empty())
            return inputError("the domain has no file", where, "name its files, or leave it out");
        if (!std::isfinite(domain.weight) || domain.weight < 0)
            return usageError("the weight of a domain is a number from 0 on", where);
        weights += domain.weight;
    }
    if (weights <= 0 || !std::isfinite(weights))
        return usageError("no domain has a weight above 0", "domains");
    if (!(options.heldOut >= 0 && options.heldOut < 1))
        return usageError("the held-out share is a number from 0 to below 1", "held_out");
    if (options.textField.empty())
        return usageError("the name of the text field is empty", "text_field");
    if (options.minCharacters < 0 || options.maxCharacters < 0 || options.maxTokens < 0)
        return usageError("a limit is negative", "min_characters, max_characters, max_tokens", "0 means no limit");
    if (options.maxCharacters > 0 && options.minCharacters > options.maxCharacters)
        return usageError("min_characters is above max_characters", "min_characters");
    return {};
}

Result<std::vector<std::vector<FileSum>>> hashSources(const CorpusOptions &options, const ProgressFunction &progress, std::stop_token stop)
{
    std::vector<std::vector<FileSum>> sources;
    std::int64_t done = 0, total = 0;
    for (const DomainSource &domain : options.domains)
        total += std::int64_t(domain.files.size());
    for (const DomainSource &domain : options.domains) {
        auto &sums = sources.emplace_back();
        for (const auto &file : domain.files) {
            auto sum = hashFile(file, stop);
            if (!sum)
                return sum.error().in("domain " + domain.name);
            sums.push_back(std::move(*sum));
            if (progress)
                progress({"checking the sources", ++done, total, "files"});
        }
    }
    return sources;
}

std::string selectionKey(const CorpusOptions &options, const std::vector<std::vector<FileSum>> &sources)
{
    nlohmann::ordered_json key;
    key["format"] = 1; // of cutting, filters, split: changes when the same sources give another text
    for (std::size_t i = 0; i < options.domains.size(); ++i) {
        auto files = nlohmann::ordered_json::array();
        for (std::size_t k = 0; k < sources[i].size(); ++k)
            files.push_back({kindOf(options.domains[i].files[k]), sources[i][k].sha256});
        key["domains"].push_back(std::move(files));
    }
    key["text_field"] = options.textField;
    key["held_out"] = options.heldOut;
    key["min_characters"] = options.minCharacters;
    key["max_characters"] = options.maxCharacters;
    key["deduplicate"] = options.deduplicate;
    return key.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

bool Selection::isNew(std::string_view text)
{
    Sha256 sha;
    sha.add(std::as_bytes(std::span(text)));
    const auto [it, inserted] = m_seen.insert(sha.hex());
    if (inserted && m_added != nullptr)
        m_added->push_back(*it);
    return inserted;
}

/// The limits of length hold for a document; of a plain text that is the file.
Result<bool> Selection::plainFits(const std::filesystem::path &file, std::stop_token stop) const
{
    if (m_options.minCharacters == 0 && m_options.maxCharacters == 0)
        return true;
    std::int64_t characters = 0;
    const auto within = [&] { return m_options.maxCharacters == 0 || characters <= m_options.maxCharacters; };
    auto read = readParts(
        file, m_options.textField,
        [&](const TextPart &part) {
            characters += charactersOf(part.text);
            return within();
        },
        stop);
    if (!read)
        return read.error();
    return within() && characters >= m_options.minCharacters;
}

Result<FileCounts> Selection::readFile(const std::filesystem::path &file, const std::function<bool(const Part &)> &part, std::stop_token stop)
{
    const bool lines = isJsonLines(file);
    bool fits = true;
    if (!lines) {
        SPECTRA_TRY(fits, plainFits(file, stop));
    }
    FileCounts counts;
    SPECTRA_TRY(counts.sum, readParts(
                                file, m_options.textField,
                                [&](const TextPart &text) {
                                    ++counts.documents;
                                    bool kept = fits && text.text.find_first_not_of(" \t\r\n\v\f") != std::string_view::npos;
                                    if (kept && lines && (m_options.minCharacters > 0 || m_options.maxCharacters > 0)) {
                                        const std::int64_t characters = charactersOf(text.text);
                                        kept = characters >= m_options.minCharacters
                                            && (m_options.maxCharacters == 0 || characters <= m_options.maxCharacters);
                                    }
                                    kept = kept && (!m_options.deduplicate || isNew(text.text));
                                    counts.kept += kept;
                                    return part({text, kept});
                                },
                                stop));
    return counts;
}

Result<std::int64_t> Selection::countUpTo(std::int64_t most, std::size_t domain, std::stop_token stop)
{
    std::vector<std::string> added;
    m_added = &added;
    std::int64_t count = 0;
    std::optional<Error> error;
    for (const auto &file : m_options.domains[domain].files) {
        auto read = readFile(
            file,
            [&](const Part &part) {
                count += part.kept;
                return count < most;
            },
            stop);
        if (!read)
            error = read.error();
        if (error || count >= most)
            break;
    }
    m_added = nullptr;
    for (const std::string &hash : added)
        m_seen.erase(hash);
    if (error)
        return *error;
    return count;
}

Result<std::vector<FileCounts>> Selection::read(std::size_t domain, const std::vector<FileSum> &sources, const Take &take, std::stop_token stop)
{
    const DomainSource &source = m_options.domains[domain];
    const std::string where = "domain " + source.name;
    const double share = m_options.heldOut;
    std::int64_t only = -1; // the one that is held out of so few that none falls on the spread
    if (share > 0) {
        // Of a tiny share the first place lies beyond any text: it need not be found, and past 2^53 doubles step over it.
        constexpr double farthest = 0x1p52;
        std::int64_t first = std::max<std::int64_t>(0, std::int64_t(std::min(0.5 / share, farthest)) - 2);
        while (double(first) < farthest && !fallsOnSpread(first, share))
            ++first;
        auto counted = countUpTo(std::max<std::int64_t>(first, 1) + 1, domain, stop);
        if (!counted)
            return counted.error().in(where);
        if (*counted == 1)
            return inputError("the domain has a single document, or text of less than 16 KiB in one piece: nothing can be held out", where,
                              "give more text, or a held-out share of 0");
        if (*counted <= first)
            only = *counted / 2;
    }
    std::vector<FileCounts> counts;
    std::int64_t index = 0;
    bool goOn = true;
    bool lastKept[2] = {false, false}; // by part: the text just before was kept there
    for (std::size_t k = 0; k < source.files.size(); ++k) {
        auto read = readFile(
            source.files[k],
            [&](const Part &part) {
                bool held = false;
                if (part.kept) {
                    held = share > 0 && (only >= 0 ? index == only : fallsOnSpread(index, share));
                    ++index;
                    goOn = take({part.text.text, part.text.continues && lastKept[held], held});
                }
                lastKept[held] = part.kept;
                lastKept[!held] = false;
                return goOn;
            },
            stop);
        if (!read)
            return read.error().in(where);
        if (goOn && read->sum.sha256 != sources[k].sha256)
            return inputError("the file changed while it was read", where + ": " + source.files[k].string(), "try again when nothing writes it");
        counts.push_back(std::move(*read));
        if (!goOn)
            break;
    }
    return counts;
}

} // namespace spectra
