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

class Pool {
  public:
    bool try_run(int64_t blocks, int threads, const std::function<void(int64_t)>& task) {
        std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
        if (!turn.owns_lock()) return false;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            grow(threads - 1);
            task_ = &task;
            blocks_ = blocks;
            next_.store(0, std::memory_order_relaxed);
            seats_ = threads - 1;
            ++round_;
        }
        wake_.notify_all();
        work(blocks, task);
        std::unique_lock<std::mutex> lock(mutex_);
        task_ = nullptr;  // a worker that wakes only now finds nothing to do
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

    void work(int64_t blocks, const std::function<void(int64_t)>& task) {
        for (;;) {
            const int64_t block = next_.fetch_add(1, std::memory_order_relaxed);
            if (block >= blocks) return;
            task(block);
        }
    }

    void serve() {
        uint64_t seen = 0;
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            wake_.wait(lock, [&] { return round_ != seen; });
            seen = round_;
            if (!task_ || seats_ == 0) continue;
            --seats_;
            ++active_;
            const auto* task = task_;
            const int64_t blocks = blocks_;
            lock.unlock();
            work(blocks, *task);
            lock.lock();
            if (--active_ == 0) done_.notify_one();
        }
    }

    std::mutex turn_, mutex_;
    std::condition_variable wake_, done_;
    const std::function<void(int64_t)>* task_ = nullptr;
    int64_t blocks_ = 0;
    std::atomic<int64_t> next_{0};
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

struct SharedOut {
    int64_t blocks;
    const std::function<void(int64_t)>* task;
    std::atomic<int64_t> next{0};
};

void work_in_team(void* data) {
    SharedOut& shared = *static_cast<SharedOut*>(data);
    for (;;) {
        const int64_t block = shared.next.fetch_add(1, std::memory_order_relaxed);
        if (block >= shared.blocks) return;
        (*shared.task)(block);
    }
}

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
        SharedOut shared{blocks, &task};
        parallel(work_in_team, &shared, unsigned(threads), 0);
        return;
    }
    if (blocks < threads) threads = int(blocks);
    if (threads > 1 && pool().try_run(blocks, threads, task)) return;
    for (int64_t block = 0; block < blocks; ++block) task(block);
}

}  // namespace kullback
