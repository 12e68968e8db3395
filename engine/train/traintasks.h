// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

/// How the operations of a training pass share work. A pass is cut into tasks by sizes alone, and each task is done whole in one
/// thread, so that no result depends on the number of threads.
namespace spectra::train {

/// Runs body(task) for tasks 0 … count−1 on torch's threads; matrix products inside stay in their thread. Tensor operations
/// inside are below autograd.
template <typename Body> void overTasks(std::int64_t count, const Body &body)
{
    if (count <= 0)
        return;
    const std::int64_t threads = at::get_num_threads();
    std::atomic<std::int64_t> next{0};
    // Two parts even for one task: outside a parallel region the matrix library would split a product by the number of threads.
    const std::int64_t parts = threads == 1 ? 1 : std::max<std::int64_t>(2, std::min(threads, count));
    at::parallel_for(0, parts, 1, [&](std::int64_t begin, std::int64_t end) {
        const at::AutoDispatchBelowAutograd below;
        for (std::int64_t part = begin; part < end; ++part)
            for (std::int64_t task = next.fetch_add(1); task < count; task = next.fetch_add(1))
                body(task);
    });
}

/// body(begin, end) for blocks of `block` of [0, n).
template <typename Body> void overBlocks(std::int64_t n, std::int64_t block, const Body &body)
{
    overTasks((n + block - 1) / block, [&](std::int64_t task) { body(task * block, std::min(n, (task + 1) * block)); });
}

/// c = a·b, or c += a·b, f32, in the calling thread; with bf16 the factors are rounded first.
void multiply(at::Tensor c, const at::Tensor &a, const at::Tensor &b, bool add, bool bf16);

/// Memory of this thread for one task, as a tensor [rows, columns] whose contents are undefined. `slot` tells several apart.
[[nodiscard]] at::Tensor scratch(int slot, std::int64_t rows, std::int64_t columns);

/// Where the gradient of a trained leaf is formed: its .grad, made when there is none yet. The operations of this module add to
/// .grad themselves, straight out of the matrix product, and give autograd nothing for their weights: a bank's gradient
/// is as large as the bank, and adding a second one of that size would cost more than many of the products.
struct GradientPlace {
    at::Tensor values;                   ///< undefined: the tensor is not trained
    bool add = false;                    ///< false: fresh, to be overwritten
};
[[nodiscard]] GradientPlace gradientPlace(const at::Tensor &leaf);

/// Rows of a matrix product that one task does.
inline constexpr std::int64_t kTaskRows = 256;

} // namespace spectra::train
