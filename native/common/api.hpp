// What the bindings hand to a kernel: plain pointers and numbers, the same for every instruction level.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kullback {

enum class Type { boolean, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float32, float64 };

// Strides are in elements. 64 bits everywhere: N * C may exceed 2^32.
struct Matrix {
    const void* data = nullptr;
    int64_t row_stride = 0, column_stride = 0;
    Type type = Type::float32;
};
struct IndexVector {
    const void* data = nullptr;
    int64_t stride = 0;
    Type type = Type::int64;
};

enum class Form { indices, mixture, rows };

struct Targets {
    Form form = Form::indices;
    IndexVector first, second;
    const double* share = nullptr;
    Matrix rows;
    const double* row_weight = nullptr;  // null: all ones
    bool has_ignore = false;
    int64_t ignore_index = 0;
};

struct Job {
    int64_t classes = 0;
    Matrix logits;
    Targets targets;
    Matrix direction;  // Hessian products only
    const double* parameters = nullptr;
    double smoothing = 0, inverse_temperature = 1, scale = 1;
    const void* class_weight = nullptr;     // (C,) in the logits' type; null: all ones
    const void* positive_weight = nullptr;  // (C,) in the logits' type; null: all ones
    double class_weight_sum = 0;
    const void* shift = nullptr;   // (C,) in the logits' type: the loss' own number for each class
    double largest_shift = 0;
    const void* offset = nullptr;  // (C,) in the logits' type, added to the scaled logits; null: none
    double softcap = 0;            // 0: none
    double z_loss = 0;
    bool divergence = false;  // cross-entropy less the entropy of its targets
    bool in_double = false;  // rows may be done over, or all be done, in double precision: that needs room
    bool second_order = false;  // a Hessian: blocks of rows are transformed as wholes
    bool logarithm = false;  // probabilities only
    bool flush = false;      // numbers below the least normal one count as zero; see common/flush.hpp
    void* per_example = nullptr;
    bool per_example_float64 = false;
    void* log_sum_exp = nullptr;    // (N,) in the logits' type, of what the softmax is taken of; softmax losses only
    int64_t* prediction = nullptr;  // (N,) the class with the largest logit, or -1; softmax losses only
    void* out = nullptr;  // (N, C) in the logits' type: gradient, product, diagonal or probabilities
    int64_t out_stride = 0;
    bool stream = false;  // `out` is larger than the caches, and nobody reads or writes it in between
};

// What one block of rows reports. Blocks have a fixed size, and their totals are added in order.
struct Report {
    double total = 0;
    int64_t counted = 0;  // rows whose weight is not 0; not of independent labels' losses
    int64_t infinite_row = -1;  // first row with loss +inf
    int64_t bad_row = -1, bad_column = -1;  // first target that is not valid
    // of probabilities that are given: rows with mass below the clip, above it, and the first that is none of them
    int64_t low = 0, high = 0, amiss_row = -1;
};

// Runs rows [begin, end). `scratch` holds scratch_bytes(job, end - begin) bytes.
using RowKernel = void (*)(const Job&, int64_t begin, int64_t end, void* scratch, Report&);

struct PrecisionKernels {
    RowKernel evaluate, hessian_product, hessian_diagonal;
};
struct Family {
    const char* name;
    PrecisionKernels float32, float64;
    bool in_double = false;  // whether its kernels need room for rows in double precision
    bool exponentials = true;  // whether they take any, and so are full of numbers next to zero
};
struct CsrJob {
    const void *indptr, *ends, *indices;  // row i holds entries indptr[i] … ends[i]
    bool wide_indices, double_data;
    int64_t nonzeros, inner, columns;
    int64_t base;  // what index 0 of the dense matrix is called in `indices`
    const void *data, *dense;
    const void *by_row, *by_column;  // (n,) and (C,): their outer product is added; both or neither, for products alone
    void* out;
};
// Returns the first row whose indices are out of range, or -1; never reads outside the arrays.
using CsrKernel = int64_t (*)(const CsrJob&, int64_t begin, int64_t end);

