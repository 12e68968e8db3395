// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/model/attention.h"

#include "engine/model/kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

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

/// Many rows on the CPU: blocks of rows against the keys that they can see, two matrix products and a softmax each. Query
/// heads that share a key head are stacked, so that keys and values are not repeated and half of the square is skipped.
void attendMany(torch::Tensor &out, const torch::Tensor &qkv, std::int64_t first, std::int64_t n, const torch::Tensor &keys,
                const torch::Tensor &values, std::int64_t position, const AttentionShape &s)
{
    const std::int64_t group = s.heads / s.kvHeads;
    const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(s.headDim)));
    // Scores of one block stay within 32 MiB however long the context is.
    const std::int64_t longest = s.window > 0 ? std::min(position + n, s.window + 128) : position + n;
    const std::int64_t blockRows = std::clamp<std::int64_t>((std::int64_t(8) << 20) / (s.heads * longest), 8, std::min<std::int64_t>(128, std::max<std::int64_t>(8, n)));
    const std::int64_t most = blockRows * group;
    // One allocation each for the whole call; the products below write into parts of them.
    const torch::Tensor queriesFlat = torch::empty({s.kvHeads * most * s.headDim}), mixedFlat = torch::empty({s.kvHeads * most * s.headDim});
    const torch::Tensor scoresFlat = torch::empty({s.kvHeads * most * longest});
    std::vector<float> inverse(static_cast<std::size_t>(most));
    const float *const source = qkv.const_data_ptr<float>();
    float *const target = out.data_ptr<float>();
    for (std::int64_t block = 0; block < n; block += blockRows) {
        const std::int64_t m = std::min(blockRows, n - block), rows = m * group;
        const std::int64_t end = position + block + m;
        const std::int64_t begin = s.window > 0 ? std::max<std::int64_t>(0, position + block - s.window + 1) : 0;
        const std::int64_t length = end - begin;
        float *const q = queriesFlat.data_ptr<float>();
        for (std::int64_t h = 0; h < s.kvHeads; ++h)
            for (std::int64_t i = 0; i < m; ++i) {
                const float *const row = source + (first + block + i) * s.width() + h * group * s.headDim;
                for (std::int64_t c = 0; c < group * s.headDim; ++c)
                    q[(h * m + i) * group * s.headDim + c] = row[c] * scale;
            }
        const auto part = [](const torch::Tensor &flat, std::int64_t x, std::int64_t y, std::int64_t z) { return flat.narrow(0, 0, x * y * z).view({x, y, z}); };
        torch::Tensor scores = part(scoresFlat, s.kvHeads, rows, length);
        at::bmm_out(scores, part(queriesFlat, s.kvHeads, rows, s.headDim), keys.narrow(1, begin, length).transpose(1, 2));
        torch::Tensor product = part(mixedFlat, s.kvHeads, rows, s.headDim);
        inverse.resize(static_cast<std::size_t>(s.kvHeads * rows));
        for (std::int64_t h = 0; h < s.kvHeads; ++h)
            kernels::causalExp(scores.data_ptr<float>() + h * rows * length, inverse.data() + h * rows, rows, length, group,
                               position + block - begin, s.window);
        at::bmm_out(product, scores, values.narrow(1, begin, length));
        const float *const y = mixedFlat.const_data_ptr<float>();
        for (std::int64_t h = 0; h < s.kvHeads; ++h)
            for (std::int64_t r = 0; r < rows; ++r) {
                float *const place = target + (first + block + r / group) * s.queryWidth() + (h * group + r % group) * s.headDim;
                for (std::int64_t c = 0; c < s.headDim; ++c)
                    place[c] = y[(h * rows + r) * s.headDim + c] * inverse[static_cast<std::size_t>(h * rows + r)];
            }
    }
}

/// A sequence from its first token on the CPU: torch's blocked attention. The query heads that share a key head stand as
/// heads of one batch entry, so that keys and values are seen by all of them without being repeated.
void attendWhole(torch::Tensor &out, const torch::Tensor &rows, std::int64_t first, std::int64_t n, const torch::Tensor &keys,
                 const torch::Tensor &values, const AttentionShape &s)
{
    const std::int64_t group = s.heads / s.kvHeads;
    const torch::Tensor q = rows.narrow(1, 0, s.queryWidth()).view({n, s.kvHeads, group, s.headDim}).permute({1, 2, 0, 3});
    const auto shared = [&](const torch::Tensor &t) { return t.narrow(1, 0, n).unsqueeze(1).expand({s.kvHeads, group, n, s.headDim}); };
    const torch::Tensor result = at::scaled_dot_product_attention(q, shared(keys), shared(values), {}, 0.0, true);
    out.narrow(0, first, n).view({n, s.kvHeads, group, s.headDim}).copy_(result.permute({2, 0, 1, 3}));
}

} // namespace

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
    keys.narrow(1, position, n).copy_(heads(s.queryWidth(), s.kvHeads));
    values.narrow(1, position, n).copy_(heads(s.queryWidth() + s.keyWidth(), s.kvHeads));

    const bool windowed = s.window > 0 && length > s.window;
    if (qkv.device().is_cpu() && !bf16 && position == 0 && !windowed) {
        attendWhole(out, rows, first, n, keys, values, s);
        return;
    }
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
