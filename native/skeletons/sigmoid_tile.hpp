// One tile of independent labels: a few rows, or a piece of a long one, that stay in the nearest cache and are swept as one
// run of numbers.
//
// A tile is swept for exponentials, for logarithms and for the rest. Each loop keeps to the registers there are, and is
// short: while one vector's steps wait for each other a processor goes on with the next ones, but no further than some
// hundred steps ahead. The next tile's lines are asked for bit by bit: a processor has only so many on their way at a time.
// A round works on two vectors, which share the loop's own steps. There is no other form of a loop: a tile's last numbers,
// too few for that, are worked on where there is room for whole vectors. So what a number becomes does not depend on where
// it lies. Where two products are added, one of them is `rounded`, or it would be the compiler's choice, made for each
// vector of a round by itself, which of them is fused with the sum.
//
// A label is either soft, and pulled by two masses, or hard, 0 or 1. A hard label turns its logit around if it does not
// hold, and then the loss is needed on one side only; that halves the work of the losses that are not cross-entropy.
//
// A loss is a struct with a `name` and with(job, body), which calls body(side) for one of its variants. A side offers
// at<curved>(held, odds): value, minus the derivative and, if curved, the second derivative in the log-odds of being
// right. `held` is Present, Absent or, for hard labels, a mask of the lanes whose label holds. Costs are finite where no
// mass asks for them, so that no mass times an infinite cost is nothing. A side whose cost has a logarithm of its own
// offers hard(held, x, e, right, wrong) for hard labels, but in curved sweeps.
#pragma once

#include "common/api.hpp"
#include "simd/elementary.hpp"
#include "simd/few_steps.hpp"
#include "simd/rounded.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

// The logarithm that a side has a use for: none, log(1 + e), or one of its own.
enum class LabelLog { none, one_plus_e, own };

struct Present {};
struct Absent {};

template <class V>
KULLBACK_INLINE V pick(Present, V on, V) {
    return on;
}
template <class V>
KULLBACK_INLINE V pick(Absent, V, V off) {
    return off;
}
template <class V>
KULLBACK_INLINE V pick(Mask<V> held, V on, V off) {
    return select<V>(held, on, off);
}

// The probability of what is the case and of what is not, each to full relative precision, -log of both, and the
// log-odds of being right, which near 0 has digits that the difference of the two costs has lost.
template <class V>
struct Odds {
    V right, wrong;
    V cost, wrong_cost;
    V lead;
};

// `yes` where the sign bit is set, -0 included: one step, without a comparison.
template <class V>
KULLBACK_INLINE V where_negative(V sign, V yes, V no) {
    using I = typename traits<V>::integer;
    return select<V>(bits_as<I>(sign) < 0, yes, no);
}

// What both orientations of a log-odds share.
template <class V>
struct Softplus {
    V e;             // exp(-|z|)
    V small, large;  // sigmoid(-|z|) and sigmoid(|z|)
    V sign;

    KULLBACK_INLINE explicit Softplus(V z) : Softplus(z, exp_nonpositive<V>(negative_size<V>(z))) {}
    KULLBACK_INLINE Softplus(V z, V exponential) : e(exponential), sign(z) {
        large = quick_inverse<V>(e + Scalar<V>(1));
        small = e * large;
    }
    KULLBACK_INLINE V p() const { return where_negative<V>(sign, small, large); }
    KULLBACK_INLINE V miss() const { return where_negative<V>(sign, large, small); }
};

// -z where the condition holds, z elsewhere.
template <class V>
KULLBACK_INLINE V turned(Mask<V> condition, V z) {
    using I = typename traits<V>::integer;
    if constexpr (traits<V>::width == 1) {
        return condition ? -z : z;
    } else {
        return bits_as<V>(bits_as<I>(z) ^ bits_as<I>(keep<V>(condition, splat<V>(Scalar<V>(-0.0)))));
    }
}

template <class V>
KULLBACK_INLINE V positive_part(V z) {
    return larger<V>(z, V{});
}

