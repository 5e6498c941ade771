// The threads behind parallel_ranges and parallel_tasks.
//
// OpenMP's where the compiler has it: they are torch's own then, for both load one library. Beside a
// pool of other threads those of torch, which wait actively between its operations, take the
// processors away (a training step on two of them took 1.35 times as long).
#include "threads.h"

#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace splatir {
namespace {

class Pool {
 public:
  explicit Pool(pid_t owner) : owner_(owner) {}

  bool belongs_to(pid_t process) const { return owner_ == process; }

  // Runs job(thread) on threads 0..num_threads-1; thread 0 is the caller.
  // Returns false, having run nothing, when another caller holds the pool.
  bool try_run(int num_threads, const std::function<void(int)>& job) {
    std::unique_lock<std::mutex> only_caller(caller_, std::try_to_lock);
    if (!only_caller.owns_lock()) return false;
    while (num_workers_ < num_threads - 1) start_worker();
    {
      std::lock_guard<std::mutex> lock(state_);
      job_ = &job;
      wanted_ = num_threads;
      running_ = num_threads - 1;
      ++generation_;
    }
    wake_.notify_all();
    job(0);
    std::unique_lock<std::mutex> lock(state_);
    done_.wait(lock, [&] { return running_ == 0; });
    return true;
  }

 private:
  void start_worker() {
    const int thread = ++num_workers_;
    const uint64_t born = generation_;
    std::thread([this, thread, born] {
      uint64_t seen = born;
      for (;;) {
        const std::function<void(int)>* job;
        {
          std::unique_lock<std::mutex> lock(state_);
          wake_.wait(lock, [&] { return generation_ != seen; });
          seen = generation_;
          if (thread >= wanted_) continue;
          job = job_;
        }
        (*job)(thread);
        std::lock_guard<std::mutex> lock(state_);
        if (--running_ == 0) done_.notify_one();
      }
    }).detach();
  }

  const pid_t owner_;
  std::mutex caller_, state_;
  std::condition_variable wake_, done_;
  const std::function<void(int)>* job_ = nullptr;
  uint64_t generation_ = 0;
  int wanted_ = 0, running_ = 0, num_workers_ = 0;
};

// Never destroyed: detached workers may outlive static destructors. A forked child has no workers,
// so it leaves the parent's pool behind and makes its own.
Pool& pool() {
  static std::mutex guard;
  static Pool* instance = nullptr;
  std::lock_guard<std::mutex> lock(guard);
  if (instance == nullptr || !instance->belongs_to(getpid())) instance = new Pool(getpid());
  return *instance;
}

#if defined(_OPENMP)
// GNU OpenMP hangs in a forked child whose parent has used it.
const pid_t loaded_by = getpid();
#endif

void run(int num_threads, const std::function<void(int)>& job) {
#if defined(_OPENMP)
  if (num_threads > 1 && loaded_by == getpid()) {
#pragma omp parallel for num_threads(num_threads) schedule(static, 1)
    for (int thread = 0; thread < num_threads; ++thread) job(thread);
    return;
  }
#endif
  if (num_threads > 1 && pool().try_run(num_threads, job)) return;
  for (int thread = 0; thread < num_threads; ++thread) job(thread);
}

int clamp_threads(int64_t num_threads, int64_t count) {
  if (num_threads > count) num_threads = count;
  return num_threads < 1 ? 1 : static_cast<int>(num_threads);
}

}  // namespace

void parallel_ranges(int64_t num_threads, int64_t count,
                     const std::function<void(int, int64_t, int64_t)>& body) {
  if (count <= 0) return;
  const int threads = clamp_threads(num_threads, count);
  run(threads, [&](int thread) {
    body(thread, count * thread / threads, count * (thread + 1) / threads);
  });
}

void parallel_tasks(int64_t num_threads, int64_t count,
                    const std::function<void(int, int64_t)>& body) {
  if (count <= 0) return;
  std::atomic<int64_t> next{0};
  run(clamp_threads(num_threads, count), [&](int thread) {
    for (int64_t index; (index = next.fetch_add(1)) < count;) body(thread, index);
  });
}

}  // namespace splatir
