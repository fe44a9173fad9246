"""Streamed inference gives the definitions' outputs, for any tile size."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_same_to_scale, noise, perturb, tiny, without_mask
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import backbone_specs, image_sizes
from torch import nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations
from torch.utils.flop_counter import FlopCounterMode

import hierarch
from hierarch import engine
from hierarch.blocks.pre_norm import PreNorm
from hierarch.engine import attention, caches, gathering, orders, streaming, strips
from hierarch.engine.onednn import ONEDNN_DTYPES, few
from hierarch.engine.orders import PADDING
from hierarch.mixers.window_attention import WindowAttention
from hierarch.nn import functional
from hierarch.nn.cut import Cut, Dilated, FrontPadded, shifted_cut
from hierarch.nn.window_mixer import MaskedWindowMixer
from hierarch.spec.grid import ceil_div

WINDOWED = ["window_attention", "cosine_window_attention", "window_mlp"]
HEAD = {"num_classes": 5}
SIZES = [(2, 64, 64), (1, 37, 50), (3, 7, 101), (1, 1, 1)]


@pytest.fixture(autouse=True)
def no_maps_are_few(monkeypatch):
    """As in large images, mask by mask; small networks elsewhere have a mask for each sequence."""
    monkeypatch.setattr(attention, "FEW_MAP_ELEMENTS", 0)


@pytest.fixture(params=WINDOWED)
def model(request):
    return perturb(hierarch.build(tiny(request.param, head=HEAD)))


@torch.no_grad()
def defined(model, images):
    """The output with the engine disabled."""
    with engine.disabled():
        return model(images)


@torch.no_grad()
def streamed(model, images):
    return model(images)


def assert_close(found, wanted):
    if isinstance(wanted, tuple):
        for one, other in zip(found, wanted, strict=True):
            assert_close(one, other)
        return
    scale = max(1.0, float(wanted.abs().max()))
    torch.testing.assert_close(found / scale, wanted / scale, rtol=0, atol=1e-5)


@pytest.fixture
def tiles(monkeypatch):
    """Records the blocks that are streamed."""
    seen = []
    original = streaming.streamed

    def watched(blocks, x, **options):
        seen.extend(blocks)
        return original(blocks, x, **options)

    monkeypatch.setattr(streaming, "streamed", watched)
    return seen


@pytest.fixture
def small_tiles(monkeypatch):
    for module in (streaming, strips):
        monkeypatch.setattr(module, "TILE_BYTES", 2000)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tile", [1, 40, 10_000])
def test_the_result_does_not_depend_on_the_tile_size(model, tiles, size, tile):
    images = noise(size[0], 3, *size[1:])
    model.set_tile_size(tile)
    assert_close(streamed(model, images), defined(model, images))
    assert len(set(tiles)) == 7


@settings(max_examples=60, deadline=None)
@given(backbone_specs(), image_sizes())
def test_any_network(spec, size):
    model = perturb(hierarch.build(spec))
    images = noise(2, spec.stem.in_chans, *size)
    wanted = defined(model, images)
    for tile in (30, None):
        model.set_tile_size(tile)
        assert_close(streamed(model, images), wanted)


@pytest.mark.parametrize("preset", ["swin_tiny", "swin_mixer_tiny_d24", "swin_v2_tiny_window8_256"])
def test_presets_at_full_width(preset):
    model = perturb(hierarch.build(preset), std=0.02)
    for size in [(2, 128, 128), (1, 100, 75)]:
        images = noise(size[0], 3, *size[1:])
        assert_close(streamed(model, images), defined(model, images))


def test_memory_layouts(model):
    images = noise(2, 3, 40, 56)
    wanted = defined(model, images)
    for other in (
        images.to(memory_format=torch.channels_last),
        noise(2, 3, 40, 56).transpose(2, 3).contiguous().transpose(2, 3),
        torch.cat([images, images], dim=1)[:, :3],
    ):
        assert_close(streamed(model, other), wanted)


def test_the_number_of_threads_changes_nothing(model):
    images = noise(2, 3, 64, 64)
    threads = torch.get_num_threads()
    try:
        results = []
        for n in (1, 2):
            torch.set_num_threads(n)
            results.append(streamed(model, images))
    finally:
        torch.set_num_threads(threads)
    assert_close(*results)


@pytest.mark.parametrize(
    ("torchs", "ours", "tile", "count"),
    [(1, 1, "auto", 8), (2, 1, "auto", 4), (2, 2, "auto", 8), (2, 1, 32, 8)],
)
def test_a_tile_is_as_large_for_each_thread_that_works_on_it(
    monkeypatch, torchs, ours, tile, count
):
    block = hierarch.build(tiny("window_attention")).eval().stages[0].blocks[0]
    x, seen, original = noise(1, 16, 16, block.norm1.weight.numel()), [], streaming._tiles
    streaming.set_tile_size(block, tile)
    monkeypatch.setattr(streaming, "TILE_BYTES", x.nbytes // 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: torchs)
    monkeypatch.setattr(streaming, "_tiles", lambda *of: seen.append(of[1]) or original(*of))
    monkeypatch.setattr(streaming, "each", lambda run, items, threads: list(map(run, items)))
    with torch.no_grad():
        streaming.streamed([block], x, threads=ours)
    assert seen == [count]


@pytest.mark.parametrize(
    ("windows", "count", "threads"), [(144, 14, 2), (36, 8, 2), (529, 14, 2), (60, 16, 4)]
)
def test_threads_are_done_together(windows, count, threads):
    size = streaming.shared_size(windows, count, threads)
    tiles = [size] * (windows // size) + [windows % size] * (windows % size > 0)
    longest = max(sum(tiles[start::threads]) for start in range(threads))
    assert longest <= 1.02 * windows / threads
    assert 7 / 8 <= size / ceil_div(windows, count) <= 5 / 4


@pytest.mark.parametrize(
    ("windows", "count", "threads"), [(256, 8, 1), (100, 7, 1), (4096, 102, 2), (2304, 58, 2)]
)
def test_tiles_have_the_wanted_size_where_threads_gain_nothing(windows, count, threads):
    assert streaming.shared_size(windows, count, threads) == few(ceil_div(windows, count))


@pytest.mark.parametrize("small", [True, False])
def test_the_order_of_windows_is_cached_for_small_maps(model, monkeypatch, small):
    made, original = [], orders._order
    monkeypatch.setattr(orders, "_order", lambda *of: made.append(of) or original(*of))
    if not small:
        monkeypatch.setattr(orders, "MAX_KEPT_SLOTS", 0)
    orders.kept.clear()
    images = noise(2, 3, 64, 64)
    with torch.inference_mode():
        model(images)
    count = len(made)
    assert_close(streamed(model, images), defined(model, images))
    assert len(made) == (count if small else 2 * count)
    assert count > 0


def test_two_threads_share_one_model(model):
    images = [noise(1, 3, 64, 64, seed=seed) for seed in range(6)]
    wanted = [defined(model, image) for image in images]
    found = {}

    def work(mine):
        with torch.inference_mode():
            for i in mine:
                found[i] = model(images[i]).clone()

    workers = [threading.Thread(target=work, args=(range(n, 6, 2),)) for n in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for i, expected in enumerate(wanted):
        assert_close(found[i], expected)


# who sees whole maps


@pytest.mark.parametrize("watcher", ["training", "gradient", "hook", "mode", "compiled", "no tile"])
def test_observers_get_whole_maps(tiles, watcher):
    model = perturb(hierarch.build(tiny(head=HEAD)))
    images = noise(1, 3, 64, 64)
    block = model.stages[0].blocks[0]
    with torch.no_grad():
        if watcher == "training":
            model.train()(images)
        elif watcher == "gradient":
            with torch.enable_grad():
                model(images)
        elif watcher == "hook":
            shapes = []
            block.mixer.register_forward_hook(lambda *seen: shapes.append(seen[2].shape))
            model(images)
            assert shapes == [(1, 16, 16, 8)]
            assert block not in tiles
            return
        elif watcher == "mode":
            with FlopCounterMode(display=False):
                model(images)
        elif watcher == "compiled":
            torch.compile(model, backend="eager", fullgraph=True)(images)
            torch.compiler.reset()
        else:
            model.set_tile_size(None)
            model(images)
    assert tiles == []


def test_without_observers_blocks_get_tiles(tiles):
    model = perturb(hierarch.build(tiny(head=HEAD)))
    streamed(model, noise(1, 3, 64, 64))
    assert len(tiles) == 7


def test_vmap_is_a_loop_over_images(model, tiles):
    images = noise(3, 2, 3, 32, 40)
    wanted = torch.stack([defined(model, batch) for batch in images])
    # torch's fused attention has no rule for vmap on a CPU
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        assert_close(torch.vmap(model)(images), wanted)
    assert tiles == []


@pytest.mark.parametrize("transform", ["jvp", "dual"])
def test_a_derivative_is_the_difference_of_two_outputs(model, tiles, transform):
    model = model.double()
    images, tangent = (noise(1, 3, 32, 40, dtype=torch.float64, seed=seed) for seed in (0, 1))
    step = 1e-5
    ahead, behind = (defined(model, images + sign * step * tangent) for sign in (1, -1))
    # nor a forward derivative
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        if transform == "jvp":
            _, found = torch.func.jvp(model, (images,), (tangent,))
        else:
            with forward_ad.dual_level():
                found = forward_ad.unpack_dual(model(forward_ad.make_dual(images, tangent))).tangent
    wanted = (ahead - behind) / (2 * step)
    assert wanted.abs().max() > 0.01
    assert (found - wanted).abs().max() < 1e-6 * wanted.abs().max()
    assert tiles == []


def test_a_norm_over_the_map_is_never_streamed(tiles):
    model = perturb(hierarch.build(tiny(head=HEAD, norm="group_norm")))
    images = noise(1, 3, 64, 64)
    assert_close(streamed(model, images), defined(model, images))
    assert tiles == []


@pytest.mark.parametrize("tokens", [0, -1, "all"])
def test_no_tile_is_below_one_token(tokens):
    with pytest.raises(ValueError, match=f"tokens={tokens} should be 1 or more, 'auto' or None"):
        hierarch.build(tiny()).set_tile_size(tokens)


# layers that others put in place of ours


class Wrapped(nn.Module):
    """A wrapper of a layer, as adapters have it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


