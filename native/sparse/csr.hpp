// Products of a CSR matrix (n, d) with a dense one, for a narrow dense matrix: one non-zero touches C numbers that lie
// side by side. SciPy's run on one thread, and write their results once per non-zero instead of once per row.
//
// A row of C numbers is taken in vectors, the widest that are no longer than the row. The last one ends where the row
// ends and may overlap the one before, so that no vector is incomplete and none reaches past the row.
#pragma once

#include <utility>

#include "common/api.hpp"
#include "simd/vector.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

// Vectors kept in registers at a time.
constexpr int csr_tile = 4;

// W numbers: a whole vector, or the part of one that fits into a short row.
template <class T, int W>
struct csr_vector {
#if KULLBACK_HAS_VECTORS
    typedef T type __attribute__((vector_size(W * sizeof(T))));
#endif
};
template <class T>
struct csr_vector<T, 1> {
    using type = T;
};
template <class T, int W>
using CsrVector = typename csr_vector<T, W>::type;

template <class T, int W>
KULLBACK_INLINE CsrVector<T, W> csr_load(const T* p) {
    CsrVector<T, W> v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

// The values may have another precision than the dense matrix: each is converted as it is read.
template <class T, class Index, class Value>
struct CsrRows {
    const Index* indptr;
    const Index* ends;
    const Index* indices;
    const Value* data;
    int64_t base;

    explicit CsrRows(const CsrJob& job)
        : indptr(static_cast<const Index*>(job.indptr)),
          ends(static_cast<const Index*>(job.ends)),
          indices(static_cast<const Index*>(job.indices)),
          data(static_cast<const Value*>(job.data)),
          base(job.base) {}

    T value(int64_t j) const { return T(data[j]); }
    // Unsigned, so that a corrupt index cannot overflow.
    int64_t place(int64_t j) const { return int64_t(uint64_t(int64_t(indices[j])) - uint64_t(base)); }

    // Whether the row's entries lie inside the arrays and its columns inside the matrix.
    bool valid(const CsrJob& job, int64_t i) const {
        const int64_t from = int64_t(indptr[i]), to = int64_t(ends[i]);
        if (from < 0 || to < from || to > job.nonzeros) return false;
        bool inside = true;
        for (int64_t j = from; j < to; ++j) inside &= uint64_t(place(j)) < uint64_t(job.inner);
        return inside;
    }
};

// Calls body(0), …, body(V - 1). Left to itself the compiler keeps the loops, and the vectors in memory with them.
template <class Body, int... v>
KULLBACK_INLINE void csr_unrolled(Body body, std::integer_sequence<int, v...>) {
    (body(v), ...);
}
template <int V, class Body>
KULLBACK_INLINE void csr_unrolled(Body body) {
    csr_unrolled(body, std::make_integer_sequence<int, V>{});
}

// out = by · by_column + Σ_j value_j · dense[column_j] for the first V·W numbers of each row, or those there are; without
// `by_column` the sum alone.
//
// Rows are `stride` apart; `length` of their numbers are left.
template <int W, int V, class T, class Index, class Value>
KULLBACK_INLINE void csr_sum(const CsrRows<T, Index, Value>& rows, int64_t from, int64_t to, const T* dense, int64_t stride,
                             int64_t length, T by, const T* by_column, T* out) {
    const int64_t last = length < V * W ? length - W : (V - 1) * W;
    const auto place = [last](int v) KULLBACK_LAMBDA { return v < V - 1 ? v * W : last; };
    CsrVector<T, W> sum[V] = {};
    if (by_column) {
        csr_unrolled<V>([&](int v) KULLBACK_LAMBDA { sum[v] = by * csr_load<T, W>(by_column + place(v)); });
    }
    for (int64_t j = from; j < to; ++j) {
        const T* row = dense + rows.place(j) * stride;
        csr_unrolled<V>([&](int v) KULLBACK_LAMBDA { sum[v] += rows.value(j) * csr_load<T, W>(row + place(v)); });
    }
    csr_unrolled<V>([&](int v) KULLBACK_LAMBDA { std::memcpy(out + place(v), &sum[v], sizeof sum[v]); });
}

// out[column_j] += value_j · dense for every entry of a row, likewise.
//
// Where two of the vectors overlap, both are read before either is written, and both write the same.
template <int W, int V, class T, class Index, class Value>
KULLBACK_INLINE void csr_spread(const CsrRows<T, Index, Value>& rows, int64_t from, int64_t to, const T* dense,
                                int64_t stride, int64_t length, T* out) {
    const int64_t last = length < V * W ? length - W : (V - 1) * W;
    const auto place = [last](int v) KULLBACK_LAMBDA { return v < V - 1 ? v * W : last; };
    CsrVector<T, W> part[V];
    csr_unrolled<V>([&](int v) KULLBACK_LAMBDA { part[v] = csr_load<T, W>(dense + place(v)); });
    // A lone vector at the end of a row may reach back to what has been added already.
    for (int64_t k = last; k < 0; ++k) reinterpret_cast<T*>(&part[V - 1])[k - last] = T(0);
    for (int64_t j = from; j < to; ++j) {
        T* row = out + rows.place(j) * stride;
        CsrVector<T, W> total[V];
        csr_unrolled<V>([&](int v) KULLBACK_LAMBDA {
            total[v] = csr_load<T, W>(row + place(v)) + rows.value(j) * part[v];
        });
        csr_unrolled<V>([&](int v) KULLBACK_LAMBDA { std::memcpy(row + place(v), &total[v], sizeof total[v]); });
    }
}

// Calls body(W, first, V) with the width W and the number V of vectors as types until a row of `columns` numbers is
// covered.
template <int W, class Body>
KULLBACK_INLINE void csr_tiles(int64_t columns, Body body) {
    using Width = std::integral_constant<int, W>;
    if constexpr (W > 1) {
        if (columns < W) return csr_tiles<W / 2>(columns, body);
    }
    for (int64_t first = 0; first < columns; first += csr_tile * W) {
        switch ((columns - first + W - 1) / W) {
            case 1: body(Width{}, first, std::integral_constant<int, 1>{}); break;
            case 2: body(Width{}, first, std::integral_constant<int, 2>{}); break;
            case 3: body(Width{}, first, std::integral_constant<int, 3>{}); break;
            default: body(Width{}, first, std::integral_constant<int, csr_tile>{});
        }
    }
}

// Rows [begin, end) of X @ dense, plus the outer product.
template <class T, class Index, class Value>
int64_t csr_product_rows(const CsrJob& job, int64_t begin, int64_t end) {
    const CsrRows<T, Index, Value> rows(job);
    const T* dense = static_cast<const T*>(job.dense);
    const T *by_row = static_cast<const T*>(job.by_row), *by_column = static_cast<const T*>(job.by_column);
    const int64_t columns = job.columns;
    for (int64_t i = begin; i < end; ++i) {
        if (!rows.valid(job, i)) return i;
        const int64_t from = int64_t(rows.indptr[i]), to = int64_t(rows.ends[i]);
        const T by = by_row ? by_row[i] : T(0);
        T* __restrict out = static_cast<T*>(job.out) + i * columns;
        csr_tiles<lanes<T>>(columns, [&](auto width, int64_t first, auto count) KULLBACK_LAMBDA {
            csr_sum<decltype(width)::value, decltype(count)::value>(rows, from, to, dense + first, columns, columns - first,
                                                                    by, by_column ? by_column + first : nullptr,
                                                                    out + first);
        });
    }
    return -1;
}

// Adds what rows [begin, end) hold of Xᵀ @ dense to (d, C) `out`.
template <class T, class Index, class Value>
int64_t csr_transposed_rows(const CsrJob& job, int64_t begin, int64_t end) {
    const CsrRows<T, Index, Value> rows(job);
    T* out = static_cast<T*>(job.out);
    const int64_t columns = job.columns;
    for (int64_t i = begin; i < end; ++i) {
        if (!rows.valid(job, i)) return i;
        const int64_t from = int64_t(rows.indptr[i]), to = int64_t(rows.ends[i]);
        const T* __restrict dense = static_cast<const T*>(job.dense) + i * columns;
        csr_tiles<lanes<T>>(columns, [&](auto width, int64_t first, auto count) KULLBACK_LAMBDA {
            csr_spread<decltype(width)::value, decltype(count)::value>(rows, from, to, dense + first, columns, columns - first,
                                                                    out + first);
        });
    }
    return -1;
}

template <class T>
int64_t csr_product(const CsrJob& job, int64_t begin, int64_t end) {
    if (job.double_data) {
        return job.wide_indices ? csr_product_rows<T, int64_t, double>(job, begin, end)
                                : csr_product_rows<T, int32_t, double>(job, begin, end);
    }
    return job.wide_indices ? csr_product_rows<T, int64_t, float>(job, begin, end)
                            : csr_product_rows<T, int32_t, float>(job, begin, end);
}
template <class T>
int64_t csr_transposed(const CsrJob& job, int64_t begin, int64_t end) {
    if (job.double_data) {
        return job.wide_indices ? csr_transposed_rows<T, int64_t, double>(job, begin, end)
                                : csr_transposed_rows<T, int32_t, double>(job, begin, end);
    }
    return job.wide_indices ? csr_transposed_rows<T, int64_t, float>(job, begin, end)
                            : csr_transposed_rows<T, int32_t, float>(job, begin, end);
}

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
