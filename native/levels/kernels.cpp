// All kernels but those of the softmax losses, which have a file each in losses/softmax/, and those of labels.cpp and
// plain.cpp; and the list of all. For one instruction level: this file is compiled once per level (see CMakeLists.txt).
//
// Nothing here may call a non-inlined function template of the standard library: the linker would keep one copy of
// it for all levels, perhaps the one with instructions that this processor lacks.
#include "half/bfloat16.hpp"
#include "linear/descent.hpp"
#include "linear/pass.hpp"
#include "losses/hinges.hpp"
#include "simd/few_steps.hpp"
#include "skeletons/margin.hpp"
#include "skeletons/plain.hpp"
#include "skeletons/softmax.hpp"
#include "skeletons/softmax_probabilities.hpp"
#include "sparse/csr.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

#define KULLBACK_FAMILY(name) extern const Family softmax_##name;
#include "softmax_losses.inc"
#undef KULLBACK_FAMILY
extern const Family plain_families[plain_family_count];  // plain.cpp

namespace {

template <template <class, class> class Rows, class T, class Loss>
constexpr PrecisionKernels kernels_of() {
    return {&Rows<T, Loss>::evaluate, &Rows<T, Loss>::hessian_product, &Rows<T, Loss>::hessian_diagonal};
}
template <class Loss>
constexpr Family margin_family() {
    return {Loss::name, kernels_of<MarginRows, float, Loss>(), kernels_of<MarginRows, double, Loss>(), true, false};
}

constexpr Family margin_families[] = {margin_family<WestonWatkins>(), margin_family<CrammerSinger>()};
// A new softmax loss is a file in losses/softmax/; a new hinge is one header in losses/ and one line here.
constexpr const Family* row_families[] = {
#define KULLBACK_FAMILY(name) &softmax_##name,
#include "softmax_losses.inc"
#undef KULLBACK_FAMILY
    &margin_families[0],
    &margin_families[1],
    &plain_families[0],
    &plain_families[1],
    &plain_families[2],
    &plain_families[3],
    &plain_families[4],
};

// For the tests of simd/elementary.hpp and simd/few_steps.hpp.
template <class T>
void elementary(int which, const void* in, void* out, int64_t n) {
    const T* x = static_cast<const T*>(in);
    T* y = static_cast<T*>(out);
    along<T>(0, n, [&](int64_t k, auto part) KULLBACK_LAMBDA {
        const auto v = load<Vector<T>>(x + k, part, T(1));
        using V = Vector<T>;
        store<V>(y + k, part, which == 0   ? exp_nonpositive<V>(v)
                              : which == 1 ? log1p_nonnegative<V>(v)
                              : which == 2 ? log1p_to_one<V>(v)
                              : which == 3 ? log_to_one<V>(v)
                              : which == 4 ? exp_in_few_steps<V>(v)
                                           : log1p_in_few_steps<V>(v));
    });
}

#define KULLBACK_TEXT(x) #x
#define KULLBACK_NAME(x) KULLBACK_TEXT(x)

}  // namespace

extern const LabelKernels label_kernels;  // labels.cpp
extern const Level level;
const Level level = {
    KULLBACK_NAME(KULLBACK_LEVEL),
    row_families,
    int(sizeof row_families / sizeof *row_families),
    &softmax_targets,
    {&softmax_probabilities<float>, &softmax_probabilities<double>},
    &label_kernels,
    {&csr_product<float>, &csr_product<double>},
    {&csr_transposed<float>, &csr_transposed<double>},
    &descent,
    {pass_kernels<float>(), pass_kernels<double>()},
    {&elementary<float>, &elementary<double>},
    &widen_bfloat16,
    &narrow_bfloat16,
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