class Centered(Wrapped):
    """Subtracts the mean over all tokens, which a tile does not have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return centered(self.layer(x))


class CenteredNorm(nn.LayerNorm):
    """The same as a subclass."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return centered(super().forward(x))


def centered(x: torch.Tensor) -> torch.Tensor:
    """(..., C) -> (..., C), or (B, C, H, W) of a convolution."""
    channels = next(i for i in (x.ndim - 1, 1) if x.shape[i] in (8, 16, 24, 32, 48, 96))
    return x - x.mean([i for i in range(x.ndim) if i != channels], keepdim=True)


def replace(model: nn.Module, name: str, make: Callable[[nn.Module], nn.Module]) -> None:
    parent, _, child = name.rpartition(".")
    layer = model.get_submodule(name)
    setattr(model.get_submodule(parent), child, make(layer).train(layer.training))


BLOCK = "stages.0.blocks.1"
IN_A_BLOCK = [
    *("norm1", "mixer.qkv", "mixer.proj", "drop", "layer_scale1", "drop_path1"),
    *("norm2", "mlp", "mlp.fc1", "mlp.act", "mlp.drop", "mlp.fc2"),
]
IN_STRIPS = ["stem.proj", "stem.norm", "stages.1.downsample.norm", "stages.1.downsample.reduction"]
ELSEWHERE = [
    *("stages.1.downsample", "stages.0.blocks.1.mixer", "stages.0.blocks.1", "stages.0"),
    *("stages.1", "stem", "position_embedding", "drop", "norm", "head.norm"),
]
REPLACED = [*(f"{BLOCK}.{name}" for name in IN_A_BLOCK), *IN_STRIPS, *ELSEWHERE]


