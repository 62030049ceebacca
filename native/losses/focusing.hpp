// The focusing factor of a label, wrong^gamma with a gamma for labels that hold and one for those that do not.
//
// Whole powers up to 7 are products of squares, and those halfway between have a square root in it; the branches between
// them go the same way all along. Other powers are exp(gamma log x).
#pragma once

#include "skeletons/sigmoid_tile.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

// Whole numbers, one a lane: the bits that some have, those that all have, and each lane's own.
template <class V>
struct LaneBits {
    int some, all;
    typename traits<V>::integer each;
};

// power times x where a lane has the bit.
template <int bit, class V>
KULLBACK_INLINE V times_where(const LaneBits<V>& bits, V power, V x) {
    if (!(bits.some >> bit & 1)) return power;
    if (bits.all >> bit & 1) return power * x;
    using I = typename traits<V>::integer;
    const V one = splat<V>(Scalar<V>(1));
    if constexpr (traits<V>::width == 1) {
        return (bits.each >> bit & 1) != 0 ? power * x : power;
    } else {
        // the bit becomes the sign
        constexpr int shift = 8 * int(sizeof(Scalar<V>)) - 1 - bit;
        return power * select<V>(I(bits.each << shift) < 0, x, one);
    }
}

// x^exponent for exponents from 0 to 7.
template <class V>
KULLBACK_INLINE V whole_power(V x, const LaneBits<V>& exponent) {
    V power = times_where<0>(exponent, splat<V>(Scalar<V>(1)), x);
    if (exponent.some < 2) return power;
    const V square = x * x;
    power = times_where<1>(exponent, power, square);
    return exponent.some < 4 ? power : times_where<2>(exponent, power, square * square);
}

// The power of labels that hold and of those that do not: one for both, or two. to(held, body) is body(power) of those,
// bits(held, body) the same of whole numbers, lane by lane.
template <class Number>
struct Both {
    Number gamma;
    template <class V, class Held, class Body>
    KULLBACK_INLINE V to(Held, Body body) const {
        return body(gamma);
    }
    template <class V, class Held, class Body>
    KULLBACK_INLINE LaneBits<V> bits(Held, Body body) const {
        return {body(gamma), body(gamma), typename traits<V>::integer{}};
    }
    template <class Body>
    KULLBACK_INLINE bool any(Body body) const {
        return body(gamma);
    }
};
template <class Number>
struct Each {
    Number on, off;
    template <class V, class Body>
    KULLBACK_INLINE V to(Present, Body body) const {
        return body(on);
    }
    template <class V, class Body>
    KULLBACK_INLINE V to(Absent, Body body) const {
        return body(off);
    }
    template <class V, class Body>
    KULLBACK_INLINE V to(Mask<V> held, Body body) const {
        return select<V>(held, body(on), body(off));
    }
    template <class V, class Body>
    KULLBACK_INLINE LaneBits<V> bits(Present, Body body) const {
        return {body(on), body(on), typename traits<V>::integer{}};
    }
    template <class V, class Body>
    KULLBACK_INLINE LaneBits<V> bits(Absent, Body body) const {
        return {body(off), body(off), typename traits<V>::integer{}};
    }
    template <class V, class Body>
    KULLBACK_INLINE LaneBits<V> bits(Mask<V> held, Body body) const {
        using I = typename traits<V>::integer;
        const int a = body(on), b = body(off);
        return {a | b, a & b, bits_as<I>(select<V>(held, bits_as<V>(I{} + a), bits_as<V>(I{} + b)))};
    }
    template <class Body>
    KULLBACK_INLINE bool any(Body body) const {
        return body(on) || body(off);
    }
};

template <class Powers>
struct WholePower {
    static constexpr bool whole = true, by_log = false;
    static constexpr int in_halves = 2;
    Powers powers;

    // x^gamma; `cost`, -log x, is not needed.
    template <class V, class Held>
    KULLBACK_INLINE V of(Held held, V x, V) const {
        return whole_power<V>(x, powers.template bits<V>(held, [](int power) KULLBACK_LAMBDA { return power; }));
    }
    // x^(gamma - 1), and nothing for gamma = 0; and x^gamma made of it
    template <class V, class Held>
    KULLBACK_INLINE V lower(Held held, V x) const {
        const V power = whole_power<V>(x, powers.template bits<V>(held, [](int power) KULLBACK_LAMBDA {
            return power > 0 ? power - 1 : 0;
        }));
        if (!some_zero()) return power;
        return power - power * zero<V>(held);
    }
    template <class V, class Held>
    KULLBACK_INLINE V from_lower(Held held, V x, V lower) const {
        return some_zero() ? x * lower + zero<V>(held) : x * lower;
    }
    template <class V, class Held>
    KULLBACK_INLINE V gamma(Held held) const {
        return powers.template to<V>(held, [](int power) KULLBACK_LAMBDA { return splat<V>(Scalar<V>(power)); });
    }

  private:
    KULLBACK_INLINE bool some_zero() const {
        return powers.any([](int power) KULLBACK_LAMBDA { return power == 0; });
    }
    template <class V, class Held>
    KULLBACK_INLINE V zero(Held held) const {
        return powers.template to<V>(held, [](int power) KULLBACK_LAMBDA { return splat<V>(Scalar<V>(power == 0)); });
    }
};

// x^(halves / 2), known when compiled.
template <int halves>
struct FixedPower {
    template <class V>
    KULLBACK_INLINE V operator()(V x) const {
        const V whole = whole_power<V>(x, LaneBits<V>{halves / 2, halves / 2, typename traits<V>::integer{}});
        return halves % 2 == 1 ? whole * root<V>(x) : whole;
    }
};

// Call body(power) with a power known when compiled, so that loops have no branches. It is one of every `step` halves.
template <int step, int halves = 0, class Body>
void with_fixed_power(int wanted, Body body) {
    if constexpr (halves < 16) {
        if (wanted == halves) return body(FixedPower<halves>{});
        with_fixed_power<step, halves + step>(wanted, body);
    }
}

// The powers are counted in halves.
template <class Powers>
struct HalfPower {
    static constexpr bool whole = false, by_log = false;
    static constexpr int in_halves = 1;
    Powers powers;

    template <class V, class Held>
    KULLBACK_INLINE V of(Held held, V x, V) const {
        const V power = whole_power<V>(x, powers.template bits<V>(held, [](int halves) KULLBACK_LAMBDA {
            return halves / 2;
        }));
        return times_where<0>(powers.template bits<V>(held, [](int halves) KULLBACK_LAMBDA { return halves & 1; }),
                              power, root<V>(x));
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
