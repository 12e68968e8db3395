// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/train/trainops.h"

#include "engine/train/trainkernels.h"
#include "engine/train/traintasks.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <vector>

namespace spectra::train {
namespace {

namespace k = trainkernels;
using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Maybe = std::optional<Tensor>; ///< as an argument of a node, which cannot take undefined tensors; comes after those it must have

class EmbedNode : public torch::autograd::Function<EmbedNode> {
public:
    static Tensor forward(AutogradContext *ctx, const Tensor &table, const Tensor &ids)
    {
        ctx->save_for_backward({table, ids});
        return table.index_select(0, ids);
    }
    static variable_list backward(AutogradContext *ctx, variable_list gradients)
    {
        const auto saved = ctx->get_saved_variables();
        const GradientPlace place = gradientPlace(saved[0]);
        if (place.values.defined() && gradients[0].defined()) {
            if (!place.add)
                place.values.detach().zero_();
            const Tensor g = gradients[0].contiguous();
            const std::int64_t width = g.size(1);
            float *const out = place.values.data_ptr<float>();
            const auto *const id = saved[1].const_data_ptr<std::int64_t>();
            // In one thread: tokens come more than once, and their order is the order of the sum.
            for (std::int64_t r = 0; r < g.size(0); ++r)
                k::addScaled(out + id[r] * width, g.const_data_ptr<float>() + r * width, 1, width);
        }
        return {Tensor(), Tensor()};
    }
};

class NormNode : public torch::autograd::Function<NormNode> {
public:
    static constexpr std::int64_t kRows = 64; ///< of one partial sum of dw

