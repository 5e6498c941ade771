import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from splatir.evaluate.lpips import Lpips, Unavailable, lpips_metric

# (torchvision's layer index, output channels) per convolution; a list per compared slice.
VGG = [
    [(0, 64), (2, 64)],
    [(5, 128), (7, 128)],
    [(10, 256), (12, 256), (14, 256)],
    [(17, 512), (19, 512), (21, 512)],
    [(24, 512), (26, 512), (28, 512)],
]
ALEX = [
    (0, 64, 11, 4, 2),
    (3, 192, 5, 1, 2),
    (6, 384, 3, 1, 1),
    (8, 256, 3, 1, 1),
    (10, 256, 3, 1, 1),
]


def random_state(network: str) -> dict[str, Tensor]:
    """Random weights under torchvision's names, at a size that keeps activations near 1."""
    g = torch.Generator().manual_seed(0)
    if network == "vgg":
        shapes = [(index, width, 3) for block in VGG for index, width in block]
    else:
        shapes = [(index, width, kernel) for index, width, kernel, _, _ in ALEX]
    state, channels = {"classifier.0.weight": torch.zeros(1)}, 3
    for index, width, kernel in shapes:
        weight = torch.randn(width, channels, kernel, kernel, generator=g)
        state[f"features.{index}.weight"] = weight / (channels * kernel**2 / 2) ** 0.5
        state[f"features.{index}.bias"] = 0.1 * torch.randn(width, generator=g)
        channels = width
    return state


def features(network: str, state: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    found = []
    if network == "vgg":
        for block in VGG:
            if found:
                x = functional.max_pool2d(x, 2)
            for index, _ in block:
                w, b = state[f"features.{index}.weight"], state[f"features.{index}.bias"]
                x = functional.conv2d(x, w, b, padding=1).relu()
            found.append(x)
        return found
    for index, _, _, stride, padding in ALEX:
        if index in (3, 6):
            x = functional.max_pool2d(x, 3, 2)
        w, b = state[f"features.{index}.weight"], state[f"features.{index}.bias"]
        x = functional.conv2d(x, w, b, stride=stride, padding=padding).relu()
        found.append(x)
    return found


def expected_distance(
    network: str, state: dict[str, Tensor], heads: list[Tensor], a: Tensor, b: Tensor
) -> float:
    """Eq. 1 of the paper, written out per layer and pixel."""
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    fa, fb = (
        features(network, state, (((2 * x - 1) - shift) / scale).permute(2, 0, 1)[None])
        for x in (a, b)
    )
    total = 0.0
    for ya, yb, head in zip(fa, fb, heads, strict=True):
        ya = ya[0] / (ya[0].norm(dim=0) + 1e-10)
        yb = yb[0] / (yb[0].norm(dim=0) + 1e-10)
        total += float(torch.einsum("c,chw->hw", head, (ya - yb) ** 2).mean())
    return total


def random_pictures() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(3)
    a = torch.rand(40, 52, 3, generator=g)
    return a, (a + 0.2 * torch.randn(40, 52, 3, generator=g)).clamp(0, 1)


def installed_heads(network: str) -> list[Tensor]:
    spec = importlib.util.find_spec("lpips")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the lpips package is not installed")
    path = Path(spec.submodule_search_locations[0]) / "weights" / "v0.1" / f"{network}.pth"
    state = torch.load(path, map_location="cpu", weights_only=True)
    return [state[f"lin{i}.model.1.weight"].flatten() for i in range(5)]


@pytest.mark.parametrize("network", ["vgg", "alex"])
def test_distance_equals_the_papers_sum(tmp_path: Path, network: str) -> None:
    heads = installed_heads(network)
    state = random_state(network)
    torch.save(state, tmp_path / "weights.pth")
    metric = lpips_metric(tmp_path / "weights.pth")
    assert isinstance(metric, Lpips)
    assert metric.network == network
    a, b = random_pictures()
    expected = expected_distance(network, state, heads, a, b)
    assert expected > 1e-3
    assert float(metric(a, b)) == pytest.approx(expected, rel=1e-5)
    assert float(metric(a, a)) == 0.0
    assert float(metric(a, b)) == pytest.approx(float(metric(b, a)), rel=1e-5)


def test_gradient_reaches_the_picture_and_not_the_weights() -> None:
    metric = Lpips("alex")
    a, b = random_pictures()
    a.requires_grad_()
    metric(a, b).backward()
    assert a.grad is not None and a.grad.abs().sum() > 0
    assert all(p.grad is None for p in metric.parameters())


def test_without_weights_the_reason_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    metric = lpips_metric()
    assert isinstance(metric, Unavailable)
    assert "no VGG16 or AlexNet weights in" in metric.reason
    assert "--lpips-weights" in metric.reason


def test_weights_in_the_hub_folder_are_found_and_broken_ones_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed_heads("alex")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    path = tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth"
    torch.save(random_state("alex"), path)
    assert isinstance(lpips_metric(), Lpips)
    path.write_bytes(path.read_bytes()[:1000])
    metric = lpips_metric()
    assert isinstance(metric, Unavailable)
    assert "no readable file of weights" in metric.reason


def test_without_the_lpips_package_the_reason_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(random_state("alex"), tmp_path / "a.pth")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    metric = lpips_metric(tmp_path / "a.pth")
    assert isinstance(metric, Unavailable)
    assert "'lpips', which carries the trained heads, is not installed" in metric.reason


def test_wrong_weight_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    with pytest.raises(FileNotFoundError, match="no LPIPS weights"):
        lpips_metric(path)
    path.write_bytes(b"hello")
    with pytest.raises(ValueError, match="no readable file of weights"):
        lpips_metric(path)
    torch.save({"conv1.weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="holds no VGG16 or AlexNet"):
        lpips_metric(path)
    installed_heads("alex")
    state = random_state("alex")
    del state["features.8.bias"]
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"do not fit alex: 'features\.8\.bias'"):
        lpips_metric(path)


def test_neither_lpips_nor_torchvision_is_imported(tmp_path: Path) -> None:
    torch.save(random_state("alex"), tmp_path / "a.pth")
    code = (
        "import sys; from pathlib import Path; from splatir.evaluate.lpips import lpips_metric;"
        "lpips_metric(Path(sys.argv[1]));"
        "assert not {'lpips', 'torchvision'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.pth")], check=True)
