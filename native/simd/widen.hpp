// A vector of floats as two of doubles, and back. Doubles stay what they are, so that code for both may say
// widen and narrow.
//
// What comes from floats and goes back to them is computed in double where terms cancel or many are added. What lies
// between, exp, log and quotients, need be no longer than a float, and takes half the time or less as one: the functions
// named brief_ do that for pairs, and are the usual ones for all else.
#pragma once

#include "simd/elementary.hpp"
#include "simd/pair.hpp"
#include "simd/transpose.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

#if KULLBACK_HAS_SHUFFLES

// As many doubles as there are lanes in a vector of T.
template <class T>
using InDouble = std::conditional_t<sizeof(T) == 4, Pair<VectorD>, VectorD>;

KULLBACK_INLINE VectorD widen(VectorD v) { return v; }
KULLBACK_INLINE Pair<VectorD> widen(VectorF v) {
    constexpr int half = lanes<double>;
    const auto order = std::make_integer_sequence<int, half>{};
    return {__builtin_convertvector(part_of<0>(v, order), VectorD), __builtin_convertvector(part_of<half>(v, order), VectorD)};
}

KULLBACK_INLINE VectorD narrow(VectorD v) { return v; }
KULLBACK_INLINE VectorF narrow(const Pair<VectorD>& v) {
    using Half = ShortVector<float, lanes<double>>;
    return join(__builtin_convertvector(v.a, Half), __builtin_convertvector(v.b, Half),
                std::make_integer_sequence<int, lanes<float>>{});
}

// Whole numbers, which T holds exactly.
template <class T>
KULLBACK_INLINE Vector<T> numbers_in_lanes(const int32_t* from) {
    ShortVector<int32_t, lanes<T>> whole;
    std::memcpy(&whole, from, sizeof whole);
    return __builtin_convertvector(whole, Vector<T>);
}

#else

template <class T>
using InDouble = VectorD;

#endif

// exp(x) for x <= 0, as exp_nonpositive.
template <class V>
KULLBACK_INLINE V brief_exp(V x) {
    if constexpr (is_pair<V>::value) {
        return widen(exp_nonpositive<VectorF>(narrow(x)));
    } else {
        return exp_nonpositive<V>(x);
    }
}

// log(x) for 0 < x <= 1, as log_to_one. How far a number is from 1 is still told in double.
template <class V>
KULLBACK_INLINE V brief_log(V x) {
    if constexpr (is_pair<V>::value) {
        using K = Constants<double>;
        using I = typename traits<V>::integer;
        const I raised = bits_as<I>(x * (1 / K::unlift)) + (((K::bias - 1) << K::mantissa_bits) - K::sqrt_half);
        const I exponent = (raised >> K::mantissa_bits) - (K::bias - 1 + K::lift);
        const V f = bits_as<V>((raised & ((int64_t(1) << K::mantissa_bits) - 1)) + K::sqrt_half) - 1.0;
        const V k = bits_as<V>(exponent + bits_as<int64_t>(K::round_magic)) - K::round_magic;
        const V log = widen(log_reduced<VectorF>(narrow(f), narrow(k), VectorF{}));
        return select<V>(x == x, log, x);
    } else {
        return log_to_one<V>(x);
    }
}

template <class V>
KULLBACK_INLINE V brief_quotient(V x, V y) {
    if constexpr (is_pair<V>::value) {
        return widen(narrow(x) / narrow(y));
    } else {
        return x / y;
    }
}

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
