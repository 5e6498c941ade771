"""A training from settings to a finished run folder: data, stages, scores, checkpoints."""

import functools
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from splatir import __version__
from splatir.data.broken import without_broken
from splatir.data.cache import PhotoCache, PhotoSource
from splatir.data.dataset import Dataset
from splatir.data.images import Photo, photo_loader
from splatir.data.maps import map_loader
from splatir.data.recognise import read_dataset
from splatir.evaluate.held_out import score_views
from splatir.messages import error_message, one_line
from splatir.raster.contract import RasterBackend, RasterOptions
from splatir.raster.selection import rasterizer
from splatir.render.surrounded import whole_scene
from splatir.scene.camera import Camera
from splatir.scene.corrections import corrected_camera, gauge_directions
from splatir.scene.lights import EnvironmentLight
from splatir.settings import to_plain
from splatir.storage.checkpoint import CheckpointError
from splatir.train.budget import pixel_budget
from splatir.train.coarse import reduced_photo
from splatir.train.device import pick_device
from splatir.train.first_exposures import first_log_gains
from splatir.train.initialise import initial_model
from splatir.train.interrupt import interrupt_flag
from splatir.train.material_trainer import MaterialInputs, MaterialTrainer, grey_card
from splatir.train.new_run import NewRun, create_new_run
from splatir.train.object_exposures import judge_exposures
from splatir.train.object_photos import ObjectPhotos
from splatir.train.object_stage import CaptureInputs, photos_of_object, tell_object_apart
from splatir.train.observer import TrainingObserver, TrainingProgress, scene_of
from splatir.train.perceptual import picture_distance
from splatir.train.photo_checks import decode_all, mask_warnings
from splatir.train.run_folder import RunFolder
from splatir.train.settings import Background, TrainSettings
from splatir.train.stages import MaterialStage, RadianceStage, Stage, for_capture, stages_of
from splatir.train.start_materials import known_light
from splatir.train.state import VIEW_ORDER, TrainState, generator_for
from splatir.train.step import NonFiniteLoss, StepContext, StepReport, train_step

# Photos decoded ahead of their step.
_LOOKAHEAD = 4
# Steps between lines of metrics.jsonl.
_LOG_EVERY = 50
# Third scale of flat Gaussians in extents: far below what a pixel resolves.
_THICKNESS = 2e-4

# One step on a training view, its photo and its number.
_StepFunction = Callable[[Camera, Photo, int], StepReport]


class TrainingStopped(RuntimeError):
    """A training that cannot go on; the message says why and what is left."""


@dataclass(frozen=True)
class TrainingResult:
    """What a finished training leaves.

    Attributes:
        run: Its folder.
        has_held_out_views: Whether the capture has views to score it on.
    """

    run: RunFolder
    has_held_out_views: bool


def train(settings: TrainSettings, observer: TrainingObserver | None = None) -> TrainingResult:
    """Train a new run, or continue one.

    Nothing is written before the capture was read, its held-out photos were decoded and the first
    Gaussians stand. An earlier run is replaced only when the new one has a checkpoint.

    Args:
        settings: With `resume`, only that field counts; the run's own settings are used.
        observer: Told of each step.

    Raises:
        ValueError: Settings or data that cannot be trained on.
        FileNotFoundError: Data or run folder that is not there.
        TrainingStopped: A full disk, a broken photo, a loss that is not finite.
    """
    resumed = None
    if settings.resume is not None:
        run = RunFolder(settings.resume)
        settings = replace(run.settings(), resume=settings.resume)
        resumed = (run, run.load_latest())
    if settings.data is None:
        raise ValueError("give the capture with --data DIR (or continue a run with --resume RUN).")
    device = pick_device(settings.device)
    backend = rasterizer(settings.backend, device)
    dataset = without_broken(read_dataset(settings.data, settings.dataset))
    settings = for_capture(settings, dataset.has_background, dataset.reprojection_error)
    budget = int(settings.photo_memory_gb * 1e9)
    load_maps = map_loader(dataset, settings.maps)
    with (
        PhotoCache(dataset.train, budget, photo_loader(dataset, load_maps)) as photos,
        PhotoCache(dataset.test, budget, photo_loader(dataset)) as held_out,
    ):
        for warning in (*dataset.warnings, *mask_warnings(dataset, photos)):
            tqdm.write(f"warning: {one_line(warning)}", file=sys.stderr)
        decode_all(held_out)
        # Misread maps are mostly misread in every view: known early.
        _ = photos[0]
        session = _Session(settings, dataset, photos, held_out, backend, device)
        session.observer = observer
        if resumed is not None:
            session.resume(*resumed)
        else:
            session.start()
        return session.run_stages()


