// What the softmax skeleton asks of a loss. V is a vector (a lane per row) or one number.
//
// A loss is a struct built from the Job with a `name`, spreads() and two functions:
//
//   at_class(y): the loss of a row whose target is one class, as the scalars of its gradient
//       g = on_p * p + on_weight * w + (the element of class y, given whole and free of cancellation)
//   at_mass(log_p, mass): the loss as a sum over classes of f(log p_k, s_k): f and its derivative in log p_k, for
//       rows of soft targets. mass is the effective target s_k = w_k ((1 - e) t_k + e/C sum t).
//
// spreads() says whether smoothing puts mass on every class; only then are w_k-weighted sums over the row made.
// Weights, scale and temperature are applied by the skeleton: derivatives here are in z / T.
#pragma once

#include "common/api.hpp"
#include "simd/elementary.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

template <class V>
struct TargetClass {
    V log_p, p, miss;  // log p_y, p_y and 1 - p_y, each to full relative precision
    V weight;          // w_y
    V weighted_log_p;  // sum_k w_k log p_k if the loss spreads(), else 0
};

template <class V>
struct RowGradient {
    V loss, on_p, on_weight, at_class;
};

template <class V>
struct Element {
    V value, first;
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
