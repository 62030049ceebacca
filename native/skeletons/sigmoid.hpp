// The element-by-element skeleton: losses on sigmoid(z / T), summed over a row's labels.
//
// Rows are worked on in tiles, as runs of numbers, so that the number of labels need not fit the vectors. Labels of any
// type are converted a tile at a time. Whether a tile's labels are all hard, 0 or 1, is looked at first, together with the
// check that every label is valid; see sigmoid_tile.hpp for the sweeps that follow. Values go to the tile and are summed
// by row afterwards.
#pragma once

#include "simd/convert.hpp"
#include "skeletons/sigmoid_tile.hpp"
#include "skeletons/softmax_row.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

template <class T>
struct SigmoidRows {
    using V = Vector<T>;
    static constexpr int64_t size = 4096 / sizeof(T);  // of a tile, in elements

    struct Tile {
        alignas(64) T logits[size], labels[size], values[size], logs[size], out[size];
        alignas(64) T on[size], off[size];
    };

    // Where a tile lies: some whole rows, or a piece of one.
    struct Place {
        int64_t row, rows, column, columns;
        int64_t count() const { return rows * columns; }
    };

    const Job& job;
    const LabelSweeps<T> sweeps;
    const void* const side;  // the loss, as the sweeps know it
    const T *weight, *positive;
    const bool even_weights;   // whether all labels weigh the same, if they hold and if not
    bool same_weight = false;  // and those that hold as much as the others
    bool weightless = false;   // whether a label weighs nothing
    int64_t laid = -1;         // the first column of the weights that are in the tile
    T value_weight = 1;        // what the tile's values are to be multiplied by
    Tile& tile;
    LabelRun<T> run;
    Stretch<T> here;  // where the tile is, but for its last numbers

    SigmoidRows(const Job& j, Tile& t, const LabelSweeps<T>& s, const void* l)
        : job(j),
          sweeps(s),
          side(l),
          weight(static_cast<const T*>(j.class_weight)),
          positive(static_cast<const T*>(j.positive_weight)),
          even_weights(all_same(weight, j.classes) && all_same(positive, j.classes)),
          tile(t) {
        const double inner = job.inverse_temperature * (sweeps.output == LabelOutput::diagonal ? job.inverse_temperature : 1.0);
        run.scale = T((j.targets.row_weight ? 1.0 : j.scale) * inner);
        run.hard = T(1 - job.smoothing);
        run.even = T(job.smoothing / 2);
        run.ignored = j.targets.has_ignore ? T(j.targets.ignore_index) : T(__builtin_nan(""));
        for (int64_t k = 0; k < j.classes; ++k) weightless |= off_weight(k) == 0;
        if (sweeps.even && even_weights && j.classes > 0) same_weight = on_weight(0) == off_weight(0);
        if (same_weight) run.weight = off_weight(0);
        run.on = tile.on;
        run.off = tile.off;
        run.values = tile.values;
        run.logs = tile.logs;
    }

    static bool all_same(const T* x, int64_t n) {
        bool same = true;
        for (int64_t k = 1; x && same && k < n; ++k) same = x[k] == x[0];
        return same;
    }

    T off_weight(int64_t k) const { return weight ? weight[k] : T(1); }
    T on_weight(int64_t k) const { return positive ? off_weight(k) * positive[k] : off_weight(k); }

    // The weights of a tile's labels.
    void lay_weights(const Place& at) {
        const int64_t column = even_weights ? 0 : at.column, period = even_weights ? 1 : at.columns;
        if (laid == column) return;
        for (int64_t k = 0; k < period; ++k) {
            tile.on[k] = on_weight(column + k);
            tile.off[k] = off_weight(column + k);
        }
        for (int64_t filled = period; filled < size; filled *= 2) {
            const size_t bytes = size_t(size - filled < filled ? size - filled : filled) * sizeof(T);
            std::memcpy(tile.on + filled, tile.on, bytes);
            std::memcpy(tile.off + filled, tile.off, bytes);
        }
        laid = column;
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
        run.next_out = sweeps.output == LabelOutput::value ? run.next_logits
                                                           : reinterpret_cast<const char*>(here.out + run.count);
    }

