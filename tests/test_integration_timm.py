"""hierarch's networks as models of timm: what timm asks of a model, and that nothing is changed."""

from __future__ import annotations

import copy
import importlib
import os
import pickle
import re
import sys

import pytest
import timm
import torch
from helpers import assert_same, noise, perturb, tiny, tiny_vit
from timm.models import SwinTransformer, group_parameters, save_for_hf
from timm.optim import param_groups_layer_decay

import hierarch
import hierarch.integrations.timm

SPEC = tiny(input_size=64, head={"num_classes": 5}, drop_path_rate=0.3)
POOL_FIRST = SPEC | {"mixer": "pooling", "head": {"num_classes": 5, "pool_first": True}}


def created(spec=SPEC, **arguments):
    return timm.create_model("hierarch_spec", spec=spec, **arguments)


@pytest.fixture(scope="module")
def model():
    """Not to be changed."""
    return perturb(created())


@pytest.fixture(scope="module")
def images():
    return noise(2, 3, 64, 64)


def alike(model, **overrides):
    """What `hierarch.build` makes of the same spec, with the same weights."""
    built = hierarch.build(model.spec, **overrides)
    built.load_state_dict(model.state_dict(), strict="head" not in overrides)
    return built.eval()


# what is registered


def test_every_preset_is_a_model_named_by_its_last_part():
    presets = hierarch.presets(axes=2)
    names = {preset.rpartition("/")[2] for preset in presets}
    assert len(names) == len(presets)
    assert {*timm.list_models("hierarch_*")} == {f"hierarch_{name}" for name in names | {"spec"}}


def test_a_configuration_says_what_the_spec_does():
    for ours, theirs in [
        ("hierarch_swin_tiny", "swin_tiny_patch4_window7_224"),
        ("hierarch_convnext_tiny", "convnext_tiny"),
        ("hierarch_swin_large_384", "swin_large_patch4_window12_384"),
    ]:
        found, wanted = map(timm.models.get_pretrained_cfg, (ours, theirs))
        for name in ("input_size", "num_classes", "pool_size", "mean", "std", "interpolation"):
            assert getattr(found, name) == getattr(wanted, name), name


def test_a_preset_is_built_as_by_hierarch(images):
    stages = [{"dim": 8, "depth": 1}, {"dim": 16, "depth": 1}]
    found = timm.create_model("hierarch_caformer_s18", stages=stages, num_classes=7).eval()
    assert found.pretrained_cfg["architecture"] == "hierarch_caformer_s18"
    assert found.default_cfg["pool_size"] == (7, 7)  # the preset's own
    wanted = hierarch.load("caformer_s18").to_data()
    wanted |= {"stages": stages, "head": wanted["head"] | {"num_classes": 7}}
    assert found.spec == hierarch.load(wanted)
    assert torch.equal(found(images), alike(found)(images))


def test_a_missing_timm_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.delitem(sys.modules, "hierarch.integrations.timm")
    with pytest.raises(
        hierarch.HierarchError, match=r"timm: pip install 'hierarch-vision\[timm\]'"
    ):
        importlib.import_module("hierarch.integrations.timm")


# how a model is created


def test_arguments_have_timms_meaning(tmp_path):
    hierarch.dump(hierarch.load(SPEC), tmp_path / "net.yaml")
    found = created(
        str(tmp_path / "net.yaml"),
        num_classes=10,
        in_chans=1,
        img_size=(32, 48),
        drop_rate=0.1,
        proj_drop_rate=0.2,
        drop_path_rate=0.4,
        mlp_ratio=3,
    )
    stem = {"type": "patch_embed", "in_chans": 1}
    wanted = {"stem": stem, "head": {"num_classes": 10, "drop_rate": 0.1}, "input_size": [32, 48]}
    wanted |= {"drop_rate": 0.2, "drop_path_rate": 0.4, "mlp_ratio": 3}
    assert found.spec == hierarch.load(SPEC | wanted)
    assert (found.num_classes, found.in_chans, found.global_pool) == (10, 1, "avg")
    assert found(noise(1, 1, 32, 48)).shape == (1, 10)


