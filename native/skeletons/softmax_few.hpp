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

// How many vectors are kept between the stages below: 8 KiB of logits at most, so that they stay in the nearest cache.
template <class T>
constexpr int kept_vectors = 256;
constexpr int most_groups = 32;
constexpr int bytes_ahead = 2048;

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

// Stage 1: columns of logits to lifted exp relative to each row's largest, in place, and their sums.
template <class T, int C, Extent E, bool Squares>
KULLBACK_INLINE void sum_group(const T* weight, int dynamic_classes, ClassNumbers<T> first_class, T factor, Vector<T>* e,
                               Group<T>& group) {
    constexpr T unlift = Constants<T>::unlift;
    using V = Vector<T>;
    const int classes = C > 0 ? C : dynamic_classes;
    V top = e[0];
    each_class<C>(1, classes, [&](int k) KULLBACK_LAMBDA { top = larger<V>(e[k], top); });
    top = larger<V>(splat<V>(-infinity<T>), top);
    const V center = select<V>(top > -infinity<T>, top, V{});
    const auto target = group.target;
    auto class_here = first_class;
    V misses = V{}, squares = V{}, d_y = V{}, e_y = V{}, w_y = splat<V>(T(1)), weighted = V{}, weight_sum = V{};
    for (int begin = 0; begin < classes; begin += 16) {
        // sums of sums: rounding grows with 16 + C/16 terms and not with C
        const int end = begin + 16 < classes ? begin + 16 : classes;
        V misses_here = V{}, squares_here = V{}, weighted_here = V{};
        each_class<C>(begin, end, [&](int k) KULLBACK_LAMBDA {
            const V above = e[k] - center, d = E == Extent::plain ? above : above * factor;
            const V exp_d = exp_lifted<V>(d);
            e[k] = exp_d;
            const Mask<V> is_target = target == class_here;
            class_here += 1;
            const V miss = keep<V>(!is_target, exp_d);
            misses_here += miss;
            if constexpr (Squares) squares_here += miss * miss;
            d_y = select<V>(is_target, d, d_y);
            e_y = select<V>(is_target, exp_d, e_y);
            if constexpr (E == Extent::spread) {
                const V w = splat<V>(weight ? weight[k] : T(1));
                w_y = select<V>(is_target, w, w_y);
                weighted_here += keep<V>(w != T(0), w * d);
                weight_sum += w;
            }
        });
        misses += misses_here;
        squares += squares_here;
        weighted += weighted_here;
    }
    group.center = center;
    group.misses = misses * unlift;
    if constexpr (Squares) group.squares = squares * (unlift * unlift);
    group.d_y = d_y;
    group.e_y = e_y * unlift;
    if constexpr (E == Extent::spread) {
        group.weight = w_y;
        group.weighted = weighted;
        group.weight_sum = weight_sum;
    }
}

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

// Stage 3: lifted exp to gradient, perhaps in place. A factor that is itself subnormal would be coarse: where one is `tiny`,
// the lift is taken back first.
template <class T, int C, Extent E, bool Squares>
KULLBACK_INLINE void spread_group(const T* weight, int dynamic_classes, ClassNumbers<T> first_class,
                                  const Group<T>& group, bool tiny, Vector<T>* e, Vector<T>* to) {
    using V = Vector<T>;
    constexpr T unlift = Constants<T>::unlift;
    const int classes = C > 0 ? C : dynamic_classes;
    constexpr T lift = 1 / unlift;
    V factor = group.factor, square = Squares ? group.on_square : V{};
    if (tiny) {
        factor = group.unlifted_factor;
        square = square * (lift * lift);
        for (int k = 0; k < classes; ++k) e[k] = e[k] * unlift;
    }
    const auto target = group.target;
    auto class_here = first_class;
    each_class<C>(0, classes, [&](int k) KULLBACK_LAMBDA {
        V g = Squares ? e[k] * (e[k] * square + factor) : e[k] * factor;
        if constexpr (E == Extent::spread) g += group.on_weight * (weight ? weight[k] : T(1));
        to[k] = select<V>(target == class_here, group.at_class, g);
        class_here += 1;
    });
}

