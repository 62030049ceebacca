// The row-coupled skeleton: losses on p = softmax(z / T).
//
// Few classes with class targets go to softmax_few.hpp. Here a row is worked on by itself, the lanes along its
// classes, in pieces that stay in the nearest cache: find the piece's maximum, take exp relative to the largest
// logit so far, add up and keep. Then the kept numbers are scaled and written. So logits come from memory once, the
// gradient goes there once, and exp is taken once.
//
// The largest logits are counted apart from the sum of the others: for a confident row 1 - p and log p come from
// the others' sum without cancellation.
#pragma once

#include "simd/convert.hpp"
#include "skeletons/softmax_few.hpp"
#include "skeletons/softmax_loss.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

// Vectors per piece. Each lane of four accumulators adds at most 32 terms before they go to double, which bounds
// the rounding of a float32 sum for any number of classes.
constexpr int64_t piece_vectors = 128;

// Sum over k in [0, n) of term(k, part), which must be 0 in lanes beyond the row's end.
template <class T, class Term>
KULLBACK_INLINE double sum_along(int64_t n, Term term) {
    double total = 0;
    for (int64_t begin = 0; begin < n; begin += 64 * lanes<T>) {
        const int64_t end = begin + 64 * lanes<T> < n ? begin + 64 * lanes<T> : n;
        Vector<T> sum = Vector<T>{};
        along<T>(begin, end, [&](int64_t k, auto part) KULLBACK_LAMBDA { sum += term(k, part); });
        total += sum_lanes(sum);
    }
    return total;
}

template <class T>
struct RowSum {
    T center;             // what to subtract from the logits: the largest, or 0 where all are -inf
    double sum, log_sum;  // sum_k exp((z_k - center) / T), and its logarithm (0 for an empty sum)
    double others;        // the sum without one of the largest
    double inverse;       // 1 / sum, 0 for an empty sum
    bool broken() const { return !(sum == sum); }
};

// What the first sweep keeps of a row for the second: lifted exp, and the logit each piece is relative to.
template <class T>
struct Kept {
    T* exp = nullptr;
    T* centers = nullptr;
    const T* result = nullptr;  // where the row's result will be written; may be null
};

template <class T>
constexpr int64_t piece_size = piece_vectors * lanes<T>;

template <class T>
Kept<T> room_to_keep(int64_t classes, Scratch& scratch) {
    T* exp = scratch.take<T>(classes);
    return {exp, scratch.take<T>(classes / piece_size<T> + 1)};
}

// Keeps 2^lift exp((z - center) / T) over [begin, end) and returns the sum, without the lift.
template <class T>
KULLBACK_INLINE double sum_piece(const T* z, int64_t begin, int64_t end, T center, T factor, T* kept, const T* result) {
    using V = Vector<T>;
    constexpr int W = lanes<T>;
    V sum_a = V{}, sum_b = V{}, sum_c = V{}, sum_d = V{};
    auto add = [&](int64_t k, auto part, V& sum) KULLBACK_LAMBDA {
        const V e = exp_lifted<V>((load<V>(z + k, part, -infinity<T>) - center) * factor);
        store<V>(kept + k, part, e);
        sum += e;
    };
    int64_t k = begin;
    for (; k + 4 * W <= end; k += 4 * W) {
        // exp keeps the processor busy: let memory fetch meanwhile what comes after this piece, and the lines that
        // the result will overwrite (faster, when measured, than stores that bypass the caches)
        for (int64_t line = 0; line < 4 * W; line += 64 / int64_t(sizeof(T))) {
            prefetch(z + (end - begin) + k + line);
            if (result) prefetch(result + k + line);
        }
        add(k, Whole{}, sum_a);
        add(k + W, Whole{}, sum_b);
        add(k + 2 * W, Whole{}, sum_c);
        add(k + 3 * W, Whole{}, sum_d);
    }
    along<T>(k, end, [&](int64_t j, auto part) KULLBACK_LAMBDA { add(j, part, sum_a); });
    return sum_lanes((sum_a + sum_b) + (sum_c + sum_d)) * double(Constants<T>::unlift);
}

