// The softmax skeleton for few classes and class targets: a lane per row, so that no lane is idle.
#pragma once

#include "simd/convert.hpp"
#include "simd/transpose.hpp"
#include "skeletons/softmax_loss.hpp"
#include "skeletons/softmax_statistics.hpp"
#include "skeletons/softmax_transform.hpp"

#if KULLBACK_HAS_SHUFFLES

namespace kullback {
namespace KULLBACK_LEVEL {

constexpr int few_classes = 256;  // beyond, a row alone fills the lanes well enough

// The number of a class, a lane per row.
template <class T>
using ClassNumbers = typename traits<Vector<T>>::integer;

template <class T>
KULLBACK_INLINE ClassNumbers<T> classes_in_lanes(const int32_t* y) {
    ClassNumbers<T> classes;
    if constexpr (sizeof(T) == 4) {
        std::memcpy(&classes, y, sizeof classes);
    } else {
        ShortVector<int32_t, lanes<T>> narrow;
        std::memcpy(&narrow, y, sizeof narrow);
        classes = __builtin_convertvector(narrow, decltype(classes));
    }
    return classes;
}

// Asks for as many rows as there are lanes.
template <class T>
KULLBACK_INLINE void prefetch_rows(const T* rows, int64_t stride, int64_t classes) {
    constexpr int64_t step = 64 / int64_t(sizeof(T));
    if (stride == classes) {
        for (int64_t line = 0; line < lanes<T> * classes; line += step) prefetch(rows + line);
        return;
    }
    for (int i = 0; i < lanes<T>; ++i) {
        for (int64_t line = 0; line < classes; line += step) prefetch(rows + i * stride + line);
    }
}

// How many groups before their use rows are asked for.
template <class T>
KULLBACK_INLINE int groups_ahead(int classes) {
    constexpr int bytes = 2048;
    return 1 + bytes / (lanes<T> * classes * int(sizeof(T)));
}

// How many vectors are kept between the stages below: 8 KiB of logits at most, so that they stay in the nearest cache.
template <class T>
constexpr int kept_vectors = 256;
constexpr int most_groups = 32;

// What the first stage finds for a group of as many rows as there are lanes, each number a lane per row.
template <class T>
struct Group {
    using V = Vector<T>;
    ClassNumbers<T> target;
    V center;    // the largest logit
    V misses;    // sum of exp over the other classes
    V squares;   // sum of exp^2 over them, if the loss has a use for it
    V d_y, e_y;  // the target's logit relative to the largest, and its exp
    V weight, weighted, weight_sum, shift;
    V factor, unlifted_factor;  // of lifted exp and of exp itself, in the gradient
    V on_square;                // of the square of lifted exp
    V on_weight, at_class;
    V log_sum_exp, prediction;  // if the job wants them
};

// Calls body(k) for k in [begin, end), unrolled altogether where the number of classes C is known.
template <int C, class Body>
KULLBACK_INLINE void each_class(int begin, int end, Body body) {
    if constexpr (C > 0) {
#pragma GCC unroll 16
        for (int k = begin; k < end; ++k) body(k);
    } else {
#pragma GCC unroll 4
        for (int k = begin; k < end; ++k) body(k);
    }
}

// The class with each row's largest logit, or -1: see softmax_statistics.hpp. Classes are numbered in T, which holds so
// few of them.
template <class T>
KULLBACK_INLINE Vector<T> largest_classes(const Vector<T>* columns, int classes) {
    using V = Vector<T>;
    V top = columns[0], at = V{}, number = V{}, odd = V{};
    each_class<0>(0, classes, [&](int k) KULLBACK_LAMBDA {
        const V x = columns[k];
        const Mask<V> higher = x > top;
        at = select<V>(higher, number, at);
        top = select<V>(higher, x, top);
        odd += select<V>(x < infinity<T>, V{}, splat<V>(T(1)));
        number += splat<V>(T(1));
    });
    return select<V>(odd == T(0), at, splat<V>(T(-1)));
}

// How much a kernel for one class per row must know: nothing but logits; also a temperature, class weights or shifts;
// also the sums that smoothing needs.
enum class Extent { plain, scaled, spread };

// Several groups of rows on their way through the stages.
template <class T>
struct FewRows {
    using V = Vector<T>;
    const T* z;  // logits
    T* g;        // their gradient, or null
    int64_t stride, g_stride;
    const int32_t* y;
    int count, classes;
    const T *weight, *shift;  // (C,), or null
    T factor;                 // of the logits
    const Transform<T>* transform;
    bool predict;  // whether anyone wants to know the largest logit's class
    V *columns, *slopes;
    Group<T>* groups;
};

// Stage 1: columns of logits to lifted exp relative to each row's largest, and their sums. Stage 3: lifted exp to
// gradient; where a factor is `tiny`, which means subnormal, and so coarse, the lift is taken back first. Both are the
// same for all losses, and so compiled once, in softmax_few.cpp.
template <class T>
struct FewStages {
    void (*sum)(const FewRows<T>&);
    void (*spread)(const FewRows<T>&, bool tiny);
};

// The stages for a number of classes, or for any number with 0. With a number, columns stay in registers, so nothing
// may be done to them on the way: no transform, no prediction; and rows follow each other without gaps.
template <class T>
FewStages<T> few_stages(int64_t classes, Extent extent, bool squares);

// Stage 2: the losses of a group, and the scalars of its rows' gradients.
template <class T, class Loss, Extent E, bool WithStatistics>
KULLBACK_INLINE Vector<T> settle_group(const Job& job, const Loss& loss, Group<T>& group, Vector<T> row_factor,
                                       Vector<T>& tiny) {
    using V = Vector<T>;
    // the target is left out of the sum: 1 - p_y has its full precision, and so has log p_y, because either the target
    // is the largest and e_y - 1 is 0, or its loss is not small
    const V sum = group.misses + group.e_y;
    const Mask<V> empty = sum == T(0);
    const V inverse = select<V>(empty, V{}, T(1) / sum);
    const V log_sum =
        log1p_nonnegative<V>(select<V>(empty, V{}, larger<V>(V{}, group.misses + (group.e_y - T(1)))), inverse);
    TargetClass<V> at;
    at.log_p = group.d_y - log_sum;
    at.p = group.e_y * inverse;
    at.miss = select<V>(empty, splat<V>(T(1)), group.misses * inverse);
    at.squares = V{};
    if constexpr (Loss::by_squares) at.squares = group.squares * (inverse * inverse);
    at.weight = splat<V>(T(1));
    at.weighted_log_p = at.shift = V{};
    if constexpr (E != Extent::plain) at.weight = group.weight;
    if constexpr (E != Extent::plain && Loss::shifted) at.shift = group.shift;
    if constexpr (E == Extent::spread) at.weighted_log_p = group.weighted - group.weight_sum * log_sum;
    RowGradient<V> row = loss.at_class(at);
    if (E != Extent::plain && job.z_loss != 0) {
        const V lse = group.center * T(job.inverse_temperature) + log_sum;
        V mass = at.weight;
        if constexpr (E == Extent::spread) mass = mass * T(1 - job.smoothing) + group.weight_sum * T(job.smoothing / double(job.classes));
        const Mask<V> some = mass != T(0);
        const V pull = keep<V>(some, mass * T(2 * job.z_loss) * lse);
        row.loss += keep<V>(some, mass * T(job.z_loss) * lse * lse);
        row.on_p += pull;
        row.at_class += pull * at.p;
    }
    if (WithStatistics && job.log_sum_exp) {
        const V lse = group.center * T(job.inverse_temperature) + log_sum;
        group.log_sum_exp = select<V>(empty, splat<V>(-infinity<T>), lse);
    }
    group.unlifted_factor = row_factor * row.on_p * inverse;
    group.factor = group.unlifted_factor * Constants<T>::unlift;
    tiny += keep<V>(absolute<V>(group.factor) < Constants<T>::least_normal, absolute<V>(group.unlifted_factor));
    if constexpr (Loss::by_squares) {
        group.on_square = row_factor * row.on_square * (inverse * Constants<T>::unlift) * (inverse * Constants<T>::unlift);
    }
    group.on_weight = row_factor * row.on_weight;
    group.at_class = row_factor * row.at_class;
    return select<V>(sum == sum, row.loss, sum);
}

// The stages run over several groups each: what one group waits for (the logarithm's long chain above all) then
// overlaps with the work on the next.
template <class T, class Loss, Extent E>
void few_class_rows(const Job& shared_job, const Loss& shared_loss, const Transform<T>& transform, const Rows<T>& logits,
                    const BlockTargets& targets, int64_t begin, int64_t rows, T* losses) {
    using V = Vector<T>;
    constexpr int W = lanes<T>;
    // of our own: results are stored between their uses, which might be changing them
    const Job job = shared_job;
    const Loss loss = shared_loss;
    const int classes = int(job.classes);
    const double scale = job.scale * job.inverse_temperature;
    T* out = job.out ? static_cast<T*>(job.out) + begin * job.out_stride : nullptr;
    V kept[kept_vectors<T>], slopes[kept_vectors<T>];
    Group<T> groups[most_groups];
    const RowStatistics<T> statistics(job, begin);
    FewRows<T> now = {};
    now.classes = classes;
    now.weight = static_cast<const T*>(job.class_weight);
    now.shift = Loss::shifted ? static_cast<const T*>(job.shift) : nullptr;
    now.factor = T(job.inverse_temperature);
    now.transform = transform.any() ? &transform : nullptr;
    now.predict = statistics.prediction;
    now.columns = kept;
    now.slopes = slopes;
    now.groups = groups;
    const bool without_gaps = logits.stride == classes && (!out || job.out_stride == classes);
    const bool alone = without_gaps && !now.transform && !now.predict;
    const FewStages<T> stages = few_stages<T>(alone ? classes : 0, E, Loss::by_squares);
    auto run = [&](const T* z, int64_t stride, const int32_t* y, const double* row_weight, int count, T* g,
                   int64_t g_stride, T* row_losses, int64_t first) {
        now.z = z;
        now.stride = stride;
        now.y = y;
        now.count = count;
        now.g = g;
        now.g_stride = g_stride;
        stages.sum(now);
        V tiny = V{};
        auto settle = [&](auto with_statistics) KULLBACK_LAMBDA {
            constexpr bool with = decltype(with_statistics)::value;
            for (int i = 0; i < count; ++i) {
                V factors = splat<V>(T(scale));
                if (row_weight) {
                    for (int j = 0; j < W; ++j) lane(factors, j) = T(row_weight[i * W + j] * scale);
                }
                store<V>(row_losses + i * W, settle_group<T, Loss, E, with>(job, loss, groups[i], factors, tiny));
                if (with) statistics.put_lanes(first + i * W, rows, groups[i].log_sum_exp, groups[i].prediction);
            }
        };
        // most have no use for statistics, and should not pay for them
        if (statistics.wanted()) {
            settle(std::true_type{});
        } else {
            settle(std::false_type{});
        }
        if (g) stages.spread(now, any_lane<V>(tiny));
    };
    const int fitting = kept_vectors<T> / classes;
    const int at_once = fitting < most_groups ? fitting : most_groups;
    int64_t r = 0;
    while (r + W <= rows) {
        const int64_t left = (rows - r) / W;
        const int count = left < at_once ? int(left) : at_once;
        run(logits.row(r), logits.stride, targets.first + r, targets.weights ? targets.weights + r : nullptr, count,
            out ? out + r * job.out_stride : nullptr, job.out_stride, losses + r, r);
        r += count * W;
    }
    if (r < rows) {
        // the last rows, filled up with rows of zeros
        T z[W * few_classes] = {}, g[W * few_classes], some_losses[W];
        int32_t y[W] = {};
        double row_weight[W] = {};
        for (int64_t i = 0; r + i < rows; ++i) {
            for (int k = 0; k < classes; ++k) z[i * classes + k] = logits.row(r + i)[k];
            y[i] = targets.first[r + i];
            row_weight[i] = targets.weight(r + i);
        }
        run(z, classes, y, row_weight, 1, out ? g : nullptr, classes, some_losses, r);
        for (int64_t i = 0; r + i < rows; ++i) {
            losses[r + i] = some_losses[i];
            for (int k = 0; out && k < classes; ++k) out[(r + i) * job.out_stride + k] = g[i * classes + k];
        }
    }
    // rows that do not count may hold anything: their results are replaced, not multiplied by zero
    for (r = 0; targets.some_skipped && r < rows; ++r) {
        if (targets.weight(r) != 0) continue;
        losses[r] = 0;
        statistics.skip(r);
        for (int k = 0; out && k < classes; ++k) out[r * job.out_stride + k] = 0;
    }
}

template <class T, class Loss>
void few_class_block(const Job& job, const Loss& loss, const Transform<T>& transform, const Rows<T>& logits,
                     const BlockTargets& targets, int64_t begin, int64_t rows, T* losses) {
    if constexpr (Loss::linear) {
        if (loss.spreads()) {
            return few_class_rows<T, Loss, Extent::spread>(job, loss, transform, logits, targets, begin, rows, losses);
        }
    }
    if (Loss::shifted || job.class_weight || job.inverse_temperature != 1 || job.z_loss != 0) {
        return few_class_rows<T, Loss, Extent::scaled>(job, loss, transform, logits, targets, begin, rows, losses);
    }
    if constexpr (!Loss::shifted) {
        few_class_rows<T, Loss, Extent::plain>(job, loss, transform, logits, targets, begin, rows, losses);
    }
}

}  // namespace KULLBACK_LEVEL
}  // namespace kullback

#endif
