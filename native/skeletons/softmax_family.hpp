// What a file of losses/softmax/ ends with: KULLBACK_SOFTMAX_LOSS(file name, struct). The build compiles every file of
// that folder once per instruction level and makes the list that levels/kernels.cpp reads; the file's name is the
// loss' name.
//
// The table is a constant: code that runs while the module is loaded might have instructions this processor lacks.
#pragma once

#include "skeletons/softmax.hpp"
#include "skeletons/softmax_options.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

template <class T, class Loss>
constexpr PrecisionKernels softmax_kernels() {
    using Rows = WithOptions<T, Loss, SoftmaxRows>;
    return {&Rows::evaluate, &Rows::hessian_product, &Rows::hessian_diagonal};
}

#define KULLBACK_SOFTMAX_LOSS(file, Loss)                                                                     \
    extern const Family softmax_##file;                                                                       \
    constexpr Family softmax_##file = {#file, softmax_kernels<float, Loss>(), softmax_kernels<double, Loss>(), \
                                       !Loss::linear};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
