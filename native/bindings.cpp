// The Python module kullback.kernels._native: raw arrays in, plain numbers out.
//
// kullback/kernels/cpu.py is its only caller. It checks shapes and types and words every error; what is checked here
// is what memory safety needs (see block_targets and csr_rows).
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "common/api.hpp"
#include "common/flush.hpp"
#include "common/pool.hpp"

namespace nb = nanobind;
using namespace kullback;

namespace {

using In = nb::ndarray<nb::ro, nb::device::cpu>;
using Out = nb::ndarray<nb::device::cpu>;
using OptionalIn = std::optional<In>;
using OptionalOut = std::optional<Out>;
using Summary = std::tuple<double, int64_t, int64_t, int64_t, int64_t>;

int thread_count = 1;

template <class Array>
Type type_of_array(const Array& array) {
    const nb::dlpack::dtype type = array.dtype();
    const auto code = nb::dlpack::dtype_code(type.code);
    if (code == nb::dlpack::dtype_code::Bool) return Type::boolean;
    if (code == nb::dlpack::dtype_code::Float && type.bits == 32) return Type::float32;
    if (code == nb::dlpack::dtype_code::Float && type.bits == 64) return Type::float64;
    const bool is_signed = code == nb::dlpack::dtype_code::Int;
    if (is_signed || code == nb::dlpack::dtype_code::UInt) {
        switch (type.bits) {
            case 8: return is_signed ? Type::int8 : Type::uint8;
            case 16: return is_signed ? Type::int16 : Type::uint16;
            case 32: return is_signed ? Type::int32 : Type::uint32;
            case 64: return is_signed ? Type::int64 : Type::uint64;
        }
    }
    throw nb::type_error("unsupported array type");
}

Matrix matrix_of(const In& a) {
    if (a.ndim() != 2) throw nb::value_error("expected a matrix");
    return {a.data(), a.stride(0), a.stride(1), type_of_array(a)};
}
IndexVector vector_of(const In& a) { return {a.data(), a.stride(0), type_of_array(a)}; }

void need_rows(const In& a, size_t rows) {
    if (a.shape(0) != rows) throw nb::value_error("array lengths differ");
}

Targets targets_of(size_t rows, const OptionalIn& first, const OptionalIn& second, const OptionalIn& share,
                   const OptionalIn& soft, const OptionalIn& row_weight, std::optional<int64_t> ignore_index) {
    Targets t;
    for (const OptionalIn* a : {&first, &second, &share, &soft, &row_weight}) {
        if (*a) need_rows(**a, rows);
    }
    t.form = soft ? Form::rows : second ? Form::mixture : Form::indices;
    if (first) t.first = vector_of(*first);
    if (second) t.second = vector_of(*second);
    if (share) t.share = static_cast<const double*>(share->data());
    if (soft) t.rows = matrix_of(*soft);
    if (row_weight) t.row_weight = static_cast<const double*>(row_weight->data());
    t.has_ignore = ignore_index.has_value();
    t.ignore_index = ignore_index.value_or(0);
    return t;
}

double sum_of(const void* weights, Type type, int64_t n) {
    double total = 0;
    for (int64_t begin = 0; begin < n; begin += 256) {  // sums of sums, against rounding
        double here = 0;
        for (int64_t k = begin; k < n && k < begin + 256; ++k) {
            here += type == Type::float32 ? double(static_cast<const float*>(weights)[k])
                                          : static_cast<const double*>(weights)[k];
        }
        total += here;
    }
    return total;
}

double largest_of(const void* numbers, Type type, int64_t n) {
    double largest = 0;
    for (int64_t k = 0; k < n; ++k) {
        const double x = type == Type::float32 ? double(static_cast<const float*>(numbers)[k])
                                               : static_cast<const double*>(numbers)[k];
        if (x > largest) largest = x;
    }
    return largest;
}

// Scratch memory of this thread, kept between blocks unless it is large.
class ThreadScratch {
  public:
    void* at_least(size_t bytes) {
        if (bytes > size_) {
            memory_.reset(new char[bytes]);
            size_ = bytes;
        }
        return memory_.get();
    }
    void trim() {
        if (size_ > (size_t(4) << 20)) {
            memory_.reset();
            size_ = 0;
        }
    }

