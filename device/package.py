"""The model package: the unit that is quantized, flashed, run and judged.

A zip without compression whose bytes depend on its contents alone. The reader packs what it read
once more and compares, so that a change of any byte is refused, in headers as in data.
"""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from embridge.device.decision import Gallery
from embridge.device.errors import PackageError
from embridge.device.manifest import INT8_STAGES, SCHEMA, STAGE_FILES, FileEntry, Manifest

MANIFEST = "manifest.json"
GALLERY = "gallery.npz"
GOLDEN = "golden.npz"


@dataclass(frozen=True)
class Package:
    """A package read and checked; `files` maps path to bytes."""

    path: Path
    manifest: Manifest
    files: Mapping[str, bytes]
    sha256: str

    def artefact(self, stage: str) -> bytes:
        """Bytes of a stage's artefact; PackageError when the package does not carry it."""
        if stage not in self.manifest.stages:
            raise PackageError(
                f"{self.path.name}: no artefact for stage {stage!r}; "
                f"it carries {', '.join(self.manifest.stages)}"
            )
        return self.files[STAGE_FILES[stage]]

    @cached_property
    def _gallery_arrays(self) -> dict[str, NDArray[np.generic]]:
        return read_npz(self.files[GALLERY], self.path.name)

    def gallery(self, stage: str) -> Gallery:
        """Pose embeddings to compare with: int8 codes for int8 stages, float ones otherwise."""
        arrays = self._gallery_arrays
        vectors = arrays["codes"] if stage in INT8_STAGES else arrays["embeddings"]
        return Gallery(
            vectors.astype(np.float64),
            arrays["labels"].astype(np.int64),
            tuple(self.manifest.labels),
        )

    def golden(self) -> dict[str, NDArray[np.generic]]:
        """Real windows and what each stage makes of them, see `quantize.pack`."""
        return read_npz(self.files[GOLDEN], self.path.name)


def write_package(path: Path, manifest: Manifest, files: Mapping[str, bytes]) -> str:
    """Write a package atomically and return its sha256; the manifest's file table is filled in."""
    table = {
        name: FileEntry(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
        for name, data in sorted(files.items())
    }
    manifest = Manifest.model_validate(
        manifest.model_dump() | {"files": {k: v.model_dump() for k, v in table.items()}}
    )
    text = json.dumps(manifest.model_dump(mode="json"), indent=1, sort_keys=True).encode()
    packed = _pack({MANIFEST: text, **files})
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(packed)
    os.replace(temporary, path)
    return hashlib.sha256(packed).hexdigest()


def read_package(path: Path) -> Package:
    """Read and check a package; raises PackageError with one line on anything unexpected."""
    if not path.is_file():
        raise PackageError(f"{path}: no such package; make one with `embridge lower`")
    data = path.read_bytes()
    contents = _unpack(path, data)
    if MANIFEST not in contents:
        raise PackageError(f"{path.name}: expected {MANIFEST}, got a zip without it")
    manifest = _read_manifest(path, contents.pop(MANIFEST))
    for name, entry in manifest.files.items():
        if name not in contents:
            raise PackageError(
                f"{path.name}: {name} is missing, the manifest lists it; "
                "copy it again or build it with `embridge lower`"
            )
        got = hashlib.sha256(contents[name]).hexdigest()
        if got != entry.sha256:
            raise PackageError(
                f"{path.name}: {name} has sha256 {got[:12]}…, manifest says {entry.sha256[:12]}…; "
                "it was changed after it was packed: build it again with `embridge lower`"
            )
    if missing := {GALLERY, GOLDEN} - manifest.files.keys():
        raise PackageError(
            f"{path.name}: expected {', '.join(sorted(missing))}, not in the package"
        )
    if extra := contents.keys() - manifest.files.keys():
        raise PackageError(f"{path.name}: {min(extra)!r} is not in the manifest; build it again")
    _check_runtimes(path, manifest)
    return Package(path, manifest, contents, hashlib.sha256(data).hexdigest())


def write_npz(**arrays: NDArray[np.generic]) -> bytes:
    """Arrays -> deterministic .npz bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def read_npz(data: bytes, name: str) -> dict[str, NDArray[np.generic]]:
    """.npz bytes -> arrays; a pickle inside is refused."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except Exception as error:  # numpy and zipfile raise many kinds on damaged input
        raise PackageError(f"{name}: arrays cannot be read ({error}); build it again") from error


def _pack(contents: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(contents):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), contents[name])
    return buffer.getvalue()


def _unpack(path: Path, data: bytes) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            contents = {entry.filename: archive.read(entry) for entry in archive.infolist()}
        intact = _pack(contents) == data
    except Exception as error:  # zipfile raises many kinds on damaged input
        raise PackageError(
            f"{path.name}: damaged or not a model package ({error}); "
            "copy it again or build it with `embridge lower`"
        ) from error
    if not intact:
        raise PackageError(
            f"{path.name}: its bytes are not those it was packed with (changed or damaged); "
            "copy it again or build it with `embridge lower`"
        )
    return contents


def _read_manifest(path: Path, text: bytes) -> Manifest:
    try:
        raw = json.loads(text)
        version = raw.get("schema_version")
        if version != SCHEMA:
            raise PackageError(
                f"{path.name}: expected manifest schema {SCHEMA}, got {version!r}; "
                "use the embridge version that made it, or build it again"
            )
        return Manifest.model_validate(raw)
    except (ValueError, AttributeError, RecursionError) as error:
        detail = error.errors()[0] if isinstance(error, ValidationError) else None
        where = f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" if detail else str(error)
        raise PackageError(
            f"{path.name}: manifest is not valid ({' '.join(where.split())}); build it again"
        ) from error


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("+")[0].split(".")[:3] if part.isdigit())


def _check_runtimes(path: Path, manifest: Manifest) -> None:
    """Refuse a package that needs a newer runtime than the one installed."""
    for distribution, minimum in manifest.runtime.items():
        try:
            installed = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue  # only the stages of that runtime are out of reach; `open_runtime` says so
        if _version(installed) < _version(minimum):
            raise PackageError(
                f"{path.name}: expected {distribution} {minimum} or newer, got {installed}; "
                f"run `pip install '{distribution}>={minimum}'`"
            )
