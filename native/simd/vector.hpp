// Short vectors of floats and doubles, as wide as the instruction level of this compilation.
//
// They are the compilers' own vector types (GCC, Clang): plain operators, no intrinsics. Plain loops were tried
// first, but compilers only vectorise NaN-keeping maxima and masked sums under -ffast-math, which would break the
// semantics. Where there are no vector types (MSVC) a "vector" is one number and every function still holds.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#if defined(__GNUC__) || defined(__clang__)
#define KULLBACK_INLINE inline __attribute__((always_inline))
#define KULLBACK_LAMBDA __attribute__((always_inline))
#define KULLBACK_HAS_VECTORS 1
#else
#define KULLBACK_INLINE __forceinline
#define KULLBACK_LAMBDA
#define KULLBACK_HAS_VECTORS 0
#endif

namespace kullback {
namespace KULLBACK_LEVEL {

template <class V>
struct traits;
template <class V>
struct is_pair : std::false_type {};  // of two vectors: see pair.hpp

template <>
struct traits<float> {
    using scalar = float;
    using integer = int32_t;
    using mask = bool;
    static constexpr int width = 1;
};
template <>
struct traits<double> {
    using scalar = double;
    using integer = int64_t;
    using mask = bool;
    static constexpr int width = 1;
};

#if KULLBACK_HAS_VECTORS
typedef float VectorF __attribute__((vector_size(KULLBACK_VECTOR_BYTES)));
typedef double VectorD __attribute__((vector_size(KULLBACK_VECTOR_BYTES)));
typedef int32_t VectorI32 __attribute__((vector_size(KULLBACK_VECTOR_BYTES)));
typedef int64_t VectorI64 __attribute__((vector_size(KULLBACK_VECTOR_BYTES)));

template <>
struct traits<VectorF> {
    using scalar = float;
    using integer = VectorI32;
    using mask = decltype(VectorF{} < VectorF{});
    static constexpr int width = KULLBACK_VECTOR_BYTES / 4;
};
template <>
struct traits<VectorD> {
    using scalar = double;
    using integer = VectorI64;
    using mask = decltype(VectorD{} < VectorD{});
    static constexpr int width = KULLBACK_VECTOR_BYTES / 8;
};
#else
using VectorF = float;
using VectorD = double;
#endif

template <class T>
struct vector_of;
template <>
struct vector_of<float> {
    using type = VectorF;
};
template <>
struct vector_of<double> {
    using type = VectorD;
};
template <class T>
using Vector = typename vector_of<T>::type;
template <class V>
using Scalar = typename traits<V>::scalar;
template <class V>
using Mask = typename traits<V>::mask;
template <class T>
constexpr int lanes = traits<Vector<T>>::width;

template <class To, class From>
KULLBACK_INLINE To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From), "same size");
    if constexpr (is_pair<To>::value) {
        using H = decltype(To::a);
        return {bits_as<H>(from.a), bits_as<H>(from.b)};
    } else {
        To to;
        std::memcpy(&to, &from, sizeof to);
        return to;
    }
}

template <class V>
KULLBACK_INLINE V splat(Scalar<V> s) {
    if constexpr (traits<V>::width == 1) {
        return s;
    } else {
        return s - V{};
    }
}

template <class V>
KULLBACK_INLINE V select(Mask<V> condition, V yes, V no) {
    if constexpr (is_pair<V>::value) {
        using H = decltype(V::a);
        return {select<H>(condition.a, yes.a, no.a), select<H>(condition.b, yes.b, no.b)};
    } else {
        return condition ? yes : no;
    }
}

// All bits of `value` where the condition holds, +0 elsewhere.
template <class V>
KULLBACK_INLINE V keep(Mask<V> condition, V value) {
    return select<V>(condition, value, V{});
}

