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
// asks for them, so that no mass times an infinite cost is nothing. A side with a logarithm of its own
// says with log_of(held, e, large, right, wrong) of what; that is the `cost` of hard labels, but in curved sweeps.
#pragma once

#include "simd/convert.hpp"
#include "simd/elementary.hpp"
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

// The probability of what is the case and of what is not, each to full relative precision, and -log of both. `large` is
// 1 / (1 + e).
template <class V>
struct Odds {
    V right, wrong;
    V cost, wrong_cost;
    V e, large;
};

// What to take a logarithm of, at most 2, and what rounding has taken from it, relative to it.
template <class V>
struct LogOf {
    V x, lost;
};

// What both orientations of a log-odds share.
template <class V>
struct Softplus {
    V e;             // exp(-|z|)
    V small, large;  // sigmoid(-|z|) and sigmoid(|z|)
    Mask<V> is_up;

    KULLBACK_INLINE explicit Softplus(V z) : Softplus(z, exp_nonpositive<V>(negative_size<V>(z))) {}
    KULLBACK_INLINE Softplus(V z, V exponential) : e(exponential) {
        using T = Scalar<V>;
        large = T(1) / (e + T(1));
        small = e * large;
        is_up = z >= T(0);
    }
    KULLBACK_INLINE V p() const { return select<V>(is_up, large, small); }
    KULLBACK_INLINE V miss() const { return select<V>(is_up, small, large); }
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
    const T *on = nullptr, *off = nullptr;            // what a label weighs in the value if it holds, and if not
    const T *on_share = nullptr, *off_share = nullptr;  // the same in the output, with sign and scale
    int64_t period = 0;
    T inverse_temperature = 1, hard = 1, even = 0;  // a label t counts as t * hard + even
    T ignored = 0;                                  // what labels that are worth nothing say, or NaN
    T *values = nullptr, *out = nullptr;
    T *logs = nullptr, *rights = nullptr, *wrongs = nullptr;  // room for what is handed from sweep to sweep
};

