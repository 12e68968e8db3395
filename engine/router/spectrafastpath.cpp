// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/spectrafastpath.h"

namespace spectra {

std::optional<RoutingStep> SpectraRouter::FastPath::route(const SpectraRouter &, const RouterInput &, RouterState &, Capture)
{
    return std::nullopt;
}

} // namespace spectra
