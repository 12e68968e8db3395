// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/trace/h5heap.h"

#include <cerrno>
#include <cstring>
#include <unistd.h>

namespace spectra::h5 {
namespace {

constexpr std::size_t kMostCollection = std::size_t(256) << 20; ///< one text may be as long as this
constexpr std::size_t kMostHeld = std::size_t(16) << 20;

template <typename T> T little(const std::byte *at)
{
    T value;
    std::memcpy(&value, at, sizeof value); // every platform of this program is little-endian
    return value;
}

bool readAt(int fd, std::int64_t at, std::span<std::byte> to)
{
    while (!to.empty()) {
        const ssize_t n = ::pread(fd, to.data(), to.size(), at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        to = to.subspan(static_cast<std::size_t>(n));
        at += n;
    }
    return true;
}

} // namespace

Result<const HeapReader::Collection *> HeapReader::collection(std::uint64_t address)
{
    if (const auto it = m_collections.find(address); it != m_collections.end())
        return &it->second;
    const auto bad = [&](const char *what) { return inputError(std::string("text heap at byte ") + std::to_string(address) + " " + what); };
    const auto room = static_cast<std::uint64_t>(m_fileBytes - m_base);
    if (address > room || room - address < 16)
        return bad("lies outside the file");
    std::byte head[16];
    const std::int64_t at = m_base + static_cast<std::int64_t>(address);
    if (!readAt(m_fd, at, head))
        return bad("cannot be read");
    if (std::memcmp(head, "GCOL\x01", 5) != 0)
        return bad("is no heap");
    const auto size = little<std::uint64_t>(head + 8);
    if (size < 16 || size > room - address || size > kMostCollection)
        return bad("has a size that is wrong");
    if (m_held + size > kMostHeld) {
        m_collections.clear();
        m_held = 0;
    }
    Collection c;
    c.bytes.resize(static_cast<std::size_t>(size));
    if (!readAt(m_fd, at, c.bytes))
        return bad("cannot be read");
    std::size_t p = 16;
    while (c.bytes.size() - p >= 16) {
        const auto index = little<std::uint16_t>(c.bytes.data() + p);
        const auto length = little<std::uint64_t>(c.bytes.data() + p + 8);
        if (index == 0) // free space, always last
            break;
        const std::size_t left = c.bytes.size() - p - 16;
        if (length > left)
            return bad("holds an object that is longer than itself");
        if (c.objects.size() <= index)
            c.objects.resize(std::size_t(index) + 1);
        c.objects[index] = {static_cast<std::uint32_t>(p + 16), static_cast<std::uint32_t>(length)};
        const std::size_t padded = (static_cast<std::size_t>(length) + 7) / 8 * 8;
        if (padded > left)
            break;
        p += 16 + padded;
    }
    m_held += c.bytes.size();
    return &m_collections.emplace(address, std::move(c)).first->second;
}

Result<std::string> HeapReader::text(std::span<const std::byte> reference, std::size_t &limit)
{
    const auto length = little<std::uint32_t>(reference.data());
    const auto address = little<std::uint64_t>(reference.data() + 4);
    const auto index = little<std::uint32_t>(reference.data() + 12);
    if (length == 0 || address == 0 || address == ~std::uint64_t(0))
        return std::string();
    const auto found = collection(address);
    if (!found && m_lenient)
        return std::string();
    if (!found)
        return found.error();
    const Collection *const c = *found;
    if (m_lenient && (index >= c->objects.size() || c->objects[index].first == 0 || length > c->objects[index].second))
        return std::string();
    if (index == 0 || index >= c->objects.size() || c->objects[index].first == 0)
        return inputError("a text refers to an object that its heap does not hold");
    const auto [offset, size] = c->objects[index];
    if (length > size)
        return inputError("a text is longer than its object in the heap");
    if (length > limit)
        return inputError("the texts are larger than any trace's");
    limit -= length;
    const auto *text = reinterpret_cast<const char *>(c->bytes.data() + offset);
    return std::string(text, ::strnlen(text, length));
}

} // namespace spectra::h5
