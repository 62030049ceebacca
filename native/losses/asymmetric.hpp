// Asymmetric: focal for labels that hold; for those that do not, -x^g log(1 - x) with x = max(p - clip, 0).
#pragma once

#include "losses/sigmoid_focal.hpp"
#include "simd/half_log.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

template <class Power>
struct ClippedSide {
    static constexpr LabelLog log_used = Power::by_log ? LabelLog::one_plus_e : LabelLog::own;
    Power power;
    double clip;

    // What rounding has taken from 1 - x, relative to it, for labels that do not hold.
    template <class V>
    KULLBACK_INLINE V lost(V y, V wrong) const {
        using T = Scalar<V>;
        if constexpr (Power::whole) return V{};
        // with a power below 1 a tiny x counts for much; x + 1 stands for 1 / y, a few digits of which suffice
        const V one = splat<V>(T(1)), x = larger<V>(V{}, wrong - T(clip)), lost = (one - y) - x;
        return select<V>(y <= T(0.5), V{}, lost * x + lost);
    }

    // A hard label's term by one logarithm: log(1 + e) and what x is above 0 for one that holds, -log(1 - x) for one that
    // does not.
    template <class V>
    KULLBACK_INLINE LabelTerm<V> hard(Mask<V> held, V x, V e, V right, V wrong) const {
        using T = Scalar<V>;
        const V one = splat<V>(T(1)), y = right + T(clip);  // 1 - x
        const V at_most_one = smaller<V>(one, y);
        const LogParts<V> parts = log_parts<V>(at_most_one);
        V rest = parts.k * -T(0.693147180559945309);
        if constexpr (!Power::whole) rest = rest - lost<V>(at_most_one, wrong);
        // both by one division: f / (-2 - f) and, for labels that do not hold, wrong right / y
        const V f = select<V>(held, e, parts.f), under = T(-2) - f, inverse = quick_inverse<V>(under * y);
        const V half = turned<V>(held, f * (inverse * y)), spread = wrong * right;
        const V cost = twice_atanh<V>(half) + select<V>(held, positive_part<V>(x), rest);
        return clipped<V>(held, larger<V>(V{}, select<V>(held, wrong, wrong - T(clip))), cost, spread,
                          select<V>(held, wrong, spread * (inverse * under)));
    }

    // base^gamma cost and its slope, where base is what the clip leaves of `wrong`: d base = -spread and d cost = -fall.
    template <class V, class Held>
    KULLBACK_INLINE LabelTerm<V> clipped(Held held, V base, V cost, V spread, V fall) const {
        using T = Scalar<V>;
        Raised<V> raised = power.template raise<V>(held, base);
        // 0^0 is 1, but where the clip takes all away; and NaN^0 is NaN here
        if (power.powers.off == 0) raised.power = select<V>(base <= T(0), V{}, base * T(0) + raised.power);
        const V level = rounded<V>(raised.power * fall);
        // the spread is 0 where the cost is infinite
        return {raised.power * cost, raised.slope * spread * bounded<V>(cost) + level, V{}};
    }

    template <bool curved, class V>
    KULLBACK_INLINE LabelTerm<V> at(Present held, const Odds<V>& odds) const {
        return FocalSide<Power>{power}.template at<curved, V>(held, odds);
    }
    template <bool curved, class V, class Held>
    KULLBACK_INLINE LabelTerm<V> at(Held held, const Odds<V>& odds) const {
        using T = Scalar<V>;
        const V one = splat<V>(T(1)), c = pick(held, V{}, splat<V>(T(clip)));
        const V difference = odds.wrong - c;
        const Mask<V> outside = difference <= T(0);  // false for NaN, which then shows in the result
        const V y = odds.right + c;                  // 1 - x
        V cost = odds.cost;
        if constexpr (curved || Power::by_log || std::is_same_v<Held, Absent>) {
            const V at_most_one = smaller<V>(one, odds.right + T(clip));
            cost = pick(held, odds.cost, -log_to_two<V>(at_most_one, lost<V>(at_most_one, odds.wrong)));
        }
        if constexpr (!Power::by_log && !curved) {
            const V base = larger<V>(V{}, difference), spread = odds.wrong * odds.right;
            return clipped<V>(held, base, cost, spread, pick(held, odds.wrong, spread / y));
        } else {
            const V x = select<V>(outside, one, difference);
            const V inverse = T(1) / pick(held, one, x * y);
            const V steep = pick(held, one, odds.wrong * (y * inverse));
            const V share = pick(held, one, odds.right * (x * inverse));
            V x_cost{};
            if constexpr (Power::by_log) x_cost = pick(held, odds.wrong_cost, -log_to_one<V>(x));
            const V weight = select<V>(outside, V{}, power.template of<V>(held, x, x_cost));
            return focused<curved, V>(odds, weight, power.template gamma<V>(held), cost, steep, share);
        }
    }
};

struct Asymmetric {
    static constexpr const char* name = "asymmetric";

    template <class Body>
    static void with(const Job& job, Body body) {
        const double clip = job.parameters[2];
        with_powers(job.parameters[0], job.parameters[1], [&](auto power) {
            if (clip == 0) {
                body(FocalSide<decltype(power)>{power});
            } else {
                body(ClippedSide<decltype(power)>{power, clip});
            }
        });
    }
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