// A penalised quadratic model and a point of it; see linear/descent.hpp.
struct DescentJob {
    int64_t variables, blocks, groups, rank, matrix_size;
    const int64_t *block_start, *matrix_start, *block_of;  // (blocks + 1,), (blocks,), (variables,)
    const double* matrix;                                  // the blocks, each row by row
    const double *left, *right;                            // (variables, rank)
    const int64_t *group_start, *member;                   // (groups + 1,), (variables,)
    const double* threshold;                               // (groups,)
    double *slope, *x, *moved;                             // (variables,) twice, and R'(x - x0) (rank,)
    double tolerance;
    int64_t sweeps;
};
using DescentKernel = int64_t (*)(const DescentJob&, double* scratch);

// A pass over the rows of a dense linear model; see linear/pass.hpp.
struct PassJob {
    Job loss;  // but for its logits, direction and output, which the pass has block by block
    RowKernel kernel = nullptr;
    Matrix matrix;
    int64_t rows = 0, columns = 0;
    bool ones = false;                                // whether there are intercepts
    const double *centre = nullptr, *inverse = nullptr;  // (columns,) to subtract, then to multiply by; null: neither
    const void *weights = nullptr, *along = nullptr;  // as packed; `along` for Hessian products only
};
struct PassSums {
    int64_t stride, numbers;  // how far apart the columns' of two classes lie, and all, the intercepts' last
};
struct PassKernels {
    int64_t (*weights_size)(const PassJob&);  // in numbers of the products' precision
    void (*pack_weights)(const PassJob&, const double* weights, void* packed);
    PassSums (*sums_shape)(const PassJob&);
    size_t (*scratch)(const PassJob&);
    void (*rows)(const PassJob&, int64_t begin, int64_t end, void* scratch, double* sums, Report&);
};

// What one instruction level offers for independent labels.
struct LabelKernels {
    const Family* families;
    int count;
    RowKernel targets;
    RowKernel probabilities[2];  // float32, float64
};

// Everything one instruction level offers.
struct Level {
    const char* name;
    const Family* const* softmax;  // losses of targets by class: row-coupled ones, hinges and plain ones
    int softmax_count;
    RowKernel softmax_targets;
    RowKernel softmax_probabilities[2];  // float32, float64
    const LabelKernels* labels;
    CsrKernel csr_product[2], csr_transposed[2];
    DescentKernel descent;
    PassKernels pass[2];  // float32, float64
    void (*elementary[2])(int which, const void* in, void* out, int64_t n);
    void (*widen_bfloat16)(const uint16_t* from, int64_t stride, int64_t n, float* to);
    void (*narrow_bfloat16)(const float* from, int64_t n, uint16_t* to);
};

// Logits and result in bfloat16: a block of rows at a time is widened to float32, run in place, and narrowed again.
struct HalfRows {
    const uint16_t* logits = nullptr;
    int64_t row_stride = 0, column_stride = 0;
    uint16_t* out = nullptr;
    int64_t out_stride = 0;
};

// Room for every conversion a kernel may need (indices, weights, losses, three matrices of the logits' type), for
// transformed logits with their slopes, for what is kept of one row between its sweeps, and for a row in double.
inline size_t scratch_bytes(const Job& job, int64_t rows) {
    auto converted = [&](const Matrix& m) { return m.data && (m.type != job.logits.type || m.column_stride != 1); };
    size_t matrices = size_t(converted(job.logits)) + converted(job.targets.rows) + converted(job.direction);
    const bool transformed = job.offset || job.softcap > 0;
    if (transformed && job.second_order) matrices += job.softcap > 0 ? 5 : 1;
    const size_t kept = 4 + (job.shift ? 1 : 0) + (transformed ? 2 : 0) + (job.in_double ? 7 : 0);
    const size_t few = job.classes <= 256 ? 4 * 16 : 0;  // a last, incomplete group of rows, and offsets for one
    return size_t(rows) * (8 + 8 + 8) + (matrices * size_t(rows) + kept + few) * size_t(job.classes) * 8 + 4096;
}

const Level& level();  // the best one this processor runs, or the one KULLBACK_ISA names

}  // namespace kullback
