// SPDX-License-Identifier: GPL-3.0-or-later
// Transport and selection on a GPU. One warp per row; sums over rows go through per-block partial sums that a second kernel adds in a
// fixed order, so a result does not depend on scheduling.
#include "engine/cuda/quotasteps.h"
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

/// Every counted row asks its k best experts that have not refused it; asked [n,k] holds them (-1: none), askers [experts] counts.
template <int Most>
__global__ void askKernel(const float *q, long long n, int experts, int k, const unsigned char *counted, const std::uint64_t *threshold, int *asked, unsigned *askers)
{
    const long long t = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (t >= n)
        return;
    int index[Most], held = 0;
    float weight[Most];
    if (!counted || counted[t])
        held = spectra::quota::ask(q + t * experts, (std::uint32_t)t, experts, k, threshold, index, weight);
    for (int i = 0; i < k; ++i) {
        asked[t * k + i] = i < held ? index[i] : -1;
        if (i < held)
            atomicAdd(&askers[index[i]], 1u); // whole numbers: the order does not matter
    }
}

/// One block per expert. With more askers than slots the threshold becomes the key of the last one that fits: the `capacity`-th largest,
/// found digit by digit (radix selection, 8 bits at a time). With no slots nobody fits.
__global__ void refuseKernel(const float *q, long long n, int experts, int k, const int *asked, const unsigned *askers, const long long *capacities, std::uint64_t *threshold,
                             int *changed)
{
    const int e = blockIdx.x;
    const auto capacity = static_cast<unsigned long long>(capacities[e]);
    if (askers[e] <= capacity)
        return;
    __shared__ unsigned digits[256];
    __shared__ std::uint64_t prefix;
    __shared__ unsigned long long left;
    if (threadIdx.x == 0) {
        prefix = 0;
        left = capacity;
        *changed = 1;
        if (capacity == 0)
            threshold[e] = ~0ull;
    }
    if (capacity == 0)
        return;
    for (int shift = 56; shift >= 0; shift -= 8) {
        for (int i = threadIdx.x; i < 256; i += blockDim.x)
            digits[i] = 0;
        __syncthreads();
        const std::uint64_t known = shift == 56 ? 0 : ~0ull << (shift + 8), wanted = prefix;
        for (long long t = threadIdx.x; t < n; t += blockDim.x) {
            bool asks = false;
            for (int i = 0; i < k; ++i)
                asks = asks || asked[t * k + i] == e;
            if (!asks)
                continue;
            const std::uint64_t key = spectra::quota::key(q[t * experts + e], (std::uint32_t)t);
            if ((key & known) == wanted)
                atomicAdd(&digits[(key >> shift) & 255], 1u);
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            int digit = 255;
            for (; digits[digit] < left; --digit) // as many askers as `left` share the digits found so far, so this ends
                left -= digits[digit];
            prefix |= (std::uint64_t)digit << shift;
        }
        __syncthreads();
    }
    if (threadIdx.x == 0)
        threshold[e] = prefix;
}

