// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/checkpoint/checkpoint.h"
#include "engine/core/progress.h"
#include "engine/core/result.h"
#include "engine/model/pass.h"
#include "engine/model/sequencestate.h"
#include "engine/router/router.h"

#include <torch/torch.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

namespace spectra {

/// Number format of weights and matrix products. Norms, softmax, routing and the residual stream are f32 in both.
enum class Compute : std::uint8_t {
    f32,
    bf16,      ///< only where the CPU has AVX-512 BF16 or AMX, or on a GPU
    automatic, ///< bf16 where it is quick, f32 elsewhere
};

struct LoadOptions {
    torch::Device device = torch::kCPU;
    Compute compute = Compute::f32;
    /// Options JSON of the router to use instead of the checkpoint's. Same "type": the checkpoint's parameters under these
    /// options. Another type: a fresh router of that type, seeded. Dense checkpoints are upcycled first (engine/train/upcycle.h).
    std::string routerJson;
    std::int64_t topK = 0;               ///< 0: the checkpoint's
    std::uint64_t seed = 0;
};

/// What a model will need before anything is allocated.
struct MemoryEstimate {
    std::uint64_t weights = 0;           ///< resident weights, router included
    std::uint64_t cachePerToken = 0;     ///< keys and values
    std::uint64_t passPerToken = 0;      ///< temporaries of one pass, per row of a chunk
};
[[nodiscard]] MemoryEstimate estimateMemory(const ModelConfig &config, Compute compute);

/// True when bf16 is worth its rounding on this CPU: avx512_bf16, or amx_bf16 that really runs. Without working AMX only
/// decode is quicker (half the bytes to read); prefill is about as quick as f32.
[[nodiscard]] bool cpuHasFastBf16();

/// A decoder-only language model, dense or Mixture of Experts. One engine thread owns it; nothing here is thread-safe.
/// All calls run without autograd. Exceptions of torch come out as Errors (work: out of memory; bug: all else).
class Model {
public:
    /// Errors: input (a tensor is missing or mis-shaped, unsupported activation, too large for this machine), usage
    /// (bf16 without the instructions, bad router options), cancelled.
    [[nodiscard]] static Result<std::unique_ptr<Model>> load(std::shared_ptr<const Checkpoint> checkpoint, const LoadOptions &options,
                                                             const ProgressFunction &progress = {}, std::stop_token stop = {});
    ~Model();
    Model(const Model &) = delete;
    Model &operator=(const Model &) = delete;

    [[nodiscard]] const ModelConfig &config() const; ///< with topK and routerJson as in use
    [[nodiscard]] const Checkpoint &checkpoint() const;
    [[nodiscard]] Router *router();                  ///< nullptr for a dense model
    [[nodiscard]] const Router *router() const;
    [[nodiscard]] torch::Device device() const;
    [[nodiscard]] Compute compute() const;           ///< f32 or bf16
    [[nodiscard]] std::uint64_t memory() const;      ///< bytes of weights held
    [[nodiscard]] bool causal() const;               ///< the router's needs().causal; true for dense

    /// A fresh sequence with room for `reserve` tokens (it grows by blocks beyond).
    [[nodiscard]] SequenceState newSequence(std::int64_t reserve = 0) const;

    /// Runs the decoder. Returns the final hidden states after the last norm, f32: [N,H], or [S,H] with lastOnly.
    /// On an error the states are as they were before the piece that failed; pieces before it stay done.
    /// Errors: usage (token id outside the vocabulary, an empty sequence), input (too large for this machine), cancelled.
    [[nodiscard]] Result<torch::Tensor> forward(const PassInput &input, const PassHooks &hooks = {});

    /// Logits [rows, V] f32 on the CPU of hidden states [rows, H] from forward(). Made whole: for few rows.
    [[nodiscard]] Result<torch::Tensor> logits(const torch::Tensor &hidden, PassTiming *timing = nullptr);
    /// The same in pieces of at most 128 rows: sink(firstRow, logits [n, V]); returning false stops (Error cancelled).
    [[nodiscard]] Result<void> logits(const torch::Tensor &hidden,
                                      const std::function<bool(std::int64_t firstRow, const torch::Tensor &logits)> &sink,
                                      std::stop_token stop = {}, PassTiming *timing = nullptr);
    /// −log p of `targets` (one per row; < 0: none) and the most likely token of every row, in pieces.
    [[nodiscard]] Result<TokenScores> score(const torch::Tensor &hidden, std::span<const std::int32_t> targets,
                                            std::stop_token stop = {}, PassTiming *timing = nullptr);

private:
    Model();
    struct Private;
    std::unique_ptr<Private> d;
};

} // namespace spectra
