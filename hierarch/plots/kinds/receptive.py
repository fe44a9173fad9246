"""The effective receptive field of each stage (Luo et al. 2016, arXiv:1701.04128).

What one token of a stage takes from each pixel: the gradient of the token in the middle with
respect to the image. The theoretical field is where it is not 0; the effective one is where it is
large, which is usually a small part of that.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from hierarch.nn.backbone import Backbone
from hierarch.nn.window_mixer import OTHER_REGION
from hierarch.plots.networks import Network, Size, Subject, picture, subject
from hierarch.plots.style import INK, SMALL, bare, blank, caption, caption_height
from hierarch.spec.difference import difference
from hierarch.spec.grid import Sides, checked_size, per_axis
from hierarch.weights.files import Source as Weights

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IMAGES = 4
"""Random images, where none are given."""
DECADES = 5
"""Powers of ten that the colors span."""


@dataclass(frozen=True)
class Field:
    """The receptive field of one stage's middle token.

    >>> from hierarch.plots.networks import subject
    >>> looked = subject("ablations/swin_tiny_no_shift")
    >>> first = fields(looked.model, random_images(3, (64, 64))[:1])[0]
    >>> 0 < first.holding(0.9) < 1
    True
    """

    stage: int
    token: Sides
    """Row and column on the stage's grid."""
    strength: Tensor
    """(H, W): for each pixel, the root of the mean square, over images and channels of the token,
    of the gradient's length."""
    reached: Tensor
    """(H, W): whether the token depends on the pixel at all."""

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The rows and columns that hold all pixels that are reached: top, left, bottom, right, the
        latter two one past the last."""
        rows, columns = (torch.nonzero(self.reached.any(axis))[:, 0].tolist() for axis in (1, 0))
        return rows[0], columns[0], rows[-1] + 1, columns[-1] + 1

    @property
    def extent(self) -> Sides:
        """Height and width of the box, in pixels."""
        top, left, bottom, right = self.box
        return bottom - top, right - left

    def holding(self, share: float) -> float:
        """The smallest share of the image's pixels that holds this share of all strength."""
        held = self.strength.flatten().sort(descending=True).values.cumsum(0)
        return (int((held < share * held[-1]).sum()) + 1) / held.numel()


def fields(model: Backbone, images: Tensor, *, seed: int = 0) -> tuple[Field, ...]:
    """The receptive field of each stage, averaged over images (B, C, H, W).

    The gradient's square is summed over a token's channels by random signs (Hutchinson 1990): the
    square of a sum with random signs has that sum for its mean.

    >>> from hierarch.plots.networks import subject
    >>> images = random_images(3, (32, 32))[:1]
    >>> [field.extent for field in fields(subject("swin_tiny").model, images)]
    [(32, 32), (32, 32), (32, 32), (32, 32)]
    """
    generator = torch.Generator().manual_seed(seed)
    middles: dict[int, Sides] = {}
    gradients: dict[int, list[Tensor]] = {}
    for image in torch.split(images, 1):  # autograd keeps all maps of one at a time
        image = image.detach().requires_grad_()
        with torch.enable_grad(), _Apart():
            for stage, tokens in model.maps(image, range(len(model.stages))).items():
                y, x = middles[stage] = tokens.shape[1] // 2, tokens.shape[2] // 2
                signs = torch.randint(2, tokens.shape[3:], generator=generator) * 2 - 1
                middle = tokens[0, y, x] @ signs.to(tokens)
                (gradient,) = torch.autograd.grad(middle, image, retain_graph=True)
                gradients.setdefault(stage, []).append(gradient[0])
    return tuple(
        Field(
            stage,
            middles[stage],
            strength=torch.stack([one.square().sum(0) for one in found]).mean(0).sqrt(),
            reached=torch.stack([(one != 0).any(0) for one in found]).any(0),
        )
        for stage, found in gradients.items()
    )