// The kept sum over [begin, end) without one of the largest, which are 2^lift. Added up apart from them it keeps
// its own precision, however small it is.
template <class T>
KULLBACK_INLINE double sum_others(const T* kept, int64_t begin, int64_t end) {
    using V = Vector<T>;
    constexpr T one = 1 / Constants<T>::unlift;
    V sum = V{}, ties = V{};
    along<T>(begin, end, [&](int64_t k, auto part) KULLBACK_LAMBDA {
        const V e = load<V>(kept + k, part, T(0));
        const Mask<V> is_top = e == one;
        sum += select<V>(is_top, V{}, e);
        ties += keep<V>(is_top, splat<V>(T(1)));
    });
    return sum_lanes(sum) * double(Constants<T>::unlift) + (sum_lanes(ties) - 1);
}

template <class T>
inline RowSum<T> sum_row(const T* z, int64_t classes, double inverse_temperature, Kept<T> kept) {
    using V = Vector<T>;
    constexpr int W = lanes<T>;
    const T factor = T(inverse_temperature);
    T top = -infinity<T>;
    T center = 0;
    double others = -1;  // the sum is 1 + others as soon as there is a largest logit
    for (int64_t begin = 0; begin < classes; begin += piece_size<T>) {
        const int64_t end = begin + piece_size<T> < classes ? begin + piece_size<T> : classes;
        V peak_a = splat<V>(-infinity<T>), peak_b = peak_a;
        int64_t k = begin;
        for (; k + 2 * W <= end; k += 2 * W) {
            peak_a = larger<V>(load<V>(z + k), peak_a);
            peak_b = larger<V>(load<V>(z + k + W), peak_b);
        }
        along<T>(k, end, [&](int64_t j, auto part) KULLBACK_LAMBDA {
            peak_a = larger<V>(load<V>(z + j, part, -infinity<T>), peak_a);
        });
        const T piece_top = largest_lane(larger<V>(peak_a, peak_b));
        const bool new_top = piece_top > top;
        if (new_top) {
            // what was summed so far is now relative to a larger logit
            const double d = (double(top) - double(piece_top)) * inverse_temperature;
            others = begin == 0 ? 0 : (others + 1) * exp_nonpositive<double>(d);
            top = center = piece_top;
        }
        kept.centers[begin / piece_size<T>] = center;
        const double sum = sum_piece(z, begin, end, center, factor, kept.exp, kept.result);
        if (new_top) {
            others += sum < 1.5 ? sum_others(kept.exp, begin, end) : sum - 1;
        } else {
            others += sum;
        }
    }
    RowSum<T> row;
    row.center = center;
    row.sum = 1 + others;
    const bool empty = top == -infinity<T> && row.sum == 0;
    row.others = empty ? 0 : others;
    row.log_sum = empty ? 0 : log1p_nonnegative<double>(others);
    row.inverse = empty ? 0 : 1 / row.sum;
    return row;
}

// Calls body(k, part, exp((z_k - row.center) / T) * f) along a row that was kept.
template <class T, class Body>
KULLBACK_INLINE void along_kept(const RowSum<T>& row, Kept<T> kept, int64_t classes, double inverse_temperature,
                                double f, Body body) {
    using V = Vector<T>;
    constexpr double unlift = double(Constants<T>::unlift);
    for (int64_t begin = 0; begin < classes; begin += piece_size<T>) {
        const int64_t end = begin + piece_size<T> < classes ? begin + piece_size<T> : classes;
        const double d = (double(kept.centers[begin / piece_size<T>]) - double(row.center)) * inverse_temperature;
        const double piece_f = d == 0 ? f : f * exp_nonpositive<double>(d);
        const T whole = T(piece_f * unlift);
        if (whole >= Constants<T>::least_normal || whole <= -Constants<T>::least_normal || piece_f == 0 || whole != whole) {
            along<T>(begin, end, [&](int64_t k, auto part) KULLBACK_LAMBDA {
                body(k, part, load<V>(kept.exp + k, part, T(0)) * whole);
            });
        } else {
            // a factor that is itself subnormal would be coarse: take the lift back first
            const T rest_of_it = T(piece_f);
            along<T>(begin, end, [&](int64_t k, auto part) KULLBACK_LAMBDA {
                body(k, part, (load<V>(kept.exp + k, part, T(0)) * Constants<T>::unlift) * rest_of_it);
            });
        }
    }
}

template <class T>
inline void put_loss(const Job& job, int64_t i, double weighted, Report& report) {
    report.total += weighted;
    if (weighted == infinity<double> && report.infinite_row < 0) report.infinite_row = i;
    if (!job.per_example) return;
    if (job.per_example_float64) {
        static_cast<double*>(job.per_example)[i] = weighted;
    } else {
        static_cast<T*>(job.per_example)[i] = T(weighted);
    }
}

