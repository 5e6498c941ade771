"""How the native library is compiled: once per instruction set, from the same sources.

Standard library only, because the package's build loads this file before anything is installed.
Run `python -m splatir.native.build` to build in place.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCE_DIR = Path(__file__).parent / "src"
LIBRARY_DIR = Path(__file__).parent

# Fastest first. The x86-64 micro-architecture levels; v4 is AVX-512 F, BW, CD, DQ and VL.
X86_FLAGS: dict[str, list[str]] = {
    "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
    "avx2": ["-march=x86-64-v3"],
    "baseline": ["-march=x86-64"],
}
# Reassociation stays off (-ffast-math would change sums between compilers); contraction and the
# two flags below only drop errno and floating-point traps, which nothing here reads.
COMMON_FLAGS = [
    "-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast",
    "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra",
]  # fmt: skip


class CompilerMissing(RuntimeError):
    """No C++ compiler on this machine."""


class BuildFailed(RuntimeError):
    """The compiler was found but did not compile the library."""


def instruction_sets() -> dict[str, list[str]]:
    """Compiler flags of each library that this machine's architecture gets, fastest first."""
    is_x86 = platform.machine().lower() in {"x86_64", "amd64"}
    return X86_FLAGS if is_x86 else {"baseline": []}


def library_name(isa: str) -> str:
    """File name of the library for one instruction set."""
    return f"libsplatir_{isa}.so"


def source_hash() -> str:
    """Hash of all kernel sources; a library remembers the one that it was built from."""
    digest = hashlib.sha256()
    for path in sorted([*SOURCE_DIR.glob("*.cpp"), *SOURCE_DIR.glob("*.h")]):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def find_compiler(compiler: str | None = None) -> str:
    """Path of a C++ compiler: the one given, else $CXX, else c++, g++ or clang++.

    Raises:
        CompilerMissing: None was found.
    """
    wanted = compiler or os.environ.get("CXX")
    candidates = [wanted] if wanted else ["c++", "g++", "clang++"]
    for candidate in candidates:
        found = shutil.which(candidate)
        if found:
            return found
    raise CompilerMissing(
        f"no C++ compiler found (looked for {', '.join(candidates)}). "
        "Install one (Debian: apt-get install g++; macOS: xcode-select --install), "
        "then run: python -m splatir.native.build"
    )


def build(out_dir: Path = LIBRARY_DIR, compiler: str | None = None) -> list[Path]:
    """Compile one shared library per instruction set.

    Args:
        out_dir: Where the libraries go; existing ones are replaced only by finished ones.
        compiler: C++ compiler (GCC >= 9 or clang >= 12).

    Returns:
        Paths of the libraries, fastest instruction set first.

    Raises:
        CompilerMissing: There is no compiler.
        BuildFailed: The compiler refused the sources; the message holds its output.
    """
    cxx = find_compiler(compiler)
    out_dir.mkdir(parents=True, exist_ok=True)
    sources = sorted(SOURCE_DIR.glob("*.cpp"))
    sets = instruction_sets()
    with tempfile.TemporaryDirectory(dir=out_dir) as scratch:
        threads = "-fopenmp" if _has_openmp(cxx, Path(scratch)) else "-pthread"
        jobs = [
            (isa, source, Path(scratch) / f"{source.stem}_{isa}.o")
            for source in sources
            for isa in sets
        ]
        define = f'-DSPLATIR_SOURCE_HASH="{source_hash()}"'

        def compile_one(job: tuple[str, Path, Path]) -> None:
            isa, source, target = job
            isa_define = f'-DSPLATIR_ISA="{isa}"'
            flags = [*COMMON_FLAGS, threads, *sets[isa], define, isa_define]
            _run([cxx, *flags, "-c", str(source), "-o", str(target)])

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(compile_one, jobs))
        libraries = []
        for isa in sets:
            objects = [str(target) for job_isa, _, target in jobs if job_isa == isa]
            linked = Path(scratch) / library_name(isa)
            _run([cxx, "-shared", threads, *objects, "-o", str(linked)])
            libraries.append(Path(shutil.move(linked, out_dir / library_name(isa))))
    return libraries


def _has_openmp(cxx: str, scratch: Path) -> bool:
    """Whether the compiler and its linker know OpenMP; clang often comes without the library."""
    source = scratch / "openmp.cpp"
    source.write_text("#include <omp.h>\nint main() { return omp_get_max_threads() < 1; }\n")
    command = [cxx, "-fopenmp", str(source), "-o", str(scratch / "openmp")]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise BuildFailed(f"compiling the native library failed:\n{result.stderr.strip()}")


if __name__ == "__main__":
    try:
        for built in build():
            print(f"built {built.name} ({built.stat().st_size / 1024:.0f} KiB)")
    except (CompilerMissing, BuildFailed) as error:
        sys.exit(f"error: {error}")
