// Priors and softcap: any softmax loss on u = cap tanh(z / cap) / T + offset instead of z / T.
//
// For values and gradients the rows' own kernels transform the logits on their way (softmax_transform.hpp). For second
// derivatives a block of rows is transformed into scratch memory, and the loss' own kernel runs there.
#pragma once

#include "simd/convert.hpp"
#include "skeletons/softmax_loss.hpp"
#include "skeletons/softmax_transform.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

template <class T, class Loss, template <class, class> class Base>
struct WithOptions {
    using V = Vector<T>;
    using Plain = Base<T, Loss>;

    // The job on transformed logits, whose temperature is 1.
    static Job inner(const Job& job, bool twice) {
        Job own = job;
        own.offset = nullptr;
        own.softcap = 0;
        own.inverse_temperature = 1;
        own.scale = job.scale * job.inverse_temperature * (twice ? job.inverse_temperature : 1);
        return own;
    }

    static void evaluate(const Job& job, int64_t begin, int64_t end, void* memory, Report& report) {
        const Transform<T> transform(job);
        Plain::evaluate(transform.any() ? inner(job, false) : job, transform, begin, end, memory, report);
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
        const Transform<T> transform(job);
        if (!transform.any()) return run(job, memory);
        const int64_t classes = job.classes, elements = (end - begin) * classes;
        Scratch scratch(memory);
        T* scores = scratch.take<T>(elements);
        T* slope = transform.capped ? scratch.take<T>(elements) : nullptr;
        T* tanh = transform.capped ? scratch.take<T>(elements) : nullptr;
        const Rows<T> logits = rows_of<T>(job.logits, begin, end, classes, scratch);
        for (int64_t r = 0; r < end - begin; ++r) {
            const int64_t at = r * classes;
            transform.row(logits.row(r), 0, classes, scores + at, slope ? slope + at : nullptr, tanh ? tanh + at : nullptr);
        }
        Job own = inner(job, true);
        own.logits = {scores - begin * classes, classes, 1, type_of<T>};
        if (!slope) return run(own, scratch.rest());
        T* pulls = scratch.take<T>(elements);
        T* along_v = product ? scratch.take<T>(elements) : nullptr;
        Job first = inner(job, false);
        first.logits = own.logits;
        first.per_example = nullptr;
        first.out = pulls - begin * classes;
        first.out_stride = classes;
        Report unused;
        Plain::evaluate(first, {}, begin, end, scratch.rest(), unused);
        if (product) {
            const Rows<T> direction = rows_of<T>(job.direction, begin, end, classes, scratch);
            for (int64_t r = 0; r < end - begin; ++r) {
                along<T>(0, classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
                    const int64_t at = r * classes + k;
                    const V v = load<V>(direction.row(r) + k, part, T(0));
                    store<V>(pulls + at, part, load<V>(pulls + at, part, T(0)) * v);
                    store<V>(along_v + at, part, load<V>(slope + at, part, T(0)) * v);
                });
            }
            own.direction = {along_v - begin * classes, classes, 1, type_of<T>};
        }
        run(own, scratch.rest());
        for (int64_t r = 0; r < end - begin; ++r) {
            T* out = static_cast<T*>(job.out) + (begin + r) * job.out_stride;
            along<T>(0, classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
                const int64_t at = r * classes + k;
                const V f = load<V>(slope + at, part, T(0));
                const V pull = load<V>(pulls + at, part, T(0)), inner = load<V>(out + k, part, T(0));
                const V bent = transform.bend * load<V>(tanh + at, part, T(0)) * f * pull;
                const V h = product ? inner * f : inner * f * f;
                // in a row that does not count both are 0, whatever the logit
                store<V>(out + k, part, keep<V>((inner != T(0)) | (pull != T(0)), h + bent));
            });
        }
    }
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
