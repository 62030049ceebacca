// The element-by-element skeleton: losses on sigmoid(z / T), summed over a row's labels.
//
// Rows are worked on in tiles: a few rows, or a piece of a long one, that stay in the nearest cache and are swept as
// one run of numbers, so that the number of labels need not fit the vectors. Labels of any type are converted a tile
// at a time. Values go to the tile and are summed by row afterwards.
//
// A label is either soft, and pulled by two masses, or hard, 0 or 1. Which of the two a tile holds is looked at
// first, together with the check that every label is valid. A hard label turns its logit around if it does not hold,
// and then the loss is needed on one side only; that halves the work of the losses that are not cross-entropy.
//
// A tile is swept several times: for exponentials, logarithms, and what follows from both. Loops that short keep to the
// registers there are, and the processor looks ahead past several rounds of them.
//
// A loss is a struct with a `name` and with(job, body), which calls body(side) for one of its variants. A side offers
// at<curved>(held, odds): value, minus the derivative and, if curved, the second derivative in the log-odds of being
// right; `held` is Present, Absent or, for hard labels, a mask of the lanes whose label holds. Costs are finite where no mass
// asks for them, so that no mass times an infinite cost is nothing. A side whose cost has a logarithm of its own says with
// half_log(held, x, e, right, wrong) how it is found for hard labels, but in curved sweeps.
#pragma once

#include "simd/convert.hpp"
#include "simd/elementary.hpp"
#include "simd/half_log.hpp"
#include "simd/pair.hpp"
#include "skeletons/softmax_row.hpp"

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

// 2 atanh(s) + rest.
template <class V>
struct HalfLog {
    V s, rest;
};

// `yes` where the sign bit is set, -0 included: one step, without a comparison.
template <class V>
KULLBACK_INLINE V where_negative(V sign, V yes, V no) {
    using I = typename traits<V>::integer;
    return bits_as<I>(sign) < 0 ? yes : no;
}

// A hard label's loss: raised * cost, and minus its derivative: steep * cost + level.
template <class V>
struct HardTerm {
    V raised, steep, level;
};

// What both orientations of a log-odds share.
template <class V>
struct Softplus {
    V e;             // exp(-|z|)
    V small, large;  // sigmoid(-|z|) and sigmoid(|z|)
    V sign;