def original() -> nn.Module:
    torch.manual_seed(0)
    return perturb(hierarch.build(tiny(head=HEAD, layer_scale=0.5)))


def changing(name: str, mean: bool) -> nn.Module:
    """A network, a layer of which works on all tokens, or does as before, in a module of another
    type."""
    model = original()
    replace(model, name, Centered if mean else Wrapped)
    return model


def outputs_and_gradients(model, images):
    model.zero_grad()
    images = images.clone().requires_grad_()
    out = model(images)
    out.square().sum().backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {"out": out.detach(), "images": images.grad, **found}


def reasons(model, images, operation):
    """What refused the faster ways of an operation, by module."""
    with torch.no_grad():
        steps = engine.explain(model, images).steps
    return {step.module: dict(step.refused) for step in steps if step.operation == operation}


@pytest.mark.parametrize("name", REPLACED)
@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_replaced_layer_is_called(small_tiles, name, mean, batch):
    model, images = changing(name, mean), noise(batch, 3, 52, 68)
    wanted = defined(model, images)
    same = torch.allclose(wanted, defined(original(), images), rtol=0, atol=1e-5)
    assert same is not mean
    assert_close(streamed(model, images), wanted)
    for training in (False, True):
        model.train(training)
        with engine.disabled():
            wanted = outputs_and_gradients(model, images)
        found = outputs_and_gradients(model, images)
        assert_same_to_scale(found.values(), wanted.values())


