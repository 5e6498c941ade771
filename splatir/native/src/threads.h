// Parallel loops over persistent threads.
//
// Work is split so that results never depend on the number of threads: a body may write only to
// places that belong to its index. Safe to call from several threads at once and after fork (the
// child starts a pool of its own).
#pragma once
#include <cstdint>
#include <functional>

namespace splatir {

// Calls body(thread, begin, end) once per thread on equal consecutive parts of [0, count).
void parallel_ranges(int64_t num_threads, int64_t count,
                     const std::function<void(int, int64_t, int64_t)>& body);

// Calls body(thread, index) for every index in [0, count), handed out one by one: for uneven work.
void parallel_tasks(int64_t num_threads, int64_t count,
                    const std::function<void(int, int64_t)>& body);

}  // namespace splatir
