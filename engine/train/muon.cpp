// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/train/adamw.h"
#include "engine/train/optimizerkernels.h"

#include <algorithm>
#include <cmath>

namespace spectra {
namespace {

/// Coefficients of the quintic and its number of steps (Jordan et al. 2024): x ↦ ax + bx³ + cx⁵ takes singular values in (0, 1]
/// to about 0.7–1.2 in five steps.
constexpr double kA = 3.4445, kB = -4.7750, kC = 2.0315;
constexpr int kNewtonSchulzSteps = 5;
constexpr double kSmallestNorm = 1e-7;

/// The matrices of a batch [B, rows, columns], each brought near the closest matrix with orthonormal rows (or columns).
torch::Tensor orthogonalised(torch::Tensor x)
{
    const bool tall = x.size(1) > x.size(2);
    if (tall)
        x = x.transpose(1, 2);
    x = x / torch::linalg_matrix_norm(x, "fro", {-2, -1}, true).clamp_min(kSmallestNorm);
    for (int i = 0; i < kNewtonSchulzSteps; ++i) {
        const torch::Tensor gram = torch::bmm(x, x.transpose(1, 2));
        x = torch::baddbmm(x, torch::baddbmm(gram, gram, gram, kB, kC), x, kA, 1);
    }
    return tall ? x.transpose(1, 2) : x;
}

class Muon final : public SharedStateOptimizer {
public:
    Muon(std::vector<TrainParameter> parameters, const OptimizerOptions &options)
        : SharedStateOptimizer(std::move(parameters)), m_options(options), m_rest(m_parameters, membersOf(m_parameters, false), options),
          m_members(membersOf(m_parameters, true))
    {
        for (const std::size_t p : m_members)
            m_momentum.push_back(torch::zeros(m_parameters[p].value.sizes(), torch::kFloat32));
    }

    void step(const GroupRates &rates, double scale) override
    {
        const torch::NoGradGuard noGrad;
        countStep();
        m_rest.step(m_parameters, [this](std::size_t p) { return countStepOf(p); }, rates, scale);
        for (std::size_t i = 0; i < m_members.size(); ++i)
            if (const torch::Tensor gradient = plainGradient(m_parameters[m_members[i]]); gradient.defined()) {
                countStepOf(m_members[i]);
                stepMatrices(i, gradient, rates[static_cast<std::size_t>(m_parameters[m_members[i]].group)], scale);
            }
    }

    std::map<std::string, torch::Tensor> state() const override
    {
        auto state = counts();
        m_rest.stateInto(m_parameters, state);
        for (std::size_t i = 0; i < m_members.size(); ++i)
            state[m_parameters[m_members[i]].name + ".momentum"] = m_momentum[i];
        return state;
    }

private:
    static std::vector<std::size_t> membersOf(const std::vector<TrainParameter> &parameters, bool matrices)
    {
        std::vector<std::size_t> members;
        for (std::size_t p = 0; p < parameters.size(); ++p) {
            const auto axes = parameters[p].value.dim();
            if ((parameters[p].hiddenMatrix && (axes == 2 || axes == 3)) == matrices)
                members.push_back(p);
        }
        return members;
    }

    void stepMatrices(std::size_t member, const torch::Tensor &gradient, double rate, double scale)
    {
        const TrainParameter &parameter = m_parameters[m_members[member]];
        const torch::Tensor &value = parameter.value;
        const std::int64_t rows = value.size(-2), columns = value.size(-1);
        const auto blocks = blocksOf({value.numel()});
        torch::Tensor update = torch::empty(value.sizes(), torch::kFloat32);
        float *u = update.data_ptr<float>(), *m = m_momentum[member].data_ptr<float>(), *p = value.data_ptr<float>();
        const float *g = gradient.const_data_ptr<float>();
        overBlocks(blocks, [&](const Block &block, std::size_t) {
            kernels::nesterov(u + block.begin, g + block.begin, m + block.begin, block.end - block.begin, static_cast<float>(scale),
                              static_cast<float>(m_options.momentum));
        });
        update = orthogonalised(update.view({-1, rows, columns})).contiguous();
        u = update.data_ptr<float>();
        // An orthonormal matrix has rms 1/√max(rows, columns); AdamW's updates have about 0.2 (Liu et al. 2025, section 2.2).
        const double adjusted = rate * 0.2 * std::sqrt(static_cast<double>(std::max(rows, columns)));
        const float decay = parameter.decays ? static_cast<float>(rate * m_options.weightDecay) : 0.0f;
        overBlocks(blocks, [&](const Block &block, std::size_t) {
            kernels::decayAndStep(p + block.begin, u + block.begin, block.end - block.begin, decay, static_cast<float>(adjusted));
        });
    }

    OptimizerOptions m_options;
    AdamWPart m_rest;
    std::vector<std::size_t> m_members;
    std::vector<torch::Tensor> m_momentum;
};

} // namespace

std::unique_ptr<Optimizer> makeMuon(std::vector<TrainParameter> parameters, const OptimizerOptions &options)
{
    return std::make_unique<Muon>(std::move(parameters), options);
}

} // namespace spectra
