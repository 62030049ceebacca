// One pass over the rows of a dense linear model: logits X·W, the loss's gradient in them, and Xᵀ times that.
//
// BLAS copies a matrix into an order of its own before it multiplies, which pays when each number is used hundreds of
// times. Here each is used twice per class: with few classes the copy takes longer than the products. So a block of
// rows that fits the cache is brought into one form (the products' precision, perhaps standardised, zeros up to whole
// vectors), unless it can be read where it is, and everything is done with it before the next block is read.
#pragma once

#include "common/api.hpp"
#include "simd/convert.hpp"
#include "simd/transpose.hpp"
#include "simd/vector.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

// Bytes of a block of rows, small enough to stay in the second level of cache between the two products.
constexpr int64_t pass_block_bytes = 1 << 18;
constexpr int64_t pass_least_rows = 48, pass_most_rows = 288;
// Rows whose gradients are summed in the products' precision before they are added to the sums in double.
constexpr int64_t pass_flush_rows = 256;
// Columns whose weights are read again and again before those of the next ones.
constexpr int64_t pass_part = 256;
// Sums that a product keeps in registers at a time, and rows: with more of them their addresses no longer do.
constexpr int pass_sums = KULLBACK_VECTOR_BYTES == 64 ? 24 : 12, pass_most_together = 12;

template <class T>
int64_t whole_vectors(int64_t n) {
    return (n + lanes<T> - 1) / lanes<T> * lanes<T>;
}

template <class T>
struct PassShape {
    int64_t columns, padded, classes, wide, block;
    explicit PassShape(const PassJob& job)
        : columns(job.columns),
          padded(whole_vectors<T>(columns > 0 ? columns : 1)),
          classes(job.loss.classes),
          wide(whole_vectors<T>(classes)) {
        block = pass_block_bytes / (padded * int64_t(sizeof(T)));
        block = block < pass_least_rows ? pass_least_rows : block > pass_most_rows ? pass_most_rows : block;
        block = block / pass_least_rows * pass_least_rows;
    }
    // The gradient: class by class, each with room up to whole vectors of columns, then the intercepts'.
    int64_t sums() const { return classes * padded + classes; }
};

// Numbers of T that weights and intercepts take as the products read them.
template <class T>
int64_t pass_weights_size(const PassJob& job) {
    const PassShape<T> shape(job);
    return (shape.columns + 1) * shape.wide;
}

// Weights (columns, classes) and then intercepts in the products' precision, with zeros up to whole vectors of classes.
template <class T>
void pass_pack_weights(const PassJob& job, const double* weights, void* packed) {
    const PassShape<T> shape(job);
    T* to = static_cast<T*>(packed);
    for (int64_t k = 0; k <= shape.columns; ++k, to += shape.wide, weights += shape.classes) {
        const int64_t given = k < shape.columns || job.ones ? shape.classes : 0;
        for (int64_t c = 0; c < given; ++c) to[c] = T(weights[c]);
        for (int64_t c = given; c < shape.wide; ++c) to[c] = 0;
    }
}

template <class T>
size_t pass_scratch(const PassJob& job) {
    const PassShape<T> shape(job);
    const int64_t numbers =
        shape.block * shape.padded + 2 * (shape.block * shape.classes + shape.wide) + shape.sums() + shape.wide;
    return size_t(numbers) * sizeof(T) + scratch_bytes(job.loss, shape.block) + 4096;
}

// `width` numbers of a row from column k on, in the form that the products read.
template <class T, class S, class Width>
KULLBACK_INLINE void pass_convert(const PassJob& job, const S* from, int64_t k, Width width, T* to) {
    if (job.centre) {
        const double *centre = job.centre + k, *inverse = job.inverse + k;
        for (int64_t j = 0; j < width; ++j) to[j] = T((double(from[j]) - centre[j]) * inverse[j]);
    } else {
        for (int64_t j = 0; j < width; ++j) to[j] = T(from[j]);
    }
}

