// Two vectors that go through the same steps side by side.
//
// A long chain of operations that wait for each other leaves a processor idle, and a loop body of more operations than
// it looks ahead hides the next round's from it. Two vectors in one round give it something to do in between.
#pragma once

#include "simd/vector.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

template <class H>
struct Pair {
    H a{}, b{};
    Pair() = default;
    KULLBACK_INLINE Pair(H x, H y) : a(x), b(y) {}
    // written out, because GCC copies aggregates of vectors through memory
    KULLBACK_INLINE Pair(const Pair& other) : a(other.a), b(other.b) {}
    KULLBACK_INLINE Pair& operator=(const Pair& other) {
        a = other.a;
        b = other.b;
        return *this;
    }
};

template <class H>
struct is_pair<Pair<H>> : std::true_type {};

template <class H>
struct traits<Pair<H>> {
    using scalar = typename traits<H>::scalar;
    using integer = Pair<typename traits<H>::integer>;
    using mask = Pair<typename traits<H>::mask>;
    static constexpr int width = 2 * traits<H>::width;
};

template <class H>
constexpr bool fuses<Pair<H>> = fuses<H>;
template <class H>
constexpr bool looks_up<Pair<H>> = looks_up<H>;

#define KULLBACK_PAIRWISE(op)                                                                    \
    template <class H>                                                                           \
    KULLBACK_INLINE auto operator op(const Pair<H>& x, const Pair<H>& y) {                       \
        return Pair<decltype(x.a op y.a)>{x.a op y.a, x.b op y.b};                               \
    }                                                                                            \
    template <class H, class S, class = std::enable_if_t<std::is_arithmetic_v<S>>>               \
    KULLBACK_INLINE auto operator op(const Pair<H>& x, S y) {                                    \
        return Pair<decltype(x.a op y)>{x.a op y, x.b op y};                                     \
    }                                                                                            \
    template <class H, class S, class = std::enable_if_t<std::is_arithmetic_v<S>>>               \
    KULLBACK_INLINE auto operator op(S x, const Pair<H>& y) {                                    \
        return Pair<decltype(x op y.a)>{x op y.a, x op y.b};                                     \
    }
KULLBACK_PAIRWISE(+)
KULLBACK_PAIRWISE(-)
KULLBACK_PAIRWISE(*)
KULLBACK_PAIRWISE(/)
KULLBACK_PAIRWISE(&)
KULLBACK_PAIRWISE(|)
KULLBACK_PAIRWISE(^)
KULLBACK_PAIRWISE(<<)
KULLBACK_PAIRWISE(>>)
KULLBACK_PAIRWISE(<)
KULLBACK_PAIRWISE(>)
KULLBACK_PAIRWISE(<=)
KULLBACK_PAIRWISE(>=)
KULLBACK_PAIRWISE(==)
KULLBACK_PAIRWISE(!=)
#undef KULLBACK_PAIRWISE

template <class H>
KULLBACK_INLINE Pair<H> operator-(const Pair<H>& x) {
    return {-x.a, -x.b};
}
template <class H>
KULLBACK_INLINE Pair<H>& operator+=(Pair<H>& x, const Pair<H>& y) {
    return x = x + y;
}

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
