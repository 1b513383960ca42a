"""Recordings -> encoders: EMBridge's recipe at a size that trains in minutes, or at the paper's.

    recordings -> study (users and gestures split) -> windows
      -> phases: pose MAE, EMG MAE, alignment of `base`, distillation of `watch` -> run_folder

config, method      TOML and overrides; configs/ holds the presets, methods/ the paper's rows
study, windows      who is held out, what is unseen, where windows lie
encoders, qformer   EMBridge's networks; base: the EMG side with its head; watch: for MCUs
models              builds what a method needs, loads it from a run
losses, mprl        InfoNCE, CASCLe, SoftCLIP, label smoothing; masked pose reconstruction
mae, supervised     what is trained by itself; align, distil: assemble each stage's loss
phases              which of these a method goes through, on what batches
trainer             steps, checkpoints, resuming
gallery, evaluate   pose gallery and zero-shot scores with intervals; baselines: ridge regression
paper               the paper's figures: zero-shot by user, linear probe, few-shot; published ones
less_data           the same share of everybody's training windows
watch_stream        `watch` sample by sample; watch_cost: what that, and its int8, costs
synth*              synthetic recordings from a forward model, in emg2pose's and NinaPro's layouts
"""