// Of a matrix whose columns are contiguous: as many columns at a time as a vector has lanes, in tiles of some rows.
template <class T, class S>
void pass_pack_columns(const PassJob& job, const PassShape<T>& shape, int64_t begin, int64_t end, T* to) {
    constexpr int64_t W = lanes<S>, P = 16 / int64_t(sizeof(S));
    const int64_t stride = job.matrix.column_stride, count = end - begin;
    const S* from = static_cast<const S*>(job.matrix.data) + begin;
    for (int64_t k = 0; k < job.columns; k += W, from += W * stride) {
        const int64_t width = k + W < job.columns ? W : job.columns - k;
        for (int64_t i = 0; i < count; i += P) {
            const int64_t rows = i + P < count ? P : count - i;
            S tile[P][W];
#if KULLBACK_HAS_SHUFFLES
            if (width == W && rows == P) {
                Vector<S> lines[P];
                load_tile<S>(from + i, stride, lines);
                for (int64_t r = 0; r < P; ++r) {
                    store<Vector<S>>(tile[r], lines[r]);
                    // a width known when this is compiled: the loop over it is one or two instructions
                    pass_convert(job, tile[r], k, std::integral_constant<int64_t, W>{}, to + (i + r) * shape.padded + k);
                }
                continue;
            }
#endif
            for (int64_t j = 0; j < width; ++j) {
                for (int64_t r = 0; r < rows; ++r) tile[r][j] = from[j * stride + i + r];
            }
            for (int64_t r = 0; r < rows; ++r) pass_convert(job, tile[r], k, width, to + (i + r) * shape.padded + k);
        }
    }
}

// Rows [begin, end) of the matrix in the form that the products read.
template <class T, class S>
void pass_pack_rows(const PassJob& job, const PassShape<T>& shape, int64_t begin, int64_t end, T* to) {
    const bool by_rows = job.matrix.column_stride == 1;
    if (!by_rows) pass_pack_columns<T, S>(job, shape, begin, end, to);
    const S* from = static_cast<const S*>(job.matrix.data) + begin * job.matrix.row_stride;
    for (int64_t i = begin; i < end; ++i, from += job.matrix.row_stride, to += shape.padded) {
        if (by_rows) pass_convert(job, from, 0, job.columns, to);
        for (int64_t k = job.columns; k < shape.padded; ++k) to[k] = 0;
    }
}

// Rows as the products read them, whole vectors at a time: there is something readable behind the last one.
template <class T>
struct PassRows {
    const T* data;
    int64_t stride;
};

// Whether rows up to `end` can be read where they are.
template <class T>
bool pass_in_place(const PassJob& job, const PassShape<T>& shape, int64_t end) {
    const int64_t stride = job.matrix.row_stride;
    return job.matrix.type == type_of<T> && job.matrix.column_stride == 1 && !job.centre &&
           stride >= job.columns && (job.rows - end) * stride + job.columns >= shape.padded;
}

// Where the rows lie that come next, to ask for them while others are multiplied; null for none.
struct PassAhead {
    const char* data;
    int64_t row_bytes;
};

// What `depth` columns add to the logits of R rows, for V vectors of classes; to the intercepts where there are no
// logits yet. Each vector is stored whole, over the start of the next row where the classes end inside it: what it
// adds there is zero, or is replaced afterwards.
template <int R, int V, class T>
KULLBACK_INLINE void pass_forward_tile(const T* rows, int64_t row_stride, const T* weights, int64_t wide, int64_t depth,
                                       const T* intercepts, T* out, int64_t stride, PassAhead ahead) {
    constexpr int64_t line = 64 / int64_t(sizeof(T));
    Vector<T> sum[R][V];
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
        for (int v = 0; v < V; ++v) sum[r][v] = Vector<T>{};
    }
    for (int64_t begin = 0; begin < depth; begin += line) {
        if (ahead.data) {
            for (int r = 0; r < R; ++r) prefetch<2>(ahead.data + r * ahead.row_bytes + begin * int64_t(sizeof(T)));
        }
        const int64_t end = begin + line < depth ? begin + line : depth;
        for (int64_t k = begin; k < end; ++k, weights += wide) {
            Vector<T> weight[V];
            for (int v = 0; v < V; ++v) weight[v] = load<Vector<T>>(weights + v * lanes<T>);
#pragma GCC unroll 12
            for (int r = 0; r < R; ++r) {
                for (int v = 0; v < V; ++v) sum[r][v] += rows[r * row_stride + k] * weight[v];
            }
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
        for (int v = 0; v < V; ++v) {
            T* to = out + r * stride + v * lanes<T>;
            store<Vector<T>>(to, load<Vector<T>>(intercepts ? intercepts + v * lanes<T> : to) + sum[r][v]);
        }
    }
}

template <int V, class T>
KULLBACK_INLINE void pass_forward_strip(const PassShape<T>& shape, PassRows<T> rows, int64_t count, const T* weights,
                                        int64_t depth, const T* intercepts, T* out, PassAhead ahead) {
    constexpr int R = pass_sums / V < pass_most_together ? pass_sums / V : pass_most_together;
    const auto tile = [&](int64_t i, auto size) KULLBACK_LAMBDA {
        const PassAhead here = {ahead.data ? ahead.data + i * ahead.row_bytes : nullptr, ahead.row_bytes};
        pass_forward_tile<decltype(size)::value, V>(rows.data + i * rows.stride, rows.stride, weights, shape.wide, depth,
                                                    intercepts, out + i * shape.classes, shape.classes, here);
    };
    int64_t i = 0;
    for (; i + R <= count; i += R) tile(i, std::integral_constant<int, R>{});
    for (; i + 4 <= count; i += 4) tile(i, std::integral_constant<int, 4>{});
    for (; i < count; ++i) tile(i, std::integral_constant<int, 1>{});
}

