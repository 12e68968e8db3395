// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/trace/h5.h"
#include "engine/trace/h5internal.h"

#include <hdf5.h>
#include <hdf5_hl.h>

#include <cerrno>
#include <cstring>
#include <set>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

namespace spectra::h5 {
namespace fs = std::filesystem;

static_assert(std::is_same_v<hid_t, Id>, "h5::Id stands for hid_t");

namespace {
/// HDF5's error stack of one thread. A stack that is not empty when its thread ends keeps error ids alive, and HDF5 then
/// cannot close at exit ("infinite loop closing library").
struct ThreadErrors {
    ThreadErrors() { H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr); }
    ~ThreadErrors() { H5Eclear2(H5E_DEFAULT); }
    void touch() {}
};
} // namespace

void quiet()
{
    thread_local ThreadErrors errors;
    errors.touch();
}

std::string lastMessage()
{
    std::string message;
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD,
             [](unsigned n, const H5E_error2_t *error, void *data) -> herr_t {
                 if (n == 0 && error->desc != nullptr)
                     *static_cast<std::string *>(data) = error->desc;
                 return 0;
             },
             &message);
    return message;
}

Error failure(ErrorKind kind, const std::string &what, const std::string &where)
{
    const std::string message = lastMessage();
    H5Eclear2(H5E_DEFAULT);
    return {kind, message.empty() ? what : what + " (HDF5: " + message + ")", where, {}};
}

Handle &Handle::operator=(Handle &&other) noexcept
{
    if (this != &other) {
        reset();
        m_id = other.m_id;
        other.m_id = -1;
    }
    return *this;
}

void Handle::reset()
{
    if (m_id >= 0) {
        quiet();
        H5Idec_ref(m_id);
        m_id = -1;
    }
}

Result<File> File::open(const fs::path &path, Mode mode)
{
    quiet();
    const bool writes = mode == Mode::readWrite || mode == Mode::readWriteLatest || mode == Mode::create || mode == Mode::createSwmr;
    const bool swmr = mode == Mode::createSwmr || mode == Mode::readSwmr || mode == Mode::readWriteLatest;
    const ErrorKind kind = writes ? ErrorKind::work : ErrorKind::input;
    File file;
    file.m_name = path.string();
    file.m_control = std::make_unique<DriverControl>();
    const Handle access(H5Pcreate(H5P_FILE_ACCESS));
    const Handle creation(H5Pcreate(H5P_FILE_CREATE));
    DriverControl *control = file.m_control.get();
    if (!swmr && (driverId() < 0 || H5Pset_driver(access.id(), driverId(), &control) < 0))
        return failure(ErrorKind::bug, "the file driver cannot be used", file.m_name);
    H5Pset_fclose_degree(access.id(), H5F_CLOSE_STRONG);
    H5Pset_libver_bounds(access.id(), swmr ? H5F_LIBVER_V110 : H5F_LIBVER_EARLIEST, swmr ? H5F_LIBVER_V110 : H5F_LIBVER_V18);
    if (!writes && !swmr)
        H5Pset_libver_bounds(access.id(), H5F_LIBVER_EARLIEST, H5F_LIBVER_LATEST);
    H5Pset_file_locking(access.id(), true, true);
    H5Pset_link_creation_order(creation.id(), H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED);
    H5Pset_attr_creation_order(creation.id(), H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED);
    if (!writes) {
        struct stat status {};
        if (::stat(path.c_str(), &status) != 0)
            return inputError(errno == ENOENT ? "no such file"
                                              : "cannot be opened: " + std::error_code(errno, std::generic_category()).message(),
                              file.m_name);
        if (!S_ISREG(status.st_mode))
            return inputError(S_ISDIR(status.st_mode) ? "is a folder, not a file" : "is not a regular file", file.m_name);
        if (status.st_size == 0)
            return inputError("is empty", file.m_name);
    }
    errno = 0;
    hid_t id = -1;
    switch (mode) {
    case Mode::create: id = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation.id(), access.id()); break;
    case Mode::createSwmr: id = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation.id(), access.id()); break;
    case Mode::readWriteLatest:
    case Mode::readWrite: id = H5Fopen(path.c_str(), H5F_ACC_RDWR, access.id()); break;
    case Mode::read: id = H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.id()); break;
    case Mode::readSwmr: id = H5Fopen(path.c_str(), H5F_ACC_RDONLY | H5F_ACC_SWMR_READ, access.id()); break;
    }
    if (id < 0) {
        const int error = errno;
        if (error == EWOULDBLOCK)
            return Error{kind, writes ? "is in use: another run is writing it, or a program has it open" : "is being written by another run", file.m_name, "wait until that has ended, or stop it"};
        if (writes && (error == ENOENT || error == ENOTDIR || error == EACCES || error == EPERM || error == EROFS || error == ENOSPC
                       || error == EDQUOT || error == EISDIR || error == ENAMETOOLONG) && (mode == Mode::create || mode == Mode::createSwmr))
            return workError("cannot be written: " + std::error_code(error, std::generic_category()).message(), file.m_name);
        if (error == EACCES)
            return inputError("cannot be opened: no permission", file.m_name);
        return failure(kind, "cannot be opened as HDF5", file.m_name);
    }
    file.m_handle = Handle(id);
    return file;
}

