// Poly-1: -log p + e (1 - p) of the true class.
#pragma once

#include "skeletons/true_class.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

struct PolyFormula {
    static constexpr const char* name = "poly";

    double epsilon;

    explicit PolyFormula(const Job& job) : epsilon(job.parameters[0]) {}

    template <class V>
    KULLBACK_INLINE TrueClass<V> at(const TargetClass<V>& y) const {
        using T = Scalar<V>;
        const T e = T(epsilon);
        return {-y.log_p + e * y.miss, T(1) + e * y.p, y.p * (T(1) + e * (y.p - y.miss))};
    }
};
using Poly = TrueClassLoss<PolyFormula>;

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