class _Session:
    """The pieces of a running training that outlive a step."""

    def __init__(
        self,
        settings: TrainSettings,
        dataset: Dataset,
        photos: PhotoSource,
        held_out: PhotoSource,
        backend: RasterBackend,
        device: torch.device,
    ) -> None:
        self.settings = settings
        self.dataset = dataset
        self.photos = photos
        self.held_out = held_out
        self.backend = backend
        self.device = device
        self.cameras = [view.camera.to(device) for view in dataset.train]
        self._extent = dataset.extent
        self._distance = picture_distance(settings, dataset, device)
        self.observer: TrainingObserver | None = None
        self.new_run: NewRun | None = None
        # Read before training: a broken file should be known early. From the materials stage on,
        # checkpoints hold the light.
        self.known_light: EnvironmentLight | None = None

    def start(self) -> None:
        """Read a known light, make the first Gaussians and the run folder."""
        self.known_light = known_light(self.settings, self.dataset)
        grey_card(self.settings, self.dataset)
        model = initial_model(self.dataset, self.photos, self.settings).to(self.device)
        learn = self._background() == "learned"
        extent = self.dataset.extent
        per_photo = self.settings.exposures == "per-photo"
        log_gains = first_log_gains(self.dataset.train) if per_photo else None
        rates = self.settings.rates
        refines = self.settings.cameras == "refine"
        num_corrections = len(self.dataset.train) if refines else 0
        self.state = TrainState.start(model, learn, rates, extent, log_gains, num_corrections)
        assert self.settings.data is not None
        self.new_run = create_new_run(self.settings, self.settings.data)
        self.run = self.new_run.folder
        try:
            self.run.write_settings(self.settings)
        except BaseException:
            self.new_run.abandon()
            raise

    def resume(self, run: RunFolder, checkpoint: dict[str, Any]) -> None:
        """Take up a checkpoint."""
        self.run = run
        plain = checkpoint["state"]
        try:
            self.state = TrainState.from_plain(
                plain, self.settings.rates, self.dataset.extent, self.device
            )
        except CheckpointError as error:
            raise CheckpointError(
                f"{run.newest_checkpoint} cannot be continued: {error} "
                "Remove it to go on from the checkpoint before it."
            ) from error
        if not self.state.model.has_materials:
            self.known_light = known_light(self.settings, self.dataset)
        run.forget_metrics_after(self.state.step)

    def run_stages(self) -> TrainingResult:
        """Run what is left of the stages and save; a run without any checkpoint leaves nothing."""
        try:
            self._run_all()
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            if isinstance(error, NonFiniteLoss):
                self.run.forget_checkpoint(self.state.step)
            raise TrainingStopped(f"{error_message(error)} {self._remains(error)}") from error
        finally:
            if self.new_run is not None:
                self.new_run.abandon()
        return TrainingResult(self.run, bool(self.dataset.test))

    def _remains(self, error: Exception) -> str:
        """What a stopped training left, and what to do with it."""
        path = self.run.newest_checkpoint
        if path is None:
            kept = self.new_run.replaces if self.new_run is not None else None
            return "No checkpoint was written yet, so nothing is left of this training" + (
                "." if kept is None else f"; the earlier run {kept} is as it was."
            )
        if isinstance(error, NonFiniteLoss):
            return f"The last good state is {path}. Train again with lower --rates."
        return (
            f"The last good state is {path}. Mend this, then go on with: "
            f"splatir train --resume {self.run.root}"
        )

    def _run_all(self) -> None:
        budget = pixel_budget(self.dataset, self.settings.densify.pixels_per_gaussian)
        for stage in stages_of(self.settings, budget):
            if self.state.step >= stage.end:
                continue
            if stage.name != "surroundings" and "surroundings" in self.settings.stages:
                self._look_at_object()
            if isinstance(stage, MaterialStage) and not self.state.model.has_materials:
                self.state = self._materials.start(self.state, self.known_light)
            self._run_stage(stage, self._step_function(stage))

    def _look_at_object(self) -> None:
        """Go on with photos of the object alone; tell it from its surroundings first."""
        if isinstance(self.photos, ObjectPhotos):
            return
        cameras = self._corrected_cameras()
        inputs = CaptureInputs(self.dataset, self.photos, self.cameras, cameras, self.run.masks)
        if self.state.surroundings is None:
            self.state, self.photos = tell_object_apart(
                self.state, inputs, self.settings, self.backend
            )
        else:
            self.photos = photos_of_object(self.state, inputs, self.settings, self.backend)
        self.dataset = replace(self.dataset, has_background=False)

    @functools.cached_property
    def _materials(self) -> MaterialTrainer:
        cameras = self._corrected_cameras()
        inputs = MaterialInputs(
            self.dataset,
            self.photos,
            cameras,
            self.backend,
            self._distance,
            self._background(),
            self._thickness,
        )
        return MaterialTrainer(self.settings, inputs)

    def _step_function(self, stage: Stage) -> _StepFunction:
        """What does one step of a stage on a view."""
        settings = self.settings
        if isinstance(stage, MaterialStage):
            return self._materials.step_function(self.state, stage)
        assert isinstance(stage, RadianceStage)
        context = StepContext(
            stage,
            self.backend,
            settings.rates,
            self.dataset.extent,
            self._background(),
            settings.uses_antialiasing,
            self._thickness,
            settings.seed,
            self._distance,
            self._gauge(),
            not self.dataset.has_background,
        )
        return functools.partial(self._radiance_step, context)

    def _radiance_step(
        self, context: StepContext, camera: Camera, photo: Photo, index: int
    ) -> StepReport:
        state = self.state
        is_due = context.is_object and context.stage.judges_exposures(state.step)
        if is_due and state.learns_exposures:
            cameras = self._corrected_cameras()
            judge_exposures(state, cameras, self.photos.__getitem__, self.backend)
        return train_step(state, context, camera, photo, index)

    def _corrected_camera(self, index: int) -> Camera:
        """A training view as it is by now."""
        corrections = self.state.corrections
        if corrections is None:
            return self.cameras[index]
        return corrected_camera(self.cameras[index], corrections[index].detach(), self._extent)

    def _corrected_cameras(self) -> list[Camera]:
        return [self._corrected_camera(index) for index in range(len(self.cameras))]

    def _gauge(self) -> Tensor | None:
        """What no correction of cameras may hold, since it moves the whole scene."""
        if self.state.corrections is None:
            return None
        return gauge_directions(self.cameras, self._extent).to(self.state.corrections)

    @property
    def _thickness(self) -> float | None:
        """Third scale that all Gaussians keep, scene units."""
        return _THICKNESS * self.dataset.extent if self.settings.keeps_flat else None

    @property
    def _raster_options(self) -> RasterOptions:
        return RasterOptions(antialiased=self.settings.uses_antialiasing)

    def _run_stage(self, stage: Stage, step: _StepFunction) -> None:
        done = self.state.step - stage.start
        bar = tqdm(total=stage.steps, initial=done, desc=stage.name, unit="step")
        smoothed = None
        with bar, interrupt_flag() as interrupted:
            while self.state.step < stage.end:
                report = self._step(stage, step)
                smoothed = report.psnr if smoothed is None else 0.98 * smoothed + 0.02 * report.psnr
                bar.update()
                count = self.state.model.num_gaussians
                bar.set_postfix_str(f"{smoothed:.2f} dB, {count:,} Gaussians", refresh=False)
                self._after_step(stage, report)
                self._observe(stage, report, interrupted)
                if interrupted.is_set():
                    self._save()
                    raise KeyboardInterrupt
        self._save()

    def _observe(self, stage: Stage, report: StepReport, interrupted: threading.Event) -> None:
        if self.observer is None:
            return
        progress = TrainingProgress(
            stage.name,
            self.state.step,
            stage.end,
            report.loss,
            report.psnr,
            self.state.model.num_gaussians,
            interrupted,
            lambda: scene_of(self.run, self.settings, self.state, self.dataset.S_world_input),
        )
        if not self.observer.after_step(progress):
            interrupted.set()

    def _step(self, stage: Stage, step: _StepFunction) -> StepReport:
        started = time.perf_counter()
        index = self._view_index(self.state.step)
        for ahead in range(1, _LOOKAHEAD + 1):
            self.photos.prefetch(self._view_index(self.state.step + ahead))
        camera, photo = self._sample(index, stage.image_divisor(self.state.step))
        report = step(camera, photo, index)
        self.state.seconds += time.perf_counter() - started
        return report

    def _sample(self, index: int, divisor: int) -> tuple[Camera, Photo]:
        camera, photo = self._corrected_camera(index), self.photos[index]
        if divisor == 1:
            return camera, photo
        return reduced_photo(camera, photo, divisor)

    def _view_index(self, step: int) -> int:
        """Every view once per epoch, in an order drawn for that epoch."""
        count = len(self.dataset.train)
        generator = generator_for(self.settings.seed, step // count, VIEW_ORDER)
        return int(torch.randperm(count, generator=generator)[step % count])

    def _after_step(self, stage: Stage, report: StepReport) -> None:
        step, settings = self.state.step, self.settings
        if step % _LOG_EVERY == 0 or step == stage.end:
            self.run.append_metrics(
                {
                    "step": step,
                    "stage": stage.name,
                    "loss": report.loss,
                    **{f"loss_{name}": value for name, value in report.terms.items()},
                    "train_psnr": report.psnr,
                    "num_gaussians": self.state.model.num_gaussians,
                    "seconds": round(self.state.seconds, 3),
                }
            )
        if step == stage.end:
            return
        if settings.checkpoint_every and step % settings.checkpoint_every == 0:
            self._save()
        if settings.eval_every and step % settings.eval_every == 0 and stage.name == "radiance":
            self._score()

    def _save(self) -> None:
        for name, values in self.state.model.params.items():
            if not bool(values.isfinite().all()):
                raise NonFiniteLoss(
                    f"after step {self.state.step} the parameters '{name}' are not all finite."
                )
        contents = {
            "state": self.state.to_plain(),
            "settings": to_plain(self.settings),
            "version": __version__,
            "S_world_input": self.dataset.S_world_input,
        }
        self.run.save(self.state.step, contents)
        if self.new_run is not None:
            self.run, self.new_run = self.new_run.establish(), None

    def _score(self) -> None:
        if not self.dataset.test:
            return
        scores = score_views(
            whole_scene(self.state.model, self.state.surroundings),
            self.dataset.test,
            self.held_out,
            self.backend,
            None if self.state.background is None else self.state.background.detach(),
            self._raster_options,
        )
        mean = scores.mean
        self.run.append_metrics(
            {
                "step": self.state.step,
                "seconds": round(self.state.seconds, 3),
                "num_gaussians": self.state.model.num_gaussians,
                **{f"test_{name}": value for name, value in asdict(mean).items()},
            }
        )
        tqdm.write(
            f"step {self.state.step}: test PSNR {mean.psnr_full:.2f} dB, SSIM {mean.ssim:.4f}, "
            f"{self.state.seconds:.0f} s"
        )

    def _background(self) -> Background:
        if self.settings.background != "auto":
            return self.settings.background
        return "learned" if self.dataset.has_background else "random"
