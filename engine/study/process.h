// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

namespace spectra::study {

struct ProcessOptions {
    std::filesystem::path program;
    std::vector<std::string> arguments; ///< without the program's name
    std::filesystem::path output;    ///< standard output; empty: with the errors
    std::filesystem::path errors;    ///< standard error
    bool append = false;             ///< to both files
    int keepOpen = -1;               ///< a descriptor that the child inherits
    std::vector<int> cores;          ///< the child runs on these alone; empty: where this process may
};

/// A child in a process group of its own (Ctrl+C on the terminal reaches only us, and we tell it once). It is asked to stop
/// (SIGTERM) should the thread that started it die. One thread per object.
class ChildProcess {
public:
    /// Errors (work): files that cannot be written, no process, a program that cannot be started.
    [[nodiscard]] static Result<ChildProcess> start(const ProcessOptions &options);
    ChildProcess(ChildProcess &&other) noexcept;
    ChildProcess &operator=(ChildProcess &&other) noexcept;
    /// A child that still runs is killed and waited for.
    ~ChildProcess();

    struct Exit {
        int code = 0;                ///< of exit(); 128 + signal when a signal ended it, as shells say it
        int signal = 0;
    };
    /// Nothing while it runs. Never blocks.
    [[nodiscard]] std::optional<Exit> poll();
    void send(int signal) const;
    [[nodiscard]] double seconds() const;

private:
    explicit ChildProcess(pid_t pid) : m_pid(pid) {}
    pid_t m_pid = -1;
    std::optional<Exit> m_exit;
    std::chrono::steady_clock::time_point m_start = std::chrono::steady_clock::now();
};

/// The cores that place `slot` of `jobs` places with `threads` cores each has of its own, from those that this process may use; empty:
/// there is one place only, or too few cores for all.
[[nodiscard]] std::vector<int> coreSet(int slot, int jobs, int threads);

/// The last bytes of a file that may still grow; nothing when it cannot be read.
[[nodiscard]] std::string fileTail(const std::filesystem::path &file, std::int64_t bytes);
/// What a child said of its failure: the last "error: …" line of its log with the hint, else the last line.
[[nodiscard]] std::string lastError(const std::filesystem::path &log);

/// flock() on a file: one holder at a time, gone with the last process that holds it.
class FolderLock {
public:
    /// Errors (work): another process holds it; the folder cannot be written.
    [[nodiscard]] static Result<FolderLock> take(const std::filesystem::path &folder);
    FolderLock(FolderLock &&other) noexcept;
    FolderLock &operator=(FolderLock &&) = delete;
    ~FolderLock();
    /// For a child to inherit: the lock is held as long as one of them lives.
    [[nodiscard]] int descriptor() const { return m_fd; }

private:
    explicit FolderLock(int fd) : m_fd(fd) {}
    int m_fd = -1;
};

} // namespace spectra::study
