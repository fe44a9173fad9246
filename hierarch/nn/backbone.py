"""The network: a fold over its stages, with timm's names for what can be asked of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Literal, Self, TypeVar, cast

from einops import rearrange
from torch import Tensor, fx, nn

from hierarch.nn import init
from hierarch.nn.extra_tokens import ExtraTokens, without_extra
from hierarch.nn.head import Head
from hierarch.nn.layers import build_norm
from hierarch.nn.stage import Stage
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.grid import AXES, Sides
from hierarch.spec.head import HeadSpec
from hierarch.spec.load import override
from hierarch.spec.parts import MixerSpec, NormSpec, PositionSpec


class FeatureInfo(list[dict[str, Any]]):
    """What is known of each stage's map, as timm tells it: `num_chs`, `reduction`, `module`.

    >>> from hierarch import build
    >>> info = build("swin_tiny", head=None).feature_info
    >>> info.channels(), info.reduction()
    ([96, 192, 384, 768], [4, 8, 16, 32])
    """

    def channels(self) -> list[int]:
        """Channels of each map."""
        return [info["num_chs"] for info in self]

    def reduction(self) -> list[int | tuple[int, ...]]:
        """Pixels per token, along every side or as one number per axis."""
        return [info["reduction"] for info in self]

    strides = reduction


Output = Tensor | tuple[Tensor, ...]
"""What a network returns: logits, or maps."""


class Backbone(nn.Module):
    """Images (B, in_chans, H, W), any H and W, to logits (B, num_classes) where the spec has a
    head, else to a tuple of maps (B, C_i, H_i, W_i), one per index of `spec.outputs`. A list of
    images of several sizes gives a list: see `forward_each`.

    Liu et al. 2021, arXiv:2103.14030, section 3; the spec says with which mixers. Inside, every
    map is (B, H, W, C).

    >>> import torch
    >>> from hierarch import build
    >>> model = build("swin_tiny").eval()
    >>> model.reset_classifier(10)
    >>> model(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 10])
    >>> [tuple(m.shape) for m in model.forward_intermediates(torch.zeros(1, 3, 64, 64), [1, 2])[1]]
    [(1, 192, 8, 8), (1, 384, 4, 4)]
    """

    frozen_stages: int = -1
    """The stages that `freeze` froze, with the stem; -1 for nothing."""

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        plan = spec.plan()
        self.spec, self.axes = spec, spec.axes
        self.stem = spec.stem.build(plan[0].in_dim)
        position = spec.position_embedding
        self.position_embedding = position.build(plan[0].in_dim) if position else nn.Identity()
        extra = spec.extra_tokens
        self.extra_tokens = ExtraTokens(extra, plan[0].in_dim) if extra else nn.Identity()
        self._tells_grid = extra is not None and any(m.takes_grid for m in plan[0].mixers)
        self.drop = nn.Dropout(spec.drop_rate)
        self.stages = nn.ModuleList(map(Stage, plan))
        self.num_features = plan[-1].dim
        # only a head's norm is here, before the mean; an output has a norm of its own
        norms_map = spec.head is not None and not spec.head.pool_first
        self.norm = build_norm(self._head_norm(), self.num_features) if norms_map else nn.Identity()
        self.head = self._head(spec.head)

    def _head_norm(self) -> NormSpec:
        own = self.spec.head.norm if self.spec.head else None
        return own or self.spec.plan()[-1].norm

    def _head(self, head: HeadSpec | None) -> nn.Module:
        if head is None:
            return nn.Identity()
        return Head(
            self.num_features,
            head,
            norm=self._head_norm(),
            axes=2 if self.spec.extra_tokens else self.axes,
            extra_tokens=self.extra_count,
            classifiers=self.spec.classifiers,
        )

    @property
    def extra_count(self) -> int:
        """Tokens outside of the grid."""
        return self.spec.extra_tokens.count if self.spec.extra_tokens else 0

    def forward(self, images: Tensor | Sequence[Tensor]) -> Output | list[Output]:
        if isinstance(images, list | tuple):
            return self.forward_each(images)
        images = cast(Tensor, images)  # or a proxy, where a tracer runs it
        if self.spec.head is not None:
            return self.forward_head(self.forward_features(images))
        outputs = self.spec.outputs
        maps = self.maps(images, outputs)
        return tuple(self.nchw(self.normed(i, maps[i]), images) for i in outputs)

    def forward_each(self, images: Sequence[Tensor]) -> list[Output]:
        """Images of any sizes, (in_chans, H, W) each, to the outputs of each, without an axis of
        images: logits (num_classes), or maps (C_i, H_i, W_i)."""
        outputs = (self(image[None]) for image in images)
        return [out[0] if isinstance(out, Tensor) else tuple(m[0] for m in out) for out in outputs]

    def maps(self, images: Tensor, wanted: Collection[int]) -> dict[int, Tensor]:
        """(B, in_chans, H, W) -> {i: (B, H_i, W_i, C_i)}, without the norms of outputs: a fold over
        the stages, up to the last one wanted. Raises `ValueError` for another shape of images."""
        check_images(images, self.spec.stem.in_chans, axes=self.axes)
        x, told = self.embed(images), self.told(images)
        kept = {}
        for i, stage in enumerate(self.stages[: max(wanted) + 1]):
            x = stage(x, *told)
            if i in wanted:
                kept[i] = x
        return kept

    def embed(self, images: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, h, w, dim): the tokens that enter the first stage; with tokens
        outside of the grid, (B, 1, P + h * w, dim)."""
        placed = self.position_embedding(self.stem(images))
        tokens: Tensor = self.drop(self.extra_tokens(placed))
        return tokens

    def told(self, images: Tensor) -> tuple[Sides, ...]:
        """What stages are given beside tokens: nothing, or the grid, where a mixer takes it since
        tokens outside of the grid make one row of all."""
        return (self._grid(images),) if self._tells_grid else ()

    def _grid(self, images: Tensor) -> Sides:
        """The grid of the stem."""
        return self.spec.stem.grid(tuple(images.shape[i + 2] for i in range(self.axes)))

    def nchw(self, x: Tensor, images: Tensor) -> Tensor:
        """A stage's map (B, H, W, C), or its row of tokens with those outside of the grid, as
        (B, C, H, W), the grid's tokens alone."""
        if self.spec.extra_tokens:
            grid = self._grid(images)
            x = without_extra(x, self.extra_count)[:, 0].reshape(-1, *grid, x.shape[-1])
        return to_nchw(x)

    def normed(self, index: int, x: Tensor) -> Tensor:
        """The norm that a stage's map leaves the network with: the last one's is the head's. A
        module that took a stage's place has no other than that."""
        stage = _within(self.stages[index], Stage)
        normed: Tensor = stage.norm(x) if stage else x
        return self.norm(normed) if index == len(self.stages) - 1 else normed

    def forward_features(self, images: Tensor) -> Tensor:
        """The last stage's map, normed: (B, in_chans, H, W) -> (B, h, w, num_features); with P
        tokens outside of the grid a row of all tokens, (B, 1, P + h * w, num_features)."""
        last = len(self.stages) - 1
        return self.normed(last, self.maps(images, [last])[last])

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, h, w, num_features) -> (B, num_classes), or (B, num_features) if `pre_logits`.

        Raises `ValueError` for a network without a head.
        """
        if self.spec.head is None:
            raise ValueError(f"{self.spec.name} has no head; build it with head={{...}}")
        logits: Tensor = self.head(features, pre_logits=pre_logits)
        return logits

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: Literal["NCHW", "NHWC"] = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The maps of some stages, in the network's order, as timm gives them.

        `indices`: which stages; a number n stands for the last n, None for all. `norm`: apply the
        norm that the network has for a stage's output. `stop_early`: run no stage after the last
        one asked for. Returns (final map, maps), or the maps alone if `intermediates_only`. The
        final map, (B, h, w, C), is that of `forward_features`; if stopped early, that of the last
        stage run, before any norm.
        """
        count = len(self.stages)
        wanted = stage_indices(indices, count)
        if output_fmt not in ("NCHW", "NHWC"):
            raise ValueError(f"output_fmt={output_fmt!r} should be 'NCHW' or 'NHWC'")
        last = max(wanted) if stop_early else count - 1
        maps = self.maps(x, {*wanted, last})
        taken = [self.normed(i, maps[i]) if norm else maps[i] for i in wanted]
        if output_fmt == "NCHW":
            taken = [self.nchw(m, x) for m in taken]
        if intermediates_only:
            return taken
        return self.normed(last, maps[last]) if last == count - 1 else maps[last], taken

    @property
    def feature_info(self) -> FeatureInfo:
        """Channels and stride of each stage's map."""
        info = FeatureInfo()
        for stage, stride in zip(self.spec.plan(), self.spec.strides(), strict=True):
            reduction = stride[0] if len({*stride}) == 1 else stride
            name = f"stages.{stage.index}"
            info.append({"num_chs": stage.dim, "reduction": reduction, "module": name})
        return info

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that the publications do not decay (norms and biases, which
        optimizers tell by their single dimension, aside), inside wrappers, too."""
        position = self.spec.position_embedding
        own = position.no_weight_decay if position else ()
        names = {f"position_embedding.{name}" for name in own}
        for stage in self.spec.plan():
            own = stage.position.no_weight_decay if stage.position else ()
            names |= {f"stages.{stage.index}.position.{name}" for name in own}
            for j, block in enumerate(stage.blocks):
                parts: dict[str, MixerSpec | PositionSpec] = {"mixer": block.mixer}
                parts |= block.positions
                names |= {
                    f"stages.{stage.index}.blocks.{j}.{part}.{name}"
                    for part, spec in parts.items()
                    for name in spec.no_weight_decay
                }
        return {
            name
            for name, _ in self.named_parameters()
            if any(_is_wrapped(name, own) for own in names)
        }

    def set_grad_checkpointing(
        self, enable: bool = True, per: Literal["block", "stage"] = "block"
    ) -> None:
        """Recompute each block, or each stage, in the backward pass instead of keeping what is
        inside it. By stages less is kept from the forward pass, and more at once in the backward.
        Stages inside wrappers are set, too; a module that took a stage's place is left as it is.

        Raises `ValueError` for any other `per`.
        """
        if per not in ("block", "stage"):
            raise ValueError(f"per={per!r} should be 'block' or 'stage'")
        for stage in filter(None, (_within(stage, Stage) for stage in self.stages)):
            stage.grad_checkpointing = per if enable else None

    def freeze(self, stages: int) -> None:
        """Freeze the stem, the position embedding and the first stages, as mmdetection's
        `frozen_stages` does: no gradients of their parameters, and eval mode also after `train()`.

        `stages`: 0 freezes the stem alone, and -1 nothing; what an earlier call froze, and this one
        does not, is trained again. A stage's norm of its output is frozen with it. Call it before
        DDP, FSDP or an optimizer are given the parameters. Raises `ValueError` for other numbers.
        """
        if not -1 <= stages <= len(self.stages):
            raise ValueError(f"stages={stages} should be from -1 to {len(self.stages)}")
        for module in self._frozen():
            module.requires_grad_(True).train(self.training)
        self.frozen_stages = stages
        for module in self._frozen():
            module.requires_grad_(False).eval()

    def _frozen(self) -> Iterable[nn.Module]:
        if self.frozen_stages < 0:
            return ()
        stages = self.stages[: self.frozen_stages]
        return (self.stem, self.position_embedding, self.extra_tokens, self.drop, *stages)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all modules but those that `freeze` froze, which stay in eval mode."""
        super().train(mode)
        for module in self._frozen():
            module.eval()
        return self

    def reset_parameters(self) -> None:
        """Draw all parameters as published, and fill in the tables that are worked out, as when the
        network was built: after `to_empty`, for a network from the meta device."""
        init.reset_parameters(self)

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return (_within(self.head, Head) or self.head).get_submodule("fc")

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last linear layer by a new one; 0 classes return the mean features.

        Raises `ValueError` for a network without a head, or with one of another type, and for a
        negative number.
        """
        if self.spec.head is None:
            raise ValueError(f"{self.spec.name} has no head; build it with head={{...}}")
        head = _within(self.head, Head)
        if head is None:
            raise ValueError(f"the head is a {type(self.head).__name__}, without a Head inside")
        self.spec = override(
            self.spec, {"head": self.spec.head.to_data() | {"num_classes": num_classes}}
        )
        like = next(self.stages.parameters())
        new = self._head(self.spec.head).to(device=like.device, dtype=like.dtype)
        assert isinstance(new, Head)
        head.take_classifier(new.train(self.training))


M = TypeVar("M", bound=nn.Module)


def _within(module: nn.Module, cls: type[M]) -> M | None:
    """The module of this class that another one is, or wraps: torch.compile and others keep what
    they wrap as a child."""
    if isinstance(module, cls):
        return module
    return next(filter(None, (_within(child, cls) for child in module.children())), None)


def _is_wrapped(name: str, own: str) -> bool:
    """Whether a parameter's name is its own name, with those of wrappers in between."""
    parts = iter(name.split("."))
    return all(part in parts for part in own.split("."))


def to_nchw(x: Tensor) -> Tensor:
    return rearrange(x, "b ... c -> b c ...")


def check_images(images: Tensor, in_chans: int, *, axes: int) -> None:
    """Raises `ValueError` unless images are (B, in_chans, H, W), or have so many other axes."""
    if images.ndim != 2 + axes or images.shape[1] != in_chans:
        sides = ", ".join(AXES[axes])
        raise ValueError(
            f"images should be (batch, {in_chans}, {sides}), got {tuple(images.shape)}"
        )


# nodes of a graph that fx records: they read shapes, which it does not know
fx.wrap("check_images")
fx.wrap("to_nchw")


def stage_indices(indices: int | Sequence[int] | None, count: int) -> list[int]:
    """Stage numbers from 0, from what timm allows: a number of last stages, or negative ones."""
    if indices is None:
        return list(range(count))
    if isinstance(indices, int):
        if not 1 <= indices <= count:
            raise ValueError(f"indices={indices} should be from 1 to {count}, the last n stages")
        return list(range(count - indices, count))
    if not indices or not all(-count <= i < count for i in indices):
        raise ValueError(f"indices={list(indices)} should be stages from {-count} to {count - 1}")
    return sorted({i % count for i in indices})
