// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/parallel.h"

#include <algorithm>
#include <cstdint>
#include <functional>

namespace spectra::rule {

/// Who runs the parts of a job. Results never depend on it.
struct Executor {
    int threads = 1;
    /// Runs body(0) … body(parts - 1), each once, and returns when all are done. Part 0 may wait for others, never the reverse.
    std::function<void(int parts, const std::function<void(int part)> &body)> run;

    [[nodiscard]] static Executor serial()
    {
        return {1, [](int parts, const std::function<void(int)> &body) {
                    for (int part = 0; part < parts; ++part)
                        body(part);
                }};
    }
    [[nodiscard]] static Executor pool()
    {
        return {threadCount(), [](int parts, const std::function<void(int)> &body) {
                    parallelFor(parts, parts, [&](std::int64_t begin, std::int64_t end, int) {
                        for (std::int64_t part = begin; part < end; ++part)
                            body(static_cast<int>(part));
                    });
                }};
    }
};

/// body(begin, end) over contiguous pieces of [0, n) of at least `grain`, one per thread at most.
template <typename Body> void forRange(const Executor &executor, std::int64_t n, std::int64_t grain, const Body &body)
{
    const auto parts = static_cast<int>(std::min<std::int64_t>(executor.threads, (n + grain - 1) / grain));
    if (parts <= 1) {
        if (n > 0)
            body(std::int64_t{0}, n);
        return;
    }
    executor.run(parts, [&](int part) { body(n * part / parts, n * (part + 1) / parts); });
}

} // namespace spectra::rule