std::optional<Error> File::diskError() const
{
    const int error = m_control ? m_control->error.load() : 0;
    if (error == 0)
        return {};
    const bool full = error == ENOSPC || error == EDQUOT || error == EFBIG;
    return workError("cannot be written: " + std::error_code(error, std::generic_category()).message(), m_name,
                     full ? "make room on the disk, then continue with --resume" : "");
}

Result<void> File::flush()
{
    quiet();
    if (H5Fflush(id(), H5F_SCOPE_GLOBAL) < 0 || m_control->abandoned) {
        if (const auto error = diskError()) {
            H5Eclear2(H5E_DEFAULT);
            return *error;
        }
        return failure(ErrorKind::work, "cannot be written", m_name);
    }
    return {};
}

Result<void> File::sync()
{
    quiet();
    void *handle = nullptr;
    if (H5Fget_vfd_handle(id(), H5P_DEFAULT, &handle) >= 0 && handle != nullptr && ::fsync(*static_cast<int *>(handle)) != 0
        && errno != EINVAL && errno != EROFS)
        return workError("cannot be written to disk: " + std::error_code(errno, std::generic_category()).message(), m_name);
    return {};
}

Result<void> File::startSwmr()
{
    quiet();
    if (H5Fstart_swmr_write(id()) < 0)
        return failure(ErrorKind::work, "cannot be shared while it is written", m_name);
    return {};
}

Result<void> File::close()
{
    quiet();
    Result<void> result;
    if (m_handle.valid()) {
        const bool abandoned = m_control->abandoned;
        const hid_t raw = m_handle.id();
        if (H5Fclose(raw) < 0 && !abandoned)
            result = failure(ErrorKind::work, "cannot be closed", m_name);
        else if (!abandoned && m_control->abandoned)
            result = diskError().value_or(workError("cannot be written", m_name));
        m_handle = Handle();
    }
    return result;
}

void File::abandon()
{
    if (m_control)
        m_control->abandoned = true;
}
void File::setCheckOnly(bool on) { m_control->checkOnly = on; }

std::int64_t File::size() const
{
    struct stat status {};
    return ::stat(m_name.c_str(), &status) == 0 ? static_cast<std::int64_t>(status.st_size) : 0;
}

Result<Handle> createGroup(Id parent, const std::string &name)
{
    quiet();
    const Handle creation(H5Pcreate(H5P_GROUP_CREATE));
    H5Pset_link_creation_order(creation.id(), H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED);
    H5Pset_attr_creation_order(creation.id(), H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED);
    const hid_t id = H5Gcreate2(parent, name.c_str(), H5P_DEFAULT, creation.id(), H5P_DEFAULT);
    if (id < 0)
        return failure(ErrorKind::work, "group cannot be made", name);
    return Handle(id);
}

