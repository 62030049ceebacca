// LDAM: cross-entropy as if the true class' logit were its margin D lower, log(1 + e^D (1 - p) / p).
#include "skeletons/softmax_family.hpp"

namespace kullback::KULLBACK_LEVEL {

struct Ldam : SoftmaxLoss {
    static constexpr bool shifted = true, apart = true;

    explicit Ldam(const Job&) {}

    // 1 - e^-D of a margin D.
    template <class V>
    KULLBACK_INLINE V kept_of(V margin) const {
        return exp_and_rest<V>(-margin).rest;
    }

    // With E = e^D the cost is -log p + log(p + E (1 - p)), where the second logarithm is that of 1 + (E - 1)(1 - p):
    // nothing cancels. Where E is too large to be a number, which happens in double alone, it is D + log((1 - p) + p / E).
    template <class V>
    KULLBACK_INLINE Cost<V> on(const Chance<V>& y, const Shift<V>& shift) const {
        using T = Scalar<V>;
        if (y.knows_log_miss) return far_out<V>(y, shift.number);
        if (y.unlikely) return unlikely<V>(y, shift);
        if (shift.made) return beside_others<V>(shift.parts, shift.number);
        const auto [inverse, keeps] = exp_and_rest<V>(-shift.number);  // 1 / E, (E - 1) / E
        const Mask<V> moderate = shift.number <= T(largest_moderate_shift);
        const V rest = y.miss + inverse * y.p;  // (p + E (1 - p)) / E
        const V pull = T(1) / rest;
        const V more = keep<V>(moderate, keeps / select<V>(moderate, inverse, splat<V>(T(1))));  // E - 1
        V log = log1p_nonnegative<V>(select<V>(moderate, more * y.miss, keeps * y.p * pull));
        log = select<V>(moderate, log, shift.number - log);
        return {log - y.log_p, pull, pull * (y.p * inverse * pull)};
    }

    // E of a moderate margin.
    template <class V>
    KULLBACK_INLINE V made_of(V margin) const {
        return Scalar<V>(1) / exp_nonpositive<V>(-margin);
    }

    // The same as cross-entropy's with all other classes' exp E times as large: one logarithm does. Second derivatives do
    // not come here.
    template <class V>
    KULLBACK_INLINE Cost<V> beside_others(const Parts<V>& y, V lift) const {
        using T = Scalar<V>;
        const V others = lift * y.others, sum = y.own + others, inverse = T(1) / sum;
        const V log_sum = log1p_nonnegative<V>(larger<V>(V{}, others + (y.own - T(1))), inverse);
        return {log_sum - y.d, lift * (y.own + y.others) * inverse, V{}};
    }

    // For p <= 1/2, where nothing can cancel: D - log p + log(1 - p (1 - 1 / E)). Second derivatives do not come here.
    template <class V>
    KULLBACK_INLINE Cost<V> unlikely(const Chance<V>& y, const Shift<V>& shift) const {
        const auto [log, pull] = small_miss<V>(y.p * shift.kept, y.scattered);
        return {(shift.number - y.log_p) + log, pull, V{}};
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
