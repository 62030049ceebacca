// exp for arguments <= 0 and logarithms, within 2 ulp over the whole range, subnormal numbers included.
//
// The softmax and the sigmoid only ever need exp of something non-positive (a logit minus its row's largest, or
// -|z|), which spares the overflow half of the range. Polynomials interpolate at Chebyshev nodes; coefficients were
// computed in 60-digit arithmetic for exactly the reduced ranges used here.
#pragma once

#include <type_traits>

#include "simd/vector.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

template <class T>
struct Constants;

template <>
struct Constants<float> {
    using Int = int32_t;
    static constexpr int mantissa_bits = 23;
    static constexpr Int bias = 127;
    static constexpr float exp_floor = -0x1.b8d774p+6f;  // -(lift + bias) log 2, where the scale below becomes 0
    static constexpr Int lift = 32;              // keeps 2^(n + lift) normal for every n that occurs
    static constexpr float unlift = 0x1p-32f;
    static constexpr float round_magic = 0x1.8p23f;
    static constexpr float log2_e = 0x1.715476p+0f;
    static constexpr float ln2_high = 0x1.62e8p-1f, ln2_low = -0x1.e8082ep-16f;
    static constexpr float ln2 = 0x1.62e430p-1f, ln2_rest = -0x1.05c610p-29f;
    static constexpr Int sqrt_half = 0x3f3504f3;
    static constexpr float least_normal = 0x1p-126f, log_least_normal = -0x1.5d589ep+6f;
};

template <>
struct Constants<double> {
    using Int = int64_t;
    static constexpr int mantissa_bits = 52;
    static constexpr Int bias = 1023;
    static constexpr double exp_floor = -0x1.78b9b9e2a1effp+9;
    static constexpr Int lift = 64;
    static constexpr double unlift = 0x1p-64;
    static constexpr double round_magic = 0x1.8p52;
    static constexpr double log2_e = 0x1.71547652b82fep+0;
    static constexpr double ln2_high = 0x1.62e42fefa4p-1, ln2_low = -0x1.8432a1b0e2634p-43;
    static constexpr Int sqrt_half = 0x3fe6a09e667f3bcd;
    static constexpr double least_normal = 0x1p-1022, log_least_normal = -0x1.6232bdd7abcd2p+9;
};

// (exp(r) - 1 - r) / r^2 on |r| <= log(2)/2; the relative error of exp(r) is 8e-9 and 1.3e-17 before rounding. Evaluated
// by halves (Estrin): the chain of operations that wait for each other is what limits the speed.
template <class V>
KULLBACK_INLINE V exp_remainder(V r, V r2) {
    if constexpr (sizeof(Scalar<V>) == 4) {
        const V high = r * 0x1.120b6ep-7f + 0x1.55551ap-5f;
        const V low = r * 0x1.5554dcp-3f + 0x1p-1f;
        return (r2 * 0x1.6d110ap-10f + high) * r2 + low;
    } else {
        const V r4 = r2 * r2;
        const V a = (r * 0x1.af38a9b0ec855p-26 + 0x1.289185613a3d6p-22);
        const V b = (r * 0x1.71de0dae63bb3p-19 + 0x1.a019b90d2ae7ap-16);
        const V c = (r * 0x1.a01a01a7c41d5p-13 + 0x1.6c16c1788bd90p-10);
        const V d = (r * 0x1.11111111109b3p-7 + 0x1.5555555553d63p-5);
        const V e = (r * 0x1.5555555555556p-3 + 0x1.0000000000001p-1);
        return ((a * r2 + b) * r4 + (c * r2 + d)) * r2 + e;
    }
}

// exp(x) for x <= 0 is a power of two times exp(whole), where `r` may lack the last digits of `whole`: the higher terms of
// the series do without them, and so need not wait for them. The power comes times 2^lift.
template <class V>
struct ReducedExp {
    V r, whole, lifted;
};
template <int lift, class V>
KULLBACK_INLINE ReducedExp<V> reduced_exp(V x) {
    using T = Scalar<V>;
    using K = Constants<T>;
    using I = typename traits<V>::integer;
    constexpr T magic = K::round_magic + T(lift + K::bias);
    // Adding the magic number leaves the rounded exponent, already lifted and biased, in the lowest bits.
    const V shifted = x * K::log2_e + magic;
    const V n = shifted - magic;
    ReducedExp<V> reduced;
    if constexpr (fuses<V>) {
        // exact, as this part of log 2 has 21 digits, n eight, and what is left is small
        reduced.r = minus_product<V>(x, n, K::ln2);
        reduced.whole = minus_product<V>(reduced.r, n, K::ln2_rest);
    } else {
        reduced.r = reduced.whole = (x - n * K::ln2_high) - n * K::ln2_low;
    }
    if constexpr (traits<V>::width == 1) {
        using U = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
        reduced.lifted = bits_as<V>(U(bits_as<U>(shifted) << K::mantissa_bits));
    } else {
        reduced.lifted = bits_as<V>(bits_as<I>(shifted) << K::mantissa_bits);
    }
    return reduced;
}
// As far down as powers of two go.
template <class V>
KULLBACK_INLINE V above_floor(V x) {
    return larger<V>(splat<V>(Constants<Scalar<V>>::exp_floor), x);
}

