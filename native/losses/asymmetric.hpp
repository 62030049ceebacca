// Asymmetric: focal for labels that hold; for those that do not, -x^g log(1 - x) with x = max(p - clip, 0).
#pragma once

#include "losses/focal.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

struct Asymmetric {
    static constexpr const char* name = "asymmetric";

    double gamma_on, gamma_off, clip;

    explicit Asymmetric(const Job& job)
        : gamma_on(job.parameters[0]), gamma_off(job.parameters[1]), clip(job.parameters[2]) {}

    template <class V>
    KULLBACK_INLINE LabelTerm<V> at(const Odds<V>& odds, V on, V off) const {
        using T = Scalar<V>;
        const T g = T(gamma_off), c = T(clip);
        const V p = odds.p, m = odds.miss, one = splat<V>(T(1));
        const Mask<V> inside = p > c;
        const V x = select<V>(inside, p - c, one), y = m + c;  // 1 - x
        const V cost = clip == 0 ? odds.cost_off : log1p_nonnegative<V>(x / y);
        const V weight = keep<V>(inside, power_of_miss<V>(y, x, g));
        const V share = select<V>(y > T(0), m / select<V>(y > T(0), y, one), one);
        const V m_ratio = keep<V>(m != T(0), m * cost) / x, steep = p / x;
        const V first = p * weight * (share + g * m_ratio);
        const V bent = T(2) * g * steep * m * share + g * (g - 1) * steep * m * m_ratio + p * share * share;
        LabelTerm<V> absent;
        absent.value = keep<V>(weight != T(0), weight * cost);
        absent.first = -first;  // both_sides changes it back
        absent.second = weight * p * bent + first * (m - p);
        // a NaN logit is put back by the skeleton, whatever comes out here
        return both_sides<V>(focal_label<V>(p, m, odds.cost_on, T(gamma_on)), on, absent, off);
    }
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
