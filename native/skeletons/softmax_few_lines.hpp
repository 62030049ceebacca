// Few classes: the vectors of a group of as many rows as there are lanes, in lines.
//
//   columns   one line of a vector per class, whose lanes are rows: no lane is idle, but all that is read or written is
//             transposed on its way
//   rows      a line per row, whose lanes are classes: nothing is transposed but the sums of each line, and the last vector
//             of a line may have idle lanes
//
// What is known of a whole row is a lane per row in both: of_line() says what a line has of it, and fold() and sum() bring
// together what the lines have found.
#pragma once

#include "simd/convert.hpp"
#include "simd/widen.hpp"
#include "skeletons/softmax_row.hpp"

#if KULLBACK_HAS_SHUFFLES

namespace kullback {
namespace KULLBACK_LEVEL {

constexpr int few_classes = 256;  // beyond, a row alone fills the lanes well enough

// The number of a class, a lane per row.
template <class T>
using ClassNumbers = typename traits<Vector<T>>::integer;

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

enum class Layout { columns, rows };

// With fewer classes idle lanes cost more than transposing.
constexpr int least_classes_in_rows = 64;
constexpr Layout layout_of(int64_t classes) {
    return classes < least_classes_in_rows ? Layout::columns : Layout::rows;
}

template <class T, Layout L, int C = 0>
struct Lines {
    using V = Vector<T>;
    static constexpr bool by_row = L == Layout::rows;
    static constexpr int W = lanes<T>, count = by_row ? W : 1, step = by_row ? W : 1;

    int some_classes;

    KULLBACK_INLINE int classes() const { return C > 0 ? C : some_classes; }
    // Vectors of a line, and of all lines of a group.
    KULLBACK_INLINE int length() const { return by_row ? (classes() + W - 1) / W : classes(); }
    KULLBACK_INLINE int vectors() const { return count * length(); }

    // Calls body(k, at, part) for the vectors of a line: the first class of each, and which one it is.
    template <class Body>
    KULLBACK_INLINE void each(int begin, int end, Body body) const {
        if constexpr (by_row) {
            along<T>(begin, end, [&](int64_t k, auto part) KULLBACK_LAMBDA { body(int(k), int(k) / W, part); });
        } else {
            each_class<C>(begin, end, [&](int k) KULLBACK_LAMBDA { body(k, k, Whole{}); });
        }
    }
    template <class Body>
    KULLBACK_INLINE void each(Body body) const {
        each(0, classes(), body);
    }
    // Calls body(begin, end) for the classes of 16 vectors at a time: sums of sums, so that rounding grows with 16 + n/16 terms
    // for n vectors, and not with n.
    template <class Body>
    KULLBACK_INLINE void by_sixteen(Body body) const {
        constexpr int many = 16 * step;
        if constexpr (many >= few_classes) return body(0, classes());
        for (int begin = 0; begin < classes(); begin += many) body(begin, begin + many < classes() ? begin + many : classes());
    }

    // Lines that hold rows.
    KULLBACK_INLINE Rows<T> rows_in(const V* vectors) const {
        return {reinterpret_cast<const T*>(vectors), length() * W};
    }
    // What a line has of something known of every row.
    template <class Vec>
    KULLBACK_INLINE static Vec of_line(const Vec& of_rows, int line) {
        if constexpr (by_row) return of_rows[line] - Vec{};
        return of_rows;
    }
    // What a vector has of something known of every class.
    template <class Part>
    KULLBACK_INLINE static V of_classes(const T* numbers, int k, Part part) {
        if constexpr (by_row) return load<V>(numbers + k, part, T(0));
        return splat<V>(numbers[k]);
    }
    // Numbers of a row, or what columns have of it.
    template <class Part>
    KULLBACK_INLINE static V read(const Rows<T>& rows, int line, const V* columns, int k, int at, Part part, T fill) {
        if constexpr (by_row) return load<V>(rows.row(line) + k, part, fill);
        return columns[at];
    }
    // Where lines are rows: find(row, class) for a class of each row, and the number of a class in a line.
    template <class Classes, class Find>
    KULLBACK_INLINE static V at_classes(const Classes& classes, Find find) {
        V found;
        for (int j = 0; j < W; ++j) lane(found, j) = find(j, int(classes[j]));
        return found;
    }
    KULLBACK_INLINE T in_line(const V* vectors, int line, int k) const { return get(vectors[line * length() + k / W], k % W); }