    // Divides the logits by the temperature.
    void cool(int64_t n) {
        const T factor = T(job.inverse_temperature);
        const T* logits = here.logits;
        along<T>(0, n, [&](int64_t k, auto part) KULLBACK_LAMBDA {
            store<V>(tile.logits + k, part, load<V>(logits + k, part, T(0)) * factor);
        });
        here.logits = tile.logits;
    }

    // The last numbers go where there is room for whole vectors, in the tile.
    void lay_last(const T* from, T* to) const {
        if (from != to) std::memcpy(to + here.end, from + here.end, size_t(run.count - here.end) * sizeof(T));
        for (int64_t k = run.count; k < here.end + traits<Two<T>>::width; ++k) to[k] = 0;
    }
    void lay_stretches() {
        constexpr int64_t width = traits<Two<T>>::width;
        here.end = run.count - run.count % width;
        run.stretches[0] = here;
        run.stretches[1] = {here.end, run.count, tile.logits, tile.labels, tile.out};
        if (here.end == run.count) return;
        lay_last(here.logits, tile.logits);
        lay_last(here.labels, tile.labels);
    }

    // Before some elements of a tile are struck out, the tile needs a copy of its own.
    void own(const Place& at) {
        const size_t bytes = size_t(at.count()) * sizeof(T);
        if (here.logits != tile.logits) std::memcpy(tile.logits, here.logits, bytes);
        if (here.labels != tile.labels) std::memcpy(tile.labels, here.labels, bytes);
        here.logits = tile.logits;
        here.labels = tile.labels;
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
            T* const out = here.out + r * columns;
            const T factor = T(job.targets.row_weight[at.row + r] * job.scale);
            int64_t k = 0;
            for (; k + lanes<T> <= columns; k += lanes<T>) store<V>(out + k, load<V>(out + k) * factor);
            for (; k < columns; ++k) out[k] *= factor;
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
        if (!bytes || here.labels != tile.labels || m.column_stride != 1 || job.targets.row_weight)
            return all_hard<false>(at.count());
        const bool gapless = m.row_stride == at.columns;
        const int64_t runs = gapless ? 1 : at.rows, length = gapless ? at.count() : at.columns;
        unsigned char any = 0;
        for (int64_t r = 0; r < runs; ++r) {
            const auto* t = static_cast<const unsigned char*>(m.data) + (at.row + r) * m.row_stride + at.column;
            for (int64_t k = 0; k < length; ++k) any |= t[k];
        }
        return any <= 1;
    }
    // The same for numbers of T: only then t * t - t is 0.
    template <bool Ignoring>
    bool all_hard(int64_t n) const {
        using I = typename traits<V>::integer;
        const T *const labels = here.labels, ignored = run.ignored;
        I odd[4] = {};
        const auto look = [&](I& found, int64_t k, auto part) KULLBACK_LAMBDA {
            V t = load<V>(labels + k, part, T(0));
            if constexpr (Ignoring) t = keep<V>(t != ignored, t);
            found |= bits_as<I>(t * t - t);
        };
        int64_t k = 0;
        for (; k + 4 * lanes<T> <= n; k += 4 * lanes<T>) {
            for (int i = 0; i < 4; ++i) look(odd[i], k + i * lanes<T>, Whole{});
        }
        along<T>(k, n, [&](int64_t i, auto part) KULLBACK_LAMBDA { look(odd[0], i, part); });
        odd[0] |= odd[1] | (odd[2] | odd[3]);
        int64_t parts[sizeof(V) / 8 + 1] = {};
        std::memcpy(parts, odd, sizeof(V));
        int64_t any = 0;
        for (int64_t part : parts) any |= part;
        return any == 0;
    }

