"""RobPicker in pure JAX: particle picking in cryo-electron tomograms from noisy labels, by exact bi-level training."""

__version__ = "0.1.0"
