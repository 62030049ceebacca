// Softmax and log-softmax of rows, for those who want probabilities and no loss.
//
// With few classes each lane has a row of its own, as in softmax_few.hpp.
#pragma once

#include "skeletons/softmax_few.hpp"
#include "skeletons/softmax_row.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

#if KULLBACK_HAS_SHUFFLES
// A group of rows, one to a lane: columns of logits become columns of probabilities or of their logarithms. `kept` has
// room for as many columns.
template <class T>
KULLBACK_INLINE void group_probabilities(Vector<T>* columns, Vector<T>* kept, int classes, T factor, bool logarithm,
                                         const Ahead<T>& ahead) {
    using V = Vector<T>;
    V top = columns[0];
    for (int k = 1; k < classes; ++k) top = larger<V>(columns[k], top);  // passes over NaN, which the sum shows
    const V center = select<V>(top > -infinity<T>, top, V{});
    V others = V{}, ties = V{};
    for (int begin = 0; begin < classes; begin += 16) {
        // sums of sums: rounding grows with 16 + C/16 terms and not with C
        const int end = begin + 16 < classes ? begin + 16 : classes;
        V here = V{};
        for (int k = begin; k < end; ++k) {
            const V d = (columns[k] - center) * factor, e = exp_lifted<V>(d);
            const Mask<V> is_top = d == T(0);
            here += select<V>(is_top, V{}, e);
            ties += keep<V>(is_top, splat<V>(T(1)));
            columns[k] = logarithm ? d : e;
            Lines<T, Layout::columns>::ask_for(ahead.result, 0, k);
            Lines<T, Layout::columns>::ask_for(ahead.logits, 0, k);
        }
        kept[begin / 16] = here;
    }
    for (int i = 0; i * 16 < classes; ++i) others += kept[i];
    others = others * Constants<T>::unlift + (ties - T(1));
    const Mask<V> empty = others < T(0);  // a row of -inf lacks a largest logit, and has no chances to share out
    if (logarithm) {
        const V log_sum = select<V>(empty, V{}, log1p_nonnegative<V>(others));
        for (int k = 0; k < classes; ++k) columns[k] -= log_sum;
    } else {
        const V inverse = select<V>(empty, V{}, T(1) / (others + T(1)));
        for (int k = 0; k < classes; ++k) columns[k] = columns[k] * Constants<T>::unlift * inverse;
    }
}

template <class T>
void few_probabilities(const Job& job, const Rows<T>& logits, int64_t begin, int64_t rows) {
    constexpr int W = lanes<T>;
    const int classes = int(job.classes);
    const T factor = T(job.inverse_temperature);
    T* out = static_cast<T*>(job.out) + begin * job.out_stride;
    Vector<T> columns[few_classes], kept[few_classes / 16];
    const auto group = [&](const T* z, int64_t stride, T* to, int64_t to_stride) {
        load_columns<T>(z, stride, classes, columns);
        const Lines<T, Layout::columns> lines{classes};
        const Ahead<T> ahead = look_ahead(lines, 1, Rows<T>{z, stride}, Rows<T>{}, Rows<T>{to, to_stride});
        group_probabilities<T>(columns, kept, classes, factor, job.logarithm, ahead);
        store_columns<T>(to, to_stride, classes, columns);
    };
    int64_t r = 0;
    for (; r + W <= rows; r += W) group(logits.row(r), logits.stride, out + r * job.out_stride, job.out_stride);
    if (r == rows) return;
    // the last rows, filled up with rows of zeros
    T z[W * few_classes] = {}, p[W * few_classes];
    for (int64_t i = 0; r + i < rows; ++i) {
        for (int k = 0; k < classes; ++k) z[i * classes + k] = logits.row(r + i)[k];
    }
    group(z, classes, p, classes);
    for (int64_t i = 0; r + i < rows; ++i) {
        for (int k = 0; k < classes; ++k) out[(r + i) * job.out_stride + k] = p[i * classes + k];
    }
}
#endif

template <class T>
void softmax_probabilities(const Job& job, int64_t begin, int64_t end, void* memory, Report&) {
    using V = Vector<T>;
    Scratch scratch(memory);
    const T factor = T(job.inverse_temperature);
    const Rows<T> logits = rows_of<T>(job.logits, begin, end, job.classes, scratch);
#if KULLBACK_HAS_SHUFFLES
    if (job.classes > 1 && job.classes <= few_classes) return few_probabilities<T>(job, logits, begin, end - begin);
#endif
    const Kept<T> kept = room_to_keep<T>(job.classes, scratch);
    for (int64_t i = begin; i < end; ++i) {
        const T* z = logits.row(i - begin);
        T* out = static_cast<T*>(job.out) + i * job.out_stride;
        const RowSum<T> row = sum_row(z, job.classes, job.inverse_temperature, kept);
        // log_sum is NaN with the sum, so a row with a NaN or +inf logit is NaN all along
        const T log_sum = T(row.log_sum), inverse = T(row.inverse);
        along<T>(0, job.classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
            const V d = (load<V>(z + k, part, -infinity<T>) - row.center) * factor;
            store<V>(out + k, part, job.logarithm ? d - log_sum : exp_nonpositive<V>(d) * inverse);
        });
    }
}

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
