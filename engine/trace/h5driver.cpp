// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/trace/h5driver.h"

#include <hdf5.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <map>
#include <new>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

namespace spectra::h5 {
namespace {

constexpr std::size_t kMostWaiting = std::size_t(8) << 20;

/// HDF5 allocates nothing of this; it fills in the base part and hands the pointer back.
struct DriverFile : H5FD_t {
    int fd = -1;
    bool writable = false;
    dev_t device = 0;
    ino_t inode = 0;
    haddr_t eoa = 0;      ///< end of what HDF5 has allocated
    haddr_t eof = 0;      ///< end of what was written, waiting metadata included
    haddr_t onDisk = 0;   ///< size of the file
    haddr_t flushedEnd = 0; ///< size of the file at the last flush: beyond it nothing is referenced yet
    std::map<haddr_t, std::vector<unsigned char>> waiting; ///< disjoint pieces by address, written by the next flush
    std::size_t waitingBytes = 0;
    DriverControl *control = nullptr;
    DriverControl own;
};

DriverFile *self(H5FD_t *file) { return static_cast<DriverFile *>(file); }
const DriverFile *self(const H5FD_t *file) { return static_cast<const DriverFile *>(file); }

/// A failed write is remembered and answered with success: HDF5 1.10 cannot clean up after one (it complains of an
/// "infinite loop closing library" at exit). Callers look at DriverControl::error; nothing more reaches the disk.
herr_t failed(DriverFile *file, int error)
{
    int none = 0;
    file->control->error.compare_exchange_strong(none, error);
    file->control->abandoned = file->writable;
    return file->writable ? 0 : -1;
}

bool readAll(int fd, unsigned char *to, std::size_t size, haddr_t at)
{
    while (size > 0) {
        const ssize_t got = ::pread(fd, to, size, static_cast<off_t>(at));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return false;
        if (got == 0) { // allocated, not written yet
            std::memset(to, 0, size);
            return true;
        }
        to += got;
        at += static_cast<haddr_t>(got);
        size -= static_cast<std::size_t>(got);
    }
    return true;
}

bool writeAll(int fd, const unsigned char *from, std::size_t size, haddr_t at)
{
    while (size > 0) {
        const ssize_t put = ::pwrite(fd, from, size, static_cast<off_t>(at));
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0) {
            if (put == 0)
                errno = ENOSPC;
            return false;
        }
        from += put;
        at += static_cast<haddr_t>(put);
        size -= static_cast<std::size_t>(put);
    }
    return true;
}

/// The first waiting piece that ends after `addr`.
auto firstOverlap(DriverFile *file, haddr_t addr)
{
    auto it = file->waiting.upper_bound(addr);
    if (it != file->waiting.begin()) {
        auto before = std::prev(it);
        if (before->first + before->second.size() > addr)
            return before;
    }
    return it;
}

/// Removes [addr, end) from the waiting pieces, keeping what sticks out.
void subtractWaiting(DriverFile *file, haddr_t addr, haddr_t end)
{
    for (auto it = firstOverlap(file, addr); it != file->waiting.end() && it->first < end;) {
        const haddr_t begin = it->first;
        std::vector<unsigned char> bytes = std::move(it->second);
        it = file->waiting.erase(it);
        const haddr_t last = begin + bytes.size();
        if (last > end)
            file->waiting.emplace(end, std::vector<unsigned char>(bytes.begin() + static_cast<std::ptrdiff_t>(end - begin), bytes.end()));
        if (begin < addr) {
            bytes.resize(addr - begin);
            file->waiting.emplace(begin, std::move(bytes));
        }
    }
}

H5FD_t *open(const char *name, unsigned flags, hid_t fapl, haddr_t maxaddr)
{
    if (name == nullptr || *name == '\0' || maxaddr == 0 || maxaddr == HADDR_UNDEF)
        return nullptr;
    int how = O_CLOEXEC | ((flags & H5F_ACC_RDWR) != 0 ? O_RDWR : O_RDONLY | O_NONBLOCK);
    how |= (flags & H5F_ACC_TRUNC) != 0 ? O_TRUNC : 0;
    how |= (flags & H5F_ACC_CREAT) != 0 ? O_CREAT : 0;
    how |= (flags & H5F_ACC_EXCL) != 0 ? O_EXCL : 0;
    const int fd = ::open(name, how, 0666);
    struct stat status {};
    if (fd < 0)
        return nullptr;
    if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
        ::close(fd);
        return nullptr;
    }
    auto *file = new (std::nothrow) DriverFile();
    if (file == nullptr) {
        ::close(fd);
        return nullptr;
    }
    file->fd = fd;
    file->writable = (flags & H5F_ACC_RDWR) != 0;
    file->device = status.st_dev;
    file->inode = status.st_ino;
    file->eof = file->onDisk = file->flushedEnd = static_cast<haddr_t>(status.st_size);
    const void *info = H5Pget_driver_info(fapl);
    file->control = info != nullptr ? *static_cast<DriverControl *const *>(info) : nullptr;
    if (file->control == nullptr)
        file->control = &file->own;
    return file;
}

