// Focal per label: -wrong^gamma log(right).
#pragma once

#include "losses/focusing.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

template <class Power>
struct FocalSide {
    static constexpr LabelLog log_used = LabelLog::one_plus_e;
    Power power;

    template <bool curved, class V, class Held>
    KULLBACK_INLINE LabelTerm<V> at(Held held, const Odds<V>& odds) const {
        const V one = splat<V>(Scalar<V>(1));
        const V weight = power.template of<V>(held, odds.wrong, odds.wrong_cost);
        return focused<curved, V>(odds, weight, power.template gamma<V>(held), odds.cost, one, one);
    }
};

struct SigmoidFocal {
    static constexpr const char* name = "sigmoid_focal";

    template <class Body>
    static void with(const Job& job, Body body) {
        const double gamma = job.parameters[0];
        with_power(gamma, [&](auto power) { body(FocalSide<decltype(power)>{power}); });
    }
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
