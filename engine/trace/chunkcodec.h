// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace spectra {

/// The two filters of HDF5 that a trace uses, done here: outside HDF5's global lock, and bounded on hostile input.

/// Groups byte i of all elements together (HDF5 filter 2). Bytes after the last whole element stay.
void shuffleBytes(std::span<const std::byte> from, std::size_t elementSize, std::byte *to);
void unshuffleBytes(std::span<const std::byte> from, std::size_t elementSize, std::byte *to);

/// zlib stream of `from` (HDF5 filter 1). False: not smaller than `from`, `to` is unspecified.
[[nodiscard]] bool deflateBytes(std::span<const std::byte> from, int level, std::vector<std::byte> &to);
/// Fills `to` exactly. False: damaged, or another length.
[[nodiscard]] bool inflateBytes(std::span<const std::byte> from, std::span<std::byte> to);

} // namespace spectra
