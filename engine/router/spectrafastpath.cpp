// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/spectrafastpath.h"

#include "engine/router/spectratensors.h"
#include "engine/rule/selection.h"
#include "engine/rule/sinkhorn.h"

#include <algorithm>

namespace spectra {
namespace {

std::span<const float> view(const torch::Tensor &t)
{
    return {t.const_data_ptr<float>(), static_cast<std::size_t>(t.numel())};
}

std::span<float> writable(torch::Tensor &t)
{
    return {t.data_ptr<float>(), static_cast<std::size_t>(t.numel())};
}

} // namespace

bool SpectraRouter::FastPath::Stamp::renew(const torch::Tensor &tensor)
{
    const void *at = tensor.const_data_ptr();
    const std::int64_t now = tensor.is_inference() ? 0 : tensor._version();
    const bool changed = at != data || now != version;
    data = at;
    version = now;
    return changed;
}

SpectraRouter::FastPath::FastPath(const SpectraRouter &router)
    : m_recurrences(router.m_sequential.size()), m_projectors(router.m_projectors.size()), m_tables(router.m_layers.size())
{
}

void SpectraRouter::FastPath::refresh(const SpectraRouter &router, int layer)
{
    m_executor = rule::Executor::pool();
    const SpectraOptions &o = router.m_options;
    const std::int64_t e = router.m_shape.experts, width = e * o.routerDim;
    const auto index = static_cast<std::size_t>(layer);
    if (o.scoring != "linear") {
        Recurrence &r = m_recurrences[o.gruScope == "per_layer" ? index : 0];
        const Sequential &s = router.sequential(layer);
        const bool gru = o.sequential == "gru";
        if (r.stamps[0].renew(s.weightIh) | r.stamps[1].renew(s.biasIh))
            r.input = rule::PackedMatrix(view(s.weightIh), view(s.biasIh), s.weightIh.size(0), router.m_shape.hidden, gru ? 3 : 1);
        if (gru && (r.stamps[2].renew(s.weightHh) | r.stamps[3].renew(s.biasHh)))
            r.recurrent = rule::PackedMatrix(view(s.weightHh), view(s.biasHh), 3 * width, width, 3);
        if (o.expression == "projector") {
            Projector &p = m_projectors[o.projectorScope == "per_layer" ? index : 0];
            if (p.stamp.renew(router.projector(layer))) {
                const auto w = tensors::orthogonalized(router.projector(layer), o.projectorOrthogonalization, o.newtonSchulzIterations).contiguous();
                p.matrix = rule::PackedMatrix(view(w), {}, width, router.m_shape.hidden);
            }
        }
    }
    if (o.scoring == "osr") {
        Tables &t = m_tables[index];
        const Layer &l = router.m_layers[index];
        if (t.mean.renew(l.meanExpression)) {
            std::vector<float> g(static_cast<std::size_t>(e * e));
            t.repulsion.resize(g.size());
            rule::gram(view(l.meanExpression), e, o.routerDim, g);
            rule::repulsionMatrix(g, e, t.repulsion);
        }
        if (t.potentialStamp.renew(l.potential) || t.epsilon != o.calibratedEpsilon) {
            const auto g = router.inferencePotential(l).contiguous();
            t.potential.assign(view(g).begin(), view(g).end());
            t.epsilon = o.calibratedEpsilon;
        }
    }
}

/// One token per sequence: what the recurrence needs of h_{t−1} is known for all layers before the first one runs, so the shared
/// recurrent weights are read once per token instead of once per layer.
void SpectraRouter::FastPath::lookAhead(const SpectraRouter &router, const RouterInput &input, RouterState &state)
{
    const auto sequences = static_cast<std::int64_t>(input.offsets.size()) - 1;
    const SpectraOptions &o = router.m_options;
    if (input.layer != 0)
        return;
    state.aheadLayer = -1;
    if (o.gruAxis != "sequence" || o.gruScope != "global" || input.layers < 2 || input.x.size(0) != sequences)
        return;
    const rule::PackedMatrix &w = m_recurrences[0].recurrent;
    const std::int64_t rows = sequences * input.layers, width = router.m_shape.experts * o.routerDim;
    const auto h = state.token.transpose(0, 1).contiguous(); // [L,S,H]
    if (!state.ahead.defined() || state.ahead.size(0) != input.layers || state.ahead.size(1) != sequences || state.ahead.size(2) != w.paddedOutputs())
        state.ahead = torch::empty({input.layers, sequences, w.paddedOutputs()}, torch::kFloat32);
    float *out = state.ahead.data_ptr<float>();
    rule::forRange(m_executor, w.panels(), 4, [&](std::int64_t first, std::int64_t last) {
        w.project(h.const_data_ptr<float>(), width, rows, out, w.paddedOutputs(), first, last);
    });
    state.aheadLayer = 0;
}

void SpectraRouter::FastPath::vectors(const SpectraRouter &router, const RouterInput &input, RouterState &state, torch::Tensor &routing,
                                      torch::Tensor &expression)
{
    const SpectraOptions &o = router.m_options;
    const std::int64_t n = input.x.size(0), e = router.m_shape.experts, width = e * o.routerDim;
    const auto sequences = static_cast<std::int64_t>(input.offsets.size()) - 1;
    const Recurrence &r = m_recurrences[o.gruScope == "per_layer" ? static_cast<std::size_t>(input.layer) : 0];
    const auto x = input.x.contiguous();
    routing = torch::empty({n, e, o.routerDim}, torch::kFloat32);

    rule::VectorJob job;
    job.input = &r.input;
    job.recurrent = &r.recurrent;
    job.x = x.const_data_ptr<float>();
    job.n = n;
    job.width = width;
    job.offsets = input.offsets;
    job.routing = routing.data_ptr<float>();
    if (o.expression == "projector") {
        expression = torch::empty({n, e, o.routerDim}, torch::kFloat32);
        job.expression = expression.data_ptr<float>();
        job.projector = &m_projectors[o.projectorScope == "per_layer" ? static_cast<std::size_t>(input.layer) : 0].matrix;
    }
    using Axis = rule::VectorJob::Axis;
    const bool gru = o.sequential == "gru";
    job.axis = !gru ? Axis::none : o.gruAxis == "depth" ? Axis::depth : o.gruAxis == "grid" ? Axis::grid : Axis::sequence;
    torch::Tensor below;
    if (job.axis == Axis::depth || job.axis == Axis::grid) {
        if (input.layer > 0 && state.depth.defined()) {
            below = state.depth;
            job.below = below.const_data_ptr<float>();
        }
        state.depth = routing.view({n, width});
    }
    if (gru && job.axis != Axis::depth) {
        if (!state.token.defined())
            state.token = torch::zeros({sequences, input.layers, width});
        lookAhead(router, input, state);
        const std::int64_t stride = input.layers * width;
        float *base = state.token.data_ptr<float>();
        job.end = base + input.layer * width;
        job.endStride = job.startStride = stride;
        if (o.gruAxis != "carry")
            job.start = job.end;
        else if (input.layer > 0)
            job.start = base + (input.layer - 1) * width;
        if (state.aheadLayer >= 0) {
            const bool usable = state.aheadLayer == input.layer && n == sequences && state.ahead.size(1) == sequences;
            if (usable)
                job.ready = state.ahead.const_data_ptr<float>() + input.layer * sequences * state.ahead.size(2);
            state.aheadLayer = usable && input.layer + 1 < input.layers ? input.layer + 1 : -1;
        }
    }
    rule::computeVectors(job, m_scratch, m_executor);
    if (o.expression == "learned")
        expression = router.m_layers[static_cast<std::size_t>(input.layer)].expressionVectors.unsqueeze(0);
    else if (o.expression == "literal")
        expression = routing;
}

void SpectraRouter::FastPath::transport(const SpectraRouter &router, const RouterInput &input, const torch::Tensor &expression, const torch::Tensor &s,
                                        torch::Tensor &cost, torch::Tensor &q, RoutingStep &step) const
{
    const SpectraOptions &o = router.m_options;
    const std::int64_t e = router.m_shape.experts, width = e * o.routerDim, n = s.size(0);
    std::vector<std::int64_t> bounds = {0, n};
    if (o.sinkhornScope == "sequence")
        bounds = input.offsets;
    std::vector<std::uint8_t> counted(static_cast<std::size_t>(n), 1);
    if (input.mask.defined()) {
        const auto mask = input.mask.to(torch::kUInt8).contiguous();
        std::copy_n(mask.const_data_ptr<std::uint8_t>(), n, counted.begin());
    }
    const rule::OsrOptions osr{o.repulsionWeight, o.confidencePenalty, o.confidenceThreshold, o.sinkhornEpsilon, !o.logSinkhorn};
    rule::SinkhornOptions options;
    options.epsilon = o.sinkhornEpsilon;
    options.iterations = o.sinkhornIterations;
    options.inputIsCost = true;
    options.clampLogits = !o.logSinkhorn;
    std::vector<double> potential(static_cast<std::size_t>(e), 0.0);
    double potentialRows = 0;
    for (std::size_t group = 0; group + 1 < bounds.size(); ++group) {
        const std::int64_t b = bounds[group], rows = bounds[group + 1] - b;
        if (rows == 0)
            continue;
        // Ē of the group's counted tokens
        std::vector<double> sum(static_cast<std::size_t>(width), 0.0);
        std::int64_t count = 0;
        const float *vectors = expression.const_data_ptr<float>();
        const bool shared = expression.size(0) == 1 && n != 1;
        for (std::int64_t t = 0; t < rows; ++t) {
            if (!counted[static_cast<std::size_t>(b + t)] && !shared)
                continue;
            ++count;
            for (std::int64_t i = 0; i < width; ++i)
                sum[static_cast<std::size_t>(i)] += static_cast<double>(vectors[(shared ? 0 : (b + t) * width) + i]);
        }
        std::vector<float> mean(sum.size()), g(static_cast<std::size_t>(e * e)), r(g.size());
        for (std::size_t i = 0; i < mean.size(); ++i)
            mean[i] = static_cast<float>(sum[i] / static_cast<double>(std::max<std::int64_t>(count, 1)));
        rule::gram(mean, e, o.routerDim, g);
        rule::repulsionMatrix(g, e, r);
        const auto at = static_cast<std::size_t>(b * e), size = static_cast<std::size_t>(rows * e);
        rule::osrCost(view(s).subspan(at, size), r, rows, e, osr, writable(cost).subspan(at, size));
        auto result = rule::sinkhorn(view(cost).subspan(at, size), e, options, writable(q).subspan(at, size),
                                     std::span<const std::uint8_t>(counted).subspan(static_cast<std::size_t>(b), static_cast<std::size_t>(rows)), m_executor);
        TORCH_CHECK(result.ok(), "Sinkhorn: ", result.ok() ? "" : result.error().what);
        step.violation = std::max(step.violation, result->violation);
        rule::centre(result->potential);
        const auto weight = static_cast<double>(std::count(counted.begin() + b, counted.begin() + b + rows, 1));
        for (std::size_t i = 0; i < potential.size(); ++i)
            potential[i] += weight * result->potential[i];
        potentialRows += weight;
    }
    step.potentials = torch::empty({e}, torch::kFloat32);
    for (std::int64_t i = 0; i < e; ++i)
        step.potentials[i] = static_cast<float>(potential[static_cast<std::size_t>(i)] / std::max(1.0, potentialRows));
}

torch::Tensor SpectraRouter::FastPath::domainPlan(const SpectraRouter &router, const RouterInput &input, const torch::Tensor &routing,
                                                  const torch::Tensor &s) const
{
    const SpectraOptions &o = router.m_options;
    const auto &penalty = router.m_layers[static_cast<std::size_t>(input.layer)].penalty;
    const auto rowsOf = [&](std::int64_t b, std::int64_t e) {
        auto rows = routing.slice(0, b, e);
        return input.mask.defined() ? rows.index_select(0, input.mask.slice(0, b, e).nonzero().view({-1})) : rows;
    };
    torch::Tensor score;
    if (o.specialityPenalty == "none") {
        score = s;
    } else if (o.sinkhornScope == "batch") {
        score = tensors::domainScore(s, tensors::specialityPenalty(rowsOf(0, s.size(0)), o.specialityPenalty), o.specialityPenalty);
    } else if (o.sinkhornScope == "sequence") {
        std::vector<torch::Tensor> parts;
        for (std::size_t i = 0; i + 1 < input.offsets.size(); ++i) {
            const std::int64_t b = input.offsets[i], e = input.offsets[i + 1];
            parts.push_back(tensors::domainScore(s.slice(0, b, e), tensors::specialityPenalty(rowsOf(b, e), o.specialityPenalty), o.specialityPenalty));
        }
        score = torch::cat(parts);
    } else {
        score = tensors::domainScore(s, penalty, o.specialityPenalty);
    }
    auto q = torch::empty_like(score);
    rule::softmaxRows(view(score.contiguous()), {}, score.size(0), router.m_shape.experts, 1 / o.sinkhornEpsilon, false, writable(q));
    return q;
}

RoutingStep SpectraRouter::FastPath::route(const SpectraRouter &router, const RouterInput &input, RouterState &state, Capture capture)
{
    refresh(router, input.layer);
    const SpectraOptions &o = router.m_options;
    const std::int64_t n = input.x.size(0), e = router.m_shape.experts, k = router.m_shape.topK;
    RoutingStep step;
    auto s = torch::empty({n, e}, torch::kFloat32), q = torch::empty({n, e}, torch::kFloat32);
    torch::Tensor routing, expression, cost;
    const bool transports = o.sinkhornScope == "batch" || o.sinkhornScope == "sequence";
    const bool wantCost = o.scoring == "osr" && (transports || capture.has(Field::sinkhorn));
    if (wantCost)
        cost = torch::empty({n, e}, torch::kFloat32);
    step.experts = torch::empty({n, k}, torch::kInt64);
    step.weights = torch::empty({n, k}, torch::kFloat32);

    const std::span<float> sAll = writable(s), qAll = writable(q);
    const auto part = [](auto whole, std::int64_t b, std::int64_t rows, std::int64_t width) {
        return whole.empty() ? whole : whole.subspan(static_cast<std::size_t>(b * width), static_cast<std::size_t>(rows * width));
    };
    const auto choose = [&](std::int64_t b, std::int64_t end) {
        rule::topK(part(std::span<const float>(qAll), b, end - b, e), e, k, true,
                   part(std::span<std::int64_t>(step.experts.data_ptr<std::int64_t>(), static_cast<std::size_t>(n * k)), b, end - b, k),
                   part(writable(step.weights), b, end - b, k));
    };
    constexpr std::int64_t kGrain = 128;
    if (o.scoring == "linear") {
        const auto x = input.x.contiguous();
        const auto &w = router.m_layers[static_cast<std::size_t>(input.layer)].linear;
        rule::forRange(m_executor, n, 32, [&](std::int64_t b, std::int64_t end) {
            rule::linearSimilarity(part(view(x), b, end - b, x.size(1)), view(w), end - b, e, x.size(1), part(sAll, b, end - b, e));
            rule::softmaxRows(part(std::span<const float>(sAll), b, end - b, e), {}, end - b, e, 1 / o.sinkhornEpsilon, false, part(qAll, b, end - b, e));
            choose(b, end);
        });
    } else {
        vectors(router, input, state, routing, expression);
        const std::int64_t width = e * o.routerDim;
        const bool shared = expression.size(0) != n;
        const bool causal = o.scoring == "osr" && !transports;
        const Tables &tables = m_tables[static_cast<std::size_t>(input.layer)];
        const std::span<const float> potential = o.sinkhornScope == "causal" ? std::span<const float>(tables.potential) : std::span<const float>();
        const rule::OsrOptions osr{o.repulsionWeight, o.confidencePenalty, o.confidenceThreshold, o.sinkhornEpsilon, !o.logSinkhorn};
        const std::span<const float> r = view(routing), x = view(expression);
        const std::span<float> c = wantCost ? writable(cost) : std::span<float>();
        rule::forRange(m_executor, n, kGrain, [&](std::int64_t b, std::int64_t end) {
            rule::similarity(part(r, b, end - b, width), shared ? x : part(x, b, end - b, width), end - b, e, o.routerDim, part(sAll, b, end - b, e));
            if (causal) {
                rule::causalRule(part(std::span<const float>(sAll), b, end - b, e), tables.repulsion, potential, end - b, e, osr, part(c, b, end - b, e),
                                 part(qAll, b, end - b, e));
                choose(b, end);
            }
        });
        if (!causal) {
            if (o.scoring == "osr")
                transport(router, input, expression, s, cost, q, step);
            else
                q.copy_(domainPlan(router, input, routing, s));
            choose(0, n);
        }
        if (capture.has(Field::vectors) || capture.has(Field::means)) {
            step.routingVectors = routing;
            step.expressionVectors = shared ? expression.expand_as(routing) : expression;
        }
        if (capture.has(Field::gru) || capture.has(Field::gruPca))
            step.gruState = routing.view({n, width});
        step.cost = cost;
    }
    step.logits = s;
    step.probabilities = step.selection = q;
    return step;
}

} // namespace spectra
