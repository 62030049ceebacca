// Focal: -(1 - p)^g log p of the true class.
#include "skeletons/softmax_family.hpp"

namespace kullback::KULLBACK_LEVEL {

struct Focal : SoftmaxLoss {
    double gamma;

    explicit Focal(const Job& job) : gamma(job.parameters[0]) {}

    template <class V>
    KULLBACK_INLINE Cost<V> on(const Chance<V>& y, const Shift<V>&) const {
        using T = Scalar<V>;
        const T g = T(gamma);
        if (g >= T(1)) {
            // less by one power: then nothing is divided
            const V less = power_of<V>(y.miss, g - T(1), [&]() KULLBACK_LAMBDA { return y.log_miss(); });
            const V steep = g * keep<V>(y.p != T(0), y.p * y.log_p), weight = less * y.miss;
            return {keep<V>(weight != T(0), -weight * y.log_p), less * (y.miss - steep),
                    less * (steep * (y.miss - g * y.p) + (2 * g + 1) * y.p * y.miss)};
        }
        const V weight = power_of<V>(y.miss, g, [&]() KULLBACK_LAMBDA { return y.log_miss(); });
        // p log p / (1 - p), which is 0 at p = 0 and -1 at p = 1
        const Mask<V> some = y.miss > T(0);
        const V ratio = select<V>(some, keep<V>(y.p != T(0), y.p * y.log_p) / select<V>(some, y.miss, splat<V>(T(1))),
                                  y.miss - T(1));
        return {keep<V>(weight != T(0), -weight * y.log_p), weight * (T(1) - g * ratio),
                weight * (g * ratio * (y.miss - g * y.p) + (2 * g + 1) * y.p)};
    }
};

KULLBACK_SOFTMAX_LOSS(focal, Focal)

}  // namespace kullback::KULLBACK_LEVEL
