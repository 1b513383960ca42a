"""One grid of windows: streamed in any chunks, after any restart, as on the whole array."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from embridge.device.windows import WindowBuffer, window_starts

Cut = tuple[int, NDArray[np.float32]]


def ramp(samples: int, first: int = 0) -> NDArray[np.float32]:
    """(T, 2) whose values are their own sample index, so that a window shows where it lay."""
    index = np.arange(first, first + samples, dtype=np.float32)
    return np.stack([index, -index], axis=1)


def push_in_chunks(
    buffer: WindowBuffer, samples: NDArray[np.float32], cuts: list[int]
) -> list[Cut]:
    parts = np.split(samples, sorted(min(cut, len(samples)) for cut in cuts))
    return [found for part in parts for found in buffer.push(part)]


sizes = {
    "samples": st.integers(0, 120),
    "window": st.integers(1, 40),
    "hop": st.integers(1, 50),
    "cuts": st.lists(st.integers(0, 120), max_size=10),
}


@given(**sizes)
def test_streaming_in_any_chunks_cuts_the_windows_of_the_whole_array(
    samples: int, window: int, hop: int, cuts: list[int]
) -> None:
    whole = ramp(samples)
    found = push_in_chunks(WindowBuffer(2, window, hop), whole, cuts)
    assert [start for start, _ in found] == list(window_starts(samples, window, hop))
    assert all(np.array_equal(cut, whole[start : start + window].T) for start, cut in found)


@given(**sizes, before=st.integers(0, 60), gap=st.integers(0, 60))
def test_no_window_spans_a_restart_and_starts_stay_on_the_grid(
    samples: int, window: int, hop: int, cuts: list[int], before: int, gap: int
) -> None:
    buffer = WindowBuffer(2, window, hop)
    push_in_chunks(buffer, ramp(before), cuts)
    first = before + gap
    buffer.restart(first)
    after = ramp(samples, first)
    found = push_in_chunks(buffer, after, cuts)
    starts = [start for start, _ in found]
    assert starts == list(window_starts(first + samples, window, hop, first))
    assert all(start % hop == 0 and start >= first for start in starts)
    for start, cut in found:
        assert np.array_equal(cut, after[start - first : start - first + window].T)


@given(samples=st.integers(0, 200), window=st.integers(1, 50), hop=st.integers(1, 60))
def test_the_grid_has_every_whole_window_and_no_other(samples: int, window: int, hop: int) -> None:
    expected = [start for start in range(0, samples, hop) if start + window <= samples]
    assert list(window_starts(samples, window, hop)) == expected


@given(samples=st.integers(0, 5000), chunk=st.integers(1, 300))
def test_the_buffer_keeps_less_than_a_window_and_a_chunk(samples: int, chunk: int) -> None:
    buffer = WindowBuffer(2, window=100, hop=30)
    for start in range(0, samples, chunk):
        list(buffer.push(ramp(chunk, start)))
        assert len(buffer._samples) < 100


def test_windows_are_contiguous_copies() -> None:
    """Runtimes take the memory as it is, and a later push must not change an earlier window."""
    buffer = WindowBuffer(2, window=4, hop=1)
    samples = ramp(6)
    windows = [window for _, window in buffer.push(samples)]
    samples[:] = 99
    assert all(window.flags.c_contiguous and window.shape == (2, 4) for window in windows)
    assert [window[0, 0] for window in windows] == [0, 1, 2]
