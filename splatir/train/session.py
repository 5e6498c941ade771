"""A training from settings to a finished run folder: data, stages, scores, checkpoints."""

import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from tqdm import tqdm

from splatir import __version__
from splatir.data.cache import PhotoCache
from splatir.data.dataset import Dataset
from splatir.data.images import Photo
from splatir.data.recognise import read_dataset
from splatir.evaluate.held_out import score_views
from splatir.raster.contract import RasterBackend
from splatir.raster.selection import rasterizer
from splatir.scene.camera import Camera
from splatir.settings import to_plain
from splatir.train.coarse import reduced_photo
from splatir.train.initialise import initial_model
from splatir.train.interrupt import interrupt_flag
from splatir.train.run_folder import RunFolder, create_run_folder
from splatir.train.settings import Background, TrainSettings
from splatir.train.stages import Stage, stages_of
from splatir.train.state import TrainState, generator_for
from splatir.train.step import VIEW_ORDER, StepContext, StepReport, train_step

# Photos decoded ahead of their step.
_LOOKAHEAD = 4
# Steps between lines of metrics.jsonl.
_LOG_EVERY = 50


@dataclass(frozen=True)
class TrainingResult:
    """What a finished training leaves.

    Attributes:
        run: Its folder.
        has_held_out_views: Whether the capture has views to score it on.
    """

    run: RunFolder
    has_held_out_views: bool


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


def train(settings: TrainSettings) -> TrainingResult:
    """Train a new run, or continue one.

    Nothing is written before the capture was read and the first Gaussians stand.

    Args:
        settings: With `resume`, only that field counts; the run's own settings are used.

    Raises:
        ValueError: Settings or data that cannot be trained on.
        FileNotFoundError: Data or run folder that is not there.
    """
    resumed = None
    if settings.resume is not None:
        run = RunFolder(settings.resume)
        settings = replace(run.settings(), resume=settings.resume)
        resumed = run.load_latest()
    if settings.data is None:
        raise ValueError("give the capture with --data DIR (or continue a run with --resume RUN).")
    device = pick_device(settings.device)
    backend = rasterizer(settings.backend, device)
    dataset = read_dataset(settings.data, settings.dataset)
    for warning in dataset.warnings:
        tqdm.write(f"warning: {warning}")
    budget = int(settings.photo_memory_gb * 1e9)
    with (
        PhotoCache(dataset.train, budget) as photos,
        PhotoCache(dataset.test, budget) as held_out,
    ):
        session = _Session(settings, dataset, photos, held_out, backend, device)
        if resumed is not None:
            session.resume(RunFolder(settings.resume), resumed)
        else:
            session.start()
        return session.run_stages()


class _Session:
    """The pieces of a running training that outlive a step."""

    def __init__(
        self,
        settings: TrainSettings,
        dataset: Dataset,
        photos: PhotoCache,
        held_out: PhotoCache,
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

    def start(self) -> None:
        """Make the first Gaussians and the run folder."""
        model = initial_model(self.dataset, self.photos, self.settings).to(self.device)
        learn = self._background() == "learned"
        extent = self.dataset.extent
        self.state = TrainState.start(model, learn, self.settings.rates, extent)
        assert self.settings.data is not None
        self.run = create_run_folder(self.settings, self.settings.data)
        self.run.write_settings(self.settings)

    def resume(self, run: RunFolder, checkpoint: dict[str, Any]) -> None:
        """Take up a checkpoint."""
        self.run = run
        plain = checkpoint["state"]
        self.state = TrainState.from_plain(
            plain, self.settings.rates, self.dataset.extent, self.device
        )
        run.forget_metrics_after(self.state.step)

    def run_stages(self) -> TrainingResult:
        """Run what is left of the stages and save."""
        for stage in stages_of(self.settings):
            context = StepContext(
                stage,
                self.backend,
                self.settings.rates,
                self.dataset.extent,
                self._background(),
                self.settings.antialiased,
                self.settings.seed,
            )
            self._run_stage(stage, context)
        return TrainingResult(self.run, bool(self.dataset.test))

    def _run_stage(self, stage: Stage, context: StepContext) -> None:
        bar = tqdm(total=stage.steps, initial=self.state.step, desc=stage.name, unit="step")
        smoothed = None
        with bar, interrupt_flag() as interrupted:
            while self.state.step < stage.steps:
                report = self._step(stage, context)
                smoothed = report.psnr if smoothed is None else 0.98 * smoothed + 0.02 * report.psnr
                bar.update()
                count = self.state.model.num_gaussians
                bar.set_postfix_str(f"{smoothed:.2f} dB, {count:,} Gaussians", refresh=False)
                self._after_step(stage, report)
                if interrupted.is_set():
                    self._save()
                    raise KeyboardInterrupt
        self._save()

    def _step(self, stage: Stage, context: StepContext) -> StepReport:
        started = time.perf_counter()
        index = self._view_index(self.state.step)
        for ahead in range(1, _LOOKAHEAD + 1):
            self.photos.prefetch(self._view_index(self.state.step + ahead))
        camera, photo = self._sample(index, stage.image_divisor(self.state.step))
        report = train_step(self.state, context, camera, photo)
        self.state.seconds += time.perf_counter() - started
        return report

    def _sample(self, index: int, divisor: int) -> tuple[Camera, Photo]:
        camera, photo = self.cameras[index], self.photos[index]
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
        if step % _LOG_EVERY == 0 or step == stage.steps:
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
        if step == stage.steps:
            return
        if settings.checkpoint_every and step % settings.checkpoint_every == 0:
            self._save()
        if settings.eval_every and step % settings.eval_every == 0:
            self._score()

    def _save(self) -> None:
        contents = {
            "state": self.state.to_plain(),
            "settings": to_plain(self.settings),
            "version": __version__,
            "S_world_input": self.dataset.S_world_input,
        }
        self.run.save(self.state.step, contents)

    def _score(self) -> None:
        if not self.dataset.test:
            return
        scores = score_views(
            self.state.model,
            self.dataset.test,
            self.held_out,
            self.backend,
            None if self.state.background is None else self.state.background.detach(),
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
