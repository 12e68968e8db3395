// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/train/optimizer.h"

#include "engine/router/optionset.h"
#include "engine/train/adamw.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <set>

namespace spectra {
namespace {

std::string shapeText(const torch::Tensor &tensor)
{
    std::string text = "[";
    for (std::int64_t i = 0; i < tensor.dim(); ++i)
        text += (i > 0 ? ", " : "") + std::to_string(tensor.size(i));
    return text + "]";
}

Result<void> checkOptions(const OptimizerOptions &o)
{
    const auto share = [](double x, const char *name) -> Result<void> {
        if (!(x >= 0 && x < 1))
            return usageError(std::string(name) + " is " + numberText(x), "optimizer", "use 0 <= x < 1");
        return {};
    };
    if (o.type != "adamw" && o.type != "muon")
        return usageError("unknown optimizer \"" + o.type + "\"", "optimizer", "use adamw or muon");
    SPECTRA_CHECK(share(o.beta1, "beta1"));
    SPECTRA_CHECK(share(o.beta2, "beta2"));
    SPECTRA_CHECK(share(o.momentum, "momentum"));
    if (!(o.epsilon > 0 && std::isfinite(o.epsilon)))
        return usageError("epsilon is " + numberText(o.epsilon), "optimizer", "use x > 0");
    if (!(o.weightDecay >= 0 && std::isfinite(o.weightDecay)))
        return usageError("weight_decay is " + numberText(o.weightDecay), "optimizer", "use x >= 0");
    return {};
}

} // namespace

double Schedule::factor(std::int64_t step) const
{
    step = std::max<std::int64_t>(step, 0);
    if (step < warmup)
        return static_cast<double>(step + 1) / static_cast<double>(warmup);
    if (type == "constant")
        return 1;
    const std::int64_t peak = std::max<std::int64_t>(warmup - 1, 0), last = steps - 1;
    if (step <= peak)
        return 1;
    if (step >= last)
        return finalShare;
    const double way = static_cast<double>(step - peak) / static_cast<double>(last - peak);
    return finalShare + (1 - finalShare) * 0.5 * (1 + std::cos(std::numbers::pi * way));
}

torch::Tensor plainGradient(const TrainParameter &parameter)
{
    const torch::Tensor gradient = parameter.value.grad();
    return gradient.defined() ? gradient.detach().to(torch::kFloat32).contiguous() : gradient;
}

void Optimizer::zeroGradients()
{
    std::vector<float *> memory;
    std::vector<std::int64_t> elements;
    for (const TrainParameter &parameter : m_parameters) {
        const torch::Tensor gradient = parameter.value.grad();
        if (!gradient.defined())
            continue;
        if (gradient.scalar_type() == torch::kFloat32 && gradient.is_contiguous()) {
            memory.push_back(gradient.data_ptr<float>());
            elements.push_back(gradient.numel());
        } else {
            gradient.detach().zero_();
        }
    }
    overBlocks(blocksOf(elements), [&](const Block &block, std::size_t) {
        std::memset(memory[block.tensor] + block.begin, 0, static_cast<std::size_t>(block.end - block.begin) * sizeof(float));
    });
}

SharedStateOptimizer::SharedStateOptimizer(std::vector<TrainParameter> parameters)
    : Optimizer(std::move(parameters)), m_counts(torch::zeros({static_cast<std::int64_t>(m_parameters.size()) + 1}, torch::kFloat32))
{
}

void SharedStateOptimizer::countStep()
{
    ++m_steps;
    m_counts.data_ptr<float>()[0] = static_cast<float>(m_steps);
}

std::int64_t SharedStateOptimizer::countStepOf(std::size_t parameter)
{
    return static_cast<std::int64_t>(++m_counts.data_ptr<float>()[parameter + 1]);
}

std::map<std::string, torch::Tensor> SharedStateOptimizer::counts() const
{
    std::map<std::string, torch::Tensor> state;
    state["optimizer.step"] = m_counts.narrow(0, 0, 1);
    for (std::size_t p = 0; p < m_parameters.size(); ++p)
        state[m_parameters[p].name + ".step"] = m_counts.narrow(0, static_cast<std::int64_t>(p) + 1, 1);
    return state;
}

Result<void> SharedStateOptimizer::load(const std::map<std::string, torch::Tensor> &given)
{
    // All is checked before anything changes.
    const auto own = state();
    for (const auto &[name, tensor] : own) {
        const auto found = given.find(name);
        if (found == given.end() || !found->second.defined())
            return inputError("the optimizer's state lacks a tensor", name, "it was saved by another optimizer or for another model");
        if (found->second.sizes() != tensor.sizes())
            return inputError("a tensor of the optimizer's state has shape " + shapeText(found->second) + " instead of " + shapeText(tensor), name,
                              "it was saved for a model of another shape");
        if (!found->second.is_floating_point() && !at::isIntegralType(found->second.scalar_type(), false))
            return inputError("a tensor of the optimizer's state does not hold numbers", name);
        if (name.ends_with(".step")) {
            const double count = found->second.to(torch::kFloat64).item<double>();
            if (!(count >= 0 && count <= 16777216 && count == std::floor(count)))
                return inputError("a step count of the optimizer's state is not a whole number of at least 0", name);
        }
    }
    const torch::NoGradGuard noGrad;
    for (const auto &[name, tensor] : own)
        torch::Tensor(tensor).copy_(given.at(name));
    m_steps = static_cast<std::int64_t>(m_counts.data_ptr<float>()[0]);
    return {};
}

Result<std::unique_ptr<Optimizer>> makeOptimizer(std::vector<TrainParameter> parameters, const OptimizerOptions &options)
{
    SPECTRA_CHECK(checkOptions(options));
    std::set<std::string> names;
    for (const TrainParameter &parameter : parameters) {
        if (!parameter.value.defined() || parameter.value.scalar_type() != torch::kFloat32 || !parameter.value.is_contiguous()
            || !parameter.value.device().is_cpu())
            return bugError("a trained tensor is not f32 in order in main memory", parameter.name);
        if (!names.insert(parameter.name).second)
            return bugError("two trained tensors have one name", parameter.name);
    }
    return options.type == "muon" ? makeMuon(std::move(parameters), options) : makeAdamW(std::move(parameters), options);
}

} // namespace spectra
