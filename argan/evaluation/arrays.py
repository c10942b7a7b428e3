"""Arrays that the modules of evaluation hand to one another."""

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]  # numbers of photos in a store, or of their groups (n,)
Pixels = NDArray[np.uint8]  # photos (n, H, W, 3), or masks (n, H, W)
Maps = NDArray[np.float32]  # disparity (n, H, W), or features (n, F)

BATCH = 32  # photos or scenes at a time
