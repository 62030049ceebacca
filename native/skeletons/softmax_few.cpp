// The stages of softmax_few_stages.hpp for all losses, once for each number of classes whose loops are worth
// unrolling.
#include "skeletons/softmax_few_stages.hpp"

#if KULLBACK_HAS_SHUFFLES

namespace kullback {
namespace KULLBACK_LEVEL {

template <class T, Layout L, int C, Extent E, bool Squares, bool Two>
constexpr FewStages<T> stages = {&sum_groups<T, L, C, E, Squares, Two>, &spread_groups<T, L, C, E, Squares, Two>};

template <class T, Extent E, bool Squares, bool Two, int C = most_unrolled>
FewStages<T> stages_of(int64_t classes) {
    if constexpr (C > 1) {
        if (classes != C) return stages_of<T, E, Squares, Two, C - 1>(classes);
        return stages<T, Layout::columns, C, E, Squares, Two>;
    } else {
        if (layout_of(classes) == Layout::rows) return stages<T, Layout::rows, 0, E, Squares, Two>;
        return stages<T, Layout::columns, 0, E, Squares, Two>;
    }
}

template <class T>
FewStages<T> few_stages(int64_t classes, Extent extent, bool squares, bool two) {
    if (extent == Extent::spread) {
        return two ? stages_of<T, Extent::spread, false, true>(classes) : stages_of<T, Extent::spread, false, false>(classes);
    }
    if (extent == Extent::scaled) {
        if (squares) return stages_of<T, Extent::scaled, true, false>(classes);
        return two ? stages_of<T, Extent::scaled, false, true>(classes) : stages_of<T, Extent::scaled, false, false>(classes);
    }
    if (squares) return stages_of<T, Extent::plain, true, false>(classes);
    return two ? stages_of<T, Extent::plain, false, true>(classes) : stages_of<T, Extent::plain, false, false>(classes);
}

template FewStages<float> few_stages<float>(int64_t, Extent, bool, bool);
template FewStages<double> few_stages<double>(int64_t, Extent, bool, bool);

}  // namespace KULLBACK_LEVEL
}  // namespace kullback

#endif
