"""The torch-free runtimes: shapes, refusals, and a process in which torch cannot be imported."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from embridge.device import executorch_library
from embridge.device.errors import ConfigError, PackageError
from embridge.device.runtimes import EncoderRuntime, open_runtime
from embridge.quantize.lower import lower_all
from embridge.quantize.quantizer import quantize_encoder
from embridge.training.watch import Stage, WatchEncoder, WatchShape

SHAPE = WatchShape(4, 64, 8, Stage(8, 5, 2), (Stage(8, 5, 2),))
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="needs g++, which compiles the ExecuTorch interface"
)
STAGES = [
    pytest.param("executorch-fp32", marks=needs_compiler),
    pytest.param("executorch-int8", marks=needs_compiler),
    "tflite-fp32",
    "tflite-int8",
]
INT8_STAGES = [stage for stage in STAGES if "int8" in str(stage)]
WINDOWS = np.random.default_rng(0).standard_normal((64, 4, 64), dtype=np.float32)


@pytest.fixture(scope="module")
def quantized():
    torch.manual_seed(0)
    return quantize_encoder(WatchEncoder(SHAPE).eval(), WINDOWS, "w8a8", seed=0)


@pytest.fixture(scope="module")
def artefacts(quantized):
    return {stage: a.data for stage, a in lower_all(quantized, ["executorch", "tflite"]).items()}


@pytest.fixture
def numbers(quantized):
    return {
        "channels": 4,
        "window": 64,
        "embedding_dim": 8,
        "scale": quantized.scale,
        "zero_point": quantized.zero_point,
    }


@pytest.fixture
def encoder(request, artefacts, numbers) -> EncoderRuntime:
    return open_runtime(request.param, artefacts[request.param], **numbers)


@pytest.mark.parametrize("encoder", STAGES, indirect=True)
def test_memory_layout_of_a_window_does_not_matter(encoder):
    reversed_in_memory = np.asfortranarray(WINDOWS[0])
    strided = np.repeat(WINDOWS[0], 2, axis=1)[:, ::2]
    assert not strided.flags.c_contiguous
    expected = encoder.embed(WINDOWS[0])
    assert np.array_equal(encoder.embed(reversed_in_memory), expected)
    assert np.array_equal(encoder.embed(strided), expected)


@pytest.mark.parametrize("encoder", STAGES, indirect=True)
def test_an_earlier_result_survives_the_next_window(encoder):
    first = encoder.embed(WINDOWS[0])
    kept = first.copy()
    encoder.embed(WINDOWS[1])
    assert np.array_equal(first, kept)
    assert np.array_equal(encoder.embed(WINDOWS[0]), kept)


@pytest.mark.parametrize("encoder", INT8_STAGES, indirect=True)
def test_codes_and_embedding_are_the_same_numbers(encoder):
    for window in WINDOWS[:8]:
        codes = encoder.codes(window)
        assert codes.dtype == np.int8
        values = codes.astype(np.float32) * np.float32(encoder.embedding_scale)
        assert np.array_equal(encoder.embed(window), values)


@pytest.mark.parametrize("encoder", STAGES, indirect=True)
@pytest.mark.parametrize("shape", [(64, 4), (4, 63), (1, 4, 64)])
def test_a_window_of_another_shape_is_refused_in_one_line(encoder, shape):
    with pytest.raises(ConfigError, match=r"takes \(C, T\) = \(4, 64\)") as caught:
        encoder.embed(np.zeros(shape, np.float32))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("change", [{"channels": 5}, {"window": 63}, {"embedding_dim": 9}])
def test_an_artefact_that_is_not_what_the_manifest_says_is_refused(
    stage, change, artefacts, numbers
):
    with pytest.raises(PackageError, match="the manifest says"):
        open_runtime(stage, artefacts[stage], **{**numbers, **change})


def test_a_tflite_with_another_embedding_scale_is_refused(artefacts, numbers):
    with pytest.raises(PackageError, match="scale"):
        open_runtime("tflite-int8", artefacts["tflite-int8"], **{**numbers, "scale": 0.5})


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b"no model" * 99, lambda b: b[:2000]])
def test_a_damaged_artefact_is_refused_in_one_line(stage, damage, artefacts, numbers):
    with pytest.raises(PackageError, match="lower it again") as caught:
        open_runtime(stage, damage(artefacts[stage]), **numbers)
    assert "\n" not in str(caught.value)


def test_a_float_encoder_has_no_codes(artefacts, numbers):
    encoder = open_runtime("tflite-fp32", artefacts["tflite-fp32"], **numbers)
    with pytest.raises(ConfigError, match="int8 stage"):
        encoder.codes(WINDOWS[0])


@needs_compiler
def test_a_closed_executorch_encoder_is_refused(artefacts, numbers):
    encoder = open_runtime("executorch-int8", artefacts["executorch-int8"], **numbers)
    encoder.close()
    with pytest.raises(ConfigError, match="closed"):
        encoder.embed(WINDOWS[0])


@needs_compiler
def test_the_interface_is_compiled_once_into_the_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBRIDGE_CACHE", str(tmp_path / "cache"))
    executorch_library.load_library.cache_clear()
    executorch_library.load_library()
    (built,) = (tmp_path / "cache").iterdir()
    before = built.stat().st_mtime_ns
    executorch_library.load_library.cache_clear()
    executorch_library.load_library()
    assert [path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()] == [before]


def test_without_a_compiler_the_message_names_it(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBRIDGE_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    executorch_library.load_library.cache_clear()
    with pytest.raises(PackageError, match=r"g\+\+ is not installed"):
        executorch_library.load_library()


def test_the_cache_folder_follows_the_environment(monkeypatch):
    monkeypatch.delenv("EMBRIDGE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert executorch_library.cache_folder() == Path("/somewhere/embridge")
    monkeypatch.setenv("EMBRIDGE_CACHE", "/chosen")
    assert executorch_library.cache_folder() == Path("/chosen")


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # importing it raises ImportError
import numpy as np
from pathlib import Path
from embridge.device.runtimes import open_runtime

stage, artefact, stored, scale = sys.argv[1:]
arrays = np.load(stored)
encoder = open_runtime(
    stage, Path(artefact).read_bytes(), channels=4, window=64, embedding_dim=8,
    scale=float(scale), zero_point=0,
)
got = np.stack([encoder.embed(window) for window in arrays["windows"]])
assert np.array_equal(got, arrays["embeddings"])
assert "executorch" not in sys.modules
"""


@pytest.mark.parametrize("stage", STAGES)
def test_artefacts_run_where_torch_cannot_be_imported(stage, artefacts, numbers, tmp_path):
    encoder = open_runtime(stage, artefacts[stage], **numbers)
    artefact, stored = tmp_path / "model", tmp_path / "stored.npz"
    artefact.write_bytes(artefacts[stage])
    np.savez(stored, windows=WINDOWS, embeddings=np.stack([encoder.embed(w) for w in WINDOWS]))
    command = [sys.executable, "-c", WITHOUT_TORCH, stage, artefact, stored, repr(numbers["scale"])]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
