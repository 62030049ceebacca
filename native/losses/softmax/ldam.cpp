// LDAM: cross-entropy as if the true class' logit were its margin D lower, log(1 + e^D (1 - p) / p).
#include "skeletons/softmax_family.hpp"

namespace kullback::KULLBACK_LEVEL {

struct Ldam : SoftmaxLoss {
    static constexpr bool shifted = true, apart = true;

    explicit Ldam(const Job&) {}

    // The margin D, and with E = e^D: 1 / E, (E - 1) / E, and E - 1 where that is a number.
    template <class V>
    struct Shift {
        V margin, inverse, keeps, more;
    };
    template <class V>
    KULLBACK_INLINE Shift<V> shift_of(V margin) const {
        using T = Scalar<V>;
        const ExpAndRest<V> by = exp_and_rest<V>(-margin);
        const Mask<V> moderate = margin <= T(largest_moderate_shift);
        return {margin, by.exp, by.rest, keep<V>(moderate, by.rest / select<V>(moderate, by.exp, splat<V>(T(1))))};
    }
    template <class V, class T>
    static KULLBACK_INLINE Shift<V> splat_shift(const Shift<T>& x) {
        return {splat<V>(x.margin), splat<V>(x.inverse), splat<V>(x.keeps), splat<V>(x.more)};
    }

    // The cost is -log p + log(p + E (1 - p)), where the second logarithm is that of 1 + (E - 1)(1 - p): nothing cancels.
    // Where E is too large to be a number, which happens in double alone, it is D + log((1 - p) + p / E).
    template <class V>
    KULLBACK_INLINE Cost<V> on(const Chance<V>& y, const Shift<V>& shift) const {
        using T = Scalar<V>;
        if (y.knows_log_miss) return far_out<V>(y, shift.margin);
        const V rest = y.miss + shift.inverse * y.p;  // (p + E (1 - p)) / E
        const V pull = T(1) / rest;
        V log;
        if constexpr (sizeof(T) == 4) {
            log = log1p_nonnegative<V>(shift.more * y.miss, shift.inverse * pull);
        } else {
            const Mask<V> moderate = shift.margin <= T(largest_moderate_shift);
            log = log1p_nonnegative<V>(select<V>(moderate, shift.more * y.miss, shift.keeps * y.p * pull));
            log = select<V>(moderate, log, shift.margin - log);
        }
        return {log - y.log_p, pull, pull * (y.p * shift.inverse * pull)};
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
