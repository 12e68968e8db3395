// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/checkpoint/storage.h"
#include "engine/core/vocabulary.h"

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace spectra {

/// A metadata value of a GGUF file. Arrays stay where they are in the file and are decoded when asked for.
struct GgufValue {
    enum class Type : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };
    Type type = Type::u32;
    std::uint64_t unsignedValue = 0;     ///< u8 … u64, boolean
    std::int64_t signedValue = 0;        ///< i8 … i64
    double real = 0;                     ///< f32, f64
    std::string_view text;               ///< string
    Type elementType = Type::u32;        ///< array
    std::uint64_t count = 0;             ///< array
    std::span<const std::byte> elements; ///< array

    [[nodiscard]] std::optional<std::int64_t> integer() const;  ///< any integer type, within ±2^63
    [[nodiscard]] std::optional<double> number() const;         ///< any number
    [[nodiscard]] std::optional<bool> flag() const;
    /// Decoded array; nullopt when it is not one of that kind.
    [[nodiscard]] std::optional<std::vector<std::int64_t>> integers() const;
    [[nodiscard]] std::optional<std::vector<float>> numbers() const;
    [[nodiscard]] std::optional<std::vector<std::string>> strings() const;
    /// For a person: the value, or "[49152 × string]".
    [[nodiscard]] std::string printable() const;
};

/// Header of one GGUF file; views point into its bytes.
struct GgufHeader {
    std::uint32_t version = 0;
    std::vector<std::pair<std::string, GgufValue>> values;   ///< in file order
    std::map<std::string, std::size_t, std::less<>> index;
    std::vector<StoredTensor> tensors;

    [[nodiscard]] const GgufValue *find(std::string_view key) const;
};

/// Parses GGUF v2 or v3 (ggml's docs/gguf.md). Every count, length and offset is checked against the bytes at hand before
/// use. Errors (input): not GGUF, big-endian, another version, truncated, a tensor type that we do not read (named),
/// duplicate names, sizes that overflow.
[[nodiscard]] Result<GgufHeader> parseGguf(std::span<const std::byte> bytes);

/// The vocabulary of keys tokenizer.ggml.*; nullopt when there is none. Errors (input): arrays of differing length, a
/// wrong type.
[[nodiscard]] Result<std::optional<GgufVocabulary>> ggufVocabulary(const GgufHeader &header);

/// Name of a ggml tensor type by number, readable or not: "IQ2_XS".
[[nodiscard]] std::string ggmlTypeName(std::uint32_t type);

} // namespace spectra
