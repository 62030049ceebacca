// The row-coupled skeleton: losses on p = softmax(z / T).
//
// Four ways through a block of rows, all with the same results:
//
//   softmax_few.hpp        at most 256 classes, one or two of them targets: as many rows at a time as there are lanes
//   softmax_few_dense.hpp  the same, for targets and losses that look at every class
//   class_row() below      more classes, one or two of them targets: lanes along the classes
//   softmax_dense.hpp      the same, for targets and losses that look at every class
//
// Second derivatives of cross-entropy, which has simple ones, are here; those of all other losses in softmax_exact.hpp.
#pragma once

#include "skeletons/softmax_few_dense.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

template <class T, class Loss>
struct SoftmaxRows {
    using V = Vector<T>;

    const Job& job;
    const Indexed<Loss> loss;
    const int64_t classes;
    const T factor;  // 1 / T
    const T *weight, *shift;

    explicit SoftmaxRows(const Job& j)
        : job(j),
          loss(j),
          classes(j.classes),
          factor(T(j.inverse_temperature)),
          weight(static_cast<const T*>(j.class_weight)),
          shift(static_cast<const T*>(j.shift)) {}

    T* out_row(int64_t i) const { return static_cast<T*>(job.out) + i * job.out_stride; }
    template <class Part>
    KULLBACK_INLINE V weights(int64_t k, Part part) const {
        return weight ? load<V>(weight + k, part, T(0)) : splat<V>(T(1));
    }
    template <class Part>
    KULLBACK_INLINE V scaled(const T* z, const RowSum<T>& row, int64_t k, Part part) const {
        return (load<V>(z + k, part, -infinity<T>) - row.center) * factor;
    }
    void clear(int64_t i) const {
        T* g = out_row(i);
        for (int64_t k = 0; k < classes; ++k) g[k] = 0;
    }

    TargetClass<double> target_class(const T* z, const RowSum<T>& row, int64_t y, double weighted_log_p,
                                     const Kept<T>& kept) const {
        const T score = kept.transform ? kept.transform->score(z[y], y) : z[y];
        const double d = (double(score) - double(row.center)) * job.inverse_temperature;
        TargetClass<double> target;
        target.log_p = d - row.log_sum;
        target.p = exp_nonpositive<double>(d) * row.inverse;
        target.miss = d == 0 ? row.others * row.inverse : 1 - target.p;
        target.weight = weight ? double(weight[y]) : 1.0;
        target.weighted_log_p = weighted_log_p;
        target.shift = Loss::shifted ? double(shift[y]) : 0.0;
        target.squares = 0;
        return target;
    }

    RowGradient<double> of_class(const TargetClass<double>& target, const RowSum<T>& row, double mass) const {
        RowGradient<double> at = loss.at_class(target);
        if (job.z_loss != 0 && mass != 0) {
            const double lse = double(row.center) * job.inverse_temperature + row.log_sum;
            const double pull = 2 * job.z_loss * mass * lse;
            at.loss += job.z_loss * mass * lse * lse;
            at.on_p += pull;
            at.at_class += pull * target.p;
        }
        return at;
    }