// a > b ? a : b, so a NaN in `a` is passed over and one in `b` is kept. That is what the x86 instruction does, but
// compilers do not always find it.
template <class V>
KULLBACK_INLINE V larger(V a, V b) {
    if constexpr (is_pair<V>::value) {
        using H = decltype(V::a);
        return {larger<H>(a.a, b.a), larger<H>(a.b, b.b)};
    } else {
#if KULLBACK_HAS_VECTORS && defined(__AVX512F__)
    if constexpr (std::is_same_v<V, VectorF> && sizeof(V) == 64) return V(_mm512_max_ps(__m512(a), __m512(b)));
    if constexpr (std::is_same_v<V, VectorD> && sizeof(V) == 64) return V(_mm512_max_pd(__m512d(a), __m512d(b)));
#endif
#if KULLBACK_HAS_VECTORS && defined(__AVX__)
    if constexpr (std::is_same_v<V, VectorF> && sizeof(V) == 32) return V(_mm256_max_ps(__m256(a), __m256(b)));
    if constexpr (std::is_same_v<V, VectorD> && sizeof(V) == 32) return V(_mm256_max_pd(__m256d(a), __m256d(b)));
#elif KULLBACK_HAS_VECTORS && defined(__SSE2__)
    if constexpr (std::is_same_v<V, VectorF>) return V(_mm_max_ps(__m128(a), __m128(b)));
    if constexpr (std::is_same_v<V, VectorD>) return V(_mm_max_pd(__m128d(a), __m128d(b)));
#endif
    return a > b ? a : b;
    }
}

// a < b ? a : b, likewise.
template <class V>
KULLBACK_INLINE V smaller(V a, V b) {
    if constexpr (is_pair<V>::value) {
        using H = decltype(V::a);
        return {smaller<H>(a.a, b.a), smaller<H>(a.b, b.b)};
    } else {
#if KULLBACK_HAS_VECTORS && defined(__AVX512F__)
    if constexpr (std::is_same_v<V, VectorF> && sizeof(V) == 64) return V(_mm512_min_ps(__m512(a), __m512(b)));
    if constexpr (std::is_same_v<V, VectorD> && sizeof(V) == 64) return V(_mm512_min_pd(__m512d(a), __m512d(b)));
#endif
#if KULLBACK_HAS_VECTORS && defined(__AVX__)
    if constexpr (std::is_same_v<V, VectorF> && sizeof(V) == 32) return V(_mm256_min_ps(__m256(a), __m256(b)));
    if constexpr (std::is_same_v<V, VectorD> && sizeof(V) == 32) return V(_mm256_min_pd(__m256d(a), __m256d(b)));
#elif KULLBACK_HAS_VECTORS && defined(__SSE2__)
    if constexpr (std::is_same_v<V, VectorF>) return V(_mm_min_ps(__m128(a), __m128(b)));
    if constexpr (std::is_same_v<V, VectorD>) return V(_mm_min_pd(__m128d(a), __m128d(b)));
#endif
    return a < b ? a : b;
    }
}

template <class V>
KULLBACK_INLINE V absolute(V a) {
    using I = typename traits<V>::integer;
    constexpr auto top_bit = sizeof(Scalar<V>) == 4 ? int64_t(0x7fffffff) : int64_t(0x7fffffffffffffff);
    if constexpr (sizeof(Scalar<V>) == 4) {
        return bits_as<V>(bits_as<I>(a) & int32_t(top_bit));
    } else {
        return bits_as<V>(bits_as<I>(a) & top_bit);
    }
}

// -|a| in one step.
template <class V>
KULLBACK_INLINE V negative_size(V a) {
    using I = typename traits<V>::integer;
    if constexpr (sizeof(Scalar<V>) == 4) {
        return bits_as<V>(bits_as<I>(a) | INT32_MIN);
    } else {
        return bits_as<V>(bits_as<I>(a) | INT64_MIN);
    }
}

template <class V>
KULLBACK_INLINE Scalar<V>& lane(V& v, int i) {
    return reinterpret_cast<Scalar<V>*>(&v)[i];
}
template <class V>
KULLBACK_INLINE Scalar<V> get(const V& v, int i) {
    if constexpr (traits<V>::width == 1) {
        return v;
    } else if constexpr (is_pair<V>::value) {
        constexpr int half = traits<V>::width / 2;
        return i < half ? get(v.a, i) : get(v.b, i - half);
    } else {
        return v[i];
    }
}

// Whether x - n * c below is rounded once. Compilers fuse products and sums as they like, so this asks for it by name.
template <class V>
constexpr bool fuses = false;
#if KULLBACK_HAS_VECTORS && defined(__FMA__)
template <>
inline constexpr bool fuses<float> = true;
template <>
inline constexpr bool fuses<VectorF> = sizeof(VectorF) == 32 || sizeof(VectorF) == 64;
#endif
// Whether there is one instruction that looks up a number of a small table for every lane.
template <class V>
constexpr bool looks_up = std::is_same_v<V, VectorF> && traits<V>::width > 1 && fuses<V>;

