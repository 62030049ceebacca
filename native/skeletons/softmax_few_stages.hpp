// The stages of the softmax skeleton for few classes (softmax_few.hpp) that do not depend on the loss.
#pragma once

#include "simd/convert.hpp"
#include "simd/widen.hpp"
#include "skeletons/softmax_loss.hpp"
#include "skeletons/softmax_transform.hpp"

#if KULLBACK_HAS_SHUFFLES

namespace kullback {
namespace KULLBACK_LEVEL {

constexpr int few_classes = 256;  // beyond, a row alone fills the lanes well enough

// The number of a class, a lane per row.
template <class T>
using ClassNumbers = typename traits<Vector<T>>::integer;

template <class T>
KULLBACK_INLINE ClassNumbers<T> classes_in_lanes(const int32_t* y) {
    ClassNumbers<T> classes;
    if constexpr (sizeof(T) == 4) {
        std::memcpy(&classes, y, sizeof classes);
    } else {
        ShortVector<int32_t, lanes<T>> narrow;
        std::memcpy(&narrow, y, sizeof narrow);
        classes = __builtin_convertvector(narrow, decltype(classes));
    }
    return classes;
}

// table[at[0]], table[at[1]] and so on.
template <class T, int... J>
KULLBACK_INLINE Vector<T> look_up(const T* table, const int32_t* at, std::integer_sequence<int, J...>) {
    return Vector<T>{table[at[J]]...};
}
template <class T>
KULLBACK_INLINE Vector<T> look_up(const T* table, const int32_t* at) {
    return look_up<T>(table, at, std::make_integer_sequence<int, lanes<T>>{});
}

// As many numbers as there are lanes.
template <class T>
KULLBACK_INLINE Vector<T> in_lanes(const double* from) {
    return narrow(load<InDouble<T>>(from));
}

// Asks for as many rows as there are lanes.
template <class T>
KULLBACK_INLINE void prefetch_rows(const T* rows, int64_t stride, int64_t classes) {
    constexpr int64_t step = 64 / int64_t(sizeof(T));
    if (stride == classes) {
        for (int64_t line = 0; line < lanes<T> * classes; line += step) prefetch(rows + line);
        return;
    }
    for (int i = 0; i < lanes<T>; ++i) {
        for (int64_t line = 0; line < classes; line += step) prefetch(rows + i * stride + line);
    }
}

// Asks for the classes of rows that are not next.
inline void prefetch_classes(const IndexVector& v, int64_t begin, int64_t rows) {
    if (v.stride != 1) return;
    with_type(v.type, [&](auto sample) {
        const auto* from = static_cast<const decltype(sample)*>(v.data) + begin;
        for (int64_t i = 0; i < rows; i += 64 / int64_t(sizeof sample)) prefetch<2>(from + i);
    });
}

// How many groups before their use rows are asked for.
template <class T>
KULLBACK_INLINE int groups_ahead(int classes) {
    constexpr int bytes = 2048;
    return 1 + bytes / (lanes<T> * classes * int(sizeof(T)));
}

// How many vectors are kept between the stages below: 8 KiB of logits at most, so that they stay in the nearest cache.
template <class T>
constexpr int kept_vectors = 256;
constexpr int most_groups = 16;  // what is known of more groups would not leave room for their rows there

// What the first stage finds for a group of as many rows as there are lanes, each number a lane per row.
template <class T>
struct Group {
    using V = Vector<T>;
    ClassNumbers<T> target;
    V center;    // the largest logit, or 0 if that is -inf
    V misses;    // sum of exp over the classes that are no target
    V squares;   // sum of exp^2 over them, if the loss has a use for it
    V d_y, e_y;  // the target's logit relative to the largest, and its exp
    V weight, weighted, weight_sum, shift;
    V factor, unlifted_factor;  // of lifted exp and of exp itself, in the gradient
    V on_square;                // of the square of lifted exp
    V on_weight, at_class;
    V log_sum_exp, prediction;  // if the job wants them
};

// What a group knows of the second class of its rows, where they are mixtures of two.
template <class T>
struct SecondClass {
    using V = Vector<T>;
    ClassNumbers<T> target;
    V share;                              // of the first class
    V d_y, e_y, weight, shift, at_class;  // as in Group
};

// Calls body(k) for k in [begin, end), unrolled altogether where the number of classes C is known.
template <int C, class Body>
KULLBACK_INLINE void each_class(int begin, int end, Body body) {
    if constexpr (C > 0) {
#pragma GCC unroll 16
        for (int k = begin; k < end; ++k) body(k);
    } else {
#pragma GCC unroll 4
        for (int k = begin; k < end; ++k) body(k);
    }
}

// Calls run with the number of classes as a type, where that is worth a kernel of its own, or with 0.
template <class Run>
auto with_known_classes(int64_t classes, Run run) {
    switch (classes) {
        case 2: return run(std::integral_constant<int, 2>{});
        case 3: return run(std::integral_constant<int, 3>{});
        case 4: return run(std::integral_constant<int, 4>{});
        case 5: return run(std::integral_constant<int, 5>{});
        case 10: return run(std::integral_constant<int, 10>{});
    }
    return run(std::integral_constant<int, 0>{});
}
// The same of a loss: of cross-entropy alone, for code for every loss would take long to compile.
template <class Loss, class Run>
auto with_known_classes_of(int64_t classes, Run run) {
    if constexpr (Loss::linear) return with_known_classes(classes, run);
    return run(std::integral_constant<int, 0>{});
}

// The class with each row's largest logit, or -1: see softmax_statistics.hpp. Classes are numbered in T, which holds so
// few of them.
template <class T>
KULLBACK_INLINE Vector<T> largest_classes(const Vector<T>* columns, int classes) {
    using V = Vector<T>;
    V top = columns[0], at = V{}, number = V{}, odd = V{};
    each_class<0>(0, classes, [&](int k) KULLBACK_LAMBDA {
        const V x = columns[k];
        const Mask<V> higher = x > top;
        at = select<V>(higher, number, at);
        top = select<V>(higher, x, top);
        odd += select<V>(x < infinity<T>, V{}, splat<V>(T(1)));
        number += splat<V>(T(1));
    });
    return select<V>(odd == T(0), at, splat<V>(T(-1)));
}

// How much a kernel for one or two classes per row must know: nothing but logits, whose rows follow each other directly;
// also a temperature, class weights or shifts, transformed logits, rows with gaps, the largest logit's class; also the
// sums that smoothing needs.
enum class Extent { plain, scaled, spread };

// Several groups of rows on their way through the stages. They are handed on by value: results are stored between the
// uses of what is in here, and through a reference might be changing it.
template <class T>
struct FewRows {
    using V = Vector<T>;
    const T* z;  // logits
    T* g;        // their gradient, or null
    int64_t stride, g_stride;
    const int32_t *y, *second;  // classes; the second of mixtures
    int count, classes;
    const T *weight, *shift;  // (C,), or null
    T factor;                 // of the logits
    const Transform<T>* transform;
    bool predict;  // whether anyone wants to know the largest logit's class
    V *columns, *slopes;
    Group<T>* groups;
    SecondClass<T>* seconds;  // or null
};

// The largest logit in each lane, or 0 if that is -inf.
template <class T, int C>
KULLBACK_INLINE Vector<T> center_of(const Vector<T>* e, int dynamic_classes) {
    using V = Vector<T>;
    const int classes = C > 0 ? C : dynamic_classes;
    V top = e[0];
    each_class<C>(1, classes, [&](int k) KULLBACK_LAMBDA { top = larger<V>(e[k], top); });
    top = larger<V>(splat<V>(-infinity<T>), top);
    return select<V>(top > -infinity<T>, top, V{});
}

// One group of stage 1, in place; `second` only with Two.
template <class T, int C, Extent E, bool Squares, bool Two>
KULLBACK_INLINE void sum_group(const T* weight, int dynamic_classes, ClassNumbers<T> first_class, T factor, Vector<T>* e,
                               Group<T>& group, SecondClass<T>* second) {
    constexpr T unlift = Constants<T>::unlift;
    using V = Vector<T>;
    const int classes = C > 0 ? C : dynamic_classes;
    const V center = group.center;
    const auto target = group.target, other = Two ? second->target : target;
    auto class_here = first_class;
    V misses = V{}, squares = V{}, d_y = V{}, e_y = V{}, w_y = splat<V>(T(1)), weighted = V{}, weight_sum = V{};
    V d_z = V{}, e_z = V{}, w_z = w_y;
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
            V miss = keep<V>(!is_target, exp_d);
            if constexpr (Two) {
                const Mask<V> is_other = other == class_here - 1;
                miss = keep<V>(!is_other, miss);
                d_z = select<V>(is_other, d, d_z);
                e_z = select<V>(is_other, exp_d, e_z);
            }
            misses_here += miss;
            if constexpr (Squares) squares_here += miss * miss;
            d_y = select<V>(is_target, d, d_y);
            e_y = select<V>(is_target, exp_d, e_y);
            if constexpr (E == Extent::spread) {
                const V w = splat<V>(weight ? weight[k] : T(1));
                w_y = select<V>(is_target, w, w_y);
                if constexpr (Two) w_z = select<V>(other == class_here - 1, w, w_z);
                weighted_here += keep<V>(w != T(0), w * d);
                weight_sum += w;
            }
        });
        misses += misses_here;
        squares += squares_here;
        weighted += weighted_here;
    }
    group.misses = misses * unlift;
    if constexpr (Squares) group.squares = squares * (unlift * unlift);
    group.d_y = d_y;
    group.e_y = e_y * unlift;
    if constexpr (E == Extent::spread) {
        group.weight = w_y;
        group.weighted = weighted;
        group.weight_sum = weight_sum;
    }
    if constexpr (Two) {
        second->d_y = d_z;
        second->e_y = e_z * unlift;
        if constexpr (E == Extent::spread) second->weight = w_z;
    }
}

