// One row in double precision, every loss, target form and derivative: the formulas of kullback/kernels/reference.py.
//
// It serves second derivatives, and the few rows whose first ones single precision cannot tell: where one class is so
// likely that what is left to the others is no number any more.
//
// The largest class, t, is treated in its log-odds, with derivatives a and h; all others have p_k <= 1/2, and for them
// b_k and c_k are derivatives in log p_k. With r the distribution among the classes other than t, B = sum b:
//
//   gradient          b_j - p_j B - a r_j for j != t, a - p_t B for t
//   Hessian product   with d = v - p.v, e = v - r.v:  c d - p sum(c d) - B p d + h e_t (1_t - r) - a r e
//   its diagonal      c_j (1 - p_j)^2 + p_j^2 sum_{k != j} c_k - B p_j (1 - p_j) + (h for t, h r_j^2 - a r_j (1 - r_j) else)
#pragma once

#include "skeletons/softmax_loss.hpp"
#include "skeletons/softmax_masses.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

// What does not depend on the loss.
struct ExactRow {
    using V = Vector<double>;
    static constexpr int W = lanes<double>;

    const Job& job;
    const int64_t classes, padded;
    // one number a class, and zeros up to whole vectors
    double *d, *p, *r, *b, *c, *s, *v;
    // of the row at hand
    int64_t top = 0;
    double p_top = 0, miss = 1, log_miss = 0, log_total = 0, lse = 0, mass = 0, sum_b = 0, a = 0, h = 0, value = 0;
    bool broken = false;

    ExactRow(const Job& j, Scratch& scratch);

    // d = the scaled logits less the largest, p and r, and what there is to know of the largest class.
    template <class T>
    void softmax(const T* z);
    double log_sum_exp() const { return broken ? __builtin_nan("") : p_top == 0 ? -infinity<double> : lse; }
    // Results times f, from what softmax() and the loss found.
    template <class T>
    void write_gradient(double f, T* out);
    template <class T>
    void write_product(const T* direction, double f, T* out);
    template <class T>
    void write_diagonal(double f, T* out);

  protected:
    template <class Term>
    KULLBACK_INLINE double sum_of(Term term) const {
        constexpr int64_t step = summed_vectors<double> * W;
        LongTotal total;
        for (int64_t begin = 0; begin < padded; begin += step) {
            const int64_t end = begin + step < padded ? begin + step : padded;
            V sum = V{};
            for (int64_t k = begin; k < end; k += W) sum += term(k);
            total.add(sum_lanes(sum));
        }
        return total.get();
    }
    template <class Term>
    KULLBACK_INLINE void set(double* to, Term term) const {
        for (int64_t k = 0; k < padded; k += W) store<V>(to + k, term(k));
    }
    static KULLBACK_INLINE V at(const double* x, int64_t k) { return load<V>(x + k); }

  private:
    template <class T>
    void put(const double* x, double f, T* out) const {
        for (int64_t k = 0; k < classes; ++k) out[k] = broken ? T(__builtin_nan("")) : T(x[k] * f);
    }
};

template <class T, class Loss>
struct ExactRows : ExactRow {
    const Loss& loss;
    const Masses<T>& masses;

    ExactRows(const Job& j, const Loss& l, const Masses<T>& m, Scratch& scratch)
        : ExactRow(j, scratch), loss(l), masses(m) {}

    void find(const T* z, int64_t row, double total) {
        softmax(z);
        derive(row, total);
        if (broken) value = __builtin_nan("");
    }

    // Value, a, h, b and c. The largest class' lane takes part as one that is not there: p = 0, s = 0.
    void derive(int64_t row, double total) {
        for (int64_t k = classes; k < padded; ++k) s[k] = 0;
        mass = masses.write(row, total, s);
        const double s_top = s[top];
        s[top] = 0;
        V values = V{};
        LongTotal all_values;
        for (int64_t k = 0; k < padded; k += W) {
            if (k % (summed_vectors<double> * W) == 0) {
                all_values.add(sum_lanes(values));
                values = V{};
            }
            Chance<V> chance;
            chance.p = at(p, k);
            chance.miss = 1.0 - chance.p;
            chance.log_p = at(d, k) - log_total;
            const V on_mass = at(s, k);
            const Cost<V> on = loss.on(chance, Shift<V>{shifts(k), V{}});
            values += keep<V>(on_mass != 0.0, on_mass * on.value);
            V first = -on_mass * on.pull, second = on_mass * (on.bend - chance.p * on.pull) / chance.miss;
            if constexpr (Loss::looks_at_all) {
                const V off_mass = mass - on_mass, push = off_mass * chance.p;
                const Cost<V> off = loss.off(chance);
                values += keep<V>(chance.p != 0.0, off_mass * off.value);
                first += push * off.pull;
                second += push * (off.bend + chance.p * chance.miss * off.pull) / (chance.miss * chance.miss);
            }
            store<V>(b + k, first);
            store<V>(c + k, second);
        }
        p[top] = p_top;
        all_values.add(sum_lanes(values));
        value = all_values.get();
        Chance<double> chance{p_top, miss, p_top == 0 ? -infinity<double> : -log_total, true, log_miss};
        const Cost<double> on = loss.on(chance, Shift<double>{Loss::shifted ? double(shift_row()[top]) : 0.0, 0.0});
        if (s_top != 0) value += s_top * on.value;
        a = -s_top * miss * on.pull;
        h = s_top * miss * on.bend;
        if constexpr (Loss::looks_at_all) {
            const double off_mass = mass - s_top;
            chance.miss = miss > 1e-300 ? miss : 1e-300;  // so that multiplied with its inverse it makes 1
            const Cost<double> off = loss.off(chance);
            if (off_mass != 0) value += off_mass * off.value;
            a += off_mass * chance.p * chance.miss * off.pull;
            h += off_mass * chance.p * off.bend;
        }
        sum_b = sum_of([&](int64_t k) KULLBACK_LAMBDA { return at(b, k); });
        // the z-loss adds a multiple of p to the gradient, as -B does
        if (job.z_loss != 0 && mass != 0) {
            value += job.z_loss * mass * lse * lse;
            sum_b -= 2 * job.z_loss * mass * lse;
        }
    }

    const T* shift_row() const { return static_cast<const T*>(job.shift); }
    KULLBACK_INLINE V shifts(int64_t k) const {
        V x = V{};
        if constexpr (Loss::shifted) {
            for (int i = 0; i < W && k + i < classes; ++i) lane(x, i) = double(shift_row()[k + i]);
        }
        return x;
    }
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
