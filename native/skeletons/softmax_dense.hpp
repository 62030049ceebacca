// One row whose loss looks at every class: soft targets, smoothing, and losses with an off(). Lanes along the classes.
//
// Three sweeps over a row that stays in the cache: exponentials (sum_row), then each class' pull b_k = f'(log p_k),
// which waits in the gradient's place, then g = b - p sum(b).
//
// A class with p > 1/2 needs 1 - p apart, from the sum of the others: for a loss whose pull has no bound that a rounded
// 1 - p would respect (`apart`), it is taken out of the sums, and pulls with a = b (1 - p) instead. Rows in which nothing
// is left for the others are done by softmax_exact.hpp.
#pragma once

#include "skeletons/softmax_exact.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

constexpr double largest_shift_of_others = 40;

// Below this, exponentials relative to the largest have lost digits.
template <class T>
constexpr double least_others = sizeof(T) == 4 ? 1e-30 : 1e-290;

// Whether such rows are to be done in double: exponentials of moderate shifts are no match for so small a rest.
template <class Loss>
bool may_be_lost(const Job& job) {
    return Loss::apart && (Loss::looks_at_all || job.largest_shift > largest_shift_of_others);
}

// Sums vectors; now and then (`is_time`) they go to a sum in double.
template <class V>
struct LongSum {
    V here = V{};
    LongTotal all;
    static KULLBACK_INLINE bool is_time(int64_t k) {
        return (k & (summed_vectors<Scalar<V>> * traits<V>::width - 1)) == 0;
    }
    KULLBACK_INLINE void add(V x) { here += x; }
    KULLBACK_INLINE void settle() {
        all.add(sum_lanes(here));
        here = V{};
    }
    double total() const { return all.get(); }
};

// The cost of a class that is not the true one.
template <class V, class Loss>
KULLBACK_INLINE Cost<V> off_cost(const Loss& loss, V p, V miss, V log_p, V log_miss) {
    return loss.off(Chance<V>{p, miss, log_p, true, log_miss});
}

template <class T, class Loss>
struct DenseRows {
    using V = Vector<T>;

    const Job& job;
    const Loss& loss;
    const Masses<T>& masses;
    const int64_t classes;
    const T factor;
    T* hot;  // a row of zeros, to write the target of an index or mixture row into

    DenseRows(const Job& j, const Loss& l, const Masses<T>& m, Scratch& scratch)
        : job(j), loss(l), masses(m), classes(j.classes), factor(T(j.inverse_temperature)), hot(nullptr) {
        if (m.soft()) return;
        hot = scratch.take<T>(classes);
        for (int64_t k = 0; k < classes; ++k) hot[k] = 0;
    }

    // Loss of row r; its gradient times `scale` goes to g, which may be null or the logits' own place.
    // False, and the report says where, if a soft target is not valid.
    template <class Exact>
    bool row(const T* z, int64_t r, T* g, double scale, Kept<T> kept, double& value, Report& report, Exact exact) const {
        kept.result = g;
        const T* t = masses.soft() ? masses.rows.row(r) : nullptr;
        if constexpr (Loss::linear) {
            if (!t) t = hot_row(r);
        }
        RowMasses<T> found{t, static_cast<const T*>(job.class_weight), job.smoothing != 0, !Loss::linear};
        const RowSum<T> row = sum_row(z, classes, job.inverse_temperature, kept, t ? &found : nullptr);
        if (masses.soft() && !found.sound && !masses.valid(r, report)) return false;
        const bool empty = row.inverse == 0;
        if (Loss::apart && (empty || (may_be_lost<Loss>(job) && row.others < least_others<T>))) {
            value = exact();
            return true;
        }
        if (kept.transform) z = kept.scores;
        if constexpr (Loss::linear) {
            value = of_linear(t, found, row, g, scale, kept);
            if (!masses.soft()) cool_row(r);
        } else {
            value = t ? of_masses(z, t, found.total, row, g, scale, kept) : of_classes(z, r, row, g, scale, kept);
        }
        if (row.broken()) value = row.sum;
        return true;
    }

