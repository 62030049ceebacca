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

// What the targets of a block say without the logits: classes in range, and row weights that are 0 for ignored rows.
struct BlockTargets {
    int32_t *first = nullptr, *second = nullptr;
    double* weights = nullptr;  // null: all ones
    bool some_skipped = false;
    double weight(int64_t r) const { return weights ? weights[r] : 1.0; }
};

inline double* copy_weights(const Targets& t, int64_t begin, int64_t end, double* weights) {
    for (int64_t i = begin; i < end; ++i) weights[i - begin] = t.row_weight ? t.row_weight[i] : 1.0;
    return weights;
}

// Narrows one index vector to 32 bits, with 0 for classes out of range; returns whether there were any.
inline bool narrow_classes(const IndexVector& v, int64_t begin, int64_t end, int64_t classes, int32_t* out) {
    bool amiss = false;
    with_type(v.type, [&](auto sample) {
        using S = decltype(sample);
        const S* from = static_cast<const S*>(v.data) + begin * v.stride;
        auto run = [&](int64_t stride) KULLBACK_LAMBDA {
            // What is lost by narrowing, and the largest: both must be small. Simple enough for compilers to vectorise.
            uint64_t high = 0;
            uint32_t largest = 0;
            for (int64_t i = 0; i < end - begin; ++i) {
                const S y = from[i * stride];
                if constexpr (sizeof(S) == 8) high |= uint64_t(y);
                const uint32_t low = uint32_t(y);
                largest = low > largest ? low : largest;
                out[i] = int32_t(low);
            }
            amiss = (high >> 32) != 0 || int64_t(largest) >= classes;
            for (int64_t i = 0; amiss && i < end - begin; ++i) {
                if (uint64_t(int64_t(from[i * stride])) >= uint64_t(classes)) out[i] = 0;
            }
        };
        if (v.stride == 1) {
            run(1);
        } else {
            run(v.stride);
        }
    });
    return amiss;
}

// Takes ignored rows out; false (and the report says where) if a row that counts has its class out of range.
inline bool settle_classes(const IndexVector& v, int64_t begin, int64_t end, int64_t classes, bool has_ignore,
                           int64_t ignore, double* weights, Report& report) {
    with_type(v.type, [&](auto sample) {
        using S = decltype(sample);
        const S* from = static_cast<const S*>(v.data) + begin * v.stride;
        for (int64_t i = 0; i < end - begin; ++i) {
            const int64_t y = int64_t(from[i * v.stride]);
            if (has_ignore && y == ignore) weights[i] = 0;
            if (uint64_t(y) >= uint64_t(classes) && weights[i] != 0 && report.bad_row < 0) report.bad_row = begin + i;
        }
    });
    return report.bad_row < 0;
}

inline bool block_targets(const Job& job, int64_t begin, int64_t end, Scratch& scratch, BlockTargets& block,
                          Report& report) {
    const Targets& t = job.targets;
    const int64_t rows = end - begin;
    const bool may_ignore = t.has_ignore && t.form == Form::indices;
    bool amiss = t.row_weight || (may_ignore && t.ignore_index >= 0 && t.ignore_index < job.classes);
    if (t.form != Form::rows) {
        block.first = scratch.take<int32_t>(rows);
        amiss |= narrow_classes(t.first, begin, end, job.classes, block.first);
    }
    if (t.form == Form::mixture) {
        block.second = scratch.take<int32_t>(rows);
        amiss |= narrow_classes(t.second, begin, end, job.classes, block.second);
    }
    if (!amiss) return true;
    block.weights = copy_weights(t, begin, end, scratch.take<double>(rows));
    bool good = true;
    if (t.form != Form::rows) {
        good = settle_classes(t.first, begin, end, job.classes, may_ignore, t.ignore_index, block.weights, report);
    }
    if (t.form == Form::mixture) {
        good = good && settle_classes(t.second, begin, end, job.classes, false, 0, block.weights, report);
    }
    for (int64_t r = 0; r < rows; ++r) block.some_skipped |= block.weights[r] == 0;
    return good;
}

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
