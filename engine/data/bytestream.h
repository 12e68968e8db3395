// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/files.h"
#include "engine/core/result.h"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <stop_token>
#include <string>

namespace spectra {

/// The bytes of a file, a `.zst` one decompressed on the way, and the SHA-256 of the file itself. Not thread-safe.
class ByteStream {
public:
    /// Errors (input): missing, a folder, not a regular file, empty, compressed by something else (named).
    [[nodiscard]] static Result<ByteStream> open(const std::filesystem::path &file);
    ByteStream(ByteStream &&) noexcept;
    ~ByteStream();

    /// Appends some bytes; false at the end. Errors (input): unreadable, a broken or cut zstd stream, a window above 128 MiB;
    /// cancelled.
    [[nodiscard]] Result<bool> read(std::string &into, std::stop_token stop);
    /// Of the whole file as it lies on disk; after the end only.
    [[nodiscard]] std::string sha256();
    [[nodiscard]] std::int64_t fileBytes() const; ///< read so far, as they lie on disk

private:
    struct Private;
    explicit ByteStream(std::unique_ptr<Private> p);
    std::unique_ptr<Private> d;
};

} // namespace spectra
