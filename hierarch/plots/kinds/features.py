"""The map of each stage as a picture: its first three principal components as red, green, blue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hierarch.nn.backbone import Backbone
from hierarch.plots.networks import Network, Size, picture, subject
from hierarch.plots.style import INK, SMALL, bare, blank, caption, caption_height
from hierarch.spec.grid import Sides
from hierarch.weights.files import Source as Weights

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COMPONENTS = 3


@dataclass(frozen=True)
class Components:
    """The principal components of one stage's map."""

    stage: int
    channels: int
    values: Tensor
    """(h, w, 3): the tokens along the first three components."""
    explained: tuple[float, ...]
    """The share of the variance of the tokens that each component has."""

    @property
    def grid(self) -> Sides:
        return self.values.shape[0], self.values.shape[1]


def components(model: Backbone, images: Tensor) -> tuple[Components, ...]:
    """The principal components of each stage's map of one image (1, C, H, W), with the norm that
    the map leaves the network with."""
    with torch.no_grad():
        maps = model.forward_intermediates(
            images, norm=True, output_fmt="NHWC", intermediates_only=True
        )
    assert isinstance(maps, list)
    return tuple(_components(i, tokens[0]) for i, tokens in enumerate(maps))


def _components(stage: int, tokens: Tensor) -> Components:
    height, width, channels = tokens.shape
    rows = tokens.flatten(0, 1)
    rows = rows - rows.mean(0)
    # rows = u s vᵀ: the components are the columns of v, and the tokens along them are u s
    u, s, v = torch.linalg.svd(rows, full_matrices=False)
    count = min(COMPONENTS, len(s))
    # a component has no sign: its largest weight is made positive
    largest = v[:count].gather(1, v[:count].abs().argmax(1, keepdim=True))
    values = rows.new_zeros(len(rows), COMPONENTS)
    values[:, :count] = u[:, :count] * s[:count] * largest[:, 0].sign()
    shares = (s.square() / s.square().sum().clamp(min=torch.finfo(s.dtype).tiny))[:count].tolist()
    return Components(stage, channels, values.view(height, width, COMPONENTS), tuple(shares))


def colors(values: Tensor) -> Tensor:
    """(h, w, 3) -> (h, w, 3), from 0 to 1: each component from its 1st to its 99th percentile."""
    flat = values.flatten(0, 1)
    low, high = flat.quantile(0.01, dim=0), flat.quantile(0.99, dim=0)
    spread = (high - low).clamp(min=torch.finfo(flat.dtype).tiny)
    return ((values - low) / spread).clamp(0, 1)


def features(
    network: Network,
    *,
    image: Any = None,
    size: Size = None,
    weights: Weights | None = None,
    seed: int = 0,
) -> Figure:
    """Draw the map of each stage of a network beside the picture that it is of: its first three
    principal components as red, green and blue.

    The picture is `image` (a file, an image of PIL, or an array (H, W) or (H, W, 3) of bytes), or
    else a drawn one, at `size`, by default the spec's. `weights` are for a spec. Raises
    `SpecError`, `DataError`, `WeightsError` and `MissingPackageError`.

    >>> figure = features("swin_tiny", size=64)
    >>> [axes.get_title() for axes in figure.axes]
    ['picture', 'stage 0', 'stage 1', 'stage 2', 'stage 3']
    """
    looked = subject(network, weights=weights, seed=seed)
    shown = picture(image, looked.spec, size=size)
    found = components(looked.model, shown.images)
    said = (
        f"{looked.name}: the map of each stage, its tokens along their first three principal "
        "components as red, green and blue, each from its 1st to its 99th percentile. Tokens of "
        "one color are alike to the network; the colors of two stages have nothing in common. "
        f"Shown with {looked.weights}."
    )
    across, down = 2.3 * (1 + len(found)), 0.65 + 2.2 * shown.size[0] / shown.size[1]
    figure = blank(across, down + caption_height(across, said))
    first, *others = figure.subplots(1, 1 + len(found))
    first.imshow(shown.pixels, cmap="gray")
    first.set_title("picture", fontsize=SMALL + 1, color=INK)
    first.set_xlabel(f"{shown.size[0]} × {shown.size[1]} pixels", fontsize=SMALL - 1, color=INK)
    for axes, stage in zip(others, found, strict=True):
        axes.imshow(colors(stage.values).numpy(), interpolation="nearest")
        axes.set_title(f"stage {stage.stage}", fontsize=SMALL + 1, color=INK)
        axes.set_xlabel(
            f"{stage.grid[0]} × {stage.grid[1]} tokens of {stage.channels} channels\n"
            f"shown: {100 * sum(stage.explained):.0f} % of the variance",
            fontsize=SMALL - 1,
            color=INK,
        )
    for axes in (first, *others):
        bare(axes)
    caption(figure, said)
    return figure
