// Poly-1: -log p + e (1 - p) of the true class.
#include "skeletons/softmax_family.hpp"

namespace kullback::KULLBACK_LEVEL {

struct Poly : SoftmaxLoss {
    static constexpr bool by_sums = true;

    double epsilon;

    explicit Poly(const Job& job) : epsilon(job.parameters[0]) {}

    BySums by() const { return {1, epsilon, 0}; }

    template <class V>
    KULLBACK_INLINE Cost<V> on(const Chance<V>& y, const Shift<V>&) const {
        using T = Scalar<V>;
        const T e = T(epsilon);
        return {-y.log_p + e * y.miss, T(1) + e * y.p, y.p * (T(1) + e * (y.p - y.miss))};
    }
};

KULLBACK_SOFTMAX_LOSS(poly, Poly)

}  // namespace kullback::KULLBACK_LEVEL
