"""A picture that is drawn from formulas, for plots that are given none."""

from __future__ import annotations

from typing import Any

import numpy as np

from hierarch.spec.grid import Sides

Pixels = np.ndarray[Any, Any]


def scene(size: Sides) -> Pixels:
    """(H, W, 3), bytes: a low sun between mountains over a lake, in a few flat colors."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    y, x = (rows + 0.5) / size[0], (columns + 0.5) / size[1]
    picture = np.empty((*size, 3), dtype=np.uint8)
    picture[...] = (222, 235, 242)
    for top, color in ((0.18, (232, 236, 234)), (0.32, (243, 232, 214)), (0.44, (248, 222, 186))):
        picture[y > top] = color
    sun = ((x - 0.68) * size[1] / size[0]) ** 2 + (y - 0.30) ** 2 < 0.085**2
    picture[sun] = (250, 190, 80)
    far = 0.50 - 0.16 * np.abs(np.sin(5.1 * x + 0.6)) - 0.03 * np.sin(23 * x)
    picture[y > far] = (150, 170, 190)
    near = 0.58 - 0.22 * np.clip(1 - np.abs(x - 0.22) / 0.26, 0, 1) - 0.02 * np.sin(31 * x)
    picture[y > near] = (88, 112, 128)
    picture[(y > near) & (y < 0.43)] = (240, 244, 246)
    water = y > 0.60
    wave = np.sin(90 * np.maximum(y - 0.6, 0) ** 0.8 + 1.5 * np.sin(9 * x)) > 0.55
    picture[water] = (132, 164, 188)
    picture[water & wave] = (164, 190, 208)
    picture[water & wave & (np.abs(x - 0.68) < 0.03 + 0.1 * (y - 0.6))] = (250, 205, 130)
    shore = 0.86 + 0.05 * np.sin(4.2 * x + 1)
    picture[y > shore] = (74, 92, 66)
    for at, tall in ((0.08, 0.42), (0.16, 0.34), (0.90, 0.40)):
        down = (y - shore + tall) / tall  # from the tree's tip, 0, to its foot, 1
        picture[(down > 0) & (down < 1.05) & (np.abs(x - at) < 0.055 * down)] = (44, 66, 52)
    return picture