    // Cross-entropy knows all from the first sweep: g = S p - s.
    double of_linear(const T* t, const RowMasses<T>& found, const RowSum<T>& row, T* g, double scale, Kept<T> kept) const {
        const double everywhere = found.total * masses.spread;
        const double mass = masses.hard * found.weighted + everywhere * found.weights;
        const double with_mass = masses.hard * found.with_t + (everywhere != 0 ? everywhere * found.with_weight : 0);
        double value = mass * row.log_sum - with_mass, pulls = -mass;
        add_z_loss(mass, row, value, pulls);
        if (job.divergence) {
            // at the minimum the difference of two equal numbers may round to a hair below zero
            value += entropy_term(t, found.total, mass);
            if (value < 0) value = 0;
        }
        if (!g) return value;
        const double f = -scale * pulls * row.inverse;
        const bool plain = masses.spread == 0 && !masses.weight;
        const T own = T(scale), total = T(found.total);
        if (plain) {
            along_kept(row, kept, classes, job.inverse_temperature, f, [&](int64_t k, auto part, V e) KULLBACK_LAMBDA {
                store<V>(g + k, part, e - load<V>(t + k, part, T(0)) * own);
            });
        } else {
            along_kept(row, kept, classes, job.inverse_temperature, f, [&](int64_t k, auto part, V e) KULLBACK_LAMBDA {
                store<V>(g + k, part, e - masses.at(t, total, k, part) * own);
            });
        }
        return value;
    }

