// Few classes, a lane per row, for targets and losses that look at every class: soft targets, mixtures, smoothing,
// z-loss, and losses with an off(). Columns stay in the nearest cache, and the stages run over several groups of rows
// each, as in softmax_few.hpp.
#pragma once

#include "simd/transpose.hpp"
#include "skeletons/softmax_dense.hpp"
#include "skeletons/softmax_few.hpp"

#if KULLBACK_HAS_SHUFFLES

namespace kullback {
namespace KULLBACK_LEVEL {

// Calls body(begin, end) for 16 classes at a time: sums of sums, so that rounding grows with 16 + C/16 terms, not with C.
template <class Body>
KULLBACK_INLINE void by_sixteen(int classes, Body body) {
    for (int begin = 0; begin < classes; begin += 16) body(begin, begin + 16 < classes ? begin + 16 : classes);
}

// A group of as many rows as there are lanes, each number a lane per row.
template <class T>
struct DenseGroup {
    using V = Vector<T>;
    typename traits<V>::integer first, second;  // the classes of index and mixture targets
    V share;                                    // of the first
    V f, total, mass;                           // the gradient's factor; sum of the target and of its masses
    V center, others, sum, inverse, log_sum;
    V top_e;  // an e that is 1, where just one is: that class' 1 - p comes from the others; 2 elsewhere
    V top_miss, alone;
    V with_d, with_exp, squares;  // sums of masses times d and times e, and of e^2
    V d_y, e_y, own_y;
    bool finite;  // whether no logit is -inf
    V prediction;  // if the job wants it
    V value, pulls, top_a, over_miss;  // over_miss: top_a / (1 - p) of the class that stands apart
};

// C is the number of classes, or 0 where only the job knows it.
template <class T, class Loss, int C = 0>
struct FewDenseRows {
    using V = Vector<T>;
    using G = DenseGroup<T>;
    static constexpr int W = lanes<T>;

    const Job& job;
    const Loss& loss;
    const Masses<T>& masses;
    const Transform<T>& transform;
    const int some_classes;
    const T factor;
    const T* weight;
    Shift<T> shifts[Loss::shifted ? few_classes : 1];  // of each class
    T made[Loss::shifted ? few_classes : 1];           // and what the loss makes of them

    FewDenseRows(const Job& j, const Loss& l, const Masses<T>& m, const Transform<T>& t)
        : job(j),
          loss(l),
          masses(m),
          transform(t),
          some_classes(int(j.classes)),
          factor(T(j.inverse_temperature)),
          weight(static_cast<const T*>(j.class_weight)) {
        if constexpr (Loss::shifted) {
            for (int k = 0; k < classes(); ++k) {
                const T number = static_cast<const T*>(j.shift)[k];
                shifts[k] = {number, loss.kept_of(number)};
                made[k] = loss.made_of(number);
            }
        }
    }

    KULLBACK_INLINE int classes() const { return C > 0 ? C : some_classes; }

    KULLBACK_INLINE Shift<V> shift_at(int k) const {
        if constexpr (Loss::shifted) return {splat<V>(shifts[k].number), splat<V>(shifts[k].kept)};
        return Shift<V>{V{}, V{}};
    }

