// The kernels of losses of a row's numbers as they are, for one instruction level; see kernels.cpp, whose rules hold
// here too.
#include "losses/given_probabilities.hpp"
#include "losses/negative_log_likelihood.hpp"
#include "losses/penalties.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {
namespace {

template <class T, class Loss>
constexpr PrecisionKernels kernels_of() {
    using Rows = PlainRows<T, Loss>;
    return {&Rows::evaluate, &Rows::hessian_product, &Rows::hessian_diagonal};
}
template <class Loss>
constexpr Family family_of() {
    return {Loss::name, kernels_of<float, Loss>(), kernels_of<double, Loss>(), true, false};
}

}  // namespace

// A new loss is one header in losses/, one line here, one in kernels.cpp's list, and one more of plain_family_count.
extern const Family plain_families[plain_family_count];
const Family plain_families[plain_family_count] = {
    family_of<NegativeLogLikelihood>(),
    family_of<GivenProbabilities>(),
    family_of<ScorePenalty<AbsoluteScore>>(),
    family_of<ScorePenalty<SquaredScore>>(),
    family_of<NegativeEntropy>(),
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
