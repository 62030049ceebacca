// The plain skeleton: losses of a row's numbers as they are, with no softmax of theirs taken first: log-probabilities,
// probabilities, and penalties on scores.
//
// Every row is brought into double precision, and what is computed there is written once: such losses are sums of one
// term a class, so memory sets the pace. A loss is a struct with a `name`, `weighs` (whether it reads the masses s_k,
// or only their sum), `labels` (whether the targets may be independent labels, parameter 0; of those every row has
// mass 1), and
//
//     template <PlainOutput Output> static double row(const PlainRow& row);
//
// which returns the loss and writes the gradient, the Hessian times row.v or its diagonal to row.out.
#pragma once

#include "skeletons/softmax_masses.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

constexpr int plain_family_count = 5;

enum class PlainOutput { gradient, product, diagonal };

struct PlainRow {
    int64_t classes;
    const double* x;    // finite or -inf
    const double* s;    // of losses that weigh
    double total;       // the sum of s; else that of the target
    const double* v;    // products only
    double* out;        // may be null for gradients
    const double* parameters;
    int64_t* verdict;   // what the loss has to say of the row beside its value; 0 before, may be null
};

template <class T, class Loss>
struct PlainRows {
    static void evaluate(const Job& job, int64_t begin, int64_t end, void* memory, Report& report) {
        run<PlainOutput::gradient>(job, begin, end, memory, report);
    }
    static void hessian_product(const Job& job, int64_t begin, int64_t end, void* memory, Report& report) {
        run<PlainOutput::product>(job, begin, end, memory, report);
    }
    static void hessian_diagonal(const Job& job, int64_t begin, int64_t end, void* memory, Report& report) {
        run<PlainOutput::diagonal>(job, begin, end, memory, report);
    }

    template <PlainOutput Output>
    static void run(const Job& job, int64_t begin, int64_t end, void* memory, Report& report) {
        Scratch scratch(memory);
        const int64_t classes = job.classes;
        const bool labels = Loss::labels && job.parameters[0] != 0;
        constexpr bool product = Output == PlainOutput::product;
        const Rows<T> direction = product ? rows_of<T>(job.direction, begin, end, classes, scratch) : Rows<T>{};
        BlockTargets targets;
        if (labels) {
            targets.weights = copy_weights(job.targets, begin, end, scratch.take<double>(end - begin));
        } else if (!block_targets(job, begin, end, scratch, targets, report)) {
            return;
        }
        const Rows<T> logits = rows_of<T>(job.logits, begin, end, classes, scratch);
        const Masses<T> masses(job, targets, begin, end, scratch);
        double* x = scratch.take<double>(classes);
        double* s = Loss::weighs ? scratch.take<double>(classes) : nullptr;
        double* v = product ? scratch.take<double>(classes) : nullptr;
        double* out = job.out ? scratch.take<double>(classes) : nullptr;
        for (int64_t i = begin; i < end; ++i) {
            const int64_t r = i - begin;
            T* to = job.out ? static_cast<T*>(job.out) + i * job.out_stride : nullptr;
            int64_t* verdict = job.prediction ? job.prediction + i : nullptr;
            if (verdict) *verdict = 0;
            const double row_weight = targets.weight(r);
            if (row_weight == 0) {
                for (int64_t k = 0; to && k < classes; ++k) to[k] = 0;
                if (Output == PlainOutput::gradient) put_loss<T>(job, i, 0.0, report);
                continue;
            }
            const T* z = logits.row(r);
            for (int64_t k = 0; k < classes; ++k) x[k] = double(z[k]);
            double total = 1;
            if (labels) {
                if (!mask_labels(job, masses.rows.row(r), i, x, report)) return;
            } else if (!masses.sum(r, total, report)) {
                return;
            }
            double odd = 0;  // NaN where an input is NaN or +inf
            for (int64_t k = 0; k < classes; ++k) odd += x[k] > -infinity<double> || x[k] != x[k] ? x[k] - x[k] : 0.0;
            if (!(odd == 0)) {
                for (int64_t k = 0; to && k < classes; ++k) to[k] = T(odd);
                if (Output == PlainOutput::gradient) put_loss<T>(job, i, odd, report);
                continue;
            }
            if (Loss::weighs) total = masses.write(r, total, s);
            for (int64_t k = 0; v && k < classes; ++k) v[k] = double(direction.row(r)[k]);
            const double value = Loss::template row<Output>({classes, x, s, total, v, out, job.parameters, verdict});
            const double factor = row_weight * job.scale;
            for (int64_t k = 0; to && k < classes; ++k) to[k] = T(out[k] * factor);
            if (Output == PlainOutput::gradient) put_loss<T>(job, i, row_weight * value, report);
        }
    }

    // Masks the scores of ignored labels; false, and the report says where, if another lies outside [0, 1].
    static bool mask_labels(const Job& job, const T* t, int64_t i, double* x, Report& report) {
        for (int64_t k = 0; k < job.classes; ++k) {
            if (job.targets.has_ignore && t[k] == T(job.targets.ignore_index)) {
                x[k] = -infinity<double>;
            } else if (!(t[k] >= 0 && t[k] <= 1)) {
                report.bad_row = i;
                report.bad_column = k;
                return false;
            }
        }
        return true;
    }
};

// Sum over the classes of term(k, part), whose lanes beyond the last class do not count.
template <class Term>
KULLBACK_INLINE double plain_sum(int64_t classes, Term term) {
    return sum_along<double>(classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
        return inside_row(term(k, part), part);
    });
}

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
