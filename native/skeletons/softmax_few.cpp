// The stages of softmax_few.hpp that do not depend on the loss, once for each number of classes whose loops are worth
// unrolling.
#include "skeletons/softmax_few.hpp"

#if KULLBACK_HAS_SHUFFLES

namespace kullback {
namespace KULLBACK_LEVEL {

// One group of stage 1, in place.
template <class T, int C, Extent E, bool Squares>
KULLBACK_INLINE void sum_group(const T* weight, int dynamic_classes, ClassNumbers<T> first_class, T factor, Vector<T>* e,
                               Group<T>& group) {
    constexpr T unlift = Constants<T>::unlift;
    using V = Vector<T>;
    const int classes = C > 0 ? C : dynamic_classes;
    V top = e[0];
    each_class<C>(1, classes, [&](int k) KULLBACK_LAMBDA { top = larger<V>(e[k], top); });
    top = larger<V>(splat<V>(-infinity<T>), top);
    const V center = select<V>(top > -infinity<T>, top, V{});
    const auto target = group.target;
    auto class_here = first_class;
    V misses = V{}, squares = V{}, d_y = V{}, e_y = V{}, w_y = splat<V>(T(1)), weighted = V{}, weight_sum = V{};
    for (int begin = 0; begin < classes; begin += 16) {
        // sums of sums: rounding grows with 16 + C/16 terms and not with C
        const int end = begin + 16 < classes ? begin + 16 : classes;
        V misses_here = V{}, squares_here = V{}, weighted_here = V{};
        each_class<C>(begin, end, [&](int k) KULLBACK_LAMBDA {
            const V above = e[k] - center, d = E == Extent::plain ? above : above * factor;
            const V exp_d = exp_lifted<V>(d);
            e[k] = exp_d;
            const Mask<V> is_target = target == class_here;
            class_here += 1;
            const V miss = keep<V>(!is_target, exp_d);
            misses_here += miss;
            if constexpr (Squares) squares_here += miss * miss;
            d_y = select<V>(is_target, d, d_y);
            e_y = select<V>(is_target, exp_d, e_y);
            if constexpr (E == Extent::spread) {
                const V w = splat<V>(weight ? weight[k] : T(1));
                w_y = select<V>(is_target, w, w_y);
                weighted_here += keep<V>(w != T(0), w * d);
                weight_sum += w;
            }
        });
        misses += misses_here;
        squares += squares_here;
        weighted += weighted_here;
    }
    group.center = center;
    group.misses = misses * unlift;
    if constexpr (Squares) group.squares = squares * (unlift * unlift);
    group.d_y = d_y;
    group.e_y = e_y * unlift;
    if constexpr (E == Extent::spread) {
        group.weight = w_y;
        group.weighted = weighted;
        group.weight_sum = weight_sum;
    }
}

// One group of stage 3, perhaps in place.
template <class T, int C, Extent E, bool Squares>
KULLBACK_INLINE void spread_group(const T* weight, int dynamic_classes, ClassNumbers<T> first_class,
                                  const Group<T>& group, bool tiny, Vector<T>* e, Vector<T>* to) {
    using V = Vector<T>;
    constexpr T unlift = Constants<T>::unlift;
    const int classes = C > 0 ? C : dynamic_classes;
    constexpr T lift = 1 / unlift;
    V factor = group.factor, square = Squares ? group.on_square : V{};
    if (tiny) {
        factor = group.unlifted_factor;
        square = square * (lift * lift);
        for (int k = 0; k < classes; ++k) e[k] = e[k] * unlift;
    }
    const auto target = group.target;
    auto class_here = first_class;
    each_class<C>(0, classes, [&](int k) KULLBACK_LAMBDA {
        V g = Squares ? e[k] * (e[k] * square + factor) : e[k] * factor;
        if constexpr (E == Extent::spread) g += group.on_weight * (weight ? weight[k] : T(1));
        to[k] = select<V>(target == class_here, group.at_class, g);
        class_here += 1;
    });
}

// 0, which the compiler must not know: it would make the number of every class anew in every group.
template <class T, int C>
KULLBACK_INLINE ClassNumbers<T> first_class(const FewRows<T>& rows) {
    return ClassNumbers<T>{} + typename Constants<T>::Int(C > 0 ? rows.classes - C : 0);
}

template <class T, int C, Extent E, bool Squares>
void sum_groups(const FewRows<T>& rows) {
    using V = Vector<T>;
    constexpr int W = lanes<T>;
    const int classes = C > 0 ? C : rows.classes;
    const int64_t stride = C > 0 ? C : rows.stride, g_stride = C > 0 ? C : rows.g_stride;
    const ClassNumbers<T> first = first_class<T, C>(rows);
    const int ahead = groups_ahead<T>(classes);
    for (int i = 0; i < rows.count; ++i) {
        V* e = rows.columns + i * classes;
        Group<T>& group = rows.groups[i];
        const int32_t* y = rows.y + i * W;
        // rows to come, and the lines that stage 3 will overwrite, come from memory while exp keeps the processor busy
        prefetch_rows<T>(rows.z + (i + ahead) * W * stride, stride, classes);
        if (rows.g) prefetch_rows<T>(rows.g + i * W * g_stride, g_stride, classes);
        load_columns<T>(rows.z + i * W * stride, stride, classes, e);
        group.target = classes_in_lanes<T>(y);
        if constexpr (C == 0) {
            if (rows.predict) group.prediction = largest_classes<T>(e, classes);
            if (rows.transform) rows.transform->columns(e, classes, rows.slopes + i * classes);
        }
        if constexpr (E == Extent::scaled) {
            // the weights of other classes do not matter
            group.weight = splat<V>(T(1));
            for (int j = 0; rows.weight && j < W; ++j) lane(group.weight, j) = rows.weight[y[j]];
            for (int j = 0; rows.shift && j < W; ++j) lane(group.shift, j) = rows.shift[y[j]];
        }
        sum_group<T, C, E, Squares>(rows.weight, classes, first, rows.factor, e, group);
    }
}

template <class T, int C, Extent E, bool Squares>
void spread_groups(const FewRows<T>& rows, bool tiny) {
    using V = Vector<T>;
    const int classes = C > 0 ? C : rows.classes;
    const int64_t g_stride = C > 0 ? C : rows.g_stride;
    const ClassNumbers<T> first = first_class<T, C>(rows);
    for (int i = 0; i < rows.count; ++i) {
        V* e = rows.columns + i * classes;
        V in_registers[C > 0 ? C : 1];
        V* gradient = C > 0 ? in_registers : e;
        spread_group<T, C, E, Squares>(rows.weight, classes, first, rows.groups[i], tiny, e, gradient);
        if constexpr (C == 0) {
            const V* slope = rows.slopes + i * classes;
            for (int k = 0; rows.transform && rows.transform->capped && k < classes; ++k) e[k] *= slope[k];
        }
        store_columns<T>(rows.g + i * lanes<T> * g_stride, g_stride, classes, gradient);
    }
}

template <class T, Extent E, bool Squares>
FewStages<T> stages_of(int64_t classes) {
    switch (classes) {
#define KULLBACK_CLASSES(C) \
    case C: return {&sum_groups<T, C, E, Squares>, &spread_groups<T, C, E, Squares>};
        KULLBACK_CLASSES(2)
        KULLBACK_CLASSES(3)
        KULLBACK_CLASSES(4)
        KULLBACK_CLASSES(5)
        KULLBACK_CLASSES(6)
        KULLBACK_CLASSES(7)
        KULLBACK_CLASSES(8)
        KULLBACK_CLASSES(9)
        KULLBACK_CLASSES(10)
#undef KULLBACK_CLASSES
    }
    return {&sum_groups<T, 0, E, Squares>, &spread_groups<T, 0, E, Squares>};
}

template <class T>
FewStages<T> few_stages(int64_t classes, Extent extent, bool squares) {
    switch (extent) {
        case Extent::plain:
            return squares ? stages_of<T, Extent::plain, true>(classes) : stages_of<T, Extent::plain, false>(classes);
        case Extent::scaled:
            return squares ? stages_of<T, Extent::scaled, true>(classes) : stages_of<T, Extent::scaled, false>(classes);
        default:
            // its sums of two products may be rounded in either order, which must be the same for rows with gaps
            return stages_of<T, Extent::spread, false>(0);
    }
}

template FewStages<float> few_stages<float>(int64_t, Extent, bool);
template FewStages<double> few_stages<double>(int64_t, Extent, bool);

}  // namespace KULLBACK_LEVEL
}  // namespace kullback

#endif
