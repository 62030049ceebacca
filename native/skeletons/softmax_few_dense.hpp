// Few classes, for targets and losses that look at every class: soft targets, mixtures, smoothing, z-loss, and losses with
// an off(). What is read stays in the nearest cache, and the stages run over several groups of rows each, as in
// softmax_few.hpp; lines are those of softmax_few_lines.hpp.
#pragma once

#include "simd/transpose.hpp"
#include "skeletons/softmax_dense.hpp"
#include "skeletons/softmax_few.hpp"

#if KULLBACK_HAS_SHUFFLES

namespace kullback {
namespace KULLBACK_LEVEL {

// What the masses s of a row's classes are of its target t: t itself, w t, or w ((1 - e) t + e/C sum t).
enum class MassOf { target, weighted, smoothed };

// A group of as many rows as there are lanes, each number a lane per row.
template <class T>
struct DenseGroup {
    using V = Vector<T>;
    typename traits<V>::integer first, second;  // the classes of index and mixture targets
    V share;                                    // of the first
    V f, mass;     // the gradient's factor; sum of the masses
    V everywhere;  // what smoothing adds to every class' share of the target
    V center, others, sum, inverse, log_sum;
    V top_e;  // an e that is 1, where just one is: that class' 1 - p comes from the others; 2 elsewhere
    V top_miss, alone;
    V with_d, with_exp, squares;  // sums of masses times d and times e, and of e^2
    V d_y, e_y, own_y;
    bool finite;  // whether no logit is -inf
    Rows<T> scores, masses;  // what exp is taken of, and the targets or masses, where lines are rows
    Ahead<T> ahead;
    V prediction;  // if the job wants it
    V value, pulls, top_a, over_miss;  // over_miss: top_a / (1 - p) of the class that stands apart
};

// C is the number of classes, or 0 where only the job knows it.
template <class T, class Loss, Layout L, int C = 0>
struct FewDenseRows {
    using V = Vector<T>;
    using G = DenseGroup<T>;
    using Own = Lines<T, L, C>;
    static constexpr int W = lanes<T>, lines = Own::count;
    static constexpr bool by_row = Own::by_row;

    const Job& job;
    const Loss& loss;
    const Masses<T>& masses;
    const Transform<T>& transform;
    const Own own;
    const T factor;
    const T* weight;
    // each class' shift, what the loss keeps of it and what it makes of it
    T shifts[Loss::shifted ? few_classes : 1], kept[Loss::shifted ? few_classes : 1], made[Loss::shifted ? few_classes : 1];

    FewDenseRows(const Job& j, const Loss& l, const Masses<T>& m, const Transform<T>& t)
        : job(j),
          loss(l),
          masses(m),
          transform(t),
          own{int(j.classes)},
          factor(T(j.inverse_temperature)),
          weight(static_cast<const T*>(j.class_weight)) {
        if constexpr (Loss::shifted) {
            for (int k = 0; k < own.classes(); ++k) {
                shifts[k] = static_cast<const T*>(j.shift)[k];
                kept[k] = loss.kept_of(shifts[k]);
                made[k] = loss.made_of(shifts[k]);
            }
        }
    }

    // The targets of a group: t, rows of soft targets, or (if that is null) the group's classes written out.
    KULLBACK_INLINE void load_targets(const Rows<T>& t, V* s, G& x) const {
        x.masses = t;
        if (t.data) {
            if constexpr (!by_row) load_columns<T>(t.data, t.stride, own.classes(), s);
            return;
        }
        for (int j = 0; j < lines; ++j) {
            const V share = own.of_line(x.share, j), rest = T(1) - share;
            const auto first = own.of_line(x.first, j), second = own.of_line(x.second, j);
            auto classes_here = own.first_classes();
            own.each([&](int, int at, auto) KULLBACK_LAMBDA {
                s[j * own.length() + at] = keep<V>(first == classes_here, share) + keep<V>(second == classes_here, rest);
                classes_here += own.step;
            });
        }
        x.masses = own.rows_in(s);
    }