herr_t close(H5FD_t *base)
{
    DriverFile *file = self(base);
    const int rc = ::close(file->fd);
    delete file;
    return rc < 0 ? -1 : 0;
}

int compare(const H5FD_t *a, const H5FD_t *b)
{
    const DriverFile *x = self(a), *y = self(b);
    if (x->device != y->device)
        return x->device < y->device ? -1 : 1;
    return x->inode < y->inode ? -1 : x->inode > y->inode ? 1 : 0;
}

herr_t query(const H5FD_t *, unsigned long *flags)
{
    if (flags != nullptr)
        *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE
            | H5FD_FEAT_AGGREGATE_SMALLDATA | H5FD_FEAT_POSIX_COMPAT_HANDLE | H5FD_FEAT_DEFAULT_VFD_COMPATIBLE;
    return 0;
}

haddr_t getEoa(const H5FD_t *file, H5FD_mem_t) { return self(file)->eoa; }
herr_t setEoa(H5FD_t *file, H5FD_mem_t, haddr_t addr)
{
    self(file)->eoa = addr;
    return 0;
}
haddr_t getEof(const H5FD_t *file, H5FD_mem_t) { return self(file)->eof; }
herr_t getHandle(H5FD_t *file, hid_t, void **handle)
{
    *handle = &self(file)->fd;
    return 0;
}

herr_t read(H5FD_t *base, H5FD_mem_t type, hid_t, haddr_t addr, size_t size, void *buffer)
{
    DriverFile *file = self(base);
    if (addr == HADDR_UNDEF || addr > file->eoa || size > file->eoa - addr)
        return -1;
    if (!file->writable && (addr > file->onDisk || size > file->onDisk - addr))
        return -1;
    if (type == H5FD_MEM_DRAW && file->control->checkOnly)
        return 0;
    if (!readAll(file->fd, static_cast<unsigned char *>(buffer), size, addr))
        return failed(file, errno);
    const haddr_t end = addr + size;
    for (auto it = firstOverlap(file, addr); it != file->waiting.end() && it->first < end; ++it) {
        const haddr_t from = std::max(addr, it->first), to = std::min(end, it->first + it->second.size());
        std::memcpy(static_cast<unsigned char *>(buffer) + (from - addr), it->second.data() + (from - it->first), to - from);
    }
    return 0;
}

