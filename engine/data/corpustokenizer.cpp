// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/core/files.h"
#include "engine/data/corpus.h"
#include "engine/data/selection.h"
#include "engine/tokenizer/bpetrainer.h"

#include <fmt/format.h>

namespace spectra {

Result<std::string> corpusTokenizer(const CorpusOptions &options, std::int64_t vocabulary, const std::filesystem::path &cache,
                                    const ProgressFunction &progress, std::stop_token stop)
{
    SPECTRA_CHECK(checkOptions(options));
    SPECTRA_TRY(const auto sources, hashSources(options, progress, stop));
    const std::string what = fmt::format("byte-level BPE 1 {} {}", vocabulary, selectionKey(options, sources));
    Sha256 sha;
    sha.add(std::as_bytes(std::span(what)));
    const std::filesystem::path place = cache / "tokenizers" / (sha.hex() + ".json");
    std::error_code error;
    std::filesystem::create_directories(place.parent_path(), error);
    if (error)
        return workError("cannot be made: " + error.message(), place.parent_path().string(), "choose another cache folder");
    if (auto cached = readTextFile(place)) {
        if (auto loaded = Tokenizer::fromJson(*cached, place.string()); loaded && (*loaded)->size() == vocabulary)
            return std::move(*cached);
    }
    BpeTrainOptions training;
    training.vocabulary = vocabulary;
    BpeTrainer trainer(training);
    Selection selection(options);
    for (std::size_t i = 0; i < options.domains.size(); ++i) {
        if (progress)
            progress({"counting words", std::int64_t(i), std::int64_t(options.domains.size()), "domains"});
        const auto take = [&](const Selection::Kept &kept) {
            if (!kept.heldOut)
                trainer.add(kept.text);
            return true;
        };
        if (auto read = selection.read(i, sources[i], take, stop); !read)
            return read.error();
    }
    SPECTRA_TRY(std::string json, trainer.train(progress, stop));
    SPECTRA_TRY(AtomicFile file, AtomicFile::create(place, true));
    file.stream() << json;
    SPECTRA_CHECK(file.commit());
    return json;
}

std::string corpusTokenizerConfig()
{
    return BpeTrainer(BpeTrainOptions()).configJson();
}

} // namespace spectra
