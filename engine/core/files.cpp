// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/core/files.h"

#include <fmt/format.h>

#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace spectra {
namespace fs = std::filesystem;
namespace {

std::string reason()
{
    return std::error_code(errno, std::generic_category()).message();
}

/// A name beside `place` that no other process or call uses.
fs::path temporaryBeside(const fs::path &place)
{
    static std::atomic<unsigned> counter{0};
    fs::path name = place;
    name.replace_filename(fmt::format(".{}.{}-{}.tmp", place.filename().string(), ::getpid(), counter.fetch_add(1)));
    return name;
}

fs::path withoutTrailingSlash(const fs::path &place)
{
    return place.has_filename() ? place : place.parent_path();
}

Result<void> syncFile(const fs::path &path, int flags)
{
    const int fd = ::open(path.c_str(), flags | O_CLOEXEC);
    if (fd < 0)
        return workError("cannot be opened for syncing: " + reason(), path.string());
    const int rc = ::fsync(fd);
    const int error = errno;
    ::close(fd);
    if (rc != 0 && error != EINVAL && error != EROFS) {
        errno = error;
        return workError("cannot be written to disk: " + reason(), path.string());
    }
    return {};
}

} // namespace

Result<std::shared_ptr<const MappedFile>> MappedFile::open(const fs::path &path)
{
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return inputError(errno == ENOENT ? "no such file" : "cannot be opened: " + reason(), path.string());
    struct stat status {};
    if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
        ::close(fd);
        return inputError(S_ISDIR(status.st_mode) ? "is a folder, not a file" : "is not a regular file", path.string());
    }
    std::shared_ptr<MappedFile> file(new MappedFile);
    file->m_path = path;
    file->m_size = static_cast<std::size_t>(status.st_size);
    if (file->m_size > 0) {
        void *data = ::mmap(nullptr, file->m_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) {
            const std::string why = reason();
            ::close(fd);
            file->m_size = 0;
            return inputError("cannot be mapped: " + why, path.string());
        }
        file->m_data = static_cast<const std::byte *>(data);
    }
    ::close(fd);
    return std::shared_ptr<const MappedFile>(std::move(file));
}

MappedFile::~MappedFile()
{
    if (m_data != nullptr)
        ::munmap(const_cast<std::byte *>(m_data), m_size);
}

Result<void> checkOutput(const fs::path &place, bool overwrite)
{
    std::error_code error;
    if (!overwrite && fs::exists(fs::symlink_status(place, error)))
        return workError("exists already", place.string(), "choose another name or give --overwrite");
    return {};
}

Result<AtomicFile> AtomicFile::create(const fs::path &place, bool overwrite)
{
    SPECTRA_CHECK(checkOutput(place, overwrite));
    std::error_code ignored;
    if (fs::is_directory(place, ignored))
        return workError("is a folder", place.string(), "give the name of a file");
    AtomicFile file;
    file.m_place = place;
    file.m_temporary = temporaryBeside(place);
    errno = 0;
    file.m_stream.open(file.m_temporary, std::ios::binary | std::ios::trunc);
    if (!file.m_stream) {
        const std::string why = reason();
        file.m_temporary.clear();
        return workError("cannot be written: " + why, place.string());
    }
    return file;
}

AtomicFile::AtomicFile(AtomicFile &&other) noexcept
    : m_place(std::move(other.m_place)), m_temporary(std::move(other.m_temporary)), m_stream(std::move(other.m_stream))
{
    other.m_temporary.clear();
}

AtomicFile::~AtomicFile()
{
    if (!m_temporary.empty()) {
        m_stream.close();
        std::error_code ignored;
        fs::remove(m_temporary, ignored);
    }
}

Result<void> AtomicFile::commit()
{
    if (m_stream.is_open()) {
        m_stream.flush();
        const bool good = m_stream.good();
        m_stream.close();
        if (!good || m_stream.fail())
            return workError("cannot be written (is the disk full?)", m_place.string());
    }
    if (auto synced = syncFile(m_temporary, O_RDONLY); !synced)
        return synced.error();
    if (std::rename(m_temporary.c_str(), m_place.c_str()) != 0)
        return workError("cannot be put in place: " + reason(), m_place.string());
    m_temporary.clear();
    return {};
}

Result<AtomicFolder> AtomicFolder::create(const fs::path &given, bool overwrite)
{
    const fs::path place = withoutTrailingSlash(given);
    SPECTRA_CHECK(checkOutput(place, overwrite));
    AtomicFolder folder;
    folder.m_place = place;
    folder.m_overwrite = overwrite;
    const fs::path temporary = temporaryBeside(place);
    std::error_code error;
    fs::create_directory(temporary, error);
    if (error)
        return workError("cannot be written: " + error.message(), place.string());
    folder.m_temporary = temporary;
    return folder;
}

