// Cross-entropy, sum_k -s_k log p_k with s_k = w_k ((1 - e) t_k + e/C sum t): linear in the targets.
#include "skeletons/softmax_family.hpp"

namespace kullback::KULLBACK_LEVEL {

struct CrossEntropy : SoftmaxLoss {
    static constexpr bool linear = true, by_sums = true;

    double hard, spread, weight_sum;

    explicit CrossEntropy(const Job& job)
        : hard(1 - job.smoothing),
          spread(job.smoothing / double(job.classes)),
          weight_sum(job.class_weight ? job.class_weight_sum : double(job.classes)) {}

    BySums by() const { return {1, 0, 0}; }
    bool spreads() const { return spread != 0; }

    template <class V>
    KULLBACK_INLINE RowGradient<V> at_class(const TargetClass<V>& y) const {
        using T = Scalar<V>;
        const V direct = y.weight * T(hard);
        RowGradient<V> g;
        g.loss = keep<V>(direct != T(0), -direct * y.log_p) - T(spread) * y.weighted_log_p;
        g.on_p = direct + T(spread * weight_sum);
        g.on_weight = splat<V>(T(-spread));
        g.at_class = y.p * T(spread * weight_sum) - y.weight * T(spread) - direct * y.miss;
        return g;
    }

    template <class V>
    KULLBACK_INLINE Cost<V> on(const Chance<V>& y, const Shift<V>&) const {
        return {-y.log_p, splat<V>(Scalar<V>(1)), y.p};
    }
};

KULLBACK_SOFTMAX_LOSS(cross_entropy, CrossEntropy)

}  // namespace kullback::KULLBACK_LEVEL
