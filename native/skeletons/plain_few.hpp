// The plain skeleton for few classes: rows side by side, a lane each, so that no lane is idle.
#pragma once

#include "skeletons/plain.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

constexpr int plain_few_classes = 32;

#if KULLBACK_HAS_SHUFFLES

// Class targets of a group of rows: masses s_k and their sum.
template <class T>
KULLBACK_INLINE InDouble<T> write_masses(const PlainBlock<T>& block, int64_t r, const Vector<T>* t, InDouble<T> total,
                                         double* s) {
    using V = InDouble<T>;
    constexpr int W = lanes<T>;
    const Masses<T>& masses = block.masses;
    const V everywhere = total * masses.spread;
    V first = V{}, second = V{}, on_first = V{}, on_second = V{};
    if (!t) {
        first = widen(numbers_in_lanes<T>(block.targets.first + r));
        second = masses.mixed() ? widen(numbers_in_lanes<T>(block.targets.second + r)) : first;
        const V share = masses.mixed() ? load<V>(block.job.targets.share + block.begin + r) : splat<V>(1.0);
        on_first = share * masses.hard;
        on_second = (1.0 - share) * masses.hard;
    }
    V sum = V{};
    for (int64_t begin = 0; begin < block.job.classes; begin += 16) {
        V here = V{};
        for (int64_t k = begin; k < block.job.classes && k < begin + 16; ++k) {
            V mass = everywhere;
            if (t) {
                mass += widen(t[k]) * masses.hard;
            } else {
                mass += keep<V>(first == double(k), on_first) + keep<V>(second == double(k), on_second);
            }
            mass = mass * masses.weight_of(k);
            store<V>(s + k * W, mass);
            here += mass;
        }
        sum += here;
    }
    return sum;
}

