"""The pictures of an evaluation: scenes, light field, interpolation and refocusing of the model, and depth of test photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from argan import networks
from argan.config.schema import Evaluate
from argan.evaluation import plots
from argan.evaluation.depth import DepthJudge
from argan.evaluation.model import SALT, EvaluatedModel
from argan.training.noise import step_random
from argan.visualization import disparity_colors, grid, light_field_gif, write_png

SCENES, REFOCUSED = 6, 4  # rows of scenes.png and of refocus.png
VIEWED = 4  # scenes side by side in light_field.gif
STEPS = 8  # of interpolation.png
APERTURES = [1 / 3, 2 / 3, 1.0]


@torch.inference_mode()
def show_scenes(model: EvaluatedModel, params: Evaluate, device: torch.device, folder: Path) -> None:
    """scenes.png, light_field.gif, interpolation.png and refocus.png."""
    image, disparity, _ = next(model.generate(params, device))
    image, disparity = image[:SCENES], disparity[:SCENES]
    ones = torch.ones(len(image), device=device)
    photos = [networks.to_uint8(model.generator.photograph(image, disparity, ones * s)) for s in APERTURES]
    maximum = model.config.disparity_max
    maps = disparity[:, 0].cpu().numpy()
    plots.scenes(networks.to_uint8(image), maps, photos, APERTURES, maximum, folder / "scenes.png")

    views = model.generator.views(image[:VIEWED], disparity[:VIEWED], ones[:VIEWED])  # (n, V, 3, H, W)
    frames = np.concatenate([networks.to_uint8(each) for each in views], 2)  # side by side
    light_field_gif(frames, folder / "light_field.gif", upscale=max(1, 128 // frames.shape[1]))
    _show_interpolation(model, params, device, folder / "interpolation.png")

    image, disparity, maps = image[:REFOCUSED], disparity[:REFOCUSED], maps[:REFOCUSED]
    far, near = (torch.quantile(disparity.flatten(1), q, 1)[:, None, None, None] for q in (0.05, 0.95))
    refocused = [
        networks.to_uint8(
            model.generator.photograph(image, disparity - (far + t * (near - far)), ones[: len(image)], widen=2)
        )
        for t in np.linspace(0, 1, 5)
    ]
    plots.refocus(refocused, maps, maximum, folder / "refocus.png")


@torch.inference_mode()
def _show_interpolation(model: EvaluatedModel, params: Evaluate, device: torch.device, path: Path) -> None:
    """A walk along the arc between two latents, on which every point is as likely as its ends."""
    random = step_random(params.seed, 0, SALT)
    start, end = torch.randn(2, model.config.latent, generator=random)
    angle = torch.arccos((start @ end / start.norm() / end.norm()).clamp(-1, 1))
    t = torch.linspace(0, 1, STEPS)[:, None]
    latents = (torch.sin((1 - t) * angle) * start + torch.sin(t * angle) * end) / torch.sin(angle).clamp(min=1e-6)
    image, disparity = model.generator(latents.to(device))
    colors = disparity_colors(disparity[:, 0].cpu().numpy(), model.config.disparity_max)
    rows = np.concatenate([networks.to_uint8(image), colors])
    write_png(path, grid(rows, STEPS, upscale=max(1, 96 // rows.shape[1])))


def show_depth(judge: DepthJudge, table: pd.DataFrame, metrics: dict[str, Any], path: Path) -> None:
    """Photos of the worst, median and best rank correlation. table: a row per photo, with `photo` and `spearman`."""
    title = (
        f"Test photographs: mean rank correlation {metrics['depth_spearman']:.2f} "
        f"(prior alone {metrics['depth_spearman_prior']:.2f})"
    )
    maximum, reference = judge.model.config.disparity_max, metrics["depth_reference"]
    chosen = plots.chosen(table["spearman"].to_numpy())
    rows: NDArray[np.int64] = table["photo"].to_numpy()[[i for _, i in chosen]]
    truth = judge.true_disparity(rows) * (maximum if reference else 1)
    maps = [truth, judge.predictions(rows)[""], judge.model.prior()]
    labels = [f"{name}\n{table['spearman'].iloc[i]:+.2f}" for name, i in chosen]
    names = ["photo", reference or "exact disparity", "estimated", "prior alone"]
    plots.depth(judge.photos(rows), maps, labels, maximum, names, title, path)
