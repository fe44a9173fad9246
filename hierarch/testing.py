"""The conformance kit: checks for mixers, built-in or of other packages.

from hierarch.testing import check_channel_mixer, check_mixer
check_mixer({"type": "my_mixer", "head_dim": 8})
check_channel_mixer("my_channel_mixer")
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hierarch.building import build, engine_disabled
from hierarch.complexity.counter import count
from hierarch.nn.window_mixer import WindowMixer
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.grid import Sides
from hierarch.spec.load import dump, loads, validate
from hierarch.spec.parts import ChannelMixerSpec, MixerSpec, built_params
from hierarch.spec.plan import BlockPlan
from hierarch.spec.reader import Document


class ConformanceError(AssertionError):
    """A mixer that fails a check; the message has the mixer, the check and the values.

    >>> from typing import Literal
    >>> from hierarch import register
    >>> from hierarch.mixers.pooling import PoolingSpec
    >>> @register
    ... class Dear(PoolingSpec):
    ...     type: Literal["dear"] = "dear"
    ...
    ...     def macs(self, *, dim, grid):
    ...         return 7
    >>> check_mixer("dear")
    Traceback (most recent call last):
    ...
    hierarch.testing.ConformanceError: dear: claims 7 MACs on a grid of (1, 1), and fvcore counts 0
    """


def check_mixer(spec: MixerSpec | Mapping[str, Any] | str, *, dim: int = 32) -> None:
    """Run all checks of a mixer, at one width.

    The output has the input's shape, also on odd grids. The claim equals fvcore's count on several
    grids, and the claim of parameters what the module has. Every parameter gets a gradient. Eval
    mode is deterministic. Images of a batch do not affect each other. bfloat16 and float64 work. A
    spec can be written as YAML and read, and the weights loaded from a state dict. If it mixes in
    windows, its cut has each token once, and its windows are independent. A block with it gives the
    same output and gradients with the engine and without it. Raises `ConformanceError` at the first
    check that fails, and `SpecError` if `spec` is no mixer.

    >>> check_mixer("pooling")
    >>> check_mixer({"type": "window_mlp", "head_dim": 8, "window_size": 4})
    """
    network = validate(
        Document({"stages": [{"dim": dim, "depth": 1, "mixer": spec}], "name": "conformance"})
    )
    _run(network.plan()[0].mixers[0], network)


def check_channel_mixer(
    spec: ChannelMixerSpec | Mapping[str, Any] | str, *, dim: int = 32, mlp_ratio: float = 3
) -> None:
    """Run those checks of `check_mixer` that are not about windows, on a channel mixer, at one
    width. Raises `ConformanceError` at the first check that fails, and `SpecError` if `spec` is no
    channel mixer.

    >>> check_channel_mixer("mlp")
    """
    stage = {"dim": dim, "depth": 1, "mixer": "identity", "channel_mixer": spec}
    network = validate(Document({"stages": [stage], "mlp_ratio": mlp_ratio, "name": "conformance"}))
    block = network.plan()[0].blocks[0]
    _run(_InABlock(block.channel_mixer, block), network)


@dataclass(frozen=True)
class _InABlock:
    """A channel mixer in a block, which can be asked what a token mixer is asked."""

    part: ChannelMixerSpec
    block: BlockPlan

    @property
    def type(self) -> str:
        return self.part.type

    def tile(self) -> Sides:
        return (1, 1)

    def macs(self, *, dim: int, grid: Sides) -> int:
        return self.part.macs(self.block, grid=grid)

    def padding_macs(self, *, dim: int, grid: Sides) -> int:
        return 0

    def params(self, *, dim: int) -> int:
        return self.part.params(self.block)

    def build(self, dim: int) -> nn.Module:
        return self.part.build(self.block) or nn.Identity()


Mixer = MixerSpec | _InABlock


def _run(mixer: Mixer, network: BackboneSpec) -> None:
    for check in CHECKS:
        torch.manual_seed(0)
        try:
            check(mixer, network)
        except ConformanceError as error:
            raise ConformanceError(f"{mixer.type}: {error}") from None
        except Exception as error:
            what = f"{check.__name__} ends in {type(error).__name__}: {error}"
            raise ConformanceError(f"{mixer.type}: {what}") from error


def _grids(mixer: Mixer) -> list[Sides]:
    """Grids of whole windows, of less and of more, odd and oblong ones, and a single token."""
    h, w = mixer.tile()
    return [(1, 1), (5, 9), (h, w), (2 * h, 3 * w), (2 * h + 1, 3 * w - 1), (h + 1, 2), (7, 20)]


def _built(mixer: Mixer, network: BackboneSpec) -> nn.Module:
    """The module in eval mode and float64, with noise on every parameter."""
    module = mixer.build(network.stages[0].dim).double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return module


def _input(network: BackboneSpec, grid: Sides, *, batch: int = 2) -> Tensor:
    return torch.randn(batch, *grid, network.stages[0].dim, dtype=torch.float64)


def keeps_shape(mixer: Mixer, network: BackboneSpec) -> None:
    """(B, H, W, C) -> (B, H, W, C), in training and in eval mode."""
    for training in (True, False):
        module = _built(mixer, network).train(training)
        for grid in _grids(mixer):
            x = _input(network, grid)
            shape = module(x).shape
            if shape != x.shape:
                raise ConformanceError(f"turns {tuple(x.shape)} into {tuple(shape)}")


def claim_equals_count(mixer: Mixer, network: BackboneSpec) -> None:
    """`macs` equals fvcore's count on every grid, and `params` the number of parameters."""
    dim = network.stages[0].dim
    with torch.device("meta"):
        module = _ChannelsFirst(mixer.build(dim)).eval()
    for grid in [*_grids(mixer), (64, 48)]:
        claimed = mixer.macs(dim=dim, grid=grid)
        counted = count(module, grid, in_chans=dim).total()
        if type(claimed) is not int or claimed != counted:
            raise ConformanceError(
                f"claims {claimed!r} MACs on a grid of {grid}, and fvcore counts {counted}"
            )
        padding = mixer.padding_macs(dim=dim, grid=grid)
        if type(padding) is not int or not 0 <= padding <= claimed:
            raise ConformanceError(f"calls {padding!r} of its {claimed} MACs padding on {grid}")
    held, parameters = built_params(module), mixer.params(dim=dim)
    if type(parameters) is not int or parameters != held:
        raise ConformanceError(f"claims {parameters!r} parameters, and its module has {held}")


