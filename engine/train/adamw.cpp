// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/train/adamw.h"

#include "engine/train/optimizerkernels.h"

#include <cmath>
#include <numeric>

namespace spectra {
namespace {

class AdamW final : public SharedStateOptimizer {
public:
    AdamW(std::vector<TrainParameter> parameters, const OptimizerOptions &options)
        : SharedStateOptimizer(std::move(parameters)), m_part(m_parameters, everything(m_parameters.size()), options)
    {
    }
    void step(const GroupRates &rates, double scale) override
    {
        countStep();
        m_part.step(m_parameters, [this](std::size_t p) { return countStepOf(p); }, rates, scale);
    }
    std::map<std::string, torch::Tensor> state() const override
    {
        auto state = counts();
        m_part.stateInto(m_parameters, state);
        return state;
    }

private:
    static std::vector<std::size_t> everything(std::size_t count)
    {
        std::vector<std::size_t> members(count);
        std::iota(members.begin(), members.end(), std::size_t(0));
        return members;
    }
    AdamWPart m_part;
};

} // namespace

AdamWPart::AdamWPart(const std::vector<TrainParameter> &parameters, std::vector<std::size_t> members, const OptimizerOptions &options)
    : m_options(options), m_members(std::move(members))
{
    std::vector<std::int64_t> elements;
    for (const std::size_t p : m_members) {
        m_first.push_back(torch::zeros(parameters[p].value.sizes(), torch::kFloat32));
        m_second.push_back(torch::zeros(parameters[p].value.sizes(), torch::kFloat32));
        elements.push_back(parameters[p].value.numel());
    }
    m_blocks = blocksOf(elements);
}

void AdamWPart::step(const std::vector<TrainParameter> &parameters, const std::function<std::int64_t(std::size_t)> &countOf, const GroupRates &rates,
                     double scale)
{
    struct Job {
        float *p = nullptr, *m = nullptr, *v = nullptr;
        const float *g = nullptr;
        kernels::AdamWStep step;
    };
    std::vector<Job> jobs(m_members.size());
    std::vector<torch::Tensor> gradients(m_members.size()); // keeps converted copies alive
    for (std::size_t i = 0; i < m_members.size(); ++i) {
        const TrainParameter &parameter = parameters[m_members[i]];
        gradients[i] = plainGradient(parameter);
        if (!gradients[i].defined())
            continue;
        const double rate = rates[static_cast<std::size_t>(parameter.group)];
        const auto t = static_cast<double>(countOf(m_members[i]));
        Job &job = jobs[i];
        job.p = parameter.value.data_ptr<float>();
        job.m = m_first[i].data_ptr<float>();
        job.v = m_second[i].data_ptr<float>();
        job.g = gradients[i].const_data_ptr<float>();
        job.step = {.scale = static_cast<float>(scale),
                    .decay = parameter.decays ? static_cast<float>(rate * m_options.weightDecay) : 0.0f,
                    .oneMinusBeta1 = static_cast<float>(1 - m_options.beta1),
                    .beta2 = static_cast<float>(m_options.beta2),
                    .oneMinusBeta2 = static_cast<float>(1 - m_options.beta2),
                    .correction2 = static_cast<float>(1 / std::sqrt(1 - std::pow(m_options.beta2, t))),
                    .epsilon = static_cast<float>(m_options.epsilon),
                    .stepSize = static_cast<float>(rate / (1 - std::pow(m_options.beta1, t)))};
    }
    overBlocks(m_blocks, [&](const Block &block, std::size_t) {
        const Job &job = jobs[block.tensor];
        if (job.g)
            kernels::adamW(job.p + block.begin, job.g + block.begin, job.m + block.begin, job.v + block.begin, block.end - block.begin, job.step);
    });
}

void AdamWPart::stateInto(const std::vector<TrainParameter> &parameters, std::map<std::string, torch::Tensor> &state) const
{
    for (std::size_t i = 0; i < m_members.size(); ++i) {
        const std::string &name = parameters[m_members[i]].name;
        state[name + ".m"] = m_first[i];
        state[name + ".v"] = m_second[i];
    }
}

std::unique_ptr<Optimizer> makeAdamW(std::vector<TrainParameter> parameters, const OptimizerOptions &options)
{
    return std::make_unique<AdamW>(std::move(parameters), options);
}

} // namespace spectra
