// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/train/trainexperts.h"

#include "engine/train/trainkernels.h"
#include "engine/train/traintasks.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

namespace spectra::train {
namespace {

namespace k = trainkernels;
using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Maybe = std::optional<Tensor>; ///< as an argument of a node, which cannot take undefined tensors

Maybe maybe(const Tensor &t)
{
    return t.defined() ? Maybe(t) : Maybe();
}
Tensor plain(const Maybe &t)
{
    return t ? t->contiguous() : Tensor();
}

constexpr std::int64_t kTokens = 64; ///< of one task where rows are only added up

/// Rows of one expert that one task does.
struct RowBlock {
    std::int64_t expert = 0, first = 0, count = 0;
};
std::vector<RowBlock> rowBlocks(const Tensor &begin)
{
    const auto *const first = begin.const_data_ptr<std::int64_t>();
    std::vector<RowBlock> blocks;
    for (std::int64_t e = 0; e + 1 < begin.size(0); ++e)
        for (std::int64_t r = first[e]; r < first[e + 1]; r += kTaskRows)
            blocks.push_back({e, r, std::min(kTaskRows, first[e + 1] - r)});
    return blocks;
}

/// Part of an expert's weights whose gradient one task forms.
struct WeightSlice {
    std::int64_t expert = 0;
    bool down = false;
    std::int64_t first = 0, count = 0;   ///< rows of gateUp, columns of down
};
std::vector<WeightSlice> weightSlices(std::int64_t experts, std::int64_t intermediate, bool gateUp, bool down)
{
    constexpr std::int64_t kSlice = 256;
    std::vector<WeightSlice> slices;
    for (std::int64_t e = 0; e < experts; ++e) {
        for (std::int64_t i = 0; gateUp && i < 2 * intermediate; i += kSlice)
            slices.push_back({e, false, i, std::min(kSlice, 2 * intermediate - i)});
        for (std::int64_t i = 0; down && i < intermediate; i += kSlice)
            slices.push_back({e, true, i, std::min(kSlice, intermediate - i)});
    }
    return slices;
}

Tensor withExpertAxis(const Tensor &t, std::int64_t axes)
{
    return t.defined() && t.dim() < axes ? t.unsqueeze(0) : t;
}

class BankNode : public torch::autograd::Function<BankNode> {
public:
    static Tensor forward(AutogradContext *ctx, const Tensor &input, const Tensor &gateUp, const Tensor &down, const Tensor &begin, const Tensor &slot,
                          const Tensor &rowOf, const Maybe &weights, const Maybe &gateUpBias, const Maybe &downBias, bool bf16)
    {
        const Tensor x = input.contiguous(), factor = plain(weights);
        const Tensor w1 = withExpertAxis(gateUp, 3), w2 = withExpertAxis(down, 3), b1 = withExpertAxis(plain(gateUpBias), 2),
                     b2 = withExpertAxis(plain(downBias), 2);
        const std::int64_t rows = slot.size(0), hidden = x.size(1), intermediate = w2.size(2), slots = rowOf.size(1);
        const Tensor gathered = torch::empty({rows, hidden}), product = torch::empty({rows, 2 * intermediate});
        Tensor out = torch::empty({rows, hidden});
        const auto *const place = slot.const_data_ptr<std::int64_t>();
        const std::vector<RowBlock> blocks = rowBlocks(begin);
        overTasks(static_cast<std::int64_t>(blocks.size()), [&](std::int64_t task) {
            const RowBlock b = blocks[static_cast<std::size_t>(task)];
            for (std::int64_t r = b.first; r < b.first + b.count; ++r) {
                const float *const from = x.const_data_ptr<float>() + place[r] / slots * hidden;
                float *const to = gathered.data_ptr<float>() + r * hidden;
                if (factor.defined())
                    k::scaled(to, from, factor.const_data_ptr<float>()[place[r]], hidden);
                else
                    std::memcpy(to, from, static_cast<std::size_t>(hidden) * sizeof(float));
            }
            const Tensor part = product.narrow(0, b.first, b.count), active = scratch(0, b.count, intermediate), y = out.narrow(0, b.first, b.count);
            multiply(part, gathered.narrow(0, b.first, b.count), w1.select(0, b.expert).t(), false, bf16);
            if (b1.defined())
                k::addToRows(part.data_ptr<float>(), b1.const_data_ptr<float>() + b.expert * 2 * intermediate, b.count, 2 * intermediate);
            k::swiglu(active.data_ptr<float>(), part.const_data_ptr<float>(), b.count, intermediate);
            multiply(y, active, w2.select(0, b.expert).t(), false, bf16);
            if (b2.defined())
                k::addToRows(y.data_ptr<float>(), b2.const_data_ptr<float>() + b.expert * hidden, b.count, hidden);
        });
        ctx->save_for_backward({x, factor, gateUp, down, gateUpBias.value_or(Tensor()), downBias.value_or(Tensor()), begin, slot, rowOf, gathered, product});
        ctx->saved_data["bf16"] = bf16;
        return out;
    }

