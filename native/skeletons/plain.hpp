// The plain skeleton: losses of a row's numbers as they are, with no softmax of theirs taken first: log-probabilities,
// probabilities, and penalties on scores.
//
// Every row is brought into double precision, in whole vectors, and what is computed there is written once, for rows
// one by one and for rows side by side (plain_few.hpp). A loss is a struct with a `name`, `weighs` (whether it reads the
// masses s_k, or only their sum), `labels` (whether the targets may be independent labels, parameter 0; of those every
// row has mass 1), `judges` (whether it has more to say of a row than its value), `padding` (what stands in x behind the
// last class and adds nothing), and
//
//     template <PlainOutput Output, class Row> static typename Row::N row(Row& row);
//
// which returns the loss and writes the gradient, the Hessian times the direction or its diagonal to row.out.
#pragma once

#include "skeletons/plain_row.hpp"
#include "skeletons/softmax_masses.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

constexpr int plain_family_count = 5;

// What the rows of a block have in common.
template <class T>
struct PlainBlock {
    const Job& job;
    int64_t begin, rows;
    const BlockTargets& targets;
    const Rows<T> logits, direction;
    const Masses<T> masses;
    bool labels;  // whether targets are independent labels
    bool shared;  // whether the mass may be on more than one class

    // Whether row r's target is valid; if not, the report says where.
    bool valid(int64_t r, Report& report) const {
        if (!labels) return !masses.soft() || masses.valid(r, report);
        const T* t = masses.rows.row(r);
        for (int64_t k = 0; k < job.classes; ++k) {
            if (ignored(t[k]) || (t[k] >= 0 && t[k] <= 1)) continue;
            report.bad_row = begin + r;
            report.bad_column = k;
            return false;
        }
        return true;
    }
    bool ignored(T label) const { return job.targets.has_ignore && label == T(job.targets.ignore_index); }
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback

#include "skeletons/plain_few.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

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
        const bool labels = Loss::labels && job.parameters[0] != 0;
        BlockTargets targets;
        if (labels) {
            targets.weights = copy_weights(job.targets, begin, end, scratch.take<double>(end - begin));
        } else if (!block_targets(job, begin, end, scratch, targets, report)) {
            return;
        }
        const bool product = Output == PlainOutput::product;
        const PlainBlock<T> block = {job,
                                     begin,
                                     end - begin,
                                     targets,
                                     rows_of<T>(job.logits, begin, end, job.classes, scratch),
                                     product ? rows_of<T>(job.direction, begin, end, job.classes, scratch) : Rows<T>{},
                                     Masses<T>(job, targets, begin, end, scratch),
                                     labels,
                                     !labels && (job.targets.form != Form::indices || job.smoothing > 0)};
        const int64_t done = plain_groups<T, Loss, Output>(block, report);
        if (done >= 0) one_by_one<Output>(block, done, scratch, report);
    }

    template <PlainOutput Output>
    static void one_by_one(const PlainBlock<T>& block, int64_t first, Scratch& scratch, Report& report) {
        using V = InDouble<T>;
        using Row = PlainRow<V, double>;
        const Job& job = block.job;
        const int64_t classes = job.classes;
        const int64_t vectors = (classes + Row::width - 1) / Row::width, wide = vectors * Row::width;
        double* x = scratch.take<double>(wide);
        double* work = scratch.take<double>(wide);
        double* s = Loss::weighs ? scratch.take<double>(wide) : nullptr;
        double* v = Output == PlainOutput::product ? scratch.take<double>(wide) : nullptr;
        double* out = job.out ? scratch.take<double>(wide) : nullptr;
        for (int64_t k = classes; k < wide; ++k) {
            x[k] = Loss::padding;
            if (s) s[k] = 0;
            if (v) v[k] = 0;
        }
        for (int64_t r = first; r < block.rows; ++r) {
            const int64_t i = block.begin + r;
            T* to = job.out ? static_cast<T*>(job.out) + i * job.out_stride : nullptr;
            const double row_weight = block.targets.weight(r);
            if (row_weight == 0) {
                for (int64_t k = 0; to && k < classes; ++k) to[k] = 0;
                if (Output == PlainOutput::gradient) put_loss<T>(job, i, 0.0, report);
                continue;
            }
            const T* z = block.logits.row(r);
            for (int64_t k = 0; k < classes; ++k) x[k] = double(z[k]);
            double total = 1;
            if (block.labels) {
                if (!block.valid(r, report)) return;
                const T* t = block.masses.rows.row(r);
                for (int64_t k = 0; k < classes; ++k) {
                    if (block.ignored(t[k])) x[k] = -infinity<double>;
                }
            } else if (!block.masses.sum(r, total, report)) {
                return;
            }
            Row row = {vectors, x, s, v, work, out, job.parameters, total, !block.shared && !block.labels, 0, 0};
            // NaN where an input is NaN or +inf
            const double odd = row.sum([&](int64_t k) KULLBACK_LAMBDA {
                const V bounded = select<V>(row.x(k) == splat<V>(-infinity<double>), V{}, row.x(k));
                return bounded - bounded;
            });
            if (!(odd == 0)) {
                for (int64_t k = 0; to && k < classes; ++k) to[k] = T(odd);
                if (Output == PlainOutput::gradient) put_loss<T>(job, i, odd, report);
                continue;
            }
            for (int64_t k = 0; v && k < classes; ++k) v[k] = double(block.direction.row(r)[k]);
            const int64_t only = row.one ? block.targets.first[r] : 0;
            row.its_number = x[only];
            if (v) row.its_direction = v[only];
            if (Loss::weighs) row.total = row.one ? block.masses.of_class(only) : block.masses.write(r, total, s);
            const double value = Loss::template row<Output>(row);
            if (out && row.one && Loss::weighs) out[only] = row.to_one;
            const double factor = row_weight * job.scale;
            for (int64_t k = 0; to && k < classes; ++k) to[k] = T(out[k] * factor);
            if (Output == PlainOutput::gradient) put_loss<T>(job, i, row_weight * value, report);
            if (Loss::judges) {
                report.low += row.low != 0;
                report.high += row.high != 0;
                if (row.amiss != 0 && report.amiss_row < 0) report.amiss_row = i;
            }
        }
    }
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