@pytest.mark.parametrize("name", [f"{BLOCK}.{name}" for name in IN_A_BLOCK])
@pytest.mark.parametrize("mean", [False, True])
def test_a_replaced_layer_is_named_as_the_reason(name, mean):
    images = noise(1, 3, 52, 68)
    refused = reasons(changing(name, mean), images, "Block.forward")
    said = f"{'Centered' if mean else 'Wrapped'} is not known to work token by token ({name})"
    assert refused[BLOCK]["streamed"] == said
    assert "streamed" not in refused["stages.0.blocks.0"]
    stages = reasons(changing(name, mean), images, "Stage.forward")
    assert stages["stages.0"]["streamed"] == said
    assert "streamed" not in stages["stages.1"]


@pytest.mark.parametrize("name", IN_STRIPS)
def test_a_replaced_layer_of_patches_is_named_as_the_reason(name):
    refused = reasons(changing(name, True), noise(1, 3, 52, 68), "by_rows")
    module, _, _ = name.rpartition(".")
    said = f"Centered is not known to work token by token ({name})"
    assert {at: ways.get("in strips") for at, ways in refused.items()} == {
        at: said if at == module else None
        for at in ("stem", "stages.1.downsample", "stages.2.downsample")
    }


def subclassed(model):
    replace(model, f"{BLOCK}.norm1", lambda norm: CenteredNorm(norm.weight.shape))


class OtherAttention(WindowAttention):
    """A subclass with its own method."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return centered(super().forward(x))


class OtherBlock(PreNorm):
    """A subclass with its own method."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return centered(super().forward(x))


def subclassed_mixer(model):
    model.get_submodule(f"{BLOCK}.mixer").__class__ = OtherAttention


def subclassed_block(model):
    model.get_submodule(BLOCK).__class__ = OtherBlock


def own_forward(model):
    layer = model.get_submodule(f"{BLOCK}.mlp.fc2")
    layer.forward = lambda x: centered(nn.Linear.forward(layer, x))


def own_forward_of_a_norm(model):
    layer = model.get_submodule(f"{BLOCK}.norm1")
    layer.forward = lambda x: centered(nn.LayerNorm.forward(layer, x))


def own_forward_of_a_mixer(model):
    mixer = model.get_submodule(f"{BLOCK}.mixer")
    mixer.forward = lambda x: centered(type(mixer).forward(mixer, x))


def own_forward_of_an_mlp(model):
    mlp = model.get_submodule(f"{BLOCK}.mlp")
    mlp.forward = lambda x: centered(type(mlp).forward(mlp, x))


def own_forward_of_a_block(model):
    block = model.get_submodule(BLOCK)
    block.forward = lambda x: centered(type(block).forward(block, x))


def own_forward_of_a_stage(model):
    stage = model.stages[1]
    stage.forward = lambda x: centered(type(stage).forward(stage, x))


def own_forward_of_patches(model):
    layer = model.stages[1].downsample.reduction
    layer.forward = lambda x: centered(nn.Linear.forward(layer, x))


def hooked(model):
    layer = model.get_submodule(f"{BLOCK}.mlp.act")
    layer.register_forward_hook(lambda layer, inputs, out: centered(out))


def hooked_before(model):
    layer = model.get_submodule(f"{BLOCK}.mixer.proj")
    layer.register_forward_pre_hook(lambda layer, inputs: (centered(inputs[0]),))


def hooked_block(model):
    model.get_submodule(BLOCK).register_forward_hook(lambda block, inputs, out: centered(out))


def hooked_stem(model):
    model.stem.norm.register_forward_hook(lambda norm, inputs, out: centered(out))


def parametrized(model):
    for layer in list(model.modules()):
        if type(layer) is nn.Linear:
            parametrizations.weight_norm(layer)


def dropping(model):
    # whole images, where a tile would drop its own tokens
    drop = model.get_submodule(f"{BLOCK}.drop_path1")
    drop.rate = 0.5
    drop.train()


CHANGED = [
    *(subclassed, subclassed_mixer, subclassed_block, own_forward, own_forward_of_a_norm),
    *(own_forward_of_a_mixer, own_forward_of_an_mlp, own_forward_of_a_block),
    *(own_forward_of_a_stage, own_forward_of_patches, hooked, hooked_before, hooked_block),
    *(hooked_stem, parametrized, dropping),
]


@pytest.mark.parametrize("change", CHANGED, ids=lambda change: change.__name__)
@pytest.mark.parametrize("batch", [1, 4])
def test_a_changed_network_computes_its_change(small_tiles, change, batch):
    model, images = perturb(hierarch.build(tiny(head=HEAD))), noise(batch, 3, 52, 68)
    before = defined(model, images)
    change(model)
    outputs = []
    for run in (defined, streamed):
        torch.manual_seed(3)
        outputs.append(run(model, images))
    wanted, found = outputs
    assert torch.allclose(wanted, before, rtol=0, atol=1e-5) is (change is parametrized)
    assert_close(found, wanted)
    for training in (False, True):
        model.train(training)
        torch.manual_seed(3)
        with engine.disabled():
            wanted = outputs_and_gradients(model, images)
        torch.manual_seed(3)
        found = outputs_and_gradients(model, images)
        assert_same_to_scale(found.values(), wanted.values())


