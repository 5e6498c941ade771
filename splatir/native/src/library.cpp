// Which build this is and which builds the processor can run.
#include "abi.h"

SPLATIR_EXPORT const char* splatir_source_hash() { return SPLATIR_SOURCE_HASH; }

// level: 0 baseline, 1 AVX2 (x86-64-v3), 2 AVX-512 (x86-64-v4).
SPLATIR_EXPORT int64_t splatir_processor_supports(int64_t level) {
  if (level == 0) return 1;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                  __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  if (level == 1) return v3;
  return v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
#else
  return 0;
#endif
}
