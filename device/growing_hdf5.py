"""An HDF5 file with one table that is whole at every moment of its growth, also after kill -9.

HDF5 keeps a file open for writing in pieces that only fit together once it is closed. Here h5py
lays out the file once, in memory, in the oldest format (superblock version 0, object headers
version 1: no checksums), with a contiguous table whose raw data comes last in the file. From then
on rows are appended with plain writes, and four numbers of 8 bytes make them count, in an order in
which each intermediate file is valid and shows a whole number of rows:

    end of file in the superblock -> bytes of the table -> its maximal rows -> its rows

No recovery step, no lock: any HDF5 reader may open the file at any time, and sees the rows that
were flushed before it looked at the table. The library compares the size of a file, taken first,
with the end that it reads later; so the file grows ahead of its end, and both ahead of the rows, by
AHEAD_BYTES of nothing, which `close` cuts off.

Source: HDF5 File Format Specification 3.0, II.A, IV.A.1.a, IV.A.2.b, IV.A.2.i, IV.A.2.m.
"""

import contextlib
import io
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from embridge.device.errors import RecordingError

Pwrite = Callable[[int, bytes, int], int]

_SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
_SIZES_AT, _EOF_AT = 13, 40  # in superblock version 0: bytes of an offset and a length; end of file
_DATASPACE, _LAYOUT, _CONTINUATION, _ATTRIBUTE = 0x01, 0x08, 0x10, 0x0C  # message types
_UNDEFINED: Final = 2**64 - 1
AHEAD_BYTES: Final = 8 * 2**20  # 15 s of 16 channels at 2 kHz
_PAGE: Final = 4096  # a kill can fall between two pages of one write, never inside one


