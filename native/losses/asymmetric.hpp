// Asymmetric: focal for labels that hold; for those that do not, -x^g log(1 - x) with x = max(p - clip, 0).
#pragma once

#include "losses/sigmoid_focal.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

template <class Power>
struct ClippedSide {
    static constexpr LabelLog log_used = Power::by_log ? LabelLog::one_plus_e : LabelLog::own;
    Power power;
    double clip;

    // Of a label that holds log(1 + e), of one that does not log(1 - x): of what, and what rounding has taken from that.
    template <class V, class Held>
    KULLBACK_INLINE LogOf<V> log_of(Held held, V e, V large, V right, V wrong) const {
        using T = Scalar<V>;
        const V one = splat<V>(T(1)), c = splat<V>(T(clip)), y = smaller<V>(one, right + c), up = pick(held, e + one, y);
        V lost_off{};
        if constexpr (!Power::whole) {
            // with a power below 1 a tiny x counts for much; x + 1 stands for 1 / y, a few digits of which suffice
            const V x = larger<V>(V{}, wrong - c), lost = (one - y) - x;
            lost_off = keep<V>(y > T(0.5), lost * (x + one));
        }
        return {up, pick(held, (e - (up - one)) * large, lost_off)};
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
        V log_y = odds.cost;
        if constexpr (curved || Power::by_log || std::is_same_v<Held, Absent>) {
            const LogOf<V> y_of = log_of(held, odds.e, odds.large, odds.right, odds.wrong);
            log_y = log_to_two<V>(y_of.x, y_of.lost);
        }
        const V cost = pick(held, odds.cost, -log_y);
        if constexpr (Power::whole && !curved) {
            // (x^gamma cost)' in steps that need no 1 / x
            const V x = larger<V>(V{}, difference);
            const V share = pick(held, one, odds.right / y);
            const V lower = power.template lower<V>(held, x);
            const V raised = select<V>(outside, V{}, power.template from_lower<V>(held, x, lower));
            const V steep = lower * power.template gamma<V>(held) * (odds.wrong * odds.right);
            // right is 0 where the cost is infinite
            return {raised * cost, steep * bounded<V>(cost) + raised * (odds.wrong * share), V{}};
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