class _ChannelsFirst(nn.Module):
    """A mixer with an input (B, C, H, W), as `count` makes it."""

    def __init__(self, mixer: nn.Module) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(self, x: Tensor) -> Any:
        return self.mixer(x.permute(0, 2, 3, 1))


def every_parameter_learns(mixer: Mixer, network: BackboneSpec) -> None:
    """Each parameter gets a finite, nonzero gradient."""
    module = _built(mixer, network)
    h, w = mixer.tile()
    out = module(_input(network, (3 * h + 2, 3 * w + 1)).requires_grad_())
    out.backward(torch.randn_like(out))
    for name, parameter in module.named_parameters():
        grad = parameter.grad
        if grad is None or not grad.isfinite().all() or not grad.any():
            raise ConformanceError(f"its parameter {name} gets no gradient")


def is_deterministic(mixer: Mixer, network: BackboneSpec) -> None:
    """In eval mode the same input gives the same output."""
    module = _built(mixer, network)
    x = _input(network, (9, 11))
    with torch.no_grad():
        if not torch.equal(module(x), module(x)):
            raise ConformanceError("gives two outputs for one input in eval mode")


def images_do_not_mix(mixer: Mixer, network: BackboneSpec) -> None:
    """In eval mode, an image's output does not depend on the other images of the batch."""
    module = _built(mixer, network)
    for grid in _grids(mixer):
        x = _input(network, grid, batch=3)
        changed = x.clone()
        changed[1] = torch.randn_like(changed[1]) * 10
        with torch.no_grad():
            before, after = module(x), module(changed)
        for image in (0, 2):
            if not torch.allclose(before[image], after[image], rtol=1e-9, atol=1e-9):
                raise ConformanceError(f"image 1 of a batch changes image {image}, on {grid}")


def runs_in_other_types(mixer: Mixer, network: BackboneSpec) -> None:
    """bfloat16 and float64 inputs give outputs of their type, which agree roughly."""
    module = _built(mixer, network)
    x = _input(network, (9, 11))
    with torch.no_grad():
        exact = module(x)
        rough = copy.deepcopy(module).bfloat16()(x.bfloat16())
    if exact.dtype != torch.float64 or rough.dtype != torch.bfloat16:
        raise ConformanceError(f"turns float64 into {exact.dtype}, bfloat16 into {rough.dtype}")
    if not torch.allclose(exact, rough.double(), rtol=0.1, atol=0.1 * float(exact.abs().max())):
        raise ConformanceError("gives something else in bfloat16 than in float64")


def spec_survives_yaml(mixer: Mixer, network: BackboneSpec) -> None:
    """`loads` of `dump` gives an equal spec."""
    if loads(dump(network)) != network:
        raise ConformanceError("its spec does not read back from YAML as it was written")


def weights_survive_a_state_dict(mixer: Mixer, network: BackboneSpec) -> None:
    """Two modules with the same state dict give the same output."""
    first, second = _built(mixer, network), _built(mixer, network)
    second.load_state_dict(first.state_dict())
    x = _input(network, (9, 11))
    with torch.no_grad():
        if not torch.equal(first(x), second(x)):
            raise ConformanceError("two modules with one state dict differ")


