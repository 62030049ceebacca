// Generalised cross-entropy: (1 - p^q) / q of the true class.
#pragma once

#include "skeletons/true_class.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

struct GeneralisedCrossEntropyFormula {
    static constexpr const char* name = "generalised_cross_entropy";

    double q;

    explicit GeneralisedCrossEntropyFormula(const Job& job) : q(job.parameters[0]) {}

    template <class V>
    KULLBACK_INLINE TrueClass<V> at(const TargetClass<V>& y) const {
        using T = Scalar<V>;
        const V scaled = y.log_p * T(q), power = exp_nonpositive<V>(scaled);
        return {complement_of_exp<V>(scaled, power) * T(1 / q), power, power * (T(q) * y.miss - y.p) * T(-1)};
    }
};
using GeneralisedCrossEntropy = TrueClassLoss<GeneralisedCrossEntropyFormula>;

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
