// SPDX-License-Identifier: GPL-3.0-or-later
// Transport and selection on a GPU. One warp per row; sums over rows go through per-block partial sums that a second kernel adds in a
// fixed order, so a result does not depend on scheduling.
#include "engine/cuda/spectracuda.h"

#include <cmath>
#include <cstdio>
#include <vector>

#define SPECTRA_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

constexpr int kWarp = 32, kWarps = 8, kBlocks = 256;

/// Device memory that frees itself.
template <typename T> class Buffer {
public:
    Buffer() = default;
    Buffer(const Buffer &) = delete;
    Buffer &operator=(const Buffer &) = delete;
    ~Buffer() { cudaFree(m_data); }
    cudaError_t resize(size_t n) { return cudaMalloc(reinterpret_cast<void **>(&m_data), (n > 0 ? n : 1) * sizeof(T)); }
    T *get() { return m_data; }

private:
    T *m_data = nullptr;
};

int fail(char *error, size_t size, const char *what, cudaError_t code)
{
    if (error && size > 0)
        std::snprintf(error, size, "%s: %s", what, cudaGetErrorString(code));
    return code == cudaErrorMemoryAllocation ? 2 : 1;
}

__device__ float logit(float x, float scale, float limit)
{
    const float z = scale * x;
    return fminf(fmaxf(z, -limit), limit);
}

__device__ float warpMax(float v)
{
    for (int offset = kWarp / 2; offset > 0; offset /= 2)
        v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, offset));
    return v;
}

__device__ float warpSum(float v)
{
    for (int offset = kWarp / 2; offset > 0; offset /= 2)
        v += __shfl_xor_sync(0xffffffffu, v, offset);
    return v;
}

/// Rows to 1 under potentials g; column sums of that plan per block into partial [blocks,experts], and the plan itself when asked for.
/// Shared memory: kWarps·experts doubles.
__global__ void passKernel(const float *x, long long n, int experts, float scale, float limit, const float *g, double *partial, float *plan)
{
    extern __shared__ double sums[];
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    for (int i = threadIdx.x; i < kWarps * experts; i += blockDim.x)
        sums[i] = 0;
    __syncthreads();
    for (long long t = (long long)blockIdx.x * kWarps + warp; t < n; t += (long long)gridDim.x * kWarps) {
        const float *row = x + t * experts;
        float highest = -INFINITY, sum = 0;
        for (int i = lane; i < experts; i += kWarp)
            highest = fmaxf(highest, logit(row[i], scale, limit) + g[i]);
        highest = warpMax(highest);
        for (int i = lane; i < experts; i += kWarp)
            sum += expf(logit(row[i], scale, limit) + g[i] - highest);
        sum = warpSum(sum);
        for (int i = lane; i < experts; i += kWarp) {
            const float q = expf(logit(row[i], scale, limit) + g[i] - highest) / sum;
            sums[warp * experts + i] += q;
            if (plan)
                plan[t * experts + i] = q;
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < experts; i += blockDim.x) {
        double total = 0;
        for (int w = 0; w < kWarps; ++w)
            total += sums[w * experts + i];
        partial[(long long)blockIdx.x * experts + i] = total;
    }
}

__global__ void reduceKernel(const double *partial, int blocks, int experts, double *columns)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= experts)
        return;
    double total = 0;
    for (int b = 0; b < blocks; ++b)
        total += partial[(long long)b * experts + i];
    columns[i] = total;
}

/// One thread per row: k is small, and a sorted list of k in local memory keeps ties in order by itself.
template <int Most>
__global__ void topKKernel(const float *q, long long n, int experts, int k, int renormalise, long long *chosen, float *weights, unsigned long long *load)
{
    const long long t = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (t >= n)
        return;
    float value[Most];
    int index[Most];
    int held = 0;
    for (int e = 0; e < experts; ++e) {
        float v = q[t * experts + e];
        if (isnan(v))
            v = -INFINITY;
        if (held == k && !(v > value[k - 1]))
            continue;
        int at = held < k ? held++ : k - 1;
        for (; at > 0 && v > value[at - 1]; --at) {
            value[at] = value[at - 1];
            index[at] = index[at - 1];
        }
        value[at] = v;
        index[at] = e;
    }
    float sum = 0;
    for (int i = 0; i < k; ++i)
        sum += value[i];
    const bool mass = sum > 0 && isfinite(sum);
    for (int i = 0; i < k; ++i) {
        chosen[t * k + i] = index[i];
        weights[t * k + i] = !renormalise ? value[i] : mass ? value[i] / sum : 1.0f / k;
        atomicAdd(&load[index[i]], 1ull); // whole numbers: the order does not matter
    }
}

} // namespace

SPECTRA_EXPORT int spectra_cuda_abi(void)
{
    return SPECTRA_CUDA_ABI;
}

SPECTRA_EXPORT int spectra_cuda_devices(int *count, char *error, size_t errorSize)
{
    const cudaError_t code = cudaGetDeviceCount(count);
    if (code != cudaSuccess) {
        *count = 0;
        return fail(error, errorSize, "looking for a GPU", code);
    }
    return 0;
}

#define SPECTRA_CUDA(what, call)                                   \
    if (const cudaError_t code = (call); code != cudaSuccess)      \
    return fail(error, errorSize, what, code)

