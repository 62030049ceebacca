// A few sleeping threads that share out numbered blocks of work.
#pragma once

#include <cstdint>
#include <functional>

namespace kullback {

// Runs task(block) for every block in [0, blocks), on at most `threads` threads, the caller's among them. Which
// thread runs which block is left open, so tasks must not depend on it. Safe from several threads at once (a call
// that finds the pool busy works alone) and in a forked child (which gets a pool of its own).
void run_blocks(int64_t blocks, int threads, const std::function<void(int64_t)>& task);

}  // namespace kullback