    static variable_list backward(AutogradContext *ctx, variable_list gradients)
    {
        const auto saved = ctx->get_saved_variables();
        const Tensor &x = saved[0], &factor = saved[1], &begin = saved[6], &slot = saved[7], &rowOf = saved[8], &gathered = saved[9], &product = saved[10];
        const bool bf16 = ctx->saved_data["bf16"].toBool();
        const Tensor g = gradients[0].contiguous();
        const Tensor w1 = withExpertAxis(saved[2].detach(), 3), w2 = withExpertAxis(saved[3].detach(), 3);
        const std::int64_t rows = slot.size(0), hidden = x.size(1), intermediate = w2.size(2), experts = w1.size(0), slots = rowOf.size(1);
        const bool wantInput = ctx->needs_input_grad(0) || (factor.defined() && ctx->needs_input_grad(kWeights));
        const GradientPlace p1 = gradientPlace(saved[2]), p2 = gradientPlace(saved[3]), q1 = gradientPlace(saved[4]), q2 = gradientPlace(saved[5]);
        const Tensor active = torch::empty({rows, intermediate}), dProduct = torch::empty({rows, 2 * intermediate});
        const Tensor dGathered = wantInput ? torch::empty({rows, hidden}) : Tensor();

        const std::vector<RowBlock> blocks = rowBlocks(begin);
        overTasks(static_cast<std::int64_t>(blocks.size()), [&](std::int64_t task) {
            const RowBlock b = blocks[static_cast<std::size_t>(task)];
            const Tensor dActive = scratch(0, b.count, intermediate), dPart = dProduct.narrow(0, b.first, b.count);
            multiply(dActive, g.narrow(0, b.first, b.count), w2.select(0, b.expert), false, bf16);
            k::swigluBackward(dPart.data_ptr<float>(), active.data_ptr<float>() + b.first * intermediate, dActive.const_data_ptr<float>(),
                              product.const_data_ptr<float>() + b.first * 2 * intermediate, b.count, intermediate);
            if (wantInput)
                multiply(dGathered.narrow(0, b.first, b.count), dPart, w1.select(0, b.expert), false, bf16);
        });

        weightGradients(begin, g, gathered, active, dProduct, withExpertAxis(p1.values, 3), p1.add, withExpertAxis(p2.values, 3), p2.add, bf16);
        biasGradients(q1, begin, dProduct, experts);
        biasGradients(q2, begin, g, experts);
        variable_list out(10);
        if (wantInput)
            inputGradients(ctx, x, factor, rowOf, dGathered, slots, out);
        return out;
    }

private:
    static constexpr std::size_t kWeights = 6; ///< place among the arguments

    static void weightGradients(const Tensor &begin, const Tensor &g, const Tensor &gathered, const Tensor &active, const Tensor &dProduct, const Tensor &dw1,
                                bool add1, const Tensor &dw2, bool add2, bool bf16)
    {
        const auto *const first = begin.const_data_ptr<std::int64_t>();
        const std::vector<WeightSlice> slices = weightSlices(begin.size(0) - 1, active.size(1), dw1.defined(), dw2.defined());
        overTasks(static_cast<std::int64_t>(slices.size()), [&](std::int64_t task) {
            const WeightSlice s = slices[static_cast<std::size_t>(task)];
            const std::int64_t begins = first[s.expert], n = first[s.expert + 1] - begins;
            const Tensor place = s.down ? dw2.select(0, s.expert).narrow(1, s.first, s.count) : dw1.select(0, s.expert).narrow(0, s.first, s.count);
            const bool add = s.down ? add2 : add1;
            if (n == 0) { // an expert that nobody chose
                if (!add)
                    place.zero_();
                return;
            }
            if (s.down)
                multiply(place, g.narrow(0, begins, n).t(), active.narrow(0, begins, n).narrow(1, s.first, s.count), add, bf16);
            else
                multiply(place, dProduct.narrow(0, begins, n).narrow(1, s.first, s.count).t(), gathered.narrow(0, begins, n), add, bf16);
        });
    }