    static Tensor forward(AutogradContext *ctx, const Tensor &input, const Tensor &w, double epsilon)
    {
        const Tensor x = input.contiguous();
        const std::int64_t rows = x.size(0), width = x.size(1);
        Tensor y = torch::empty_like(x), inverse = torch::empty({rows});
        overBlocks(rows, kRows, [&](std::int64_t begin, std::int64_t end) {
            k::rmsNorm(y.data_ptr<float>() + begin * width, inverse.data_ptr<float>() + begin, x.const_data_ptr<float>() + begin * width,
                       w.const_data_ptr<float>(), static_cast<float>(epsilon), end - begin, width);
        });
        ctx->save_for_backward({x, w, inverse});
        return y;
    }
    static variable_list backward(AutogradContext *ctx, variable_list gradients)
    {
        const auto saved = ctx->get_saved_variables();
        const Tensor &x = saved[0], &w = saved[1], &inverse = saved[2];
        const Tensor g = gradients[0].contiguous();
        const std::int64_t rows = x.size(0), width = x.size(1);
        const GradientPlace place = gradientPlace(w);
        Tensor dx = ctx->needs_input_grad(0) ? torch::empty_like(x) : Tensor(), parts;
        if (place.values.defined())
            parts = torch::zeros({(rows + kRows - 1) / kRows, width});
        overBlocks(rows, kRows, [&](std::int64_t begin, std::int64_t end) {
            k::rmsNormBackward(dx.defined() ? dx.data_ptr<float>() + begin * width : nullptr,
                               parts.defined() ? parts.data_ptr<float>() + begin / kRows * width : nullptr, g.const_data_ptr<float>() + begin * width,
                               x.const_data_ptr<float>() + begin * width, w.const_data_ptr<float>(), inverse.const_data_ptr<float>() + begin, end - begin,
                               width);
        });
        if (place.values.defined()) {
            if (!place.add)
                place.values.detach().zero_();
            k::addColumnSums(place.values.data_ptr<float>(), parts.const_data_ptr<float>(), parts.size(0), width, width);
        }
        return {dx, Tensor(), Tensor()};
    }
};

class LinearNode : public torch::autograd::Function<LinearNode> {
public:
    static Tensor forward(AutogradContext *ctx, const Tensor &input, const Tensor &w, const Maybe &residual, const Maybe &maybeBias, bool bf16)
    {
        const Tensor x = input.contiguous(), bias = maybeBias.value_or(Tensor());
        const std::int64_t rows = x.size(0), width = w.size(0);
        const Tensor base = residual ? residual->contiguous() : Tensor();
        Tensor y = torch::empty({rows, width});
        overBlocks(rows, kTaskRows, [&](std::int64_t begin, std::int64_t end) {
            const std::int64_t n = end - begin;
            Tensor part = y.narrow(0, begin, n);
            if (base.defined())
                std::memcpy(part.data_ptr<float>(), base.const_data_ptr<float>() + begin * width, static_cast<std::size_t>(n * width) * sizeof(float));
            multiply(part, x.narrow(0, begin, n), w.t(), base.defined(), bf16);
            if (bias.defined())
                k::addToRows(part.data_ptr<float>(), bias.const_data_ptr<float>(), n, width);
        });
        ctx->save_for_backward({x, w, bias});
        ctx->saved_data["residual"] = residual.has_value();
        ctx->saved_data["bf16"] = bf16;
        return y;
    }
    static variable_list backward(AutogradContext *ctx, variable_list gradients)
    {
        const auto saved = ctx->get_saved_variables();
        const Tensor &x = saved[0], &w = saved[1];
        const bool bf16 = ctx->saved_data["bf16"].toBool();
        const Tensor g = gradients[0].contiguous();
        const std::int64_t rows = x.size(0), width = w.size(0);
        Tensor dx = ctx->needs_input_grad(0) ? torch::empty_like(x) : Tensor();
        const GradientPlace dw = gradientPlace(w), db = gradientPlace(saved[2]);
        const std::int64_t rowTasks = dx.defined() ? (rows + kTaskRows - 1) / kTaskRows : 0;
        const std::int64_t slices = dw.values.defined() ? (width + kSlice - 1) / kSlice : 0;
        overTasks(rowTasks + slices, [&](std::int64_t task) {
            if (task < rowTasks) {
                const std::int64_t begin = task * kTaskRows, n = std::min(kTaskRows, rows - begin);
                multiply(dx.narrow(0, begin, n), g.narrow(0, begin, n), w, false, bf16);
                return;
            }
            const std::int64_t begin = (task - rowTasks) * kSlice, n = std::min(kSlice, width - begin);
            multiply(dw.values.narrow(0, begin, n), g.narrow(1, begin, n).t(), x, dw.add, bf16);
        });
        if (db.values.defined()) {
            if (!db.add)
                db.values.detach().zero_();
            k::addColumnSums(db.values.data_ptr<float>(), g.const_data_ptr<float>(), rows, width, width);
        }
        return {dx, Tensor(), ctx->saved_data["residual"].toBool() ? gradients[0] : Tensor(), Tensor(), Tensor()};
    }

private:
    static constexpr std::int64_t kSlice = 64; ///< rows of w whose gradient one task forms
};

/// Queries and keys of qkv [S·T, W] rotated, values as they are.
Tensor rotated(const Tensor &qkv, const Tensor &cos, const Tensor &sin, const AttentionSizes &s)
{
    const std::int64_t width = qkv.size(1), half = cos.size(1), turned = s.heads + s.kvHeads;
    Tensor out = torch::empty_like(qkv);
    overBlocks(qkv.size(0), 64, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r) {
            const std::int64_t t = r % s.length;
            float *const row = out.data_ptr<float>() + r * width;
            const float *const from = qkv.const_data_ptr<float>() + r * width;
            k::rotate(row, from, cos.const_data_ptr<float>() + t * half, sin.const_data_ptr<float>() + t * half, turned, s.headDim, half, false);
            std::memcpy(row + turned * s.headDim, from + turned * s.headDim, static_cast<std::size_t>(s.kvHeads * s.headDim) * sizeof(float));
        }
    });
    return out;
}

