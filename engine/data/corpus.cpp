// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/data/corpus.h"

#include "engine/core/files.h"
#include "engine/core/parallel.h"
#include "engine/data/selection.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <array>
#include <bit>

namespace spectra {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::ordered_json;
static_assert(std::endian::native == std::endian::little && sizeof(std::int32_t) == 4);

constexpr const char *statisticsName = "corpus.json";
constexpr std::array<const char *, 2> partNames = {"training", "held_out"};

fs::path tokenFile(const fs::path &folder, std::size_t domain, std::size_t part)
{
    return folder / fmt::format("{}.{}.i32", domain, partNames[part]);
}

/// One part of one domain, being written.
struct PartWriter {
    std::ofstream stream;
    Sha256 sha;
    std::int64_t tokens = 0, documents = 0, bytes = 0;

    void append(std::span<const std::int32_t> ids)
    {
        const auto data = std::as_bytes(ids);
        sha.add(data);
        stream.write(reinterpret_cast<const char *>(data.data()), std::streamsize(data.size()));
        tokens += std::int64_t(ids.size());
    }
};

/// Turns the documents of one domain into two token files. Documents are gathered, so that several threads can encode them;
/// they are written in their order.
class DomainWriter {
public:
    DomainWriter(const Tokenizer &tokenizer, std::optional<std::int32_t> separator, std::int64_t maxTokens, std::stop_token stop)
        : m_tokenizer(tokenizer), m_separator(separator), m_maxTokens(maxTokens), m_stop(std::move(stop))
    {
    }

    Result<void> open(const fs::path &folder, std::size_t domain)
    {
        for (std::size_t part = 0; part < 2; ++part) {
            m_parts[part].stream.open(tokenFile(folder, domain, part), std::ios::binary | std::ios::trunc);
            if (!m_parts[part].stream)
                return workError("cannot be written", folder.string());
        }
        return {};
    }
    /// False after an error, which finish() returns.
    bool take(const Selection::Kept &kept)
    {
        if (!kept.heldOut && full())
            return true;
        m_waiting.push_back({std::string(kept.text), kept.continues, kept.heldOut});
        m_waitingBytes += kept.text.size();
        if (m_waitingBytes >= (std::size_t(4) << 20))
            flush();
        return !m_error;
    }
    void flush()
    {
        std::vector<std::optional<Result<Tokenizer::Encoding>>> encoded(m_waiting.size());
        parallelFor(std::int64_t(m_waiting.size()), 0, [&](std::int64_t begin, std::int64_t end, int) {
            for (std::int64_t i = begin; i < end; ++i)
                encoded[std::size_t(i)] = m_tokenizer.encode(m_waiting[std::size_t(i)].text, {false, false, m_stop});
        });
        for (std::size_t i = 0; i < m_waiting.size() && !m_error; ++i) {
            if (!encoded[i]->ok())
                m_error = encoded[i]->error();
            else
                write(m_waiting[i], encoded[i]->value().ids);
        }
        m_waiting.clear();
        m_waitingBytes = 0;
    }
    Result<Json> finish(const fs::path &folder, std::size_t domain)
    {
        flush();
        if (m_error)
            return *m_error;
        Json sums;
        for (std::size_t part = 0; part < 2; ++part) {
            PartWriter &writer = m_parts[part];
            writer.stream.flush();
            const bool good = writer.stream.good();
            writer.stream.close();
            if (!good || writer.stream.fail())
                return workError("cannot be written (is the disk full?)", tokenFile(folder, domain, part).string());
            sums[partNames[part]] = {{"tokens", writer.tokens}, {"documents", writer.documents}, {"bytes", writer.bytes}, {"sha256", writer.sha.hex()}};
        }
        return sums;
    }

private:
    struct Waiting {
        std::string text;
        bool continues, heldOut;
    };
    [[nodiscard]] bool full() const { return m_maxTokens > 0 && m_parts[0].tokens >= m_maxTokens; }
    void write(const Waiting &document, std::span<const std::int32_t> ids)
    {
        PartWriter &part = m_parts[document.heldOut ? 1 : 0];
        if (!document.heldOut && full())
            return;
        if (m_separator && !document.continues && part.tokens > 0)
            part.append(std::span(&*m_separator, 1));
        if (!document.heldOut && m_maxTokens > 0)
            ids = ids.first(std::min(ids.size(), std::size_t(m_maxTokens - part.tokens)));
        part.append(ids);
        part.bytes += std::int64_t(document.text.size());
        part.documents += 1;
        if (!part.stream)
            m_error = workError("cannot be written (is the disk full?)", "the corpus cache");
    }

