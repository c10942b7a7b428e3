"""A reference for depth where none is known: Depth Anything V2 Small (Yang et al., NeurIPS 2024), on held-out photographs alone.

A network trained on 62 million photographs: it judges, it never teaches. Its answer is relative inverse depth, larger = nearer,
of unknown scale and offset, so that only ranks are compared with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from argan.errors import UserError
from argan.metrics.features import OFFLINE_VARIABLE

Maps = NDArray[np.float32]

NAME = "depth-anything-v2-small"
WEIGHTS = {  # Apache-2.0
    "url": "https://huggingface.co/depth-anything/Depth-Anything-V2-Small-hf/resolve/"
    "5426e4f0f36572d16453bbda7a8389317b1bef99/model.safetensors",
    "sha256": "3152477ce0d8d6978d76b995120de97cb5b928701fd0f817769f59e249a16b70",
}
BACKBONE: dict[str, Any] = {
    "hidden_size": 384, "num_attention_heads": 6, "image_size": 518, "patch_size": 14, "out_indices": [3, 6, 9, 12],
    "reshape_hidden_states": False,
}  # fmt: skip
HEAD: dict[str, Any] = {}  # the rest of the network is as the library has it
INPUT_SIZE = 252  # pixels at which it looks at photos, of the 518 it was trained with: ours hold 256 at most; a quarter of the time
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def reference(device: torch.device) -> Callable[[NDArray[np.uint8]], Maps]:
    """A function from photos (N, H, W, 3) uint8 to their relative inverse depth (N, H, W).

    The weights are fetched once into the user's cache. Raises UserError where the package or the weights are missing.
    """
    try:
        from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config
    except ImportError as error:
        raise UserError(
            f"evaluate.reference: {NAME} needs the package transformers; pip install 'argan[reference]'"
        ) from error
    from argan.tensors import read_tensors

    config = DepthAnythingConfig(backbone_config=Dinov2Config(**BACKBONE), **HEAD)
    network = DepthAnythingForDepthEstimation(config).eval().requires_grad_(False)
    tensors, _ = read_tensors(_weights())
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(
            f"evaluate.reference: the weights do not fit the network of the installed transformers: {error}"
        ) from error
    network.to(device)
    mean, deviation = (torch.tensor(v, device=device)[:, None, None] for v in (MEAN, DEVIATION))

    @torch.inference_mode()
    def judge(photos: NDArray[np.uint8]) -> Maps:
        x = torch.from_numpy(np.array(photos)).to(device).permute(0, 3, 1, 2).float() / 255
        x = F.interpolate(x, (INPUT_SIZE, INPUT_SIZE), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        depth = network((x - mean) / deviation).predicted_depth[:, None]
        found: Maps = (
            F.interpolate(depth, photos.shape[1:3], mode="bilinear", antialias=True)[:, 0].float().cpu().numpy()
        )
        return found

    return judge


def _weights() -> Path:
    from argan.photos.sources.download import download

    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "argan" / f"{NAME}.safetensors"
    if os.environ.get(OFFLINE_VARIABLE) and not path.exists():
        raise UserError(
            f"evaluate.reference: {OFFLINE_VARIABLE} is set and {path} is not there; put it there: {WEIGHTS['url']}"
        )
    return download(WEIGHTS["url"], path, sha256=WEIGHTS["sha256"]).path
