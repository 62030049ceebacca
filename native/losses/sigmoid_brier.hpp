// The Brier score of a label: the squared probability of what is not the case.
#pragma once

#include "skeletons/sigmoid_tile.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

struct SigmoidBrier {
    static constexpr const char* name = "sigmoid_brier";
    static constexpr LabelLog log_used = LabelLog::none;

    template <class Body>
    static void with(const Job&, Body body) {
        body(SigmoidBrier{});
    }

    template <bool curved, class V, class Held>
    KULLBACK_INLINE LabelTerm<V> at(Held, const Odds<V>& odds) const {
        using T = Scalar<V>;
        const V square = odds.wrong * odds.wrong;
        const V pull = T(2) * odds.right * square;
        return {square, pull, pull * (T(2) * odds.right - odds.wrong)};
    }
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
