// -sum_k s_k x_k of log-probabilities x.
#pragma once

#include "skeletons/plain.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

struct NegativeLogLikelihood {
    static constexpr const char* name = "negative_log_likelihood";
    static constexpr bool weighs = true, labels = false;

    template <PlainOutput Output>
    static double row(const PlainRow& row) {
        using V = VectorD;
        const int64_t classes = row.classes;
        for (int64_t k = 0; row.out && k < classes; ++k) row.out[k] = Output == PlainOutput::gradient ? -row.s[k] : 0.0;
        if (Output != PlainOutput::gradient) return 0;
        return -plain_sum(classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
            const V s = load<V>(row.s + k, part, 0.0);  // no mass on a masked class: nothing
            return keep<V>(s > 0.0, s * load<V>(row.x + k, part, 0.0));
        });
    }
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