    // The masses of a group, from t, rows of soft targets, or the group's classes; adds something to `broken` where a row
    // has a target below 0 or not finite.
    KULLBACK_INLINE void load_masses(const T* t, int64_t t_stride, V* s, G& x, V& broken) const {
        x.total = splat<V>(T(1));
        if (t) {
            load_columns<T>(t, t_stride, classes(), s);
            V total = V{}, lowest = V{};
            by_sixteen(classes(), [&](int begin, int end) KULLBACK_LAMBDA {
                V here = V{};
                each_class<C>(begin, end, [&](int k) KULLBACK_LAMBDA {
                    here += s[k];
                    lowest = smaller<V>(s[k], lowest);
                });
                total += here;
            });
            x.total = total;
            const Mask<V> finite = total < infinity<T>;
            broken += select<V>(finite, keep<V>(lowest < T(0), splat<V>(T(1))), splat<V>(T(1)));
        } else {
            const V rest = T(1) - x.share;
            auto class_here = x.first ^ x.first;
            each_class<C>(0, classes(), [&](int k) KULLBACK_LAMBDA {
                s[k] = keep<V>(x.first == class_here, x.share) + keep<V>(x.second == class_here, rest);
                class_here += 1;
            });
        }
        x.mass = x.total;
        if (masses.spread == 0 && !weight) return;
        const T hard = T(masses.hard);
        const V everywhere = x.total * T(masses.spread);
        x.mass = V{};
        by_sixteen(classes(), [&](int begin, int end) KULLBACK_LAMBDA {
            V here = V{};
            each_class<C>(begin, end, [&](int k) KULLBACK_LAMBDA {
                V mass = s[k] * hard + everywhere;
                if (weight) mass *= weight[k];
                s[k] = mass;
                here += mass;
            });
            x.mass += here;
        });
    }

    // Stage 1: columns of logits to exp relative to each row's largest, in place, and their sums. A loss known by its sums
    // wants those with the masses s; one row of one class the target's own; others what d is for each class.
    template <bool OneHot>
    KULLBACK_INLINE void sum_group(V* e, const V* s, V* d, G& x) const {
        const V center = x.center;
        const T scale = factor;
        V rest = V{}, all = V{}, with_d = V{}, with_exp = V{}, squares = V{}, d_y = V{}, e_y = V{}, lowest = V{};
        bool scores = true;
        if constexpr (Loss::by_sums) scores = loss.by().log_p != 0;
        const auto target = x.first;
        auto class_here = target ^ target;
        by_sixteen(classes(), [&](int begin, int end) KULLBACK_LAMBDA {
            V rest_here = V{}, all_here = V{}, d_here = V{}, exp_here = V{}, squares_here = V{};
            each_class<C>(begin, end, [&](int k) KULLBACK_LAMBDA {
                const V relative = (e[k] - center) * scale, y = exp_or_zero<V>(relative);
                e[k] = y;
                const Mask<V> below = y < T(1);
                rest_here += keep<V>(below, y);
                all_here += y;  // a NaN shows here
                if constexpr (OneHot) {
                    const Mask<V> is_target = target == class_here;
                    d_y = select<V>(is_target, relative, d_y);
                    e_y = select<V>(is_target, y, e_y);
                    class_here += 1;
                } else if constexpr (Loss::by_sums) {
                    if (scores) d_here += s[k] * relative;  // perhaps 0 times -inf: see add_scores()
                    if constexpr (!Loss::linear) {
                        exp_here += s[k] * y;
                        squares_here += y * y;
                    }
                } else {
                    d[k] = relative;
                    lowest = smaller<V>(relative, lowest);
                }
            });
            rest += rest_here;
            all += all_here;
            with_d += d_here;
            with_exp += exp_here;
            squares += squares_here;
        });
        // how many logits are the largest, a whole number, however the two sums were rounded
        const V ties = (all - rest + Constants<T>::round_magic) - Constants<T>::round_magic;
        x.others = rest + (ties - T(1));
        x.sum = rest + ties;
        x.with_d = with_d;
        x.with_exp = with_exp;
        x.squares = squares;
        x.d_y = d_y;
        x.e_y = e_y;
        x.finite = !any_lane<V>(keep<V>(lowest == splat<V>(-infinity<T>), splat<V>(T(1))));
    }

    // The sum of masses times d once more, where 0 times -inf made it NaN: that is nothing.
    void add_scores(const T* z, int64_t stride, const V* s, G& x) const {
        V e[few_classes], slopes[few_classes], with_d = V{};
        load_columns<T>(z, stride, classes(), e);
        if (transform.any()) transform.columns(e, classes(), slopes);
        by_sixteen(classes(), [&](int begin, int end) KULLBACK_LAMBDA {
            V here = V{};
            for (int k = begin; k < end; ++k) here += keep<V>(s[k] != T(0), s[k] * ((e[k] - x.center) * factor));
            with_d += here;
        });
        x.with_d = with_d;
    }

