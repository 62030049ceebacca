// Picks the instruction level once, when the module is loaded.
#include <cstdlib>
#include <cstring>

#include "common/api.hpp"

namespace kullback {

#ifdef KULLBACK_X86_LEVELS

namespace v2 { extern const Level level; }
namespace v3 { extern const Level level; }
namespace v4 { extern const Level level; }

namespace {

bool runs_v3() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
           __builtin_cpu_supports("bmi2");
}
bool runs_v4() {
    return runs_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}

const Level& choose() {
    __builtin_cpu_init();
    const Level* best = runs_v4() ? &v4::level : runs_v3() ? &v3::level : &v2::level;
    // A lower level than the best may be asked for, to test it or to compare machines; a higher one would crash.
    if (const char* wanted = std::getenv("KULLBACK_ISA")) {
        if (!std::strcmp(wanted, "v2")) return v2::level;
        if (!std::strcmp(wanted, "v3") && runs_v3()) return v3::level;
    }
    return *best;
}

}  // namespace

#else

namespace baseline { extern const Level level; }

namespace {
const Level& choose() { return baseline::level; }
}  // namespace

#endif

const Level& level() {
    static const Level& chosen = choose();
    return chosen;
}

}  // namespace kullback
