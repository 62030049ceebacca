// One row whose loss looks at every class: soft targets, smoothing, and losses with an off(). Lanes along the classes.
//
// A loss that is known by its sums needs two sweeps over a row that stays in the cache: exponentials and sums (sum_row),
// then the gradient. Any other needs three: exponentials, then each class' pull b_k = f'(log p_k), which waits in a row
// beside them, then g = b - p sum(b).
//
// A class with p > 1/2 needs 1 - p apart, from the sum of the others: for a loss whose pull has no bound that a rounded
// 1 - p would respect (`apart`), it is taken out of the sums, and pulls with a = b (1 - p) instead. Rows in which nothing
// is left for the others are done by softmax_exact.hpp.
#pragma once

#include "skeletons/softmax_exact.hpp"
#include "skeletons/softmax_statistics.hpp"

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

// Sums vectors, which settle() takes to a sum in double every now and then.
template <class V>
struct LongSum {
    V here = V{}, shorts = V{};
    int64_t settled = 0;
    LongTotal all;
    KULLBACK_INLINE void add(V x) { here += x; }
    KULLBACK_INLINE void settle() {
        shorts += here;
        here = V{};
        if (++settled % short_sums == 0) empty();
    }
    KULLBACK_INLINE void empty() {
        all.add(sum_lanes(shorts));
        shorts = V{};
    }
    double total() {
        empty();
        return all.get();
    }
};

// 1 less the product of many 1 - x, likewise.
template <class V>
struct LongMiss {
    V here = V{}, shorts = V{};
    int64_t settled = 0;
    double all = 0;
    KULLBACK_INLINE void add(V x, V miss) { here = here * miss + x; }
    KULLBACK_INLINE void settle() {
        shorts = shorts * (Scalar<V>(1) - here) + here;
        here = V{};
        if (++settled % short_sums == 0) empty();
    }
    KULLBACK_INLINE void empty() {
        for (int i = 0; i < traits<V>::width; ++i) all = double(get(shorts, i)) * (1 - all) + all;
        shorts = V{};
    }
    double total() {
        empty();
        return all;
    }
};

// What a class of that mass, in a row whose masses sum to `all`, adds to the row's value, and how it pulls; `finite`: no
// logarithm counts as infinite.
template <class V>
struct PulledClass {
    V value, pull;
};
template <bool finite, class Loss, class V, class All>
KULLBACK_INLINE PulledClass<V> pull_class(const Loss& loss, V mass, All all, const Chance<V>& chance, const Shift<V>& shift) {
    using T = Scalar<V>;
    const Cost<V> on = loss.on(chance, shift);
    V value = mass * on.value;
    if constexpr (!finite) value = keep<V>(mass != T(0), value);
    V pull = -mass * on.pull;
    if constexpr (Loss::looks_at_all) {
        const V off_mass = all - mass;
        const Cost<V> off = loss.off(chance);
        value += finite ? off_mass * off.value : keep<V>(chance.p != T(0), off_mass * off.value);
        pull += off_mass * chance.p * off.pull;
    }
    return {value, pull};
}

template <class T, class Loss>
struct DenseRows {
    using V = Vector<T>;

    const Job& job;
    const Loss& loss;
    const Masses<T>& masses;
    const int64_t classes;
    const T factor;
    const RowStatistics<T> statistics;
    T* hot;    // a row of zeros, to write the target of an index or mixture row into
    T* waiting;  // room for a row of pulls, where a gradient is asked for
    const T* shift;
    T* kept_shift;  // what the loss keeps of each class' shift

