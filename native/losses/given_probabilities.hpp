// Cross-entropy of probabilities that are given: -sum_k s_k log clip(q_k, e, 1 - e) with q = x / sum x.
//
// The verdict on a row: 1 where a class with mass lies below the clip, 2 where one lies above, added; 4 where the row
// is none of probabilities (a negative number, or nothing but zeros).
#pragma once

#include "skeletons/plain.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

struct GivenProbabilities {
    static constexpr const char* name = "cross_entropy_from_probabilities";
    static constexpr bool weighs = true, labels = false;

    template <PlainOutput Output>
    static double row(const PlainRow& row) {
        using V = VectorD;
        const int64_t n = row.classes;
        const double clip = row.parameters[0], high = 1 - clip;
        const auto x = [&](int64_t k, auto part) KULLBACK_LAMBDA { return load<V>(row.x + k, part, 0.0); };
        const auto s = [&](int64_t k, auto part) KULLBACK_LAMBDA { return load<V>(row.s + k, part, 0.0); };
        double largest = 0, least = 0;
        for (int64_t k = 0; k < n; ++k) {
            largest = row.x[k] > largest ? row.x[k] : largest;
            least = row.x[k] < least ? row.x[k] : least;
        }
        if (!(least >= 0 && largest > 0)) {
            if (row.verdict) *row.verdict = 4;
            for (int64_t k = 0; row.out && k < n; ++k) row.out[k] = 0;
            return 0;
        }
        // A row near the largest number is taken relative to its own largest entry, or the sum would overflow.
        const double unit = largest > 1e290 ? largest : 1.0;
        const double sum = plain_sum(n, [&](int64_t k, auto part) KULLBACK_LAMBDA { return x(k, part) / unit; });
        const double total = sum * unit;
        const auto share = [&](int64_t k, auto part) KULLBACK_LAMBDA { return x(k, part) / unit / sum; };

        double value = 0;
        if (Output == PlainOutput::gradient) {
            V below = V{}, above = V{};
            value = -plain_sum(n, [&](int64_t k, auto part) KULLBACK_LAMBDA {
                const V q = share(k, part), mass = s(k, part);
                below += keep<V>(mass > 0.0, keep<V>(q < clip, splat<V>(1.0)));
                above += keep<V>(mass > 0.0, keep<V>(q > high, splat<V>(1.0)));
                const V inside = smaller<V>(larger<V>(q, splat<V>(clip)), splat<V>(high));
                return mass * log_to_one<V>(inside);
            });
            if (row.verdict) *row.verdict = (any_lane<V>(below) ? 1 : 0) + (any_lane<V>(above) ? 2 : 0);
            if (!row.out) return value;
        }
        // Within the clip the loss has the first two derivatives -s / q and s / q² in q.
        const auto inside = [&](V q, V f) KULLBACK_LAMBDA { return keep<V>(q >= clip, keep<V>(q <= high, f)); };
        const double held = plain_sum(
            n, [&](int64_t k, auto part) KULLBACK_LAMBDA { return inside(share(k, part), s(k, part)); });
        const double pull = -held;  // Σ q·first
        if (Output == PlainOutput::gradient) {
            along<double>(0, n, [&](int64_t k, auto part) KULLBACK_LAMBDA {
                const V q = share(k, part), first = -inside(q, s(k, part) / q);
                store<V>(row.out + k, part, (first - pull) / total);
            });
            return value;
        }
        if (Output == PlainOutput::diagonal) {
            along<double>(0, n, [&](int64_t k, auto part) KULLBACK_LAMBDA {
                const V q = share(k, part), first = -inside(q, s(k, part) / q), second = inside(q, s(k, part) / (q * q));
                const V bend = second * (1.0 - 2.0 * q) + held - 2.0 * (first - pull);
                store<V>(row.out + k, part, bend / total / total);
            });
            return 0;
        }
        const auto v = [&](int64_t k, auto part) KULLBACK_LAMBDA { return load<V>(row.v + k, part, 0.0); };
        const double grown = plain_sum(n, v);
        const double change = plain_sum(n, [&](int64_t k, auto part) KULLBACK_LAMBDA {
            const V q = share(k, part), moved = (v(k, part) - q * grown) / total;
            const V first = -inside(q, s(k, part) / q), second = inside(q, s(k, part) / (q * q));
            return moved * first + q * second * moved;
        });
        along<double>(0, n, [&](int64_t k, auto part) KULLBACK_LAMBDA {
            const V q = share(k, part), moved = (v(k, part) - q * grown) / total;
            const V first = -inside(q, s(k, part) / q), second = inside(q, s(k, part) / (q * q));
            store<V>(row.out + k, part, (second * moved - change - grown * (first - pull) / total) / total);
        });
        return 0;
    }
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
