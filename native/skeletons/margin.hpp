// The margin skeleton: hinges h(D + z_k - z_y) over the rivals k of the true class, h(x) = max(0, x) or its square.
//
// A loss is a tag with a `name` and `strongest`: whether only the rival with the largest hinge counts. Parameters are
// the margin and the power, 1 or 2. A row of one class: one sweep for all rivals, two for the strongest. Other targets
// cost what their classes cost on average: a sweep for each class with mass, or, if there are many, the rivals put in
// order once (margin_sorted.hpp); for the strongest rival one sweep in all. What classes add is summed in double
// precision. A rival at -inf is masked: its hinge is 0 even if the true class is at -inf too.
#pragma once

#include "simd/widen.hpp"
#include "skeletons/margin_sorted.hpp"
#include "skeletons/softmax.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

constexpr int64_t many_classes_with_mass = 128;  // from so many on it is faster to put the rivals in order

// Adds v times f to numbers in double precision.
template <class T>
KULLBACK_INLINE void add_wide(double* to, Vector<T> v, double f) {
#if KULLBACK_HAS_SHUFFLES
    store<InDouble<T>>(to, load<InDouble<T>>(to) + widen(v) * f);
#else
    for (int i = 0; i < lanes<T>; ++i) to[i] += double(get(v, i)) * f;
#endif
}

template <class T, class Loss>
struct MarginRows {
    using V = Vector<T>;

    static void evaluate(const Job& job, int64_t begin, int64_t end, void* memory, Report& report) {
        run<MarginOutput::gradient>(job, begin, end, memory, report);
    }
    static void hessian_product(const Job& job, int64_t begin, int64_t end, void* memory, Report& report) {
        run<MarginOutput::product>(job, begin, end, memory, report);
    }
    static void hessian_diagonal(const Job& job, int64_t begin, int64_t end, void* memory, Report& report) {
        run<MarginOutput::diagonal>(job, begin, end, memory, report);
    }

    template <MarginOutput Output>
    static void run(const Job& job, int64_t begin, int64_t end, void* memory, Report& report) {
        Scratch scratch(memory);
        constexpr bool product = Output == MarginOutput::product;
        const Rows<T> direction = product ? rows_of<T>(job.direction, begin, end, job.classes, scratch) : Rows<T>{};
        BlockTargets targets;
        if (!block_targets(job, begin, end, scratch, targets, report)) return;
        const Rows<T> logits = rows_of<T>(job.logits, begin, end, job.classes, scratch);
        const T* weight = static_cast<const T*>(job.class_weight);
        const Masses<T> masses(job, targets, begin, end, scratch);
        const bool shared = job.targets.form != Form::indices;
        SharedRow row = {shared ? scratch.take<double>(job.classes + lanes<T>) : nullptr,
                         masses.soft() ? scratch.take<double>(job.classes) : nullptr,
                         SortedHinges<T>(masses.soft() ? job.classes : 0, job.parameters[0], job.parameters[1] == 2, scratch)};
        for (int64_t i = begin; i < end; ++i) {
            const int64_t r = i - begin;
            T* out = job.out ? static_cast<T*>(job.out) + i * job.out_stride : nullptr;
            const double row_weight = targets.weight(r);
            if (row_weight == 0) {
                for (int64_t k = 0; out && k < job.classes; ++k) out[k] = 0;
                if (Output == MarginOutput::gradient) put_loss<T>(job, i, 0.0, report);
                continue;
            }
            if (shared) {
                if (masses.soft() && !masses.valid(r, report)) return;
                const T* v = product ? direction.row(r) : nullptr;
                const double value = shared_row<Output>(job, masses, r, logits.row(r), v, row);
                for (int64_t k = 0; out && k < job.classes; ++k) out[k] = T(row.sums[k] * row_weight * job.scale);
                if (Output == MarginOutput::gradient) put_loss<T>(job, i, row_weight * value, report);
                continue;
            }
            const int64_t y = targets.first[r];
            const double mass = row_weight * (weight ? double(weight[y]) : 1.0);
            const double value = row_of<Output>(job, logits.row(r), product ? direction.row(r) : nullptr, y,
                                                mass * job.scale, out);
            if (Output == MarginOutput::gradient) {
                const double sound = mass != 0 ? mass * value : value == value ? 0.0 : value;
                put_loss<T>(job, i, sound, report);
            }
        }
    }

