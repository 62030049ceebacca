// Products of a CSR matrix (n, d) with a dense one, for a narrow dense matrix: one non-zero touches C numbers that lie
// side by side. SciPy's run on one thread, and write their results once per non-zero instead of once per row.
//
// A row of C numbers is taken in vectors. The last one ends where the row ends and may overlap the one before, so
// that no vector is incomplete and none reaches past the row; rows shorter than a vector are taken number by number.
#pragma once

#include "common/api.hpp"
#include "simd/vector.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

// Vectors kept in registers at a time.
constexpr int csr_tile = 4;

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

// out[0 … columns) = Σ_j value_j · dense[column_j], for `V` vectors of the row from `first` on.
template <int V, class T, class Index, class Value>
KULLBACK_INLINE void csr_sum(const CsrRows<T, Index, Value>& rows, int64_t from, int64_t to, const T* dense, int64_t columns,
                             int64_t first, T* out) {
    int64_t place[V];
    Vector<T> sum[V];
    for (int v = 0; v < V; ++v) {
        const int64_t start = first + v * lanes<T>;
        place[v] = start + lanes<T> <= columns ? start : columns - lanes<T>;
        sum[v] = Vector<T>{};
    }
    for (int64_t j = from; j < to; ++j) {
        const T* row = dense + rows.place(j) * columns;
        for (int v = 0; v < V; ++v) sum[v] += rows.value(j) * load<Vector<T>>(row + place[v]);
    }
    for (int v = 0; v < V; ++v) store<Vector<T>>(out + place[v], sum[v]);
}

// out[column_j] += value_j · dense for every entry of a row, for `V` vectors from `first` on.
template <int V, class T, class Index, class Value>
KULLBACK_INLINE void csr_spread(const CsrRows<T, Index, Value>& rows, int64_t from, int64_t to, const T* dense,
                                int64_t columns, int64_t first, T* out) {
    int64_t place[V];
    Vector<T> part[V];
    for (int v = 0; v < V; ++v) {
        const int64_t start = first + v * lanes<T>;
        place[v] = start + lanes<T> <= columns ? start : columns - lanes<T>;
        part[v] = load<Vector<T>>(dense + place[v]);
        // What the vector before holds already is not added again.
        for (int64_t k = place[v]; k < start; ++k) lane(part[v], int(k - place[v])) = T(0);
    }
    for (int64_t j = from; j < to; ++j) {
        T* row = out + rows.place(j) * columns;
        for (int v = 0; v < V; ++v) {
            store<Vector<T>>(row + place[v], load<Vector<T>>(row + place[v]) + rows.value(j) * part[v]);
        }
    }
}

// Calls body(first, number of vectors as a type) until a row of `columns` numbers is covered.
template <class T, class Body>
KULLBACK_INLINE void csr_tiles(int64_t columns, Body body) {
    for (int64_t first = 0; first < columns; first += csr_tile * lanes<T>) {
        switch ((columns - first + lanes<T> - 1) / lanes<T>) {
            case 1: body(first, std::integral_constant<int, 1>{}); break;
            case 2: body(first, std::integral_constant<int, 2>{}); break;
            case 3: body(first, std::integral_constant<int, 3>{}); break;
            default: body(first, std::integral_constant<int, csr_tile>{});
        }
    }
}

// Rows [begin, end) of X @ dense.
template <class T, class Index, class Value>
int64_t csr_product_rows(const CsrJob& job, int64_t begin, int64_t end) {
    const CsrRows<T, Index, Value> rows(job);
    const T* dense = static_cast<const T*>(job.dense);
    const int64_t columns = job.columns;
    for (int64_t i = begin; i < end; ++i) {
        if (!rows.valid(job, i)) return i;
        const int64_t from = int64_t(rows.indptr[i]), to = int64_t(rows.ends[i]);
        T* __restrict out = static_cast<T*>(job.out) + i * columns;
        if (columns >= lanes<T>) {
            csr_tiles<T>(columns, [&](int64_t first, auto count) KULLBACK_LAMBDA {
                csr_sum<decltype(count)::value>(rows, from, to, dense, columns, first, out);
            });
            continue;
        }
        for (int64_t k = 0; k < columns; ++k) out[k] = 0;
        for (int64_t j = from; j < to; ++j) {
            const T* row = dense + rows.place(j) * columns;
            for (int64_t k = 0; k < columns; ++k) out[k] += rows.value(j) * row[k];
        }
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
        if (columns >= lanes<T>) {
            csr_tiles<T>(columns, [&](int64_t first, auto count) KULLBACK_LAMBDA {
                csr_spread<decltype(count)::value>(rows, from, to, dense, columns, first, out);
            });
            continue;
        }
        for (int64_t j = from; j < to; ++j) {
            T* row = out + rows.place(j) * columns;
            for (int64_t k = 0; k < columns; ++k) row[k] += rows.value(j) * dense[k];
        }
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
