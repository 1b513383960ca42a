"""The referee's windows as the device's front-end makes encoder input of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from embridge.device.electrodes import fit_band
from embridge.device.frontend import (
    FrontEnd,
    UserProfile,
    fit_profile,
    fit_signature,
)
from embridge.device.moments import Moments
from embridge.training.table.protocol import TrainSet, UserData


@dataclass(frozen=True)
class EncoderInputs:
    """front_end: root-compressed, standardised, with the training users' band; profiles: theirs."""

    front_end: FrontEnd
    profiles: tuple[UserProfile, ...]

    @classmethod
    def of(cls, training: TrainSet, *, align: bool) -> Self:
        """Measured on the training users' calibration repetitions, as on a test user's."""
        channels = training.emg.shape[1]
        bare = FrontEnd(
            rate_hz=training.rate_hz, sos=[], compression="root", compression_floor=1.0,
            offset=[0.0] * channels, scale=[1.0] * channels,
        )  # fmt: skip
        moments = Moments(channels)
        moments.add(np.concatenate(_blocks(bare, training.emg)))
        front_end = bare.model_copy(
            update={"offset": moments.mean.tolist(), "scale": moments.spread.tolist()}
        )
        own = [
            _blocks(bare, training.emg[training.calibration & (training.user == number)])
            for number in range(len(training.users))
        ]
        if align:
            signatures = [fit_signature(front_end, blocks) for blocks in own]
            band = fit_band(signatures, training.ring, reflect=True)
            front_end = front_end.model_copy(update={"band": band})
        profiles = [
            fit_profile(front_end, user, blocks)
            for user, blocks in zip(training.users, own, strict=True)
        ]
        return cls(front_end, tuple(profiles))

    def of_user(self, user: UserData) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        """(N, C, T) in volts -> (N, C, T), by the user's profile where the tier allows one."""
        profile = None
        if user.emg is not None:
            profile = fit_profile(self.front_end, "test", _blocks(self.front_end, user.emg))
        return lambda emg: self.normalised(emg, profile)

    def of_training(self, training: TrainSet, *, profiles: bool = True) -> NDArray[np.float32]:
        """(N, C, T) of all training windows, by their users' profiles or the population's."""
        made = np.empty_like(training.emg)
        for number, profile in enumerate(self.profiles):
            mine = training.user == number
            made[mine] = self.normalised(training.emg[mine], profile if profiles else None)
        return made

    def normalised(
        self, emg: NDArray[np.float32], profile: UserProfile | None
    ) -> NDArray[np.float32]:
        """(N, C, T) in volts -> (N, C, T)."""
        count, channels, _ = emg.shape
        rows = self.front_end.filtered(emg.transpose(0, 2, 1).reshape(-1, channels))
        shaped = self.front_end.normalise(rows, profile).reshape(count, -1, channels)
        return np.ascontiguousarray(shaped.transpose(0, 2, 1))


def _blocks(front_end: FrontEnd, emg: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """One block (T, C) for each window, filtered; no filter rings from one into the next."""
    return [front_end.filtered(window.T) for window in emg]
