// SPDX-License-Identifier: GPL-3.0-or-later
// The fused OSR chain: values and gradients equal the composition of torch's operations in double precision.
#include "engine/core/parallel.h"
#include "engine/router/osrfunction.h"
#include "engine/router/spectratensors.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <string>
#include <vector>

namespace spectra {
namespace {

namespace ts = tensors;
using List = std::vector<torch::Tensor>;

/// Largest difference relative to the largest entry.
double distance(const torch::Tensor &a, const torch::Tensor &b)
{
    if (a.numel() == 0)
        return 0;
    const auto x = a.to(torch::kFloat64), y = b.to(torch::kFloat64);
    return ((x - y).abs().max() / (y.abs().max() + 1e-9)).item<double>();
}

List leaves(const List &values, torch::Dtype type)
{
    List list;
    for (const auto &v : values)
        list.push_back(v.to(torch::kFloat32).to(type).requires_grad_(true)); // the same numbers in both precisions
    return list;
}

/// Value and gradients of a random linear function of f's result.
template <typename F> List differentiate(const List &x, const F &f)
{
    const auto y = f(x);
    torch::manual_seed(11);
    const auto weight = torch::randn(y.sizes(), torch::kFloat64).to(torch::kFloat32).to(y.scalar_type());
    List out = torch::autograd::grad({(y * weight).sum()}, x);
    out.insert(out.begin(), y.detach());
    return out;
}

template <typename F, typename G> void expectEqual(const List &values, const F &fused, const G &exact, double tolerance, const std::string &what)
{
    const auto got = differentiate(leaves(values, torch::kFloat32), fused), want = differentiate(leaves(values, torch::kFloat64), exact);
    for (std::size_t i = 0; i < got.size(); ++i)
        EXPECT_LT(distance(got[i], want[i]), tolerance) << what << (i == 0 ? " value" : " gradient " + std::to_string(i));
}

torch::Tensor normal(std::vector<std::int64_t> shape)
{
    return torch::randn(shape, torch::kFloat64);
}

TEST(SpectraOsr, SimilarityEqualsTheComposition)
{
    torch::manual_seed(1);
    for (const auto &[n, e, d] : std::vector<std::array<std::int64_t, 3>>{{70, 8, 32}, {1500, 3, 5}, {1, 2, 40}, {33, 64, 17}})
        for (const bool shared : {false, true})
            expectEqual({normal({n, e, d}), normal({shared ? 1 : n, e, d})}, [](const List &x) { return ts::fusedSimilarity(x[0], x[1]); },
                        [](const List &x) { return ts::composed::similarity(x[0], x[1]); }, 1e-5,
                        std::to_string(n) + "x" + std::to_string(e) + "x" + std::to_string(d) + (shared ? " shared" : ""));
}

TEST(SpectraOsr, SimilarityBelowItsFloor)
{
    torch::manual_seed(2);
    auto r = normal({6, 2, 8}), e = normal({6, 2, 8});
    r[0].zero_();
    r[1].mul_(1e-10);
    e[2].mul_(1e-9);
    const auto got = differentiate(leaves({r, e}, torch::kFloat32), [](const List &x) { return ts::fusedSimilarity(x[0], x[1]); });
    const auto want = differentiate(leaves({r, e}, torch::kFloat64), [](const List &x) { return ts::composed::similarity(x[0], x[1]); });
    for (std::size_t i = 0; i < got.size(); ++i)
        for (int row = 0; row < 6; ++row)
            EXPECT_LT(distance(got[i][row], want[i][row]), 1e-5) << "row " << row << " of " << i;
}

TEST(SpectraOsr, CostEqualsTheComposition)
{
    torch::manual_seed(3);
    for (const auto &[n, e] : std::vector<std::pair<std::int64_t, std::int64_t>>{{70, 8}, {2100, 5}, {1, 2}, {40, 64}}) {
        auto s = torch::rand({n, e}, torch::kFloat64) * 2 - 1;
        s[0][0] = 0; // the corner of |S|
        expectEqual({s, torch::rand({e, e}, torch::kFloat64)}, [](const List &x) { return ts::fusedOsrCost(x[0], x[1], 0.5, 0.7, 0.6); },
                    [](const List &x) { return ts::composed::osrCost(x[0], x[1], 0.5, 0.7, 0.6); }, 1e-5, std::to_string(n) + "x" + std::to_string(e));
    }
}

TEST(SpectraOsr, PotentialsEqualTheComposition)
{
    torch::manual_seed(4);
    for (const auto &[n, e] : std::vector<std::pair<std::int64_t, std::int64_t>>{{70, 8}, {2100, 5}, {1, 2}, {40, 64}, {31, 3}})
        for (const double epsilon : {0.5, 0.1})
            for (const int iterations : {1, 3, 8}) {
                const auto bias = torch::linspace(0, 0.5, e, torch::kFloat64); // unbalanced, so that the potentials are not small
                expectEqual({torch::rand({n, e}, torch::kFloat64) + bias},
                            [&](const List &x) { return ts::fusedSinkhornPotential(x[0], epsilon, iterations, static_cast<double>(n), nullptr); },
                            [&](const List &x) { return ts::composed::sinkhornPotential(x[0], epsilon, iterations, true); }, 2e-5,
                            std::to_string(n) + "x" + std::to_string(e) + " epsilon " + std::to_string(epsilon) + " x" + std::to_string(iterations));
            }
}

TEST(SpectraOsr, PotentialsWhereEveryTermOfAColumnUnderflows)
{
    torch::manual_seed(5);
    auto cost = torch::rand({50, 4}, torch::kFloat64);
    cost.select(1, 2) += 3; // exp(-300) beside its row's largest
    const auto fused = [](const List &x) { return ts::fusedSinkhornPotential(x[0], 0.01, 3, 50, nullptr); };
    const auto exact = [](const List &x) { return ts::composed::sinkhornPotential(x[0], 0.01, 3, true); };
    const auto got = differentiate(leaves({cost}, torch::kFloat32), fused), want = differentiate(leaves({cost}, torch::kFloat64), exact);
    EXPECT_LT(distance(got[0], want[0]), 1e-6);
    EXPECT_LT(distance(got[1], want[1]), 1e-3) << "exponents of 300 have an error of 1e-5 in single precision";
}

TEST(SpectraOsr, GradientsOfTheWholeChainAreThoseOfItsDifferenceQuotient)
{
    torch::manual_seed(6);
    const auto s = torch::rand({90, 6}, torch::kFloat64) * 1.8 - 0.9, r = torch::rand({6, 6}, torch::kFloat64);
    const auto chain = [](const List &x, bool fused) {
        const auto cost = fused ? ts::fusedOsrCost(x[0], x[1], 0.5, 0.5, 0.7) : ts::composed::osrCost(x[0], x[1], 0.5, 0.5, 0.7);
        const auto g = fused ? ts::fusedSinkhornPotential(cost, 0.2, 4, 90, nullptr) : ts::composed::sinkhornPotential(cost, 0.2, 4, true);
        return fused ? ts::fusedPlan(cost, g, 0.2) : ts::composed::plan(cost, g, 0.2, true);
    };
    const auto gradients = differentiate(leaves({s, r}, torch::kFloat32), [&](const List &x) { return chain(x, true); });
    torch::manual_seed(11);
    const auto weight = torch::randn({90, 6}, torch::kFloat64).to(torch::kFloat32).to(torch::kFloat64);
    const auto values = leaves({s, r}, torch::kFloat64);
    for (std::size_t i = 0; i < 2; ++i) {
        const auto direction = torch::randn_like(values[i]);
        const auto at = [&](double h) {
            List moved{values[0].detach(), values[1].detach()};
            moved[i] = moved[i] + h * direction;
            return (chain(moved, false) * weight).sum().item<double>();
        };
        const double h = 1e-5, numeric = (at(h) - at(-h)) / (2 * h), analytic = (gradients[i + 1].to(torch::kFloat64) * direction).sum().item<double>();
        EXPECT_NEAR(numeric, analytic, 2e-5 * gradients[i + 1].norm().item<double>() + 1e-6) << i;
    }
}

TEST(SpectraOsr, PlanEqualsTheComposition)
{
    torch::manual_seed(7);
    for (const auto &[n, e] : std::vector<std::pair<std::int64_t, std::int64_t>>{{70, 8}, {2100, 5}, {1, 1}, {40, 64}})
        expectEqual({torch::rand({n, e}, torch::kFloat64), normal({e})}, [](const List &x) { return ts::fusedPlan(x[0], x[1], 0.1); },
                    [](const List &x) { return ts::composed::plan(x[0], x[1], 0.1, true); }, 1e-5, std::to_string(n) + "x" + std::to_string(e));
}

TEST(SpectraOsr, NoRowsGiveNoGradientAndNoCrash)
{
    const auto cost = torch::zeros({0, 4}).requires_grad_(true), g = torch::zeros({4}).requires_grad_(true);
    const auto r = torch::rand({4, 4}).requires_grad_(true), v = torch::zeros({0, 4, 8}).requires_grad_(true);
    const auto c = ts::fusedOsrCost(ts::fusedSimilarity(v, v), r, 0.5, 0.5, 0.7) + cost;
    const auto p = ts::fusedSinkhornPotential(c, 0.1, 3, 0, nullptr);
    EXPECT_TRUE(torch::equal(p, torch::zeros({4})));
    const auto q = ts::fusedPlan(c, p + g, 0.1);
    (q.sum() + p.sum()).backward();
    EXPECT_TRUE(torch::equal(r.grad(), torch::zeros({4, 4})));
    EXPECT_TRUE(torch::equal(g.grad(), torch::ones({4}) * 0));
}

TEST(SpectraOsr, EveryBitIsTheSameForAnyThreads)
{
    torch::manual_seed(8);
    const List values{normal({5000, 8, 16}), normal({5000, 8, 16}), torch::rand({8, 8}, torch::kFloat64)};
    List first;
    for (const int threads : {1, 2, 3, 7}) {
        setThreadCount(threads);
        const auto out = differentiate(leaves(values, torch::kFloat32), [](const List &x) {
            const auto cost = ts::fusedOsrCost(ts::fusedSimilarity(x[0], x[1]), x[2], 0.5, 0.5, 0.7);
            return ts::fusedPlan(cost, ts::fusedSinkhornPotential(cost, 0.1, 4, 5000, nullptr), 0.1);
        });
        if (first.empty())
            first = out;
        for (std::size_t i = 0; i < out.size(); ++i)
            EXPECT_TRUE(torch::equal(out[i], first[i])) << threads << " threads, " << i;
    }
    setThreadCount(0);
}

} // namespace
} // namespace spectra
