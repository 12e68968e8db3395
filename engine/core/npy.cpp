// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/core/npy.h"

#include "engine/core/files.h"

#include <fmt/format.h>

#include <cstring>
#include <string>
#include <string_view>

// The format is described in NumPy's documentation, "numpy.lib.format".
namespace spectra {
namespace {

/// The text behind 'key': in the header's Python dictionary, or empty.
std::string_view field(std::string_view header, std::string_view key)
{
    const std::string quoted = "'" + std::string(key) + "'";
    std::size_t at = header.find(quoted);
    if (at == std::string_view::npos)
        return {};
    at = header.find(':', at + quoted.size());
    if (at == std::string_view::npos)
        return {};
    ++at;
    while (at < header.size() && header[at] == ' ')
        ++at;
    return header.substr(at);
}

} // namespace

Result<NpyArray> parseNpy(std::span<const std::byte> bytes, const std::string &where)
{
    const auto bad = [&](const std::string &what) {
        return inputError("is not a NumPy array that can be read: " + what, where,
                          "save it with numpy.save as a C-order array of float32 or float64");
    };
    if (bytes.size() < 10 || std::memcmp(bytes.data(), "\x93NUMPY", 6) != 0)
        return bad("no NumPy header");
    const auto at = [&](std::size_t i) { return std::to_integer<std::size_t>(bytes[i]); };
    const std::size_t major = at(6);
    std::size_t start = 10;
    std::size_t length = at(8) | at(9) << 8;
    if (major == 2 || major == 3) {
        if (bytes.size() < 12)
            return bad("header cut short");
        start = 12;
        length |= at(10) << 16 | at(11) << 24;
    } else if (major != 1) {
        return bad(fmt::format("format version {}", major));
    }
    if (length > bytes.size() - start)
        return bad("header cut short");
    const std::string_view header(reinterpret_cast<const char *>(bytes.data()) + start, length);
    const std::string_view descr = field(header, "descr");
    std::size_t width = 0;
    if (descr.starts_with("'<f4'"))
        width = 4;
    else if (descr.starts_with("'<f8'"))
        width = 8;
    else
        return bad(fmt::format("element type {}", descr.substr(0, std::min<std::size_t>(descr.find(','), 12))));
    if (!field(header, "fortran_order").starts_with("False"))
        return bad("Fortran order");
    std::string_view shape = field(header, "shape");
    if (!shape.starts_with("("))
        return bad("no shape");
    shape = shape.substr(1, shape.find(')') == std::string_view::npos ? 0 : shape.find(')') - 1);
    NpyArray array;
    const std::uint64_t room = (bytes.size() - start - length) / width;
    std::uint64_t count = 1;
    while (!shape.empty()) {
        while (!shape.empty() && (shape[0] == ' ' || shape[0] == ','))
            shape.remove_prefix(1);
        if (shape.empty())
            break;
        std::uint64_t n = 0;
        std::size_t digits = 0;
        while (digits < shape.size() && shape[digits] >= '0' && shape[digits] <= '9' && digits < 18)
            n = n * 10 + static_cast<std::uint64_t>(shape[digits++] - '0');
        if (digits == 0)
            return bad("shape");
        shape.remove_prefix(digits);
        if (n > room || (n != 0 && count > room / n) || array.shape.size() >= 32)
            return bad("the shape asks for more data than the file has");
        count *= n;
        array.shape.push_back(static_cast<std::int64_t>(n));
    }
    if (count != room || (bytes.size() - start - length) % width != 0)
        return bad("the data's length does not match the shape");
    array.values.resize(count);
    const std::byte *data = bytes.data() + start + length;
    if (width == 4) {
        if (count > 0)
            std::memcpy(array.values.data(), data, count * 4);
    } else {
        for (std::size_t i = 0; i < count; ++i) {
            double value;
            std::memcpy(&value, data + i * 8, 8);
            array.values[i] = static_cast<float>(value);
        }
    }
    return array;
}

Result<NpyArray> readNpy(const std::filesystem::path &path)
{
    SPECTRA_TRY(const auto file, MappedFile::open(path));
    return parseNpy(file->bytes(), path.string());
}

void writeNpy(std::ostream &out, std::span<const std::int64_t> shape, std::span<const float> values)
{
    std::string text = "{'descr': '<f4', 'fortran_order': False, 'shape': (";
    for (std::size_t i = 0; i < shape.size(); ++i)
        text += fmt::format("{}{}", shape[i], shape.size() == 1 ? "," : i + 1 < shape.size() ? ", " : "");
    text += "), }";
    text.append(63 - (10 + text.size()) % 64, ' ');
    text += '\n';
    out.write("\x93NUMPY\x01\x00", 8);
    out.put(static_cast<char>(text.size() & 255));
    out.put(static_cast<char>(text.size() >> 8));
    out << text;
    out.write(reinterpret_cast<const char *>(values.data()), static_cast<std::streamsize>(values.size() * 4));
}

} // namespace spectra
