// Focal: -(1 - p)^g log p of each label that holds, and mirrored of each that does not.
#pragma once

#include "skeletons/sigmoid.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

// m^power for m = 1 - p, as exp(power log m); 0 where m is 0.
template <class V>
KULLBACK_INLINE V power_of_miss(V p, V miss, Scalar<V> power) {
    using T = Scalar<V>;
    const Mask<V> some = miss > T(0);
    const V log_miss = -log1p_nonnegative<V>(p / select<V>(some, miss, splat<V>(T(1))));
    const V raised = exp_nonpositive<V>(log_miss * power);
    // a NaN in `miss` must come out as one
    return power == T(0) ? splat<V>(T(1)) : select<V>(some, raised, miss);
}

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
