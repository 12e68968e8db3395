// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "engine/trace/h5driver.h"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

/// What this module uses of HDF5, with Results and handles that close themselves. Only h5*.cpp see hdf5.h.
namespace spectra::h5 {

using Id = std::int64_t;
inline constexpr std::int64_t kUnlimited = -1;

/// An HDF5 identifier; closed when destroyed.
class Handle {
public:
    Handle() = default;
    explicit Handle(Id id) : m_id(id) {}
    Handle(Handle &&other) noexcept : m_id(other.m_id) { other.m_id = -1; }
    Handle &operator=(Handle &&other) noexcept;
    ~Handle() { reset(); }
    void reset();
    [[nodiscard]] Id id() const { return m_id; }
    [[nodiscard]] bool valid() const { return m_id >= 0; }

private:
    Id m_id = -1;
};

/// An open file with its driver's switches.
class File {
public:
    enum class Mode { read, readWrite, readWriteLatest /* a file begun with createSwmr */, create, createSwmr, readSwmr };
    /// Errors: input (read modes: missing, not HDF5, locked by a writer), work (write modes).
    [[nodiscard]] static Result<File> open(const std::filesystem::path &path, Mode mode);

    [[nodiscard]] Id id() const { return m_handle.id(); }
    [[nodiscard]] bool valid() const { return m_handle.valid(); }
    [[nodiscard]] Result<void> flush();
    /// Why a write failed, in the words of the system; nothing when none did.
    [[nodiscard]] std::optional<Error> diskError() const;
    [[nodiscard]] Result<void> sync();   ///< fsync
    [[nodiscard]] Result<void> startSwmr();
    /// Closes everything of the file; the error of the last flush, if any.
    [[nodiscard]] Result<void> close();
    /// Writes nothing more: the file stays as of its last flush.
    void abandon();
    void setCheckOnly(bool on);
    [[nodiscard]] std::int64_t size() const;
    [[nodiscard]] const std::string &name() const { return m_name; }

private:
    std::unique_ptr<DriverControl> m_control;
    Handle m_handle;
    std::string m_name;
};

/// Element types in files. `text` is a string of any kind, `other` anything else.
enum class Type : std::uint8_t { u8, u16, i32, i64, f16, f32, f64, text, other };
[[nodiscard]] std::size_t sizeOf(Type type);
[[nodiscard]] const char *nameOf(Type type);

/// What HDF5 said last on this thread, innermost first: "No space left on device".
[[nodiscard]] std::string lastMessage();

struct DatasetSpec {
    Type type = Type::f32;
    std::vector<std::int64_t> shape, maxShape, chunk; ///< maxShape: kUnlimited; chunk empty: contiguous
    int deflate = -1;                                 ///< < 0: no filters
    std::optional<double> fill;
};

struct DatasetInfo {
    Type type = Type::other;
    bool exactType = false;   ///< little-endian in exactly this form, so that raw chunks can be taken as they are
    bool variableText = false;
    std::vector<std::int64_t> shape, maxShape, chunk;
    enum class Layout : std::uint8_t { contiguous, chunked, compact, virtualLayout } layout = Layout::contiguous;
    bool external = false;                            ///< raw data in other files
    bool ownFilters = true;                           ///< nothing but shuffle and deflate, each at most once, in this order
    bool shuffle = false, deflate = false;
    int missingFilter = 0;                            ///< number of a filter that is not installed
    std::int64_t storedBytes = 0;
    std::int64_t elementBytes = 0;
};

[[nodiscard]] Result<Handle> createGroup(Id parent, const std::string &name);
[[nodiscard]] Result<Handle> createDataset(Id parent, const std::string &name, const DatasetSpec &spec);
[[nodiscard]] Result<Handle> openGroup(Id parent, const std::string &name);
/// `cacheBytes` 0: raw data goes to the file without HDF5's chunk cache.
[[nodiscard]] Result<Handle> openDataset(Id parent, const std::string &name, std::size_t cacheBytes = std::size_t(8) << 20);
/// True when every step of the path is a hard link and the end is a dataset (or a group).
[[nodiscard]] bool isDataset(Id parent, const std::string &path);
[[nodiscard]] bool isGroup(Id parent, const std::string &path);
[[nodiscard]] Result<void> remove(Id parent, const std::string &path);

[[nodiscard]] Result<DatasetInfo> describe(Id dataset);
[[nodiscard]] Result<std::vector<std::int64_t>> shapeOf(Id dataset);
[[nodiscard]] Result<void> setShape(Id dataset, const std::vector<std::int64_t> &shape);
[[nodiscard]] Result<void> flushDataset(Id dataset);

/// Hyperslab of contiguous rows; `type` is that of the memory, HDF5 converts where the file differs.
[[nodiscard]] Result<void> writeSlab(Id dataset, const std::vector<std::int64_t> &offset, const std::vector<std::int64_t> &count,
                                     Type type, const void *data);
[[nodiscard]] Result<void> readSlab(Id dataset, const std::vector<std::int64_t> &offset, const std::vector<std::int64_t> &count,
                                    Type type, void *data);
[[nodiscard]] Result<void> writeText(Id dataset, std::int64_t first, std::span<const std::string> values);
/// Strings [first, first+count) of a one-dimensional dataset, at most `limit` bytes together; `lenient` as in HeapReader.
[[nodiscard]] Result<std::vector<std::string>> readText(Id dataset, std::int64_t first, std::int64_t count,
                                                        std::size_t limit = std::size_t(1) << 30, bool lenient = false);

/// One whole stored chunk. `skipped` has bit i set where filter i was not applied.
[[nodiscard]] Result<void> writeChunk(Id dataset, const std::vector<std::int64_t> &offset, std::uint32_t skipped,
                                      std::span<const std::byte> bytes);
/// Errors (input): larger than `limit`, outside the file. An empty `bytes` means that the chunk is not stored.
[[nodiscard]] Result<void> readChunk(Id dataset, const std::vector<std::int64_t> &offset, std::size_t limit,
                                     std::vector<std::byte> &bytes, std::uint32_t &skipped);
/// Stored bytes of a chunk without reading it; 0: not stored.
[[nodiscard]] std::int64_t chunkBytes(Id dataset, const std::vector<std::int64_t> &offset);

[[nodiscard]] Result<void> setAttribute(Id object, const std::string &name, const std::string &value);
[[nodiscard]] Result<void> setAttribute(Id object, const std::string &name, std::int32_t value);
[[nodiscard]] Result<void> setAttribute(Id object, const std::string &name, std::int64_t value);
[[nodiscard]] Result<void> setAttribute(Id object, const std::string &name, double value);
inline Result<void> setAttribute(Id object, const std::string &name, const char *value)
{
    return setAttribute(object, name, std::string(value));
}
/// Nothing when there is no such attribute or it is not of that kind.
[[nodiscard]] std::optional<std::string> textAttribute(Id object, const std::string &name);
[[nodiscard]] std::optional<std::int64_t> integerAttribute(Id object, const std::string &name);
[[nodiscard]] std::optional<double> numberAttribute(Id object, const std::string &name);

/// Dimension scales. A scale without values of its own only names an axis (netCDF's convention).
[[nodiscard]] Result<void> makeScale(Id dataset, const std::string &name, bool hasValues);
[[nodiscard]] Result<void> attachScale(Id dataset, Id scale, int axis);
[[nodiscard]] bool hasScale(Id dataset, int axis);

struct Object {
    std::string path;
    bool dataset = false;
};
/// Every object reached by hard links, each once; external and soft links are named in `links`.
[[nodiscard]] Result<std::vector<Object>> listObjects(Id file, std::vector<std::string> *links = nullptr);
/// Names of the source files of a virtual dataset.
[[nodiscard]] std::vector<std::string> virtualSources(Id dataset);
/// Reads every attribute of an object.
[[nodiscard]] Result<void> touchAttributes(Id object);
[[nodiscard]] Result<Handle> openObject(Id parent, const std::string &path);

} // namespace spectra::h5
