// SPDX-License-Identifier: GPL-3.0-or-later
// Training: gradients against finite differences, what they do not pass through, quota, jitter, running averages, schedules.
#include "engine/router/router.h"
#include "engine/router/spectraoptions.h"
#include "engine/router/spectratensors.h"

#include <gtest/gtest.h>

#include <cmath>

namespace spectra {
namespace {

namespace ts = tensors;

std::unique_ptr<Router> trained(std::vector<std::string> settings, std::int64_t hidden = 10, std::int64_t topK = 2)
{
    settings.insert(settings.begin(), {"router_dim=4", "router_jitter_noise=0"});
    auto router = makeRouter(*applyRouterSettings(*defaultRouterOptions("spectra"), settings, false), {hidden, 4, topK, {0, 1}}, 7);
    EXPECT_TRUE(router.ok());
    torch::manual_seed(1);
    for (const auto &[name, tensor] : (*router)->buffers())
        tensor.normal_();
    return std::move(*router);
}

RoutingStep routeOnce(Router &router, const torch::Tensor &x, RouterState &state, int layer, std::uint64_t seed = 0)
{
    RouterInput input;
    input.x = x;
    input.offsets = {0, 6, x.size(0)};
    input.layer = layer;
    input.layers = 2;
    input.training = true;
    input.seed = seed;
    return router.route(input, state, Capture::minimal());
}

/// A loss that reaches every output that training uses.
torch::Tensor lossOf(Router &router, const std::vector<torch::Tensor> &x)
{
    RouterState state;
    torch::Tensor loss = torch::zeros({});
    for (int layer = 0; layer < 2; ++layer) {
        const auto step = routeOnce(router, x[static_cast<std::size_t>(layer)], state, layer);
        loss = loss + (step.probabilities * torch::linspace(0, 1, step.probabilities.numel()).view_as(step.probabilities)).sum() + step.weights.square().sum();
        for (const auto &[name, term] : step.losses)
            loss = loss + 10 * term;
    }
    return loss;
}

TEST(SpectraTraining, GradientsEqualFiniteDifferences)
{
    const std::vector<std::vector<std::string>> cases = {
        {},
        {"train_sinkhorn_scope=sequence", "gru_axis=grid"},
        {"train_sinkhorn_scope=causal", "gru_axis=depth"},
        {"train_sinkhorn_scope=none", "gru_axis=carry"},
        {"log_sinkhorn_enabled=false"},
        {"expression=learned"},
        {"sequential=linear"},
        {"scoring=domain"},
        {"scoring=domain", "speciality_penalty=per_expert"},
        {"scoring=linear"},
        {"projector_orthogonalization=qr"},
        {"projector_orthogonalization=svd"},
        {"projector_orthogonalization=newton_schulz"},
        {"ortho_loss_on=projector"},
        {"sequential_loss_coef=0.1"},
        {"sequential_loss_coef=0.1", "train_sinkhorn_scope=sequence"},
    };
    for (auto settings : cases) {
        settings.insert(settings.end(), {"sinkhorn_epsilon=0.5", "expert_choice_routing=false"});
        std::string what;
        for (const auto &s : settings)
            what += s + " ";
        const auto router = trained(settings, 10, 4); // all experts chosen: weights have no kink where a choice flips
        torch::manual_seed(5);
        // In double, so that a difference quotient can be told from a wrong gradient.
        for (auto &&tensors : {router->parameters(), router->buffers()})
            for (const auto &[name, tensor] : tensors)
                tensor.set_data(tensor.detach().to(torch::kFloat64));
        const std::vector<torch::Tensor> x = {torch::randn({11, 10}, torch::kFloat64), torch::randn({11, 10}, torch::kFloat64)};
        lossOf(*router, x).backward();
        int compared = 0;
        for (const auto &[name, tensor] : router->parameters()) {
            if (!tensor.grad().defined())
                continue; // the other layer's copy of a shared tensor has none
            const auto gradient = tensor.grad().clone();
            const auto direction = torch::randn_like(tensor);
            const double analytic = (gradient * direction).sum().item<double>();
            const auto kept = tensor.detach().clone();
            const auto at = [&](double step) {
                {
                    const torch::NoGradGuard noGrad;
                    tensor.copy_(kept + step * direction);
                }
                return lossOf(*router, x).item<double>();
            };
            const double h = 1e-3;
            const double numeric = (8 * (at(h / 2) - at(-h / 2)) - (at(h) - at(-h))) / (6 * h);
            {
                const torch::NoGradGuard noGrad;
                tensor.copy_(kept);
            }
            const double scale = gradient.norm().item<double>() + 1e-3;
            EXPECT_LT(std::abs(numeric - analytic) / scale, 1e-3) << what << name << ": " << analytic;
            ++compared;
        }
        EXPECT_GT(compared, 0) << what;
    }
}

TEST(SpectraTraining, GradientsReachEveryParameterOfTheDefaultRouterAndNoBuffer)
{
    const auto router = trained({});
    const std::vector<torch::Tensor> x = {torch::randn({11, 10}), torch::randn({11, 10})};
    lossOf(*router, x).backward();
    for (const auto &[name, tensor] : router->parameters()) {
        ASSERT_TRUE(tensor.grad().defined()) << name;
        EXPECT_GT(tensor.grad().abs().sum().item<double>(), 0) << name;
        EXPECT_TRUE(torch::isfinite(tensor.grad()).all().item<bool>()) << name;
    }
    for (const auto &[name, tensor] : router->buffers())
        EXPECT_FALSE(tensor.requires_grad()) << name;
}

TEST(SpectraTraining, AnOrthogonalProjectorHasFiniteGradients)
{
    // the fresh projector's singular values all coincide, where the decomposition's own gradient is infinite
    for (const char *form : {"svd", "qr", "newton_schulz"}) {
        const auto router = trained({std::string("projector_orthogonalization=") + form}, 40);
        const std::vector<torch::Tensor> x = {torch::randn({11, 40}), torch::randn({11, 40})};
        lossOf(*router, x).backward();
        for (const auto &[name, tensor] : router->parameters())
            EXPECT_TRUE(torch::isfinite(tensor.grad()).all().item<bool>()) << form << " " << name;
    }
}

TEST(SpectraTraining, OrthogonalisationMakesOrthogonal)
{
    torch::manual_seed(3);
    for (const auto &[rows, columns] : std::vector<std::pair<int, int>>{{12, 40}, {40, 12}, {20, 20}})
        for (const char *form : {"qr", "svd", "newton_schulz"}) {
            auto w = ts::orthogonalized(torch::randn({rows, columns}), "qr", 0);
            w = w + 0.1 * torch::randn({rows, columns}) / std::sqrt(static_cast<double>(std::max(rows, columns))); // as a training step leaves it
            const auto o = ts::orthogonalized(w, form, 8);
            const auto product = rows <= columns ? o.matmul(o.t()) : o.t().matmul(o);
            EXPECT_LT((product - torch::eye(product.size(0))).abs().max().item<double>(), 1e-4) << form << " " << rows << "x" << columns;
        }
}

TEST(SpectraTraining, JitterIsSeededAndOfItsSize)
{
    const auto router = trained({"router_jitter_noise=0.2"});
    const auto x = torch::randn({11, 10});
    RouterState a, b, c;
    const auto one = routeOnce(*router, x, a, 0, 1), same = routeOnce(*router, x, b, 0, 1), other = routeOnce(*router, x, c, 0, 2);
    EXPECT_TRUE(torch::equal(one.logits, same.logits));
    EXPECT_FALSE(torch::equal(one.logits, other.logits));
    EXPECT_LT((one.logits - other.logits).abs().max().item<double>(), 0.8);
}

TEST(SpectraTraining, RunningAveragesMoveOncePerOptimiserStep)
{
    const auto router = trained({"causal_ema=0.9"});
    const auto before = router->buffers();
    std::map<std::string, torch::Tensor> kept;
    for (const auto &[name, tensor] : before)
        kept[name] = tensor.clone();
    const auto x = torch::randn({11, 10});
    RouterState state;
    const auto step = routeOnce(*router, x, state, 0);
    for (const auto &[name, tensor] : router->buffers())
        EXPECT_TRUE(torch::equal(tensor, kept.at(name))) << "not before the optimiser's step: " << name;
    const auto mean = step.expressionVectors.detach().mean(0);
    RouterState second;
    (void)routeOnce(*router, x, second, 0); // a second micro-batch of the same step
    router->afterOptimizerStep({});
    const auto &got = router->buffers().at("model.layers.0.mlp.router.mean_expression");
    EXPECT_LT((got - (0.9 * kept.at("model.layers.0.mlp.router.mean_expression") + 0.1 * mean)).abs().max().item<double>(), 1e-6);
    const auto &potential = router->buffers().at("model.layers.0.mlp.router.potential");
    EXPECT_LT((potential - (0.9 * kept.at("model.layers.0.mlp.router.potential") + 0.1 * step.potentials)).abs().max().item<double>(), 1e-5);
    EXPECT_NEAR(step.potentials.sum().item<double>(), 0, 1e-4) << "normalised to mean 0";
    EXPECT_TRUE(torch::equal(router->buffers().at("model.layers.1.mlp.router.potential"), kept.at("model.layers.1.mlp.router.potential")))
        << "a layer without a batch keeps its averages";
    router->afterOptimizerStep({});
    EXPECT_LT((got - router->buffers().at("model.layers.0.mlp.router.mean_expression")).abs().max().item<double>(), 1e-12) << "and once only";
}

TEST(SpectraTraining, OrthoCoefficientWarmsUpAndIsCapped)
{
    const auto x = torch::randn({11, 10});
    const auto ortho = [&](Router &router) {
        RouterState state;
        const auto step = routeOnce(router, x, state, 0);
        return step.losses.contains("ortho") ? step.losses.at("ortho").item<double>() : 0.0;
    };
    const auto full = trained({"ortho_loss_coef=0.4"}), warm = trained({"ortho_loss_coef=0.4", "so_warmup_steps=4"}),
               capped = trained({"ortho_loss_coef=0.4", "so_lambda_max=0.1"});
    const double whole = ortho(*full);
    EXPECT_GT(whole, 0);
    EXPECT_EQ(ortho(*warm), 0);
    warm->afterOptimizerStep({});
    EXPECT_NEAR(ortho(*warm), whole / 4, 1e-5);
    warm->setTrainingStep(100);
    EXPECT_NEAR(ortho(*warm), whole, 1e-5);
    EXPECT_NEAR(ortho(*capped), whole / 4, 1e-5);
}

TEST(SpectraTraining, QuotaHoldsInTrainingAndIsOffAtInference)
{
    const auto router = trained({"expert_choice_capacity_factor=0.5"});
    const auto x = torch::randn({40, 10});
    RouterState state;
    const auto step = routeOnce(*router, x, state, 0);
    ASSERT_TRUE(step.dropped.defined());
    const auto taken = step.experts.masked_select(step.experts >= 0);
    EXPECT_EQ(taken.numel() + step.dropped.sum().item<std::int64_t>(), 80);
    EXPECT_LE(torch::bincount(taken, {}, 4).max().item<std::int64_t>(), 10);
    EXPECT_GT(step.fellBack, 0);
    RouterInput input;
    input.x = x;
    input.offsets = {0, 40};
    input.layers = 2;
    const torch::NoGradGuard noGrad;
    RouterState fresh;
    const auto inference = router->route(input, fresh, Capture::minimal());
    EXPECT_FALSE(inference.dropped.defined());
    EXPECT_TRUE((inference.experts >= 0).all().item<bool>());
}

TEST(SoftmaxTopK, IsMixtralsRouterWithItsLoss)
{
    const RouterShape shape{6, 4, 2, {0}};
    const auto made = makeRouter(R"({"type":"softmax_topk","router_aux_loss_coef":0.5})", shape, 1);
    ASSERT_TRUE(made.ok());
    const auto w = (*made)->linearWeights(0);
    const auto x = torch::randn({30, 6});
    RouterInput input;
    input.x = x;
    input.offsets = {0, 30};
    RouterState state;
    {
        const torch::NoGradGuard noGrad;
        const auto step = (*made)->route(input, state, Capture::standard());
        const auto p = torch::softmax(x.matmul(w.t()), -1);
        const auto [top, index] = torch::topk(p, 2);
        EXPECT_LT((step.probabilities - p).abs().max().item<double>(), 1e-6);
        EXPECT_TRUE(torch::equal(step.experts, index));
        EXPECT_LT((step.weights - top / top.sum(-1, true)).abs().max().item<double>(), 1e-6);
    }
    input.training = true;
    const auto step = (*made)->route(input, state, Capture::standard());
    const auto chosen = torch::one_hot(step.experts, 4).to(torch::kFloat32); // [N,k,E]
    const auto expected = 0.5 * 4 * (chosen.mean(0) * step.probabilities.mean(0).unsqueeze(0)).sum();
    EXPECT_NEAR(step.losses.at("balance").item<double>(), expected.item<double>(), 1e-5);
    step.losses.at("balance").backward();
    EXPECT_GT(w.grad().abs().sum().item<double>(), 0);
}

} // namespace
} // namespace spectra
