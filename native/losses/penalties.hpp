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

    template <PlainOutput Output>
    static double row(const PlainRow& row) {
        using V = VectorD;
        const double mass = row.total;
        const auto score = [&](int64_t k, auto part) KULLBACK_LAMBDA {
            const V x = load<V>(row.x + k, part, 0.0);
            return keep<V>(x > -infinity<double>, x);
        };
        if (row.out) along<double>(0, row.classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
            const V x = load<V>(row.x + k, part, 0.0), z = score(k, part);
            V to = Term::slope(z);
            if (Output != PlainOutput::gradient) to = keep<V>(x > -infinity<double>, splat<V>(Term::bend));
            if (Output == PlainOutput::product) to *= load<V>(row.v + k, part, 0.0);
            store<V>(row.out + k, part, to * mass);
        });
        if (Output != PlainOutput::gradient) return 0;
        return mass * plain_sum(row.classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
            return Term::cost(score(k, part));
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
    static constexpr bool weighs = false, labels = false;

    template <PlainOutput Output>
    static double row(const PlainRow& row) {
        using V = VectorD;
        const int64_t n = row.classes;
        int64_t top = 0;
        for (int64_t k = 1; k < n; ++k) top = row.x[k] > row.x[top] ? k : top;
        const double largest = row.x[top];
        if (largest == -infinity<double>) {  // masked throughout: nothing to be confident of
            for (int64_t k = 0; row.out && k < n; ++k) row.out[k] = 0;
            return 0;
        }
        const auto below = [&](int64_t k, auto part) KULLBACK_LAMBDA {
            return load<V>(row.x + k, part, -infinity<double>) - largest;
        };
        // One of the largest is left out of the sum and log1p puts it back, or near certainty log p would be rounding.
        const double all = plain_sum(n, [&](int64_t k, auto part) KULLBACK_LAMBDA {
            return exp_nonpositive<V>(below(k, part));
        });
        double rest = all - 1;
        if (rest < 0.5) {
            rest = plain_sum(n, [&](int64_t k, auto part) KULLBACK_LAMBDA {
                V e = exp_nonpositive<V>(below(k, part));
                if (top >= k && top < k + traits<V>::width) lane(e, int(top - k)) = 0;
                return e;
            });
        }
        const double log_sum = log1p_nonnegative<double>(rest), inverse = 1 / (1 + rest);
        struct Term {
            V p, log_p;
        };
        const auto term = [&](int64_t k, auto part) KULLBACK_LAMBDA {
            const V d = below(k, part), p = exp_nonpositive<V>(d) * inverse;
            return Term{p, keep<V>(p > 0.0, d - log_sum)};
        };
        const double value = plain_sum(n, [&](int64_t k, auto part) KULLBACK_LAMBDA {
            const Term here = term(k, part);
            return here.p * here.log_p;
        });
        if (!row.out) return row.total * value;
        if (Output == PlainOutput::gradient || Output == PlainOutput::diagonal) {
            along<double>(0, n, [&](int64_t k, auto part) KULLBACK_LAMBDA {
                const Term here = term(k, part);
                const V pull = here.log_p - value;
                V to = here.p * pull;
                if (Output == PlainOutput::diagonal) {
                    to = here.p * (1.0 - 2.0 * here.p) * pull + here.p * (1.0 - here.p);
                }
                store<V>(row.out + k, part, to * row.total);
            });
            return row.total * value;
        }
        const auto v = [&](int64_t k, auto part) KULLBACK_LAMBDA { return load<V>(row.v + k, part, 0.0); };
        const double mean = plain_sum(
            n, [&](int64_t k, auto part) KULLBACK_LAMBDA { return term(k, part).p * v(k, part); });
        const double turned = plain_sum(n, [&](int64_t k, auto part) KULLBACK_LAMBDA {
            const Term here = term(k, part);
            return here.p * (here.log_p + 1.0) * (v(k, part) - mean);
        });
        along<double>(0, n, [&](int64_t k, auto part) KULLBACK_LAMBDA {
            const Term here = term(k, part);
            const V delta = v(k, part) - mean;
            store<V>(row.out + k, part, here.p * (delta * (here.log_p - value) + delta - turned) * row.total);
        });
        return 0;
    }
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
