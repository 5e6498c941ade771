"""How do scores of several scenes become tables that people read?"""

from collections.abc import Mapping

from splatir.evaluate.protocols import mean_of

# Of the ablation table: one number per question.
_KEY_SCORES = (
    "psnr_full",
    "radiance_psnr_full",
    "normal_mae_fg",
    "albedo_ls_psnr_fg",
    "roughness_mse_fg",
    "metallic_mse_fg",
    "relight_ls_psnr_fg",
    "train_seconds",
)
_FINE = ("_mse_fg", "ssim", "iou", "depth_rel_fg")
_WHOLE = ("num_gaussians", "train_seconds", "peak_memory_mb")


def score_table(scenes: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown: a row per score, a column per scene, and the mean over the scenes that have it.

    Args:
        scenes: Scores by scene.
    """
    mean = mean_of([dict(scores) for scores in scenes.values()])
    columns = {**scenes, "mean": mean}
    body = [[name, *(_cell(name, column) for column in columns.values())] for name in mean]
    return _table(["score", *columns], body)


def ablation_table(means: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown: a row per variant, a column per key score that any of them has.

    Args:
        means: Mean scores by variant.
    """
    names = [name for name in _KEY_SCORES if any(name in mean for mean in means.values())]
    body = [[variant, *(_cell(name, mean) for name in names)] for variant, mean in means.items()]
    return _table(["variant", *names], body)


def _cell(name: str, scores: Mapping[str, float]) -> str:
    if name not in scores:
        return ""
    if name in _WHOLE:
        return f"{scores[name]:,.0f}"
    return f"{scores[name]:.{4 if name.endswith(_FINE) else 2}f}"


def _table(head: list[str], body: list[list[str]]) -> str:
    rows = [head, ["---"] + ["---:"] * (len(head) - 1), *body]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