SPECTRA_EXPORT int spectra_cuda_sinkhorn(const float *scores, int64_t n, int64_t experts, SpectraCudaSinkhorn *options, float *plan, double *potential,
                                         char *error, size_t errorSize)
{
    Buffer<float> x, g, q;
    Buffer<double> partial, columns;
    const auto cells = static_cast<size_t>(n) * static_cast<size_t>(experts);
    const int e = static_cast<int>(experts);
    SPECTRA_CUDA("memory for the scores", x.resize(cells));
    SPECTRA_CUDA("memory for the potentials", g.resize(static_cast<size_t>(experts)));
    SPECTRA_CUDA("memory for partial sums", partial.resize(static_cast<size_t>(kBlocks) * static_cast<size_t>(experts)));
    SPECTRA_CUDA("memory for column sums", columns.resize(static_cast<size_t>(experts)));
    if (plan)
        SPECTRA_CUDA("memory for the plan", q.resize(cells));
    SPECTRA_CUDA("copying the scores", cudaMemcpy(x.get(), scores, cells * sizeof(float), cudaMemcpyHostToDevice));
    const size_t shared = sizeof(double) * kWarps * static_cast<size_t>(experts);
    if (shared > 48 * 1024)
        SPECTRA_CUDA("shared memory for this many experts",
                     cudaFuncSetAttribute(passKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)));
    const float scale = static_cast<float>((options->inputIsCost ? -1.0 : 1.0) / options->epsilon), limit = options->clampLogits ? 50.0f : 1e30f;
    const double share = static_cast<double>(n) / static_cast<double>(experts);
    std::vector<double> sums(static_cast<size_t>(experts)), logG(sums.size(), 0.0);
    std::vector<float> gHost(sums.size(), 0.0f);
    const int allowed = options->tolerance > 0 ? options->maxIterations : options->iterations;
    options->converged = options->tolerance > 0 ? 0 : 1;
    options->iterationsDone = 0;
    for (int i = 0;; ++i) {
        const bool last = i == allowed;
        SPECTRA_CUDA("copying the potentials", cudaMemcpy(g.get(), gHost.data(), gHost.size() * sizeof(float), cudaMemcpyHostToDevice));
        passKernel<<<kBlocks, kWarp * kWarps, shared>>>(x.get(), n, e, scale, limit, g.get(), partial.get(), q.get());
        reduceKernel<<<(e + 127) / 128, 128>>>(partial.get(), kBlocks, e, columns.get());
        SPECTRA_CUDA("a transport step", cudaGetLastError());
        SPECTRA_CUDA("a transport step", cudaMemcpy(sums.data(), columns.get(), sums.size() * sizeof(double), cudaMemcpyDeviceToHost));
        options->violation = 0;
        for (const double s : sums)
            options->violation = std::fmax(options->violation, std::fabs(s / share - 1));
        if (options->tolerance > 0 && options->violation <= options->tolerance)
            options->converged = 1;
        if (last || (options->tolerance > 0 && options->converged))
            break;
        double mean = 0;
        for (size_t c = 0; c < sums.size(); ++c) {
            if (!(sums[c] > 1e-30)) {
                if (error && errorSize > 0)
                    std::snprintf(error, errorSize, "a column's kernel underflows at this epsilon");
                return 3;
            }
            logG[c] += std::log(share / sums[c]);
            mean += logG[c] / static_cast<double>(experts);
        }
        for (size_t c = 0; c < sums.size(); ++c) {
            logG[c] -= mean;
            gHost[c] = static_cast<float>(logG[c]);
        }
        ++options->iterationsDone;
    }
    for (size_t c = 0; c < logG.size(); ++c)
        potential[c] = logG[c];
    if (plan)
        SPECTRA_CUDA("copying the plan", cudaMemcpy(plan, q.get(), cells * sizeof(float), cudaMemcpyDeviceToHost));
    return 0;
}

SPECTRA_EXPORT int spectra_cuda_topk(const float *q, int64_t n, int64_t experts, int64_t k, int renormalise, int64_t *chosen, float *weights,
                                     int64_t *load, char *error, size_t errorSize)
{
    constexpr int kMost = 64;
    if (k > kMost) {
        if (error && errorSize > 0)
            std::snprintf(error, errorSize, "top-k above %d", kMost);
        return 3;
    }
    Buffer<float> x, w;
    Buffer<long long> ids;
    Buffer<unsigned long long> counts;
    const auto cells = static_cast<size_t>(n) * static_cast<size_t>(experts), slots = static_cast<size_t>(n) * static_cast<size_t>(k);
    SPECTRA_CUDA("memory for probabilities", x.resize(cells));
    SPECTRA_CUDA("memory for weights", w.resize(slots));
    SPECTRA_CUDA("memory for experts", ids.resize(slots));
    SPECTRA_CUDA("memory for loads", counts.resize(static_cast<size_t>(experts)));
    SPECTRA_CUDA("copying probabilities", cudaMemcpy(x.get(), q, cells * sizeof(float), cudaMemcpyHostToDevice));
    SPECTRA_CUDA("clearing loads", cudaMemset(counts.get(), 0, static_cast<size_t>(experts) * sizeof(unsigned long long)));
    if (n > 0) {
        topKKernel<kMost><<<static_cast<unsigned>((n + 127) / 128), 128>>>(x.get(), n, static_cast<int>(experts), static_cast<int>(k), renormalise, ids.get(),
                                                                          w.get(), counts.get());
        SPECTRA_CUDA("top-k", cudaGetLastError());
    }
    SPECTRA_CUDA("copying experts", cudaMemcpy(chosen, ids.get(), slots * sizeof(int64_t), cudaMemcpyDeviceToHost));
    SPECTRA_CUDA("copying weights", cudaMemcpy(weights, w.get(), slots * sizeof(float), cudaMemcpyDeviceToHost));
    SPECTRA_CUDA("copying loads", cudaMemcpy(load, counts.get(), static_cast<size_t>(experts) * sizeof(int64_t), cudaMemcpyDeviceToHost));
    return 0;
}