// Weighs, sums and stores the losses of a whole block; rows that do not count have loss 0.
template <class T>
inline void put_losses(const Job& job, int64_t begin, int64_t rows, const T* losses,
                       const BlockTargets& targets, Report& report) {
    double sums[8] = {};
    int64_t r = 0;
    auto add = [&](auto weight) KULLBACK_LAMBDA {
        for (; r + 8 <= rows; r += 8) {
            for (int j = 0; j < 8; ++j) sums[j] += weight(r + j) * double(losses[r + j]);
        }
        for (int64_t j = r; j < rows; ++j) sums[0] += weight(j) * double(losses[j]);
    };
    const double* weights = targets.weights;
    if (weights) {
        add([&](int64_t j) KULLBACK_LAMBDA { return weights[j]; });
    } else {
        add([](int64_t) KULLBACK_LAMBDA { return 1.0; });
    }
    report.total = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
    // an infinite loss, or a NaN that may hide one, shows in the sum
    for (r = 0; !(report.total < infinity<double>) && r < rows; ++r) {
        if (targets.weight(r) * double(losses[r]) == infinity<double>) {
            report.infinite_row = begin + r;
            break;
        }
    }
    if (!job.per_example) return;
    if (job.per_example_float64) {
        for (r = 0; r < rows; ++r) static_cast<double*>(job.per_example)[begin + r] = targets.weight(r) * double(losses[r]);
    } else {
        for (r = 0; r < rows; ++r) static_cast<T*>(job.per_example)[begin + r] = T(targets.weight(r) * double(losses[r]));
    }
}

template <class T, class Loss>
struct SoftmaxRows {
    using V = Vector<T>;

    const Job& job;
    const Loss loss;
    const int64_t classes;
    const T factor;  // 1 / T
    const T* weight;

    explicit SoftmaxRows(const Job& j)
        : job(j),
          loss(j),
          classes(j.classes),
          factor(T(j.inverse_temperature)),
          weight(static_cast<const T*>(j.class_weight)) {}

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

    TargetClass<double> target_class(const T* z, const RowSum<T>& row, int64_t y, double weighted_log_p) const {
        const double d = (double(z[y]) - double(row.center)) * job.inverse_temperature;
        TargetClass<double> target;
        target.log_p = d - row.log_sum;
        target.p = exp_nonpositive<double>(d) * row.inverse;
        target.miss = d == 0 ? row.others * row.inverse : 1 - target.p;
        target.weight = weight ? double(weight[y]) : 1.0;
        target.weighted_log_p = weighted_log_p;
        return target;
    }

