"""`splatir train`: train a run, score it, export it, and say where everything is."""

from dataclasses import replace

from splatir.commands.evaluate import evaluate_run
from splatir.commands.export import export_run
from splatir.commands.sfm import with_poses
from splatir.commands.watch import watched
from splatir.train.device import pick_device
from splatir.train.finished import load_run
from splatir.train.session import train
from splatir.train.settings import TrainSettings

__all__ = ["TrainSettings", "run"]


def run(settings: TrainSettings) -> None:
    """Train, score, export, and print the next commands."""
    if settings.data is not None and settings.resume is None:
        settings = replace(settings, data=with_poses(settings.data, settings.dataset))
    with watched(settings.view, settings.view_port) as observer:
        result = train(settings, observer)
    root = result.run.root
    device = pick_device(settings.device)
    finished = load_run(root, device)
    # First, so that a fault in scoring does not cost it.
    ply = export_run(result.run)
    scored = "none: the capture has no held-out views"
    if result.has_held_out_views:
        scores = evaluate_run(finished, device)
        scored = (
            f"test PSNR {scores['psnr_full']:.2f} dB, SSIM {scores['ssim']:.4f} over "
            f"{scores['num_views']} views, see {result.run.evaluation}"
        )
        if "aligned_psnr_full" in scores:
            scored += (
                f"\n         {scores['aligned_psnr_full']:.2f} dB, {scores['aligned_ssim']:.4f} "
                "with camera and exposure fitted to each held-out photo"
            )
    count, seconds = finished.model.num_gaussians, finished.seconds
    print(f"\nrun      {root}")
    print(f"scores   {scored}")
    print(f"splat    {ply}: {count:,} Gaussians, {seconds:.0f} s of training")
    print("\nnext:")
    if finished.model.has_materials:
        print(f"  splatir relight {root} --envmap MAP.hdr --path turntable")
    print(f"  splatir render {root}")
    print(f"  splatir eval {root} --json scores.json")
    print(f"  splatir export {root} --output splats.ply")
    print(f"  splatir info {ply}")
