"""Photo to disparity: a small network distilled from generated (photo, disparity) pairs, and from nothing else.

The generator makes scenes without end, so the estimator never sees the same pair twice and no photograph at all; what it
says of a real photograph is what the generator learned of depth from photographs (Kaneko 2021, section 5.3).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from argan import networks
from argan.config.schema import Training
from argan.guided_filter import guided_filter
from argan.interrupt import deferred_signals
from argan.networks.mixture import aperture_noise
from argan.training import checkpoint
from argan.training.augment import color
from argan.training.health import FiniteCheck, gradients
from argan.training.loop import (
    AGAIN,
    crossed_interval,
    optimizer_tensors,
    restore_optimizer,
    step_random,
    strip_prefix,
    to_device,
)

DISTILLATION = 1  # salt that keeps its random numbers apart from training's


def distill(
    generator: networks.SceneGenerator,
    config: Training,
    *,
    device: torch.device | None = None,
    watch: Callable[[int, float], None] = lambda images, loss: None,
    folder: Path | None = None,
    mark: str = "",
    say: Callable[[str], None] = print,
) -> networks.Estimator:
    """Train an estimator on `config.estimator_images` renderings. `watch` gets (images seen, loss) now and then.

    With a `folder`, what is there under the fingerprint `mark` is gone on with; SIGINT and SIGTERM save there and raise
    KeyboardInterrupt, as in `argan.training.loop.train`. Raises UserError for a loss or gradient that is not finite.

    The loss is the squared error of disparity in units of its range, so the estimate is the mean of what is likely; beside it
    the error to expect, by its likelihood under a Laplace distribution (Kendall and Gal, 2017), of the estimate as given. Photos
    vary in aperture as in training (the DoF mixture), are flipped, and vary in colour, since generated colours are narrower
    than real ones.
    """
    device = device or torch.device("cpu")
    torch.manual_seed(config.seed)
    mixed = networks.autocast(config, device)
    student = networks.channels_last(networks.Estimator(config.estimator_channels, config.disparity_max), device)
    optimizer = torch.optim.Adam(student.parameters(), lr=config.estimator_learning_rate, fused=True)
    steps = math.ceil(config.estimator_images / config.estimator_batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.estimator_learning_rate, total_steps=steps + 1)
    alarm = FiniteCheck(device.type != "cpu", "lower train.estimator_learning_rate")
    begin = saved = 0
    if folder and (found := checkpoint.newest(folder, mark, say)):
        tensors, meta = found
        begin = saved = meta["step"]
        student.load_state_dict(strip_prefix(tensors, "student"))
        restore_optimizer(optimizer, strip_prefix(tensors, "optimizer"))
        schedule.last_epoch = begin - 1  # rate and momentum are functions of the step alone
        with warnings.catch_warnings(action="ignore"):  # that the optimiser has not moved yet
            schedule.step()
        say(f"resuming the estimator at {begin * config.estimator_batch} of {config.estimator_images} images")

    def keep(step: int) -> None:
        assert folder
        alarm.check()
        tensors = {f"student.{k}": v for k, v in student.state_dict().items()}
        tensors |= {f"optimizer.{k}": v for k, v in optimizer_tensors(optimizer).items()}
        checkpoint.save(folder, step * config.estimator_batch, tensors, {"fingerprint": mark, "step": step}, keep=1)

    with deferred_signals(
        lambda: say(f"interrupted in the middle of a long step; saved at step {saved}; {AGAIN}")
    ) as heard:
        for step in range(begin, steps):
            random = step_random(config.seed, step * config.estimator_batch, DISTILLATION)
            with torch.no_grad():
                latents = torch.randn(config.estimator_batch, config.latent, generator=random)
                latents = to_device(latents, device)
                with mixed():
                    image, disparity = generator(latents)
                scale = generator.mixture(to_device(aperture_noise(len(image), random), device))
                photos = generator.photograph(image, disparity, scale)
                disparity = erode_foreground(disparity, config.estimator_outline)
                if step % 2:  # every scene comes unflipped or flipped as a whole: photo and disparity together
                    photos, disparity = photos.flip(3), disparity.flip(3)
                colors = to_device(torch.rand(3, len(photos), generator=random), device)
                photos = color(photos, 0.4, *colors).clamp(-1, 1)
            photos = photos.contiguous(memory_format=torch.channels_last)
            with mixed():
                said, error = student.with_error(photos)
            with torch.no_grad():
                off = (guided_filter(said, photos) - disparity).abs()
            loss = F.mse_loss(said, disparity) / config.disparity_max**2 + (off / error + error.log()).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            looked_at = {"the estimator's loss": loss} | gradients(student, "the estimator")
            optimizer.found_inf = alarm(looked_at, step * config.estimator_batch)  # type: ignore[attr-defined]
            optimizer.step()
            schedule.step()
            if step % 50 == 0:
                watch(step * config.estimator_batch, loss.item())
            done = (step + 1) * config.estimator_batch
            if folder and (heard or crossed_interval(done, config.checkpoint_every, config.estimator_batch)):
                keep(step + 1)
                saved = step + 1
            if heard:
                say(f"interrupted, the estimator {'saved' if folder else 'lost'} at {done} images; {AGAIN}")
                raise KeyboardInterrupt(heard[0])
    alarm.check()
    return student.eval()


def erode_foreground(disparity: Tensor, pixels: int) -> Tensor:
    """What is near, smaller by `pixels` all round: disparity (N, 1, H, W) -> the same, the farthest within that distance.

    Generated subjects carry a rim of their background along. A pixel on an outline shows both surfaces, and only with the nearer
    one's disparity does it stay where it is; and where the background is smooth its blur leaves the rim no reason to go.
    """
    return -F.max_pool2d(-disparity, 2 * pixels + 1, stride=1, padding=pixels)