    // Loss and gradient of a row whose target is class a, or share of a and 1 - share of b.
    double class_row(const Masses<T>& masses, const T* z, T* g, int64_t r, double gradient_scale, Kept<T> kept,
                     const RowStatistics<T>& statistics) const {
        const int64_t a = masses.targets.first[r], b = masses.mixed() ? masses.targets.second[r] : -1;
        const double share = masses.share(r);
        kept.result = kept.streams ? nullptr : g;
        const RowSum<T> row = sum_row(z, classes, job.inverse_temperature, kept);
        if (statistics.wanted()) statistics.put(r, z, classes, row, kept.transform);
        double weighted_log_p = 0;
        if (loss.spreads()) {
            const T* scores = kept.transform ? kept.scores : z;
            const T center = row.center, log_sum = T(row.log_sum);
            const auto relative = [&](int64_t k, auto part) KULLBACK_LAMBDA {
                return (load<V>(scores + k, part, center) - center) * factor;
            };
            if (weight) {
                weighted_log_p = sum_along<T>(classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
                    const V w = load<V>(weight + k, part, T(0));
                    return keep<V>(w != T(0), w * (relative(k, part) - log_sum));  // 0 times -inf is nothing
                });
            } else {
                weighted_log_p = sum_along<T>(classes, relative) - double(classes) * row.log_sum;
            }
        }
        TargetClass<double> first = target_class(z, row, a, weighted_log_p, kept);
        if constexpr (Loss::by_squares) first.squares = squares_without(a, row, kept);
        RowGradient<double> at = of_class(first, row, masses.of_class(a));
        double at_a = at.at_class, at_b = 0;
        if (b >= 0) {
            const TargetClass<double> other = target_class(z, row, b, weighted_log_p, kept);
            const RowGradient<double> second = of_class(other, row, masses.of_class(b));
            auto away = [](const RowGradient<double>& from, const TargetClass<double>& t) {
                return from.on_p * t.p + from.on_weight * t.weight;
            };
            at_a = blend(share, at.at_class, a == b ? second.at_class : away(second, first));
            at_b = blend(share, a == b ? at.at_class : away(at, other), second.at_class);
            at.loss = blend(share, at.loss, second.loss);
            at.on_p = blend(share, at.on_p, second.on_p);
            at.on_weight = blend(share, at.on_weight, second.on_weight);
            if (job.divergence && a != b) {
                at.loss += entropy_of_two<double>(share * first.weight, (1 - share) * other.weight);
                if (at.loss < 0) at.loss = 0;  // at the minimum the difference of two equal numbers may round below it
            }
        }
        if (g) {
            const double f = gradient_scale * at.on_p * row.inverse;
            const T u = T(gradient_scale * at.on_weight), square = T(gradient_scale * at.on_square);
            if constexpr (Loss::by_squares) {
                // p by itself: its square would not survive the factors
                const T on_p = T(gradient_scale * at.on_p);
                along_kept(row, kept, classes, job.inverse_temperature, row.inverse,
                           [&](int64_t k, auto part, V p) KULLBACK_LAMBDA { put(g, kept, k, part, p * (p * square + on_p)); });
            } else if (loss.spreads()) {
                along_kept(row, kept, classes, job.inverse_temperature, f,
                           [&](int64_t k, auto part, V e) KULLBACK_LAMBDA { put(g, kept, k, part, e + weights(k, part) * u); });
            } else {
                along_kept(row, kept, classes, job.inverse_temperature, f,
                           [&](int64_t k, auto part, V e) KULLBACK_LAMBDA { put(g, kept, k, part, e); });
            }
            put_one(g, kept, a, T(gradient_scale * at_a));
            if (b >= 0) put_one(g, kept, b, T(gradient_scale * at_b));
        }
        return row.broken() ? row.sum : at.loss;
    }

    // Sum of p_k^2 over the classes other than y.
    double squares_without(int64_t y, const RowSum<T>& row, Kept<T> kept) const {
        const T own = kept.exp[y];
        kept.exp[y] = 0;
        LongSum<V> sum;
        along_kept(row, kept, classes, job.inverse_temperature, row.inverse,
                   [&](int64_t, auto part, V p) KULLBACK_LAMBDA { sum.add(inside_row(p * p, part)); },
                   [&]() KULLBACK_LAMBDA { sum.settle(); });
        kept.exp[y] = own;
        return sum.total();
    }

    // 0 times an infinite loss is 0: a share of nothing costs nothing.
    static double blend(double share, double a, double b) {
        return (share == 0 ? 0 : share * a) + (share == 1 ? 0 : (1 - share) * b);
    }

    // Whether one or two true classes are all that the loss looks at.
    bool by_class() const {
        if (job.divergence && job.smoothing != 0) return false;
        if constexpr (Loss::by_squares) return job.targets.form == Form::indices && job.smoothing == 0;
        return job.targets.form != Form::rows && (Loss::linear || (!Loss::looks_at_all && job.smoothing == 0));
    }
    // Whether float32 would not do, or exponentials of the shifts be no numbers.
    bool needs_double() const { return Loss::shifted && job.largest_shift > largest_moderate_shift; }

    static void evaluate(const Job& job, const Transform<T>& transform, int64_t begin, int64_t end, void* memory,
                         Report& report) {
        const SoftmaxRows run(job);
        Scratch scratch(memory);
        BlockTargets targets;
        if (!block_targets(job, begin, end, scratch, targets, report)) return;
        const Rows<T> logits = rows_of<T>(job.logits, begin, end, job.classes, scratch);
        const Masses<T> masses(job, targets, begin, end, scratch);
        Kept<T> kept = room_to_keep<T>(job.classes, scratch, &transform);
        kept.streams = run.streams();
        const RowStatistics<T> statistics(job, begin);
        const bool in_double = run.needs_double(), by_class = run.by_class();
        // where nobody looks at them again, exp takes the place of the transformed logits
        if (by_class && !run.loss.spreads() && !in_double) kept.scores = kept.exp;
        const int64_t count = end - begin;
        void* rest = nullptr;
        // z is a row as the caller gave it
        auto exact_row = [&](const T* z, int64_t r, double gradient_scale, T* g) {
            Scratch own(rest);
            double total;
            Report checked;
            masses.sum(r, total, checked);
            if (kept.transform) transform.row(z, 0, job.classes, kept.scores, kept.slope, nullptr);
            ExactRows<T, Loss> exact(job, run.loss, masses, own);
            exact.find(kept.transform ? kept.scores : z, r, total);
            if (in_double && statistics.wanted()) statistics.put(r, z, job.classes, exact.log_sum_exp());
            if (g) exact.write_gradient(gradient_scale, g);
            if (g && kept.slope) run.times(kept.slope, g);
            return exact.value;
        };
#if KULLBACK_HAS_SHUFFLES
        if (job.classes > 1 && job.classes <= few_classes && !in_double) {
            T* losses = scratch.take<T>(count);
            if (by_class) {
                few_class_block<T, Indexed<Loss>>(job, run.loss, transform, logits, targets, begin, count, losses);
            } else {
                T* padding = scratch.take<T>(3 * lanes<T> * job.classes);
                rest = scratch.rest();
                const auto fill = [&](auto known, auto layout) {
                    const FewDenseRows<T, Loss, decltype(layout)::value, decltype(known)::value> rows{job, run.loss, masses,
                                                                                                      transform};
                    return rows.block(logits, begin, count, losses, padding, report, exact_row);
                };
                if (!with_layout_of<T, Loss>(job.classes, fill)) return;
            }
            put_losses(job, begin, count, losses, targets, report);
            return;
        }
#endif
        const DenseRows<T, Loss> dense(job, run.loss, masses, statistics, scratch, !by_class && !in_double);
        rest = scratch.rest();
        for (int64_t i = begin; i < end; ++i) {
            const int64_t r = i - begin;
            const double row_weight = targets.weight(r);
            if (row_weight == 0) {
                put_loss<T>(job, i, 0.0, report);
                statistics.skip(r);
                if (job.out) run.clear(i);
                continue;
            }
            T* g = job.out ? run.out_row(i) : nullptr;
            const T* z = logits.row(r);
            const double gradient_scale = row_weight * job.scale * job.inverse_temperature;
            double value;
            if (in_double) {
                double total;
                if (!masses.sum(r, total, report)) return;
                value = exact_row(z, r, gradient_scale, g);
            } else if (by_class) {
                value = run.class_row(masses, z, g, r, gradient_scale, kept, statistics);
            } else {
                auto exact = [&] { return exact_row(z, r, gradient_scale, g); };
                if (!dense.row(z, r, g, gradient_scale, kept, value, report, exact)) return;
            }
            put_loss<T>(job, i, row_weight * value, report);
        }
        if (kept.streams) finish_streams();
    }

    // Rows of whole vectors can be stored past the caches.
    bool streams() const {
        const bool aligned = reinterpret_cast<uintptr_t>(job.out) % stream_alignment == 0;
        return job.stream && aligned && (classes | job.out_stride) % lanes<T> == 0;
    }

    void times(const T* slope, T* g) const {
        along<T>(0, classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
            store<V>(g + k, part, load<V>(g + k, part, T(0)) * load<V>(slope + k, part, T(0)));
        });
    }

    static void hessian_product(const Job& job, int64_t begin, int64_t end, void* memory, Report& report) {
        hessian<true>(job, begin, end, memory, report);
    }
    static void hessian_diagonal(const Job& job, int64_t begin, int64_t end, void* memory, Report& report) {
        hessian<false>(job, begin, end, memory, report);
    }

    template <bool product>
    static void hessian(const Job& job, int64_t begin, int64_t end, void* memory, Report& report) {
        const SoftmaxRows run(job);
        Scratch scratch(memory);
        const Rows<T> direction = product ? rows_of<T>(job.direction, begin, end, job.classes, scratch) : Rows<T>{};
        BlockTargets targets;
        if (!block_targets(job, begin, end, scratch, targets, report)) return;
        const Rows<T> logits = rows_of<T>(job.logits, begin, end, job.classes, scratch);
        const Masses<T> masses(job, targets, begin, end, scratch);
        const double scale = job.scale * job.inverse_temperature * job.inverse_temperature;
        const Kept<T> kept = room_to_keep<T>(job.classes, scratch);
        void* rest = scratch.rest();
        for (int64_t i = begin; i < end; ++i) {
            const int64_t r = i - begin;
            if (targets.weight(r) == 0) {
                run.clear(i);
                continue;
            }
            double total;
            if (!masses.sum(r, total, report)) return;
            const T *z = logits.row(r), *v = product ? direction.row(r) : nullptr;
            const double f = targets.weight(r) * scale;
            if constexpr (Loss::linear) {
                const RowSum<T> row = sum_row(z, job.classes, job.inverse_temperature, kept);
                run.template linear_hessian<product>(z, v, row, f * run.mass_of(masses, r, total), run.out_row(i));
            } else {
                Scratch own(rest);
                ExactRows<T, Loss> exact(job, run.loss, masses, own);
                exact.find(z, r, total);
                if constexpr (product) {
                    exact.write_product(v, f, run.out_row(i));
                } else {
                    exact.write_diagonal(f, run.out_row(i));
                }
            }
        }
    }

    // Sum of the row's masses.
    double mass_of(const Masses<T>& masses, int64_t r, double total) const {
        if (masses.soft()) {
            if (!weight) return total;
            const T* t = masses.rows.row(r);
            return sum_along<T>(classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
                return inside_row(masses.at(t, total, k, part), part);
            });
        }
        const double share = masses.share(r), first = masses.of_class(masses.targets.first[r]);
        return masses.mixed() ? share * first + (1 - share) * masses.of_class(masses.targets.second[r]) : first;
    }

    // S (1 + 2 l lse) (p v - p (p.v)) + 2 l S p (p.v), l the z-loss; the largest logit's 1 - p comes from the others' sum
    template <bool product>
    void linear_hessian(const T* z, const T* v, const RowSum<T>& row, double mass, T* out) const {
        const double lse = double(row.center) * job.inverse_temperature + row.log_sum;
        const double bend = mass * (1 + 2 * job.z_loss * lse), level = 2 * job.z_loss * mass;
        if constexpr (product) {
            const double mean = row.inverse * sum_along<T>(classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
                return exp_nonpositive<V>(scaled(z, row, k, part)) * load<V>(v + k, part, T(0));
            });
            const T f = T(bend * row.inverse), more = T(level * mean * row.inverse);
            along<T>(0, classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
                const V e = exp_nonpositive<V>(scaled(z, row, k, part));
                V h = (e * f) * (load<V>(v + k, part, T(0)) - T(mean));
                if (level != 0) h += e * more;
                store<V>(out + k, part, h);
            });
        } else {
            const T inverse = T(row.inverse), top_miss = T(row.others * row.inverse), f = T(bend);
            along<T>(0, classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
                const V d = scaled(z, row, k, part);
                const V p = exp_nonpositive<V>(d) * inverse;
                V h = p * select<V>(d == T(0), splat<V>(top_miss), T(1) - p) * f;
                if (level != 0) h += p * p * T(level);
                store<V>(out + k, part, h);
            });
        }
    }
};

