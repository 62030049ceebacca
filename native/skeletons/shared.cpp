// What the kernels of all losses share, compiled once per instruction level: reading of arrays, sums of rows, and what
// transforms or finishes a row whatever its loss is.
#include "skeletons/softmax_exact.hpp"
#include "skeletons/softmax_options.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

// ---------------------------------------------------------------- reading

template <class T>
void copy_rows(const Matrix& m, int64_t row, int64_t rows, int64_t column, int64_t columns, T* to) {
    with_type(m.type, [&](auto sample) {
        using S = decltype(sample);
        const S* from = static_cast<const S*>(m.data) + row * m.row_stride + column * m.column_stride;
        if (m.column_stride == 1 && m.row_stride == columns) {
            for (int64_t k = 0; k < rows * columns; ++k) to[k] = T(from[k]);
            return;
        }
        for (int64_t i = 0; i < rows; ++i, from += m.row_stride, to += columns) {
            if (m.column_stride == 1) {
                for (int64_t k = 0; k < columns; ++k) to[k] = T(from[k]);
            } else {
                for (int64_t k = 0; k < columns; ++k) to[k] = T(from[k * m.column_stride]);
            }
        }
    });
}

template <class T>
Rows<T> rows_of(const Matrix& m, int64_t begin, int64_t end, int64_t columns, Scratch& scratch) {
    if (m.type == type_of<T> && (m.column_stride == 1 || columns <= 1)) {
        return {static_cast<const T*>(m.data) + begin * m.row_stride, m.row_stride};
    }
    T* copy = scratch.take<T>((end - begin) * columns);
    copy_rows<T>(m, begin, end - begin, 0, columns, copy);
    return {copy, columns};
}

// Narrows one index vector to 32 bits, with 0 for classes out of range; returns whether there were any.
inline bool narrow_classes(const IndexVector& v, int64_t begin, int64_t end, int64_t classes, int32_t* out) {
    bool amiss = false;
    with_type(v.type, [&](auto sample) {
        using S = decltype(sample);
        const S* from = static_cast<const S*>(v.data) + begin * v.stride;
        auto run = [&](int64_t stride) KULLBACK_LAMBDA {
            // What is lost by narrowing, and the largest: both must be small. Simple enough for compilers to vectorise.
            uint64_t high = 0;
            uint32_t largest = 0;
            for (int64_t i = 0; i < end - begin; ++i) {
                const S y = from[i * stride];
                if constexpr (sizeof(S) == 8) high |= uint64_t(y);
                const uint32_t low = uint32_t(y);
                largest = low > largest ? low : largest;
                out[i] = int32_t(low);
            }
            amiss = (high >> 32) != 0 || int64_t(largest) >= classes;
            for (int64_t i = 0; amiss && i < end - begin; ++i) {
                if (uint64_t(int64_t(from[i * stride])) >= uint64_t(classes)) out[i] = 0;
            }
        };
        if (v.stride == 1) {
            run(1);
        } else {
            run(v.stride);
        }
    });
    return amiss;
}

// Takes ignored rows out; false (and the report says where) if a row that counts has its class out of range.
inline bool settle_classes(const IndexVector& v, int64_t begin, int64_t end, int64_t classes, bool has_ignore,
                           int64_t ignore, double* weights, Report& report) {
    with_type(v.type, [&](auto sample) {
        using S = decltype(sample);
        const S* from = static_cast<const S*>(v.data) + begin * v.stride;
        for (int64_t i = 0; i < end - begin; ++i) {
            const int64_t y = int64_t(from[i * v.stride]);
            if (has_ignore && y == ignore) weights[i] = 0;
            if (uint64_t(y) >= uint64_t(classes) && weights[i] != 0 && report.bad_row < 0) report.bad_row = begin + i;
        }
    });
    return report.bad_row < 0;
}

