"""`splatir train`: train a run and say where everything is."""

from splatir.commands.evaluate import write_evaluation
from splatir.commands.export import export_run
from splatir.train.session import train
from splatir.train.settings import TrainSettings


def run(settings: TrainSettings) -> None:
    """Train, score, export, and print the next commands."""
    result = train(settings)
    root = result.run.root
    write_evaluation(result.run)
    ply = export_run(result.run)
    print(f"\nrun      {root}")
    if result.scores is not None:
        means = result.scores.means()
        print(
            f"scores   test PSNR {means['psnr_full']:.2f} dB, SSIM {means['ssim']:.4f}, "
            f"{len(result.scores.views)} views  ({result.run.evaluation})"
        )
    else:
        print("scores   none: the capture has no held-out views")
    print(
        f"splat    {ply}  ({result.state.model.num_gaussians:,} Gaussians, "
        f"{result.state.seconds:.0f} s of training)"
    )
    print("\nnext:")
    print(f"  splatir eval {root} --json scores.json")
    print(f"  splatir export {root}")
    print(f"  splatir train --resume {root}")
