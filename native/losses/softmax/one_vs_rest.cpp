// One-vs-rest: -log p of the true class and -log(1 - p) of every other.
#include "skeletons/softmax_family.hpp"

namespace kullback::KULLBACK_LEVEL {

struct OneVsRest : SoftmaxLoss {
    static constexpr bool looks_at_all = true, apart = true, logs = true;

    explicit OneVsRest(const Job&) {}

    template <class V>
    KULLBACK_INLINE Cost<V> on(const Chance<V>& y, const Shift<V>&) const {
        return {-y.log_p, splat<V>(Scalar<V>(1)), y.p};
    }
    template <class V>
    KULLBACK_INLINE Cost<V> off(const Chance<V>& y) const {
        const auto [log, inverse] = y.of_miss();
        return {-log, inverse, y.miss};
    }
};

KULLBACK_SOFTMAX_LOSS(one_vs_rest, OneVsRest)

}  // namespace kullback::KULLBACK_LEVEL