    // Loss and gradient of a row whose target is class a, or share of a and 1 - share of b.
    double class_row(const T* z, T* g, int64_t a, int64_t b, double share, double gradient_scale, Kept<T> kept) const {
        kept.result = g;
        const RowSum<T> row = sum_row(z, classes, job.inverse_temperature, kept);
        double weighted_log_p = 0;
        if (loss.spreads()) {
            weighted_log_p = sum_along<T>(classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
                const V w = weights(k, part);
                const V d = (load<V>(z + k, part, row.center) - row.center) * factor - T(row.log_sum);
                return clipped(w * d, w, part);
            });
        }
        RowGradient<double> at = loss.at_class(target_class(z, row, a, weighted_log_p));
        double at_a = at.at_class, at_b = 0;
        if (b >= 0) {
            const TargetClass<double> other = target_class(z, row, b, weighted_log_p);
            const RowGradient<double> second = loss.at_class(other);
            const TargetClass<double> first = target_class(z, row, a, weighted_log_p);
            auto away = [](const RowGradient<double>& from, const TargetClass<double>& t) {
                return from.on_p * t.p + from.on_weight * t.weight;
            };
            at_a = blend(share, at.at_class, a == b ? second.at_class : away(second, first));
            at_b = blend(share, a == b ? at.at_class : away(at, other), second.at_class);
            at.loss = blend(share, at.loss, second.loss);
            at.on_p = blend(share, at.on_p, second.on_p);
            at.on_weight = blend(share, at.on_weight, second.on_weight);
        }
        if (g) {
            const double f = gradient_scale * at.on_p * row.inverse;
            const T u = T(gradient_scale * at.on_weight);
            if (loss.spreads()) {
                along_kept(row, kept, classes, job.inverse_temperature, f,
                           [&](int64_t k, auto part, V e) KULLBACK_LAMBDA { store<V>(g + k, part, e + weights(k, part) * u); });
            } else {
                along_kept(row, kept, classes, job.inverse_temperature, f,
                           [&](int64_t k, auto part, V e) KULLBACK_LAMBDA { store<V>(g + k, part, e); });
            }
            g[a] = T(gradient_scale * at_a);
            if (b >= 0) g[b] = T(gradient_scale * at_b);
        }
        return row.broken() ? row.sum : at.loss;
    }

    // 0 times an infinite loss is 0: a share of nothing costs nothing.
    static double blend(double share, double a, double b) {
        return (share == 0 ? 0 : share * a) + (share == 1 ? 0 : (1 - share) * b);
    }

    // Drops lanes of no weight (0 times -inf) and, in a part, lanes beyond the row.
    static KULLBACK_INLINE V clipped(V value, V w, Whole) { return keep<V>(w != T(0), value); }
    static KULLBACK_INLINE V clipped(V value, V w, Part part) {
        V kept = keep<V>(w != T(0), value);
        for (int i = part.count; i < traits<V>::width; ++i) lane(kept, i) = 0;
        return kept;
    }

    // Sum of a soft row; false if an entry is negative or not finite.
    bool check_mass(const T* t, double& total, int64_t& column) const {
        V good_everywhere = splat<V>(T(1));
        total = sum_along<T>(classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
            const V mass = load<V>(t + k, part, T(0));
            good_everywhere = keep<V>(mass >= T(0), good_everywhere);
            good_everywhere = keep<V>(mass < infinity<T>, good_everywhere);
            return mass;
        });
        bool good = true;
        for (int i = 0; i < traits<V>::width; ++i) good &= get(good_everywhere, i) != 0;
        for (column = 0; !good && column < classes; ++column) {
            if (!(t[column] >= 0 && t[column] < infinity<T>)) break;
        }
        return good;
    }

    template <class Part>
    KULLBACK_INLINE V mass_at(const T* t, double total, int64_t k, Part part) const {
        const V plain = load<V>(t + k, part, T(0)) * T(1 - job.smoothing);
        const V w = weight ? load<V>(weight + k, part, T(0)) : splat<V>(T(1));
        return (plain + T(total * job.smoothing / double(classes))) * w;
    }

    double mass_row(const T* z, const T* t, double total, T* g, double gradient_scale, Kept<T> kept) const {
        kept.result = g;
        const RowSum<T> row = sum_row(z, classes, job.inverse_temperature, kept);
        double value = 0, first = 0;
        const T log_sum = T(row.log_sum);
        for (int64_t begin = 0; begin < classes; begin += 64 * lanes<T>) {
            const int64_t end = begin + 64 * lanes<T> < classes ? begin + 64 * lanes<T> : classes;
            V values = V{}, firsts = V{};
            along<T>(begin, end, [&](int64_t k, auto part) KULLBACK_LAMBDA {
                const V mass = mass_at(t, total, k, part);
                const V log_p = (load<V>(z + k, part, row.center) - row.center) * factor - log_sum;
                const auto element = loss.at_mass(log_p, clipped(mass, mass, part));
                values += element.value;
                firsts += element.first;
            });
            value += sum_lanes(values);
            first += sum_lanes(firsts);
        }
        if (g) {
            const T s = T(gradient_scale);
            along_kept(row, kept, classes, job.inverse_temperature, -gradient_scale * first * row.inverse,
                       [&](int64_t k, auto part, V e) KULLBACK_LAMBDA {
                const auto element = loss.at_mass(scaled(z, row, k, part) - log_sum, mass_at(t, total, k, part));
                store<V>(g + k, part, e + element.first * s);
            });
        }
        return row.broken() ? row.sum : value;
    }

    static void evaluate(const Job& job, int64_t begin, int64_t end, void* memory, Report& report) {
        const SoftmaxRows run(job);
        Scratch scratch(memory);
        BlockTargets targets;
        if (!block_targets(job, begin, end, scratch, targets, report)) return;
        const bool soft = job.targets.form == Form::rows;
        const Rows<T> logits = rows_of<T>(job.logits, begin, end, job.classes, scratch);
        const Rows<T> masses = soft ? rows_of<T>(job.targets.rows, begin, end, job.classes, scratch) : Rows<T>{};
#if KULLBACK_HAS_SHUFFLES
        if (job.targets.form == Form::indices && job.classes > 1 && job.classes <= few_classes) {
            T* losses = scratch.take<T>(end - begin);
            if (run.loss.spreads() || job.class_weight || job.inverse_temperature != 1) {
                few_class_block<T, Loss, false>(job, run.loss, logits, targets, begin, end - begin, losses);
            } else {
                few_class_block<T, Loss, true>(job, run.loss, logits, targets, begin, end - begin, losses);
            }
            put_losses(job, begin, end - begin, losses, targets, report);
            return;
        }
#endif
        const Kept<T> kept = room_to_keep<T>(job.classes, scratch);
        for (int64_t i = begin; i < end; ++i) {
            const int64_t r = i - begin;
            const double row_weight = targets.weight(r);
            if (row_weight == 0) {
                put_loss<T>(job, i, 0.0, report);
                if (job.out) run.clear(i);
                continue;
            }
            T* g = job.out ? run.out_row(i) : nullptr;
            const double gradient_scale = row_weight * job.scale * job.inverse_temperature;
            double value;
            if (soft) {
                double total;
                int64_t column;
                if (!run.check_mass(masses.row(r), total, column)) {
                    report.bad_row = i;
                    report.bad_column = column;
                    return;
                }
                value = run.mass_row(logits.row(r), masses.row(r), total, g, gradient_scale, kept);
            } else {
                const bool mixed = job.targets.form == Form::mixture;
                value = run.class_row(logits.row(r), g, targets.first[r], mixed ? targets.second[r] : -1,
                                      mixed ? job.targets.share[i] : 1.0, gradient_scale, kept);
            }
            put_loss<T>(job, i, row_weight * value, report);
        }
    }

    // Effective mass of a row, -sum f' for the losses that are linear in log p.
    bool row_mass(const BlockTargets& targets, const Rows<T>& masses, int64_t i, int64_t r, double& mass,
                  Report& report) const {
        const double spread = job.smoothing / double(classes);
        const double weight_sum = weight ? job.class_weight_sum : double(classes);
        auto of_class = [&](int64_t y) {
            return (1 - job.smoothing) * (weight ? double(weight[y]) : 1.0) + spread * weight_sum;
        };
        if (job.targets.form == Form::indices) {
            mass = of_class(targets.first[r]);
        } else if (job.targets.form == Form::mixture) {
            const double share = job.targets.share[i];
            mass = share * of_class(targets.first[r]) + (1 - share) * of_class(targets.second[r]);
        } else {
            double total;
            int64_t column;
            const T* t = masses.row(r);
            if (!check_mass(t, total, column)) {
                report.bad_row = i;
                report.bad_column = column;
                return false;
            }
            mass = sum_along<T>(classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
                const V s = mass_at(t, total, k, part);
                return clipped(s, s, part);
            });
        }
        return true;
    }

    // Runs body(z, RowSum, mass * row weight * scale / T^2, i) on every row that counts.
    template <class Body>
    static void each_hessian_row(const Job& job, int64_t begin, int64_t end, Scratch& scratch, Report& report,
                                 Body body) {
        const SoftmaxRows run(job);
        BlockTargets targets;
        if (!block_targets(job, begin, end, scratch, targets, report)) return;
        const bool soft = job.targets.form == Form::rows;
        const Rows<T> logits = rows_of<T>(job.logits, begin, end, job.classes, scratch);
        const Rows<T> masses = soft ? rows_of<T>(job.targets.rows, begin, end, job.classes, scratch) : Rows<T>{};
        const double scale = job.scale * job.inverse_temperature * job.inverse_temperature;
        const Kept<T> kept = room_to_keep<T>(job.classes, scratch);
        for (int64_t i = begin; i < end; ++i) {
            const int64_t r = i - begin;
            if (targets.weight(r) == 0) {
                run.clear(i);
                continue;
            }
            double mass;
            if (!run.row_mass(targets, masses, i, r, mass, report)) return;
            const T* z = logits.row(r);
            body(run, z, sum_row(z, job.classes, job.inverse_temperature, kept), mass * targets.weight(r) * scale, i);
        }
    }

    // mass * (p v - p (p.v))
    static void hessian_product(const Job& job, int64_t begin, int64_t end, void* memory, Report& report) {
        Scratch scratch(memory);
        const Rows<T> direction = rows_of<T>(job.direction, begin, end, job.classes, scratch);
        each_hessian_row(job, begin, end, scratch, report,
                         [&](const SoftmaxRows& run, const T* z, const RowSum<T>& row, double scale, int64_t i) {
            const T* v = direction.row(i - begin);
            T* out = run.out_row(i);
            const double dot = row.inverse * sum_along<T>(job.classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
                return exp_nonpositive<V>(run.scaled(z, row, k, part)) * load<V>(v + k, part, T(0));
            });
            const T f = T(scale * row.inverse);
            along<T>(0, job.classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
                const V e = exp_nonpositive<V>(run.scaled(z, row, k, part));
                store<V>(out + k, part, (e * f) * (load<V>(v + k, part, T(0)) - T(dot)));
            });
        });
    }

    // mass * p (1 - p); the largest logit's 1 - p comes from the other classes' sum
    static void hessian_diagonal(const Job& job, int64_t begin, int64_t end, void* memory, Report& report) {
        Scratch scratch(memory);
        each_hessian_row(job, begin, end, scratch, report,
                         [&](const SoftmaxRows& run, const T* z, const RowSum<T>& row, double scale, int64_t i) {
            T* out = run.out_row(i);
            const T inverse = T(row.inverse), top_miss = T(row.others * row.inverse), f = T(scale);
            along<T>(0, job.classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
                const V d = run.scaled(z, row, k, part);
                const V p = exp_nonpositive<V>(d) * inverse;
                store<V>(out + k, part, p * select<V>(d == T(0), splat<V>(top_miss), T(1) - p) * f);
            });
        });
    }
};

