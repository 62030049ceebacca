// Block coordinate descent on a penalised quadratic model: the inner loop of the sparse linear solver.
//
// It lowers, over x in R^m, with a fixed x0,
//
//     g·(x − x0) + ½(x − x0)'(A + L·R')(x − x0) + Σ_G τ_G·‖x_G‖₂,
//
// A block-diagonal and positive on its diagonal, L·R' of low rank and symmetric, the groups G a partition of the
// variables. A group of one is soft-thresholded exactly. A larger one is stepped with a diagonal D that lies above
// its part of the matrix (Gershgorin's row sums), where the minimiser has the closed form u = c/(D + τ/ν),
// c = D·x − slope, up to the one number ν = ‖u‖.
//
// Sources: Friedman, Hastie & Tibshirani (2010), "Regularization paths for generalized linear models via coordinate
// descent"; Qin, Scheinberg & Goldfarb (2013), "Efficient block-coordinate descent algorithms for the group lasso".
#pragma once

#include "common/api.hpp"
#include "simd/vector.hpp"

namespace kullback {
namespace KULLBACK_LEVEL {

// Views into one job; every index is checked once by `descent`, before anything is read through it.
struct Descent {
    const DescentJob& job;

    int64_t block_of(int64_t a) const { return job.block_of[a]; }
    const double* row_of(int64_t a) const {
        const int64_t b = block_of(a), begin = job.block_start[b], size = job.block_start[b + 1] - begin;
        return job.matrix + job.matrix_start[b] + (a - begin) * size;
    }
    double low_rank(int64_t a, const double* right) const {
        const double* left = job.left + a * job.rank;
        double sum = 0;
        for (int64_t r = 0; r < job.rank; ++r) sum += left[r] * right[r];
        return sum;
    }
    double entry(int64_t a, int64_t c) const {
        const double coupled = low_rank(a, job.right + c * job.rank);
        return block_of(a) == block_of(c) ? row_of(a)[c - job.block_start[block_of(a)]] + coupled : coupled;
    }
    double slope(int64_t a) const { return job.slope[a] + low_rank(a, job.moved); }

    void move(int64_t a, double step) const {
        const int64_t b = block_of(a), begin = job.block_start[b], size = job.block_start[b + 1] - begin;
        const double* row = row_of(a);
        double* slope = job.slope + begin;
        for (int64_t k = 0; k < size; ++k) slope[k] += step * row[k];
        const double* right = job.right + a * job.rank;
        for (int64_t r = 0; r < job.rank; ++r) job.moved[r] += step * right[r];
        job.x[a] += step;
    }

    // A diagonal at or above the group's part of the matrix.
    void bound(const int64_t* members, int64_t count, double* above) const {
        for (int64_t i = 0; i < count; ++i) {
            double sum = 0;
            for (int64_t k = 0; k < count; ++k) {
                const double value = entry(members[i], members[k]);
                sum += value < 0 ? -value : value;
            }
            above[i] = sum;
        }
    }

    // Lowers the model in one variable; returns curvature × step².
    double single(int64_t a, double threshold, double curvature) const {
        const double centre = curvature * job.x[a] - slope(a);
        double wanted = 0;
        if (centre > threshold) wanted = (centre - threshold) / curvature;
        if (centre < -threshold) wanted = (centre + threshold) / curvature;
        const double step = wanted - job.x[a];
        if (step == 0) return 0;
        move(a, step);
        job.x[a] = wanted;  // zeros are exact
        return curvature * step * step;
    }

    // The same for a group; `centre` is scratch of its size.
    double group(const int64_t* members, int64_t count, double threshold, const double* above, double* centre) const {
        double squares = 0, largest = 0;
        for (int64_t i = 0; i < count; ++i) {
            const int64_t a = members[i];
            centre[i] = above[i] * job.x[a] - slope(a);
            squares += centre[i] * centre[i];
            if (above[i] > largest) largest = above[i];
        }
        const double norm = square_root(squares);
        double length = 0;
        if (norm > threshold) {
            // ‖c/(D·ν + τ)‖ = 1. Its inverse is concave and nearly linear in ν, so Newton's method from the left of the
            // root, where the widest D would put it, approaches from the left.
            length = (norm - threshold) / largest;
            for (int iteration = 0; iteration < 30; ++iteration) {
                double sum = 0, change = 0;
                for (int64_t i = 0; i < count; ++i) {
                    const double inverse = 1.0 / (above[i] * length + threshold), share = centre[i] * inverse;
                    sum += share * share;
                    change += share * share * above[i] * inverse;
                }
                const double root = square_root(sum), step = sum * (root - 1.0) / change;
                length += step;
                if (!(step > 1e-15 * length)) break;
            }
        }
        double total = 0;
        for (int64_t i = 0; i < count; ++i) {
            const int64_t a = members[i];
            const double wanted = length > 0 ? centre[i] * length / (above[i] * length + threshold) : 0.0;
            const double step = wanted - job.x[a];
            if (step == 0) continue;
            move(a, step);
            job.x[a] = wanted;
            total += above[i] * step * step;
        }
        return total;
    }

    static double square_root(double value) { return __builtin_sqrt(value); }
};

// Sweeps over all groups until a sweep lowers the model by less than `tolerance` times the best sweep did, or
// `sweeps` are used up. `scratch` holds two numbers per variable. Returns the sweeps used, or −1 if an index lies
// outside its array.
inline int64_t descent(const DescentJob& job, double* scratch) {
    for (int64_t b = 0; b < job.blocks; ++b) {
        const int64_t begin = job.block_start[b], end = job.block_start[b + 1], from = job.matrix_start[b];
        if (begin < 0 || end < begin || end > job.variables || from < 0) return -1;
        if (end - begin > 0 && (job.matrix_size - from) / (end - begin) < end - begin) return -1;
        for (int64_t a = begin; a < end; ++a) {
            if (job.block_of[a] != b) return -1;
        }
    }
    if (job.block_start[0] != 0 || job.block_start[job.blocks] != job.variables) return -1;
    if (job.group_start[0] != 0 || job.group_start[job.groups] != job.variables) return -1;
    for (int64_t g = 0; g < job.groups; ++g) {
        if (job.group_start[g + 1] < job.group_start[g] || job.group_start[g + 1] > job.variables) return -1;
    }
    for (int64_t i = 0; i < job.variables; ++i) {
        if (job.member[i] < 0 || job.member[i] >= job.variables) return -1;
    }

    const Descent model{job};
    double *above = scratch, *centre = scratch + job.variables;
    for (int64_t g = 0; g < job.groups; ++g) {
        const int64_t begin = job.group_start[g];
        model.bound(job.member + begin, job.group_start[g + 1] - begin, above + begin);
    }
    double best = 0;
    for (int64_t sweep = 1; sweep <= job.sweeps; ++sweep) {
        double moved = 0;
        for (int64_t g = 0; g < job.groups; ++g) {
            const int64_t begin = job.group_start[g], count = job.group_start[g + 1] - begin;
            if (count == 0) continue;
            const int64_t* members = job.member + begin;
            moved += count == 1 ? model.single(members[0], job.threshold[g], above[begin])
                                : model.group(members, count, job.threshold[g], above + begin, centre);
        }
        if (moved > best) best = moved;
        if (!(moved > job.tolerance * best)) return sweep;
    }
    return job.sweeps;
}

}  // namespace KULLBACK_LEVEL
}  // namespace kullback
