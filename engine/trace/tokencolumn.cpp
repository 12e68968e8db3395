// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/trace/tokencolumn.h"

#include "engine/trace/chunkcodec.h"
#include "engine/trace/half.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace spectra {

void Coverage::add(std::int64_t first, std::int64_t last)
{
    if (first >= last)
        return;
    auto it = m_ranges.upper_bound(first);
    if (it != m_ranges.begin() && std::prev(it)->second >= first) {
        --it;
        first = it->first;
    }
    while (it != m_ranges.end() && it->first <= last) {
        last = std::max(last, it->second);
        it = m_ranges.erase(it);
    }
    m_ranges.emplace(first, last);
}

std::int64_t Coverage::end(std::int64_t from) const
{
    auto it = m_ranges.upper_bound(from);
    return it != m_ranges.begin() && std::prev(it)->second > from ? std::prev(it)->second : from;
}

void Coverage::forget(std::int64_t before)
{
    while (!m_ranges.empty() && m_ranges.begin()->second <= before)
        m_ranges.erase(m_ranges.begin());
}

namespace {
template <typename T> std::vector<std::byte> bytesOf(T value)
{
    std::vector<std::byte> out(sizeof value);
    std::memcpy(out.data(), &value, sizeof value);
    return out;
}

std::vector<std::byte> fillOf(h5::Type type, double fill)
{
    switch (type) {
    case h5::Type::u16: return bytesOf(static_cast<std::uint16_t>(fill));
    case h5::Type::f16: return bytesOf(toHalf(static_cast<float>(fill)));
    case h5::Type::f32: return bytesOf(static_cast<float>(fill));
    default: return std::vector<std::byte>(h5::sizeOf(type));
    }
}
} // namespace

TokenColumn::TokenColumn(schema::Dataset id, h5::Handle data, const h5::DatasetSpec &spec, bool wide, int deflate)
    : m_id(id), m_data(std::move(data)), m_type(spec.type), m_layered(schema::rule(id).axes[0] == schema::Axis::layer), m_wide(wide),
      m_deflate(deflate)
{
    const std::size_t inner = m_layered ? 2 : 1;
    m_inner.assign(spec.shape.begin() + static_cast<std::ptrdiff_t>(inner), spec.shape.end());
    m_chunkInner.assign(spec.chunk.begin() + static_cast<std::ptrdiff_t>(inner), spec.chunk.end());
    m_block = spec.chunk[inner - 1];
    for (std::int64_t n : m_inner)
        m_width *= n;
    m_rowBytes = m_width * static_cast<std::int64_t>(h5::sizeOf(m_type));
    m_fill = fillOf(m_type, spec.fill.value_or(0));
    m_layers.resize(m_layered ? static_cast<std::size_t>(spec.shape[0]) : 1);
}

Result<std::byte *> TokenColumn::room(int layer, std::int64_t first, std::int64_t n)
{
    Layer &l = m_layers[static_cast<std::size_t>(layer)];
    if (first < l.base)
        return bugError("tokens " + std::to_string(first) + " were written already", schema::rule(m_id).path);
    const auto need = static_cast<std::size_t>((first + n - l.base) * m_rowBytes);
    if (l.rows.size() < need) {
        std::size_t at = l.rows.size();
        l.rows.resize(need);
        for (; at < need; at += m_fill.size())
            std::memcpy(l.rows.data() + at, m_fill.data(), m_fill.size());
    }
    return l.rows.data() + (first - l.base) * m_rowBytes;
}

Result<void> TokenColumn::put(int layer, std::int64_t first, std::int64_t n, std::span<const std::byte> rows)
{
    if (n <= 0)
        return {};
    SPECTRA_TRY(std::byte *const to, room(layer, first, n));
    if (rows.empty())
        return {};
    if (static_cast<std::int64_t>(rows.size()) != n * m_rowBytes)
        return bugError("a record has another width than the trace", schema::rule(m_id).path);
    std::memcpy(to, rows.data(), rows.size());
    return {};
}

Result<void> TokenColumn::putFloats(int layer, std::int64_t first, std::int64_t n, std::span<const float> rows)
{
    if (m_type == h5::Type::f32 || rows.empty())
        return put(layer, first, n, std::as_bytes(rows));
    if (static_cast<std::int64_t>(rows.size()) != n * m_width)
        return bugError("a record has another width than the trace", schema::rule(m_id).path);
    SPECTRA_TRY(std::byte *const to, room(layer, first, n));
    toHalf(rows, reinterpret_cast<std::uint16_t *>(to));
    return {};
}

Result<void> TokenColumn::grow(std::int64_t tokens)
{
    return tokens > m_tokens ? setTokens(tokens) : Result<void>();
}

Result<void> TokenColumn::setTokens(std::int64_t tokens)
{
    if (tokens == m_tokens)
        return {};
    std::vector<std::int64_t> shape;
    if (m_layered)
        shape.push_back(static_cast<std::int64_t>(m_layers.size()));
    shape.push_back(tokens);
    shape.insert(shape.end(), m_inner.begin(), m_inner.end());
    SPECTRA_CHECK(h5::setShape(m_data.id(), shape));
    m_tokens = tokens;
    return {};
}

