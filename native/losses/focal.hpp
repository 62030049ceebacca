// Focal: -(1 - p)^g log p of the true class, or of each label that holds, and mirrored of each that does not.
#pragma once

#include "skeletons/sigmoid.hpp"
#include "skeletons/true_class.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

struct FocalFormula {
    static constexpr const char* name = "focal";

    double gamma;

    explicit FocalFormula(const Job& job) : gamma(job.parameters[0]) {}

    template <class V>
    KULLBACK_INLINE TrueClass<V> at(const TargetClass<V>& y) const {
        using T = Scalar<V>;
        const T g = T(gamma);
        const V weight = power_of_miss<V>(y.p, y.miss, g);
        // p log p / (1 - p), which is 0 at p = 0 and -1 at p = 1
        const Mask<V> some = y.miss > T(0);
        const V ratio = select<V>(some, keep<V>(y.p != T(0), y.p * y.log_p) / select<V>(some, y.miss, splat<V>(T(1))),
                                  y.miss - T(1));
        TrueClass<V> x;
        x.value = keep<V>(weight != T(0), -weight * y.log_p);
        x.pull = weight * (T(1) - g * ratio);
        x.bend = weight * (g * ratio * (y.miss - g * y.p) + (2 * g + 1) * y.p);
        return x;
    }
};
using Focal = TrueClassLoss<FocalFormula>;

// One label: value and derivatives in the log-odds of -(1 - p)^g log p.
template <class V>
KULLBACK_INLINE LabelTerm<V> focal_label(V p, V miss, V cost, Scalar<V> g) {
    using T = Scalar<V>;
    const V weight = power_of_miss<V>(p, miss, g);
    const V p_cost = keep<V>(p != T(0), p * cost);
    LabelTerm<V> x;
    x.value = keep<V>(weight != T(0), weight * cost);
    x.first = -weight * (g * p_cost + miss);
    x.second = weight * ((2 * g + 1) * p * miss - g * p_cost * (miss - g * p));
    return x;
}

template <class V>
KULLBACK_INLINE LabelTerm<V> both_sides(const LabelTerm<V>& holds, V on, const LabelTerm<V>& not_so, V off) {
    using T = Scalar<V>;
    // no mass times an infinite cost is nothing; the mirrored derivative changes its sign
    return {keep<V>(on != T(0), on * holds.value) + keep<V>(off != T(0), off * not_so.value),
            on * holds.first - off * not_so.first, on * holds.second + off * not_so.second};
}

struct SigmoidFocal {
    static constexpr const char* name = "sigmoid_focal";

    double gamma;

    explicit SigmoidFocal(const Job& job) : gamma(job.parameters[0]) {}

    template <class V>
    KULLBACK_INLINE LabelTerm<V> at(const Odds<V>& odds, V on, V off) const {
        const Scalar<V> g = Scalar<V>(gamma);
        return both_sides<V>(focal_label<V>(odds.p, odds.miss, odds.cost_on, g), on,
                             focal_label<V>(odds.miss, odds.p, odds.cost_off, g), off);
    }
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
