// SPDX-License-Identifier: GPL-3.0-or-later
// Every intermediate quantity of the SPECTRA rule against an independent double-precision reference, for both ways through the router.
#include "tests/engine/router/spectrafixture.h"

#include "engine/router/spectratensors.h"
#include "engine/rule/kernels.h"
#include "engine/rule/osr.h"

#include <gtest/gtest.h>

namespace spectra {
namespace {

using test::SpectraFixture;

constexpr double kTolerance = 1e-5;

double distance(const torch::Tensor &a, const torch::Tensor &b)
{
    if (a.numel() == 0)
        return 0;
    return (a.detach().to(torch::kFloat64).reshape(b.sizes()) - b.to(torch::kFloat64)).abs().max().item<double>();
}

class Parity : public testing::Test {
protected:
    void check(const std::string &what, const torch::Tensor &got, const torch::Tensor &expected)
    {
        ASSERT_TRUE(got.defined()) << what;
        ASSERT_EQ(got.numel(), expected.numel()) << what;
        const double d = distance(got, expected);
        EXPECT_LE(d, kTolerance) << what;
        m_worst = std::max(m_worst, d);
    }

    /// Experts and weights, in rows whose k-th and next best are apart by more than rounding.
    void checkSelection(const RoutingStep &step, const torch::Tensor &q, const torch::Tensor &experts, const torch::Tensor &weights, bool clearRowsOnly)
    {
        const std::int64_t k = experts.size(1), e = q.size(1);
        std::int64_t compared = 0;
        for (std::int64_t t = 0; t < q.size(0); ++t) {
            const auto sorted = std::get<0>(torch::sort(q[t], -1, true));
            bool clear = true;
            for (std::int64_t i = 0; i < k && i + 1 < e; ++i) // rounding is relative: a sharp Q has tiny runners-up
                clear = clear && sorted[i].item<double>() > 1e-30 && sorted[i + 1].item<double>() < (1 - 3e-4) * sorted[i].item<double>();
            if (clearRowsOnly && !clear)
                continue;
            ++compared;
            EXPECT_TRUE(torch::equal(step.experts[t], experts[t].to(torch::kInt64))) << "row " << t << " " << step.experts[t] << experts[t];
            EXPECT_LE(distance(step.weights[t], weights[t]), kTolerance) << "row " << t;
        }
        if (clearRowsOnly) {
            EXPECT_GE(compared * 10, q.size(0) * 7) << "too few rows with a clear choice";
        }
    }

    void runCase(const nlohmann::json &c, bool tensors)
    {
        SCOPED_TRACE(c["name"].get<std::string>() + (tensors ? " (tensors)" : " (kernels)"));
        const auto router = m_fixture.router(c);
        RouterState state;
        const bool training = c["training"];
        const bool literal = c["options"]["expression"] == "literal";
        for (int layer = 0; layer < static_cast<int>(c["x"].size()); ++layer) {
            SCOPED_TRACE("layer " + std::to_string(layer));
            const auto &expected = c["expected"][static_cast<std::size_t>(layer)];
            const auto want = [&](const char *key) { return m_fixture.tensor(expected[key]); };
            const auto input = m_fixture.input(c, layer);
            torch::AutoGradMode mode(tensors);
            auto capture = Capture::full();
            const auto step = router->route(input, state, capture);
            check("S", step.logits, want("S"));
            check("Q", step.probabilities, want("Q"));
            if (expected.contains("r")) {
                check("r", step.routingVectors, want("r"));
                check("e", step.expressionVectors, want("e"));
                check("h", step.gruState, want("r"));
            }
            if (expected.contains("C"))
                check("C", step.cost, want("C"));
            if (expected.contains("g")) {
                check("g", step.potentials, want("g"));
                EXPECT_NEAR(step.violation, want("violation").item<double>(), kTolerance);
            } else {
                EXPECT_LT(step.violation, 0);
            }
            if (!literal) // there all similarities tie
                checkSelection(step, want("Q"), want("experts"), want("weights"), !expected.contains("dropped"));
            if (expected.contains("dropped")) {
                check("dropped", step.dropped, want("dropped"));
                EXPECT_NEAR(step.fellBack, want("fell").item<double>(), 1e-6);
            }
            for (const char *loss : {"entropy", "ortho"}) {
                if (expected.contains(loss)) {
                    const auto value = want(loss).item<double>();
                    const double got = step.losses.contains(loss) ? step.losses.at(loss).item<double>() : 0.0;
                    EXPECT_NEAR(got, value, kTolerance * std::max(1.0, value)) << loss;
                } else {
                    EXPECT_FALSE(step.losses.contains(loss)) << loss;
                }
            }
        }
        if (!training || c["options"]["scoring"] == "linear")
            return;
        router->afterOptimizerStep({});
        const auto buffers = router->buffers();
        for (std::size_t layer = 0; layer < c["x"].size(); ++layer) {
            const std::string prefix = "model.layers." + std::to_string(c["moe_layers"][layer].get<int>()) + ".mlp.router.";
            const auto &expected = c["expected"][layer];
            check("mean after", buffers.at(prefix + "mean_expression"), m_fixture.tensor(expected["mean_after"]));
            if (expected.contains("potential_after"))
                check("potential after", buffers.at(prefix + "potential"), m_fixture.tensor(expected["potential_after"]));
            else if (buffers.contains(prefix + "potential"))
                check("potential unchanged", buffers.at(prefix + "potential"), m_fixture.tensor(c["tensors"][prefix + "potential"]));
            if (expected.contains("penalty_after"))
                check("penalty after", buffers.at(prefix + "speciality_penalty"), m_fixture.tensor(expected["penalty_after"]));
        }
    }

