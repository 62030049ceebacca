// Jensen-Shannon divergence of p from the true class, of which a share r is mixed in, scaled: -log p for r -> 0.
#include "skeletons/softmax_family.hpp"
namespace kullback::KULLBACK_LEVEL {
struct JensenShannon : SoftmaxLoss {
    double r, log_rest;
    explicit JensenShannon(const Job& job) : r(job.parameters[0]), log_rest(-log1p_nonnegative(r / (1 - r))) {}
    template <class V>
    KULLBACK_INLINE Cost<V> on(const Chance<V>& y, const Shift<V>&) const {
        using T = Scalar<V>;
        // less than a normal number only where it counts for nothing
        const V mixed = larger<V>(splat<V>(Constants<T>::least_normal), y.p * T(1 - r) + T(r));
        const V log_mixed = log_of_normal<V>(mixed, (T(1) - mixed) - y.miss * T(1 - r));
        const V p_log_p = y.times_log_p(y.p);
        const V pull = (p_log_p + y.p * (T(log_rest) - log_mixed)) * T(1 / log_rest);
        return {(mixed * log_mixed * T(1 / (1 - r)) - p_log_p + y.miss * T(log_rest)) * T(1 / log_rest), pull,
                (y.p - y.miss) * pull - y.p * y.miss * T(r / log_rest) / mixed};
    }
};
KULLBACK_SOFTMAX_LOSS(jensen_shannon, JensenShannon)
}  // namespace kullback::KULLBACK_LEVEL
