// SPDX-License-Identifier: GPL-3.0-or-later
// The tensor form of SpectraRouter::route(): training, and inference away from the CPU.
#include "engine/router/spectrarouter.h"

#include "engine/router/gating.h"
#include "engine/router/spectratensors.h"
#include "engine/rule/selection.h"

#include <algorithm>
#include <span>
#include <utility>

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

/// Columns of the k largest of each row, descending, ties to the lower index.
torch::Tensor chosenColumns(const torch::Tensor &q, std::int64_t k)
{
    if (!q.device().is_cpu() || q.scalar_type() != torch::kFloat32)
        return topKColumns(q, k);
    const auto rows = q.detach().contiguous();
    const auto experts = torch::empty({q.size(0), k}, torch::kInt64), weights = torch::empty({q.size(0), k});
    const auto count = static_cast<std::size_t>(experts.numel());
    rule::topK({rows.const_data_ptr<float>(), static_cast<std::size_t>(rows.numel())}, q.size(1), k, false, {experts.data_ptr<std::int64_t>(), count},
               {weights.data_ptr<float>(), count});
    return experts;
}

/// The processes that train together, or none.
Collective *collectiveOf(const RouterInput &input)
{
    return input.training && input.collective && input.collective->size() > 1 ? input.collective : nullptr;
}

