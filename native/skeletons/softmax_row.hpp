// One row by itself, the lanes along its classes, in pieces that stay in the nearest cache: find the piece's maximum,
// take exp relative to the largest logit so far, add up and keep. Then the kept numbers are scaled and written. So
// logits come from memory once, the gradient goes there once, and exp is taken once.
//
// The largest logits are counted apart from the sum of the others: for a confident row 1 - p and log p come from
// the others' sum without cancellation.
#pragma once

#include "simd/convert.hpp"
#include "simd/elementary.hpp"
#include "simd/stream.hpp"
#include "skeletons/softmax_transform.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

// Vectors per piece; its sums go to double, which bounds the rounding of a float32 sum for any number of classes.
constexpr int64_t piece_vectors = 128;

// So many vectors are added up by themselves, and as many such sums, before they go to double. Equal terms are rounded
// all alike, and so a lane's 64 terms are rounded 16 times at most and not 64 times.
constexpr int64_t short_sum = 8, short_sums = 8;

// Drops lanes beyond the row's end.
template <class V>
KULLBACK_INLINE V inside_row(V value, Whole) {
    return value;
}
template <class V>
KULLBACK_INLINE V inside_row(V value, Part part) {
#if KULLBACK_HAS_VECTORS && defined(__AVX512F__)
    if constexpr (std::is_same_v<V, VectorF> && sizeof(V) == 64) return V(_mm512_maskz_mov_ps(part.lanes(), __m512(value)));
    if constexpr (std::is_same_v<V, VectorD> && sizeof(V) == 64) {
        return V(_mm512_maskz_mov_pd(__mmask8(part.lanes()), __m512d(value)));
    }
#elif KULLBACK_HAS_VECTORS && defined(__AVX2__)
    if constexpr (std::is_same_v<V, VectorF> && sizeof(V) == 32) {
        return V(_mm256_and_ps(__m256(value), _mm256_castsi256_ps(part.lanes<int32_t>())));
    }
    if constexpr (std::is_same_v<V, VectorD> && sizeof(V) == 32) {
        return V(_mm256_and_pd(__m256d(value), _mm256_castsi256_pd(part.lanes<int64_t>())));
    }
#endif
    for (int i = part.count; i < traits<V>::width; ++i) lane(value, i) = 0;
    return value;
}

// A sum of many numbers that keeps what each addition rounds away.
struct LongTotal {
    double sum = 0, lost = 0;
    KULLBACK_INLINE void add(double x) {
        const double next = sum + x, part = next - sum;
        lost += (sum - (next - part)) + (x - part);
        sum = next;
    }
    double get() const { return lost == lost ? sum + lost : sum; }  // infinities leave nothing behind
};

// So many vectors are added up one after the other where it is not done in short sums.
template <class T>
constexpr int64_t summed_vectors = 16;

// Sum over k in [0, n) of term(k, part), which must be 0 in lanes beyond the row's end.
template <class T, class Term>
KULLBACK_INLINE double sum_along(int64_t n, Term term) {
    constexpr int64_t step = short_sum * lanes<T>;
    LongTotal total;
    for (int64_t begin = 0; begin < n;) {
        const int64_t end = begin + short_sums * step < n ? begin + short_sums * step : n;
        Vector<T> sum = Vector<T>{};
        for (; begin < end; begin += step) {
            Vector<T> here = Vector<T>{};
            along<T>(begin, begin + step < end ? begin + step : end,
                     [&](int64_t k, auto part) KULLBACK_LAMBDA { here += term(k, part); });
            sum += here;
        }
        total.add(sum_lanes(sum));
    }
    return total.get();
}

template <class T>
struct RowSum {
    T center;             // what to subtract from the logits: the largest, or 0 where all are -inf
    double sum, log_sum;  // sum_k exp((z_k - center) / T), and its logarithm (0 for an empty sum)
    double others;        // the sum without one of the largest
    double inverse;       // 1 / sum, 0 for an empty sum
    bool broken() const { return !(sum == sum); }
};

// What the first sweep keeps of a row for the second: lifted exp, and the logit each piece is relative to.
template <class T>
struct Kept {
    T* exp = nullptr;
    T* centers = nullptr;
    const T* result = nullptr;  // where the row's result will be written, if its lines are to be asked for
    bool streams = false;       // whether the result is stored past the caches
    // for logits that are transformed first: how, and room for them and, with a cap, for its slope
    const Transform<T>* transform = nullptr;
    T *scores = nullptr, *slope = nullptr;
    const T* ahead = nullptr;  // what a sweep over what was kept asks for on its way, or null
};