def cut_holds_each_token_once(mixer: Mixer, network: BackboneSpec) -> None:
    """Each token of a grid has its own slot, and the runs of kinds add up to all windows."""
    module = _built(mixer, network)
    if not isinstance(module, WindowMixer):
        return
    for grid in _grids(mixer):
        cut = module.cut(grid)
        size, batch = math.prod(cut.window), 2
        outside = f"its cut of a grid of {grid} has a slot outside all windows"
        try:
            slots = cut.slots(batch, device=torch.device("cpu"))
        except IndexError:
            raise ConformanceError(outside) from None
        used = set(slots.tolist())
        if slots.shape != (batch * math.prod(grid),) or len(used) < len(slots):
            raise ConformanceError(f"its cut of a grid of {grid} puts two tokens in one slot")
        if not used <= set(range(batch * cut.count * size)):
            raise ConformanceError(outside)
        counts = [count for _, count in cut.runs(batch)]
        if sum(counts) != batch * cut.count:
            raise ConformanceError(
                f"its cut of a grid of {grid} has {batch * cut.count} windows, its runs {counts}"
            )


def windows_are_independent(mixer: Mixer, network: BackboneSpec) -> None:
    """A window's output does not depend on which other windows are mixed with it."""
    module = _built(mixer, network)
    if not isinstance(module, WindowMixer):
        return
    for grid in _grids(mixer):
        cut = module.cut(grid)
        for kind, _ in cut.runs(1):
            windows = torch.randn(5, math.prod(cut.window), network.stages[0].dim).double()
            with torch.no_grad():
                together = module.mix(windows, cut, [(kind, 5)])
                alone = module.mix(windows[1:3], cut, [(kind, 2)])
            if not _close(alone, together[1:3]):
                raise ConformanceError(
                    f"mixes a window otherwise where other windows are beside it, on {grid}"
                )


def runs_alike_in_a_block(mixer: Mixer, network: BackboneSpec) -> None:
    """A block with it gives the same output and gradients with the engine and without it: with
    autograd off, in windows for several tile sizes, too, with autograd on, and in training; in
    float64 and float32, and roughly in bfloat16."""
    model = build(network)
    if not hasattr(model, "set_tile_size"):  # installed without the engine
        return
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    in_windows = any(isinstance(module, WindowMixer) for module in model.modules())
    tiles = (1, 3 * math.prod(mixer.tile()), None) if in_windows else ()
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        stage = model.to(dtype).stages[0]
        for grid in _grids(mixer):
            x = _input(network, grid).to(dtype)
            with engine_disabled():
                wanted = _outputs(stage, x)
            model.set_tile_size("auto")
            for way, out in _outputs(stage, x).items():
                _compare(out, wanted[way], f"{way}, on {grid}")
            for tile in tiles:
                model.set_tile_size(tile)
                _compare(_inferred(stage, x), wanted["eval"], f"tile size {tile}, on {grid}")


def _inferred(stage: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        out: Tensor = stage.eval()(x)
    return out


def _outputs(stage: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """A stage's outputs and gradients, by mode. What training does to running statistics is
    undone."""
    outputs, buffers = {}, [(buffer, buffer.clone()) for buffer in stage.buffers()]
    outputs["eval"] = _inferred(stage, x)
    if x.dtype is torch.bfloat16:
        return outputs
    for training in (False, True):
        torch.manual_seed(0)
        mode = "training" if training else "eval with autograd"
        images = x.clone().requires_grad_()
        stage.zero_grad()
        out = stage.train(training)(images)
        out.square().sum().backward()
        outputs[mode] = out.detach()
        grads = [images.grad, *(parameter.grad for parameter in stage.parameters())]
        outputs[f"gradients, {mode}"] = torch.cat([g.flatten() for g in grads if g is not None])
    for buffer, before in buffers:
        buffer.copy_(before)
    return outputs


def _compare(output: Tensor, wanted: Tensor, where: str) -> None:
    bound = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 0.05}[wanted.dtype]
    if output.shape != wanted.shape or not _close(output, wanted, bound):
        raise ConformanceError(f"gives something else in a block: {where}")


def _close(output: Tensor, wanted: Tensor, bound: float = 1e-9) -> bool:
    return torch.allclose(output, wanted, rtol=0, atol=bound * max(1, float(wanted.abs().max())))


CHECKS: tuple[Callable[[Mixer, BackboneSpec], None], ...] = (
    cut_holds_each_token_once,
    windows_are_independent,
    keeps_shape,
    claim_equals_count,
    every_parameter_learns,
    is_deterministic,
    images_do_not_mix,
    runs_in_other_types,
    spec_survives_yaml,
    weights_survive_a_state_dict,
    runs_alike_in_a_block,
)
