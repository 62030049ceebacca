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

inline void narrow_bfloat16(const float* from, int64_t n, uint16_t* to) {
    for (int64_t k = 0; k < n; ++k) {
        const uint32_t bits = bits_as<uint32_t>(from[k]);
        const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
        // rounding could carry a NaN's payload into infinity; the quiet bit keeps it a NaN
        const uint32_t quiet = (bits >> 16) | 0x40u;
        to[k] = uint16_t((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
    }
}

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
