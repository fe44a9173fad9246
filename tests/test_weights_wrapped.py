"""Checkpoints as trainers write them: in any key, after any prefix, with other networks beside."""

from __future__ import annotations

import argparse
import json
import pickle
import re
import sys

import pytest
import timm
import torch
from helpers import noise, perturb
from peers import ODD, PEERS, outputs
from rich.console import Console
from safetensors.torch import save_file
from test_infer import run

import hierarch
from hierarch import WeightsError
from hierarch.report.formats import text
from hierarch.report.weights import Location
from hierarch.weights.files import Checkpoint
from hierarch.weights.recognize import recognize
from hierarch.weights.search import MAX_STEMS

IMAGES = noise(2, 3, 48, 48)


def swin(seed, num_classes=5):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = timm.models.SwinTransformer(
            img_size=48, **ODD, window_size=3, num_classes=num_classes
        )
    return perturb(net, seed=seed)


NET, OTHER, THIRD = swin(1), swin(2), swin(3)
BACKBONE, OTHER_BACKBONE = swin(1, num_classes=0), swin(2, num_classes=0)


def after(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


def official(net):
    """A network under the names of microsoft/Swin-Transformer, buffers included."""
    return hierarch.export_weights(hierarch.from_checkpoint(net.state_dict()), layout="official")


def arrays(state):
    return {name: tensor.numpy() for name, tensor in state.items()}


def dino_head(name):
    return {
        f"{name}.mlp.0.weight": torch.ones(8, 48),
        f"{name}.last_layer.weight_g": torch.ones(6, 1),
        f"{name}.last_layer.weight_v": torch.ones(6, 8),
    }


OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}

DINO = {
    "student": after(
        "module.", after("backbone.", OTHER_BACKBONE.state_dict()) | dino_head("head")
    ),
    "teacher": after("backbone.", BACKBONE.state_dict()) | dino_head("head"),
    "optimizer": OPTIMIZER,
    "epoch": 3,
    "args": argparse.Namespace(arch="swin_tiny"),
    "dino_loss": {"center": torch.zeros(1, 6)},
}
MOCO_V3 = {
    "epoch": 3,
    "arch": "swin",
    "state_dict": after("module.base_encoder.", BACKBONE.state_dict())
    | after("module.momentum_encoder.", OTHER_BACKBONE.state_dict())
    | {
        "module.base_encoder.head.0.weight": torch.ones(4, 48),
        "module.predictor.0.weight": torch.ones(4, 4),
    },
    "optimizer": OPTIMIZER,
}
SWIN_UNET = after(
    "swin_unet.",
    official(BACKBONE)
    | {
        "layers_up.1.blocks.0.norm1.weight": torch.ones(24),
        "layers_up.1.upsample.expand.weight": torch.ones(48, 24),
        "concat_back_dim.1.weight": torch.ones(24, 48),
        "norm_up.weight": torch.ones(12),
        "up.expand.weight": torch.ones(192, 12),
        "output.weight": torch.ones(9, 12, 1, 1),
    },
)
DETECTOR = after("backbone.bottom_up.", official(BACKBONE)) | {
    "backbone.fpn_lateral2.norm.weight": torch.ones(4),
    "proposal_generator.rpn_head.conv.weight": torch.ones(4, 4, 3, 3),
}

