// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/osrfunction.h"

#include "engine/rule/osrtraining.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace spectra::tensors {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

const float *in(const torch::Tensor &t)
{
    return t.const_data_ptr<float>();
}

float *out(const torch::Tensor &t)
{
    return t.defined() ? t.data_ptr<float>() : nullptr;
}

torch::Tensor fresh(at::IntArrayRef shape)
{
    return torch::empty(shape, torch::kFloat32);
}

class Similarity : public torch::autograd::Function<Similarity> {
public:
    static torch::Tensor forward(AutogradContext *context, const torch::Tensor &r, const torch::Tensor &e)
    {
        const std::int64_t n = r.size(0), experts = r.size(1), dim = r.size(2);
        const auto s = fresh({n, experts});
        rule::similarityForward(in(r), in(e), e.size(0) != n, n, experts, dim, out(s), rule::Executor::pool());
        context->save_for_backward({r, e, s});
        return s;
    }
    static tensor_list backward(AutogradContext *context, tensor_list gradients)
    {
        const auto saved = context->get_saved_variables();
        const auto &r = saved[0], &e = saved[1], &s = saved[2];
        const auto ds = gradients[0].contiguous();
        torch::Tensor dr, de;
        if (context->needs_input_grad(0))
            dr = fresh(r.sizes());
        if (context->needs_input_grad(1))
            de = fresh(e.sizes());
        rule::similarityBackward(in(r), in(e), e.size(0) != r.size(0), in(s), in(ds), r.size(0), r.size(1), r.size(2), out(dr), out(de),
                                 rule::Executor::pool());
        return {dr, de};
    }
};

class Cost : public torch::autograd::Function<Cost> {
public:
    static torch::Tensor forward(AutogradContext *context, const torch::Tensor &s, const torch::Tensor &r, double lambda, double beta, double tau)
    {
        const auto c = fresh(s.sizes());
        rule::costForward(in(s), in(r), s.size(0), s.size(1), weights(lambda, beta, tau), out(c), rule::Executor::pool());
        context->save_for_backward({s, r});
        context->saved_data["lambda"] = lambda;
        context->saved_data["beta"] = beta;
        context->saved_data["tau"] = tau;
        return c;
    }
    static tensor_list backward(AutogradContext *context, tensor_list gradients)
    {
        const auto saved = context->get_saved_variables();
        const auto &s = saved[0], &r = saved[1];
        const auto dc = gradients[0].contiguous(), ds = fresh(s.sizes());
        torch::Tensor dr;
        if (context->needs_input_grad(1))
            dr = fresh(r.sizes());
        const auto &data = context->saved_data;
        rule::costBackward(in(s), in(r), in(dc), s.size(0), s.size(1),
                           weights(data.at("lambda").toDouble(), data.at("beta").toDouble(), data.at("tau").toDouble()), out(ds), out(dr),
                           rule::Executor::pool());
        return {ds, dr, torch::Tensor(), torch::Tensor(), torch::Tensor()};
    }

private:
    static rule::CostWeights weights(double lambda, double beta, double tau)
    {
        return {static_cast<float>(lambda), static_cast<float>(beta), static_cast<float>(tau)};
    }
};

/// Each process writes its part into its own row and sums: that gathers with the one operation that there is, and the rows are then
/// joined in the same order everywhere.
rule::ColumnReduction reductionOver(Collective *collective)
{
    if (!collective || collective->size() < 2)
        return {};
    rule::ColumnReduction reduction;
    reduction.logSums = [collective](std::span<double> maxima, std::span<double> sums) {
        const auto e = static_cast<std::int64_t>(maxima.size());
        torch::Tensor all = torch::zeros({collective->size(), 2, e}, torch::kFloat64);
        auto rows = all.accessor<double, 3>();
        for (std::int64_t i = 0; i < e; ++i) {
            const bool empty = !(sums[static_cast<std::size_t>(i)] > 0);
            rows[collective->rank()][0][i] = empty ? 0 : maxima[static_cast<std::size_t>(i)];
            rows[collective->rank()][1][i] = empty ? 0 : sums[static_cast<std::size_t>(i)];
        }
        collective->sumInPlace(all);
        for (std::int64_t i = 0; i < e; ++i) {
            double largest = -std::numeric_limits<double>::infinity(), sum = 0;
            for (std::int64_t p = 0; p < collective->size(); ++p)
                if (rows[p][1][i] > 0)
                    largest = std::max(largest, rows[p][0][i]);
            for (std::int64_t p = 0; p < collective->size(); ++p)
                if (rows[p][1][i] > 0)
                    sum += rows[p][1][i] * std::exp(rows[p][0][i] - largest);
            maxima[static_cast<std::size_t>(i)] = largest;
            sums[static_cast<std::size_t>(i)] = sum;
        }
    };
    reduction.sums = [collective](std::span<double> values) {
        torch::Tensor all = torch::from_blob(values.data(), {static_cast<std::int64_t>(values.size())}, torch::kFloat64).clone();
        collective->sumInPlace(all);
        std::copy_n(all.const_data_ptr<double>(), values.size(), values.data());
    };
    return reduction;
}

