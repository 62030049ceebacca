// The focusing factor of a label, wrong^gamma with a gamma for labels that hold and one for those that do not.
//
// Whole powers up to 7 are products of squares, and those halfway between have a square root in it; the branches between
// them go the same way all along. Other powers are exp(gamma log x).
#pragma once

#include "skeletons/sigmoid_tile.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

// x^exponent for exponents from 0 to 7.
template <class V>
KULLBACK_INLINE V whole_power(V x, int exponent) {
    V power = exponent & 1 ? x : splat<V>(Scalar<V>(1));
    if (exponent < 2) return power;
    const V square = x * x;
    if (exponent & 2) power = power * square;
    return exponent < 4 ? power : power * (square * square);
}

// x^gamma and its derivative; the derivative of a power below 1 counts as nothing at 0, where it is infinite.
template <class V>
struct Raised {
    V power, slope;
};
template <class V>
KULLBACK_INLINE Raised<V> pick(Mask<V> held, const Raised<V>& on, const Raised<V>& off) {
    return {select<V>(held, on.power, off.power), select<V>(held, on.slope, off.slope)};
}

// The power of labels that hold and of those that do not: one for both, or two. to(held, body) is body(power) of those.
template <class Number>
struct Both {
    Number gamma;
    template <class V, class Held, class Body>
    KULLBACK_INLINE auto to(Held, Body body) const {
        return body(gamma);
    }
};
template <class Number>
struct Each {
    Number on, off;
    template <class V, class Body>
    KULLBACK_INLINE auto to(Present, Body body) const {
        return body(on);
    }
    template <class V, class Body>
    KULLBACK_INLINE auto to(Absent, Body body) const {
        return body(off);
    }
    template <class V, class Body>
    KULLBACK_INLINE auto to(Mask<V> held, Body body) const {
        return pick<V>(held, body(on), body(off));
    }
};

template <class Powers>
struct WholePower {
    static constexpr bool whole = true, by_log = false;
    Powers powers;

    // x^gamma; `cost`, -log x, is not needed.
    template <class V, class Held>
    KULLBACK_INLINE V of(Held held, V x, V) const {
        return powers.template to<V>(held, [&](int power) KULLBACK_LAMBDA { return whole_power<V>(x, power); });
    }
    template <class V, class Held>
    KULLBACK_INLINE Raised<V> raise(Held held, V x) const {
        return powers.template to<V>(held, [&](int power) KULLBACK_LAMBDA {
            if (power == 0) return Raised<V>{splat<V>(Scalar<V>(1)), V{}};
            const V lower = whole_power<V>(x, power - 1);
            return Raised<V>{x * lower, lower * Scalar<V>(power)};
        });
    }
    template <class V, class Held>
    KULLBACK_INLINE V gamma(Held held) const {
        return powers.template to<V>(held, [](int power) KULLBACK_LAMBDA { return splat<V>(Scalar<V>(power)); });
    }
};

// The powers are counted in halves.
template <class Powers>
struct HalfPower {
    static constexpr bool whole = false, by_log = false;
    Powers powers;

    template <class V, class Held>
    KULLBACK_INLINE V of(Held held, V x, V) const {
        const V x_to_half = quick_root<V>(x);  // some power has it
        return powers.template to<V>(held, [&](int halves) KULLBACK_LAMBDA {
            const V whole = whole_power<V>(x, halves / 2);
            return halves & 1 ? whole * x_to_half : whole;
        });
    }
    template <class V, class Held>
    KULLBACK_INLINE Raised<V> raise(Held held, V x) const {
        const V inverse_root = quick_inverse_root<V>(x), x_to_half = x * inverse_root;
        return powers.template to<V>(held, [&](int halves) KULLBACK_LAMBDA {
            if (halves == 0) return Raised<V>{splat<V>(Scalar<V>(1)), V{}};
            V lower = inverse_root;
            if (halves > 1) lower = whole_power<V>(x, halves / 2 - 1);
            if (halves > 1 && halves & 1) lower = lower * x_to_half;
            return Raised<V>{x * lower, lower * (Scalar<V>(0.5) * Scalar<V>(halves))};
        });
    }
    template <class V, class Held>
    KULLBACK_INLINE V gamma(Held held) const {
        return powers.template to<V>(held, [](int halves) KULLBACK_LAMBDA {
            return splat<V>(Scalar<V>(0.5) * Scalar<V>(halves));
        });
    }
};

template <class Powers>
struct AnyPower {
    static constexpr bool whole = false, by_log = true;
    Powers powers;

    template <class V, class Held>
    KULLBACK_INLINE V of(Held held, V, V cost) const {
        // gamma = 0 times an infinite cost would be NaN
        return exp_nonpositive<V>(-gamma<V>(held) * bounded<V>(cost));
    }
    template <class V, class Held>
    KULLBACK_INLINE V gamma(Held held) const {
        return powers.template to<V>(held, [](double power) KULLBACK_LAMBDA { return splat<V>(Scalar<V>(power)); });
    }
};

inline bool is_whole_power(double gamma) { return gamma <= 7 && gamma == double(int(gamma)); }
inline bool is_half_power(double gamma) { return gamma < 8 && 2 * gamma == double(int(2 * gamma)); }

// Call body(power) with the cheapest there is.
template <class Body>
void with_power(double gamma, Body body) {
    if (is_whole_power(gamma)) {
        body(WholePower<Both<int>>{{int(gamma)}});
    } else if (is_half_power(gamma)) {
        body(HalfPower<Both<int>>{{int(2 * gamma)}});
    } else {
        body(AnyPower<Both<double>>{{gamma}});
    }
}
template <class Body>
void with_powers(double on, double off, Body body) {
    if (is_whole_power(on) && is_whole_power(off)) {
        body(WholePower<Each<int>>{{int(on), int(off)}});
    } else if (is_half_power(on) && is_half_power(off)) {
        body(HalfPower<Each<int>>{{int(2 * on), int(2 * off)}});
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
    x.pull = weight * (slow + rounded<V>(push));
    if (curved) {
        const V both = T(2) * gamma * pull * push + rounded<V>(push * push);
        const V bent = (gamma - T(1)) * pull * slow + both;
        x.bend = weight * bent + rounded<V>(x.pull * (odds.right - odds.wrong));
    }
    return x;
}

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
