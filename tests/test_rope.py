"""The rotary position embedding: timm's and transformers' DINOv3, in every way that a network runs,
with tokens outside of the grid and without."""

import functools

import onnxruntime
import pytest
import timm
import torch
from helpers import noise, perturb
from oracles import relative
from timm.layers.pos_embed_sincos import RotaryEmbeddingDinoV3, apply_rot_embed_cat
from torch import nn
from transformers import DINOv3ViTConfig, DINOv3ViTModel

import hierarch
from hierarch import SpecError, engine
from hierarch.errors import PeerError
from hierarch.nn.rope import rotated
from hierarch.plots.blocks import steps
from hierarch.spec.params import params

ROPE = {"type": "global_attention", "head_dim": 8, "key_bias": False, "rope": {"temperature": 30.0}}
SPEC = {
    "input_size": 32,
    "stem": {"type": "patch_embed", "patch_size": 8},
    "extra_tokens": {"class_token": True, "registers": 2, "positions": False},
    "mixer": ROPE,
    "stages": [{"dim": 16, "depth": 2}],
    "head": {"num_classes": 5, "pool": "class_token"},
}
HIERARCHICAL = {
    "mixer": ROPE,
    "stages": [{"dim": 16, "depth": 1}, {"dim": 32, "depth": 2}],
    "head": {"num_classes": 5},
}
NETWORKS = {"extra tokens": SPEC, "hierarchical": HIERARCHICAL}
SIZES = [(256, 256), (160, 224), (80, 336)]
EXACT = 1e-12


@functools.cache
def network(name="extra tokens"):
    return perturb(hierarch.build(NETWORKS[name]), std=0.2)


@functools.cache
def shallow():
    """One block, since compilers and exporters take seconds a block."""
    return perturb(hierarch.build(SPEC, stages=[{"dim": 16, "depth": 1}]), std=0.2)


# the rotation


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("grid", [(1, 1), (3, 5), (16, 9)])
def test_a_rotation_is_timms(grid, dtype):
    table = RotaryEmbeddingDinoV3(24, temperature=50.0).to(dtype).get_embed(grid)
    x = noise(2, 3, 4 + grid[0] * grid[1], 24).to(dtype)
    turned = apply_rot_embed_cat(x[:, :, 4:], table, half=True)
    wanted = torch.cat([x[:, :, :4], turned], 2)
    found = rotated(x, grid, temperature=50.0)
    assert found.dtype == dtype
    # the last bit of a sine may differ, and with it that of what is rounded to bfloat16
    torch.testing.assert_close(found, wanted, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


def test_a_product_depends_on_the_offset_of_two_tokens_alone():
    q, k = (noise(8, seed=i).double().expand(1, 30, 8) for i in (0, 1))
    q, k = (rotated(of, (5, 6), temperature=30.0)[0].view(5, 6, 8) for of in (q, k))
    products = torch.einsum("hwd,ijd->hwij", q, k)
    offset = products[:-1, :-2, 1:, 2:].diagonal(dim1=0, dim2=2).diagonal(dim1=0, dim2=1)
    assert relative(offset, offset[0, 0]) < 1e-5  # positions are in float32
    assert float(products.std()) > 0.1


@torch.no_grad()
def test_a_row_with_its_grid_is_a_map():
    mixer = perturb(hierarch.load(SPEC).plan()[0].mixers[0].build(16)).double()
    x = noise(2, 3, 5, 16).double()
    found = mixer(x.view(2, 1, 15, 16), (3, 5)).view(x.shape)
    torch.testing.assert_close(found, mixer(x), rtol=0, atol=0)
    assert relative(mixer(x.view(2, 5, 3, 16)).view(x.shape), found) > 1e-2


# DINOv3


@functools.cache
def timms(name, pool="token"):
    small = {"embed_dim": 64, "num_heads": 2, "depth": 2, "num_classes": 5, "global_pool": pool}
    return perturb(timm.create_model(name, **small), std=0.2).double()


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "pool"),
    [
        ("vit_small_patch16_dinov3", "token"),
        ("vit_small_patch16_dinov3_qkvb", "avg"),
        ("vit_small_plus_patch16_dinov3", "avg"),
        ("vit_small_plus_patch16_dinov3_qkvb", "token"),
        ("vit_base_patch16_dinov3", "token"),
    ],
)
def test_a_network_is_timms_at_any_size_with_weights_both_ways(name, pool):
    theirs = timms(name, pool)
    ours = hierarch.from_timm(theirs)
    state = theirs.state_dict()
    back = hierarch.export_weights(ours, layout="timm")
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], value) for key, value in state.items())
    for size in SIZES:
        images = noise(2, 3, *size).double()
        features = theirs.forward_features(images)
        assert relative(ours.forward_features(images)[:, 0], features) < EXACT
        assert relative(ours(images), theirs(images)) < EXACT


