// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>

namespace spectra {

/// A whole file mapped read-only. Pages are private to the kernel's cache: they are not anonymous memory.
class MappedFile {
public:
    /// Errors (input): missing, not a regular file, unreadable. An empty file maps to an empty span.
    [[nodiscard]] static Result<std::shared_ptr<const MappedFile>> open(const std::filesystem::path &path);
    ~MappedFile();
    MappedFile(const MappedFile &) = delete;
    MappedFile &operator=(const MappedFile &) = delete;

    [[nodiscard]] std::span<const std::byte> bytes() const { return {m_data, m_size}; }
    [[nodiscard]] const std::filesystem::path &path() const { return m_path; }

private:
    MappedFile() = default;
    std::filesystem::path m_path;
    const std::byte *m_data = nullptr;
    std::size_t m_size = 0;
};

/// A file that appears whole or not at all: written beside its place under a temporary name, synced and renamed by
/// commit(); removed when destroyed before.
class AtomicFile {
public:
    /// Errors (work): the place exists and !overwrite, or is not writable.
    [[nodiscard]] static Result<AtomicFile> create(const std::filesystem::path &place, bool overwrite);
    AtomicFile(AtomicFile &&other) noexcept;
    AtomicFile &operator=(AtomicFile &&) = delete;
    ~AtomicFile();

    [[nodiscard]] std::ostream &stream() { return m_stream; }
    /// The name to hand to a library that writes the file itself (close the stream's content first).
    [[nodiscard]] const std::filesystem::path &temporary() const { return m_temporary; }
    [[nodiscard]] Result<void> commit();

private:
    AtomicFile() = default;
    std::filesystem::path m_place;
    std::filesystem::path m_temporary;
    std::ofstream m_stream;
};

/// A folder that appears whole or not at all, as AtomicFile. With overwrite, the old folder goes only after the new one
/// is complete.
class AtomicFolder {
public:
    [[nodiscard]] static Result<AtomicFolder> create(const std::filesystem::path &place, bool overwrite);
    AtomicFolder(AtomicFolder &&other) noexcept;
    AtomicFolder &operator=(AtomicFolder &&) = delete;
    ~AtomicFolder();

    [[nodiscard]] const std::filesystem::path &temporary() const { return m_temporary; }
    [[nodiscard]] Result<void> commit();

private:
    AtomicFolder() = default;
    std::filesystem::path m_place;
    std::filesystem::path m_temporary;
    bool m_overwrite = false;
};

/// The error that an existing output gives without --overwrite (kind work), or ok.
[[nodiscard]] Result<void> checkOutput(const std::filesystem::path &place, bool overwrite);

/// Whole text of a file of at most `limit` bytes. Errors (input): missing, unreadable, larger than the limit.
[[nodiscard]] Result<std::string> readTextFile(const std::filesystem::path &path, std::uint64_t limit = std::uint64_t(1) << 30);

/// True when `name` is a plain file name: no separator, no "..", not empty. Names inside index files must be.
[[nodiscard]] bool isPlainFileName(std::string_view name);

/// ${XDG_CACHE_HOME:-~/.cache}/spectra
[[nodiscard]] std::filesystem::path cacheFolder();

/// Lower-case hex SHA-256 (FIPS 180-4).
class Sha256 {
public:
    Sha256();
    ~Sha256();
    void add(std::span<const std::byte> bytes);
    /// Ends the sum: nothing may be added afterwards.
    [[nodiscard]] std::string hex();

private:
    struct Context;
    std::unique_ptr<Context> m_context;
};
/// Errors: input (unreadable), cancelled.
[[nodiscard]] Result<std::string> sha256File(const std::filesystem::path &path, std::stop_token stop = {});

/// Length of the valid UTF-8 sequence at text[at], or 0. Overlong forms, surrogates and code points above 10FFFF are not valid.
[[nodiscard]] int utf8Length(std::string_view text, std::size_t at);
/// The text with each byte that is not UTF-8, and U+0000, shown as <0xNN>.
[[nodiscard]] std::string printableUtf8(std::string_view text);

/// Bytes of memory that this process may still take: the smaller of MemAvailable and the cgroup's room.
[[nodiscard]] std::uint64_t availableMemory();
/// Resident anonymous memory of this process, bytes.
[[nodiscard]] std::uint64_t anonymousMemory();

} // namespace spectra
