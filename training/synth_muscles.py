"""Which muscles hold a hand pose, and how strongly: step 1 of the forward model in `synth_model`.

Joint excursion x_j = (q_j - rest_j) / range_j, led by the muscle: x_j + tau dx_j/dt, tau = 0.08 s
(electromechanical delay, Cavanagh & Komi 1979). Flexors follow [x]+ and extensors [-x]+ through a
fixed non-negative map W that each user weighs differently; neighbouring fingers are coupled
(enslaving, Zatsiorsky et al. 2000); the antagonist co-contracts:
    a = min(1, s (tone + 0.3 (1 + kappa A) W u)), u = ([x]+, [-x]+)
with s the user's strength per muscle, kappa the co-contraction, A the pairs of antagonists.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embridge.device.emg2pose import JOINT_NAMES
from embridge.device.recordings import REST
from embridge.training.synth_poses import STAGES, pose_of

Floats = NDArray[np.float64]

_LEAD_S = 0.08
_TONE = 0.012

# Muscle: angle around the forearm (deg, 0 palm side, 90 thumb side, 180 back of the hand), distance
# from its axis as a share of the ring's radius, antagonist, and W: the share of each joint's
# excursion, by direction, that it drives.
_MUSCLES: dict[str, tuple[float, float, str, dict[str, float]]] = {
    "FPL": (55, 0.60, "EPL", {"+THUMB_IP_FE": 0.6, "+THUMB_MCP_FE": 0.4, "+THUMB_CMC_FE": 0.2}),
    "FDS_INDEX": (22, 0.66, "EDC_INDEX", {"+INDEX_PIP_FE": 0.6, "+INDEX_MCP_FE": 0.3}),
    "FDS_MIDDLE": (2, 0.76, "EDC_MIDDLE", {"+MIDDLE_PIP_FE": 0.6, "+MIDDLE_MCP_FE": 0.3}),
    "FDS_RING": (-20, 0.76, "EDC_RING", {"+RING_PIP_FE": 0.6, "+RING_MCP_FE": 0.3}),
    "FDS_PINKY": (-42, 0.68, "EDC_PINKY", {"+PINKY_PIP_FE": 0.6, "+PINKY_MCP_FE": 0.3}),
    "FDP_RADIAL": (-5, 0.45, "EIP", {"+INDEX_DIP_FE": 0.6, "+MIDDLE_DIP_FE": 0.3}),
    "FDP_ULNAR": (
        -72, 0.60, "EDM", {"+MIDDLE_DIP_FE": 0.2, "+RING_DIP_FE": 0.4, "+PINKY_DIP_FE": 0.4},
    ),
    "EDM": (-140, 0.76, "FDP_ULNAR", {"-PINKY_MCP_FE": 0.6, "+PINKY_MCP_AA": 0.5}),
    "EDC_PINKY": (-158, 0.70, "FDS_PINKY", {"-PINKY_MCP_FE": 0.4, "-PINKY_PIP_FE": 0.4}),
    "EDC_RING": (-173, 0.78, "FDS_RING",
        {"-RING_MCP_FE": 0.6, "-RING_PIP_FE": 0.3, "+RING_MCP_AA": 0.3}),
    "EDC_MIDDLE": (170, 0.78, "FDS_MIDDLE",
        {"-MIDDLE_MCP_FE": 0.6, "-MIDDLE_PIP_FE": 0.3, "+MIDDLE_MCP_AA": 0.3}),
    "EDC_INDEX": (153, 0.76, "FDS_INDEX",
        {"-INDEX_MCP_FE": 0.5, "-INDEX_PIP_FE": 0.3, "+INDEX_MCP_AA": 0.4}),
    "EIP": (162, 0.48, "FDP_RADIAL", {"-INDEX_MCP_FE": 0.6, "-INDEX_DIP_FE": 0.2}),
    "EPL": (130, 0.58, "FPL", {"-THUMB_IP_FE": 0.6, "-THUMB_MCP_FE": 0.4}),
    "APL": (98, 0.76, "FPL", {"+THUMB_CMC_AA": 0.7, "-THUMB_CMC_FE": 0.4}),
    "ECR": (112, 0.70, "FDS_MIDDLE", {  # holds the wrist against the flexors of a grip
        "+INDEX_MCP_FE": 0.15, "+MIDDLE_MCP_FE": 0.2, "+RING_MCP_FE": 0.15}),
}  # fmt: skip
MUSCLES = tuple(_MUSCLES)
PLACES = np.array([entry[:2] for entry in _MUSCLES.values()], np.float64)  # (M, 2), as above
_NEIGHBOURS = (
    1.0,
    0.15,
    0.05,
    0.0,
)  # share of a finger's drive that its 0th, 1st... neighbour gets
_EFFORT = 0.30  # share of full activation that holds a free hand at the end of a joint's range


@dataclass(frozen=True, slots=True)
class Control:
    """How one user activates muscles; M muscles."""

    strength: Floats  # (M,)
    drive: Floats  # (M, 40) W with the coupling of fingers
    cocontraction: float


def draw_control(random: np.random.Generator) -> Control:
    """A user: strengths and weights scattered about the fixed map."""
    return Control(
        strength=random.lognormal(0.0, 0.35, len(MUSCLES)),
        drive=_DRIVE * random.lognormal(0.0, 0.5, _DRIVE.shape),
        cocontraction=random.uniform(0.10, 0.25),
    )


def activations(pose: Floats, rate_hz: float, control: Control) -> Floats:
    """Pose (T, 20) in rad -> activation (T, M) in 0..1."""
    excursion = pose - pose_of(REST)
    excursion = excursion + _LEAD_S * rate_hz * np.gradient(excursion, axis=0)
    up, down = np.maximum(excursion, 0.0) / _UPWARD, np.maximum(-excursion, 0.0) / _DOWNWARD
    drive = np.concatenate([up, down], axis=1) @ control.drive.T  # T M
    drive += control.cocontraction * drive @ _ANTAGONIST.T
    return np.asarray(np.clip(control.strength * (_TONE + _EFFORT * drive), 0.0, 1.0))


def _joint_ranges() -> tuple[Floats, Floats]:
    """How far each joint goes up and down from rest in any gesture, (20,) rad, at least 0.2."""
    excursions = np.stack([pose_of(stage) - pose_of(REST) for stage in STAGES])
    return np.maximum(excursions.max(axis=0), 0.2), np.maximum(-excursions.min(axis=0), 0.2)


def _drive_map() -> Floats:
    """W with the coupling of neighbouring fingers, (M, 40): 20 joints upward, then downward."""
    joints = len(JOINT_NAMES)
    weights = np.zeros((len(MUSCLES), 2 * joints))
    for row, (_, _, _, drives) in enumerate(_MUSCLES.values()):
        for joint, weight in drives.items():
            weights[row, JOINT_NAMES.index(joint[1:]) + joints * (joint[0] == "-")] = weight
    fingers = np.arange(5)
    coupling = np.take(_NEIGHBOURS, np.minimum(np.abs(fingers[:, None] - fingers), 3))
    coupling[0], coupling[:, 0] = fingers == 0, fingers == 0  # the thumb moves by itself
    return np.asarray(weights @ np.kron(np.eye(2), np.kron(coupling, np.eye(4))))


def _antagonists() -> Floats:
    """A, (M, M): 1 where the column's muscle is the antagonist of the row's."""
    names = [antagonist for _, _, antagonist, _ in _MUSCLES.values()]
    return np.array([[float(name == muscle) for muscle in MUSCLES] for name in names])


_UPWARD, _DOWNWARD = _joint_ranges()
_DRIVE = _drive_map()
_ANTAGONIST = _antagonists()
