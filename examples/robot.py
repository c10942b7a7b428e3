"""Depth for a robot's camera: the estimator without torch, on a CPU, and how long a frame takes.

    argan export meadow --out estimator.onnx       # once, where argan is installed
    python examples/robot.py estimator.onnx        # where the camera is: needs numpy, Pillow and onnxruntime alone
    python examples/robot.py estimator.onnx photo.jpg meadow     # a photo of yours; and compare with torch

Disparity is relative: larger = nearer, 0 in the focal plane. Distances follow once one of them is known (docs/method.md).
"""

import statistics
import sys
import time

import numpy as np
import onnxruntime
from PIL import Image


def main(file: str, photo: str | None = None, model: str | None = None, frames: str = "50") -> float:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2  # leave the robot's other cores alone
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    side = int(about["argan.resolution"])

    # A camera's frame, its shorter side at the resolution the model learned at, both sides multiples of 8
    picture = Image.open(photo).convert("RGB") if photo else Image.effect_mandelbrot((640, 480), (-2, -1, 1, 1), 99)
    ratio = side / min(picture.size)
    size = [max(side, 8 * round(n * ratio / 8)) for n in picture.size]
    pixels = np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BOX), np.float32)
    frame = (pixels / 127.5 - 1).transpose(2, 0, 1)[None]

    times = []
    for _ in range(int(frames)):
        began = time.perf_counter()
        disparity, error = (plane[0, 0] for plane in session.run(["disparity", "error"], {"photo": frame}))
        times.append(time.perf_counter() - began)
    worst = sorted(times)[int(0.95 * len(times))]
    print(f"{size[0]} x {size[1]}: {statistics.median(times) * 1e3:.1f} ms a frame, 95 % below {worst * 1e3:.1f} ms")
    sure = np.where(error <= np.median(error), disparity, -np.inf)  # a robot does not brake for a guess
    y, x = np.unravel_index(sure.argmax(), sure.shape)
    print(f"nearest, of the surer half: {sure[y, x]:.3f} +- {error[y, x]:.3f} at column {x}, row {y}")
    print(f"unit: {about['argan.unit']}")

    if model is None:
        return 0.0
    import torch  # only to see that it is the same estimator

    import argan
    from argan.networks.estimator import estimate_with_error

    expected = estimate_with_error(argan.load(model).estimator, torch.from_numpy(frame))
    difference = max(
        float(np.abs(a - b[0, 0].numpy()).max()) for a, b in zip((disparity, error), expected, strict=True)
    )
    print(f"largest difference from torch: {difference:.1g}")
    return difference


if __name__ == "__main__":
    main(*sys.argv[1:])
