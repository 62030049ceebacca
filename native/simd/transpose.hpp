// W rows of C numbers to C vectors with a lane per row, and back.
//
// Done in square tiles by the usual exchange network: log2(width) rounds of swapping off-diagonal blocks. Tiles are
// as wide as the largest power of two that fits into the row; the last tile overlaps the one before it where C is
// not a multiple, which moves a few numbers twice and needs no special cases.
#pragma once

#include <utility>

#include "simd/vector.hpp"

#if KULLBACK_HAS_VECTORS && defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define KULLBACK_HAS_SHUFFLES 1
#endif
#endif
#ifndef KULLBACK_HAS_SHUFFLES
#define KULLBACK_HAS_SHUFFLES 0
#endif

#if KULLBACK_HAS_SHUFFLES

namespace kullback {
namespace KULLBACK_LEVEL {

template <class T, int N>
struct Short {
    typedef T type __attribute__((vector_size(N * sizeof(T))));
};
template <class T, int N>
using ShortVector = typename Short<T, N>::type;

template <class V, int Block, int... J>
KULLBACK_INLINE void exchange_lanes(V& a, V& b, std::integer_sequence<int, J...>) {
    constexpr int W = int(sizeof...(J));
    const V low = __builtin_shufflevector(a, b, ((J & Block) == 0 ? J : W + J - Block)...);
    const V high = __builtin_shufflevector(a, b, ((J & Block) == 0 ? J + Block : W + J)...);
    a = low;
    b = high;
}

template <class V, int Block, int Tile>
KULLBACK_INLINE void transpose_round(V* rows) {
    if constexpr (Block > 0) {
#pragma GCC unroll 16
        for (int i = 0; i < Tile; ++i) {
            if ((i & Block) == 0) {
                exchange_lanes<V, Block>(rows[i], rows[i + Block],
                                         std::make_integer_sequence<int, traits<V>::width>{});
            }
        }
        transpose_round<V, Block / 2, Tile>(rows);
    }
}

template <class A, int... J>
KULLBACK_INLINE auto join(A a, A b, std::integer_sequence<int, J...>) {
    return __builtin_shufflevector(a, b, J...);
}
template <int Start, class A, int... J>
KULLBACK_INLINE auto part_of(A a, std::integer_sequence<int, J...>) {
    return __builtin_shufflevector(a, a, (Start + J)...);
}

// N numbers made of pieces of Tile consecutive ones, each `step` further on.
template <class T, int N, int Tile>
KULLBACK_INLINE ShortVector<T, N> gather_pieces(const T* p, int64_t step) {
    if constexpr (N == Tile) {
        ShortVector<T, N> v;
        std::memcpy(&v, p, sizeof v);
        return v;
    } else {
        const auto low = gather_pieces<T, N / 2, Tile>(p, step);
        const auto high = gather_pieces<T, N / 2, Tile>(p + (N / 2 / Tile) * step, step);
        return join(low, high, std::make_integer_sequence<int, N>{});
    }
}
template <class T, int N, int Tile>
KULLBACK_INLINE void scatter_pieces(ShortVector<T, N> v, T* p, int64_t step) {
    if constexpr (N == Tile) {
        std::memcpy(p, &v, sizeof v);
    } else {
        const auto half = std::make_integer_sequence<int, N / 2>{};
        scatter_pieces<T, N / 2, Tile>(part_of<0>(v, half), p, step);
        scatter_pieces<T, N / 2, Tile>(part_of<N / 2>(v, half), p + (N / 2 / Tile) * step, step);
    }
}

template <class T, int Tile>
KULLBACK_INLINE void load_tile(const T* z, int64_t stride, Vector<T>* columns) {
#pragma GCC unroll 16
    for (int i = 0; i < Tile; ++i) columns[i] = gather_pieces<T, lanes<T>, Tile>(z + i * stride, Tile * stride);
    transpose_round<Vector<T>, Tile / 2, Tile>(columns);
}
template <class T, int Tile>
KULLBACK_INLINE void store_tile(T* out, int64_t stride, const Vector<T>* columns) {
    Vector<T> rows[Tile];
#pragma GCC unroll 16
    for (int i = 0; i < Tile; ++i) rows[i] = columns[i];
    transpose_round<Vector<T>, Tile / 2, Tile>(rows);
#pragma GCC unroll 16
    for (int i = 0; i < Tile; ++i) scatter_pieces<T, lanes<T>, Tile>(rows[i], out + i * stride, Tile * stride);
}

template <class T>
constexpr int tile_width(int columns) {
    int width = 1;
    while (2 * width <= columns && 2 * width <= lanes<T>) width *= 2;
    return width;
}

// Tile is at most `columns`.
template <class T, int Tile>
KULLBACK_INLINE void load_columns(const T* z, int64_t stride, int columns, Vector<T>* out) {
    int k = 0;
#pragma GCC unroll 8
    for (; k + Tile <= columns; k += Tile) load_tile<T, Tile>(z + k, stride, out + k);
    if (k < columns) load_tile<T, Tile>(z + columns - Tile, stride, out + columns - Tile);
}
template <class T, int Tile>
KULLBACK_INLINE void store_columns(T* out, int64_t stride, int columns, const Vector<T>* values) {
    int k = 0;
#pragma GCC unroll 8
    for (; k + Tile <= columns; k += Tile) store_tile<T, Tile>(out + k, stride, values + k);
    if (k < columns) store_tile<T, Tile>(out + columns - Tile, stride, values + columns - Tile);
}

}  // namespace KULLBACK_LEVEL
}  // namespace kullback

#endif