FILES = {
    "dino.pth": (DINO, "teacher", "backbone.", BACKBONE),
    "esvit.pth": (
        {
            network: after("module.", official(net) | dino_head("head") | dino_head("head_dense"))
            for network, net in (("student", OTHER_BACKBONE), ("teacher", BACKBONE))
        },
        "teacher",
        "module.",
        BACKBONE,
    ),
    "moco_v3.pth.tar": (MOCO_V3, "state_dict", "module.base_encoder.", BACKBONE),
    "moco_v2.pth.tar": (
        {
            "state_dict": after("module.encoder_k.", OTHER.state_dict())
            | after("module.encoder_q.", NET.state_dict())
            | {"module.queue": torch.ones(4, 8)}
        },
        "state_dict",
        "module.encoder_q.",
        NET,
    ),
    "moby.pth": (
        {
            "model": after("encoder_k.", official(OTHER_BACKBONE))
            | after("encoder.", official(BACKBONE))
            | {"projector.linear_out.weight": torch.ones(4, 4)}
        },
        "model",
        "encoder.",
        BACKBONE,
    ),
    "lightning.ckpt": (
        {
            "epoch": 3,
            "pytorch-lightning_version": "2.4.0",
            "state_dict": after("net.", NET.state_dict()) | {"criterion.weight": torch.ones(5)},
            "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5)}},
            "optimizer_states": [OPTIMIZER],
            "hyper_parameters": {"lr": 0.1},
        },
        "state_dict",
        "net.",
        NET,
    ),
    "timm.pth.tar": (
        {
            "arch": "swin",
            "state_dict": OTHER.state_dict(),
            "state_dict_ema": NET.state_dict(),
            "args": argparse.Namespace(model="swin"),
        },
        "state_dict_ema",
        "",
        NET,
    ),
    "convnext.pth": (
        {"model": OTHER.state_dict(), "model_ema": NET.state_dict(), "scaler": {"scale": 1.0}},
        "model_ema",
        "",
        NET,
    ),
    "mmengine.pth": (
        {
            "ema_state_dict": after("module.backbone.", OTHER.state_dict())
            | {"steps": torch.tensor(3)},
            "state_dict": after("backbone.", NET.state_dict()),
        },
        "state_dict",
        "backbone.",
        NET,
    ),
    "compiled.pt": (after("module._orig_mod.", NET.state_dict()), "", "module._orig_mod.", NET),
    "swin_unet.pth": (SWIN_UNET, "", "swin_unet.", BACKBONE),
    "detectron2.pkl": (
        {"model": arrays(DETECTOR), "__author__": "them", "matching_heuristics": True},
        "model",
        "backbone.bottom_up.",
        BACKBONE,
    ),
    "arrays.pth": ({"model": arrays(NET.state_dict()), "epoch": 3}, "model", "", NET),
    "nested.pth": ({"state": {"model": {"net": NET.state_dict()}}}, "state.model.net", "", NET),
    "prefixed.safetensors": (after("a.b.c.d.e.f.", NET.state_dict()), "", "a.b.c.d.e.f.", NET),
}


def written(path, content):
    if path.suffix == ".safetensors":
        save_file(content, path)
    elif path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    return path


@torch.no_grad()
def assert_computes(model, net):
    torch.testing.assert_close(model(IMAGES), net(IMAGES), rtol=1e-5, atol=1e-5)


def test_the_networks_differ():
    """The comparisons below can fail."""
    for one, other in ((NET, OTHER), (BACKBONE, OTHER_BACKBONE)):
        with pytest.raises(AssertionError, match="not close"):
            assert_computes(one, other)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_the_field_is_the_network_that_the_field_takes(tmp_path, name):
    content, key, prefix, net = FILES[name]
    path = written(tmp_path / name, content)
    model = hierarch.from_checkpoint(path)
    assert_computes(model, net)
    report = hierarch.load_weights(perturb(hierarch.build(model.spec)), path)
    assert (report.location.key, report.location.prefix) == (key, prefix)
    assert set(report.loaded) == model.state_dict().keys()
    done = hierarch.convert_weights(path, tmp_path / "out.pth", layout="timm")
    assert (done.location, done.candidates) == (report.location, report.candidates)
    assert_computes(hierarch.from_checkpoint(tmp_path / "out.pth"), net)


WITHIN = {
    "torchvision v1": "module.model.",
    "huggingface v1": "lightning_module.model.",
    "huggingface v1 Backbone": "backbone.",
    "huggingface v2": "net.",
    "timm v2": "encoder.",
}


