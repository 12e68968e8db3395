// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/capture.h"
#include "engine/core/tracesource.h"

#include <cstdint>
#include <string>
#include <vector>

namespace spectra {

/// What a trace will hold, fixed before its first token: sizes, columns, attributes, storage.
struct TraceSpec {
    ModelAttributes model;
    EnvironmentAttributes environment;
    std::string generator = "spectra";
    std::vector<std::int32_t> decoderIndex;  ///< [L] decoder layer of each traced MoE layer; may be empty (dense models)
    std::vector<std::int32_t> denseIndex;    ///< [Ld] decoder layers without experts, for Field::dense
    int experts = 0;                         ///< E
    int slots = 0;                           ///< k
    int routerDim = 0;                       ///< D, 0: the router has no vectors
    int hidden = 0;                          ///< H
    Capture capture;                         ///< what was asked for
    /// What this router and run can give (bits of Field). A dataset exists when it is captured and available; `means`
    /// stands for routing and expression vectors (so it decides /gram/routing and /gram/expression), `routerWeights` for a
    /// linear router (so it decides /gram/router_weights). Routing that is not causal has no `nll`.
    FieldMask available = ~FieldMask(0);
    bool f16 = true;                         ///< weights, logits, selection, probabilities and hidden states as float16
    int compress = 1;                        ///< deflate level of wide datasets, 0..9
    bool live = false;                       ///< SWMR: other processes may read along; text follows at the end
    std::int64_t hiddenTokens = 8192;        ///< upper bound of sampled tokens (M)
    std::uint64_t seed = 0;                  ///< of the sample
    /// Planned tokens of every sequence of the run, in order (with generation: the most it may have). From these the
    /// sampled sequences are drawn. Empty: not known, then sequences are taken in order while there is room.
    std::vector<std::int64_t> plannedLengths;
    std::vector<std::int32_t> physicalToLogical; ///< [L,P], imports from serving engines; empty otherwise
    std::int64_t queueBytes = std::int64_t(64) << 20; ///< records waiting to be written, at most
    double flushSeconds = 2;                 ///< longest time between two commits while whole blocks are there

    [[nodiscard]] bool holds(Field f) const { return capture.has(f) && (available & bit(f)) != 0; }
    [[nodiscard]] int layers() const { return static_cast<int>(decoderIndex.size()); }
    /// Errors (usage): sizes that no trace can have, a compression level outside 0..9.
    [[nodiscard]] Result<void> check() const;
};

/// The seeded choice of whole sequences whose hidden states a trace keeps: a random order of all planned sequences, from
/// which those are taken that still fit. Depends on the plan, the bound and the seed only. Not synchronised.
class HiddenSample {
public:
    HiddenSample() = default;
    HiddenSample(const std::vector<std::int64_t> &plannedLengths, std::int64_t hiddenTokens, std::uint64_t seed);
    /// True when the hidden states of this sequence are kept. Without a plan the answer for a sequence is made at the first
    /// question about it, from its length and the room left, and stays.
    [[nodiscard]] bool wants(std::int32_t sequence, std::int64_t length);
    /// Room already used when a run is continued without a plan.
    void reserve(std::int64_t tokens) { m_used += tokens; }

private:
    bool m_planned = false;
    std::int64_t m_room = 0, m_used = 0;
    std::vector<char> m_answer; ///< per sequence: 0 no, 1 yes, 2 not asked yet
};

} // namespace spectra
