// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace spectra {

/// One captured quantity of routing, by the trace page. The value is its bit in a FieldMask.
enum class Field : std::uint8_t {
    tokens,          ///< id, text, sequence, position, phase, mask, byte offset
    nll,             ///< [N] f32
    nextTop1,        ///< [N] i32
    experts,         ///< [L,N,k] u16
    weights,         ///< [L,N,k]
    dropped,         ///< [L,N] u8
    logits,          ///< [L,N,E] raw router scores (S for SPECTRA)
    selection,       ///< [L,N,E] what top-k was taken on
    probabilities,   ///< [L,N,E]
    entropy,         ///< [L,N] nats
    means,           ///< sequence_means and mean_vectors of routing and expression vectors
    buffers,         ///< mean_expression, potential
    gram,            ///< Gram matrices of what the router has
    routerWeights,   ///< [L,E,H]
    expertMeans,     ///< input_mean, output_mean [L,E,H]
    sinkhorn,        ///< violation, potentials
    vectors,         ///< routing and expression vectors [L,N,E,D]
    gru,             ///< [L,N,E·D]
    gruPca,          ///< [L,N,8]
    hidden,          ///< router inputs of sampled sequences [L,M,H]
    expertOutputs,   ///< [L,M,k,H]
    dense,           ///< hidden states of layers without experts [Ld,M,H]
    count_
};

using FieldMask = std::uint32_t;
[[nodiscard]] constexpr FieldMask bit(Field f) { return FieldMask(1) << static_cast<unsigned>(f); }

/// What a run keeps. A field outside it is neither kept nor copied.
struct Capture {
    FieldMask fields = 0;

    [[nodiscard]] bool has(Field f) const { return (fields & bit(f)) != 0; }
    Capture &add(Field f) { fields |= bit(f); return *this; }
    Capture &drop(Field f) { fields &= ~bit(f); return *this; }

    [[nodiscard]] static Capture minimal();
    [[nodiscard]] static Capture standard();
    [[nodiscard]] static Capture full();
    /// "standard,+vectors,-nll": a preset, then names to add or drop. Errors (usage): unknown name.
    [[nodiscard]] static Result<Capture> parse(std::string_view text);
    [[nodiscard]] std::string toString() const;

    /// Sizes that the bytes per token depend on.
    struct Sizes {
        int layers = 0, experts = 0, slots = 0, routerDim = 0, hidden = 0;
        int scalarBytes = 2;      ///< 2 for f16 storage, 4 for f32
        double sampledShare = 0;  ///< share of tokens whose hidden states are kept
    };
    /// Uncompressed bytes per token of this capture set.
    [[nodiscard]] double bytesPerToken(const Sizes &sizes) const;
};

/// The command line's name of a field: "expert_means", "gru_pca".
[[nodiscard]] std::string_view fieldName(Field f);

} // namespace spectra