template <class V>
KULLBACK_INLINE V minus_product(V x, V n, Scalar<V> c) {
    if constexpr (is_pair<V>::value) {
        using H = decltype(V::a);
        return {minus_product<H>(x.a, n.a, c), minus_product<H>(x.b, n.b, c)};
    } else {
#if KULLBACK_HAS_VECTORS && defined(__FMA__)
        if constexpr (std::is_same_v<V, float>) return __builtin_fmaf(-n, c, x);
        if constexpr (std::is_same_v<V, VectorF> && sizeof(V) == 32) {
            return V(_mm256_fnmadd_ps(__m256(n), _mm256_set1_ps(c), __m256(x)));
        }
#if defined(__AVX512F__)
        if constexpr (std::is_same_v<V, VectorF> && sizeof(V) == 64) {
            return V(_mm512_fnmadd_ps(__m512(n), _mm512_set1_ps(c), __m512(x)));
        }
#endif
#endif
        return x - n * c;
    }
}

// 1 / x within one ulp, for x that is NaN or between 2^-100 and 2^100 in size: no zero, nothing infinite. To divide 64 bytes
// keeps a processor as busy as thirty other steps; an estimate to 14 bits and a step of Newton's method are three.
template <class V>
KULLBACK_INLINE V quick_inverse(V x) {
    if constexpr (is_pair<V>::value) {
        using H = decltype(V::a);
        return {quick_inverse<H>(x.a), quick_inverse<H>(x.b)};
    } else {
#if KULLBACK_HAS_VECTORS && defined(__AVX512F__)
        if constexpr (std::is_same_v<V, VectorF> && sizeof(V) == 64) {
            const __m512 y = _mm512_rcp14_ps(__m512(x));
            return V(_mm512_fmadd_ps(y, _mm512_fnmadd_ps(__m512(x), y, _mm512_set1_ps(1.0f)), y));
        }
#endif
        return Scalar<V>(1) / x;
    }
}

// Square root, correctly rounded.
template <class V>
KULLBACK_INLINE V root(V a) {
    if constexpr (traits<V>::width == 1) {
        return sizeof(V) == 4 ? V(__builtin_sqrtf(float(a))) : V(__builtin_sqrt(double(a)));
    } else if constexpr (is_pair<V>::value) {
        using H = decltype(V::a);
        return {root<H>(a.a), root<H>(a.b)};
    } else {
#if KULLBACK_HAS_VECTORS && defined(__AVX__)
        if constexpr (std::is_same_v<V, VectorF> && sizeof(V) == 32) return V(_mm256_sqrt_ps(__m256(a)));
        if constexpr (std::is_same_v<V, VectorD> && sizeof(V) == 32) return V(_mm256_sqrt_pd(__m256d(a)));
#endif
#if KULLBACK_HAS_VECTORS && defined(__AVX512F__)
        if constexpr (std::is_same_v<V, VectorF> && sizeof(V) == 64) return V(_mm512_sqrt_ps(__m512(a)));
        if constexpr (std::is_same_v<V, VectorD> && sizeof(V) == 64) return V(_mm512_sqrt_pd(__m512d(a)));
#endif
        V out;
        for (int i = 0; i < traits<V>::width; ++i) lane(out, i) = root<Scalar<V>>(get(a, i));
        return out;
    }
}

// 1 / sqrt(x) within two ulp, likewise; 0 at 0.
template <class V>
KULLBACK_INLINE V quick_inverse_root(V x) {
    if constexpr (is_pair<V>::value) {
        using H = decltype(V::a);
        return {quick_inverse_root<H>(x.a), quick_inverse_root<H>(x.b)};
    } else {
#if KULLBACK_HAS_VECTORS && defined(__AVX512F__)
        if constexpr (std::is_same_v<V, VectorF> && sizeof(V) == 64) {
            const __m512 z = __m512(x), half = _mm512_set1_ps(0.5f);
            const __m512 y = _mm512_maskz_rsqrt14_ps(_mm512_cmp_ps_mask(z, _mm512_setzero_ps(), _CMP_NEQ_UQ), z);
            return V(_mm512_mul_ps(_mm512_mul_ps(y, half), _mm512_fnmadd_ps(_mm512_mul_ps(z, y), y, _mm512_set1_ps(3.0f))));
        }
#endif
        return select<V>(x == Scalar<V>(0), V{}, Scalar<V>(1) / root<V>(x));
    }
}
// sqrt(x), likewise.
template <class V>
KULLBACK_INLINE V quick_root(V x) {
    if constexpr (is_pair<V>::value) {
        using H = decltype(V::a);
        return {quick_root<H>(x.a), quick_root<H>(x.b)};
    } else if constexpr (looks_up<V> && sizeof(V) == 64) {
        return x * quick_inverse_root<V>(x);
    } else {
        return root<V>(x);
    }
}

