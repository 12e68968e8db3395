// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/trace/probe.h"

#include "engine/core/files.h"
#include "engine/trace/h5.h"

#include <algorithm>
#include <sys/resource.h>
#include <vector>

namespace spectra {
namespace {

constexpr std::int64_t kTextBlock = 65536;
constexpr std::int64_t kMostChunks = 50'000'000;

/// Every chunk of a dataset, in storage order of its axes.
Result<void> lookUpChunks(h5::File &file, const h5::Handle &dataset, const h5::DatasetInfo &info, std::int64_t fileBytes, bool all, std::int64_t &stored)
{
    std::vector<std::int64_t> counts;
    std::int64_t total = 1;
    for (std::size_t i = 0; i < info.shape.size(); ++i) {
        counts.push_back((info.shape[i] + info.chunk[i] - 1) / info.chunk[i]);
        if (__builtin_mul_overflow(total, counts.back(), &total) || total > kMostChunks)
            return inputError("has more chunks than any trace");
    }
    std::int64_t values = info.elementBytes;
    for (const std::int64_t c : info.chunk)
        if (__builtin_mul_overflow(values, c, &values) || values > (std::int64_t(1) << 32))
            return inputError("has chunks that are too large");
    // References to variable-length data take up to twice as much in the file as HDF5 says of their type.
    const std::int64_t most = 2 * values + 4096;
    std::vector<std::byte> bytes;
    for (std::int64_t n = 0; n < total; ++n) {
        if (!all && n > 256 && n < total - 256) // the rest is checked when it is read
            continue;
        std::vector<std::int64_t> at(counts.size());
        std::int64_t rest = n;
        for (std::size_t i = counts.size(); i-- > 0;) {
            at[i] = rest % counts[i] * info.chunk[i];
            rest /= counts[i];
        }
        std::uint32_t skipped = 0;
        file.setCheckOnly(true);
        auto read = h5::readChunk(dataset.id(), at, static_cast<std::size_t>(std::min(most, fileBytes)), bytes, skipped);
        file.setCheckOnly(false);
        if (!read)
            return read;
        stored += static_cast<std::int64_t>(bytes.size());
        if (stored > fileBytes)
            return inputError("chunks overlap: together they are larger than the file");
    }
    return {};
}

} // namespace

Result<void> probeFile(const std::filesystem::path &path, std::int64_t fullBytes)
{
    auto opened = h5::File::open(path, h5::File::Mode::read);
    const bool shared = !opened;
    if (shared) { // a file whose live writer was killed
        auto again = h5::File::open(path, h5::File::Mode::readSwmr);
        if (!again)
            return opened.error();
        opened = std::move(again);
    }
    h5::File file = std::move(*opened);
    const std::int64_t fileBytes = file.size();
    const bool all = fileBytes <= fullBytes;
    auto root = h5::openGroup(file.id(), "/");
    if (!root)
        return root.error().in(path.string());
    const bool unfinished = h5::integerAttribute(root->id(), "complete").value_or(1) == 0;
    std::vector<std::string> links;
    auto listed = h5::listObjects(file.id(), &links);
    if (!listed)
        return listed.error().in(path.string());
    const std::vector<h5::Object> objects = std::move(*listed);
    std::int64_t stored = 0;
    const auto visit = [&](const h5::Object &object) -> Result<void> {
        if (!object.dataset) {
            SPECTRA_TRY(const h5::Handle group, h5::openObject(file.id(), object.path));
            return h5::touchAttributes(group.id());
        }
        SPECTRA_TRY(const h5::Handle dataset, h5::openDataset(file.id(), object.path));
        SPECTRA_CHECK(h5::touchAttributes(dataset.id()));
        SPECTRA_TRY(const h5::DatasetInfo info, h5::describe(dataset.id()));
        if (info.external)
            return inputError("keeps its values in other files, which is not read");
        for (const std::string &source : h5::virtualSources(dataset.id()))
            if (source != "." && !isPlainFileName(source))
                return inputError("refers to '" + source + "', which is not a plain file name");
        if (info.layout == h5::DatasetInfo::Layout::virtualLayout)
            return {};
        if (info.layout == h5::DatasetInfo::Layout::chunked && !shared)
            SPECTRA_CHECK(lookUpChunks(file, dataset, info, fileBytes, all, stored));
        if (info.storedBytes < 0 || (!info.chunk.empty() ? 0 : info.storedBytes) > fileBytes)
            return inputError("claims more bytes than the file has");
        if (info.type == h5::Type::text && info.shape.size() == 1) {
            // Fixed-length text is plain data; of variable-length text every reference is followed.
            for (std::int64_t first = 0; info.variableText && info.storedBytes > 0 && first < info.shape[0]; first += kTextBlock)
                if (auto text = h5::readText(dataset.id(), first, std::min(kTextBlock, info.shape[0] - first), std::size_t(1) << 30, unfinished); !text)
                    return text.error();
        } else if (info.layout != h5::DatasetInfo::Layout::chunked && info.type != h5::Type::other && info.storedBytes > 0) {
            file.setCheckOnly(true);
            std::vector<std::int64_t> zero(info.shape.size(), 0), one(info.shape.size(), 1);
            double value[2] = {};
            auto read = info.type == h5::Type::text ? Result<void>() : h5::readSlab(dataset.id(), zero, one, h5::Type::f64, value);
            file.setCheckOnly(false);
            SPECTRA_CHECK(read);
        }
        return {};
    };
    for (const h5::Object &object : objects) {
        if (auto visited = visit(object); !visited) {
            Error error = visited.error();
            if (error.where.find(object.path) == std::string::npos)
                error.in(object.path);
            return error.in(path.string());
        }
    }
    return {};
}

void limitThisProcess(std::int64_t memoryBytes, int seconds)
{
    const auto set = [](auto what, rlim_t value) {
        rlimit limit{value, value};
        ::setrlimit(what, &limit);
    };
    set(RLIMIT_CORE, 0);
    set(RLIMIT_FSIZE, 65536); // what it has to say
    set(RLIMIT_CPU, static_cast<rlim_t>(seconds));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) // they reserve terabytes of address space
    set(RLIMIT_AS, static_cast<rlim_t>(memoryBytes));
#else
    (void)memoryBytes;
#endif
}

} // namespace spectra
