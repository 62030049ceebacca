// The negative entropy of a label, p log p + (1 - p) log(1 - p), whichever way the label points.
#pragma once

#include "skeletons/sigmoid_tile.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

struct LabelEntropy {
    static constexpr const char* name = "label_entropy";
    static constexpr LabelLog log_used = LabelLog::one_plus_e;

    template <class Body>
    static void with(const Job&, Body body) {
        body(LabelEntropy{});
    }

    template <bool curved, class V, class Held>
    KULLBACK_INLINE LabelTerm<V> at(Held, const Odds<V>& odds) const {
        using T = Scalar<V>;
        // an infinite logit's are infinite, and no share of that is nothing
        const V cost = bounded<V>(odds.cost), wrong_cost = bounded<V>(odds.wrong_cost);
        const V lead = larger<V>(splat<V>(T(-1e30)), bounded<V>(odds.lead));
        const V spread = odds.right * odds.wrong;
        return {-(odds.wrong * wrong_cost + rounded<V>(odds.right * cost)), -spread * lead,
                spread * (T(1) - (odds.right - odds.wrong) * lead)};
    }
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