@pytest.mark.parametrize("name", WITHIN)
def test_every_layout_is_found_after_any_prefix(name):
    peer = PEERS[name]
    net = peer.trained()
    state = after(WITHIN[name], net.state_dict()) | {"head.weight": torch.ones(2, 2)}
    inferred = hierarch.infer(state, **peer.options)
    assert (inferred.layout, inferred.location.prefix) == (peer.library, WITHIN[name])
    model = hierarch.from_checkpoint(state, **peer.options)
    images = peer.images(peer.size)
    with torch.no_grad():
        found = model(images)
    found = list(found) if isinstance(found, tuple) else [found]
    for one, other in zip(found, outputs(net, images), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


# which was taken


def test_the_report_says_what_was_taken_and_what_else_there_is(tmp_path):
    model = hierarch.from_checkpoint(BACKBONE.state_dict())
    report = hierarch.load_weights(model, DINO)
    line = (
        "taken: key='teacher' prefix='backbone.' "
        "(also there: key='student' prefix='module.backbone.')"
    )
    assert line in text(report)
    console = Console(record=True, width=200)
    console.print(report)
    assert line in console.export_text()
    data = json.loads(text(report, "json"))
    assert (data["key"], data["prefix"]) == ("teacher", "backbone.")
    assert data["candidates"] == [{"key": "student", "prefix": "module.backbone."}]
    assert {"student", "optimizer", "head.mlp.0.weight"} <= {*data["ignored"]}
    assert "norm.weight,loaded," in text(report, "csv")


def test_a_decoder_beside_the_network_is_ignored_by_name():
    model = hierarch.from_checkpoint(SWIN_UNET)
    report = hierarch.load_weights(model, SWIN_UNET)
    foreign = {"swin_unet.layers_up.1.upsample.expand.weight", "swin_unet.concat_back_dim.1.weight"}
    assert foreign < set(report.ignored)
    assert not [name for name in report.ignored if name.startswith("swin_unet.layers.0.blocks.0.n")]


def test_what_was_taken_of_several_is_logged(caplog):
    hierarch.from_checkpoint(DINO)
    assert "taken: key='teacher'" in caplog.messages[-1]
    caplog.clear()
    hierarch.from_checkpoint({"teacher": DINO["teacher"]})
    assert not [message for message in caplog.messages if "taken" in message]


@pytest.mark.parametrize(
    ("content", "options", "net"),
    [
        (DINO, {"key": "student"}, OTHER_BACKBONE),
        (DINO, {"prefix": "module.backbone."}, OTHER_BACKBONE),
        (DINO, {"key": "teacher", "prefix": "backbone"}, BACKBONE),
        (MOCO_V3, {"prefix": "module.momentum_encoder."}, OTHER_BACKBONE),
        (MOCO_V3, {"prefix": "module.momentum_encoder"}, OTHER_BACKBONE),
        (FILES["timm.pth.tar"][0], {"key": "state_dict"}, OTHER),
        ({"a.b": {"c": NET.state_dict()}, "a": OTHER.state_dict()}, {"key": "a.b.c"}, NET),
        ({"a.b": {"c": NET.state_dict()}, "a": OTHER.state_dict()}, {"key": "a"}, OTHER),
        (NET.state_dict() | {"ema": OTHER.state_dict()}, {"key": "ema"}, OTHER),
        (NET.state_dict() | {"ema": OTHER.state_dict()}, {"key": ""}, NET),
        (NET.state_dict() | after("aux.", OTHER.state_dict()), {"prefix": ""}, NET),
        (NET.state_dict() | after("aux.", OTHER.state_dict()), {"prefix": "aux."}, OTHER),
        (NET.state_dict() | after("aux.", OTHER.state_dict()), {}, NET),
        ({"model": NET.state_dict(), "backup": NET.state_dict()}, {"key": "backup"}, NET),
    ],
)
def test_key_and_prefix_choose(tmp_path, content, options, net):
    assert_computes(hierarch.from_checkpoint(content, **options), net)
    model = perturb(hierarch.from_checkpoint(net.state_dict()), seed=9)
    hierarch.load_weights(model, content, **options)
    assert_computes(model, net)
    location = hierarch.infer(content, **options).location
    done = hierarch.convert_weights(content, tmp_path / "out.pth", layout="timm", **options)
    assert done.location == location
    assert_computes(hierarch.from_checkpoint(tmp_path / "out.pth"), net)


def test_two_keys_of_one_state_dict_are_one_network():
    state = NET.state_dict()
    both = {"model": state, "net": state}
    assert hierarch.infer(both).candidates == ()
    assert hierarch.infer(both, key="net").location == Location(("net",))


def test_the_command_line_chooses(tmp_path):
    path, out = written(tmp_path / "dino.pth", DINO), tmp_path / "out.pth"
    status, stdout, _ = run("convert", path, out, "--layout", "timm")
    assert status == 0
    assert "taken: key='teacher' prefix='backbone.' (also there: key='student'" in stdout
    assert_computes(hierarch.from_checkpoint(out), BACKBONE)
    options = ["--key", "student", "--prefix", "module.backbone.", "--format", "json"]
    status, stdout, _ = run("convert", path, out, "--layout", "timm", *options)
    data = json.loads(stdout)
    assert (status, data["key"], data["prefix"]) == (0, "student", "module.backbone.")
    assert_computes(hierarch.from_checkpoint(out), OTHER_BACKBONE)
    status, stdout, stderr = run("convert", path, out, "--key", "theirs")
    assert (status, stdout) == (2, "")
    assert "no network stands under key='theirs'; there is key='student'" in stderr
    status, stdout, _ = run("convert", path, out, "--format", "csv")
    assert stdout.splitlines()[1].startswith("timm,hierarch,teacher,backbone.,1,")


# none, or no rule


def refused(source, message, **options):
    model = hierarch.from_checkpoint(NET.state_dict())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        hierarch.load_weights(model, source, **options)
    assert re.search(message, str(caught.value)), str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1500
    assert all(torch.equal(tensor, before[n]) for n, tensor in model.state_dict().items())


SIAMESE = after("left.", NET.state_dict()) | after("right.", OTHER.state_dict())


@pytest.mark.parametrize(
    ("content", "places"),
    [
        (SIAMESE, "prefix='left.' and prefix='right.'"),
        ({"a": NET.state_dict(), "b": OTHER.state_dict()}, "key='a' and key='b'"),
        ({"model": NET.state_dict(), "teacher": OTHER.state_dict()}, "key='model' and key='tea"),
        (
            after("teacher.", NET.state_dict())
            | after("student.", OTHER.state_dict())
            | after("assistant.", THIRD.state_dict()),
            "prefix='teacher.' and prefix='student.' and prefix='assistant.'",
        ),
    ],
    ids=["prefixes", "keys", "no rule between groups", "three"],
)
def test_networks_that_no_rule_prefers_are_named(content, places):
    refused(content, f"several networks fit: {places}.*; choose one by key= or prefix=")


def test_a_siamese_network_is_read_by_prefix():
    assert_computes(hierarch.from_checkpoint(SIAMESE, prefix="right."), OTHER)


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({"key": "studnet"}, "key='studnet'"),
        ({"key": "optimizer"}, "key='optimizer'"),
        ({"key": ""}, "key=''"),
        ({"prefix": ""}, "prefix=''"),
        ({"prefix": "backbone.layers."}, "prefix='backbone.layers.'"),
        ({"key": "teacher", "prefix": "module."}, "key='teacher' prefix='module.'"),
        ({"key": "x\x1b\n" * 500}, "key='x"),
    ],
)
def test_a_wrong_key_or_prefix_names_what_is_there(options, asked):
    there = "there is key='student' prefix='module.backbone.' and key='teacher' prefix='backbone.'"
    refused(DINO, f"no network stands under {asked}.*; {there}", **options)