// Sums of a soft row's target t, and of what it is multiplied with, that the first sweep adds up on its way.
template <class T>
struct RowMasses {
    const T *t, *weight;  // weight: of each class, or null
    bool everywhere;      // whether every class has some mass, because of smoothing
    bool scores, exps;    // whether to add up products with d, the scaled logit relative to the largest, and with exp d
    double total = 0, weighted = 0, weights = 0;  // sums of t, w t and, if everywhere, w
    double with_d[2] = {}, with_exp[2] = {};      // sums of products with w t and with w
    double squares = 0;                           // sum of (exp d)^2, if exps
    bool sound = true;                            // whether every t is finite and at least 0
};

template <class T>
constexpr int64_t piece_size = piece_vectors * lanes<T>;

template <class T>
Kept<T> room_to_keep(int64_t classes, Scratch& scratch, const Transform<T>* transform = nullptr) {
    Kept<T> kept;
    kept.exp = scratch.take<T>(classes);
    kept.centers = scratch.take<T>(classes / piece_size<T> + 1);
    if (!transform || !transform->any()) return kept;
    kept.transform = transform;
    kept.scores = scratch.take<T>(classes);
    if (transform->capped) kept.slope = scratch.take<T>(classes);
    return kept;
}

// First sweep: the sum, and what is kept for the second. Where logits are transformed, z is read and kept.scores is
// what the later sweeps read in its place.
template <class T>
RowSum<T> sum_row(const T* z, int64_t classes, double inverse_temperature, Kept<T> kept, RowMasses<T>* masses = nullptr);

// Calls body(k, part, exp((z_k - row.center) / T) * f) along a row that was kept, and settle() after every short sum.
template <class T, class Body, class Settle>
KULLBACK_INLINE void along_kept(const RowSum<T>& row, Kept<T> kept, int64_t classes, double inverse_temperature,
                                double f, Body body, Settle settle) {
    using V = Vector<T>;
    constexpr double unlift = double(Constants<T>::unlift);
    for (int64_t begin = 0; begin < classes; begin += piece_size<T>) {
        const int64_t end = begin + piece_size<T> < classes ? begin + piece_size<T> : classes;
        const double d = (double(kept.centers[begin / piece_size<T>]) - double(row.center)) * inverse_temperature;
        const double piece_f = d == 0 ? f : f * exp_nonpositive<double>(d);
        const T whole = T(piece_f * unlift);
        const bool coarse = (whole < 0 ? -whole : whole) < Constants<T>::least_normal && piece_f != 0;
        const T *e = kept.exp + begin, factor = coarse ? T(piece_f) : whole;
        T unlifted[piece_size<T>];
        if (coarse) {  // a factor that is itself subnormal would be coarse: take the lift back first
            for (int64_t k = 0; k < end - begin; ++k) unlifted[k] = e[k] * Constants<T>::unlift;
            e = unlifted;
        }
        constexpr int64_t step = short_sum * lanes<T>;
        for (int64_t here = begin; here < end; here += step) {
            for (int64_t line = here; kept.ahead && line < here + step; line += 64 / int64_t(sizeof(T))) {
                prefetch(kept.ahead + line);
            }
            along<T>(here, here + step < end ? here + step : end, [&](int64_t k, auto part) KULLBACK_LAMBDA {
                body(k, part, load<V>(e + (k - begin), part, T(0)) * factor);
            });
            settle();
        }
    }
}
template <class T, class Body>
KULLBACK_INLINE void along_kept(const RowSum<T>& row, Kept<T> kept, int64_t classes, double inverse_temperature,
                                double f, Body body) {
    along_kept(row, kept, classes, inverse_temperature, f, body, [] {});
}

// Writes elements of the gradient, times the cap's slope where there is one.
template <class T, class Part>
KULLBACK_INLINE void put(T* g, const Kept<T>& kept, int64_t k, Part part, Vector<T> value) {
    using V = Vector<T>;
    if (kept.slope) value = value * load<V>(kept.slope + k, part, T(0));
    if constexpr (std::is_same_v<Part, Whole>) {
        if (kept.streams) return stream<V>(g + k, value);
    }
    store<V>(g + k, part, value);
}
// Overwrites one.
template <class T>
KULLBACK_INLINE void put_one(T* g, const Kept<T>& kept, int64_t k, T value) {
    if (kept.slope) value *= kept.slope[k];
    if (kept.streams) return stream_one(g + k, value);
    g[k] = value;
}

template <class T>
inline void put_loss(const Job& job, int64_t i, double weighted, Report& report) {
    report.total += weighted;
    if (weighted == infinity<double> && report.infinite_row < 0) report.infinite_row = i;
    if (!job.per_example) return;
    if (job.per_example_float64) {
        static_cast<double*>(job.per_example)[i] = weighted;
    } else {
        static_cast<T*>(job.per_example)[i] = T(weighted);
    }
}

// Weighs, sums and stores the losses of a whole block; rows that do not count have loss 0.
template <class T>
void put_losses(const Job& job, int64_t begin, int64_t rows, const T* losses, const BlockTargets& targets,
                Report& report);

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
