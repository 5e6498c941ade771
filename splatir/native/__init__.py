"""The native CPU library: C++ kernels behind a plain C ABI, built in seconds, loaded with ctypes.

`src/` holds the kernels, `build.py` compiles them once per instruction set, `library.py` loads the
best build for this processor. Nothing here knows what the kernels mean: functions that give them
tensors stand where their result belongs (`raster`, `maths`).
"""