template <class T>
void softmax_probabilities(const Job& job, int64_t begin, int64_t end, void* memory, Report&) {
    using V = Vector<T>;
    Scratch scratch(memory);
    const T factor = T(job.inverse_temperature);
    const Rows<T> logits = rows_of<T>(job.logits, begin, end, job.classes, scratch);
    const Kept<T> kept = room_to_keep<T>(job.classes, scratch);
    for (int64_t i = begin; i < end; ++i) {
        const T* z = logits.row(i - begin);
        T* out = static_cast<T*>(job.out) + i * job.out_stride;
        const RowSum<T> row = sum_row(z, job.classes, job.inverse_temperature, kept);
        // log_sum is NaN with the sum, so a row with a NaN or +inf logit is NaN all along
        const T log_sum = T(row.log_sum), inverse = T(row.inverse);
        along<T>(0, job.classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
            const V d = (load<V>(z + k, part, -infinity<T>) - row.center) * factor;
            store<V>(out + k, part, job.logarithm ? d - log_sum : exp_nonpositive<V>(d) * inverse);
        });
    }
}

// Counts rows and sums row weight times the row's mean class weight; checks the range of class indices.
inline void softmax_targets(const Job& job, int64_t begin, int64_t end, void* memory, Report& report) {
    Scratch scratch(memory);
    BlockTargets targets;
    if (!block_targets(job, begin, end, scratch, targets, report)) return;
    const double* class_weight = static_cast<const double*>(job.class_weight);
    const bool weigh_rows = class_weight && job.targets.form == Form::rows;
    const Rows<double> masses =
        weigh_rows ? rows_of<double>(job.targets.rows, begin, end, job.classes, scratch) : Rows<double>{};
    double total = 0;
    int64_t counted = 0;
    if (!class_weight && !targets.weights) {
        counted = end - begin;
        total = double(counted);
    } else if (!class_weight) {
        for (int64_t r = 0; r < end - begin; ++r) {
            counted += targets.weight(r) != 0;
            total += targets.weight(r);
        }
    } else {
        for (int64_t r = 0; r < end - begin; ++r) {
            if (targets.weight(r) == 0) continue;
            double omega = 1;
            if (job.targets.form == Form::indices) {
                omega = class_weight[targets.first[r]];
            } else if (job.targets.form == Form::mixture) {
                const double share = job.targets.share[begin + r];
                omega = share * class_weight[targets.first[r]] + (1 - share) * class_weight[targets.second[r]];
            } else {
                double weighted = 0, plain = 0;
                const double* t = masses.row(r);
                for (int64_t k = 0; k < job.classes; ++k) {
                    if (!(t[k] >= 0 && t[k] < infinity<double>)) {
                        report.bad_row = begin + r;
                        report.bad_column = k;
                        return;
                    }
                    weighted += t[k] * class_weight[k];
                    plain += t[k];
                }
                if (plain > 0) omega = weighted / plain;
            }
            counted += 1;
            total += targets.weight(r) * omega;
        }
    }
    report.counted = counted;
    report.total = total;
}

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