    // The first label outside [0, 1] that is not ignored, or -1.
    int64_t first_bad(int64_t n) const {
        const bool ignoring = job.targets.has_ignore;
        const T ignored = run.ignored;
        const T* const labels = here.labels;
        int32_t bad = 0;
        for (int64_t k = 0; k < n; ++k) bad |= int32_t(!(labels[k] >= 0)) | int32_t(!(labels[k] <= 1));
        for (int64_t k = 0; bad && k < n; ++k) {
            if (!(labels[k] >= 0 && labels[k] <= 1) && !(ignoring && labels[k] == ignored)) return k;
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

    static void tiles(const Job& job, const LabelSweeps<T>& sweeps, const void* side, int64_t begin, int64_t end,
                      Report& report) {
        Tile tile;
        SigmoidRows rows(job, tile, sweeps, side);
        const bool values = sweeps.output != LabelOutput::diagonal;
        const int64_t classes = job.classes;
        if (classes <= size) {
            const int64_t step = classes > 0 ? size / classes : 1;
            for (int64_t i = begin; i < end; i += step) {
                const Place at{i, end - i < step ? end - i : step, 0, classes};
                if (!rows.one_tile(at, report)) return;
                if (!values) continue;
                // single rows matter only if someone asks for them, or to find out which is infinite
                if (!job.per_example) {
                    double total = job.targets.row_weight ? rows.weighted_sum(at) : sum(tile.values, at.count());
                    total *= double(rows.value_weight);
                    if (total < infinity<double>) {
                        report.total += total;
                        continue;
                    }
                }
                for (int64_t r = 0; r < at.rows; ++r) {
                    rows.put(i + r, double(rows.value_weight) * sum(tile.values + r * classes, classes), report);
                }
            }
            return;
        }
        for (int64_t i = begin; i < end; ++i) {
            double value = 0;
            for (int64_t column = 0; column < classes; column += size) {
                const Place at{i, 1, column, classes - column < size ? classes - column : size};
                if (!rows.one_tile(at, report)) return;
                if (values) value += double(rows.value_weight) * sum(tile.values, at.columns);
            }
            if (values) rows.put(i, value, report);
        }
    }

    void put(int64_t i, double value, Report& report) const {
        put_loss<T>(job, i, job.targets.row_weight ? job.targets.row_weight[i] * value : value, report);
    }

    // Sweeps one tile; false, and the report says where, if one of its labels is not valid.
    bool one_tile(const Place& at, Report& report) {
        const int64_t n = at.count();
        run.count = n;
        here.logits = read(job.logits, at, tile.logits);
        here.labels = read(job.targets.rows, at, tile.labels);
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
        const bool direct = job.out && (job.out_stride == at.columns || at.rows == 1);
        T* target = job.out ? static_cast<T*>(job.out) + at.row * job.out_stride + at.column : nullptr;
        here.out = direct ? target : tile.out;
        lay_stretches();
        look_ahead(at);
        const bool ignoring = job.targets.has_ignore, soft = !hard || job.smoothing != 0, same = same_weight && !soft;
        if (!same) lay_weights(at);
        value_weight = same ? run.weight : T(1);
        (soft ? sweeps.soft[ignoring] : sweeps.hard[ignoring][same])(run, side);
        if (!job.out) return true;
        if (direct) std::memcpy(target + here.end, tile.out + here.end, size_t(n - here.end) * sizeof(T));
        if (job.targets.row_weight) weigh(at);
        if (job.direction.data) {
            const T* direction = read(job.direction, at, tile.values);
            for (int64_t k = 0; k < n; ++k) here.out[k] *= direction[k];
        }
        for (int64_t r = 0; !direct && r < at.rows; ++r) {
            std::memcpy(target + r * job.out_stride, tile.out + r * at.columns, size_t(at.columns) * sizeof(T));
        }
        return true;
    }
};

// The kernels of a loss.
template <class T, class Loss>
struct LabelLoss {
    template <LabelOutput Output>
    static void rows(const Job& job, int64_t begin, int64_t end, Report& report) {
        Loss::with(job, [&](const auto& side) {
            using Side = std::decay_t<decltype(side)>;
            SigmoidRows<T>::tiles(job, label_sweeps<T, Output, Side>(), &side, begin, end, report);
        });
    }
    static void evaluate(const Job& job, int64_t begin, int64_t end, void*, Report& report) {
        job.out ? rows<LabelOutput::gradient>(job, begin, end, report) : rows<LabelOutput::value>(job, begin, end, report);
    }
    // Hessians are diagonal: a product is the diagonal times a direction.
    static void hessian(const Job& job, int64_t begin, int64_t end, void*, Report& report) {
        rows<LabelOutput::diagonal>(job, begin, end, report);
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
            prefetch(t + 32 * labels.row_stride);  // one label of a row is all that most need, so rows are done fast
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
