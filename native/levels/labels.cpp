// The kernels for independent labels, for one instruction level; see kernels.cpp, whose rules hold here too.
#include "losses/asymmetric.hpp"
#include "losses/binary_cross_entropy.hpp"
#include "losses/label_entropy.hpp"
#include "losses/sigmoid_brier.hpp"
#include "losses/sigmoid_focal.hpp"
#include "skeletons/sigmoid.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {
namespace {

template <class T, class Loss>
constexpr PrecisionKernels kernels_of() {
    using Rows = LabelLoss<T, Loss>;
    return {&Rows::evaluate, &Rows::hessian, &Rows::hessian};
}
template <class Loss>
constexpr Family family_of() {
    return {Loss::name, kernels_of<float, Loss>(), kernels_of<double, Loss>()};
}

// A new loss is one header in losses/ and one line here.
constexpr Family families[] = {
    family_of<BinaryCrossEntropy>(),
    family_of<SigmoidFocal>(),
    family_of<Asymmetric>(),
    family_of<SigmoidBrier>(),
    family_of<LabelEntropy>(),
};

}  // namespace

extern const LabelKernels label_kernels;
const LabelKernels label_kernels = {
    families,
    int(sizeof families / sizeof *families),
    &sigmoid_targets,
    {&sigmoid_probabilities<float>, &sigmoid_probabilities<double>},
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
