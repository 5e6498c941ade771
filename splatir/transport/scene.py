"""What do the Gaussians of a scene see of each other, of the sky and of lamps?"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.maths.safe import safe_normalise
from splatir.scene.gaussians import Gaussians
from splatir.scene.lights import DirectionalLight, EnvironmentLight, PointLight
from splatir.transport.bake import BELOW, Visibility, bake_visibility, trace_from
from splatir.transport.directions import DirectionCells
from splatir.transport.occluder import Occluder, OccluderSettings, occluder_of
from splatir.transport.torch_tracer import tracer_for
from splatir.transport.tracing import FREE, RayTracer

NUM_DIRECTIONS = 256
# Cells that are aimed at their own light, and the share of the light that makes one worth it.
_MAX_AIMED, _MIN_SHARE = 4, 0.02


@dataclass(frozen=True)
class SceneTransport:
    """Gaussians as occluders, and what each sees.

    Attributes:
        occluder: Their polygons.
        tracer: Traces rays against them.
        visibility: Over the whole sphere.
        settings: Of the occluder.
    """

    occluder: Occluder
    tracer: RayTracer
    visibility: Visibility
    settings: OccluderSettings

    @classmethod
    def of(
        cls,
        gaussians: Gaussians,
        num_directions: int = NUM_DIRECTIONS,
        settings: OccluderSettings = OccluderSettings(),
    ) -> "SceneTransport":
        """Trace what Gaussians see; four bytes per Gaussian and direction.

        Args:
            gaussians: Their normal axes look outwards: `transport.orientation`.
            num_directions: Over the whole sphere.
            settings: How they occlude.
        """
        occluder = occluder_of(gaussians.detach(), settings)
        tracer = tracer_for(occluder)
        visibility = bake_visibility(occluder, tracer, num_directions, settings)
        return cls(occluder, tracer, visibility, settings)

    @property
    def positions(self) -> Float[Tensor, "n 3"]:
        """Centres of the Gaussians, world frame."""
        return self.occluder.centres

    @torch.no_grad()
    def aimed_at(self, environments: tuple[EnvironmentLight, ...]) -> "SceneTransport":
        """The same with the brightest cells aimed at their own light, as a sun's shadow needs.

        Args:
            environments: Together they are the light; one map's centroids are used, the brightest.
        """
        if not environments:
            return self
        cells = self.visibility.cells
        power = torch.stack([cells.light_from(light).mean(-1) for light in environments])
        brightest = environments[int(power.sum(-1).argmax())]
        total = power.sum(0)
        wanted = total.topk(min(_MAX_AIMED, len(total))).indices
        wanted = wanted[total[wanted] > _MIN_SHARE * total.sum()]
        if not len(wanted):
            return self
        directions = cells.directions.clone()
        directions[wanted] = cells.centroids_of(brightest)[wanted]
        hits = self.visibility.hits.clone()
        for cell in wanted.tolist():
            hits[:, cell] = self._seen_towards(directions[cell].expand_as(self.positions))
        visibility = Visibility(
            DirectionCells(directions, cells.solid_angles), hits, self.visibility.normals
        )
        return replace(self, visibility=visibility)

    def sees(self, light: PointLight | DirectionalLight) -> Float[Tensor, "n 1"]:
        """1 where a Gaussian sees a light past all others, else 0.

        Args:
            light: World frame.
        """
        if isinstance(light, PointLight):
            towards = light.position.to(self.positions) - self.positions
            hits = self._seen_towards(safe_normalise(towards), towards.norm(dim=-1))
        else:
            hits = self._seen_towards(light.direction.to(self.positions).expand_as(self.positions))
        return (hits == FREE).to(self.positions)[:, None]

    @torch.no_grad()
    def _seen_towards(
        self, directions: Float[Tensor, "n 3"], reach: Float[Tensor, " n"] | None = None
    ) -> Tensor:
        """What each Gaussian sees in a direction of its own; `BELOW` under its horizon."""
        is_above = (directions * self.visibility.normals).sum(-1) > 0.0
        who = is_above.nonzero()[:, 0]
        hits = torch.full_like(is_above, BELOW, dtype=torch.int32)
        found = trace_from(
            self.occluder,
            self.tracer,
            who,
            directions[who],
            self.settings,
            None if reach is None else reach[who],
        )
        return hits.index_copy(0, who, found.to(hits))
