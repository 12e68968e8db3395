// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace spectra {

/// Where long work stands. `total` 0 means unknown.
struct Progress {
    std::string stage;      ///< what is being done, for a person: "reading tensors"
    std::int64_t done = 0;
    std::int64_t total = 0;
    std::string unit;       ///< "tokens", "tensors", "iterations"
};

/// Called on the working thread. Cancelling goes through a std::stop_token, never through this.
using ProgressFunction = std::function<void(const Progress &)>;

} // namespace spectra
