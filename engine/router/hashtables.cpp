// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/hashtables.h"

#include "engine/core/random.h"

#include <algorithm>
#include <numeric>
#include <tuple>
#include <vector>

namespace spectra {
namespace {

/// [V,E] squared distances, without the part that an id has in common with all centres when `whole` is false.
torch::Tensor distances(const torch::Tensor &points, const torch::Tensor &centres, bool whole)
{
    const torch::Tensor part = centres.square().sum(1) - 2 * points.matmul(centres.t());
    return whole ? (part + points.square().sum(1, true)).clamp_min(0) : part;
}

/// Each centre drawn among the ids with a probability that grows with the squared distance to the centres before it (Arthur and
/// Vassilvitskii 2007).
torch::Tensor firstCentres(const torch::Tensor &points, std::int64_t count, std::uint64_t seed)
{
    Random random(seed, 1);
    const std::int64_t n = points.size(0);
    std::vector<torch::Tensor> centres = {points[static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(n)))]};
    torch::Tensor nearest = (points - centres[0]).square().sum(1);
    while (static_cast<std::int64_t>(centres.size()) < count) {
        const double *d = nearest.const_data_ptr<double>();
        double left = random.uniform() * std::accumulate(d, d + n, 0.0);
        std::int64_t at = 0;
        while (at + 1 < n && left >= d[at])
            left -= d[at++];
        centres.push_back(points[at]);
        nearest = torch::minimum(nearest, (points - centres.back()).square().sum(1));
    }
    return torch::stack(centres);
}

} // namespace

Result<torch::Tensor> balancedTable(const torch::Tensor &counts, std::int64_t experts, std::int64_t k)
{
    if (counts.dim() != 1)
        return usageError("token counts are not one number per token id", "hash router");
    const torch::Tensor here = counts.cpu().to(torch::kInt64).contiguous();
    const std::int64_t n = here.size(0);
    const auto *const count = here.const_data_ptr<std::int64_t>();
    const auto expertCount = static_cast<std::size_t>(experts);
    std::vector<std::int64_t> order(static_cast<std::size_t>(n)), ranking(expertCount), load(expertCount, 0), unseen(expertCount, 0);
    std::iota(order.begin(), order.end(), std::int64_t(0));
    std::stable_sort(order.begin(), order.end(), [count](std::int64_t a, std::int64_t b) { return count[a] > count[b]; });
    std::iota(ranking.begin(), ranking.end(), std::int64_t(0));
    torch::Tensor table = torch::empty({n, k}, torch::kInt64);
    auto *const row = table.data_ptr<std::int64_t>();
    for (const std::int64_t id : order) {
        if (count[id] < 0)
            return usageError("a token count is negative", "hash router, token id " + std::to_string(id));
        auto &burden = count[id] > 0 ? load : unseen;
        std::partial_sort(ranking.begin(), ranking.begin() + k, ranking.end(), [&burden](std::int64_t a, std::int64_t b) {
            const auto x = burden[static_cast<std::size_t>(a)], y = burden[static_cast<std::size_t>(b)];
            return x != y ? x < y : a < b;
        });
        for (std::int64_t slot = 0; slot < k; ++slot) {
            const std::int64_t e = ranking[static_cast<std::size_t>(slot)];
            row[id * k + slot] = e;
            burden[static_cast<std::size_t>(e)] += std::max<std::int64_t>(1, count[id]);
        }
    }
    return table;
}

Result<torch::Tensor> clusteredTable(const torch::Tensor &embeddings, std::int64_t experts, std::int64_t k, std::uint64_t seed)
{
    if (embeddings.dim() != 2 || embeddings.size(0) < experts)
        return usageError("clusters need an embedding for at least as many token ids as there are experts (" + std::to_string(experts) + ")", "hash router");
    const torch::NoGradGuard noGrad;
    const torch::Tensor points = embeddings.detach().cpu().to(torch::kFloat64).contiguous(), bad = points.isfinite().all(1).logical_not().nonzero();
    if (bad.size(0) > 0)
        return inputError("an embedding is not finite", "hash router, token id " + std::to_string(bad[0][0].item<std::int64_t>()));
    torch::Tensor centres = firstCentres(points, experts, seed), cluster;
    for (int round = 0; round < 100; ++round) {
        const torch::Tensor distance = distances(points, centres, true), now = distance.argmin(1);
        if (cluster.defined() && torch::equal(now, cluster))
            break;
        cluster = now;
        const torch::Tensor size = torch::bincount(cluster, {}, experts);
        torch::Tensor sum = torch::zeros_like(centres).index_add_(0, cluster, points);
        centres = sum / size.clamp_min(1).unsqueeze(1);
        const torch::Tensor empty = (size == 0).nonzero().view({-1}), far = std::get<1>(distance.gather(1, cluster.unsqueeze(1)).view({-1}).sort(true, 0, true));
        for (std::int64_t i = 0; i < empty.size(0); ++i)
            centres[empty[i].item<std::int64_t>()].copy_(points[far[i].item<std::int64_t>()]);
    }
    return std::get<1>(torch::sort(distances(points, centres, false), true, 1, false)).slice(1, 0, k).contiguous();
}

} // namespace spectra