class Potential : public torch::autograd::Function<Potential> {
public:
    static torch::Tensor forward(AutogradContext *context, const torch::Tensor &cost, double epsilon, std::int64_t iterations, double total,
                                 std::int64_t collective)
    {
        const auto potentials = fresh({iterations + 1, cost.size(1)});
        rule::potentialForward(in(cost), cost.size(0), cost.size(1), epsilon, static_cast<int>(iterations), total, out(potentials),
                               reductionOver(reinterpret_cast<Collective *>(collective)), rule::Executor::pool());
        context->save_for_backward({cost, potentials});
        context->saved_data["epsilon"] = epsilon;
        context->saved_data["total"] = total;
        context->saved_data["collective"] = collective;
        return potentials[iterations].clone();
    }
    static tensor_list backward(AutogradContext *context, tensor_list gradients)
    {
        const auto saved = context->get_saved_variables();
        const auto &cost = saved[0], &potentials = saved[1];
        auto *collective = reinterpret_cast<Collective *>(context->saved_data["collective"].toInt());
        // Every process's losses depend on the same potentials, so what comes back is summed before it goes on.
        auto dg = gradients[0].contiguous();
        if (collective && collective->size() > 1) {
            dg = dg.clone();
            collective->sumInPlace(dg);
        }
        const auto dcost = fresh(cost.sizes());
        rule::potentialBackward(in(cost), in(potentials), in(dg), cost.size(0), cost.size(1), context->saved_data["epsilon"].toDouble(),
                                static_cast<int>(potentials.size(0) - 1), context->saved_data["total"].toDouble(), out(dcost), reductionOver(collective),
                                rule::Executor::pool());
        return {dcost, torch::Tensor(), torch::Tensor(), torch::Tensor(), torch::Tensor()};
    }
};

class Plan : public torch::autograd::Function<Plan> {
public:
    static torch::Tensor forward(AutogradContext *context, const torch::Tensor &cost, const torch::Tensor &g, double epsilon)
    {
        const auto q = fresh(cost.sizes());
        rule::planForward(in(cost), in(g), cost.size(0), cost.size(1), epsilon, out(q), rule::Executor::pool());
        context->save_for_backward({q});
        context->saved_data["epsilon"] = epsilon;
        return q;
    }
    static tensor_list backward(AutogradContext *context, tensor_list gradients)
    {
        const auto q = context->get_saved_variables()[0];
        const auto dq = gradients[0].contiguous();
        torch::Tensor dcost, dg;
        if (context->needs_input_grad(0))
            dcost = fresh(q.sizes());
        if (context->needs_input_grad(1))
            dg = fresh({q.size(1)});
        rule::planBackward(in(q), in(dq), q.size(0), q.size(1), context->saved_data["epsilon"].toDouble(), out(dcost), out(dg), rule::Executor::pool());
        return {dcost, dg, torch::Tensor()};
    }
};

} // namespace

bool fusedOsrFits(std::initializer_list<torch::Tensor> tensors)
{
    return std::all_of(tensors.begin(), tensors.end(),
                       [](const torch::Tensor &t) { return t.device().is_cpu() && t.scalar_type() == torch::kFloat32; });
}

torch::Tensor fusedSimilarity(const torch::Tensor &r, const torch::Tensor &e)
{
    return Similarity::apply(r.contiguous(), e.contiguous());
}

torch::Tensor fusedOsrCost(const torch::Tensor &s, const torch::Tensor &r, double lambda, double beta, double tau)
{
    return Cost::apply(s.contiguous(), r.contiguous(), lambda, beta, tau);
}

torch::Tensor fusedSinkhornPotential(const torch::Tensor &cost, double epsilon, int iterations, double total, Collective *collective)
{
    return Potential::apply(cost.contiguous(), epsilon, static_cast<std::int64_t>(iterations), total, reinterpret_cast<std::int64_t>(collective));
}

torch::Tensor fusedPlan(const torch::Tensor &cost, const torch::Tensor &g, double epsilon)
{
    return Plan::apply(cost.contiguous(), g.contiguous(), epsilon);
}

} // namespace spectra::tensors