    static void biasGradients(const GradientPlace &place, const Tensor &begin, const Tensor &g, std::int64_t experts)
    {
        if (!place.values.defined())
            return;
        if (!place.add)
            place.values.detach().zero_();
        const auto *const first = begin.const_data_ptr<std::int64_t>();
        const std::int64_t width = g.size(1);
        overTasks(experts, [&](std::int64_t e) {
            k::addColumnSums(place.values.data_ptr<float>() + e * width, g.const_data_ptr<float>() + first[e] * width, first[e + 1] - first[e], width, width);
        });
    }

    static void inputGradients(AutogradContext *ctx, const Tensor &x, const Tensor &factor, const Tensor &rowOf, const Tensor &dGathered, std::int64_t slots,
                               variable_list &out)
    {
        const std::int64_t hidden = x.size(1);
        const auto *const row = rowOf.const_data_ptr<std::int64_t>();
        Tensor dx = ctx->needs_input_grad(0) ? torch::empty_like(x) : Tensor();
        Tensor dFactor = factor.defined() && ctx->needs_input_grad(kWeights) ? torch::zeros_like(factor) : Tensor();
        overBlocks(x.size(0), kTokens, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t t = begin; t < end; ++t) {
                float *const to = dx.defined() ? dx.data_ptr<float>() + t * hidden : nullptr;
                if (to)
                    std::fill(to, to + hidden, 0.0f);
                for (std::int64_t s = t * slots; s < (t + 1) * slots; ++s) {
                    if (row[s] < 0)
                        continue;
                    const float *const from = dGathered.const_data_ptr<float>() + row[s] * hidden;
                    if (to)
                        k::addScaled(to, from, factor.defined() ? factor.const_data_ptr<float>()[s] : 1.0f, hidden);
                    if (dFactor.defined())
                        dFactor.data_ptr<float>()[s] = k::dot(from, x.const_data_ptr<float>() + t * hidden, hidden);
                }
            }
        });
        out[0] = dx;
        out[kWeights] = dFactor;
    }
};

class CombineNode : public torch::autograd::Function<CombineNode> {
public:
    static Tensor forward(AutogradContext *ctx, const Tensor &residual, const Tensor &input, const Tensor &slot, const Tensor &rowOf, const Maybe &weights,
                          double scale)
    {
        const Tensor rows = input.contiguous(), base = residual.contiguous(), factor = plain(weights);
        const std::int64_t hidden = base.size(1), slots = rowOf.size(1);
        Tensor y = torch::empty_like(base);
        overBlocks(base.size(0), kTokens, [&](std::int64_t begin, std::int64_t end) {
            std::memcpy(y.data_ptr<float>() + begin * hidden, base.const_data_ptr<float>() + begin * hidden,
                        static_cast<std::size_t>((end - begin) * hidden) * sizeof(float));
            for (std::int64_t s = begin * slots; s < end * slots; ++s)
                if (const std::int64_t r = rowOf.const_data_ptr<std::int64_t>()[s]; r >= 0)
                    k::addScaled(y.data_ptr<float>() + s / slots * hidden, rows.const_data_ptr<float>() + r * hidden,
                                 static_cast<float>(scale) * (factor.defined() ? factor.const_data_ptr<float>()[s] : 1.0f), hidden);
        });
        // Without weights to train, the rows themselves are not needed again.
        const bool keep = weights && weights->requires_grad();
        ctx->save_for_backward({keep ? rows : Tensor(), factor, slot, rowOf});
        ctx->saved_data["scale"] = scale;
        return y;
    }
    static variable_list backward(AutogradContext *ctx, variable_list gradients)
    {
        const auto saved = ctx->get_saved_variables();
        const Tensor &rows = saved[0], &factor = saved[1], &slot = saved[2], &rowOf = saved[3];
        const auto scale = static_cast<float>(ctx->saved_data["scale"].toDouble());
        const Tensor g = gradients[0].contiguous();
        const std::int64_t hidden = g.size(1), slots = rowOf.size(1), count = slot.size(0);
        const auto *const place = slot.const_data_ptr<std::int64_t>();
        Tensor dRows = ctx->needs_input_grad(1) ? torch::empty({count, hidden}) : Tensor();
        Tensor dFactor = factor.defined() && ctx->needs_input_grad(4) ? torch::zeros_like(factor) : Tensor();
        overBlocks(count, kTokens, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t r = begin; r < end; ++r) {
                const float *const from = g.const_data_ptr<float>() + place[r] / slots * hidden;
                if (dRows.defined())
                    k::scaled(dRows.data_ptr<float>() + r * hidden, from, scale * (factor.defined() ? factor.const_data_ptr<float>()[place[r]] : 1.0f), hidden);
                if (dFactor.defined())
                    dFactor.data_ptr<float>()[place[r]] = scale * k::dot(from, rows.const_data_ptr<float>() + r * hidden, hidden);
            }
        });
        return {ctx->needs_input_grad(0) ? gradients[0] : Tensor(), dRows, Tensor(), Tensor(), dFactor, Tensor()};
    }
};