/// What the rows got, from what they asked in the last round; rows that do not count take their plain top-k, as does the comparison for `fell`.
template <int Most>
__global__ void settleKernel(const float *q, long long n, int experts, int k, const unsigned char *counted, const std::uint64_t *threshold, const long long *own,
                             const float *ownWeights, long long *chosen, float *weights, unsigned char *dropped, unsigned long long *fell)
{
    const long long t = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (t >= n)
        return;
    if (counted && !counted[t]) {
        for (int i = 0; i < k; ++i) {
            chosen[t * k + i] = own[t * k + i];
            weights[t * k + i] = ownWeights[t * k + i];
        }
        dropped[t] = 0;
        return;
    }
    int index[Most];
    float weight[Most];
    const int held = spectra::quota::ask(q + t * experts, (std::uint32_t)t, experts, k, threshold, index, weight);
    spectra::quota::normalise(weight, held);
    bool same = true;
    for (int i = 0; i < k; ++i) {
        chosen[t * k + i] = i < held ? index[i] : -1;
        weights[t * k + i] = i < held ? weight[i] : 0.0f;
        same = same && chosen[t * k + i] == own[t * k + i];
    }
    dropped[t] = (unsigned char)(k - held > 255 ? 255 : k - held);
    if (!same)
        atomicAdd(fell, 1ull);
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

SPECTRA_EXPORT int spectra_cuda_quota(const float *q, int64_t n, int64_t experts, int64_t k, const int64_t *capacities, const uint8_t *counted, int64_t *chosen, float *weights,
                                      uint8_t *dropped, int64_t *fell, char *error, size_t errorSize)
{
    constexpr int kMost = 64;
    if (k > kMost || n > 0xFFFFFFFFll) {
        if (error && errorSize > 0)
            std::snprintf(error, errorSize, "a quota of more than %d experts per row or 2^32 rows", kMost);
        return 3;
    }
    *fell = 0;
    if (n == 0)
        return 0;
    Buffer<float> x, ownWeights, w;
    Buffer<long long> own, ids, room;
    Buffer<unsigned long long> counts, others;
    Buffer<std::uint64_t> threshold;
    Buffer<unsigned> askers;
    Buffer<int> asked, changed;
    Buffer<unsigned char> mask, lost;
    const auto rows = static_cast<size_t>(n), columns = static_cast<size_t>(experts), cells = rows * columns, slots = rows * static_cast<size_t>(k);
    SPECTRA_CUDA("memory for probabilities", x.resize(cells));
    SPECTRA_CUDA("memory for weights", w.resize(slots));
    SPECTRA_CUDA("memory for weights", ownWeights.resize(slots));
    SPECTRA_CUDA("memory for experts", ids.resize(slots));
    SPECTRA_CUDA("memory for experts", own.resize(slots));
    SPECTRA_CUDA("memory for experts", asked.resize(slots));
    SPECTRA_CUDA("memory for loads", counts.resize(columns));
    SPECTRA_CUDA("memory for loads", askers.resize(columns));
    SPECTRA_CUDA("memory for capacities", room.resize(columns));
    SPECTRA_CUDA("memory for thresholds", threshold.resize(columns));
    SPECTRA_CUDA("memory for flags", changed.resize(1));
    SPECTRA_CUDA("memory for flags", others.resize(1));
    SPECTRA_CUDA("memory for the mask", mask.resize(counted ? rows : 1));
    SPECTRA_CUDA("memory for the mask", lost.resize(rows));
    SPECTRA_CUDA("copying probabilities", cudaMemcpy(x.get(), q, cells * sizeof(float), cudaMemcpyHostToDevice));
    SPECTRA_CUDA("copying capacities", cudaMemcpy(room.get(), capacities, columns * sizeof(int64_t), cudaMemcpyHostToDevice));
    if (counted)
        SPECTRA_CUDA("copying the mask", cudaMemcpy(mask.get(), counted, rows, cudaMemcpyHostToDevice));
    SPECTRA_CUDA("clearing thresholds", cudaMemset(threshold.get(), 0, columns * sizeof(std::uint64_t)));
    SPECTRA_CUDA("clearing loads", cudaMemset(counts.get(), 0, columns * sizeof(unsigned long long)));
    SPECTRA_CUDA("clearing flags", cudaMemset(others.get(), 0, sizeof(unsigned long long)));
    const unsigned char *const counts8 = counted ? mask.get() : nullptr;
    const auto blocks = static_cast<unsigned>((n + 127) / 128);
    const int e = static_cast<int>(experts), top = static_cast<int>(k);
    topKKernel<kMost><<<blocks, 128>>>(x.get(), n, e, top, 1, own.get(), ownWeights.get(), counts.get());
    for (int again = 1; again != 0;) { // ends: each round but the last raises a threshold past at least one pair
        SPECTRA_CUDA("clearing loads", cudaMemset(askers.get(), 0, columns * sizeof(unsigned)));
        SPECTRA_CUDA("clearing flags", cudaMemset(changed.get(), 0, sizeof(int)));
        askKernel<kMost><<<blocks, 128>>>(x.get(), n, e, top, counts8, threshold.get(), asked.get(), askers.get());
        refuseKernel<<<static_cast<unsigned>(experts), 256>>>(x.get(), n, e, top, asked.get(), askers.get(), room.get(), threshold.get(), changed.get());
        SPECTRA_CUDA("a round of the quota", cudaGetLastError());
        SPECTRA_CUDA("a round of the quota", cudaMemcpy(&again, changed.get(), sizeof(int), cudaMemcpyDeviceToHost));
    }
    settleKernel<kMost><<<blocks, 128>>>(x.get(), n, e, top, counts8, threshold.get(), own.get(), ownWeights.get(), ids.get(), w.get(), lost.get(), others.get());
    SPECTRA_CUDA("the quota", cudaGetLastError());
    SPECTRA_CUDA("copying experts", cudaMemcpy(chosen, ids.get(), slots * sizeof(int64_t), cudaMemcpyDeviceToHost));
    SPECTRA_CUDA("copying weights", cudaMemcpy(weights, w.get(), slots * sizeof(float), cudaMemcpyDeviceToHost));
    SPECTRA_CUDA("copying dropped slots", cudaMemcpy(dropped, lost.get(), rows, cudaMemcpyDeviceToHost));
    SPECTRA_CUDA("copying the count", cudaMemcpy(fell, others.get(), sizeof(int64_t), cudaMemcpyDeviceToHost));
    return 0;
}