template <class V>
KULLBACK_INLINE ReducedExp<V> lifted_exp(V x) {
    return reduced_exp<Constants<Scalar<V>>::lift, V>(above_floor<V>(x));
}

// 2^lift exp(x) from what x was reduced to.
template <class V>
KULLBACK_INLINE V exp_of(const ReducedExp<V>& reduced) {
    const V r = reduced.r, whole = reduced.whole;
    const V more = exp_remainder<V>(r, r * r) * (whole * whole) + whole;
    return more * reduced.lifted + reduced.lifted;
}

// 2^(j/4) for the lowest two bits j of each lane: its digits, less j where a shift by 21 bits puts it.
template <class V>
KULLBACK_INLINE auto quarter_power(V index) {
    if constexpr (is_pair<V>::value) {
        using H = decltype(V::a);
        return typename traits<V>::integer{quarter_power<H>(index.a), quarter_power<H>(index.b)};
    } else {
        constexpr int32_t q1 = 0x1837f0 - (1 << 21), q2 = 0x3504f3 - (2 << 21), q3 = 0x5744fd - (3 << 21);
#if KULLBACK_HAS_VECTORS && defined(__AVX512F__)
        const __m512 table = _mm512_castsi512_ps(_mm512_set4_epi32(q3, q2, q1, 0));
        return bits_as<VectorI32>(_mm512_permutevar_ps(table, bits_as<__m512i>(index)));
#elif KULLBACK_HAS_VECTORS && defined(__AVX__)
        const __m256 table = _mm256_castsi256_ps(_mm256_setr_epi32(0, q1, q2, q3, 0, q1, q2, q3));
        return bits_as<VectorI32>(_mm256_permutevar_ps(table, bits_as<__m256i>(index)));
#endif
    }
}

// 2^lift exp(x) where the processor looks up several numbers in one step: a quarter power of two, and for the rest, four
// times as small as it would be otherwise, a shorter polynomial. After Tang, Table-driven implementation of the exponential
// function in IEEE floating-point arithmetic, ACM TOMS 15 (1989). Where the power is subnormal, which is below the lift,
// its digits are of no use.
template <int lift, class V>
KULLBACK_INLINE V exp_by_quarters(V x) {
    using K = Constants<float>;
    using I = typename traits<V>::integer;
    constexpr float magic = K::round_magic + float(4 * (lift + K::bias));
    const V shifted = x * (4 * K::log2_e) + magic;
    const V n = shifted - magic;
    // exact again: n has ten digits now, and what is left is still smaller
    const V r = minus_product<V>(x, n, K::ln2 / 4), whole = minus_product<V>(r, n, K::ln2_rest / 4);
    const V power = bits_as<V>((bits_as<I>(shifted) << (K::mantissa_bits - 2)) + quarter_power<V>(shifted));
    // (exp(r) - 1 - r) / r^2 on |r| <= log(2)/8; the relative error of exp(r) is 1.1e-8 before rounding
    const V remainder = r * (r * 0x1.5565bcp-5f + 0x1.556df0p-3f) + 0x1p-1f;
    const V more = remainder * (whole * whole) + whole;
    return more * power + power;
}

// 2^lift exp(x) for x <= 0 whose power of two, lifted, is one; of anything less, a number that is of no use.
template <int lift, class V>
KULLBACK_INLINE V exp_within(V x) {
    if constexpr (looks_up<V>) {
        return exp_by_quarters<lift, V>(x);
    } else {
        return exp_of<V>(reduced_exp<lift, V>(x));
    }
}

// 2^lift exp(x) for x <= 0, -inf and NaN included. Lifted values are normal numbers even where exp(x) is not, and
// the factor that follows anyway takes the lift back for nothing.
template <class V>
KULLBACK_INLINE V exp_lifted(V x) {
    return exp_within<Constants<Scalar<V>>::lift, V>(above_floor<V>(x));
}

