// SPDX-License-Identifier: GPL-3.0-or-later
// The parts of a trace file that this program parses itself, in its own process: the text heap and packed chunks. What
// libhdf5 parses is opened by spectra-probe first and fuzzed through it by the tests of engine/trace.
// Input: 4 references of 16 bytes, then the file that they point into; the rest is also taken as a packed chunk.
#include "engine/trace/chunkcodec.h"
#include "engine/trace/h5heap.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
    constexpr std::size_t head = 4 * spectra::h5::HeapReader::kReferenceBytes;
    if (size < head)
        return 0;
    const std::span<const std::byte> bytes(reinterpret_cast<const std::byte *>(data), size);
    const std::span<const std::byte> file = bytes.subspan(head);
    static const int fd = ::memfd_create("trace", 0);
    if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, file.data(), file.size(), 0) != static_cast<ssize_t>(file.size()))
        std::abort();
    for (const std::int64_t base : {std::int64_t(0), static_cast<std::int64_t>(file.size() / 3)}) {
        spectra::h5::HeapReader heap(fd, static_cast<std::int64_t>(file.size()), base);
        std::size_t limit = 1 << 20;
        for (std::size_t i = 0; i < 4; ++i) {
            const auto text = heap.text(bytes.subspan(i * spectra::h5::HeapReader::kReferenceBytes, spectra::h5::HeapReader::kReferenceBytes), limit);
            if (text.ok() && text->size() > file.size())
                std::abort(); // more text than there is file
        }
    }
    std::vector<std::byte> plain(static_cast<std::size_t>(data[0]) * 16 + 1), turned(plain.size());
    if (spectra::inflateBytes(file, plain)) {
        const std::size_t element = 1 + data[1] % 9;
        spectra::unshuffleBytes(plain, element, turned.data());
        std::vector<std::byte> again(plain.size()), packed, back(plain.size());
        spectra::shuffleBytes(turned, element, again.data());
        if (again != plain)
            std::abort();
        if (spectra::deflateBytes(plain, 1, packed) && (!spectra::inflateBytes(packed, back) || back != plain))
            std::abort();
    }
    return 0;
}
