"""Short runs of the fuzzers in tests/fuzz, and what they found worth keeping."""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from embridge.firmware_bridge import (
    Frame,
    FrameType,
    StreamInfo,
    TransmitQueue,
    WristCore,
    encode,
)

ROOT = Path(__file__).resolve().parent.parent
FUZZ = ROOT / "tests" / "fuzz"
CLANGS = ("clang", "clang-19", "clang-16", "clang-15", "clang-14")

INFO = StreamInfo(2, 2000.0, 20, "uV", 1.0, boot_id=1)

check = runpy.run_path(str(FUZZ / "targets.py"))["check"]

frames = st.builds(
    Frame,
    st.sampled_from(FrameType),
    flags=st.sampled_from([0, 1, 2, 3, 0x22]),
    seq=st.integers(0, 2**16 - 1),
    sample_index=st.integers(0, 2**32 - 1),
    time_us=st.integers(0, 2**32 - 1),
    n_ch=st.integers(0, 4),
    n_samp=st.integers(0, 8),
    payload=st.binary(max_size=60),
)
lines = st.lists(frames.map(encode) | st.binary(max_size=20), max_size=5).map(b"".join)
requests = st.sampled_from([b"\1\0", b"\2\2\2\0", b"\2\2\1\xff", b"\4\4abcd", b"\5\0", b"\3\0"])


@settings(max_examples=300)
@given(
    st.binary(max_size=80)
    | lines.map(lambda line: b"\0\3" + line)
    | st.builds(
        lambda shape, payload: b"\1" + shape + payload,
        st.tuples(st.integers(0, 3), st.integers(0, 6), st.integers(0, 4)).map(bytes),
        st.binary(max_size=60),
    )
    | st.lists(requests | st.binary(max_size=8)).map(lambda parts: b"\3" + b"\xaa".join(parts))
)
@example(b"\3\2\2\0\xff")  # a START of 255 samples of 16 channels
def test_any_bytes_are_understood_or_refused(data):
    check(data)


@pytest.mark.parametrize(
    "request_", [b"\1\1x", b"\2\1\0", b"\3\1x", b"\4\3abc", b"\4\0", b"\5\2ab", b"\7\0", b"\1"]
)
def test_a_request_of_another_length_is_counted_and_not_obeyed(request_):
    queue = TransmitQueue()
    core = WristCore(np.zeros((100, 2), np.int16), INFO, queue, encode)
    core.receive(Frame(FrameType.CONTROL, payload=request_), 0.0)
    assert (core.status(0.0).frames_refused, queue.head(), core.streaming) == (1, None, False)


def test_a_start_that_no_frame_can_hold_begins_as_it_was():
    wide = StreamInfo(64, 2000.0, 20, "uV", 1.0, boot_id=1)
    core = WristCore(np.zeros((100, 64), np.int16), wide, TransmitQueue(), encode)
    core.receive(Frame(FrameType.CONTROL, payload=b"\2\2\2\xff"), 0.0)
    assert (core.streaming, core.info) == (True, wide)


@pytest.mark.parametrize("folder", ["receiver", "codec", "python"])
def test_the_corpus_of_found_inputs_is_small_and_passes(folder):
    files = sorted((FUZZ / "corpus" / folder).iterdir())
    assert files
    assert sum(file.stat().st_size for file in files) < 35_000
    if folder == "python":
        for file in files:
            check(file.read_bytes())


def test_python_and_c_agree_on_damaged_frames():
    if shutil.which("cc") is None:
        pytest.skip("cc is missing: the C core cannot be compiled (install gcc)")
    run = subprocess.run(
        [sys.executable, FUZZ / "fuzz_frames.py", "--inputs", "16000", "--seed", "7"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("Python and C agree: 16,000 inputs")


@pytest.mark.parametrize("harness", ["receiver", "codec"])
def test_the_c_core_withstands_libfuzzer(harness, tmp_path):
    if shutil.which("make") is None:
        pytest.skip("make is missing: the harnesses cannot be built")
    if not any(map(shutil.which, CLANGS)):
        pytest.skip("clang is missing: no libFuzzer (install clang-14 libclang-rt-14-dev)")
    run = subprocess.run(
        ["make", "-f", FUZZ / "fuzz.mk", f"fuzz-{harness}", f"FUZZ_OUT={tmp_path}",
         "FUZZ_RUNS=20000"],
        cwd=ROOT, capture_output=True, text=True, env=os.environ | {"MAKEFLAGS": ""},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    assert "Done 20000 runs" in run.stderr
