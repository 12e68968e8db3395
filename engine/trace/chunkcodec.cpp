// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/trace/chunkcodec.h"

#include <zlib.h>

#include <cstring>

namespace spectra {

void shuffleBytes(std::span<const std::byte> from, std::size_t elementSize, std::byte *to)
{
    const std::size_t n = elementSize > 1 ? from.size() / elementSize : 0;
    for (std::size_t b = 0; n > 0 && b < elementSize; ++b) {
        const std::byte *in = from.data() + b;
        std::byte *out = to + b * n;
        for (std::size_t i = 0; i < n; ++i)
            out[i] = in[i * elementSize];
    }
    const std::size_t done = n * elementSize;
    if (done < from.size())
        std::memcpy(to + done, from.data() + done, from.size() - done);
}

void unshuffleBytes(std::span<const std::byte> from, std::size_t elementSize, std::byte *to)
{
    const std::size_t n = elementSize > 1 ? from.size() / elementSize : 0;
    for (std::size_t b = 0; n > 0 && b < elementSize; ++b) {
        const std::byte *in = from.data() + b * n;
        std::byte *out = to + b;
        for (std::size_t i = 0; i < n; ++i)
            out[i * elementSize] = in[i];
    }
    const std::size_t done = n * elementSize;
    if (done < from.size())
        std::memcpy(to + done, from.data() + done, from.size() - done);
}

bool deflateBytes(std::span<const std::byte> from, int level, std::vector<std::byte> &to)
{
    to.resize(compressBound(static_cast<uLong>(from.size())));
    uLongf length = static_cast<uLongf>(to.size());
    if (compress2(reinterpret_cast<Bytef *>(to.data()), &length, reinterpret_cast<const Bytef *>(from.data()),
                  static_cast<uLong>(from.size()), level) != Z_OK
        || length >= from.size())
        return false;
    to.resize(length);
    return true;
}

bool inflateBytes(std::span<const std::byte> from, std::span<std::byte> to)
{
    uLongf length = static_cast<uLongf>(to.size());
    return uncompress(reinterpret_cast<Bytef *>(to.data()), &length, reinterpret_cast<const Bytef *>(from.data()),
                      static_cast<uLong>(from.size())) == Z_OK
        && length == to.size();
}

} // namespace spectra
