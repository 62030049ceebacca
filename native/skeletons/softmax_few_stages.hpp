// The stages of the softmax skeleton for few classes (softmax_few.hpp) that do not depend on the loss.
#pragma once

#include "skeletons/softmax_few_lines.hpp"
#include "skeletons/softmax_loss.hpp"
#include "skeletons/softmax_statistics.hpp"

#if KULLBACK_HAS_SHUFFLES

namespace kullback {
namespace KULLBACK_LEVEL {

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

// What the stages ask memory for on a group's way: what its gradient will overwrite, and what a later group is made of.
template <class T>
struct Ahead {
    Rows<T> result, logits, targets;
};

// For a group with these logits, targets and gradient, of which the last two may be null. Where lines are rows the later
// group is `count` further on, in the place of this one when the stages come round again.
template <class T, Layout L, int C>
KULLBACK_INLINE Ahead<T> look_ahead(const Lines<T, L, C>& lines, int count, Rows<T> z, Rows<T> t, Rows<T> g) {
    const int classes = lines.classes();
    const auto later = [&](const Rows<T>& rows, int groups) KULLBACK_LAMBDA {
        const Rows<T> wanted{rows.row(groups * lanes<T>), rows.stride};
        if (L == Layout::rows || rows.stride == classes) return wanted;
        prefetch_rows<T>(wanted.data, wanted.stride, classes);
        return z;
    };
    constexpr int bytes = 2048;  // that columns are ahead, with the group's own
    if (L == Layout::columns) count = 1 + bytes / (lanes<T> * classes * int(sizeof(T)));
    const Rows<T> logits = later(z, count);
    return {g.data ? later(g, 0) : logits, logits, t.data ? later(t, count) : logits};
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
    V weight, weighted, shift;
    V factor, unlifted_factor;  // of lifted exp and of exp itself, in the gradient
    V on_square;                // of the square of lifted exp
    V on_weight, at_class;
    V log_sum_exp, prediction;  // if the job wants them
    Ahead<T> ahead;
};

// What a group knows of the second class of its rows, where they are mixtures of two.
template <class T>
struct SecondClass {
    using V = Vector<T>;
    ClassNumbers<T> target;
    V share;                              // of the first class
    V d_y, e_y, weight, shift, at_class;  // as in Group
};

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

// Calls run with that number and the layout for it.
template <class T, class Run>
auto with_layout(int64_t classes, Run run) {
    if (layout_of(classes) == Layout::rows) {
        return run(std::integral_constant<int, 0>{}, std::integral_constant<Layout, Layout::rows>{});
    }
    return with_known_classes(classes, [&](auto known) {
        return run(known, std::integral_constant<Layout, Layout::columns>{});
    });
}
template <class T, class Loss, class Run>
auto with_layout_of(int64_t classes, Run run) {
    if constexpr (Loss::linear) return with_layout<T>(classes, run);
    const std::integral_constant<int, 0> any{};
    if (layout_of(classes) == Layout::rows) return run(any, std::integral_constant<Layout, Layout::rows>{});
    return run(any, std::integral_constant<Layout, Layout::columns>{});
}

// The class with each row's largest logit, or -1: see softmax_statistics.hpp. Classes are numbered in T, which holds so
// few of them.
template <class T, Layout L, int C>
KULLBACK_INLINE Vector<T> largest_classes(const Lines<T, L, C>& lines, const Rows<T>& rows, const Vector<T>* columns) {
    using V = Vector<T>;
    if constexpr (L == Layout::rows) {
        V classes = V{};
        for (int j = 0; j < lines.count; ++j) lane(classes, j) = T(largest_class<T>(rows.row(j), lines.classes()));
        return classes;
    } else {
        V top = columns[0], at = V{}, number = V{}, odd = V{};
        each_class<0>(0, lines.classes(), [&](int k) KULLBACK_LAMBDA {
            const V x = columns[k];
            const Mask<V> higher = x > top;
            at = select<V>(higher, number, at);
            top = select<V>(higher, x, top);
            odd += select<V>(x < infinity<T>, V{}, splat<V>(T(1)));
            number += splat<V>(T(1));
        });
        return select<V>(odd == T(0), at, splat<V>(T(-1)));
    }
}

// Transforms rows of logits into lines, or columns in place; with a cap its slopes go to `slopes`.
template <class T, Layout L, int C>
KULLBACK_INLINE void transform_lines(const Lines<T, L, C>& lines, const Transform<T>& transform, const Rows<T>& rows,
                                     Vector<T>* to, Vector<T>* slopes) {
    if constexpr (L == Layout::rows) {
        for (int j = 0; j < lines.count; ++j) {
            const int at = j * lines.length();
            transform.row(rows.row(j), 0, lines.classes(), reinterpret_cast<T*>(to + at),
                          reinterpret_cast<T*>(slopes + at), nullptr);
        }
    } else {
        transform.columns(to, lines.classes(), slopes);
    }
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

// One group of stage 1; `second` only with Two. Logits are in `rows`, or in the place of exp.
template <class T, Layout L, int C, Extent E, bool Squares, bool Two>
KULLBACK_INLINE void sum_group(Lines<T, L, C> lines, const T* weight, ClassNumbers<T> first_class, T factor, Rows<T> rows,
                               Vector<T>* exps, Group<T>& group, SecondClass<T>* second) {
    constexpr T unlift = Constants<T>::unlift;
    using V = Vector<T>;
    constexpr int count = Lines<T, L, C>::count;
    constexpr bool plain = E == Extent::plain;
    V misses[count], squares[count], weighted[count];
    const Ahead<T> ahead = group.ahead;
    V d_y = V{}, e_y = V{}, d_z = V{}, e_z = V{};
    if constexpr (L == Layout::rows) {  // exp may take the logits' place
        const auto relative = [&](const auto& classes) KULLBACK_LAMBDA {
            const V d = lines.at_classes(classes, [&](int j, int y) KULLBACK_LAMBDA { return rows.row(j)[y]; }) - group.center;
            return plain ? d : d * factor;
        };
        d_y = relative(group.target);
        if constexpr (Two) d_z = relative(second->target);
    }
    for (int j = 0; j < count; ++j) {
        const V center = lines.of_line(group.center, j);
        const auto target = lines.of_line(group.target, j), other = Two ? lines.of_line(second->target, j) : target;
        V* e = exps + j * lines.length();
        auto classes_here = first_class;
        V misses_of_row = V{}, squares_of_row = V{}, weighted_of_row = V{};
        lines.by_sixteen([&](int begin, int end) KULLBACK_LAMBDA {
            V misses_here = V{}, squares_here = V{}, weighted_here = V{};
            lines.each(begin, end, [&](int k, int at, auto part) KULLBACK_LAMBDA {
                const V above = lines.read(rows, j, e, k, at, part, -infinity<T>) - center, d = plain ? above : above * factor;
                const V exp_d = inside_row(exp_lifted<V>(d), part);
                e[at] = exp_d;
                lines.ask_for(ahead.result, j, at);
                lines.template ask_for<lines.early>(ahead.logits, j, at);
                const Mask<V> is_target = target == classes_here;
                V miss = keep<V>(!is_target, exp_d);
                if constexpr (Two) {
                    const Mask<V> is_other = other == classes_here;
                    miss = keep<V>(!is_other, miss);
                    if constexpr (L == Layout::columns) {
                        d_z = select<V>(is_other, d, d_z);
                        e_z = select<V>(is_other, exp_d, e_z);
                    }
                }
                misses_here += miss;
                if constexpr (Squares) squares_here += miss * miss;
                if constexpr (L == Layout::columns) {
                    d_y = select<V>(is_target, d, d_y);
                    e_y = select<V>(is_target, exp_d, e_y);
                }
                if constexpr (E == Extent::spread) {
                    const V w = weight ? lines.of_classes(weight, k, part) : splat<V>(T(1));
                    weighted_here += keep<V>(w != T(0), inside_row(w * d, part));
                }
                classes_here += lines.step;
            });
            misses_of_row += misses_here;
            squares_of_row += squares_here;
            weighted_of_row += weighted_here;
        });
        misses[j] = misses_of_row;
        squares[j] = squares_of_row;
        weighted[j] = weighted_of_row;
    }
    if constexpr (L == Layout::rows) {
        e_y = lines.at_classes(group.target, [&](int j, int y) KULLBACK_LAMBDA { return lines.in_line(exps, j, y); });
        if constexpr (Two) {
            e_z = lines.at_classes(second->target, [&](int j, int y) KULLBACK_LAMBDA { return lines.in_line(exps, j, y); });
        }
    }
    group.misses = lines.sum(misses) * unlift;
    if constexpr (Squares) group.squares = lines.sum(squares) * (unlift * unlift);
    group.d_y = d_y;
    group.e_y = e_y * unlift;
    if constexpr (E == Extent::spread) group.weighted = lines.sum(weighted);
    if constexpr (Two) {
        second->d_y = d_z;
        second->e_y = e_z * unlift;
    }
}

// One group of stage 3, perhaps in place; rows are written where lines are rows.
template <class T, Layout L, int C, Extent E, bool Squares, bool Two>
KULLBACK_INLINE void spread_group(Lines<T, L, C> lines, const T* weight, ClassNumbers<T> first_class, const Group<T>& group,
                                  const SecondClass<T>* second, bool tiny, const Vector<T>* slopes, Vector<T>* exps,
                                  Vector<T>* to, T* rows, int64_t stride) {
    using V = Vector<T>;
    constexpr T unlift = Constants<T>::unlift, lift = 1 / unlift;
    const Rows<T> logits = group.ahead.logits;
    V all_factors = group.factor, all_squares = Squares ? group.on_square : V{};
    if (tiny) {
        all_factors = group.unlifted_factor;
        all_squares = all_squares * (lift * lift);
        for (int k = 0; k < lines.vectors(); ++k) exps[k] = exps[k] * unlift;
    }
    for (int j = 0; j < lines.count; ++j) {
        const V factor = lines.of_line(all_factors, j), square = lines.of_line(all_squares, j);
        const V on_weight = E == Extent::spread ? lines.of_line(group.on_weight, j) : V{};
        const V* e = exps + j * lines.length();
        const V* slope = slopes ? slopes + j * lines.length() : nullptr;
        T* row = rows + j * stride;
        const auto target = group.target;
        auto classes_here = first_class;
        lines.each([&](int k, int at, auto part) KULLBACK_LAMBDA {
            if constexpr (L == Layout::rows) lines.ask_for(logits, j, at);
            V g = Squares ? e[at] * (e[at] * square + factor) : e[at] * factor;
            if constexpr (E == Extent::spread) g += weight ? on_weight * lines.of_classes(weight, k, part) : on_weight;
            if constexpr (L == Layout::columns) {
                if constexpr (Two) g = select<V>(second->target == classes_here, second->at_class, g);
                g = select<V>(target == classes_here, group.at_class, g);
                classes_here += lines.step;
            }
            if constexpr (E != Extent::plain) {
                if (slope) g *= slope[at];
            }
            if constexpr (L == Layout::rows) {
                store<V>(row + k, part, g);
            } else {
                to[at] = g;
            }
        });
        if constexpr (L == Layout::rows) {
            const auto put = [&](int64_t y, T g) KULLBACK_LAMBDA {
                if constexpr (E != Extent::plain) {
                    if (slope) g *= get(slope[y / lines.W], y % lines.W);
                }
                row[y] = g;
            };
            if constexpr (Two) put(second->target[j], get(second->at_class, j));
            put(target[j], get(group.at_class, j));
        }
    }
}

template <class T>
KULLBACK_INLINE void weigh_targets(const FewRows<T>& rows, const int32_t* y, Vector<T>& weight, Vector<T>& shift) {
    weight = rows.weight ? look_up<T>(rows.weight, y) : splat<Vector<T>>(T(1));
    if (rows.shift) shift = look_up<T>(rows.shift, y);
}

// Those of a line's first vector, more by 0, which the compiler must not know: it would make the number of every class anew
// in every group.
template <class T, Layout L, int C>
KULLBACK_INLINE ClassNumbers<T> first_classes(const Lines<T, L, C>& lines, const FewRows<T>& rows) {
    return lines.first_classes() + typename Constants<T>::Int(C > 0 ? rows.classes - C : 0);
}

template <class T, Layout L, int C, Extent E, bool Squares, bool Two>
KULLBACK_INLINE void sum_groups(FewRows<T> rows) {
    using V = Vector<T>;
    constexpr int W = lanes<T>;
    const Lines<T, L, C> lines{rows.classes};
    const int classes = lines.classes();
    constexpr bool plain = E == Extent::plain;
    const int64_t stride = plain ? classes : rows.stride, g_stride = plain ? classes : rows.g_stride;
    const ClassNumbers<T> first = first_classes(lines, rows);
    // what exp is taken of, where lines are rows
    const auto scores = [&](int i) KULLBACK_LAMBDA {
        if (plain || !rows.transform) return Rows<T>{rows.z + i * W * stride, stride};
        return lines.rows_in(rows.columns + i * lines.vectors());
    };
    const auto prepare = [&](int i) KULLBACK_LAMBDA {
        const T* z = rows.z + i * W * stride;
        V* e = rows.columns + i * lines.vectors();
        Group<T>& group = rows.groups[i];
        SecondClass<T>* second = Two ? rows.seconds + i : nullptr;
        const int32_t* y = rows.y + i * W;
        const Rows<T> logits{z, stride};
        group.ahead = look_ahead(lines, rows.count, logits, Rows<T>{},
                                 Rows<T>{rows.g ? rows.g + i * W * g_stride : nullptr, g_stride});
        if constexpr (L == Layout::columns) load_columns<T>(z, stride, classes, e);
        group.target = classes_in_lanes<T>(y);
        if constexpr (Two) second->target = classes_in_lanes<T>(rows.second + i * W);
        if constexpr (!plain) {
            if (rows.predict) group.prediction = largest_classes(lines, logits, e);
            if (rows.transform) transform_lines(lines, *rows.transform, logits, e, rows.slopes + i * lines.vectors());
            weigh_targets(rows, y, group.weight, group.shift);
            if constexpr (Two) weigh_targets(rows, rows.second + i * W, second->weight, second->shift);
        }
        group.center = center_of(lines, scores(i), e);
    };
    const auto sum = [&](int i) KULLBACK_LAMBDA {
        V* e = rows.columns + i * lines.vectors();
        sum_group<T, L, C, E, Squares, Two>(lines, rows.weight, first, rows.factor, scores(i), e, rows.groups[i],
                                            Two ? rows.seconds + i : nullptr);
    };
    // the next group's columns and the largest of them are on their way while this one's exp are computed
    prepare(0);
    for (int i = 0; i < rows.count; ++i) {
        if (i + 1 < rows.count) prepare(i + 1);
        sum(i);
    }
}

template <class T, Layout L, int C, Extent E, bool Squares, bool Two>
KULLBACK_INLINE void spread_groups(FewRows<T> rows, bool tiny) {
    using V = Vector<T>;
    const Lines<T, L, C> lines{rows.classes};
    const int classes = lines.classes();
    const int64_t g_stride = E == Extent::plain ? classes : rows.g_stride;
    const ClassNumbers<T> first = first_classes(lines, rows);
    const bool capped = E != Extent::plain && rows.transform && rows.transform->capped;
    for (int i = 0; i < rows.count; ++i) {
        V* e = rows.columns + i * lines.vectors();
        V in_registers[C > 0 ? C : 1];
        V* gradient = C > 0 ? in_registers : e;
        T* g = rows.g + i * lanes<T> * g_stride;
        spread_group<T, L, C, E, Squares, Two>(lines, rows.weight, first, rows.groups[i], Two ? rows.seconds + i : nullptr,
                                               tiny, capped ? rows.slopes + i * lines.vectors() : nullptr, e, gradient, g,
                                               g_stride);
        if constexpr (L == Layout::columns) store_columns<T>(g, g_stride, classes, gradient);
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
