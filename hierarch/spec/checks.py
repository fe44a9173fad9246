"""What cannot be a network, though each of its fields is right: the faults, with their places."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hierarch.spec.base import Side
from hierarch.spec.parts import BlockSpec, MixerSpec, Part, PositionSpec, StemSpec
from hierarch.spec.registry import entries

if TYPE_CHECKING:
    from hierarch.spec.backbone import BackboneSpec

MAX_BLOCKS = 1024
"""The most blocks of a whole network."""

Fault = tuple[tuple[str | int, ...], str, object]
"""The path of a field, a message, and the wrong value."""


def found(spec: BackboneSpec) -> Iterator[Fault]:
    """All faults of a spec."""
    yield from _of_stages(spec)
    yield from _of_outputs(spec)
    yield from _of_the_head(spec)
    for name, part in (("stem", spec.stem), ("position_embedding", spec.position_embedding)):
        yield from _of_width(part, spec.in_dim, (name,))
    first = spec.stages[0]
    if spec.in_dim != first.dim and first.downsample is None:
        message = f"should be the dim of stage 0, {first.dim}, which has no downsampling"
        yield ("stem_dim",), message, spec.stem_dim
    yield from _of_extra_tokens(spec)
    yield from _of_axes(spec)
    blocks = sum(stage.depth for stage in spec.stages)
    if blocks > MAX_BLOCKS:
        yield ("stages",), f"have {blocks} blocks together; at most {MAX_BLOCKS}", ...


def _of_stages(spec: BackboneSpec) -> Iterator[Fault]:
    for index, stage in enumerate(spec.stages):
        here = ("stages", index)
        if not stage.depth and not (index or stage.downsample):
            yield (*here, "depth"), "should be at least 1 without a downsampling", stage.depth
        mixers = stage.mixer or spec.mixer
        if mixers is None:
            yield here, "has no mixer; give it one, or give one to all stages at the top", ...
        position, blocks = stage.position or spec.position, entries(stage.block or spec.block)
        for part in dict.fromkeys((*(mixers or ()), position, *blocks)):
            yield from _of_width(part, stage.dim, (*here, "dim"))
        after = spec.position_after if stage.position_after is None else stage.position_after
        if position and after > stage.depth:
            message = f"should be at most the depth of stage {index}, {stage.depth}"
            yield (*here, "position_after"), message, after
        ratio = stage.mlp_ratio or spec.mlp_ratio
        if int(stage.dim * ratio) < 1:
            message = f"leaves an MLP of no width at dim={stage.dim}"
            yield (*here, "mlp_ratio"), message, ratio


def _of_width(
    part: MixerSpec | PositionSpec | StemSpec | BlockSpec | None,
    dim: int,
    path: tuple[str | int, ...],
) -> Iterator[Fault]:
    """That a part does not support a width."""
    if part is None:
        return
    try:
        part.check(dim=dim)
    except ValueError as error:
        yield path, f"{error} ({part.type})", ...


def _of_axes(spec: BackboneSpec) -> Iterator[Fault]:
    """That a part works on grids with another number of axes than the network's images have."""
    places: dict[tuple[str | int, ...], Any] = {
        (name,): getattr(spec, name) for name in ("stem", "position_embedding")
    }
    for index, stage in enumerate(spec.stages):
        for name in ("mixer", "channel_mixer", "block", "norm", "position", "downsample"):
            own = getattr(stage, name)
            if own is not None:
                places["stages", index, name] = own
            elif index or name != "downsample":  # the first stage has only one of its own
                places[name,] = getattr(spec, name)
    for path, found in places.items():
        for part in entries(found):
            if part is not None and part.axes not in (None, spec.axes):
                message = (
                    f"{part.type} works on {part.axes} axes here, and the network has {spec.axes}, "
                    f"as input_size has sides{_sides_to_give(part, spec.axes)}"
                )
                yield path, message, ...


def _sides_to_give(part: Part, axes: int) -> str:
    """What to do about a part's number of axes, if its fields decide on it."""
    names = [
        name
        for name, field in type(part).model_fields.items()
        if any(isinstance(side, Side) and axes in side.axes for side in field.metadata)
    ]
    return f"; give {' and '.join(names)} a list of {axes}" if names else ""


def _of_the_head(spec: BackboneSpec) -> Iterator[Fault]:
    ratio, dim = spec.head and spec.head.hidden_ratio, spec.stages[-1].dim
    if ratio and int(dim * ratio) < 1:
        yield ("head", "hidden_ratio"), f"leaves a hidden layer of no width at dim={dim}", ratio
    extra = spec.extra_tokens
    if spec.head and spec.head.pool == "class_token" and not (extra and extra.class_token):
        message = "is for a network with a class token; give it one in extra_tokens"
        yield ("head", "pool"), message, spec.head.pool


def _of_outputs(spec: BackboneSpec) -> Iterator[Fault]:
    indices, last = spec.out_indices, len(spec.stages) - 1
    if indices is None:
        return
    here = ("out_indices",)
    if spec.head is not None:
        message = "is for a network without a head; leave out one of the two (head: null)"
        yield here, message, ...
    elif not indices or list(indices) != sorted(set(indices) & set(range(last + 1))):
        yield here, f"should be rising numbers of stages from 0 to {last}", list(indices)


def _of_extra_tokens(spec: BackboneSpec) -> Iterator[Fault]:
    extra, here = spec.extra_tokens, ("extra_tokens",)
    if extra is None:
        return
    if not extra.count:
        yield here, "has no token; leave it out", ...
    if len(spec.stages) > 1:
        yield here, "is for a network of one stage: they cannot be downsampled", ...
        return
    stage = spec.stages[0]
    mixers = stage.mixer or spec.mixer or ()
    gridded = [mixer.type for mixer in dict.fromkeys(mixers) if mixer.needs_grid]
    channel_mixers = entries(stage.channel_mixer or spec.channel_mixer)
    blocks, norms = entries(stage.block or spec.block), entries(stage.norm or spec.norm)
    gridded += [part.type for part in channel_mixers if part.needs_grid]
    gridded += [block.type for block in blocks if block.needs_grid]
    gridded += [norm.type for norm in norms if not norm.per_token]
    position = stage.position or spec.position
    gridded += [part.type for part in (stage.downsample, position) if part]
    if gridded:
        yield here, f"is for parts that need no grid; these do: {', '.join(gridded)}", ...