    // Stage 2: what follows from the sums.
    template <bool OneHot>
    KULLBACK_INLINE void settle_group(G& x) const {
        const Mask<V> empty = x.sum == T(0);  // nothing but -inf
        x.inverse = select<V>(empty, V{}, T(1) / x.sum);
        if (!OneHot || job.z_loss != 0 || job.log_sum_exp) {
            x.log_sum = log1p_nonnegative<V>(select<V>(empty, V{}, larger<V>(V{}, x.others)), x.inverse);
        }
        if constexpr (Loss::apart) {
            const Mask<V> alone = x.others < T(1);
            x.alone = keep<V>(alone, splat<V>(T(1)));
            x.top_e = select<V>(alone, splat<V>(T(1)), splat<V>(T(2)));
            x.top_miss = select<V>(empty, splat<V>(T(1)), x.others * x.inverse);
        }
    }

    KULLBACK_INLINE void add_z_loss(G& x) const {
        if (job.z_loss == 0) return;
        const V lse = x.center * factor + x.log_sum;
        const Mask<V> some = x.mass != T(0);
        x.value += keep<V>(some, T(job.z_loss) * x.mass * lse * lse);
        x.pulls -= keep<V>(some, T(2 * job.z_loss) * x.mass * lse);
    }

    KULLBACK_INLINE V over_top_miss(const G& x, V a) const {
        const Mask<V> some = x.top_miss > T(0);
        return keep<V>(x.alone != T(0), a / select<V>(some, x.top_miss, splat<V>(T(1))));
    }

    // Stage 3: the group's losses, and each class' pull in the place of its mass.
    KULLBACK_INLINE void pull_group(const V* e, V* s, const V* d, G& x) const {
        if constexpr (Loss::by_sums) {  // as in DenseRows::of_sums
            const BySums by = loss.by();
            x.value = V{};
            x.pulls = x.mass * T(-by.log_p);
            if (by.log_p != 0) x.value = T(by.log_p) * (x.mass * x.log_sum - x.with_d);
            if constexpr (!Loss::linear) {
                const V chance = x.with_exp * x.inverse, squares = x.squares * (x.inverse * x.inverse);
                x.value += T(by.miss) * (x.mass - chance) + T(by.squares) * x.mass * (squares - T(1));
                x.pulls += T(2 * by.squares) * x.mass * squares - T(by.miss) * chance;
            }
            if (job.divergence) x.value += entropy_term(s, x);
            // at the minimum the difference of two equal numbers may round to a hair below zero
            if (job.divergence || by.log_p == 0) x.value = larger<V>(V{}, x.value);
        } else {
            if (x.finite) {
                with_form(loss, [&](const auto& own) KULLBACK_LAMBDA { pull_classes<true>(own, e, s, d, x); });
            } else {
                pull_classes<false>(loss, e, s, d, x);
            }
        }
        add_z_loss(x);
        x.value = select<V>(x.sum == x.sum, x.value, x.sum);
    }