REASONS = {
    subclassed: f"CenteredNorm is not known to work token by token ({BLOCK}.norm1)",
    subclassed_mixer: f"OtherAttention has a forward of its own ({BLOCK}.mixer)",
    subclassed_block: f"OtherBlock has a forward of its own ({BLOCK})",
    own_forward: f"a replaced forward of {BLOCK}.mlp.fc2",
    own_forward_of_a_mixer: f"a replaced forward of {BLOCK}.mixer",
    hooked: f"a hook on {BLOCK}.mlp.act",
    hooked_before: f"a hook on {BLOCK}.mixer.proj",
    dropping: f"training mode ({BLOCK}.drop_path1)",
}


@pytest.mark.parametrize("change", REASONS, ids=lambda change: change.__name__)
def test_a_change_is_named_as_the_reason(change):
    model = perturb(hierarch.build(tiny(head=HEAD)))
    change(model)
    assert (
        reasons(model, noise(1, 3, 52, 68), "Block.forward")[BLOCK]["streamed"] == REASONS[change]
    )


def test_a_hook_on_all_modules_sees_whole_maps(tiles):
    model, seen = perturb(hierarch.build(tiny(head=HEAD))), []
    images = noise(1, 3, 64, 64)
    every = nn.modules.module.register_module_forward_hook
    handle = every(lambda module, inputs, out: seen.append((module, inputs[0].shape)))
    try:
        found = streamed(model, images)
    finally:
        handle.remove()
    assert tiles == []
    assert (model.stages[0].blocks[0].norm1, (1, 16, 16, 8)) in seen
    assert_close(found, defined(model, images))