    // Masses of classes with that target.
    template <MassOf M, class Part>
    KULLBACK_INLINE V mass_of(V target, V everywhere, int k, Part part) const {
        if constexpr (M == MassOf::target) return target;
        if constexpr (M == MassOf::smoothed) target = target * T(masses.hard) + everywhere;
        if (M == MassOf::weighted || weight) target *= own.of_classes(weight, k, part);
        return target;
    }

    // mass_of() along a line, 0 in lanes outside its row.
    template <MassOf M>
    KULLBACK_INLINE auto mass_along(const V* s, const G& x, int line) const {
        const V everywhere = M == MassOf::smoothed ? own.of_line(x.everywhere, line) : V{};
        return [this, s, line, everywhere, targets = x.masses](int k, int at, auto part) KULLBACK_LAMBDA {
            return inside_row(mass_of<M>(own.read(targets, line, s, k, at, part, T(0)), everywhere, k, part), part);
        };
    }

    // For losses that go class by class: masses in the place of targets.
    KULLBACK_INLINE void weigh_targets(V* s, G& x) const {
        if (masses.spread == 0 && !weight) return;
        x.mass = own.sum_of([&](int j) KULLBACK_LAMBDA {
            return [&, mass_at = mass_along<MassOf::smoothed>(s, x, j), to = s + j * own.length()](
                       int k, int at, auto part) KULLBACK_LAMBDA {
                const V mass = mass_at(k, at, part);
                to[at] = mass;
                return mass;
            };
        });
        x.masses = own.rows_in(s);
    }

    // A later group's logits and targets. With many classes the stage that keeps the processor busiest asks first: the one
    // with the pulls, if there is one.
    template <bool OneHot, int nearness>
    KULLBACK_INLINE void ask_for_later(const Ahead<T>& ahead, int line, int at) const {
        own.template ask_for<nearness>(ahead.logits, line, at);
        if constexpr (!OneHot) own.template ask_for<nearness>(ahead.targets, line, at);
    }