    // Class by class, for losses that are not known by sums. `finite`: no logit is -inf.
    template <bool finite, class Form>
    KULLBACK_INLINE void pull_classes(const Form& form, const V* e, V* s, const V* d, G& x) const {
        V values = V{}, pulls = V{}, top_mass = V{}, top_made = V{};
        const V inverse = x.inverse, log_sum = x.log_sum, all = x.mass, top_e = x.top_e;
        const Form cost = form;  // a copy, which the stores below cannot touch
        by_sixteen(classes(), [&](int begin, int end) KULLBACK_LAMBDA {
            V values_here = V{}, pulls_here = V{};
            for (int k = begin; k < end; ++k) {
                V p = e[k] * inverse, mass = s[k];
                if constexpr (Loss::apart) {  // done below: here as one that is not there
                    const Mask<V> is_top = e[k] == top_e;
                    top_mass = select<V>(is_top, mass, top_mass);
                    if constexpr (Loss::shifted) top_made = select<V>(is_top, splat<V>(made[k]), top_made);
                    mass = select<V>(is_top, V{}, mass);
                    p = select<V>(is_top, V{}, p);
                }
                Chance<V> chance{p, T(1) - p, d[k] - log_sum};
                chance.unlikely = Loss::apart;
                chance.finite = finite;
                const Cost<V> on = cost.on(chance, shift_at(k));
                V value = mass * on.value;
                if constexpr (!finite) value = keep<V>(mass != T(0), value);
                V pull = -mass * on.pull;
                if constexpr (Loss::looks_at_all) {
                    const V off_mass = all - mass;
                    const Cost<V> off = cost.off(chance);
                    value += finite ? off_mass * off.value : keep<V>(p != T(0), off_mass * off.value);
                    pull += off_mass * p * off.pull;
                }
                values_here += value;
                pulls_here += pull;
                s[k] = pull;
            }
            values += values_here;
            pulls += pulls_here;
        });
        x.value = values;
        x.pulls = pulls;
        if constexpr (Loss::apart) add_top(x, top_mass, top_made);
    }

    // The classes that stand apart, one a row, with their masses and what the loss makes of their shifts.
    KULLBACK_INLINE void add_top(G& x, V mass, V made_of_shift) const {
        if (!any_lane<V>(x.alone)) {
            x.top_a = x.over_miss = V{};
            return;
        }
        const Chance<V> chance{x.inverse, x.top_miss, -x.log_sum};
        const Parts<V> parts{splat<V>(T(1)), larger<V>(V{}, x.others), V{}};
        const Cost<V> on = loss.on(chance, Shift<V>{made_of_shift, V{}, true, parts});
        V value = keep<V>(mass != T(0), mass * on.value), a = -mass * on.pull * x.top_miss;
        if constexpr (Loss::looks_at_all) {
            const V off_mass = x.mass - mass;
            const Cost<V> off = loss.off(chance);
            value += keep<V>(off_mass != T(0), off_mass * off.value);
            a += off_mass * x.inverse * off.pull * x.top_miss;
        }
        const Mask<V> alone = x.alone != T(0);
        x.value += keep<V>(alone, value);
        x.top_a = keep<V>(alone, a);
        x.over_miss = over_top_miss(x, x.top_a);
    }

    // sum s log(s / S) of the masses s of each row.
    KULLBACK_INLINE V entropy_term(const V* s, const G& x) const {
        const Mask<V> some = x.mass > Constants<T>::least_normal;
        const V inverse = keep<V>(some, T(1) / select<V>(some, x.mass, splat<V>(T(1))));
        V sum = V{};
        by_sixteen(classes(), [&](int begin, int end) KULLBACK_LAMBDA {
            V here = V{};
            each_class<C>(begin, end, [&](int k) KULLBACK_LAMBDA { here += part_of_entropy<V>(s[k], inverse); });
            sum += here;
        });
        return sum;
    }

