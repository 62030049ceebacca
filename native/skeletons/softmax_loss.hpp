// What the softmax skeleton asks of a loss. V is a vector (a lane per row, or per class) or one number.
//
// A loss is a struct built from the Job, in a file of its own in losses/softmax/, with
//
//   on(chance, shift)   what a class with that chance costs when it is the true one
//   off(chance)         and when it is not, if `looks_at_all`; nothing at p = 0
//
// and flags: `linear`, its cost is -log p times a factor (cross-entropy, which says more about itself through
// at_class); `by_sums`, all about a row follows from a few sums, which by() tells; `looks_at_all`, it has an off();
// `logs`, on() is -log p and off() -log(1 - p); `shifted`, it reads the job's own number for each class, of which
// kept_of() makes what on() needs for an unlikely class, and made_of() for a true one; `by_squares`, it has an off(),
// but at_class knows all about a row of one class from the sum of squares; `apart`, a slope has no bound that a rounded
// 1 - p would respect. A row costs sum_k s_k on_k + (S - s_k) off_k, with the masses s_k = w_k ((1 - e) t_k + e/C sum t)
// and S their sum.
//
// Costs are functions of the class' log-odds o = log(p / (1 - p)), given so that nothing overflows:
//
//   on:  value, pull = -value' / (1 - p), bend = value'' / (1 - p)
//   off: value, pull = value' / (p (1 - p)), bend = value'' / p
//
// Masses, scale, temperature, priors, softcap and z-loss are the skeleton's business.
#pragma once

#include "common/api.hpp"
#include "simd/elementary.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

// log(1 - p) for p in [0, 1/2], by a polynomial for (-log(1 - p) - p) / p^2 (relative error 2e-9 and 6e-19 before rounding).
template <class V>
KULLBACK_INLINE V log_of_small_miss(V p) {
    if constexpr (sizeof(Scalar<V>) == 4) {
        // By halves (Estrin), as in exp_remainder. Of less than 2^-30 the series has no more than p: larger powers are kept
        // from being less than normal numbers.
        const V tiny = p;
        p = larger<V>(p, splat<V>(0x1p-30f));
        const V p2 = p * p, p4 = p2 * p2;
        const V q89 = p * 0x1.9d1a36p+0f + -0x1.266a4p+1f, q67 = p * 0x1.d38ecep+0f + -0x1.1f0f7cp-1f;
        const V q45 = p * 0x1.39229ap-2f + 0x1.263bfep-3f, q23 = p * 0x1.9d5aa2p-3f + 0x1.ffd998p-3f;
        const V q01 = p * 0x1.5555ap-2f + 0x1p-1f;
        const V q = (q89 * p4 + (q67 * p2 + q45)) * p4 + (q23 * p2 + q01);
        return -(tiny * (p * q) + tiny);
    } else {
        constexpr double terms[] = {
            0x1.0cb9fd73f5079p+5, -0x1.2c2aa4d9555fbp+7, 0x1.3e98e9e149fe1p+8, -0x1.a5fbdb419d917p+8,
            0x1.855cb9d645457p+8, -0x1.088b279b401bap+8, 0x1.11f8e28c09bafp+7, -0x1.b7b3c350cdc7ap+5,
            0x1.16f1007ee7c9ap+4, -0x1.106c525ae4248p+2, 0x1.db9869c840b54p-1, -0x1.8e36e0570b144p-5,
            0x1.b5a7441f5942ap-4, 0x1.938794959a734p-4, 0x1.c7897ca48da5dp-4, 0x1.fffa620c76b8dp-4,
            0x1.2492634a46c85p-3, 0x1.555554b2f1f19p-3, 0x1.9999999c0279dp-3, 0x1.fffffffffb286p-3,
            0x1.5555555555574p-2, 0x1p-1};
        V q = splat<V>(terms[0]);
        for (int i = 1; i < 22; ++i) q = q * p + terms[i];
        return -(p * p * q + p);
    }
}

// Below this three terms of a series in p have all digits of a float. Of thousands of classes few have more.
constexpr float tiny_chance = 0x1p-9f;

// Whether p is that in all lanes; double, whose series would need more terms, and lanes that are rows of few classes are
// not worth the look.
template <class V>
KULLBACK_INLINE bool all_tiny(V p, bool scattered) {
    if constexpr (sizeof(Scalar<V>) == 4) {
        return scattered && !any_lane<V>(keep<V>(!(p < tiny_chance), splat<V>(1.0f)));
    } else {
        return false;
    }
}

// p / (1 - p) of tiny chances.
template <class V>
KULLBACK_INLINE V odds_of_tiny(V p) {
    return (p + Scalar<V>(1)) * (p * p) + p;
}

// log(1 - p) and 1 / (1 - p) for p in [0, 1/2].
template <class V>
struct SmallMiss {
    V log, inverse;
};
template <class V>
KULLBACK_INLINE SmallMiss<V> small_miss(V p, bool scattered) {
    using T = Scalar<V>;
    if (all_tiny<V>(p, scattered)) {
        return {-((p * p) * (p * T(1.0 / 3) + T(0.5)) + p), odds_of_tiny<V>(p) + T(1)};
    }
    return {log_of_small_miss<V>(p), quick_inverse<V>(T(1) - p)};
}

// A probability and its complement, each to full relative precision where a loss needs it.
template <class V>
struct Chance {
    V p, miss, log_p;
    bool knows_log_miss = false;
    V known_log_miss = V{};
    bool unlikely = false;  // whether p is known to be 1/2 at most
    bool scattered = false;  // whether lanes are classes, so many that most p are tiny
    bool finite = false;    // whether log p is known to be finite

