// A logarithm in two parts, 2 atanh(s) and the rest, that are cheap by themselves: its argument is reduced and divided
// where other work goes on beside it, and the series, short in s^2, comes later.
#pragma once

#include "simd/elementary.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

// log(x) for normal numbers x taken apart: log(1 + f) + k log 2 with f in [-1/3, 1/2]. Of no use for NaN.
template <class V>
struct LogParts {
    V f, k;
};
template <class V>
KULLBACK_INLINE LogParts<V> log_parts(V x) {
    using T = Scalar<V>;
    using K = Constants<T>;
    using I = typename traits<V>::integer;
    using Int = typename K::Int;
    if constexpr (is_pair<V>::value) {
        using H = decltype(V::a);
        const LogParts<H> a = log_parts<H>(x.a), b = log_parts<H>(x.b);
        return {{a.f, b.f}, {a.k, b.k}};
    } else {
#if KULLBACK_HAS_VECTORS && defined(__AVX512F__)
        if constexpr (std::is_same_v<V, VectorF> && sizeof(V) == 64) {
            // x times 4/3, rounded, reaches the next power of two where the mantissa's interval ends
            const V k = V(_mm512_getexp_ps(__m512(x * 0x1.555556p0f)));
            return {V(_mm512_getmant_ps(__m512(x), _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_src)) - T(1), k};
        }
#endif
        const I raised = bits_as<I>(x) + (Int((K::bias - 1) << K::mantissa_bits) - K::sqrt_half);
        const I exponent = (raised >> K::mantissa_bits) - (K::bias - 1);
        const V m = bits_as<V>((raised & ((Int(1) << K::mantissa_bits) - 1)) + K::sqrt_half);
        if constexpr (traits<V>::width == 1) {
            return {m - T(1), T(exponent)};
        } else {
            return {m - T(1), bits_as<V>(exponent + bits_as<Int>(K::round_magic)) - K::round_magic};
        }
    }
}

// 2 atanh(s), which is log((1 + s) / (1 - s)), on |s| <= 1/3, NaN included; with s = x / (x + 2) it is log(1 + x).
template <class V>
KULLBACK_INLINE V twice_atanh(V s) {
    const V z = s * s;
    V q;
    if constexpr (sizeof(Scalar<V>) == 4) {
        q = ((z * 0x1.12f598p-2f + 0x1.21249ap-2f) * z + 0x1.99ad6cp-2f) * z + 0x1.55554cp-1f;
    } else {
        const V z2 = z * z, z4 = z2 * z2;
        const V a = z * 0x1.4b0a26c5f2aefp-3 + 0x1.687a6e7c95176p-4;
        const V b = z * 0x1.eb905e8575054p-4 + 0x1.10ac75dc602b1p-3;
        const V c = z * 0x1.3b18b294bebf9p-3 + 0x1.745cf0b0e03bdp-3;
        const V d = z * 0x1.c71c727143318p-3 + 0x1.24924923d44c6p-2;
        const V e = z * 0x1.999999999a3ddp-2 + 0x1.5555555555555p-1;
        q = (a * z4 + (b * z2 + c)) * z4 + (d * z2 + e);
    }
    return (s * z) * q + (s + s);
}

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