    // Asks memory for numbers that are wanted soon, as many as vector `at` of a line has; of rows without gaps, where lines
    // are columns. Asked for bit by bit while the processor is busy: many at once keep all else waiting until most have come.
    template <int nearness = 3>
    KULLBACK_INLINE static void ask_for(const Rows<T>& rows, int line, int at) {
        constexpr int vectors = 64 / int(sizeof(V));  // of a cache line
        if (vectors < 2 || at % vectors == 0) prefetch<nearness>(rows.row(by_row ? line : 0) + at * W);
    }
    // How near to the processor the first stage asks for what a later group is made of. Rows of many classes would drive each
    // other out of the nearest cache: the last stage brings them there.
    static constexpr int early = by_row ? 2 : 3;
    // The classes of a line's first vector; one vector further on they are `step` more.
    KULLBACK_INLINE static ClassNumbers<T> first_classes() { return first_classes(std::make_integer_sequence<int, W>{}); }
    template <int... J>
    KULLBACK_INLINE static ClassNumbers<T> first_classes(std::integer_sequence<int, J...>) {
        return ClassNumbers<T>{(by_row ? J : 0)...};
    }

    // A lane per row of what both(a, b) makes of all lanes of its line.
    template <class Both>
    KULLBACK_INLINE static V fold(V* of_lines, Both both) {
        return fold<count>(of_lines, both);
    }
    KULLBACK_INLINE static V sum(V* of_lines) {
        return fold(of_lines, [](V a, V b) KULLBACK_LAMBDA { return a + b; });
    }
    // A lane per row of the sum of what term_of(line) makes of k, at and part, as in each().
    template <class TermOf>
    KULLBACK_INLINE V sum_of(TermOf term_of) const {
        V sums[count];
        for (int j = 0; j < count; ++j) {
            const auto term = term_of(j);
            V sum = V{};
            by_sixteen([&](int begin, int end) KULLBACK_LAMBDA {
                V here = V{};
                each(begin, end, [&](int k, int at, auto part) KULLBACK_LAMBDA { here += term(k, at, part); });
                sum += here;
            });
            sums[j] = sum;
        }
        return Lines::sum(sums);
    }

  private:
    // Of a and of b each, pieces Odd, Odd + 2, ... in turn; within every Span numbers.
    template <int Odd, int Piece, int Span, int... J>
    KULLBACK_INLINE static V every_second(V a, V b, std::integer_sequence<int, J...>) {
        constexpr int half = Span / 2;
        return __builtin_shufflevector(
            a, b, ((J % Span) / half * W + J / Span * Span + (2 * ((J % half) / Piece) + Odd) * Piece + J % Piece)...);
    }
    // Halves of vectors together, first within 128 bits, so that in the end lanes are in the order of the rows. All rows go
    // the same way: a result does not depend on a row's place.
    template <int N, class Both>
    KULLBACK_INLINE static V fold(V* of_lines, Both both) {
        if constexpr (N == 1) {
            return of_lines[0];
        } else {
            constexpr bool within = N > W / tile<T>;
            constexpr int piece = within ? 1 : tile<T>, span = within ? tile<T> : W;
            constexpr auto order = std::make_integer_sequence<int, W>{};
#pragma GCC unroll 16
            for (int i = 0; i < N / 2; ++i) {
                const V a = of_lines[2 * i], b = of_lines[2 * i + 1];
                of_lines[i] = both(every_second<0, piece, span>(a, b, order), every_second<1, piece, span>(a, b, order));
            }
            return fold<N / 2>(of_lines, both);
        }
    }
};

// Vectors of a group in the layout for so many classes.
template <class T>
KULLBACK_INLINE int group_vectors(int classes) {
    if (layout_of(classes) == Layout::rows) return Lines<T, Layout::rows>{classes}.vectors();
    return classes;
}

// The largest of each row's numbers, or 0 if that is -inf.
template <class T, Layout L, int C>
KULLBACK_INLINE Vector<T> center_of(const Lines<T, L, C>& lines, const Rows<T>& rows, const Vector<T>* columns) {
    using V = Vector<T>;
    V top[Lines<T, L, C>::count];
    for (int j = 0; j < lines.count; ++j) {
        V here = splat<V>(-infinity<T>);
        lines.each([&](int k, int at, auto part) KULLBACK_LAMBDA {
            here = larger<V>(lines.read(rows, j, columns, k, at, part, -infinity<T>), here);
        });
        top[j] = here;
    }
    const V peak = lines.fold(top, [](V a, V b) KULLBACK_LAMBDA { return larger<V>(a, b); });
    return select<V>(peak > -infinity<T>, peak, V{});
}

}  // namespace KULLBACK_LEVEL
}  // namespace kullback

#endif