// One group of stage 3, perhaps in place.
template <class T, int C, Extent E, bool Squares, bool Two>
KULLBACK_INLINE void spread_group(const T* weight, int dynamic_classes, ClassNumbers<T> first_class,
                                  const Group<T>& group, const SecondClass<T>* second, bool tiny, Vector<T>* e,
                                  Vector<T>* to) {
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
        if constexpr (Two) g = select<V>(second->target == class_here, second->at_class, g);
        to[k] = select<V>(target == class_here, group.at_class, g);
        class_here += 1;
    });
}

template <class T>
KULLBACK_INLINE void weigh_targets(const FewRows<T>& rows, const int32_t* y, Vector<T>& weight, Vector<T>& shift) {
    weight = rows.weight ? look_up<T>(rows.weight, y) : splat<Vector<T>>(T(1));
    if (rows.shift) shift = look_up<T>(rows.shift, y);
}

// 0, which the compiler must not know: it would make the number of every class anew in every group.
template <class T, int C>
KULLBACK_INLINE ClassNumbers<T> first_class(const FewRows<T>& rows) {
    return ClassNumbers<T>{} + typename Constants<T>::Int(C > 0 ? rows.classes - C : 0);
}

template <class T, int C, Extent E, bool Squares, bool Two>
KULLBACK_INLINE void sum_groups(FewRows<T> rows) {
    using V = Vector<T>;
    constexpr int W = lanes<T>;
    const int classes = C > 0 ? C : rows.classes;
    constexpr bool plain = E == Extent::plain;
    const int64_t stride = plain ? classes : rows.stride, g_stride = plain ? classes : rows.g_stride;
    const ClassNumbers<T> first = first_class<T, C>(rows);
    const int ahead = groups_ahead<T>(classes);
    const auto prepare = [&](int i) KULLBACK_LAMBDA {
        V* e = rows.columns + i * classes;
        Group<T>& group = rows.groups[i];
        SecondClass<T>* second = Two ? rows.seconds + i : nullptr;
        const int32_t* y = rows.y + i * W;
        // rows to come, and the lines that stage 3 will overwrite, come from memory while exp keeps the processor busy
        prefetch_rows<T>(rows.z + (i + ahead) * W * stride, stride, classes);
        if (rows.g) prefetch_rows<T>(rows.g + i * W * g_stride, g_stride, classes);
        load_columns<T>(rows.z + i * W * stride, stride, classes, e);
        group.target = classes_in_lanes<T>(y);
        if constexpr (Two) second->target = classes_in_lanes<T>(rows.second + i * W);
        if constexpr (!plain) {
            if (rows.predict) group.prediction = largest_classes<T>(e, classes);
            if (rows.transform) rows.transform->columns(e, classes, rows.slopes + i * classes);
        }
        if constexpr (E == Extent::scaled) {
            // the weights of other classes do not matter
            weigh_targets(rows, y, group.weight, group.shift);
            if constexpr (Two) weigh_targets(rows, rows.second + i * W, second->weight, second->shift);
        }
        group.center = center_of<T, C>(e, classes);
    };
    const auto sum = [&](int i) KULLBACK_LAMBDA {
        sum_group<T, C, E, Squares, Two>(rows.weight, classes, first, rows.factor, rows.columns + i * classes,
                                         rows.groups[i], Two ? rows.seconds + i : nullptr);
    };
    // the next group's columns and the largest of them are on their way while this one's exp are computed
    prepare(0);
    for (int i = 0; i < rows.count; ++i) {
        if (i + 1 < rows.count) prepare(i + 1);
        sum(i);
    }
}