#if KULLBACK_HAS_SHUFFLES
// mean_weights() of as many rows as there are lanes.
template <class T, Layout L, int C>
KULLBACK_INLINE void mean_weights_of_lanes(Lines<T, L, C> lines, const Rows<T>& rows, const T* weight, double* means) {
    using V = Vector<T>;
    using D = InDouble<T>;
    V columns[C > 0 ? C : L == Layout::rows ? 1 : few_classes];
    if constexpr (L == Layout::columns) load_columns<T>(rows.data, rows.stride, lines.classes(), columns);
    const Rows<T> later = look_ahead(lines, 1, rows, Rows<T>{}, Rows<T>{}).logits;
    V sums[Lines<T, L, C>::count], products[Lines<T, L, C>::count], lowest = V{};
    for (int j = 0; j < lines.count; ++j) {
        V sum = V{}, product = V{};
        lines.by_sixteen([&](int begin, int end) KULLBACK_LAMBDA {
            V sum_here = V{}, product_here = V{};
            lines.each(begin, end, [&](int k, int at, auto part) KULLBACK_LAMBDA {
                const V target = lines.read(rows, j, columns, k, at, part, T(0));
                lines.ask_for(later, j, at);
                lowest = smaller<V>(target, lowest);
                sum_here += target;
                product_here += target * lines.of_classes(weight, k, part);
            });
            sum += sum_here;
            product += product_here;
        });
        sums[j] = sum;
        products[j] = product;
    }
    const V sum = lines.sum(sums);
    const D plain = widen(sum), weighted = widen(lines.sum(products)), one = D{} + 1.0;
    const Mask<D> some = plain > 0.0;
    store<D>(means, select<D>(some, weighted / select<D>(some, plain, one), one));
    if (!any_lane<V>(keep<V>(lowest < T(0), lowest) + select<V>(sum < infinity<T>, V{}, splat<V>(T(1))))) return;
    for (int i = 0; i < lanes<T>; ++i) {
        bool amiss = !(get(sum, i) < infinity<T>);
        for (int k = 0; k < lines.classes(); ++k) amiss |= rows.row(i)[k] < 0;
        if (amiss) means[i] = __builtin_nan("");
    }
}
#endif

