// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/grufunction.h"

#include "engine/rule/grutraining.h"

#include <optional>

namespace spectra::tensors {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

float *data(const torch::Tensor &t)
{
    return t.defined() ? t.data_ptr<float>() : nullptr;
}

const float *input(const torch::Tensor &t)
{
    return t.defined() ? t.const_data_ptr<float>() : nullptr;
}

torch::Tensor contiguous(const torch::Tensor &t)
{
    return t.defined() ? t.contiguous() : t;
}

struct Forward {
    torch::Tensor h, last, in, gates;
};

/// All tensors contiguous.
Forward run(const torch::Tensor &gi, const std::vector<std::int64_t> &offsets, const torch::Tensor &start, const torch::Tensor &depth,
            const torch::Tensor &weight, const torch::Tensor &bias, bool keep)
{
    const std::int64_t n = gi.size(0), width = start.size(1);
    Forward out;
    out.h = torch::empty({n, width}, gi.options().requires_grad(false));
    out.last = torch::empty_like(start, torch::TensorOptions().requires_grad(false));
    if (keep) {
        out.in = torch::empty({n, width}, out.h.options());
        out.gates = torch::empty({n, 4 * width}, out.h.options());
    }
    rule::gruForward({width, offsets, input(weight), input(bias)},
                     {input(gi), input(start), input(depth), data(out.h), data(out.last), data(out.in), data(out.gates)}, rule::Executor::pool());
    return out;
}

class GruOverTokens : public torch::autograd::Function<GruOverTokens> {
public:
    static tensor_list forward(AutogradContext *context, const torch::Tensor &gi, const torch::Tensor &start, const torch::Tensor &weight,
                               const torch::Tensor &bias, const std::optional<torch::Tensor> &depth, const std::vector<std::int64_t> &offsets)
    {
        Forward out = run(gi, offsets, start, depth.value_or(torch::Tensor()), weight, bias, true);
        context->save_for_backward({out.in, out.gates, weight, bias});
        context->saved_data["offsets"] = offsets;
        context->saved_data["depth"] = depth.has_value();
        context->set_materialize_grads(false);
        return {out.h, out.last};
    }

    static tensor_list backward(AutogradContext *context, tensor_list gradients)
    {
        const auto saved = context->get_saved_variables();
        const auto &in = saved[0], &gates = saved[1], &weight = saved[2], &bias = saved[3];
        const std::vector<std::int64_t> offsets = context->saved_data["offsets"].toIntVector();
        const std::int64_t n = in.size(0), width = in.size(1);
        const auto dh = contiguous(gradients[0]), dlast = contiguous(gradients[1]);
        const auto dgi = torch::empty({n, 3 * width}, in.options());
        const auto dstart = torch::empty({static_cast<std::int64_t>(offsets.size()) - 1, width}, in.options());
        torch::Tensor ddepth, dweight, dbias;
        if (context->saved_data["depth"].toBool())
            ddepth = torch::empty({n, width}, in.options());
        if (context->needs_input_grad(2))
            dweight = torch::empty({3 * width, width}, in.options());
        if (context->needs_input_grad(3))
            dbias = torch::empty({3 * width}, in.options());
        rule::gruBackward({width, offsets, input(weight), input(bias)},
                          {input(in), input(gates), input(dh), input(dlast), data(dgi), data(dstart), data(ddepth), data(dweight), data(dbias)},
                          rule::Executor::pool());
        return {dgi, dstart, dweight, dbias, ddepth, torch::Tensor()};
    }
};

class GruGates : public torch::autograd::Function<GruGates> {
public:
    static torch::Tensor forward(AutogradContext *context, const torch::Tensor &gi, const torch::Tensor &gh, const torch::Tensor &in)
    {
        const std::int64_t n = in.size(0), width = in.size(1);
        const auto h = torch::empty({n, width}, in.options().requires_grad(false)), gates = torch::empty({n, 4 * width}, h.options());
        rule::gruGates(n, width, input(gi), input(gh), input(in), data(h), data(gates), rule::Executor::pool());
        context->save_for_backward({in, gates});
        return h;
    }

    static tensor_list backward(AutogradContext *context, tensor_list gradients)
    {
        const auto saved = context->get_saved_variables();
        const auto &in = saved[0], &gates = saved[1];
        const std::int64_t n = in.size(0), width = in.size(1);
        const auto dh = gradients[0].contiguous();
        const auto dgi = torch::empty({n, 3 * width}, dh.options()), dgh = torch::empty_like(dgi), din = torch::empty_like(dh);
        rule::gruGatesBackward(n, width, input(in), input(gates), input(dh), data(dgi), data(dgh), data(din), rule::Executor::pool());
        return {dgi, dgh, din};
    }
};

} // namespace

bool fusedGruFits(const std::vector<torch::Tensor> &tensors)
{
    for (const torch::Tensor &t : tensors)
        if (t.defined() && (!t.device().is_cpu() || t.scalar_type() != torch::kFloat32))
            return false;
    return true;
}

torch::Tensor fusedGruOverTokens(const torch::Tensor &gi, const std::vector<std::int64_t> &offsets, const torch::Tensor &start,
                                 const torch::Tensor &depth, const torch::Tensor &weightHh, const torch::Tensor &biasHh, torch::Tensor &last)
{
    const auto x = gi.contiguous(), s = start.contiguous(), below = contiguous(depth), w = weightHh.contiguous(), b = biasHh.contiguous();
    const bool keep = torch::GradMode::is_enabled()
        && (x.requires_grad() || s.requires_grad() || w.requires_grad() || b.requires_grad() || (below.defined() && below.requires_grad()));
    if (!keep) {
        const Forward out = run(x, offsets, s, below, w, b, false);
        last = out.last;
        return out.h;
    }
    const auto out = GruOverTokens::apply(x, s, w, b, below.defined() ? std::optional(below) : std::nullopt, offsets);
    last = out[1];
    return out[0];
}

torch::Tensor fusedGruGates(const torch::Tensor &gi, const torch::Tensor &gh, const torch::Tensor &h)
{
    return GruGates::apply(gi.contiguous(), gh.contiguous(), h.contiguous());
}

} // namespace spectra::tensors
