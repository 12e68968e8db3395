// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace spectra::h5 {

/// Reads variable-length text from the global heap of an HDF5 file (File Format Specification 3.0, section III.E), with every
/// length and address held against the file. libhdf5 1.10 copies as many bytes as the heap object has into room for as many
/// as the reference says, which a damaged file turns into writing past the end; it is also several times slower.
class HeapReader {
public:
    static constexpr std::size_t kReferenceBytes = 16; ///< length u32, address u64, index u32

    /// `lenient`: a reference to what is not in the heap is an empty text. A run that was killed while it wrote may have some
    /// for sequences that had begun.
    HeapReader(int fd, std::int64_t fileBytes, std::int64_t base, bool lenient = false)
        : m_fd(fd), m_fileBytes(fileBytes), m_base(base), m_lenient(lenient)
    {
    }
    /// The text of one stored reference; empty for a null reference. Errors (input): damaged, `limit` bytes in all exceeded.
    [[nodiscard]] Result<std::string> text(std::span<const std::byte> reference, std::size_t &limit);

private:
    struct Collection {
        std::vector<std::byte> bytes;
        std::vector<std::pair<std::uint32_t, std::uint32_t>> objects; ///< by index: offset, size; 0: none
    };
    [[nodiscard]] Result<const Collection *> collection(std::uint64_t address);
    int m_fd;
    std::int64_t m_fileBytes, m_base;
    bool m_lenient;
    std::unordered_map<std::uint64_t, Collection> m_collections;
    std::size_t m_held = 0;
};

} // namespace spectra::h5
