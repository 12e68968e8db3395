// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "engine/data/corpus.h"
#include "engine/router/router.h"
#include "engine/train/romabank.h"

#include <cstdint>
#include <filesystem>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

namespace spectra {

/// What a run asks of a bank (keys in section "roma" of its configuration) and what the bank must fit.
struct RomaRequest {
    std::filesystem::path bank;
    std::filesystem::path embeddings;    ///< of all windows, .npy [windows, D], instead of the bank's own; empty: the bank's
    std::int64_t neighbours = 3;
    double sigma = 0;                    ///< 0: the median of all distances found
    std::int64_t layers = 0;             ///< M: MoE layers whose routing is aligned
    std::int64_t experts = 0;
};

/// What the router of a run is drawn to (RoMA, Li et al. 2025, arXiv 2511.07419, sections 3.1 and 3.2), micro-batch by micro-batch: of each
/// training window its nearest successful windows other than itself. A pure function of the windows: a run that goes on finds the same.
class RomaTargets {
public:
    /// `sampler` has the fixed cut and windows of `length` tokens. Errors (input), with key and mend: the folder is no bank or damaged, made
    /// for other texts, another tokenizer or length, of other layers or experts, too few samples for the neighbours, embeddings that do
    /// not fit; cancelled.
    [[nodiscard]] static Result<RomaTargets> open(const RomaRequest &request, const Corpus &corpus, const BatchSampler &sampler, std::int64_t length,
                                                  std::stop_token stop = {});

    /// Targets of a micro-batch; a window that the bank does not know has none (its weights are 0).
    [[nodiscard]] Result<ManifoldTargets> of(std::span<const BatchSampler::Sequence> sequences) const;

    [[nodiscard]] const RomaBank &bank() const { return m_bank; }
    [[nodiscard]] const RomaNeighbours &neighbours() const { return m_neighbours; }
    /// Number of a window among those of windows.json; −1: the bank does not know it.
    [[nodiscard]] std::int64_t find(std::size_t domain, std::int64_t begin) const;
    [[nodiscard]] std::int64_t windows() const { return static_cast<std::int64_t>(m_windows.size()); }
    [[nodiscard]] std::int64_t allWindows() const { return m_allWindows; } ///< of the run's text
    /// SHA-256 of everything that was read.
    [[nodiscard]] const std::string &sha256() const { return m_sha256; }

private:
    struct Place {
        std::size_t domain;
        std::int64_t begin;
    };
    RomaBank m_bank;
    RomaNeighbours m_neighbours;
    std::vector<Place> m_windows;        ///< ascending
    std::int64_t m_allWindows = 0;
    std::string m_sha256;
};

/// Keeps in a run's folder which bank it was begun with, or with `resume` holds the bank against that. Errors: input (another one), work.
[[nodiscard]] Result<void> keepRomaBank(const std::filesystem::path &run, const RomaTargets &targets, bool resume);

} // namespace spectra
