// The masses s_k = w_k ((1 - e) t_k + e/C sum t) of one row, whatever form its target has.
#pragma once

#include "skeletons/softmax_row.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

template <class T>
struct Masses {
    const Job& job;
    const BlockTargets& targets;
    Rows<T> rows;  // soft rows only
    const int64_t begin, classes;
    const T* weight;  // null: all ones
    const double hard, spread;

    Masses(const Job& j, const BlockTargets& t, int64_t first_row, int64_t end, Scratch& scratch)
        : job(j),
          targets(t),
          rows(j.targets.form == Form::rows ? rows_of<T>(j.targets.rows, first_row, end, j.classes, scratch)
                                            : Rows<T>{nullptr, 0}),
          begin(first_row),
          classes(j.classes),
          weight(static_cast<const T*>(j.class_weight)),
          hard(1 - j.smoothing),
          spread(j.smoothing / double(j.classes)) {}

    bool soft() const { return job.targets.form == Form::rows; }
    bool mixed() const { return job.targets.form == Form::mixture; }
    double share(int64_t r) const { return mixed() ? job.targets.share[begin + r] : 1.0; }
    double weight_of(int64_t k) const { return weight ? double(weight[k]) : 1.0; }

    // What a unit of target mass on class y comes to.
    double of_class(int64_t y) const {
        return hard * weight_of(y) + spread * (weight ? job.class_weight_sum : double(classes));
    }

    // Sum of the target of row r (within the block); false, and the report says where, if an entry of a soft row is
    // negative or not finite.
    bool sum(int64_t r, double& total, Report& report) const {
        total = 1;
        if (!soft()) return true;
        using V = Vector<T>;
        const T* t = rows.row(r);
        V good_everywhere = splat<V>(T(1));
        total = sum_along<T>(classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
            const V mass = load<V>(t + k, part, T(0));
            good_everywhere = keep<V>(mass >= T(0), good_everywhere);
            good_everywhere = keep<V>(mass < infinity<T>, good_everywhere);
            return mass;
        });
        bool good = true;
        for (int i = 0; i < traits<V>::width; ++i) good &= get(good_everywhere, i) != 0;
        if (!good) blame(r, report);
        return good;
    }

    // Whether every entry of soft row r is finite and at least 0; if not, the report says where.
    bool valid(int64_t r, Report& report) const {
        const T* t = rows.row(r);
        for (int64_t k = 0; k < classes; ++k) {
            if (t[k] >= 0 && t[k] < infinity<T>) continue;
            blame(r, report);
            return false;
        }
        return true;
    }

    void blame(int64_t r, Report& report) const {
        const T* t = rows.row(r);
        report.bad_row = begin + r;
        for (report.bad_column = 0; report.bad_column < classes; ++report.bad_column) {
            if (!(t[report.bad_column] >= 0 && t[report.bad_column] < infinity<T>)) return;
        }
    }

    // A vector of the masses of a row with target t, which sums to `total`.
    template <class Part>
    KULLBACK_INLINE Vector<T> at(const T* t, double total, int64_t k, Part part) const {
        using V = Vector<T>;
        const V plain = load<V>(t + k, part, T(0)) * T(hard);
        const V w = weight ? load<V>(weight + k, part, T(0)) : splat<V>(T(1));
        return (plain + T(total * spread)) * w;
    }

    // All masses of row r in double; returns their sum.
    double write(int64_t r, double total, double* s) const {
        const double everywhere = total * spread;
        const T* t = soft() ? rows.row(r) : nullptr;
        for (int64_t k = 0; k < classes; ++k) s[k] = everywhere + (t ? hard * double(t[k]) : 0.0);
        if (!t) {
            s[targets.first[r]] += hard * share(r);
            if (mixed()) s[targets.second[r]] += hard * (1 - share(r));
        }
        LongTotal sum;
        for (int64_t begin = 0; begin < classes; begin += 16) {
            double here = 0;
            for (int64_t k = begin; k < classes && k < begin + 16; ++k) {
                s[k] *= weight_of(k);
                here += s[k];
            }
            sum.add(here);
        }
        return sum.get();
    }
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
