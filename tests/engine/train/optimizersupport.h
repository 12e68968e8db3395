// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/parallel.h"
#include "engine/core/random.h"
#include "engine/train/optimizer.h"
#include "tests/engine/model/support.h"

#include <gtest/gtest.h>

#include <array>
#include <map>
#include <string>
#include <vector>

namespace spectra::test {

/// Sets the number of threads and puts it back.
class Threads {
public:
    explicit Threads(int threads) : m_before(threadCount())
    {
        setThreadCount(threads);
        at::set_num_threads(threads);
    }
    ~Threads()
    {
        setThreadCount(m_before);
        at::set_num_threads(m_before);
    }
    Threads(const Threads &) = delete;
    Threads &operator=(const Threads &) = delete;

private:
    int m_before;
};

/// What tests/fixtures/train/make_optimizers.py wrote.
inline const std::map<std::string, torch::Tensor> &optimizerFixture()
{
    static const auto tensors = readExpected(std::filesystem::path(SPECTRA_TEST_DIR) / "fixtures" / "train" / "optimizers.safetensors");
    return tensors;
}

inline TrainParameter parameter(const std::string &name, torch::Tensor value, ParameterGroup group, bool decays = true, bool hidden = false)
{
    TrainParameter p;
    p.name = name;
    p.value = std::move(value).requires_grad_();
    p.group = group;
    p.decays = decays;
    p.hiddenMatrix = hidden;
    return p;
}

/// The parameters of the fixture as they were before the first step.
inline std::vector<TrainParameter> fixtureParameters()
{
    const auto start = [](const std::string &name) { return optimizerFixture().at("start." + name).clone(); };
    return {parameter("router.weight", start("router.weight"), ParameterGroup::router),
            parameter("experts.gate_up", start("experts.gate_up"), ParameterGroup::experts, true, true),
            parameter("attention.weight", start("attention.weight"), ParameterGroup::other, true, true),
            parameter("down.weight", start("down.weight"), ParameterGroup::other, true, true),
            parameter("norm.weight", start("norm.weight"), ParameterGroup::other, false)};
}

inline constexpr int kFixtureSteps = 20;

/// Steps [begin, end) of the fixture.
inline void fixtureSteps(Optimizer &optimizer, const std::vector<TrainParameter> &parameters, int begin, int end)
{
    constexpr std::array<double, 4> scale = {1, 0.5, 0.25, 1};
    const auto rates = optimizerFixture().at("rates").accessor<float, 2>();
    for (int step = begin; step < end; ++step) {
        for (const TrainParameter &p : parameters)
            torch::Tensor(p.value).mutable_grad() = optimizerFixture().at("gradient." + p.name)[step].clone();
        optimizer.step({rates[step][0], rates[step][1], rates[step][2]}, scale[static_cast<std::size_t>(step % 4)]);
    }
}

/// Largest difference over the largest value.
inline double relativeDifference(const torch::Tensor &a, const torch::Tensor &b)
{
    const auto x = a.detach().to(torch::kFloat64), y = b.detach().to(torch::kFloat64);
    return ((x - y).abs().max() / y.abs().max()).item<double>();
}

inline std::unique_ptr<Optimizer> optimizerOf(const std::vector<TrainParameter> &parameters, const OptimizerOptions &options = {})
{
    auto result = makeOptimizer(parameters, options);
    if (!result) {
        ADD_FAILURE() << result.error().what << ": " << result.error().where;
        return nullptr;
    }
    return std::move(*result);
}

} // namespace spectra::test