  private:
    std::unique_ptr<char[]> memory_;
    size_t size_ = 0;
};
thread_local ThreadScratch thread_scratch;

// Blocks depend on the shape alone, never on the number of threads, and their reports are combined in order: that
// is what makes results bit-identical for any number of threads.
int64_t rows_per_block(int64_t classes) {
    const int64_t rows = 32768 / (classes > 0 ? classes : 1);
    if (rows >= 2048) return 2048;
    if (rows >= 64) return rows / 64 * 64;
    return rows > 0 ? rows : 1;
}

// Below this many elements, waking a thread costs more than it saves.
constexpr int64_t serial_elements = 32768;

// A row kernel on bfloat16 rows: widened into `wide`, overwritten by their result, narrowed into place.
void run_half(RowKernel kernel, const Job& job, const HalfRows& half, int64_t begin, int64_t end, void* scratch,
              float* wide, Report& report) {
    const int64_t classes = job.classes, rows = end - begin;
    const bool packed = half.column_stride == 1 && half.row_stride == classes;
    if (packed) {
        level().widen_bfloat16(half.logits + begin * classes, 1, rows * classes, wide);
    } else {
        for (int64_t r = 0; r < rows; ++r) {
            level().widen_bfloat16(half.logits + (begin + r) * half.row_stride, half.column_stride, classes,
                                   wide + r * classes);
        }
    }
    Job block = job;
    block.logits.data = wide - begin * classes;  // kernels index rows from the array's start
    if (half.out) {
        block.out = wide - begin * classes;
        block.out_stride = classes;
    }
    kernel(block, begin, end, scratch, report);
    if (!half.out) return;
    if (half.out_stride == classes) {
        level().narrow_bfloat16(wide, rows * classes, half.out + begin * classes);
    } else {
        for (int64_t r = 0; r < rows; ++r) {
            level().narrow_bfloat16(wide + r * classes, classes, half.out + (begin + r) * half.out_stride);
        }
    }
}

Report combined(const std::vector<Report>& reports) {
    Report all;
    for (const Report& r : reports) {
        all.total += r.total;
        all.counted += r.counted;
        if (all.infinite_row < 0) all.infinite_row = r.infinite_row;
        if (all.bad_row < 0) {
            all.bad_row = r.bad_row;
            all.bad_column = r.bad_column;
        }
        all.low += r.low;
        all.high += r.high;
        if (all.amiss_row < 0) all.amiss_row = r.amiss_row;
    }
    return all;
}

Summary summary_of(const Report& r) { return {r.total, r.counted, r.infinite_row, r.bad_row, r.bad_column}; }

// `backwards`: the last rows come first.
Report run_rows(RowKernel kernel, const Job& job, int64_t rows, const HalfRows* half = nullptr, bool backwards = false) {
    const int threads = rows * job.classes <= serial_elements ? 1 : thread_count;  // while nobody can change it
    nb::gil_scoped_release unlocked;
    const int64_t step = rows_per_block(job.classes);
    const int64_t blocks = (rows + step - 1) / step;
    std::vector<Report> reports(static_cast<size_t>(blocks));
    run_blocks(blocks, threads, [&](int64_t turn) {
        const FlushSubnormals flush(job.flush);
        const int64_t block = backwards ? blocks - 1 - turn : turn;
        const int64_t begin = block * step, end = begin + step < rows ? begin + step : rows;
        Report& report = reports[size_t(block)];
        if (half) {
            const size_t wide = (size_t(end - begin) * size_t(job.classes) * sizeof(float) + 63) & ~size_t(63);
            char* memory = static_cast<char*>(thread_scratch.at_least(wide + scratch_bytes(job, end - begin)));
            run_half(kernel, job, *half, begin, end, memory + wide, reinterpret_cast<float*>(memory), report);
        } else {
            kernel(job, begin, end, thread_scratch.at_least(scratch_bytes(job, end - begin)), report);
        }
        thread_scratch.trim();
    });
    return combined(reports);
}

const Family& find_family(bool sigmoid, const std::string& name) {
    const Level& kernels = level();
    for (int i = 0; i < (sigmoid ? kernels.labels->count : kernels.softmax_count); ++i) {
        const Family& family = sigmoid ? kernels.labels->families[i] : *kernels.softmax[i];
        if (name == family.name) return family;
    }
    throw nb::value_error("unknown family");
}

RowKernel pick(const Family& family, Type type, int operation) {
    const PrecisionKernels& kernels = type == Type::float32 ? family.float32 : family.float64;
    return operation == 0 ? kernels.evaluate : operation == 1 ? kernels.hessian_product : kernels.hessian_diagonal;
}

void set_out(Job& job, const OptionalOut& out) {
    if (!out) return;
    job.out = out->data();
    job.out_stride = out->stride(0);
}

// A result of so many bytes has left the caches before anyone reads it.
constexpr int64_t stream_bytes = int64_t(32) << 20;

// What a loss is, into a job that knows its classes and the type of its logits.
void set_loss(Job& job, const std::vector<double>& parameters, double smoothing, double inverse_temperature,
              const OptionalIn& class_weight, const OptionalIn& positive_weight, const OptionalIn& shift,
              const OptionalIn& offset, double softcap, double z_loss, bool divergence) {
    job.parameters = parameters.data();
    job.smoothing = smoothing;
    job.inverse_temperature = inverse_temperature;
    if (class_weight) {
        job.class_weight = class_weight->data();
        job.class_weight_sum = sum_of(job.class_weight, job.logits.type, job.classes);
    }
    if (positive_weight) job.positive_weight = positive_weight->data();
    if (shift) {
        job.shift = shift->data();
        job.largest_shift = largest_of(job.shift, job.logits.type, job.classes);
    }
    if (offset) job.offset = offset->data();
    job.softcap = softcap;
    job.z_loss = z_loss;
    job.divergence = divergence;
}

// operation: 0 evaluate, 1 Hessian product, 2 Hessian diagonal. Logits and result of type uint16 hold bfloat16 numbers
// (NumPy has no such type); weights are then float32, and only operation 0 is there.
Summary run_family(bool sigmoid, int operation, const std::string& name, const std::vector<double>& parameters,
                   double smoothing, double inverse_temperature, const OptionalIn& class_weight,
                   const OptionalIn& positive_weight, const In& logits, const OptionalIn& first,
                   const OptionalIn& second, const OptionalIn& share, const OptionalIn& rows,
                   const OptionalIn& row_weight, std::optional<int64_t> ignore_index, double scale,
                   const OptionalIn& direction, const OptionalOut& per_example, const OptionalOut& out,
                   const OptionalIn& shift, const OptionalIn& offset, double softcap, double z_loss, bool divergence,
                   const OptionalOut& log_sum_exp, const OptionalOut& prediction, const OptionalOut& tally) {
    const Family& family = find_family(sigmoid, name);
    Job job;
    job.logits = matrix_of(logits);
    job.classes = int64_t(logits.shape(1));
    HalfRows half;
    const bool is_half = job.logits.type == Type::uint16;
    if (is_half) {
        if (operation != 0 || (out && type_of_array(*out) != Type::uint16)) throw nb::type_error("not for bfloat16");
        half.logits = static_cast<const uint16_t*>(logits.data());
        half.row_stride = job.logits.row_stride;
        half.column_stride = job.logits.column_stride;
        if (out) {
            half.out = static_cast<uint16_t*>(out->data());
            half.out_stride = out->stride(0);
        }
        job.logits = {nullptr, job.classes, 1, Type::float32};
    }
    job.targets = targets_of(logits.shape(0), first, second, share, rows, row_weight, ignore_index);
    set_loss(job, parameters, smoothing, inverse_temperature, class_weight, positive_weight, shift, offset, softcap,
             z_loss, divergence);
    job.scale = scale;
    job.second_order = operation != 0;
    job.in_double = family.in_double || operation != 0;
    job.flush = family.exponentials;
    if (direction) job.direction = matrix_of(*direction);
    if (per_example) {
        job.per_example = per_example->data();
        job.per_example_float64 = type_of_array(*per_example) == Type::float64;
    }
    if (log_sum_exp) job.log_sum_exp = log_sum_exp->data();
    if (prediction) job.prediction = static_cast<int64_t*>(prediction->data());
    set_out(job, out);
    const int64_t number_bytes = job.logits.type == Type::float64 ? 8 : 4;
    const int64_t out_bytes = int64_t(logits.shape(0)) * job.out_stride * number_bytes;
    job.stream = out_bytes >= stream_bytes && job.out != job.logits.data && !is_half;
    const RowKernel kernel = pick(family, job.logits.type, operation);
    const Report report = run_rows(kernel, job, int64_t(logits.shape(0)), is_half ? &half : nullptr);
    if (tally) {
        int64_t* to = static_cast<int64_t*>(tally->data());
        to[0] = report.low;
        to[1] = report.high;
        to[2] = report.amiss_row;
    }
    return summary_of(report);
}

Summary run_targets(bool sigmoid, int64_t n, int64_t classes, const OptionalIn& class_weight, const OptionalIn& first,
                    const OptionalIn& second, const OptionalIn& share, const OptionalIn& rows,
                    const OptionalIn& row_weight, std::optional<int64_t> ignore_index, const OptionalOut& known) {
    Job job;
    job.classes = classes;
    job.logits.type = Type::float64;
    job.targets = targets_of(size_t(n), first, second, share, rows, row_weight, ignore_index);
    if (class_weight) job.class_weight = class_weight->data();
    if (known) job.per_example = known->data();
    // the loss will read the same targets from the first row on: those that come last here are still in a cache then
    return summary_of(run_rows(sigmoid ? level().labels->targets : level().softmax_targets, job, n, nullptr, true));
}

void run_probabilities(bool sigmoid, const In& logits, double inverse_temperature, bool logarithm, const Out& out) {
    Job job;
    job.logits = matrix_of(logits);
    job.classes = int64_t(logits.shape(1));
    job.inverse_temperature = inverse_temperature;
    job.logarithm = logarithm;
    job.flush = true;
    set_out(job, out);
    const int precision = job.logits.type == Type::float64;
    run_rows(sigmoid ? level().labels->probabilities[precision] : level().softmax_probabilities[precision], job,
             int64_t(logits.shape(0)));
}

CsrJob csr_job(const In& indptr, const In& ends, const In& indices, const In& data, const In& dense, const Out& out,
               int64_t base) {
    CsrJob job;
    job.indptr = indptr.data();
    job.ends = ends.data();
    job.base = base;
    job.double_data = type_of_array(data) == Type::float64;
    job.indices = indices.data();
    job.wide_indices = type_of_array(indices) == Type::int64;
    job.nonzeros = int64_t(indices.shape(0));
    job.inner = int64_t(dense.shape(0));
    job.columns = int64_t(dense.shape(1));
    job.data = data.data();
    job.dense = dense.data();
    job.by_row = job.by_column = nullptr;
    job.out = out.data();
    return job;
}

int64_t run_csr(const In& indptr, const In& ends, const In& indices, const In& data, const In& dense, const Out& out,
                int64_t base, const OptionalIn& by_row, const OptionalIn& by_column) {
    CsrJob job = csr_job(indptr, ends, indices, data, dense, out, base);
    if (by_row && by_column) {
        need_rows(*by_row, out.shape(0));
        need_rows(*by_column, out.shape(1));
        job.by_row = by_row->data();
        job.by_column = by_column->data();
    }
    const CsrKernel kernel = level().csr_product[type_of_array(dense) == Type::float64];
    const int64_t rows = int64_t(out.shape(0));
    const int threads = (job.nonzeros + rows) * job.columns <= serial_elements ? 1 : thread_count;
    nb::gil_scoped_release unlocked;
    const int64_t step = 256, blocks = (rows + step - 1) / step;
    std::vector<int64_t> bad(static_cast<size_t>(blocks), -1);
    run_blocks(blocks, threads, [&](int64_t block) {
        const int64_t begin = block * step, end = begin + step < rows ? begin + step : rows;
        bad[size_t(block)] = kernel(job, begin, end);
    });
    for (int64_t row : bad) {
        if (row >= 0) return row;
    }
    return -1;
}

// On the calling thread alone: rows that share a column add to the same numbers.
int64_t run_csr_transposed(const In& indptr, const In& ends, const In& indices, const In& data, const In& dense, const Out& out,
                           int64_t base) {
    CsrJob job = csr_job(indptr, ends, indices, data, dense, out, base);
    job.inner = int64_t(out.shape(0));
    const CsrKernel kernel = level().csr_transposed[type_of_array(dense) == Type::float64];
    const int64_t rows = int64_t(dense.shape(0));
    nb::gil_scoped_release unlocked;
    return kernel(job, 0, rows);
}

int64_t run_descent(const In& block_start, const In& matrix_start, const In& block_of, const In& matrix, const In& left,
                    const In& right, const In& group_start, const In& member, const In& threshold, const Out& slope,
                    const Out& x, const Out& moved, double tolerance, int64_t sweeps) {
    DescentJob job;
    job.variables = int64_t(x.shape(0));
    job.blocks = int64_t(matrix_start.shape(0));
    job.groups = int64_t(threshold.shape(0));
    job.rank = int64_t(moved.shape(0));
    job.matrix_size = int64_t(matrix.shape(0));
    const size_t variables = x.shape(0), low = size_t(job.variables * job.rank);
    need_rows(block_start, size_t(job.blocks) + 1);
    need_rows(group_start, size_t(job.groups) + 1);
    for (const In* a : {&block_of, &member}) need_rows(*a, variables);
    for (const In* a : {&left, &right}) need_rows(*a, low);
    if (slope.shape(0) != variables) throw nb::value_error("array lengths differ");
    const auto integers = [](const In& a) { return static_cast<const int64_t*>(a.data()); };
    const auto numbers = [](const In& a) { return static_cast<const double*>(a.data()); };
    job.block_start = integers(block_start);
    job.matrix_start = integers(matrix_start);
    job.block_of = integers(block_of);
    job.matrix = numbers(matrix);
    job.left = numbers(left);
    job.right = numbers(right);
    job.group_start = integers(group_start);
    job.member = integers(member);
    job.threshold = numbers(threshold);
    job.slope = static_cast<double*>(slope.data());
    job.x = static_cast<double*>(x.data());
    job.moved = static_cast<double*>(moved.data());
    job.tolerance = tolerance;
    job.sweeps = sweeps;
    std::vector<double> scratch(2 * variables + 1);
    nb::gil_scoped_release unlocked;
    return level().descent(job, scratch.data());
}

// Loss and gradient, or Hessian products, of a linear model over all rows of a matrix; see linear/pass.hpp. It holds on
// to the arrays it is made of. One call runs at a time.
class LinearPass {
  public:
    LinearPass(bool sigmoid, const std::string& name, std::vector<double> parameters, double smoothing,
               double inverse_temperature, OptionalIn class_weight, OptionalIn positive_weight, OptionalIn shift,
               OptionalIn offset, double softcap, double z_loss, bool divergence, In matrix, bool in_double, bool ones,
               OptionalIn centre, OptionalIn inverse, int64_t classes, OptionalIn first, OptionalIn second,
               OptionalIn share, OptionalIn rows, OptionalIn row_weight, std::optional<int64_t> ignore_index)
        : parameters_(std::move(parameters)),
          held_{class_weight, positive_weight, shift, offset, centre, inverse, first, second, share, rows, row_weight},
          matrix_(matrix),
          rows_(int64_t(matrix.shape(0))) {
        const Family& family = find_family(sigmoid, name);
        job_.matrix = matrix_of(matrix_);
        if (job_.matrix.type != Type::float32 && job_.matrix.type != Type::float64) throw nb::type_error("matrix type");
        if (job_.matrix.column_stride != 1 && job_.matrix.row_stride != 1) {
            throw nb::value_error("rows or columns must be contiguous");
        }
        job_.rows = rows_;
        job_.columns = int64_t(matrix_.shape(1));
        job_.ones = ones;
        for (const OptionalIn* a : {&centre, &inverse}) {
            if (*a) need_rows(**a, matrix_.shape(1));
        }
        if (centre && inverse) {
            job_.centre = static_cast<const double*>(centre->data());
            job_.inverse = static_cast<const double*>(inverse->data());
        }
        Job& loss = job_.loss;
        loss.classes = classes;
        loss.logits.type = in_double ? Type::float64 : Type::float32;
        for (const OptionalIn* a : {&class_weight, &positive_weight, &shift, &offset}) {
            if (*a && ((*a)->shape(0) != size_t(classes) || type_of_array(**a) != loss.logits.type)) {
                throw nb::type_error("class arrays");
            }
        }
        loss.targets = targets_of(matrix_.shape(0), first, second, share, rows, row_weight, ignore_index);
        set_loss(loss, parameters_, smoothing, inverse_temperature, class_weight, positive_weight, shift, offset,
                 softcap, z_loss, divergence);
        evaluate_ = pick(family, loss.logits.type, 0);
        product_ = pick(family, loss.logits.type, 1);
        in_double_ = family.in_double;
        loss.flush = family.exponentials;
        kernels_ = &level().pass[in_double];
        depth_ = job_.columns + (ones ? 1 : 0);
    }

