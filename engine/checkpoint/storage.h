// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/checkpoint/checkpoint.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace spectra {

/// One weight file's bytes, mapped or (in tests and fuzzing) in memory.
struct DataFile {
    std::string name;                    ///< plain file name
    std::span<const std::byte> bytes;
    std::shared_ptr<const void> owner;   ///< keeps `bytes` alive
    bool mapped = false;                 ///< pages can be given back to the kernel
};

/// A tensor as a container file describes it; its bytes are checked to lie inside the file.
struct StoredTensor {
    std::string name;
    DType dtype = DType::f32;
    std::string unreadable;              ///< name of a storage type that we do not read; empty: readable
    std::vector<std::int64_t> shape;     ///< slowest axis first
    std::uint64_t offset = 0;            ///< in the file
    std::uint64_t bytes = 0;
    int file = 0;                        ///< index of the file
};

/// Most tensors and metadata keys that one model may have. The largest published ones have about 10^5.
inline constexpr std::int64_t kMaxTensors = 1'000'000;

/// Elements and bytes of one block of a storage type; 1 and the element's size for plain ones.
struct BlockSize {
    std::int64_t elements = 1;
    std::int64_t bytes = 0;
};
[[nodiscard]] BlockSize blockSize(DType type);

/// Product of a shape without overflow; false when it exceeds 2^62 or an axis is negative.
[[nodiscard]] bool shapeProduct(std::span<const std::int64_t> shape, std::int64_t &product);

/// "[576, 192]" for messages.
[[nodiscard]] std::string shapeText(std::span<const std::int64_t> shape);

} // namespace spectra