bool block_targets(const Job& job, int64_t begin, int64_t end, Scratch& scratch, BlockTargets& block,
                          Report& report) {
    const Targets& t = job.targets;
    const int64_t rows = end - begin;
    const bool may_ignore = t.has_ignore && t.form == Form::indices;
    bool amiss = t.row_weight || (may_ignore && t.ignore_index >= 0 && t.ignore_index < job.classes);
    if (t.form != Form::rows) {
        block.first = scratch.take<int32_t>(rows);
        amiss |= narrow_classes(t.first, begin, end, job.classes, block.first);
    }
    if (t.form == Form::mixture) {
        block.second = scratch.take<int32_t>(rows);
        amiss |= narrow_classes(t.second, begin, end, job.classes, block.second);
    }
    if (!amiss) {
        report.counted += rows;
        return true;
    }
    block.weights = copy_weights(t, begin, end, scratch.take<double>(rows));
    bool good = true;
    if (t.form != Form::rows) {
        good = settle_classes(t.first, begin, end, job.classes, may_ignore, t.ignore_index, block.weights, report);
    }
    if (t.form == Form::mixture) {
        good = good && settle_classes(t.second, begin, end, job.classes, false, 0, block.weights, report);
    }
    int64_t counted = 0;
    for (int64_t r = 0; r < rows; ++r) counted += block.weights[r] != 0;
    block.some_skipped = counted < rows;
    report.counted += counted;
    return good;
}

// ---------------------------------------------------------------- one row

// Keeps 2^lift exp((z - center) / T) over [begin, end) and returns the sum, without the lift. `raw` is what z was made of.
template <class T>
KULLBACK_INLINE double sum_piece(const T* z, const T* raw, int64_t begin, int64_t end, T center, T factor, T* kept,
                                 const T* result) {
    using V = Vector<T>;
    constexpr int W = lanes<T>;
    V sum = V{};
    auto add = [&](int64_t k, auto part, V& sum) KULLBACK_LAMBDA {
        const V e = exp_lifted<V>((load<V>(z + k, part, -infinity<T>) - center) * factor);
        store<V>(kept + k, part, e);
        sum += e;
    };
    int64_t k = begin;
    while (k + 4 * W <= end) {
        const int64_t stop = k + 4 * W * short_sum < end ? k + 4 * W * short_sum : end;
        V a = V{}, b = V{}, c = V{}, d = V{};
        for (; k + 4 * W <= stop; k += 4 * W) {
            // exp keeps the processor busy: let memory fetch meanwhile what comes after this piece, and the lines that
            // the result will overwrite if it does not go past the caches
            for (int64_t line = 0; line < 4 * W; line += 64 / int64_t(sizeof(T))) {
                prefetch(raw + (end - begin) + k + line);
                if (result) prefetch(result + k + line);
            }
            add(k, Whole{}, a);
            add(k + W, Whole{}, b);
            add(k + 2 * W, Whole{}, c);
            add(k + 3 * W, Whole{}, d);
        }
        sum += (a + b) + (c + d);
    }
    along<T>(k, end, [&](int64_t j, auto part) KULLBACK_LAMBDA { add(j, part, sum); });
    return sum_lanes(sum) * double(Constants<T>::unlift);
}

// The kept sum over [begin, end) without one of the largest, which are 2^lift. Added up apart from them it keeps
// its own precision, however small it is.
template <class T>
KULLBACK_INLINE double sum_others(const T* kept, int64_t begin, int64_t end) {
    using V = Vector<T>;
    constexpr T one = 1 / Constants<T>::unlift;
    V ties = V{};
    const double sum = sum_along<T>(end - begin, [&](int64_t k, auto part) KULLBACK_LAMBDA {
        const V e = load<V>(kept + begin + k, part, T(0));
        const Mask<V> is_top = e == one;
        ties += keep<V>(is_top, splat<V>(T(1)));
        return select<V>(is_top, V{}, e);
    });
    return sum * double(Constants<T>::unlift) + (sum_lanes(ties) - 1);
}

