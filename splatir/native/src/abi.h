// What every exported function shares: linkage and the scalar types of the C ABI.
#pragma once
#include <cstdint>

#define SPLATIR_EXPORT extern "C" __attribute__((visibility("default")))