    // weights and sums: (columns + ones, classes) in double precision, row by row.
    Summary evaluate(const In& weights, const Out& sums) { return run(weights, nullptr, sums); }
    Summary product(const In& weights, const In& along, const Out& sums) { return run(weights, &along, sums); }

  private:
    // Blocks depend on the shape alone: of no fewer rows than a gradient takes to be added up, and not so many that
    // their gradients take much memory.
    int64_t rows_per_chunk() const {
        const int64_t numbers = depth_ * job_.loss.classes;
        int64_t chunks = rows_ / least_rows;
        chunks = std::min(chunks, std::min(most_chunks, chunk_numbers / numbers + 1));
        chunks = std::min(chunks, rows_ * numbers / least_products);
        if (chunks > 4) chunks = chunks / 4 * 4;  // as many for each of two or four threads
        return chunks <= 1 ? rows_ : (rows_ + chunks - 1) / chunks;
    }

    Summary run(const In& weights, const In* along, const Out& sums) {
        const int64_t numbers = depth_ * job_.loss.classes;
        for (const In* a : {&weights, along}) {
            if (a && (a->size() != size_t(numbers) || type_of_array(*a) != Type::float64)) {
                throw nb::type_error("weights");
            }
        }
        if (sums.size() != size_t(numbers) || type_of_array(sums) != Type::float64) throw nb::type_error("sums");
        const int threads = rows_ * numbers <= serial_products ? 1 : thread_count;  // while nobody can change it
        nb::gil_scoped_release unlocked;
        std::lock_guard<std::mutex> turn(turn_);
        PassJob job = job_;
        job.kernel = along ? product_ : evaluate_;
        job.loss.second_order = along != nullptr;
        job.loss.in_double = in_double_ || along;
        const size_t size = size_t(kernels_->weights_size(job)) * (job.loss.logits.type == Type::float64 ? 8 : 4);
        packed_.resize(2 * size);
        kernels_->pack_weights(job, static_cast<const double*>(weights.data()), packed_.data());
        job.weights = packed_.data();
        if (along) {
            kernels_->pack_weights(job, static_cast<const double*>(along->data()), packed_.data() + size);
            job.along = packed_.data() + size;
        }
        const int64_t step = std::max<int64_t>(rows_per_chunk(), 1), chunks = (rows_ + step - 1) / step;
        std::vector<Report> reports(static_cast<size_t>(chunks));
        const PassSums shape = kernels_->sums_shape(job);
        sums_.resize(size_t(chunks * shape.numbers));
        const size_t bytes = kernels_->scratch(job);
        run_blocks(chunks, threads, [&](int64_t chunk) {
            const FlushSubnormals flush(job.loss.flush);
            const int64_t begin = chunk * step, end = std::min(begin + step, rows_);
            kernels_->rows(job, begin, end, thread_scratch.at_least(bytes), sums_.data() + chunk * shape.numbers,
                           reports[size_t(chunk)]);
            thread_scratch.trim();
        });
        double *first = sums_.data(), *total = static_cast<double*>(sums.data());
        const auto add_up = [&](int64_t begin, int64_t end) {
            for (int64_t chunk = 1; chunk < chunks; ++chunk) {
                const double* part = first + chunk * shape.numbers;
                for (int64_t k = begin; k < end; ++k) first[k] += part[k];
            }
        };
        const int64_t classes = job.loss.classes, columns = job.columns, each = merged_numbers / classes + 1;
        run_blocks((columns + each - 1) / each, threads, [&](int64_t block) {
            const int64_t begin = block * each, end = std::min(begin + each, columns);
            for (int64_t c = 0; c < classes; ++c) {
                add_up(c * shape.stride + begin, c * shape.stride + end);
                for (int64_t k = begin; k < end; ++k) total[k * classes + c] = first[c * shape.stride + k];
            }
        });
        if (job.ones) {
            add_up(classes * shape.stride, shape.numbers);
            std::copy_n(first + classes * shape.stride, classes, total + columns * classes);
        }
        return summary_of(combined(reports));
    }