class SlotNode : public torch::autograd::Function<SlotNode> {
public:
    static Tensor forward(AutogradContext *ctx, const Tensor &input, const Tensor &slot, const Tensor &rowOf)
    {
        const Tensor rows = input.contiguous();
        const std::int64_t hidden = rows.size(1), width = rowOf.size(1);
        Tensor y = torch::empty({rowOf.size(0), width, hidden});
        overBlocks(rowOf.numel(), kTokens, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t s = begin; s < end; ++s) {
                const std::int64_t r = rowOf.const_data_ptr<std::int64_t>()[s];
                float *const to = y.data_ptr<float>() + s * hidden;
                if (r >= 0)
                    std::memcpy(to, rows.const_data_ptr<float>() + r * hidden, static_cast<std::size_t>(hidden) * sizeof(float));
                else
                    std::fill(to, to + hidden, 0.0f);
            }
        });
        ctx->save_for_backward({slot});
        return y;
    }
    static variable_list backward(AutogradContext *ctx, variable_list gradients)
    {
        const Tensor slot = ctx->get_saved_variables()[0], g = gradients[0].contiguous();
        return {g.view({-1, g.size(2)}).index_select(0, slot), Tensor(), Tensor()};
    }
};

} // namespace

Assignments assign(const Tensor &experts, std::int64_t count)
{
    const Tensor chosen = experts.detach().to(torch::kCPU, torch::kInt64).contiguous();
    const auto *const e = chosen.const_data_ptr<std::int64_t>();
    const std::int64_t places = chosen.numel();
    Assignments a;
    a.tokens = chosen.size(0);
    a.slots = chosen.size(1);
    a.begin = torch::zeros({count + 1}, torch::kInt64);
    a.rowOf = torch::full(chosen.sizes(), -1, torch::kInt64);
    auto *const begin = a.begin.data_ptr<std::int64_t>();
    for (std::int64_t i = 0; i < places; ++i)
        if (e[i] >= 0 && e[i] < count)
            ++begin[e[i] + 1];
    for (std::int64_t i = 0; i < count; ++i)
        begin[i + 1] += begin[i];
    a.slot = torch::empty({begin[count]}, torch::kInt64);
    std::vector<std::int64_t> next(begin, begin + count);
    for (std::int64_t i = 0; i < places; ++i) {
        if (e[i] < 0 || e[i] >= count)
            continue;
        const std::int64_t row = next[static_cast<std::size_t>(e[i])]++;
        a.slot.data_ptr<std::int64_t>()[row] = i;
        a.rowOf.data_ptr<std::int64_t>()[i] = row;
    }
    return a;
}

Assignments assignAll(std::int64_t tokens)
{
    const Tensor order = torch::arange(tokens, torch::kInt64);
    return {torch::tensor({std::int64_t(0), tokens}, torch::kInt64), order, order.view({tokens, 1}), tokens, 1};
}

Tensor expertRows(const Tensor &x, const Tensor &weights, const Assignments &a, const BankWeights &bank, bool bf16)
{
    return BankNode::apply(x, bank.gateUp, bank.down, a.begin, a.slot, a.rowOf, maybe(weights), maybe(bank.gateUpBias), maybe(bank.downBias), bf16);
}

Tensor combine(const Tensor &residual, const Tensor &rows, const Tensor &weights, const Assignments &a, double scale)
{
    return CombineNode::apply(residual, rows, a.slot, a.rowOf, maybe(weights), scale);
}

Tensor slotOutputs(const Tensor &rows, const Assignments &a)
{
    return SlotNode::apply(rows, a.slot, a.rowOf);
}

} // namespace spectra::train
