// -sum_k s_k x_k of log-probabilities x.
#pragma once

#include "skeletons/plain.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

struct NegativeLogLikelihood {
    static constexpr const char* name = "negative_log_likelihood";
    static constexpr bool weighs = true, labels = false, judges = false;
    static constexpr double padding = 0;

    template <PlainOutput Output, class Row>
    static KULLBACK_INLINE typename Row::N row(Row& row) {
        using V = typename Row::V;
        using N = typename Row::N;
        constexpr bool gradient = Output == PlainOutput::gradient;
        if (!gradient || row.one) {
            if (row.out) row.write([&](int64_t) KULLBACK_LAMBDA { return V{}; });
            if (!gradient) return N{};
            row.to_one = -row.total;
            return keep<N>(row.total != 0.0, row.to_one * row.its_number);
        }
        if (row.out) row.write([&](int64_t k) KULLBACK_LAMBDA { return -row.s(k); });
        return -row.sum([&](int64_t k) KULLBACK_LAMBDA {
            return keep<V>(row.s(k) > 0.0, row.s(k) * row.x(k));  // no mass on a masked class: nothing
        });
    }
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
