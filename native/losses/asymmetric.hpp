// Asymmetric: focal for labels that hold; for those that do not, -x^g log(1 - x) with x = max(p - clip, 0).
#pragma once

#include "losses/sigmoid_focal.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

template <class Power>
struct ClippedSide {
    Power power;
    double clip;

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
        if constexpr (Power::whole && !curved) {
            // (x^gamma cost)' in steps that need neither 1 / x nor a second logarithm
            const V x = larger<V>(V{}, difference);
            const V up = pick(held, odds.e + one, smaller<V>(one, y)), lost = pick(held, odds.e - (up - one), V{});
            const V log_up = log_to_two<V>(up, lost * odds.large);
            const V cost = pick(held, log_up + odds.excess, -log_up);
            const V share = pick(held, one, odds.right / y);
            const V steep = power.template derivative<V>(held, x) * (odds.wrong * odds.right);
            const V raised = select<V>(outside, V{}, power.template of<V>(held, x, x));
            // right is 0 where the cost is infinite
            return {raised * cost, steep * bounded<V>(cost) + raised * (odds.wrong * share), V{}};
        } else {
            const V x = select<V>(outside, one, difference);
            const V inverse = T(1) / pick(held, one, x * y);
            const V steep = pick(held, one, odds.wrong * (y * inverse));
            const V share = pick(held, one, odds.right * (x * inverse));
            V log_y = log_to_one<V>(y);
            V log_x = log_y;
            if constexpr (!Power::whole) {
                // with a power below 1 a tiny x counts for much: give the logarithm what y has lost of it
                log_y += keep<V>(y > T(0.5), ((one - y) - x) * (x * inverse));
                log_x = log_to_one<V>(x);
            }
            const V cost = pick(held, odds.cost, -log_y), x_cost = pick(held, odds.wrong_cost, -log_x);
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
