// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/placement/grace.h"

#include "engine/core/routingrecord.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <string>

namespace spectra {
namespace {

/// GPUs that have each expert.
using Hosts = std::vector<std::vector<int>>;

Hosts hostsOf(const ExpertGroups &gpus, std::int64_t experts)
{
    Hosts hosts(static_cast<std::size_t>(experts));
    for (std::size_t g = 0; g < gpus.size(); ++g)
        for (const int e : gpus[g])
            hosts[static_cast<std::size_t>(e)].push_back(static_cast<int>(g));
    return hosts;
}

/// The nearest tier's hosts of an expert, seen from a GPU.
std::vector<int> nearest(const std::vector<int> &hosts, int from, int perNode)
{
    if (std::find(hosts.begin(), hosts.end(), from) != hosts.end())
        return {from};
    std::vector<int> near;
    std::copy_if(hosts.begin(), hosts.end(), std::back_inserter(near), [&](int h) { return h / perNode == from / perNode; });
    return near.empty() ? hosts : near;
}

/// Smooth weighted round robin: every candidate earns its weight, the richest is taken and pays what all earned together.
class RoundRobin {
public:
    int next(const std::vector<int> &candidates, const std::vector<double> &weight)
    {
        m_credit.resize(candidates.size(), 0);
        std::size_t best = 0;
        double sum = 0;
        for (std::size_t i = 0; i < candidates.size(); ++i) {
            const double w = weight[static_cast<std::size_t>(candidates[i])];
            m_credit[i] += w;
            sum += w;
            if (m_credit[i] > m_credit[best])
                best = i;
        }
        m_credit[best] -= sum;
        return candidates[best];
    }

private:
    std::vector<double> m_credit;
};

double imbalanceOf(const std::vector<double> &load)
{
    const double sum = std::accumulate(load.begin(), load.end(), 0.0);
    return sum > 0 ? *std::max_element(load.begin(), load.end()) * static_cast<double>(load.size()) / sum : 0;
}

/// Sends every token's assignments on their way. `weight` of a GPU among several.
PlacementForecast forecast(std::span<const std::uint16_t> chosen, std::int64_t slots, const Hosts &hosts, int gpus, int perNode, const std::vector<double> &weight)
{
    PlacementForecast f;
    f.load.assign(static_cast<std::size_t>(gpus), 0);
    struct Way {
        std::vector<int> candidates;
        RoundRobin turn;
    };
    std::map<std::pair<int, int>, Way> ways; // by source and expert
    const std::int64_t tokens = slots > 0 ? static_cast<std::int64_t>(chosen.size()) / slots : 0;
    double assignments = 0, offGpu = 0, offNode = 0, reached = 0, nodesReached = 0;
    std::vector<int> to, nodes;
    for (std::int64_t t = 0; t < tokens; ++t) {
        const int from = static_cast<int>(t % gpus);
        to.clear();
        nodes.clear();
        for (std::int64_t s = 0; s < slots; ++s) {
            const std::uint16_t expert = chosen[static_cast<std::size_t>(t * slots + s)];
            if (expert == kNoExpert)
                continue;
            auto [at, fresh] = ways.try_emplace({from, expert});
            if (fresh)
                at->second.candidates = nearest(hosts[expert], from, perNode);
            const int target = at->second.candidates.size() == 1 ? at->second.candidates[0] : at->second.turn.next(at->second.candidates, weight);
            assignments += 1;
            f.load[static_cast<std::size_t>(target)] += 1;
            if (target == from)
                continue;
            offGpu += 1;
            to.push_back(target);
            if (target / perNode != from / perNode) {
                offNode += 1;
                nodes.push_back(target / perNode);
            }
        }
        for (auto *list : {&to, &nodes}) {
            std::sort(list->begin(), list->end());
            (list == &to ? reached : nodesReached) += static_cast<double>(std::unique(list->begin(), list->end()) - list->begin());
        }
    }
    f.imbalance = imbalanceOf(f.load);
    if (assignments > 0) {
        f.leavesGpu = offGpu / assignments;
        f.leavesNode = offNode / assignments;
        f.gpusReached = reached / static_cast<double>(tokens);
        f.nodesReached = nodesReached / static_cast<double>(tokens);
    }
    return f;
}

std::vector<double> loadsOf(const ExpertGroups &gpus, const std::vector<double> &load)
{
    std::vector<double> sums;
    for (const auto &group : gpus)
        sums.push_back(std::accumulate(group.begin(), group.end(), 0.0, [&](double sum, int e) { return sum + load[static_cast<std::size_t>(e)]; }));
    return sums;
}

/// Chooses what is copied where, and the loads that come of it.
void replicate(LayerPlacement &plan, const std::vector<double> &load)
{
    const std::vector<double> gpuLoad = loadsOf(plan.gpus, load);
    const auto gpus = static_cast<int>(gpuLoad.size());
    plan.predicted = gpuLoad;
    plan.heaviest = static_cast<int>(std::max_element(gpuLoad.begin(), gpuLoad.end()) - gpuLoad.begin());
    const double most = gpuLoad[static_cast<std::size_t>(plan.heaviest)];
    if (gpus < 2 || !(most > 0))
        return;
    const int copies = std::min(std::max(1, static_cast<int>(std::floor(imbalanceOf(gpuLoad) + 1e-9))), gpus - 1);
    std::vector<int> order = plan.gpus[static_cast<std::size_t>(plan.heaviest)];
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return load[static_cast<std::size_t>(a)] > load[static_cast<std::size_t>(b)]; });
    const double enough = most * copies / (1 + copies);
    double sum = 0;
    for (const int e : order) {
        if (sum >= enough)
            break;
        plan.copied.push_back(e);
        sum += load[static_cast<std::size_t>(e)];
    }
    std::vector<int> others;
    for (int g = 0; g < gpus; ++g)
        if (g != plan.heaviest)
            others.push_back(g);
    std::stable_sort(others.begin(), others.end(), [&](int a, int b) { return gpuLoad[static_cast<std::size_t>(a)] < gpuLoad[static_cast<std::size_t>(b)]; });
    plan.copiesOn.assign(others.begin(), others.begin() + copies);
    const double part = sum / (1 + copies);
    plan.predicted[static_cast<std::size_t>(plan.heaviest)] += part - sum;
    for (const int g : plan.copiesOn)
        plan.predicted[static_cast<std::size_t>(g)] += part;
}