    // `used`: whether any row will be done here
    DenseRows(const Job& j, const Loss& l, const Masses<T>& m, const RowStatistics<T>& s, Scratch& scratch, bool used)
        : job(j),
          loss(l),
          masses(m),
          classes(j.classes),
          factor(T(j.inverse_temperature)),
          statistics(s),
          hot(nullptr),
          waiting(nullptr),
          shift(static_cast<const T*>(j.shift)),
          kept_shift(nullptr) {
        if (!used) return;
        if (!Loss::by_sums && j.out) waiting = scratch.take<T>(classes);
        if (Loss::shifted) {
            kept_shift = scratch.take<T>(classes);
            along<T>(0, classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
                store<V>(kept_shift + k, part, loss.kept_of(load<V>(shift + k, part, T(0))));
            });
        }
        if (m.soft()) return;
        hot = scratch.take<T>(classes);
        for (int64_t k = 0; k < classes; ++k) hot[k] = 0;
    }

    // Loss of row r; its gradient times `scale` goes to g, which may be null or the logits' own place.
    // False, and the report says where, if a soft target is not valid.
    template <class Exact>
    bool row(const T* z, int64_t r, T* g, double scale, Kept<T> kept, double& value, Report& report, Exact exact) const {
        kept.result = kept.streams ? nullptr : g;
        const T* t = masses.soft() ? masses.rows.row(r) : nullptr;
        RowMasses<T> found{t, static_cast<const T*>(job.class_weight), job.smoothing != 0, false, false};
        if constexpr (Loss::by_sums) {
            if (!t) found.t = t = hot_row(r);
            const BySums by = loss.by();
            found.scores = by.log_p != 0;
            found.exps = by.miss != 0;
        }
        const bool early = total_is_early();
        const RowSum<T> row = sum_row(z, classes, job.inverse_temperature, kept, t && early ? &found : nullptr);
        if (statistics.wanted()) statistics.put(r, z, classes, row, kept.transform);
        const auto sound = [&] { return !masses.soft() || found.sound || masses.valid(r, report); };
        if (early && !sound()) return false;
        const bool empty = row.inverse == 0;
        if (Loss::apart && (empty || (may_be_lost<Loss>(job) && row.others < least_others<T>))) {
            found.sound &= early;  // nobody has looked
            if (!sound()) return false;
            value = exact();
            return true;
        }
        if (kept.transform) z = kept.scores;
        if constexpr (Loss::by_sums) {
            value = of_sums(t, found, row, g, scale, kept);
            if (!masses.soft()) cool_row(r);
        } else {
            value = t ? of_masses(z, found, row, g, scale, kept) : of_classes(z, r, row, g, scale, kept);
            if (!early && !sound()) return false;
        }
        if (row.broken()) value = row.sum;
        return true;
    }

    // Whether a soft row's sum has to be known before its masses. If not, the row is read in the second sweep alone, while
    // the first waits for logits.
    bool total_is_early() const { return Loss::by_sums || Loss::looks_at_all || job.smoothing != 0; }

    // All is known from the first sweep: with M = sum s p and Q = sum p^2, g = p (a S + b M - 2 c S Q + 2 c S p - b s) - a s.
    double of_sums(const T* t, const RowMasses<T>& found, const RowSum<T>& row, T* g, double scale, Kept<T> kept) const {
        const BySums by = loss.by();
        const double everywhere = found.total * masses.spread;
        const double mass = masses.hard * found.weighted + everywhere * found.weights;
        auto with_mass = [&](const double* sums) {
            return masses.hard * sums[0] + (everywhere != 0 ? everywhere * sums[1] : 0);
        };
        double value = 0, on_p = by.log_p * mass;
        if (by.log_p != 0) value = by.log_p * (mass * row.log_sum - with_mass(found.with_d));
        if constexpr (!Loss::linear) {
            const double chance = row.inverse * with_mass(found.with_exp);
            const double squares = row.inverse * row.inverse * found.squares;
            value += by.miss * (mass - chance) + by.squares * mass * (squares - 1);
            on_p += by.miss * chance - 2 * by.squares * mass * squares;
        }
        double pulls = -on_p;
        add_z_loss(mass, row, value, pulls);
        if (job.divergence) value += entropy_term(t, found.total, mass);
        // at the minimum the difference of two equal numbers may round to a hair below zero
        if ((job.divergence || by.log_p == 0) && value < 0) value = 0;
        if (!g) return value;
        with_masses(t, found.total, [&](auto mass_at) KULLBACK_LAMBDA {
            const T own = T(scale * by.log_p);
            if constexpr (Loss::linear) {
                along_kept(row, kept, classes, job.inverse_temperature, -scale * pulls * row.inverse,
                           [&](int64_t k, auto part, V e) KULLBACK_LAMBDA { put(g, kept, k, part, e - mass_at(k, part) * own); });
            } else {
                const T all = T(-scale * pulls), on_square = T(2 * scale * by.squares * mass), on_mass = T(scale * by.miss);
                along_kept(row, kept, classes, job.inverse_temperature, row.inverse,
                           [&](int64_t k, auto part, V p) KULLBACK_LAMBDA {
                    const V s = mass_at(k, part);
                    put(g, kept, k, part, p * ((p * on_square + all) - s * on_mass) - s * own);
                });
            }
        });
        return value;
    }

    // Calls body(mass_at), where mass_at(k, part) gives masses of classes.
    template <class Body>
    KULLBACK_INLINE void with_masses(const T* t, double total, Body body) const {
        if (masses.weight) {
            const Masses<T> own = masses;  // a copy, which stores cannot touch
            return body([&](int64_t k, auto part) KULLBACK_LAMBDA { return own.at(t, total, k, part); });
        }
        if (masses.spread == 0) {
            return body([&](int64_t k, auto part) KULLBACK_LAMBDA { return load<V>(t + k, part, T(0)); });
        }
        const T hard = T(masses.hard), everywhere = T(total * masses.spread);
        body([&](int64_t k, auto part) KULLBACK_LAMBDA { return load<V>(t + k, part, T(0)) * hard + everywhere; });
    }

    // sum s log(s / S) of a row's masses s.
    double entropy_term(const T* t, double total, double mass) const {
        const V inverse = splat<V>(mass > double(Constants<T>::least_normal) ? T(1 / mass) : T(0));
        double sum = 0;
        with_masses(t, total, [&](auto mass_at) KULLBACK_LAMBDA {
            sum = sum_along<T>(classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
                return inside_row(part_of_entropy<V>(mass_at(k, part), inverse), part);
            });
        });
        return sum;
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
        RowMasses<T> found{hot_row(r), nullptr, false, false, false};
        found.total = 1;
        const double value = of_masses(z, found, row, g, scale, kept);
        cool_row(r);
        return value;
    }

    double of_masses(const T* z, RowMasses<T>& found, const RowSum<T>& row, T* g, double scale, Kept<T> kept) const {
        const T* t = found.t;
        const bool late = masses.soft() && !total_is_early();
        const double total = found.total;
        double mass = Loss::looks_at_all ? sum_of_masses(t, total) : 0;
        const T all = T(mass);
        const int64_t top = Loss::apart && row.others < 1 ? place_of_top(z, row, kept) : -1;
        double value = 0, a = 0;
        if (top >= 0) {
            const double own = (masses.hard * double(t[top]) + total * masses.spread) * masses.weight_of(top);
            a = of_top(top, own, mass - own, row, value);
            kept.exp[top] = 0;  // as one that is not there
        }
        if (masses.soft()) kept.ahead = t + piece_size<T>;
        Pulled sums;
        bool careful = masses.spread != 0 || masses.weight;
        if (!careful) {
            with_form(loss, [&](const auto& form) KULLBACK_LAMBDA {
                const auto plain = [&](int64_t k, auto part) KULLBACK_LAMBDA { return load<V>(t + k, part, T(0)); };
                sums = pull_classes<true>(form, plain, z, t, all, row, kept, top);
            });
            // only 0 times an infinite logarithm makes one that is no number: such a row is done over
            const double both = sums.values.total() + sums.pulls.total();
            careful = both != both && !row.broken();
        }
        if (careful) {
            with_masses(t, total, [&](auto mass_at) KULLBACK_LAMBDA {
                sums = pull_classes<false>(loss, mass_at, z, t, all, row, kept, top);
            });
        }
        if (late) {
            found.total = sums.targets.total();
            found.sound = found.total < infinity<double>;
            for (int i = 0; i < traits<V>::width; ++i) found.sound &= get(sums.lowest, i) >= 0;
        }
        if (!Loss::looks_at_all && job.z_loss != 0) mass = sum_of_masses(t, found.total);
        kept.ahead = nullptr;
        value += sums.values.total();
        double all_pulls = sums.pulls.total();
        add_z_loss(mass, row, value, all_pulls);
        if (g) write(row, kept, g, scale, all_pulls, a, top);
        return value;
    }

    // What a sweep class by class adds up: of values, pulls and, unless the loss looks at all classes, targets.
    struct Pulled {
        LongSum<V> values, pulls, targets;
        V lowest = V{};  // target
    };

    // Writes each class' pull to where it waits; `finite`: no logarithm counts as infinite.
    template <bool finite, class Form, class MassAt>
    KULLBACK_INLINE Pulled pull_classes(const Form& form, MassAt mass_at, const T* z, const T* t, T all,
                                        const RowSum<T>& row, Kept<T> kept, int64_t top) const {
        Pulled sums;
        LongSum<V> values, pulls, targets;
        V lowest = V{};
        const T log_sum = T(row.log_sum), center = row.center, factor = this->factor;
        const Form cost = form;  // and the numbers above: copies, which the stores below cannot touch
        const T *shifts = shift, *kept_shifts = kept_shift;
        T* const to = waiting;
        const T left_out = top >= 0 ? T(0) : T(1);  // no d is 1
        auto visit = [&](int64_t k, auto part, V p) KULLBACK_LAMBDA {
            const V d = (load<V>(z + k, part, -infinity<T>) - center) * factor;
            V mass = mass_at(k, part);
            if constexpr (!Loss::looks_at_all) {
                const V target = load<V>(t + k, part, T(0));
                lowest = smaller<V>(target, lowest);
                targets.add(target);
            }
            if constexpr (Loss::apart) mass = select<V>(d == left_out, V{}, mass);
            Chance<V> chance{p, T(1) - p, d - log_sum};
            chance.unlikely = Loss::apart;
            chance.scattered = true;
            chance.finite = finite;
            Shift<V> own{};
            if constexpr (Loss::shifted) own = {load<V>(shifts + k, part, T(0)), load<V>(kept_shifts + k, part, T(0))};
            const PulledClass<V> here = pull_class<finite>(cost, mass, all, chance, own);
            values.add(inside_row(here.value, part));
            pulls.add(inside_row(here.pull, part));
            if (to) store<V>(to + k, part, here.pull);
        };
        along_kept(row, kept, classes, job.inverse_temperature, row.inverse, visit, [&]() KULLBACK_LAMBDA {
            values.settle();
            pulls.settle();
            if constexpr (!Loss::looks_at_all) targets.settle();
        });
        sums.values = values;
        sums.pulls = pulls;
        sums.targets = targets;
        sums.lowest = lowest;
        return sums;
    }

    // What a class with p > 1/2 and these masses adds to the value; returns by how much it pulls, times its 1 - p.
    double of_top(int64_t top, double on_mass, double off_mass, const RowSum<T>& row, double& value) const {
        Chance<double> chance{row.inverse, row.others * row.inverse, -row.log_sum};
        Shift<double> own{};
        if constexpr (Loss::shifted) own.number = double(shift[top]);
        const Cost<double> on = loss.on(chance, own);
        if (on_mass != 0) value += on_mass * on.value;
        double a = -on_mass * on.pull * chance.miss;
        if constexpr (Loss::looks_at_all) {
            const Cost<double> off = loss.off(chance);
            if (off_mass != 0) value += off_mass * off.value;
            a += off_mass * chance.p * off.pull * chance.miss;
        }
        return a;
    }

    // The same for a row that is of class y entirely.
    double of_class(const T* z, int64_t y, const RowSum<T>& row, T* g, double scale, Kept<T> kept) const {
        const double mass = masses.weight_of(y);
        const int64_t top = row.others < 1 ? place_of_top(z, row, kept) : -1;
        double value = 0, a = 0, pulled = 0, p_y = 0;
        if (top >= 0) {
            a = of_top(top, top == y ? mass : 0, top == y ? 0 : mass, row, value);
            kept.exp[top] = 0;
        }
        if (y != top) {
            const double d = (double(z[y]) - double(row.center)) * job.inverse_temperature;
            p_y = exp_nonpositive<double>(d) * row.inverse;
            if (mass != 0) value += mass * (row.log_sum - d);
            pulled = -mass;
            kept.exp[y] = 0;
        }
        LongSum<V> pulls;
        LongMiss<V> logs;
        // cheaper to find again for the gradient than to keep
        const auto odds = [](V p, V miss) KULLBACK_LAMBDA {
            return all_tiny<V>(p, true) ? odds_of_tiny<V>(p) : p * quick_inverse<V>(miss);
        };
        auto visit = [&](int64_t, auto part, V p) KULLBACK_LAMBDA {
            // the product of all 1 - p, for one logarithm of many; taken from 1, it loses no digits
            const V miss = T(1) - p;
            logs.add(p, miss);
            pulls.add(inside_row(odds(p, miss), part));
        };
        along_kept(row, kept, classes, job.inverse_temperature, row.inverse, visit, [&]() KULLBACK_LAMBDA {
            logs.settle();
            pulls.settle();
        });
        const double all_logs = logs.total();
        value += mass * log1p_nonnegative<double>(all_logs / (1 - all_logs));
        double all_pulls = pulled + mass * pulls.total();
        add_z_loss(mass, row, value, all_pulls);
        if (g) {
            const double others = with_top(row, all_pulls, a, top);
            const T weight = T(scale * mass), share = T(-scale * others);
            along_kept(row, kept, classes, job.inverse_temperature, row.inverse,
                       [&](int64_t k, auto part, V p) KULLBACK_LAMBDA {
                put(g, kept, k, part, odds(p, T(1) - p) * weight + p * share);
            });
            if (top >= 0) put_one(g, kept, top, T(scale * (a - row.inverse * all_pulls)));
            if (y != top) put_one(g, kept, y, T(scale * (pulled - p_y * others)));
        }
        return value;
    }

    void add_z_loss(double mass, const RowSum<T>& row, double& value, double& all_pulls) const {
        if (job.z_loss == 0 || mass == 0) return;
        const double lse = double(row.center) * job.inverse_temperature + row.log_sum;
        value += job.z_loss * mass * lse * lse;
        all_pulls -= 2 * job.z_loss * mass * lse;
    }

    // The sum of all pulls on others, of which a class `top` (or -1) that stands apart has a / (1 - p).
    double with_top(const RowSum<T>& row, double pulls, double a, int64_t top) const {
        return top < 0 || row.others == 0 ? pulls : pulls + a / (row.others * row.inverse);
    }

    // g = b - p sum(b).
    void write(const RowSum<T>& row, Kept<T> kept, T* g, double scale, double pulls, double a, int64_t top) const {
        const T f = T(scale);
        const double all = with_top(row, pulls, a, top);
        along_kept(row, kept, classes, job.inverse_temperature, -scale * all * row.inverse,
                   [&](int64_t k, auto part, V e) KULLBACK_LAMBDA {
            put(g, kept, k, part, load<V>(waiting + k, part, T(0)) * f + e);
        });
        if (top >= 0) put_one(g, kept, top, T(scale * (a - row.inverse * pulls)));
    }

    double sum_of_masses(const T* t, double total) const {
        if (job.smoothing == 0 && !masses.weight) return total;
        return sum_along<T>(classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
            return inside_row(masses.at(t, total, k, part), part);
        });
    }

    // The largest class; pieces before its own are relative to smaller logits.
    int64_t place_of_top(const T* z, const RowSum<T>& row, Kept<T> kept) const {
        int64_t k = 0;
        while (k + piece_size<T> < classes && kept.centers[k / piece_size<T>] != row.center) k += piece_size<T>;
        while (k + 1 < classes && z[k] != row.center) ++k;
        return k;
    }
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
