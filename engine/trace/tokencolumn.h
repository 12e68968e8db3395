// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "engine/trace/h5.h"
#include "engine/trace/traceschema.h"

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

namespace spectra {

/// Which tokens have arrived: a set of disjoint ranges.
class Coverage {
public:
    void add(std::int64_t first, std::int64_t last);
    /// End of the range that holds `from`, or `from`.
    [[nodiscard]] std::int64_t end(std::int64_t from) const;
    void forget(std::int64_t before);

private:
    std::map<std::int64_t, std::int64_t> m_ranges;
};

/// One per-token dataset on its way into the file: rows wait in storage type until they are committed (narrow) or a block is
/// whole (wide). Used by the writing thread only.
class TokenColumn {
public:
    TokenColumn(schema::Dataset id, h5::Handle data, const h5::DatasetSpec &spec, bool wide, int deflate);

    [[nodiscard]] schema::Dataset id() const { return m_id; }
    [[nodiscard]] std::int64_t width() const { return m_width; } ///< elements of a row
    [[nodiscard]] bool wide() const { return m_wide; }
    [[nodiscard]] std::int64_t block() const { return m_block; }
    [[nodiscard]] h5::Id data() const { return m_data.id(); }

    /// Rows [first, first + n) of a layer, in storage type or as float32 for float16 storage. Empty: fill values.
    [[nodiscard]] Result<void> put(int layer, std::int64_t first, std::int64_t n, std::span<const std::byte> rows);
    [[nodiscard]] Result<void> putFloats(int layer, std::int64_t first, std::int64_t n, std::span<const float> rows);
    /// Wide: writes whole blocks below `end`; with `last` also the one that is not whole.
    [[nodiscard]] Result<void> writeBlocks(int layer, std::int64_t end, bool last);
    /// Narrow: writes all rows below `end` of all layers.
    [[nodiscard]] Result<void> writeRows(std::int64_t end);
    [[nodiscard]] Result<void> setTokens(std::int64_t tokens);
    /// Takes rows [first, last) back from the file and goes on from `first`.
    [[nodiscard]] Result<void> reload(std::int64_t first, std::int64_t last);
    [[nodiscard]] std::int64_t waitingBytes() const;

private:
    struct Layer {
        std::int64_t base = 0; ///< rows below are in the file
        std::vector<std::byte> rows;
    };
    [[nodiscard]] Result<void> grow(std::int64_t tokens);
    [[nodiscard]] Result<void> writeBlock(int layer, std::int64_t first, std::span<const std::byte> rows);
    Result<std::byte *> room(int layer, std::int64_t first, std::int64_t n);

    schema::Dataset m_id;
    h5::Handle m_data;
    h5::Type m_type;
    bool m_layered, m_wide;
    int m_deflate;
    std::vector<std::int64_t> m_inner, m_chunkInner;
    std::int64_t m_width = 1, m_rowBytes = 0, m_block = 1, m_tokens = 0;
    std::vector<std::byte> m_fill; ///< one element
    std::vector<Layer> m_layers;
    std::vector<std::byte> m_piece, m_shuffled, m_packed;
};

} // namespace spectra