class _Apart(TorchFunctionMode):
    """While entered, pairs of tokens that a mask keeps apart have no weight at all. The network
    leaves each e^-100, as published: some 4e-44, which is lost in rounding, and would be taken for
    a dependence here."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and kwargs.get("attn_mask") is not None:
            mask = kwargs["attn_mask"]
            # a position bias is far from half of a mask
            apart = mask.masked_fill(mask < OTHER_REGION / 2, -torch.inf)
            kwargs = kwargs | {"attn_mask": apart}
        return func(*args, **kwargs)


def receptive(
    network: Network,
    *others: Network,
    size: Size = None,
    images: Sequence[Any] = (),
    weights: Weights | None = None,
    seed: int = 0,
) -> Figure:
    """Draw the effective receptive field of each stage, one network below the other, such as before
    and after a swap.

    `images` are pictures (files, images of PIL, arrays) to average over; without any, 4 images of
    random numbers. `size` is theirs, by default that of the first spec. `weights` are those of the
    first network, if that is a spec. Raises `SpecError`, `DataError` and `MissingPackageError`.

    >>> figure = receptive("swin_tiny", size=32)
    >>> [axes.get_title() for axes in figure.axes[:4]]
    ['stage 0', 'stage 1', 'stage 2', 'stage 3']
    """
    subjects = [subject(network, weights=weights, seed=seed)]
    subjects += [subject(other, seed=seed) for other in others]
    at = per_axis(subjects[0].spec.input_size) if size is None else checked_size(size)
    shown = [
        fields(looked.model, _images(looked, images, at, seed=seed), seed=seed)
        for looked in subjects
    ]
    columns = max(map(len, shown))
    of = f"{len(images)} given images" if images else f"{IMAGES} images of random numbers"
    said = (
        "What the middle token of each stage takes from each pixel: the gradient of the token with "
        f"respect to the image, averaged over {of} of {at[0]} × {at[1]} pixels (Luo et al. 2016). "
        "The frame holds all pixels that it depends on; white is none. " + _of_weights(subjects)
    )
    across, down = 1.3 + 2.1 * columns, 0.1 + len(shown) * (0.65 + 2.05 * at[0] / at[1])
    figure = blank(across, down + caption_height(across, said))
    grid = figure.subplots(len(shown), columns, squeeze=False)
    for row, name, found in zip(grid, _names(subjects), shown, strict=True):
        for axes in row[len(found) :]:
            axes.set_visible(False)
        for axes, field in zip(row, found, strict=False):
            image = _draw(axes, field)
        row[0].set_ylabel(textwrap.fill(name, 30), color=INK, fontsize=SMALL + 1)
    bar = figure.colorbar(image, ax=grid, shrink=0.5, aspect=30, pad=0.01)
    bar.set_label("gradient, over the strongest", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    caption(figure, said)
    return figure


def random_images(in_chans: int, size: Sides, *, seed: int = 0) -> Tensor:
    """Images of standard normal numbers, which is what those of a normed picture are on average.

    >>> random_images(3, (32, 48)).shape
    torch.Size([4, 3, 32, 48])
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((IMAGES, in_chans, *size), generator=generator, dtype=torch.float64)


def _images(looked: Subject, images: Sequence[Any], size: Sides, *, seed: int) -> Tensor:
    if images:
        return torch.cat([picture(image, looked.spec, size=size).images for image in images])
    return random_images(looked.spec.stem.in_chans, size, seed=seed)


def _draw(axes: Axes, field: Field) -> Any:
    """One field, on a logarithmic scale."""
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle

    relative = (field.strength / field.strength.max()).clamp(min=10.0**-DECADES)
    colors = colormaps["magma_r"].with_extremes(bad="white")
    image = axes.imshow(
        relative.where(field.reached, torch.nan).numpy(),
        cmap=colors,
        norm=LogNorm(10.0**-DECADES, 1),
        interpolation="nearest",
    )
    top, left, bottom, right = field.box
    axes.add_patch(
        Rectangle(
            (left - 0.5, top - 0.5),
            right - left,
            bottom - top,
            fill=False,
            edgecolor=INK,
            linewidth=0.6,
        )
    )
    bare(axes)
    height, width = field.extent
    axes.set_title(f"stage {field.stage}", fontsize=SMALL + 1, color=INK)
    axes.set_xlabel(
        f"depends on {height} × {width} pixels\n"
        f"half lies in {100 * field.holding(0.5):.2g} % of the pixels",
        fontsize=SMALL - 1,
        color=INK,
    )
    return image


def _names(subjects: Sequence[Subject]) -> list[str]:
    """The name of each network; for one of the same name as the first, how it differs from it."""
    first = subjects[0].spec
    names = []
    for looked in subjects:
        changes = difference(first, looked.spec) if looked.name == first.name else ()
        names.append(f"{looked.name}, {'; '.join(changes)}" if changes else looked.name)
    return names


def _of_weights(subjects: Sequence[Subject]) -> str:
    said = dict.fromkeys(looked.weights for looked in subjects)
    if len(said) == 1:
        return f"Shown with {subjects[0].weights}."
    pairs = zip(_names(subjects), subjects, strict=True)
    return "Shown with " + "; ".join(f"{looked.weights} ({name})" for name, looked in pairs) + "."
