// Penalties on the scores of a row, times its target mass: Σ|z|, ½Σz², and Σ p log p of the softmax.
#pragma once

#include "skeletons/plain.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

// A score by itself, masked ones left alone: `slope` and `bend` are its first two derivatives.
template <class Term>
struct ScorePenalty {
    static constexpr const char* name = Term::name;
    static constexpr bool weighs = false, labels = true;
    static constexpr double padding = 0;

    template <PlainOutput Output>
    static double row(const PlainRow& row) {
        using V = VectorD;
        const double mass = row.total;
        const auto score = [&](int64_t k) KULLBACK_LAMBDA {
            const V x = load<V>(row.x + k);
            return keep<V>(x > -infinity<double>, x);
        };
        if (row.out) plain_along(row.wide, [&](int64_t k) KULLBACK_LAMBDA {
            V to = Term::slope(score(k));
            if (Output != PlainOutput::gradient) {
                to = keep<V>(load<V>(row.x + k) > -infinity<double>, splat<V>(Term::bend));
            }
            if (Output == PlainOutput::product) to *= load<V>(row.v + k);
            store<V>(row.out + k, to * mass);
        });
        if (Output != PlainOutput::gradient) return 0;
        return mass * plain_sum(row.wide, [&](int64_t k) KULLBACK_LAMBDA { return Term::cost(score(k)); });
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
    static constexpr bool weighs = false, labels = false;
    static constexpr double padding = -infinity<double>;

    template <PlainOutput Output>
    static double row(const PlainRow& row) {
        using V = VectorD;
        V most = splat<V>(-infinity<double>);
        plain_along(row.wide, [&](int64_t k) KULLBACK_LAMBDA { most = larger<V>(load<V>(row.x + k), most); });
        const double largest = largest_lane(most);
        if (largest == -infinity<double>) {  // masked throughout: nothing to be confident of
            if (row.out) plain_along(row.wide, [&](int64_t k) KULLBACK_LAMBDA { store<V>(row.out + k, V{}); });
            return 0;
        }
        const auto below = [&](int64_t k) KULLBACK_LAMBDA { return load<V>(row.x + k) - largest; };
        plain_along(row.wide, [&](int64_t k) KULLBACK_LAMBDA { store<V>(row.work + k, exp_nonpositive<V>(below(k))); });
        // One of the largest is left out of the sum and log1p puts it back, or near certainty log p would be rounding.
        int64_t top = 0;
        while (row.x[top] != largest) ++top;
        row.work[top] = 0;
        const double rest = plain_sum(row.wide, [&](int64_t k) KULLBACK_LAMBDA { return load<V>(row.work + k); });
        row.work[top] = 1;
        const double log_sum = log1p_nonnegative<double>(rest), inverse = 1 / (1 + rest);
        const auto p = [&](int64_t k) KULLBACK_LAMBDA { return load<V>(row.work + k) * inverse; };
        const auto log_p = [&](int64_t k) KULLBACK_LAMBDA { return keep<V>(p(k) > 0.0, below(k) - log_sum); };
        const double value = plain_sum(row.wide, [&](int64_t k) KULLBACK_LAMBDA { return p(k) * log_p(k); });
        if (!row.out) return row.total * value;
        if (Output == PlainOutput::gradient) {
            plain_along(row.wide, [&](int64_t k) KULLBACK_LAMBDA {
                store<V>(row.out + k, p(k) * (log_p(k) - value) * row.total);
            });
        } else if (Output == PlainOutput::diagonal) {
            plain_along(row.wide, [&](int64_t k) KULLBACK_LAMBDA {
                const V q = p(k), bend = q * (1.0 - 2.0 * q) * (log_p(k) - value) + q * (1.0 - q);
                store<V>(row.out + k, bend * row.total);
            });
        } else {
            const auto v = [&](int64_t k) KULLBACK_LAMBDA { return load<V>(row.v + k); };
            const double mean = plain_sum(row.wide, [&](int64_t k) KULLBACK_LAMBDA { return p(k) * v(k); });
            const double turned = plain_sum(row.wide, [&](int64_t k) KULLBACK_LAMBDA {
                return p(k) * (log_p(k) + 1.0) * (v(k) - mean);
            });
            plain_along(row.wide, [&](int64_t k) KULLBACK_LAMBDA {
                const V delta = v(k) - mean;
                store<V>(row.out + k, p(k) * (delta * (log_p(k) - value) + delta - turned) * row.total);
            });
        }
        return row.total * value;
    }
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