/// [S, heads, T, headDim] views of rotated rows; key and value heads repeated for their groups of query heads.
struct Heads {
    Tensor q, k, v;
};
Heads headsOf(const Tensor &rows, const AttentionSizes &s, bool bf16)
{
    const Tensor r = (bf16 ? rows.to(torch::kBFloat16) : rows).view({s.sequences, s.length, s.heads + 2 * s.kvHeads, s.headDim});
    const auto part = [&](std::int64_t first, std::int64_t count) { return r.narrow(2, first, count).transpose(1, 2); };
    Heads h{part(0, s.heads), part(s.heads, s.kvHeads), part(s.heads + s.kvHeads, s.kvHeads)};
    if (s.heads != s.kvHeads) {
        const std::int64_t group = s.heads / s.kvHeads;
        const auto repeat = [&](const Tensor &t) {
            return t.unsqueeze(2).expand({s.sequences, s.kvHeads, group, s.length, s.headDim}).reshape({s.sequences, s.heads, s.length, s.headDim});
        };
        h.k = repeat(h.k);
        h.v = repeat(h.v);
    }
    return h;
}

/// 0 where row i may see column j, −∞ elsewhere.
Tensor windowMask(std::int64_t length, std::int64_t window, torch::ScalarType type)
{
    Tensor mask = torch::full({length, length}, -std::numeric_limits<float>::infinity());
    float *const m = mask.data_ptr<float>();
    for (std::int64_t i = 0; i < length; ++i)
        std::fill(m + i * length + std::max<std::int64_t>(0, i - window + 1), m + i * length + i + 1, 0.0f);
    return mask.to(type);
}

AttentionSizes sizesOf(AutogradContext *ctx)
{
    const auto list = ctx->saved_data["sizes"].toIntVector();
    return {list[0], list[1], list[2], list[3], list[4], list[5]};
}

class AttentionNode : public torch::autograd::Function<AttentionNode> {
public:
    static Tensor forward(AutogradContext *ctx, const Tensor &qkv, const Tensor &cos, const Tensor &sin, const AttentionSizes &s, bool bf16)
    {
        const Tensor rows = rotated(qkv.contiguous(), cos, sin, s);
        const Heads h = headsOf(rows, s, bf16);
        const bool windowed = s.window > 0 && s.window < s.length;
        const Tensor mask = windowed ? windowMask(s.length, s.window, h.q.scalar_type()) : Tensor();
        const auto [out, logSumExp] = at::_scaled_dot_product_flash_attention_for_cpu(h.q, h.k, h.v, 0.0, !windowed,
                                                                                      windowed ? std::optional<Tensor>(mask) : std::nullopt);
        ctx->save_for_backward({rows, cos, sin, out, logSumExp, mask});
        ctx->saved_data["sizes"] = std::vector<std::int64_t>{s.sequences, s.length, s.heads, s.kvHeads, s.headDim, s.window};
        ctx->saved_data["bf16"] = bf16;
        return out.transpose(1, 2).reshape({s.sequences * s.length, s.heads * s.headDim}).to(torch::kFloat32);
    }
    static variable_list backward(AutogradContext *ctx, variable_list gradients)
    {
        const auto saved = ctx->get_saved_variables();
        const Tensor &cos = saved[1], &sin = saved[2];
        const AttentionSizes s = sizesOf(ctx);
        const bool bf16 = ctx->saved_data["bf16"].toBool(), windowed = saved[5].defined();
        const Heads h = headsOf(saved[0], s, bf16);
        const Tensor g = gradients[0].to(h.q.scalar_type()).view({s.sequences, s.length, s.heads, s.headDim}).transpose(1, 2);
        auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(g, h.q, h.k, h.v, saved[3], saved[4], 0.0, !windowed,
                                                                                    windowed ? std::optional<Tensor>(saved[5]) : std::nullopt);
        const auto byToken = [](const Tensor &t) { return t.transpose(1, 2).to(torch::kFloat32).contiguous(); };
        dq = byToken(dq);
        dk = byToken(dk);
        dv = byToken(dv);
        const std::int64_t width = (s.heads + 2 * s.kvHeads) * s.headDim, half = cos.size(1), group = s.heads / s.kvHeads, d = s.headDim;
        Tensor dqkv = torch::empty({s.sequences * s.length, width});
        overBlocks(dqkv.size(0), 64, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t r = begin; r < end; ++r) {
                float *const row = dqkv.data_ptr<float>() + r * width;
                const float *const c = cos.const_data_ptr<float>() + r % s.length * half;
                const float *const sn = sin.const_data_ptr<float>() + r % s.length * half;
                k::rotate(row, dq.const_data_ptr<float>() + r * s.heads * d, c, sn, s.heads, d, half, true);
                float *const keys = row + s.heads * d;
                float *const values = keys + s.kvHeads * d;
                for (std::int64_t j = 0; j < s.kvHeads; ++j)
                    for (std::int64_t i = 0; i < group; ++i) {
                        const std::int64_t from = (r * s.heads + j * group + i) * d;
                        if (i == 0) {
                            k::scaled(keys + j * d, dk.const_data_ptr<float>() + from, 1, d);
                            k::scaled(values + j * d, dv.const_data_ptr<float>() + from, 1, d);
                        } else {
                            k::addScaled(keys + j * d, dk.const_data_ptr<float>() + from, 1, d);
                            k::addScaled(values + j * d, dv.const_data_ptr<float>() + from, 1, d);
                        }
                    }
                k::rotate(keys, keys, c, sn, s.kvHeads, d, half, true);
            }
        });
        return {dqkv, Tensor(), Tensor(), Tensor(), Tensor()};
    }
};