// Runs as many rows as fill whole groups and returns how many; -1, and the report says where, if a target is not valid.
template <class T, class Loss, PlainOutput Output>
int64_t plain_groups(const PlainBlock<T>& block, Report& report) {
    using V = InDouble<T>;
    using Column = Vector<T>;
    constexpr int W = lanes<T>;
    const Job& job = block.job;
    const int classes = int(job.classes);
    if (job.classes < 2 || job.classes > plain_few_classes) return 0;
    alignas(64) double x[plain_few_classes * W], s[plain_few_classes * W], v[plain_few_classes * W];
    alignas(64) double work[plain_few_classes * W], out[plain_few_classes * W];
    Column columns[plain_few_classes], t[plain_few_classes];
    const bool one = !block.shared && !block.labels;
    const bool with_rows = block.masses.soft();
    const T ignore = job.targets.has_ignore ? T(job.targets.ignore_index) : T(__builtin_nan(""));
    V losses = V{}, low = V{}, high = V{};
    int64_t r = 0;
    for (; r + W <= block.rows; r += W) {
        const V weight = block.targets.weights ? load<V>(block.targets.weights + r) : splat<V>(1.0);
        load_columns<T>(block.logits.row(r), block.logits.stride, classes, columns);
        V total = splat<V>(1.0);
        if (with_rows) {
            load_columns<T>(block.masses.rows.row(r), block.masses.rows.stride, classes, t);
            Column good = splat<Column>(T(1));
            V sum = V{};
            for (int k = 0; k < classes; ++k) {
                if (block.labels) {
                    const Mask<Column> ignored = t[k] == ignore;
                    columns[k] = select<Column>(ignored, splat<Column>(-infinity<T>), columns[k]);
                    const Column sound = keep<Column>(t[k] >= T(0), keep<Column>(t[k] <= T(1), good));
                    good = select<Column>(ignored, good, sound);
                } else {
                    sum += widen(t[k]);
                    good = keep<Column>(t[k] >= T(0), keep<Column>(t[k] < infinity<T>, good));
                }
            }
            if (!block.labels) total = sum;
            for (int j = 0; j < W && any_lane<Column>(good - T(1)); ++j) {
                if (block.targets.weight(r + j) != 0 && !block.valid(r + j, report)) return -1;
            }
        }
        Column odd = Column{}, its_number = Column{}, target = Column{};
        if (one) target = numbers_in_lanes<T>(block.targets.first + r);
        for (int k = 0; k < classes; ++k) {
            const Column number = columns[k];
            const Column bounded = select<Column>(number == -infinity<T>, Column{}, number);
            odd += bounded - bounded;
            if (Loss::weighs && one) its_number = select<Column>(target == T(k), number, its_number);
            store<V>(x + k * W, widen(number));
        }
        // Rows that do not count may hold anything, and rows with a NaN or +inf come out as NaN: meanwhile they are ones.
        const V instead = keep<V>(weight != 0.0, widen(odd));
        const Mask<V> sound = (weight != 0.0) & (instead == 0.0);
        const bool all_sound = !any_lane<V>(keep<V>(sound, splat<V>(1.0)) - 1.0);
        for (int k = 0; !all_sound && k < classes; ++k) {
            store<V>(x + k * W, select<V>(sound, load<V>(x + k * W), splat<V>(1.0)));
        }
        PlainRow<V, V> row = {classes, x, s, v, work, job.out ? out : nullptr, job.parameters, total, one,
                              select<V>(sound, widen(its_number), splat<V>(1.0)), V{}};
        if (Loss::weighs && !one) row.total = write_masses<T>(block, r, with_rows ? t : nullptr, total, s);
        for (int j = 0; Loss::weighs && one && block.masses.weight && j < W; ++j) {
            lane(row.total, j) = block.masses.of_class(block.targets.first[r + j]);
        }
        if (Output == PlainOutput::product) {
            load_columns<T>(block.direction.row(r), block.direction.stride, classes, columns);
            Column its_direction = Column{};
            for (int k = 0; k < classes; ++k) {
                its_direction = select<Column>(target == T(k), columns[k], its_direction);
                store<V>(v + k * W, widen(columns[k]));
            }
            row.its_direction = widen(its_direction);
        }
        const V value = Loss::template row<Output>(row);
        if (Loss::judges) {
            low += keep<V>(sound, row.low);
            high += keep<V>(sound, row.high);
            const V amiss = keep<V>(sound, row.amiss);
            for (int j = 0; report.amiss_row < 0 && any_lane<V>(amiss) && j < W; ++j) {
                if (get(amiss, j) != 0) report.amiss_row = block.begin + r + j;
            }
        }
        if (Output == PlainOutput::gradient) {
            const V weighted = weight * select<V>(sound, value, instead);
            losses += weighted;
            const V infinite = keep<V>(weighted == infinity<double>, splat<V>(1.0));
            for (int j = 0; report.infinite_row < 0 && any_lane<V>(infinite) && j < W; ++j) {
                if (get(infinite, j) != 0) report.infinite_row = block.begin + r + j;
            }
            if (job.per_example && job.per_example_float64) {
                store<V>(static_cast<double*>(job.per_example) + block.begin + r, weighted);
            } else if (job.per_example) {
                store<Column>(static_cast<T*>(job.per_example) + block.begin + r, narrow(weighted));
            }
        }
        if (!job.out) continue;
        const V factor = weight * job.scale;
        for (int k = 0; k < classes; ++k) columns[k] = narrow(load<V>(out + k * W) * factor);
        if (Loss::weighs && one) {
            const Column to_one = narrow(row.to_one * factor);
            for (int k = 0; k < classes; ++k) columns[k] = select<Column>(target == T(k), to_one, columns[k]);
        }
        if (!all_sound) {
            const Column all = narrow(instead), here = narrow(keep<V>(sound, splat<V>(1.0)));
            for (int k = 0; k < classes; ++k) columns[k] = select<Column>(here == T(1), columns[k], all);
        }
        T* to = static_cast<T*>(job.out) + (block.begin + r) * job.out_stride;
        store_columns<T>(to, job.out_stride, classes, columns);
    }
    report.total += sum_lanes(losses);
    report.low += int64_t(sum_lanes(low));
    report.high += int64_t(sum_lanes(high));
    return r;
}

#else

template <class T, class Loss, PlainOutput Output>
int64_t plain_groups(const PlainBlock<T>&, Report&) {
    return 0;
}

#endif

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
