// LDAM: cross-entropy as if the true class' logit were its margin D lower, log(1 + e^D (1 - p) / p).
#include "skeletons/softmax_family.hpp"

namespace kullback::KULLBACK_LEVEL {

struct Ldam : SoftmaxLoss {
    static constexpr bool shifted = true, apart = true;

    explicit Ldam(const Job&) {}

    // With E = e^D the cost is -log p + log(p + E (1 - p)), where the second logarithm is that of 1 + (E - 1)(1 - p):
    // nothing cancels. Where E is too large to be a number it is D + log((1 - p) + p / E).
    template <class V>
    KULLBACK_INLINE Cost<V> on(const Chance<V>& y, V margin) const {
        using T = Scalar<V>;
        if (y.knows_log_miss) return far_out<V>(y, margin);
        const ExpAndRest<V> by = exp_and_rest<V>(-margin);
        const V inverse = by.exp, keeps = by.rest;               // 1 / E and (E - 1) / E
        const V rest = y.miss + inverse * y.p;                   // (p + E (1 - p)) / E
        const V pull = T(1) / rest;
        const Mask<V> moderate = margin <= T(largest_moderate_shift);
        const V more =
            select<V>(moderate, keeps * y.miss / select<V>(moderate, inverse, splat<V>(T(1))), keeps * y.p * pull);
        const V log = log1p_nonnegative<V>(more);
        return {select<V>(moderate, log, margin - log) - y.log_p, pull, pull * (y.p * inverse * pull)};
    }

    // The same by log-odds, for a class so likely that 1 - p may be no number any more.
    template <class V>
    KULLBACK_INLINE Cost<V> far_out(const Chance<V>& y, V margin) const {
        using T = Scalar<V>;
        const V over = margin - (y.log_p - y.log_miss());
        const V e = exp_nonpositive<V>(-absolute<V>(over));
        const V large = T(1) / (T(1) + e), small = e * large;
        const Mask<V> up = over > T(0);
        const V miss = select<V>(up, large, small), p = select<V>(up, small, large);
        const V pull = miss / select<V>(y.miss > T(0), y.miss, splat<V>(Constants<T>::least_normal));
        return {log1p_nonnegative<V>(e) + select<V>(up, over, V{}), pull, pull * p};
    }
};

KULLBACK_SOFTMAX_LOSS(ldam, Ldam)

}  // namespace kullback::KULLBACK_LEVEL