    const Tokenizer &m_tokenizer;
    std::optional<std::int32_t> m_separator;
    std::int64_t m_maxTokens;
    std::stop_token m_stop;
    std::array<PartWriter, 2> m_parts;
    std::vector<Waiting> m_waiting;
    std::size_t m_waitingBytes = 0;
    std::optional<Error> m_error;
};

/// The end token, else the one that the tokenizer's names give, else none.
std::optional<std::int32_t> separatorOf(const Tokenizer &tokenizer)
{
    if (const auto eos = tokenizer.eos())
        return eos;
    const auto ends = tokenizer.endIds();
    return ends.empty() ? std::nullopt : std::optional(ends.front());
}

class MappedCorpus final : public Corpus {
public:
    [[nodiscard]] const std::vector<DomainSource> &domains() const override { return m_domains; }
    [[nodiscard]] std::span<const std::int32_t> training(std::size_t domain) const override { return m_parts.at(domain)[0].tokens; }
    [[nodiscard]] std::span<const std::int32_t> heldOut(std::size_t domain) const override { return m_parts.at(domain)[1].tokens; }
    [[nodiscard]] std::int64_t heldOutBytes(std::size_t domain) const override { return m_parts.at(domain)[1].bytes; }
    [[nodiscard]] std::string manifest() const override { return m_manifest; }

