// What may be done to logits before the softmax besides dividing them by T: u = cap tanh(z / cap) / T + offset.
//
// The logits of a few rows, or a piece of one, are transformed while they are in the nearest cache, right before exp is
// taken of them. The cap's slope waits beside them and multiplies the gradient before it is written. A logit of -inf
// stays a masked class.
#pragma once

#include "simd/convert.hpp"
#include "simd/elementary.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

template <class T>
struct Transform {
    using V = Vector<T>;

    const T* offset = nullptr;  // of each class, or null
    bool capped = false;
    T factor = 1;              // 1 / T, where there is no cap
    T narrow = 0, reach = 0;   // 1 / cap and cap / T
    T bend = 0;                // the slope's own slope is bend * tanh * slope

    Transform() = default;
    explicit Transform(const Job& job)
        : offset(static_cast<const T*>(job.offset)), capped(job.softcap > 0), factor(T(job.inverse_temperature)) {
        if (!capped) return;
        narrow = T(1 / job.softcap);
        bend = T(-2 / job.softcap);
        reach = T(job.softcap * job.inverse_temperature);
    }
    bool any() const { return offset || capped; }

    // Elements [begin, end) of one row; `slope` and `tanh`, used only with a cap, may be null. Returns the largest result.
    T row(const T* z, int64_t begin, int64_t end, T* u, T* slope, T* tanh) const;
    // What becomes of logit z of class k.
    T score(T z, int64_t k) const;
    // In place, a vector per class; `slope` likewise.
    void columns(V* z, int classes, V* slope) const;
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