// Adds a piece's part of the sums with the target; its logits count relative to the piece's center. `Weighted`: the classes
// have weights w, which are all 1 otherwise; `Everywhere`: sums with w itself are asked for too.
template <class T, bool Weighted, bool Everywhere, bool Scores, bool Exps>
KULLBACK_INLINE void sum_products(const T* z, int64_t begin, int64_t end, T center, T factor, const T* exp,
                                  RowMasses<T>& m) {
    using V = Vector<T>;
    constexpr int W = lanes<T>, kinds = Everywhere ? 2 : 1;
    struct Sums {
        V total = V{}, weights = V{}, weighted = V{}, d[2] = {}, exp[2] = {}, squares = V{};
        KULLBACK_INLINE void add(const Sums& a, const Sums& b) {
            total += a.total + b.total;
            if constexpr (Weighted) weighted += a.weighted + b.weighted;
            if constexpr (Weighted && Everywhere) weights += a.weights + b.weights;
            for (int i = 0; i < kinds; ++i) {
                if constexpr (Scores) d[i] += a.d[i] + b.d[i];
                if constexpr (Exps) exp[i] += a.exp[i] + b.exp[i];
            }
            if constexpr (Exps) squares += a.squares + b.squares;
        }
    };
    Sums all;
    V lowest = V{};
    const T *t = m.t, *weight = m.weight;
    auto add = [&](int64_t k, auto part, Sums& sums) KULLBACK_LAMBDA {
        const V plain = load<V>(t + k, part, T(0));
        lowest = smaller<V>(plain, lowest);
        sums.total += plain;
        V mass = plain, w = V{};
        if constexpr (Weighted) {
            w = load<V>(weight + k, part, T(0));
            mass = w * plain;
            sums.weighted += mass;
            if constexpr (Everywhere) sums.weights += w;
        }
        if constexpr (Scores) {
            const V d = (load<V>(z + k, part, center) - center) * factor;
            sums.d[0] += keep<V>(mass != T(0), mass * d);  // 0 times -inf is nothing
            if constexpr (Everywhere) sums.d[1] += Weighted ? keep<V>(w != T(0), w * d) : d;
        }
        if constexpr (Exps) {
            const V e = load<V>(exp + k, part, T(0));
            sums.exp[0] += mass * e;
            if constexpr (Everywhere) sums.exp[1] += Weighted ? w * e : e;
            sums.squares += e * e;
        }
    };
    int64_t k = begin;
    while (k + 2 * W <= end) {
        const int64_t stop = k + 2 * W * short_sum < end ? k + 2 * W * short_sum : end;
        Sums a, b;
        for (; k + 2 * W <= stop; k += 2 * W) {
            for (int64_t line = 0; line < 2 * W; line += 64 / int64_t(sizeof(T))) prefetch(t + (end - begin) + k + line);
            add(k, Whole{}, a);
            add(k + W, Whole{}, b);
        }
        all.add(a, b);
    }
    along<T>(k, end, [&](int64_t j, auto part) KULLBACK_LAMBDA { add(j, part, all); });
    constexpr double unlift = double(Constants<T>::unlift);
    const double total = sum_lanes(all.total);
    m.total += total;
    m.weighted += Weighted ? sum_lanes(all.weighted) : total;
    if constexpr (Everywhere) m.weights += Weighted ? double(sum_lanes(all.weights)) : double(end - begin);
    for (int i = 0; i < kinds; ++i) {
        m.with_d[i] += sum_lanes(all.d[i]);
        m.with_exp[i] += sum_lanes(all.exp[i]) * unlift;
    }
    m.squares += sum_lanes(all.squares) * (unlift * unlift);
    for (int i = 0; i < W; ++i) m.sound &= get(lowest, i) >= 0;
}

template <class T>
void sum_masses(const T* z, int64_t begin, int64_t end, T center, T factor, const T* exp, RowMasses<T>& m) {
    auto run = [&](auto weighted, auto everywhere) KULLBACK_LAMBDA {
        constexpr bool w = decltype(weighted)::value, all = decltype(everywhere)::value;
        if (m.scores && m.exps) return sum_products<T, w, all, true, true>(z, begin, end, center, factor, exp, m);
        if (m.scores) return sum_products<T, w, all, true, false>(z, begin, end, center, factor, exp, m);
        if (m.exps) return sum_products<T, w, all, false, true>(z, begin, end, center, factor, exp, m);
        sum_products<T, false, false, false, false>(z, begin, end, center, factor, exp, m);
    };
    const std::true_type yes;
    const std::false_type no;
    if (m.everywhere) return m.weight ? run(yes, yes) : run(no, yes);
    return m.weight ? run(yes, no) : run(no, no);
}