    // The same as pull_group where every row is of one class and the loss one of logarithms of p and of all 1 - p.
    KULLBACK_INLINE void pull_one_hot(const V* e, V* s, G& x) const {
        const V w = x.mass, inverse = x.inverse, sum = x.sum;
        const Mask<V> right = x.e_y == x.top_e, alone = x.alone != T(0);
        const V wrong = select<V>(right, V{}, x.alone);  // 1 where another class stands apart
        x.top_a = keep<V>(alone, select<V>(right, -w * x.top_miss, w * inverse));
        // the target and a class that stands apart have had their turn: as if they had p = 0
        V logs = V{}, pulls = V{};
        const auto target = x.first;
        auto class_here = target ^ target;
        by_sixteen(classes(), [&](int begin, int end) KULLBACK_LAMBDA {
            V logs_here = V{}, pulls_here = V{};
            each_class<C>(begin, end, [&](int k) KULLBACK_LAMBDA {
                const V rest = keep<V>(e[k] < x.top_e, keep<V>(target != class_here, e[k]));
                class_here += 1;
                // 1 less the product of all 1 - p, which loses no digits, for one logarithm of all
                const V p = rest * inverse, pull = rest * quick_inverse<V>(sum - rest);
                logs_here = logs_here * (T(1) - p) + p;
                pulls_here += pull;
                s[k] = pull;
            });
            logs = logs_here * (T(1) - logs) + logs;
            pulls += pulls_here;
        });
        // log(sum / prod(1 - p)), where a class that stands apart takes part in the product if it is not the target
        const V odds = logs / (T(1) - logs), others = larger<V>(V{}, x.others);
        const V base = others + odds + others * odds;
        const Mask<V> far = wrong != T(0);
        const V some_miss = larger<V>(splat<V>(Constants<T>::least_normal), x.top_miss);
        const V value = log1p_nonnegative<V>(select<V>(far, (base + T(1)) / some_miss - T(1), base)) - x.d_y;
        x.value = keep<V>(w != T(0), w * value);
        x.pulls = w * pulls - select<V>(right, V{}, w);
        add_z_loss(x);
        x.value = select<V>(sum == sum, x.value, sum);
        x.over_miss = over_top_miss(x, x.top_a);
        const V total = x.pulls + x.over_miss;
        x.own_y = -(w + x.e_y * inverse * total) * x.f;
    }

    // Stage 4: g = b - p sum(b), in the place of exp. A class that stands apart pulls the others with a / (1 - p).
    template <bool OneHot>
    KULLBACK_INLINE void spread_group(V* e, const V* s, const G& x) const {
        const V each = OneHot ? x.mass * x.f : Loss::by_sums ? -x.f : x.f;
        const V share = (Loss::apart ? x.pulls + x.over_miss : x.pulls) * x.inverse * x.f;
        const V own = Loss::apart ? (x.top_a - x.inverse * x.pulls) * x.f : V{};
        const auto target = x.first;
        auto class_here = target ^ target;
        if constexpr (Loss::by_sums && !Loss::linear) {
            const BySums by = loss.by();
            const V f = x.inverse * x.f, on_mass = T(by.miss) * f, own = T(by.log_p) * x.f;
            const V on_square = T(2 * by.squares) * x.mass * x.inverse * f;
            return each_class<C>(0, classes(), [&](int k) KULLBACK_LAMBDA {
                e[k] = e[k] * ((e[k] * on_square - share) - s[k] * on_mass) - s[k] * own;
            });
        }
        each_class<C>(0, classes(), [&](int k) KULLBACK_LAMBDA {
            V g = s[k] * each - e[k] * share;
            if constexpr (OneHot) {
                g = select<V>(target == class_here, x.own_y, g);
                class_here += 1;
            }
            if constexpr (Loss::apart) g = select<V>(e[k] == x.top_e, own, g);
            e[k] = g;
        });
    }

    // Rows in which nothing is left for the others: softmax_exact.hpp has to do them.
    bool some_lost(const G* groups, int count) const {
        if (!may_be_lost<Loss>(job)) return false;
        V some = V{};
        for (int i = 0; i < count; ++i) {
            some += keep<V>(groups[i].others < T(least_others<T>), splat<V>(T(1)));  // false for NaN
        }
        return any_lane<V>(some);
    }
    bool lost(const G& x, int i) const {
        return get(x.others, i) < T(least_others<T>);
    }