Result<Handle> openGroup(Id parent, const std::string &name)
{
    quiet();
    const hid_t id = H5Gopen2(parent, name.c_str(), H5P_DEFAULT);
    if (id < 0)
        return failure(ErrorKind::input, "group cannot be opened", name);
    return Handle(id);
}

Result<Handle> openObject(Id parent, const std::string &path)
{
    quiet();
    const hid_t id = H5Oopen(parent, path.c_str(), H5P_DEFAULT);
    if (id < 0)
        return failure(ErrorKind::input, "object cannot be opened", path);
    return Handle(id);
}

namespace {
bool isObject(Id parent, const std::string &path, H5O_type_t wanted)
{
    quiet();
    // Step by step, so that no soft or external link is ever followed.
    std::size_t at = path.find_first_not_of('/');
    while (at != std::string::npos) {
        const std::size_t slash = path.find('/', at);
        const std::string step = path.substr(0, slash);
        H5L_info_t link{};
        if (H5Lget_info(parent, step.c_str(), &link, H5P_DEFAULT) < 0 || link.type != H5L_TYPE_HARD) {
            H5Eclear2(H5E_DEFAULT);
            return false;
        }
        at = slash == std::string::npos ? slash : path.find_first_not_of('/', slash);
    }
    H5O_info_t info{};
    const bool found = H5Oget_info_by_name2(parent, path.c_str(), &info, H5O_INFO_BASIC, H5P_DEFAULT) >= 0 && info.type == wanted;
    H5Eclear2(H5E_DEFAULT);
    return found;
}
} // namespace

bool isDataset(Id parent, const std::string &path) { return isObject(parent, path, H5O_TYPE_DATASET); }
bool isGroup(Id parent, const std::string &path) { return isObject(parent, path, H5O_TYPE_GROUP); }

Result<void> remove(Id parent, const std::string &path)
{
    quiet();
    if (H5Ldelete(parent, path.c_str(), H5P_DEFAULT) < 0)
        return failure(ErrorKind::work, "cannot be removed", path);
    return {};
}

namespace {
Result<void> writeAttribute(Id object, const std::string &name, Id type, const void *value)
{
    quiet();
    Handle attribute;
    if (H5Aexists(object, name.c_str()) > 0) {
        attribute = Handle(H5Aopen(object, name.c_str(), H5P_DEFAULT));
    } else {
        const Handle space(H5Screate(H5S_SCALAR));
        attribute = Handle(H5Acreate2(object, name.c_str(), type, space.id(), H5P_DEFAULT, H5P_DEFAULT));
    }
    if (!attribute.valid() || H5Awrite(attribute.id(), type, value) < 0)
        return failure(ErrorKind::work, "attribute cannot be written", pathOf(object) + "@" + name);
    return {};
}
} // namespace

std::string pathOf(Id object)
{
    char name[512] = {};
    return H5Iget_name(object, name, sizeof name) > 0 ? std::string(name) : std::string();
}

Result<void> setAttribute(Id object, const std::string &name, const std::string &value)
{
    const Handle type = fileType(Type::text);
    const char *text = value.c_str();
    return writeAttribute(object, name, type.id(), &text);
}
Result<void> setAttribute(Id object, const std::string &name, std::int32_t value)
{
    return writeAttribute(object, name, H5T_STD_I32LE, &value);
}
Result<void> setAttribute(Id object, const std::string &name, std::int64_t value)
{
    return writeAttribute(object, name, H5T_STD_I64LE, &value);
}
Result<void> setAttribute(Id object, const std::string &name, double value)
{
    return writeAttribute(object, name, H5T_IEEE_F64LE, &value);
}

