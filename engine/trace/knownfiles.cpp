// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/trace/knownfiles.h"

#include <array>
#include <cstdint>
#include <mutex>
#include <optional>
#include <set>
#include <sys/stat.h>

namespace spectra {
namespace {

using Key = std::array<std::int64_t, 7>;

std::optional<Key> keyOf(const std::filesystem::path &path)
{
    struct stat s {};
    if (::stat(path.c_str(), &s) != 0)
        return {};
    // Renaming changes the change time only, and every writing changes both.
    return Key{static_cast<std::int64_t>(s.st_dev), static_cast<std::int64_t>(s.st_ino), s.st_size, s.st_mtim.tv_sec,
               s.st_mtim.tv_nsec, s.st_ctim.tv_sec, s.st_ctim.tv_nsec};
}

std::mutex mutex;
std::set<Key> known;

} // namespace

void rememberFile(const std::filesystem::path &path)
{
    if (const auto key = keyOf(path)) {
        const std::lock_guard lock(mutex);
        known.insert(*key);
    }
}

bool isKnownFile(const std::filesystem::path &path)
{
    const auto key = keyOf(path);
    const std::lock_guard lock(mutex);
    return key && known.contains(*key);
}

} // namespace spectra
