// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "engine/tasks/task.h"

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace spectra {

/// Solved examples before a question. One order of the examples is drawn per group and seed, and an item takes the first ones that
/// are not itself: almost all items then share their examples word for word, and what a model computed for them.
class FewShot {
public:
    /// `pool` outlives this. `inOrder`: the pool's own order instead of a drawn one (as MMLU's development split is used).
    FewShot(const std::vector<TaskItem> &pool, int count, std::uint64_t seed, bool inOrder);

    /// Description and solved examples, "\n\n" after each, as they stand before `item.context`.
    /// Errors (input): the pool has too few solved examples of the item's group besides the item.
    [[nodiscard]] Result<std::string> before(const TaskItem &item);

private:
    const std::vector<TaskItem> &m_pool;
    std::size_t m_count;
    std::uint64_t m_seed;
    bool m_inOrder;
    std::map<std::string, std::vector<std::size_t>> m_orders; ///< by group
};

} // namespace spectra
