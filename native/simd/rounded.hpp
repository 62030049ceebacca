// A product that is rounded by itself, where a compiler might have fused it with a sum.
#pragma once

#include "simd/pair.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

template <class V>
KULLBACK_INLINE V rounded(V product) {
    if constexpr (is_pair<V>::value) {
        using H = decltype(V::a);
        return {rounded<H>(product.a), rounded<H>(product.b)};
    } else {
        // an instruction unknown to the compiler, which is none
#if KULLBACK_HAS_VECTORS && defined(__FMA__)
        __asm__("" : "+v"(product));
#elif KULLBACK_HAS_VECTORS && defined(__aarch64__)
        __asm__("" : "+w"(product));
#endif
        return product;
    }
}

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
