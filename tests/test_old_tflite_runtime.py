"""The .tflite artefacts in tflite-runtime 2.14, the last of its name, which boards still have.

It needs numpy 1 and so an environment of its own. Its int8 kernels are not XNNPACK's and round in
another way.
"""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from embridge.device.runtimes import LiteRtEncoder
from embridge.quantize.lower import lower_all
from embridge.quantize.quantizer import QuantizedEncoder, quantize_encoder

PYTHON = Path(__file__).resolve().parent.parent / ".venv-tflite" / "bin" / "python"
pytestmark = pytest.mark.skipif(
    not PYTHON.is_file(), reason="tflite-runtime is not set up; run `make venv-tflite`"
)

RUN = """
import sys
import numpy as np
from tflite_runtime.interpreter import Interpreter

interpreter = Interpreter(model_path=sys.argv[1], num_threads=1)
interpreter.allocate_tensors()
(source,), (sink,) = interpreter.get_input_details(), interpreter.get_output_details()
outputs = []
for x in np.load(sys.argv[2]).transpose(0, 2, 1):  # T C of each
    if source["dtype"] == np.int8:
        scale, zero_point = source["quantization"]
        codes = np.rint(x * (np.float32(1) / np.float32(scale))) + zero_point
        x = np.clip(codes, -128, 127).astype(np.int8)
    interpreter.set_tensor(source["index"], np.ascontiguousarray(x[None, None]))
    interpreter.invoke()
    outputs.append(interpreter.get_tensor(sink["index"]).ravel())
np.save(sys.argv[3], np.stack(outputs))
"""


@pytest.fixture(scope="module")
def windows(make_windows) -> NDArray[np.float32]:
    return make_windows(21, 64)


@pytest.fixture(scope="module")
def quantized(make_windows, encoder) -> QuantizedEncoder:
    return quantize_encoder(encoder, make_windows(100, 256), "w8a8", seed=0)


@pytest.fixture(scope="module")
def artefacts(quantized) -> dict[str, bytes]:
    return {stage: made.data for stage, made in lower_all(quantized, ["tflite"]).items()}


@pytest.fixture
def old_runtime(tmp_path, windows):
    """Artefact -> what tflite-runtime makes of the windows, (N, D)."""

    def run(artefact: bytes) -> NDArray[np.generic]:
        model, inputs, outputs = (tmp_path / n for n in ("model.tflite", "in.npy", "out.npy"))
        model.write_bytes(artefact)
        np.save(inputs, windows)
        command = [PYTHON, "-c", RUN, model, inputs, outputs]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return np.load(outputs)

    return run


def test_float_embeddings_are_those_of_litert(old_runtime, artefacts, windows):
    litert = LiteRtEncoder(artefacts["tflite-fp32"])
    expected = np.stack([litert.embed(window) for window in windows])
    assert np.allclose(old_runtime(artefacts["tflite-fp32"]), expected, atol=1e-4)


def test_int8_codes_are_those_of_litert_and_of_fake_quantization_within_two(
    old_runtime, artefacts, quantized, windows
):
    old = old_runtime(artefacts["tflite-int8"]).astype(np.int64)
    litert = LiteRtEncoder(artefacts["tflite-int8"])
    for codes in (np.stack([litert.codes(w) for w in windows]), quantized.codes(windows)):
        differ = np.abs(old - codes)
        assert differ.max() <= 2
        assert np.mean(differ != 0) < 0.4  # observed 0.23
        norms = np.linalg.norm(old, axis=1) * np.linalg.norm(codes.astype(float), axis=1)
        assert ((old * codes).sum(axis=1) / norms).min() > 0.999