Result<void> TokenColumn::writeBlock(int layer, std::int64_t first, std::span<const std::byte> rows)
{
    const std::size_t element = m_fill.size();
    // The inner axes as two: [outer, inner] with their chunk sizes; a missing one counts 1.
    const std::int64_t n0 = m_inner.size() > 1 ? m_inner[0] : 1, c0 = m_inner.size() > 1 ? m_chunkInner[0] : 1;
    const std::int64_t n1 = m_inner.empty() ? 1 : m_inner.back(), c1 = m_inner.empty() ? 1 : m_chunkInner.back();
    const std::int64_t have = static_cast<std::int64_t>(rows.size()) / m_rowBytes;
    const auto pieceBytes = static_cast<std::size_t>(m_block * c0 * c1) * element;
    for (std::int64_t i0 = 0; i0 < n0; i0 += c0) {
        for (std::int64_t i1 = 0; i1 < n1; i1 += c1) {
            std::span<const std::byte> raw = rows;
            if (have < m_block || c0 < n0 || c1 < n1) {
                m_piece.resize(pieceBytes);
                for (std::size_t at = 0; at < pieceBytes; at += element)
                    std::memcpy(m_piece.data() + at, m_fill.data(), element);
                const std::int64_t w0 = std::min(c0, n0 - i0), w1 = std::min(c1, n1 - i1);
                for (std::int64_t t = 0; t < have; ++t)
                    for (std::int64_t j = 0; j < w0; ++j)
                        std::memcpy(m_piece.data() + static_cast<std::size_t>((t * c0 + j) * c1) * element,
                                    rows.data() + static_cast<std::size_t>(t * m_rowBytes) + static_cast<std::size_t>((i0 + j) * n1 + i1) * element,
                                    static_cast<std::size_t>(w1) * element);
                raw = m_piece;
            }
            std::uint32_t skipped = 0;
            if (m_deflate >= 0) {
                m_shuffled.resize(raw.size());
                shuffleBytes(raw, element, m_shuffled.data());
                raw = m_shuffled;
                if (m_deflate > 0 && deflateBytes(raw, m_deflate, m_packed))
                    raw = m_packed;
                else
                    skipped = 2; // filter 1 of the pipeline, deflate, was left out
            }
            std::vector<std::int64_t> at;
            if (m_layered)
                at.push_back(layer);
            at.push_back(first);
            if (m_inner.size() > 1)
                at.push_back(i0);
            if (!m_inner.empty())
                at.push_back(i1);
            SPECTRA_CHECK(h5::writeChunk(m_data.id(), at, skipped, raw));
        }
    }
    return {};
}

Result<void> TokenColumn::writeBlocks(int layer, std::int64_t end, bool last)
{
    Layer &l = m_layers[static_cast<std::size_t>(layer)];
    std::size_t used = 0;
    while (l.base + m_block <= end || (last && l.base < end)) {
        const std::int64_t to = std::min(end, l.base + m_block);
        SPECTRA_CHECK(grow(to));
        const auto bytes = static_cast<std::size_t>((to - l.base) * m_rowBytes);
        if (l.rows.size() - used < bytes)
            return bugError("rows of a whole block are missing", schema::rule(m_id).path);
        SPECTRA_CHECK(writeBlock(layer, l.base, std::span<const std::byte>(l.rows).subspan(used, bytes)));
        used += bytes;
        l.base = to;
    }
    if (used > 0)
        l.rows.erase(l.rows.begin(), l.rows.begin() + static_cast<std::ptrdiff_t>(used));
    return {};
}

Result<void> TokenColumn::writeRows(std::int64_t end)
{
    const std::int64_t base = m_layers.empty() ? end : m_layers.front().base;
    if (end <= base)
        return {};
    SPECTRA_CHECK(grow(end));
    const std::int64_t n = end - base;
    const auto bytes = static_cast<std::size_t>(n * m_rowBytes);
    std::vector<std::int64_t> offset, count;
    if (m_layered) {
        offset.push_back(0);
        count.push_back(static_cast<std::int64_t>(m_layers.size()));
    }
    offset.push_back(base);
    count.push_back(n);
    for (std::int64_t inner : m_inner) {
        offset.push_back(0);
        count.push_back(inner);
    }
    m_piece.resize(bytes * m_layers.size());
    for (std::size_t i = 0; i < m_layers.size(); ++i) {
        SPECTRA_CHECK(put(static_cast<int>(i), base, n, {})); // fill values where nothing came
        std::memcpy(m_piece.data() + i * bytes, m_layers[i].rows.data(), bytes);
    }
    SPECTRA_CHECK(h5::writeSlab(m_data.id(), offset, count, m_type, m_piece.data()));
    for (Layer &l : m_layers) {
        l.rows.erase(l.rows.begin(), l.rows.begin() + static_cast<std::ptrdiff_t>(bytes));
        l.base = end;
    }
    return {};
}

Result<void> TokenColumn::reload(std::int64_t first, std::int64_t last)
{
    SPECTRA_TRY(const std::vector<std::int64_t> shape, h5::shapeOf(m_data.id()));
    m_tokens = shape[m_layered ? 1 : 0];
    if (m_tokens < last)
        return inputError("has fewer rows than the trace has tokens", schema::rule(m_id).path);
    for (std::size_t i = 0; i < m_layers.size(); ++i) {
        Layer &l = m_layers[i];
        l.base = first;
        l.rows.resize(static_cast<std::size_t>((last - first) * m_rowBytes));
        std::vector<std::int64_t> offset, count;
        if (m_layered) {
            offset.push_back(static_cast<std::int64_t>(i));
            count.push_back(1);
        }
        offset.push_back(first);
        count.push_back(last - first);
        for (std::int64_t inner : m_inner) {
            offset.push_back(0);
            count.push_back(inner);
        }
        SPECTRA_CHECK(h5::readSlab(m_data.id(), offset, count, m_type, l.rows.data()));
    }
    return setTokens(first);
}

std::int64_t TokenColumn::waitingBytes() const
{
    std::int64_t bytes = 0;
    for (const Layer &l : m_layers)
        bytes += static_cast<std::int64_t>(l.rows.size());
    return bytes;
}

} // namespace spectra
