// W rows of C numbers to C vectors with a lane per row, and back.
//
// Done in square tiles as wide as 128 bits, the width in which processors interleave two vectors in one instruction:
// a vector is gathered from pieces of rows far enough apart that interleaving puts its lanes in order. Columns that
// fill no tile are moved in half a tile, or in a tile that overlaps the one before it, which moves a few numbers
// twice and needs no special cases.
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

template <class T>
constexpr int tile = 16 / int(sizeof(T));

// The lower (Half = 0) or upper (1) halves of each 128 bits of a and b, element by element in turn.
template <int Half, class T, class V, int... J>
KULLBACK_INLINE V interleave(V a, V b, std::integer_sequence<int, J...>) {
    constexpr int P = tile<T>, W = int(sizeof...(J));
    return __builtin_shufflevector(a, b, ((J / P) * P + Half * (P / 2) + (J % P) / 2 + (J % 2) * W)...);
}
template <class T>
KULLBACK_INLINE Vector<T> interleave_low(Vector<T> a, Vector<T> b) {
    return interleave<0, T>(a, b, std::make_integer_sequence<int, lanes<T>>{});
}
template <class T>
KULLBACK_INLINE Vector<T> interleave_high(Vector<T> a, Vector<T> b) {
    return interleave<1, T>(a, b, std::make_integer_sequence<int, lanes<T>>{});
}
// Elements Odd, Odd + 2 of each 128 bits of a, then of b.
template <int Odd, class V, int... J>
KULLBACK_INLINE V every_second(V a, V b, std::integer_sequence<int, J...>) {
    constexpr int W = int(sizeof...(J));
    return __builtin_shufflevector(a, b, ((J / 4) * 4 + 2 * (J % 2) + Odd + ((J % 4) / 2) * W)...);
}

template <class A, int... J>
KULLBACK_INLINE auto join(A a, A b, std::integer_sequence<int, J...>) {
    return __builtin_shufflevector(a, b, J...);
}
template <int Start, class A, int... J>
KULLBACK_INLINE auto part_of(A a, std::integer_sequence<int, J...>) {
    return __builtin_shufflevector(a, a, (Start + J)...);
}

// N numbers made of pieces of Piece consecutive ones, each `step` further on. Compilers do not find the one instruction
// that loads or stores half a vector of 256 bits.
template <class T, int N, int Piece>
KULLBACK_INLINE ShortVector<T, N> gather_pieces(const T* p, int64_t step) {
    if constexpr (N == Piece) {
        ShortVector<T, N> v;
        std::memcpy(&v, p, sizeof v);
        return v;
#if defined(__AVX__)
    } else if constexpr (sizeof(T) == 4 && N == 8 && Piece == 4) {
        return ShortVector<T, N>(_mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + step), 1));
#endif
    } else {
        const auto low = gather_pieces<T, N / 2, Piece>(p, step);
        const auto high = gather_pieces<T, N / 2, Piece>(p + (N / 2 / Piece) * step, step);
        return join(low, high, std::make_integer_sequence<int, N>{});
    }
}
template <class T, int N, int Piece>
KULLBACK_INLINE void scatter_pieces(ShortVector<T, N> v, T* p, int64_t step) {
    if constexpr (N == Piece) {
        std::memcpy(p, &v, sizeof v);
#if defined(__AVX__)
    } else if constexpr (sizeof(T) == 4 && N == 8 && Piece == 4) {
        _mm_storeu_ps(p, _mm256_castps256_ps128(__m256(v)));
        _mm_storeu_ps(p + step, _mm256_extractf128_ps(__m256(v), 1));
#endif
    } else {
        const auto half = std::make_integer_sequence<int, N / 2>{};
        scatter_pieces<T, N / 2, Piece>(part_of<0>(v, half), p, step);
        scatter_pieces<T, N / 2, Piece>(part_of<N / 2>(v, half), p + (N / 2 / Piece) * step, step);
    }
}

// Two consecutive numbers of each of N/2 rows: of two neighbours, then of the two that are four rows further on.
template <int N>
KULLBACK_INLINE ShortVector<float, N> gather_pairs(const float* p, int64_t stride) {
    if constexpr (N == 4) {
        double pairs[2];  // only moved, never computed with
        std::memcpy(&pairs[0], p, sizeof pairs[0]);
        std::memcpy(&pairs[1], p + stride, sizeof pairs[1]);
        return bits_as<ShortVector<float, 4>>(ShortVector<double, 2>{pairs[0], pairs[1]});
    } else {
        return join(gather_pairs<N / 2>(p, stride), gather_pairs<N / 2>(p + N / 2 * stride, stride),
                    std::make_integer_sequence<int, N>{});
    }
}
template <int N>
KULLBACK_INLINE void scatter_pairs(ShortVector<float, N> v, float* p, int64_t stride) {
    if constexpr (N == 4) {
        const auto pairs = bits_as<ShortVector<double, 2>>(v);
        const double first = pairs[0], second = pairs[1];
        std::memcpy(p, &first, sizeof first);
        std::memcpy(p + stride, &second, sizeof second);
    } else {
        const auto half = std::make_integer_sequence<int, N / 2>{};
        scatter_pairs<N / 2>(part_of<0>(v, half), p, stride);
        scatter_pairs<N / 2>(part_of<N / 2>(v, half), p + N / 2 * stride, stride);
    }
}