    static constexpr int64_t least_rows = 512, most_chunks = 64, chunk_numbers = int64_t(1) << 21;
    static constexpr int64_t merged_numbers = 1 << 12;  // that one thread adds up over the chunks
    static constexpr int64_t least_products = int64_t(1) << 17, serial_products = int64_t(1) << 21;

    std::vector<double> parameters_;
    OptionalIn held_[11];
    In matrix_;
    int64_t rows_, depth_ = 0;
    PassJob job_;
    RowKernel evaluate_ = nullptr, product_ = nullptr;
    bool in_double_ = false;
    const PassKernels* kernels_ = nullptr;
    std::mutex turn_;
    std::vector<char> packed_;
    std::vector<double> sums_;
};

void run_elementary(int which, const In& x, const Out& y) {
    level().elementary[type_of_array(x) == Type::float64](which, x.data(), y.data(), int64_t(x.shape(0)));
}

}  // namespace

NB_MODULE(_native, m) {
    m.def("family", &run_family, nb::arg("sigmoid"), nb::arg("operation"), nb::arg("name"), nb::arg("parameters"),
          nb::arg("smoothing"), nb::arg("inverse_temperature"), nb::arg("class_weight").none(),
          nb::arg("positive_weight").none(), nb::arg("logits"), nb::arg("first").none(), nb::arg("second").none(),
          nb::arg("share").none(), nb::arg("rows").none(), nb::arg("row_weight").none(),
          nb::arg("ignore_index").none(), nb::arg("scale"), nb::arg("direction").none(),
          nb::arg("per_example").none(), nb::arg("out").none(), nb::arg("shift").none() = nb::none(),
          nb::arg("offset").none() = nb::none(), nb::arg("softcap") = 0.0, nb::arg("z_loss") = 0.0,
          nb::arg("divergence") = false, nb::arg("log_sum_exp").none() = nb::none(),
          nb::arg("prediction").none() = nb::none(), nb::arg("tally").none() = nb::none());
    m.def("targets", &run_targets, nb::arg("sigmoid"), nb::arg("n"), nb::arg("classes"),
          nb::arg("class_weight").none(), nb::arg("first").none(), nb::arg("second").none(), nb::arg("share").none(),
          nb::arg("rows").none(), nb::arg("row_weight").none(), nb::arg("ignore_index").none(),
          nb::arg("known").none());
    m.def("probabilities", &run_probabilities, nb::arg("sigmoid"), nb::arg("logits"), nb::arg("inverse_temperature"),
          nb::arg("logarithm"), nb::arg("out"));
    m.def("csr_product", &run_csr, nb::arg("indptr"), nb::arg("ends"), nb::arg("indices"), nb::arg("data"),
          nb::arg("dense"), nb::arg("out"), nb::arg("base"), nb::arg("by_row").none(), nb::arg("by_column").none());
    m.def("csr_transposed", &run_csr_transposed, nb::arg("indptr"), nb::arg("ends"), nb::arg("indices"),
          nb::arg("data"), nb::arg("dense"), nb::arg("out"), nb::arg("base"));
    m.def("descent", &run_descent, nb::arg("block_start"), nb::arg("matrix_start"), nb::arg("block_of"),
          nb::arg("matrix"), nb::arg("left"), nb::arg("right"), nb::arg("group_start"), nb::arg("member"),
          nb::arg("threshold"), nb::arg("slope"), nb::arg("x"), nb::arg("moved"), nb::arg("tolerance"),
          nb::arg("sweeps"));
    nb::class_<LinearPass>(m, "LinearPass")
        .def(nb::init<bool, const std::string&, std::vector<double>, double, double, OptionalIn, OptionalIn, OptionalIn,
                      OptionalIn, double, double, bool, In, bool, bool, OptionalIn, OptionalIn, int64_t, OptionalIn,
                      OptionalIn, OptionalIn, OptionalIn, OptionalIn, std::optional<int64_t>>(),
             nb::arg("sigmoid"), nb::arg("name"), nb::arg("parameters"), nb::arg("smoothing"),
             nb::arg("inverse_temperature"), nb::arg("class_weight").none(), nb::arg("positive_weight").none(),
             nb::arg("shift").none(), nb::arg("offset").none(), nb::arg("softcap"), nb::arg("z_loss"),
             nb::arg("divergence"), nb::arg("matrix"), nb::arg("in_double"), nb::arg("ones"), nb::arg("centre").none(),
             nb::arg("inverse").none(), nb::arg("classes"), nb::arg("first").none(), nb::arg("second").none(),
             nb::arg("share").none(), nb::arg("rows").none(), nb::arg("row_weight").none(),
             nb::arg("ignore_index").none())
        .def("evaluate", &LinearPass::evaluate, nb::arg("weights"), nb::arg("sums"))
        .def("product", &LinearPass::product, nb::arg("weights"), nb::arg("along"), nb::arg("sums"));
    m.def("elementary", &run_elementary, nb::arg("which"), nb::arg("x"), nb::arg("y"));
    m.def("set_num_threads", [](int n) { thread_count = n < 1 ? 1 : n; }, nb::arg("n"));
    m.def("get_num_threads", [] { return thread_count; });
    m.def("use_openmp", [](uintptr_t parallel, uintptr_t most_threads) {
        use_openmp(reinterpret_cast<OpenMPParallel>(parallel), reinterpret_cast<OpenMPThreads>(most_threads));
    }, nb::arg("parallel"), nb::arg("most_threads"));
    m.def("level", [] { return level().name; });
    m.def("families", [](bool sigmoid) {
        const Level& kernels = level();
        std::vector<std::string> names;
        for (int i = 0; i < (sigmoid ? kernels.labels->count : kernels.softmax_count); ++i) {
            names.emplace_back(sigmoid ? kernels.labels->families[i].name : kernels.softmax[i]->name);
        }
        return names;
    }, nb::arg("sigmoid"));
}
