// SPDX-License-Identifier: GPL-3.0-or-later
// The tensor form of SpectraRouter::route(): training, and inference away from the CPU.
#include "engine/router/spectrarouter.h"

#include "engine/router/gating.h"
#include "engine/router/spectratensors.h"
#include "engine/rule/selection.h"

#include <tuple>

namespace spectra {

namespace ts = tensors;

namespace {

/// Rows that count, as indices; undefined when all do.
torch::Tensor countedRows(const RouterInput &input)
{
    if (!input.mask.defined() || input.mask.all().item<bool>())
        return {};
    return input.mask.nonzero().view({-1});
}

torch::Tensor rowsOf(const torch::Tensor &x, const torch::Tensor &rows)
{
    return rows.defined() ? x.index_select(0, rows) : x;
}

torch::Tensor meanOver(const torch::Tensor &e, const torch::Tensor &rows, std::int64_t all)
{
    if (e.size(0) == 1 && all != 1)
        return e[0];
    const auto counted = rowsOf(e, rows);
    return counted.size(0) > 0 ? counted.mean(0) : torch::zeros_like(e.sum(0));
}

} // namespace

torch::Tensor SpectraRouter::forwardProjector(int layer, bool /*training*/)
{
    return ts::orthogonalized(projector(layer), m_options.projectorOrthogonalization, m_options.newtonSchulzIterations);
}

SpectraRouter::Vectors SpectraRouter::vectors(const RouterInput &input, const torch::Tensor &x, RouterState &state)
{
    const std::int64_t n = x.size(0), e = m_shape.experts, dim = m_options.routerDim, width = e * dim;
    const auto sequences = static_cast<std::int64_t>(input.offsets.size()) - 1;
    const Sequential &s = sequential(input.layer);
    Vectors out;
    const auto gi = torch::linear(x, s.weightIh, s.biasIh);
    if (m_options.sequential == "linear") {
        out.state = gi;
    } else {
        const bool depth = m_options.gruAxis == "depth", grid = m_options.gruAxis == "grid", carry = m_options.gruAxis == "carry";
        torch::Tensor below;
        if (depth || grid)
            below = input.layer == 0 || !state.depth.defined() ? torch::zeros({n, width}, gi.options()) : state.depth;
        if (depth) {
            out.state = ts::gruStep(gi, below, s.weightHh, s.biasHh);
        } else {
            if (!state.token.defined())
                state.token = torch::zeros({sequences, input.layers, width}, gi.options());
            // carry: a pass starts at zero and each layer goes on from the end of the one before it
            const auto start = !carry ? state.token.select(1, input.layer)
                : input.layer == 0    ? torch::zeros({sequences, width}, gi.options())
                                      : state.token.select(1, input.layer - 1);
            torch::Tensor last;
            out.state = ts::gruOverTokens(gi, input.offsets, start, below, s.weightHh, s.biasHh, last);
            // A new tensor rather than a write in place: the old one belongs to the graph of the layers before.
            state.token = torch::cat({state.token.slice(1, 0, input.layer), last.unsqueeze(1), state.token.slice(1, input.layer + 1)}, 1);
        }
        if (depth || grid)
            state.depth = out.state;
    }
    out.routing = out.state.view({n, e, dim});
    if (m_options.expression == "projector")
        out.expression = torch::linear(x, forwardProjector(input.layer, input.training)).view({n, e, dim});
    else if (m_options.expression == "learned")
        out.expression = m_layers[static_cast<std::size_t>(input.layer)].expressionVectors.unsqueeze(0);
    else
        out.expression = out.routing;
    return out;
}

RoutingStep SpectraRouter::routeTensors(const RouterInput &input, RouterState &state, Capture capture)
{
    Layer &layer = m_layers[static_cast<std::size_t>(input.layer)];
    const std::int64_t n = input.x.size(0);
    const double epsilon = m_options.sinkhornEpsilon;
    RoutingStep step;
    const auto x = jittered(input, m_options.jitterNoise);
    if (m_options.scoring == "linear") {
        const auto s = ts::similarity(x.unsqueeze(1), layer.linear.unsqueeze(0));
        const auto q = torch::softmax(s / epsilon, -1);
        step.logits = s;
        step.probabilities = step.selection = q;
        select(step, input, q);
        return step;
    }

    const auto counted = countedRows(input);
    const Vectors v = vectors(input, x, state);
    const auto s = ts::similarity(v.routing, v.expression);
    const auto batchMean = meanOver(v.expression, counted, n);
    const std::string &scope = input.training ? m_options.trainSinkhornScope : m_options.sinkhornScope;
    const bool osr = m_options.scoring == "osr", transports = scope == "batch" || scope == "sequence";

    // One group is what is transported (or penalised) together.
    std::vector<std::pair<std::int64_t, std::int64_t>> groups;
    if (scope == "sequence")
        for (std::size_t i = 0; i + 1 < input.offsets.size(); ++i)
            groups.emplace_back(input.offsets[i], input.offsets[i + 1]);
    else
        groups.emplace_back(0, n);
    std::vector<torch::Tensor> plans, costs;
    torch::Tensor potentialSum, penaltySum;
    double potentialRows = 0;
    for (const auto &[begin, end] : groups) {
        if (begin == end)
            continue;
        const auto sg = s.slice(0, begin, end);
        torch::Tensor rows;
        if (counted.defined())
            rows = input.mask.slice(0, begin, end).nonzero().view({-1});
        const auto countedCount = static_cast<double>(rows.defined() ? rows.size(0) : end - begin);
        if (osr) {
            const auto e = v.expression.size(0) == 1 ? v.expression : v.expression.slice(0, begin, end);
            const auto mean = transports ? (groups.size() == 1 ? batchMean : meanOver(e, rows, end - begin)) : layer.meanExpression;
            const auto cost = ts::osrCost(sg, ts::repulsion(ts::gram(mean)), m_options.repulsionWeight, m_options.confidencePenalty,
                                          m_options.confidenceThreshold);
            torch::Tensor g;
            if (transports)
                g = ts::sinkhornPotential(rowsOf(cost, rows), epsilon, m_options.sinkhornIterations, m_options.logSinkhorn);
            else
                g = scope == "causal" ? inferencePotential(layer) : torch::zeros_like(layer.potential);
            const auto q = ts::plan(cost, g, epsilon, m_options.logSinkhorn);
            if (transports) {
                step.violation = std::max(step.violation, ts::violation(rowsOf(q, rows)));
                const auto centred = (g - g.mean()).detach() * countedCount;
                potentialSum = potentialSum.defined() ? potentialSum + centred : centred;
                potentialRows += countedCount;
            }
            plans.push_back(q);
            costs.push_back(cost);
        } else {
            torch::Tensor p;
            if (m_options.specialityPenalty != "none") {
                p = layer.penalty;
                if (transports) {
                    p = ts::specialityPenalty(rowsOf(v.routing.slice(0, begin, end), rows), m_options.specialityPenalty);
                    const auto weighted = p.detach() * countedCount;
                    penaltySum = penaltySum.defined() ? penaltySum + weighted : weighted;
                    potentialRows += countedCount;
                }
            }
            plans.push_back(torch::softmax(ts::domainScore(sg, p, m_options.specialityPenalty) / epsilon, -1));
        }
    }
    const auto q = plans.empty() ? torch::zeros({0, m_shape.experts}, s.options()) : plans.size() == 1 ? plans[0] : torch::cat(plans);
    step.logits = s;
    step.probabilities = step.selection = q;
    if (!costs.empty())
        step.cost = costs.size() == 1 ? costs[0] : torch::cat(costs);
    if (potentialSum.defined() && potentialRows > 0)
        step.potentials = potentialSum / potentialRows;
    if (input.training || capture.has(Field::vectors) || capture.has(Field::means)) {
        step.routingVectors = v.routing;
        step.expressionVectors = v.expression.expand_as(v.routing);
    }
    if (capture.has(Field::gru) || capture.has(Field::gruPca))
        step.gruState = v.state;
    select(step, input, q);
    if (input.training) {
        addLosses(step, input, rowsOf(q, counted), batchMean);
        if (!potentialSum.defined() && osr && scope != "batch" && scope != "sequence") {
            // causal training moves the mean expression only: there is no transport that would give potentials
            keepAverages(layer, batchMean, {}, {}, static_cast<double>(counted.defined() ? counted.size(0) : n));
        } else {
            torch::Tensor penalty = penaltySum;
            double rows = potentialRows;
            if (!osr) {
                rows = static_cast<double>(counted.defined() ? counted.size(0) : n);
                if (!penalty.defined() && m_options.specialityPenalty != "none")
                    penalty = ts::specialityPenalty(rowsOf(v.routing, counted), m_options.specialityPenalty).detach() * rows;
            }
            keepAverages(layer, batchMean, potentialSum, penalty, rows);
        }
    }
    return step;
}

void SpectraRouter::select(RoutingStep &step, const RouterInput &input, const torch::Tensor &q) const
{
    const std::int64_t n = q.size(0), e = m_shape.experts, k = m_shape.topK;
    const bool quota = input.training && m_options.expertChoiceRouting;
    if (quota) {
        const auto host = q.detach().to(torch::kCPU, torch::kFloat32).contiguous();
        torch::Tensor mask;
        std::span<const std::uint8_t> counts;
        if (input.mask.defined()) {
            mask = input.mask.to(torch::kCPU, torch::kUInt8).contiguous();
            counts = {mask.const_data_ptr<std::uint8_t>(), static_cast<std::size_t>(n)};
        }
        const auto result = rule::assignQuota({host.const_data_ptr<float>(), static_cast<std::size_t>(n * e)}, e, k, m_options.capacityFactor, counts);
        step.experts = torch::tensor(result.experts, torch::kInt64).view({n, k}).to(q.device());
        step.dropped = torch::tensor(result.dropped, torch::kUInt8).to(q.device());
        step.fellBack = result.fellBack;
    } else {
        // A stable sort, because topk() promises no order among equals and ties go to the lower index.
        step.experts = std::get<1>(torch::sort(q.detach(), true, -1, true)).slice(1, 0, k).contiguous();
    }
    const auto present = step.experts >= 0;
    const auto weights = q.gather(1, step.experts.clamp_min(0)) * present;
    step.weights = weights / weights.sum(-1, true).clamp_min(1e-30);
}

void SpectraRouter::addLosses(RoutingStep &step, const RouterInput &input, const torch::Tensor &q, const torch::Tensor &batchMean) const
{
    if (m_options.entropyCoef > 0)
        step.losses["entropy"] = m_options.entropyCoef * ts::meanEntropy(q);
    const double coefficient = orthoCoefficient();
    if (coefficient <= 0)
        return;
    if (m_options.orthoLossOn == "projector") {
        const auto &w = projector(input.layer);
        const auto product = w.size(0) <= w.size(1) ? w.matmul(w.t()) : w.t().matmul(w);
        step.losses["ortho"] = coefficient * (product - torch::eye(product.size(0), product.options())).square().sum();
    } else {
        const auto g = ts::gram(batchMean);
        step.losses["ortho"] = coefficient * ts::orthoLoss(g - torch::eye(g.size(0), g.options()), m_options.srip);
    }
}

void SpectraRouter::keepAverages(Layer &layer, const torch::Tensor &batchMean, const torch::Tensor &potential, const torch::Tensor &penalty,
                                 double rows) const
{
    const auto add = [](torch::Tensor &sum, double &weight, const torch::Tensor &value, double w) {
        sum = sum.defined() ? sum + value : value;
        weight += w;
    };
    if (rows <= 0)
        return;
    add(layer.meanSum, layer.meanWeight, batchMean.detach() * rows, rows);
    if (potential.defined())
        add(layer.potentialSum, layer.potentialWeight, potential, rows);
    if (penalty.defined())
        add(layer.penaltySum, layer.penaltyWeight, penalty, rows);
}

} // namespace spectra
