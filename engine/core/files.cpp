// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/core/files.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <array>
#include <atomic>
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

struct Sha256::Context {
    EVP_MD_CTX *const md = EVP_MD_CTX_new();
    Context()
    {
        if (md == nullptr || EVP_DigestInit_ex(md, EVP_sha256(), nullptr) != 1)
            throw std::bad_alloc();
    }
    ~Context() { EVP_MD_CTX_free(md); }
    Context(const Context &) = delete;
    Context &operator=(const Context &) = delete;
};

Sha256::Sha256() : m_context(std::make_unique<Context>()) {}
Sha256::~Sha256() = default;

void Sha256::add(std::span<const std::byte> bytes)
{
    EVP_DigestUpdate(m_context->md, bytes.data(), bytes.size());
}

std::string Sha256::hex()
{
    unsigned char digest[EVP_MAX_MD_SIZE] = {};
    unsigned int length = 0;
    EVP_DigestFinal_ex(m_context->md, digest, &length);
    std::string out;
    for (unsigned int i = 0; i < length; ++i)
        out += fmt::format("{:02x}", digest[i]);
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
    std::uint64_t used = numberIn("/sys/fs/cgroup/memory.current");
    // Cached files that nobody used of late make room when asked: they are counted as used, and are not.
    if (used != ~std::uint64_t(0))
        used -= std::min(used, fieldOf("/sys/fs/cgroup/memory.stat", "inactive_file") / 1024);
    if (limit != ~std::uint64_t(0) && used != ~std::uint64_t(0))
        free = std::min(free, limit > used ? limit - used : 0);
    return free;
}

std::uint64_t anonymousMemory()
{
    return fieldOf("/proc/self/status", "RssAnon:");
}

} // namespace spectra
