// Asymmetric: focal for labels that hold; for those that do not, -x^g log(1 - x) with x = max(p - clip, 0).
#pragma once

#include "losses/sigmoid_focal.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

template <class Power>
struct ClippedSide {
    static constexpr LabelLog log_used = Power::by_log ? LabelLog::one_plus_e : LabelLog::own;
    static constexpr bool long_way = Power::by_log;
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

    // The cost of hard labels, log(1 + e) and what x is above 0 for one that holds, -log(1 - x) for one that does not.
    template <class V>
    KULLBACK_INLINE HalfLog<V> half_log(Mask<V> held, V x, V e, V right, V wrong) const {
        using T = Scalar<V>;
        const V y = smaller<V>(splat<V>(T(1)), right + T(clip));
        const LogParts<V> parts = log_parts<V>(y);
        V rest = parts.k * -T(0.693147180559945309);
        if constexpr (!Power::whole) rest = rest - lost<V>(y, wrong);
        const V f = select<V>(held, e, parts.f);
        return {turned<V>(held, f * quick_inverse<V>(T(-2) - f)), select<V>(held, positive_part<V>(x), rest)};
    }

    // Whether both powers have a square root in them: then one is taken, of what the label asks for.
    bool one_root() const { return (power.powers.on & power.powers.off & 1) != 0; }

    // For hard labels: call body(raise) with raise(held, wrong), which is the power of labels that do not hold and, of those
    // that do, what to raise them may begin with; and with raise(wrong, begun), the power of those.
    template <class Body>
    void with_off(Body body) const {
        const auto clipped = [&](auto wrong) KULLBACK_LAMBDA {
            return larger<decltype(wrong)>(decltype(wrong){}, wrong - Scalar<decltype(wrong)>(clip));
        };
        if constexpr (!Power::whole) {
            if (one_root()) {
                return with_fixed_power<2>(power.powers.off - 1, [&](auto raise) KULLBACK_LAMBDA {
                    body([&](auto held, auto wrong) KULLBACK_LAMBDA {
                        using V = decltype(wrong);
                        const V x = clipped(wrong), begun = root<V>(select<V>(held, wrong, x));
                        return select<V>(held, begun, raise(x) * begun);
                    });
                });
            }
        }
        with_fixed_power<Power::in_halves>(power.powers.off * Power::in_halves, [&](auto raise) KULLBACK_LAMBDA {
            body([&](auto, auto wrong) KULLBACK_LAMBDA {
                using V = decltype(wrong);
                const V x = clipped(wrong);
                if (power.powers.off != 0) return raise(x);
                return select<V>(x <= Scalar<V>(0), V{}, x * Scalar<V>(0) + Scalar<V>(1));  // 0^0 is 1, and NaN NaN
            });
        });
    }
    template <class Body>
    void with_on(Body body) const {
        if constexpr (!Power::whole) {
            if (one_root()) {
                return with_fixed_power<2>(power.powers.on - 1, [&](auto raise) KULLBACK_LAMBDA {
                    body([&](auto wrong, auto begun) KULLBACK_LAMBDA { return raise(wrong) * begun; });
                });
            }
        }
        with_fixed_power<Power::in_halves>(power.powers.on * Power::in_halves, [&](auto raise) KULLBACK_LAMBDA {
            body([&](auto wrong, auto) KULLBACK_LAMBDA { return raise(wrong); });
        });
    }

    // (x^gamma cost)' and what it is made of: with `raised` x^gamma, d log(x) = -wrong right / x, d cost = -wrong right / y.
    template <class V>
    KULLBACK_INLINE HardTerm<V> hard_term(Mask<V> held, V right, V wrong, V raised) const {
        using T = Scalar<V>;
        // x = 0 has raised = 0, and y = 0 right = 0
        const V tiny = splat<V>(Constants<T>::least_normal), least = splat<V>(least_number<T>);
        const V x = larger<V>(V{}, wrong - T(clip)), y = larger<V>(least, right + T(clip));
        const V both = (wrong * right) / (larger<V>(tiny, x) * y);
        const V over_x = select<V>(held, right, both * y), over_y = select<V>(held, wrong, both * x);
        return {raised, power.template gamma<V>(held) * raised * over_x, raised * over_y};
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
        if constexpr (Power::whole && !curved) {
            // (x^gamma cost)' in steps that need no 1 / x
            const V x = larger<V>(V{}, difference);
            const V share = pick(held, one, odds.right / y);
            const V lower = power.template lower<V>(held, x);
            V raised = power.template from_lower<V>(held, x, lower);
            if (power.powers.off == 0) raised = select<V>(outside, V{}, raised);  // 0^0 is 1
            const V steep = lower * power.template gamma<V>(held) * (odds.wrong * odds.right);
            // right is 0 where the cost is infinite
            const V level = rounded<V>(raised * (odds.wrong * share));
            return {raised * cost, steep * bounded<V>(cost) + level, V{}};
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