// Within each 128 bits; its own inverse.
template <class T>
KULLBACK_INLINE void transpose_tile(const Vector<T>* from, Vector<T>* to) {
    if constexpr (tile<T> == 2) {
        const Vector<T> a = from[0], b = from[1];
        to[0] = interleave_low<T>(a, b);
        to[1] = interleave_high<T>(a, b);
    } else {
        const Vector<T> even_low = interleave_low<T>(from[0], from[2]), even_high = interleave_high<T>(from[0], from[2]);
        const Vector<T> odd_low = interleave_low<T>(from[1], from[3]), odd_high = interleave_high<T>(from[1], from[3]);
        to[0] = interleave_low<T>(even_low, odd_low);
        to[1] = interleave_high<T>(even_low, odd_low);
        to[2] = interleave_low<T>(even_high, odd_high);
        to[3] = interleave_high<T>(even_high, odd_high);
    }
}

template <class T>
KULLBACK_INLINE void load_tile(const T* z, int64_t stride, Vector<T>* columns) {
    Vector<T> rows[tile<T>];
#pragma GCC unroll 4
    for (int i = 0; i < tile<T>; ++i) rows[i] = gather_pieces<T, lanes<T>, tile<T>>(z + i * stride, tile<T> * stride);
    transpose_tile<T>(rows, columns);
}
template <class T>
KULLBACK_INLINE void store_tile(T* out, int64_t stride, const Vector<T>* columns) {
    Vector<T> rows[tile<T>];
    transpose_tile<T>(columns, rows);
#pragma GCC unroll 4
    for (int i = 0; i < tile<T>; ++i) scatter_pieces<T, lanes<T>, tile<T>>(rows[i], out + i * stride, tile<T> * stride);
}

KULLBACK_INLINE void load_two(const float* z, int64_t stride, VectorF* columns) {
    constexpr int W = lanes<float>;
    const VectorF a = gather_pairs<W>(z, stride), b = gather_pairs<W>(z + 2 * stride, stride);
    columns[0] = every_second<0>(a, b, std::make_integer_sequence<int, W>{});
    columns[1] = every_second<1>(a, b, std::make_integer_sequence<int, W>{});
}
KULLBACK_INLINE void store_two(float* out, int64_t stride, const VectorF* columns) {
    constexpr int W = lanes<float>;
    scatter_pairs<W>(interleave_low<float>(columns[0], columns[1]), out, stride);
    scatter_pairs<W>(interleave_high<float>(columns[0], columns[1]), out + 2 * stride, stride);
}

// Calls whole(k) or half(k) so that tiles of that width from column k on cover all columns, of which there are two
// at least.
template <class T, class WholeTile, class HalfTile>
KULLBACK_INLINE void cover_columns(int columns, WholeTile whole, HalfTile half) {
    constexpr int P = tile<T>;
    int k = 0;
    for (; k + P <= columns; k += P) whole(k);
    const int rest = columns - k;
    if (rest == 0) return;
    if constexpr (P == 4) {
        if (rest <= 2) return half(columns - 2);
        if (columns < P) {
            half(0);
            return half(1);
        }
    }
    whole(columns - P);
}

template <class T>
KULLBACK_INLINE void load_columns(const T* z, int64_t stride, int columns, Vector<T>* out) {
    cover_columns<T>(
        columns, [&](int k) KULLBACK_LAMBDA { load_tile<T>(z + k, stride, out + k); },
        [&](int k) KULLBACK_LAMBDA {
            if constexpr (sizeof(T) == 4) load_two(z + k, stride, out + k);
        });
}
template <class T>
KULLBACK_INLINE void store_columns(T* out, int64_t stride, int columns, const Vector<T>* values) {
    cover_columns<T>(
        columns, [&](int k) KULLBACK_LAMBDA { store_tile<T>(out + k, stride, values + k); },
        [&](int k) KULLBACK_LAMBDA {
            if constexpr (sizeof(T) == 4) store_two(out + k, stride, values + k);
        });
}

}  // namespace KULLBACK_LEVEL
}  // namespace kullback

#endif