class Doubled(torch.Tensor):
    """A tensor subclass that acts as twice its values, like a quantized weight that unpacks."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        plain = [x.as_subclass(torch.Tensor) * 2 if type(x) is cls else x for x in args]
        return func(*plain, **(kwargs or {}))


def test_a_weight_of_a_tensor_subclass_is_used():
    model, images = perturb(hierarch.build(tiny(head=HEAD))), noise(1, 3, 52, 68)
    layer = model.get_submodule(f"{BLOCK}.mlp.fc1")
    doubled = copy.deepcopy(model)
    with torch.no_grad():
        doubled.get_submodule(f"{BLOCK}.mlp.fc1").weight.mul_(2)
    weight = layer.weight.detach().as_subclass(Doubled)
    del layer.weight
    layer.weight = weight
    layer._parameters["weight"] = layer.__dict__.pop("weight")
    assert_close(streamed(model, images), defined(doubled, images))
    said = reasons(model, images, "Block.forward")[BLOCK]["streamed"]
    assert said == f"a weight of type Doubled ({BLOCK}.mlp.fc1)"


# masks and position biases: four kinds of windows, worked out once per change of a weight


def test_masks_do_not_grow_with_the_image(model):
    masked = [mixer for mixer in model.modules() if isinstance(mixer, MaskedWindowMixer)]
    for side in (64, 640):
        streamed(model, noise(1, 3, side, side))
        assert all((mixer in caches._kept) for mixer in masked)
        for mixer in masked:
            _, _, masks = caches._kept[mixer]
            assert len(masks) in (1, 2, 4)
            assert all(mask.numel() <= 16**2 * mixer.num_heads for mask in masks.values())
    assert len(masked) in (0, 7)


@pytest.mark.parametrize("mixer", WINDOWED[:2])
def test_without_the_mask_all_windows_share_the_position_bias(mixer):
    model = perturb(hierarch.build(without_mask(tiny(mixer, head=HEAD))))
    images = noise(2, 3, 75, 101)
    assert_close(streamed(model, images), defined(model, images))
    with torch.no_grad():
        explained = engine.explain(model, images)
    for i, stage in enumerate(model.stages):
        assert explained.way(f"stages.{i}", "Stage.forward") == "streamed"
        for block in stage.blocks:
            _, _, masks = caches._kept[block.mixer]
            assert list(masks) == [(False, False)]


def weights(model):
    """The parameters of the position bias in a shifted block."""
    mixer = model.stages[0].blocks[1].mixer
    table = getattr(mixer, "relative_position_bias_table", None)
    return [table] if table is not None else [mixer.cpb_mlp[2].weight]


def other(like):
    """Noise that is large enough to change attention maps."""
    return noise(*like.shape, seed=7) * 5


def other_state(model):
    names = ("relative_position_bias_table", "cpb_mlp.2.weight")
    state = model.state_dict().items()
    return {name: value + other(value) * name.endswith(names) for name, value in state}


def load(model):
    model.load_state_dict(other_state(model))
    return model


def assign(model):
    model.load_state_dict(other_state(model), assign=True)
    return model


def edit(model):
    with torch.no_grad():
        for weight in weights(model):
            weight.add_(other(weight))
    return model


def edit_data(model):
    for weight in weights(model):
        weight.data.add_(other(weight))
    return model


def edit_one_number(model):
    with torch.no_grad():
        for weight in weights(model):
            weight[len(weight) // 2, 0] += 20
    return model


def copied(model):
    return edit(copy.deepcopy(model))


def train(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=1)
    model.train()(noise(1, 3, 64, 64)).square().mean().backward()
    optimizer.step()
    return model.eval()


CHANGES = [load, assign, edit, edit_data, edit_one_number, copied, train, nn.Module.double]


@pytest.mark.parametrize("mixer", WINDOWED[:2])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("tile", ["auto", None])
def test_a_cached_bias_follows_a_change_of_its_weights(mixer, change, mode, tile):
    model = perturb(hierarch.build(tiny(mixer, head=HEAD)))
    model.set_tile_size(tile)
    images = noise(1, 3, 64, 64)
    with mode():
        before = model(images)
    changed = change(model)
    images = images.to(next(changed.parameters()).dtype)
    with mode():
        after = changed(images)
    assert (
        not torch.allclose(after.float(), before.float(), rtol=0, atol=1e-5)
        or change is nn.Module.double
    )
    assert_close(after.clone(), defined(changed, images))
    assert_close(streamed(model, images), defined(model, images))  # what was copied from, too


@pytest.mark.parametrize("tile", ["auto", None])
@pytest.mark.parametrize("mixer", [*WINDOWED[:2], "grid_attention"])
def test_a_bias_is_gathered_once(monkeypatch, mixer, tile):
    spec = tiny() | {"mixer": {"type": mixer, "head_dim": 4, "window_size": 4}}
    model = perturb(hierarch.build(spec))
    model.set_tile_size(tile)
    mixer = model.stages[0].blocks[1].mixer
    calls = []
    original = mixer.bias
    monkeypatch.setattr(mixer, "bias", lambda *a: calls.append(1) or original(*a))
    for _ in range(3):
        streamed(model, noise(1, 3, 64, 64))
    assert len(calls) == 1
    defined(model, noise(1, 3, 64, 64))
    assert len(calls) == 2


@pytest.mark.parametrize("mixer", WINDOWED[:2])
def test_a_bias_cached_under_autocast_is_not_used_without(mixer):
    model = perturb(hierarch.build(tiny(mixer, head=HEAD)))
    images = noise(1, 3, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        streamed(model, images)
    assert_close(streamed(model, images), defined(model, images))


# the order of windows


def shifted(size, window, shift):
    return shifted_cut((size,), (window,), (min(shift, window - 1),)).axes[0]


def front_padded(size, window, shift):
    return FrontPadded(size, window, min(shift, window - 1))


def rolled(size, window, shift):
    return shifted_cut((size,), (window,), (min(shift, window - 1),), masked=False).axes[0]


def dilated(size, window, shift):
    return Dilated(size, window)


axes = st.builds(
    lambda make, size, window, shift: make(size, window, shift),
    st.sampled_from([shifted, rolled, front_padded, dilated]),
    *(st.integers(1, 20), st.integers(1, 7), st.integers(0, 6)),
)


@given(st.tuples(axes, axes), st.integers(1, 3))
def test_every_token_is_in_one_window(pair, batch):
    cut = Cut(pair)
    index, counts = orders.order(cut, batch)
    held = index[index != PADDING]
    assert sorted(held.tolist()) == list(range(batch * pair[0].size * pair[1].size))
    assert sum(count for _, count in counts) == len(index) == batch * cut.count


# in strips


@pytest.mark.parametrize("size", [(1, 3, 200, 330), (2, 3, 201, 95), (3, 3, 5, 7), (1, 3, 1, 1)])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("norm", ["layer_norm", "group_norm"])
def test_patches_are_embedded_and_merged_in_strips(small_tiles, monkeypatch, size, threads, norm):
    model = perturb(hierarch.build(tiny(norm=norm, stem={"type": "patch_embed", "norm": norm})))
    images, before, heights = noise(*size), torch.get_num_threads(), {}
    for layer in (model.stem, model.stages[1].downsample):
        watch_heights(monkeypatch, type(layer), heights)
    torch.set_num_threads(threads)
    try:
        found = streamed(model, images)
        taken, wanted = dict(heights), defined(model, images)
    finally:
        torch.set_num_threads(before)
    assert_close(found, wanted)
    large = size[2] > 100
    assert (taken[model.stem] < size[2]) == (large and norm == "layer_norm")
    assert (taken[model.stages[1].downsample] < -(-size[2] // 4)) == large


def watch_heights(monkeypatch, cls, heights):
    """Records the number of rows of each layer's first call: the height of a strip."""
    transform = cls.transform

    def watched(layer, x):
        heights.setdefault(layer, x.shape[1])
        return transform(layer, x)

    monkeypatch.setattr(cls, "transform", watched)


