// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/checkpoint/gguf.h"

#include "engine/core/files.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <set>
#include <tuple>

namespace spectra {
namespace {

using Type = GgufValue::Type;
constexpr std::uint64_t kMaxKey = 65535;
constexpr int kMaxDims = 4;

/// Width of a fixed-size metadata type; 0 for strings and arrays.
constexpr std::uint64_t widthOf(Type type)
{
    switch (type) {
    case Type::u8:
    case Type::i8:
    case Type::boolean: return 1;
    case Type::u16:
    case Type::i16: return 2;
    case Type::u32:
    case Type::i32:
    case Type::f32: return 4;
    case Type::u64:
    case Type::i64:
    case Type::f64: return 8;
    case Type::string:
    case Type::array: break;
    }
    return 0;
}

/// A place in the bytes that never reads past their end: a short read sets `failed` and yields zeros.
class Cursor {
public:
    explicit Cursor(std::span<const std::byte> bytes) : m_bytes(bytes) {}

    [[nodiscard]] std::uint64_t position() const { return m_at; }
    [[nodiscard]] std::uint64_t remaining() const { return m_bytes.size() - m_at; }
    [[nodiscard]] bool failed() const { return m_failed; }

    template <typename T> T read()
    {
        T value{};
        if (remaining() < sizeof(T)) {
            m_failed = true;
            return value;
        }
        std::memcpy(&value, m_bytes.data() + m_at, sizeof value);
        m_at += sizeof value;
        return value;
    }
    std::span<const std::byte> take(std::uint64_t n)
    {
        if (m_failed || n > remaining()) {
            m_failed = true;
            return {};
        }
        const auto out = m_bytes.subspan(m_at, n);
        m_at += n;
        return out;
    }
    std::string_view string(std::uint64_t limit = std::numeric_limits<std::uint64_t>::max())
    {
        const auto n = read<std::uint64_t>();
        if (n > limit)
            m_failed = true;
        const auto bytes = take(n);
        return {reinterpret_cast<const char *>(bytes.data()), bytes.size()};
    }

private:
    std::span<const std::byte> m_bytes;
    std::uint64_t m_at = 0;
    bool m_failed = false;
};

void readScalar(Cursor &c, Type type, GgufValue &v)
{
    switch (type) {
    case Type::u8: v.unsignedValue = c.read<std::uint8_t>(); break;
    case Type::boolean: v.unsignedValue = c.read<std::uint8_t>() != 0 ? 1 : 0; break;
    case Type::i8: v.signedValue = c.read<std::int8_t>(); break;
    case Type::u16: v.unsignedValue = c.read<std::uint16_t>(); break;
    case Type::i16: v.signedValue = c.read<std::int16_t>(); break;
    case Type::u32: v.unsignedValue = c.read<std::uint32_t>(); break;
    case Type::i32: v.signedValue = c.read<std::int32_t>(); break;
    case Type::f32: v.real = c.read<float>(); break;
    case Type::u64: v.unsignedValue = c.read<std::uint64_t>(); break;
    case Type::i64: v.signedValue = c.read<std::int64_t>(); break;
    case Type::f64: v.real = c.read<double>(); break;
    case Type::string: v.text = c.string(); break;
    case Type::array: break;
    }
    v.type = type;
}

Result<GgufValue> readValue(Cursor &c, std::uint32_t rawType)
{
    if (rawType > static_cast<std::uint32_t>(Type::f64))
        return inputError(fmt::format("metadata type {} does not exist", rawType));
    const auto type = static_cast<Type>(rawType);
    GgufValue value;
    if (type != Type::array) {
        readScalar(c, type, value);
        return value;
    }
    value.type = Type::array;
    const auto element = c.read<std::uint32_t>();
    value.count = c.read<std::uint64_t>();
    if (c.failed() || element > static_cast<std::uint32_t>(Type::f64) || element == static_cast<std::uint32_t>(Type::array))
        return inputError("an array of an unknown or nested element type");
    value.elementType = static_cast<Type>(element);
    // Each element takes at least this many bytes, so a count beyond the file is found before anything is walked.
    const std::uint64_t least = value.elementType == Type::string ? 8 : widthOf(value.elementType);
    if (value.count > c.remaining() / least)
        return inputError(fmt::format("an array of {} elements does not fit in the file", value.count));
    if (value.elementType != Type::string) {
        value.elements = c.take(value.count * least);
        return value;
    }
    Cursor walk = c;
    for (std::uint64_t i = 0; i < value.count && !walk.failed(); ++i)
        (void)walk.string();
    if (walk.failed())
        return inputError("an array of strings runs past the end of the file");
    value.elements = c.take(walk.position() - c.position());
    return value;
}

struct GgmlType {
    const char *name;
    int dtype; ///< DType, or -1: not read
};
constexpr int as(DType type) { return static_cast<int>(type); }
/// By ggml's type number; removed numbers have no name.
constexpr std::array<GgmlType, 40> kTypes = {{
    {"F32", as(DType::f32)}, {"F16", as(DType::f16)}, {"Q4_0", as(DType::q4_0)}, {"Q4_1", as(DType::q4_1)},
    {"Q4_2", -1}, {"Q4_3", -1}, {"Q5_0", as(DType::q5_0)}, {"Q5_1", as(DType::q5_1)}, {"Q8_0", as(DType::q8_0)},
    {"Q8_1", -1}, {"Q2_K", -1}, {"Q3_K", -1}, {"Q4_K", as(DType::q4_k)}, {"Q5_K", as(DType::q5_k)}, {"Q6_K", as(DType::q6_k)},
    {"Q8_K", -1}, {"IQ2_XXS", -1}, {"IQ2_XS", -1}, {"IQ3_XXS", -1}, {"IQ1_S", -1}, {"IQ4_NL", -1}, {"IQ3_S", -1},
    {"IQ2_S", -1}, {"IQ4_XS", -1}, {"I8", as(DType::i8)}, {"I16", as(DType::i16)}, {"I32", as(DType::i32)},
    {"I64", as(DType::i64)}, {"F64", as(DType::f64)}, {"IQ1_M", -1}, {"BF16", as(DType::bf16)}, {"Q4_0_4_4", -1},
    {"Q4_0_4_8", -1}, {"Q4_0_8_8", -1}, {"TQ1_0", -1}, {"TQ2_0", -1}, {"IQ4_NL_4_4", -1}, {"IQ4_NL_4_8", -1},
    {"IQ4_NL_8_8", -1}, {"MXFP4", -1},
}};

/// Reads one tensor description; `offset` stays relative to the data section.
Result<StoredTensor> readTensor(Cursor &c)
{
    StoredTensor tensor;
    tensor.name = std::string(c.string(kMaxKey));
    const auto dims = c.read<std::uint32_t>();
    if (c.failed())
        return inputError("the list of tensors is cut off");
    if (tensor.name.empty())
        return inputError("a tensor has no name", fmt::format("byte {}", c.position()));
    const std::string where = "tensor " + printableUtf8(tensor.name);
    if (dims > kMaxDims)
        return inputError(fmt::format("has {} dimensions; at most {} are possible", dims, kMaxDims), where);
    for (std::uint32_t d = 0; d < dims; ++d) {
        const auto size = c.read<std::uint64_t>();
        if (size > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
            return inputError(fmt::format("has an axis of {} elements", size), where);
        tensor.shape.insert(tensor.shape.begin(), static_cast<std::int64_t>(size));
    }
    const auto type = c.read<std::uint32_t>();
    tensor.offset = c.read<std::uint64_t>();
    if (c.failed())
        return inputError("the list of tensors is cut off", where);
    if (type >= kTypes.size() || kTypes[type].dtype < 0)
        return inputError(fmt::format("is stored as {}, which is not supported", ggmlTypeName(type)), where,
                          "use a file in F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K or Q6_K");
    tensor.dtype = static_cast<DType>(kTypes[type].dtype);
    const BlockSize block = blockSize(tensor.dtype);
    std::int64_t elements = 0, bytes = 0;
    const std::int64_t row = tensor.shape.empty() ? 1 : tensor.shape.back();
    if (!shapeProduct(tensor.shape, elements) || __builtin_mul_overflow(elements / block.elements, block.bytes, &bytes))
        return inputError("has more elements than can be counted: " + shapeText(tensor.shape), where);
    if (row % block.elements != 0)
        return inputError(fmt::format("has rows of {} elements, which {} cannot store", row, dtypeName(tensor.dtype)), where);
    tensor.bytes = static_cast<std::uint64_t>(bytes);
    return tensor;
}

} // namespace

std::string ggmlTypeName(std::uint32_t type)
{
    return type < kTypes.size() ? kTypes[type].name : fmt::format("type {}", type);
}

const GgufValue *GgufHeader::find(std::string_view key) const
{
    const auto it = index.find(key);
    return it == index.end() ? nullptr : &values[it->second].second;
}

std::optional<std::int64_t> GgufValue::integer() const
{
    switch (type) {
    case Type::u8:
    case Type::u16:
    case Type::u32:
    case Type::u64:
        if (unsignedValue > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
            return std::nullopt;
        return static_cast<std::int64_t>(unsignedValue);
    case Type::i8:
    case Type::i16:
    case Type::i32:
    case Type::i64: return signedValue;
    default: return std::nullopt;
    }
}

std::optional<double> GgufValue::number() const
{
    if (type == Type::f32 || type == Type::f64)
        return real;
    if (const auto i = integer())
        return static_cast<double>(*i);
    return std::nullopt;
}

std::optional<bool> GgufValue::flag() const
{
    return type == Type::boolean ? std::optional<bool>(unsignedValue != 0) : std::nullopt;
}

std::optional<std::vector<std::int64_t>> GgufValue::integers() const
{
    if (type != Type::array)
        return std::nullopt;
    std::vector<std::int64_t> out;
    out.reserve(count);
    Cursor c(elements);
    for (std::uint64_t i = 0; i < count; ++i) {
        GgufValue v;
        readScalar(c, elementType, v);
        const auto n = v.type == Type::boolean ? std::optional<std::int64_t>(v.unsignedValue) : v.integer();
        if (!n)
            return std::nullopt;
        out.push_back(*n);
    }
    return out;
}

std::optional<std::vector<float>> GgufValue::numbers() const
{
    if (type != Type::array || elementType == Type::string)
        return std::nullopt;
    std::vector<float> out;
    out.reserve(count);
    Cursor c(elements);
    for (std::uint64_t i = 0; i < count; ++i) {
        GgufValue v;
        readScalar(c, elementType, v);
        const auto n = v.number();
        if (!n)
            return std::nullopt;
        out.push_back(static_cast<float>(*n));
    }
    return out;
}

std::optional<std::vector<std::string>> GgufValue::strings() const
{
    if (type != Type::array || elementType != Type::string)
        return std::nullopt;
    std::vector<std::string> out;
    out.reserve(count);
    Cursor c(elements);
    for (std::uint64_t i = 0; i < count; ++i)
        out.emplace_back(c.string());
    return out;
}

std::string GgufValue::printable() const
{
    static constexpr std::array<const char *, 13> names = {"u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"};
    switch (type) {
    case Type::boolean: return unsignedValue != 0 ? "true" : "false";
    case Type::u8:
    case Type::u16:
    case Type::u32:
    case Type::u64: return fmt::format("{}", unsignedValue);
    case Type::i8:
    case Type::i16:
    case Type::i32:
    case Type::i64: return fmt::format("{}", signedValue);
    case Type::f32: return fmt::format("{}", static_cast<float>(real));
    case Type::f64: return fmt::format("{}", real);
    case Type::string: {
        std::string_view head = text.substr(0, 4000);
        return printableUtf8(head) + (head.size() < text.size() ? " …" : "");
    }
    case Type::array: break;
    }
    return fmt::format("[{} × {}]", count, names[static_cast<std::size_t>(elementType)]);
}

Result<GgufHeader> parseGguf(std::span<const std::byte> bytes)
{
    Cursor c(bytes);
    const auto magic = c.take(4);
    if (magic.empty() || std::memcmp(magic.data(), "GGUF", 4) != 0)
        return inputError(bytes.empty() ? "is empty" : "is not a GGUF file: it does not begin with \"GGUF\"", "byte 0");
    GgufHeader header;
    header.version = c.read<std::uint32_t>();
    if (header.version == 0x02000000u || header.version == 0x03000000u || header.version == 0x01000000u)
        return inputError("is a big-endian GGUF file, which is not supported", "byte 4", "convert it to little-endian");
    const auto tensorCount = c.read<std::uint64_t>();
    const auto valueCount = c.read<std::uint64_t>();
    if (c.failed())
        return inputError("is cut off inside the GGUF header", fmt::format("byte {}", c.position()), "fetch the file anew");
    if (header.version != 2 && header.version != 3)
        return inputError(fmt::format("is GGUF version {}; versions 2 and 3 are supported", header.version), "byte 4");
    // A key needs at least 8 + 4 + 1 bytes, a tensor 8 + 4 + 4 + 8.
    if (valueCount > c.remaining() / 13)
        return inputError(fmt::format("says that it holds {} metadata keys, more than fit in the file", valueCount), "byte 16");
    if (tensorCount > c.remaining() / 24)
        return inputError(fmt::format("says that it holds {} tensors, more than fit in the file", tensorCount), "byte 8");
    if (valueCount > kMaxTensors || tensorCount > kMaxTensors)
        return inputError(fmt::format("holds {} keys and {} tensors; at most {} of each are accepted", valueCount, tensorCount, kMaxTensors), "byte 8");
    for (std::uint64_t i = 0; i < valueCount; ++i) {
        const std::uint64_t at = c.position();
        std::string key(c.string(kMaxKey));
        const auto type = c.read<std::uint32_t>();
        if (c.failed())
            return inputError("is cut off in the metadata, or a key's length is wrong", fmt::format("byte {}", at), "fetch the file anew");
        auto value = readValue(c, type);
        if (value.ok() && c.failed())
            value = inputError("is cut off in the metadata, or a length is wrong");
        if (!value.ok())
            return std::move(value.error().in(fmt::format("byte {}: key {}", at, printableUtf8(key.substr(0, 200)))));
        if (!header.index.emplace(key, header.values.size()).second)
            return inputError("the key occurs twice", "key " + printableUtf8(key.substr(0, 200)));
        header.values.emplace_back(std::move(key), std::move(*value));
    }
    std::uint64_t alignment = 32;
    if (const GgufValue *v = header.find("general.alignment")) {
        const auto a = v->integer();
        if (!a || *a < 1 || *a > (1 << 20) || !std::has_single_bit(static_cast<std::uint64_t>(*a)))
            return inputError("must be a power of two of at most 1048576", "key general.alignment");
        alignment = static_cast<std::uint64_t>(*a);
    }
    std::set<std::string, std::less<>> names;
    for (std::uint64_t i = 0; i < tensorCount; ++i) {
        SPECTRA_TRY(StoredTensor tensor, readTensor(c));
        if (!names.insert(tensor.name).second)
            return inputError("occurs twice", "tensor " + printableUtf8(tensor.name));
        header.tensors.push_back(std::move(tensor));
    }
    const std::uint64_t start = (c.position() + alignment - 1) / alignment * alignment;
    for (StoredTensor &tensor : header.tensors) {
        const std::string where = "tensor " + printableUtf8(tensor.name);
        if (tensor.offset % alignment != 0)
            return inputError(fmt::format("begins at {}, which is not a multiple of {}", tensor.offset, alignment), where);
        if (start > bytes.size() || tensor.offset > bytes.size() - start || tensor.bytes > bytes.size() - start - tensor.offset)
            return inputError(fmt::format("its {} bytes at {} lie outside the file of {} bytes", tensor.bytes, tensor.offset, bytes.size()),
                              where, "the file is cut off or damaged: fetch it anew");
        tensor.offset += start;
    }
    std::vector<const StoredTensor *> order;
    for (const StoredTensor &tensor : header.tensors)
        order.push_back(&tensor);
    std::sort(order.begin(), order.end(), [](const auto *a, const auto *b) { return std::tie(a->offset, a->bytes) < std::tie(b->offset, b->bytes); });
    for (std::size_t i = 1; i < order.size(); ++i)
        if (order[i]->offset < order[i - 1]->offset + order[i - 1]->bytes)
            return inputError("overlaps tensor " + printableUtf8(order[i - 1]->name), "tensor " + printableUtf8(order[i]->name));
    return header;
}

Result<std::optional<GgufVocabulary>> ggufVocabulary(const GgufHeader &header)
{
    const GgufValue *model = header.find("tokenizer.ggml.model");
    const GgufValue *tokens = header.find("tokenizer.ggml.tokens");
    if (model == nullptr || tokens == nullptr)
        return std::optional<GgufVocabulary>();
    GgufVocabulary v;
    v.model = std::string(model->text);
    const auto wrong = [](const char *key) { return inputError("has the wrong type", std::string("key tokenizer.ggml.") + key); };
    auto texts = tokens->strings();
    if (!texts)
        return wrong("tokens");
    v.tokens = std::move(*texts);
    if (const GgufValue *x = header.find("tokenizer.ggml.pre"))
        v.pre = std::string(x->text);
    if (const GgufValue *x = header.find("tokenizer.ggml.token_type")) {
        const auto types = x->integers();
        if (!types)
            return wrong("token_type");
        v.types.assign(types->begin(), types->end());
    }
    if (const GgufValue *x = header.find("tokenizer.ggml.scores")) {
        auto scores = x->numbers();
        if (!scores)
            return wrong("scores");
        v.scores = std::move(*scores);
    }
    if (const GgufValue *x = header.find("tokenizer.ggml.merges")) {
        auto merges = x->strings();
        if (!merges)
            return wrong("merges");
        v.merges = std::move(*merges);
    }
    if ((!v.types.empty() && v.types.size() != v.tokens.size()) || (!v.scores.empty() && v.scores.size() != v.tokens.size()))
        return inputError(fmt::format("{} tokens, {} types and {} scores do not belong together", v.tokens.size(), v.types.size(),
                                      v.scores.size()),
                          "keys tokenizer.ggml.*");
    const auto id = [&](const char *key, std::int64_t &out) -> Result<void> {
        const GgufValue *x = header.find(std::string("tokenizer.ggml.") + key);
        if (x == nullptr)
            return {};
        const auto n = x->integer();
        if (!n)
            return wrong(key);
        // 2^32 − 1 is how some converters write "none".
        out = *n >= 0 && *n < static_cast<std::int64_t>(v.tokens.size()) ? *n : -1;
        return {};
    };
    SPECTRA_CHECK(id("bos_token_id", v.bos));
    SPECTRA_CHECK(id("eos_token_id", v.eos));
    SPECTRA_CHECK(id("eot_token_id", v.eot));
    SPECTRA_CHECK(id("unknown_token_id", v.unknown));
    SPECTRA_CHECK(id("padding_token_id", v.padding));
    const auto flag = [&](const char *key, int &out) {
        const GgufValue *x = header.find(std::string("tokenizer.ggml.") + key);
        if (x != nullptr && x->flag())
            out = *x->flag() ? 1 : 0;
    };
    flag("add_bos_token", v.addBos);
    flag("add_eos_token", v.addEos);
    flag("add_space_prefix", v.addSpacePrefix);
    if (const GgufValue *x = header.find("tokenizer.chat_template"))
        v.chatTemplate = std::string(x->text);
    return std::optional<GgufVocabulary>(std::move(v));
}

} // namespace spectra
