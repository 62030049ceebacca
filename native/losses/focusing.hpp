// The focusing factor of a label, wrong^gamma with a gamma for labels that hold and one for those that do not.
//
// Whole powers up to 7 are products; which factors they take is chosen by masks that stay the same all along, so one
// loop serves all of them. Other powers are exp(gamma log x).
#pragma once

#include "skeletons/sigmoid.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

template <class V>
KULLBACK_INLINE Mask<V> mask_of(Mask<V> condition, Mask<V> yes, Mask<V> no) {
    if constexpr (is_pair<V>::value) {
        using H = decltype(V::a);
        return {mask_of<H>(condition.a, yes.a, no.a), mask_of<H>(condition.b, yes.b, no.b)};
    } else {
        return condition ? yes : no;
    }
}

// The power of labels that hold and of those that do not: one for both, or two.
template <class Number>
struct Both {
    Number gamma;
    template <class V, class Held>
    KULLBACK_INLINE V splatted(Held) const {
        return splat<V>(Scalar<V>(gamma));
    }
    template <class V, class Held>
    KULLBACK_INLINE Mask<V> has(Held, int bit) const {
        return splat<V>(Scalar<V>(int(gamma) & bit)) != Scalar<V>(0);
    }
};
template <class Number>
struct Each {
    Number on, off;
    template <class V, class Held>
    KULLBACK_INLINE V splatted(Held held) const {
        using T = Scalar<V>;
        return pick(held, splat<V>(T(on)), splat<V>(T(off)));
    }
    template <class V>
    KULLBACK_INLINE Mask<V> has(Present, int bit) const {
        return Both<Number>{on}.template has<V>(Present{}, bit);
    }
    template <class V>
    KULLBACK_INLINE Mask<V> has(Absent, int bit) const {
        return Both<Number>{off}.template has<V>(Absent{}, bit);
    }
    template <class V>
    KULLBACK_INLINE Mask<V> has(Mask<V> held, int bit) const {
        return mask_of<V>(held, has<V>(Present{}, bit), has<V>(Absent{}, bit));
    }
};

template <class Powers>
struct WholePower {
    static constexpr bool whole = true;
    Powers powers;

    template <class V>
    static KULLBACK_INLINE V factor(Mask<V> wanted, V x) {
        return select<V>(wanted, x, splat<V>(Scalar<V>(1)));
    }
    // x^gamma; `cost`, -log x, is not needed.
    template <class V, class Held>
    KULLBACK_INLINE V of(Held held, V x, V) const {
        const V square = x * x, fourth = square * square;
        return factor<V>(powers.template has<V>(held, 1), x) * factor<V>(powers.template has<V>(held, 2), square) *
               factor<V>(powers.template has<V>(held, 4), fourth);
    }
    template <class V, class Held>
    KULLBACK_INLINE V gamma(Held held) const {
        return powers.template splatted<V>(held);
    }
};

template <class V>
KULLBACK_INLINE V bounded(V cost) {
    return smaller<V>(splat<V>(Scalar<V>(1e30)), cost);
}

template <class Powers>
struct AnyPower {
    static constexpr bool whole = false;
    Powers powers;

    template <class V, class Held>
    KULLBACK_INLINE V of(Held held, V, V cost) const {
        // gamma = 0 times an infinite cost would be NaN
        return exp_nonpositive<V>(-gamma<V>(held) * bounded<V>(cost));
    }
    template <class V, class Held>
    KULLBACK_INLINE V gamma(Held held) const {
        return powers.template splatted<V>(held);
    }
};

inline bool is_whole_power(double gamma) { return gamma <= 7 && gamma == double(int(gamma)); }

// Call body(power) with the cheaper of the two.
template <class Body>
void with_power(double gamma, Body body) {
    if (is_whole_power(gamma)) {
        body(WholePower<Both<int>>{{int(gamma)}});
    } else {
        body(AnyPower<Both<double>>{{gamma}});
    }
}
template <class Body>
void with_powers(double on, double off, Body body) {
    if (is_whole_power(on) && is_whole_power(off)) {
        body(WholePower<Each<int>>{{int(on), int(off)}});
    } else {
        body(AnyPower<Each<double>>{{on, off}});
    }
}

// -(wrong)^gamma log(right), with steep and share 1; what a clip changes is in asymmetric.hpp. Derivatives are in the
// log-odds of being right: with x what is raised to the power, d log(x) = -right steep and d(cost) = -wrong share.
template <bool curved, class V>
KULLBACK_INLINE LabelTerm<V> focused(const Odds<V>& odds, V weight, V gamma, V cost, V steep, V share) {
    using T = Scalar<V>;
    const V pull = odds.right * steep, push = odds.wrong * share;
    // right is 0 where the cost is infinite, and the product then too
    const V slow = gamma * (pull * bounded<V>(cost));
    LabelTerm<V> x;
    x.value = weight * cost;
    x.pull = weight * (slow + push);
    if (curved) {
        const V bent = T(2) * gamma * pull * push + (gamma - T(1)) * pull * slow + push * push;
        x.bend = weight * bent + x.pull * (odds.right - odds.wrong);
    }
    return x;
}

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
