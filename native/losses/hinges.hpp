// The multi-class hinges: the sum over all rivals, or the strongest rival alone.
#pragma once

#include "skeletons/margin.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

struct WestonWatkins {
    static constexpr const char* name = "weston_watkins";
    static constexpr bool strongest = false;
};

struct CrammerSinger {
    static constexpr const char* name = "crammer_singer";
    static constexpr bool strongest = true;
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
