"""Checkpoints edited at random, and tensors that are no plain numbers: one line, and no change."""

from __future__ import annotations

import json
import re
import struct

import pytest
import torch
from helpers import perturb, tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peers import PEERS
from safetensors.torch import load_file

import hierarch
from hierarch import WeightsError

POSITION = {"position_embedding": {"type": "absolute", "grid": [4, 4]}}
SPEC = tiny(input_size=64, head={"num_classes": 5}, **POSITION)
TABLE = "stages.0.blocks.0.mixer.relative_position_bias_table"


@pytest.fixture(scope="module")
def trained():
    return perturb(hierarch.build(SPEC), seed=1)


def is_clear(error):
    return str(error).isprintable() and len(str(error)) < 600


def is_fine(call):
    """Whether it returns, or refuses clearly; any other error is raised."""
    try:
        call()
    except WeightsError as error:
        return is_clear(error)
    return True


def refused(call, *arguments, **options):
    """The message of the only error that a file may end in: short, and one line."""
    with pytest.raises(WeightsError) as caught:
        call(*arguments, **options)
    assert is_clear(caught.value)
    return str(caught.value)


def assert_refused_unchanged(source):
    model = hierarch.build(SPEC)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    message = refused(hierarch.load_weights, model, source)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    return message


# any weight, edited in any way

EDITS = {
    "dropped": lambda tensor: None,
    "a number": lambda tensor: torch.tensor(1.0),
    "empty": lambda tensor: torch.zeros(0, *tensor.shape[1:]),
    "one dimension more": lambda tensor: tensor[None],
    "flat": lambda tensor: tensor.flatten(),
    "integers": lambda tensor: tensor.long(),
    "larger": lambda tensor: torch.zeros(1).expand([3 * n for n in tensor.shape] or [3]),
}
EDITED = {
    name: PEERS[name]
    for name in ("timm v1", "timm v2", "torchvision v1", "torchvision v2", "huggingface v2")
}


@pytest.fixture(scope="module")
def checkpoints():
    states = {name: (peer.trained().state_dict(), peer.options) for name, peer in EDITED.items()}
    own = perturb(hierarch.build(SPEC)).state_dict()
    official = hierarch.export_weights(
        hierarch.build(tiny("cosine_window_attention", input_size=64, block="post_norm")),
        layout="hierarch",
    )
    return states | {"hierarch": (own, {}), "hierarch v2": (official, {"window_size": 4})}


@settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_an_edited_checkpoint_is_a_network_or_one_line(checkpoints, tmp_path, data):
    whole, options = checkpoints[data.draw(st.sampled_from(sorted(checkpoints)))]
    # the first weights are those that a spec is read from, and the likelier to be missed
    names = st.sampled_from(list(whole)) | st.sampled_from(list(whole)[:24])
    edits = data.draw(
        st.dictionaries(names, st.sampled_from(sorted(EDITS)), min_size=1, max_size=4)
    )
    edited = whole | {name: EDITS[edit](whole[name]) for name, edit in edits.items()}
    state = {name: tensor for name, tensor in edited.items() if tensor is not None}
    calls = [
        lambda: hierarch.from_checkpoint(state, **options),
        lambda: hierarch.convert_weights(state, tmp_path / "o.pth", layout="timm", **options),
        lambda: hierarch.convert_weights(
            state, tmp_path / "o.safetensors", layout="torchvision", **options
        ),
    ]
    assert all(map(is_fine, calls))


@pytest.mark.parametrize("name", ["torchvision v2", "timm v2", "hierarch v2"])
def test_a_stem_of_videos_before_windows_of_images_is_refused(checkpoints, name):
    whole, options = checkpoints[name]
    stem = next(key for key, weight in whole.items() if weight.ndim == 4)
    message = refused(hierarch.from_checkpoint, whole | {stem: whole[stem][None]}, **options)
    assert "its patches have 3 axes, and its " in message


@pytest.mark.parametrize("layout", ["hierarch", "timm", "torchvision", "huggingface", "official"])
@pytest.mark.parametrize("edit", sorted(EDITS))
@pytest.mark.parametrize("name", ["stages.0.blocks.0.mlp.fc1.weight", "head.fc.weight"])
def test_a_conversion_writes_no_damaged_network(tmp_path, layout, edit, name):
    """The first is read for the spec; layouts without buffers could be written without one."""
    state = hierarch.build(tiny(input_size=64, head={"num_classes": 5})).state_dict()
    if (damaged := EDITS[edit](state.pop(name))) is not None:
        state[name] = damaged
    message = refused(hierarch.convert_weights, state, tmp_path / "o.pth", layout=layout)
    assert re.search("missing|should|left over", message)
    assert not list(tmp_path.iterdir())


def test_a_spec_of_another_network_is_refused(tmp_path):
    state = hierarch.build(tiny(input_size=64)).state_dict()
    shallow = [{"dim": 8, "depth": 2}, {"dim": 16, "depth": 2}, {"dim": 24, "depth": 2}]
    spec = tiny(input_size=64, stages=shallow)
    message = refused(hierarch.convert_weights, state, tmp_path / "o.pth", layout="timm", spec=spec)
    assert "left over 13 (stages.1.blocks.2" in message