template <class V>
KULLBACK_INLINE V load(const Scalar<V>* p) {
    if constexpr (is_pair<V>::value) {
        using H = decltype(V::a);
        return {load<H>(p), load<H>(p + traits<H>::width)};
    } else {
        V v;
        std::memcpy(&v, p, sizeof v);
        return v;
    }
}
template <class V>
KULLBACK_INLINE void store(Scalar<V>* p, V v) {
    if constexpr (is_pair<V>::value) {
        store(p, v.a);
        store(p + traits<V>::width / 2, v.b);
    } else {
        std::memcpy(p, &v, sizeof v);
    }
}

// The last, incomplete vector of a row.
struct Whole {};
struct Part {
    int count;
#if KULLBACK_HAS_VECTORS && defined(__AVX512F__)
    // A bit for each lane there is. Where processors can leave lanes out, rows that end inside a vector cost nothing more.
    __mmask16 lanes() const { return __mmask16((1u << count) - 1); }
#elif KULLBACK_HAS_VECTORS && defined(__AVX2__)
    // The same as numbers of 32 or 64 bits, all ones or 0.
    template <class Int>
    KULLBACK_INLINE __m256i lanes() const {
        constexpr int width = 32 / int(sizeof(Int));
        alignas(32) static constexpr Int ones_and_zeros[2 * 8] = {-1, -1, -1, -1, width > 4 ? -1 : 0, width > 4 ? -1 : 0,
                                                                  width > 4 ? -1 : 0, width > 4 ? -1 : 0};
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(ones_and_zeros + width - count));
    }
#endif
};
template <class V>
KULLBACK_INLINE V load(const Scalar<V>* p, Whole, Scalar<V>) {
    return load<V>(p);
}
template <class V>
KULLBACK_INLINE V load(const Scalar<V>* p, Part part, Scalar<V> fill) {
#if KULLBACK_HAS_VECTORS && defined(__AVX512F__)
    if constexpr (std::is_same_v<V, VectorF> && sizeof(V) == 64) {
        return V(_mm512_mask_loadu_ps(_mm512_set1_ps(fill), part.lanes(), p));
    }
    if constexpr (std::is_same_v<V, VectorD> && sizeof(V) == 64) {
        return V(_mm512_mask_loadu_pd(_mm512_set1_pd(fill), __mmask8(part.lanes()), p));
    }
#elif KULLBACK_HAS_VECTORS && defined(__AVX2__)
    if constexpr (std::is_same_v<V, VectorF> && sizeof(V) == 32) {
        const __m256i there = part.lanes<int32_t>();
        return V(_mm256_blendv_ps(_mm256_set1_ps(fill), _mm256_maskload_ps(p, there), _mm256_castsi256_ps(there)));
    }
    if constexpr (std::is_same_v<V, VectorD> && sizeof(V) == 32) {
        const __m256i there = part.lanes<int64_t>();
        return V(_mm256_blendv_pd(_mm256_set1_pd(fill), _mm256_maskload_pd(p, there), _mm256_castsi256_pd(there)));
    }
#endif
    Scalar<V> buffer[traits<V>::width];
    for (int i = 0; i < traits<V>::width; ++i) buffer[i] = fill;
    for (int i = 0; i < part.count; ++i) buffer[i] = p[i];
    return load<V>(buffer);
}
template <class V>
KULLBACK_INLINE void store(Scalar<V>* p, Whole, V v) {
    store<V>(p, v);
}
template <class V>
KULLBACK_INLINE void store(Scalar<V>* p, Part part, V v) {
#if KULLBACK_HAS_VECTORS && defined(__AVX512F__)
    if constexpr (std::is_same_v<V, VectorF> && sizeof(V) == 64) {
        return _mm512_mask_storeu_ps(p, part.lanes(), __m512(v));
    }
    if constexpr (std::is_same_v<V, VectorD> && sizeof(V) == 64) {
        return _mm512_mask_storeu_pd(p, __mmask8(part.lanes()), __m512d(v));
    }
#elif KULLBACK_HAS_VECTORS && defined(__AVX2__)
    if constexpr (std::is_same_v<V, VectorF> && sizeof(V) == 32) {
        return _mm256_maskstore_ps(p, part.lanes<int32_t>(), __m256(v));
    }
    if constexpr (std::is_same_v<V, VectorD> && sizeof(V) == 32) {
        return _mm256_maskstore_pd(p, part.lanes<int64_t>(), __m256d(v));
    }
#endif
    Scalar<V> buffer[traits<V>::width];
    store<V>(buffer, v);
    for (int i = 0; i < part.count; ++i) p[i] = buffer[i];
}