/// Column sums of the plan against their share n/E, over all processes.
double violationOver(const torch::Tensor &q, double total, Collective *collective)
{
    if (!collective)
        return ts::violation(q);
    auto sums = q.detach().to(torch::kCPU, torch::kFloat64).sum(0);
    collective->sumInPlace(sums);
    const double share = total / static_cast<double>(q.size(1));
    return share > 0 ? (sums / share - 1).abs().max().item<double>() : 0;
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
    Collective *const collective = collectiveOf(input);
    Batch batch;
    batch.rows = batch.total = static_cast<double>(counted.defined() ? counted.size(0) : n);
    if (!collective) {
        batch.mean = meanOver(v.expression, counted, n);
    } else {
        // Sums and count of all processes in one go.
        const bool shared = m_options.expression == "learned";
        const auto count = torch::full({1}, batch.rows, s.options().requires_grad(false));
        const auto sums = sumOverProcesses(shared ? count : torch::cat({rowsOf(v.expression, counted).sum(0).view({-1}), count}), collective);
        batch.total = sums[-1].item<double>();
        batch.mean = shared ? v.expression[0] : sums.slice(0, 0, -1).view({m_shape.experts, m_options.routerDim}) / std::max(batch.total, 1.0);
    }
    const std::string &scope = input.training ? m_options.trainSinkhornScope : m_options.sinkhornScope;
    const bool osr = m_options.scoring == "osr", transports = scope == "batch" || scope == "sequence";
    // One transport for all processes; each sequence lies in one process.
    const bool together = scope == "batch" || (!collective && input.offsets.size() == 2);
    Collective *const joint = scope == "batch" ? collective : nullptr;

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
        if (begin == end && !joint)
            continue;
        const auto sg = s.slice(0, begin, end);
        torch::Tensor rows;
        if (counted.defined())
            rows = input.mask.slice(0, begin, end).nonzero().view({-1});
        const auto countedCount = static_cast<double>(rows.defined() ? rows.size(0) : end - begin);
        if (osr) {
            const auto e = v.expression.size(0) == 1 ? v.expression : v.expression.slice(0, begin, end);
            const auto mean = transports ? (together ? batch.mean : meanOver(e, rows, end - begin)) : layer.meanExpression;
            const auto cost = ts::osrCost(sg, ts::repulsion(ts::gram(mean)), m_options.repulsionWeight, m_options.confidencePenalty,
                                          m_options.confidenceThreshold);
            torch::Tensor g;
            if (transports)
                g = ts::sinkhornPotential(rowsOf(cost, rows), epsilon, m_options.sinkhornIterations, m_options.logSinkhorn,
                                          joint ? batch.total : countedCount, joint);
            else
                g = scope == "causal" ? inferencePotential(layer) : torch::zeros_like(layer.potential);
            const auto q = ts::plan(cost, g, epsilon, m_options.logSinkhorn);
            if (transports) {
                step.violation = std::max(step.violation, violationOver(rowsOf(q, rows), batch.total, joint));
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
                    p = penaltyOver(rowsOf(v.routing.slice(0, begin, end), rows), joint ? batch.total : countedCount, joint);
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
    if (!input.training)
        return step;
    addLosses(step, input, q, rowsOf(q, counted), batch);
    if (input.recomputing)
        return step;
    Sums sums;
    sums.rows = batch.rows;
    if (osr && transports) {
        sums.potential = potentialSum;
        sums.transported = potentialRows;
    } else if (!osr && m_options.specialityPenalty != "none") {
        sums.penalty = penaltySum;
        if (!penaltySum.defined())
            sums.penalty = ts::specialityPenalty(rowsOf(v.routing, counted), m_options.specialityPenalty).detach() * batch.rows;
    }
    if (m_options.capacity == "dynamic")
        sums.demand = demandOf(rowsOf(q, counted));
    if (osr && m_options.causalPotential == "dual")
        sums.load = causalLoad(layer, rowsOf(s, counted));
    keepAverages(layer, batch, std::move(sums), collective);
    return step;
}

torch::Tensor SpectraRouter::penaltyOver(const torch::Tensor &routing, double total, Collective *collective) const
{
    const auto p = ts::specialityPenalty(routing, m_options.specialityPenalty);
    if (!collective)
        return p;
    // The vanishing term keeps a process without rows in the graph, so that all of them meet in the backward pass.
    return sumOverProcesses(p * static_cast<double>(routing.size(0)) + 0 * routing.sum(), collective) / std::max(total, 1.0);
}

/// What the causal rule, with its buffers of now, would assign to each expert: these rows' similarities are all that it needs.
torch::Tensor SpectraRouter::causalLoad(const Layer &layer, const torch::Tensor &s) const
{
    const torch::NoGradGuard noGrad;
    const auto cost = ts::osrCost(s.detach(), ts::repulsion(ts::gram(layer.meanExpression)), m_options.repulsionWeight, m_options.confidencePenalty,
                                  m_options.confidenceThreshold);
    return demandOf(ts::plan(cost, inferencePotential(layer), m_options.sinkhornEpsilon, m_options.logSinkhorn));
}

torch::Tensor SpectraRouter::demandOf(const torch::Tensor &q) const
{
    return torch::bincount(chosenColumns(q, m_shape.topK).view({-1}), {}, m_shape.experts).to(torch::kCPU, torch::kFloat64);
}

void SpectraRouter::select(RoutingStep &step, const RouterInput &input, const torch::Tensor &q) const
{
    const std::int64_t n = q.size(0), e = m_shape.experts, k = m_shape.topK;
    const bool quota = input.training && m_options.expertChoiceRouting;
    if (quota) {
        const auto host = q.detach().to(torch::kCPU, torch::kFloat32).contiguous();
        const std::span<const float> values{host.const_data_ptr<float>(), static_cast<std::size_t>(n * e)};
        torch::Tensor mask;
        std::span<const std::uint8_t> counts;
        std::int64_t rows = n;
        if (input.mask.defined()) {
            mask = input.mask.to(torch::kCPU, torch::kUInt8).contiguous();
            counts = {mask.const_data_ptr<std::uint8_t>(), static_cast<std::size_t>(n)};
            rows = input.mask.sum().item<std::int64_t>();
        }
        rule::QuotaResult result;
        if (m_options.capacity == "dynamic") {
            const auto demand = m_layers[static_cast<std::size_t>(input.layer)].demand.to(torch::kCPU, torch::kFloat64).contiguous();
            const auto capacities = rule::demandCapacities(m_options.capacityFactor, rows, k, {demand.const_data_ptr<double>(), static_cast<std::size_t>(e)});
            result = rule::assignQuota(values, k, capacities, counts);
        } else {
            result = rule::assignQuota(values, e, k, m_options.capacityFactor, counts);
        }
        step.experts = torch::from_blob(result.experts.data(), {n, k}, torch::kInt64).clone().to(q.device());
        step.dropped = torch::from_blob(result.dropped.data(), {n}, torch::kUInt8).clone().to(q.device());
        step.fellBack = result.fellBack;
    } else {
        step.experts = chosenColumns(q, k);
    }
    const auto present = step.experts >= 0;
    const auto weights = q.gather(1, step.experts.clamp_min(0)) * present;
    step.weights = weights / weights.sum(-1, true).clamp_min(1e-30);
}

/// Mean over neighbours in one sequence, both counted, of −log Σ_i Q_t,i Q_t+1,i: how unlikely it is that two draws from their rows are
/// the same expert.
torch::Tensor SpectraRouter::sequentialLoss(const RouterInput &input, const torch::Tensor &q) const
{
    const std::int64_t n = q.size(0), neighbours = std::max<std::int64_t>(0, n - 1);
    auto pairs = torch::ones({neighbours}, q.options().requires_grad(false));
    for (std::size_t i = 1; i + 1 < input.offsets.size(); ++i)
        if (input.offsets[i] > 0 && input.offsets[i] < n)
            pairs.select(0, input.offsets[i] - 1).zero_();
    if (input.mask.defined()) {
        const auto counts = input.mask.to(pairs.options());
        pairs = pairs * counts.slice(0, 0, neighbours) * counts.slice(0, 1, n);
    }
    const auto disagreement = -((q.slice(0, 0, neighbours) * q.slice(0, 1, n)).sum(-1).clamp_min(1e-30).log() * pairs).sum();
    double total = pairs.sum().item<double>(), processes = 1;
    if (Collective *const collective = collectiveOf(input)) { // scaled as the entropy is
        auto count = torch::full({1}, total, torch::kFloat64);
        collective->sumInPlace(count);
        total = count.item<double>();
        processes = static_cast<double>(collective->size());
    }
    return disagreement * (processes / std::max(total, 1.0));
}

void SpectraRouter::addLosses(RoutingStep &step, const RouterInput &input, const torch::Tensor &all, const torch::Tensor &q, const Batch &batch) const
{
    if (m_options.entropyCoef > 0) {
        auto entropy = m_options.entropyCoef * ts::meanEntropy(q);
        if (const Collective *collective = collectiveOf(input)) // this process's share of the mean over all rows, times the number of processes
            entropy = entropy * (batch.rows * collective->size() / std::max(batch.total, 1.0));
        step.losses["entropy"] = entropy;
    }
    if (m_options.sequentialLossCoef > 0)
        step.losses["sequential"] = m_options.sequentialLossCoef * sequentialLoss(input, all);
    const double coefficient = orthoCoefficient();
    if (coefficient <= 0)
        return;
    if (m_options.orthoLossOn == "projector") {
        const auto &w = projector(input.layer);
        const auto product = w.size(0) <= w.size(1) ? w.matmul(w.t()) : w.t().matmul(w);
        step.losses["ortho"] = coefficient * (product - torch::eye(product.size(0), product.options())).square().sum();
    } else {
        const auto g = ts::gram(batch.mean);
        step.losses["ortho"] = coefficient * ts::orthoLoss(g - torch::eye(g.size(0), g.options()), m_options.srip);
    }
}

void SpectraRouter::keepAverages(Layer &layer, const Batch &batch, Sums sums, Collective *collective) const
{
    const torch::NoGradGuard noGrad;
    const std::int64_t e = m_shape.experts;
    if (collective) {
        // In one go: [potential E | rows transported | penalty E or 1 | demand E | load E]. The mean expression is that of all processes already.
        const auto host = torch::TensorOptions(torch::kFloat64);
        const auto part = [&](const torch::Tensor &t, std::int64_t size) { return t.defined() ? t.detach().to(torch::kCPU, torch::kFloat64).view({-1}) : torch::zeros({size}, host); };
        const std::int64_t penalties = layer.penalty.defined() ? layer.penalty.numel() : 0;
        auto all = torch::cat({part(sums.potential, e), torch::full({1}, sums.transported, host), part(sums.penalty, penalties), part(sums.demand, e), part(sums.load, e)});
        collective->sumInPlace(all);
        sums.potential = all.slice(0, 0, e).to(batch.mean.device(), batch.mean.scalar_type());
        sums.transported = all[e].item<double>();
        if (penalties > 0)
            sums.penalty = all.slice(0, e + 1, e + 1 + penalties).to(layer.penalty.device(), layer.penalty.scalar_type());
        if (m_options.capacity == "dynamic")
            sums.demand = all.slice(0, -2 * e, -e);
        if (m_options.causalPotential == "dual")
            sums.load = all.slice(0, -e);
        sums.rows = batch.total;
    }
    const auto add = [](torch::Tensor &sum, double &weight, const torch::Tensor &value, double w) {
        if (!value.defined() || w <= 0)
            return;
        sum = sum.defined() ? sum + value : value;
        weight += w;
    };
    add(layer.meanSum, layer.meanWeight, batch.mean.detach() * sums.rows, sums.rows);
    add(layer.potentialSum, layer.potentialWeight, sums.potential, sums.transported);
    add(layer.penaltySum, layer.penaltyWeight, sums.penalty, sums.rows);
    if (sums.demand.defined())
        add(layer.demandSum, layer.demandWeight, sums.demand, sums.demand.sum().item<double>());
    if (sums.load.defined())
        layer.loadSum = layer.loadSum.defined() ? layer.loadSum + sums.load : sums.load;
}

} // namespace spectra