template <class V>
KULLBACK_INLINE V exp_nonpositive(V x) {
    return exp_lifted<V>(x) * Constants<Scalar<V>>::unlift;
}

// exp(x) for x <= 0, NaN included, but 0 where it would be less than the least normal number: processors are slow with
// smaller ones.
template <class V>
KULLBACK_INLINE V exp_or_zero(V x) {
    return select<V>(x < Constants<Scalar<V>>::log_least_normal, V{}, exp_within<0, V>(x));
}

// exp(x) and 1 - exp(x) for x <= 0, -inf and NaN included, each to full relative precision.
template <class V>
struct ExpAndRest {
    V exp, rest;
};
template <class V>
KULLBACK_INLINE ExpAndRest<V> exp_and_rest(V x) {
    using T = Scalar<V>;
    constexpr T unlift = Constants<T>::unlift;
    // exp(x) - 1 = r + r^2 q where no power of two is taken out, as near 0
    const auto [r, whole, lifted] = lifted_exp<V>(x);
    const V more = exp_remainder<V>(r, r * r) * (whole * whole) + whole;
    const V power = lifted * unlift;
    return {(more + T(1)) * lifted * unlift, (T(1) - power) - power * more};
}

// log(1 + x) as x + x^2 q(x), q of degree 8, for float; by halves again.
template <class V>
KULLBACK_INLINE V log1p_polynomial(V x, const float (&c)[9]) {
    const V x2 = x * x, x4 = x2 * x2;
    const V q01 = x * c[1] + c[0], q23 = x * c[3] + c[2], q45 = x * c[5] + c[4], q67 = x * c[7] + c[6];
    const V low = q23 * x2 + q01, high = x4 * c[8] + (q67 * x2 + q45);
    return (high * x4 + low) * x2 + x;
}
// on [0, 1]; relative to log(1 + x) the error is 3e-8 before rounding
constexpr float log1p_to_one_q[9] = {-0x1.fffffep-2f, 0x1.55540cp-2f,  -0x1.ffb95cp-3f, 0x1.969cb2p-3f, -0x1.448ee2p-3f,
                                     0x1.d992bcp-4f,  -0x1.11708cp-4f, 0x1.9d455ap-6f,  -0x1.24b298p-8f};
// on [sqrt(1/2) - 1, sqrt(2) - 1]; error 1.4e-8
constexpr float log1p_near_zero_q[9] = {-0x1.fffffep-2f, 0x1.555554p-2f,  -0x1.00020cp-2f, 0x1.99a012p-3f, -0x1.548382p-3f,
                                        0x1.22ea5ap-3f,  -0x1.0cda32p-3f, 0x1.048f72p-3f,  -0x1.3a4ff6p-4f};

// (log((1 + s) / (1 - s)) / s - 2) / s^2 for z = s^2 <= ((sqrt2 - 1) / (sqrt2 + 1))^2, in double.
template <class V>
KULLBACK_INLINE V log_tail(V z) {
    V q = splat<V>(0x1.0c0aff044a970p-3);
    q = q * z + 0x1.0fbde0f4ad17bp-3;
    q = q * z + 0x1.3b1c3c1c81c8fp-3;
    q = q * z + 0x1.745cf8e4bba1bp-3;
    q = q * z + 0x1.c71c7201a55d7p-3;
    q = q * z + 0x1.2492492476a1ap-2;
    q = q * z + 0x1.9999999999a39p-2;
    return q * z + 0x1.5555555555555p-1;
}

// log(1 + f) + k log 2 + lost for f in [sqrt(1/2) - 1, sqrt(2) - 1]. In double by the series in f / (2 + f); in float a
// polynomial spares the division, which would be the slowest step.
template <class V>
KULLBACK_INLINE V log_reduced(V f, V k, V lost) {
    using T = Scalar<V>;
    using K = Constants<T>;
    if constexpr (sizeof(T) == 4) {
        return k * K::ln2_high + (log1p_polynomial<V>(f, log1p_near_zero_q) + (k * K::ln2_low + lost));
    } else {
        const V s = f / (f + T(2));
        const V z = s * s;
        const V half_square = f * f * T(0.5);
        const V tail = s * (half_square + z * log_tail<V>(z)) + (k * K::ln2_low + lost);
        return k * K::ln2_high - ((half_square - tail) - f);
    }
}