// out (count, classes) = rows · weights + intercepts, some columns at a time, so that their weights stay in the nearest cache and
// rounding grows with the columns of a part and the number of parts. Classes are taken in strips of one to three
// vectors; the last strip, whose vectors reach over the end of a row, comes first.
template <class T>
void pass_forward(const PassShape<T>& shape, PassRows<T> rows, int64_t count, const T* weights, T* out,
                  PassAhead ahead) {
    for (int64_t begin = 0; begin == 0 || begin < shape.columns; begin += pass_part) {
        const int64_t depth = begin + pass_part < shape.columns ? pass_part : shape.columns - begin;
        const PassRows<T> part = {rows.data + begin, rows.stride};
        PassAhead next = {ahead.data ? ahead.data + begin * int64_t(sizeof(T)) : nullptr, ahead.row_bytes};
        for (int64_t v = shape.wide / lanes<T>; v > 0; next.data = nullptr) {
            const int64_t size = v == 1 ? 1 : v == 2 || v == 4 ? 2 : 3;
            v -= size;
            const T* from = weights + begin * shape.wide + v * lanes<T>;
            T* to = out + v * lanes<T>;
            const T* first = begin == 0 ? weights + shape.columns * shape.wide + v * lanes<T> : nullptr;
            switch (size) {
                case 1: pass_forward_strip<1>(shape, part, count, from, depth, first, to, next); break;
                case 2: pass_forward_strip<2>(shape, part, count, from, depth, first, to, next); break;
                default: pass_forward_strip<3>(shape, part, count, from, depth, first, to, next);
            }
        }
    }
}

// sums[c][…] += Σ_i pulls[i][c] · rows[i][…] for K vectors of columns and C classes.
template <int K, int C, class T>
KULLBACK_INLINE void pass_backward_tile(PassRows<T> rows, int64_t count, const T* pulls, int64_t stride, T* sums,
                                        int64_t padded) {
    Vector<T> sum[C][K];
    for (int c = 0; c < C; ++c) {
        for (int k = 0; k < K; ++k) sum[c][k] = load<Vector<T>>(sums + c * padded + k * lanes<T>);
    }
    const T* from = rows.data;
    for (int64_t i = 0; i < count; ++i, from += rows.stride, pulls += stride) {
        Vector<T> row[K];
        for (int k = 0; k < K; ++k) row[k] = load<Vector<T>>(from + k * lanes<T>);
        for (int c = 0; c < C; ++c) {
            for (int k = 0; k < K; ++k) sum[c][k] += pulls[c] * row[k];
        }
    }
    for (int c = 0; c < C; ++c) {
        for (int k = 0; k < K; ++k) store<Vector<T>>(sums + c * padded + k * lanes<T>, sum[c][k]);
    }
}

// The same for any number of classes, some at a time while these columns stay in the nearest cache.
template <int K, class T>
KULLBACK_INLINE void pass_backward_strip(const PassShape<T>& shape, PassRows<T> rows, int64_t count, const T* pulls,
                                         T* sums) {
    constexpr int64_t most = 6;
    const int64_t strips = (shape.classes + most - 1) / most, stride = shape.classes, padded = shape.padded;
    int64_t c = 0;
    for (int64_t s = 0; s < strips; ++s) {
        const int64_t size = (shape.classes - c) / (strips - s);
        const T* from = pulls + c;
        T* to = sums + c * padded;
        switch (size) {
            case 1: pass_backward_tile<K, 1>(rows, count, from, stride, to, padded); break;
            case 2: pass_backward_tile<K, 2>(rows, count, from, stride, to, padded); break;
            case 3: pass_backward_tile<K, 3>(rows, count, from, stride, to, padded); break;
            case 4: pass_backward_tile<K, 4>(rows, count, from, stride, to, padded); break;
            case 5: pass_backward_tile<K, 5>(rows, count, from, stride, to, padded); break;
            default: pass_backward_tile<K, 6>(rows, count, from, stride, to, padded);
        }
        c += size;
    }
}

// sums (classes, padded) += pullsᵀ · rows.
template <class T>
void pass_backward(const PassShape<T>& shape, PassRows<T> rows, int64_t count, const T* pulls, T* sums) {
    int64_t k = 0;
    for (; k + 2 * lanes<T> <= shape.padded; k += 2 * lanes<T>) {
        pass_backward_strip<2>(shape, {rows.data + k, rows.stride}, count, pulls, sums + k);
    }
    if (k < shape.padded) pass_backward_strip<1>(shape, {rows.data + k, rows.stride}, count, pulls, sums + k);
}