namespace {
/// A scalar (or one-element) attribute and its type.
std::pair<Handle, Handle> scalarAttribute(Id object, const std::string &name)
{
    quiet();
    if (H5Aexists(object, name.c_str()) <= 0) {
        H5Eclear2(H5E_DEFAULT);
        return {};
    }
    Handle attribute(H5Aopen(object, name.c_str(), H5P_DEFAULT));
    if (!attribute.valid())
        return {};
    const Handle space(H5Aget_space(attribute.id()));
    if (!space.valid() || H5Sget_simple_extent_npoints(space.id()) != 1)
        return {};
    Handle type(H5Aget_type(attribute.id()));
    return {std::move(attribute), std::move(type)};
}
} // namespace

std::optional<std::string> textAttribute(Id object, const std::string &name)
{
    const auto [attribute, type] = scalarAttribute(object, name);
    if (!attribute.valid() || !type.valid() || H5Tget_class(type.id()) != H5T_STRING)
        return {};
    if (H5Tis_variable_str(type.id()) > 0) {
        char *text = nullptr;
        const Handle memory(H5Tcopy(H5T_C_S1));
        H5Tset_size(memory.id(), H5T_VARIABLE);
        H5Tset_cset(memory.id(), H5Tget_cset(type.id()));
        if (H5Aread(attribute.id(), memory.id(), &text) < 0) {
            H5Eclear2(H5E_DEFAULT);
            return {};
        }
        std::string value = text != nullptr ? text : "";
        H5free_memory(text);
        return value;
    }
    const std::size_t size = H5Tget_size(type.id());
    if (size == 0 || size > (std::size_t(64) << 20))
        return {};
    std::string value(size, '\0');
    if (H5Aread(attribute.id(), type.id(), value.data()) < 0) {
        H5Eclear2(H5E_DEFAULT);
        return {};
    }
    value.resize(std::strlen(value.c_str()));
    return value;
}

std::optional<std::int64_t> integerAttribute(Id object, const std::string &name)
{
    const auto [attribute, type] = scalarAttribute(object, name);
    if (!attribute.valid() || !type.valid())
        return {};
    const H5T_class_t kind = H5Tget_class(type.id());
    std::int64_t value = 0;
    std::int8_t flag = 0;
    if (kind == H5T_ENUM && H5Tget_size(type.id()) == 1) // h5py's bool
        return H5Aread(attribute.id(), type.id(), &flag) >= 0 ? std::optional<std::int64_t>(flag) : std::nullopt;
    if (kind != H5T_INTEGER || H5Aread(attribute.id(), H5T_NATIVE_INT64, &value) < 0) {
        H5Eclear2(H5E_DEFAULT);
        return {};
    }
    return value;
}

std::optional<double> numberAttribute(Id object, const std::string &name)
{
    const auto [attribute, type] = scalarAttribute(object, name);
    if (!attribute.valid() || !type.valid())
        return {};
    const H5T_class_t kind = H5Tget_class(type.id());
    double value = 0;
    if ((kind != H5T_INTEGER && kind != H5T_FLOAT) || H5Aread(attribute.id(), H5T_NATIVE_DOUBLE, &value) < 0) {
        H5Eclear2(H5E_DEFAULT);
        return {};
    }
    return value;
}

Result<void> touchAttributes(Id object)
{
    quiet();
    H5O_info_t info{};
    if (H5Oget_info2(object, &info, H5O_INFO_NUM_ATTRS) < 0)
        return failure(ErrorKind::input, "attributes cannot be counted", pathOf(object));
    for (hsize_t i = 0; i < info.num_attrs; ++i) {
        const Handle attribute(H5Aopen_by_idx(object, ".", H5_INDEX_NAME, H5_ITER_INC, i, H5P_DEFAULT, H5P_DEFAULT));
        if (!attribute.valid())
            return failure(ErrorKind::input, "an attribute cannot be opened", pathOf(object));
        const Handle type(H5Aget_type(attribute.id())), space(H5Aget_space(attribute.id()));
        const hssize_t n = H5Sget_simple_extent_npoints(space.id());
        const std::size_t size = H5Tget_size(type.id());
        if (n < 0 || size == 0 || static_cast<std::uint64_t>(n) > (std::uint64_t(64) << 20) / size)
            return failure(ErrorKind::input, "an attribute is too large", pathOf(object));
        std::vector<char> buffer(static_cast<std::size_t>(n) * size + 1);
        if (n > 0 && H5Aread(attribute.id(), type.id(), buffer.data()) < 0)
            return failure(ErrorKind::input, "an attribute cannot be read", pathOf(object));
        if (n > 0 && (H5Tdetect_class(type.id(), H5T_VLEN) > 0 || H5Tis_variable_str(type.id()) > 0))
            H5Dvlen_reclaim(type.id(), space.id(), H5P_DEFAULT, buffer.data());
    }
    return {};
}

