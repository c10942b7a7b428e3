"""Photo to disparity: a small network distilled from generated (photo, disparity) pairs, and from nothing else.

The generator makes scenes without end, so the estimator never sees the same pair twice and no photograph at all; its depth of a
real photograph is what the generator learned of depth from photographs (Kaneko 2021, section 5.3).
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
from argan.tensors import strip_prefix
from argan.training import checkpoint
from argan.training.augment import color
from argan.training.device import to_device
from argan.training.health import FiniteCheck, gradients
from argan.training.loop import RESUME_HINT, crossed_interval
from argan.training.noise import step_random
from argan.training.state import optimizer_tensors, restore_optimizer

SALT = 1  # keeps the random numbers apart from those of the generator's training
COLOR = 0.4  # strength of the variation of colour
LOG_EVERY = 50  # steps between two calls of `on_loss`


def distill(
    generator: networks.SceneGenerator,
    config: Training,
    *,
    device: torch.device | None = None,
    on_loss: Callable[[int, float], None] = lambda images, loss: None,
    folder: Path | None = None,
    fingerprint: str = "",
    say: Callable[[str], None] = print,
) -> networks.Estimator:
    """Train an estimator on `config.estimator_images` renderings. `on_loss` gets (images seen, loss) now and then.

    With a `folder`, training resumes from its checkpoint with this `fingerprint`; SIGINT and SIGTERM save there and raise
    KeyboardInterrupt, as in `argan.training.loop.train`. Raises UserError for a loss or gradient that is not finite.
    """
    return _Distillation(generator, config, device or torch.device("cpu"), folder, fingerprint, say).run(on_loss)


class _Distillation:
    def __init__(
        self,
        generator: networks.SceneGenerator,
        config: Training,
        device: torch.device,
        folder: Path | None,
        fingerprint: str,
        say: Callable[[str], None],
    ) -> None:
        self.generator, self.config, self.device = generator, config, device
        self.folder, self.fingerprint, self.say = folder, fingerprint, say
        torch.manual_seed(config.seed)
        self.autocast = networks.autocast(config, device)
        estimator = networks.Estimator(config.estimator_channels, config.disparity_max)
        self.student = networks.channels_last(estimator, device)
        rate, self.batch = config.estimator_learning_rate, config.estimator_batch
        self.optimizer = torch.optim.Adam(self.student.parameters(), lr=rate, fused=True)
        self.steps = math.ceil(config.estimator_images / self.batch)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, rate, total_steps=self.steps + 1)
        self.finite_check = FiniteCheck(device.type != "cpu", "lower train.estimator_learning_rate")
        self.saved_at = self.resume() if folder else 0

    def run(self, on_loss: Callable[[int, float], None]) -> networks.Estimator:
        with deferred_signals(self.report_timeout) as signals:
            for step in range(self.saved_at, self.steps):
                loss = self.step(step)
                if step % LOG_EVERY == 0:
                    on_loss(step * self.batch, loss.item())
                images = (step + 1) * self.batch
                if self.folder and (signals or crossed_interval(images, self.config.checkpoint_every, self.batch)):
                    self.save(self.folder, step + 1)
                if signals:
                    state = "saved" if self.folder else "lost"
                    self.say(f"interrupted, the estimator {state} at {images} images; {RESUME_HINT}")
                    raise KeyboardInterrupt(signals[0])
        self.finite_check.raise_if_bad()
        return self.student.eval()

    def step(self, step: int) -> Tensor:
        """One step of the optimiser. Returns the loss: squared error of disparity in units of its range, so the estimate is the
        mean of what is likely; beside it the negative log-likelihood of the predicted error, under a Laplace distribution
        (Kendall and Gal, 2017) of the filtered estimate's error."""
        photos, disparity = self.pairs(step)
        with self.autocast():
            prediction, error = self.student.with_error(photos)
        with torch.no_grad():
            residual = (guided_filter(prediction, photos) - disparity).abs()
        regression = F.mse_loss(prediction, disparity) / self.config.disparity_max**2
        loss = regression + (residual / error + error.log()).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        tensors = {"the estimator's loss": loss} | gradients(self.student, "the estimator")
        self.optimizer.found_inf = self.finite_check(tensors, step * self.batch)  # type: ignore[attr-defined]
        self.optimizer.step()
        self.schedule.step()
        return loss

    @torch.no_grad()
    def pairs(self, step: int) -> tuple[Tensor, Tensor]:
        """Photos (N, 3, R, R) and their disparity (N, 1, R, R), new for every step.

        Photos vary in aperture as in training (the DoF mixture), are flipped, and vary in colour, since generated colours are
        narrower than real ones.
        """
        random = step_random(self.config.seed, step * self.batch, SALT)
        latents = to_device(torch.randn(self.batch, self.config.latent, generator=random), self.device)
        with self.autocast():
            image, disparity = self.generator(latents)
        scale = self.generator.mixture(to_device(aperture_noise(len(image), random), self.device))
        photos = self.generator.photograph(image, disparity, scale)
        disparity = erode_foreground(disparity, self.config.estimator_outline)
        if step % 2:  # every second batch is flipped, photo and disparity together
            photos, disparity = photos.flip(3), disparity.flip(3)
        colors = to_device(torch.rand(3, len(photos), generator=random), self.device)
        photos = color(photos, COLOR, *colors).clamp(-1, 1)
        return photos.contiguous(memory_format=torch.channels_last), disparity

    def resume(self) -> int:
        """The step to start with."""
        assert self.folder
        newest = checkpoint.newest(self.folder, self.fingerprint, self.say)
        if newest is None:
            return 0
        tensors, meta = newest
        step: int = meta["step"]
        self.student.load_state_dict(strip_prefix(tensors, "student"))
        restore_optimizer(self.optimizer, strip_prefix(tensors, "optimizer"))
        self.schedule.last_epoch = step - 1  # rate and momentum are functions of the step alone
        with warnings.catch_warnings(action="ignore"):  # that the optimiser has not moved yet
            self.schedule.step()
        self.say(f"resuming the estimator at {step * self.batch} of {self.config.estimator_images} images")
        return step

    def save(self, folder: Path, step: int) -> None:
        self.finite_check.raise_if_bad()
        tensors = {f"student.{k}": v for k, v in self.student.state_dict().items()}
        tensors |= {f"optimizer.{k}": v for k, v in optimizer_tensors(self.optimizer).items()}
        checkpoint.save(folder, step * self.batch, tensors, {"fingerprint": self.fingerprint, "step": step}, keep=1)
        self.saved_at = step

    def report_timeout(self) -> None:
        self.say(f"interrupted in the middle of a long step; saved at step {self.saved_at}; {RESUME_HINT}")


def erode_foreground(disparity: Tensor, pixels: int) -> Tensor:
    """The foreground, smaller by `pixels` all round: disparity (N, 1, H, W) -> the same, the farthest within that distance.

    Generated subjects carry a rim of their background along. A pixel on an outline shows both surfaces, and only with the nearer
    one's disparity does it stay where it is; and where the background is smooth its blur leaves the rim no reason to go.
    """
    return -F.max_pool2d(-disparity, 2 * pixels + 1, stride=1, padding=pixels)