    KULLBACK_INLINE explicit Softplus(V z) : Softplus(z, exp_nonpositive<V>(negative_size<V>(z))) {}
    KULLBACK_INLINE Softplus(V z, V exponential) : e(exponential), sign(z) {
        large = Scalar<V>(1) / (e + Scalar<V>(1));
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

// One tile: `labels` are 0 or 1 for a hard sweep, or ignored. The weights belong to the elements period by period, and
// are padded by two vectors' length.
template <class T>
struct LabelRun {
    int64_t count = 0;
    const T *logits = nullptr, *labels = nullptr;
    const char *next_logits = nullptr, *next_labels = nullptr;  // where the next tile's are likely to be
    int64_t label_bytes = 0;
    const T *on = nullptr, *off = nullptr;  // what a label weighs if it holds, and if not
    int64_t period = 0;
    T hard = 1, even = 0;  // a label t counts as t * hard + even
    T scale = 1;           // of the output
    T ignored = 0;         // what labels that are worth nothing say, or NaN
    T *values = nullptr, *out = nullptr;
    T *logs = nullptr, *rights = nullptr, *wrongs = nullptr, *raised = nullptr;  // room for what is handed from sweep to sweep
};

template <class T, LabelOutput Output, bool Hard, bool Ignoring, class Side>
void sweep_labels(const LabelRun<T>& run, const Side& given) {
    constexpr bool curved = Output == LabelOutput::diagonal;
    constexpr bool own_log = Side::log_used == LabelLog::own && Hard && !curved;
    // copies, because for all that the compiler knows, what is written could be the numbers of `run` and of the loss
    const Side side = given;
    const T *const logits = run.logits, *const labels = run.labels, *const weights_on = run.on;
    const T* const weights_off = run.off;
    const char *const next_logits = run.next_logits, *const next_labels = run.next_labels;
    T *const values = run.values, *const logs = run.logs, *const rights = run.rights, *const wrongs = run.wrongs;
    T *const raised = run.raised, *const out = run.out;
    const int64_t count = run.count, period = run.period, label_bytes = run.label_bytes;
    const T hard = run.hard, even = run.even, scale = run.scale, ignored = run.ignored;
    using One = Vector<T>;
    using Two = Pair<One>;
    const auto each = [&](auto kind, auto body) KULLBACK_LAMBDA {
        constexpr int width = traits<decltype(kind)>::width;
        int64_t j = 0;
        for (; width > lanes<T> && j + width <= count; j += width) body(kind, j, Whole{});
        along<T>(j, count, [&](int64_t i, auto part) KULLBACK_LAMBDA { body(One{}, i, part); });
    };
    each(Two{}, [&](auto kind, int64_t j, auto part) KULLBACK_LAMBDA {
        using V = decltype(kind);
        // the lines of the next tile come from memory while exp keeps the processor busy
        for (int64_t line = 0; line < traits<V>::width; line += 64 / int64_t(sizeof(T))) {
            prefetch(next_logits + (j + line) * int64_t(sizeof(T)));
            prefetch(next_labels + (j + line) * label_bytes);
            if (Output != LabelOutput::value) prefetch(out + count + j + line);
        }
        store<V>(values + j, part, exp_nonpositive<V>(negative_size<V>(load<V>(logits + j, part, T(0)))));
    });
    if constexpr (own_log) {
        each(One{}, [&](auto kind, int64_t j, auto part) KULLBACK_LAMBDA {
            using V = decltype(kind);
            const Mask<V> held = load<V>(labels + j, part, T(0)) != T(0);
            const Softplus<V> s(turned<V>(held, load<V>(logits + j, part, T(0))), load<V>(values + j, part, T(0)));
            store<V>(rights + j, part, s.miss());
            store<V>(wrongs + j, part, s.p());
        });
        each(One{}, [&](auto kind, int64_t j, auto part) KULLBACK_LAMBDA {
            using V = decltype(kind);
            const Mask<V> held = load<V>(labels + j, part, T(0)) != T(0);
            const V x = turned<V>(held, load<V>(logits + j, part, T(0)));
            const V e = load<V>(values + j, part, T(0)), right = load<V>(rights + j, part, T(0));
            const HalfLog<V> log = side.half_log(held, x, e, right, load<V>(wrongs + j, part, T(0)));
            store<V>(logs + j, part, log.s);
            store<V>(values + j, part, log.rest);
        });
        side.with_off([&](auto raise) KULLBACK_LAMBDA {
            each(One{}, [&](auto kind, int64_t j, auto part) KULLBACK_LAMBDA {
                using V = decltype(kind);
                store<V>(raised + j, part, raise(load<V>(wrongs + j, part, T(0))));
            });
        });
        side.with_on([&](auto raise) KULLBACK_LAMBDA {
            each(One{}, [&](auto kind, int64_t j, auto part) KULLBACK_LAMBDA {
                using V = decltype(kind);
                const Mask<V> held = load<V>(labels + j, part, T(0)) != T(0);
                const V right = load<V>(rights + j, part, T(0)), wrong = load<V>(wrongs + j, part, T(0));
                const V power = select<V>(held, raise(wrong), load<V>(raised + j, part, T(0)));
                const HardTerm<V> term = side.hard_term(held, right, wrong, power);
                store<V>(raised + j, part, term.raised);
                if constexpr (Output != LabelOutput::value) {
                    store<V>(rights + j, part, term.steep);
                    store<V>(wrongs + j, part, term.level);
                }
            });
        });
    } else if constexpr (Side::log_used != LabelLog::none) {
        each(Two{}, [&](auto kind, int64_t j, auto part) KULLBACK_LAMBDA {
            using V = decltype(kind);
            store<V>(logs + j, part, log1p_to_one<V>(load<V>(values + j, part, T(0))));
        });
    }
    int64_t k = 0;
    each(One{}, [&](auto kind, int64_t j, auto part) KULLBACK_LAMBDA {
        using V = decltype(kind);
        V log{};
        if constexpr (Side::log_used != LabelLog::none) log = load<V>(logs + j, part, T(0));
        V t = load<V>(labels + j, part, T(0));
        const V weight_on = load<V>(weights_on + k), weight_off = load<V>(weights_off + k);
        k += traits<V>::width;
        k = k >= period ? k - period : k;
        V value, result;
        const Mask<V> known = t != ignored;
        if constexpr (Ignoring) t = keep<V>(known, t);
        if constexpr (Hard) {
            const Mask<V> held = t != T(0);
            LabelTerm<V> term;
            if constexpr (own_log) {
                const V cost = twice_atanh<V>(log) + load<V>(values + j, part, T(0));
                term.value = load<V>(raised + j, part, T(0)) * cost;
                // steep is 0 where the cost is infinite
                term.pull = load<V>(rights + j, part, T(0)) * bounded<V>(cost) + load<V>(wrongs + j, part, T(0));
            } else {
                const V x = turned<V>(held, load<V>(logits + j, part, T(0)));  // the log-odds of being wrong
                const Softplus<V> s(x, load<V>(values + j, part, T(0)));
                const Odds<V> odds = {s.miss(), s.p(), log + positive_part<V>(x), log + positive_part<V>(-x), -x};
                term = side.template at<curved>(held, odds);
            }
            const V weight = select<V>(held, weight_on, weight_off);
            value = weight * term.value;
            // the loss falls with the logit of a label that holds; second derivatives have one sign for both
            result = curved ? weight * scale * term.bend : turned<V>(held, weight * scale * term.pull);
        } else {
            const V z = load<V>(logits + j, part, T(0)), y = t * hard + even;
            const V on = y * weight_on, off = weight_off - y * weight_off;
            const V up = positive_part<V>(z), down = positive_part<V>(-z);
            const Softplus<V> s(z, load<V>(values + j, part, T(0)));
            const V p = s.p(), miss = s.miss();
            const V cost_on = log + keep<V>(on != T(0), down), cost_off = log + keep<V>(off != T(0), up);
            const LabelTerm<V> a = side.template at<curved>(Present{}, Odds<V>{p, miss, cost_on, log + up, z});
            const LabelTerm<V> b = side.template at<curved>(Absent{}, Odds<V>{miss, p, cost_off, log + down, -z});
            value = on * a.value + off * b.value;
            result = scale * (curved ? off * b.bend + on * a.bend : off * b.pull - on * a.pull);
        }
        if constexpr (Ignoring) {
            value = keep<V>(known, value);
            result = keep<V>(known, result);
        }
        if constexpr (Output != LabelOutput::diagonal) store<V>(values + j, part, value);
        if constexpr (Output != LabelOutput::value) store<V>(out + j, part, result);
    });
}

template <class T, class Loss>
struct SigmoidRows {
    using V = Vector<T>;
    static constexpr int64_t size = 4096 / sizeof(T);  // of a tile, in elements

    struct Tile {
        alignas(64) T logits[size], labels[size], values[size], out[size];
        alignas(64) T logs[size], rights[size], wrongs[size], raised[size];
        alignas(64) T on[size + 4 * lanes<T>], off[size + 4 * lanes<T>];
    };

    // Where a tile lies: some whole rows, or a piece of one.
    struct Place {
        int64_t row, rows, column, columns;
        int64_t count() const { return rows * columns; }
    };

    const Job& job;
    const T *weight, *positive;
    const bool even_weights;  // whether all labels weigh the same
    bool weightless = false;  // whether a label weighs nothing
    Tile& tile;
    LabelRun<T> run;

    SigmoidRows(const Job& j, Tile& t, LabelOutput output)
        : job(j),
          weight(static_cast<const T*>(j.class_weight)),
          positive(static_cast<const T*>(j.positive_weight)),
          even_weights(all_same(weight, j.classes) && all_same(positive, j.classes)),
          tile(t) {
        const double inner = job.inverse_temperature * (output == LabelOutput::diagonal ? job.inverse_temperature : 1.0);
        run.scale = T((j.targets.row_weight ? 1.0 : j.scale) * inner);
        run.hard = T(1 - job.smoothing);
        run.even = T(job.smoothing / 2);
        run.ignored = j.targets.has_ignore ? T(j.targets.ignore_index) : T(__builtin_nan(""));
    }

    static bool all_same(const T* x, int64_t n) {
        bool same = true;
        for (int64_t k = 1; x && same && k < n; ++k) same = x[k] == x[0];
        return same;
    }

    T off_weight(int64_t k) const { return weight ? weight[k] : T(1); }
    T on_weight(int64_t k) const { return positive ? off_weight(k) * positive[k] : off_weight(k); }

    // Weights of the columns [column, column + columns), repeated over a whole vector or more.
    void lay_weights(int64_t column, int64_t columns) {
        const int64_t width = even_weights ? 1 : columns;
        run.period = (2 * lanes<T> + width - 1) / width * width;
        weightless = false;
        for (int64_t j = 0; j < run.period + 2 * lanes<T>; ++j) {
            const int64_t k = column + j % width;
            tile.on[j] = on_weight(k);
            tile.off[j] = off_weight(k);
            weightless |= tile.off[j] == 0;
        }
        run.on = tile.on;
        run.off = tile.off;
    }

    static bool packed(const Matrix& m, const Place& at) {
        return m.type == type_of<T> && (m.column_stride == 1 || at.columns == 1) &&
               (m.row_stride == at.columns || at.rows == 1);
    }
    static const T* address(const Matrix& m, const Place& at) {
        return static_cast<const T*>(m.data) + at.row * m.row_stride + at.column * m.column_stride;
    }
    // The elements of a tile as consecutive numbers: where they are if they already are that, else copied.
    static const T* read(const Matrix& m, const Place& at, T* copy) {
        if (packed(m, at)) return address(m, at);
        copy_rows<T>(m, at.row, at.rows, at.column, at.columns, copy);
        return copy;
    }

    // Where the next tile is, if the arrays have no gaps.
    void look_ahead(const Place& at) {
        const auto end = [&](const Matrix& m, int64_t bytes) {
            const int64_t offset = (at.row + at.rows - 1) * m.row_stride + (at.column + at.columns) * m.column_stride;
            return static_cast<const char*>(m.data) + offset * bytes;
        };
        with_type(job.targets.rows.type, [&](auto sample) { run.label_bytes = sizeof sample; });
        run.next_logits = end(job.logits, sizeof(T));
        run.next_labels = end(job.targets.rows, run.label_bytes);
    }

    // Divides the logits by the temperature.
    void cool(int64_t n) {
        const T factor = T(job.inverse_temperature);
        const T* logits = run.logits;
        for (int64_t k = 0; k < n; ++k) tile.logits[k] = logits[k] * factor;
        run.logits = tile.logits;
    }

    // Before some elements of a tile are struck out, the tile needs a copy of its own.
    void own(const Place& at) {
        if (run.logits != tile.logits) std::memcpy(tile.logits, run.logits, size_t(at.count()) * sizeof(T));
        if (run.labels != tile.labels) std::memcpy(tile.labels, run.labels, size_t(at.count()) * sizeof(T));
        run.logits = tile.logits;
        run.labels = tile.labels;
    }

    // Rows of weight 0 count as logits and labels of 0.
    void strike_rows(const Place& at) {
        for (int64_t r = 0; r < at.rows; ++r) {
            if (job.targets.row_weight[at.row + r] != 0) continue;
            own(at);
            for (int64_t k = r * at.columns; k < (r + 1) * at.columns; ++k) tile.logits[k] = tile.labels[k] = 0;
        }
    }

    // What a sweep left out: the output of a row has its weight.
    void weigh(const Place& at) {
        for (int64_t r = 0; r < at.rows; ++r) {
            const int64_t columns = at.columns;
            T* __restrict out = run.out + r * columns;
            const T factor = T(job.targets.row_weight[at.row + r] * job.scale);
            for (int64_t k = 0; k < columns; ++k) out[k] *= factor;
        }
    }

    // Where a label weighs nothing an infinite logit costs nothing either; the sweep of hard labels relies on it.
    void strike_weightless(const Place& at) {
        own(at);
        for (int64_t r = 0; r < at.rows; ++r) {
            T* logits = tile.logits + r * at.columns;
            for (int64_t k = 0; k < at.columns; ++k) {
                const T z = logits[k];
                logits[k] = off_weight(at.column + k) == 0 && (z == infinity<T> || z == -infinity<T>) ? T(0) : z;
            }
        }
    }

    // Whether all labels are 0 or 1, or ignored.
    bool all_hard(const Place& at) const {
        const Matrix& m = job.targets.rows;
        const bool bytes = m.type == Type::uint8 || m.type == Type::boolean;
        if (job.targets.has_ignore) return all_hard<true>(at.count());
        if (!bytes || run.labels != tile.labels || m.column_stride != 1 || job.targets.row_weight)
            return all_hard<false>(at.count());
        unsigned char any = 0;
        for (int64_t r = 0; r < at.rows; ++r) {
            const auto* t = static_cast<const unsigned char*>(m.data) + (at.row + r) * m.row_stride + at.column;
            for (int64_t k = 0; k < at.columns; ++k) any |= t[k];
        }
        return any <= 1;
    }
    // The same for numbers of T: only then t * t - t is 0.
    template <bool Ignoring>
    bool all_hard(int64_t n) const {
        using I = typename traits<V>::integer;
        I odd = bits_as<I>(V{});
        along<T>(0, n, [&](int64_t k, auto part) KULLBACK_LAMBDA {
            V t = load<V>(run.labels + k, part, T(0));
            if constexpr (Ignoring) t = keep<V>(t != run.ignored, t);
            odd |= bits_as<I>(t * t - t);
        });
        int64_t parts[sizeof(V) / 8 + 1] = {};
        std::memcpy(parts, &odd, sizeof odd);
        int64_t any = 0;
        for (int64_t part : parts) any |= part;
        return any == 0;
    }

    // The first label outside [0, 1] that is not ignored, or -1.
    int64_t first_bad(int64_t n) const {
        const bool ignoring = job.targets.has_ignore;
        const T ignored = run.ignored;
        int32_t bad = 0;
        for (int64_t k = 0; k < n; ++k) bad |= int32_t(!(run.labels[k] >= 0)) | int32_t(!(run.labels[k] <= 1));
        for (int64_t k = 0; bad && k < n; ++k) {
            if (!(run.labels[k] >= 0 && run.labels[k] <= 1) && !(ignoring && run.labels[k] == ignored)) return k;
        }
        return -1;
    }

    // The tile's values, each row's times its weight, or NaN where a weight is not of a size for T.
    double weighted_sum(const Place& at) const {
        V a = V{}, b = V{};
        double rest = 0;
        for (int64_t r = 0; r < at.rows; ++r) {
            const double weight = job.targets.row_weight[at.row + r];
            if (weight == 0) continue;
            if (!(weight > 1e-30 && weight < 1e30)) return __builtin_nan("");
            const T* x = tile.values + r * at.columns;
            const T factor = T(weight);
            int64_t k = 0;
            for (; k + 2 * lanes<T> <= at.columns; k += 2 * lanes<T>) {
                a += load<V>(x + k) * factor;
                b += load<V>(x + k + lanes<T>) * factor;
            }
            for (; k < at.columns; ++k) rest += weight * double(x[k]);
        }
        return sum_lanes(a + b) + rest;
    }

    // In a tile each lane of four accumulators adds few enough terms for a float.
    static double sum(const T* x, int64_t n) {
        V a = V{}, b = V{}, c = V{}, d = V{};
        int64_t k = 0;
        for (; k + 4 * lanes<T> <= n; k += 4 * lanes<T>) {
            a += load<V>(x + k);
            b += load<V>(x + k + lanes<T>);
            c += load<V>(x + k + 2 * lanes<T>);
            d += load<V>(x + k + 3 * lanes<T>);
        }
        for (; k + lanes<T> <= n; k += lanes<T>) a += load<V>(x + k);
        double total = k ? sum_lanes((a + b) + (c + d)) : 0.0;
        for (; k < n; ++k) total += double(x[k]);
        return total;
    }

    static void evaluate(const Job& job, int64_t begin, int64_t end, void*, Report& report) {
        if (job.out) {
            Loss::with(job, [&](const auto& side) { tiles<LabelOutput::gradient>(job, side, begin, end, report); });
        } else {
            Loss::with(job, [&](const auto& side) { tiles<LabelOutput::value>(job, side, begin, end, report); });
        }
    }
    // The Hessian is diagonal: a product is the diagonal times a direction.
    static void hessian_diagonal(const Job& job, int64_t begin, int64_t end, void*, Report& report) {
        Loss::with(job, [&](const auto& side) { tiles<LabelOutput::diagonal>(job, side, begin, end, report); });
    }
    static void hessian_product(const Job& job, int64_t begin, int64_t end, void*, Report& report) {
        Loss::with(job, [&](const auto& side) { tiles<LabelOutput::diagonal>(job, side, begin, end, report); });
    }

    template <LabelOutput Output, class Side>
    static void tiles(const Job& job, const Side& side, int64_t begin, int64_t end, Report& report) {
        Tile tile;
        SigmoidRows rows(job, tile, Output);
        const int64_t classes = job.classes;
        if (classes <= size) {
            const int64_t step = classes > 0 ? size / classes : 1;
            rows.lay_weights(0, classes);
            for (int64_t i = begin; i < end; i += step) {
                const Place at{i, end - i < step ? end - i : step, 0, classes};
                if (!rows.template one_tile<Output>(side, at, report)) return;
                if constexpr (Output == LabelOutput::diagonal) continue;
                // single rows matter only if someone asks for them, or to find out which is infinite
                if (!job.per_example) {
                    const double total = job.targets.row_weight ? rows.weighted_sum(at) : sum(tile.values, at.count());
                    if (total < infinity<double>) {
                        report.total += total;
                        continue;
                    }
                }
                for (int64_t r = 0; r < at.rows; ++r) rows.put(i + r, sum(tile.values + r * classes, classes), report);
            }
            return;
        }
        if (rows.even_weights) rows.lay_weights(0, classes);
        for (int64_t i = begin; i < end; ++i) {
            double value = 0;
            for (int64_t column = 0; column < classes; column += size) {
                const Place at{i, 1, column, classes - column < size ? classes - column : size};
                if (!rows.even_weights) rows.lay_weights(column, at.columns);
                if (!rows.template one_tile<Output>(side, at, report)) return;
                if constexpr (Output != LabelOutput::diagonal) value += sum(tile.values, at.columns);
            }
            if constexpr (Output != LabelOutput::diagonal) rows.put(i, value, report);
        }
    }

    void put(int64_t i, double value, Report& report) const {
        put_loss<T>(job, i, job.targets.row_weight ? job.targets.row_weight[i] * value : value, report);
    }

    // Sweeps one tile; false, and the report says where, if one of its labels is not valid.
    template <LabelOutput Output, class Side>
    bool one_tile(const Side& side, const Place& at, Report& report) {
        const int64_t n = at.count();
        const LabelRun<T> kept = run;
        run.count = n;
        run.logits = read(job.logits, at, tile.logits);
        run.labels = read(job.targets.rows, at, tile.labels);
        look_ahead(at);
        if (job.inverse_temperature != 1) cool(n);
        if (job.targets.row_weight) strike_rows(at);
        if (weightless) strike_weightless(at);
        const bool hard = all_hard(at);
        if (!hard) {
            const int64_t bad = first_bad(n);
            if (bad >= 0) {
                report.bad_row = at.row + bad / at.columns;
                report.bad_column = at.column + bad % at.columns;
                return false;
            }
        }
        run.values = tile.values;
        run.logs = tile.logs;
        run.rights = tile.rights;
        run.wrongs = tile.wrongs;
        run.raised = tile.raised;
        const bool direct = job.out && (job.out_stride == at.columns || at.rows == 1);
        T* target = job.out ? static_cast<T*>(job.out) + at.row * job.out_stride + at.column : nullptr;
        run.out = !job.out || direct ? target : tile.out;
        if (!hard || job.smoothing != 0) {
            sweep_labels<T, Output, false, true>(run, side);
        } else if (Output != LabelOutput::gradient || job.targets.has_ignore) {
            sweep_labels<T, Output, true, true>(run, side);
        } else {
            sweep_labels<T, Output, true, Output != LabelOutput::gradient>(run, side);
        }
        if (job.targets.row_weight && Output != LabelOutput::value) weigh(at);
        if (Output == LabelOutput::diagonal && job.direction.data) {
            const T* direction = read(job.direction, at, tile.values);
            for (int64_t k = 0; k < n; ++k) run.out[k] *= direction[k];
        }
        if (job.out && !direct) {
            for (int64_t r = 0; r < at.rows; ++r) {
                std::memcpy(target + r * job.out_stride, tile.out + r * at.columns, size_t(at.columns) * sizeof(T));
            }
        }
        run = kept;
        return true;
    }
};

template <class T>
void sigmoid_probabilities(const Job& job, int64_t begin, int64_t end, void* memory, Report&) {
    using V = Vector<T>;
    Scratch scratch(memory);
    const T factor = T(job.inverse_temperature);
    const Rows<T> logits = rows_of<T>(job.logits, begin, end, job.classes, scratch);
    for (int64_t i = begin; i < end; ++i) {
        const T* z = logits.row(i - begin);
        T* out = static_cast<T*>(job.out) + i * job.out_stride;
        along<T>(0, job.classes, [&](int64_t k, auto part) KULLBACK_LAMBDA {
            const V z_k = load<V>(z + k, part, T(0)) * factor;
            const Softplus<V> s(z_k);
            store<V>(out + k, part, job.logarithm ? -(log1p_to_one<V>(s.e) + positive_part<V>(-z_k)) : s.p());
        });
    }
}

// How many labels of row i are not ignored; up to the first one if only that is of interest.
inline int64_t known_labels(const Job& job, int64_t i, bool only_whether) {
    if (!job.targets.has_ignore) return job.classes;
    const Matrix& labels = job.targets.rows;
    int64_t known = 0;
    with_type(labels.type, [&](auto sample) {
        using S = decltype(sample);
        const S* t = static_cast<const S*>(labels.data) + i * labels.row_stride;
        const S ignored = S(job.targets.ignore_index);
        if (double(ignored) != double(job.targets.ignore_index)) {
            known = job.classes;  // no number of this type is ignored
        } else if (only_whether) {
            for (int64_t k = 0; k < job.classes && !known; ++k) known = t[k * labels.column_stride] != ignored;
        } else if (labels.column_stride == 1) {
            int32_t count = 0;  // compilers vectorise this
            for (int64_t k = 0; k < job.classes; ++k) count += int32_t(t[k] != ignored);
            known = count;
        } else {
            for (int64_t k = 0; k < job.classes; ++k) known += t[k * labels.column_stride] != ignored;
        }
    });
    return known;
}

// Counts rows of which at least one label is not ignored, and sums their weights. Where there is an array for it, each
// row's number of labels that are not ignored goes there.
inline void sigmoid_targets(const Job& job, int64_t begin, int64_t end, void*, Report& report) {
    for (int64_t i = begin; i < end; ++i) {
        double weight = job.targets.row_weight ? job.targets.row_weight[i] : 1.0;
        const int64_t known = weight != 0 || job.per_example ? known_labels(job, i, !job.per_example) : 0;
        if (job.per_example) static_cast<double*>(job.per_example)[i] = double(known);
        if (job.targets.has_ignore && known == 0) weight = 0;
        report.counted += weight != 0;
        report.total += weight;
    }
}

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
