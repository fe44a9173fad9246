"""Inferring the spec of a Swin, Swin V2 or Swin-MLP from the shapes of its weights."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import torch

from hierarch.errors import WeightsError
from hierarch.spec.grid import Sides, per_axis
from hierarch.weights.adapt import POSITION, is_plain
from hierarch.weights.names import from_ours
from hierarch.weights.recognize import Recognized
from hierarch.weights.shapes import Shapes, Undetermined, hoisted, ratio


class SwinShapes:
    """Infers dims, depths, heads, windows and the head; `assumed` says what is not determined."""

    def __init__(
        self, recognized: Recognized, shapes: Shapes, window_size: int | Sides | None
    ) -> None:
        self.recognized = recognized
        self.shapes = shapes
        self.window_size = window_size
        self.assumed: list[str] = []
        self.depths = shapes.depths()
        if self._ends_in_merging():
            self.depths[len(self.depths)] = 0

    def _ends_in_merging(self) -> bool:
        """Whether the last stage has no blocks, rather than that they are missing."""
        end = len(self.depths)
        after = ("norm.weight", "head.fc.weight", f"stages.{end}.norm.weight")
        merging = f"stages.{end}.downsample.reduction.weight"
        return merging in self.shapes and not any(name in self.shapes for name in after)

    def is_swin(self) -> bool:
        merging = re.compile(r"stages\.\d+\.downsample\.(reduction|norm)\.")
        merged = [bool(merging.match(name)) for name in self.shapes if ".downsample." in name]
        return all(merged) and any(self._kind(i) for i in self.depths)

    def _kind(self, stage: int) -> str | None:
        """The type of a stage's mixers; None if it is none of Swin's."""
        first = f"stages.{stage}.blocks.0.mixer"
        marks = {
            "relative_position_bias_table": "window_attention",
            "logit_scale": "cosine_window_attention",
            "weight": "window_mlp",
        }
        return next(
            (kind for mark, kind in marks.items() if f"{first}.{mark}" in self.shapes), None
        )

    def spec(self) -> dict[str, Any]:
        """The spec as a mapping.

        Raises `Undetermined` if `window_size` is needed, and `WeightsError` for a damaged
        checkpoint.
        """
        if list(self.depths) != list(range(len(self.depths))):
            few = ", ".join(map(str, [*self.depths][:8]))
            raise WeightsError(f"the checkpoint has stages {few}: some are missing")
        stages = [self._stage(i) for i in self.depths]
        data: dict[str, Any] = {"stem": self._stem()}
        if self._kind(0) == "cosine_window_attention":
            data["block"] = "post_norm"
            data["downsample"] = {"type": "patch_merging", "norm_last": True}
        elif merging := self._merging(len(data["stem"]["patch_size"])):
            data["downsample"] = merging
        data |= {**hoisted(stages), **self._position(), **self._end()}
        return data | {"input_size": self._input_size(data)}

    def _stem(self) -> dict[str, Any]:
        stem = "stem.proj.weight"
        axes = len(self.shapes.get(stem) or ())
        _, in_chans, *patch = self.shapes.of(stem, 5 if axes == 5 else 4)
        norm = {} if "stem.norm.weight" in self.shapes else {"norm": None}
        return {"type": "patch_embed", "patch_size": patch, "in_chans": in_chans, **norm}

    def _merging(self, axes: int) -> dict[str, Any]:
        """The merging of a network of videos: 4 tokens become one, or 8, frames included."""
        if axes == 2 or 1 not in self.depths:
            return {}
        [wide] = self.shapes.of("stages.1.downsample.norm.weight", 1)
        [dim] = self.shapes.of("stages.0.blocks.0.norm2.weight", 1)
        return {"type": "patch_merging", "merge_size": [wide // dim // 4, 2, 2]}

    def _stage(self, i: int) -> dict[str, Any]:
        if not self.depths[i]:
            dim, _ = self.shapes.of(f"stages.{i}.downsample.reduction.weight", 2)
            return self._stage(i - 1) | {"dim": dim, "depth": 0}
        first = f"stages.{i}.blocks.0"
        [dim] = self.shapes.of(f"{first}.norm2.weight", 1)
        hidden, _ = self.shapes.of(f"{first}.mlp.fc1.weight", 2)
        mixer = self._mixer(i, dim)
        half = [side // 2 for side in per_axis(mixer["window_size"])]
        cycle = [mixer] if self.depths[i] == 1 else [mixer, mixer | {"shift_size": half}]
        return {
            "dim": dim,
            "depth": self.depths[i],
            "mixer": cycle,
            "mlp_ratio": ratio(hidden, dim),
        }

    def _mixer(self, i: int, dim: int) -> dict[str, Any]:
        name, kind = f"stages.{i}.blocks.0.mixer", self._kind(i)
        mixer: dict[str, Any] = {"type": kind}
        mixer["small_map"] = self.recognized.layout.small_map(self.recognized.tensors)
        if kind == "window_attention":
            rows, heads = self.shapes.of(f"{name}.relative_position_bias_table", 2)
            window = self._window(i, rows=rows)
            bias = f"{name}.qkv.bias" in self.shapes
        elif kind == "cosine_window_attention":
            heads, _, _ = self.shapes.of(f"{name}.logit_scale", 3)
            window = self._window(i, rows=None)
            bias = f"{name}.q_bias" in self.shapes
            mixer |= self._pretrained(i, window)
        elif kind == "window_mlp":
            slots, size, _ = self.shapes.of(f"{name}.weight", 3)
            heads, window, bias = slots // size, self._square(i, size), True
        else:
            raise WeightsError(
                f"stage {i}: the window size is not determined without a position table"
            )
        if not heads or dim % heads:
            raise WeightsError(f"stage {i}: {heads} heads do not divide its width of {dim}")
        mixer |= {"head_dim": dim // heads, "window_size": window}
        return mixer if bias else mixer | {"qkv_bias": False}

    def _window(self, i: int, *, rows: int | None) -> Sides:
        """A stage's window: from the (2h-1)(2w-1) rows of its table, a buffer, or `window_size`."""
        given = per_axis(self.window_size) if self.window_size else None
        if rows is not None:
            if given and math.prod(2 * side - 1 for side in given) == rows:
                return given
            if len(self.shapes["stem.proj.weight"]) == 5:
                return self._of_video(i, rows)
            side = math.isqrt(rows)
            if side**2 == rows and side % 2:
                return (side + 1) // 2, (side + 1) // 2
            said = f"stage {i}: its position table has {rows} rows, which no square window has"
            if rows % 2 == 0:  # nor any other: offsets are odd in number on both axes
                raise WeightsError(said)
            h, w = _sides(rows)
            raise Undetermined(
                f"{said}; give its window by window_size=(height, width)",
                window=((h + 1) // 2, (w + 1) // 2),
            )
        coordinates = self._coordinates(i)
        if coordinates is not None:
            h, w, _ = coordinates.shape
            return (h + 1) // 2, (w + 1) // 2
        index = self._buffer(f"stages.{i}.blocks.0.mixer", "relative_position_index")
        if index is not None:
            return self._square(i, math.isqrt(index.numel()))
        if given:
            return given
        raise Undetermined(
            f"a {self.recognized.layout.name} checkpoint of Swin V2 does not determine its window, "
            "since its position bias fits any; give one by window_size=8",
            window=(8, 8),
        )

    def _of_video(self, i: int, rows: int) -> Sides:
        """A stage's window of a video, from the index that torchvision stores."""
        index = self._buffer(f"stages.{i}.blocks.0.mixer", "relative_position_index")
        sides = () if index is None or index.ndim != 2 or 0 in index.shape else indexed(index)
        if math.prod(2 * side - 1 for side in sides) != rows or len(sides) != 3:
            raise Undetermined(
                f"stage {i}: its position table has {rows} rows, which do not determine a window "
                "of a video; give it by window_size=(frames, height, width)"
            )
        return sides

    def _square(self, i: int, size: int) -> Sides:
        """The window of `size` tokens: `window_size` if it has as many, else a square."""
        given = per_axis(self.window_size) if self.window_size else None
        if given and math.prod(given) == size:
            return given
        side = math.isqrt(size)
        if side**2 != size:
            raise Undetermined(
                f"stage {i}: its window has {size} tokens and is no square; give its "
                "sides by window_size=(height, width)",
                window=_sides(size),
            )
        return side, side

    def _buffer(self, module: str, name: str) -> torch.Tensor | None:
        """A buffer that the checkpoint stores for one of our modules; None if it stores none.

        The checkpoint's name of the module is read off its weight "proj.weight" or "norm1.weight".
        """
        links, _ = from_ours(
            self.recognized.layout.rows, [f"{module}.{n}.weight" for n in ("proj", "norm1")]
        )
        for theirs in (name for link in links for name in link.theirs):
            stored = self.recognized.tensors.get(f"{theirs.rsplit('.', 2)[0]}.{name}")
            if stored is not None:
                return stored if is_plain(stored) else None
        return None

    def _coordinates(self, i: int) -> torch.Tensor | None:
        """V2's buffer of offsets in a stage's windows, (2h-1, 2w-1, 2), or None."""
        stored = self._buffer(f"stages.{i}.blocks.0.mixer", "relative_coords_table")
        if stored is None or stored.ndim != 4:
            return None
        sides = stored.shape[1:3]
        return stored[0] if stored.shape == (1, *sides, 2) and all(n % 2 for n in sides) else None

    def _pretrained(self, i: int, window: Sides) -> dict[str, Any]:
        """The window size that V2's position bias was trained with, from the buffer of offsets."""
        coordinates = self._coordinates(i)
        if coordinates is None:
            self._assume("the position bias was trained with the same window")
            return {}
        trained = []
        for axis, side in enumerate(window):
            # eq. (4) at the edge: log2(8 (w - 1) / (w' - 1) + 1) / log2 8
            edge = float(coordinates[-1, -1, axis])
            if side > 1 and not 0.05 < edge < 3:  # else 8 ** edge is of no window up to 64
                raise WeightsError(f"stage {i}: its coordinates end in {edge}, as no window's do")
            trained.append(round(8 * (side - 1) / (8**edge - 1)) + 1 if side > 1 else side)
        return {} if tuple(trained) == window else {"pretrained_window_size": trained}

    def _position(self) -> dict[str, Any]:
        if (shape := self.shapes.get(POSITION)) is None:
            return {}
        shape = self.shapes.of(POSITION, 4 if len(shape) == 4 else 3)
        if shape[0] != 1:
            raise WeightsError(f"{POSITION} should have 1 row, got shape {tuple(shape)}")
        side = math.isqrt(shape[1])
        grid = list(shape[1:3]) if len(shape) == 4 else [side, side]
        if math.prod(grid) != math.prod(shape[1:-1]):
            raise Undetermined(f"{shape[1]} absolute positions are no square grid")
        return {"position_embedding": {"type": "absolute", "grid": grid}}

    def _end(self) -> dict[str, Any]:
        """The head, or the outputs that have a norm."""
        if "head.fc.weight" in self.shapes:
            return {"head": {"num_classes": self.shapes.of("head.fc.weight", 2)[0]}}
        outputs = [i for i in self.depths if f"stages.{i}.norm.weight" in self.shapes]
        if outputs:
            return {"out_indices": outputs}
        if "norm.weight" in self.shapes:
            return {"head": {"num_classes": 0}}
        return {"output_norm": False}

    def _input_size(self, data: dict[str, Any]) -> Any:
        """In pixels: of a position embedding or a mask, else the smallest that needs no padding."""
        patch = data["stem"]["patch_size"]
        if position := data.get("position_embedding"):
            grid = _on_axes_of(patch, "its position embedding", position["grid"])
            return [g * p for g, p in zip(grid, patch, strict=True)]
        masks = self._buffer("stages.0.blocks.1", "attn_mask")
        if masks is not None and masks.ndim == 3:
            side = math.isqrt(masks.shape[0] * masks.shape[1])
            return [side * p for p in patch]
        self._assume("the image size is the smallest that needs no padding")
        window = per_axis((data.get("mixer") or data["stages"][0]["mixer"])[0]["window_size"])
        _on_axes_of(patch, "its windows", window)
        merged = data.get("downsample", {}).get("merge_size", [2] * len(patch))
        times = [factor ** (len(self.depths) - 1) for factor in merged]
        return [w * p * n for w, p, n in zip(window, patch, times, strict=True)]

    def _assume(self, sentence: str) -> None:
        if sentence not in self.assumed:
            self.assumed.append(sentence)


def _on_axes_of(patch: Sequence[int], what: str, sides: Sequence[int]) -> Sequence[int]:
    """Raises `WeightsError` unless these are sides on as many axes as the stem's patches have."""
    if len(sides) != len(patch):
        raise WeightsError(f"its patches have {len(patch)} axes, and {what} {len(sides)}")
    return sides


def indexed(index: torch.Tensor) -> Sides:
    """The sides of a window of which this is the relative position index, (N, N); those of 1 left
    out.

    >>> from hierarch.nn.attention import relative_position_index
    >>> indexed(relative_position_index((8, 7, 5)))
    (8, 7, 5)
    """
    rest, sides = (index[:, 0] - index[0, 0]).tolist(), []
    while len(rest) > 1:
        side = next((k for k, row in enumerate(rest) if row != k * rest[1]), len(rest))
        sides.append(side)
        rest = rest[::side]
    return tuple(reversed(sides))


def _sides(area: int) -> Sides:
    """Height and width of the rectangle of this area that is nearest to a square."""
    short = next(side for side in range(math.isqrt(area), 0, -1) if area % side == 0)
    return short, area // short
