// -sum_k s_k x_k of log-probabilities x.
#pragma once

#include "skeletons/plain.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

struct NegativeLogLikelihood {
    static constexpr const char* name = "negative_log_likelihood";
    static constexpr bool weighs = true, labels = false;
    static constexpr double padding = 0;

    template <PlainOutput Output>
    static double row(const PlainRow& row) {
        using V = VectorD;
        constexpr bool gradient = Output == PlainOutput::gradient;
        const bool one = row.only >= 0;
        if (row.out) plain_along(row.wide, [&](int64_t k) KULLBACK_LAMBDA {
            store<V>(row.out + k, gradient && !one ? -load<V>(row.s + k) : V{});
        });
        if (!gradient) return 0;
        if (one) {
            if (row.out) row.out[row.only] = -row.total;
            return row.total == 0 ? 0 : -row.total * row.x[row.only];
        }
        return -plain_sum(row.wide, [&](int64_t k) KULLBACK_LAMBDA {
            const V s = load<V>(row.s + k);  // no mass on a masked class: nothing
            return keep<V>(s > 0.0, s * load<V>(row.x + k));
        });
    }
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