class HeadNode : public torch::autograd::Function<HeadNode> {
public:
    static variable_list forward(AutogradContext *ctx, const Tensor &input, const Tensor &w, const Tensor &targets, bool bf16, bool training)
    {
        const Tensor x = input.contiguous();
        const std::int64_t rows = x.size(0), vocabulary = w.size(0);
        const auto *const target = targets.const_data_ptr<std::int64_t>();
        const std::int64_t counted = std::count_if(target, target + rows, [](std::int64_t t) { return t >= 0; });
        const bool trainX = training && input.requires_grad(), trainW = training && w.requires_grad();
        const float scale = trainX || trainW ? 1.0f / static_cast<float>(std::max<std::int64_t>(1, counted)) : 0.0f;
        Tensor nll = torch::empty({rows});
        const Tensor dx = trainX ? torch::zeros_like(x) : Tensor(), dw = trainW ? torch::zeros_like(w) : Tensor();
        // Logits of some 4 MiB at a time: within a core's reach, and large enough to be shared.
        const std::int64_t block = std::clamp<std::int64_t>((std::int64_t(1) << 20) / vocabulary, 32, kTaskRows);
        const Tensor logits = torch::empty({std::min(block, rows), vocabulary});
        for (std::int64_t first = 0; first < rows; first += block) {
            const std::int64_t n = std::min(block, rows - first);
            overBlocks(n, kRows, [&](std::int64_t begin, std::int64_t end) {
                const Tensor part = logits.narrow(0, begin, end - begin);
                const Tensor h = x.narrow(0, first + begin, end - begin);
                multiply(part, h, w.t(), false, bf16);
                for (std::int64_t r = begin; r < end; ++r) {
                    float *const row = logits.data_ptr<float>() + r * vocabulary;
                    const std::int64_t t = target[first + r];
                    float &out = nll.data_ptr<float>()[first + r];
                    if (t < 0) {
                        out = std::numeric_limits<float>::quiet_NaN();
                        std::fill(row, row + vocabulary, 0.0f);
                    } else {
                        out = k::crossEntropy(row, vocabulary, t, scale);
                    }
                }
                if (dx.defined())
                    multiply(dx.narrow(0, first + begin, end - begin), part, w, false, bf16);
            });
            if (dw.defined())
                overBlocks(vocabulary, kColumns, [&](std::int64_t begin, std::int64_t end) {
                    multiply(dw.narrow(0, begin, end - begin), logits.narrow(0, 0, n).narrow(1, begin, end - begin).t(), x.narrow(0, first, n), first > 0, bf16);
                });
        }
        double sum = 0;
        for (std::int64_t r = 0; r < rows; ++r)
            if (target[r] >= 0)
                sum += static_cast<double>(nll.const_data_ptr<float>()[r]);
        Tensor loss = torch::full({}, sum / static_cast<double>(std::max<std::int64_t>(1, counted)), torch::kFloat32);
        ctx->save_for_backward({w, dx, dw});
        ctx->mark_non_differentiable({nll});
        return {loss, nll};
    }
    static variable_list backward(AutogradContext *ctx, variable_list gradients)
    {
        const auto saved = ctx->get_saved_variables();
        const float scale = gradients[0].defined() ? gradients[0].item<float>() : 0.0f;
        const GradientPlace place = gradientPlace(saved[0]);
        if (place.values.defined()) {
            const Tensor &dw = saved[2];
            overBlocks(dw.numel(), 1 << 15, [&](std::int64_t begin, std::int64_t end) {
                const float *const from = dw.const_data_ptr<float>() + begin;
                float *const to = place.values.data_ptr<float>() + begin;
                if (place.add)
                    k::addScaled(to, from, scale, end - begin);
                else
                    k::scaled(to, from, scale, end - begin);
            });
        }
        Tensor dx;
        if (saved[1].defined())
            dx = scale == 1 ? saved[1].detach() : saved[1] * scale;
        return {dx, Tensor(), Tensor(), Tensor(), Tensor()};
    }

private:
    static constexpr std::int64_t kRows = 64, kColumns = 512; ///< of one task
};

} // namespace

