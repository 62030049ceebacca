// CSR times dense: (n, d) x (d, C) -> (n, C). SciPy's runs on one thread; ours splits the rows.
#pragma once

#include "common/api.hpp"
#include "simd/vector.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

template <class T, class Index>
int64_t csr_rows(const CsrJob& job, int64_t begin, int64_t end) {
    const Index* indptr = static_cast<const Index*>(job.indptr);
    const Index* indices = static_cast<const Index*>(job.indices);
    const T* data = static_cast<const T*>(job.data);
    const T* dense = static_cast<const T*>(job.dense);
    const int64_t columns = job.columns;
    for (int64_t i = begin; i < end; ++i) {
        T* __restrict out = static_cast<T*>(job.out) + i * columns;
        const int64_t from = int64_t(indptr[i]), to = int64_t(indptr[i + 1]);
        if (from < 0 || to < from || to > job.nonzeros) return i;
        for (int64_t k = 0; k < columns; ++k) out[k] = 0;
        for (int64_t j = from; j < to; ++j) {
            const uint64_t column = uint64_t(int64_t(indices[j]));
            if (column >= uint64_t(job.inner)) return i;
            const T value = data[j];
            const T* row = dense + int64_t(column) * columns;
            for (int64_t k = 0; k < columns; ++k) out[k] += value * row[k];
        }
    }
    return -1;
}

template <class T>
int64_t csr_product(const CsrJob& job, int64_t begin, int64_t end) {
    return job.wide_indices ? csr_rows<T, int64_t>(job, begin, end) : csr_rows<T, int32_t>(job, begin, end);
}

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