    // Stage 1: logits to exp relative to each row's largest, and their sums. A loss known by its sums wants those with the
    // masses; one row of one class the target's own; others what d is for each class. Adds something to `broken` where a
    // row has a target below 0 or not finite.
    template <bool OneHot, MassOf M>
    KULLBACK_INLINE void sum_group(V* exps, const V* s, V* ds, G& x, V& broken) const {
        constexpr bool smoothed = M == MassOf::smoothed;
        const T scale = factor;
        V all_rest[lines], all_all[lines], all_total[lines], all_weighted[lines], all_squares[lines];
        V all_with_d[lines], all_d[lines], all_with_exp[lines], all_exp[lines];
        V d_y = V{}, e_y = V{}, lowest = V{}, lowest_target = V{};
        bool scores = true;
        if constexpr (Loss::by_sums) scores = loss.by().log_p != 0;
        const Rows<T> logits = x.scores, targets = x.masses;
        const Ahead<T> ahead = x.ahead;
        if constexpr (OneHot && by_row) {  // exp may take the logits' place
            d_y = own.at_classes(x.first, [&](int j, int y) KULLBACK_LAMBDA { return logits.row(j)[y]; });
            d_y = (d_y - x.center) * scale;
        }
        for (int j = 0; j < lines; ++j) {
            const V center = own.of_line(x.center, j);
            const auto target_class = own.of_line(x.first, j);
            V *e = exps + j * own.length(), *d = ds + j * own.length();
            V rest = V{}, all = V{}, total = V{}, weighted = V{}, squares = V{};
            V with_d = V{}, with_exp = V{}, weight_d = V{}, weight_exp = V{};
            auto classes_here = own.first_classes();
            own.by_sixteen([&](int begin, int end) KULLBACK_LAMBDA {
                V rest_here = V{}, all_here = V{}, total_here = V{}, weighted_here = V{}, squares_here = V{};
                V with_d_here = V{}, with_exp_here = V{}, d_here = V{}, exp_here = V{};
                own.each(begin, end, [&](int k, int at, auto part) KULLBACK_LAMBDA {
                    const V logit = own.read(logits, j, e, k, at, part, -infinity<T>);
                    const V relative = inside_row((logit - center) * scale, part);
                    const V y = inside_row(exp_or_zero<V>(relative), part);
                    e[at] = y;
                    own.ask_for(ahead.result, j, at);
                    if constexpr (!by_row || Loss::by_sums) ask_for_later<OneHot, Own::early>(ahead, j, at);
                    const Mask<V> below = y < T(1);
                    rest_here += keep<V>(below, y);
                    all_here += y;  // a NaN shows here
                    if constexpr (OneHot) {
                        if constexpr (!by_row) {
                            const Mask<V> is_target = target_class == classes_here;
                            d_y = select<V>(is_target, relative, d_y);
                            e_y = select<V>(is_target, y, e_y);
                            classes_here += own.step;
                        }
                        return;
                    }
                    const V target = own.read(targets, j, s, k, at, part, T(0));
                    total_here += target;
                    lowest_target = smaller<V>(target, lowest_target);
                    if constexpr (!Loss::by_sums) {
                        d[at] = relative;
                        lowest = smaller<V>(relative, lowest);
                        return;
                    }
                    const V w = M != MassOf::target && weight ? own.of_classes(weight, k, part) : splat<V>(T(1));
                    const V share = M == MassOf::target ? target : target * w;
                    if constexpr (M != MassOf::target) weighted_here += share;
                    if (scores) {  // perhaps 0 times -inf: see sum_of_scores()
                        with_d_here += share * relative;
                        if constexpr (smoothed) d_here += w * relative;
                    }
                    if constexpr (!Loss::linear) {
                        with_exp_here += share * y;
                        if constexpr (smoothed) exp_here += w * y;
                        squares_here += y * y;
                    }
                });
                rest += rest_here;
                all += all_here;
                total += total_here;
                weighted += weighted_here;
                squares += squares_here;
                with_d += with_d_here;
                with_exp += with_exp_here;
                weight_d += d_here;
                weight_exp += exp_here;
            });
            all_rest[j] = rest;
            all_all[j] = all;
            all_total[j] = total;
            all_weighted[j] = weighted;
            all_squares[j] = squares;
            all_with_d[j] = with_d;
            all_with_exp[j] = with_exp;
            all_d[j] = weight_d;
            all_exp[j] = weight_exp;
        }
        if constexpr (OneHot && by_row) {
            e_y = own.at_classes(x.first, [&](int j, int y) KULLBACK_LAMBDA { return own.in_line(exps, j, y); });
        }
        const V rest = own.sum(all_rest);
        // how many logits are the largest, a whole number, however the two sums were rounded
        const V ties = (own.sum(all_all) - rest + Constants<T>::round_magic) - Constants<T>::round_magic;
        x.others = rest + (ties - T(1));
        x.sum = rest + ties;
        if constexpr (!OneHot) {
            const V total = own.sum(all_total);
            broken += select<V>(total < infinity<T>, keep<V>(lowest_target < T(0), splat<V>(T(1))), splat<V>(T(1)));
            x.everywhere = total * T(masses.spread);
            x.mass = total;
        }
        if constexpr (Loss::by_sums) {
            const auto with_mass = [&](V* with_shares, V* with_weights) KULLBACK_LAMBDA {
                const V sum = own.sum(with_shares);
                if constexpr (!smoothed) return sum;
                return sum * T(masses.hard) + x.everywhere * own.sum(with_weights);
            };
            x.with_d = with_mass(all_with_d, all_d);
            if constexpr (!Loss::linear) {
                x.with_exp = with_mass(all_with_exp, all_exp);
                x.squares = own.sum(all_squares);
            }
            if constexpr (M != MassOf::target) x.mass = own.sum(all_weighted);
            if constexpr (smoothed) {
                const T weights = T(weight ? job.class_weight_sum : double(own.classes()));
                x.mass = x.mass * T(masses.hard) + x.everywhere * weights;
            }
        }
        x.d_y = d_y;
        x.e_y = e_y;
        x.finite = !any_lane<V>(keep<V>(lowest == splat<V>(-infinity<T>), splat<V>(T(1))));
    }