// The largest of a piece, NaN passed over.
template <class T>
KULLBACK_INLINE T top_of(const T* z, int64_t begin, int64_t end) {
    using V = Vector<T>;
    constexpr int W = lanes<T>;
    V peak_a = splat<V>(-infinity<T>), peak_b = peak_a;
    int64_t k = begin;
    for (; k + 2 * W <= end; k += 2 * W) {
        peak_a = larger<V>(load<V>(z + k), peak_a);
        peak_b = larger<V>(load<V>(z + k + W), peak_b);
    }
    along<T>(k, end, [&](int64_t j, auto part) KULLBACK_LAMBDA {
        peak_a = larger<V>(load<V>(z + j, part, -infinity<T>), peak_a);
    });
    return largest_lane(larger<V>(peak_a, peak_b));
}

template <class T>
RowSum<T> sum_row(const T* raw, int64_t classes, double inverse_temperature, Kept<T> kept, RowMasses<T>* masses) {
    const T* z = kept.transform ? kept.scores : raw;
    const T factor = T(inverse_temperature);
    T top = -infinity<T>;
    T center = 0;
    double others = -1;  // the sum is 1 + others as soon as there is a largest logit
    for (int64_t begin = 0; begin < classes; begin += piece_size<T>) {
        const int64_t end = begin + piece_size<T> < classes ? begin + piece_size<T> : classes;
        const T piece_top =
            kept.transform ? kept.transform->row(raw, begin, end, kept.scores, kept.slope, nullptr) : top_of(z, begin, end);
        const bool new_top = piece_top > top;
        if (new_top) {
            // what was summed so far is now relative to a larger logit
            const double d = (double(top) - double(piece_top)) * inverse_temperature;
            others = begin == 0 ? 0 : (others + 1) * exp_nonpositive<double>(d);
            if (masses && begin > 0) {
                if (masses->weighted != 0) masses->with_d[0] += masses->weighted * d;
                if (masses->weights != 0) masses->with_d[1] += masses->weights * d;
                const double less = exp_nonpositive<double>(d);
                for (double& sum : masses->with_exp) sum *= less;
                masses->squares *= less * less;
            }
            top = center = piece_top;
        }
        kept.centers[begin / piece_size<T>] = center;
        const double sum = sum_piece(z, raw, begin, end, center, factor, kept.exp, kept.result);
        if (new_top) {
            others += sum < 1.5 ? sum_others(kept.exp, begin, end) : sum - 1;
        } else {
            others += sum;
        }
        if (masses) sum_masses(z, begin, end, center, factor, kept.exp, *masses);
    }
    if (masses) masses->sound &= masses->total < infinity<double>;
    RowSum<T> row;
    row.center = center;
    row.sum = 1 + others;
    const bool empty = top == -infinity<T> && row.sum == 0;
    row.others = empty ? 0 : others;
    row.log_sum = empty ? 0 : log1p_nonnegative<double>(others);
    row.inverse = empty ? 0 : 1 / row.sum;
    return row;
}

// Weighs, sums and stores the losses of a whole block; rows that do not count have loss 0.
template <class T>
void put_losses(const Job& job, int64_t begin, int64_t rows, const T* losses,
                       const BlockTargets& targets, Report& report) {
    double sums[8] = {};
    int64_t r = 0;
    auto add = [&](auto weight) KULLBACK_LAMBDA {
        for (; r + 8 <= rows; r += 8) {
            for (int j = 0; j < 8; ++j) sums[j] += weight(r + j) * double(losses[r + j]);
        }
        for (int64_t j = r; j < rows; ++j) sums[0] += weight(j) * double(losses[j]);
    };
    const double* weights = targets.weights;
    if (weights) {
        add([&](int64_t j) KULLBACK_LAMBDA { return weights[j]; });
    } else {
        add([](int64_t) KULLBACK_LAMBDA { return 1.0; });
    }
    report.total = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
    // an infinite loss, or a NaN that may hide one, shows in the sum
    for (r = 0; !(report.total < infinity<double>) && r < rows; ++r) {
        if (targets.weight(r) * double(losses[r]) == infinity<double>) {
            report.infinite_row = begin + r;
            break;
        }
    }
    if (!job.per_example) return;
    if (job.per_example_float64) {
        for (r = 0; r < rows; ++r) static_cast<double*>(job.per_example)[begin + r] = targets.weight(r) * double(losses[r]);
    } else {
        for (r = 0; r < rows; ++r) static_cast<T*>(job.per_example)[begin + r] = T(targets.weight(r) * double(losses[r]));
    }
}