template <class T, int C, Extent E, bool Squares, bool Two>
KULLBACK_INLINE void spread_groups(FewRows<T> rows, bool tiny) {
    using V = Vector<T>;
    const int classes = C > 0 ? C : rows.classes;
    const int64_t g_stride = E == Extent::plain ? classes : rows.g_stride;
    const ClassNumbers<T> first = first_class<T, C>(rows);
    for (int i = 0; i < rows.count; ++i) {
        V* e = rows.columns + i * classes;
        V in_registers[C > 0 ? C : 1];
        V* gradient = C > 0 ? in_registers : e;
        spread_group<T, C, E, Squares, Two>(rows.weight, classes, first, rows.groups[i],
                                            Two ? rows.seconds + i : nullptr, tiny, e, gradient);
        if constexpr (E != Extent::plain) {
            if (rows.transform && rows.transform->capped) {
                const V* slope = rows.slopes + i * classes;
                for (int k = 0; k < classes; ++k) gradient[k] *= slope[k];
            }
        }
        store_columns<T>(rows.g + i * lanes<T> * g_stride, g_stride, classes, gradient);
    }
}

// Stage 1: columns of logits to lifted exp relative to each row's largest, and their sums. Stage 3: lifted exp to
// gradient; where a factor is `tiny`, which means subnormal, and so coarse, the lift is taken back first. Both are the
// same for all losses, and so compiled once, in softmax_few.cpp.
template <class T>
struct FewStages {
    void (*sum)(FewRows<T>);
    void (*spread)(FewRows<T>, bool tiny);
};

// How many classes are worth a kernel with loops unrolled.
constexpr int most_unrolled = 10;

template <class T>
FewStages<T> few_stages(int64_t classes, Extent extent, bool squares, bool two);

}  // namespace KULLBACK_LEVEL
}  // namespace kullback

#endif
