// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/checkpoint/storage.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace spectra {

std::string_view dtypeName(DType type)
{
    switch (type) {
    case DType::f32: return "F32";
    case DType::f16: return "F16";
    case DType::bf16: return "BF16";
    case DType::f64: return "F64";
    case DType::i8: return "I8";
    case DType::i16: return "I16";
    case DType::i32: return "I32";
    case DType::i64: return "I64";
    case DType::u8: return "U8";
    case DType::u16: return "U16";
    case DType::u32: return "U32";
    case DType::u64: return "U64";
    case DType::boolean: return "BOOL";
    case DType::q4_0: return "Q4_0";
    case DType::q4_1: return "Q4_1";
    case DType::q5_0: return "Q5_0";
    case DType::q5_1: return "Q5_1";
    case DType::q8_0: return "Q8_0";
    case DType::q4_k: return "Q4_K";
    case DType::q5_k: return "Q5_K";
    case DType::q6_k: return "Q6_K";
    }
    return "?";
}

BlockSize blockSize(DType type)
{
    switch (type) {
    case DType::boolean:
    case DType::i8:
    case DType::u8: return {1, 1};
    case DType::f16:
    case DType::bf16:
    case DType::i16:
    case DType::u16: return {1, 2};
    case DType::f32:
    case DType::i32:
    case DType::u32: return {1, 4};
    case DType::f64:
    case DType::i64:
    case DType::u64: return {1, 8};
    case DType::q4_0: return {32, 18};
    case DType::q4_1: return {32, 20};
    case DType::q5_0: return {32, 22};
    case DType::q5_1: return {32, 24};
    case DType::q8_0: return {32, 34};
    case DType::q4_k: return {256, 144};
    case DType::q5_k: return {256, 176};
    case DType::q6_k: return {256, 210};
    }
    return {1, 0};
}

bool shapeProduct(std::span<const std::int64_t> shape, std::int64_t &product)
{
    product = 1;
    for (const std::int64_t d : shape)
        if (d < 0 || __builtin_mul_overflow(product, d, &product) || product > (std::int64_t(1) << 62))
            return false;
    return true;
}

std::string shapeText(std::span<const std::int64_t> shape)
{
    return fmt::format("[{}]", fmt::join(shape, ", "));
}

} // namespace spectra
