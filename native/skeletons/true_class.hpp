// Losses of the true class' log-odds alone: w_y on(o_y), o = log(p / (1 - p)).
//
// A loss is a struct built from the Job with a `name` and at(class): value, pull = -on'(o) / (1 - p) and
// bend = on''(o) / (1 - p), which stay finite where 1 - p does not. The rest follows: with r the distribution among
// the other classes,
//
//   gradient          pull p_j for j != y, -pull (1 - p_y) for y
//   Hessian product   p_j (pull (v_j - r.v) - bend (v_y - r.v)) and (1 - p_y) bend (v_y - r.v)
//
// Smoothing is not theirs: it puts mass on every class, and rows of soft targets serve for that.
#pragma once

#include "skeletons/softmax.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

template <class V>
struct TrueClass {
    V value, pull, bend;
};

// 1 - exp(x) for x <= 0, to full relative precision: a Taylor sum near 0, where the difference would cancel.
template <class V>
KULLBACK_INLINE V complement_of_exp(V x, V exp_x) {
    using T = Scalar<V>;
    const Mask<V> near = x > T(-0.34);
    const V r = select<V>(near, x, V{});
    V sum = splat<V>(T(1));
    for (int n = sizeof(T) == 4 ? 8 : 14; n > 1; --n) sum = sum * (r * T(1.0 / n)) + T(1);
    return select<V>(near, -(r * sum), T(1) - exp_x);
}

// m^power for m = 1 - p, as exp(power log m); 0 where m is 0.
template <class V>
KULLBACK_INLINE V power_of_miss(V p, V miss, Scalar<V> power) {
    using T = Scalar<V>;
    const Mask<V> some = miss > T(0);
    const V log_miss = -log1p_nonnegative<V>(p / select<V>(some, miss, splat<V>(T(1))));
    const V raised = exp_nonpositive<V>(log_miss * power);
    // a NaN in `miss` must come out as one
    return power == T(0) ? splat<V>(T(1)) : select<V>(some, raised, miss);
}

template <class Formula>
struct TrueClassLoss : Formula {
    explicit TrueClassLoss(const Job& job) : Formula(job) {}

    bool spreads() const { return false; }

    template <class V>
    KULLBACK_INLINE RowGradient<V> at_class(const TargetClass<V>& y) const {
        const TrueClass<V> x = Formula::at(y);
        RowGradient<V> g;
        g.loss = keep<V>(y.weight != Scalar<V>(0), y.weight * x.value);
        g.on_p = y.weight * x.pull;
        g.on_weight = V{};
        g.at_class = -y.weight * x.pull * y.miss;
        return g;
    }

    template <class V>
    KULLBACK_INLINE Element<V> at_mass(V log_p, V mass) const {
        TargetClass<V> y;
        y.log_p = log_p;
        y.p = exp_nonpositive<V>(log_p);
        y.miss = complement_of_exp<V>(log_p, y.p);
        const TrueClass<V> x = Formula::at(y);
        return {keep<V>(mass != Scalar<V>(0), mass * x.value), -mass * x.pull};
    }
};

template <class T, class Loss>
struct TrueClassRows : SoftmaxRows<T, Loss> {
    using Base = SoftmaxRows<T, Loss>;
    using V = Vector<T>;
    using Base::Base;

    static void hessian_product(const Job& job, int64_t begin, int64_t end, void* memory, Report& report) {
        each_row(job, begin, end, memory, report, true);
    }
    static void hessian_diagonal(const Job& job, int64_t begin, int64_t end, void* memory, Report& report) {
        each_row(job, begin, end, memory, report, false);
    }

    static void each_row(const Job& job, int64_t begin, int64_t end, void* memory, Report& report, bool product) {
        const Base run(job);
        Scratch scratch(memory);
        const Rows<T> direction = product ? rows_of<T>(job.direction, begin, end, job.classes, scratch) : Rows<T>{};
        BlockTargets targets;
        if (!block_targets(job, begin, end, scratch, targets, report)) return;
        const Rows<T> logits = rows_of<T>(job.logits, begin, end, job.classes, scratch);
        const Kept<T> kept = room_to_keep<T>(job.classes, scratch);
        const double scale = job.scale * job.inverse_temperature * job.inverse_temperature;
        for (int64_t i = begin; i < end; ++i) {
            const int64_t r = i - begin;
            if (targets.weight(r) == 0) {
                run.clear(i);
                continue;
            }
            const T* z = logits.row(r);
            const RowSum<T> row = sum_row(z, job.classes, job.inverse_temperature, kept);
            const int64_t y = targets.first[r];
            const TargetClass<double> at = run.target_class(z, row, y, 0);
            const TrueClass<double> x = run.loss.at(at);
            const double factor = at.weight * targets.weight(r) * scale;
            const double pull = factor * x.pull, bend = factor * x.bend;
            // where next to nothing is left for the others, their shares multiply next to nothing: leave them out
            const double others = at.miss * row.sum;
            const double per_other = others > (sizeof(T) == 4 ? 1e-30 : 1e-290) || others != others ? 1 / others : 0;
            if (product) {
                write_product(run, job, i, z, direction.row(r), row, at, y, pull, bend, per_other);
            } else {
                write_diagonal(run, job, i, z, row, at, y, pull, bend, per_other);
            }
        }
    }

    static void write_product(const Base& run, const Job& job, int64_t i, const T* z, const T* v, const RowSum<T>& row,
                              const TargetClass<double>& at, int64_t y, double pull, double bend, double per_other) {
        T* out = run.out_row(i);
        const double own = double(v[y]);
        const double all = sum_along<T>(job.classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
            return exp_nonpositive<V>(run.scaled(z, row, k, part)) * load<V>(v + k, part, T(0));
        });
        const double mean = (all - at.p * row.sum * own) * per_other, apart = own - mean;
        const T f = T(pull * row.inverse), shift = T((pull * mean + bend * apart) * row.inverse);
        along<T>(0, job.classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
            const V e = exp_nonpositive<V>(run.scaled(z, row, k, part));
            store<V>(out + k, part, e * (load<V>(v + k, part, T(0)) * f - shift));
        });
        out[y] = T(at.miss * bend * apart);
    }

    static void write_diagonal(const Base& run, const Job& job, int64_t i, const T* z, const RowSum<T>& row,
                               const TargetClass<double>& at, int64_t y, double pull, double bend, double per_other) {
        T* out = run.out_row(i);
        const T f = T(pull * row.inverse), steeper = T((bend - pull) * row.inverse), share = T(per_other);
        along<T>(0, job.classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
            const V e = exp_nonpositive<V>(run.scaled(z, row, k, part));
            store<V>(out + k, part, e * (f + steeper * (e * share)));
        });
        out[y] = T(at.miss * bend);
    }
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