// The stages run over several groups each: what one group waits for (the logarithm's long chain above all) then
// overlaps with the work on the next. C is the number of classes, or 0 where only the job knows it; with a number,
// columns stay in registers from stage to stage, so nothing else may be done to them on the way, and rows follow each
// other without gaps, in `out` too.
template <class T, class Loss, int C, Extent E>
void few_class_rows(const Job& job, const Loss& shared_loss, const Transform<T>& transform, const Rows<T>& logits,
                    const BlockTargets& targets, int64_t begin, int64_t rows, T* losses) {
    using V = Vector<T>;
    constexpr int W = lanes<T>;
    const int classes = C > 0 ? C : int(job.classes);
    const T* weight = static_cast<const T*>(job.class_weight);
    const T factor = T(job.inverse_temperature);
    const Loss loss = shared_loss;  // of our own: results are stored between its uses, which might be changing it
    const double scale = job.scale * job.inverse_temperature;
    T* out = job.out ? static_cast<T*>(job.out) + begin * job.out_stride : nullptr;
    // 0, which the compiler must not know: it would make the number of every class anew in every group
    const ClassNumbers<T> first_class = ClassNumbers<T>{} + typename Constants<T>::Int(C > 0 ? job.classes - C : 0);
    // rows come from memory this many groups before they are needed
    const int ahead = 1 + bytes_ahead / (W * classes * int(sizeof(T)));
    V kept[kept_vectors<T>], slopes[C == 0 ? kept_vectors<T> : 1];
    Group<T> groups[most_groups];
    constexpr bool with_statistics = C == 0;  // columns that stay in registers leave them no room
    const RowStatistics<T> statistics(job, begin);
    auto run = [&](const T* z, int64_t z_stride, const int32_t* y, const double* row_weight, int count, T* g,
                   int64_t out_stride, T* row_losses, int64_t first) {
        const int64_t stride = C > 0 ? C : z_stride, g_stride = C > 0 ? C : out_stride;
        for (int i = 0; i < count; ++i) {
            V* e = kept + i * classes;
            // the lines that stage 3 will overwrite, and rows to come, come from memory while exp keeps the processor busy
            prefetch_rows<T>(z + (i + ahead) * W * stride, stride, classes);
            if (g) prefetch_rows<T>(g + i * W * g_stride, g_stride, classes);
            load_columns<T>(z + i * W * stride, stride, classes, e);
            groups[i].target = classes_in_lanes<T>(y + i * W);
            if (with_statistics && statistics.prediction) groups[i].prediction = largest_classes<T>(e, classes);
            if constexpr (C == 0) {
                if (transform.any()) transform.columns(e, classes, slopes + i * classes);
            }
            if constexpr (E == Extent::scaled) {
                // the weights of other classes do not matter
                groups[i].weight = splat<V>(T(1));
                for (int j = 0; weight && j < W; ++j) lane(groups[i].weight, j) = weight[y[i * W + j]];
                for (int j = 0; Loss::shifted && j < W; ++j) {
                    lane(groups[i].shift, j) = static_cast<const T*>(job.shift)[y[i * W + j]];
                }
            }
            sum_group<T, C, E, Loss::by_squares>(weight, classes, first_class, factor, e, groups[i]);
        }
        V tiny = V{};
        for (int i = 0; i < count; ++i) {
            V factors = splat<V>(T(scale));
            if (row_weight) {
                for (int j = 0; j < W; ++j) lane(factors, j) = T(row_weight[i * W + j] * scale);
            }
            store<V>(row_losses + i * W, settle_group<T, Loss, E, with_statistics>(job, loss, groups[i], factors, tiny));
            if (with_statistics && statistics.wanted()) {
                statistics.put_lanes(first + i * W, rows, groups[i].log_sum_exp, groups[i].prediction);
            }
        }
        const bool some_tiny = g && any_lane<V>(tiny);
        for (int i = 0; g && i < count; ++i) {
            V* e = kept + i * classes;
            V in_registers[C > 0 ? C : 1];
            V* gradient = C > 0 ? in_registers : e;
            spread_group<T, C, E, Loss::by_squares>(weight, classes, first_class, groups[i], some_tiny, e, gradient);
            if constexpr (C == 0) {
                for (int k = 0; transform.capped && k < classes; ++k) e[k] *= slopes[i * classes + k];
            }
            store_columns<T>(g + i * W * g_stride, g_stride, classes, gradient);
        }
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
        if (with_statistics) statistics.skip(r);
        for (int k = 0; out && k < classes; ++k) out[r * job.out_stride + k] = 0;
    }
}

template <class T, class Loss>
void few_class_block(const Job& job, const Loss& loss, const Transform<T>& transform, const Rows<T>& logits,
                     const BlockTargets& targets, int64_t begin, int64_t rows, T* losses) {
    auto run = [&](auto classes, auto extent) {
        few_class_rows<T, Loss, decltype(classes)::value, decltype(extent)::value>(job, loss, transform, logits, targets,
                                                                                   begin, rows, losses);
    };
    const std::integral_constant<int, 0> any{};
    if constexpr (Loss::linear) {
        if (loss.spreads()) return run(any, std::integral_constant<Extent, Extent::spread>{});
    }
    if (Loss::shifted || job.class_weight || job.inverse_temperature != 1 || job.z_loss != 0) {
        return run(any, std::integral_constant<Extent, Extent::scaled>{});
    }
    const std::integral_constant<Extent, Extent::plain> plain{};
    if constexpr (Loss::linear) {
        // the loops over so few classes are worth unrolling
        const bool without_gaps = logits.stride == job.classes && (!job.out || job.out_stride == job.classes);
        switch (transform.any() || job.log_sum_exp || job.prediction || !without_gaps ? 0 : job.classes) {
            case 2: return run(std::integral_constant<int, 2>{}, plain);
            case 3: return run(std::integral_constant<int, 3>{}, plain);
            case 4: return run(std::integral_constant<int, 4>{}, plain);
            case 5: return run(std::integral_constant<int, 5>{}, plain);
            case 10: return run(std::integral_constant<int, 10>{}, plain);
        }
    }
    if constexpr (!Loss::shifted) run(any, plain);
}

}  // namespace KULLBACK_LEVEL
}  // namespace kullback

#endif
