"""How the native libraries get into an installation; everything else stands in pyproject.toml."""

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

from setuptools import Command, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build
from setuptools.dist import Distribution

ROOT = Path(__file__).parent
NATIVE = Path("splatir", "native")

WITHOUT_LIBRARY = """
splatir is being installed WITHOUT its native library.
  What is lost: the `cpu` rasteriser. Without a CUDA device every command falls back to the
  reference rasteriser in torch, which is correct but hundreds of times slower.
  Why: {reason}
  To mend it, install a C++17 compiler and install splatir again with --no-cache-dir.
"""


def native_build() -> ModuleType:
    """splatir/native/build.py, loaded by its path: importing the package would need torch."""
    spec = importlib.util.spec_from_file_location("native_build", ROOT / NATIVE / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class BuildNative(Command):
    """Compiles the kernels and puts presets and maps where an installed package finds them."""

    description = "compile the native libraries, copy the presets and the viewer's maps"
    user_options = []  # noqa: RUF012 - setuptools' own name and type

    def initialize_options(self) -> None:
        """Options before the command line is read."""
        self.build_lib: str | None = None
        self.editable_mode = False

    def finalize_options(self) -> None:
        """Build into the same tree as the Python files."""
        self.set_undefined_options("build_py", ("build_lib", "build_lib"))

    def run(self) -> None:
        """Compile into the tree of the wheel, or beside the sources for an editable install."""
        assert self.build_lib is not None
        package = ROOT if self.editable_mode else Path(self.build_lib)
        if not self.editable_mode:
            # setuptools keeps its build tree: libraries of an earlier build are not this one's.
            for stale in (package / NATIVE).glob("*.so"):
                stale.unlink()
        compiler = native_build()
        try:
            compiler.build(package / NATIVE)
        except (compiler.CompilerMissing, compiler.BuildFailed) as error:
            print(WITHOUT_LIBRARY.format(reason=error), file=sys.stderr)
        if not self.editable_mode:
            _copy("configs/*.toml", package / "splatir" / "configs")
            _copy("assets/demo/*.hdr", package / "splatir" / "maps")

    def get_source_files(self) -> list[str]:
        """What a source distribution needs for this step."""
        sources = [
            *(ROOT / NATIVE / "src").iterdir(),
            *(ROOT / "configs").glob("*.toml"),
            *(ROOT / "assets" / "demo").glob("*.hdr"),
        ]
        return [str(path.relative_to(ROOT)) for path in sorted(sources)]

    def get_outputs(self) -> list[str]:
        """Files in the build tree."""
        assert self.build_lib is not None
        package = Path(self.build_lib) / "splatir"
        patterns = ("native/*.so", "configs/*", "maps/*")
        return [str(path) for pattern in patterns for path in package.glob(pattern)]

    def get_output_mapping(self) -> dict[str, str]:
        """Which outputs are plain copies of sources; none that an editable install must link."""
        return {}


def _copy(pattern: str, folder: Path) -> None:
    """The files of a pattern, and nothing else, into a folder of the build tree."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in sorted(ROOT.glob(pattern)):
        shutil.copy(path, folder)


class PlatformWheel(bdist_wheel):
    """One wheel for every Python: the libraries have a C ABI and are loaded with ctypes."""

    def get_tag(self) -> tuple[str, str, str]:
        """The platform's tag, or `any` for a wheel that was built without a compiler."""
        _, _, platform = super().get_tag()
        build_lib = Path(self.get_finalized_command("build_py").build_lib)
        has_library = any((build_lib / NATIVE).glob("*.so"))
        return "py3", "none", platform if has_library else "any"


class NativeDistribution(Distribution):
    """Has compiled files without extension modules, so it installs into the platform's folder."""

    def has_ext_modules(self) -> bool:
        """What setuptools asks to tell a pure package from a platform's."""
        return True


class Build(build):
    """The usual build with one more step."""

    sub_commands = [*build.sub_commands, ("build_native", None)]  # noqa: RUF012


setup(
    distclass=NativeDistribution,
    cmdclass={"build": Build, "build_native": BuildNative, "bdist_wheel": PlatformWheel},
)
