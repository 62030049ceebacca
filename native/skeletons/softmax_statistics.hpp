// What the sweeps over a row know besides its loss, for those who ask: the log-sum-exp of what the softmax is taken of,
// and the class with the largest logit (the first of equal ones; -1 for rows without one, which do not count or hold NaN
// or +inf).
#pragma once

#include "skeletons/softmax_row.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

// The first class with the logit `top`, which is there.
template <class T>
int64_t place_of(T top, const T* z, int64_t classes) {
    using V = Vector<T>;
    constexpr int W = lanes<T>;
    int64_t k = 0;
    while (k + W <= classes && !any_lane(keep<V>(load<V>(z + k) == splat<V>(top), splat<V>(T(1))))) k += W;
    while (z[k] != top) ++k;
    return k;
}

template <class T>
int64_t largest_class(const T* z, int64_t classes) {
    using V = Vector<T>;
    V peak = splat<V>(-infinity<T>), odd = V{};
    along<T>(0, classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
        const V x = load<V>(z + k, part, -infinity<T>);
        peak = larger<V>(x, peak);  // passes over NaN
        odd += select<V>(x < infinity<T>, V{}, splat<V>(T(1)));
    });
    return any_lane(odd) ? -1 : place_of(largest_lane(peak), z, classes);
}

// Where the statistics of a block of rows go.
template <class T>
struct RowStatistics {
    using V = Vector<T>;

    T* log_sum_exp;
    int64_t* prediction;
    double inverse_temperature;

    RowStatistics(const Job& job, int64_t begin)
        : log_sum_exp(job.log_sum_exp ? static_cast<T*>(job.log_sum_exp) + begin : nullptr),
          prediction(job.prediction ? job.prediction + begin : nullptr),
          inverse_temperature(job.inverse_temperature) {}

    bool wanted() const { return log_sum_exp || prediction; }
    void skip(int64_t r) const {
        if (log_sum_exp) log_sum_exp[r] = 0;
        if (prediction) prediction[r] = -1;
    }
    // Row r with logits z, whose sum was taken of them as they are or `transformed`.
    void put(int64_t r, const T* z, int64_t classes, const RowSum<T>& row, bool transformed) const {
        if (log_sum_exp) {
            const double lse = double(row.center) * inverse_temperature + row.log_sum;
            log_sum_exp[r] = row.inverse == 0 ? -infinity<T> : T(lse);
        }
        if (!prediction) return;
        if (transformed || row.broken()) {
            prediction[r] = largest_class(z, classes);
        } else {
            prediction[r] = row.inverse == 0 ? 0 : place_of(row.center, z, classes);
        }
    }
    void put(int64_t r, const T* z, int64_t classes, double lse) const {
        if (log_sum_exp) log_sum_exp[r] = T(lse);
        if (prediction) prediction[r] = largest_class(z, classes);
    }
    // Rows r, r + 1, ..., as many as lanes or up to `end`.
    KULLBACK_INLINE void put_lanes(int64_t r, int64_t end, V lse, V classes) const {
        const auto put = [&](int64_t count) KULLBACK_LAMBDA {
            T numbers[lanes<T>];
            store<V>(numbers, lse);
            for (int64_t j = 0; log_sum_exp && j < count; ++j) log_sum_exp[r + j] = numbers[j];
            store<V>(numbers, classes);
            for (int64_t j = 0; prediction && j < count; ++j) prediction[r + j] = int32_t(numbers[j]);
        };
        if (r + lanes<T> <= end) {
            put(lanes<T>);
        } else {
            put(end - r);
        }
    }
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
