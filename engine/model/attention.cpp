// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/model/attention.h"

#include "engine/model/kernels.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>

namespace spectra {
namespace {

/// 0 where row i may see column j, −∞ elsewhere: [n, length].
torch::Tensor additiveMask(std::int64_t n, std::int64_t length, std::int64_t position, std::int64_t window, const torch::TensorOptions &options)
{
    torch::Tensor mask = torch::empty({n, length}, torch::kFloat32);
    float *const m = mask.data_ptr<float>();
    for (std::int64_t i = 0; i < n; ++i) {
        const std::int64_t last = position + i;
        const std::int64_t firstSeen = window > 0 ? std::max<std::int64_t>(0, last - window + 1) : 0;
        for (std::int64_t j = 0; j < length; ++j)
            m[i * length + j] = j >= firstSeen && j <= last ? 0.0f : -std::numeric_limits<float>::infinity();
    }
    return mask.to(options);
}

/// Few rows on the CPU: plain loops over the cache, nothing allocated.
void attendFew(float *out, const float *qkv, std::int64_t first, std::int64_t n, float *keys, float *values, std::int64_t capacity,
               std::int64_t position, const AttentionShape &s)
{
    for (std::int64_t i = 0; i < n; ++i) {
        const float *const row = qkv + (first + i) * s.width();
        const std::int64_t at = position + i;
        for (std::int64_t h = 0; h < s.kvHeads; ++h) {
            const auto bytes = static_cast<std::size_t>(s.headDim) * sizeof(float);
            std::memcpy(keys + (h * capacity + at) * s.headDim, row + s.queryWidth() + h * s.headDim, bytes);
            std::memcpy(values + (h * capacity + at) * s.headDim, row + s.queryWidth() + s.keyWidth() + h * s.headDim, bytes);
        }
        const std::int64_t skip = s.window > 0 ? std::max<std::int64_t>(0, at + 1 - s.window) : 0;
        kernels::attendOne(out + (first + i) * s.queryWidth(), row, keys, values, s.heads, s.kvHeads, s.headDim, capacity, at + 1, skip,
                           1 / std::sqrt(static_cast<double>(s.headDim)));
    }
}

/// Many rows on the CPU: blocks of rows against the keys that they can see, two matrix products and a softmax each, every
/// block whole in one thread with its scores in that core's cache. Query heads that share a key head are stacked, so that
/// keys and values are not repeated, and half of the square is skipped.
void attendMany(torch::Tensor &out, const torch::Tensor &qkv, std::int64_t first, std::int64_t n, const torch::Tensor &keys,
                const torch::Tensor &values, std::int64_t position, const AttentionShape &s)
{
    const std::int64_t group = s.heads / s.kvHeads;
    const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(s.headDim)));
    const std::int64_t longest = s.window > 0 ? std::min(position + n, s.window + 64) : position + n;
    // 2 MiB of scores at most until the context is so long that blocks of few rows would read the keys too often.
    const std::int64_t blockRows = std::clamp<std::int64_t>((std::int64_t(1) << 19) / (group * longest), 8, 64);
    const std::int64_t most = blockRows * group, blocks = (n + blockRows - 1) / blockRows, threads = at::get_num_threads();
    const float *const source = qkv.const_data_ptr<float>();
    float *const target = out.data_ptr<float>();
    const torch::Tensor buffer = torch::empty({threads, most * (2 * s.headDim + longest + 1)});

