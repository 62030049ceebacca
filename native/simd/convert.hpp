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
    void* rest() const { return next_; }

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

// Converts part of a matrix into consecutive numbers.
template <class T>
void copy_rows(const Matrix& m, int64_t row, int64_t rows, int64_t column, int64_t columns, T* to);

template <class T>
Rows<T> rows_of(const Matrix& m, int64_t begin, int64_t end, int64_t columns, Scratch& scratch);

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

// Classes and weights of rows [begin, end); the report gets how many count. False, and the report says where, if one
// that counts has its class out of range.
bool block_targets(const Job& job, int64_t begin, int64_t end, Scratch& scratch, BlockTargets& block, Report& report);

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
