"""EMBridge's encoders as rows of the table: trained by the recipe, from what the referee hands out.

One training gives `base` and `watch`, and rows that differ in how they decide share it.
"""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from embridge.training.config import Config
from embridge.training.material import Material
from embridge.training.models import Models, batched, build_models
from embridge.training.phases import Recipe
from embridge.training.pose_to_emg import PoseToEmg
from embridge.training.table.forward import RidgeToEmg
from embridge.training.table.inputs import EncoderInputs
from embridge.training.table.protocol import Adapted, Embedder, Floats, Tier, TrainSet, UserData
from embridge.training.table.ridge import mean_pose
from embridge.training.trainer import Trainer

ENCODERS = ("base", "watch")


@dataclass(frozen=True)
class Shape:
    """What of the referee's windows fixes the shape of encoders."""

    channels: int
    joints: int
    window: int
    rate_hz: float


@dataclass(frozen=True)
class _Windows:
    """The referee's windows, made ready: `PairedWindows` of the recipe.

    known, unknown: (N, C, T) by their users' profiles and by the population's
    """

    known: NDArray[np.float32]
    unknown: NDArray[np.float32]
    poses: NDArray[np.float32]
    label: NDArray[np.int64]
    user: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.label)

    def inputs(
        self, index: NDArray[np.int64], population: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Encoder input (B, C, T)."""
        return np.where(population[:, None, None], self.unknown[index], self.known[index])

    def pose(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """(B, J, T)."""
        return self.poses[index]


@dataclass(frozen=True)
class Trained:
    """Encoders of one split and seed."""

    inputs: EncoderInputs
    models: Models


@dataclass
class Trainings:
    """Trains a configuration once for each split and seed."""

    config: Config
    _done: dict[tuple[object, ...], Trained] = field(default_factory=dict)

    def on(self, training: TrainSet, seed: int) -> Trained:
        """The encoders for this split."""
        key = (training.users, training.unseen, seed)
        if key not in self._done:
            self._done[key] = self._train(training, seed)
        return self._done[key]

    def _train(self, training: TrainSet, seed: int) -> Trained:
        """Nobody is held out to choose a step by: the last one counts."""
        optim = self.config.optim
        steps = max(optim.pose_mae_steps, optim.emg_mae_steps, optim.align_steps, optim.watch_steps)
        config = self.config.model_copy(
            update={
                "optim": optim.model_copy(
                    update={"seed": seed, "validate_every": steps, "checkpoint_every": steps}
                )
            }
        )
        inputs = EncoderInputs.of(training, align=config.data.align != "none")
        windows = _Windows(
            inputs.of_training(training),
            inputs.of_training(training, profiles=False),
            training.pose,
            training.label,
            training.user,
        )
        _, channels, samples = training.emg.shape
        shape = Shape(channels, training.pose.shape[1], samples, training.rate_hz)
        torch.set_num_threads(optim.threads)
        models = build_models(config, shape)
        recipe = Recipe(config, Material(windows, windows, training.ring, True), models)
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(recipe.phases(), recipe.modules(), config.optim, Path(folder))
            trainer.fit(resume=False)
        return Trained(inputs, models)


@dataclass
class EncoderPair:
    """A row: one of the EMG encoders with the pose encoder. encoder: of ENCODERS.

    From T2 on, or with guesses in T1, the encoders stay as they are and the prior's part of both
    embeddings is that of the map of the population and the user together.
    """

    trainings: Trainings
    encoder: str
    seed: int
    tier: Tier = Tier.T1
    guess: bool = False
    _trained: Trained = field(init=False)
    _map: RidgeToEmg = field(init=False)

    def fit(self, training: TrainSet) -> None:
        """Train, or take what another row has trained."""
        self._trained = self.trainings.on(training, self.seed)
        self._map = RidgeToEmg(self.tier, guess=self.guess, config=self.trainings.config.prior)
        if self._map.learns_from_user:
            self._map.fit(training)

    def embed_pose(self, pose: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, J, T) -> (N, D)."""
        return batched(self._trained.models.pose, np.array(pose))  # the referee's are read-only

    def adapt(self, user: UserData) -> Adapted:
        """By the user's profile; (N, M, D) for `base`."""
        inputs, models = self._trained.inputs.of_user(user), self._trained.models
        encoder = models.base if self.encoder == "base" else models.watch.embed

        def embed(emg: NDArray[np.float32]) -> NDArray[np.float32]:
            return batched(encoder, inputs(emg))

        if not self._map.learns_from_user:
            return Adapted(embed)
        return self._own(self._map.with_own(user), embed)

    def _own(self, own: PoseToEmg, embed: Embedder) -> Adapted:
        """Both sides in the space of the user's own map; what is learned beside it stays."""
        pose_side = self._trained.models.pose
        prior, share = pose_side.prior, pose_side.share
        if prior is None:
            raise ValueError("expected a configuration with prior.share above 0 for the user's own")

        def with_front(embedded: Floats, front: torch.Tensor) -> Floats:
            learned: Floats = embedded[..., prior.features :]
            return np.concatenate([front.numpy().astype(np.float32), learned], axis=-1)

        def own_emg(emg: NDArray[np.float32]) -> Floats:
            embedded = embed(emg)
            front = torch.from_numpy(embedded[..., : prior.features].copy())
            return with_front(embedded, prior.whitened_as(front, own))

        def own_pose(pose: NDArray[np.float32]) -> Floats:
            means = torch.from_numpy(mean_pose(pose).astype(np.float32))
            return with_front(self.embed_pose(pose), share**0.5 * own(means))

        return Adapted(own_emg, embed_pose=own_pose)