template <class V>
KULLBACK_INLINE V bounded(V cost) {
    return smaller<V>(splat<V>(Scalar<V>(1e30)), cost);
}

template <class V>
struct LabelTerm {
    V value, pull, bend;  // pull is how fast the value falls with the log-odds of being right, bend its second derivative
};

enum class LabelOutput { value, gradient, diagonal };

template <class T>
using Two = Pair<Vector<T>>;
// Where the numbers [begin, end) of a tile lie.
template <class T>
struct Stretch {
    int64_t begin = 0, end = 0;
    const T *logits = nullptr, *labels = nullptr;
    T* out = nullptr;
};

// `labels` are 0 or 1 for a hard sweep, or ignored.
template <class T>
struct LabelRun {
    Stretch<T> stretches[2];  // the last numbers, too few for two vectors, lie where there is room for whole ones
    int64_t count = 0;
    const char *next_logits = nullptr, *next_labels = nullptr, *next_out = nullptr;  // where the next tile's may be
    int64_t label_bytes = 0;
    const T *on = nullptr, *off = nullptr;  // what a label weighs if it holds, and if not; or
    T weight = 1;                           // what all of them weigh, by which values are multiplied afterwards
    T hard = 1, even = 0;  // a label t counts as t * hard + even
    T scale = 1;           // of the output
    T ignored = 0;         // what labels that are worth nothing say, or NaN
    T *values = nullptr, *logs = nullptr;  // of the tile
};

// Calls body(j, stretch) for the first number of each vector.
template <class V, class T, class Body>
KULLBACK_INLINE void sweep_along(const LabelRun<T>& run, Body body) {
    for (const Stretch<T>& given : run.stretches) {
        const Stretch<T> stretch = given;
        for (int64_t j = stretch.begin; j < stretch.end; j += traits<V>::width) body(j, stretch);
    }
}

template <int lines>
KULLBACK_INLINE void prefetch_lines(const char* first, int64_t step) {
    prefetch(first);
    if constexpr (lines > 1) prefetch_lines<lines - 1>(first + step, step);
}

// Asks for what lies in the next tile where a vector does in this one, of arrays whose numbers have so many bytes.
template <class V>
KULLBACK_INLINE void look_ahead(const char* next, int64_t j, int64_t bytes = sizeof(Scalar<V>)) {
    constexpr int64_t step = 64 / int64_t(sizeof(Scalar<V>));
    prefetch_lines<traits<V>::width / step>(next + j * bytes, step * bytes);
}

// exp(-|z|) to `values` and, if a loss takes it, log(1 + e) to `logs`.
template <class T>
void sweep_exponentials(const LabelRun<T>& given, bool logs) {
    using V = Two<T>;
    const LabelRun<T> run = given;  // for all that the compiler knows, what is written could be a part of `given`
    sweep_along<V>(run, [&](int64_t j, const Stretch<T>& at) KULLBACK_LAMBDA {
        look_ahead<V>(run.next_logits, j);
        look_ahead<V>(run.next_labels, j, run.label_bytes);
        store<V>(run.values + j, exp_in_few_steps<V>(negative_size<V>(load<V>(at.logits + j))));
    });
    for (int64_t j = 0; logs && j < run.count; j += traits<V>::width) {
        store<V>(run.logs + j, log1p_in_few_steps<V>(load<V>(run.values + j)));
    }
}

