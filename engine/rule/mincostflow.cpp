// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/rule/mincostflow.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

namespace spectra::rule {
namespace {

constexpr std::int64_t kFar = std::numeric_limits<std::int64_t>::max();

/// A row that could give up one expert for another, and what it loses by it.
struct Exchange {
    std::int64_t cost, row;
};

bool dearer(const Exchange &a, const Exchange &b)
{
    return a.cost != b.cost ? a.cost > b.cost : a.row > b.row;
}

/// The residual graph on experts. Where not all slots fit there is one node more, "nowhere", worth 0, which takes exactly the slots that
/// cannot be filled and any number of one row's: their number is fixed, so its worth does not matter.
class Flow {
public:
    Flow(std::vector<std::int64_t> value, std::int64_t rows, std::int64_t experts, std::int64_t k, std::int64_t capacity)
        : m_value(std::move(value)), m_rows(rows), m_experts(experts), m_nodes(experts + (rows * k > experts * capacity)),
          m_load(static_cast<std::size_t>(m_nodes), 0), m_room(static_cast<std::size_t>(m_nodes), capacity), m_potential(m_load.size(), 0),
          m_held(static_cast<std::size_t>(rows * m_nodes), 0), m_arcs(m_load.size() * m_load.size()), m_open(m_load.size(), 0)
    {
        if (m_nodes > experts)
            m_room.back() = rows * k - experts * capacity;
        std::vector<std::int64_t> order(static_cast<std::size_t>(experts));
        for (std::int64_t t = 0; t < rows; ++t) {
            const std::int64_t *v = m_value.data() + t * experts;
            std::iota(order.begin(), order.end(), std::int64_t(0));
            std::partial_sort(order.begin(), order.begin() + k, order.end(), [v](std::int64_t a, std::int64_t b) { return v[a] != v[b] ? v[a] > v[b] : a < b; });
            for (std::int64_t i = 0; i < k; ++i)
                take(t, order[static_cast<std::size_t>(i)], 1);
        }
    }

    /// Moves one slot along the shortest path from a node with too many to one with room. False: nothing is too full.
    bool augment()
    {
        std::vector<std::int64_t> distance(m_load.size(), kFar), from(m_load.size(), -1), via(m_load.size(), -1);
        std::vector<char> done(m_load.size(), 0);
        bool any = false;
        for (std::size_t a = 0; a < m_load.size(); ++a)
            if (m_load[a] > m_room[a]) {
                distance[a] = 0;
                any = true;
            }
        if (!any)
            return false;
        std::int64_t end = -1;
        for (;;) {
            std::int64_t a = -1;
            for (std::int64_t v = 0; v < m_nodes; ++v)
                if (!done[at(v)] && distance[at(v)] != kFar && (a < 0 || distance[at(v)] < distance[at(a)] || (distance[at(v)] == distance[at(a)] && free(v) && !free(a))))
                    a = v;
            assert(a >= 0); // all slots together fit, so somewhere there is room, and every row can go there or holds it already
            done[at(a)] = 1;
            if (free(a)) {
                end = a;
                break;
            }
            if (!m_open[at(a)])
                open(a);
            for (std::int64_t b = 0; b < m_nodes; ++b) {
                if (done[at(b)] || b == a)
                    continue;
                const Exchange *best = cheapest(a, b);
                if (!best)
                    continue;
                const std::int64_t reduced = best->cost + m_potential[at(a)] - m_potential[at(b)];
                assert(reduced >= 0);
                if (distance[at(a)] + reduced < distance[at(b)]) {
                    distance[at(b)] = distance[at(a)] + reduced;
                    from[at(b)] = a;
                    via[at(b)] = best->row;
                }
            }
        }
        const std::int64_t length = distance[at(end)];
        for (std::size_t v = 0; v < m_load.size(); ++v)
            m_potential[v] += std::min(distance[v], length);
        for (std::int64_t b = end; from[at(b)] >= 0; b = from[at(b)])
            move(via[at(b)], from[at(b)], b);
        return true;
    }

    /// Experts of a row in ascending order.
    [[nodiscard]] std::vector<std::int64_t> expertsOf(std::int64_t row) const
    {
        std::vector<std::int64_t> list;
        for (std::int64_t e = 0; e < m_experts; ++e)
            if (m_held[static_cast<std::size_t>(row * m_nodes + e)] > 0)
                list.push_back(e);
        return list;
    }

private:
    static std::size_t at(std::int64_t v) { return static_cast<std::size_t>(v); }
    [[nodiscard]] bool free(std::int64_t v) const { return m_load[at(v)] < m_room[at(v)]; }
    [[nodiscard]] bool nowhere(std::int64_t v) const { return v == m_experts; }
    [[nodiscard]] std::int64_t worth(std::int64_t row, std::int64_t v) const { return nowhere(v) ? 0 : m_value[at(row * m_experts + v)]; }
    [[nodiscard]] bool holds(std::int64_t row, std::int64_t v) const { return m_held[at(row * m_nodes + v)] > 0; }
    [[nodiscard]] bool possible(std::int64_t row, std::int64_t a, std::int64_t b) const { return holds(row, a) && (nowhere(b) || !holds(row, b)); }
    [[nodiscard]] std::vector<Exchange> &arcs(std::int64_t a, std::int64_t b) { return m_arcs[at(a * m_nodes + b)]; }

