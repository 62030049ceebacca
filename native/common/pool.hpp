// A few sleeping threads that share out numbered blocks of work.
#pragma once

#include <cstdint>
#include <functional>

namespace kullback {

// Runs task(block) for every block in [0, blocks), on at most `threads` threads, the caller's among them. Which
// thread runs which block is left open, so tasks must not depend on it. Safe from several threads at once (a call
// that finds the pool busy works alone) and in a forked child (which gets a pool of its own).
void run_blocks(int64_t blocks, int threads, const std::function<void(int64_t)>& task);

// From now on blocks are shared out by an OpenMP runtime that another library has loaded, as long as that library uses
// as many threads as are asked for here. Its threads keep spinning for a while after each of their own jobs: ours
// would have to share the processors with them, while they themselves are at hand at once.
//
// parallel and most_threads are the runtime's GOMP_parallel and omp_get_max_threads; null to go back to our own pool.
using OpenMPParallel = void (*)(void (*body)(void*), void* data, unsigned threads, unsigned flags);
using OpenMPThreads = int (*)();
void use_openmp(OpenMPParallel parallel, OpenMPThreads most_threads);

}  // namespace kullback