    // Writes one row times f and returns its loss.
    template <MarginOutput Output>
    static double row_of(const Job& job, const T* z, const T* v, int64_t y, double f, T* out) {
        const bool squared = job.parameters[1] == 2;
        const T margin = T(job.parameters[0]), own = z[y], own_v = v ? v[y] : T(0), factor = T(f);
        const V floor = splat<V>(-infinity<T>);
        if (Loss::strongest) return strongest_of<Output>(job, z, v, y, f, out);
        // NaN and +inf anywhere show in this sum, which is otherwise 0
        double broken = 0, value = 0, push = 0;
        for (int64_t start = 0; start < job.classes; start += 64 * lanes<T>) {
            const int64_t stop = start + 64 * lanes<T> < job.classes ? start + 64 * lanes<T> : job.classes;
            V odd = V{}, values = V{}, pushes = V{};
            along<T>(start, stop, [&](int64_t k, auto part) KULLBACK_LAMBDA {
                const V rival = load<V>(z + k, part, -infinity<T>);
                const V bounded = select<V>(rival > floor, rival, V{});
                odd += bounded - bounded;
                odd += select<V>(rival == rival, V{}, rival);
                const V excess = rival - own + margin;
                Mask<V> active = excess > T(0);
                active = active & (rival > floor);
                const V hinge = keep<V>(active, excess);
                const V slope = squared ? hinge + hinge : keep<V>(active, splat<V>(T(1)));
                values += squared ? hinge * hinge : hinge;
                V one = slope;
                if (Output != MarginOutput::gradient) one = squared ? keep<V>(active, splat<V>(T(2))) : V{};
                if (Output == MarginOutput::product) one *= load<V>(v + k, part, T(0)) - own_v;
                pushes += one;
                if (out) store<V>(out + k, part, one * factor);
            });
            broken += sum_lanes(odd);
            value += sum_lanes(values);
            push += sum_lanes(pushes);
        }
        // the true class counted itself as a rival at the margin
        const double self = double(own) - double(own) == 0 && margin > 0;
        const double self_value = self * (squared ? double(margin) * double(margin) : double(margin));
        double self_push = self * (squared ? 2.0 * double(margin) : 1.0);
        if (Output == MarginOutput::diagonal) self_push = self * (squared ? 2.0 : 0.0);
        if (Output == MarginOutput::product) self_push = 0;
        const double pull = push - self_push;
        if (out) {
            out[y] = T((Output == MarginOutput::diagonal ? pull : -pull) * f);
            // a class of weight 0 pulls nothing, even from -inf, where its hinges are infinite
            for (int64_t k = 0; f == 0 && k < job.classes; ++k) out[k] = 0;
            if (!(broken == 0)) {
                for (int64_t k = 0; k < job.classes; ++k) out[k] = T(broken - broken);
            }
        }
        return broken == 0 ? value - self_value : broken - broken;
    }

    // Room for a row whose target is shared: what its classes add, the masses of a soft one, and the rivals in order.
    struct SharedRow {
        double *sums, *masses;
        SortedHinges<T> sorted;
    };