AtomicFolder::AtomicFolder(AtomicFolder &&other) noexcept
    : m_place(std::move(other.m_place)), m_temporary(std::move(other.m_temporary)), m_overwrite(other.m_overwrite)
{
    other.m_temporary.clear();
}

AtomicFolder::~AtomicFolder()
{
    if (!m_temporary.empty()) {
        std::error_code ignored;
        fs::remove_all(m_temporary, ignored);
    }
}

Result<void> AtomicFolder::commit()
{
    std::error_code error;
    for (const auto &entry : fs::recursive_directory_iterator(m_temporary, error))
        if (entry.is_regular_file())
            SPECTRA_CHECK(syncFile(entry.path(), O_RDONLY));
    fs::path old;
    if (m_overwrite && fs::exists(fs::symlink_status(m_place))) {
        old = temporaryBeside(m_place);
        fs::rename(m_place, old, error);
        if (error)
            return workError("cannot be replaced: " + error.message(), m_place.string());
    }
    fs::rename(m_temporary, m_place, error);
    if (error) {
        const std::string why = error.message();
        if (!old.empty())
            fs::rename(old, m_place, error);
        return workError("cannot be put in place: " + why, m_place.string());
    }
    m_temporary.clear();
    if (!old.empty())
        fs::remove_all(old, error);
    return {};
}

Result<std::string> readTextFile(const fs::path &path, std::uint64_t limit)
{
    std::error_code error;
    const auto status = fs::status(path, error);
    if (!fs::exists(status))
        return inputError("no such file", path.string());
    if (fs::is_directory(status))
        return inputError("is a folder, not a file", path.string());
    std::ifstream stream(path, std::ios::binary);
    if (!stream)
        return inputError("cannot be opened: " + reason(), path.string());
    std::string text;
    std::array<char, 1 << 16> buffer;
    while (stream.read(buffer.data(), buffer.size()) || stream.gcount() > 0) {
        text.append(buffer.data(), static_cast<std::size_t>(stream.gcount()));
        if (text.size() > limit)
            return inputError(fmt::format("is larger than {} MB", limit >> 20), path.string());
    }
    if (stream.bad())
        return inputError("cannot be read", path.string());
    return text;
}