ExpertGroups neighbours(std::int64_t experts, int gpus)
{
    ExpertGroups groups(static_cast<std::size_t>(gpus));
    for (std::int64_t e = 0; e < experts; ++e)
        groups[static_cast<std::size_t>(e * gpus / experts)].push_back(static_cast<int>(e));
    return groups;
}

} // namespace

Result<RoutingProfile> profileRouting(std::span<const std::uint16_t> chosen, std::int64_t slots, std::int64_t experts)
{
    RoutingProfile p;
    p.experts = experts;
    p.tokens = slots > 0 ? static_cast<std::int64_t>(chosen.size()) / slots : 0;
    p.affinity.assign(static_cast<std::size_t>(experts * experts), 0);
    p.load.assign(static_cast<std::size_t>(experts), 0);
    std::vector<std::uint16_t> set;
    for (std::int64_t t = 0; t < p.tokens; ++t) {
        set.clear();
        for (std::int64_t s = 0; s < slots; ++s) {
            const std::uint16_t e = chosen[static_cast<std::size_t>(t * slots + s)];
            if (e == kNoExpert)
                continue;
            if (e >= experts)
                return inputError("names expert " + std::to_string(e) + " of " + std::to_string(experts), "token " + std::to_string(t));
            p.load[e] += 1;
            set.push_back(e);
        }
        for (const std::uint16_t a : set)
            for (const std::uint16_t b : set)
                if (a != b)
                    p.affinity[static_cast<std::size_t>(a * experts + b)] += 1;
    }
    return p;
}

