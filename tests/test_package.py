"""The model package: what is written is read back, and anything else is refused in one line."""

import hashlib
import io
import json
import pickle
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embridge.device.decision import DecisionRule
from embridge.device.errors import PackageError
from embridge.device.frontend import FrontEnd
from embridge.device.manifest import EmbeddingSpec, InputSpec, Manifest
from embridge.device.package import read_npz, read_package, write_npz, write_package

CODES = np.array([[3, -4], [127, 0], [-128, 5]], np.int8)
GALLERY = write_npz(
    codes=CODES, embeddings=CODES.astype(np.float32) / 128, labels=np.array([0, 1, 1])
)
GOLDEN = write_npz(windows=np.zeros((1, 2, 4), np.float32))
FILES = {
    "gallery.npz": GALLERY,
    "golden.npz": GOLDEN,
    "artefacts/model_int8.tflite": b"\x1c\x00\x00\x00TFL3",
    "artefacts/cortex-m4/weights.c": b"",
}


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    front_end = FrontEnd(
        rate_hz=200,
        sos=[[1.0, 0.0, 0.0, 1.0, 0.0, 0.0]],
        compression="log",
        compression_floor=1 / 3,
        offset=[0.1, 0.2],
        scale=[1.0, 2.0],
    )
    return Manifest(
        name="tiny",
        created_by={"embridge": "0.1.0"},
        git="abc",
        config={"optim": {"seed": 0}},
        input=InputSpec(channels=2, rate_hz=200, window=4, hop=2, unit="uV", is_envelope=False),
        front_end=front_end,
        embedding=EmbeddingSpec(dim=2, scale=0.01, zero_point=3),
        decision=DecisionRule(
            k=2, min_similarity=0.1, min_vote=0.5, debounce_ms=300, null_gesture="rest"
        ),
        labels=["rest", "fist"],
        unseen=["fist"],
        files={},
        runtime={},
        results={},
    )


