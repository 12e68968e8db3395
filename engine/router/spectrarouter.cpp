// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/spectrarouter.h"

#include "engine/router/gating.h"
#include "engine/router/routerinit.h"
#include "engine/router/spectrafastpath.h"
#include "engine/router/spectratensors.h"

#include <algorithm>

namespace spectra {

namespace ts = tensors;

SpectraRouter::SpectraRouter(std::string name, SpectraOptions options, RouterShape shape)
    : m_name(std::move(name)), m_options(std::move(options)), m_shape(std::move(shape))
{
    const std::size_t layers = m_shape.moeLayers.size();
    m_layers.resize(layers);
    m_sequential.resize(m_options.gruScope == "per_layer" ? layers : 1);
    m_projectors.resize(m_options.projectorScope == "per_layer" ? layers : 1);
}

SpectraRouter::~SpectraRouter() = default;

RouterNeeds SpectraRouter::needs() const
{
    RouterNeeds needs;
    const bool gru = recurrent();
    const bool carry = gru && m_options.gruAxis == "carry";
    needs.recurrentTokens = gru && m_options.gruAxis != "depth";
    needs.recurrentLayers = gru && (m_options.gruAxis == "depth" || m_options.gruAxis == "grid");
    // Scores of the linear and of the unpenalised domain form depend on their token alone, whatever the scope says.
    const bool coupled = m_options.scoring == "osr" || (m_options.scoring == "domain" && m_options.specialityPenalty != "none");
    if (coupled && m_options.sinkhornScope == "batch")
        needs.scope = RouterNeeds::Scope::batch;
    else if (carry || (coupled && m_options.sinkhornScope == "sequence"))
        needs.scope = RouterNeeds::Scope::sequence;
    needs.causal = needs.scope == RouterNeeds::Scope::token;
    return needs;
}

std::vector<SpectraRouter::Named> SpectraRouter::namedParameters()
{
    const std::int64_t d = m_shape.hidden, e = m_shape.experts, dim = m_options.routerDim, width = e * dim;
    std::vector<Named> list;
    const auto layerName = [&](std::size_t l) { return "model.layers." + std::to_string(m_shape.moeLayers[l]) + ".mlp.router."; };
    if (m_options.scoring == "linear") {
        for (std::size_t l = 0; l < m_layers.size(); ++l)
            list.push_back({layerName(l) + "weight", &m_layers[l].linear, {e, d}});
        return list;
    }
    for (std::size_t i = 0; i < m_sequential.size(); ++i) {
        const std::string prefix = m_options.gruScope == "per_layer" ? layerName(i) : "model.router.";
        Sequential &s = m_sequential[i];
        if (m_options.sequential == "gru") {
            list.push_back({prefix + "gru.weight_ih", &s.weightIh, {3 * width, d}});
            list.push_back({prefix + "gru.weight_hh", &s.weightHh, {3 * width, width}});
            list.push_back({prefix + "gru.bias_ih", &s.biasIh, {3 * width}});
            list.push_back({prefix + "gru.bias_hh", &s.biasHh, {3 * width}});
        } else {
            list.push_back({prefix + "sequential.weight", &s.weightIh, {width, d}});
            list.push_back({prefix + "sequential.bias", &s.biasIh, {width}});
        }
    }
    if (m_options.expression == "projector")
        for (std::size_t i = 0; i < m_projectors.size(); ++i)
            list.push_back({(m_options.projectorScope == "per_layer" ? layerName(i) : "model.router.") + "expression_projector.weight",
                            &m_projectors[i], {width, d}});
    else if (m_options.expression == "learned")
        for (std::size_t l = 0; l < m_layers.size(); ++l)
            list.push_back({layerName(l) + "expression_vectors", &m_layers[l].expressionVectors, {e, dim}});
    return list;
}

std::vector<SpectraRouter::Named> SpectraRouter::namedBuffers()
{
    std::vector<Named> list;
    const std::int64_t e = m_shape.experts;
    for (std::size_t l = 0; l < m_layers.size(); ++l) {
        const std::string prefix = "model.layers." + std::to_string(m_shape.moeLayers[l]) + ".mlp.router.";
        if (m_options.scoring != "linear")
            list.push_back({prefix + "mean_expression", &m_layers[l].meanExpression, {e, m_options.routerDim}});
        if (m_options.scoring == "osr")
            list.push_back({prefix + "potential", &m_layers[l].potential, {e}});
        if (m_options.scoring == "domain" && m_options.specialityPenalty != "none")
            list.push_back({prefix + "speciality_penalty", &m_layers[l].penalty, {m_options.specialityPenalty == "global" ? 1 : e}});
        if (m_options.capacity == "dynamic")
            list.push_back({prefix + "demand", &m_layers[l].demand, {e}, 1.0 / static_cast<double>(e), true});
    }
    return list;
}

void SpectraRouter::initialise(std::uint64_t seed)
{
    const torch::NoGradGuard noGrad;
    const std::int64_t d = m_shape.hidden, e = m_shape.experts, dim = m_options.routerDim, width = e * dim;
    std::uint64_t stream = 1;
    for (Sequential &s : m_sequential) {
        if (m_options.sequential == "gru") {
            std::vector<torch::Tensor> ih, hh;
            for (int gate = 0; gate < 3; ++gate) { // one block per gate: r, z, n
                ih.push_back(xavierUniform(width, d, seed, stream++));
                hh.push_back(orthogonal(width, width, 1.0, seed, stream++));
            }
            s.weightIh = torch::cat(ih);
            s.weightHh = torch::cat(hh);
            s.biasIh = torch::zeros({3 * width});
            s.biasHh = torch::zeros({3 * width});
            s.biasIh.slice(0, width, 2 * width).fill_(m_options.gruUpdateBias);
        } else {
            s.weightIh = xavierUniform(width, d, seed, stream++);
            s.biasIh = torch::zeros({width});
        }
        if (m_options.scoring == "linear")
            s = {};
    }
    for (torch::Tensor &w : m_projectors)
        w = m_options.projectorInit == "xavier" ? xavierUniform(width, d, seed, stream++)
                                                : orthogonal(width, d, m_options.projectorInitGain, seed, stream++);
    for (Layer &layer : m_layers) {
        layer.expressionVectors = unitFrame(e, dim, seed, stream++);
        layer.linear = xavierUniform(e, d, seed, stream++);
    }
    for (const Named &parameter : namedParameters())
        parameter.tensor->set_requires_grad(true);
    for (const Named &buffer : namedBuffers())
        *buffer.tensor = torch::full(buffer.shape, buffer.fresh, torch::kFloat32);
}

Result<void> SpectraRouter::load(const TensorLookup &lookup)
{
    const torch::NoGradGuard noGrad;
    const auto fetch = [&](const Named &named, bool parameter) -> Result<void> {
        if (named.optional) {
            SPECTRA_TRY(const auto found, lookup(named.name, named.shape));
            if (!found.defined()) {
                *named.tensor = torch::full(named.shape, named.fresh, torch::kFloat32);
                return {};
            }
        }
        SPECTRA_TRY(const auto tensor, storedTensor(lookup, named.name, named.shape));
        *named.tensor = tensor.clone().set_requires_grad(parameter);
        return {};
    };
    for (const Named &parameter : namedParameters())
        SPECTRA_CHECK(fetch(parameter, true));
    for (const Named &buffer : namedBuffers())
        SPECTRA_CHECK(fetch(buffer, false));
    return {};
}

std::map<std::string, torch::Tensor> SpectraRouter::parameters() const
{
    std::map<std::string, torch::Tensor> map;
    for (const Named &named : const_cast<SpectraRouter *>(this)->namedParameters())
        map[named.name] = *named.tensor;
    return map;
}

std::map<std::string, torch::Tensor> SpectraRouter::buffers() const
{
    std::map<std::string, torch::Tensor> map;
    for (const Named &named : const_cast<SpectraRouter *>(this)->namedBuffers())
        map[named.name] = *named.tensor;
    return map;
}

std::string SpectraRouter::options() const
{
    return writeOptions(m_name, m_options, spectraOptionTable());
}

torch::Tensor SpectraRouter::linearWeights(int layer) const
{
    return m_options.scoring == "linear" ? m_layers[static_cast<std::size_t>(layer)].linear : torch::Tensor();
}

void SpectraRouter::to(torch::Device device)
{
    const torch::NoGradGuard noGrad;
    for (const Named &named : namedParameters())
        *named.tensor = named.tensor->detach().to(device).set_requires_grad(true);
    for (const Named &named : namedBuffers())
        *named.tensor = named.tensor->to(device);
    for (Layer &layer : m_layers) {
        layer.meanSum = layer.potentialSum = layer.penaltySum = layer.demandSum = layer.loadSum = torch::Tensor();
        layer.meanWeight = layer.potentialWeight = layer.penaltyWeight = layer.demandWeight = 0;
    }
    m_fast.reset();
}

std::vector<std::string> SpectraRouter::notes() const
{
    std::vector<std::string> list;
    const double found = m_options.calibratedEpsilon;
    if (m_options.scoring == "osr" && m_options.sinkhornScope == "causal" && found > 0 && found != m_options.sinkhornEpsilon)
        list.push_back("not calibrated: the potentials were found at sinkhorn_epsilon " + numberText(found) + " and are rescaled to "
                       + numberText(m_options.sinkhornEpsilon));
    if (m_options.expression == "literal" && m_options.scoring != "linear")
        list.push_back("degenerate: the routing vectors stand in for the expression vectors, so every similarity is 1 and routing is a tie");
    return list;
}

const SpectraRouter::Sequential &SpectraRouter::sequential(int layer) const
{
    return m_sequential[m_options.gruScope == "per_layer" ? static_cast<std::size_t>(layer) : 0];
}

const torch::Tensor &SpectraRouter::projector(int layer) const
{
    return m_projectors[m_options.projectorScope == "per_layer" ? static_cast<std::size_t>(layer) : 0];
}

torch::Tensor SpectraRouter::inferencePotential(const Layer &layer) const
{
    // log-domain potentials scale like 1/ε for a cost that stays the same (method page, "Details")
    if (m_options.calibratedEpsilon > 0 && m_options.calibratedEpsilon != m_options.sinkhornEpsilon)
        return layer.potential * (m_options.calibratedEpsilon / m_options.sinkhornEpsilon);
    return layer.potential;
}

double SpectraRouter::orthoCoefficient() const
{
    double coefficient = m_options.orthoLossCoef;
    if (m_options.soWarmupSteps > 0)
        coefficient *= std::min(1.0, static_cast<double>(m_step) / m_options.soWarmupSteps);
    return m_options.soLambdaMax >= 0 ? std::min(coefficient, m_options.soLambdaMax) : coefficient;
}

void SpectraRouter::ascend(Layer &layer) const
{
    const double all = layer.loadSum.sum().item<double>();
    if (all <= 0)
        return;
    const auto share = layer.loadSum * (static_cast<double>(m_shape.experts) / all);
    layer.potential.add_(((1 - share) * m_options.causalPotentialStep).to(layer.potential.device(), layer.potential.scalar_type()));
    layer.potential.sub_(layer.potential.mean());
}

void SpectraRouter::afterOptimizerStep(const std::vector<torch::Tensor> & /*loads*/)
{
    const torch::NoGradGuard noGrad;
    const double rho = m_options.causalEma;
    const auto blend = [rho](torch::Tensor &buffer, torch::Tensor &sum, double &weight) {
        if (weight > 0 && buffer.defined())
            buffer.mul_(rho).add_(sum, (1 - rho) / weight);
        sum = torch::Tensor();
        weight = 0;
    };
    const bool moved = std::any_of(m_layers.begin(), m_layers.end(), [](const Layer &l) { return l.potentialWeight > 0 || l.loadSum.defined(); });
    if (moved && m_options.scoring == "osr") {
        // Potentials that were found at another ε are brought to this one before they go on from there.
        if (m_options.calibratedEpsilon > 0 && m_options.calibratedEpsilon != m_options.sinkhornEpsilon)
            for (Layer &layer : m_layers)
                layer.potential.mul_(m_options.calibratedEpsilon / m_options.sinkhornEpsilon);
        m_options.calibratedEpsilon = m_options.sinkhornEpsilon;
    }
    for (Layer &layer : m_layers) {
        blend(layer.meanExpression, layer.meanSum, layer.meanWeight);
        if (layer.loadSum.defined())
            ascend(layer);
        else
            blend(layer.potential, layer.potentialSum, layer.potentialWeight);
        layer.loadSum = layer.potentialSum = torch::Tensor();
        layer.potentialWeight = 0;
        blend(layer.penalty, layer.penaltySum, layer.penaltyWeight);
        if (layer.demandSum.defined())
            layer.demandSum = layer.demandSum.to(layer.demand.device(), layer.demand.scalar_type());
        blend(layer.demand, layer.demandSum, layer.demandWeight);
    }
    ++m_step;
    m_fast.reset(); // an optimiser may write past the version counts that tell the packed weights' age
}

RoutingStep SpectraRouter::route(const RouterInput &input, RouterState &state, Capture capture)
{
    if (!input.training && !torch::GradMode::is_enabled() && input.x.device().is_cpu()) {
        if (!m_fast)
            m_fast = std::make_unique<FastPath>(*this);
        return m_fast->route(*this, input, state, capture);
    }
    return routeTensors(input, state, capture);
}

} // namespace spectra