def test_mistakes_are_heard_of():
    with pytest.raises(TypeError, match="unexpected keyword argument 'mixr'"):
        created(mixr="pooling")
    with pytest.raises(hierarch.SpecError, match="num_classes"):
        created(num_classes=-1)
    with pytest.raises(ValueError, match="global_pool='max' should be 'avg', or ''"):
        created(global_pool="max")
    with pytest.raises(RuntimeError, match="No pretrained weights exist for hierarch_spec"):
        created(pretrained=True)


def test_a_spec_without_a_head_gives_mean_features_and_its_own_maps():
    spec = {name: value for name, value in SPEC.items() if name != "head"} | {"out_indices": [0, 2]}
    found = created(spec)
    assert found.num_classes == 0
    assert found(noise(1, 3, 32, 32)).shape == (1, 24)
    assert created(spec, features_only=True).feature_info.channels() == [8, 24]


# it computes the same


def test_the_outputs_and_the_gradients_are_those_of_a_built_network(model, images):
    one, other = copy.deepcopy(model), alike(model)
    assert torch.equal(one(images), other(images))
    for network in (one, other):
        network(images).square().sum().backward()
    for (name, found), wanted in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(found.grad, wanted.grad), name
    with torch.no_grad():
        assert torch.equal(model(images), other(images))


def test_it_is_pickled_and_copied_whole(model, images):
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again(images), model(images))
    assert again.pretrained_cfg == model.pretrained_cfg


@pytest.mark.parametrize("spec", [SPEC, POOL_FIRST])
def test_without_pooling_the_head_is_applied_to_each_token(spec, images):
    found = perturb(created(spec, global_pool=""))
    logits = found(images)
    assert logits.shape == (2, 4, 4, 5)
    features = found.forward_features(images)
    assert found.forward_head(features, pre_logits=True).shape == (2, 4, 4, 24)
    one = found.forward_head(features[:, 1:2, 2:3])
    assert_same(logits[:, 1:2, 2:3], one)
    found.reset_classifier(5, "avg")
    found.head.fc.load_state_dict(perturb(found).head.fc.state_dict())
    assert torch.equal(found(images), alike(found)(images))


@pytest.mark.parametrize("pool", ["class_token", "mean"])
def test_without_pooling_tokens_outside_of_the_grid_are_classified_too(pool, images):
    found = perturb(created(tiny_vit(head={"num_classes": 3, "pool": pool}), global_pool=""))
    features, head = found.forward_features(images), found.head
    assert features.shape == (2, 1, 67, 8)
    logits = head.fc(features)
    if pool == "class_token":
        logits = (logits + head.fc_distilled(features)) / 2
    assert_same(found(images), logits)


def test_a_classifier_is_replaced(images):
    found = created().eval()
    features = found.forward_features(images)
    pre_logits = found.forward_head(features, pre_logits=True)
    assert pre_logits.shape[1] == found.head_hidden_size == found.num_features == 24
    found.reset_classifier(0)
    assert found.num_classes == found.spec.head.num_classes == 0
    assert torch.equal(found(images), pre_logits)
    found.reset_classifier(0, "")
    assert torch.equal(found(images), features)
    found.reset_classifier(3, "avg")
    assert found.get_classifier().out_features == found.num_classes == 3
    assert found(images).shape == (2, 3)


# maps


@pytest.mark.parametrize("spec", [SPEC, POOL_FIRST])
def test_features_are_the_maps_of_a_built_network(spec, images):
    indices = (0, 1)
    found = perturb(created(spec, features_only=True, out_indices=indices))
    wanted = alike(found.model, head=None, output_norm=False, out_indices=indices)
    for one, other in zip(found(images), wanted(images), strict=True):
        assert torch.equal(one, other)
    assert found.feature_info.channels() == [8, 16]
    assert found.feature_info.reduction() == [4, 8]
    kept = {name for name, _ in found.model.named_parameters()}
    assert not any(name.startswith(("stages.2", "norm", "head")) for name in kept)
    # each block keeps the rate that it has in the whole network
    rates = [block.drop_path1.rate for stage in found.model.stages for block in stage.blocks]
    whole = [rate for stage in hierarch.load(spec).plan() for rate in stage.drop_paths]
    assert rates == pytest.approx(whole[:5])
    planned = [rate for stage in found.model.spec.plan() for rate in stage.drop_paths]
    assert planned == pytest.approx(rates)


