// Cross-entropy of probabilities that are given: -sum_k s_k log clip(q_k, e, 1 - e) with q = x / sum x.
//
// It judges rows: `low` where a class with mass lies below the clip, `high` where one lies above, `amiss` where the row
// is none of probabilities (a negative number, or nothing but zeros), and what comes out of it has no meaning.
#pragma once

#include "skeletons/plain.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

struct GivenProbabilities {
    static constexpr const char* name = "cross_entropy_from_probabilities";
    static constexpr bool weighs = true, labels = false, judges = true;
    static constexpr double padding = 0;

    template <PlainOutput Output, class Row>
    static KULLBACK_INLINE typename Row::N row(Row& row) {
        using V = typename Row::V;
        using N = typename Row::N;
        const double clip = row.parameters[0], high = 1 - clip;
        V negative = V{};
        row.each([&](int64_t k) KULLBACK_LAMBDA { negative = smaller<V>(row.x(k), negative); });
        const N largest = row.largest();
        row.amiss = select<N>(largest > 0.0, row.any(negative), splat<N>(1.0));
        // A row near the largest number is taken relative to its own largest entry, or the sum would overflow.
        const Mask<N> huge = largest > 1e290;
        N unit = splat<N>(1.0);
        if (any_lane<N>(keep<N>(huge, largest))) unit = select<N>(huge, 1.0 / largest, unit);
        const N sum = row.sum([&](int64_t k) KULLBACK_LAMBDA { return row.x(k) * unit; });
        const N to_share = 1.0 / sum, inverse = to_share * unit;

        // Within the clip the loss has the first two derivatives -s / q and s / q^2 in q.
        const auto inside = [&](auto q, auto f) KULLBACK_LAMBDA {
            using W = decltype(f);
            return keep<W>(q >= clip, keep<W>(q <= high, f));
        };
        const auto cost = [&](auto q, auto s) KULLBACK_LAMBDA {
            using W = decltype(q);
            return -s * brief_log<W>(smaller<W>(larger<W>(q, splat<W>(clip)), splat<W>(high)));
        };
        const auto flag = [](auto s, auto condition, auto one) KULLBACK_LAMBDA {
            using W = decltype(s);
            return keep<W>(s > 0.0, keep<W>(condition, splat<W>(one)));
        };

        // Sums over classes, and what is written, of their q, s and v. Where one class has all the mass the others add
        // nothing to a sum, and all get the same.
        const N its_q = row.its_number * unit * to_share;
        if (!row.one) {
            row.each([&](int64_t k) KULLBACK_LAMBDA { row.keep_for_later(k, row.x(k) * unit * to_share); });
        }
        const auto v = [&](int64_t k) KULLBACK_LAMBDA { return Output == PlainOutput::product ? row.v(k) : V{}; };
        const auto sum_of = [&](auto term) KULLBACK_LAMBDA -> N {
            if (row.one) return term(its_q, row.total, row.its_direction);
            return row.sum([&](int64_t k) KULLBACK_LAMBDA { return term(row.kept(k), row.s(k), v(k)); });
        };
        const auto write = [&](auto term) KULLBACK_LAMBDA {
            if (row.one) {
                const N others = term(N{}, N{}, N{});
                row.write([&](int64_t) KULLBACK_LAMBDA { return others + V{}; });
                row.to_one = term(its_q, row.total, row.its_direction);
            } else {
                row.write([&](int64_t k) KULLBACK_LAMBDA { return term(row.kept(k), row.s(k), v(k)); });
            }
        };

        N value = N{};
        if (Output == PlainOutput::gradient) {
            if (row.one) {
                value = cost(its_q, row.total);
                row.low = flag(row.total, its_q < clip, 1.0);
                row.high = flag(row.total, its_q > high, 1.0);
            } else {
                V low = V{}, above = V{};
                value = row.sum([&](int64_t k) KULLBACK_LAMBDA {
                    const V q = row.kept(k), s = row.s(k);
                    low = larger<V>(flag(s, q < clip, 1.0), low);
                    above = larger<V>(flag(s, q > high, 1.0), above);
                    return cost(q, s);
                });
                row.low = row.any(low);
                row.high = row.any(above);
            }
            if (!row.out) return value;
        }
        const N held = sum_of([&](auto q, auto s, auto) KULLBACK_LAMBDA { return inside(q, s); });
        if (Output == PlainOutput::gradient) {
            write([&](auto q, auto s, auto) KULLBACK_LAMBDA { return (held - inside(q, brief_quotient(s, q))) * inverse; });
        } else if (Output == PlainOutput::diagonal) {
            write([&](auto q, auto s, auto) KULLBACK_LAMBDA {
                const auto pull = held - inside(q, s / q), bend = inside(q, s / (q * q));
                return (bend * (1.0 - 2.0 * q) + held - 2.0 * pull) * inverse * inverse;
            });
        } else {
            const N grown = row.sum([&](int64_t k) KULLBACK_LAMBDA { return row.v(k); });
            const N change = sum_of([&](auto q, auto s, auto v) KULLBACK_LAMBDA {
                const auto moved = (v - q * grown) * inverse;
                return q * inside(q, s / (q * q)) * moved - moved * inside(q, s / q);
            });
            write([&](auto q, auto s, auto v) KULLBACK_LAMBDA {
                const auto moved = (v - q * grown) * inverse, pull = held - inside(q, s / q);
                return (inside(q, s / (q * q)) * moved - change - grown * pull * inverse) * inverse;
            });
        }
        return value;
    }
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