Tensor embed(const Tensor &table, const Tensor &ids)
{
    return EmbedNode::apply(table, ids.contiguous());
}

Tensor rmsNorm(const Tensor &x, const Tensor &w, double epsilon)
{
    return NormNode::apply(x, w, epsilon);
}

Tensor linear(const Tensor &residual, const Tensor &x, const Tensor &w, const Tensor &bias, bool bf16)
{
    const auto maybe = [](const Tensor &t) { return t.defined() ? Maybe(t) : Maybe(); };
    return LinearNode::apply(x, w, maybe(residual), maybe(bias), bf16);
}

Tensor attention(const Tensor &qkv, const Tensor &cos, const Tensor &sin, const AttentionSizes &sizes, bool bf16)
{
    return AttentionNode::apply(qkv, cos, sin, sizes, bf16);
}

Tensor largestLogits(const Tensor &qkv, const Tensor &cos, const Tensor &sin, const AttentionSizes &s)
{
    const torch::NoGradGuard noGrad;
    const Heads h = headsOf(rotated(qkv.detach().contiguous(), cos, sin, s), s, false);
    Tensor largest = torch::empty({s.heads});
    const Tensor mask = windowMask(s.length, s.window > 0 ? s.window : s.length, torch::kFloat32);
    for (std::int64_t i = 0; i < s.heads; ++i) {
        float best = -std::numeric_limits<float>::infinity();
        for (std::int64_t j = 0; j < s.sequences; ++j)
            best = std::max(best, (at::mm(h.q[j][i], h.k[j][i].t()) + mask).max().item<float>());
        largest.data_ptr<float>()[i] = best / std::sqrt(static_cast<float>(s.headDim));
    }
    return largest;
}

HeadLoss headLoss(const Tensor &x, const Tensor &w, const Tensor &targets, bool bf16)
{
    const variable_list out = HeadNode::apply(x, w, targets.contiguous(), bf16, torch::GradMode::is_enabled());
    return {out[0], out[1]};
}

} // namespace spectra::train