// Losses to `values`, and the output. Even: all labels weigh the same.
template <class T, LabelOutput Output, bool Hard, bool Ignoring, bool Even, class Side>
void sweep_labels(const LabelRun<T>& given, const void* given_side) {
    constexpr bool curved = Output == LabelOutput::diagonal;
    constexpr bool own_log = Side::log_used == LabelLog::own && Hard && !curved;
    constexpr bool logs = Side::log_used != LabelLog::none && !own_log;
    using V = Two<T>;
    sweep_exponentials(given, logs);
    const LabelRun<T> run = given;
    const Side side = *static_cast<const Side*>(given_side);
    const T factor = run.weight * run.scale;
    sweep_along<V>(run, [&](int64_t j, const Stretch<T>& at) KULLBACK_LAMBDA {
        const V z = load<V>(at.logits + j);
        const V e = load<V>(run.values + j);
        V log{};
        if constexpr (logs) log = load<V>(run.logs + j);
        look_ahead<V>(run.next_out, j);
        V t = load<V>(at.labels + j);
        V weight_on{}, weight_off{}, value, result;
        if constexpr (!Even) {
            weight_on = load<V>(run.on + j);
            weight_off = load<V>(run.off + j);
        }
        const Mask<V> known = t != run.ignored;
        if constexpr (Ignoring) t = keep<V>(known, t);
        if constexpr (Hard) {
            const Mask<V> held = t != T(0);
            const V x = turned<V>(held, z);  // the log-odds of being wrong
            const Softplus<V> s(x, e);
            LabelTerm<V> term;
            if constexpr (own_log) {
                term = side.hard(held, x, e, s.miss(), s.p());
            } else {
                const Odds<V> odds = {s.miss(), s.p(), log + positive_part<V>(x), log + positive_part<V>(-x), -x};
                term = side.template at<curved>(held, odds);
            }
            // the loss falls with the logit of a label that holds; second derivatives have one sign for both
            result = curved ? term.bend : turned<V>(held, term.pull);
            if constexpr (Even) {
                value = term.value;
                result = result * factor;
            } else {
                const V weight = select<V>(held, weight_on, weight_off);
                value = weight * term.value;
                result = result * (weight * run.scale);
            }
        } else {
            const V y = t * run.hard + run.even;
            const V on = y * weight_on, off = weight_off - y * weight_off;
            const V up = positive_part<V>(z), down = positive_part<V>(-z);
            const Softplus<V> s(z, e);
            const V p = s.p(), miss = s.miss();
            const V cost_on = log + keep<V>(on != T(0), down), cost_off = log + keep<V>(off != T(0), up);
            const LabelTerm<V> a = side.template at<curved>(Present{}, Odds<V>{p, miss, cost_on, log + up, z});
            const LabelTerm<V> b = side.template at<curved>(Absent{}, Odds<V>{miss, p, cost_off, log + down, -z});
            value = off * b.value + rounded<V>(on * a.value);
            result = run.scale * (curved ? off * b.bend + rounded<V>(on * a.bend)
                                         : off * b.pull - rounded<V>(on * a.pull));
        }
        if constexpr (Ignoring) {
            value = keep<V>(known, value);
            result = keep<V>(known, result);
        }
        if constexpr (Output != LabelOutput::diagonal) store<V>(run.values + j, value);
        if constexpr (Output != LabelOutput::value) store<V>(at.out + j, result);
    });
}

// How the tiles of a loss are swept: those with soft labels, and those with hard ones. The gradient is what training asks
// for: its sweeps leave out what labels that are all known, or that all weigh the same, have no use for.
template <class T>
struct LabelSweeps {
    using Sweep = void (*)(const LabelRun<T>&, const void* side);
    LabelOutput output;
    Sweep soft[2], hard[2][2];  // [whether labels may be ignored][whether all weigh the same]
    bool even;                  // whether there are sweeps for labels that all weigh the same
};
template <class T, LabelOutput Output, class Side>
constexpr LabelSweeps<T> label_sweeps() {
    constexpr bool even = Output == LabelOutput::gradient;
    return {Output,
            {&sweep_labels<T, Output, false, !even, false, Side>, &sweep_labels<T, Output, false, true, false, Side>},
            {{&sweep_labels<T, Output, true, !even, false, Side>, &sweep_labels<T, Output, true, !even, even, Side>},
             {&sweep_labels<T, Output, true, true, false, Side>, &sweep_labels<T, Output, true, true, even, Side>}},
            even};
}

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
