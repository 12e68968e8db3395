// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/router/spectrarouter.h"

#include <optional>

namespace spectra {

/// Inference on the CPU through the kernels of engine/rule.
struct SpectraRouter::FastPath {
    [[nodiscard]] std::optional<RoutingStep> route(const SpectraRouter &router, const RouterInput &input, RouterState &state, Capture capture);
};

} // namespace spectra
