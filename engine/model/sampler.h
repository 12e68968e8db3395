// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/random.h"

#include <cstdint>
#include <span>
#include <vector>

namespace spectra {

/// How the next token is drawn from logits.
struct SamplingOptions {
    double temperature = 0;   ///< 0: greedy
    double topP = 1;          ///< smallest set of most likely tokens whose probabilities reach this; 1: all
    std::int64_t topK = 0;    ///< only the k most likely; 0: all
    std::uint64_t seed = 0;
};

/// Draws tokens; the same seed and logits give the same tokens on every machine. Not thread-safe.
class Sampler {
public:
    explicit Sampler(const SamplingOptions &options);
    /// Logits [V], finite or −inf. Greedy takes the lowest id among equals.
    [[nodiscard]] std::int32_t next(std::span<const float> logits);

private:
    SamplingOptions m_options;
    Random m_random;
    std::vector<std::pair<float, std::int32_t>> m_candidates;
};

} // namespace spectra
