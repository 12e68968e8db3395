// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/progress.h"
#include "engine/core/result.h"
#include "engine/core/vocabulary.h"
#include "engine/checkpoint/modelconfig.h"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

namespace spectra {

/// Storage types of safetensors and GGUF that we read.
enum class DType : std::uint8_t { f32, f16, bf16, f64, i8, i16, i32, i64, u8, u16, u32, u64, boolean, q4_0, q4_1, q5_0, q5_1, q8_0, q4_k, q5_k, q6_k };

[[nodiscard]] std::string_view dtypeName(DType type);

/// One tensor of a checkpoint under its internal name (the layout of the method page, section 7: Hugging Face's Llama
/// names, experts as model.layers.i.mlp.experts.e.{gate,up,down}_proj.weight, a linear router as
/// model.layers.i.mlp.router.weight). `shape` is row-major, slowest axis first. A slice of a fused or 3-D tensor
/// (one expert of ffn_gate_exps) is a Tensor of its own.
struct TensorInfo {
    std::string name;
    std::string sourceName;            ///< name in the file
    DType dtype = DType::f32;
    std::vector<std::int64_t> shape;
    std::uint64_t bytes = 0;           ///< stored bytes
    std::string file;                  ///< plain file name
    [[nodiscard]] std::int64_t elements() const
    {
        std::int64_t n = 1;
        for (std::int64_t d : shape)
            n *= d;
        return n;
    }
};

/// An opened model: configuration, named tensors, vocabulary. Files are memory-mapped; nothing is read before asked for.
/// Immutable after open(); read() may be called from several threads.
class Checkpoint {
public:
    enum class Format : std::uint8_t { safetensors, gguf };

    /// `path` is a Hugging Face folder, a .gguf file (of a split set: any part), or a folder written by upcycle or train.
    /// Errors (input): missing, malformed, unsupported architecture or type, a folder with pickled weights only.
    [[nodiscard]] static Result<std::shared_ptr<const Checkpoint>> open(const std::filesystem::path &path);

    virtual ~Checkpoint() = default;
    [[nodiscard]] virtual Format format() const = 0;
    [[nodiscard]] virtual const std::filesystem::path &path() const = 0;
    [[nodiscard]] virtual const ModelConfig &config() const = 0;
    [[nodiscard]] virtual const std::vector<TensorInfo> &tensors() const = 0;
    /// nullptr when the checkpoint has no tensor of that internal name.
    [[nodiscard]] virtual const TensorInfo *find(std::string_view name) const = 0;
    /// Dequantised values of rows [firstRow, firstRow + rows) of the tensor's first axis, in the internal layout
    /// (Q/K permutation and Conv1D transposition undone). `out` holds exactly that many elements.
    [[nodiscard]] virtual Result<void> readF32(const TensorInfo &tensor, std::span<float> out, std::int64_t firstRow = 0,
                                               std::int64_t rows = -1) const = 0;
    /// Mapped bytes of an f32, f16 or bf16 tensor whose stored layout is the internal one; empty otherwise.
    [[nodiscard]] virtual std::span<const std::byte> raw(const TensorInfo &tensor) const = 0;
    /// Tells the kernel that the tensor's pages are not needed soon (after its values were copied).
    virtual void release(const TensorInfo &tensor) const = 0;

    /// tokenizer.json of the folder, when there is one.
    [[nodiscard]] virtual std::optional<std::filesystem::path> tokenizerFile() const = 0;
    /// The vocabulary of a GGUF file, when it is one.
    [[nodiscard]] virtual std::optional<GgufVocabulary> vocabulary() const = 0;
    /// SHA-256 over all weight files in order (slow: reads every byte).
    [[nodiscard]] virtual Result<std::string> sha256(std::stop_token stop = {}) const = 0;
    /// Key–value metadata for `inspect`, printable.
    [[nodiscard]] virtual std::vector<std::pair<std::string, std::string>> metadata() const = 0;
    /// config.json of the folder as text, or one made from GGUF metadata: what upcycling starts from.
    [[nodiscard]] virtual std::string configJson() const = 0;
};

/// What a checkpoint stores, for the writer.
struct TensorToWrite {
    std::string name;
    DType dtype = DType::f32;              ///< f32, f16 or bf16
    std::vector<std::int64_t> shape;
    /// Fills `out` (values as f32) when its turn comes, so that a model larger than memory can be written.
    std::function<Result<void>(std::span<float> out)> fill;
};

/// Writes model.safetensors (or shards of at most `shardBytes` with an index) into `folder`. Values are rounded to
/// nearest even for f16 and bf16. Errors: work (disk full, not writable), cancelled. The folder is the caller's
/// AtomicFolder::temporary().
[[nodiscard]] Result<void> writeSafetensors(const std::filesystem::path &folder, std::span<const TensorToWrite> tensors,
                                            std::uint64_t shardBytes, const ProgressFunction &progress, std::stop_token stop);

/// Names of the supported families, for `spectra models --architectures`.
struct ArchitectureInfo {
    std::string name;         ///< "llama"
    std::string title;        ///< "Llama (LLaMA-2, SmolLM2)"
    std::string formats;      ///< "safetensors, GGUF"
    std::string source;
};
[[nodiscard]] const std::vector<ArchitectureInfo> &architectures();

} // namespace spectra