@pytest.fixture
def package(manifest: Manifest, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.embridge"
    write_package(path, manifest, FILES)
    return path


def contents_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(path: Path, contents: dict[str, bytes]) -> None:
    """Write a zip as the writer would, whatever it holds."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(contents):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), contents[name])


def change_manifest(path: Path, **changes: Any) -> None:
    contents = contents_of(path)
    raw = json.loads(contents["manifest.json"]) | changes
    pack(path, contents | {"manifest.json": json.dumps(raw, indent=1, sort_keys=True).encode()})


def replace_file(path: Path, name: str, data: bytes) -> None:
    """Put other bytes into a package and its manifest, as a careful forger would."""
    contents = contents_of(path)
    raw = json.loads(contents["manifest.json"])
    raw["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    pack(path, contents | {name: data, "manifest.json": json.dumps(raw).encode()})


def refused(path: Path, match: str = ".") -> None:
    with pytest.raises(PackageError, match=match) as error:
        read_package(path)
    assert "\n" not in str(error.value)
    assert path.name in str(error.value)


def test_what_is_written_is_read_back(manifest: Manifest, tmp_path: Path) -> None:
    path = tmp_path / "a.embridge"
    sha256 = write_package(path, manifest, FILES)
    package = read_package(path)
    assert package.files == FILES
    assert package.sha256 == sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert package.manifest.model_copy(update={"files": {}}) == manifest
    assert {name: entry.bytes for name, entry in package.manifest.files.items()} == {
        name: len(data) for name, data in FILES.items()
    }
    assert package.manifest.stages == ["tflite-int8"]
    assert package.artefact("tflite-int8") == FILES["artefacts/model_int8.tflite"]
    assert package.manifest.input.hop_ms == 10
    assert np.array_equal(package.golden()["windows"], np.zeros((1, 2, 4), np.float32))


def test_the_gallery_is_codes_for_int8_stages_and_floats_for_the_others(package: Path) -> None:
    read = read_package(package)
    assert np.array_equal(read.gallery("tflite-int8").vectors, CODES)
    assert np.array_equal(read.gallery("float").vectors, CODES / 128)
    assert read.gallery("float").labels.tolist() == [0, 1, 1]
    assert read.gallery("float").names == ("rest", "fist")


def test_a_stage_that_is_not_carried_is_refused_by_name(package: Path) -> None:
    with pytest.raises(PackageError, match=r"executorch-int8.*carries tflite-int8"):
        read_package(package).artefact("executorch-int8")


def test_the_same_inputs_give_the_same_bytes(manifest: Manifest, tmp_path: Path) -> None:
    backwards = dict(reversed(FILES.items()))
    first = write_package(tmp_path / "a.embridge", manifest, FILES)
    assert write_package(tmp_path / "b.embridge", manifest, backwards) == first
    assert (tmp_path / "a.embridge").read_bytes() == (tmp_path / "b.embridge").read_bytes()
    again = read_package(tmp_path / "a.embridge")
    assert write_package(tmp_path / "c.embridge", again.manifest, again.files) == first
    changed = manifest.model_copy(update={"name": "other"})
    assert write_package(tmp_path / "d.embridge", changed, FILES) != first


def test_writing_leaves_nothing_but_the_package(manifest: Manifest, tmp_path: Path) -> None:
    path = tmp_path / "a.embridge"
    path.write_bytes(b"an older one")
    write_package(path, manifest, FILES)
    assert list(tmp_path.iterdir()) == [path]
    read_package(path)


def test_every_flipped_byte_is_refused(package: Path) -> None:
    data = package.read_bytes()
    for offset in range(len(data)):
        package.write_bytes(data[:offset] + bytes([data[offset] ^ 0x01]) + data[offset + 1 :])
        refused(package)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_any_change_of_any_byte_is_refused(package: Path, where: float, flip: int) -> None:
    data = package.read_bytes()
    offset = int(where * len(data))
    changed = package.with_name("changed.embridge")
    changed.write_bytes(data[:offset] + bytes([data[offset] ^ flip]) + data[offset + 1 :])
    refused(changed)


def test_a_truncated_package_is_refused(package: Path) -> None:
    data = package.read_bytes()
    for length in (*range(0, len(data), 37), len(data) - 1):
        package.write_bytes(data[:length])
        refused(package)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data + b"\0",
        lambda data: b"\0" + data,
        lambda data: b"#!/bin/sh\n" + data,
        lambda data: b"not a zip at all",
        lambda data: b"",
    ],
)
def test_bytes_around_or_instead_of_a_package_are_refused(package: Path, change: Any) -> None:
    package.write_bytes(change(package.read_bytes()))
    refused(package)


def test_a_compressed_copy_is_refused(package: Path) -> None:
    contents = contents_of(package)
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(contents.items()):
            archive.writestr(name, data)
    refused(package, "not those it was packed with")


def test_a_missing_package_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none.embridge", "no such package")
    refused(tmp_path, "no such package")


def test_a_package_without_manifest_is_refused(package: Path) -> None:
    contents = contents_of(package)
    del contents["manifest.json"]
    pack(package, contents)
    refused(package, r"expected manifest\.json")


@pytest.mark.parametrize("version", [0, 2, None, "1", "2\nor so", [1], 1e99])
def test_an_unknown_schema_is_refused(package: Path, version: Any) -> None:
    change_manifest(package, schema_version=version)
    refused(package, "expected manifest schema 1")


@pytest.mark.parametrize(
    "text",
    [b"", b"null", b"[]", b"3", b"{", b'"\xff"', b"[" * 100_000, b'{"schema_version": 1}'],
)
def test_a_manifest_that_is_no_manifest_is_refused(package: Path, text: bytes) -> None:
    pack(package, contents_of(package) | {"manifest.json": text})
    refused(package, "manifest is not valid|expected manifest schema")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"surprise": 1}, "surprise"),
        ({"two\nlines": 1}, "two"),
        ({"labels": "fist"}, "labels"),
        ({"embedding": {"dim": 0, "scale": 1.0, "zero_point": 0}}, r"embedding\.dim"),
        ({"embedding": {"dim": 2, "scale": float("nan"), "zero_point": 0}}, r"embedding\.scale"),
        ({"front_end": {}}, r"front_end\.rate_hz"),
    ],
)
def test_a_wrong_value_in_the_manifest_is_named(
    package: Path, changes: dict[str, Any], named: str
) -> None:
    change_manifest(package, **changes)
    refused(package, named)


def test_a_changed_file_is_named(package: Path) -> None:
    pack(package, contents_of(package) | {"artefacts/model_int8.tflite": b"TFL4"})
    refused(package, r"model_int8\.tflite has sha256 .*, manifest says")


@pytest.mark.parametrize("name", ["artefacts/model_int8.tflite", "artefacts/cortex-m4/weights.c"])
def test_a_missing_file_is_named_even_when_it_was_empty(package: Path, name: str) -> None:
    contents = contents_of(package)
    del contents[name]
    pack(package, contents)
    refused(package, f"{name} is missing")


@pytest.mark.parametrize("name", ["gallery.npz", "golden.npz"])
def test_a_package_without_gallery_or_golden_windows_is_refused(
    manifest: Manifest, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "a.embridge"
    write_package(path, manifest, {k: v for k, v in FILES.items() if k != name})
    refused(path, f"expected {name}")


@pytest.mark.parametrize("name", ["extra.txt", "../x.txt", "two\nlines.txt", "/etc/x.conf"])
def test_a_file_that_is_not_in_the_manifest_is_refused(package: Path, name: str) -> None:
    pack(package, contents_of(package) | {name: b"hello"})
    refused(package, "not in the manifest")


@pytest.mark.parametrize(
    "name",
    [
        "../x.txt",
        "/etc/x.conf",
        "artefacts/../../x.txt",
        "C:\\x.txt",
        "artefacts//x.txt",
        "./x.txt",
        ".hidden.txt",
        "x.txt\n",
        "two\nlines.txt",
        "~/x.txt",
    ],
)
def test_a_path_that_leaves_the_package_is_refused(package: Path, name: str) -> None:
    replace_file(package, name, b"hello")
    refused(package, "leaves the package")


def test_files_appear_once(package: Path) -> None:
    contents = contents_of(package)
    with zipfile.ZipFile(package, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(contents):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), contents[name])
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(zipfile.ZipInfo("gallery.npz", (1980, 1, 1, 0, 0, 0)), GALLERY)
    refused(package)


class Evil:
    """Unpickling this would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "owned")


