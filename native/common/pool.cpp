#include "common/pool.hpp"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace kullback {
namespace {

// Blocks in as many runs as there are threads. Each thread takes those of its own run in order, so that what it reads and
// writes goes on where it stopped, and then helps the others.
class Shares {
  public:
    Shares(int64_t blocks, int threads, const std::function<void(int64_t)>& task)
        : blocks_(blocks), runs_(threads < most_runs ? threads : most_runs), task_(task) {
        for (int run = 0; run < runs_; ++run) next_[run].block.store(start(run), std::memory_order_relaxed);
    }

    // What one thread does until nothing is left to begin.
    void work() {
        const int own = comers_.fetch_add(1, std::memory_order_relaxed) % runs_;
        for (int i = 0; i < runs_; ++i) {
            const int run = (own + i) % runs_;
            const int64_t end = start(run + 1);
            for (;;) {
                const int64_t block = next_[run].block.fetch_add(1, std::memory_order_relaxed);
                if (block >= end) break;
                task_(block);
            }
        }
    }

  private:
    static constexpr int most_runs = 64;

    int64_t start(int run) const { return blocks_ * run / runs_; }

    struct alignas(64) Next {  // a line of its own: each thread writes to its own most of the time
        std::atomic<int64_t> block;
    };
    const int64_t blocks_;
    const int runs_;
    const std::function<void(int64_t)>& task_;
    std::atomic<int> comers_{0};
    Next next_[most_runs];
};

class Pool {
  public:
    bool try_run(Shares& shares, int threads) {
        std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
        if (!turn.owns_lock()) return false;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            grow(threads - 1);
            shares_ = &shares;
            seats_ = threads - 1;
            ++round_;
        }
        wake_.notify_all();
        shares.work();
        std::unique_lock<std::mutex> lock(mutex_);
        shares_ = nullptr;  // a worker that wakes only now finds nothing to do
        done_.wait(lock, [&] { return active_ == 0; });
        return true;
    }

  private:
    void grow(int workers) {
        for (; started_ < workers; ++started_) {
            try {
                std::thread([this] { serve(); }).detach();
            } catch (const std::system_error&) {
                return;  // no more threads to be had: fewer hands, same result
            }
        }
    }

    void serve() {
        uint64_t seen = 0;
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            wake_.wait(lock, [&] { return round_ != seen; });
            seen = round_;
            if (!shares_ || seats_ == 0) continue;
            --seats_;
            ++active_;
            Shares* shares = shares_;
            lock.unlock();
            shares->work();
            lock.lock();
            if (--active_ == 0) done_.notify_one();
        }
    }

    std::mutex turn_, mutex_;
    std::condition_variable wake_, done_;
    Shares* shares_ = nullptr;
    uint64_t round_ = 0;
    int started_ = 0, seats_ = 0, active_ = 0;
};

// Never destroyed: workers may still sleep in it while the process exits.
std::atomic<Pool*> shared_pool{nullptr};

Pool& pool() {
    Pool* current = shared_pool.load(std::memory_order_acquire);
    if (current) return *current;
#if !defined(_WIN32)
    // A forked child has none of its parent's threads, and perhaps locks that nobody will open: start afresh.
    static const int registered =
        pthread_atfork(nullptr, nullptr, [] { shared_pool.store(nullptr, std::memory_order_release); });
    (void)registered;
#endif
    Pool* fresh = new Pool;
    if (shared_pool.compare_exchange_strong(current, fresh)) return *fresh;
    delete fresh;
    return *current;
}

std::atomic<OpenMPParallel> openmp_parallel{nullptr};
std::atomic<OpenMPThreads> openmp_threads{nullptr};

void work_in_team(void* shares) { static_cast<Shares*>(shares)->work(); }

}  // namespace

void use_openmp(OpenMPParallel parallel, OpenMPThreads most_threads) {
#if !defined(_WIN32)
    // OpenMP's threads do not come along into a forked child, and it would wait for them
    static const int registered =
        pthread_atfork(nullptr, nullptr, [] { openmp_parallel.store(nullptr, std::memory_order_release); });
    (void)registered;
#endif
    openmp_threads.store(most_threads, std::memory_order_release);
    openmp_parallel.store(parallel, std::memory_order_release);
}

void run_blocks(int64_t blocks, int threads, const std::function<void(int64_t)>& task) {
    const OpenMPParallel parallel = openmp_parallel.load(std::memory_order_acquire);
    // a team of another size would end and restart the other library's threads in every call
    if (parallel && threads > 1 && blocks > 1 && openmp_threads.load(std::memory_order_acquire)() == threads) {
        Shares shares(blocks, threads, task);
        parallel(work_in_team, &shares, unsigned(threads), 0);
        return;
    }
    if (blocks < threads) threads = int(blocks);
    if (threads > 1) {
        Shares shares(blocks, threads, task);
        if (pool().try_run(shares, threads)) return;
    }
    for (int64_t block = 0; block < blocks; ++block) task(block);
}

}  // namespace kullback
