// Priors and softcap: any softmax loss on u = cap tanh(z / cap) / T + offset instead of z / T.
//
// A block of rows is transformed into scratch memory, which stays in the cache, and the loss' own kernel runs there.
// The cap's slope multiplies the gradient afterwards. A logit of -inf stays a masked class.
#pragma once

#include "simd/convert.hpp"
#include "skeletons/softmax_loss.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

// Both in rows of C numbers; slope and tanh only with a cap.
template <class T>
struct Transformed {
    T *scores, *slope = nullptr, *tanh = nullptr;
    int64_t elements;
};
template <class T>
Transformed<T> transform(const Job& job, int64_t begin, int64_t end, Scratch& scratch, bool bends);

template <class T, class Loss, template <class, class> class Base>
struct WithOptions {
    using V = Vector<T>;
    using Plain = Base<T, Loss>;
    using Block = Transformed<T>;

    static bool applies(const Job& job) { return job.offset || job.softcap > 0; }

    static Job inner(const Job& job, const Block& block, int64_t begin, bool twice) {
        Job own = job;
        own.logits = {block.scores - begin * job.classes, job.classes, 1, type_of<T>};
        own.offset = nullptr;
        own.softcap = 0;
        own.inverse_temperature = 1;
        own.scale = job.scale * job.inverse_temperature * (twice ? job.inverse_temperature : 1);
        return own;
    }

    // Calls body(place in a block, place in the output, part) for every vector of the output.
    template <class Body>
    static KULLBACK_INLINE void along_out(const Job& job, int64_t begin, int64_t end, Body body) {
        if (job.out_stride == job.classes) {  // rows one behind the other
            T* out = static_cast<T*>(job.out) + begin * job.classes;
            along<T>(0, (end - begin) * job.classes, [&](int64_t at, auto part) KULLBACK_LAMBDA { body(at, out + at, part); });
            return;
        }
        for (int64_t i = begin; i < end; ++i) {
            T* out = static_cast<T*>(job.out) + i * job.out_stride;
            along<T>(0, job.classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
                body((i - begin) * job.classes + k, out + k, part);
            });
        }
    }

    static void evaluate(const Job& job, int64_t begin, int64_t end, void* memory, Report& report) {
        if (!applies(job)) return Plain::evaluate(job, begin, end, memory, report);
        // a few rows at a time, so that the transformed ones stay in the nearest cache
        const int64_t rows = job.classes < 4096 ? 4096 / job.classes : 1;
        for (int64_t first = begin; first < end && report.bad_row < 0; first += rows) {
            Report part;
            evaluate_few(job, first, first + rows < end ? first + rows : end, memory, part);
            report.total += part.total;
            if (report.infinite_row < 0) report.infinite_row = part.infinite_row;
            report.bad_row = part.bad_row;
            report.bad_column = part.bad_column;
        }
    }

    static void evaluate_few(const Job& job, int64_t begin, int64_t end, void* memory, Report& report) {
        Scratch scratch(memory);
        const Block block = transform<T>(job, begin, end, scratch, false);
        Plain::evaluate(inner(job, block, begin, false), begin, end, scratch.rest(), report);
        if (!job.out || !block.slope) return;
        along_out(job, begin, end, [&](int64_t at, T* out, auto part) KULLBACK_LAMBDA {
            store<V>(out, part, load<V>(out, part, T(0)) * load<V>(block.slope + at, part, T(0)));
        });
    }
    static void hessian_product(const Job& job, int64_t begin, int64_t end, void* memory, Report& report) {
        hessian<true>(job, begin, end, memory, report);
    }
    static void hessian_diagonal(const Job& job, int64_t begin, int64_t end, void* memory, Report& report) {
        hessian<false>(job, begin, end, memory, report);
    }

    // With the cap's slope f and bend f' = -2 tanh f / cap: the product is f H (f v) + f' g v, the diagonal f^2 H + f' g.
    template <bool product>
    static void hessian(const Job& job, int64_t begin, int64_t end, void* memory, Report& report) {
        auto run = [&](const Job& own, void* left) {
            if (product) return Plain::hessian_product(own, begin, end, left, report);
            return Plain::hessian_diagonal(own, begin, end, left, report);
        };
        if (!applies(job)) return run(job, memory);
        Scratch scratch(memory);
        const Block block = transform<T>(job, begin, end, scratch, true);
        Job own = inner(job, block, begin, true);
        if (!block.slope) return run(own, scratch.rest());
        T* pulls = scratch.take<T>(block.elements);
        T* along_v = product ? scratch.take<T>(block.elements) : nullptr;
        Job first = inner(job, block, begin, false);
        first.per_example = nullptr;
        first.out = pulls - begin * job.classes;
        first.out_stride = job.classes;
        Report unused;
        Plain::evaluate(first, begin, end, scratch.rest(), unused);
        if (product) {
            const Rows<T> direction = rows_of<T>(job.direction, begin, end, job.classes, scratch);
            for (int64_t r = 0; r < end - begin; ++r) {
                along<T>(0, job.classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
                    const int64_t at = r * job.classes + k;
                    const V v = load<V>(direction.row(r) + k, part, T(0));
                    store<V>(pulls + at, part, load<V>(pulls + at, part, T(0)) * v);
                    store<V>(along_v + at, part, load<V>(block.slope + at, part, T(0)) * v);
                });
            }
            own.direction = {along_v - begin * job.classes, job.classes, 1, type_of<T>};
        }
        run(own, scratch.rest());
        const T bend = T(-2 / job.softcap);
        along_out(job, begin, end, [&](int64_t at, T* out, auto part) KULLBACK_LAMBDA {
            const V slope = load<V>(block.slope + at, part, T(0));
            const V bent = bend * load<V>(block.tanh + at, part, T(0)) * slope * load<V>(pulls + at, part, T(0));
            const V h = load<V>(out, part, T(0)) * slope;
            store<V>(out, part, (product ? h : h * slope) + bent);
        });
    }
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
