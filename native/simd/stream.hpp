// Stores past the caches: a plain store first reads the line that it overwrites, and the line drives out another.
#pragma once

#include "simd/vector.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

// What `p` must be a multiple of for stream(): less than a vector, because large arrays often begin so far into a page.
constexpr int stream_alignment = 16;

template <class V>
KULLBACK_INLINE void stream(Scalar<V>* p, V v) {
#if KULLBACK_HAS_VECTORS && defined(__SSE2__)
    __m128i pieces[sizeof(V) / stream_alignment];
    std::memcpy(pieces, &v, sizeof v);
#pragma GCC unroll 4
    for (size_t i = 0; i < sizeof(V) / stream_alignment; ++i) _mm_stream_si128(reinterpret_cast<__m128i*>(p) + i, pieces[i]);
#else
    store<V>(p, v);
#endif
}

// One number of a line that was stored so; a plain store would wait for the line to come back from memory.
template <class T>
KULLBACK_INLINE void stream_one(T* p, T x) {
#if defined(__x86_64__)
    if constexpr (sizeof(T) == 4) {
        _mm_stream_si32(reinterpret_cast<int*>(p), bits_as<int>(x));
    } else {
        _mm_stream_si64(reinterpret_cast<long long*>(p), bits_as<long long>(x));
    }
#else
    *p = x;
#endif
}

// Makes what was stored visible to other threads.
KULLBACK_INLINE void finish_streams() {
#if KULLBACK_HAS_VECTORS && defined(__SSE2__)
    _mm_sfence();
#endif
}

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
