// Reading arrays of any element type and stride into contiguous scratch, a block of rows at a time.
#pragma once

#include "common/api.hpp"
#include "simd/vector.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

template <class Body>
KULLBACK_INLINE void with_type(Type type, Body body) {
    switch (type) {
        case Type::boolean: case Type::uint8: return body(uint8_t{});
        case Type::int8: return body(int8_t{});
        case Type::int16: return body(int16_t{});
        case Type::int32: return body(int32_t{});
        case Type::int64: return body(int64_t{});
        case Type::uint16: return body(uint16_t{});
        case Type::uint32: return body(uint32_t{});
        case Type::uint64: return body(uint64_t{});
        case Type::float32: return body(float{});
        case Type::float64: return body(double{});
    }
}

// Hands out consecutive, 64-byte aligned pieces of the scratch memory.
class Scratch {
  public:
    explicit Scratch(void* memory) : next_(static_cast<char*>(memory)) {}
    template <class T>
    T* take(int64_t count) {
        auto address = (reinterpret_cast<uintptr_t>(next_) + 63) & ~uintptr_t(63);
        T* piece = reinterpret_cast<T*>(address);
        next_ = reinterpret_cast<char*>(piece + count);
        return piece;
    }

  private:
    char* next_;
};

template <class T>
constexpr Type type_of = sizeof(T) == 4 ? Type::float32 : Type::float64;

// Rows of T with unit column stride: the array itself where it already is that, else a converted copy.
template <class T>
struct Rows {
    const T* data;
    int64_t stride;
    const T* row(int64_t i) const { return data + i * stride; }
};

template <class T>
Rows<T> rows_of(const Matrix& m, int64_t begin, int64_t end, int64_t columns, Scratch& scratch) {
    if (m.type == type_of<T> && (m.column_stride == 1 || columns <= 1)) {
        return {static_cast<const T*>(m.data) + begin * m.row_stride, m.row_stride};
    }
    T* copy = scratch.take<T>((end - begin) * columns);
    with_type(m.type, [&](auto sample) {
        using S = decltype(sample);
        for (int64_t i = begin; i < end; ++i) {
            const S* from = static_cast<const S*>(m.data) + i * m.row_stride;
            T* to = copy + (i - begin) * columns;
            if (m.column_stride == 1) {
                for (int64_t k = 0; k < columns; ++k) to[k] = T(from[k]);
            } else {
                for (int64_t k = 0; k < columns; ++k) to[k] = T(from[k * m.column_stride]);
            }
        }
    });
    return {copy, columns};
}

// The targets of a block of rows that do not need the logits: classes in range and weights, 0 for ignored rows.
struct BlockTargets {
    int32_t *first = nullptr, *second = nullptr;
    double* weight = nullptr;
    bool uniform = false;       // every weight is 1
    bool some_skipped = false;  // some weight is 0
};

inline void block_weights(const Targets& t, int64_t begin, int64_t end, double* weight) {
    for (int64_t i = begin; i < end; ++i) weight[i - begin] = t.row_weight ? t.row_weight[i] : 1.0;
}

// Narrows one index vector; false (and the report says where) if a counted row's class is out of range.
inline bool block_classes(const IndexVector& v, int64_t begin, int64_t end, int64_t classes, bool has_ignore,
                          int64_t ignore, double* weight, int32_t* out, Report& report) {
    bool bad = false;
    const bool inside_ignored = has_ignore && ignore >= 0 && ignore < classes;
    with_type(v.type, [&](auto sample) {
        using S = decltype(sample);
        const S* from = static_cast<const S*>(v.data) + begin * v.stride;
        auto run = [&](int64_t stride) KULLBACK_LAMBDA {
            // branchless, so that compilers vectorise it; weights are only looked at where something is amiss
            uint64_t amiss = 0;
            for (int64_t i = 0; i < end - begin; ++i) {
                const uint64_t y = uint64_t(int64_t(from[i * stride]));
                const uint64_t outside = uint64_t(y >= uint64_t(classes));
                amiss |= outside;
                out[i] = int32_t(outside ? 0 : y);
            }
            for (int64_t i = 0; (amiss || inside_ignored) && i < end - begin; ++i) {
                const int64_t y = int64_t(from[i * stride]);
                if (has_ignore && y == ignore) weight[i] = 0;
                bad |= uint64_t(y) >= uint64_t(classes) && weight[i] != 0;
            }
        };
        if (v.stride == 1) {
            run(1);
        } else {
            run(v.stride);
        }
        if (bad) {
            for (int64_t i = 0; i < end - begin; ++i) {
                if (weight[i] != 0 && uint64_t(int64_t(from[i * v.stride])) >= uint64_t(classes)) {
                    report.bad_row = begin + i;
                    break;
                }
            }
        }
    });
    return !bad;
}

inline bool block_targets(const Job& job, int64_t begin, int64_t end, Scratch& scratch, BlockTargets& block,
                          Report& report) {
    const Targets& t = job.targets;
    const int64_t rows = end - begin;
    block.weight = scratch.take<double>(rows);
    block_weights(t, begin, end, block.weight);
    bool good = true;
    if (t.form != Form::rows) {
        block.first = scratch.take<int32_t>(rows);
        const bool may_ignore = t.has_ignore && t.form == Form::indices;
        good = block_classes(t.first, begin, end, job.classes, may_ignore, t.ignore_index, block.weight, block.first,
                             report);
    }
    if (t.form == Form::mixture) {
        block.second = scratch.take<int32_t>(rows);
        good = good && block_classes(t.second, begin, end, job.classes, false, 0, block.weight, block.second, report);
    }
    int64_t ones = 0, zeros = 0;
    for (int64_t i = 0; i < rows; ++i) {
        ones += block.weight[i] == 1;
        zeros += block.weight[i] == 0;
    }
    block.uniform = ones == rows;
    block.some_skipped = zeros > 0;
    return good;
}

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
