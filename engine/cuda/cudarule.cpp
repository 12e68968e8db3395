// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/cuda/cudarule.h"

#include "engine/cuda/spectracuda.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <vector>

#include <dlfcn.h>

namespace spectra {

struct CudaRule::Library {
    void *handle = nullptr;
    int count = 0;
    SpectraCudaSinkhornFn sinkhorn = nullptr;
    SpectraCudaTopKFn topK = nullptr;
    SpectraCudaQuotaFn quota = nullptr;
    Library() = default;
    Library(const Library &) = delete;
    Library &operator=(const Library &) = delete;
    ~Library()
    {
        if (handle)
            dlclose(handle);
    }
};

CudaRule::CudaRule(std::unique_ptr<Library> library) : m_library(std::move(library)) {}
CudaRule::~CudaRule() = default;
CudaRule::CudaRule(CudaRule &&) noexcept = default;
CudaRule &CudaRule::operator=(CudaRule &&) noexcept = default;

int CudaRule::devices() const
{
    return m_library->count;
}

Result<CudaRule> CudaRule::open(const std::string &file)
{
    namespace fs = std::filesystem;
    std::vector<std::string> candidates = {file};
#ifdef SPECTRA_WITH_CUDA_KERNELS
    if (file.empty()) {
        std::error_code ignored;
        const fs::path self = fs::read_symlink("/proc/self/exe", ignored).parent_path();
        candidates = {(self / "../lib/libspectra_cuda.so").string(), (self / "libspectra_cuda.so").string()};
    }
#else
    if (file.empty())
        return workError("this build has no CUDA kernels", "--device cuda", "build with the CUDA toolkit installed, or use --device cpu");
#endif
    auto library = std::make_unique<Library>();
    std::string why = "not found";
    for (const std::string &candidate : candidates) {
        std::error_code ignored;
        if (!fs::exists(candidate, ignored))
            continue;
        library->handle = dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (library->handle)
            break;
        const char *message = dlerror();
        why = message ? message : "cannot be opened";
    }
    if (!library->handle)
        return workError("the CUDA kernels cannot be loaded: " + why, candidates.front(), "use --device cpu");
    const auto abi = reinterpret_cast<SpectraCudaAbi>(dlsym(library->handle, "spectra_cuda_abi"));
    const auto devices = reinterpret_cast<SpectraCudaDevices>(dlsym(library->handle, "spectra_cuda_devices"));
    library->sinkhorn = reinterpret_cast<SpectraCudaSinkhornFn>(dlsym(library->handle, "spectra_cuda_sinkhorn"));
    library->topK = reinterpret_cast<SpectraCudaTopKFn>(dlsym(library->handle, "spectra_cuda_topk"));
    library->quota = reinterpret_cast<SpectraCudaQuotaFn>(dlsym(library->handle, "spectra_cuda_quota"));
    if (!abi || abi() != SPECTRA_CUDA_ABI || !devices || !library->sinkhorn || !library->topK || !library->quota)
        return workError("the CUDA kernels are of another version", candidates.front(), "install program and library together");
    std::array<char, 256> error{};
    if (devices(&library->count, error.data(), error.size()) != 0 || library->count < 1)
        return workError(std::string("no GPU can be used") + (error[0] ? ": " + std::string(error.data()) : ""), "--device cuda", "use --device cpu");
    return CudaRule(std::move(library));
}

Result<rule::SinkhornResult> CudaRule::sinkhorn(std::span<const float> scores, std::int64_t experts, const rule::SinkhornOptions &options,
                                                std::span<float> plan) const
{
    std::string why;
    if (!options.isValid(&why))
        return usageError(why, "sinkhorn");
    if (experts < 1 || scores.size() % static_cast<std::size_t>(experts) != 0 || (!plan.empty() && plan.size() != scores.size()))
        return bugError("scores or plan are not whole rows", "sinkhorn");
    for (std::size_t i = 0; i < scores.size(); ++i)
        if (!std::isfinite(scores[i]))
            return inputError("a score is not a finite number", "row " + std::to_string(i / static_cast<std::size_t>(experts)) + ", column "
                                                                    + std::to_string(i % static_cast<std::size_t>(experts)));
    SpectraCudaSinkhorn call{options.epsilon, options.tolerance, options.iterations, options.maxIterations, options.inputIsCost, options.clampLogits, 0, 0, 0};
    rule::SinkhornResult result;
    result.potential.resize(static_cast<std::size_t>(experts));
    std::array<char, 256> error{};
    const auto rows = static_cast<std::int64_t>(scores.size()) / experts;
    if (m_library->sinkhorn(scores.data(), rows, experts, &call, plan.empty() ? nullptr : plan.data(), result.potential.data(), error.data(), error.size()) != 0)
        return workError(error.data(), "sinkhorn on the GPU", "use --device cpu");
    result.violation = call.violation;
    result.iterations = call.iterationsDone;
    result.converged = call.converged != 0;
    return result;
}

Result<void> CudaRule::topK(std::span<const float> q, std::int64_t experts, std::int64_t k, bool renormalise, std::span<std::int64_t> chosen,
                            std::span<float> weights, std::span<std::int64_t> load) const
{
    const auto rows = experts > 0 ? static_cast<std::int64_t>(q.size()) / experts : 0;
    if (k < 1 || k > experts || static_cast<std::int64_t>(chosen.size()) != rows * k || chosen.size() != weights.size()
        || static_cast<std::int64_t>(load.size()) != experts)
        return bugError("outputs do not fit the probabilities", "top-k");
    std::array<char, 256> error{};
    if (m_library->topK(q.data(), rows, experts, k, renormalise, chosen.data(), weights.data(), load.data(), error.data(), error.size()) != 0)
        return workError(error.data(), "top-k on the GPU", "use --device cpu");
    return {};
}

Result<rule::QuotaResult> CudaRule::assignQuota(std::span<const float> q, std::int64_t experts, std::int64_t k, double factor,
                                                std::span<const std::uint8_t> counted) const
{
    const auto rows = experts > 0 ? static_cast<std::int64_t>(q.size()) / experts : 0;
    const std::int64_t n = counted.empty() ? rows : std::count_if(counted.begin(), counted.end(), [](std::uint8_t c) { return c != 0; });
    const std::vector<std::int64_t> capacities(static_cast<std::size_t>(std::max<std::int64_t>(0, experts)), rule::quotaCapacity(factor, n, experts, k));
    return assignQuota(q, k, capacities, counted);
}

Result<rule::QuotaResult> CudaRule::assignQuota(std::span<const float> q, std::int64_t k, std::span<const std::int64_t> capacities,
                                                std::span<const std::uint8_t> counted) const
{
    const auto experts = static_cast<std::int64_t>(capacities.size());
    const auto rows = experts > 0 ? static_cast<std::int64_t>(q.size()) / experts : 0;
    if (k < 1 || k > experts || rows * experts != static_cast<std::int64_t>(q.size()) || (!counted.empty() && static_cast<std::int64_t>(counted.size()) != rows))
        return bugError("probabilities are not whole rows, or k or the mask does not fit them", "quota");
    rule::QuotaResult result;
    for (const std::int64_t capacity : capacities) {
        if (capacity < 0)
            return usageError("a negative capacity", "quota", "use 0 or more slots per expert");
        result.capacity = std::max(result.capacity, capacity);
    }
    result.experts.assign(static_cast<std::size_t>(rows * k), -1);
    result.weights.assign(static_cast<std::size_t>(rows * k), 0.0f);
    result.dropped.assign(static_cast<std::size_t>(rows), 0);
    const std::int64_t n = counted.empty() ? rows : std::count_if(counted.begin(), counted.end(), [](std::uint8_t c) { return c != 0; });
    std::int64_t fell = 0;
    std::array<char, 256> error{};
    if (m_library->quota(q.data(), rows, experts, k, capacities.data(), counted.empty() ? nullptr : counted.data(), result.experts.data(), result.weights.data(),
                         result.dropped.data(), &fell, error.data(), error.size())
        != 0)
        return workError(error.data(), "quota on the GPU", "use --device cpu");
    result.fellBack = n > 0 ? static_cast<double>(fell) / static_cast<double>(n) : 0;
    return result;
}

} // namespace spectra