def test_a_key_of_a_file_without_a_network():
    refused({"model": {"weight": torch.ones(1)}}, r"which layout\?.*seen 1 \(weight\)", key="model")
    refused({"model": {"weight": torch.ones(1)}}, "not a state dict", key="none")


def test_hostile_names_stay_out_of_what_is_shown():
    odd = "\x1b[31m\n[/bold]" * 30
    content = {odd: after(f"{odd}.", NET.state_dict()), "b": OTHER.state_dict()}
    refused(content, "several networks fit")
    report = hierarch.load_weights(hierarch.from_checkpoint(content, key="b"), content, key="b")
    shown = text(report)
    assert "\x1b" not in shown
    assert all(map(str.isprintable, shown.splitlines()))


# files of many names: the work grows as the file does


def calls(read, content):
    """How many calls, of Python and of C, reading a checkpoint takes."""
    count = 0

    def profile(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        read(Checkpoint(content))
    except WeightsError:
        pass
    finally:
        sys.setprofile(None)
    return count


def aliases(n, state):
    return {str(i): state for i in range(n)}


T = torch.ones(1)
STEM = "patch_embed.proj.weight"
HOSTILE = {
    "plain names": lambda n: {f"layers.0.blocks.{i}.weight": T for i in range(n)},
    "deep names": lambda n: {f"{'a.' * 20}{i}.{STEM}": T for i in range(n)},
    "a stem at every depth": lambda n: {f"{'a.' * (i % 9)}{i}.{STEM}": T for i in range(n)},
    "nested prefixes": lambda n: {
        **{f"{'a.' * depth}{STEM}": T for depth in range(9)},
        **{f"{'a.' * 9}layers.0.blocks.0.{i}": T for i in range(n)},
    },
    "stems": lambda n: {f"net{i}.{STEM}": T for i in range(n)},
    "networks": lambda n: {
        f"net{i}.{name}": T
        for i in range(n // 3)
        for name in (STEM, "layers.0.blocks.0.norm1.weight", "head.weight")
    },
    "state dicts": lambda n: {str(i): {STEM: T} for i in range(n)},
    "one state dict under many keys": lambda n: aliases(n, {str(i): T for i in range(n)}),
    "keys in keys": lambda n: {str(i): {"a": {"b": {"c": {"d": T}}}} for i in range(n)},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_the_work_grows_as_the_file_does(kind):
    calls(recognize, HOSTILE[kind](10))  # imports
    few, more = (calls(recognize, HOSTILE[kind](n)) for n in (200, 800))
    assert few < more < 4.5 * few


def test_the_count_shows_work_that_grows_faster():
    def read(checkpoint):
        for name in checkpoint.entries:
            [other for other in checkpoint.entries if other.startswith(name)]

    few, more = (calls(read, HOSTILE["stems"](n)) for n in (200, 800))
    assert more > 10 * few


def test_more_stems_than_any_file_has_are_refused():
    content = {f"net{i}.{STEM}": T for i in range(MAX_STEMS + 1)}
    refused(content, f"more than {MAX_STEMS} networks may stand in the checkpoint; choose one")
    inferred = hierarch.infer({"many": content, "net": NET.state_dict()}, key="net")
    assert inferred.location == Location(("net",))


def test_a_mapping_that_holds_itself_is_read_once():
    content = {"model": NET.state_dict()}
    content["self"] = content
    assert hierarch.infer(content).location.key == "model"
