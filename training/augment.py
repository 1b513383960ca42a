"""What differs from one wearing of the band to the next, made up at random during training."""

import numpy as np
from numpy.typing import NDArray

from embridge.training.part import ALL, Part


def jitter(
    emg: NDArray[np.float32], amount: float, rng: np.random.Generator, part: Part = ALL
) -> NDArray[np.float32]:
    """Gain and offset noise per channel of (B, C, T), `amount` in standard deviations.

    part: which of a batch `emg` is; noise is drawn for the whole batch
    """
    shape = (part.world * len(emg), emg.shape[1], 1)
    gain = 1 + amount * part.of(rng.standard_normal(shape, np.float32))
    return np.asarray(emg * gain + amount * part.of(rng.standard_normal(shape, np.float32)))


def rotate(
    emg: NDArray[np.float32],
    ring: int,
    most: float,
    rng: np.random.Generator,
    part: Part = ALL,
    *,
    whole: bool,
) -> NDArray[np.float32]:
    """Turn the band by up to `most` electrodes either way, each window by its own angle.

    emg: (B, C, T); every full `ring` of channels turns, further channels stay where they are
    whole: by whole electrodes, as emg2pose does (roll by -1, 0 or 1); raw signals of neighbours
    must not be mixed. Envelopes are interpolated between the two nearest electrodes.
    part: which of a batch `emg` is; turns are drawn for the whole batch
    """
    turn = part.of(rng.uniform(-most, most, part.world * len(emg)).astype(np.float32))  # B
    if whole:
        turn = np.rint(turn * (1 + 0.5 / max(most, 0.5)))  # the outermost turns are as likely
    turned = emg.copy()
    below = np.floor(turn)
    over = (turn - below)[:, None, None]  # B 1 1
    window = np.arange(len(emg))[:, None]
    for first in range(0, emg.shape[1] - ring + 1, ring):
        near = first + (np.arange(ring) + below[:, None].astype(np.int64)) % ring  # B ring
        far = first + (near - first + 1) % ring
        turned[:, first : first + ring] = (1 - over) * emg[window, near] + over * emg[window, far]
    return turned


def mixtures(
    emg: NDArray[np.float32],
    others: NDArray[np.float32],
    rng: np.random.Generator,
    part: Part = ALL,
) -> NDArray[np.float32]:
    """Each window of (B, C, T) with one of `others`, on the line through both: s x + (1 - s) y.

    s is uniform in [-0.5, 1.5]: muscles together that no gesture shown uses together, and more or
    less of each. Nobody's pose goes with it.
    part: which of a batch `emg` is; s is drawn for the whole batch
    """
    share = rng.uniform(-0.5, 1.5, (part.world * len(emg), 1, 1)).astype(np.float32)
    s = part.of(share)
    return s * emg + (1 - s) * others