herr_t write(H5FD_t *base, H5FD_mem_t type, hid_t, haddr_t addr, size_t size, const void *buffer)
{
    DriverFile *file = self(base);
    if (addr == HADDR_UNDEF || addr > file->eoa || size > file->eoa - addr)
        return -1;
    const auto *bytes = static_cast<const unsigned char *>(buffer);
    const haddr_t end = addr + size;
    try {
        // Raw data in space that is new since the last flush is referred to by nothing on disk: it may go out when much
        // waits. All else waits: text references that are replaced in place, for one, point to heap objects that come with
        // the next flush. So a file changes with its commits, not with every row.
        if (type == H5FD_MEM_DRAW && addr >= file->flushedEnd && file->waitingBytes + size > kMostWaiting) {
            subtractWaiting(file, addr, end);
            if (file->control->abandoned)
                return 0;
            if (!writeAll(file->fd, bytes, size, addr))
                return failed(file, errno);
            file->onDisk = std::max(file->onDisk, end);
        } else if (auto it = firstOverlap(file, addr);
                   it != file->waiting.end() && it->first <= addr && it->first + it->second.size() >= end) {
            std::memcpy(it->second.data() + (addr - it->first), bytes, size);
        } else {
            subtractWaiting(file, addr, end);
            file->waiting.emplace(addr, std::vector<unsigned char>(bytes, bytes + size));
            file->waitingBytes += size;
        }
    } catch (const std::bad_alloc &) {
        return failed(file, ENOMEM);
    }
    file->eof = std::max(file->eof, end);
    return 0;
}

/// Makes the file as long as HDF5 says, with the space really there.
herr_t truncate(H5FD_t *base, hid_t, hbool_t)
{
    DriverFile *file = self(base);
    if (!file->writable || file->control->abandoned)
        return 0;
    if (file->eoa > file->onDisk) {
        const int rc = ::posix_fallocate(file->fd, static_cast<off_t>(file->onDisk), static_cast<off_t>(file->eoa - file->onDisk));
        if (rc == EINVAL || rc == EOPNOTSUPP) {
            if (::ftruncate(file->fd, static_cast<off_t>(file->eoa)) != 0)
                return failed(file, errno);
        } else if (rc != 0) {
            return failed(file, rc);
        }
    } else if (file->eoa < file->onDisk) {
        if (::ftruncate(file->fd, static_cast<off_t>(file->eoa)) != 0)
            return failed(file, errno);
    }
    file->onDisk = file->eof = file->eoa;
    return 0;
}

herr_t flush(H5FD_t *base, hid_t id, hbool_t closing)
{
    DriverFile *file = self(base);
    if (!file->writable || file->control->abandoned)
        return 0;
    if (!file->waiting.empty() && file->waiting.rbegin()->first + file->waiting.rbegin()->second.size() > file->onDisk
        && (truncate(base, id, closing) < 0 || file->control->abandoned))
        return 0;
    for (const bool replacing : {false, true})
        for (const auto &[addr, bytes] : file->waiting)
            if ((addr < file->flushedEnd) == replacing && !writeAll(file->fd, bytes.data(), bytes.size(), addr))
                return failed(file, errno);
    file->waiting.clear();
    file->waitingBytes = 0;
    file->flushedEnd = file->onDisk;
    return 0;
}

herr_t lock(H5FD_t *file, hbool_t exclusive)
{
    if (::flock(self(file)->fd, (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB) == 0)
        return 0;
    return errno == EWOULDBLOCK ? -1 : 0; // file systems without locks are used without
}
herr_t unlock(H5FD_t *file)
{
    ::flock(self(file)->fd, LOCK_UN);
    return 0;
}

} // namespace

std::int64_t driverId()
{
    static const std::int64_t id = [] {
        static H5FD_class_t driver = {};
        driver.name = "spectra";
        driver.maxaddr = (haddr_t(1) << 62) - 1;
        driver.fc_degree = H5F_CLOSE_WEAK;
        driver.fapl_size = sizeof(DriverControl *);
        driver.open = open;
        driver.close = close;
        driver.cmp = compare;
        driver.query = query;
        driver.get_eoa = getEoa;
        driver.set_eoa = setEoa;
        driver.get_eof = getEof;
        driver.get_handle = getHandle;
        driver.read = read;
        driver.write = write;
        driver.flush = flush;
        driver.truncate = truncate;
        driver.lock = lock;
        driver.unlock = unlock;
        const H5FD_mem_t map[] = H5FD_FLMAP_DICHOTOMY;
        std::copy(std::begin(map), std::end(map), driver.fl_map);
        return static_cast<std::int64_t>(H5FDregister(&driver));
    }();
    return id;
}

} // namespace spectra::h5