// Asks for a cache line, for the nearest cache (3) or for one further away; any address is allowed.
template <int nearness = 3>
KULLBACK_INLINE void prefetch(const void* address) {
#if KULLBACK_HAS_VECTORS
    __builtin_prefetch(address, 0, nearness);
#else
    (void)address;
#endif
}

// Calls body(k, Whole{}) for every full vector of [begin, end) and body(k, Part{n}) for what is left.
template <class T, class Body>
KULLBACK_INLINE void along(int64_t begin, int64_t end, Body body) {
    constexpr int W = lanes<T>;
    int64_t k = begin;
    for (; k + W <= end; k += W) body(k, Whole{});
    if (W > 1 && k < end) body(k, Part{int(end - k)});
}

// Lanes are always added in the same order, so a result does not depend on who asks for it.
template <class V>
KULLBACK_INLINE double sum_lanes(V v) {
#if KULLBACK_HAS_VECTORS && defined(__AVX512F__)
    if constexpr (std::is_same_v<V, VectorF> && sizeof(V) == 64) {
        const __m256 low = _mm512_castps512_ps256(__m512(v));
        const __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(__m512(v)), 1));
        return _mm512_reduce_add_pd(_mm512_add_pd(_mm512_cvtps_pd(low), _mm512_cvtps_pd(high)));
    }
    if constexpr (std::is_same_v<V, VectorD> && sizeof(V) == 64) return _mm512_reduce_add_pd(__m512d(v));
#endif
    double total = 0;
    for (int i = 0; i < traits<V>::width; ++i) total += double(get(v, i));
    return total;
}
template <class V>
KULLBACK_INLINE Scalar<V> largest_lane(V v) {
#if KULLBACK_HAS_VECTORS && defined(__AVX512F__)
    if constexpr (std::is_same_v<V, VectorF> && sizeof(V) == 64) return _mm512_reduce_max_ps(__m512(v));
    if constexpr (std::is_same_v<V, VectorD> && sizeof(V) == 64) return _mm512_reduce_max_pd(__m512d(v));
#endif
    Scalar<V> top = get(v, 0);
    for (int i = 1; i < traits<V>::width; ++i) top = get(v, i) > top ? get(v, i) : top;
    return top;
}
template <class V>
KULLBACK_INLINE bool any_lane(V zero_or_not) {
    if constexpr (is_pair<V>::value) {
        using H = decltype(V::a);
        return any_lane<H>(zero_or_not.a) || any_lane<H>(zero_or_not.b);
    } else {
#if KULLBACK_HAS_VECTORS && defined(__AVX__)
    // compilers look at one lane after the other
    if constexpr (std::is_same_v<V, VectorF> && sizeof(V) == 32) {
        return _mm256_movemask_ps(_mm256_cmp_ps(__m256(zero_or_not), _mm256_setzero_ps(), _CMP_NEQ_UQ)) != 0;
    }
    if constexpr (std::is_same_v<V, VectorD> && sizeof(V) == 32) {
        return _mm256_movemask_pd(_mm256_cmp_pd(__m256d(zero_or_not), _mm256_setzero_pd(), _CMP_NEQ_UQ)) != 0;
    }
#endif
#if KULLBACK_HAS_VECTORS && defined(__AVX512F__)
    if constexpr (std::is_same_v<V, VectorF> && sizeof(V) == 64) {
        return _mm512_cmp_ps_mask(__m512(zero_or_not), _mm512_setzero_ps(), _CMP_NEQ_UQ) != 0;
    }
    if constexpr (std::is_same_v<V, VectorD> && sizeof(V) == 64) {
        return _mm512_cmp_pd_mask(__m512d(zero_or_not), _mm512_setzero_pd(), _CMP_NEQ_UQ) != 0;
    }
#endif
    bool any = false;
    for (int i = 0; i < traits<V>::width; ++i) any |= get(zero_or_not, i) != 0;
    return any;
    }
}

template <class T>
constexpr T infinity = T(__builtin_huge_val());

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