// ---------------------------------------------------------------- priors and softcap

namespace {

// Up to this square of z / cap a shorter formula does, nothing has to be cut off, and nothing is infinite.
constexpr float moderate_square = 2.25f;

// tanh(x) of floats, NaN included: x P(x^2) / Q(x^2), with a relative error of 2e-8 before rounding. Where that is known,
// the squares are `moderate` or no numbers.
template <bool moderate, class V>
KULLBACK_INLINE V tanh_float(V x, V square) {
    const V short_p = (square * 0x1.0736d8p-10f + 0x1.c39ceep-4f) * square + 1.0f;
    const V short_q = (square * 0x1.fd0b90p-7f + 0x1.c63c88p-2f) * square + 1.0f;
    const V near = x * short_p * quick_inverse<V>(short_q);
    if constexpr (moderate) return near;
    constexpr float reach = 9.02f;  // from where on it is 1
    x = smaller<V>(splat<V>(reach), larger<V>(splat<V>(-reach), x));
    const V y = x * x;
    const V p = (((y * 0x1.c994a6p-27f + 0x1.595038p-16f) * y + 0x1.c9f6p-9f) * y + 0x1.1203f4p-3f) * y + 1.0f;
    const V q = (((y * 0x1.a0aed6p-21f + 0x1.583eb8p-12f) * y + 0x1.a7de0cp-6f) * y + 0x1.de5744p-2f) * y + 1.0f;
    return select<V>(square <= moderate_square, near, smaller<V>(splat<V>(1.0f), larger<V>(splat<V>(-1.0f), x * p * quick_inverse<V>(q))));
}

// cap tanh(z / cap) times the job's factor: -inf is a masked class still, +inf and NaN are no numbers. Of floats `largest`
// takes the largest square.
template <class T, bool moderate>
KULLBACK_INLINE Vector<T> capped_score(Vector<T> z, T narrow, T reach, Vector<T>& tanh, Vector<T>& slope,
                                       Vector<T>& largest) {
    using V = Vector<T>;
    using I = typename traits<V>::integer;
    if constexpr (sizeof(T) == 4) {
        const V x = z * narrow, square = x * x;
        largest = larger<V>(square, largest);
        tanh = tanh_float<moderate, V>(x, square);
        slope = T(1) - tanh * tanh;
        if constexpr (moderate) return tanh * reach;
    } else {
        const ExpAndRest<V> by = exp_and_rest<V>(absolute<V>(z) * (T(-2) * narrow));
        const V share = T(1) / (T(1) + by.exp), size = by.rest * share;
        slope = T(4) * by.exp * share * share;
        tanh = bits_as<V>(bits_as<I>(size) | (bits_as<I>(z) ^ bits_as<I>(absolute<V>(z))));
    }
    return select<V>(z == splat<V>(-infinity<T>), z, tanh * reach + (z - z));
}

}  // namespace

