// Generalised cross-entropy: (1 - p^q) / q of the true class.
#include "skeletons/softmax_family.hpp"

namespace kullback::KULLBACK_LEVEL {

struct GeneralisedCrossEntropy : SoftmaxLoss {
    double q;

    explicit GeneralisedCrossEntropy(const Job& job) : q(job.parameters[0]) {}

    template <class V>
    KULLBACK_INLINE Cost<V> on(const Chance<V>& y, const Shift<V>&) const {
        using T = Scalar<V>;
        const auto [power, rest] = exp_and_rest<V>(y.log_p * T(q));
        return {rest * T(1 / q), power, power * (y.p - T(q) * y.miss)};
    }
};

KULLBACK_SOFTMAX_LOSS(generalised_cross_entropy, GeneralisedCrossEntropy)

}  // namespace kullback::KULLBACK_LEVEL
