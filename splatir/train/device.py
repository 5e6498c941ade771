"""Which device does a `--device` option mean?"""

import torch


def pick_device(name: str) -> torch.device:
    """The device that a `--device` option means.

    Raises:
        ValueError: CUDA was asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("no CUDA device was found; use --device cpu, or auto.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
