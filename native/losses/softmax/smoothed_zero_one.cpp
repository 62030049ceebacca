// The smoothed 0-1 loss: 1 - p of the true class.
#include "skeletons/softmax_family.hpp"

namespace kullback::KULLBACK_LEVEL {

struct SmoothedZeroOne : SoftmaxLoss {
    static constexpr bool by_sums = true;

    explicit SmoothedZeroOne(const Job&) {}

    BySums by() const { return {0, 1, 0}; }

    template <class V>
    KULLBACK_INLINE Cost<V> on(const Chance<V>& y, const Shift<V>&) const {
        return {y.miss, y.p, y.p * (y.p - y.miss)};
    }
};

KULLBACK_SOFTMAX_LOSS(smoothed_zero_one, SmoothedZeroOne)

}  // namespace kullback::KULLBACK_LEVEL
