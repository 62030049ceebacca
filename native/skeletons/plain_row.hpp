// What the plain skeleton hands to a loss: one row, its lanes along the classes, or as many rows as there are lanes,
// side by side. A loss is written once for both: V is a vector of a row's numbers and N what there is one of for a row,
// a double, or a lane per row.
#pragma once

#include "simd/widen.hpp"
#include "skeletons/softmax_row.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

enum class PlainOutput { gradient, product, diagonal };

template <class V_, class N_>
struct PlainRow {
    using V = V_;
    using N = N_;
    static constexpr int width = traits<V>::width;
    static constexpr bool side_by_side = traits<N>::width > 1;

    int64_t vectors;  // of one row: its classes, up to whole vectors; of several: their classes
    const double* numbers;  // finite or -inf; one row's are padded with Loss::padding, its masses and direction with 0
    const double* masses;   // s_k, of losses that weigh; null where one class has all the mass
    const double* direction;  // products only
    double* work;             // room for as many numbers
    double* out;              // null where only values are asked for
    const double* parameters;
    N total;                    // of the masses; of losses that do not weigh, of the target
    bool one;                   // whether one class has all the mass; that class' numbers are
    N its_number, its_direction;
    N to_one = N{};             // and what is written for it is this; `out` says what others get
    N low = N{}, high = N{}, amiss = N{};  // 1 where a loss that `judges` finds that of a row, else 0

    KULLBACK_INLINE V x(int64_t k) const { return load<V>(numbers + k * width); }
    KULLBACK_INLINE V s(int64_t k) const { return load<V>(masses + k * width); }
    KULLBACK_INLINE V v(int64_t k) const { return load<V>(direction + k * width); }
    KULLBACK_INLINE V kept(int64_t k) const { return load<V>(work + k * width); }
    KULLBACK_INLINE void keep_for_later(int64_t k, V value) const { store<V>(work + k * width, value); }

    KULLBACK_INLINE void put(int64_t k, V value) const { store<V>(out + k * width, value); }

    // body(k) for every vector of the row.
    template <class Body>
    KULLBACK_INLINE void each(Body body) const {
        for (int64_t k = 0; k < vectors; ++k) body(k);
    }
    template <class Term>
    KULLBACK_INLINE void write(Term term) const {
        each([&](int64_t k) KULLBACK_LAMBDA { put(k, term(k)); });
    }
    template <class Term>
    KULLBACK_INLINE N sum(Term term) const {
        constexpr int64_t step = summed_vectors<double>;
        std::conditional_t<side_by_side, SumOfSums, LongTotal> total;
        for (int64_t begin = 0; begin < vectors; begin += step) {
            const int64_t end = begin + step < vectors ? begin + step : vectors;
            V here = V{};
            for (int64_t k = begin; k < end; ++k) here += term(k);
            total.add(total_of(here));
        }
        return total.get();
    }
    KULLBACK_INLINE N largest() const {
        V most = splat<V>(-infinity<double>);
        each([&](int64_t k) KULLBACK_LAMBDA { most = larger<V>(x(k), most); });
        if constexpr (side_by_side) {
            return most;
        } else {
            return largest_lane(most);
        }
    }
    // The sum of what each lane has added up for a row.
    KULLBACK_INLINE N total_of(V sums) const {
        if constexpr (side_by_side) {
            return sums;
        } else {
            return sum_lanes(sums);
        }
    }
    // 1 where any of a row's flags is not 0.
    KULLBACK_INLINE N any(V flags) const {
        if constexpr (side_by_side) {
            return keep<N>(flags != 0.0, splat<N>(1.0));
        } else {
            return any_lane<V>(flags) ? 1.0 : 0.0;
        }
    }

  private:
    struct SumOfSums {
        N sum = N{};
        KULLBACK_INLINE void add(N x) { sum += x; }
        KULLBACK_INLINE N get() const { return sum; }
    };
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