# shapes that a resampling would meet


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("position_embedding.table", (2, 16, 8)),
        ("position_embedding.table", (2, 8, 8)),
        ("position_embedding.table", (1, 0, 8)),
        ("position_embedding.table", (1, 0, 0, 8)),
        ("position_embedding.table", (2, 3, 3, 8)),
        (TABLE, (0, 2)),
        (TABLE, (16, 2)),
        ("stem.proj.weight", (8, 0, 4, 4)),
    ],
    ids=str,
)
def test_what_cannot_be_resampled(trained, tmp_path, name, shape):
    state = trained.state_dict() | {name: torch.zeros(shape)}
    assert name in assert_refused_unchanged(state)
    refused(hierarch.from_checkpoint, state)
    refused(hierarch.convert_weights, state, tmp_path / "o.pth", layout="hierarch")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(24).to_sparse(),
        torch.ones(24, device="meta"),
        torch.ones(24, dtype=torch.complex64),
        torch.ones(24, dtype=torch.bool),
        torch.zeros(24, dtype=torch.uint8).view(getattr(torch, "float4_e2m1fn_x2", torch.bool)),
    ],
    ids=lambda tensor: f"{tensor.layout} {tensor.dtype} {tensor.device}",
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_no_plain_tensor(trained, tmp_path, tensor, suffix):
    """`load_state_dict` would find these half-way through."""
    state = trained.state_dict() | {"norm.weight": tensor}
    assert "norm.weight should be" in assert_refused_unchanged(state)
    message = refused(hierarch.convert_weights, state, tmp_path / f"o{suffix}", layout="hierarch")
    assert "norm.weight should be" in message
    assert not list(tmp_path.iterdir())


def test_nan_is_read_as_it_is(trained):
    nan = torch.full((24,), float("nan"))
    model = hierarch.from_checkpoint(trained.state_dict() | {"norm.weight": nan})
    assert model.norm.weight.isnan().all()


# files


def test_weights_that_share_memory_are_written_one_by_one(trained, tmp_path):
    state = trained.state_dict()
    memory = torch.randn(48)
    shared = {
        "norm.weight": memory[:24],
        "norm.bias": memory[12:36],
        "stages.2.blocks.0.norm1.weight": memory[:24],
        "stages.2.blocks.0.norm1.bias": memory[::2],
    }
    hierarch.convert_weights(state | shared, tmp_path / "o.safetensors", layout="hierarch")
    found = load_file(tmp_path / "o.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in (state | shared).items())


@pytest.mark.parametrize("end", [8, 1 << 40, 1 << 62], ids=str)
def test_a_header_that_promises_more_than_there_is(tmp_path, end):
    entry = {"dtype": "F32", "shape": [end // 4], "data_offsets": [0, end]}
    header = json.dumps({"stem.proj.weight": entry}).encode()
    path = tmp_path / "weights.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    assert "cannot be read" in assert_refused_unchanged(path)
    path.write_bytes(struct.pack("<Q", end) + header)
    assert "cannot be read" in assert_refused_unchanged(path)


@pytest.mark.parametrize("name", ["two\nlines", "x" * 240, "tab\t"])
def test_a_files_name_need_be_no_networks_name(trained, tmp_path, name):
    path = tmp_path / f"{name}.pth"
    torch.save(hierarch.export_weights(trained, layout="timm"), path)
    spec = hierarch.infer(path).spec
    assert spec.name == ("x" * 200 if "x" in name else "backbone")


def test_what_stands_beside_the_weights_is_reported(trained, tmp_path):
    whole = {"model": trained.state_dict(), "optimizer": {"state": {}}, "epoch": 3}
    model = hierarch.build(SPEC)
    assert hierarch.load_weights(model, whole).ignored == ("optimizer", "epoch")
    done = hierarch.convert_weights(whole, tmp_path / "o.pth", layout="timm")
    assert done.ignored == ("optimizer", "epoch")


@pytest.mark.parametrize(("dim", "hidden"), [(11, 15), (76, 250), (92, 122)])
def test_a_hidden_width_is_met_to_the_channel(dim, hidden):
    """hidden / dim * dim may be a little less than hidden, and is rounded down."""
    assert int(hidden / dim * dim) == hidden - 1
    head_dim = next(n for n in (11, 19, 23) if dim % n == 0)
    mixer = {"type": "window_attention", "head_dim": head_dim, "window_size": 4}
    ratio = (hidden + 0.5) / dim
    model = hierarch.build(
        {"stages": [{"dim": dim, "depth": 1, "mixer": mixer, "mlp_ratio": ratio}]}
    )
    state = hierarch.export_weights(model, layout="hierarch")
    assert state["stages.0.blocks.0.mlp.fc1.weight"].shape == (hidden, dim)
    found = hierarch.from_checkpoint(state).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("end", [0.0, -1.0, 9.0, float("nan"), float("inf")])
def test_coordinates_that_no_window_has(end):
    peer = PEERS["torchvision v2"]
    state = peer.trained().state_dict()
    coordinates = state["features.1.0.attn.relative_coords_table"]
    state["features.1.0.attn.relative_coords_table"] = torch.full_like(coordinates, end)
    assert "its coordinates end in" in refused(hierarch.from_checkpoint, state)
