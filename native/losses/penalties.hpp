// Penalties on the scores of a row, times its target mass: Σ|z|, ½Σz², and Σ p log p of the softmax.
#pragma once

#include "skeletons/plain.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

// A score by itself, masked ones left alone: `slope` and `bend` are its first two derivatives.
template <class Term>
struct ScorePenalty {
    static constexpr const char* name = Term::name;
    static constexpr bool weighs = false, labels = true, judges = false;
    static constexpr double padding = 0;

    template <PlainOutput Output, class Row>
    static KULLBACK_INLINE typename Row::N row(Row& row) {
        using V = typename Row::V;
        using N = typename Row::N;
        const N mass = row.total;
        const auto score = [&](int64_t k) KULLBACK_LAMBDA { return keep<V>(row.x(k) > -infinity<double>, row.x(k)); };
        if (Output != PlainOutput::gradient) {
            row.write([&](int64_t k) KULLBACK_LAMBDA {
                const V bend = keep<V>(row.x(k) > -infinity<double>, Term::bend * mass + V{});
                return Output == PlainOutput::product ? bend * row.v(k) : bend;
            });
            return N{};
        }
        if (!row.out) return mass * row.sum([&](int64_t k) KULLBACK_LAMBDA { return Term::cost(score(k)); });
        return mass * row.sum([&](int64_t k) KULLBACK_LAMBDA {
            const V z = score(k);
            row.put(k, Term::slope(z) * mass);
            return Term::cost(z);
        });
    }
};

struct AbsoluteScore {
    static constexpr const char* name = "logit_l1";
    static constexpr double bend = 0;
    template <class V>
    static KULLBACK_INLINE V cost(V z) {
        return select<V>(z < 0.0, -z, z);
    }
    template <class V>
    static KULLBACK_INLINE V slope(V z) {
        return keep<V>(z > 0.0, splat<V>(1.0)) - keep<V>(z < 0.0, splat<V>(1.0));
    }
};
struct SquaredScore {
    static constexpr const char* name = "logit_l2";
    static constexpr double bend = 1;
    template <class V>
    static KULLBACK_INLINE V cost(V z) {
        return 0.5 * z * z;
    }
    template <class V>
    static KULLBACK_INLINE V slope(V z) {
        return z;
    }
};

struct NegativeEntropy {
    static constexpr const char* name = "negative_entropy";
    static constexpr bool weighs = false, labels = false, judges = false;
    static constexpr double padding = -infinity<double>;

    template <PlainOutput Output, class Row>
    static KULLBACK_INLINE typename Row::N row(Row& row) {
        using V = typename Row::V;
        using N = typename Row::N;
        const N largest = row.largest();
        const auto masked = largest == -infinity<double>;  // throughout: nothing to be confident of
        const N center = select<N>(masked, N{}, largest);
        // The largest are left out of the sum and log1p puts them back, or near certainty log p would be rounding.
        V largest_ones = V{};
        const N others = row.sum([&](int64_t k) KULLBACK_LAMBDA {
            const V e = brief_exp<V>(row.x(k) - center);
            row.keep_for_later(k, e);
            largest_ones += keep<V>(e == 1.0, splat<V>(1.0));
            return keep<V>(e != 1.0, e);
        });
        const N rest = select<N>(masked, N{}, others + (row.total_of(largest_ones) - 1.0));
        const N log_sum = log1p_nonnegative<N>(rest), inverse = 1.0 / (1.0 + rest);
        const auto p = [&](int64_t k) KULLBACK_LAMBDA { return row.kept(k) * inverse; };
        const auto log_p = [&](int64_t k) KULLBACK_LAMBDA {
            return keep<V>(p(k) > 0.0, (row.x(k) - center) - log_sum);
        };
        const N value = row.sum([&](int64_t k) KULLBACK_LAMBDA { return p(k) * log_p(k); });
        if (!row.out) return row.total * value;
        if (Output == PlainOutput::gradient) {
            row.write([&](int64_t k) KULLBACK_LAMBDA { return p(k) * (log_p(k) - value) * row.total; });
        } else if (Output == PlainOutput::diagonal) {
            row.write([&](int64_t k) KULLBACK_LAMBDA {
                const V q = p(k), bend = q * (1.0 - 2.0 * q) * (log_p(k) - value) + q * (1.0 - q);
                return bend * row.total;
            });
        } else {
            const N mean = row.sum([&](int64_t k) KULLBACK_LAMBDA { return p(k) * row.v(k); });
            const N turned = row.sum([&](int64_t k) KULLBACK_LAMBDA {
                return p(k) * (log_p(k) + 1.0) * (row.v(k) - mean);
            });
            row.write([&](int64_t k) KULLBACK_LAMBDA {
                const V delta = row.v(k) - mean;
                return p(k) * (delta * (log_p(k) - value) + delta - turned) * row.total;
            });
        }
        return row.total * value;
    }
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