Result<void> makeScale(Id dataset, const std::string &name, bool hasValues)
{
    quiet();
    const std::string label = hasValues ? name : "This is a netCDF dimension but not a netCDF variable.         0";
    if (H5DSset_scale(dataset, label.c_str()) < 0)
        return failure(ErrorKind::work, "dimension scale cannot be made", name);
    return {};
}

Result<void> attachScale(Id dataset, Id scale, int axis)
{
    quiet();
    if (H5DSattach_scale(dataset, scale, static_cast<unsigned>(axis)) < 0)
        return failure(ErrorKind::work, "dimension scale cannot be attached", pathOf(dataset));
    return {};
}

bool hasScale(Id dataset, int axis)
{
    quiet();
    const int n = H5DSget_num_scales(dataset, static_cast<unsigned>(axis));
    H5Eclear2(H5E_DEFAULT);
    return n > 0;
}

namespace {
struct Listing {
    std::string prefix;
    std::vector<std::string> groups, datasets;
    std::vector<std::string> *links = nullptr;
    bool failed = false;
    std::set<haddr_t> *seen = nullptr;
};

herr_t visitLink(hid_t group, const char *name, const H5L_info_t *link, void *data)
{
    auto *listing = static_cast<Listing *>(data);
    const std::string path = listing->prefix + name;
    if (link->type != H5L_TYPE_HARD) {
        if (listing->links != nullptr)
            listing->links->push_back(path);
        return 0;
    }
    H5O_info_t info{};
    if (H5Oget_info_by_name2(group, name, &info, H5O_INFO_BASIC, H5P_DEFAULT) < 0) {
        listing->failed = true;
        return -1;
    }
    if (!listing->seen->insert(info.addr).second)
        return 0;
    if (info.type == H5O_TYPE_GROUP)
        listing->groups.push_back(path);
    else if (info.type == H5O_TYPE_DATASET)
        listing->datasets.push_back(path);
    return listing->seen->size() > 100'000 ? -1 : 0;
}
} // namespace

Result<std::vector<Object>> listObjects(Id file, std::vector<std::string> *links)
{
    quiet();
    std::vector<Object> objects;
    std::set<haddr_t> seen;
    std::vector<std::string> waiting{"/"};
    H5O_info_t root{};
    if (H5Oget_info2(file, &root, H5O_INFO_BASIC) >= 0)
        seen.insert(root.addr);
    while (!waiting.empty()) {
        Listing listing;
        listing.prefix = waiting.back() == "/" ? "/" : waiting.back() + "/";
        listing.links = links;
        listing.seen = &seen;
        if (listing.prefix.size() > 4096)
            return inputError("groups are nested too deep");
        const Handle group(H5Gopen2(file, waiting.back().c_str(), H5P_DEFAULT));
        objects.push_back({waiting.back(), false});
        waiting.pop_back();
        if (!group.valid() || H5Literate(group.id(), H5_INDEX_NAME, H5_ITER_INC, nullptr, visitLink, &listing) < 0 || listing.failed)
            return failure(ErrorKind::input, "group cannot be listed", objects.back().path);
        for (std::string &path : listing.datasets)
            objects.push_back({std::move(path), true});
        waiting.insert(waiting.end(), listing.groups.begin(), listing.groups.end());
    }
    return objects;
}

} // namespace spectra::h5