    struct Part {
        std::shared_ptr<const MappedFile> file;
        std::span<const std::int32_t> tokens;
        std::int64_t bytes = 0;
    };
    std::vector<DomainSource> m_domains;
    std::vector<std::array<Part, 2>> m_parts;
    std::string m_manifest;
};

/// What the cache holds, or an error that says why it cannot be used; every token file is compared with its SHA-256.
Result<Json> load(const fs::path &folder, std::size_t domains, MappedCorpus &corpus, std::stop_token stop)
{
    SPECTRA_TRY(const std::string text, readTextFile(folder / statisticsName, 64 << 20));
    Json statistics = Json::parse(text, nullptr, false);
    try {
        if (statistics.at("domains").size() != domains)
            return inputError("is not of this corpus", folder.string());
        corpus.m_parts.assign(domains, {});
        for (std::size_t i = 0; i < domains; ++i) {
            for (std::size_t part = 0; part < 2; ++part) {
                const Json &sum = statistics.at("domains").at(i).at(partNames[part]);
                MappedCorpus::Part &into = corpus.m_parts[i][part];
                const fs::path path = tokenFile(folder, i, part);
                SPECTRA_TRY(into.file, MappedFile::open(path));
                const auto bytes = into.file->bytes();
                if (std::int64_t(bytes.size()) != sum.at("tokens").get<std::int64_t>() * 4)
                    return inputError("is cut off", path.string());
                SPECTRA_TRY(const std::string sha, sha256File(path, stop));
                if (sha != sum.at("sha256").get<std::string>())
                    return inputError("is damaged", path.string());
                into.tokens = {reinterpret_cast<const std::int32_t *>(bytes.data()), bytes.size() / 4};
                into.bytes = sum.at("bytes").get<std::int64_t>();
            }
        }
    } catch (const nlohmann::json::exception &) {
        return inputError("is damaged", (folder / statisticsName).string());
    }
    return statistics;
}

Result<void> build(const CorpusOptions &options, const std::vector<std::vector<FileSum>> &sources, const Tokenizer &tokenizer,
                   const fs::path &place, const ProgressFunction &progress, std::stop_token stop)
{
    SPECTRA_TRY(AtomicFolder folder, AtomicFolder::create(place, fs::exists(fs::symlink_status(place))));
    std::int64_t done = 0, total = 0;
    for (const auto &sums : sources) {
        for (const FileSum &sum : sums)
            total += sum.bytes;
    }
    Selection selection(options);
    Json statistics;
    statistics["domains"] = Json::array();
    for (std::size_t i = 0; i < options.domains.size(); ++i) {
        if (progress)
            progress({"reading " + options.domains[i].name, done, total, "bytes"});
        DomainWriter writer(tokenizer, separatorOf(tokenizer), options.maxTokens, stop);
        SPECTRA_CHECK(writer.open(folder.temporary(), i));
        SPECTRA_TRY(const std::vector<FileCounts> counts,
                    selection.read(i, sources[i], [&](const Selection::Kept &kept) { return writer.take(kept); }, stop));
        SPECTRA_TRY(Json sums, writer.finish(folder.temporary(), i));
        sums["files"] = Json::array();
        for (const FileCounts &count : counts) {
            sums["files"].push_back({{"documents", count.documents}, {"kept", count.kept}});
            done += count.sum.bytes;
        }
        statistics["domains"].push_back(std::move(sums));
    }
    if (progress)
        progress({"reading text", total, total, "bytes"});
    std::ofstream stream(folder.temporary() / statisticsName, std::ios::binary);
    stream << statistics.dump(1) << '\n';
    stream.close();
    if (!stream)
        return workError("cannot be written (is the disk full?)", place.string());
    return folder.commit();
}

/// Names and paths come from this run, counts from the cache.
Result<std::string> manifestText(const CorpusOptions &options, const std::vector<std::vector<FileSum>> &sources, const Json &statistics,
                                 const Tokenizer &tokenizer, const std::string &key)
{
    Json manifest;
    manifest["format"] = "spectra-corpus-1";
    manifest["key"] = key;
    manifest["domains"] = Json::array();
    try {
        for (std::size_t i = 0; i < options.domains.size(); ++i) {
            const DomainSource &domain = options.domains[i];
            const Json &counts = statistics.at("domains").at(i);
            Json out;
            out["name"] = domain.name;
            out["weight"] = domain.weight;
            out["files"] = Json::array();
            for (std::size_t k = 0; k < domain.files.size(); ++k) {
                const Json &file = counts.at("files").at(k);
                out["files"].push_back({{"path", domain.files[k].string()}, {"sha256", sources[i][k].sha256}, {"bytes", sources[i][k].bytes},
                                        {"documents", file.at("documents")}, {"kept", file.at("kept")}});
            }
            for (const char *part : partNames)
                out[part] = counts.at(part);
            manifest["domains"].push_back(std::move(out));
        }
    } catch (const nlohmann::json::exception &) {
        return inputError("is damaged", statisticsName);
    }
    manifest["filters"] = {{"text_field", options.textField}, {"min_characters", options.minCharacters}, {"max_characters", options.maxCharacters},
                           {"deduplicate", options.deduplicate}, {"max_tokens", options.maxTokens}};
    manifest["order"] = "files as named, documents as they stand in them; plain text in pieces of 16 KiB that end at a line end, CR LF read as LF";
    manifest["split"] = {{"held_out", options.heldOut}, {"rule", "document i of those kept, where floor((i+1)*held_out+1/2) > floor(i*held_out+1/2)"}};
    const auto separator = separatorOf(tokenizer);
    manifest["tokenizer"] = {{"sha256", tokenizer.sha256()}, {"vocabulary", tokenizer.size()}, {"separator", separator ? Json(*separator) : Json()}};
    return manifest.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<void> checkLengths(const MappedCorpus &corpus, const CorpusOptions &options, std::int64_t needTokens)
{
    const auto need = std::max<std::int64_t>(needTokens, 1);
    for (std::size_t i = 0; i < options.domains.size(); ++i) {
        const std::string where = "domain " + options.domains[i].name;
        const auto training = std::int64_t(corpus.training(i).size()), heldOut = std::int64_t(corpus.heldOut(i).size());
        if (training == 0 && heldOut == 0)
            return inputError("the domain has no text left after the filters", where, "give it text, or leave it out");
        if (training < need)
            return inputError(fmt::format("too little text: {} training tokens, {} are needed", training, need), where,
                              options.maxTokens > 0 && options.maxTokens < need ? "raise max_tokens" : "give more text, or a shorter sequence length");
        if (options.heldOut > 0 && heldOut < need)
            return inputError(fmt::format("too little text: {} held-out tokens, {} are needed", heldOut, need), where,
                              "give more text, a larger held-out share or a shorter sequence length");
    }
    return {};
}

} // namespace

Result<std::shared_ptr<const Corpus>> Corpus::open(const CorpusOptions &options, std::shared_ptr<const Tokenizer> tokenizer, std::int64_t needTokens,
                                                   const fs::path &cache, const ProgressFunction &progress, std::stop_token stop)
{
    SPECTRA_CHECK(checkOptions(options));
    SPECTRA_TRY(const auto sources, hashSources(options, progress, stop));
    const std::string what = selectionKey(options, sources) + fmt::format(" {} {}", options.maxTokens, tokenizer->sha256())
        + fmt::format(" {}", separatorOf(*tokenizer).value_or(-1));
    Sha256 sha;
    sha.add(std::as_bytes(std::span(what)));
    const std::string key = sha.hex();
    const fs::path place = cache / "corpora" / key;
    std::error_code error;
    fs::create_directories(place.parent_path(), error);
    if (error)
        return workError("cannot be made: " + error.message(), place.parent_path().string(), "choose another cache folder");
    auto corpus = std::make_shared<MappedCorpus>();
    corpus->m_domains = options.domains;
    auto statistics = load(place, options.domains.size(), *corpus, stop);
    if (!statistics) {
        if (statistics.error().kind == ErrorKind::cancelled)
            return statistics.error();
        const auto built = build(options, sources, *tokenizer, place, progress, stop);
        statistics = load(place, options.domains.size(), *corpus, stop); // when another process was first, its files are as good
        if (!statistics)
            return built.ok() ? statistics.error() : built.error();
    }
    SPECTRA_TRY(corpus->m_manifest, manifestText(options, sources, *statistics, *tokenizer, key));
    SPECTRA_CHECK(checkLengths(*corpus, options, needTokens));
    return std::shared_ptr<const Corpus>(std::move(corpus));
}

} // namespace spectra
