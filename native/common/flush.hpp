// Numbers below the least normal one count as zero while kernels run.
//
// Intel's processors take an operation with a subnormal number out of the pipeline, at more than a hundred times its
// price. Exponentials make them by the million as soon as logits lie 90 apart, which those of a trained or a scaled
// model do. What is lost is below 1e-37 in float32, far below every bound of the losses.
#pragma once

#include <cstdint>

#if defined(__x86_64__) || defined(_M_X64)
#include <xmmintrin.h>
#endif

namespace kullback {

// For as long as it lives, on the thread that made it, if `wanted`; the thread's own choice comes back after it.
class FlushSubnormals {
  public:
    explicit FlushSubnormals(bool wanted) : before_(get()) {
        if (wanted) set(before_ | flush);
    }
    ~FlushSubnormals() { set(before_); }
    FlushSubnormals(const FlushSubnormals&) = delete;
    FlushSubnormals& operator=(const FlushSubnormals&) = delete;

  private:
#if defined(__x86_64__) || defined(_M_X64)
    using Word = unsigned int;
    static constexpr Word flush = 0x8040;  // results (FTZ) and operands (DAZ)
    static Word get() { return _mm_getcsr(); }
    static void set(Word word) { _mm_setcsr(word); }
#elif defined(__aarch64__) && !defined(_MSC_VER)
    using Word = uint64_t;
    static constexpr Word flush = Word(1) << 24;  // FZ: both
    static Word get() {
        Word word;
        __asm__ volatile("mrs %0, fpcr" : "=r"(word));
        return word;
    }
    static void set(Word word) { __asm__ volatile("msr fpcr, %0" : : "r"(word)); }
#else
    using Word = int;
    static constexpr Word flush = 0;
    static Word get() { return 0; }
    static void set(Word) {}
#endif
    const Word before_;
};

}  // namespace kullback