// totals[…] += Σ_i pulls[i][…], whole vectors at a time: what lies behind the classes means nothing.
template <class T>
void pass_totals(const PassShape<T>& shape, int64_t count, const T* pulls, T* totals) {
    for (int64_t c = 0; c < shape.wide; c += lanes<T>) {
        const T* from = pulls + c;
        Vector<T> sum[4] = {load<Vector<T>>(totals + c)};  // one after the other would wait for each sum
        int64_t i = 0;
        for (; i + 4 <= count; i += 4, from += 4 * shape.classes) {
            for (int r = 0; r < 4; ++r) sum[r] += load<Vector<T>>(from + r * shape.classes);
        }
        for (; i < count; ++i, from += shape.classes) sum[0] += load<Vector<T>>(from);
        store<Vector<T>>(totals + c, (sum[0] + sum[1]) + (sum[2] + sum[3]));
    }
}

// How `pass_rows` lays out the numbers that it writes.
template <class T>
PassSums pass_sums_shape(const PassJob& job) {
    const PassShape<T> shape(job);
    return {shape.padded, shape.sums()};
}

// Rows [begin, end): their loss goes into the report, and the gradient of its sum to `sums`.
template <class T>
void pass_rows(const PassJob& job, int64_t begin, int64_t end, void* memory, double* sums, Report& report) {
    const PassShape<T> shape(job);
    Scratch scratch(memory);
    T* packed = scratch.take<T>(shape.block * shape.padded);
    T* logits = scratch.take<T>(shape.block * shape.classes + shape.wide);
    T* moved = scratch.take<T>(shape.block * shape.classes + shape.wide);
    const int64_t numbers = shape.sums();
    T* partial = scratch.take<T>(numbers + shape.wide);
    T* totals = partial + shape.classes * shape.padded;
    for (int64_t i = 0; i < numbers; ++i) sums[i] = 0;
    for (int64_t i = 0; i < numbers + shape.wide; ++i) partial[i] = 0;
    int64_t held = 0;
    for (int64_t from = begin; from < end; from += shape.block) {
        const int64_t to = from + shape.block < end ? from + shape.block : end, count = to - from;
        PassRows<T> rows = {packed, shape.padded};
        if (pass_in_place(job, shape, to)) {
            rows = {static_cast<const T*>(job.matrix.data) + from * job.matrix.row_stride, job.matrix.row_stride};
        } else if (job.matrix.type == Type::float32) {
            pass_pack_rows<T, float>(job, shape, from, to, packed);
        } else {
            pass_pack_rows<T, double>(job, shape, from, to, packed);
        }
        const int64_t row_bytes = job.matrix.row_stride * (job.matrix.type == Type::float32 ? 4 : 8);
        // Asking for what comes next has not made reading by columns any faster.
        const bool by_rows = job.matrix.column_stride == 1;
        const char* next = by_rows && to < end ? static_cast<const char*>(job.matrix.data) + to * row_bytes : nullptr;
        pass_forward(shape, rows, count, static_cast<const T*>(job.weights), logits, {next, row_bytes});
        Job loss = job.loss;
        loss.logits = {logits - from * shape.classes, shape.classes, 1, type_of<T>};  // kernels count from the first row
        if (job.along) {
            pass_forward(shape, rows, count, static_cast<const T*>(job.along), moved, {nullptr, 0});
            loss.direction = {moved - from * shape.classes, shape.classes, 1, type_of<T>};
        }
        loss.out = logits - from * shape.classes;
        loss.out_stride = shape.classes;
        Report here;
        job.kernel(loss, from, to, scratch.rest(), here);
        report.total += here.total;
        if (report.infinite_row < 0) report.infinite_row = here.infinite_row;
        if (report.bad_row < 0) {
            report.bad_row = here.bad_row;
            report.bad_column = here.bad_column;
        }
        pass_backward(shape, rows, count, logits, partial);
        if (job.ones) pass_totals(shape, count, logits, totals);
        held += count;
        if (held < pass_flush_rows && to < end) continue;
        held = 0;
        for (int64_t i = 0; i < numbers; ++i) {
            sums[i] += double(partial[i]);
            partial[i] = 0;
        }
    }
}

template <class T>
constexpr PassKernels pass_kernels() {
    return {&pass_weights_size<T>, &pass_pack_weights<T>, &pass_sums_shape<T>, &pass_scratch<T>, &pass_rows<T>};
}

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
