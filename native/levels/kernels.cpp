// All kernels, for one instruction level: this file is compiled once per level (see CMakeLists.txt).
//
// Nothing here may call a non-inlined function template of the standard library: the linker would keep one copy of
// it for all levels, perhaps the one with instructions that this processor lacks.
#include "half/bfloat16.hpp"
#include "losses/asymmetric.hpp"
#include "losses/binary_cross_entropy.hpp"
#include "losses/cross_entropy.hpp"
#include "losses/focal.hpp"
#include "losses/generalised_cross_entropy.hpp"
#include "losses/hinges.hpp"
#include "losses/poly.hpp"
#include "losses/sigmoid_brier.hpp"
#include "losses/smoothed_zero_one.hpp"
#include "skeletons/margin.hpp"
#include "skeletons/sigmoid.hpp"
#include "skeletons/softmax.hpp"
#include "skeletons/true_class.hpp"
#include "sparse/csr.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {
namespace {

template <template <class, class> class Rows, class T, class Loss>
constexpr PrecisionKernels kernels_of() {
    return {&Rows<T, Loss>::evaluate, &Rows<T, Loss>::hessian_product, &Rows<T, Loss>::hessian_diagonal};
}
template <class Loss>
constexpr Family softmax_family() {
    return {Loss::name, kernels_of<SoftmaxRows, float, Loss>(), kernels_of<SoftmaxRows, double, Loss>()};
}
template <class Loss>
constexpr Family true_class_family() {
    return {Loss::name, kernels_of<TrueClassRows, float, Loss>(), kernels_of<TrueClassRows, double, Loss>()};
}
template <class Loss>
constexpr Family margin_family() {
    return {Loss::name, kernels_of<MarginRows, float, Loss>(), kernels_of<MarginRows, double, Loss>()};
}
template <class Loss>
constexpr Family sigmoid_family() {
    return {Loss::name, kernels_of<SigmoidRows, float, Loss>(), kernels_of<SigmoidRows, double, Loss>()};
}

// A new loss is one header in losses/ and one line here.
constexpr Family softmax_families[] = {
    softmax_family<CrossEntropy>(),
    true_class_family<Focal>(),
    true_class_family<GeneralisedCrossEntropy>(),
    true_class_family<Poly>(),
    true_class_family<SmoothedZeroOne>(),
    margin_family<WestonWatkins>(),
    margin_family<CrammerSinger>(),
};
constexpr Family sigmoid_families[] = {
    sigmoid_family<BinaryCrossEntropy>(),
    sigmoid_family<SigmoidFocal>(),
    sigmoid_family<Asymmetric>(),
    sigmoid_family<SigmoidBrier>(),
};

// For the tests of simd/elementary.hpp.
template <class T>
void elementary(int which, const void* in, void* out, int64_t n) {
    const T* x = static_cast<const T*>(in);
    T* y = static_cast<T*>(out);
    along<T>(0, n, [&](int64_t k, auto part) KULLBACK_LAMBDA {
        const auto v = load<Vector<T>>(x + k, part, T(0));
        store<Vector<T>>(y + k, part, which == 0 ? exp_nonpositive<Vector<T>>(v) : log1p_nonnegative<Vector<T>>(v));
    });
}

#define KULLBACK_TEXT(x) #x
#define KULLBACK_NAME(x) KULLBACK_TEXT(x)

}  // namespace

extern const Level level;
const Level level = {
    KULLBACK_NAME(KULLBACK_LEVEL),
    softmax_families,
    int(sizeof softmax_families / sizeof *softmax_families),
    sigmoid_families,
    int(sizeof sigmoid_families / sizeof *sigmoid_families),
    &softmax_targets,
    &sigmoid_targets,
    {&softmax_probabilities<float>, &softmax_probabilities<double>},
    {&sigmoid_probabilities<float>, &sigmoid_probabilities<double>},
    {&csr_product<float>, &csr_product<double>},
    {&csr_transposed<float>, &csr_transposed<double>},
    {&elementary<float>, &elementary<double>},
    &widen_bfloat16,
    &narrow_bfloat16,
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