template <class T>
T Transform<T>::row(const T* z, int64_t begin, int64_t end, T* u, T* slope, T* tanh) const {
    const Transform own = *this;  // which the stores below cannot touch
    V peak = V{}, largest = V{};
    auto run = [&](auto has_cap, auto has_offset, auto moderate) KULLBACK_LAMBDA {
        peak = splat<V>(-infinity<T>);
        V top = peak, squares = V{};
        const T fill = z[begin];  // so that lanes beyond the end are nothing new
        along<T>(begin, end, [&](int64_t k, auto part) KULLBACK_LAMBDA {
            V score = load<V>(z + k, part, fill);
            if constexpr (decltype(has_cap)::value) {
                V t, s;
                score = capped_score<T, decltype(moderate)::value>(score, own.narrow, own.reach, t, s, squares);
                if (slope) store<V>(slope + k, part, s);
                if (tanh) store<V>(tanh + k, part, t);
            } else {
                score = score * own.factor;
            }
            if constexpr (decltype(has_offset)::value) score += load<V>(own.offset + k, part, -infinity<T>);
            top = larger<V>(score, top);
            store<V>(u + k, part, score);
        });
        peak = top;
        largest = squares;
    };
    const std::true_type yes{};
    const std::false_type no{};
    auto run_cap = [&](auto has_offset) {
        if (sizeof(T) == 4) {
            run(yes, has_offset, yes);
            if (largest_lane(largest) <= T(moderate_square)) return;
        }
        run(yes, has_offset, no);
    };
    if (begin == end) return -infinity<T>;
    if (!capped) {
        run(no, yes, no);
    } else if (offset) {
        run_cap(yes);
    } else {
        run_cap(no);
    }
    return largest_lane(peak);
}

template <class T>
T Transform<T>::score(T z, int64_t k) const {
    V v = splat<V>(z), t, s, unused = V{};
    v = capped ? capped_score<T, false>(v, narrow, reach, t, s, unused) : v * factor;
    if (offset) v += splat<V>(offset[k]);
    return get(v, 0);
}

template <class T>
void Transform<T>::columns(V* z, int classes, V* slope) const {
    const Transform own = *this;
    if (capped) {
        auto run = [&](auto moderate) KULLBACK_LAMBDA {
            V unused = V{};
            for (int k = 0; k < classes; ++k) {
                V t, s;
                z[k] = capped_score<T, decltype(moderate)::value>(z[k], own.narrow, own.reach, t, s, unused);
                slope[k] = s;
            }
        };
        V largest = V{};
        for (int k = 0; sizeof(T) == 4 && k < classes; ++k) {
            const V x = z[k] * own.narrow;
            largest = larger<V>(x * x, largest);
        }
        if (sizeof(T) == 4 && largest_lane(largest) <= T(moderate_square)) {
            run(std::true_type{});
        } else {
            run(std::false_type{});
        }
    } else if (factor != 1) {
        for (int k = 0; k < classes; ++k) z[k] *= own.factor;
    }
    for (int k = 0; own.offset && k < classes; ++k) z[k] += own.offset[k];
}

// ---------------------------------------------------------------- one row in double

namespace {
double log_of(double x) { return x >= 1 ? log1p_nonnegative<double>(x - 1) : -log1p_nonnegative<double>((1 - x) / x); }
}  // namespace

ExactRow::ExactRow(const Job& j, Scratch& scratch) : job(j), classes(j.classes), padded((j.classes + W - 1) / W * W) {
    double** arrays[] = {&d, &p, &r, &b, &c, &s, &v};
    for (double** array : arrays) *array = scratch.take<double>(padded);
}

template <class T>
void ExactRow::softmax(const T* z) {
    double largest = -infinity<double>;
    top = 0;
    broken = false;
    for (int64_t k = 0; k < padded; ++k) {
        d[k] = k < classes ? double(z[k]) * job.inverse_temperature : -infinity<double>;
        broken |= d[k] != d[k] || d[k] == infinity<double>;
        if (d[k] > largest) {
            largest = d[k];
            top = k;
        }
    }
    const bool masked = largest == -infinity<double>;
    const double center = masked ? 0 : largest;
    d[top] = -infinity<double>;  // left out of the sums
    set(d, [&](int64_t k) KULLBACK_LAMBDA { return at(d, k) - center; });
    set(p, [&](int64_t k) KULLBACK_LAMBDA { return exp_nonpositive<V>(at(d, k)); });
    const double rest = sum_of([&](int64_t k) KULLBACK_LAMBDA { return at(p, k); });
    double second = -infinity<double>;
    for (int64_t k = 0; k < classes; ++k) second = d[k] > second ? d[k] : second;
    double log_rest = second;
    if (rest > 1e-290 || second == -infinity<double>) {
        const double inverse = rest > 0 ? 1 / rest : 0;
        set(r, [&](int64_t k) KULLBACK_LAMBDA { return at(p, k) * inverse; });
        if (rest > 0) log_rest = log_of(rest);
    } else {
        // logarithms still tell apart what is no number any more
        set(r, [&](int64_t k) KULLBACK_LAMBDA { return exp_nonpositive<V>(at(d, k) - second); });
        const double sum = sum_of([&](int64_t k) KULLBACK_LAMBDA { return at(r, k); });
        log_rest = second + log_of(sum);
        set(r, [&](int64_t k) KULLBACK_LAMBDA { return at(r, k) / sum; });
    }
    log_total = log1p_nonnegative<double>(rest);
    lse = masked ? 0 : largest + log_total;
    const double inverse = 1 / (1 + rest);
    set(p, [&](int64_t k) KULLBACK_LAMBDA { return at(p, k) * inverse; });
    p_top = masked ? 0 : inverse;
    miss = masked ? 1 : rest * inverse;
    log_miss = masked ? 0 : log_rest - log_total;
}

