"""The C interface to ExecuTorch, compiled once per machine from `executorch_shim.cpp`.

The executorch wheel ships the runtime as shared libraries with headers. Talking to them through a
small C interface needs neither torch nor `executorch.runtime`, which take seconds and 300 MB.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from importlib import metadata, util
from pathlib import Path

from embridge.device.errors import PackageError

LIBRARIES = (
    "executorch_kernels_optimized",
    "executorch_kernels_quantized",
    "executorch_backend_xnnpack",
    "executorch_threadpool",
    "executorch",
)


@cache
def load_library() -> ctypes.CDLL:
    """The compiled interface, built on first use and kept in the cache folder.

    Raises PackageError when executorch or a C++ compiler is missing, or the build fails.
    """
    root = _executorch_folder()
    source = Path(__file__).with_name("executorch_shim.cpp")
    flags = _flags(root)
    version = metadata.version("executorch")
    recipe = "\n".join([source.read_text(), version, platform.machine(), *flags])
    library = cache_folder() / f"executorch-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.so"
    if not library.exists():
        _compile(source, flags, library)
    return _declared(ctypes.CDLL(str(library)))


def cache_folder() -> Path:
    """Where compiled files are kept: EMBRIDGE_CACHE, else the user's cache folder."""
    if chosen := os.environ.get("EMBRIDGE_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "embridge"


def _executorch_folder() -> Path:
    """Where the wheel is; executorch itself is not imported, for it would import torch."""
    spec = util.find_spec("executorch")
    if spec is None or not spec.submodule_search_locations:
        raise PackageError(
            "executorch is not installed, a .pte artefact needs it; "
            "run `pip install embridge[executorch]` or choose a tflite stage"
        )
    return Path(spec.submodule_search_locations[0])


def _flags(root: Path) -> list[str]:
    headers = (root / "include", root / "include/executorch/runtime/core/portable_type/c10")
    return [
        *("-O2", "-std=c++17", "-shared", "-fPIC"),
        *("-DC10_USING_CUSTOM_GENERATED_MACROS", "-DET_USE_THREADPOOL"),
        *(flag for folder in headers for flag in ("-isystem", str(folder))),
        *(f"-L{root / 'lib'}", f"-Wl,-rpath,{root / 'lib'}"),
        *("-Wl,--no-as-needed", "-Wl,--allow-shlib-undefined"),  # kernels register when loaded
        *(f"-l{name}" for name in LIBRARIES),
    ]


def _compile(source: Path, flags: list[str], library: Path) -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        raise PackageError(
            "g++ is not installed, it compiles the ExecuTorch interface once; "
            "run `apt-get install g++` or choose a tflite stage"
        )
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        built = Path(folder, library.name)
        command = [compiler, str(source), "-o", str(built), *flags]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            first = next((line for line in result.stderr.splitlines() if "error" in line), "")
            raise PackageError(
                f"g++ could not compile the ExecuTorch interface ({first or result.returncode}); "
                f"run `{' '.join(command)}` to see why, or choose a tflite stage"
            )
        os.replace(built, library)  # another process may be building the same file


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    handle, count = ctypes.c_void_p, ctypes.c_int
    library.embridge_open.argtypes = [
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.POINTER(ctypes.c_void_p),
    ]
    library.embridge_input_shape.argtypes = [handle, ctypes.POINTER(ctypes.c_int32), count]
    library.embridge_output_values.argtypes = [handle]
    library.embridge_run.argtypes = [handle, ctypes.c_void_p, count, ctypes.c_void_p, count]
    library.embridge_close.argtypes = [handle]
    library.embridge_close.restype = None
    return library
