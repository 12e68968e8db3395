// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/spectratensors.h"

#include "engine/router/grufunction.h"
#include "engine/router/osrfunction.h"

#include <algorithm>
#include <cmath>
#include <tuple>

namespace spectra::tensors {

using torch::indexing::Slice;

torch::Tensor normalized(const torch::Tensor &x)
{
    return x / x.norm(2, -1, true).clamp_min(1e-30);
}

torch::Tensor gruStep(const torch::Tensor &gi, const torch::Tensor &h, const torch::Tensor &weightHh, const torch::Tensor &biasHh)
{
    if (fusedGruFits({gi, h, weightHh, biasHh}))
        return fusedGruGates(gi, torch::linear(h, weightHh, biasHh), h);
    return composed::gruStep(gi, h, weightHh, biasHh);
}

torch::Tensor gruOverTokens(const torch::Tensor &gi, const std::vector<std::int64_t> &offsets, const torch::Tensor &start,
                            const torch::Tensor &depth, const torch::Tensor &weightHh, const torch::Tensor &biasHh, torch::Tensor &last)
{
    if (fusedGruFits({gi, start, depth, weightHh, biasHh}))
        return fusedGruOverTokens(gi, offsets, start, depth, weightHh, biasHh, last);
    return composed::gruOverTokens(gi, offsets, start, depth, weightHh, biasHh, last);
}

namespace composed {

torch::Tensor gruStep(const torch::Tensor &gi, const torch::Tensor &h, const torch::Tensor &weightHh, const torch::Tensor &biasHh)
{
    const std::int64_t width = h.size(-1);
    const auto gh = torch::linear(h, weightHh, biasHh);
    const auto rz = torch::sigmoid(gi.narrow(-1, 0, 2 * width) + gh.narrow(-1, 0, 2 * width));
    const auto z = rz.narrow(-1, width, width);
    const auto n = torch::tanh(gi.narrow(-1, 2 * width, width) + rz.narrow(-1, 0, width) * gh.narrow(-1, 2 * width, width));
    return n + z * (h - n);
}

torch::Tensor gruOverTokens(const torch::Tensor &gi, const std::vector<std::int64_t> &offsets, const torch::Tensor &start,
                            const torch::Tensor &depth, const torch::Tensor &weightHh, const torch::Tensor &biasHh, torch::Tensor &last)
{
    const auto sequences = static_cast<std::int64_t>(offsets.size()) - 1;
    std::int64_t longest = 0;
    bool even = true;
    for (std::int64_t s = 0; s < sequences; ++s) {
        const std::int64_t n = offsets[static_cast<std::size_t>(s) + 1] - offsets[static_cast<std::size_t>(s)];
        longest = std::max(longest, n);
        even = even && n == offsets[1] - offsets[0];
    }
    if (gi.size(0) == 0) {
        last = start;
        return torch::zeros({0, start.size(1)}, gi.options());
    }
    // Ragged rows are gathered into [T,S,…]; rows past a sequence's end repeat its last one and are thrown away.
    torch::Tensor padded, paddedDepth, back, ends;
    if (even) {
        padded = gi.view({sequences, longest, gi.size(1)}).transpose(0, 1);
        if (depth.defined())
            paddedDepth = depth.view({sequences, longest, depth.size(1)}).transpose(0, 1);
    } else {
        std::vector<std::int64_t> index(static_cast<std::size_t>(longest * sequences)), where(static_cast<std::size_t>(gi.size(0))), end;
        for (std::int64_t s = 0; s < sequences; ++s) {
            const std::int64_t begin = offsets[static_cast<std::size_t>(s)], n = offsets[static_cast<std::size_t>(s) + 1] - begin;
            end.push_back(std::max<std::int64_t>(n, 1) - 1);
            for (std::int64_t t = 0; t < longest; ++t)
                index[static_cast<std::size_t>(t * sequences + s)] = std::clamp<std::int64_t>(begin + std::min(t, n - 1), 0, gi.size(0) - 1);
            for (std::int64_t t = 0; t < n; ++t)
                where[static_cast<std::size_t>(begin + t)] = t * sequences + s;
        }
        const auto rows = torch::tensor(index, torch::kInt64).to(gi.device());
        back = torch::tensor(where, torch::kInt64).to(gi.device());
        ends = torch::tensor(end, torch::kInt64).to(gi.device());
        padded = gi.index_select(0, rows).view({longest, sequences, gi.size(1)});
        if (depth.defined())
            paddedDepth = depth.index_select(0, rows).view({longest, sequences, depth.size(1)});
    }
    std::vector<torch::Tensor> states;
    states.reserve(static_cast<std::size_t>(longest));
    auto h = start;
    for (std::int64_t t = 0; t < longest; ++t) {
        if (depth.defined())
            h = 0.5 * (h + paddedDepth[t]);
        h = gruStep(padded[t], h, weightHh, biasHh);
        states.push_back(h);
    }
    auto all = torch::stack(states); // [T,S,H]
    if (even) {
        last = h;
        return all.transpose(0, 1).reshape({gi.size(0), h.size(1)});
    }
    last = all.index({ends, torch::arange(sequences, torch::TensorOptions(torch::kInt64).device(gi.device()))});
    for (std::int64_t s = 0; s < sequences; ++s) // a sequence without rows keeps its state
        if (offsets[static_cast<std::size_t>(s) + 1] == offsets[static_cast<std::size_t>(s)])
            last = torch::cat({last.slice(0, 0, s), start.slice(0, s, s + 1), last.slice(0, s + 1)});
    return all.view({longest * sequences, h.size(1)}).index_select(0, back);
}

} // namespace composed

namespace {

/// U Vᵀ of W = U Σ Vᵀ with its own gradient: the one that automatic differentiation of the decomposition gives is infinite
/// where singular values coincide, which is where an orthogonal W sits.
class PolarFactor : public torch::autograd::Function<PolarFactor> {
public:
    static torch::Tensor forward(torch::autograd::AutogradContext *context, const torch::Tensor &w)
    {
        const auto [u, s, vh] = torch::linalg_svd(w, false);
        context->save_for_backward({u, s, vh});
        return u.matmul(vh);
    }
    static torch::autograd::tensor_list backward(torch::autograd::AutogradContext *context, torch::autograd::tensor_list gradients)
    {
        const auto saved = context->get_saved_variables();
        const auto &u = saved[0], &s = saved[1], &vh = saved[2];
        const auto g = gradients[0], v = vh.t();
        const auto inner = u.t().matmul(g).matmul(v);
        const auto inverse = 1 / s.clamp_min(1e-12);
        auto result = u.matmul((inner - inner.t()) / (s.unsqueeze(1) + s.unsqueeze(0)).clamp_min(1e-12)).matmul(vh);
        const auto gv = g.matmul(v), ug = u.t().matmul(g);
        if (u.size(0) > u.size(1))
            result = result + ((gv - u.matmul(u.t().matmul(gv))) * inverse).matmul(vh);
        if (vh.size(1) > vh.size(0))
            result = result + u.matmul(inverse.unsqueeze(1) * (ug - ug.matmul(v).matmul(vh)));
        return {result};
    }
};

torch::Tensor newtonSchulz(const torch::Tensor &w, int iterations)
{
    torch::Tensor direction;
    {
        // Power iteration for the largest singular direction, started at the longest row.
        const torch::NoGradGuard noGrad;
        direction = w[w.norm(2, 1).argmax().item<std::int64_t>()];
        for (int i = 0; i < 10; ++i)
            direction = normalized(w.t().mv(w.mv(normalized(direction))));
    }
    auto x = w / w.mv(direction).norm().clamp_min(1e-30);
    const bool wide = x.size(0) <= x.size(1);
    for (int i = 0; i < iterations; ++i)
        x = 1.5 * x - 0.5 * (wide ? x.matmul(x.t()).matmul(x) : x.matmul(x.t().matmul(x)));
    return x;
}

} // namespace

torch::Tensor orthogonalized(const torch::Tensor &w, const std::string &form, int newtonSchulzIterations)
{
    if (form == "newton_schulz")
        return newtonSchulz(w, newtonSchulzIterations);
    if (form == "svd")
        return PolarFactor::apply(w);
    if (form == "qr") {
        const bool wide = w.size(0) <= w.size(1);
        torch::Tensor q, r;
        std::tie(q, r) = torch::linalg_qr(wide ? w.t() : w);
        q = q * torch::where(r.diagonal() < 0, -1.0, 1.0).to(q.dtype());
        return wide ? q.t() : q;
    }
    return w;
}

torch::Tensor similarity(const torch::Tensor &r, const torch::Tensor &e)
{
    const bool paired = r.size(1) == e.size(1) && (e.size(0) == r.size(0) || e.size(0) == 1); // tokens against E vectors are a product of matrices
    return paired && fusedOsrFits({r, e}) ? fusedSimilarity(r, e) : composed::similarity(r, e);
}

torch::Tensor osrCost(const torch::Tensor &s, const torch::Tensor &r, double lambda, double beta, double tau)
{
    return fusedOsrFits({s, r}) ? fusedOsrCost(s, r, lambda, beta, tau) : composed::osrCost(s, r, lambda, beta, tau);
}

torch::Tensor sinkhornPotential(const torch::Tensor &cost, double epsilon, int iterations, bool logDomain, double total, Collective *collective)
{
    if (logDomain && fusedOsrFits({cost}))
        return fusedSinkhornPotential(cost, epsilon, iterations, total < 0 ? static_cast<double>(cost.size(0)) : total, collective);
    return composed::sinkhornPotential(cost, epsilon, iterations, logDomain, total, collective);
}

torch::Tensor plan(const torch::Tensor &cost, const torch::Tensor &g, double epsilon, bool logDomain)
{
    return logDomain && fusedOsrFits({cost, g}) ? fusedPlan(cost, g, epsilon) : composed::plan(cost, g, epsilon, logDomain);
}

namespace composed {

torch::Tensor similarity(const torch::Tensor &r, const torch::Tensor &e)
{
    return (r * e).sum(-1) / (r.norm(2, -1) * e.norm(2, -1)).clamp_min(1e-8);
}

torch::Tensor osrCost(const torch::Tensor &s, const torch::Tensor &r, double lambda, double beta, double tau)
{
    const auto magnitude = s.abs();
    return lambda * magnitude.matmul(r) - s + beta * torch::relu(magnitude - tau).square();
}

torch::Tensor sinkhornPotential(const torch::Tensor &cost, double epsilon, int iterations, bool logDomain, double total, Collective *collective)
{
    const std::int64_t experts = cost.size(1);
    const bool alone = !collective || collective->size() < 2;
    if (total < 0)
        total = static_cast<double>(cost.size(0));
    const double share = total / static_cast<double>(experts);
    if (total <= 0)
        return torch::zeros({experts}, cost.options());
    if (!logDomain) {
        const auto k = torch::exp((-cost / epsilon).clamp(-50, 50));
        auto v = torch::ones({experts}, cost.options());
        for (int i = 0; i < iterations; ++i)
            v = share / sumOverProcesses(k.t().mv(1 / k.mv(v)), collective);
        return v.log();
    }
    const auto columns = [&](const torch::Tensor &x) {
        if (alone)
            return torch::logsumexp(x, 0);
        torch::Tensor largest; // of all processes: gathered by summing into rows of their own
        {
            const torch::NoGradGuard noGrad;
            auto all = torch::zeros({collective->size(), experts}, torch::TensorOptions(torch::kFloat64));
            all[collective->rank()] = x.size(0) > 0 ? std::get<0>(x.max(0)).to(torch::kCPU, torch::kFloat64) : torch::full({experts}, -1e300, torch::kFloat64);
            collective->sumInPlace(all);
            largest = std::get<0>(all.max(0)).to(x.device(), x.scalar_type());
        }
        return largest + sumOverProcesses(torch::exp(x - largest).sum(0), collective).log();
    };
    const auto k = -cost / epsilon;
    auto g = torch::zeros({experts}, cost.options());
    for (int i = 0; i < iterations; ++i) {
        const auto f = -torch::logsumexp(k + g, 1, true);
        g = std::log(share) - columns(k + f);
    }
    return g;
}

torch::Tensor plan(const torch::Tensor &cost, const torch::Tensor &g, double epsilon, bool logDomain)
{
    auto k = -cost / epsilon;
    if (!logDomain)
        k = k.clamp(-50, 50);
    return torch::softmax(k + g, -1);
}

} // namespace composed

torch::Tensor gram(const torch::Tensor &mean)
{
    const auto unit = normalized(mean);
    return unit.matmul(unit.t());
}

torch::Tensor repulsion(const torch::Tensor &gramMatrix)
{
    return (gramMatrix * (1 - torch::eye(gramMatrix.size(0), gramMatrix.options()))).square();
}

double violation(const torch::Tensor &q)
{
    if (q.size(0) == 0)
        return 0;
    const torch::NoGradGuard noGrad;
    const double share = static_cast<double>(q.size(0)) / static_cast<double>(q.size(1));
    return (q.to(torch::kFloat64).sum(0) / share - 1).abs().max().item<double>();
}

torch::Tensor specialityPenalty(const torch::Tensor &r, const std::string &form)
{
    const std::int64_t experts = r.size(1);
    if (r.size(0) == 0 || experts < 2)
        return torch::zeros({form == "per_expert" ? experts : 1}, r.options());
    const auto unit = normalized(r);
    const auto off = torch::bmm(unit, unit.transpose(1, 2)).square() * (1 - torch::eye(experts, r.options()));
    if (form == "per_expert")
        return off.sum(2).mean(0) / static_cast<double>(experts - 1);
    return off.sum({1, 2}).mean().view({1}) / static_cast<double>(experts * (experts - 1));
}

torch::Tensor domainScore(const torch::Tensor &s, const torch::Tensor &p, const std::string &form)
{
    if (form == "global")
        return s * (1 + p);
    if (form == "per_expert")
        return s - s.abs() * p;
    return s;
}

torch::Tensor meanEntropy(const torch::Tensor &q)
{
    if (q.size(0) == 0)
        return torch::zeros({}, q.options());
    return -torch::xlogy(q, q.clamp_min(1e-30)).sum(-1).mean();
}

torch::Tensor orthoLoss(const torch::Tensor &m, bool srip)
{
    const auto frobenius = m.square().sum();
    if (!srip)
        return frobenius;
    torch::Tensor v;
    {
        // σ_max of a symmetric matrix is |vᵀMv| at its leading eigenvector; with v held fixed that also has the right gradient.
        const torch::NoGradGuard noGrad;
        const auto [values, vectors] = torch::linalg_eigh(m.to(torch::kFloat64));
        v = vectors.select(1, values.abs().argmax().item<std::int64_t>()).to(m.dtype());
    }
    return 0.7 * frobenius + 0.3 * v.dot(m.mv(v)).square();
}

} // namespace spectra::tensors