template <class T, LabelOutput Output, bool Hard, bool Ignoring, class Side>
void sweep_labels(const LabelRun<T>& run, const Side& given) {
    constexpr bool curved = Output == LabelOutput::diagonal;
    constexpr bool own_log = Side::log_used == LabelLog::own && Hard && !curved;
    // copies, because for all that the compiler knows, what is written could be the numbers of `run` and of the loss
    const Side side = given;
    const T *const logits = run.logits, *const labels = run.labels, *const weights_on = run.on;
    const T *const weights_off = run.off, *const shares_on = run.on_share, *const shares_off = run.off_share;
    T *const values = run.values, *const logs = run.logs, *const rights = run.rights, *const wrongs = run.wrongs;
    T* const out = run.out;
    const int64_t count = run.count, period = run.period;
    const T inverse_temperature = run.inverse_temperature, hard = run.hard, even = run.even, ignored = run.ignored;
    using One = Vector<T>;
    using Two = Pair<One>;
    const auto each = [&](auto kind, auto body) KULLBACK_LAMBDA {
        constexpr int width = traits<decltype(kind)>::width;
        int64_t j = 0;
        for (; width > lanes<T> && j + width <= count; j += width) body(kind, j, Whole{});
        along<T>(j, count, [&](int64_t i, auto part) KULLBACK_LAMBDA { body(One{}, i, part); });
    };
    const auto logit = [&](auto kind, int64_t j, auto part) KULLBACK_LAMBDA {
        return load<decltype(kind)>(logits + j, part, T(0)) * inverse_temperature;
    };
    each(Two{}, [&](auto kind, int64_t j, auto part) KULLBACK_LAMBDA {
        using V = decltype(kind);
        // the lines of the next tile come from memory while exp keeps the processor busy
        for (int64_t line = 0; line < traits<V>::width; line += 64 / int64_t(sizeof(T))) {
            prefetch(logits + count + j + line);
            prefetch(labels + count + j + line);
            if (Output != LabelOutput::value) prefetch(out + j + line);
        }
        store<V>(values + j, part, exp_nonpositive<V>(negative_size<V>(logit(kind, j, part))));
    });
    if constexpr (own_log) {
        each(One{}, [&](auto kind, int64_t j, auto part) KULLBACK_LAMBDA {
            using V = decltype(kind);
            const V e = load<V>(values + j, part, T(0));
            const Mask<V> held = load<V>(labels + j, part, T(0)) != T(0);
            const V x = turned<V>(held, logit(kind, j, part));
            const Softplus<V> s(x, e);
            const V right = s.miss(), wrong = s.p();
            const LogOf<V> of = side.log_of(held, e, s.large, right, wrong);
            store<V>(rights + j, part, right);
            store<V>(wrongs + j, part, wrong);
            // where a label that holds has an excess, what was lost is nothing beside it
            store<V>(values + j, part, of.lost + keep<V>(held, positive_part<V>(x)));
            store<V>(logs + j, part, of.x);
        });
        each(Two{}, [&](auto kind, int64_t j, auto part) KULLBACK_LAMBDA {
            using V = decltype(kind);
            const V x = load<V>(logs + j, part, T(1)), lost = load<V>(values + j, part, T(0));
            store<V>(logs + j, part, log_to_two<V>(x, lost));
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
        const V z = logit(kind, j, part), e = load<V>(values + j, part, T(0));
        V log{};
        if constexpr (Side::log_used != LabelLog::none) log = load<V>(logs + j, part, T(0));
        V t = load<V>(labels + j, part, T(0));
        const V weight_on = load<V>(weights_on + k), weight_off = load<V>(weights_off + k);
        V share_on{}, share_off{};
        if constexpr (Output != LabelOutput::value) {
            share_on = load<V>(shares_on + k);
            share_off = load<V>(shares_off + k);
        }
        k += traits<V>::width;
        k = k >= period ? k - period : k;
        V value, result;
        const Mask<V> known = t != ignored;
        if constexpr (Ignoring) t = keep<V>(known, t);
        if constexpr (Hard) {
            const Mask<V> held = t != T(0);
            Odds<V> odds{};
            if constexpr (own_log) {
                odds.right = load<V>(rights + j, part, T(0));
                odds.wrong = load<V>(wrongs + j, part, T(0));
                odds.cost = log;
            } else {
                const V x = turned<V>(held, z);  // the log-odds of being wrong
                const Softplus<V> s(x, e);
                odds = {s.miss(), s.p(), log + positive_part<V>(x), log + positive_part<V>(-x), s.e, s.large};
            }
            const LabelTerm<V> term = side.template at<curved>(held, odds);
            value = select<V>(held, weight_on, weight_off) * term.value;
            result = (curved ? term.bend : term.pull) * select<V>(held, share_on, share_off);
        } else {
            const V y = t * hard + even;
            const V on = y * weight_on, off = weight_off - y * weight_off;
            const V up = positive_part<V>(z), down = positive_part<V>(-z);
            const Softplus<V> s(z, e);
            const V p = s.p(), miss = s.miss();
            const V cost_on = log + keep<V>(on != T(0), down), cost_off = log + keep<V>(off != T(0), up);
            const LabelTerm<V> a =
                side.template at<curved>(Present{}, Odds<V>{p, miss, cost_on, log + up, s.e, s.large});
            const LabelTerm<V> b =
                side.template at<curved>(Absent{}, Odds<V>{miss, p, cost_off, log + down, s.e, s.large});
            value = on * a.value + off * b.value;
            result = (y * share_on) * (curved ? a.bend : a.pull) +
                     (share_off - y * share_off) * (curved ? b.bend : b.pull);
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
        alignas(64) T logs[size], rights[size], wrongs[size];
        alignas(64) T on[size + 4 * lanes<T>], off[size + 4 * lanes<T>];
        alignas(64) T on_share[size + 4 * lanes<T>], off_share[size + 4 * lanes<T>];
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
    const double scale_off, scale_on;  // of the output, but for row weights
    Tile& tile;
    LabelRun<T> run;

    SigmoidRows(const Job& j, Tile& t, LabelOutput output)
        : job(j),
          weight(static_cast<const T*>(j.class_weight)),
          positive(static_cast<const T*>(j.positive_weight)),
          even_weights(all_same(weight, j.classes) && all_same(positive, j.classes)),
          scale_off((j.targets.row_weight ? 1.0 : j.scale) * j.inverse_temperature *
                    (output == LabelOutput::diagonal ? j.inverse_temperature : 1.0)),
          // the loss falls with the logit of a label that holds; second derivatives have one sign for both
          scale_on(output == LabelOutput::diagonal ? scale_off : -scale_off),
          tile(t) {
        run.inverse_temperature = T(job.inverse_temperature);
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
            const T on = on_weight(k), off = off_weight(k);
            tile.on[j] = on;
            tile.off[j] = off;
            tile.on_share[j] = on * T(scale_on);
            tile.off_share[j] = off * T(scale_off);
            weightless |= off == 0;
        }
        run.on = tile.on;
        run.off = tile.off;
        run.on_share = tile.on_share;
        run.off_share = tile.off_share;
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
                const bool by_row = job.per_example || job.targets.row_weight;
                const double total = by_row ? 0.0 : sum(tile.values, at.count());
                if (!by_row && total < infinity<double>) {
                    report.total += total;
                    continue;
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
