// exp and log1p in as few steps as there are, for loops over many numbers that do not wait for each other.
//
// Polynomials are evaluated one coefficient after the other (Horner). That is one long chain, but every step is a product
// and a sum at once, and none needs a copy of what it overwrites. Two threads on one core share its steps, and how long
// one of them takes matters less. Where it does, as in a row that waits for its sum, see elementary.hpp.
#pragma once

#include "simd/elementary.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

// x (… (x c[n - 1] + c[n - 2]) …) + c[0].
template <int at, class V, class T>
KULLBACK_INLINE V horner(V sum, V x, const T* c) {
    if constexpr (at < 0) {
        return sum;
    } else {
        return horner<at - 1, V>(sum * x + c[at], x, c);
    }
}
template <class V, class T, int n>
KULLBACK_INLINE V polynomial(V x, const T (&c)[n]) {
    return horner<n - 2, V>(splat<V>(c[n - 1]), x, c);
}

// exp on |r| <= log(2)/2, with the coefficients of exp_remainder.
template <class T>
constexpr T exp_series[7] = {1, 1, 0x1p-1f, 0x1.5554dcp-3f, 0x1.55551ap-5f, 0x1.120b6ep-7f, 0x1.6d110ap-10f};
template <>
inline constexpr double exp_series<double>[12] = {
    1, 1, 0x1.0000000000001p-1, 0x1.5555555555556p-3, 0x1.5555555553d63p-5, 0x1.11111111109b3p-7, 0x1.6c16c1788bd90p-10,
    0x1.a01a01a7c41d5p-13, 0x1.a019b90d2ae7ap-16, 0x1.71de0dae63bb3p-19, 0x1.289185613a3d6p-22, 0x1.af38a9b0ec855p-26};

// It comes times a power of two that takes a lift back, which changes no digit.
template <class T>
struct UnliftedExp {
    static constexpr int count = sizeof exp_series<T> / sizeof(T);
    T c[count] = {};
    constexpr UnliftedExp() {
        for (int i = 0; i < count; ++i) c[i] = exp_series<T>[i] * Constants<T>::unlift;
    }
};
template <class T>
constexpr UnliftedExp<T> unlifted_exp;

// exp_nonpositive.
template <class V>
KULLBACK_INLINE V exp_in_few_steps(V x) {
    const ReducedExp<V> reduced = lifted_exp<V>(x);
    return polynomial<V>(reduced.whole, unlifted_exp<Scalar<V>>.c) * reduced.lifted;
}

// log1p_to_one.
template <class V>
KULLBACK_INLINE V log1p_in_few_steps(V x) {
    if constexpr (sizeof(Scalar<V>) == 4) {
        return polynomial<V>(x, log1p_to_one_q) * (x * x) + x;
    } else {
        return log1p_to_one<V>(x);
    }
}

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
