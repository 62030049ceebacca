// Few classes, a lane per row, for losses that look at every class: soft targets, mixtures, smoothing, and losses with
// an off(). The same three sweeps as in softmax_dense.hpp, over columns that stay in the cache.
#pragma once

#include "simd/transpose.hpp"
#include "skeletons/softmax_dense.hpp"
#include "skeletons/softmax_few.hpp"

#if KULLBACK_HAS_SHUFFLES

namespace kullback {
namespace KULLBACK_LEVEL {

// Adds up to 256 terms; sums of sums: rounding grows with 16 + C/16 terms and not with C.
template <class V>
struct GroupedSum {
    V total = V{}, here = V{};
    KULLBACK_INLINE void add(V x) { here += x; }
    KULLBACK_INLINE void settle() {
        total += here;
        here = V{};
    }
};

template <class T, class Loss>
struct FewDenseRows {
    using V = Vector<T>;
    using I = typename traits<V>::integer;
    static constexpr int W = lanes<T>;

    const Job& job;
    const Loss& loss;
    const Masses<T>& masses;
    const int classes;
    const T factor;
    const T *weight, *shift;

    // The targets of one group of rows.
    struct TargetGroup {
        const T* t = nullptr;  // soft rows
        int64_t t_stride = 0;
        I first, second;
        V share;
    };