    template <bool OneHot, class Exact>
    bool rows(const Rows<T>& logits, int64_t begin, int64_t count, T* losses, T* padding, Report& report,
              Exact exact) const {
        constexpr int most = 128;  // vectors of each kind at once, or one group's
        constexpr bool relative = !OneHot && !Loss::by_sums;
        V e[few_classes], s[few_classes], d[relative ? few_classes : 1], slopes[few_classes];
        G groups[most_groups];
        T* out = job.out ? static_cast<T*>(job.out) + begin * job.out_stride : nullptr;
        const double scale = job.scale * job.inverse_temperature;
        const BlockTargets& targets = masses.targets;
        const bool soft = masses.soft();
        T *tail_z = padding, *tail_t = padding + W * classes(), *again = padding + 2 * W * classes();
        const RowStatistics<T> statistics(job, begin);
        const int fitting = most / classes() < 1 ? 1 : most / classes();
        const int at_once = fitting < most_groups ? fitting : most_groups;
        for (int64_t r = 0; r < count;) {
            const int64_t whole = (count - r) / W;
            const int here = whole == 0 ? 1 : whole < at_once ? int(whole) : at_once;
            const int64_t rows = whole == 0 ? count - r : int64_t(here) * W;
            const T *z = logits.row(r), *t = soft ? masses.rows.row(r) : nullptr;
            int64_t z_stride = logits.stride, t_stride = masses.rows.stride;
            if (whole == 0) {  // the last rows, filled up with rows of zeros
                for (int64_t j = 0; j < 2 * W * classes(); ++j) padding[j] = 0;
                for (int64_t i = 0; i < rows; ++i) {
                    copy(z + i * z_stride, tail_z + i * classes());
                    if (soft) copy(t + i * t_stride, tail_t + i * classes());
                }
                z = tail_z;
                if (soft) t = tail_t;
                z_stride = t_stride = classes();
            }
            const int ahead = groups_ahead<T>(classes());
            V broken = V{};
            const auto prepare = [&](int i) KULLBACK_LAMBDA {
                const int64_t own = r + i * W;
                const int lanes_here = whole == 0 ? int(rows) : W;
                // the lines that the gradient will overwrite, and rows to come, come from memory while exp keeps the
                // processor busy
                if (out) prefetch_rows<T>(out + own * job.out_stride, job.out_stride, classes());
                prefetch_rows<T>(z + (i + ahead) * W * z_stride, z_stride, classes());
                if (soft) prefetch_rows<T>(t + (i + ahead) * W * t_stride, t_stride, classes());
                G& x = groups[i];
                V* e_i = e + i * classes();
                start_group(x, own, lanes_here, scale);
                if constexpr (OneHot) {
                    x.mass = splat<V>(T(1));
                    for (int j = 0; weight && j < lanes_here; ++j) lane(x.mass, j) = weight[targets.first[own + j]];
                } else {
                    load_masses(t ? t + i * W * t_stride : nullptr, t_stride, s + i * classes(), x, broken);
                }
                load_columns<T>(z + i * W * z_stride, z_stride, classes(), e_i);
                if (statistics.prediction) x.prediction = largest_classes<T>(e_i, classes());
                if (transform.any()) transform.columns(e_i, classes(), slopes + i * classes());
                x.center = center_of<T, C>(e_i, classes());
            };
            const auto sum = [&](int i) KULLBACK_LAMBDA {
                G& x = groups[i];
                sum_group<OneHot>(e + i * classes(), s + i * classes(), d + (relative ? i * classes() : 0), x);
                if constexpr (Loss::by_sums && !OneHot) {
                    if (any_lane<V>(select<V>(x.with_d == x.with_d, V{}, splat<V>(T(1))))) {
                        add_scores(z + i * W * z_stride, z_stride, s + i * classes(), x);
                    }
                }
            };
            for (int i = 0; i <= here; ++i) {  // as in softmax_few_stages.hpp
                if (i < here) prepare(i);
                if (i > 0) sum(i - 1);
            }
            const bool some_broken = any_lane<V>(broken);
            for (int64_t j = 0; some_broken && j < rows; ++j) {
                if (targets.weight(r + j) != 0 && !masses.valid(r + j, report)) return false;
            }
            for (int i = 0; i < here; ++i) {
                G& x = groups[i];
                settle_group<OneHot>(x);
                if (!statistics.wanted()) continue;
                const V lse = select<V>(x.sum == T(0), splat<V>(-infinity<T>), x.center * factor + x.log_sum);
                statistics.put_lanes(r + i * W, r + rows, lse, x.prediction);
            }
            const bool look_for_lost = some_lost(groups, here);
            for (int i = 0; i < here; ++i) {
                V *e_i = e + i * classes(), *s_i = s + i * classes();
                if constexpr (OneHot) {
                    pull_one_hot(e_i, s_i, groups[i]);
                } else {
                    pull_group(e_i, s_i, d + (relative ? i * classes() : 0), groups[i]);
                }
                store<V>(whole == 0 ? again : losses + r + i * W, groups[i].value);
            }
            for (int64_t i = 0; whole == 0 && i < rows; ++i) losses[r + i] = again[i];
            for (int i = 0; i < here; ++i) {
                V* e_i = e + i * classes();
                const int64_t own = r + i * W;
                // rows that are lost are done over while their logits are still there
                bool any_lost = false;
                for (int j = 0; look_for_lost && j < W && j < rows; ++j) {
                    if (!lost(groups[i], j) || targets.weight(own + j) == 0) continue;
                    any_lost = true;
                    losses[own + j] = T(exact(z + (i * W + j) * z_stride, own + j, targets.weight(own + j) * scale,
                                              out ? again + j * classes() : nullptr));
                }
                if (!out) continue;
                spread_group<OneHot>(e_i, s + i * classes(), groups[i]);
                if (transform.capped) {
                    for (int k = 0; k < classes(); ++k) e_i[k] *= slopes[i * classes() + k];
                }
                T* to = out + own * job.out_stride;
                if (whole == 0) {
                    store_columns<T>(tail_z, classes(), classes(), e_i);
                    for (int64_t j = 0; j < rows; ++j) copy(tail_z + j * classes(), to + j * job.out_stride);
                } else {
                    store_columns<T>(to, job.out_stride, classes(), e_i);
                }
                for (int j = 0; any_lost && j < W && j < rows; ++j) {
                    if (lost(groups[i], j) && targets.weight(own + j) != 0) {
                        copy(again + j * classes(), to + j * job.out_stride);
                    }
                }
            }
            r += rows;
        }
        // rows that do not count may hold anything: their results are replaced, not multiplied by zero
        for (int64_t r = 0; targets.some_skipped && r < count; ++r) {
            if (targets.weight(r) != 0) continue;
            losses[r] = 0;
            statistics.skip(r);
            for (int k = 0; out && k < classes(); ++k) out[r * job.out_stride + k] = 0;
        }
        return true;
    }

