// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/progress.h"
#include "engine/core/result.h"
#include "engine/tokenizer/tokenizer.h"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

namespace spectra {

/// Text of one domain. Files: `.jsonl` and `.jsonl.zst` (one object a line with the text field) or any other text, plain or
/// `.zst` (one document a file, cut into pieces: at the first line end from 16 KiB on; without one up to 64 KiB before a space;
/// without one up to 256 KiB between two characters). Streamed: never whole in memory.
struct DomainSource {
    std::string name;
    std::vector<std::filesystem::path> files;
    double weight = 1;                   ///< share of the batches, relative
};

struct CorpusOptions {
    std::vector<DomainSource> domains;
    double heldOut = 0.05;               ///< share of each domain's documents or pieces, spread evenly; at least one when > 0
    std::string textField = "text";
    std::int64_t minCharacters = 0, maxCharacters = 0; ///< documents outside are left out; 0: no limit
    bool deduplicate = false;            ///< leave out a document that was seen before in any domain (SHA-256 of its text)
    std::int64_t maxTokens = 0;          ///< of each domain's training part; 0: all
};

/// Calls `document` for every document of a JSON lines file, or every piece of a plain text, in order; false stops. A byte order
/// mark is left out, blank lines of JSON are passed over, CR LF of a plain text is read as LF. Errors (input): missing, a folder,
/// empty, another format (gzip, UTF-16 …: named), not UTF-8 or a byte 0 (line named), a line that is no object with the field or
/// longer than 256 MiB, a zstd stream that is broken, cut off or needs a window above 128 MiB; cancelled.
[[nodiscard]] Result<void> readDocuments(const std::filesystem::path &file, const std::string &textField,
                                         const std::function<bool(std::string_view text)> &document, std::stop_token stop = {});

/// Tokens of several domains, each split in a training and a held-out part. The token ids lie in files in the cache folder,
/// named by the SHA-256 of all that decides them (contents of the sources, filters, tokenizer), and are mapped: a corpus larger
/// than memory works, and a second run only hashes the sources and the token files. Documents are joined with the tokenizer's end
/// token between them; it also stands where a held-out or filtered piece was taken out of a text. Several processes may open
/// one corpus at once. Immutable, thread-safe.
///
/// Held out are the documents i (of those kept, from 0) where ⌊(i+1)·share + ½⌋ > ⌊i·share + ½⌋; of so few that none falls there,
/// the middle one. Filters of length hold for a JSON document or a whole plain file, deduplication for a document or piece.
class Corpus {
public:
    /// Errors: usage (an option out of range), input (readDocuments(); no domain; a domain that is empty or shorter than asked
    /// for, named), work (the cache cannot be written), cancelled. `needTokens`: least tokens of each domain's training and,
    /// when the share is above 0, held-out part (sequence length plus one).
    [[nodiscard]] static Result<std::shared_ptr<const Corpus>> open(const CorpusOptions &options, std::shared_ptr<const Tokenizer> tokenizer,
                                                                    std::int64_t needTokens, const std::filesystem::path &cache,
                                                                    const ProgressFunction &progress, std::stop_token stop);
    virtual ~Corpus() = default;
    [[nodiscard]] virtual const std::vector<DomainSource> &domains() const = 0;
    [[nodiscard]] virtual std::span<const std::int32_t> training(std::size_t domain) const = 0;
    [[nodiscard]] virtual std::span<const std::int32_t> heldOut(std::size_t domain) const = 0;
    /// UTF-8 bytes of the held-out tokens' text, for byte-normalised perplexity.
    [[nodiscard]] virtual std::int64_t heldOutBytes(std::size_t domain) const = 0;
    /// What was read: for every file its SHA-256, bytes, documents, documents kept; filters, order, split, token counts, SHA-256 of
    /// the tokenizer. JSON for the run's folder.
    [[nodiscard]] virtual std::string manifest() const = 0;
};

/// Trains the byte-level BPE on the training parts of all domains (held-out text is not seen), or takes it from the cache.
/// Returns the text of a tokenizer.json.
[[nodiscard]] Result<std::string> corpusTokenizer(const CorpusOptions &options, std::int64_t vocabulary, const std::filesystem::path &cache,
                                                  const ProgressFunction &progress, std::stop_token stop);

/// The tokenizer_config.json that goes with it: what Tokenizer::fromJson() needs beside the text to know the end token.
[[nodiscard]] std::string corpusTokenizerConfig();

/// Sequences of a corpus in an order that the seed alone decides.
class BatchSampler {
public:
    /// Where a domain's text is cut into windows: at an offset that is another one each epoch, or always at 0, length, 2·length, …,
    /// so that the same windows come again and something can be known of each.
    enum class Cut : std::uint8_t { shifted, fixed };
    /// One training sequence: `length` inputs and their successors.
    struct Sequence {
        std::size_t domain = 0;
        std::span<const std::int32_t> tokens; ///< length + 1
        std::int64_t begin = 0;               ///< of the first token in the domain's training text
    };
    /// The corpus was opened with `needTokens` of at least length + 1.
    BatchSampler(std::shared_ptr<const Corpus> corpus, std::int64_t length, std::uint64_t seed, Cut cut = Cut::shifted);
    /// Sequence number `index` of the run, 0, 1, …: any one without those before it, so that a run can be continued anywhere and
    /// every process of several takes its own. Domains are dealt by their weights: the first n sequences hold n times each
    /// share to within one (a weight of 0: none). Inside a domain windows of `length` tokens come in a shuffled order, each once
    /// an epoch, a new order and a new offset each epoch; of 32 windows or more one is left out, to leave room for the offset.
    /// With the fixed cut all windows that fit are there, in a new order each epoch. Constant time, thread-safe.
    [[nodiscard]] Sequence at(std::int64_t index) const;
    /// Windows of a domain in one epoch.
    [[nodiscard]] std::int64_t windows(std::size_t domain) const;
    /// Window `number` of a domain's fixed cut, from 0, whatever the sampler's own cut.
    [[nodiscard]] Sequence window(std::size_t domain, std::int64_t number) const;
    /// Passes through a domain's training text after `count` sequences; 1.5 is half-way through the second.
    [[nodiscard]] double epochs(std::size_t domain, std::int64_t count) const;

private:
    [[nodiscard]] Sequence from(std::size_t domain, std::int64_t begin) const;

    std::shared_ptr<const Corpus> m_corpus;
    std::int64_t m_length;
    std::uint64_t m_seed;
    Cut m_cut;
    std::vector<std::size_t> m_cycle;    ///< domain of each place of one cycle of the deal
    std::vector<std::int64_t> m_rank;    ///< how many of that domain stand before the place in its cycle
    std::vector<std::int64_t> m_perCycle;
};

} // namespace spectra
