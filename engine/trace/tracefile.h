// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/tracesource.h"
#include "engine/trace/chunkcache.h"
#include "engine/trace/h5.h"
#include "engine/trace/traceschema.h"

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

namespace spectra {

/// An open trace file: which datasets it has, checked against each other, and their rows by chunk. Immutable after open();
/// thread-safe (HDF5 has its own lock; inflating happens outside it).
class TraceFile {
public:
    struct View {
        schema::Dataset id{};
        h5::Handle handle;
        h5::DatasetInfo info;
        h5::Type memory = h5::Type::other;     ///< type of rows in a Chunk
        bool layered = false, raw = false;     ///< raw: chunks are taken as they are stored and inflated here
        std::int64_t rows = 0;                 ///< that a reader may see
        std::int64_t block = 1;                ///< rows of a Chunk
        std::vector<std::int64_t> inner;       ///< axes of a row
        std::int64_t width = 1;                ///< elements of a row
        [[nodiscard]] bool present() const { return handle.valid(); }
    };

    /// Errors (input): see TraceReader::open().
    [[nodiscard]] static Result<std::shared_ptr<TraceFile>> open(const std::filesystem::path &path);
    ~TraceFile();
    TraceFile(const TraceFile &) = delete;
    TraceFile &operator=(const TraceFile &) = delete;

    [[nodiscard]] const View &view(schema::Dataset d) const { return m_views[static_cast<std::size_t>(d)]; }
    [[nodiscard]] std::int64_t tokens() const { return m_tokens; }
    [[nodiscard]] std::int64_t sequences() const { return m_sequences; }
    [[nodiscard]] const schema::Sizes &sizes() const { return m_sizes; }
    [[nodiscard]] const std::string &name() const { return m_name; }
    [[nodiscard]] h5::Id id() const { return m_file.id(); }
    [[nodiscard]] bool complete() const { return m_complete; }
    [[nodiscard]] std::vector<std::int32_t> integers(schema::Dataset d) const;

    /// Rows [chunk·block, …) of a layer (0 where the dataset has no layer axis).
    [[nodiscard]] Result<std::shared_ptr<const Chunk>> chunk(const View &view, int layer, std::int64_t chunk) const;
    /// Rows [first, last) of a layer in the view's memory type; floats as float32.
    [[nodiscard]] Result<void> rows(const View &view, int layer, std::int64_t first, std::int64_t last, void *to, std::stop_token stop) const;
    [[nodiscard]] Result<std::vector<std::string>> texts(const View &view, std::int64_t first, std::int64_t last, std::stop_token stop) const;
    [[nodiscard]] Error at(Error error, schema::Dataset d) const;

private:
    TraceFile() = default;
    [[nodiscard]] Result<void> load();
    [[nodiscard]] Result<void> openView(schema::Dataset d);
    [[nodiscard]] Result<void> checkView(View &view);
    [[nodiscard]] Result<void> loadRaw(const View &view, int layer, std::int64_t first, Chunk &chunk) const;

    std::string m_name;
    h5::File m_file;
    std::array<View, schema::kDatasets> m_views;
    schema::Sizes m_sizes; ///< -1: not known yet
    std::int64_t m_tokens = 0, m_sequences = 0, m_fileBytes = 0;
    bool m_complete = false;
    std::uint64_t m_reader = 0;
};

} // namespace spectra