Result<LayerPlacement> planPlacement(std::span<const std::uint16_t> chosen, std::int64_t slots, std::int64_t experts, const PlacementOptions &o, std::stop_token stop)
{
    if (o.nodes < 1 || o.gpusPerNode < 1 || o.nodes > 65536 || o.gpusPerNode > 65536)
        return usageError("a cluster has at least one node and one GPU per node", "placement");
    if (!(o.ratio <= 1))
        return usageError("the ratio lies between 0 and 1", "placement");
    const std::int64_t gpus = static_cast<std::int64_t>(o.nodes) * o.gpusPerNode;
    if (experts < gpus)
        return usageError(std::to_string(experts) + " experts on " + std::to_string(gpus) + " GPUs leave some without any", "placement", "use fewer GPUs");
    if (experts > 2048)
        return usageError("the clustering of " + std::to_string(experts) + " experts would take too long", "placement", "at most 2048");
    SPECTRA_TRY(const RoutingProfile profile, profileRouting(chosen, slots, experts));
    const auto &a = profile.affinity;

    LayerPlacement plan;
    std::vector<int> all(static_cast<std::size_t>(experts));
    std::iota(all.begin(), all.end(), 0);
    plan.nodes = freeGroups(a, experts, all, o.nodes, o.gpusPerNode, o.seed);
    std::vector<ExpertGroups> free; // of each node, before sizes are bounded
    for (const auto &members : plan.nodes) {
        if (stop.stop_requested())
            return cancelledError();
        free.push_back(freeGroups(a, experts, members, o.gpusPerNode, 0, o.seed));
    }
    const auto bounded = [&](double ratio, double &spread) {
        ExpertGroups groups;
        double squares = 0;
        for (std::size_t n = 0; n < free.size(); ++n) {
            const GroupBounds bounds = groupBounds(static_cast<std::int64_t>(plan.nodes[n].size()), o.gpusPerNode, ratio);
            for (auto &group : boundedGroups(a, experts, free[n], bounds)) {
                const double off = static_cast<double>(group.size()) - static_cast<double>(bounds.mean);
                squares += off * off;
                groups.push_back(std::move(group));
            }
        }
        spread = std::sqrt(squares / static_cast<double>(groups.size()));
        return groups;
    };
    plan.ratio = o.ratio;
    if (o.ratio < 0) {
        for (int step = 0; step <= 20; ++step) {
            if (stop.stop_requested())
                return cancelledError();
            RatioPoint point{step * 0.05, 0, 0};
            point.inside = insideAffinity(a, experts, bounded(point.ratio, point.spread));
            plan.tried.push_back(point);
        }
        plan.ratio = plan.tried[kneeOf(plan.tried)].ratio;
    }
    double spread = 0;
    plan.gpus = bounded(plan.ratio, spread);

    const int count = static_cast<int>(gpus), perNode = o.gpusPerNode;
    const std::vector<double> even(static_cast<std::size_t>(count), 1);
    plan.contiguous = forecast(chosen, slots, hostsOf(neighbours(experts, count), experts), count, perNode, even);
    plan.grouped = forecast(chosen, slots, hostsOf(plan.gpus, experts), count, perNode, even);
    plan.predicted = loadsOf(plan.gpus, profile.load);
    plan.heaviest = static_cast<int>(std::max_element(plan.predicted.begin(), plan.predicted.end()) - plan.predicted.begin());
    if (o.replicate)
        replicate(plan, profile.load);
    ExpertGroups held = plan.gpus;
    for (const int g : plan.copiesOn)
        held[static_cast<std::size_t>(g)].insert(held[static_cast<std::size_t>(g)].end(), plan.copied.begin(), plan.copied.end());
    std::vector<double> weight;
    for (const double load : plan.predicted)
        weight.push_back(1 / std::max(load, 1.0));
    plan.replicated = forecast(chosen, slots, hostsOf(held, experts), count, perNode, weight);
    return plan;
}

} // namespace spectra
