// The softmax skeleton for few classes and class targets: a lane per row, so that no lane is idle.
#pragma once

#include "simd/convert.hpp"
#include "simd/transpose.hpp"
#include "skeletons/softmax_loss.hpp"

#if KULLBACK_HAS_SHUFFLES

namespace kullback {
namespace KULLBACK_LEVEL {

constexpr int few_classes = 256;  // beyond, a row alone fills the lanes well enough

template <class T>
KULLBACK_INLINE typename traits<Vector<T>>::integer classes_in_lanes(const int32_t* y) {
    typename traits<Vector<T>>::integer classes;
    if constexpr (sizeof(T) == 4) {
        std::memcpy(&classes, y, sizeof classes);
    } else {
        ShortVector<int32_t, lanes<T>> narrow;
        std::memcpy(&narrow, y, sizeof narrow);
        classes = __builtin_convertvector(narrow, decltype(classes));
    }
    return classes;
}

// One group of as many rows as there are lanes. C is the number of classes, or 0 where only the job knows it; a
// Plain loss has neither class weights nor smoothing.
template <class T, class Loss, int C, int Tile, bool Plain>
KULLBACK_INLINE Vector<T> few_class_group(const Loss& loss, const T* weight, int dynamic_classes, T factor,
                                          const T* z, int64_t stride, const int32_t* y, Vector<T> row_factor, T* out,
                                          int64_t out_stride) {
    using V = Vector<T>;
    const int classes = C > 0 ? C : dynamic_classes;
    V e[C > 0 ? C : few_classes];
    load_columns<T, Tile>(z, stride, classes, e);
    const auto target = classes_in_lanes<T>(y);

    V top = e[0];
#pragma GCC unroll 16
    for (int k = 1; k < classes; ++k) top = larger<V>(e[k], top);
    top = larger<V>(splat<V>(-infinity<T>), top);
    const V center = select<V>(top > -infinity<T>, top, V{});
    V misses = V{}, d_y = V{}, e_y = V{}, w_y = splat<V>(T(1)), weighted = V{}, weight_sum = V{};
    V misses_here = V{}, weighted_here = V{};
#pragma GCC unroll 16
    for (int k = 0; k < classes; ++k) {
        const V d = (e[k] - center) * factor;
        e[k] = exp_nonpositive<V>(d);
        const Mask<V> is_target = target == k;
        misses_here += select<V>(is_target, V{}, e[k]);
        d_y = select<V>(is_target, d, d_y);
        e_y = select<V>(is_target, e[k], e_y);
        if constexpr (!Plain) {
            const V w = splat<V>(weight ? weight[k] : T(1));
            w_y = select<V>(is_target, w, w_y);
            weighted_here += keep<V>(w != T(0), w * d);
            weight_sum += w;
        }
        if (k % 16 == 15) {  // sums of sums: rounding grows with 16 + C/16 terms and not with C
            misses += misses_here;
            weighted += weighted_here;
            misses_here = weighted_here = V{};
        }
    }
    misses += misses_here;
    weighted += weighted_here;
    // the target is left out of the sum: 1 - p_y has its full precision, and so has log p_y, because either the target
    // is the largest and e_y - 1 is 0, or its loss is not small
    const V sum = misses + e_y;
    const Mask<V> empty = sum == T(0);
    const V inverse = select<V>(empty, V{}, T(1) / sum);
    const V log_sum = log1p_nonnegative<V>(select<V>(empty, V{}, larger<V>(V{}, misses + (e_y - T(1)))));
    TargetClass<V> at;
    at.log_p = d_y - log_sum;
    at.p = e_y * inverse;
    at.miss = select<V>(empty, splat<V>(T(1)), misses * inverse);
    at.weight = w_y;
    // without smoothing this may be -inf and must not meet a zero
    at.weighted_log_p = loss.spreads() ? weighted - weight_sum * log_sum : V{};
    const RowGradient<V> row = loss.at_class(at);
    if (out) {
        const V f = row_factor * row.on_p * inverse, u = row_factor * row.on_weight;
        const V at_class = row_factor * row.at_class;
#pragma GCC unroll 16
        for (int k = 0; k < classes; ++k) {
            V g = e[k] * f;
            if constexpr (!Plain) g += u * (weight ? weight[k] : T(1));
            e[k] = select<V>(target == k, at_class, g);
        }
        store_columns<T, Tile>(out, out_stride, classes, e);
    }
    return select<V>(sum == sum, row.loss, sum);
}

template <class T, class Loss, int C, int Tile, bool Plain>
void few_class_rows(const Job& job, const Loss& loss, const Rows<T>& logits, const BlockTargets& targets,
                    int64_t begin, int64_t rows, T* losses) {
    constexpr int W = lanes<T>;
    const int classes = int(job.classes);
    const T* weight = static_cast<const T*>(job.class_weight);
    const T factor = T(job.inverse_temperature);
    const double scale = job.scale * job.inverse_temperature;
    T* out = job.out ? static_cast<T*>(job.out) + begin * job.out_stride : nullptr;
    auto group = [&](const T* z, int64_t stride, const int32_t* y, const double* row_weight, T* g, int64_t g_stride) {
        Vector<T> factors = splat<Vector<T>>(T(scale));
        if (row_weight) {
            for (int i = 0; i < W; ++i) lane(factors, i) = T(row_weight[i] * scale);
        }
        return few_class_group<T, Loss, C, Tile, Plain>(loss, weight, classes, factor, z, stride, y,
                                                        factors, g, g_stride);
    };
    int64_t r = 0;
    for (; r + W <= rows; r += W) {
        store<Vector<T>>(losses + r, group(logits.row(r), logits.stride, targets.first + r,
                                           targets.weights ? targets.weights + r : nullptr,
                                           out ? out + r * job.out_stride : nullptr, job.out_stride));
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
        store<Vector<T>>(some_losses, group(z, classes, y, row_weight, out ? g : nullptr, classes));
        for (int64_t i = 0; r + i < rows; ++i) {
            losses[r + i] = some_losses[i];
            for (int k = 0; out && k < classes; ++k) out[(r + i) * job.out_stride + k] = g[i * classes + k];
        }
    }
    // rows that do not count may hold anything: their results are replaced, not multiplied by zero
    for (r = 0; targets.some_skipped && r < rows; ++r) {
        if (targets.weight(r) != 0) continue;
        losses[r] = 0;
        for (int k = 0; out && k < classes; ++k) out[r * job.out_stride + k] = 0;
    }
}

template <class T, class Loss, bool Plain>
void few_class_block(const Job& job, const Loss& loss, const Rows<T>& logits, const BlockTargets& targets,
                     int64_t begin, int64_t rows, T* losses) {
    auto run = [&](auto classes, auto tile) {
        few_class_rows<T, Loss, decltype(classes)::value, decltype(tile)::value, Plain>(job, loss, logits, targets,
                                                                                       begin, rows, losses);
    };
    auto fixed = [&](auto classes) {
        run(classes, std::integral_constant<int, tile_width<T>(decltype(classes)::value)>{});
    };
    switch (job.classes) {
        case 2: return fixed(std::integral_constant<int, 2>{});
        case 3: return fixed(std::integral_constant<int, 3>{});
        case 4: return fixed(std::integral_constant<int, 4>{});
        case 5: return fixed(std::integral_constant<int, 5>{});
        case 10: return fixed(std::integral_constant<int, 10>{});
    }
    const std::integral_constant<int, 0> any{};
    if (job.classes >= lanes<T>) return run(any, std::integral_constant<int, lanes<T>>{});
    if constexpr (lanes<T> > 8) {
        if (job.classes >= 8) return run(any, std::integral_constant<int, 8>{});
    }
    if constexpr (lanes<T> > 4) return run(any, std::integral_constant<int, 4>{});
}

}  // namespace KULLBACK_LEVEL
}  // namespace kullback

#endif