// The mean class weight of each row of a block, 1 for rows without mass. Rows with an entry that is not finite, or below 0,
// have NaN.
template <class T>
void mean_weights(const Rows<T>& rows, int64_t count, int64_t classes, const T* weight, double* means) {
    using V = Vector<T>;
    constexpr int W = lanes<T>;
    int64_t r = 0;
#if KULLBACK_HAS_SHUFFLES
    if (classes > 1 && classes <= few_classes) {
        with_layout<T>(classes, [&](auto known, auto layout) {
            const Lines<T, decltype(layout)::value, decltype(known)::value> lines{int(classes)};
            for (; r + W <= count; r += W) {
                mean_weights_of_lanes(lines, Rows<T>{rows.row(r), rows.stride}, weight, means + r);
            }
        });
    }
#endif
    for (; r < count; ++r) {
        const T* t = rows.row(r);
        constexpr int64_t step = short_sum * W;
        LongSum<V> sum, product;
        V lowest = V{};
        for (int64_t begin = 0; begin < classes; begin += step) {
            along<T>(begin, begin + step < classes ? begin + step : classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
                const V mass = load<V>(t + k, part, T(0));
                lowest = smaller<V>(mass, lowest);
                sum.add(mass);
                product.add(mass * load<V>(weight + k, part, T(0)));
            });
            sum.settle();
            product.settle();
        }
        const double total = sum.total();
        bool sound = total < infinity<double>;
        for (int i = 0; i < W; ++i) sound &= get(lowest, i) >= 0;
        means[r] = !sound ? __builtin_nan("") : total > 0 ? product.total() / total : 1;
    }
}

