// bfloat16 rows to float32 and back: the upper half of a float32, rounded to nearest even on the way back.
#pragma once

#include <cstdint>

#include "simd/vector.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

inline void widen_bfloat16(const uint16_t* from, int64_t stride, int64_t n, float* to) {
    if (stride == 1) {
        for (int64_t k = 0; k < n; ++k) to[k] = bits_as<float>(uint32_t(from[k]) << 16);
    } else {
        for (int64_t k = 0; k < n; ++k) to[k] = bits_as<float>(uint32_t(from[k * stride]) << 16);
    }
}

// Adding half a unit of the last place kept, less one for even results, rounds everything but NaN, whose payload it
// could carry into infinity. NaNs are looked for a piece at a time and mended afterwards: they are rare, and choosing
// in the loop doubles its cost.
inline void narrow_bfloat16(const float* from, int64_t n, uint16_t* to) {
    constexpr int64_t piece = 1024;
    constexpr uint32_t magnitude = 0x7fffffffu, infinite = 0x7f800000u;
    for (int64_t begin = 0; begin < n; begin += piece) {
        const int64_t count = n - begin < piece ? n - begin : piece;
        const float* x = from + begin;
        uint16_t* y = to + begin;
        uint32_t largest = 0;
        for (int64_t k = 0; k < count; ++k) {
            const uint32_t bits = bits_as<uint32_t>(x[k]);
            const uint32_t size = bits & magnitude;
            largest = size > largest ? size : largest;
            y[k] = uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
        }
        if (largest <= infinite) continue;
        for (int64_t k = 0; k < count; ++k) {
            const uint32_t bits = bits_as<uint32_t>(x[k]);
            if ((bits & magnitude) > infinite) y[k] = uint16_t((bits >> 16) | 0x40u);
        }
    }
}

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
