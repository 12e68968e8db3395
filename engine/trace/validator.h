// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>
#include <filesystem>
#include <stop_token>
#include <string>
#include <vector>

namespace spectra {

/// One thing in which a file differs from the trace page.
struct Finding {
    enum class Severity : std::uint8_t {
        error,   ///< against the page: the file is not a valid trace
        warning, ///< allowed, but a reader should know
    };
    Severity severity = Severity::error;
    std::string place; ///< dataset or attribute: "/routing/weights"
    std::string what;  ///< what is wrong, with the first offending row
};

/// Holds a file against the whole trace page: objects, types, shapes, dimension scales, ranges, offsets, orders, sums.
/// Reads every value once, block by block. A file that does not open is one finding. At most a few findings per dataset.
[[nodiscard]] std::vector<Finding> validateTrace(const std::filesystem::path &path, std::stop_token stop = {});

/// True when any finding is an error.
[[nodiscard]] bool hasErrors(const std::vector<Finding> &findings);

} // namespace spectra
