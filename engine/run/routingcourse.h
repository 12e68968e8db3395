// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <stop_token>
#include <vector>

namespace spectra {

/// `routing_consistency` over a run's own traces of the same held-out windows: each earlier evaluation against the last, which is
/// the finished model as it is stored (calibrated, where it was). `value` is the strict one, over the last quarter of training: the
/// first evaluation at or behind 75 % of the steps against the last. Also `matched` (experts renamed), `saturation` (mean |A∩B|/k), `by_layer`
/// of the value and `by_step` of all. Without such traces the object has `absent`. `steps` ascending, the last one the end.
/// An earlier trace that cannot be read is named in `unread`. Errors: input (the last trace is damaged), cancelled.
[[nodiscard]] Result<nlohmann::ordered_json> routingCourse(const std::vector<std::int64_t> &steps,
                                                           const std::function<std::filesystem::path(std::int64_t)> &trace, std::stop_token stop);

} // namespace spectra
