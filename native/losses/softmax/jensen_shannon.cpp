// Jensen-Shannon divergence of p from the true class, of which a share r is mixed in, scaled: -log p for r -> 0.
#include "skeletons/softmax_family.hpp"
namespace kullback::KULLBACK_LEVEL {
struct JensenShannon : SoftmaxLoss {
    double r, log_rest, odds, log_share;
    explicit JensenShannon(const Job& job)
        : r(job.parameters[0]),
          log_rest(-log1p_nonnegative(r / (1 - r))),
          odds((1 - r) / r),
          log_share(-log1p_nonnegative(odds)) {}
    // log((1 - r) p + r)
    template <class V>
    KULLBACK_INLINE V log_of_mixed(V mixed, const Chance<V>& y) const {
        using T = Scalar<V>;
        const V x = y.p * T(odds);
        if (all_tiny<V>(larger<V>(x, y.p), y.scattered)) {
            return ((x * T(1.0 / 3) - T(0.5)) * (x * x) + x) + T(log_share);
        }
        return log_of_normal<V>(mixed, (T(1) - mixed) - y.miss * T(1 - r));
    }
    template <class V>
    KULLBACK_INLINE Cost<V> on(const Chance<V>& y, const Shift<V>&) const {
        using T = Scalar<V>;
        // less than a normal number only where it counts for nothing
        const V mixed = larger<V>(splat<V>(Constants<T>::least_normal), y.p * T(1 - r) + T(r));
        const V log_mixed = log_of_mixed<V>(mixed, y);
        const V p_log_p = y.times_log_p(y.p);
        const V pull = (p_log_p + y.p * (T(log_rest) - log_mixed)) * T(1 / log_rest);
        return {(mixed * log_mixed * T(1 / (1 - r)) - p_log_p + y.miss * T(log_rest)) * T(1 / log_rest), pull,
                (y.p - y.miss) * pull - y.p * y.miss * T(r / log_rest) / mixed};
    }
};
KULLBACK_SOFTMAX_LOSS(jensen_shannon, JensenShannon)
}  // namespace kullback::KULLBACK_LEVEL