    // Classes, shares and factors of the rows from `own` on.
    KULLBACK_INLINE void start_group(G& x, int64_t own, int count, double scale) const {
        const BlockTargets& targets = masses.targets;
        x.f = splat<V>(T(scale));
        if (targets.weights && count == W) {
            x.f = narrow(load<InDouble<T>>(targets.weights + own) * scale);
        } else {
            for (int j = 0; targets.weights && j < count; ++j) lane(x.f, j) = T(targets.weights[own + j] * scale);
        }
        if (masses.soft()) return;
        const int32_t* at_first = targets.first + own;
        const int32_t* at_second = masses.mixed() ? targets.second + own : at_first;
        const double* share = masses.mixed() ? job.targets.share + masses.begin + own : nullptr;
        int32_t first[W] = {}, second[W] = {};
        double shares[W] = {};
        if (count < W) {  // the last rows, filled up
            for (int j = 0; j < count; ++j) {
                first[j] = at_first[j];
                second[j] = at_second[j];
                if (share) shares[j] = share[j];
            }
            at_first = first;
            at_second = second;
            if (share) share = shares;
        }
        x.first = classes_in_lanes<T>(at_first);
        x.second = classes_in_lanes<T>(at_second);
        x.share = share ? in_lanes<T>(share) : splat<V>(T(1));
    }

    void copy(const T* from, T* to) const {
        for (int k = 0; k < classes(); ++k) to[k] = from[k];
    }

    // False, and the report says where, if a soft target is not valid. `padding` holds 3 * lanes * classes numbers.
    template <class Exact>
    bool block(const Rows<T>& logits, int64_t begin, int64_t count, T* losses, T* padding, Report& report,
               Exact exact) const {
        if constexpr (Loss::logs) {
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