    // e: the logits (in); the gradients over f (out). s: scratch for as many vectors, d too. Returns the losses; `lost`
    // is not 0 in lanes that softmax_exact.hpp has to do.
    template <bool OneHot>
    KULLBACK_INLINE V group(V* e, V* s, V* d, const TargetGroup& target, V f, bool wants_gradient, V& lost) const {
        V top = e[0];
        for (int k = 1; k < classes; ++k) top = larger<V>(e[k], top);
        top = larger<V>(splat<V>(-infinity<T>), top);
        const V center = select<V>(top > -infinity<T>, top, V{});
        GroupedSum<V> rest, masses_sum;
        V ties = V{}, d_y = V{}, e_y = V{}, w_y = splat<V>(T(1)), shift_y = V{};
        V total = splat<V>(T(1));
        if (!OneHot && target.t) {
            load_columns<T>(target.t, target.t_stride, classes, s);
            GroupedSum<V> sum;
            for (int k = 0; k < classes; ++k) {
                sum.add(s[k]);
                if (k % 16 == 15) sum.settle();
            }
            sum.settle();
            total = sum.total;
        }
        const T hard = T(masses.hard);
        const V everywhere = total * T(masses.spread);
        for (int k = 0; k < classes; ++k) {
            const V x = (e[k] - center) * factor;
            d[k] = x;
            const V y = exp_nonpositive<V>(x);
            e[k] = y;
            const Mask<V> is_top = y == T(1);
            rest.add(select<V>(is_top, V{}, y));
            ties += keep<V>(is_top, splat<V>(T(1)));
            if constexpr (OneHot) {
                const Mask<V> is_target = target.first == k;
                d_y = select<V>(is_target, x, d_y);
                e_y = select<V>(is_target, y, e_y);
                if (weight) w_y = select<V>(is_target, splat<V>(weight[k]), w_y);
                if constexpr (Loss::shifted) shift_y = select<V>(is_target, splat<V>(shift[k]), shift_y);
            } else {
                V mass;
                if (target.t) {
                    mass = s[k];
                } else {
                    mass = keep<V>(target.first == k, target.share) +
                           keep<V>(target.second == k, T(1) - target.share);
                }
                mass = mass * hard + everywhere;
                if (weight) mass *= weight[k];
                s[k] = mass;
                masses_sum.add(mass);
            }
            if (k % 16 == 15) {
                rest.settle();
                masses_sum.settle();
            }
        }
        rest.settle();
        masses_sum.settle();
        const Mask<V> empty = ties == T(0);  // nothing but -inf, or a NaN
        const V others = rest.total + (ties - T(1));
        const V sum = rest.total + ties;
        const V inverse = select<V>(sum == T(0), V{}, T(1) / sum);
        const V log_sum = log1p_nonnegative<V>(select<V>(sum == T(0), V{}, larger<V>(V{}, others)));
        const V all = OneHot ? w_y : masses_sum.total;
        const Mask<V> alone = others < T(1);
        const V top_miss = select<V>(empty, splat<V>(T(1)), others * inverse);
        // an e that is 1, where just one is: that class' 1 - p comes from the others
        const V top_e = select<V>(alone, splat<V>(T(1)), splat<V>(T(2)));
        V top_log_miss = V{};
        lost = V{};
        if constexpr (apart<Loss>) {
            lost = keep<V>(others < T(least_others<T>), splat<V>(T(1)));
            const Mask<V> some = top_miss > T(0);
            top_log_miss = -log1p_nonnegative<V>(inverse / select<V>(some, top_miss, splat<V>(T(1))));
        }

        GroupedSum<V> values, pulls;
        V top_a = V{};
        V y_pull = V{};
        if constexpr (OneHot) {
            Chance<V> chance;
            chance.p = e_y * inverse;
            chance.miss = select<V>(e_y == top_e, top_miss, T(1) - chance.p);
            chance.log_p = d_y - log_sum;
            const Cost<V> on = loss.on(chance, shift_y);
            values.add(keep<V>(w_y != T(0), w_y * on.value));
            y_pull = -w_y * on.pull;
            top_a = keep<V>(e_y == top_e, y_pull * chance.miss);
        }
        for (int k = 0; k < classes; ++k) {
            const V p = e[k] * inverse;
            const Mask<V> is_top = e[k] == top_e;
            V pull;
            if constexpr (OneHot) {
                const Mask<V> is_target = target.first == k;
                const V miss = select<V>(is_top, top_miss, T(1) - p);
                const V log_miss = select<V>(is_top, top_log_miss, log_of_small_miss<V>(p));
                const Cost<V> off = off_cost<V>(loss, p, miss, d[k] - log_sum, log_miss);
                values.add(select<V>(is_target, V{}, keep<V>(p != T(0), all * off.value)));
                const V push = all * p * off.pull;
                top_a = select<V>(is_target, top_a, select<V>(is_top, push, top_a));
                pull = select<V>(is_target, y_pull, push / miss);
                pull = select<V>(is_top, V{}, pull);
            } else {
                Chance<V> chance;
                chance.p = p;
                chance.miss = T(1) - p;
                chance.log_p = d[k] - log_sum;
                if constexpr (apart<Loss>) chance.miss = select<V>(is_top, top_miss, chance.miss);
                const V mass = s[k];
                const Cost<V> on = loss.on(chance, Loss::shifted ? splat<V>(shift[k]) : V{});
                V value = keep<V>(mass != T(0), mass * on.value);
                pull = -mass * on.pull;
                V push = V{};
                if constexpr (Loss::looks_at_all) {
                    const V log_miss = select<V>(is_top, top_log_miss, log_of_small_miss<V>(p));
                    const V off_mass = all - mass;
                    const Cost<V> off = off_cost<V>(loss, p, chance.miss, chance.log_p, log_miss);
                    value += keep<V>(p != T(0), off_mass * off.value);
                    push = off_mass * p * off.pull;
                }
                if constexpr (apart<Loss>) {
                    top_a = select<V>(is_top, pull * chance.miss + push, top_a);
                    if constexpr (Loss::looks_at_all) pull += push / chance.miss;
                    pull = select<V>(is_top, V{}, pull);
                }
                values.add(value);
            }
            pulls.add(pull);
            s[k] = pull;
            if (k % 16 == 15) {
                values.settle();
                pulls.settle();
            }
        }
        values.settle();
        pulls.settle();
        V value = values.total, all_pulls = pulls.total;
        if (job.z_loss != 0) {
            const V lse = center * factor + log_sum;
            const Mask<V> some = all != T(0);
            value += keep<V>(some, T(job.z_loss) * all * lse * lse);
            all_pulls -= keep<V>(some, T(2 * job.z_loss) * all * lse);
        }
        if (wants_gradient) {
            if constexpr (apart<Loss>) {
                const Mask<V> some = top_miss > T(0);
                const V from_top = keep<V>(alone, top_a / select<V>(some, top_miss, splat<V>(T(1))));
                const V share = (all_pulls + from_top) * inverse * f;
                const V own = (top_a - inverse * all_pulls) * f;
                for (int k = 0; k < classes; ++k) e[k] = select<V>(e[k] == top_e, own, s[k] * f - e[k] * share);
            } else {
                const V share = all_pulls * inverse * f;
                for (int k = 0; k < classes; ++k) e[k] = s[k] * f - e[k] * share;
            }
        }
        return select<V>(sum == sum, value, sum);
    }

    // Sum, and whether every entry of the group's soft rows is valid.
    bool valid(const Rows<T>& rows, int64_t r, int64_t count, Report& report) const {
        for (int64_t i = r; i < r + count; ++i) {
            if (masses.targets.weight(i) == 0) continue;
            const T* t = rows.row(i);
            for (int k = 0; k < classes; ++k) {
                if (!(t[k] >= 0 && t[k] < infinity<T>)) {
                    masses.blame(i, report);
                    return false;
                }
            }
        }
        return true;
    }

