// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/checkpoint/modelconfig.h"
#include "engine/core/result.h"

#include <torch/torch.h>

#include <cstdint>
#include <span>
#include <vector>

namespace spectra {

/// Rotary position embedding (Su et al. 2021) in the rotate-half form, with the scalings of the Llama family: linear,
/// dynamic NTK, YaRN (Peng et al. 2023) and Llama 3. Frequencies are formed in f32, in the order in which transformers forms them.
class Rope {
public:
    Rope() = default;
    /// Errors (input): unknown scaling, odd or empty rotated width, a factor that is not positive.
    [[nodiscard]] static Result<Rope> make(const ModelConfig &config);

    /// Half of the rotated width of a head.
    [[nodiscard]] std::int64_t half() const { return m_half; }
    /// Angular frequency of each pair for a sequence of `length` tokens (only `dynamic` depends on it).
    [[nodiscard]] std::vector<float> frequencies(std::int64_t length) const;
    /// Writes cos and sin, each [positions, half], scaled by the attention factor.
    void angles(std::int64_t firstPosition, std::int64_t count, std::int64_t length, float *cos, float *sin) const;

private:
    RopeConfig m_config;
    std::int64_t m_half = 0, m_context = 0;
    double m_attention = 1;
    std::vector<float> m_fixed; ///< frequencies, for all scalings but dynamic
};

} // namespace spectra