    // What exp is taken of: a group's logits, transformed (then they are in e, as columns are in any case) or as they are.
    // Where `prediction` is not null, it gets the classes of the largest logits.
    KULLBACK_INLINE Rows<T> load_scores(const Rows<T>& logits, V* e, V* slopes, V* prediction) const {
        if constexpr (!by_row) load_columns<T>(logits.data, logits.stride, own.classes(), e);
        if (prediction) *prediction = largest_classes(own, logits, e);
        if (!transform.any()) return logits;
        transform_lines(own, transform, logits, e, slopes);
        return own.rows_in(e);
    }

    // The sum of masses times d once more, where 0 times -inf made it NaN: that is nothing.
    template <MassOf M>
    V sum_of_scores(const Rows<T>& logits, const V* s, const G& x) const {
        V e[few_classes], slopes[few_classes];
        const Rows<T> scores = load_scores(logits, e, slopes, nullptr);
        return own.sum_of([&](int j) KULLBACK_LAMBDA {
            return [&, j, center = own.of_line(x.center, j), mass_at = mass_along<M>(s, x, j)](
                       int k, int at, auto part) KULLBACK_LAMBDA {
                const V mass = mass_at(k, at, part);
                const V d = (own.read(scores, j, e, k, at, part, T(0)) - center) * factor;
                return keep<V>(mass != T(0), mass * d);
            };
        });
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
    template <MassOf M>
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
            if (job.divergence) x.value += entropy_term<M>(s, x);
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
    KULLBACK_INLINE void pull_classes(const Form& form, const V* exps, V* s, const V* ds, G& x) const {
        V all_values[lines], all_pulls[lines], all_top_masses[lines], all_top_made[lines];
        const Rows<T> targets = x.masses;
        const Ahead<T> ahead = x.ahead;
        const Form cost = form;  // a copy, which the stores below cannot touch
        for (int j = 0; j < lines; ++j) {
            const V inverse = own.of_line(x.inverse, j), log_sum = own.of_line(x.log_sum, j);
            const V all = own.of_line(x.mass, j), top_e = own.of_line(x.top_e, j);
            const V *e = exps + j * own.length(), *d = ds + j * own.length();
            V *to = s + j * own.length();
            V values = V{}, pulls = V{}, top_mass = V{}, top_made = V{};
            own.by_sixteen([&](int begin, int end) KULLBACK_LAMBDA {
                V values_here = V{}, pulls_here = V{};
                own.each(begin, end, [&](int k, int at, auto part) KULLBACK_LAMBDA {
                    V p = e[at] * inverse, mass = own.read(targets, j, s, k, at, part, T(0));
                    if constexpr (by_row) ask_for_later<false, Own::early>(ahead, j, at);
                    if constexpr (Loss::apart) {  // done below: here as one that is not there
                        const Mask<V> is_top = e[at] == top_e;
                        top_mass = select<V>(is_top, mass, top_mass);
                        if constexpr (Loss::shifted) top_made = select<V>(is_top, own.of_classes(made, k, part), top_made);
                        mass = select<V>(is_top, V{}, mass);
                        p = select<V>(is_top, V{}, p);
                    }
                    Chance<V> chance{p, T(1) - p, d[at] - log_sum};
                    chance.unlikely = Loss::apart;
                    chance.finite = finite;
                    Shift<V> shift{V{}, V{}};
                    if constexpr (Loss::shifted) shift = {own.of_classes(shifts, k, part), own.of_classes(kept, k, part)};
                    const PulledClass<V> here = pull_class<finite>(cost, mass, all, chance, shift);
                    values_here += inside_row(here.value, part);
                    pulls_here += inside_row(here.pull, part);
                    to[at] = here.pull;
                });
                values += values_here;
                pulls += pulls_here;
            });
            all_values[j] = values;
            all_pulls[j] = pulls;
            all_top_masses[j] = top_mass;
            all_top_made[j] = top_made;
        }
        x.value = own.sum(all_values);
        x.pulls = own.sum(all_pulls);
        // of the classes of a row one at most stands apart
        if constexpr (Loss::apart) add_top(x, own.sum(all_top_masses), Loss::shifted ? own.sum(all_top_made) : V{});
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
    template <MassOf M>
    KULLBACK_INLINE V entropy_term(const V* s, const G& x) const {
        const Mask<V> some = x.mass > Constants<T>::least_normal;
        const V inverses = keep<V>(some, T(1) / select<V>(some, x.mass, splat<V>(T(1))));
        return own.sum_of([&](int j) KULLBACK_LAMBDA {
            return [inverse = own.of_line(inverses, j), mass_at = mass_along<M>(s, x, j)](
                       int k, int at, auto part) KULLBACK_LAMBDA {
                return part_of_entropy<V>(mass_at(k, at, part), inverse);
            };
        });
    }

    // The same as pull_group where every row is of one class and the loss one of logarithms of p and of all 1 - p.
    KULLBACK_INLINE void pull_one_hot(const V* exps, V* s, G& x) const {
        const V w = x.mass, sum = x.sum;
        const Mask<V> right = x.e_y == x.top_e, alone = x.alone != T(0);
        const V wrong = select<V>(right, V{}, x.alone);  // 1 where another class stands apart
        x.top_a = keep<V>(alone, select<V>(right, -w * x.top_miss, w * x.inverse));
        // the target and a class that stands apart have had their turn: as if they had p = 0
        V all_logs[lines], all_pulls[lines];
        const Ahead<T> ahead = x.ahead;
        for (int j = 0; j < lines; ++j) {
            const V inverse = own.of_line(x.inverse, j), top_e = own.of_line(x.top_e, j), own_sum = own.of_line(sum, j);
            const auto target = own.of_line(x.first, j);
            const V* e = exps + j * own.length();
            V* to = s + j * own.length();
            V logs = V{}, pulls = V{};
            auto classes_here = own.first_classes();
            own.by_sixteen([&](int begin, int end) KULLBACK_LAMBDA {
                V logs_here = V{}, pulls_here = V{};
                own.each(begin, end, [&](int, int at, auto) KULLBACK_LAMBDA {
                    if constexpr (by_row) ask_for_later<true, Own::early>(ahead, j, at);
                    const V rest = keep<V>(e[at] < top_e, keep<V>(target != classes_here, e[at]));
                    classes_here += own.step;
                    // 1 less the product of all 1 - p, which loses no digits, for one logarithm of all
                    const V p = rest * inverse, pull = rest * quick_inverse<V>(own_sum - rest);
                    logs_here = logs_here * (T(1) - p) + p;
                    pulls_here += pull;
                    to[at] = pull;
                });
                logs = logs_here * (T(1) - logs) + logs;
                pulls += pulls_here;
            });
            all_logs[j] = logs;
            all_pulls[j] = pulls;
        }
        const V logs = own.fold(all_logs, [](V a, V b) KULLBACK_LAMBDA { return a * (T(1) - b) + b; });
        const V pulls = own.sum(all_pulls);
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
        x.own_y = -(w + x.e_y * x.inverse * total) * x.f;
    }

    // Stage 4: g = b - p sum(b), into rows `to` or in the place of exp. A class that stands apart pulls the others with
    // a / (1 - p).
    template <bool OneHot, MassOf M>
    KULLBACK_INLINE void spread_group(V* exps, const V* s, const V* slopes, const G& x, T* to, int64_t to_stride) const {
        const V all_each = OneHot ? x.mass * x.f : Loss::by_sums ? -x.f : x.f;
        const V all_shares = (Loss::apart ? x.pulls + x.over_miss : x.pulls) * x.inverse * x.f;
        const V all_tops = Loss::apart ? (x.top_a - x.inverse * x.pulls) * x.f : V{};
        V all_on_masses = V{}, all_on_squares = V{};
        T on_log_p = T(0);
        if constexpr (Loss::by_sums && !Loss::linear) {
            const BySums by = loss.by();
            const V f = x.inverse * x.f;
            all_on_masses = T(by.miss) * f;
            all_on_squares = T(2 * by.squares) * x.mass * x.inverse * f;
            on_log_p = T(by.log_p);
        }
        const Rows<T> targets = x.masses;
        const Ahead<T> ahead = x.ahead;
        const bool capped = transform.capped;
        for (int j = 0; j < lines; ++j) {
            V* e = exps + j * own.length();
            const V *pulls = s + j * own.length(), *slope = slopes + j * own.length();
            T* row = to + j * to_stride;
            const V each = own.of_line(all_each, j), share = own.of_line(all_shares, j);
            const V top = own.of_line(all_tops, j), top_e = Loss::apart ? own.of_line(x.top_e, j) : V{};
            const V on_mass = own.of_line(all_on_masses, j), on_square = own.of_line(all_on_squares, j);
            const V log_p = Loss::by_sums ? own.of_line(x.f, j) * on_log_p : V{};
            const auto target = own.of_line(x.first, j);
            const V everywhere = M == MassOf::smoothed ? own.of_line(x.everywhere, j) : V{};
            const V own_y = OneHot ? own.of_line(x.own_y, j) : V{};
            auto classes_here = own.first_classes();
            own.each([&](int k, int at, auto part) KULLBACK_LAMBDA {
                V g;
                if constexpr (Loss::by_sums) {
                    const V mass = mass_of<M>(own.read(targets, j, s, k, at, part, T(0)), everywhere, k, part);
                    g = Loss::linear ? mass * each - e[at] * share
                                     : e[at] * ((e[at] * on_square - share) - mass * on_mass) - mass * log_p;
                } else {
                    g = pulls[at] * each - e[at] * share;
                }
                if constexpr (OneHot) {
                    g = select<V>(target == classes_here, own_y, g);
                    classes_here += own.step;
                }
                if constexpr (Loss::apart) g = select<V>(e[at] == top_e, top, g);
                if constexpr (by_row) ask_for_later<OneHot, 3>(ahead, j, at);
                if (capped) g *= slope[at];
                if constexpr (by_row) {
                    store<V>(row + k, part, g);
                } else {
                    e[at] = g;
                }
            });
        }
        if constexpr (!by_row) store_columns<T>(to, to_stride, own.classes(), exps);
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

    template <bool OneHot, MassOf M, class Exact>
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
        const int classes = own.classes(), vectors = own.vectors();
        T *tail_z = padding, *tail_t = padding + W * classes, *again = padding + 2 * W * classes;
        const RowStatistics<T> statistics(job, begin);
        const int fitting = most / vectors < 1 ? 1 : most / vectors;
        const int at_once = fitting < most_groups ? fitting : most_groups;
        for (int64_t r = 0; r < count;) {
            const int64_t whole = (count - r) / W;
            const int here = whole == 0 ? 1 : whole < at_once ? int(whole) : at_once;
            const int64_t rows = whole == 0 ? count - r : int64_t(here) * W;
            const T *z = logits.row(r), *t = soft ? masses.rows.row(r) : nullptr;
            int64_t z_stride = logits.stride, t_stride = masses.rows.stride;
            if (whole == 0) {  // the last rows, filled up with rows of zeros
                for (int64_t j = 0; j < 2 * W * classes; ++j) padding[j] = 0;
                for (int64_t i = 0; i < rows; ++i) {
                    copy(z + i * z_stride, tail_z + i * classes);
                    if (soft) copy(t + i * t_stride, tail_t + i * classes);
                }
                z = tail_z;
                if (soft) t = tail_t;
                z_stride = t_stride = classes;
            }
            V broken = V{};
            const auto prepare = [&](int i) KULLBACK_LAMBDA {
                const int64_t place = r + i * W;
                const int lanes_here = whole == 0 ? int(rows) : W;
                G& x = groups[i];
                V* e_i = e + i * vectors;
                const Rows<T> of_z{z + i * W * z_stride, z_stride};
                const Rows<T> of_t{soft ? t + i * W * t_stride : nullptr, t_stride};
                const Rows<T> of_g{out ? out + place * job.out_stride : nullptr, job.out_stride};
                x.ahead = look_ahead(own, here, of_z, of_t, of_g);
                start_group(x, place, lanes_here, scale);
                if constexpr (OneHot) {
                    x.mass = splat<V>(T(1));
                    for (int j = 0; weight && j < lanes_here; ++j) lane(x.mass, j) = weight[targets.first[place + j]];
                } else {
                    load_targets(of_t, s + i * vectors, x);
                }
                x.scores = load_scores(of_z, e_i, slopes + i * vectors, job.prediction ? &x.prediction : nullptr);
                x.center = center_of(own, x.scores, e_i);
            };
            const auto sum = [&](int i) KULLBACK_LAMBDA {
                G& x = groups[i];
                sum_group<OneHot, M>(e + i * vectors, s + i * vectors, d + (relative ? i * vectors : 0), x, broken);
                if constexpr (!OneHot && !Loss::by_sums) weigh_targets(s + i * vectors, x);
                if constexpr (Loss::by_sums && !OneHot) {
                    if (any_lane<V>(select<V>(x.with_d == x.with_d, V{}, splat<V>(T(1))))) {
                        x.with_d = sum_of_scores<M>({z + i * W * z_stride, z_stride}, s + i * vectors, x);
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
                V *e_i = e + i * vectors, *s_i = s + i * vectors;
                if constexpr (OneHot) {
                    pull_one_hot(e_i, s_i, groups[i]);
                } else {
                    pull_group<M>(e_i, s_i, d + (relative ? i * vectors : 0), groups[i]);
                }
                store<V>(whole == 0 ? again : losses + r + i * W, groups[i].value);
            }
            for (int64_t i = 0; whole == 0 && i < rows; ++i) losses[r + i] = again[i];
            for (int i = 0; i < here; ++i) {
                const int64_t place = r + i * W;
                // rows that are lost are done over while their logits are still there
                bool any_lost = false;
                for (int j = 0; look_for_lost && j < W && j < rows; ++j) {
                    if (!lost(groups[i], j) || targets.weight(place + j) == 0) continue;
                    any_lost = true;
                    losses[place + j] = T(exact(z + (i * W + j) * z_stride, place + j, targets.weight(place + j) * scale,
                                              out ? again + j * classes : nullptr));
                }
                if (!out) continue;
                T* to = out + place * job.out_stride;
                const int at = i * vectors;
                if (whole == 0) {
                    spread_group<OneHot, M>(e + at, s + at, slopes + at, groups[i], tail_z, classes);
                    for (int64_t j = 0; j < rows; ++j) copy(tail_z + j * classes, to + j * job.out_stride);
                } else {
                    spread_group<OneHot, M>(e + at, s + at, slopes + at, groups[i], to, job.out_stride);
                }
                for (int j = 0; any_lost && j < W && j < rows; ++j) {
                    if (lost(groups[i], j) && targets.weight(place + j) != 0) {
                        copy(again + j * classes, to + j * job.out_stride);
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
            for (int k = 0; out && k < classes; ++k) out[r * job.out_stride + k] = 0;
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
        for (int k = 0; k < own.classes(); ++k) to[k] = from[k];
    }

    // False, and the report says where, if a soft target is not valid. `padding` holds 3 * lanes * classes numbers.
    template <class Exact>
    bool block(const Rows<T>& logits, int64_t begin, int64_t count, T* losses, T* padding, Report& report,
               Exact exact) const {
        const auto run = [&](auto one_hot, auto mass) {
            return rows<decltype(one_hot)::value, decltype(mass)::value>(logits, begin, count, losses, padding, report, exact);
        };
        const std::false_type no{};
        if constexpr (Loss::logs) {
            const bool one_hot = job.targets.form == Form::indices && job.smoothing == 0;
            if (one_hot) return run(std::true_type{}, std::integral_constant<MassOf, MassOf::target>{});
        }
        if constexpr (Loss::by_sums) {
            if (masses.spread != 0) return run(no, std::integral_constant<MassOf, MassOf::smoothed>{});
            if (weight) return run(no, std::integral_constant<MassOf, MassOf::weighted>{});
        }
        return run(no, std::integral_constant<MassOf, MassOf::target>{});
    }
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback

#endif