@torch.no_grad()
@pytest.mark.parametrize(
    "wrong",
    [{"rope": None}, {"rope": {"temperature": 90.0}}, {"head_dim": None, "num_heads": 1}],
    ids=str,
)
def test_another_rotation_would_show(wrong):
    theirs = timms("vit_small_patch16_dinov3")
    images = noise(2, 3, 160, 224).double()
    ours = hierarch.from_timm(theirs)
    [mixer] = ours.spec.mixer
    other = hierarch.build(ours.spec, mixer=mixer.to_data() | wrong).double().eval()
    other.load_state_dict(ours.state_dict())
    assert relative(other(images), theirs(images)) > 1e-6


def test_what_a_spec_has_no_word_for_is_refused():
    for name, said in (
        ("vit_small_patch16_rope_mixed_224", "no rotary embedding like RotaryEmbeddingMixed"),
        ("eva02_tiny_patch14_224", "no pos_embed"),
    ):
        with pytest.raises(PeerError, match=said):
            hierarch.from_timm(name)
    theirs = timm.create_model("vit_small_patch16_dinov3", depth=1, rope_grid_offset=0.1)
    with pytest.raises(PeerError, match="not as DINOv3's"):
        hierarch.from_timm(theirs)


@torch.no_grad()
@pytest.mark.parametrize("gated", [False, True])
def test_a_network_is_transformers_with_weights_both_ways(gated):
    shape = {"hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 2}
    shape |= {"num_hidden_layers": 2, "num_register_tokens": 4, "use_gated_mlp": gated}
    config = DINOv3ViTConfig(**shape, hidden_act="silu" if gated else "gelu")
    theirs = perturb(DINOv3ViTModel(config), std=0.2).double()
    ours = hierarch.build(
        "dinov3_small_plus_patch16" if gated else "dinov3_small_patch16",
        mixer={"type": "global_attention", "num_heads": 2, "key_bias": False, "rope": {}},
        stages=[{"dim": 32, "depth": 2}],
    )
    nn.init.zeros_(theirs.embeddings.mask_token)
    state = theirs.state_dict()
    old = {name.removeprefix("model."): tensor for name, tensor in state.items()}
    for given in (old, state):
        report = hierarch.load_weights(ours, given)
        assert (report.layout, report.ignored) == ("huggingface", ("embeddings.mask_token",))
    back = hierarch.export_weights(ours, layout="huggingface")
    assert back.keys() == state.keys()
    ours = ours.double().eval()
    hierarch.load_weights(ours, state)
    for size in SIZES:
        images = noise(2, 3, *size).double()
        # their wave lengths differ in the last bit of float32
        assert relative(ours(images), theirs(images).pooler_output) < 1e-6


# the cost


@pytest.mark.parametrize("name", NETWORKS)
def test_claims_are_counts_and_the_rotation_is_free(name):
    spec = hierarch.load(NETWORKS[name])
    report = hierarch.measure(spec, sizes=[32, (45, 70)])
    assert report.params == params(spec)
    mixer = {name: value for name, value in ROPE.items() if name != "rope"}
    plain = hierarch.measure(NETWORKS[name] | {"mixer": mixer}, sizes=[32, (45, 70)])
    for cost, without in zip(report.sizes, plain.sizes, strict=True):
        assert cost.macs == cost.claimed_macs == without.macs


# the ways that a network runs


@pytest.mark.parametrize("name", NETWORKS)
def test_the_engine_and_the_definition_agree(name):
    images = noise(3, 3, 45, 70)
    with torch.no_grad():
        logits = network(name)(images)
        with engine.disabled():
            torch.testing.assert_close(logits, network(name)(images), rtol=0, atol=1e-5)


def test_images_of_several_sizes_do_not_disturb_each_other():
    sizes = [(32, 32), (40, 64), (32, 32)]
    images = [noise(3, *size, seed=i) for i, size in enumerate(sizes)]
    for one, found in zip(images, network()(images), strict=True):
        torch.testing.assert_close(found, network()(one[None])[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("per", ["block", "stage"])
def test_gradients_are_the_same_where_blocks_are_recomputed(per):
    model = perturb(hierarch.build(SPEC)).double().train()
    images = noise(2, 3, 40, 64).double()
    grads = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable, per)
        model(images).square().sum().backward()
        grads.append([parameter.grad.clone() for parameter in model.parameters()])
        model.zero_grad()
    assert all(map(torch.equal, *grads))
    assert all(grad.any() for grad in grads[0])


def test_a_drawing_of_a_block_needs_no_grid():
    [block, _] = hierarch.load(SPEC).plan()[0].blocks
    names = [step.name for step in steps(block) if step.is_module]
    assert names == ["norm1", "mixer", "norm2", "mlp"]


def test_a_mixer_in_the_cycle_that_takes_no_grid_is_told_none():
    model = perturb(hierarch.build(SPEC, mixer=[ROPE, "identity"]))
    assert [block.takes_grid for block in model.stages[0].blocks] == [True, False]
    assert model(noise(1, 3, 40, 64)).shape == (1, 5)


@pytest.mark.filterwarnings("ignore")  # of the old exporter, which torch deprecates
def test_a_row_of_tokens_is_exported_for_any_size(tmp_path):
    model = shallow()
    height, width = (torch.export.Dim(name, min=2, max=32) for name in ("height", "width"))
    program = torch.export.export(
        model, (noise(1, 3, 64, 96),), dynamic_shapes={"images": {2: 8 * height, 3: 8 * width}}
    )
    path = tmp_path / "model.onnx"
    options = {"dynamo": False, "input_names": ["images"]}
    options["dynamic_axes"] = {"images": {2: "height", 3: "width"}}
    with torch.no_grad():
        torch.onnx.export(model, (noise(1, 3, 64, 96),), path, **options)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for size in ((64, 96), (160, 72)):
        images = noise(1, 3, *size)
        wanted = model(images)
        torch.testing.assert_close(program.module()(images), wanted, rtol=0, atol=1e-5)
        [found] = session.run(None, {"images": images.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=0, atol=1e-4)


@torch.no_grad()
def test_one_compiled_program_computes_the_same_at_all_sizes():
    model = shallow()
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=True)
    for size in ((40, 64), (96, 32)):
        images = noise(2, 3, *size)
        torch.testing.assert_close(compiled(images), model(images), rtol=0, atol=1e-5)


def test_it_is_transformed_by_torch_func():
    model = perturb(hierarch.build(SPEC)).double()
    images, tangent = noise(2, 3, 24, 40).double(), noise(2, 3, 24, 40, seed=1).double()
    _, forward = torch.func.jvp(model, (images,), (tangent,))
    step = 1e-5
    wanted = (model(images + step * tangent) - model(images - step * tangent)) / (2 * step)
    torch.testing.assert_close(forward, wanted, rtol=1e-5, atol=1e-7)
    each = torch.func.vmap(lambda image: model(image[None])[0])(images)
    torch.testing.assert_close(each, model(images), rtol=0, atol=1e-10)


def test_it_is_built_on_the_meta_device_and_filled_later():
    with torch.device("meta"):
        model = hierarch.build(SPEC)
        assert model(torch.zeros(2, 3, 40, 64)).shape == (2, 5)
    model = model.to_empty(device="cpu")
    model.reset_parameters()
    model.load_state_dict(network().state_dict())
    images = noise(2, 3, 40, 64)
    assert torch.equal(model.eval()(images), network()(images))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mixer": ROPE | {"head_dim": None, "num_heads": 8}}, "heads of 2 channels are not"),
        ({"mixer": ROPE | {"rope": {"temperature": 1.0}}}, "greater than 1"),
        ({"mixer": ROPE | {"rope": {"base": 100.0}}}, "unknown"),
        (
            {"input_size": [8, 32, 32], "extra_tokens": None, "head": None},
            "global_attention works on 2 axes here, and the network has 3",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(fields, message):
    with pytest.raises(SpecError, match=message):
        hierarch.load(SPEC | fields)