template <class T>
void ExactRow::write_gradient(double f, T* out) {
    set(c, [&](int64_t k) KULLBACK_LAMBDA { return at(b, k) - at(p, k) * sum_b - a * at(r, k); });
    c[top] = a - p[top] * sum_b;
    put(c, f, out);
}

template <class T>
void ExactRow::write_product(const T* direction, double f, T* out) {
    for (int64_t k = 0; k < padded; ++k) v[k] = k < classes ? double(direction[k]) : 0.0;
    const double mean = sum_of([&](int64_t k) KULLBACK_LAMBDA { return at(p, k) * at(v, k); });
    const double mean_other = sum_of([&](int64_t k) KULLBACK_LAMBDA { return at(r, k) * at(v, k); });
    const double bent = sum_of([&](int64_t k) KULLBACK_LAMBDA { return at(c, k) * (at(v, k) - mean); });
    const double pulled = h * (v[top] - mean_other);
    const double own = p[top] * (-bent - sum_b * (v[top] - mean)) + pulled;
    const double level = 2 * job.z_loss * mass * mean;
    set(c, [&](int64_t k) KULLBACK_LAMBDA {
        const V apart = at(v, k) - mean, other = at(v, k) - mean_other;
        return at(c, k) * apart + at(p, k) * (level - bent - sum_b * apart) - at(r, k) * (pulled + a * other);
    });
    c[top] = own + level * p[top];
    put(c, f, out);
}

template <class T>
void ExactRow::write_diagonal(double f, T* out) {
    const double sum_c = sum_of([&](int64_t k) KULLBACK_LAMBDA { return at(c, k); });
    const double level = 2 * job.z_loss * mass;
    set(v, [&](int64_t k) KULLBACK_LAMBDA {
        const V q = at(p, k), o = at(r, k), m = 1.0 - q;
        return at(c, k) * m * m + q * q * (sum_c - at(c, k) + level) - sum_b * q * m + o * (h * o - a * (1.0 - o));
    });
    v[top] = p[top] * p[top] * (sum_c + level) - sum_b * p[top] * miss + h;
    put(v, f, out);
}

// ---------------------------------------------------------------- for both types

#define KULLBACK_SHARED(T)                                                                                   \
    template void copy_rows<T>(const Matrix&, int64_t, int64_t, int64_t, int64_t, T*);                        \
    template Rows<T> rows_of<T>(const Matrix&, int64_t, int64_t, int64_t, Scratch&);                          \
    template RowSum<T> sum_row<T>(const T*, int64_t, double, Kept<T>, RowMasses<T>*);                         \
    template void put_losses<T>(const Job&, int64_t, int64_t, const T*, const BlockTargets&, Report&);        \
    template T Transform<T>::row(const T*, int64_t, int64_t, T*, T*, T*) const;                               \
    template T Transform<T>::score(T, int64_t) const;                                                         \
    template void Transform<T>::columns(Vector<T>*, int, Vector<T>*) const;                                   \
    template void ExactRow::softmax<T>(const T*);                                                             \
    template void ExactRow::write_gradient<T>(double, T*);                                                    \
    template void ExactRow::write_product<T>(const T*, double, T*);                                           \
    template void ExactRow::write_diagonal<T>(double, T*);
KULLBACK_SHARED(float)
KULLBACK_SHARED(double)

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
