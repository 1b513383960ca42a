"""Samples in, decisions out: the live path, and the same computed in one go for comparison."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embridge.device.decision import Decision, Voter, decide
from embridge.device.errors import ConfigError
from embridge.device.frontend import UserProfile
from embridge.device.manifest import INT8_STAGES, RUNTIME_STAGES
from embridge.device.package import Package
from embridge.device.runtimes import EncoderRuntime, open_runtime
from embridge.device.windows import WindowBuffer, window_starts


@dataclass(frozen=True)
class Model:
    """An opened package: encoder of one stage, gallery, rule and, if known, the wearer."""

    package: Package
    stage: str
    runtime: EncoderRuntime
    voter: Voter
    profile: UserProfile | None

    @property
    def tier(self) -> str:
        """T0 without a user profile, T1 with one from unlabelled EMG."""
        return "T1" if self.profile else "T0"

    def query(self, window: NDArray[np.float32]) -> NDArray[np.generic]:
        """window: (C, T) encoder input -> int8 codes or float embedding, (D,) or (M, D)."""
        if self.stage in INT8_STAGES:
            return self.runtime.codes(window)
        return self.runtime.embed(window)

    def decide(self, start: int, window: NDArray[np.float32]) -> Decision:
        """window: (C, T) encoder input that begins at sample `start` -> decision."""
        manifest = self.package.manifest
        query = self.query(window)
        return decide(self.voter, tuple(manifest.labels), manifest.decision, start, query)


def open_model(package: Package, stage: str, profile: UserProfile | None = None) -> Model:
    """Open a package's encoder for one stage; raises PackageError or ConfigError."""
    if profile:
        profile.check(package.manifest.front_end)
    runtime = open_encoder(package, stage)
    voter = Voter(package.gallery(stage), package.manifest.decision.k)
    return Model(package, stage, runtime, voter, profile)


def open_encoder(package: Package, stage: str) -> EncoderRuntime:
    """Load the artefact of a stage that runs without torch; PackageError or ConfigError."""
    if stage not in RUNTIME_STAGES:
        raise ConfigError(f"stage {stage!r}: expected one of {', '.join(RUNTIME_STAGES)}")
    manifest = package.manifest
    return open_runtime(
        stage,
        package.artefact(stage),
        channels=manifest.input.channels,
        window=manifest.input.window,
        embedding_dim=manifest.embedding.dim,
        queries=manifest.embedding.queries,
        scale=manifest.embedding.scale,
        zero_point=manifest.embedding.zero_point,
    )


class Pipeline:
    """The live path: push samples as they come, get the decisions they complete."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._front_end = model.package.manifest.front_end
        spec = model.package.manifest.input
        self._buffer = WindowBuffer(spec.channels, spec.window, spec.hop)
        self._stream = self._front_end.stream()

    def restart(self, first_sample: int) -> None:
        """Begin anew at this sample, as after a gap: nothing is bridged across it."""
        self._buffer.restart(first_sample)
        self._stream = self._front_end.stream()

    def push(self, samples: NDArray[np.float32]) -> list[Decision]:
        """samples: (T, C) in the unit of the package -> decisions."""
        filtered = self._stream.push(samples)
        normalised = self._front_end.normalise(filtered, self._model.profile)
        return [
            self._model.decide(start, window) for start, window in self._buffer.push(normalised)
        ]


def decide_recording(
    model: Model,
    samples: NDArray[np.float32],
    sample_index: NDArray[np.int64] | None = None,
) -> list[Decision]:
    """All decisions of a whole recording (T, C), filtered and windowed in one go.

    sample_index: (T,), of each sample in its stream; where it jumps, nothing is bridged, as live
    """
    index = np.arange(len(samples)) if sample_index is None else sample_index
    cuts = np.flatnonzero(np.diff(index) != 1) + 1
    return [
        decision
        for rows in np.split(np.arange(len(samples)), cuts)
        for decision in _decide_piece(model, samples[rows], int(index[rows[0]]))
    ]


def _decide_piece(model: Model, samples: NDArray[np.float32], first: int) -> list[Decision]:
    """Decisions of consecutive samples (T, C), the first of which has this index."""
    spec = model.package.manifest.input
    front_end = model.package.manifest.front_end
    normalised = front_end.normalise(front_end.filtered(samples), model.profile).T  # C T
    end = first + normalised.shape[1]
    return [
        model.decide(
            start, np.ascontiguousarray(normalised[:, start - first : start - first + spec.window])
        )
        for start in window_starts(end, spec.window, spec.hop, first)
    ]