class GrowingDataset:
    """Appends rows to a table; everything up to the latest `flush` survives any end of the process.

    sync: wait for the disk between the steps, so that a loss of power is survived as well
    """

    def __init__(self, file: int, layout: "_Layout", rows: NDArray[np.void], sync: bool,
                 pwrite: Pwrite) -> None:  # fmt: skip
        self._file, self._layout, self._dtype = file, layout, rows.dtype
        self._rows = len(rows)  # written; those that count may be fewer
        self._declared_end = _ahead(self._end())  # in the superblock
        self._sync, self._pwrite = sync, pwrite
        self._closed = False

    @classmethod
    def create(
        cls,
        path: Path,
        table: str,
        attributes: Mapping[str, Any],
        rows: NDArray[np.void],
        *,
        sync: bool = False,
        pwrite: Pwrite = os.pwrite,
    ) -> Self:
        """Make `path` with the first `rows` in dataset `table` ("group/name").

        attributes: of the group; those that are float or int can be changed by `flush`
        rows: (T,) of a compound type, at least one: HDF5 knows no empty table with an address

        The file appears under its name once it is whole. RecordingError when the name is taken.
        """
        image, layout = _image(table, attributes, rows)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            partial.write_bytes(image)
            os.truncate(partial, _ahead(_ahead(len(image))))
            _publish(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        file = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
        growing = cls(file, layout, rows, sync, pwrite)
        growing._settle()
        return growing

    def __enter__(self) -> Self:
        """Nothing to do: the file is open."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    @property
    def rows(self) -> int:
        """Rows written so far."""
        return self._rows

    def append(self, rows: NDArray[np.void]) -> None:
        """Write rows (T,) behind the others; they count after `flush`. OSError: disk full, gone."""
        if rows.dtype != self._dtype:
            raise ValueError(f"expected rows of {self._dtype}, got {rows.dtype}")
        self._write(rows.tobytes(), self._end())
        self._rows += len(rows)

    def flush(self, **attributes: float) -> None:
        """Make all appended rows count; set numeric attributes. OSError as `append`."""
        self._settle()
        if self._end() + AHEAD_BYTES // 2 > self._declared_end:
            declared_end = max(_ahead(self._declared_end), self._end())
            self._set(_EOF_AT, declared_end)
            self._declared_end = declared_end
            os.ftruncate(self._file, _ahead(declared_end))
        for at, value in (
            (self._layout.size_at, self._end() - self._layout.data_at),
            (self._layout.max_rows_at, self._rows),
            (self._layout.rows_at, self._rows),
        ):
            self._set(at, value)
        for name, number in attributes.items():
            at, form = self._layout.attributes[name]
            self._write(struct.pack(form, number), at)

    def close(self) -> None:
        """Flush and let go of the file; does nothing the second time."""
        if self._closed:
            return
        self._closed = True
        try:
            self.flush()
            self._set(_EOF_AT, self._end())
            os.ftruncate(self._file, self._end())
            self._settle()
        finally:
            os.close(self._file)

    def _end(self) -> int:
        return self._layout.data_at + self._rows * self._dtype.itemsize

    def _set(self, at: int, value: int) -> None:
        self._write(struct.pack("<Q", value), at)
        self._settle()

    def _settle(self) -> None:
        if self._sync:
            os.fsync(self._file)

    def _write(self, data: bytes, at: int) -> None:
        while data:
            written = self._pwrite(self._file, data, at)
            data, at = data[written:], at + written


class _Layout:
    """Where in the file the numbers stand that change, each found by its value and checked."""

    def __init__(self, image: bytes, group_at: int, table_at: int) -> None:
        sizes, end = image[_SIZES_AT : _SIZES_AT + 2], _number(image, _EOF_AT)
        _expect("superblock 0 with sizes of 8", image[:9] + sizes, _SIGNATURE + b"\0\x08\x08")
        _expect("end of file", end, len(image))
        found = {kind: at for kind, at, _ in _messages(image, table_at)}
        space, layout = found[_DATASPACE], found[_LAYOUT]
        _expect("dataspace 1 of rank 1 with a maximum", image[space : space + 3], b"\x01\x01\x01")
        _expect("layout 3, contiguous", image[layout : layout + 2], b"\x03\x01")
        self.rows_at, self.max_rows_at = space + 8, space + 16
        self.address_at, self.size_at = layout + 2, layout + 10
        self.data_at = len(image)
        self.attributes = dict(_numeric_attributes(image, group_at))
        numbers = (self.rows_at, self.max_rows_at, self.address_at, self.size_at)
        got = tuple(_number(image, at) for at in numbers)
        _expect("no rows yet, nowhere", got, (0, 0, _UNDEFINED, 0))
        _expect("numbers within one page", [at for at in numbers if at % _PAGE > _PAGE - 8], [])


def _image(
    table: str, attributes: Mapping[str, Any], rows: NDArray[np.void]
) -> tuple[bytes, _Layout]:
    """The bytes of a whole file with `rows`, and where to change it."""
    if not len(rows):
        raise ValueError("expected at least one row")
    memory = io.BytesIO()
    with h5py.File(memory, "w", libver=("earliest", "v108")) as file:
        dataset = file.create_dataset(table, shape=(0,), dtype=rows.dtype)
        dataset.parent.attrs.update(attributes)
        group_at = h5py.h5o.get_info(dataset.parent.id).addr
        table_at = h5py.h5o.get_info(dataset.id).addr
    image = bytearray(memory.getvalue())
    layout = _Layout(bytes(image), group_at, table_at)
    for at, value in (
        (_EOF_AT, _ahead(len(image) + rows.nbytes)),
        (layout.size_at, rows.nbytes),
        (layout.address_at, layout.data_at),
        (layout.max_rows_at, len(rows)),
        (layout.rows_at, len(rows)),
    ):
        struct.pack_into("<Q", image, at, value)
    return bytes(image) + rows.tobytes(), layout


def _publish(partial: Path, path: Path) -> None:
    """Give the whole file its name; a file that has it already is never replaced."""
    taken = RecordingError(f"{path}: a file of this name exists: choose another name or move it")
    try:
        os.link(partial, path)
    except FileExistsError as error:
        raise taken from error
    except OSError:  # a file system without hard links, as on many memory cards
        with contextlib.suppress(FileNotFoundError):
            os.stat(path)
            raise taken from None
        os.rename(partial, path)


def _messages(image: bytes, at: int) -> Iterator[tuple[int, int, int]]:
    """(type, offset of the body, its length) for each message of an object header, version 1."""
    version, count, _, size = struct.unpack_from("<BxHII", image, at)
    _expect("object header 1", version, 1)
    blocks = [(at + 16, size)]
    while blocks:
        start, length = blocks.pop(0)
        body = start
        while body + 8 <= start + length and count > 0:
            kind, size = struct.unpack_from("<HH", image, body)
            body, count = body + 8, count - 1
            if kind == _CONTINUATION:
                blocks.append(struct.unpack_from("<QQ", image, body))
            yield kind, body, size
            body += size


def _numeric_attributes(image: bytes, group_at: int) -> Iterator[tuple[str, tuple[int, str]]]:
    """(name, (offset, struct format)) of each attribute that is one float64 or int64."""
    for kind, at, _ in _messages(image, group_at):
        if kind != _ATTRIBUTE:
            continue
        version, name_size, type_size, space_size = struct.unpack_from("<BxHHH", image, at)
        _expect("attribute message 1", version, 1)
        name = image[at + 8 : at + 8 + name_size].rstrip(b"\0").decode()
        type_at = at + 8 + _padded(name_size)
        value_at = type_at + _padded(type_size) + _padded(space_size)
        number_class, bytes_each = (
            image[type_at] & 0x0F,
            struct.unpack_from("<I", image, type_at + 4),
        )
        if bytes_each == (8,) and number_class in (0, 1):
            yield name, (value_at, "<q" if number_class == 0 else "<d")


def _ahead(end: int) -> int:
    return end + AHEAD_BYTES


def _padded(size: int) -> int:
    return -(-size // 8) * 8


def _number(image: bytes, at: int) -> int:
    return int(struct.unpack_from("<Q", image, at)[0])


def _expect(what: str, got: object, want: object) -> None:
    """Refuse a layout that this module does not know, before a single sample is recorded."""
    if got != want:
        raise RecordingError(
            f"the HDF5 library {h5py.version.hdf5_version} lays files out in another way than "
            f"expected ({what}: expected {want!r}, got {got!r}): install h5py 3.16"
        )