    // sum s log(s / S) of a row's masses s.
    double entropy_term(const T* t, double total, double mass) const {
        const T inverse = mass > double(Constants<T>::least_normal) ? T(1 / mass) : T(0), all = T(total);
        return sum_along<T>(classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
            const V s = masses.at(t, all, k, part);
            return inside_row(s * log_to_one<V>(smaller<V>(s * inverse, splat<V>(T(1)))), part);
        });
    }

    // The target of row r written out, in a row that is zero otherwise.
    const T* hot_row(int64_t r) const {
        const int64_t first = masses.targets.first[r], second = masses.mixed() ? masses.targets.second[r] : first;
        const double share = masses.share(r);
        hot[first] = T(share);
        hot[second] += T(1 - share);
        return hot;
    }
    void cool_row(int64_t r) const {
        hot[masses.targets.first[r]] = 0;
        if (masses.mixed()) hot[masses.targets.second[r]] = 0;
    }

    double of_classes(const T* z, int64_t r, const RowSum<T>& row, T* g, double scale, Kept<T> kept) const {
        const int64_t first = masses.targets.first[r], second = masses.mixed() ? masses.targets.second[r] : first;
        if constexpr (Loss::logs) {
            if (first == second && job.smoothing == 0) return of_class(z, first, row, g, scale, kept);
        }
        const double value = of_masses(z, hot_row(r), 1, row, g, scale, kept);
        cool_row(r);
        return value;
    }

    double of_masses(const T* z, const T* t, double total, const RowSum<T>& row, T* g, double scale, Kept<T> kept) const {
        const double mass = Loss::looks_at_all || job.z_loss != 0 ? sum_of_masses(t, total) : 0;
        const T log_sum = T(row.log_sum);
        const bool alone = Loss::apart && row.others < 1;
        const T top_miss = T(row.others * row.inverse), top_log_miss = T(log_of_others(row));
        const T all = T(mass);
        const T* shift = static_cast<const T*>(job.shift);
        LongSum<V> values, pulls, own;
        auto visit = [&](int64_t k, auto part, V p) KULLBACK_LAMBDA {
            if (LongSum<V>::is_time(k)) {
                values.settle();
                pulls.settle();
                own.settle();
            }
            const V d = (load<V>(z + k, part, -infinity<T>) - row.center) * factor;
            const V on_mass = masses.at(t, total, k, part);
            Chance<V> chance;
            chance.p = p;
            chance.miss = T(1) - p;
            chance.log_p = d - log_sum;
            const Mask<V> top = d == T(0);
            if constexpr (Loss::apart) {
                if (alone) chance.miss = select<V>(top, splat<V>(top_miss), chance.miss);
            }
            const Cost<V> on = loss.on(chance, shift_of<Loss>(loss, Loss::shifted ? load<V>(shift + k, part, T(0)) : V{}));
            V value = keep<V>(on_mass != T(0), on_mass * on.value);
            V pull = -on_mass * on.pull;
            if constexpr (Loss::looks_at_all) {
                V log_miss = log_of_small_miss<V>(p);
                if (alone) log_miss = select<V>(top, splat<V>(top_log_miss), log_miss);
                const V off_mass = all - on_mass;
                const Cost<V> off = off_cost<V>(loss, p, chance.miss, chance.log_p, log_miss);
                value += keep<V>(p != T(0), off_mass * off.value);
                pull += off_mass * p * off.pull;
            }
            if constexpr (Loss::apart) {
                if (alone) {
                    own.add(keep<V>(top, inside_row(pull * chance.miss, part)));
                    pull = select<V>(top, V{}, pull);
                }
            }
            values.add(inside_row(value, part));
            pulls.add(inside_row(pull, part));
            if (g) store<V>(g + k, part, pull);
        };
        const int64_t top = alone && g ? place_of_top(z, row) : -1;
        along_kept(row, kept, classes, job.inverse_temperature, row.inverse, visit);
        values.settle();
        pulls.settle();
        own.settle();
        double value = values.total(), all_pulls = pulls.total();
        add_z_loss(mass, row, value, all_pulls);
        if (g) write(row, kept, g, scale, all_pulls, own.total(), top);
        return value;
    }

    // The same for a row that is of class y entirely.
    double of_class(const T* z, int64_t y, const RowSum<T>& row, T* g, double scale, Kept<T> kept) const {
        const double mass = masses.weight_of(y);
        auto p_of = [&](int64_t k) {
            return exp_nonpositive<double>((double(z[k]) - double(row.center)) * job.inverse_temperature) * row.inverse;
        };
        const bool right = z[y] == T(row.center), alone = row.others < 1;
        const double top_miss = row.others * row.inverse, p_y = p_of(y);
        Chance<double> chance;
        chance.p = p_y;
        chance.miss = right ? top_miss : 1 - p_y;
        chance.log_p = (double(z[y]) - double(row.center)) * job.inverse_temperature - row.log_sum;
        const Cost<double> on = loss.on(chance, 0.0);
        double value = mass == 0 ? 0 : mass * on.value, pulled = -mass * on.pull, a = 0;
        double all_pulls = alone && right ? 0 : pulled;
        int64_t top = -1;
        if (alone && right) {
            top = y;
            a = pulled * chance.miss;
        } else if (alone) {
            top = place_of_top(z, row);
            const double log_p = -row.log_sum;
            const Cost<double> off = off_cost<double>(loss, row.inverse, top_miss, log_p, log_of_others(row));
            value += mass * off.value;
            a = mass * row.inverse * off.pull * top_miss;
            kept.exp[top] = 0;
        }
        kept.exp[y] = 0;
        const T w = T(mass);
        LongSum<V> pulls;
        V logs = V{};
        double all_logs = 0;
        along_kept(row, kept, classes, job.inverse_temperature, row.inverse, [&](int64_t k, auto part, V p) KULLBACK_LAMBDA {
            if (LongSum<V>::is_time(k)) {
                settle_logs(logs, all_logs);
                pulls.settle();
            }
            // 1 less the product of all 1 - p, which loses no digits, for one logarithm of many
            const V pull = p / (T(1) - p) * w;
            logs = p * (T(1) - logs) + logs;
            pulls.add(inside_row(pull, part));
            if (g) store<V>(g + k, part, pull);
        });
        pulls.settle();
        settle_logs(logs, all_logs);
        value += mass * log1p_nonnegative<double>(all_logs / (1 - all_logs));
        all_pulls += pulls.total();
        add_z_loss(mass, row, value, all_pulls);
        if (g) {
            write(row, kept, g, scale, all_pulls, a, top);
            if (y != top) g[y] = T(scale * (pulled - p_y * (all_pulls + (top < 0 ? 0 : a / top_miss))));
        }
        return value;
    }

    // Multiplies 1 - all by 1 - x for every lane, and sets x back to 0.
    static void settle_logs(V& x, double& all) {
        for (int i = 0; i < lanes<T>; ++i) all = double(get(x, i)) * (1 - all) + all;
        x = V{};
    }

    void add_z_loss(double mass, const RowSum<T>& row, double& value, double& all_pulls) const {
        if (job.z_loss == 0 || mass == 0) return;
        const double lse = double(row.center) * job.inverse_temperature + row.log_sum;
        value += job.z_loss * mass * lse * lse;
        all_pulls -= 2 * job.z_loss * mass * lse;
    }

    // g = b - p sum(b); a class `top` (or -1) that stands apart pulls the others with a / (1 - p).
    void write(const RowSum<T>& row, Kept<T> kept, T* g, double scale, double pulls, double a, int64_t top) const {
        const T f = T(scale);
        const double all = top < 0 || row.others == 0 ? pulls : pulls + a / (row.others * row.inverse);
        along_kept(row, kept, classes, job.inverse_temperature, -scale * all * row.inverse,
                   [&](int64_t k, auto part, V e) KULLBACK_LAMBDA {
            store<V>(g + k, part, load<V>(g + k, part, T(0)) * f + e);
        });
        if (top >= 0) g[top] = T(scale * (a - row.inverse * pulls));
    }

    double sum_of_masses(const T* t, double total) const {
        if (job.smoothing == 0 && !masses.weight) return total;
        return sum_along<T>(classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
            return inside_row(masses.at(t, total, k, part), part);
        });
    }

    // log(1 - p) of the largest class
    static double log_of_others(const RowSum<T>& row) {
        if (!(row.others < 1)) return 0;
        const double miss = row.others * row.inverse;
        return -log1p_nonnegative<double>(row.inverse / miss);
    }

    int64_t place_of_top(const T* z, const RowSum<T>& row) const {
        int64_t k = 0;
        while (k + 1 < classes && z[k] != row.center) ++k;
        return k;
    }
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
