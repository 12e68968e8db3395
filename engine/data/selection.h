// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/progress.h"
#include "engine/core/result.h"
#include "engine/data/corpus.h"
#include "engine/data/documents.h"

#include <cstdint>
#include <functional>
#include <stop_token>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

namespace spectra {

/// What was read of one source file.
struct FileCounts {
    FileSum sum;
    std::int64_t documents = 0; ///< or pieces
    std::int64_t kept = 0;
};

/// Errors: usage (a share, weight or limit out of range, a name twice), input (no domain, a domain without files).
[[nodiscard]] Result<void> checkOptions(const CorpusOptions &options);

/// SHA-256 and size of every source, by domain. Errors: readDocuments()'s of the file itself.
[[nodiscard]] Result<std::vector<std::vector<FileSum>>> hashSources(const CorpusOptions &options, const ProgressFunction &progress,
                                                                    std::stop_token stop);

/// One line of JSON that holds all that decides which text goes where, with the contents by SHA-256 and without names and
/// paths: what the cache is keyed by.
[[nodiscard]] std::string selectionKey(const CorpusOptions &options, const std::vector<std::vector<FileSum>> &sources);

/// The documents of a corpus as its filters and its split take them. Domains are to be read in order, each once.
class Selection {
public:
    struct Kept {
        std::string_view text;
        bool continues = false; ///< the text before it in the same part ends where this one begins
        bool heldOut = false;
    };
    using Take = std::function<bool(const Kept &)>;

    explicit Selection(const CorpusOptions &options) : m_options(options) {}
    /// Calls `take` for every document of the domain that stays; false ends the reading, with what was counted so far. Errors: readDocuments()'s; input (the file is no longer what
    /// `sources` says; a single document, which cannot be split).
    [[nodiscard]] Result<std::vector<FileCounts>> read(std::size_t domain, const std::vector<FileSum> &sources, const Take &take,
                                                       std::stop_token stop);

private:
    struct Part {
        TextPart text;
        bool kept = false;
    };
    [[nodiscard]] Result<FileCounts> readFile(const std::filesystem::path &file, const std::function<bool(const Part &)> &part,
                                              std::stop_token stop);
    [[nodiscard]] Result<bool> plainFits(const std::filesystem::path &file, std::stop_token stop) const;
    [[nodiscard]] bool isNew(std::string_view text);
    [[nodiscard]] Result<std::int64_t> countUpTo(std::int64_t most, std::size_t domain, std::stop_token stop);

    const CorpusOptions &m_options;
    std::unordered_set<std::string> m_seen;
    std::vector<std::string> *m_added = nullptr; // what m_seen took during a count, to be taken back
};

} // namespace spectra
