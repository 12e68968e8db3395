// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/checkpoint/checkpoint.h"
#include "engine/router/router.h"

#include <memory>

namespace spectra {

/// `base` with the router's buffers and options as they are now: what calibration changed. Everything else is read through.
[[nodiscard]] std::shared_ptr<const Checkpoint> withCalibratedRouter(std::shared_ptr<const Checkpoint> base, const Router &router);

} // namespace spectra
