// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/checkpoint/safetensors.h"

#include "engine/core/files.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstring>
#include <limits>
#include <set>
#include <tuple>

namespace spectra {
namespace {

constexpr std::uint64_t kMaxHeader = 100'000'000;
constexpr std::size_t kMaxDims = 16;

struct StorageType {
    const char *name;
    int bits;
    int dtype; ///< DType, or -1: known by size only
};
constexpr int as(DType type) { return static_cast<int>(type); }
constexpr StorageType kTypes[] = {
    {"F32", 32, as(DType::f32)}, {"F16", 16, as(DType::f16)}, {"BF16", 16, as(DType::bf16)}, {"F64", 64, as(DType::f64)},
    {"I8", 8, as(DType::i8)}, {"I16", 16, as(DType::i16)}, {"I32", 32, as(DType::i32)}, {"I64", 64, as(DType::i64)},
    {"U8", 8, as(DType::u8)}, {"U16", 16, as(DType::u16)}, {"U32", 32, as(DType::u32)}, {"U64", 64, as(DType::u64)},
    {"BOOL", 8, as(DType::boolean)}, {"F4", 4, -1}, {"F6_E2M3", 6, -1}, {"F6_E3M2", 6, -1}, {"F8_E5M2", 8, -1}, {"F8_E4M3", 8, -1},
    {"F8_E8M0", 8, -1}, {"F8_E4M3FNUZ", 8, -1}, {"F8_E5M2FNUZ", 8, -1}, {"C64", 64, -1},
};

/// Reads the header event by event: a duplicate or a wrong form stops it at once, and no tree of untrusted size is built.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
public:
    SafetensorsHeader header;
    Result<void> result;

    bool null() override { return wrong("holds null where a value belongs"); }
    bool boolean(bool) override { return wrong("holds a truth value where there is none in this format"); }
    bool number_integer(number_integer_t) override { return wrong("holds a negative number"); }
    bool number_float(number_float_t, const string_t &) override { return wrong("holds a fraction or a number beyond 64 bits"); }
    bool binary(binary_t &) override { return wrong("holds binary data"); }
    bool number_unsigned(number_unsigned_t value) override
    {
        if (m_level != Level::numbers)
            return wrong("has a number where none belongs");
        if (m_field == "shape") {
            if (m_tensor.shape.size() == kMaxDims)
                return wrong(fmt::format("has more than {} dimensions", kMaxDims));
            if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
                return wrong(fmt::format("has an axis of {} elements", value));
            m_tensor.shape.push_back(static_cast<std::int64_t>(value));
        } else if (m_offsets.size() == 2) {
            return wrong("has more than two data_offsets");
        } else {
            m_offsets.push_back(value);
        }
        return true;
    }
    bool string(string_t &text) override
    {
        if (m_level == Level::metadata) {
            header.metadata[m_field] = std::move(text);
            return true;
        }
        if (m_level != Level::tensor || m_field != "dtype")
            return wrong("has a text where none belongs");
        const auto *type = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const StorageType &t) { return text == t.name; });
        if (type == std::end(kTypes))
            return wrong("has the unknown type '" + printableUtf8(text.substr(0, 100)) + "'");
        m_bits = type->bits;
        m_tensor.unreadable = type->dtype < 0 ? type->name : "";
        m_tensor.dtype = type->dtype < 0 ? DType::u8 : static_cast<DType>(type->dtype);
        return true;
    }
    bool start_object(std::size_t) override
    {
        if (m_level == Level::outside) {
            m_level = Level::top;
        } else if (m_level == Level::top && m_name == "__metadata__") {
            m_level = Level::metadata;
        } else if (m_level == Level::top) {
            m_level = Level::tensor;
            m_tensor = StoredTensor();
            m_tensor.name = m_name;
            m_bits = 0;
            m_offsets.clear();
            m_fields.clear();
        } else {
            return wrong("is nested too deeply");
        }
        return true;
    }
    bool end_object() override
    {
        if (m_level == Level::tensor)
            return finishTensor();
        m_level = m_level == Level::metadata ? Level::top : Level::outside;
        return true;
    }
    bool start_array(std::size_t) override
    {
        if (m_level != Level::tensor || (m_field != "shape" && m_field != "data_offsets"))
            return wrong("has a list where none belongs");
        m_level = Level::numbers;
        return true;
    }
    bool end_array() override
    {
        m_level = Level::tensor;
        return true;
    }
    bool key(string_t &text) override
    {
        if (m_level == Level::top) {
            m_name = text;
            if (!m_names.insert(text).second)
                return wrong("occurs twice");
            if (m_names.size() > kMaxTensors)
                return wrong(fmt::format("is one of more than {} tensors", kMaxTensors));
            return true;
        }
        m_field = text;
        if (m_level == Level::tensor && !m_fields.insert(text).second)
            return wrong("has the key '" + printableUtf8(text.substr(0, 100)) + "' twice");
        if (m_level == Level::tensor && text != "dtype" && text != "shape" && text != "data_offsets")
            return wrong("has the unknown key '" + printableUtf8(text.substr(0, 100)) + "'");
        return true;
    }
    bool parse_error(std::size_t position, const std::string &, const nlohmann::detail::exception &) override
    {
        if (result.ok())
            result = inputError("the header is not valid JSON", fmt::format("byte {}", position + 8), "fetch the file anew");
        return false;
    }

