// SPDX-License-Identifier: GPL-3.0-or-later
// Training in several processes: two threads that meet in a collective, each with half of the batch, against one with the whole: SPECTRA,
// and the losses of other routers that are formed over all processes.
#include "engine/router/router.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <barrier>
#include <cmath>
#include <map>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

namespace spectra {
namespace {

/// What the "processes" share.
struct Meeting {
    explicit Meeting(int processes) : barrier(processes), slots(static_cast<std::size_t>(processes)) {}
    std::barrier<> barrier;
    std::vector<torch::Tensor> slots;
};

class ThreadCollective : public Collective {
public:
    ThreadCollective(Meeting &meeting, int rank) : m_meeting(meeting), m_rank(rank) {}
    int rank() const override { return m_rank; }
    int size() const override { return static_cast<int>(m_meeting.slots.size()); }
    void sumInPlace(torch::Tensor &t) override
    {
        ++calls;
        ASSERT_TRUE(t.is_contiguous() && t.device().is_cpu());
        m_meeting.slots[static_cast<std::size_t>(m_rank)] = t.detach().clone();
        m_meeting.barrier.arrive_and_wait();
        torch::Tensor sum = m_meeting.slots[0].clone();
        for (std::size_t p = 1; p < m_meeting.slots.size(); ++p) {
            ASSERT_EQ(sum.sizes(), m_meeting.slots[p].sizes()) << "the processes are in different places";
            sum += m_meeting.slots[p];
        }
        m_meeting.barrier.arrive_and_wait();
        const torch::NoGradGuard noGrad;
        t.copy_(sum);
    }
    void broadcast(torch::Tensor &t) override
    {
        if (m_rank == 0)
            m_meeting.slots[0] = t.clone();
        m_meeting.barrier.arrive_and_wait();
        const torch::NoGradGuard noGrad;
        t.copy_(m_meeting.slots[0]);
        m_meeting.barrier.arrive_and_wait();
    }
    int calls = 0;

private:
    Meeting &m_meeting;
    int m_rank;
};

constexpr int kLayers = 2;
constexpr std::int64_t kHidden = 12, kLength = 9;

std::unique_ptr<Router> routerFor(std::vector<std::string> settings)
{
    settings.insert(settings.begin(), {"router_dim=4", "router_jitter_noise=0", "sinkhorn_epsilon=0.3", "sinkhorn_iterations=5", "ortho_loss_coef=0.5"});
    auto made = makeRouter(*applyRouterSettings(*defaultRouterOptions("spectra"), settings, false), {kHidden, 4, 2, {0, 1}}, 7);
    EXPECT_TRUE(made.ok());
    return std::move(*made);
}

struct Outcome {
    double loss = 0;
    std::map<std::string, double> terms;
    std::map<std::string, torch::Tensor> gradients, buffers;
    std::vector<torch::Tensor> probabilities;
    std::vector<double> violations;
};

/// One step on sequences first..last of the batch. `share` scales the task part to a mean over all processes' tokens.
Outcome train(std::vector<std::string> settings, const std::vector<torch::Tensor> &x, const torch::Tensor &mask, std::int64_t first, std::int64_t last,
              Collective *collective)
{
    const auto router = routerFor(std::move(settings));
    RouterState state;
    Outcome out;
    torch::Tensor loss = torch::zeros({});
    const std::int64_t begin = first * kLength, end = last * kLength;
    for (int layer = 0; layer < kLayers; ++layer) {
        RouterInput input;
        input.x = x[static_cast<std::size_t>(layer)].slice(0, begin, end);
        for (std::int64_t s = first; s <= last; ++s)
            input.offsets.push_back((s - first) * kLength);
        if (mask.defined())
            input.mask = mask.slice(0, begin, end);
        input.layer = layer;
        input.layers = kLayers;
        input.training = true;
        input.collective = collective;
        const auto step = router->route(input, state, Capture::minimal());
        // a mean over equally many tokens everywhere, as a language model's loss is
        const auto target = torch::sin(torch::arange(begin, end).unsqueeze(1) * torch::linspace(0.1, 1, 4));
        loss = loss + ((step.probabilities - target).square().sum() + step.weights.square().sum()) / static_cast<double>(end - begin);
        for (const auto &[name, term] : step.losses) {
            loss = loss + term;
            out.terms[name] += term.item<double>();
        }
        out.probabilities.push_back(step.probabilities.detach());
        out.violations.push_back(step.violation);
    }
    loss.backward();
    router->afterOptimizerStep({});
    out.loss = loss.item<double>();
    for (const auto &[name, tensor] : router->parameters())
        if (tensor.grad().defined())
            out.gradients[name] = tensor.grad().clone();
    for (const auto &[name, tensor] : router->buffers())
        out.buffers[name] = tensor.clone();
    return out;
}

void compare(const std::vector<std::string> &settings, const torch::Tensor &mask)
{
    std::string what;
    for (const auto &s : settings)
        what += s + " ";
    if (mask.defined())
        what += "masked";
    SCOPED_TRACE(what);
    torch::manual_seed(3);
    const std::vector<torch::Tensor> x = {torch::randn({4 * kLength, kHidden}), torch::randn({4 * kLength, kHidden}) + 0.3};
    const Outcome whole = train(settings, x, mask, 0, 4, nullptr);

    Meeting meeting(2);
    Outcome halves[2];
    int calls[2] = {};
    {
        std::vector<std::jthread> threads;
        for (int p = 0; p < 2; ++p)
            threads.emplace_back([&, p] {
                ThreadCollective collective(meeting, p);
                halves[p] = train(settings, x, mask, 2 * p, 2 * p + 2, &collective);
                calls[p] = collective.calls;
            });
    }
    EXPECT_GT(calls[0], 0);
    EXPECT_EQ(calls[0], calls[1]);
    EXPECT_NEAR((halves[0].loss + halves[1].loss) / 2, whole.loss, 1e-5 * std::abs(whole.loss));
    for (const auto &[name, term] : whole.terms)
        EXPECT_NEAR((halves[0].terms[name] + halves[1].terms[name]) / 2, term, 1e-5 * std::abs(term)) << name;
    ASSERT_FALSE(whole.gradients.empty());
    for (const auto &[name, gradient] : whole.gradients) {
        ASSERT_TRUE(halves[0].gradients.contains(name) && halves[1].gradients.contains(name)) << name;
        const auto mean = (halves[0].gradients[name] + halves[1].gradients[name]) / 2;
        EXPECT_LT((mean - gradient).abs().max().item<double>(), 1e-5 * gradient.abs().max().item<double>() + 1e-8) << name;
    }
    for (const auto &[name, buffer] : whole.buffers) {
        EXPECT_TRUE(torch::equal(halves[0].buffers[name], halves[1].buffers[name])) << name << ": the same in every process";
        EXPECT_LT((halves[0].buffers[name] - buffer).abs().max().item<double>(), 1e-6 + 1e-5 * buffer.abs().max().item<double>()) << name;
    }
    for (std::size_t layer = 0; layer < kLayers; ++layer) {
        const auto joined = torch::cat({halves[0].probabilities[layer], halves[1].probabilities[layer]});
        EXPECT_LT((joined - whole.probabilities[layer]).abs().max().item<double>(), 1e-5);
        EXPECT_NEAR(std::max(halves[0].violations[layer], halves[1].violations[layer]), whole.violations[layer], 1e-5);
    }
}

TEST(SpectraProcesses, LossesGradientsAndAveragesEqualOneProcess)
{
    const std::vector<std::vector<std::string>> cases = {
        {"train_sinkhorn_scope=sequence"},
        {"train_sinkhorn_scope=batch", "expert_choice_routing=false"},
        {"train_sinkhorn_scope=batch", "expert_choice_routing=false", "gru_axis=grid"},
        {"train_sinkhorn_scope=batch", "expert_choice_routing=false", "log_sinkhorn_enabled=false"},
        {"train_sinkhorn_scope=batch", "expert_choice_routing=false", "expression=learned"},
        {"train_sinkhorn_scope=batch", "expert_choice_routing=false", "scoring=domain"},
        {"train_sinkhorn_scope=batch", "expert_choice_routing=false", "scoring=domain", "speciality_penalty=per_expert"},
        {"train_sinkhorn_scope=sequence", "expert_choice_routing=false", "scoring=domain"},
        {"train_sinkhorn_scope=causal", "expert_choice_routing=false"},
        {"train_sinkhorn_scope=none", "expert_choice_routing=false", "capacity=dynamic"},
        {"train_sinkhorn_scope=batch", "expert_choice_routing=false", "sequential_loss_coef=0.2", "causal_potential=dual"},
    };
    for (auto settings : cases) {
        if (settings[0] == "train_sinkhorn_scope=sequence")
            settings.push_back("expert_choice_routing=false"); // a quota is each process's own
        compare(settings, {});
        auto mask = torch::ones({4 * kLength}, torch::kBool);
        mask.slice(0, 3, 8).fill_(false); // unequal counts in the two processes
        compare(settings, mask);
    }
}

TEST(SpectraProcesses, AProcessWhoseRowsAllAreMaskedStillMeetsTheOthers)
{
    auto mask = torch::ones({4 * kLength}, torch::kBool);
    mask.slice(0, 0, 2 * kLength).fill_(false);
    for (const auto &scope : {"batch", "sequence"})
        for (const auto &scoring : {"osr", "domain"})
            compare({std::string("train_sinkhorn_scope=") + scope, std::string("scoring=") + scoring, "expert_choice_routing=false"}, mask);
}

TEST(SpectraProcesses, WithoutASecondProcessNothingIsSummed)
{
    Meeting meeting(1);
    ThreadCollective alone(meeting, 0);
    torch::manual_seed(3);
    const std::vector<torch::Tensor> x = {torch::randn({2 * kLength, kHidden}), torch::randn({2 * kLength, kHidden})};
    const auto with = train({}, x, {}, 0, 2, &alone), without = train({}, x, {}, 0, 2, nullptr);
    EXPECT_EQ(alone.calls, 0);
    EXPECT_EQ(with.loss, without.loss);
}

struct Losses {
    std::map<std::string, double> values;
    std::map<std::string, torch::Tensor> gradients;
};

/// The named losses of two micro-batches, rows begin..end of each, and their gradients.
Losses lossesOf(const std::string &options, std::int64_t k, const std::vector<std::string> &names, const std::vector<torch::Tensor> &x, const torch::Tensor &ids,
                std::int64_t begin, std::int64_t end, Collective *collective)
{
    auto made = makeRouter(options, {kHidden, 4, k, {0}, 20}, 7);
    EXPECT_TRUE(made.ok());
    Losses out;
    torch::Tensor sum = torch::zeros({});
    for (const torch::Tensor &rows : x) {
        RouterInput input;
        input.x = 20 * rows.slice(0, begin, end); // fresh scores are near 0
        input.tokenIds = ids.slice(0, begin, end);
        input.offsets = {0, end - begin};
        input.training = true;
        input.collective = collective;
        RouterState state;
        const auto step = (*made)->route(input, state, Capture::minimal());
        for (const std::string &name : names) {
            sum = sum + step.losses.at(name);
            out.values[name] += step.losses.at(name).item<double>();
        }
    }
    sum.backward();
    for (const auto &[name, tensor] : (*made)->parameters())
        if (tensor.grad().defined())
            out.gradients[name] = tensor.grad().clone();
    return out;
}

TEST(RouterProcesses, LossesOverAllTokensEqualOneProcess)
{
    torch::manual_seed(12);
    const std::int64_t n = 4 * kLength;
    std::vector<torch::Tensor> x = {torch::randn({n, kHidden}), torch::randn({n, kHidden})};
    const auto lean = torch::randn({1, kHidden});
    for (torch::Tensor &rows : x) { // the two processes see different kinds of tokens
        rows.slice(0, 0, n / 2) += lean;
        rows.slice(0, n / 2) -= lean;
    }
    const auto ids = torch::arange(n) % 20;
    const std::vector<std::tuple<std::string, std::int64_t, std::vector<std::string>>> cases = {
        {R"({"type":"qwen3_moe"})", 2, {"global_balance"}},
        {R"({"type":"stablemoe","capacity_factor":0})", 1, {"balance", "distill"}},
        {R"({"type":"expert_specialization","rescaling":"none","ortho_loss_coef":0})", 2, {"variance"}},
    };
    for (const auto &[options, k, names] : cases) {
        SCOPED_TRACE(options);
        const Losses whole = lossesOf(options, k, names, x, ids, 0, n, nullptr);
        Meeting meeting(2);
        Losses halves[2];
        {
            std::vector<std::jthread> threads;
            for (int p = 0; p < 2; ++p)
                threads.emplace_back([&, p, &o = options, &top = k, &wanted = names] {
                    ThreadCollective collective(meeting, p);
                    halves[p] = lossesOf(o, top, wanted, x, ids, p * n / 2, (p + 1) * n / 2, &collective);
                });
        }
        for (const auto &[name, value] : whole.values)
            EXPECT_NEAR((halves[0].values[name] + halves[1].values[name]) / 2, value, 1e-5 * std::abs(value)) << name;
        ASSERT_FALSE(whole.gradients.empty());
        for (const auto &[name, gradient] : whole.gradients) {
            ASSERT_TRUE(halves[0].gradients.contains(name) && halves[1].gradients.contains(name)) << name;
            const auto mean = (halves[0].gradients[name] + halves[1].gradients[name]) / 2;
            EXPECT_LT((mean - gradient).abs().max().item<double>(), 1e-5 * gradient.abs().max().item<double>() + 1e-8) << name;
        }
    }
}

} // namespace
} // namespace spectra
