// The element-by-element skeleton: losses on sigmoid(z / T), summed over a row's labels.
//
// A loss is a struct built from the Job with a `name` and at(log-odds, on, off): value, derivative and second
// derivative in z / T, where on and off are the masses that pull the label up and down. `Odds` carries p, 1 - p
// and the two softplus values, each to full relative precision.
#pragma once

#include "simd/convert.hpp"
#include "simd/elementary.hpp"
#include "skeletons/softmax.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

template <class V>
struct Odds {
    V p, miss;          // sigmoid(z), sigmoid(-z)
    V cost_on, cost_off;  // -log p, -log(1 - p)
};

template <class V>
KULLBACK_INLINE Odds<V> odds_of(V z) {
    using T = Scalar<V>;
    const V e = exp_nonpositive<V>(-absolute<V>(z));
    const V large = T(1) / (e + T(1)), small = e / (e + T(1));
    const V log_large = log1p_nonnegative<V>(e);
    const Mask<V> up = z >= T(0);
    Odds<V> odds;
    odds.p = select<V>(up, large, small);
    odds.miss = select<V>(up, small, large);
    odds.cost_on = select<V>(up, log_large, log_large - z);
    odds.cost_off = select<V>(up, log_large + z, log_large);
    return odds;
}

template <class V>
struct LabelTerm {
    V value, first, second;
};

template <class T, class Loss>
struct SigmoidRows {
    using V = Vector<T>;

    const Job& job;
    const Loss loss;
    const T *weight, *positive;
    const T factor, hard, even;
    const T ignored;

    explicit SigmoidRows(const Job& j)
        : job(j),
          loss(j),
          weight(static_cast<const T*>(j.class_weight)),
          positive(static_cast<const T*>(j.positive_weight)),
          factor(T(j.inverse_temperature)),
          hard(T(1 - j.smoothing)),
          even(T(j.smoothing / 2)),
          ignored(j.targets.has_ignore ? T(j.targets.ignore_index) : T(__builtin_nan(""))) {}

    // One vector of a row; lanes of ignored labels are exactly 0, whatever their logit.
    template <class Part>
    KULLBACK_INLINE LabelTerm<V> term(const T* z, const T* t, int64_t k, Part part) const {
        const V raw = load<V>(t + k, part, T(0));
        const V y = raw * hard + even;
        const V w = weight ? load<V>(weight + k, part, T(0)) : splat<V>(T(1));
        V on = y * w;
        if (positive) on *= load<V>(positive + k, part, T(0));
        const V logit = load<V>(z + k, part, T(0)) * factor;
        const Mask<V> skip = raw == ignored;
        LabelTerm<V> x = loss.at(odds_of<V>(logit), on, w - y * w);
        const Mask<V> sound = logit == logit;
        x.value = select<V>(sound, x.value, logit);
        x.value = select<V>(skip, V{}, x.value);
        x.first = select<V>(skip, V{}, x.first);
        x.second = select<V>(skip, V{}, x.second);
        return x;
    }