    // 0 times an infinite log p is 0.
    KULLBACK_INLINE V times_log_p(V factor) const {
        return finite ? factor * log_p : keep<V>(factor != Scalar<V>(0), factor * log_p);
    }
    // log(1 - p) and 1 / (1 - p).
    KULLBACK_INLINE SmallMiss<V> of_miss() const {
        if (unlikely && !knows_log_miss) return small_miss<V>(p, scattered);
        return {log_miss(), Scalar<V>(1) / miss};
    }
    KULLBACK_INLINE V log_miss() const {
        if (knows_log_miss) return known_log_miss;
        if (unlikely) return log_of_small_miss<V>(p);
        using T = Scalar<V>;
        const Mask<V> some = miss > T(0);
        return select<V>(some, -log1p_nonnegative<V>(p / select<V>(some, miss, splat<V>(T(1)))),
                         splat<V>(-infinity<T>));
    }
};

template <class V>
struct Cost {
    V value, pull, bend;
};

// What a true class' share is made of, relative to the row's largest logit: its own exp, the sum of all others', and the
// difference of the two logits, whose exp that is.
template <class V>
struct Parts {
    V own, others, d;
};

// The job's number for a class and, where the class is unlikely, what the loss keeps of it. Instead of the number there
// may be what the loss has made of it with made_of(): then it is `made`, and the parts are known.
template <class V>
struct Shift {
    V number, kept;
    bool made = false;
    Parts<V> parts = {};
};

// A loss sum_k s_k (-a log p_k + b (1 - p_k)) + c S (sum p^2 - 1).
struct BySums {
    double log_p = 0, miss = 0, squares = 0;  // a, b and c
};

// Up to here e^shift and its inverse are ordinary numbers; rows with larger ones are done in double by softmax_exact.hpp.
constexpr double largest_moderate_shift = 64;

// Calls body(loss). Losses may call it with another, of the same values, that knows a setting when it is compiled.
template <class Loss, class Body>
KULLBACK_INLINE void with_form(const Loss& loss, Body body) {
    body(loss);
}

struct SoftmaxLoss {
    static constexpr bool linear = false, looks_at_all = false, shifted = false, by_squares = false, apart = false;
    static constexpr bool logs = false, by_sums = false;

    bool spreads() const { return false; }  // smoothing, in rows of one class

    template <class V>
    KULLBACK_INLINE Cost<V> off(const Chance<V>&) const {
        return {};
    }
    template <class V>
    KULLBACK_INLINE V kept_of(V) const {
        return V{};
    }
    template <class V>
    KULLBACK_INLINE V made_of(V number) const {
        return number;
    }
};

// What is known of the target class of an index row.
template <class V>
struct TargetClass {
    V log_p, p, miss;  // log p_y, p_y and 1 - p_y, each to full relative precision
    V weight;          // w_y
    V weighted_log_p;  // sum_k w_k log p_k if the loss spreads(), else 0
    V shift;           // of class y, if the loss is shifted
    bool made = false;  // whether the shift is what the loss has made of it, and parts are known
    Parts<V> parts = {};
    V squares;         // sum of p_k^2 over the other classes, if the loss is by_squares
};

// A row's loss and the scalars of its gradient, on_p * p + on_square * p^2 + on_weight * w + (the element of class y,
// given whole and free of cancellation).
template <class V>
struct RowGradient {
    V loss, on_p, on_weight, at_class;
    V on_square = V{};
};

// A loss as rows of class indices without smoothing see it: only the true class counts.
template <class Loss>
struct ByTrueClass : Loss {
    explicit ByTrueClass(const Job& job) : Loss(job) {}

    template <class V>
    KULLBACK_INLINE RowGradient<V> at_class(const TargetClass<V>& y) const {
        const Cost<V> cost = Loss::on(Chance<V>{y.p, y.miss, y.log_p}, Shift<V>{y.shift, V{}, y.made, y.parts});
        RowGradient<V> g;
        g.loss = keep<V>(y.weight != Scalar<V>(0), y.weight * cost.value);
        g.on_p = y.weight * cost.pull;
        g.on_weight = V{};
        g.at_class = -y.weight * cost.pull * y.miss;
        return g;
    }
};
template <class Loss>
using Indexed = std::conditional_t<Loss::linear || Loss::by_squares, Loss, ByTrueClass<Loss>>;

// s log(s / S) of a part s of S, with 1 / S at hand, or 0 where S is too small to have one; 0 where s is 0.
template <class V>
KULLBACK_INLINE V part_of_entropy(V s, V inverse) {
    // what a part below the least normal number adds is less than the last digit of the whole
    return s * log_of_normal<V>(larger<V>(s * inverse, splat<V>(Constants<Scalar<V>>::least_normal)), V{});
}

// sum s log(s / S) of two masses and their sum S.
template <class V>
KULLBACK_INLINE V entropy_of_two(V a, V b) {
    using T = Scalar<V>;
    const V sum = a + b;
    const Mask<V> some = sum > Constants<T>::least_normal;
    const V inverse = keep<V>(some, T(1) / select<V>(some, sum, splat<V>(T(1))));
    return part_of_entropy<V>(a, inverse) + part_of_entropy<V>(b, inverse);
}

// x^power for x in [0, 1] with log x at hand; small whole powers by multiplication.
template <class V, class LogX>
KULLBACK_INLINE V power_of(V x, Scalar<V> power, LogX log_x) {
    using T = Scalar<V>;
    if (power == T(2)) return x * x;
    if (power == T(1)) return x;
    if (power == T(3)) return x * x * x;
    if (power == T(0)) return splat<V>(T(1));
    if (power == T(0.5)) return root<V>(x);
    if (power == T(1.5)) return x * root<V>(x);
    // a NaN in x must come out as one
    return select<V>(x > T(0), exp_nonpositive<V>(log_x() * power), x);
}

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
