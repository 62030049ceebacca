// Focal: -(1 - p)^g log p of the true class.
#include "skeletons/softmax_family.hpp"

namespace kullback::KULLBACK_LEVEL {

template <class Power>
struct FocalOf : SoftmaxLoss {
    Power gamma;

    template <class V>
    KULLBACK_INLINE Cost<V> on(const Chance<V>& y, const Shift<V>&) const {
        using T = Scalar<V>;
        const T g = T(double(gamma));
        if (g >= T(1)) {
            // less by one power: then nothing is divided
            const V less = power_of<V>(y.miss, g - T(1), [&]() KULLBACK_LAMBDA { return y.log_miss(); });
            const V steep = g * y.times_log_p(y.p), weight = less * y.miss;
            return {-y.times_log_p(weight), less * (y.miss - steep),
                    less * (steep * (y.miss - g * y.p) + (2 * g + 1) * y.p * y.miss)};
        }
        const V weight = power_of<V>(y.miss, g, [&]() KULLBACK_LAMBDA { return y.log_miss(); });
        // p log p / (1 - p), which is 0 at p = 0 and -1 at p = 1
        const Mask<V> some = y.miss > T(0);
        const V ratio = select<V>(some, y.times_log_p(y.p) / select<V>(some, y.miss, splat<V>(T(1))),
                                  y.miss - T(1));
        return {-y.times_log_p(weight), weight * (T(1) - g * ratio),
                weight * (g * ratio * (y.miss - g * y.p) + (2 * g + 1) * y.p)};
    }
};

struct AnyPower {
    double number;
    operator double() const { return number; }
};
template <int Halves>
struct KnownPower {
    constexpr operator double() const { return Halves / 2.0; }
};

struct Focal : FocalOf<AnyPower> {
    explicit Focal(const Job& job) { gamma.number = job.parameters[0]; }
};

template <class Body>
KULLBACK_INLINE void with_form(const Focal& loss, Body body) {
    if (loss.gamma.number == 2) return body(FocalOf<KnownPower<4>>{});
    if (loss.gamma.number == 0.5) return body(FocalOf<KnownPower<1>>{});
    body(loss);
}

KULLBACK_SOFTMAX_LOSS(focal, Focal)

}  // namespace kullback::KULLBACK_LEVEL
