// Binary cross-entropy per label: -log of the probability of what is the case.
#pragma once

#include "skeletons/sigmoid_tile.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

struct BinaryCrossEntropy {
    static constexpr const char* name = "binary_cross_entropy";
    static constexpr LabelLog log_used = LabelLog::one_plus_e;

    template <class Body>
    static void with(const Job&, Body body) {
        body(BinaryCrossEntropy{});
    }

    template <bool curved, class V, class Held>
    KULLBACK_INLINE LabelTerm<V> at(Held, const Odds<V>& odds) const {
        return {odds.cost, odds.wrong, odds.right * odds.wrong};
    }
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