bool isPlainFileName(std::string_view name)
{
    return !name.empty() && name != "." && name != ".." && name.find('/') == std::string_view::npos
        && name.find('\\') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

fs::path cacheFolder()
{
    if (const char *cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache != '\0')
        return fs::path(cache) / "spectra";
    const char *home = std::getenv("HOME");
    return fs::path(home != nullptr ? home : "/tmp") / ".cache" / "spectra";
}

namespace {
constexpr std::array<std::uint32_t, 64> kSha256 = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
    0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
    0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
    0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
    0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
    0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
} // namespace

Sha256::Sha256()
    : m_state{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}
{
}

void Sha256::block(const std::byte *data)
{
    std::uint32_t w[64];
    for (int i = 0; i < 16; ++i)
        w[i] = std::to_integer<std::uint32_t>(data[4 * i]) << 24 | std::to_integer<std::uint32_t>(data[4 * i + 1]) << 16
            | std::to_integer<std::uint32_t>(data[4 * i + 2]) << 8 | std::to_integer<std::uint32_t>(data[4 * i + 3]);
    for (int i = 16; i < 64; ++i) {
        const std::uint32_t a = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ (w[i - 15] >> 3);
        const std::uint32_t b = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ (w[i - 2] >> 10);
        w[i] = w[i - 16] + a + w[i - 7] + b;
    }
    std::uint32_t s[8];
    std::memcpy(s, m_state, sizeof s);
    for (std::size_t i = 0; i < 64; ++i) {
        const std::uint32_t e1 = std::rotr(s[4], 6) ^ std::rotr(s[4], 11) ^ std::rotr(s[4], 25);
        const std::uint32_t t1 = s[7] + e1 + ((s[4] & s[5]) ^ (~s[4] & s[6])) + kSha256[i] + w[i];
        const std::uint32_t e0 = std::rotr(s[0], 2) ^ std::rotr(s[0], 13) ^ std::rotr(s[0], 22);
        const std::uint32_t t2 = e0 + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        std::memmove(s + 1, s, 7 * sizeof s[0]);
        s[4] += t1;
        s[0] = t1 + t2;
    }
    for (int i = 0; i < 8; ++i)
        m_state[i] += s[i];
}

void Sha256::add(std::span<const std::byte> bytes)
{
    std::size_t held = static_cast<std::size_t>(m_length % 64);
    m_length += bytes.size();
    if (held > 0) {
        const std::size_t take = std::min<std::size_t>(64 - held, bytes.size());
        std::memcpy(m_buffer + held, bytes.data(), take);
        bytes = bytes.subspan(take);
        if (held + take < 64)
            return;
        block(m_buffer);
    }
    for (; bytes.size() >= 64; bytes = bytes.subspan(64))
        block(bytes.data());
    if (!bytes.empty())
        std::memcpy(m_buffer, bytes.data(), bytes.size());
}

std::string Sha256::hex()
{
    const std::uint64_t bits = m_length * 8;
    const std::byte one{0x80};
    const std::byte zero{0};
    add({&one, 1});
    while (m_length % 64 != 56)
        add({&zero, 1});
    std::byte length[8];
    for (int i = 0; i < 8; ++i)
        length[i] = static_cast<std::byte>(bits >> (56 - 8 * i));
    add(length);
    std::string out;
    for (std::uint32_t s : m_state)
        out += fmt::format("{:08x}", s);
    return out;
}

Result<std::string> sha256File(const fs::path &path, std::stop_token stop)
{
    SPECTRA_TRY(const auto file, MappedFile::open(path));
    Sha256 sha;
    auto bytes = file->bytes();
    while (!bytes.empty()) {
        if (stop.stop_requested())
            return cancelledError();
        const std::size_t take = std::min<std::size_t>(bytes.size(), 4 << 20);
        sha.add(bytes.first(take));
        bytes = bytes.subspan(take);
    }
    return sha.hex();
}

int utf8Length(std::string_view text, std::size_t at)
{
    const auto byte = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
    const auto follows = [&](std::size_t i) { return (byte(i) & 0xC0u) == 0x80u; };
    const unsigned a = byte(at);
    if (at >= text.size())
        return 0;
    if (a < 0x80)
        return 1;
    if (a >= 0xC2 && a <= 0xDF)
        return follows(at + 1) ? 2 : 0;
    if (a >= 0xE0 && a <= 0xEF) {
        if (!follows(at + 1) || !follows(at + 2))
            return 0;
        const unsigned b = byte(at + 1);
        return (a == 0xE0 && b < 0xA0) || (a == 0xED && b > 0x9F) ? 0 : 3;
    }
    if (a >= 0xF0 && a <= 0xF4) {
        if (!follows(at + 1) || !follows(at + 2) || !follows(at + 3))
            return 0;
        const unsigned b = byte(at + 1);
        return (a == 0xF0 && b < 0x90) || (a == 0xF4 && b > 0x8F) ? 0 : 4;
    }
    return 0;
}

std::string printableUtf8(std::string_view text)
{
    std::string out;
    out.reserve(text.size());
    for (std::size_t i = 0; i < text.size();) {
        const int n = text[i] == '\0' ? 0 : utf8Length(text, i);
        if (n == 0) {
            out += fmt::format("<0x{:02X}>", static_cast<unsigned char>(text[i]));
            ++i;
        } else {
            out.append(text.substr(i, static_cast<std::size_t>(n)));
            i += static_cast<std::size_t>(n);
        }
    }
    return out;
}

namespace {
std::uint64_t fieldOf(const char *file, std::string_view key)
{
    std::ifstream stream(file);
    std::string line;
    while (std::getline(stream, line))
        if (line.starts_with(key))
            return std::strtoull(line.c_str() + key.size(), nullptr, 10) * 1024;
    return 0;
}
std::uint64_t numberIn(const char *file)
{
    std::ifstream stream(file);
    std::uint64_t value = 0;
    return stream >> value ? value : ~std::uint64_t(0);
}
} // namespace

std::uint64_t availableMemory()
{
    std::uint64_t free = fieldOf("/proc/meminfo", "MemAvailable:");
    const std::uint64_t limit = numberIn("/sys/fs/cgroup/memory.max");
    const std::uint64_t used = numberIn("/sys/fs/cgroup/memory.current");
    if (limit != ~std::uint64_t(0) && used != ~std::uint64_t(0))
        free = std::min(free, limit > used ? limit - used : 0);
    return free;
}

std::uint64_t anonymousMemory()
{
    return fieldOf("/proc/self/status", "RssAnon:");
}

} // namespace spectra
