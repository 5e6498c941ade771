"""LPIPS (Zhang et al. 2018) without torchvision or the network: what it needs is found or named.

The metric runs an ImageNet classifier (VGG16 or AlexNet), whose weights must be on the machine, and
small linear heads, which the `lpips` package carries. That package is located but never
imported: it imports torchvision, which fails beside a CPU-only torch.
"""

import importlib.util
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

Network = Literal["vgg", "alex"]

# VGG16's blocks: channels and number of 3x3 convolutions; a pooling layer lies between blocks.
_VGG_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
# AlexNet's convolutions: channels, kernel, stride, padding.
_ALEX_CONVOLUTIONS = (
    (64, 11, 4, 2),
    (192, 5, 1, 2),
    (384, 3, 1, 1),
    (256, 3, 1, 1),
    (256, 3, 1, 1),
)
# Alex pools before its second and third convolution.
_ALEX_POOLED = (1, 2)
_CHANNELS: dict[Network, tuple[int, ...]] = {
    "vgg": tuple(channels for channels, _ in _VGG_BLOCKS),
    "alex": tuple(layer[0] for layer in _ALEX_CONVOLUTIONS),
}
# Names under which torch's hub stores the classifiers.
_FILE_PATTERNS: dict[Network, str] = {"vgg": "vgg16-*.pth", "alex": "alexnet-*.pth"}
# ImageNet's mean and deviation for inputs in [-1, 1], as the heads were trained with.
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_EPSILON = 1e-10
_LOAD_ERRORS = (pickle.UnpicklingError, RuntimeError, ValueError, LookupError, EOFError, OSError)


@dataclass(frozen=True)
class Unavailable:
    """LPIPS cannot be computed here.

    Attributes:
        reason: What is missing and how to get it, one sentence or two.
    """

    reason: str


class Lpips(nn.Module):
    """The metric with its weights; call it with two pictures.

    Attributes:
        network: "vgg" or "alex"; values of the two are not comparable, so reports name it.
    """

    def __init__(self, network: Network) -> None:
        """Build the network with random weights.

        Args:
            network: Which classifier.
        """
        super().__init__()
        self.network: Network = network
        self.slices = nn.ModuleList(_slices(network))
        self.heads = nn.ParameterList(torch.rand(channels) for channels in _CHANNELS[network])
        self.register_buffer("shift", torch.tensor(_SHIFT)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE)[:, None, None], persistent=False)
        self.requires_grad_(False)

    def forward(
        self, a_srgb: Float[Tensor, "height width 3"], b_srgb: Float[Tensor, "height width 3"]
    ) -> Float[Tensor, ""]:
        """Distance of two pictures, sRGB in [0, 1], at least 32 pixels wide and high; 0 is equal.

        Differentiable in both.
        """
        pair = torch.stack([a_srgb, b_srgb]).permute(0, 3, 1, 2)
        pair = (2.0 * pair - 1.0 - self.get_buffer("shift")) / self.get_buffer("scale")
        distance = pair.new_zeros(())
        for piece, head in zip(self.slices, self.heads, strict=True):
            pair = piece(pair)
            # Where nothing is active, the root would have no gradient.
            length = (pair**2).sum(1, keepdim=True).clamp_min(_EPSILON**2).sqrt()
            unit = pair / (length + _EPSILON)
            distance = distance + (head[:, None, None] * (unit[0] - unit[1]) ** 2).sum(0).mean()
        return distance


def _slices(network: Network) -> list[nn.Sequential]:
    """The classifier's convolutional part, cut after each layer whose output is compared.

    Chained, the slices number their layers as torchvision does, so that its weight files fit.
    """
    slices, channels = [], 3
    if network == "vgg":
        for block, (width, count) in enumerate(_VGG_BLOCKS):
            layers: list[nn.Module] = [] if block == 0 else [nn.MaxPool2d(2, 2)]
            for _ in range(count):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            slices.append(nn.Sequential(*layers))
        return slices
    for index, (width, kernel, stride, padding) in enumerate(_ALEX_CONVOLUTIONS):
        layers = [nn.MaxPool2d(3, 2)] if index in _ALEX_POOLED else []
        layers += [nn.Conv2d(channels, width, kernel, stride, padding), nn.ReLU()]
        slices.append(nn.Sequential(*layers))
        channels = width
    return slices


def lpips_metric(weights: Path | None = None) -> Lpips | Unavailable:
    """Load LPIPS from files on this machine; nothing is ever downloaded.

    Args:
        weights: File of a classifier's weights as torchvision publishes them (VGG16 or AlexNet,
            recognised by content). None looks in torch's hub folder (`TORCH_HOME`), VGG16 first.

    Returns:
        The metric, on the CPU, or why there is none.

    Raises:
        FileNotFoundError: `weights` was given and does not exist.
        ValueError: `weights` was given and does not hold such weights.
    """
    if weights is not None:
        if not weights.is_file():
            raise FileNotFoundError(f"no LPIPS weights {weights}.")
        return _load(weights)
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    found = [path for pattern in _FILE_PATTERNS.values() for path in sorted(folder.glob(pattern))]
    if not found:
        return Unavailable(
            f"no VGG16 or AlexNet weights in {folder}. Put vgg16-397923af.pth from "
            "https://download.pytorch.org/models/ there, or pass its path with --lpips-weights"
        )
    try:
        return _load(found[0])
    except ValueError as error:
        return Unavailable(str(error))


def _load(weights: Path) -> Lpips | Unavailable:
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except _LOAD_ERRORS as error:
        raise ValueError(f"{weights} is no readable file of weights, or truncated.") from error
    first = state.get("features.0.weight") if isinstance(state, Mapping) else None
    kernels: dict[int, Network] = {3: "vgg", 11: "alex"}
    if not isinstance(first, Tensor) or first.shape[-1] not in kernels:
        raise ValueError(
            f"{weights} holds no VGG16 or AlexNet of torchvision: 'features.0.weight' is missing "
            "or has an unknown size."
        )
    network = kernels[first.shape[-1]]
    heads = _heads_file(network)
    if heads is None:
        return Unavailable("the package 'lpips', which carries the trained heads, is not installed")
    metric = Lpips(network)
    try:
        _fill(metric, state, torch.load(heads, map_location="cpu", weights_only=True))
    except (RuntimeError, LookupError) as error:
        raise ValueError(f"the weights in {weights} do not fit {network}: {error}.") from error
    return metric


def _fill(metric: Lpips, state: Mapping[str, Tensor], heads: Mapping[str, Tensor]) -> None:
    """Copy weights under torchvision's and lpips's names into the metric."""
    layers = [layer for piece in metric.slices for layer in piece.children()]
    for index, layer in enumerate(layers):
        if isinstance(layer, nn.Conv2d):
            layer.load_state_dict(
                {name: state[f"features.{index}.{name}"] for name in ("weight", "bias")}
            )
    for index, head in enumerate(metric.heads):
        head.data.copy_(heads[f"lin{index}.model.1.weight"].flatten())


def _heads_file(network: Network) -> Path | None:
    """Where the installed lpips package keeps the trained heads of a network."""
    package = importlib.util.find_spec("lpips")
    for folder in (package.submodule_search_locations or []) if package else []:
        path = Path(folder) / "weights" / "v0.1" / f"{network}.pth"
        if path.is_file():
            return path
    return None
