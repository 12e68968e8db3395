// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/trace/arrayfile.h"

#include "engine/core/files.h"
#include "engine/trace/h5.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <map>
#include <unistd.h>

namespace spectra {
namespace fs = std::filesystem;

class ArrayFile::Impl {
public:
    fs::path place, temporary;
    h5::File file;
    struct Growing {
        h5::Handle data;
        std::vector<std::int64_t> shape;
    };
    std::map<std::string, Growing> growing;

    ~Impl()
    {
        if (file.valid()) {
            growing.clear();
            file.abandon();
            (void)file.close().ok();
        }
        std::error_code ignored;
        if (!temporary.empty())
            fs::remove(temporary, ignored);
    }

    Error named(Error error) const
    {
        return error.where.find(place.string()) == std::string::npos ? error.in(place.string()) : error;
    }

    Result<void> write(const std::string &name, const std::vector<std::int64_t> &shape, h5::Type type, std::size_t values, const void *data)
    {
        std::int64_t n = 1;
        for (const std::int64_t d : shape)
            if (d < 0 || __builtin_mul_overflow(n, d, &n))
                return bugError("an array has a shape that is no shape", name);
        if (static_cast<std::uint64_t>(n) != values)
            return bugError("an array has another number of values than its shape", name);
        h5::DatasetSpec spec;
        spec.type = type;
        spec.shape = shape;
        auto made = h5::createDataset(file.id(), name, spec);
        if (!made)
            return named(made.error());
        auto written = h5::writeSlab(made->id(), std::vector<std::int64_t>(shape.size(), 0), shape, type, data);
        return written ? Result<void>() : Result<void>(named(written.error()));
    }

