// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "engine/rule/selection.h"
#include "engine/rule/sinkhorn.h"

#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace spectra {

/// The calls of engine/rule on a GPU, through a shared object that is opened at run time. Not thread-safe.
class CudaRule {
public:
    /// Opens libspectra_cuda.so (`file`, or beside the program: ../lib, its own folder) and looks for a GPU.
    /// Errors (work): built without CUDA, library not found or of another version, no driver, no GPU.
    [[nodiscard]] static Result<CudaRule> open(const std::string &file = {});
    ~CudaRule();
    CudaRule(CudaRule &&) noexcept;
    CudaRule &operator=(CudaRule &&) noexcept;

    [[nodiscard]] int devices() const;
    /// As rule::sinkhorn() for all rows; potentials come centred. Errors: usage and input as there; work (GPU memory; a column that
    /// underflows at this ε, which the CPU form handles).
    [[nodiscard]] Result<rule::SinkhornResult> sinkhorn(std::span<const float> scores, std::int64_t experts, const rule::SinkhornOptions &options,
                                                        std::span<float> plan) const;
    /// As rule::topK(), and how often each expert was chosen into load [E]. Errors (work): GPU memory, k above 64.
    [[nodiscard]] Result<void> topK(std::span<const float> q, std::int64_t experts, std::int64_t k, bool renormalise, std::span<std::int64_t> chosen,
                                    std::span<float> weights, std::span<std::int64_t> load) const;
    /// As rule::assignQuota(), the same in every number: ties go by row, then expert. Errors (work): GPU memory, k above 64.
    [[nodiscard]] Result<rule::QuotaResult> assignQuota(std::span<const float> q, std::int64_t experts, std::int64_t k, double factor,
                                                        std::span<const std::uint8_t> counted = {}) const;
    /// The same with a capacity for each expert. Errors: also usage (a negative capacity).
    [[nodiscard]] Result<rule::QuotaResult> assignQuota(std::span<const float> q, std::int64_t k, std::span<const std::int64_t> capacities,
                                                        std::span<const std::uint8_t> counted = {}) const;

private:
    struct Library;
    explicit CudaRule(std::unique_ptr<Library> library);
    std::unique_ptr<Library> m_library;
};

} // namespace spectra
