// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>
#include <functional>

namespace spectra {

/// Number of threads that parallelFor() uses: `--threads`, else the number of cores. Set once at start-up.
[[nodiscard]] int threadCount();
void setThreadCount(int threads);

/// Runs body(begin, end, part) for `parts` contiguous parts of [0, n) on the process's own blocking pool and the calling
/// thread; returns when all are done. The split depends on n and `parts` only, never on the number of threads, so sums
/// kept per part and reduced in order are bit-identical at any thread count. parts = 0: one per thread.
/// Nested calls run in the calling thread. Exceptions of a body are rethrown in the caller. Thread-safe.
void parallelFor(std::int64_t n, int parts, const std::function<void(std::int64_t begin, std::int64_t end, int part)> &body);

} // namespace spectra