@pytest.mark.parametrize(("side", "sharing"), [(224, 1), (512, 2)])
def test_all_blocks_share_a_map_among_threads_or_none(monkeypatch, side, sharing):
    # a second stage's own map of 512x512 would be too small, the one that it is made of is not
    model = perturb(hierarch.build(tiny(stages=[{"dim": 64, "depth": 1}, {"dim": 64, "depth": 1}])))
    images, before = noise(1, 3, side, side), torch.get_num_threads()
    seen, each = [], streaming.each
    for module in (streaming, strips):
        monkeypatch.setattr(module, "each", lambda *call: seen.append(call[2]) or each(*call))
    torch.set_num_threads(2)
    try:
        streamed(model, images)
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {sharing}
    assert len(seen) >= 4  # windows and their order, of each stage


# maps that are written over


@pytest.fixture
def maps(monkeypatch):
    """Records the maps that blocks are called with."""
    seen, original = [], streaming.streamed
    monkeypatch.setattr(
        streaming, "streamed", lambda blocks, x, **o: seen.append(x) or original(blocks, x, **o)
    )
    return seen


@pytest.mark.parametrize("seen", ["stem", "position_embedding", "drop", "stages.0", None])
def test_an_embedded_image_is_overwritten_unless_it_is_referenced(maps, seen):
    model = perturb(hierarch.build(tiny(stages=[{"dim": 8, "depth": 2}])))
    images, kept = noise(1, 3, 64, 64), []
    if seen == "stages.0":
        model.stages[0].register_forward_pre_hook(lambda *call: kept.append(call[1][0]))
    elif seen:
        model.get_submodule(seen).register_forward_hook(lambda *call: kept.append(call[2]))
    (found,) = streamed(model, images)
    assert len(kept) == (seen is not None)
    embedded = defined(model.stem, images)
    for x in [*maps, *kept]:
        assert torch.allclose(x, embedded, atol=1e-5) == (seen is not None)
    assert_close(found, defined(model, images)[0])
    assert len(maps) == 1


class Keeping(Wrapped):
    """A layer that stores its output, as for visualization."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.kept = self.layer(x)
        return self.kept


@pytest.mark.parametrize("name", ["stem", "position_embedding", "drop", "stages.1.downsample"])
def test_a_map_that_a_replaced_layer_keeps_is_not_overwritten(maps, name):
    model, images = perturb(hierarch.build(tiny(stages=STAGES))), noise(1, 3, 64, 64)
    replace(model, name, Keeping)
    defined(model, images)
    wanted = model.get_submodule(name).kept.clone()
    streamed(model, images)
    assert len(maps) == 2
    assert_close(model.get_submodule(name).kept, wanted)


STAGES = [{"dim": 8, "depth": 2}, {"dim": 16, "depth": 1}]


class Seen(nn.Module):
    """(B, C, H, W) -> (B, H, W, C), as a view of the same memory."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 2, 3, 1)