private:
    enum class Level { outside, top, metadata, tensor, numbers };

    bool wrong(const std::string &what)
    {
        if (result.ok())
            result = inputError(what, m_name.empty() ? "header" : "tensor " + printableUtf8(m_name.substr(0, 300)));
        return false;
    }
    bool finishTensor()
    {
        if (m_bits == 0 || !m_fields.contains("shape") || m_offsets.size() != 2)
            return wrong("lacks dtype, shape or data_offsets");
        std::int64_t elements = 0, bits = 0;
        if (!shapeProduct(m_tensor.shape, elements) || __builtin_mul_overflow(elements, std::int64_t(m_bits), &bits) || bits % 8 != 0)
            return wrong("has a shape that cannot be stored: " + shapeText(m_tensor.shape));
        const std::uint64_t begin = m_offsets[0], end = m_offsets[1];
        if (begin > end || end - begin != static_cast<std::uint64_t>(bits / 8))
            return wrong(fmt::format("its data_offsets [{}, {}] do not hold the {} bytes of its shape {}", begin, end, bits / 8,
                                     shapeText(m_tensor.shape)));
        m_tensor.offset = begin;
        m_tensor.bytes = end - begin;
        header.tensors.push_back(std::move(m_tensor));
        m_level = Level::top;
        return true;
    }

    Level m_level = Level::outside;
    std::string m_name, m_field;
    std::set<std::string> m_names, m_fields;
    StoredTensor m_tensor;
    int m_bits = 0;
    std::vector<std::uint64_t> m_offsets;
};

} // namespace

Result<SafetensorsHeader> parseSafetensors(std::span<const std::byte> bytes)
{
    const std::string again = "fetch the file anew";
    if (bytes.size() < 8)
        return inputError(bytes.empty() ? "is empty" : "is too short for a safetensors file", "byte 0", again);
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data(), sizeof length);
    if (length > kMaxHeader)
        return inputError(fmt::format("names a header of {} bytes; at most {} are possible", length, kMaxHeader), "byte 0",
                          "this is no safetensors file, or it is damaged");
    if (length > bytes.size() - 8)
        return inputError(fmt::format("names a header of {} bytes, but holds {} bytes in all", length, bytes.size()), "byte 0", again);
    const std::string_view text(reinterpret_cast<const char *>(bytes.data() + 8), length);
    if (!text.starts_with('{'))
        return inputError("the header does not begin with '{'", "byte 8", "this is no safetensors file, or it is damaged");
    HeaderReader reader;
    if (!nlohmann::json::sax_parse(text.begin(), text.end(), &reader) || !reader.result.ok())
        return reader.result.ok() ? inputError("the header is not valid JSON", "byte 8", again) : std::move(reader.result.error());
    SafetensorsHeader header = std::move(reader.header);
    std::sort(header.tensors.begin(), header.tensors.end(), [](const StoredTensor &a, const StoredTensor &b) {
        return std::tie(a.offset, a.bytes, a.name) < std::tie(b.offset, b.bytes, b.name);
    });
    const std::uint64_t start = 8 + length, room = bytes.size() - start;
    std::uint64_t next = 0;
    for (StoredTensor &tensor : header.tensors) {
        const std::string where = "tensor " + printableUtf8(tensor.name);
        if (tensor.offset > room || tensor.bytes > room - tensor.offset)
            return inputError(fmt::format("its {} bytes at {} lie outside the {} bytes of data", tensor.bytes, tensor.offset, room), where, again);
        if (tensor.offset != next)
            return inputError(tensor.offset < next ? fmt::format("overlaps the tensor before it by {} bytes", next - tensor.offset)
                                                   : fmt::format("leaves a hole of {} bytes before it", tensor.offset - next),
                              where);
        next += tensor.bytes;
        tensor.offset += start;
    }
    if (next != room)
        return inputError(fmt::format("{} bytes at the end belong to no tensor", room - next), fmt::format("byte {}", start + next));
    return header;
}

} // namespace spectra
