// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace spectra {

/// A sample of a RoMA bank: a window of the training text as BatchSampler::Cut::fixed cuts it.
struct RomaWindow {
    std::size_t domain = 0;
    std::int64_t number = 0;             ///< of the window in its domain, from 0
    std::int64_t row = -1;               ///< in the bank's arrays; −1: the model did not succeed on it
};

/// What a folder that `spectra roma-bank` made says of itself, windows.json. Beside it lie the arrays of RomaBank, queries.npy [windows, D]
/// (the embedding of every window, the unsuccessful ones too), texts.jsonl (the text of every window, for an embedder outside) and
/// manifest.json (Corpus::manifest() of the texts).
struct RomaWindows {
    std::string model;                   ///< that ran over the windows
    std::string success;                 ///< when a window counts as a success, for a person
    std::string embedding;               ///< where the embeddings come from, for a person
    std::int64_t sequenceLength = 0, layers = 0, experts = 0;
    std::vector<RomaWindow> windows;     ///< ascending by domain and number; rows count up from 0

    [[nodiscard]] std::int64_t successes() const;
    [[nodiscard]] std::string toJson() const;
    /// `where` names the text. Errors (input): not JSON or of another format, windows out of order, rows that do not count up.
    [[nodiscard]] static Result<RomaWindows> parse(const std::string &json, const std::string &where);
    /// Of a bank's folder. Errors (input): missing too.
    [[nodiscard]] static Result<RomaWindows> read(const std::filesystem::path &folder);
};

} // namespace spectra
