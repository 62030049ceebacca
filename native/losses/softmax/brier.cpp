// Brier: (1 - p)^2 of the true class and p^2 of every other.
#include "skeletons/softmax_family.hpp"

namespace kullback::KULLBACK_LEVEL {

struct Brier : SoftmaxLoss {
    static constexpr bool looks_at_all = true, by_squares = true, by_sums = true;

    explicit Brier(const Job&) {}

    // (1 - p)^2 less p^2 is 1 - 2 p, and p^2 of all classes have the whole mass
    BySums by() const { return {0, 2, 1}; }

    // With Q the sum of the other classes' p^2: (1 - p_y)^2 + Q.
    template <class V>
    KULLBACK_INLINE RowGradient<V> at_class(const TargetClass<V>& y) const {
        using T = Scalar<V>;
        RowGradient<V> g;
        const V value = y.miss * y.miss + y.squares, twice = y.weight * T(2);
        g.loss = y.weight * value;
        g.on_p = twice * (y.p * y.miss - y.squares);
        g.on_square = twice;
        g.on_weight = V{};
        g.at_class = -twice * y.p * value;
        return g;
    }
    template <class V>
    KULLBACK_INLINE Cost<V> on(const Chance<V>& y, const Shift<V>&) const {
        using T = Scalar<V>;
        const V slope = T(2) * y.p * y.miss;
        return {y.miss * y.miss, slope, slope * (T(2) * y.p - y.miss)};
    }
    template <class V>
    KULLBACK_INLINE Cost<V> off(const Chance<V>& y) const {
        using T = Scalar<V>;
        return {y.p * y.p, T(2) * y.p, T(2) * y.p * y.miss * (T(2) * y.miss - y.p)};
    }
};

KULLBACK_SOFTMAX_LOSS(brier, Brier)

}  // namespace kullback::KULLBACK_LEVEL
