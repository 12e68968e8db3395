// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/train/blocks.h"

#include "engine/core/parallel.h"

#include <algorithm>

namespace spectra {

std::vector<Block> blocksOf(const std::vector<std::int64_t> &elements)
{
    std::vector<Block> blocks;
    for (std::size_t t = 0; t < elements.size(); ++t)
        for (std::int64_t begin = 0; begin < elements[t]; begin += kBlockElements)
            blocks.push_back({t, begin, std::min(begin + kBlockElements, elements[t])});
    return blocks;
}

void overBlocks(const std::vector<Block> &blocks, const std::function<void(const Block &, std::size_t)> &body)
{
    // A few blocks a turn keep the hand-over cheap; which thread takes which turn changes nothing.
    constexpr std::int64_t kBlocksATurn = 4;
    const auto count = static_cast<std::int64_t>(blocks.size());
    if (count == 0)
        return;
    parallelFor(count, static_cast<int>((count + kBlocksATurn - 1) / kBlocksATurn), [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t b = begin; b < end; ++b)
            body(blocks[static_cast<std::size_t>(b)], static_cast<std::size_t>(b));
    });
}

} // namespace spectra
