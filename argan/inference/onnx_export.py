"""The depth estimator as ONNX: for robots, phones and browsers, which have other runtimes than torch.

The file holds all of `networks.estimator.estimate_with_error`: the network and its two heads, the mean over a flip, and the fit to
the photo's edges.

    photo      float32 (N, 3, H, W), RGB in [-1, 1]: pixel / 127.5 - 1. H and W multiples of 8; best with the shorter side at
               the metadata's `resolution`, the scale at which the model learned
    disparity  float32 (N, 1, H, W), larger = nearer, 0 in the focal plane, in shift between the centre and the rim of the
               aperture as a fraction of H or W, the shorter one
    error      float32 (N, 1, H, W), the mean absolute error to expect of it, in the same unit. The chance that the disparity is
               within t of the truth is 1 - exp(-t / error); `argan depth` gives as confidence that of a tenth of the range, which
               is t = 0.2 times the metadata's `disparity_max`
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from argan.errors import UserError
from argan.files import atomic
from argan.networks.estimator import estimate_with_error

if TYPE_CHECKING:
    from argan.inference.model import Model

TOLERANCE = 1e-5  # of disparity and its error, which go to about 0.1: what two runtimes differ by
# Photos, height and width over the resolution, at which the two are compared
SHAPES = ((1, 1, 1), (2, 1, 1.5), (1, 2, 1))


class _Estimate(nn.Module):
    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student

    def forward(self, photo: Tensor) -> tuple[Tensor, Tensor]:
        return estimate_with_error(self.student, photo)  # type: ignore[arg-type]


def export_onnx(model: Model, path: Path) -> float:
    """Write `path` (.onnx) and return the largest difference from torch that was found on photos of several shapes.

    The file is compared by onnxruntime before it takes its place. Raises UserError where the extra `argan[onnx]` is missing,
    for another suffix, or when the two disagree.
    """
    if path.suffix.lower() != ".onnx":
        raise UserError(f"{path} must end in .onnx")
    if path.is_dir():
        raise UserError(f"{path} is a folder; name the file to write")
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; pip install 'argan[onnx]'") from error
    content = to_onnx(model)
    with atomic(path) as temporary:
        temporary.write_bytes(content)
        onnx.checker.check_model(str(temporary))
        largest = max_difference(model, temporary)
        if not largest <= TOLERANCE:
            raise UserError(
                f"{path} is not written: onnxruntime and torch differ by {largest:.2g}, allowed is {TOLERANCE:g}"
            )
    return largest


def to_onnx(model: Model) -> bytes:
    """The file's content, not verified yet."""
    import onnx

    r = model.config.resolution
    module = _Estimate(model.estimator).eval()
    batch, h, w = (torch.export.Dim(name, min=1, max=512) for name in ("batch", "h", "w"))
    # Shapes that differ from each other and from 1: what is equal by chance would be taken for equal by rule
    example = torch.zeros(2, 3, r, r + 8)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, of which nothing is used
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about torch
        program = torch.onnx.export(
            module, (example,), dynamo=True, verbose=False, external_data=False, input_names=["photo"],
            output_names=["disparity", "error"], dynamic_shapes=({0: batch, 2: 8 * h, 3: 8 * w},),
        )  # fmt: skip
    assert program is not None
    proto = program.model_proto
    onnx.helper.set_model_props(proto, metadata(model))
    content: bytes = proto.SerializeToString()
    return content


def metadata(model: Model) -> dict[str, str]:
    return {
        "argan.domain": model.domain,
        "argan.resolution": str(model.config.resolution),
        "argan.input": "photo: float32 (N, 3, H, W), RGB, pixel / 127.5 - 1; H and W multiples of 8, the shorter side best "
        f"{model.config.resolution}",
        "argan.output": "disparity: float32 (N, 1, H, W), larger = nearer, 0 in the focal plane; error: float32 (N, 1, H, W), the "
        "mean absolute error to expect of it",
        "argan.unit": "shift between the centre and the rim of the aperture, as a fraction of the shorter side",
        "argan.disparity_max": str(model.config.disparity_max),
    }


def max_difference(model: Model, path: Path) -> float:
    """Largest absolute difference of disparity, or of its error, between this file and torch."""
    session, r, worst = open_session(path), model.config.resolution, 0.0
    random = np.random.default_rng(0)
    for n, height, width in SHAPES:
        h, w = (8 * round(r * factor / 8) for factor in (height, width))
        coarse = torch.from_numpy(random.uniform(-1, 1, (n, 3, h // 8, w // 8)).astype(np.float32))
        photo = torch.nn.functional.interpolate(coarse, (h, w), mode="bilinear")
        outputs = session.run(["disparity", "error"], {"photo": photo.numpy()})
        expected = estimate_with_error(model.estimator, photo)
        worst = max(worst, *(float(np.abs(a - b.numpy()).max()) for a, b in zip(outputs, expected, strict=True)))
    return worst


def open_session(path: Path, threads: int = 0) -> Any:
    """An onnxruntime session on the CPU; 0 threads: as many as there are cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
