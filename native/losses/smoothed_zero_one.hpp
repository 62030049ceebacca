// The smoothed 0-1 loss: 1 - p of the true class.
#pragma once

#include "skeletons/true_class.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

struct SmoothedZeroOneFormula {
    static constexpr const char* name = "smoothed_zero_one";

    explicit SmoothedZeroOneFormula(const Job&) {}

    template <class V>
    KULLBACK_INLINE TrueClass<V> at(const TargetClass<V>& y) const {
        return {y.miss, y.p, y.p * (y.p - y.miss)};
    }
};
using SmoothedZeroOne = TrueClassLoss<SmoothedZeroOneFormula>;

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