    const auto attendBlock = [&](std::int64_t h, std::int64_t block, const torch::Tensor &memory) {
        const std::int64_t m = std::min(blockRows, n - block), rows = m * group;
        const std::int64_t end = position + block + m;
        const std::int64_t begin = s.window > 0 ? std::max<std::int64_t>(0, position + block - s.window + 1) : 0;
        const std::int64_t length = end - begin;
        const torch::Tensor queries = memory.narrow(0, 0, rows * s.headDim).view({rows, s.headDim});
        torch::Tensor product = memory.narrow(0, most * s.headDim, rows * s.headDim).view({rows, s.headDim});
        torch::Tensor scores = memory.narrow(0, 2 * most * s.headDim, rows * length).view({rows, length});
        float *const inverse = memory.data_ptr<float>() + most * (2 * s.headDim + longest);
        float *const q = queries.data_ptr<float>();
        for (std::int64_t i = 0; i < m; ++i) {
            const float *const row = source + (first + block + i) * s.width() + h * group * s.headDim;
            for (std::int64_t c = 0; c < group * s.headDim; ++c)
                q[i * group * s.headDim + c] = row[c] * scale;
        }
        at::mm_out(scores, queries, keys.select(0, h).narrow(0, begin, length).t());
        kernels::causalExp(scores.data_ptr<float>(), inverse, rows, length, group, position + block - begin, s.window);
        at::mm_out(product, scores, values.select(0, h).narrow(0, begin, length));
        const float *const y = product.const_data_ptr<float>();
        for (std::int64_t r = 0; r < rows; ++r) {
            float *const place = target + (first + block + r / group) * s.queryWidth() + (h * group + r % group) * s.headDim;
            for (std::int64_t c = 0; c < s.headDim; ++c)
                place[c] = y[r * s.headDim + c] * inverse[r];
        }
    };
    // The longest rows first, so that the threads end together.
    std::atomic<std::int64_t> next{0};
    const std::int64_t tasks = s.kvHeads * blocks;
    at::parallel_for(0, std::min(threads, tasks), 1, [&](std::int64_t partBegin, std::int64_t partEnd) {
        for (std::int64_t part = partBegin; part < partEnd; ++part)
            for (std::int64_t task = next.fetch_add(1); task < tasks; task = next.fetch_add(1))
                attendBlock(task % s.kvHeads, (blocks - 1 - task / s.kvHeads) * blockRows, buffer[part]);
    });
}

} // namespace

void storeKeysValues(const torch::Tensor &qkv, std::int64_t first, std::int64_t n, torch::Tensor &keys, torch::Tensor &values,
                     std::int64_t position, const AttentionShape &s)
{
    const torch::Tensor rows = qkv.narrow(0, first, n);
    const auto heads = [&](std::int64_t column) {
        return rows.narrow(1, column, s.keyWidth()).view({n, s.kvHeads, s.headDim}).transpose(0, 1);
    };
    keys.narrow(1, position, n).copy_(heads(s.queryWidth()));
    values.narrow(1, position, n).copy_(heads(s.queryWidth() + s.keyWidth()));
}

void attend(torch::Tensor &out, const torch::Tensor &qkv, std::int64_t first, std::int64_t n, torch::Tensor &keys, torch::Tensor &values,
            std::int64_t position, const AttentionShape &s, bool bf16)
{
    if (qkv.device().is_cpu() && n <= kernels::kGemvRows) {
        attendFew(out.data_ptr<float>(), qkv.const_data_ptr<float>(), first, n, keys.data_ptr<float>(), values.data_ptr<float>(), keys.size(1),
                  position, s);
        return;
    }
    const std::int64_t length = position + n;
    const torch::Tensor rows = qkv.narrow(0, first, n);
    const auto heads = [&](std::int64_t column, std::int64_t count) {
        return rows.narrow(1, column, count * s.headDim).view({n, count, s.headDim}).transpose(0, 1);
    };
    storeKeysValues(qkv, first, n, keys, values, position, s);

    const bool windowed = s.window > 0 && length > s.window;
    if (qkv.device().is_cpu() && !bf16) {
        attendMany(out, qkv, first, n, keys, values, position, s);
        return;
    }
    torch::Tensor q = heads(0, s.heads).unsqueeze(0);
    torch::Tensor k = keys.narrow(1, 0, length).unsqueeze(0);
    torch::Tensor v = values.narrow(1, 0, length).unsqueeze(0);
    if (bf16) {
        q = q.to(torch::kBFloat16);
        k = k.to(torch::kBFloat16);
        v = v.to(torch::kBFloat16);
    }
    if (s.heads != s.kvHeads) {
        const std::int64_t group = s.heads / s.kvHeads;
        const auto repeat = [&](const torch::Tensor &t) {
            return t.unsqueeze(2).expand({1, s.kvHeads, group, length, s.headDim}).reshape({1, s.heads, length, s.headDim});
        };
        k = repeat(k);
        v = repeat(v);
    }
    torch::Tensor result;
    if (position == 0 && !windowed)
        result = at::scaled_dot_product_attention(q, k, v, {}, 0.0, true);
    else
        result = at::scaled_dot_product_attention(q, k, v, additiveMask(n, length, position, windowed ? s.window : 0, q.options()), 0.0, false);
    out.narrow(0, first, n).view({n, s.heads, s.headDim}).copy_(result.squeeze(0).transpose(0, 1));
}

} // namespace spectra