    void take(std::int64_t row, std::int64_t v, int count)
    {
        m_held[at(row * m_nodes + v)] += count;
        m_load[at(v)] += count;
    }

    /// Collects the exchanges out of a node when a search first gets there; from then on move() keeps them.
    void open(std::int64_t a)
    {
        m_open[at(a)] = 1;
        for (std::int64_t t = 0; t < m_rows; ++t)
            if (holds(t, a))
                for (std::int64_t b = 0; b < m_nodes; ++b)
                    if (b != a && possible(t, a, b))
                        arcs(a, b).push_back({worth(t, a) - worth(t, b), t});
        for (std::int64_t b = 0; b < m_nodes; ++b)
            std::make_heap(arcs(a, b).begin(), arcs(a, b).end(), dearer);
    }

    /// The cheapest exchange that is still possible. An exchange's cost never changes, so what has become impossible is thrown away
    /// when it comes up, and put back by move() when it becomes possible again.
    const Exchange *cheapest(std::int64_t a, std::int64_t b)
    {
        auto &heap = arcs(a, b);
        while (!heap.empty() && !possible(heap.front().row, a, b)) {
            std::pop_heap(heap.begin(), heap.end(), dearer);
            heap.pop_back();
        }
        return heap.empty() ? nullptr : &heap.front();
    }

    void add(std::int64_t row, std::int64_t a, std::int64_t b)
    {
        if (a == b || !m_open[at(a)] || !possible(row, a, b))
            return;
        arcs(a, b).push_back({worth(row, a) - worth(row, b), row});
        std::push_heap(arcs(a, b).begin(), arcs(a, b).end(), dearer);
    }

    void move(std::int64_t row, std::int64_t a, std::int64_t b)
    {
        take(row, a, -1);
        take(row, b, 1);
        for (std::int64_t c = 0; c < m_nodes; ++c) {
            add(row, b, c);
            if (c != b)
                add(row, c, a);
        }
    }

    std::vector<std::int64_t> m_value;
    std::int64_t m_rows, m_experts, m_nodes;
    std::vector<std::int64_t> m_load, m_room, m_potential;
    std::vector<std::int32_t> m_held; ///< [n,nodes] slots of a row at a node: 0 or 1, more only at "nowhere"
    std::vector<std::vector<Exchange>> m_arcs;
    std::vector<char> m_open;
};

} // namespace

Result<FlowAssignment> maxScoreAssignment(std::span<const float> scores, std::int64_t experts, std::int64_t k, std::int64_t capacity)
{
    assert(experts >= 1 && static_cast<std::int64_t>(scores.size()) % experts == 0);
    const std::int64_t rows = static_cast<std::int64_t>(scores.size()) / experts;
    if (k < 1 || k > experts)
        return usageError(std::to_string(k) + " of " + std::to_string(experts) + " experts per row", "assignment", "use 1 <= k <= experts");
    if (capacity < 0)
        return usageError("a capacity of " + std::to_string(capacity), "assignment", "use 0 or more slots per expert");
    FlowAssignment answer;
    answer.experts.assign(static_cast<std::size_t>(rows * k), -1);
    if (rows == 0)
        return answer;
    double low = scores[0], high = scores[0];
    for (std::size_t i = 0; i < scores.size(); ++i) {
        if (!std::isfinite(scores[i]))
            return inputError("a score is not finite", "row " + std::to_string(i / static_cast<std::size_t>(experts)));
        low = std::min<double>(low, scores[i]);
        high = std::max<double>(high, scores[i]);
    }
    const double scale = high > low ? 0x1p32 / (high - low) : 0;
    std::vector<std::int64_t> value(scores.size());
    for (std::size_t i = 0; i < scores.size(); ++i)
        value[i] = std::llround((scores[i] - low) * scale);
    Flow flow(std::move(value), rows, experts, k, std::min(capacity, rows)); // more than all rows no expert can take
    while (flow.augment())
        ++answer.augmentations;
    for (std::int64_t t = 0; t < rows; ++t) {
        std::vector<std::int64_t> list = flow.expertsOf(t);
        const float *s = scores.data() + t * experts;
        std::stable_sort(list.begin(), list.end(), [s](std::int64_t a, std::int64_t b) { return s[a] > s[b]; });
        for (std::size_t i = 0; i < list.size(); ++i) {
            answer.experts[static_cast<std::size_t>(t * k) + i] = list[i];
            answer.value += s[list[i]];
        }
    }
    return answer;
}

} // namespace spectra::rule