// The same for the job's targets; false, and the report says where, for an entry that is not valid.
inline bool mean_weights(const Job& job, const BlockTargets& targets, int64_t begin, int64_t end, Scratch& scratch,
                         double* means, Report& report) {
    const int64_t count = end - begin;
    const auto weigh = [&](auto sample) {
        using T = decltype(sample);
        T* weight = scratch.take<T>(job.classes);
        for (int64_t k = 0; k < job.classes; ++k) weight[k] = T(static_cast<const double*>(job.class_weight)[k]);
        mean_weights<T>(rows_of<T>(job.targets.rows, begin, end, job.classes, scratch), count, job.classes, weight, means);
    };
    if (job.targets.rows.type == Type::float32) {
        weigh(float{});
    } else {
        weigh(double{});
    }
    for (int64_t r = 0; r < count; ++r) {
        if (means[r] == means[r]) continue;
        means[r] = 1;
        if (targets.weight(r) == 0) continue;
        double t = 0;
        report.bad_row = begin + r;
        for (report.bad_column = 0; report.bad_column < job.classes; ++report.bad_column) {
            copy_rows<double>(job.targets.rows, begin + r, 1, report.bad_column, 1, &t);
            if (!(t >= 0 && t < infinity<double>)) return false;
        }
        report.bad_row = report.bad_column = -1;  // a sum beyond all numbers, of numbers
    }
    return true;
}