// log1p(x) for x >= 0, +inf and NaN included. `inverse` is 1 / (1 + x), a few digits of which suffice: only what
// rounding took from 1 + x is multiplied by it.
template <class V>
KULLBACK_INLINE V log1p_nonnegative(V x, V inverse) {
    using T = Scalar<V>;
    using K = Constants<T>;
    using I = typename traits<V>::integer;
    using Int = typename K::Int;
    const V u = x + T(1);
    // u = 2^k m with m in [sqrt(1/2), sqrt(2)); `lost` is what the addition rounded away, relative to u.
    // One power of two less than would be natural: the bits of a NaN must not run over the largest integer.
    const I raised = bits_as<I>(u) + (Int((K::bias - 1) << K::mantissa_bits) - K::sqrt_half);
    const I exponent = (raised >> K::mantissa_bits) - (K::bias - 1);
    const V m = bits_as<V>((raised & ((Int(1) << K::mantissa_bits) - 1)) + K::sqrt_half);
    V k;
    if constexpr (traits<V>::width == 1) {
        k = T(exponent);
    } else {
        // no conversion from 64-bit integers below AVX-512: place the small integer in a double's low bits
        k = bits_as<V>(exponent + bits_as<Int>(K::round_magic)) - K::round_magic;
    }
    const Mask<V> direct = exponent == 0;
    const V lost = select<V>(direct, splat<V>(0), (x - (u - T(1))) * inverse);
    const V f = select<V>(direct, x, m - T(1));
    return select<V>(u < infinity<T>, log_reduced<V>(f, k, lost), u);
}
template <class V>
KULLBACK_INLINE V log1p_nonnegative(V x) {
    return log1p_nonnegative<V>(x, Scalar<V>(1) / (x + Scalar<V>(1)));
}

// log1p(x) for 0 <= x <= 1, NaN included: what a softplus needs.
template <class V>
KULLBACK_INLINE V log1p_to_one(V x) {
    using T = Scalar<V>;
    if constexpr (sizeof(T) == 4) {
        return log1p_polynomial<V>(x, log1p_to_one_q);
    } else {
        const Mask<V> upper = x > T(0x1.a827999fcef32p-2);  // sqrt(2) - 1
        return log_reduced<V>(select<V>(upper, (x - T(1)) * T(0.5), x), keep<V>(upper, splat<V>(T(1))), V{});
    }
}

// log(x) + lost for 0 < x <= 2, subnormal numbers and NaN included; finite (and of no use) at 0. `lost` is at most a
// rounding error of x, relative to x.
template <class V>
KULLBACK_INLINE V log_to_two(V x, V lost) {
    using T = Scalar<V>;
    using K = Constants<T>;
    using I = typename traits<V>::integer;
    using Int = typename K::Int;
    const V u = x * (1 / K::unlift);  // no number is subnormal any more
    // as above: the bits of a NaN must not run over
    const I raised = bits_as<I>(u) + (Int((K::bias - 1) << K::mantissa_bits) - K::sqrt_half);
    const I exponent = (raised >> K::mantissa_bits) - (K::bias - 1 + K::lift);
    const V f = bits_as<V>((raised & ((Int(1) << K::mantissa_bits) - 1)) + K::sqrt_half) - T(1);
    V k;
    if constexpr (traits<V>::width == 1) {
        k = T(exponent);
    } else {
        k = bits_as<V>(exponent + bits_as<Int>(K::round_magic)) - K::round_magic;
    }
    return select<V>(x == x, log_reduced<V>(f, k, lost), x);
}

// log(x) for 0 < x <= 1, likewise.
template <class V>
KULLBACK_INLINE V log_to_one(V x) {
    return log_to_two<V>(x, V{});
}

// As log_to_two, for normal numbers alone; of anything else, NaN included, a finite number that is of no use.
template <class V>
KULLBACK_INLINE V log_of_normal(V x, V lost) {
    using K = Constants<Scalar<V>>;
    using I = typename traits<V>::integer;
    using Int = typename K::Int;
    const I raised = bits_as<I>(x) + (Int((K::bias - 1) << K::mantissa_bits) - K::sqrt_half);
    const V f = bits_as<V>((raised & ((Int(1) << K::mantissa_bits) - 1)) + K::sqrt_half) - Scalar<V>(1);
    V k;
    if constexpr (traits<V>::width == 1) {
        k = Scalar<V>((raised >> K::mantissa_bits) - (K::bias - 1));
    } else {
        k = bits_as<V>((raised >> K::mantissa_bits) + (bits_as<Int>(K::round_magic) - (K::bias - 1))) - K::round_magic;
    }
    return log_reduced<V>(f, k, lost);
}

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
