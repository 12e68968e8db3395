// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/data/bytestream.h"

#include <fmt/format.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <array>
#include <cerrno>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace spectra {
namespace {

/// 128 MiB, what `zstd` itself allows without --long: a stream from outside decides this much memory.
constexpr int largestWindowLog = 27;

std::string reason()
{
    return std::error_code(errno, std::generic_category()).message();
}

/// What a file is by its first bytes, when it is no text.
std::string_view otherFormat(std::string_view start)
{
    using namespace std::string_view_literals;
    for (const auto &[magic, name] : {std::pair{"\x1F\x8B"sv, "gzip-compressed"sv}, {"\xFD"
                                                                                      "7zXZ\0"sv,
                                                                                      "xz-compressed"sv},
                                      {"BZh"sv, "bzip2-compressed"sv}, {"PK\x03\x04"sv, "a zip archive"sv}, {"PAR1"sv, "a Parquet file"sv},
                                      {"\xFF\xFE"sv, "UTF-16 text"sv}, {"\xFE\xFF"sv, "UTF-16 text"sv},
                                      {"\x28\xB5\x2F\xFD"sv, "zstd-compressed but not called .zst"sv}}) {
        if (start.starts_with(magic))
            return name;
    }
    return {};
}

} // namespace

struct ByteStream::Private {
    std::filesystem::path file;
    int fd = -1;
    Sha256 sha;
    std::int64_t fileBytes = 0;
    bool atEnd = false;
    std::string raw; // of the file, not yet decompressed
    std::size_t rawAt = 0;
    ZSTD_DCtx *zstd = nullptr;
    std::size_t frame = 0; // what zstd still expects: 0 between frames

    ~Private()
    {
        if (fd >= 0)
            ::close(fd);
        ZSTD_freeDCtx(zstd);
    }
    Result<void> fill()
    {
        raw.resize(1 << 17);
        rawAt = 0;
        ssize_t got;
        do {
            got = ::read(fd, raw.data(), raw.size());
        } while (got < 0 && errno == EINTR);
        const std::string why = got < 0 ? reason() : std::string();
        raw.resize(got > 0 ? std::size_t(got) : 0);
        if (got < 0)
            return inputError("cannot be read: " + why, file.string());
        atEnd = got == 0;
        fileBytes += got;
        sha.add(std::as_bytes(std::span(raw)));
        return {};
    }
    Error broken(std::size_t code) const
    {
        const std::string where = fmt::format("{}: near byte {}", file.string(), fileBytes - std::int64_t(raw.size() - rawAt));
        if (ZSTD_getErrorCode(code) == ZSTD_error_frameParameter_windowTooLarge)
            return inputError("the zstd stream needs a window of more than 128 MiB", where, "compress it without --long, or with --long=27");
        return inputError(fmt::format("is no valid zstd stream ({})", ZSTD_getErrorName(code)), where, "compress the text again with zstd");
    }
};

ByteStream::ByteStream(std::unique_ptr<Private> p) : d(std::move(p)) {}
ByteStream::ByteStream(ByteStream &&) noexcept = default;
ByteStream::~ByteStream() = default;

Result<ByteStream> ByteStream::open(const std::filesystem::path &file)
{
    auto d = std::make_unique<Private>();
    d->file = file;
    d->fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (d->fd < 0)
        return inputError(errno == ENOENT ? "no such file" : "cannot be opened: " + reason(), file.string());
    struct stat status {};
    if (::fstat(d->fd, &status) != 0 || !S_ISREG(status.st_mode))
        return inputError(S_ISDIR(status.st_mode) ? "is a folder, not a file" : "is not a regular file", file.string(), "name the text files themselves");
    if (status.st_size == 0)
        return inputError("is empty", file.string(), "leave it out, or fetch it again");
    SPECTRA_CHECK(d->fill());
    if (file.extension() == ".zst") {
        d->zstd = ZSTD_createDCtx();
        if (d->zstd == nullptr)
            return workError("out of memory");
        ZSTD_DCtx_setParameter(d->zstd, ZSTD_d_windowLogMax, largestWindowLog);
    } else if (const std::string_view other = otherFormat(d->raw); !other.empty()) {
        return inputError(fmt::format("is {}", other), file.string(), "give UTF-8 text or JSON lines, plain or as .zst");
    }
    return ByteStream(std::move(d));
}

Result<bool> ByteStream::read(std::string &into, std::stop_token stop)
{
    const std::size_t had = into.size();
    while (into.size() == had) {
        if (stop.stop_requested())
            return cancelledError();
        if (d->rawAt == d->raw.size() && !d->atEnd)
            SPECTRA_CHECK(d->fill());
        if (d->zstd == nullptr) {
            if (d->atEnd)
                return false;
            into.append(d->raw, d->rawAt);
            d->rawAt = d->raw.size();
            continue;
        }
        if (d->rawAt == d->raw.size() && d->atEnd && d->frame == 0)
            return false;
        into.resize(had + ZSTD_DStreamOutSize());
        ZSTD_inBuffer in{d->raw.data(), d->raw.size(), d->rawAt};
        ZSTD_outBuffer out{into.data() + had, into.size() - had, 0};
        const std::size_t code = ZSTD_decompressStream(d->zstd, &out, &in);
        const bool moved = in.pos != d->rawAt || out.pos > 0;
        d->rawAt = in.pos;
        into.resize(had + out.pos);
        if (ZSTD_isError(code))
            return d->broken(code);
        d->frame = code;
        if (!moved && d->atEnd && code != 0)
            return inputError("the zstd stream ends early", d->file.string(), "the file is cut off: fetch or compress it again");
    }
    return true;
}

std::string ByteStream::sha256()
{
    return d->sha.hex();
}

std::int64_t ByteStream::fileBytes() const
{
    return d->fileBytes;
}

} // namespace spectra