    SpectraFixture m_fixture;
    double m_worst = 0;
};

TEST_F(Parity, TensorFormEqualsTheReference)
{
    for (const auto &c : m_fixture.json()["cases"])
        runCase(c, true);
    RecordProperty("worst", std::to_string(m_worst));
    std::printf("worst difference %.2g\n", m_worst);
}

TEST_F(Parity, KernelsEqualTheReferenceOnEveryInstructionSet)
{
    int cases = 0;
    for (const rule::Level level : {rule::Level::v4, rule::Level::v3, rule::Level::baseline}) {
        rule::setLevel(level);
        for (const auto &c : m_fixture.json()["cases"])
            if (!c["training"]) {
                runCase(c, false);
                ++cases;
            }
    }
    rule::setLevel(rule::Level::v4);
    EXPECT_GT(cases, 100);
    std::printf("worst difference %.2g\n", m_worst);
}

TEST_F(Parity, GramAndRepulsionEqualTheReference)
{
    int compared = 0;
    for (const auto &c : m_fixture.json()["cases"])
        for (std::size_t layer = 0; layer < c["x"].size(); ++layer) {
            const auto &expected = c["expected"][layer];
            const std::string scope = c["options"][c["training"] ? "train_sinkhorn_scope" : "sinkhorn_scope"];
            if (!expected.contains("G") || scope == "sequence")
                continue;
            torch::Tensor mean;
            if (scope == "batch") {
                auto e = m_fixture.tensor(expected["e"]);
                if (c.contains("mask"))
                    e = e.index_select(0, (m_fixture.tensor(c["mask"]) > 0.5).nonzero().view({-1}));
                mean = e.to(torch::kFloat64).mean(0).to(torch::kFloat32);
            } else {
                mean = m_fixture.tensor(c["tensors"]["model.layers." + std::to_string(c["moe_layers"][layer].get<int>()) + ".mlp.router.mean_expression"]);
            }
            const std::int64_t e = mean.size(0);
            std::vector<float> g(static_cast<std::size_t>(e * e)), r(g.size());
            rule::gram({mean.data_ptr<float>(), static_cast<std::size_t>(mean.numel())}, e, mean.size(1), g);
            rule::repulsionMatrix(g, e, r);
            check("G", torch::tensor(g), m_fixture.tensor(expected["G"]));
            check("R", torch::tensor(r), m_fixture.tensor(expected["R"]));
            check("G of tensors", tensors::gram(mean), m_fixture.tensor(expected["G"]));
            check("R of tensors", tensors::repulsion(tensors::gram(mean)), m_fixture.tensor(expected["R"]));
            ++compared;
        }
    EXPECT_GT(compared, 40);
}

} // namespace
} // namespace spectra
