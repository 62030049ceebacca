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
        V share, weight;  // of the first class; its class weight
    };

    // What the first sweep finds of a group of rows.
    struct Found {
        V center, others, sum, inverse, log_sum;
        V top_e;  // an e that is 1, where just one is: that class' 1 - p comes from the others
        V top_miss, top_log_miss;
        Mask<V> alone;  // whether there is such a class
    };

    // Logits to exp relative to each row's largest, in place; visit(k, logit over T relative to the largest, exp).
    template <class Visit>
    KULLBACK_INLINE Found sum_group(V* e, Visit visit) const {
        V top = e[0];
        for (int k = 1; k < classes; ++k) top = larger<V>(e[k], top);
        top = larger<V>(splat<V>(-infinity<T>), top);
        Found x;
        x.center = select<V>(top > -infinity<T>, top, V{});
        GroupedSum<V> rest;
        V ties = V{};
        for (int k = 0; k < classes; ++k) {
            const V d = (e[k] - x.center) * factor, y = exp_nonpositive<V>(d);
            e[k] = y;
            const Mask<V> is_top = y == T(1);
            rest.add(select<V>(is_top, V{}, y));
            ties += keep<V>(is_top, splat<V>(T(1)));
            visit(k, d, y);
            if (k % 16 == 15) rest.settle();
        }
        rest.settle();
        const Mask<V> empty = ties == T(0);  // nothing but -inf, or a NaN
        x.others = rest.total + (ties - T(1));
        x.sum = rest.total + ties;
        x.inverse = select<V>(x.sum == T(0), V{}, T(1) / x.sum);
        x.log_sum = log1p_nonnegative<V>(select<V>(x.sum == T(0), V{}, larger<V>(V{}, x.others)));
        x.alone = x.others < T(1);
        x.top_e = select<V>(x.alone, splat<V>(T(1)), splat<V>(T(2)));
        x.top_miss = select<V>(empty, splat<V>(T(1)), x.others * x.inverse);
        const Mask<V> some = x.top_miss > T(0);
        x.top_log_miss = -log1p_nonnegative<V>(x.inverse / select<V>(some, x.top_miss, splat<V>(T(1))));
        return x;
    }

    // Lanes in which nothing is left for the others: softmax_exact.hpp has to do them.
    KULLBACK_INLINE V lost_lanes(const Found& x) const {
        if constexpr (!apart<Loss>) return V{};
        return keep<V>(x.others < T(least_others<T>), splat<V>(T(1)));
    }

    KULLBACK_INLINE void add_z_loss(const Found& x, V mass, V& value, V& pulls) const {
        if (job.z_loss == 0) return;
        const V lse = x.center * factor + x.log_sum;
        const Mask<V> some = mass != T(0);
        value += keep<V>(some, T(job.z_loss) * mass * lse * lse);
        pulls -= keep<V>(some, T(2 * job.z_loss) * mass * lse);
    }

    KULLBACK_INLINE V over_top_miss(const Found& x, V a) const {
        const Mask<V> some = x.top_miss > T(0);
        return keep<V>(x.alone, a / select<V>(some, x.top_miss, splat<V>(T(1))));
    }

    // A group whose rows are of one class each. e: the logits (in), the gradients times f (out); s: as many vectors.
    KULLBACK_INLINE V one_hot_group(V* e, V* s, const TargetGroup& target, V f, V& lost) const {
        V d_y = V{}, e_y = V{};
        const Found x = sum_group(e, [&](int k, V d, V y) KULLBACK_LAMBDA {
            const Mask<V> is_target = target.first == k;
            d_y = select<V>(is_target, d, d_y);
            e_y = select<V>(is_target, y, e_y);
        });
        lost = lost_lanes(x);
        const V w = target.weight;
        const Mask<V> right = e_y == x.top_e;
        Chance<V> chance;
        chance.p = e_y * x.inverse;
        chance.miss = select<V>(right, x.top_miss, T(1) - chance.p);
        chance.log_p = d_y - x.log_sum;
        const Cost<V> on = loss.on(chance, V{});
        const Cost<V> top = off_cost<V>(loss, x.inverse, x.top_miss, -x.log_sum, x.top_log_miss);
        const V y_pull = -w * on.pull;
        const V top_a =
            keep<V>(x.alone, select<V>(right, y_pull * x.top_miss, w * x.inverse * top.pull * x.top_miss));
        GroupedSum<V> values, pulls;
        for (int k = 0; k < classes; ++k) {
            // the target and a class that stands apart have had their turn: as if they had p = 0
            V p = select<V>(target.first == k, V{}, e[k] * x.inverse);
            p = select<V>(e[k] == x.top_e, V{}, p);
            const Cost<V> off = off_cost<V>(loss, p, T(1) - p, V{}, log_of_small_miss<V>(p));
            values.add(off.value);
            const V pull = p * off.pull;
            pulls.add(pull);
            s[k] = pull;
            if (k % 16 == 15) {
                values.settle();
                pulls.settle();
            }
        }
        values.settle();
        pulls.settle();
        V value = values.total + on.value;
        value += select<V>(right, V{}, keep<V>(x.alone, top.value));
        value = keep<V>(w != T(0), w * value);
        V all_pulls = w * pulls.total + select<V>(right, V{}, y_pull);
        add_z_loss(x, w, value, all_pulls);
        const V total = all_pulls + over_top_miss(x, top_a), share = total * x.inverse * f, each = w * f;
        const V own = (top_a - x.inverse * all_pulls) * f, own_y = (y_pull - chance.p * total) * f;
        for (int k = 0; k < classes; ++k) {
            const V g = select<V>(target.first == k, own_y, s[k] * each - e[k] * share);
            e[k] = select<V>(e[k] == x.top_e, own, g);
        }
        return select<V>(x.sum == x.sum, value, x.sum);
    }

    // The same for any targets; d: as many vectors again.
    KULLBACK_INLINE V mass_group(V* e, V* s, V* d, const TargetGroup& target, V f, V& lost) const {
        V total = splat<V>(T(1));
        if (target.t) {
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
        GroupedSum<V> masses_sum;
        const Found x = sum_group(e, [&](int k, V relative, V) KULLBACK_LAMBDA {
            d[k] = relative;
            V mass;
            if (target.t) {
                mass = s[k];
            } else {
                mass = keep<V>(target.first == k, target.share) + keep<V>(target.second == k, T(1) - target.share);
            }
            mass = mass * hard + everywhere;
            if (weight) mass *= weight[k];
            s[k] = mass;
            masses_sum.add(mass);
            if (k % 16 == 15) masses_sum.settle();
        });
        masses_sum.settle();
        lost = lost_lanes(x);
        const V all = masses_sum.total;
        GroupedSum<V> values, pulls;
        V top_a = V{};
        for (int k = 0; k < classes; ++k) {
            const V p = e[k] * x.inverse, mass = s[k];
            const Mask<V> is_top = e[k] == x.top_e;
            Chance<V> chance;
            chance.p = p;
            chance.miss = T(1) - p;
            chance.log_p = d[k] - x.log_sum;
            if constexpr (apart<Loss>) chance.miss = select<V>(is_top, x.top_miss, chance.miss);
            const Cost<V> on = loss.on(chance, Loss::shifted ? splat<V>(shift[k]) : V{});
            V value = keep<V>(mass != T(0), mass * on.value);
            V pull = -mass * on.pull;
            if constexpr (Loss::looks_at_all) {
                const V log_miss = select<V>(is_top, x.top_log_miss, log_of_small_miss<V>(p));
                const V off_mass = all - mass;
                const Cost<V> off = off_cost<V>(loss, p, chance.miss, chance.log_p, log_miss);
                value += keep<V>(p != T(0), off_mass * off.value);
                pull += off_mass * p * off.pull;
            }
            if constexpr (apart<Loss>) {
                top_a = select<V>(is_top, pull * chance.miss, top_a);
                pull = select<V>(is_top, V{}, pull);
            }
            values.add(value);
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
        add_z_loss(x, all, value, all_pulls);
        if constexpr (apart<Loss>) {
            const V share = (all_pulls + over_top_miss(x, top_a)) * x.inverse * f;
            const V own = (top_a - x.inverse * all_pulls) * f;
            for (int k = 0; k < classes; ++k) e[k] = select<V>(e[k] == x.top_e, own, s[k] * f - e[k] * share);
        } else {
            const V share = all_pulls * x.inverse * f;
            for (int k = 0; k < classes; ++k) e[k] = s[k] * f - e[k] * share;
        }
        return select<V>(x.sum == x.sum, value, x.sum);
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
            // the lines that the gradient will overwrite come from memory while exp keeps the processor busy
            for (int64_t line = 0; out && line < W * classes; line += 64 / int64_t(sizeof(T))) {
                prefetch(out + r * job.out_stride + line);
            }
            load_columns<T>(z, z_stride, classes, e);
            V value;
            if constexpr (OneHot) {
                target.weight = splat<V>(T(1));
                for (int i = 0; weight && i < W; ++i) lane(target.weight, i) = weight[first[i]];
                value = one_hot_group(e, s, target, f, lost);
            } else {
                value = mass_group(e, s, d, target, f, lost);
            }
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