// Sums row weight times the row's mean class weight, and checks the range of class indices.
inline void softmax_targets(const Job& job, int64_t begin, int64_t end, void* memory, Report& report) {
    Scratch scratch(memory);
    BlockTargets targets;
    if (!block_targets(job, begin, end, scratch, targets, report)) return;
    const double* class_weight = static_cast<const double*>(job.class_weight);
    double* means = nullptr;
    if (class_weight && job.targets.form == Form::rows) {
        means = scratch.take<double>(end - begin);
        if (!mean_weights(job, targets, begin, end, scratch, means, report)) return;
    }
    double total = 0;
    if (!class_weight && !targets.weights) {
        total = double(end - begin);
    } else if (!class_weight) {
        for (int64_t r = 0; r < end - begin; ++r) total += targets.weight(r);
    } else {
        double totals[4] = {};  // so that no addition waits for the one before
        const int64_t count = end - begin;
        const auto add = [&](auto omega) KULLBACK_LAMBDA {
            if (targets.weights) {
                for (int64_t r = 0; r < count; ++r) {
                    if (targets.weights[r] != 0) totals[r & 3] += targets.weights[r] * omega(r);
                }
                return;
            }
            int64_t r = 0;
            for (; r + 4 <= count; r += 4) {
                for (int i = 0; i < 4; ++i) totals[i] += omega(r + i);
            }
            for (; r < count; ++r) totals[r & 3] += omega(r);
        };
        const int32_t *first = targets.first, *second = targets.second;
        if (means) {
            add([&](int64_t r) KULLBACK_LAMBDA { return means[r]; });
        } else if (job.targets.form == Form::indices) {
            add([&](int64_t r) KULLBACK_LAMBDA { return class_weight[first[r]]; });
        } else {
            const double* share = job.targets.share + begin;
            add([&](int64_t r) KULLBACK_LAMBDA {
                return share[r] * class_weight[first[r]] + (1 - share[r]) * class_weight[second[r]];
            });
        }
        total = (totals[0] + totals[1]) + (totals[2] + totals[3]);
    }
    report.total = total;
}

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
