// Binary cross-entropy per label: on * softplus(-z) + off * softplus(z).
#pragma once

#include "skeletons/sigmoid.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

struct BinaryCrossEntropy {
    static constexpr const char* name = "binary_cross_entropy";

    explicit BinaryCrossEntropy(const Job&) {}

    template <class V>
    KULLBACK_INLINE LabelTerm<V> at(const Odds<V>& odds, V on, V off) const {
        using T = Scalar<V>;
        LabelTerm<V> x;
        // a label certainly absent may have logit -inf: no mass times an infinite cost is nothing
        x.value = keep<V>(on != T(0), on * odds.cost_on) + keep<V>(off != T(0), off * odds.cost_off);
        x.first = off * odds.p - on * odds.miss;
        x.second = (on + off) * odds.p * odds.miss;
        return x;
    }
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
