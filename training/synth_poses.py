"""Scripted hand poses: twelve gestures and rest as 20 joint angles, and how a hand moves in them.

A gesture is a choice of one configuration per finger, so a gesture that training never saw is still
made of finger configurations that it did see (`FINGERS_OF` is the whole table). Angles are in
emg2pose's order, flexion and abduction positive.
"""

import numpy as np
from numpy.typing import NDArray

from embridge.device.errors import ConfigError
from embridge.device.recordings import REST

# Joint angles in radians: thumb CMC_FE CMC_AA MCP_FE IP_FE, fingers MCP_AA MCP_FE PIP_FE DIP_FE.
_THUMB = {
    "relaxed": (0.20, 0.30, 0.20, 0.20),
    "in": (0.70, 0.05, 0.75, 0.80),  # across the palm
    "out": (-0.25, 0.75, -0.05, -0.10),  # stretched away
    "opposed": (0.60, 0.75, 0.45, 0.35),  # tip against the index finger
}
_FINGER = {
    "relaxed": (0.0, 0.35, 0.50, 0.25),
    "flexed": (0.0, 1.30, 1.60, 0.85),
    "straight": (0.0, -0.05, 0.05, 0.03),
    "spread": (0.30, -0.12, 0.03, 0.02),
    "curled": (0.05, 0.80, 0.95, 0.50),
}
_F, _S, _A, _C = "flexed", "straight", "spread", "curled"
FINGERS_OF = {  # thumb, index, middle, ring, little finger
    "fist": ("in", _F, _F, _F, _F),
    "open_hand": ("out", _S, _S, _S, _S),
    "spread_fingers": ("out", _A, _A, _A, _A),
    "point_index": ("in", _S, _F, _F, _F),
    "peace": ("in", _A, _A, _F, _F),
    "three_fingers": ("in", _S, _S, _S, _F),
    "four_fingers": ("in", _S, _S, _S, _S),
    "horns": ("in", _S, _F, _F, _S),
    "shaka": ("out", _F, _F, _F, _A),
    "thumbs_up": ("out", _F, _F, _F, _F),
    "pinch": ("opposed", _C, _F, _F, _F),
    "ok_sign": ("opposed", _C, _S, _A, _A),
    REST: ("relaxed",) * 5,
}
STAGES = tuple(FINGERS_OF)

_RESOLUTION_RAD = 2.0**-12  # of the angles written; finer than hand tracking, and compresses well


def pose_of(gesture: str) -> NDArray[np.float32]:
    """Joint angles of a gesture held in full, (20,) in rad; raises ConfigError if it is unknown."""
    if gesture not in FINGERS_OF:
        raise ConfigError(f"expected a gesture out of {', '.join(STAGES)}, got '{gesture}'")
    thumb, *fingers = FINGERS_OF[gesture]
    angles = [*_THUMB[thumb], *(angle for finger in fingers for angle in _FINGER[finger])]
    return np.array(angles, np.float32)


def movement(
    gesture: str, samples: int, rate_hz: float, random: np.random.Generator
) -> NDArray[np.float32]:
    """Angles of a hand that performs `gesture` without ever returning to rest, (T, 20) in rad.

    pose(t) = rest + a(t) k (target - rest) + wiggle(t): a(t) swings slowly between 0.6 and 1, k is
    a small personal exaggeration per joint, and every finger wiggles by itself. Frequencies,
    phases and k come from `random`.
    """
    rest = pose_of(REST).astype(np.float64)
    reach = (pose_of(gesture) - rest) * (1.0 + 0.07 * random.standard_normal(rest.size))
    time_s = np.arange(samples) / rate_hz
    effort = 0.8 + 0.2 * _swing(time_s, random.uniform(0.15, 0.4), random)  # T
    pose = rest + effort[:, None] * reach
    for finger in range(5):
        wiggle = 0.06 * _swing(time_s, random.uniform(0.4, 1.2), random)  # T
        first = 4 * finger
        flexion = np.arange(first, first + 4) if finger == 0 else np.arange(first + 1, first + 4)
        pose[:, flexion] += wiggle[:, None] * random.uniform(0.5, 1.0, flexion.size)
    return np.asarray(np.round(pose / _RESOLUTION_RAD) * _RESOLUTION_RAD, np.float32)


def _swing(
    time_s: NDArray[np.float64], frequency_hz: float, random: np.random.Generator
) -> NDArray[np.float64]:
    phase = random.uniform(0.0, 2.0 * np.pi)
    return np.asarray(np.sin(2.0 * np.pi * frequency_hz * time_s + phase))
