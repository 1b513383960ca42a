"""The wheel carries every part, imports run one way, and the device side needs no torch."""

import ast
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOP = ("training", "quantize", "firmware_bridge", "device", "benchmarks")
ORDER = ("firmware_bridge", "device", "training", "quantize", "benchmarks")  # imports go left
DEVICE_SIDE = ("torch", "brevitas", "executorch", "litert_torch", "sklearn", "safetensors")


BLOCK = f"""
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in {DEVICE_SIDE!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""


@pytest.fixture(scope="module")
def listed() -> set[str]:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return set(pyproject["tool"]["setuptools"]["packages"])


def test_every_package_folder_is_in_the_wheel(listed: set[str]) -> None:
    on_disk = {
        "embridge." + init.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for top in TOP
        for init in (ROOT / top).rglob("__init__.py")
    }
    assert listed == on_disk | {"embridge"}


@pytest.mark.parametrize("top", TOP)
def test_the_type_checker_sees_the_real_folder(top: str) -> None:
    link = ROOT / "src" / "embridge" / top
    if not link.is_symlink():
        pytest.skip("checkout without symlinks: install works, mypy does not")
    assert link.resolve() == ROOT / top


def imported_parts(file: Path) -> set[str]:
    """Parts of embridge that a file imports, anywhere in it."""
    names = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("embridge.")}


@pytest.mark.parametrize("part", ORDER)
def test_imports_run_in_one_direction(part: str) -> None:
    allowed = {*ORDER[: ORDER.index(part) + 1]}
    for file in (ROOT / part).rglob("*.py"):
        assert imported_parts(file) & set(ORDER) <= allowed, file.name
        assert "cli" not in imported_parts(file), file.name


@pytest.mark.parametrize("part", ["device", "firmware_bridge"])
def test_the_device_side_never_imports_the_host_side(part: str) -> None:
    modules = [f"embridge.{part}.{f.stem}" for f in (ROOT / part).glob("*.py")]
    code = f"{BLOCK}\nimport {', '.join(modules)}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_wheel_holds_code_and_data_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path)]
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for top in TOP:
        here = {f"embridge/{f.relative_to(ROOT)}" for f in (ROOT / top).rglob("*.py")}
        assert here <= set(names)
    wanted = {"embridge/py.typed", "embridge/device/executorch_shim.cpp", "embridge/cli.py"}
    presets = {f"embridge/{f.relative_to(ROOT)}" for f in (ROOT / "training").rglob("*.toml")}
    bridge = "embridge/firmware_bridge"
    wanted |= {f"{bridge}/PROTOCOL.md", f"{bridge}/vectors/frames.json"}
    wanted |= {f"{bridge}/firmware/emb_wrist.c", f"{bridge}/firmware/boards/mps2_an386.ld"}
    assert wanted | presets <= set(names)
    assert all(name.startswith(("embridge/", "embridge-")) for name in names)


def test_no_file_is_too_long_to_read_in_one_sitting() -> None:
    long = [
        file.name
        for top in (*TOP, "src/embridge")
        for pattern in ("*.py", "*.[ch]")
        for file in (ROOT / top).rglob(pattern)
        if len(file.read_text().splitlines()) > 300
    ]
    assert long == []