    // A row whose target is shared: what each class with mass adds, into row.sums; returns the loss.
    template <MarginOutput Output>
    static double shared_row(const Job& job, const Masses<T>& masses, int64_t r, const T* z, const T* v, SharedRow& row) {
        const double broken = sum_along<T>(job.classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
            const V x = load<V>(z + k, part, T(0));
            const V bounded = select<V>(x == splat<V>(-infinity<T>), V{}, x);
            return bounded - bounded;
        });
        for (int64_t k = 0; k < job.classes; ++k) row.sums[k] = broken == 0 ? 0 : broken;
        if (!(broken == 0)) return broken;
        Rivals rivals;
        if (Loss::strongest) rivals = strongest_two(z, job.classes);
        LongTotal value;
        auto add = [&](int64_t y, double mass) {
            if (mass == 0) return;
            value.add(Loss::strongest ? add_strongest<Output>(job, z, v, y, mass, rivals, row.sums)
                                      : add_all<Output>(job, z, v, y, mass, row.sums));
        };
        if (masses.soft()) {
            const T* t = masses.rows.row(r);
            int64_t with_mass = 0;
            for (int64_t y = 0; y < job.classes; ++y) {
                row.masses[y] = double(t[y]) * masses.weight_of(y);
                with_mass += row.masses[y] != 0;
            }
            if (!Loss::strongest && with_mass >= many_classes_with_mass && row.sorted.order(z)) {
                return row.sorted.template add<Output>(z, v, row.masses, row.sums);
            }
            for (int64_t y = 0; y < job.classes; ++y) add(y, row.masses[y]);
        } else {
            const int64_t first = masses.targets.first[r], second = masses.targets.second[r];
            const double share = masses.share(r);
            add(first, share * masses.weight_of(first));
            add(second, (1 - share) * masses.weight_of(second));
        }
        return value.get();
    }

    template <MarginOutput Output>
    static double add_all(const Job& job, const T* z, const T* v, int64_t y, double mass, double* sums) {
        const bool squared = job.parameters[1] == 2;
        const T margin = T(job.parameters[0]), own = z[y], own_v = v ? v[y] : T(0);
        const double before = sums[y];
        double value = 0, push = 0;
        for (int64_t start = 0; start < job.classes; start += 64 * lanes<T>) {
            const int64_t stop = start + 64 * lanes<T> < job.classes ? start + 64 * lanes<T> : job.classes;
            V values = V{}, pushes = V{};
            along<T>(start, stop, [&](int64_t k, auto part) KULLBACK_LAMBDA {
                const V rival = load<V>(z + k, part, -infinity<T>), excess = rival - own + margin;
                Mask<V> active = excess > T(0);
                active = active & (rival > splat<V>(-infinity<T>));
                const V hinge = keep<V>(active, excess);
                values += squared ? hinge * hinge : hinge;
                V one = squared ? hinge + hinge : keep<V>(active, splat<V>(T(1)));
                if (Output != MarginOutput::gradient) one = squared ? keep<V>(active, splat<V>(T(2))) : V{};
                if (Output == MarginOutput::product) one *= load<V>(v + k, part, T(0)) - own_v;
                pushes += one;
                add_wide<T>(sums + k, one, mass);
            });
            value += sum_lanes(values);
            push += sum_lanes(pushes);
        }
        // the class counted itself as a rival at the margin
        const double self = own > -infinity<T>, m = double(margin);
        value -= self * (squared ? m * m : m);
        if (Output == MarginOutput::gradient) push -= self * (squared ? 2 * m : 1.0);
        if (Output == MarginOutput::diagonal) push -= self * (squared ? 2.0 : 0.0);
        sums[y] = before + (Output == MarginOutput::diagonal ? push : -push) * mass;
        return mass * value;
    }

    // The class with the largest logit, and the one with the largest among the others: the first of equals, -1 for none.
    struct Rivals {
        int64_t first = -1, second = -1;
        int64_t of(int64_t y) const { return y == first ? second : first; }
    };
    static Rivals strongest_two(const T* z, int64_t classes) {
        Rivals rivals;
        T high = -infinity<T>, next = -infinity<T>;
        for (int64_t k = 0; k < classes; ++k) {
            if (z[k] > high) {
                rivals.second = rivals.first;
                next = high;
                rivals.first = k;
                high = z[k];
            } else if (z[k] > next) {
                rivals.second = k;
                next = z[k];
            }
        }
        return rivals;
    }

    template <MarginOutput Output>
    static double add_strongest(const Job& job, const T* z, const T* v, int64_t y, double mass, const Rivals& rivals,
                                double* sums) {
        const bool squared = job.parameters[1] == 2;
        const int64_t rival = rivals.of(y);
        const double excess = rival < 0 ? 0 : double(z[rival]) - double(z[y]) + job.parameters[0];
        if (!(excess > 0)) return 0;
        double push = squared ? 2 * excess : 1;
        if (Output != MarginOutput::gradient) push = squared ? 2 : 0;
        if (Output == MarginOutput::product) push *= double(v[rival]) - double(v[y]);
        sums[rival] += push * mass;
        sums[y] += (Output == MarginOutput::diagonal ? push : -push) * mass;
        return mass * (squared ? excess * excess : excess);
    }

    template <MarginOutput Output>
    static double strongest_of(const Job& job, const T* z, const T* v, int64_t y, double f, T* out) {
        const bool squared = job.parameters[1] == 2;
        const double margin = job.parameters[0];
        T highest = -infinity<T>;
        double broken = 0;
        int64_t rival = -1;
        for (int64_t start = 0; start < job.classes; start += 64 * lanes<T>) {
            const int64_t stop = start + 64 * lanes<T> < job.classes ? start + 64 * lanes<T> : job.classes;
            V peak = splat<V>(-infinity<T>), odd = V{};
            along<T>(start, stop, [&](int64_t k, auto part) KULLBACK_LAMBDA {
                const V x = load<V>(z + k, part, -infinity<T>);
                const V bounded = select<V>(x > splat<V>(-infinity<T>), x, V{});
                odd += bounded - bounded;
                odd += select<V>(x == x, V{}, x);
                peak = larger<V>(x, peak);
            });
            broken += sum_lanes(odd);
            const bool own_piece = y >= start && y < stop;
            if (!own_piece && !(largest_lane(peak) > highest)) continue;
            for (int64_t k = start; k < stop; ++k) {
                if (k != y && z[k] > highest) {
                    highest = z[k];
                    rival = k;
                }
            }
        }
        if (!(broken == 0)) {
            for (int64_t k = 0; out && k < job.classes; ++k) out[k] = T(broken - broken);
            return broken - broken;
        }
        const double excess = rival < 0 ? 0 : double(highest) - double(z[y]) + margin;
        // only now: the result may be written over the logits
        if (out) along<T>(0, job.classes, [&](int64_t k, auto part) KULLBACK_LAMBDA { store<V>(out + k, part, V{}); });
        if (!(excess > 0)) return 0;
        double push = squared ? 2 * excess : 1;
        if (Output != MarginOutput::gradient) push = squared ? 2 : 0;
        if (Output == MarginOutput::product) push *= double(v[rival]) - double(v[y]);
        if (out && f != 0) {  // a class of weight 0 pulls nothing, even from -inf, where its hinge is infinite
            out[rival] = T(push * f);
            out[y] = T((Output == MarginOutput::diagonal ? push : -push) * f);
        }
        return squared ? excess * excess : excess;
    }
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
