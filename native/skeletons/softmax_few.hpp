// The softmax skeleton for few classes and class targets, in the lines of softmax_few_lines.hpp.
#pragma once

#include "skeletons/softmax_few_stages.hpp"
#include "skeletons/softmax_loss.hpp"
#include "skeletons/softmax_statistics.hpp"

#if KULLBACK_HAS_SHUFFLES

namespace kullback {
namespace KULLBACK_LEVEL {

// What the second stage reads of a job.
struct Settings {
    double scale, inverse_temperature, z_loss, hard, spread, weight_sum;
    bool divergence;

    explicit Settings(const Job& job)
        : scale(job.scale * job.inverse_temperature),
          inverse_temperature(job.inverse_temperature),
          z_loss(job.z_loss),
          hard(1 - job.smoothing),
          spread(job.smoothing / double(job.classes)),
          weight_sum(job.class_weight ? job.class_weight_sum : double(job.classes)),
          divergence(job.divergence) {}
};

// 0 times an infinite loss is 0: a share of nothing costs nothing.
template <class V>
KULLBACK_INLINE V blend(V share, V a, V b) {
    using T = Scalar<V>;
    return keep<V>(share != T(0), share * a) + keep<V>(share != T(1), (T(1) - share) * b);
}

// Stage 2: the losses of a group, and the scalars of its rows' gradients. A mixture of two classes is both at once.
template <class T, class Loss, Extent E, bool Two, bool WithStatistics>
KULLBACK_INLINE Vector<T> settle_group(const Settings& settings, const Loss& loss, Group<T>& group, SecondClass<T>* second,
                                       Vector<T> row_factor, Vector<T>& tiny) {
    using V = Vector<T>;
    // the target is left out of the sum: 1 - p_y has its full precision, and so has log p_y, because either the target
    // is the largest and e_y - 1 is 0, or its loss is not small
    V sum, others, misses = group.misses, second_misses = V{};
    Mask<V> apart;
    if constexpr (Two) {
        apart = group.target != second->target;
        const V e_z = keep<V>(apart, second->e_y);
        const Mask<V> first_larger = group.e_y > e_z;  // both stay in the sum, whichever is NaN
        const V top = select<V>(first_larger, group.e_y, e_z), low = select<V>(first_larger, e_z, group.e_y);
        sum = group.misses + (group.e_y + e_z);
        others = group.misses + (low + (top - T(1)));
        misses = group.misses + e_z;
        second_misses = group.misses + keep<V>(apart, group.e_y);
    } else {
        sum = group.misses + group.e_y;
        others = group.misses + (group.e_y - T(1));
    }
    const Mask<V> empty = sum == T(0);
    const V inverse = select<V>(empty, V{}, T(1) / sum);
    const V log_sum = log1p_nonnegative<V>(select<V>(empty, V{}, larger<V>(V{}, others)), inverse);
    const auto target = [&](const auto& of, V its_misses) KULLBACK_LAMBDA {
        TargetClass<V> at;
        at.log_p = of.d_y - log_sum;
        at.p = of.e_y * inverse;
        at.miss = select<V>(empty, splat<V>(T(1)), its_misses * inverse);
        at.squares = V{};
        if constexpr (Loss::by_squares) at.squares = group.squares * (inverse * inverse);
        at.weight = splat<V>(T(1));
        at.weighted_log_p = at.shift = V{};
        if constexpr (E != Extent::plain) at.weight = of.weight;
        if constexpr (E != Extent::plain && Loss::shifted) {
            at.shift = of.shift;
            at.made = true;
            at.parts = {of.e_y, select<V>(empty, splat<V>(T(1)), its_misses), of.d_y};
        }
        if constexpr (E == Extent::spread) at.weighted_log_p = group.weighted - T(settings.weight_sum) * log_sum;
        return at;
    };
    const auto gradient = [&](const TargetClass<V>& at) KULLBACK_LAMBDA {
        RowGradient<V> row = loss.at_class(at);
        if (E != Extent::plain && settings.z_loss != 0) {
            const V lse = group.center * T(settings.inverse_temperature) + log_sum;
            V mass = at.weight;
            if constexpr (E == Extent::spread) {
                mass = mass * T(settings.hard) + T(settings.weight_sum * settings.spread);
            }
            const Mask<V> some = mass != T(0);
            const V pull = keep<V>(some, mass * T(2 * settings.z_loss) * lse);
            row.loss += keep<V>(some, mass * T(settings.z_loss) * lse * lse);
            row.on_p += pull;
            row.at_class += pull * at.p;
        }
        return row;
    };
    const TargetClass<V> at = target(group, misses);
    RowGradient<V> row = gradient(at);
    if constexpr (Two) {
        const TargetClass<V> at_other = target(*second, second_misses);
        const RowGradient<V> other = gradient(at_other);
        const V share = second->share;
        const auto away = [&](const RowGradient<V>& from, const TargetClass<V>& at_it, V here) KULLBACK_LAMBDA {
            return select<V>(apart, from.on_p * at_it.p + from.on_weight * at_it.weight, here);
        };
        second->at_class = row_factor * blend<V>(share, away(row, at_other, row.at_class), other.at_class);
        row.at_class = blend<V>(share, row.at_class, away(other, at, other.at_class));
        row.loss = blend<V>(share, row.loss, other.loss);
        if (Loss::linear && settings.divergence) {
            const V entropy = entropy_of_two<V>(share * at.weight, (T(1) - share) * at_other.weight);
            // at the minimum the difference of two equal numbers may round to a hair below zero
            row.loss = larger<V>(V{}, row.loss + keep<V>(apart, entropy));
        }
        row.on_p = blend<V>(share, row.on_p, other.on_p);
        row.on_weight = blend<V>(share, row.on_weight, other.on_weight);
    }
    if constexpr (WithStatistics) {
        const V lse = group.center * T(settings.inverse_temperature) + log_sum;
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

// Whether rows follow each other without gaps, in `out` too.
template <class T>
bool without_gaps(const Job& job, const Rows<T>& logits) {
    return logits.stride == job.classes && (!job.out || job.out_stride == job.classes);
}

// The targets of some rows; what there is not is null.
struct FewTargets {
    const int32_t *first, *second;
    const double *weight, *share;

    FewTargets from(int64_t r) const {
        return {first + r, second ? second + r : nullptr, weight ? weight + r : nullptr, share ? share + r : nullptr};
    }
};

// The stages run over several groups each: what one group waits for (the logarithm's long chain above all) then
// overlaps with the work on the next. With a number of classes C, the stages are part of the loss's own code, and
// nothing is kept but the loss. Rows are mixtures of Two classes or have one.
template <class T, class Loss, Extent E, bool Two, int C = 0>
void few_class_rows(const Job& job, const Loss& shared_loss, const Transform<T>& transform, const Rows<T>& logits,
                    const BlockTargets& targets, int64_t begin, int64_t rows, T* losses) {
    using V = Vector<T>;
    constexpr int W = lanes<T>;
    const int classes = C > 0 ? C : int(job.classes);
    T* out = job.out ? static_cast<T*>(job.out) + begin * job.out_stride : nullptr;
    V kept[kept_vectors<T>], slopes[C > 0 ? 1 : kept_vectors<T>];
    Group<T> groups[most_groups];
    SecondClass<T> seconds[Two ? most_groups : 1];
    const RowStatistics<T> statistics(job, begin);
    FewRows<T> now = {};
    now.classes = int(job.classes);
    now.weight = static_cast<const T*>(job.class_weight);
    T shifts[Loss::shifted ? few_classes : 1];
    for (int k = 0; Loss::shifted && k < classes; ++k) {
        shifts[k] = shared_loss.template made_of<T>(static_cast<const T*>(job.shift)[k]);
    }
    now.shift = Loss::shifted ? shifts : nullptr;
    now.factor = T(job.inverse_temperature);
    now.transform = transform.any() ? &transform : nullptr;
    now.predict = statistics.prediction;
    now.columns = kept;
    now.slopes = slopes;
    now.groups = groups;
    now.seconds = seconds;
    FewStages<T> stages = {};
    if constexpr (C == 0) stages = few_stages<T>(classes, E, Loss::by_squares, Two);
    auto run = [&](const T* z, int64_t stride, const FewTargets& of, int count, T* g, int64_t g_stride, T* row_losses,
                   int64_t first) {
        now.z = z;
        now.stride = stride;
        now.y = of.first;
        now.second = of.second;
        now.count = count;
        now.g = g;
        now.g_stride = g_stride;
        if constexpr (C > 0) {
            sum_groups<T, Layout::columns, C, E, Loss::by_squares, Two>(now);
        } else {
            stages.sum(now);
        }
        // of our own: results are stored between its uses, which might be changing it
        const Loss loss = shared_loss;
        const Settings settings(job);
        V tiny = V{};
        auto settle = [&](auto with_statistics) KULLBACK_LAMBDA {
            constexpr bool with = decltype(with_statistics)::value;
            for (int i = 0; i < count; ++i) {
                V factors = splat<V>(T(settings.scale));
                if (of.weight) factors = narrow(load<InDouble<T>>(of.weight + i * W) * settings.scale);
                SecondClass<T>* second = Two ? seconds + i : nullptr;
                if constexpr (Two) second->share = in_lanes<T>(of.share + i * W);
                store<V>(row_losses + i * W,
                         settle_group<T, Loss, E, Two, with>(settings, loss, groups[i], second, factors, tiny));
                if (with) statistics.put_lanes(first + i * W, rows, groups[i].log_sum_exp, groups[i].prediction);
            }
        };
        // most have no use for statistics, and should not pay for them
        if (C == 0 && statistics.wanted()) {
            settle(std::true_type{});
        } else {
            settle(std::false_type{});
        }
        if (!g) return;
        if constexpr (C > 0) {
            spread_groups<T, Layout::columns, C, E, Loss::by_squares, Two>(now, any_lane<V>(tiny));
        } else {
            stages.spread(now, any_lane<V>(tiny));
        }
    };
    const FewTargets all{targets.first, Two ? targets.second : nullptr, targets.weights,
                         Two ? job.targets.share + begin : nullptr};
    const int fitting = kept_vectors<T> / group_vectors<T>(classes);
    const int at_once = fitting < most_groups ? fitting : most_groups;
    int64_t r = 0;
    while (r + W <= rows) {
        const int64_t left = (rows - r) / W;
        const int count = left < at_once ? int(left) : at_once;
        prefetch_classes(job.targets.first, begin + rows + r, count * W);  // of the block that most likely comes next
        run(logits.row(r), logits.stride, all.from(r), count, out ? out + r * job.out_stride : nullptr, job.out_stride,
            losses + r, r);
        r += count * W;
    }
    if (r < rows) {
        // the last rows, filled up with rows of zeros
        T z[W * few_classes] = {}, g[W * few_classes], some_losses[W];
        int32_t y[W] = {}, other[W] = {};
        double row_weight[W] = {}, share[W] = {};
        for (int64_t i = 0; r + i < rows; ++i) {
            for (int k = 0; k < classes; ++k) z[i * classes + k] = logits.row(r + i)[k];
            y[i] = all.first[r + i];
            row_weight[i] = targets.weight(r + i);
            if (!Two) continue;
            other[i] = all.second[r + i];
            share[i] = all.share[r + i];
        }
        run(z, classes, {y, other, row_weight, share}, 1, out ? g : nullptr, classes, some_losses, r);
        for (int64_t i = 0; r + i < rows; ++i) {
            losses[r + i] = some_losses[i];
            for (int k = 0; out && k < classes; ++k) out[(r + i) * job.out_stride + k] = g[i * classes + k];
        }
    }
    // rows that do not count may hold anything: their results are replaced, not multiplied by zero
    for (r = 0; targets.some_skipped && r < rows; ++r) {
        if (targets.weight(r) != 0) continue;
        losses[r] = 0;
        if (C == 0) statistics.skip(r);
        for (int k = 0; out && k < classes; ++k) out[r * job.out_stride + k] = 0;
    }
}

template <class T, class Loss>
void few_class_block(const Job& job, const Loss& loss, const Transform<T>& transform, const Rows<T>& logits,
                     const BlockTargets& targets, int64_t begin, int64_t rows, T* losses) {
    const bool two = job.targets.form == Form::mixture;
    auto run = [&](auto extent, auto mixed, auto classes) {
        few_class_rows<T, Loss, decltype(extent)::value, decltype(mixed)::value, decltype(classes)::value>(
            job, loss, transform, logits, targets, begin, rows, losses);
    };
    auto any = [&](auto extent) {
        const std::integral_constant<int, 0> classes{};
        if constexpr (!Loss::by_squares) {
            if (two) return run(extent, std::true_type{}, classes);
        }
        run(extent, std::false_type{}, classes);
    };
    if constexpr (Loss::linear) {
        if (loss.spreads()) return any(std::integral_constant<Extent, Extent::spread>{});
    }
    const bool scaled = Loss::shifted || job.class_weight || job.inverse_temperature != 1 || job.z_loss != 0;
    if (scaled || transform.any() || job.prediction || !without_gaps(job, logits)) {
        return any(std::integral_constant<Extent, Extent::scaled>{});
    }
    if constexpr (!Loss::shifted) {
        const std::integral_constant<Extent, Extent::plain> plain{};
        if (two || job.log_sum_exp) return any(plain);
        // cross-entropy's own kernels are in one piece, some hundredths faster
        with_known_classes_of<Loss>(job.classes, [&](auto classes) { run(plain, std::false_type{}, classes); });
    }
}

}  // namespace KULLBACK_LEVEL
}  // namespace kullback

#endif
