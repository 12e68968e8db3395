// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/trace/h5.h"
#include "engine/trace/chunkcodec.h"
#include "engine/trace/h5heap.h"
#include "engine/trace/h5internal.h"

#include <hdf5.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <sys/stat.h>
#include <unistd.h>

namespace spectra::h5 {
namespace {

std::vector<hsize_t> extent(const std::vector<std::int64_t> &values)
{
    std::vector<hsize_t> out(values.size());
    for (std::size_t i = 0; i < values.size(); ++i)
        out[i] = values[i] == kUnlimited ? H5S_UNLIMITED : static_cast<hsize_t>(values[i]);
    return out;
}

Id nativeType(Type type)
{
    switch (type) {
    case Type::u8: return H5T_NATIVE_UINT8;
    case Type::u16: return H5T_NATIVE_UINT16;
    case Type::i32: return H5T_NATIVE_INT32;
    case Type::i64: return H5T_NATIVE_INT64;
    case Type::f32: return H5T_NATIVE_FLOAT;
    case Type::f64: return H5T_NATIVE_DOUBLE;
    case Type::f16: {
        static const Id half = [] {
            const hid_t id = H5Tcopy(H5T_IEEE_F32LE);
            H5Tset_fields(id, 15, 10, 5, 0, 10);
            H5Tset_size(id, 2);
            H5Tset_ebias(id, 15);
            return static_cast<Id>(id);
        }();
        return half;
    }
    case Type::text:
    case Type::other: break;
    }
    return -1;
}

struct Selection {
    Handle file, memory;
};

Result<Selection> select(Id dataset, const std::vector<std::int64_t> &offset, const std::vector<std::int64_t> &count)
{
    Selection s;
    s.file = Handle(H5Dget_space(dataset));
    const std::vector<hsize_t> from = extent(offset), n = extent(count);
    s.memory = Handle(H5Screate_simple(static_cast<int>(n.size()), n.data(), nullptr));
    if (!s.file.valid() || !s.memory.valid() || H5Sget_simple_extent_ndims(s.file.id()) != static_cast<int>(n.size())
        || H5Sselect_hyperslab(s.file.id(), H5S_SELECT_SET, from.data(), nullptr, n.data(), nullptr) < 0
        || H5Sselect_valid(s.file.id()) <= 0)
        return failure(ErrorKind::input, "rows outside the dataset", pathOf(dataset));
    return s;
}

bool anyZero(const std::vector<std::int64_t> &count)
{
    return std::any_of(count.begin(), count.end(), [](std::int64_t n) { return n == 0; });
}

/// The stored references of rows [first, first + count) of a dataset of variable-length text.
Result<std::vector<std::byte>> textReferences(Id dataset, const DatasetInfo &info, int fd, std::int64_t first, std::int64_t count)
{
    constexpr std::size_t size = HeapReader::kReferenceBytes;
    const auto bad = [&](const char *what) { return inputError(what, pathOf(dataset)); };
    std::vector<std::byte> out(static_cast<std::size_t>(count) * size);
    if (info.layout == DatasetInfo::Layout::contiguous) {
        const haddr_t at = H5Dget_offset(dataset); // counts the base in
        H5Eclear2(H5E_DEFAULT);
        if (at == HADDR_UNDEF)
            return out;
        if (at > (haddr_t(1) << 62))
            return bad("lies outside the file");
        const std::int64_t from = static_cast<std::int64_t>(at) + first * static_cast<std::int64_t>(size);
        if (::pread(fd, out.data(), out.size(), from) != static_cast<ssize_t>(out.size()))
            return bad("lies outside the file");
        return out;
    }
    if (info.layout != DatasetInfo::Layout::chunked || !info.ownFilters)
        return bad("keeps its text in a form that is not read (compact, virtual, or packed by another filter)");
    const std::int64_t rows = info.chunk[0];
    if (rows > (std::int64_t(1) << 22))
        return bad("has chunks of too many texts");
    const auto bytes = static_cast<std::size_t>(rows) * size;
    std::vector<std::byte> stored, plain(bytes), turned(bytes);
    for (std::int64_t at = first / rows * rows; at < first + count; at += rows) {
        std::uint32_t skipped = 0;
        SPECTRA_CHECK(readChunk(dataset, {at}, bytes + bytes / 512 + 64, stored, skipped));
        if (stored.empty())
            continue; // no text there
        const bool deflated = info.deflate && (skipped & (info.shuffle ? 2u : 1u)) == 0, shuffled = info.shuffle && (skipped & 1u) == 0;
        if (deflated ? !inflateBytes(stored, plain) : stored.size() != bytes)
            return bad("has a damaged chunk");
        const std::vector<std::byte> &unpacked = deflated ? plain : stored;
        if (shuffled)
            unshuffleBytes(unpacked, size, turned.data());
        const std::vector<std::byte> &whole = shuffled ? turned : unpacked;
        const std::int64_t from = std::max(first, at), to = std::min(first + count, at + rows);
        std::memcpy(out.data() + static_cast<std::size_t>(from - first) * size, whole.data() + static_cast<std::size_t>(from - at) * size,
                    static_cast<std::size_t>(to - from) * size);
    }
    return out;
}

} // namespace

std::size_t sizeOf(Type type)
{
    switch (type) {
    case Type::u8: return 1;
    case Type::u16:
    case Type::f16: return 2;
    case Type::i32:
    case Type::f32: return 4;
    case Type::i64:
    case Type::f64: return 8;
    case Type::text: return 16;
    case Type::other: break;
    }
    return 0;
}

const char *nameOf(Type type)
{
    switch (type) {
    case Type::u8: return "uint8";
    case Type::u16: return "uint16";
    case Type::i32: return "int32";
    case Type::i64: return "int64";
    case Type::f16: return "float16";
    case Type::f32: return "float32";
    case Type::f64: return "float64";
    case Type::text: return "string";
    case Type::other: break;
    }
    return "another type";
}

Handle fileType(Type type)
{
    switch (type) {
    case Type::u8: return Handle(H5Tcopy(H5T_STD_U8LE));
    case Type::u16: return Handle(H5Tcopy(H5T_STD_U16LE));
    case Type::i32: return Handle(H5Tcopy(H5T_STD_I32LE));
    case Type::i64: return Handle(H5Tcopy(H5T_STD_I64LE));
    case Type::f32: return Handle(H5Tcopy(H5T_IEEE_F32LE));
    case Type::f64: return Handle(H5Tcopy(H5T_IEEE_F64LE));
    case Type::f16: {
        Handle half(H5Tcopy(H5T_IEEE_F32LE));
        H5Tset_fields(half.id(), 15, 10, 5, 0, 10);
        H5Tset_size(half.id(), 2);
        H5Tset_ebias(half.id(), 15);
        return half;
    }
    case Type::text: {
        Handle text(H5Tcopy(H5T_C_S1));
        H5Tset_size(text.id(), H5T_VARIABLE);
        H5Tset_cset(text.id(), H5T_CSET_UTF8);
        return text;
    }
    case Type::other: break;
    }
    return {};
}

Type classify(Id type, bool *exact, bool *variableText)
{
    const H5T_class_t kind = H5Tget_class(type);
    Type found = Type::other;
    const std::size_t size = H5Tget_size(type);
    if (kind == H5T_STRING) {
        if (variableText != nullptr)
            *variableText = H5Tis_variable_str(type) > 0;
        if (exact != nullptr)
            *exact = H5Tis_variable_str(type) > 0 && H5Tget_cset(type) == H5T_CSET_UTF8;
        return Type::text;
    }
    if (kind == H5T_FLOAT)
        found = size == 2 ? Type::f16 : size == 4 ? Type::f32 : size == 8 ? Type::f64 : Type::other;
    if (kind == H5T_INTEGER) {
        const bool isSigned = H5Tget_sign(type) == H5T_SGN_2;
        found = size == 1 ? (isSigned ? Type::i32 : Type::u8) : size == 2 ? (isSigned ? Type::i32 : Type::u16)
            : size == 4 ? (isSigned ? Type::i32 : Type::i64) : size == 8 ? Type::i64 : Type::other;
    }
    if (exact != nullptr) {
        const Handle wanted = found == Type::other ? Handle() : fileType(found);
        *exact = wanted.valid() && H5Tequal(type, wanted.id()) > 0;
    }
    return found;
}

Result<Handle> createDataset(Id parent, const std::string &name, const DatasetSpec &spec)
{
    quiet();
    const std::vector<hsize_t> shape = extent(spec.shape), most = extent(spec.maxShape.empty() ? spec.shape : spec.maxShape);
    const Handle space(H5Screate_simple(static_cast<int>(shape.size()), shape.data(), most.data()));
    const Handle creation(H5Pcreate(H5P_DATASET_CREATE)), access(H5Pcreate(H5P_DATASET_ACCESS)), links(H5Pcreate(H5P_LINK_CREATE));
    H5Pset_attr_creation_order(creation.id(), H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED);
    H5Pset_obj_track_times(creation.id(), false);
    H5Pset_create_intermediate_group(links.id(), 1);
    if (!spec.chunk.empty()) {
        const std::vector<hsize_t> chunk = extent(spec.chunk);
        H5Pset_chunk(creation.id(), static_cast<int>(chunk.size()), chunk.data());
        // Rows go to the file in the order of the calls, and a chunk is never rewritten because a cache is full.
        H5Pset_chunk_cache(access.id(), 0, 0, 0);
    }
    if (spec.deflate >= 0) {
        H5Pset_shuffle(creation.id());
        H5Pset_deflate(creation.id(), static_cast<unsigned>(spec.deflate));
    }
    if (spec.fill)
        H5Pset_fill_value(creation.id(), H5T_NATIVE_DOUBLE, &*spec.fill);
    const Handle type = fileType(spec.type);
    const hid_t id = H5Dcreate2(parent, name.c_str(), type.id(), space.id(), links.id(), creation.id(), access.id());
    if (id < 0)
        return failure(ErrorKind::work, "dataset cannot be made", name);
    return Handle(id);
}

Result<Handle> openDataset(Id parent, const std::string &name, std::size_t cacheBytes)
{
    quiet();
    const Handle access(H5Pcreate(H5P_DATASET_ACCESS));
    H5Pset_chunk_cache(access.id(), cacheBytes == 0 ? 0 : 521, cacheBytes, 1.0);
    const hid_t id = H5Dopen2(parent, name.c_str(), access.id());
    if (id < 0)
        return failure(ErrorKind::input, "dataset cannot be opened", name);
    return Handle(id);
}

Result<std::vector<std::int64_t>> shapeOf(Id dataset)
{
    quiet();
    const Handle space(H5Dget_space(dataset));
    const int rank = space.valid() ? H5Sget_simple_extent_ndims(space.id()) : -1;
    if (rank < 0)
        return failure(ErrorKind::input, "has no shape", pathOf(dataset));
    std::vector<hsize_t> shape(static_cast<std::size_t>(rank));
    H5Sget_simple_extent_dims(space.id(), shape.data(), nullptr);
    std::vector<std::int64_t> out(shape.size());
    for (std::size_t i = 0; i < shape.size(); ++i) {
        if (shape[i] > static_cast<hsize_t>(std::numeric_limits<std::int64_t>::max() / 2))
            return inputError("has an axis that is too long", pathOf(dataset));
        out[i] = static_cast<std::int64_t>(shape[i]);
    }
    return out;
}

Result<DatasetInfo> describe(Id dataset)
{
    DatasetInfo info;
    SPECTRA_TRY(info.shape, shapeOf(dataset));
    const Handle type(H5Dget_type(dataset)), creation(H5Dget_create_plist(dataset)), space(H5Dget_space(dataset));
    if (!type.valid() || !creation.valid())
        return failure(ErrorKind::input, "cannot be described", pathOf(dataset));
    info.type = classify(type.id(), &info.exactType, &info.variableText);
    info.elementBytes = static_cast<std::int64_t>(H5Tget_size(type.id()));
    std::vector<hsize_t> most(info.shape.size());
    H5Sget_simple_extent_dims(space.id(), nullptr, most.data());
    for (hsize_t m : most)
        info.maxShape.push_back(m == H5S_UNLIMITED ? kUnlimited : static_cast<std::int64_t>(m));
    info.external = H5Pget_external_count(creation.id()) > 0;
    const H5D_layout_t layout = H5Pget_layout(creation.id());
    info.layout = layout == H5D_CHUNKED ? DatasetInfo::Layout::chunked
        : layout == H5D_COMPACT         ? DatasetInfo::Layout::compact
        : layout == H5D_VIRTUAL         ? DatasetInfo::Layout::virtualLayout
                                        : DatasetInfo::Layout::contiguous;
    if (layout == H5D_CHUNKED) {
        std::vector<hsize_t> chunk(info.shape.size());
        if (H5Pget_chunk(creation.id(), static_cast<int>(chunk.size()), chunk.data()) != static_cast<int>(chunk.size()))
            return failure(ErrorKind::input, "has damaged chunk sizes", pathOf(dataset));
        for (hsize_t c : chunk) {
            if (c == 0)
                return inputError("has a chunk of no size", pathOf(dataset));
            info.chunk.push_back(static_cast<std::int64_t>(c));
        }
        const int filters = H5Pget_nfilters(creation.id());
        for (int i = 0; i < filters; ++i) {
            unsigned flags = 0, config = 0;
            std::size_t values = 0;
            const H5Z_filter_t filter = H5Pget_filter2(creation.id(), static_cast<unsigned>(i), &flags, &values, nullptr, 0, nullptr, &config);
            if (filter < 0)
                return failure(ErrorKind::input, "has damaged filters", pathOf(dataset));
            if (H5Zfilter_avail(filter) <= 0)
                info.missingFilter = filter;
            if (filter == H5Z_FILTER_SHUFFLE && !info.shuffle && !info.deflate)
                info.shuffle = true;
            else if (filter == H5Z_FILTER_DEFLATE && !info.deflate)
                info.deflate = true;
            else
                info.ownFilters = false;
        }
    }
    info.storedBytes = static_cast<std::int64_t>(H5Dget_storage_size(dataset));
    H5Eclear2(H5E_DEFAULT);
    return info;
}

std::vector<std::string> virtualSources(Id dataset)
{
    quiet();
    std::vector<std::string> names;
    const Handle creation(H5Dget_create_plist(dataset));
    std::size_t n = 0;
    if (!creation.valid() || H5Pget_layout(creation.id()) != H5D_VIRTUAL || H5Pget_virtual_count(creation.id(), &n) < 0)
        return names;
    for (std::size_t i = 0; i < n; ++i) {
        char name[1024] = {};
        if (H5Pget_virtual_filename(creation.id(), i, name, sizeof name) >= 0)
            names.emplace_back(name);
    }
    return names;
}

Result<void> setShape(Id dataset, const std::vector<std::int64_t> &shape)
{
    quiet();
    const std::vector<hsize_t> n = extent(shape);
    if (H5Dset_extent(dataset, n.data()) < 0)
        return failure(ErrorKind::work, "dataset cannot grow", pathOf(dataset));
    return {};
}

Result<void> flushDataset(Id dataset)
{
    quiet();
    if (H5Dflush(dataset) < 0)
        return failure(ErrorKind::work, "dataset cannot be written", pathOf(dataset));
    return {};
}

Result<void> writeSlab(Id dataset, const std::vector<std::int64_t> &offset, const std::vector<std::int64_t> &count, Type type,
                       const void *data)
{
    quiet();
    if (anyZero(count))
        return {};
    SPECTRA_TRY(const Selection s, select(dataset, offset, count));
    if (H5Dwrite(dataset, nativeType(type), s.memory.id(), s.file.id(), H5P_DEFAULT, data) < 0)
        return failure(ErrorKind::work, "rows cannot be written", pathOf(dataset));
    return {};
}

Result<void> readSlab(Id dataset, const std::vector<std::int64_t> &offset, const std::vector<std::int64_t> &count, Type type,
                      void *data)
{
    quiet();
    if (anyZero(count))
        return {};
    SPECTRA_TRY(const Selection s, select(dataset, offset, count));
    if (H5Dread(dataset, nativeType(type), s.memory.id(), s.file.id(), H5P_DEFAULT, data) < 0)
        return failure(ErrorKind::input, "rows cannot be read", pathOf(dataset));
    return {};
}

Result<void> writeText(Id dataset, std::int64_t first, std::span<const std::string> values)
{
    quiet();
    if (values.empty())
        return {};
    std::vector<const char *> pointers;
    pointers.reserve(values.size());
    for (const std::string &value : values)
        pointers.push_back(value.c_str());
    const Handle type = fileType(Type::text);
    SPECTRA_TRY(const Selection s, select(dataset, {first}, {static_cast<std::int64_t>(values.size())}));
    if (H5Dwrite(dataset, type.id(), s.memory.id(), s.file.id(), H5P_DEFAULT, pointers.data()) < 0)
        return failure(ErrorKind::work, "text cannot be written", pathOf(dataset));
    return {};
}

Result<std::vector<std::string>> readText(Id dataset, std::int64_t first, std::int64_t count, std::size_t limit, bool lenient)
{
    quiet();
    std::vector<std::string> out;
    if (count <= 0)
        return out;
    const Handle type(H5Dget_type(dataset));
    if (!type.valid() || H5Tget_class(type.id()) != H5T_STRING)
        return inputError("is not text", pathOf(dataset));
    SPECTRA_TRY(const Selection s, select(dataset, {first}, {count}));
    const auto n = static_cast<std::size_t>(count);
    if (H5Tis_variable_str(type.id()) > 0) {
        if (n > (std::size_t(1) << 31) / HeapReader::kReferenceBytes)
            return inputError("has too many strings", pathOf(dataset));
        SPECTRA_TRY(const DatasetInfo info, describe(dataset));
        if (info.shape.size() != 1 || info.external)
            return inputError("is not one list of text", pathOf(dataset));
        const Handle file(H5Iget_file_id(dataset)), creation(H5Fget_create_plist(file.id()));
        void *handle = nullptr;
        std::size_t addressBytes = 0, lengthBytes = 0;
        hsize_t base = 0;
        struct stat status {};
        if (H5Fget_vfd_handle(file.id(), H5P_DEFAULT, &handle) < 0 || handle == nullptr || H5Pget_sizes(creation.id(), &addressBytes, &lengthBytes) < 0
            || H5Pget_userblock(creation.id(), &base) < 0 || ::fstat(*static_cast<int *>(handle), &status) != 0)
            return failure(ErrorKind::input, "text cannot be read", pathOf(dataset));
        if (addressBytes != 8 || lengthBytes != 8 || base > static_cast<hsize_t>(status.st_size))
            return inputError("uses addresses of another width than 8 bytes", pathOf(dataset));
        const int fd = *static_cast<int *>(handle);
        SPECTRA_TRY(const std::vector<std::byte> references, textReferences(dataset, info, fd, first, count));
        HeapReader heap(fd, status.st_size, static_cast<std::int64_t>(base), lenient);
        out.reserve(n);
        for (std::size_t i = 0; i < n; ++i) {
            auto text = heap.text(std::span(references).subspan(i * HeapReader::kReferenceBytes, HeapReader::kReferenceBytes), limit);
            if (!text)
                return text.error().in(pathOf(dataset));
            out.push_back(std::move(*text));
        }
        return out;
    }
    const std::size_t width = H5Tget_size(type.id());
    if (width == 0 || n > limit / width)
        return inputError("has strings that are too long", pathOf(dataset));
    std::vector<char> bytes(n * width);
    if (H5Dread(dataset, type.id(), s.memory.id(), s.file.id(), H5P_DEFAULT, bytes.data()) < 0)
        return failure(ErrorKind::input, "text cannot be read", pathOf(dataset));
    const bool padded = H5Tget_strpad(type.id()) == H5T_STR_SPACEPAD;
    for (std::size_t i = 0; i < n; ++i) {
        std::string text(bytes.data() + i * width, ::strnlen(bytes.data() + i * width, width));
        if (padded)
            text.erase(text.find_last_not_of(' ') + 1);
        out.push_back(std::move(text));
    }
    return out;
}

Result<void> writeChunk(Id dataset, const std::vector<std::int64_t> &offset, std::uint32_t skipped, std::span<const std::byte> bytes)
{
    quiet();
    const std::vector<hsize_t> at = extent(offset);
    if (H5Dwrite_chunk(dataset, H5P_DEFAULT, skipped, at.data(), bytes.size(), bytes.data()) < 0)
        return failure(ErrorKind::work, "a chunk cannot be written", pathOf(dataset));
    return {};
}

std::int64_t chunkBytes(Id dataset, const std::vector<std::int64_t> &offset)
{
    quiet();
    const std::vector<hsize_t> at = extent(offset);
    hsize_t stored = 0;
    if (H5Dget_chunk_storage_size(dataset, at.data(), &stored) < 0) {
        H5Eclear2(H5E_DEFAULT);
        return 0;
    }
    return static_cast<std::int64_t>(std::min<hsize_t>(stored, std::numeric_limits<std::int64_t>::max()));
}

Result<void> readChunk(Id dataset, const std::vector<std::int64_t> &offset, std::size_t limit, std::vector<std::byte> &bytes,
                       std::uint32_t &skipped)
{
    quiet();
    bytes.clear();
    skipped = 0;
    const std::vector<hsize_t> at = extent(offset);
    const std::int64_t stored = chunkBytes(dataset, offset);
    if (stored == 0)
        return {};
    if (static_cast<std::uint64_t>(stored) > limit)
        return inputError("a stored chunk is larger than its values can be", pathOf(dataset));
    bytes.resize(static_cast<std::size_t>(stored));
    if (H5Dread_chunk(dataset, H5P_DEFAULT, at.data(), &skipped, bytes.data()) < 0)
        return failure(ErrorKind::input, "a chunk cannot be read", pathOf(dataset));
    return {};
}

} // namespace spectra::h5
