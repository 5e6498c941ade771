"""Everything a training run can be told, with its default."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from splatir.data.dataset import DataSettings
from splatir.data.maps import MapSettings
from splatir.optim.densification import DensificationSettings
from splatir.optim.losses import LossWeights
from splatir.optim.material_losses import MaterialLossWeights
from splatir.optim.parameters import LearningRates
from splatir.scene.gaussians import Primitive
from splatir.scene.initialise import InitialisationSettings
from splatir.settings import Settings, SettingsError, check_range
from splatir.train.material_settings import MaterialSettings

_STAGES = (
    ("auto",),
    ("radiance",),
    ("radiance", "materials"),
    ("surroundings", "radiance"),
    ("surroundings", "radiance", "materials"),
)
Background = Literal["auto", "white", "black", "random", "learned"]


@dataclass(frozen=True)
class ScheduleSettings(Settings):
    """What changes over the steps of a stage.

    Attributes:
        sh_every: The SH degree in use grows by one after this part of the stage, repeatedly.
        coarse_until: Until this part of the stage, images are trained at reduced size.
        coarse_factor: Reduction of width and height in that time.
    """

    sh_every: float = 0.15
    coarse_until: float = 0.0
    coarse_factor: int = 2

    def __post_init__(self) -> None:
        """Refuse values that no training can follow.

        Raises:
            SettingsError: A value out of range.
        """
        check_range(self, "sh_every coarse_until", 0, 1, group="schedule")
        check_range(self, "coarse_factor", 1, group="schedule")


@dataclass(frozen=True)
class TrainSettings(Settings):
    """Train a splat on posed photographs.

    Attributes:
        data: Capture: a COLMAP, transforms.json, NeRF-synthetic or TensoIR folder.
        config: TOML file or preset name (quick, mcmc, ...) over the defaults; flags go on top.
        output: Run folder; runs/<scene>/<timestamp> if not given.
        resume: Continue this run folder exactly where its last checkpoint stands.
        overwrite: Allow `output` to hold an earlier run; it is replaced when the new one has its
            first checkpoint.
        dataset: How the capture is read.
        maps: What is already known about surfaces.
        stages: Stages to train: radiance, and materials after it. Where photos show a background,
            "auto" begins with surroundings: everything's radiance, from which the object is told
            apart for the other two.
        steps: Training steps of the radiance stage; each renders one photo.
        surroundings_steps: Likewise of the surroundings stage.
        roi: The object of a capture with a background: "auto" finds it, "x,y,z,radius" is a sphere
            and "x0,y0,z0,x1,y1,z1" a box that holds it, in the capture's own frame; "none" trains
            the radiance of everything alike, without materials.
        envmap: The true environment (.hdr or .exr, in the capture's frame), where it is known; it
            is kept fixed, and trained with as coarsely as a learned one at first.
        grey_card: NAME:X,Y, a photo and a pixel of it (from 0 at the top left) that shows a neutral
            surface of known reflectance; it fixes brightness and tint of the light.
        grey_reflectance: What that surface reflects, linear.
        lpips_weights: File of VGG16 or AlexNet weights where LPIPS is a loss; None looks in torch's
            cache.
        seed: Of everything random.
        device: "auto" takes CUDA where there is one.
        backend: Rasteriser; "auto" takes the fastest that the device has.
        primitive: "ellipsoid" (3DGS) or "surfel" (2DGS).
        flat: Keep ellipsoids flat, with a normal: their third scale stays at a small part of the
            scene's extent.
        antialiased: Scale opacity by the area lost to the pixel blur (ellipsoids only).
        background: Behind the Gaussians in training: "auto" is random where photos have alpha or
            masks, learned elsewhere.
        exposures: "per-photo" finds gains of red, green and blue for each training photo (their
            mean over the photos is 1, which is how held-out views are shown), by descent and, where
            photos show an object alone, by what its Gaussians have in common; "shared" trusts the
            photos; "auto" is per-photo where photos show a background.
        cameras: "refine" learns small corrections of each training camera's place, direction and
            focal length, "fixed" trusts the capture; "auto" refines where photos show a background,
            unless sparse points lie within half a pixel of where cameras expect them.
        photo_memory_gb: Decoded photos kept in memory at most; 0 decodes them again and again.
        eval_every: Steps between scores on the held-out views; 0 scores at the end only.
        view: Show the training in the browser as it goes on, on this computer alone.
        view_port: Of that page; 0 takes a free one.
        checkpoint_every: Steps between checkpoints; the last two are kept. 0 writes one at the end.
        init: How the first Gaussians are made.
        rates: Learning rates.
        loss: Weights of the loss terms.
        schedule: What changes over the steps.
        densify: Where Gaussians are added and removed.
        materials: The materials stage.
        material_loss: Weights of its loss terms.
    """

    data: Path | None = None
    config: str | None = None
    output: Path | None = None
    resume: Path | None = None
    overwrite: bool = False
    dataset: Annotated[DataSettings, tyro.conf.arg(name="")] = field(default_factory=DataSettings)
    maps: Annotated[MapSettings, tyro.conf.arg(name="")] = field(default_factory=MapSettings)
    stages: tuple[Literal["auto", "surroundings", "radiance", "materials"], ...] = ("auto",)
    steps: int = 3000
    surroundings_steps: int = 2000
    roi: str = "auto"
    envmap: Path | None = None
    grey_card: str | None = None
    grey_reflectance: float = 0.18
    lpips_weights: Path | None = None
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    backend: Literal["auto", "reference", "cpu", "gsplat"] = "auto"
    primitive: Primitive = "ellipsoid"
    flat: bool = True
    antialiased: bool = False
    background: Background = "auto"
    exposures: Literal["auto", "per-photo", "shared"] = "auto"
    cameras: Literal["auto", "refine", "fixed"] = "auto"
    photo_memory_gb: float = 4.0
    eval_every: int = 1000
    view: bool = False
    view_port: int = 8080
    checkpoint_every: int = 1000
    init: InitialisationSettings = field(default_factory=InitialisationSettings)
    rates: LearningRates = field(default_factory=LearningRates)
    loss: LossWeights = field(default_factory=LossWeights)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    densify: DensificationSettings = field(default_factory=DensificationSettings)
    materials: MaterialSettings = field(default_factory=MaterialSettings)
    material_loss: MaterialLossWeights = field(default_factory=MaterialLossWeights)

    @property
    def keeps_flat(self) -> bool:
        """Whether ellipsoids are kept flat: surfels are anyway."""
        return self.flat and self.primitive == "ellipsoid"

    @property
    def uses_antialiasing(self) -> bool:
        """Whether opacity is scaled by the blurred area: surfels have no such blur."""
        return self.antialiased and self.primitive == "ellipsoid"

    @property
    def learns_photos(self) -> bool:
        """Whether cameras or exposures of training photos are learned."""
        return self.cameras == "refine" or self.exposures == "per-photo"

    def __post_init__(self) -> None:
        """Refuse values that no training can follow.

        Raises:
            SettingsError: A value out of range.
        """
        check_range(self, "steps surroundings_steps", 1)
        check_range(self, "photo_memory_gb eval_every checkpoint_every", 0)
        check_range(self, "grey_reflectance", 0, 1, open_ends=True)
        if self.grey_card is not None and self.envmap is not None:
            raise SettingsError(
                "--envmap says how bright the light is, and so does --grey-card. Give one of them."
            )
        check_range(self, "view_port", 0, 65535)
        # What torch's generators take.
        check_range(self, "seed", 0, 2**63 - 1)
        if self.stages not in _STAGES:
            raise SettingsError(
                "stages must be auto, or radiance, or radiance materials, with surroundings before "
                f"them where the photos show some; got {' '.join(self.stages) or 'none'}."
            )
