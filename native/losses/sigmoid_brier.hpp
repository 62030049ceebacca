// The Brier score of a label: (1 - p)^2 if it holds, p^2 if not.
#pragma once

#include "losses/focal.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

struct SigmoidBrier {
    static constexpr const char* name = "sigmoid_brier";

    explicit SigmoidBrier(const Job&) {}

    template <class V>
    static KULLBACK_INLINE LabelTerm<V> squared(V p, V m) {
        using T = Scalar<V>;
        const V pull = T(-2) * p * m * m;
        return {m * m, pull, pull * (m - T(2) * p)};
    }

    template <class V>
    KULLBACK_INLINE LabelTerm<V> at(const Odds<V>& odds, V on, V off) const {
        return both_sides<V>(squared<V>(odds.p, odds.miss), on, squared<V>(odds.miss, odds.p), off);
    }
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
