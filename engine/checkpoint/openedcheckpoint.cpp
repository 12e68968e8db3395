// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/checkpoint/openedcheckpoint.h"

#include "engine/checkpoint/dequantize.h"
#include "engine/core/files.h"
#include "engine/core/parallel.h"

#include <fmt/format.h>

#include <algorithm>
#include <sys/mman.h>
#include <unistd.h>

namespace spectra {
namespace {

/// Below this many elements per part, waking another thread costs more than it saves.
constexpr std::int64_t kElementsPerPart = 1 << 16;

std::uint64_t storedBytes(const TensorView &view)
{
    const BlockSize block = blockSize(view.dtype);
    if (view.order == TensorView::Order::transposed) // from its first element to its last, other experts' columns between
        return static_cast<std::uint64_t>(view.columns * view.stride / block.elements * block.bytes);
    return static_cast<std::uint64_t>(view.rows * view.columns / block.elements * block.bytes);
}

/// Internal rows [first, last) of a view whose rows are addressable one by one.
void readRows(const TensorView &view, const std::byte *base, float *out, std::int64_t first, std::int64_t last)
{
    const BlockSize block = blockSize(view.dtype);
    const std::int64_t rowBytes = view.columns / block.elements * block.bytes;
    switch (view.order) {
    case TensorView::Order::stored:
        dequantize(view.dtype, base + first * rowBytes, out, (last - first) * view.columns);
        return;
    case TensorView::Order::queryKey:
        for (std::int64_t r = first; r < last; ++r, out += view.columns) {
            const std::int64_t head = r / view.headRows, inside = r % view.headRows, half = view.headRows / 2;
            const std::int64_t source = head * view.headRows + 2 * (inside % half) + inside / half;
            dequantize(view.dtype, base + source * rowBytes, out, view.columns);
        }
        return;
    case TensorView::Order::transposed: {
        std::vector<float> line(static_cast<std::size_t>(last - first));
        for (std::int64_t c = 0; c < view.columns; ++c) {
            dequantize(view.dtype, base + (c * view.stride + view.firstColumn + first) * block.bytes, line.data(), last - first);
            for (std::int64_t r = 0; r < last - first; ++r)
                out[r * view.columns + c] = line[static_cast<std::size_t>(r)];
        }
        return;
    }
    }
}

} // namespace

Result<std::shared_ptr<const Checkpoint>> OpenedCheckpoint::make(Parts parts)
{
    std::shared_ptr<OpenedCheckpoint> checkpoint(new OpenedCheckpoint(std::move(parts)));
    for (std::size_t i = 0; i < checkpoint->m.infos.size(); ++i)
        if (!checkpoint->m_index.emplace(checkpoint->m.infos[i].name, i).second)
            return inputError("occurs twice", "tensor " + printableUtf8(checkpoint->m.infos[i].name));
    return std::shared_ptr<const Checkpoint>(std::move(checkpoint));
}

const TensorInfo *OpenedCheckpoint::find(std::string_view name) const
{
    const auto it = m_index.find(name);
    return it == m_index.end() ? nullptr : &m.infos[it->second];
}

const TensorView *OpenedCheckpoint::viewOf(const TensorInfo &tensor) const
{
    const auto it = m_index.find(tensor.name);
    return it == m_index.end() ? nullptr : &m.views[it->second];
}

Result<void> OpenedCheckpoint::readF32(const TensorInfo &tensor, std::span<float> out, std::int64_t firstRow, std::int64_t rows) const
{
    const TensorView *view = viewOf(tensor);
    if (view == nullptr)
        return bugError("this checkpoint has no such tensor", tensor.name);
    if (rows < 0)
        rows = view->rows - firstRow;
    if (firstRow < 0 || rows < 0 || firstRow > view->rows || rows > view->rows - firstRow)
        return bugError(fmt::format("rows {} + {} lie outside {}", firstRow, rows, shapeText(tensor.shape)), tensor.name);
    const std::int64_t elements = rows * view->columns;
    if (static_cast<std::int64_t>(out.size()) != elements)
        return bugError(fmt::format("{} values were asked for, {} are there", out.size(), elements), tensor.name);
    if (elements == 0)
        return {};
    const std::byte *base = m.files[static_cast<std::size_t>(view->file)].bytes.data() + view->offset;
    const BlockSize block = blockSize(view->dtype);
    if (view->columns % block.elements != 0) { // a quantised vector: no row of it is a whole block
        if (view->columns != 1 || firstRow % block.elements != 0 || rows % block.elements != 0)
            return bugError("rows of a quantised vector come in whole blocks", tensor.name);
        dequantize(view->dtype, base + firstRow / block.elements * block.bytes, out.data(), rows);
        return {};
    }
    const auto parts = static_cast<int>(std::clamp<std::int64_t>(elements / kElementsPerPart, 1, 4 * threadCount()));
    parallelFor(rows, parts, [&](std::int64_t begin, std::int64_t end, int) {
        readRows(*view, base, out.data() + begin * view->columns, firstRow + begin, firstRow + end);
    });
    return {};
}

std::span<const std::byte> OpenedCheckpoint::raw(const TensorInfo &tensor) const
{
    const TensorView *view = viewOf(tensor);
    if (view == nullptr || view->order != TensorView::Order::stored
        || (view->dtype != DType::f32 && view->dtype != DType::f16 && view->dtype != DType::bf16))
        return {};
    const auto bytes = m.files[static_cast<std::size_t>(view->file)].bytes.subspan(view->offset, storedBytes(*view));
    // A header need not be padded; a misaligned float must not be read in place.
    return reinterpret_cast<std::uintptr_t>(bytes.data()) % static_cast<std::uintptr_t>(blockSize(view->dtype).bytes) == 0 ? bytes
                                                                                                           : std::span<const std::byte>{};
}

void OpenedCheckpoint::release(const TensorInfo &tensor) const
{
    const TensorView *view = viewOf(tensor);
    if (view == nullptr || !m.files[static_cast<std::size_t>(view->file)].mapped)
        return;
    static const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
    const auto begin = reinterpret_cast<std::uintptr_t>(m.files[static_cast<std::size_t>(view->file)].bytes.data()) + view->offset;
    const std::uintptr_t first = (begin + page - 1) / page * page, last = (begin + storedBytes(*view)) / page * page;
    // Clean pages of a private read-only mapping: dropping them loses nothing, a later read maps them again.
    if (first < last)
        ::madvise(reinterpret_cast<void *>(first), last - first, MADV_DONTNEED);
}

Result<std::string> OpenedCheckpoint::sha256(std::stop_token stop) const
{
    Sha256 sum;
    for (const DataFile &file : m.files)
        for (std::size_t at = 0; at < file.bytes.size(); at += std::size_t(4) << 20) {
            if (stop.stop_requested())
                return cancelledError();
            sum.add(file.bytes.subspan(at, std::min(file.bytes.size() - at, std::size_t(4) << 20)));
        }
    return sum.hex();
}

} // namespace spectra
