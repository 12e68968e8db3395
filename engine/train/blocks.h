// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace spectra {

/// One piece of one tensor's memory.
struct Block {
    std::size_t tensor = 0;
    std::int64_t begin = 0, end = 0;
};

/// Elements of a block: large enough that waking a thread does not matter, small enough that two cores share a small model.
inline constexpr std::int64_t kBlockElements = 32 * 1024;

/// Cuts tensors of the given numbers of elements into blocks. The cut never depends on the number of threads, so neither do
/// results that are formed block by block.
[[nodiscard]] std::vector<Block> blocksOf(const std::vector<std::int64_t> &elements);

/// Runs body(block, index) for every block on the process's threads.
void overBlocks(const std::vector<Block> &blocks, const std::function<void(const Block &, std::size_t)> &body);

} // namespace spectra