    template <bool OneHot, class Exact>
    bool rows(const Rows<T>& logits, int64_t begin, int64_t count, T* losses, T* padding, Report& report,
              Exact exact) const {
        V e[few_classes], s[few_classes], d[few_classes];
        T* out = job.out ? static_cast<T*>(job.out) + begin * job.out_stride : nullptr;
        const double scale = job.scale * job.inverse_temperature;
        const BlockTargets& targets = masses.targets;
        T* tail_z = padding;
        T* tail_t = padding + W * classes;
        for (int64_t r = 0; r < count; r += W) {
            const int64_t here = count - r < W ? count - r : W;
            if (masses.soft() && !valid(masses.rows, r, here, report)) return false;
            const T* z = logits.row(r);
            int64_t z_stride = logits.stride;
            TargetGroup target;
            if (masses.soft()) {
                target.t = masses.rows.row(r);
                target.t_stride = masses.rows.stride;
            }
            int32_t first[W] = {}, second[W] = {};
            V f = splat<V>(T(scale)), share = splat<V>(T(1)), lost;
            for (int i = 0; i < here; ++i) {
                if (!masses.soft()) first[i] = second[i] = targets.first[r + i];
                if (masses.mixed()) {
                    second[i] = targets.second[r + i];
                    lane(share, i) = T(masses.share(r + i));
                }
                if (targets.weights) lane(f, i) = T(targets.weights[r + i] * scale);
            }
            target.first = classes_in_lanes<T>(first);
            target.second = classes_in_lanes<T>(second);
            target.share = share;
            if (here < W) {  // the last rows, filled up with rows of zeros
                for (int64_t j = 0; j < 2 * W * classes; ++j) padding[j] = 0;
                for (int64_t i = 0; i < here; ++i) {
                    for (int k = 0; k < classes; ++k) {
                        tail_z[i * classes + k] = z[i * z_stride + k];
                        if (masses.soft()) tail_t[i * classes + k] = target.t[i * target.t_stride + k];
                    }
                }
                z = tail_z;
                if (masses.soft()) target.t = tail_t;
                z_stride = target.t_stride = classes;
            }
            load_columns<T>(z, z_stride, classes, e);
            V value = group<OneHot>(e, s, d, target, f, out != nullptr, lost);
            // rows that are lost are done over while their logits are still there
            T* again = padding + 2 * W * classes;
            bool any_lost = false;
            for (int i = 0; apart<Loss> && i < here; ++i) {
                if (get(lost, i) == 0 || targets.weight(r + i) == 0) continue;
                any_lost = true;
                lane(value, i) =
                    T(exact(z + i * z_stride, r + i, targets.weight(r + i) * scale, out ? again + i * classes : nullptr));
            }
            if (here == W) {
                store<V>(losses + r, value);
                if (out) store_columns<T>(out + r * job.out_stride, job.out_stride, classes, e);
            } else {
                for (int64_t i = 0; i < here; ++i) losses[r + i] = get(value, int(i));
                if (out) {
                    store_columns<T>(tail_z, classes, classes, e);
                    for (int64_t i = 0; i < here; ++i) copy(tail_z + i * classes, out + (r + i) * job.out_stride);
                }
            }
            for (int i = 0; any_lost && out && i < here; ++i) {
                if (get(lost, i) != 0 && targets.weight(r + i) != 0) {
                    copy(again + i * classes, out + (r + i) * job.out_stride);
                }
            }
        }
        // rows that do not count may hold anything: their results are replaced, not multiplied by zero
        for (int64_t r = 0; targets.some_skipped && r < count; ++r) {
            if (targets.weight(r) != 0) continue;
            losses[r] = 0;
            for (int k = 0; out && k < classes; ++k) out[r * job.out_stride + k] = 0;
        }
        return true;
    }

    void copy(const T* from, T* to) const {
        for (int k = 0; k < classes; ++k) to[k] = from[k];
    }

    // False, and the report says where, if a soft target is not valid. `padding` holds 3 * lanes * classes numbers.
    template <class Exact>
    bool block(const Rows<T>& logits, int64_t begin, int64_t count, T* losses, T* padding, Report& report,
               Exact exact) const {
        if constexpr (Loss::looks_at_all) {
            if (job.targets.form == Form::indices && job.smoothing == 0) {
                return rows<true>(logits, begin, count, losses, padding, report, exact);
            }
        }
        return rows<false>(logits, begin, count, losses, padding, report, exact);
    }
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback

#endif
