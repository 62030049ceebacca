// Brier: (1 - p)^2 of the true class and p^2 of every other.
#include "skeletons/softmax_family.hpp"

namespace kullback::KULLBACK_LEVEL {

struct Brier : SoftmaxLoss {
    static constexpr bool looks_at_all = true;

    explicit Brier(const Job&) {}

    template <class V>
    KULLBACK_INLINE Cost<V> on(const Chance<V>& y, V) const {
        using T = Scalar<V>;
        const V slope = T(2) * y.p * y.miss;
        return {y.miss * y.miss, slope, slope * (T(2) * y.p - y.miss)};
    }
    template <class V>
    KULLBACK_INLINE Cost<V> off(const Chance<V>& y) const {
        using T = Scalar<V>;
        return {y.p * y.p, T(2) * y.p, T(2) * y.p * y.miss * (T(2) * y.miss - y.p)};
    }
};

KULLBACK_SOFTMAX_LOSS(brier, Brier)

}  // namespace kullback::KULLBACK_LEVEL
