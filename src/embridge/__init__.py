"""Zero-shot sEMG gestures on watch-class hardware: train, quantize, flash, run, prove."""

__version__ = "0.1.0"
