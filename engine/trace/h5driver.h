// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <atomic>
#include <cstdint>

namespace spectra::h5 {

/// Shared between a file handle and the driver that serves it.
struct DriverControl {
    /// Nothing is written any more: the file on disk stays at its last flush. Set by the driver when a write fails.
    std::atomic<bool> abandoned{false};
    /// Raw data is checked against the size of the file, but not read: looking up a chunk then costs no data.
    std::atomic<bool> checkOnly{false};
    std::atomic<int> error{0}; ///< errno of the first failed call
};

/// HDF5 file driver of this module (id for H5Pset_driver; -1 when it cannot be registered).
///
/// Written files are always as of their last flush. Raw data in new space goes to the file when 8 MiB wait; metadata (object
/// headers, chunk indexes) and what replaces older bytes waits in memory and goes out at the end of a flush, first what lies in
/// space that is new since the last flush, then the replacements. Space is allocated before that, so a full disk leaves the
/// last flush as it was.
/// Reads never pass the end of the file.
[[nodiscard]] std::int64_t driverId();

} // namespace spectra::h5