    Result<h5::Handle> object(const std::string &name) const
    {
        if (const auto it = growing.find(name); it != growing.end())
            return h5::openDataset(file.id(), name, 0);
        return name == "/" ? h5::openGroup(file.id(), name) : h5::openObject(file.id(), name);
    }
};

ArrayFile::ArrayFile(std::unique_ptr<Impl> impl) : m_impl(std::move(impl)) {}
ArrayFile::~ArrayFile() = default;

Result<std::unique_ptr<ArrayFile>> ArrayFile::create(const fs::path &place, bool overwrite)
{
    SPECTRA_CHECK(checkOutput(place, overwrite));
    std::error_code ignored;
    if (fs::is_directory(place, ignored))
        return workError("is a folder", place.string(), "give the name of a file");
    auto impl = std::make_unique<Impl>();
    impl->place = place;
    fs::path temporary = place;
    temporary.replace_filename("." + place.filename().string() + "." + std::to_string(::getpid()) + ".tmp");
    auto opened = h5::File::open(temporary, h5::File::Mode::create);
    if (!opened) {
        Error error = opened.error();
        error.where = place.string();
        return error;
    }
    impl->file = std::move(*opened);
    impl->temporary = temporary;
    return std::unique_ptr<ArrayFile>(new ArrayFile(std::move(impl)));
}

using Shape = std::vector<std::int64_t>;
Result<void> ArrayFile::write(const std::string &name, const Shape &shape, std::span<const float> v)
{
    return m_impl->write(name, shape, h5::Type::f32, v.size(), v.data());
}
Result<void> ArrayFile::write(const std::string &name, const Shape &shape, std::span<const double> v)
{
    return m_impl->write(name, shape, h5::Type::f64, v.size(), v.data());
}
Result<void> ArrayFile::write(const std::string &name, const Shape &shape, std::span<const std::int32_t> v)
{
    return m_impl->write(name, shape, h5::Type::i32, v.size(), v.data());
}
Result<void> ArrayFile::write(const std::string &name, const Shape &shape, std::span<const std::int64_t> v)
{
    return m_impl->write(name, shape, h5::Type::i64, v.size(), v.data());
}
Result<void> ArrayFile::write(const std::string &name, const Shape &shape, std::span<const std::uint16_t> v)
{
    return m_impl->write(name, shape, h5::Type::u16, v.size(), v.data());
}

Result<void> ArrayFile::write(const std::string &name, const std::vector<std::string> &values)
{
    h5::DatasetSpec spec;
    spec.type = h5::Type::text;
    spec.shape = {static_cast<std::int64_t>(values.size())};
    std::vector<std::string> texts;
    texts.reserve(values.size());
    for (const std::string &value : values)
        texts.push_back(printableUtf8(value));
    auto made = h5::createDataset(m_impl->file.id(), name, spec);
    if (!made)
        return m_impl->named(made.error());
    auto written = h5::writeText(made->id(), 0, texts);
    return written ? Result<void>() : Result<void>(m_impl->named(written.error()));
}

Result<void> ArrayFile::append(const std::string &name, const Shape &inner, std::span<const float> values)
{
    std::int64_t width = 1;
    for (const std::int64_t d : inner)
        if (d < 1 || __builtin_mul_overflow(width, d, &width))
            return bugError("an array has a shape that is no shape", name);
    if (values.size() % static_cast<std::size_t>(width) != 0)
        return bugError("appended values are no whole rows", name);
    auto it = m_impl->growing.find(name);
    if (it == m_impl->growing.end()) {
        h5::DatasetSpec spec;
        spec.shape = {0};
        spec.maxShape = {h5::kUnlimited};
        spec.chunk = {std::clamp<std::int64_t>((std::int64_t(1) << 18) / width, 1, 4096)};
        for (const std::int64_t d : inner) {
            spec.shape.push_back(d);
            spec.maxShape.push_back(d);
            spec.chunk.push_back(d);
        }
        auto made = h5::createDataset(m_impl->file.id(), name, spec);
        if (!made)
            return m_impl->named(made.error());
        it = m_impl->growing.emplace(name, Impl::Growing{std::move(*made), spec.shape}).first;
    }
    Impl::Growing &g = it->second;
    if (!std::equal(inner.begin(), inner.end(), g.shape.begin() + 1, g.shape.end()))
        return bugError("appended rows have another shape than the first", name);
    Shape offset(g.shape.size(), 0), count = g.shape;
    offset[0] = g.shape[0];
    count[0] = static_cast<std::int64_t>(values.size()) / width;
    g.shape[0] += count[0];
    auto written = h5::setShape(g.data.id(), g.shape);
    if (written)
        written = h5::writeSlab(g.data.id(), offset, count, h5::Type::f32, values.data());
    return written ? Result<void>() : Result<void>(m_impl->named(written.error()));
}

Result<void> ArrayFile::attribute(const std::string &name, const std::string &key, const std::string &value)
{
    SPECTRA_TRY(const h5::Handle object, m_impl->object(name));
    return h5::setAttribute(object.id(), key, printableUtf8(value));
}

Result<void> ArrayFile::attribute(const std::string &name, const std::string &key, double value)
{
    SPECTRA_TRY(const h5::Handle object, m_impl->object(name));
    return h5::setAttribute(object.id(), key, value);
}

Result<void> ArrayFile::commit()
{
    Impl &m = *m_impl;
    m.growing.clear();
    auto done = m.file.flush();
    if (done)
        done = m.file.sync();
    auto closed = m.file.close();
    if (!done || !closed) {
        Error error = done ? closed.error() : done.error();
        error.where = m.place.string();
        return error;
    }
    std::error_code error;
    fs::rename(m.temporary, m.place, error);
    if (error)
        return workError("cannot be put in place: " + error.message(), m.place.string());
    m.temporary.clear();
    return {};
}

Result<std::vector<DatasetSummary>> listDatasets(const fs::path &path)
{
    SPECTRA_TRY(const h5::File file, h5::File::open(path, h5::File::Mode::read));
    std::vector<DatasetSummary> out;
    const auto list = [&]() -> Result<void> {
        SPECTRA_TRY(const std::vector<h5::Object> objects, h5::listObjects(file.id()));
        for (const h5::Object &object : objects) {
            if (!object.dataset)
                continue;
            SPECTRA_TRY(const h5::Handle dataset, h5::openDataset(file.id(), object.path));
            SPECTRA_TRY(const h5::DatasetInfo info, h5::describe(dataset.id()));
            out.push_back({object.path, h5::nameOf(info.type), info.shape, info.storedBytes});
        }
        return {};
    };
    if (auto listed = list(); !listed)
        return listed.error().in(path.string());
    std::sort(out.begin(), out.end(), [](const DatasetSummary &a, const DatasetSummary &b) { return a.path < b.path; });
    return out;
}

bool isHdf5(const fs::path &path)
{
    constexpr std::array<char, 8> signature{'\x89', 'H', 'D', 'F', '\r', '\n', '\x1a', '\n'};
    std::array<char, 8> head{};
    std::error_code ignored;
    if (!fs::is_regular_file(path, ignored))
        return false;
    std::ifstream stream(path, std::ios::binary);
    return stream.read(head.data(), head.size()) && head == signature;
}

} // namespace spectra
