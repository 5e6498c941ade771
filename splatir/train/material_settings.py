"""What the materials stage can be told, with its defaults."""

from dataclasses import dataclass

from splatir.settings import Settings, SettingsError, check_range


@dataclass(frozen=True)
class MaterialSettings(Settings):
    """How materials and light are found once geometry and radiance stand.

    Attributes:
        steps: Steps of the stage; each shades one whole photo.
        environment_height: Rows of the learned environment map; it has twice as many columns.
        albedo: Brightest channel of the albedo at the start; its hue is half that of the radiance.
        roughness: Perceptual roughness at the start.
        metallic: Metallic at the start.
        geometry: How fast Gaussians move, turn, grow and fade, as a part of the rates of the
            radiance stage: shading and radiance both pull at them. 0 keeps them as they are, and
            the radiance too.
        turns_from: From this part of the stage on, Gaussians turn: before that, dielectrics that
            are metal would turn them astray.
        transport: Shade with shadows and with light from Gaussian to Gaussian.
        directions: In which each Gaussian looks for them, over the whole sphere.
        retrace_every: Steps between looks, as Gaussians move.
        metal_checks: Parts of the stage after which every Gaussian is judged metal, dielectric or
            cloth from the photos.
        cloth: Give what these checks find to be cloth a sheen.
        brightest: Convention for the scale between albedo and light, which photos do not show: in
            a tenth of the Gaussians the albedo's largest channel is above this.
        decay_from: From this part of the stage on, learning rates fall.
        decay: To this factor at the end, exponentially.
        settles_at: From this part of the stage on, the light stays as it is but for the scale
            between it and albedo, and squared errors count too (`material_loss.squared`). 1 for
            never.
    """

    steps: int = 600
    environment_height: int = 16
    albedo: float = 0.75
    roughness: float = 0.3
    metallic: float = 0.05
    geometry: float = 1.0
    turns_from: float = 0.4
    transport: bool = True
    directions: int = 256
    retrace_every: int = 200
    metal_checks: tuple[float, ...] = (0.25, 0.5)
    cloth: bool = True
    brightest: float = 0.9
    decay_from: float = 0.6
    decay: float = 0.1
    settles_at: float = 0.65

    def __post_init__(self) -> None:
        """Refuse values that no training can follow.

        Raises:
            SettingsError: A value out of range.
        """
        check_range(self, "steps", 1, group="materials")
        check_range(self, "environment_height", 4, 256, group="materials")
        check_range(self, "directions", 16, 4096, group="materials")
        check_range(self, "retrace_every", 1, group="materials")
        check_range(
            self,
            "albedo roughness metallic decay brightest",
            0,
            1,
            open_ends=True,
            group="materials",
        )
        check_range(self, "decay_from turns_from settles_at", 0, 1, group="materials")
        check_range(self, "geometry", 0, group="materials")
        if not all(0.0 <= part < 1.0 for part in self.metal_checks):
            raise SettingsError(
                "materials.metal_checks must be parts of the stage, at least 0 and below 1, got "
                f"{list(self.metal_checks)}."
            )
