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
    static constexpr double padding = 0;

    template <PlainOutput Output>
    static double row(const PlainRow& row) {
        using V = VectorD;
        const double clip = row.parameters[0], high = 1 - clip;
        V most = V{}, least = V{};
        plain_along(row.wide, [&](int64_t k) KULLBACK_LAMBDA {
            const V x = load<V>(row.x + k);
            most = larger<V>(x, most);
            least = smaller<V>(x, least);
        });
        const double largest = largest_lane(most);
        if (any_lane<V>(least) || !(largest > 0)) {
            if (row.verdict) *row.verdict = 4;
            if (row.out) plain_along(row.wide, [&](int64_t k) KULLBACK_LAMBDA { store<V>(row.out + k, V{}); });
            return 0;
        }
        // A row near the largest number is taken relative to its own largest entry, or the sum would overflow.
        const double unit = largest > 1e290 ? 1 / largest : 1.0;
        const double sum = plain_sum(
            row.wide, [&](int64_t k) KULLBACK_LAMBDA { return load<V>(row.x + k) * unit; });
        const double total = sum / unit;

        // Sums over classes, and what is written, of their q, s and v. Where one class has all the mass the others add
        // nothing to a sum, and all get the same.
        const auto sum_of = [&](auto term) KULLBACK_LAMBDA {
            if (row.only >= 0) {
                return double(term(row.x[row.only] * unit / sum, row.total, row.v ? row.v[row.only] : 0.0));
            }
            return plain_sum(row.wide, [&](int64_t k) KULLBACK_LAMBDA {
                const V v = row.v ? load<V>(row.v + k) : V{};
                return term(load<V>(row.x + k) * unit / sum, load<V>(row.s + k), v);
            });
        };
        const auto write = [&](auto term) KULLBACK_LAMBDA {
            if (row.only >= 0) {
                const V others = splat<V>(double(term(0.0, 0.0, 0.0)));
                plain_along(row.wide, [&](int64_t k) KULLBACK_LAMBDA { store<V>(row.out + k, others); });
                const double q = row.x[row.only] * unit / sum;
                row.out[row.only] = term(q, row.total, row.v ? row.v[row.only] : 0.0);
                return;
            }
            plain_along(row.wide, [&](int64_t k) KULLBACK_LAMBDA {
                const V v = row.v ? load<V>(row.v + k) : V{};
                store<V>(row.out + k, term(load<V>(row.x + k) * unit / sum, load<V>(row.s + k), v));
            });
        };
        // Within the clip the loss has the first two derivatives -s / q and s / q^2 in q.
        const auto inside = [&](auto q, auto f) KULLBACK_LAMBDA {
            using W = decltype(f);
            return keep<W>(q >= clip, keep<W>(q <= high, f));
        };

        double value = 0;
        if (Output == PlainOutput::gradient) {
            const auto low = [&](auto q, auto s, auto) KULLBACK_LAMBDA {
                using W = decltype(q);
                return keep<W>(s > 0.0, keep<W>(q < clip, splat<W>(1.0)));
            };
            const auto above = [&](auto q, auto s, auto) KULLBACK_LAMBDA {
                using W = decltype(q);
                return keep<W>(s > 0.0, keep<W>(q > high, splat<W>(1.0)));
            };
            value = -sum_of([&](auto q, auto s, auto) KULLBACK_LAMBDA {
                using W = decltype(q);
                return s * log_to_one<W>(smaller<W>(larger<W>(q, splat<W>(clip)), splat<W>(high)));
            });
            if (row.verdict) *row.verdict = (sum_of(low) > 0 ? 1 : 0) + (sum_of(above) > 0 ? 2 : 0);
            if (!row.out) return value;
        }
        const double held = sum_of([&](auto q, auto s, auto) KULLBACK_LAMBDA { return inside(q, s); });
        if (Output == PlainOutput::gradient) {
            write([&](auto q, auto s, auto) KULLBACK_LAMBDA { return (held - inside(q, s / q)) / total; });
        } else if (Output == PlainOutput::diagonal) {
            write([&](auto q, auto s, auto) KULLBACK_LAMBDA {
                const auto pull = held - inside(q, s / q), bend = inside(q, s / (q * q));
                return (bend * (1.0 - 2.0 * q) + held - 2.0 * pull) / total / total;
            });
        } else {
            const double grown = plain_sum(row.wide, [&](int64_t k) KULLBACK_LAMBDA { return load<V>(row.v + k); });
            const double change = sum_of([&](auto q, auto s, auto v) KULLBACK_LAMBDA {
                const auto moved = (v - q * grown) / total;
                return q * inside(q, s / (q * q)) * moved - moved * inside(q, s / q);
            });
            write([&](auto q, auto s, auto v) KULLBACK_LAMBDA {
                const auto moved = (v - q * grown) / total, pull = held - inside(q, s / q);
                return (inside(q, s / (q * q)) * moved - change - grown * pull / total) / total;
            });
        }
        return value;
    }
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