@pytest.mark.parametrize(
    ("spec", "indices"), [(SPEC, (0, 2)), (tiny_vit(), (0,))], ids=["windows", "extra tokens"]
)
def test_features_by_hooks_and_by_torch_fx_are_the_same(spec, indices, images):
    model = perturb(created(spec))
    maps = model.maps(images, indices)
    for kind in ("hook", "fx"):
        found = created(spec, features_only=True, out_indices=indices, feature_cls=kind)
        inner = model.state_dict()
        state = {
            name: inner[re.sub("^(body|graph_module)\\.", "", name)] for name in found.state_dict()
        }
        found.load_state_dict(state)
        for one, i in zip(found.eval()(images), indices, strict=True):
            assert torch.equal(one, maps[i])


def test_rectangular_patches_have_one_stride():
    spec = SPEC | {"stem": {"type": "patch_embed", "patch_size": [4, 8]}}
    assert created(spec, features_only=True).feature_info.reduction() == [8, 16, 32]


def test_layers_are_pruned_as_in_timm(images):
    found = perturb(created())
    _, maps = found.forward_intermediates(images)
    assert found.prune_intermediate_layers([0, -1], prune_norm=True) == [0, 2]
    assert torch.equal(found(images).permute(0, 3, 1, 2), maps[2])
    assert found.prune_intermediate_layers([-2]) == [1]
    assert found.num_features == found.head_hidden_size == 16
    assert torch.equal(found(images).permute(0, 3, 1, 2), maps[1])
    found.reset_classifier(3, "avg")
    assert found(images).shape == (2, 3)
    assert found.spec.stages == hierarch.load(SPEC).stages[:2]


def test_layers_of_stages_without_blocks_are_pruned(images):
    for indices, depths, rates in ([0], (1, 0), [0.0]), ([1], (2, 0, 1), [0.0, 0.15]):
        stages = [{"dim": 8 * (i + 1), "depth": depth} for i, depth in enumerate(depths)]
        found = perturb(created(SPEC | {"stages": stages}))
        maps = found.forward_intermediates(images, indices, intermediates_only=True)
        found.prune_intermediate_layers(indices)
        assert_same(found(images).permute(0, 3, 1, 2), maps[0])
        planned = [rate for stage in found.spec.plan() for rate in stage.drop_paths]
        assert planned == pytest.approx(rates)


def test_the_image_size_is_nominal(model, images):
    found = copy.deepcopy(model)
    found.set_input_size((96, 64))
    assert found.spec.input_size == (96, 64)
    assert timm.models.get_model_input_config(found)["input_size"] == (3, 96, 64)
    assert torch.equal(found(images), model(images))


# training


@pytest.fixture(scope="module")
def swins():
    """The same network here and in timm, and timm's name for each of our parameters."""
    arguments = {"embed_dim": 8, "depths": (2, 3), "num_heads": (2, 4), "window_size": 4}
    theirs = SwinTransformer(img_size=64, num_classes=5, **arguments)
    stages = [{"dim": 8, "depth": 2}, {"dim": 16, "depth": 3}]
    ours = created(SPEC | {"stages": stages, "mlp_ratio": 4})
    names = {}
    for name, _ in ours.named_parameters():
        renamed = name.replace("stem.", "patch_embed.").replace("stages.", "layers.")
        names[name] = renamed.replace(".mixer.", ".attn.")
    assert {*names.values()} == {name for name, _ in theirs.named_parameters()}
    return ours, theirs, names


