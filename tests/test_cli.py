"""Bad input gets one clear line, a non-zero exit, and leaves nothing half-written."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.io

from embridge.device.emg2pose import write_emg2pose
from embridge.device.recordings import Recording

Cli = Callable[..., tuple[int, str, str]]


def refused(result: tuple[int, str, str], *words: str, code: int = 1) -> None:
    """One line on stderr with all of `words`, nothing on stdout."""
    status, out, err = result
    lines = [line for line in err.splitlines() if line.startswith("embridge: ")]
    assert status == code, (status, err)
    assert out == ""
    assert "Traceback" not in err
    assert len(lines) == 1, err
    for word in words:
        assert word in lines[0], (word, lines[0])


def recording(channels: int, rate_hz: float = 2000.0) -> Recording:
    samples = 8000
    rng = np.random.default_rng(0)
    return Recording(
        name="x",
        source="synthetic",
        user="u",
        session="s",
        rate_hz=rate_hz,
        emg=rng.normal(size=(samples, channels)).round(2).astype(np.float32),
        emg_unit="uV",
        is_envelope=False,
        pose=None,
        pose_unit="rad",
        pose_valid=np.zeros(samples, np.bool_),
        gestures=("fist",),
        gesture=np.zeros(samples, np.int16),
        trial=np.ones(samples, np.int32),
        repetition=np.ones(samples, np.int16),
    )


def test_version_and_help(cli: Cli) -> None:
    assert cli("--version")[:2] == (0, "embridge 0.1.0\n")
    code, out, _ = cli("--help")
    assert code == 0
    assert "demo" in out


def test_a_wrong_call_exits_2(cli: Cli) -> None:
    refused(cli("eval"), "Missing", code=2)
    refused(cli("frobnicate"), "No such command", code=2)


def test_missing_file(cli: Cli, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    refused(cli("data", "info", gone), "gone", "does not exist")
    refused(cli("train", gone), "no such configuration")
    refused(cli("train", "raw", "--data", gone, "--out", tmp_path / "run"), "does not exist")
    refused(cli("run", gone, "--source", "replay://x"), "no such package")
    refused(cli("eval", gone, "--data", tmp_path), "no such package")
    refused(cli("demo", "--data", gone, "--out", tmp_path / "demo"), "does not exist")
    assert not (tmp_path / "run").exists()


def test_truncated_hdf5(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    write_emg2pose(path, recording(16))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(cli("train", "raw", "--data", tmp_path, "--out", tmp_path / "run"), "a.hdf5")
    assert not (tmp_path / "run").exists()


def test_mat_without_glove(cli: Cli, tmp_path: Path) -> None:
    column = np.zeros((500, 1), np.uint8)
    column[100:200] = 1
    scipy.io.savemat(
        tmp_path / "S1_A1_E1.mat",
        {
            "emg": np.random.default_rng(0).random((500, 10)),
            "restimulus": column,
            "rerepetition": column,
            "subject": [[1]],
            "exercise": [[1]],
        },
    )
    refused(cli("train", "envelope", "--data", tmp_path, "--out", tmp_path / "run"), "glove")
    assert not (tmp_path / "run").exists()
    assert "no hand pose" in cli("data", "check", tmp_path)[1]


def test_unknown_key_and_bad_value_in_the_configuration(cli: Cli, tmp_path: Path) -> None:
    refused(cli("train", "raw", "optim.sede=3", "--data", tmp_path), "optim.sede")
    refused(cli("train", "raw", "optim.seed=three", "--data", tmp_path), "optim.seed")
    refused(cli("train", "raw", "--out", tmp_path / "x"), "--data")


def test_too_few_users(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    assert cli("data", "synth", folder, "--users", 2, "--seconds", 1)[0] == 0
    refused(cli("train", "raw", "--data", folder, "--out", tmp_path / "run"), "users")
    assert not (tmp_path / "run").exists()


def test_package_with_one_flipped_byte(cli: Cli, made: Path, tmp_path: Path) -> None:
    data = bytearray((made / "raw.embridge").read_bytes())
    for offset in (0, 100, len(data) // 2, len(data) - 1):
        bad = bytearray(data)
        bad[offset] ^= 1
        (tmp_path / "bad.embridge").write_bytes(bad)
        refused(cli("run", tmp_path / "bad.embridge", "--source", "replay://x"), "bad.embridge")


def test_wrong_channel_count(cli: Cli, made: Path, tmp_path: Path) -> None:
    write_emg2pose(tmp_path / "eight.hdf5", recording(8))
    url = f"replay://{tmp_path / 'eight.hdf5'}?speed=0"
    refused(cli("run", made / "raw.embridge", "--source", url), "8 channels", "16 channels")
    data = ("--data", tmp_path / "eight.hdf5")
    refused(cli("eval", made / "raw.embridge", *data), "16 channels", "got 8")


def test_embed_of_windows_of_another_shape(cli: Cli, made: Path, tmp_path: Path) -> None:
    package, out = made / "raw.embridge", tmp_path / "e.npy"
    np.save(tmp_path / "w.npy", np.zeros((2, 8, 1000), np.float32))
    refused(cli("embed", package, "--input", tmp_path / "w.npy", "-o", out), "shape")
    (tmp_path / "t.npy").write_text("no array")
    refused(cli("embed", package, "--input", tmp_path / "t.npy", "-o", out), "t.npy")
    refused(cli("embed", package, "--input", tmp_path / "no.npy", "-o", out), "no such file")
    assert not out.exists()


def test_a_port_that_does_not_exist_and_urls_that_name_nothing(cli: Cli, made: Path) -> None:
    package = made / "raw.embridge"
    refused(cli("run", package, "--source", "serial:///dev/ttyNONE9"), "ttyNONE9")
    refused(cli("run", package, "--source", "ble://wrist"), "Bluetooth")
    refused(cli("run", package, "--source", "wrist"), "serial://")


def test_a_profile_of_another_stream_and_a_stage_that_does_not_exist(
    cli: Cli, made: Path, tmp_path: Path
) -> None:
    package, source = made / "raw.embridge", "replay://x"
    profile = json.loads(next(made.glob("*.profile.json")).read_text())
    profile["scale"], profile["offset"] = profile["scale"][:8], profile["offset"][:8]
    (tmp_path / "p.json").write_text(json.dumps(profile))
    refused(
        cli("run", package, "--source", source, "--user", tmp_path / "p.json"), "16 channels", "8"
    )
    refused(cli("run", package, "--source", source, "--stage", "int8"), "tflite-int8")


def test_a_run_that_is_not_quantized_or_not_trained(cli: Cli, made: Path, tmp_path: Path) -> None:
    refused(cli("lower", tmp_path), "no run here")
    for name in ("config.json", "plan.json"):
        (tmp_path / name).write_bytes((made / "run" / name).read_bytes())
    refused(cli("lower", tmp_path), "embridge quantize")
    refused(cli("quantize", tmp_path), "--resume")
    refused(cli("quantize", made / "run", "--recipe", "w2a2"), "w2a2")


def test_ctrl_c_in_run_ends_with_a_summary(made: Path) -> None:
    (excerpt,) = made.glob("live-*.hdf5")
    command = [sys.executable, "-m", "embridge", "run", str(made / "raw.embridge"), "--json"]
    process = subprocess.Popen(
        [*command, "--source", f"replay://{excerpt}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while "channels at" not in process.stderr.readline():  # the stream has begun
        assert process.poll() is None
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "summary" in json.loads(out.splitlines()[-1])


def test_data_info_and_check_of_a_sound_folder(cli: Cli, made: Path) -> None:
    code, out, _ = cli("data", "info", made / "synthetic", "--json")
    summary = json.loads(out)
    assert (code, summary["channels"], summary["synthetic"]) == (0, [16], True)
    assert cli("data", "check", made / "synthetic")[0] == 0