class Residual(Wrapped):
    """A wrapper that adds its input after the layer has run."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + x


@pytest.mark.parametrize("name", ["stages.0", "stages.0.blocks.0", "stages.0.blocks.1.mlp"])
def test_an_input_that_a_wrapper_still_needs_is_not_overwritten(name):
    model, images = perturb(hierarch.build(tiny(stages=STAGES, head=HEAD))), noise(1, 3, 64, 64)
    replace(model, name, Residual)
    assert_close(streamed(model, images), defined(model, images))


def test_images_are_never_overwritten(maps):
    stem = {"type": "patch_embed", "in_chans": 8}
    model = perturb(hierarch.build(tiny(stages=[{"dim": 8, "depth": 2}], stem=stem)))
    model.stem = Seen()
    images = noise(1, 16, 16, 8).permute(0, 3, 1, 2)
    before = images.clone()
    found = streamed(model, images)
    assert len(maps) == 1
    assert torch.equal(images, before)
    assert_close(found, defined(model, images))


def test_only_a_stages_own_map_is_overwritten():
    model = perturb(hierarch.build(tiny()))
    kept = []
    model.stages[1].downsample.register_forward_hook(lambda *call: kept.append(call[2]))
    images = noise(1, 3, 64, 64)
    streamed(model, images)
    x = defined(model.stages[0], defined(model.stem, images))
    assert_close(kept[0], defined(model.stages[1].downsample, x))
    wanted = x.clone()
    streamed(model.stages[0], x)
    streamed(model.stages[1], x)
    assert torch.equal(x, wanted)


# other numbers


@pytest.mark.parametrize("mixer", WINDOWED)
def test_bfloat16_is_as_close_as_the_definitions(mixer):
    exact = perturb(hierarch.build(tiny(mixer, head=HEAD)))
    model, images = copy.deepcopy(exact).bfloat16(), noise(2, 3, 40, 56).bfloat16()
    exact.load_state_dict(model.state_dict())
    wanted = defined(exact.double(), images.double())
    found, other = streamed(model, images), defined(model, images)
    assert found.dtype is torch.bfloat16
    error, defined_error = ((one - wanted).abs().max() for one in (found, other))
    assert error <= max(1.5 * defined_error, 0.02 * wanted.abs().max())


@pytest.mark.parametrize("mask", [None, (1, 1, 9, 9), (1, 2, 9, 9), (6, 2, 9, 9)])
@pytest.mark.parametrize("counts", [(6,), (2, 4)])
@pytest.mark.parametrize("scale", [None, 0.5])
@pytest.mark.parametrize("most", [0, 1 << 21])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_attention_with_materialized_maps_and_without(
    monkeypatch, mask, counts, scale, most, dtype
):
    monkeypatch.setattr(attention, "MAX_MAP_ELEMENTS", most)
    made_of, original = [], attention.two_products
    monkeypatch.setattr(
        attention, "two_products", lambda *x, **o: made_of.append(x) or original(*x, **o)
    )
    qkv = noise(3, 6, 2, 9, 8).to(dtype)
    added = None if mask is None else noise(*mask, seed=1).to(dtype).expand(6, -1, -1, -1)
    parts = [None] * len(counts) if added is None else added.split(counts)
    masks = [
        (count, part if part is None or mask[0] > 1 else part[:1])
        for count, part in zip(counts, parts, strict=True)
    ]
    with torch.no_grad():
        found = functional.attention(*qkv, masks, scale)
    assert bool(made_of) == (most > 0 and dtype is torch.bfloat16 and dtype in ONEDNN_DTYPES)
    exact = None if added is None else added.double()
    wanted = F.scaled_dot_product_attention(*qkv.double(), attn_mask=exact, scale=scale)
    assert found.dtype is dtype
    atol = 0.02 if dtype is torch.bfloat16 else 1e-5
    wanted = wanted.transpose(1, 2).flatten(2)
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("dim", [3, 8, 12])
@pytest.mark.parametrize("offset", [0, 1, 8])
@pytest.mark.parametrize("across", [None, "out", "rows"])
def test_rows_of_any_type_width_and_offset_are_written(dtype, dim, offset, across):
    def rows(count, seed):
        numbers = noise(offset + count * dim, seed=seed).to(dtype)[offset:]
        return numbers.view(count, dim), numbers.view(dim, count).T

    out = rows(20, 0)[across == "out"]
    new = rows(3, 1)[across == "rows"]
    new[0, 0] = float("nan")
    places = torch.tensor([7, 3, 19])
    wanted = out.clone()
    wanted[places] = new
    gathering.write(out, places, new)
    assert torch.equal(out.nan_to_num(9), wanted.nan_to_num(9))


def test_few_attention_maps_are_made_in_one_call(monkeypatch):
    """Of windows of four kinds, on a grid of 2x2 windows."""
    mixer = hierarch.load(tiny()).plan()[0].mixers[1].build(8).eval()
    x, calls = noise(1, 8, 8, 8), []
    once = F.scaled_dot_product_attention

    def counted(*args, **options):
        calls.append(len(args[0]))
        return once(*args, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    wanted = defined(mixer, x)
    for limit, sequences in [(4 * 2 * 16 * 16 - 1, [1, 1, 1, 1]), (4 * 2 * 16 * 16, [4])]:
        monkeypatch.setattr(attention, "FEW_MAP_ELEMENTS", limit)
        calls.clear()
        assert_close(streamed(mixer, x), wanted)
        assert calls == sequences