@pytest.mark.parametrize("coarse", [False, True])
def test_layers_decay_as_timms(swins, coarse):
    ours, theirs, names = swins
    found, wanted = (
        group_parameters(network, network.group_matcher(coarse), reverse=True)
        for network in (ours, theirs)
    )
    assert {names[name]: depth for name, depth in found.items()} == wanted
    assert {names[name] for name in ours.no_weight_decay()} == theirs.no_weight_decay()


def test_an_optimizer_of_timms_has_a_rate_for_each_layer(swins):
    ours, theirs, _ = swins
    found, wanted = (
        param_groups_layer_decay(network, no_weight_decay_list=network.no_weight_decay())
        for network in (ours, theirs)
    )
    assert [g["lr_scale"] for g in found] == [g["lr_scale"] for g in wanted]
    assert [g["weight_decay"] for g in found] == [g["weight_decay"] for g in wanted]
    assert [len(g["params"]) for g in found] == [len(g["params"]) for g in wanted]


def test_blocks_are_recomputed(model, images):
    one, other = copy.deepcopy(model).train(), copy.deepcopy(model).train()
    one.set_grad_checkpointing()
    for network in (one, other):
        torch.manual_seed(0)
        network(images).sum().backward()
    for found, wanted in zip(one.parameters(), other.parameters(), strict=True):
        assert_same(found.grad, wanted.grad)


# weights


@pytest.mark.parametrize("layout", ["hierarch", "timm", "official", "torchvision", "huggingface"])
def test_a_checkpoint_of_any_layout_is_loaded(tmp_path, model, images, layout):
    hierarch.export_weights(alike(model), tmp_path / "net.pth", layout=layout)
    found = created(checkpoint_path=str(tmp_path / "net.pth")).eval()
    assert torch.equal(found(images), model(images))


def test_a_checkpoint_of_training_code_is_loaded_or_refused(tmp_path, model, images):
    state = hierarch.export_weights(alike(model), layout="timm")
    inner = {"teacher": {f"backbone.{name}": value for name, value in state.items()}}
    torch.save(inner, tmp_path / "net.pth")
    assert torch.equal(
        created(checkpoint_path=str(tmp_path / "net.pth")).eval()(images), model(images)
    )
    with pytest.raises(hierarch.WeightsError, match="as many classes"):
        created(checkpoint_path=str(tmp_path / "net.pth"), num_classes=3)
    del state["norm.bias"]
    with pytest.raises(hierarch.WeightsError, match=r"missing 1 \(norm.bias\)"):
        created().load_state_dict(state)


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_runs_no_code(tmp_path):
    torch.save({"state_dict": Hostile(tmp_path / "made")}, tmp_path / "net.pth")
    with pytest.raises(RuntimeError, match="weights_only=True blocked loading"):
        created(checkpoint_path=str(tmp_path / "net.pth"))
    assert not (tmp_path / "made").exists()


def test_pretrained_weights_of_a_file_are_adapted(tmp_path, model):
    hierarch.export_weights(alike(model), tmp_path / "net.pth", layout="timm")
    source = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(tmp_path / "net.pth")}}
    found = created(**source, features_only=True, out_indices=[1])
    own = found.model.state_dict()
    assert all(torch.equal(own[name], model.state_dict()[name]) for name in own)
    other = created(**source, num_classes=3, in_chans=1)
    summed = model.state_dict()["stem.proj.weight"].sum(dim=1, keepdim=True)
    assert torch.equal(other.state_dict()["stem.proj.weight"], summed)
    assert other.get_classifier().out_features == 3


def test_a_folder_for_the_hub_makes_the_same_network(tmp_path, images):
    model = perturb(created(hierarch.load(SPEC).to_data(), num_classes=3))
    save_for_hf(model, tmp_path)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert again.spec == model.spec
    assert torch.equal(again(images), model(images))


# programs


@pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated")
def test_a_script_serves_all_sizes(model):
    script = torch.jit.script(model)
    with torch.no_grad():
        for size in [(2, 3, 64, 64), (1, 3, 40, 97)]:
            assert_same(script(noise(*size)), model(noise(*size)))