    bool check(const T* t, int64_t& column) const {
        V good_everywhere = splat<V>(T(1));
        along<T>(0, job.classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
            const V label = load<V>(t + k, part, T(0));
            const V inside = keep<V>(label >= T(0), keep<V>(label <= T(1), splat<V>(T(1))));
            good_everywhere = keep<V>(inside != T(0), good_everywhere) +
                              keep<V>(label == ignored, good_everywhere);
        });
        bool good = true;
        for (int i = 0; i < traits<V>::width; ++i) good &= get(good_everywhere, i) != 0;
        for (column = 0; !good && column < job.classes; ++column) {
            if (!(t[column] >= 0 && t[column] <= 1) && t[column] != ignored) break;
        }
        return good;
    }

    T* out_row(int64_t i) const { return static_cast<T*>(job.out) + i * job.out_stride; }

    // Runs body(run, z, t, row weight, i) on every row that counts and skipped(run, i) on the others.
    template <class Body, class Skipped>
    static void each_row(const Job& job, int64_t begin, int64_t end, Scratch& scratch, Report& report, Body body,
                         Skipped skipped) {
        const SigmoidRows run(job);
        const double* weights = copy_weights(job.targets, begin, end, scratch.take<double>(end - begin));
        const Rows<T> logits = rows_of<T>(job.logits, begin, end, job.classes, scratch);
        const Rows<T> labels = rows_of<T>(job.targets.rows, begin, end, job.classes, scratch);
        for (int64_t i = begin; i < end; ++i) {
            const int64_t r = i - begin;
            if (weights[r] == 0) {
                if (job.out) {
                    for (int64_t k = 0; k < job.classes; ++k) run.out_row(i)[k] = 0;
                }
                skipped(i);
                continue;
            }
            if (!run.check(labels.row(r), report.bad_column)) {
                report.bad_row = i;
                return;
            }
            body(run, logits.row(r), labels.row(r), weights[r], i);
        }
    }

    static void evaluate(const Job& job, int64_t begin, int64_t end, void* memory, Report& report) {
        Scratch scratch(memory);
        each_row(job, begin, end, scratch, report,
                 [&](const SigmoidRows& run, const T* z, const T* t, double row_weight, int64_t i) {
            double value;
            if (job.out) {
                T* g = run.out_row(i);
                const T f = T(row_weight * job.scale * job.inverse_temperature);
                value = sum_along<T>(job.classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
                    const LabelTerm<V> x = run.term(z, t, k, part);
                    store<V>(g + k, part, x.first * f);
                    return inside(x.value, part);
                });
            } else {
                value = sum_along<T>(job.classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
                    return inside(run.term(z, t, k, part).value, part);
                });
            }
            put_loss<T>(job, i, row_weight * value, report);
        }, [&](int64_t i) { put_loss<T>(job, i, 0.0, report); });
    }

    static KULLBACK_INLINE V inside(V v, Whole) { return v; }
    static KULLBACK_INLINE V inside(V v, Part part) {
        for (int i = part.count; i < traits<V>::width; ++i) lane(v, i) = 0;
        return v;
    }

    static void hessian_diagonal(const Job& job, int64_t begin, int64_t end, void* memory, Report& report) {
        hessian(job, begin, end, memory, report, false);
    }
    static void hessian_product(const Job& job, int64_t begin, int64_t end, void* memory, Report& report) {
        hessian(job, begin, end, memory, report, true);
    }

    static void hessian(const Job& job, int64_t begin, int64_t end, void* memory, Report& report, bool product) {
        Scratch scratch(memory);
        const Rows<T> direction = product ? rows_of<T>(job.direction, begin, end, job.classes, scratch) : Rows<T>{};
        const double scale = job.scale * job.inverse_temperature * job.inverse_temperature;
        each_row(job, begin, end, scratch, report,
                 [&](const SigmoidRows& run, const T* z, const T* t, double row_weight, int64_t i) {
            T* out = run.out_row(i);
            const T f = T(row_weight * scale);
            along<T>(0, job.classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
                V h = run.term(z, t, k, part).second * f;
                if (product) h *= load<V>(direction.row(i - begin) + k, part, T(0));
                store<V>(out + k, part, h);
            });
        }, [](int64_t) {});
    }
};

template <class T>
void sigmoid_probabilities(const Job& job, int64_t begin, int64_t end, void* memory, Report&) {
    using V = Vector<T>;
    Scratch scratch(memory);
    const T factor = T(job.inverse_temperature);
    const Rows<T> logits = rows_of<T>(job.logits, begin, end, job.classes, scratch);
    for (int64_t i = begin; i < end; ++i) {
        const T* z = logits.row(i - begin);
        T* out = static_cast<T*>(job.out) + i * job.out_stride;
        along<T>(0, job.classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
            const Odds<V> odds = odds_of<V>(load<V>(z + k, part, T(0)) * factor);
            store<V>(out + k, part, job.logarithm ? -odds.cost_on : odds.p);
        });
    }
}

// Counts rows of which at least one label is not ignored, and sums their weights.
inline void sigmoid_targets(const Job& job, int64_t begin, int64_t end, void* memory, Report& report) {
    Scratch scratch(memory);
    double* weights = copy_weights(job.targets, begin, end, scratch.take<double>(end - begin));
    if (job.targets.has_ignore) {
        const Rows<double> labels = rows_of<double>(job.targets.rows, begin, end, job.classes, scratch);
        const double ignored = double(job.targets.ignore_index);
        for (int64_t r = 0; r < end - begin; ++r) {
            const double* t = labels.row(r);
            bool any = false;
            for (int64_t k = 0; k < job.classes && !any; ++k) any = t[k] != ignored;
            if (!any) weights[r] = 0;
        }
    }
    for (int64_t r = 0; r < end - begin; ++r) {
        report.counted += weights[r] != 0;
        report.total += weights[r];
    }
}

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
