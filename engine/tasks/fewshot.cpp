// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tasks/fewshot.h"

#include "engine/core/random.h"

#include <fmt/format.h>

#include <algorithm>

namespace spectra {
namespace {

/// FNV-1a: a stream of its own for every group, the same on every machine.
std::uint64_t streamOf(const std::string &group)
{
    std::uint64_t h = 0xCBF29CE484222325ull;
    for (const char c : group)
        h = (h ^ static_cast<unsigned char>(c)) * 0x100000001B3ull;
    return h;
}

} // namespace

FewShot::FewShot(const std::vector<TaskItem> &pool, int count, std::uint64_t seed, bool inOrder)
    : m_pool(pool), m_count(static_cast<std::size_t>(std::max(0, count))), m_seed(seed), m_inOrder(inOrder)
{
}

Result<std::string> FewShot::before(const TaskItem &item)
{
    std::string text = item.description;
    if (m_count == 0)
        return text;
    const auto [found, fresh] = m_orders.try_emplace(item.group);
    std::vector<std::size_t> &order = found->second;
    if (fresh) {
        for (std::size_t i = 0; i < m_pool.size(); ++i)
            if (m_pool[i].group == item.group && !m_pool[i].solution.empty())
                order.push_back(i);
        if (!m_inOrder) {
            Random random(m_seed, streamOf(item.group));
            random.shuffle(order);
        }
    }
    std::size_t taken = 0;
    for (std::size_t i = 0; i < order.size() && taken < m_count; ++i) {
        const TaskItem &example = m_pool[order[i]];
        if (example.context == item.context)
            continue; // the question itself: its answer would be given away
        text += example.context + example.solution + "\n\n";
        ++taken;
    }
    if (taken < m_count)
        return inputError(fmt::format("there are {} solved examples besides the question, {} are wanted", taken, m_count),
                          item.group.empty() ? "item " + item.id : "item " + item.id + ": group " + item.group,
                          "fewer with --shots, or another file with --shots-data");
    return text;
}

} // namespace spectra