def test_a_pickle_inside_an_npz_is_never_run(package: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    evil = np.array([Evil(tmp_path / "owned")], dtype=object)
    np.savez(buffer, codes=evil, embeddings=evil, labels=evil)
    replace_file(package, "gallery.npz", buffer.getvalue())
    replace_file(package, "golden.npz", pickle.dumps(Evil(tmp_path / "owned")))
    read = read_package(package)
    for load in (read.golden, lambda: read.gallery("tflite-int8")):
        with pytest.raises(PackageError, match="arrays cannot be read") as error:
            load()
        assert "\n" not in str(error.value)
    assert not (tmp_path / "owned").exists()


def npy(array: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array))
    return buffer.getvalue()


@pytest.mark.parametrize("data", [b"", b"PK", b"text", GALLERY[:100], GALLERY[:-5], npy([1, 2])])
def test_damaged_arrays_are_refused(data: bytes) -> None:
    with pytest.raises(PackageError, match=r"^x: arrays cannot be read") as error:
        read_npz(data, "x")
    assert "\n" not in str(error.value)


def test_arrays_are_read_back_and_their_bytes_depend_on_them_alone() -> None:
    arrays = read_npz(GALLERY, "x")
    assert np.array_equal(arrays["codes"], CODES)
    assert arrays["codes"].dtype == np.int8
    assert write_npz(**arrays) == GALLERY


@pytest.mark.parametrize(
    ("minimum", "installed", "fits"),
    [
        ("2.3.0", "2.3.0", True),
        ("2.3.0", "2.10.0", True),
        ("2.3", "2.3.0", True),
        ("2.3.0", "2.3.0+cpu", True),
        ("2.3.0", "2.2.9", False),
        ("2.3.1", "2.3", False),
        ("10.0.0", "9.9.9", False),
        ("2.3.0", "2.3.0rc1", False),
    ],
)
def test_a_runtime_that_is_too_old_is_refused(
    manifest: Manifest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    minimum: str,
    installed: str,
    fits: bool,
) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: installed)
    path = tmp_path / "a.embridge"
    needs = manifest.model_copy(update={"runtime": {"ai-edge-litert": minimum}})
    write_package(path, needs, FILES)
    if fits:
        read_package(path)
    else:
        refused(path, f"expected ai-edge-litert {minimum} or newer, got .*pip install")


def test_a_runtime_that_is_not_installed_only_closes_its_own_stages(
    manifest: Manifest, tmp_path: Path
) -> None:
    path = tmp_path / "a.embridge"
    needs = manifest.model_copy(update={"runtime": {"no-such-distribution": "9.9"}})
    write_package(path, needs, FILES)
    assert read_package(path).files == FILES
