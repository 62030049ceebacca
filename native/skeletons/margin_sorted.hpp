// All hinges h(D + z_k - z_y) of a row whose mass is on many classes y. With the scores in order the rivals of a class
// are those from some place on, and what they add up to are differences of sums over them: C steps in place of C^2.
//
// Scores count relative to the largest one, so that the sums of the rivals that reach a class are of numbers no larger
// than its own largest hinge: they round relative to what comes out, however far from zero the scores lie.
#pragma once

#include "skeletons/softmax_row.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

enum class MarginOutput { gradient, product, diagonal };

template <class T>
class SortedHinges {
  public:
    SortedHinges(int64_t c, double m, bool s, Scratch& scratch) : classes(c), margin(m), squared(s) {
        for (int i = 0; i < 2; ++i) {
            keys[i] = scratch.take<Key>(classes);
            places[i] = scratch.take<int32_t>(classes);
        }
        score = scratch.take<double>(classes);
        for (double*& sum : above) sum = scratch.take<double>(classes + 1);
    }

    // Puts scores that are finite or -inf in order; whether they may be taken relative to the largest one.
    bool order(const T* z) {
        sort(z);
        masked = 0;
        while (masked < classes && z[at(masked)] == -infinity<T>) ++masked;
        const double top = classes > masked ? double(z[at(classes - 1)]) : 0.0;
        for (int64_t i = 0; i < classes; ++i) score[i] = double(z[at(i)]) - top;
        return masked == classes || score[masked] > -infinity<double>;
    }

    // Adds the derivatives of a row that was put in order, with masses s, to `sums` and returns its loss.
    template <MarginOutput Output>
    double add(const T* z, const T* v, const double* s, double* sums) {
        constexpr bool gradient = Output == MarginOutput::gradient, product = Output == MarginOutput::product;
        if (gradient || product) sum_from_above(product ? v : nullptr);
        const auto active = [&](int64_t k, int64_t y) KULLBACK_LAMBDA {
            return double(z[at(k)]) - double(z[at(y)]) + margin > 0;
        };
        LongTotal value, mass, with_score, with_v;  // the last three of the classes that the rival at hand reaches
        bool sunk = false;                          // whether a masked class has mass
        int64_t first = masked, reached = 0;        // the first rival of a class; how many classes a rival reaches
        for (int64_t i = 0; i < classes; ++i) {
            const int64_t k = at(i);
            double slope = 0;
            if (i >= masked) {
                for (; reached < classes && active(i, reached); ++reached) {
                    const int64_t y = at(reached);
                    mass.add(s[y]);
                    if (product) with_v.add(s[y] * double(v[y]));
                    if (reached >= masked) {
                        with_score.add(s[y] * score[reached]);
                    } else {
                        sunk |= s[y] != 0;
                    }
                }
                const double others = mass.get() - s[k];
                if (!squared) {
                    slope = gradient ? others : 0;
                } else if (gradient) {
                    slope = 2 * ((score[i] + margin) * mass.get() - with_score.get() - margin * s[k]);
                    if (sunk) slope = infinity<double>;
                } else {
                    slope = 2 * (product ? double(v[k]) * mass.get() - with_v.get() : others);
                }
            }
            if (s[k] != 0) {
                while (first < classes && !active(first, i)) ++first;
                value.add(s[k] * pulled<Output>(i, first, v, slope, s[k]));
            }
            sums[k] += slope;
        }
        return value.get();
    }

  private:
    using Key = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;

    int64_t at(int64_t i) const { return places[0][i]; }

    // What the rivals of the i-th class, which begin at `first`, pull at it with mass s; returns what they cost.
    template <MarginOutput Output>
    double pulled(int64_t i, int64_t first, const T* v, double& slope, double s) const {
        const double with_itself = double(classes - first), itself = i >= masked ? 1 : 0, rivals = with_itself - itself;
        if (rivals == 0) return 0;
        if (Output == MarginOutput::diagonal) slope += squared ? 2 * rivals * s : 0.0;
        if (Output == MarginOutput::product && squared) {
            const double own = double(v[at(i)]);
            slope -= 2 * s * (above[0][first] - (itself != 0 ? own : 0.0) - rivals * own);
        }
        if (Output != MarginOutput::gradient) return 0;
        const double edge = score[i] - margin, reach = infinity<double>;
        double hinges = above[0][first] - with_itself * edge - itself * margin, cost = hinges;
        if (squared) cost = above[1][first] - 2 * edge * above[0][first] + with_itself * edge * edge - itself * margin * margin;
        if (!(edge > -reach)) hinges = reach;
        if (!(edge * edge < reach)) cost = squared ? reach : hinges;
        if (hinges < 0) hinges = 0;
        if (cost < 0) cost = 0;
        slope -= s * (squared ? 2 * hinges : rivals);
        return cost;
    }

    // Sums over the classes from every place on: of v, or of scores and their squares.
    void sum_from_above(const T* v) {
        LongTotal sum, squares;
        above[0][classes] = above[1][classes] = 0;
        for (int64_t i = classes - 1; i >= masked; --i) {
            sum.add(v ? double(v[at(i)]) : score[i]);
            if (squared && !v) squares.add(score[i] * score[i]);
            above[0][i] = sum.get();
            above[1][i] = squares.get();
        }
    }

    // From the lowest score to the highest, equal ones as they come: byte by byte, the last one first.
    void sort(const T* z) {
        constexpr int bits = 8 * sizeof(T);
        constexpr Key sign = Key(1) << (bits - 1);
        int64_t ends[sizeof(T)][256] = {};
        for (int64_t k = 0; k < classes; ++k) {
            const Key plain = bits_as<Key>(z[k]), key = plain & sign ? Key(~plain) : Key(plain | sign);
            keys[0][k] = key;
            places[0][k] = int32_t(k);
            for (size_t byte = 0; byte < sizeof(T); ++byte) ++ends[byte][(key >> (8 * byte)) & 255];
        }
        for (size_t byte = 0; byte < sizeof(T); ++byte) {
            const int from = int(byte % 2), to = 1 - from;
            int64_t begin = 0;
            for (int64_t& count : ends[byte]) {
                const int64_t here = count;
                count = begin;
                begin += here;
            }
            for (int64_t k = 0; k < classes; ++k) {
                const int64_t place = ends[byte][(keys[from][k] >> (8 * byte)) & 255]++;
                keys[to][place] = keys[from][k];
                places[to][place] = places[from][k];
            }
        }
    }

    const int64_t classes;
    const double margin;
    const bool squared;
    Key* keys[2];
    int32_t* places[2];  // of the scores in order
    double *score, *above[2];
    int64_t masked = 0;  // how many scores are -inf
};

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
