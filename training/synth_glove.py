"""What a CyberGlove says of a hand: 22 raw sensors from 20 joint angles."""

import numpy as np
from numpy.typing import NDArray

from embridge.device.emg2pose import JOINT_NAMES
from embridge.device.ninapro import GLOVE_SENSORS

Floats = NDArray[np.float64]

_FINGERS = ("THUMB", "INDEX", "MIDDLE", "RING", "PINKY")


def draw_glove(random: np.random.Generator) -> Floats:
    """How a glove sits on one hand: offset and gain of each sensor, (2, 22), uncalibrated."""
    sensors = len(GLOVE_SENSORS)
    return np.stack([random.uniform(60, 110, sensors), random.uniform(35, 60, sensors)])


def raw_glove(pose: Floats, glove: Floats) -> Floats:
    """Joint angles (T, 20) in rad -> raw sensors (T, 22), whole numbers 0..255."""
    offset, gain = glove
    return np.asarray(np.clip(np.round(offset + gain * (pose @ _SENSES)), 0.0, 255.0))


def _senses() -> Floats:
    """(20, 22): which joint angles each sensor adds up."""
    senses = np.zeros((len(JOINT_NAMES), len(GLOVE_SENSORS)))
    for column, sensor in enumerate(GLOVE_SENSORS):
        joint, _, axis = sensor.partition("_")
        if joint == "CMC5":  # the palm's arch follows the little finger
            senses[JOINT_NAMES.index("PINKY_MCP_FE"), column] = 0.3
        elif "-" in joint:  # between two fingers
            first = int(joint[3]) - 1
            senses[JOINT_NAMES.index(f"{_FINGERS[first]}_MCP_AA"), column] = 1.0
            senses[JOINT_NAMES.index(f"{_FINGERS[first + 1]}_MCP_AA"), column] = -1.0
        elif joint != "WRIST":  # the synthetic hand has none
            name = f"{_FINGERS[int(joint[-1]) - 1]}_{joint[:-1]}_{axis}"
            name = name.removesuffix("_F").removesuffix("_A")
            senses[JOINT_NAMES.index(f"{name}_{'AA' if axis == 'A' else 'FE'}"), column] = 1.0
    return senses


_SENSES = _senses()
