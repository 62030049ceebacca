// The plain skeleton: losses of a row's numbers as they are, with no softmax of theirs taken first: log-probabilities,
// probabilities, and penalties on scores.
//
// Every row is brought into double precision, in whole vectors, and what is computed there is written once. A loss is a
// struct with a `name`, `weighs` (whether it reads the masses s_k, or only their sum), `labels` (whether the targets may
// be independent labels, parameter 0; of those every row has mass 1), `padding` (what stands in x behind the last class
// and adds nothing), and
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
    int64_t wide;       // classes, up to whole vectors: x is padded with Loss::padding, s and v with 0
    const double* x;    // finite or -inf
    const double* s;    // of losses that weigh; null where one class has all the mass
    int64_t only;       // that class, or -1
    double total;       // the sum of s; else that of the target
    const double* v;    // products only
    double* work;       // room for a row
    double* out;        // may be null for gradients
    const double* parameters;
    int64_t* verdict;  // what the loss has to say of the row beside its value; 0 before, may be null
};

// body(k) for every vector of a row.
template <class Body>
KULLBACK_INLINE void plain_along(int64_t wide, Body body) {
    for (int64_t k = 0; k < wide; k += lanes<double>) body(k);
}

template <class Term>
KULLBACK_INLINE double plain_sum(int64_t wide, Term term) {
    return sum_along<double>(wide, [&](int64_t k, auto) KULLBACK_LAMBDA { return term(k); });
}

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
        const int64_t wide = (classes + lanes<double> - 1) / lanes<double> * lanes<double>;
        double* x = scratch.take<double>(wide);
        double* work = scratch.take<double>(wide);
        double* s = Loss::weighs ? scratch.take<double>(wide) : nullptr;
        double* v = product ? scratch.take<double>(wide) : nullptr;
        double* out = job.out ? scratch.take<double>(wide) : nullptr;
        for (int64_t k = classes; k < wide; ++k) {
            x[k] = Loss::padding;
            if (s) s[k] = 0;
            if (v) v[k] = 0;
        }
        const bool shared = !labels && (job.targets.form != Form::indices || job.smoothing > 0);
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
            // NaN where an input is NaN or +inf
            const double odd = plain_sum(wide, [&](int64_t k) KULLBACK_LAMBDA {
                const VectorD one = load<VectorD>(x + k);
                const VectorD bounded = select<VectorD>(one == splat<VectorD>(-infinity<double>), VectorD{}, one);
                return bounded - bounded;
            });
            if (!(odd == 0)) {
                for (int64_t k = 0; to && k < classes; ++k) to[k] = T(odd);
                if (Output == PlainOutput::gradient) put_loss<T>(job, i, odd, report);
                continue;
            }
            const int64_t only = shared || labels ? -1 : targets.first[r];
            if (Loss::weighs) total = shared ? masses.write(r, total, s) : masses.of_class(only);
            for (int64_t k = 0; v && k < classes; ++k) v[k] = double(direction.row(r)[k]);
            const double value = Loss::template row<Output>(
                {wide, x, shared ? s : nullptr, only, total, v, work, out, job.parameters, verdict});
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

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
