"""Recordings -> encoders: EMBridge's recipe at a size that trains in minutes, or at the paper's.

    recordings -> study (users and gestures split) -> windows
      -> phases: pose MAE, EMG MAE, alignment of `base`, distillation of `watch` -> run_folder

config              TOML and overrides; configs/ holds the presets
study, windows      who is held out, what is unseen, where windows lie
encoders, watch     the networks; models builds them
losses, phases      InfoNCE, CASCLe, MPRL, distillation, and the order they are used in
trainer             steps, checkpoints, resuming
gallery, evaluate   pose gallery and zero-shot scores with intervals; baselines: ridge regression
synth*              synthetic recordings from a forward model
"""
