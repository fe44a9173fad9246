"""Configs of Microsoft's Swin and of OpenMMLab, imported as specs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import timm
import torch
from configs import (
    CLASSIFIER,
    MASK_RCNN,
    MICROSOFT,
    OPENMMLAB,
    SWIN_T_1X,
    UPERNET,
    imported,
    refused,
    save,
)
from yacs.config import CfgNode

import hierarch
from hierarch.importing import microsoft, openmmlab
from hierarch.spec.params import params


def alike(spec, preset, **fields):
    """Whether a spec is a preset with other values of some fields, its name apart."""
    return spec == hierarch.load({**dict(hierarch.load(preset)), **fields, "name": spec.name})


# Microsoft's


@pytest.mark.parametrize("name", MICROSOFT)
def test_every_published_config_of_microsofts_is_imported(tmp_path, name):
    config = MICROSOFT[name]
    found = imported(tmp_path, config.text(name), f"{name}.yaml")
    assert (found.preset, found.differences) == (config.preset, config.but)
    assert found.spec.name == name
    if not config.but:
        assert alike(found.spec, config.preset)
        assert f"# equal to the preset {config.preset}\n" in found.yaml()
    assert hierarch.loads(found.yaml()) == found.spec
    assert hierarch.load({**dict(found.spec), "input_size": config.size or 224}) == found.spec


@pytest.mark.parametrize(
    ("name", "peer"),
    {
        "swin_base_patch4_window7_224_22k": "swin_base_patch4_window7_224",
        "swin_large_patch4_window7_224_22k": "swin_large_patch4_window7_224",
        "swinv2_base_patch4_window12_192_22k": "swinv2_base_window12_192",
        "swinv2_large_patch4_window12_192_22k": "swinv2_large_window12_192",
    }.items(),
)
def test_parameters_are_those_of_timms_networks(tmp_path, name, peer):
    spec = imported(tmp_path, MICROSOFT[name].text(name), f"{name}.yaml").spec
    with torch.device("meta"):
        theirs = timm.create_model(peer, num_classes=21_841)
    assert params(spec) == sum(weight.numel() for weight in theirs.parameters())


def test_the_defaults_are_those_of_config_py(tmp_path):
    found = imported(tmp_path, "MODEL: {NAME: swin}\n", "swin.yaml")
    assert alike(found.spec, "swin_tiny", drop_path_rate=0.1)
    assert found.left_out == ()


def test_windows_shrink_to_small_maps_as_when_the_published_code_builds_them(tmp_path):
    text = "DATA: {IMG_SIZE: 128}\nMODEL: {NAME: small, SWIN: {WINDOW_SIZE: 8}}\n"
    spec = imported(tmp_path, text, "small.yaml").spec
    assert [stage.mixers[0].window_size for stage in spec.plan()] == [8, 8, 8, 4]
    theirs = timm.create_model("swin_tiny_patch4_window7_224", img_size=128, window_size=8)
    assert params(spec) == sum(weight.numel() for weight in theirs.parameters())


def test_windows_that_do_not_divide_maps_are_told(tmp_path):
    text = "DATA: {IMG_SIZE: 256}\nMODEL: {NAME: odd}\n"
    notes = imported(tmp_path, text, "odd.yaml").notes
    assert notes[0].startswith("stage 0: a map of 64 is padded to windows of 7")


def test_every_field_of_the_network_is_imported(tmp_path):
    text = """
DATA: {IMG_SIZE: 32}
MODEL:
  TYPE: swin
  NAME: other
  NUM_CLASSES: 5
  DROP_RATE: 0.1
  SWIN: {PATCH_SIZE: 2, IN_CHANS: 1, EMBED_DIM: 8, DEPTHS: "(1, 2)", NUM_HEADS: [2, 2],
         WINDOW_SIZE: 4, MLP_RATIO: 2.5, QKV_BIAS: False, QK_SCALE: None, APE: True,
         PATCH_NORM: False}
"""
    mixers = [
        {"type": "window_attention", "head_dim": n, "window_size": 4, "qkv_bias": False}
        for n in (4, 8)
    ]
    assert imported(tmp_path, text, "other.yaml").spec == hierarch.load(
        {
            "name": "other",
            "input_size": 32,
            "stem": {"type": "patch_embed", "patch_size": 2, "in_chans": 1, "norm": None},
            "mixer": [mixers[0], mixers[0] | {"shift_size": 2}],
            "stages": [
                {"dim": 8, "depth": 1},
                {"dim": 16, "depth": 2, "mixer": [mixers[1], mixers[1] | {"shift_size": 2}]},
            ],
            "mlp_ratio": 2.5,
            "drop_rate": 0.1,
            "drop_path_rate": 0.1,
            "position_embedding": {"type": "absolute", "grid": [16, 16]},
            "head": {"num_classes": 5},
        }
    )


def test_base_files_are_merged_in_order(tmp_path):
    files = {
        "base/a.yaml": "MODEL: {NAME: a, DROP_RATE: 0.1, SWIN: {EMBED_DIM: 48, DEPTHS: [1, 1]}}",
        "base/b.yaml": "MODEL: {NAME: b, SWIN: {NUM_HEADS: [3, 3]}}",
        "c.yaml": "BASE: [base/a.yaml, base/b.yaml]\nMODEL: {SWIN: {WINDOW_SIZE: 8}}\n",
    }
    spec = hierarch.import_config(save(tmp_path, files)).spec
    assert (spec.name, spec.drop_rate, spec.stages[0].dim) == ("b", 0.1, 48)
    assert [stage.mixers[0].window_size for stage in spec.plan()] == [8, 8]
    swin = {"EMBED_DIM": 96, "DEPTHS": [2, 2], "NUM_HEADS": [6, 6], "WINDOW_SIZE": 7}
    merged = CfgNode({"BASE": [""], "MODEL": {"NAME": "", "DROP_RATE": 0.0, "SWIN": swin}})
    for name in files:
        merged.merge_from_file(str(tmp_path / name))
    theirs = merged.MODEL
    assert (spec.name, spec.drop_rate) == (theirs.NAME, theirs.DROP_RATE)
    assert (spec.stages[0].dim, spec.mixer[0].window_size) == (
        theirs.SWIN.EMBED_DIM,
        theirs.SWIN.WINDOW_SIZE,
    )


# OpenMMLab's


@pytest.mark.parametrize(
    ("name", "preset", "fields"),
    [
        ("mask-rcnn_swin-t-p4-w7_fpn_1x_coco", "swin_tiny", {}),
        ("mask-rcnn_swin-s-p4-w7_fpn_3x_coco", "swin_small", {"drop_path_rate": 0.2}),
        ("mask2former_swin-t", "swin_tiny", {"drop_path_rate": 0.3}),
        ("upernet_swin", "swin_tiny", {"drop_path_rate": 0.3}),
        ("mask_rcnn_swin_fpn", "swin_tiny", {"drop_path_rate": 0.2}),
    ],
)
def test_backbones_of_detectors_have_features_of_all_stages(tmp_path, name, preset, fields):
    save(tmp_path, OPENMMLAB)
    found = hierarch.import_config(tmp_path / "swin" / f"{name}.py")
    mixer = [{**spec.to_data(), "small_map": "pad_shift"} for spec in hierarch.load(preset).mixer]
    assert alike(found.spec, preset, mixer=mixer, head=None, **fields)
    assert found.spec.outputs == (0, 1, 2, 3)
    assert found.spec.name == name
    assert hierarch.loads(found.yaml()) == found.spec


def test_a_detectors_backbone_has_the_weights_of_mmdetections_layout(tmp_path):
    """Its names, as they are in mmdetection's checkpoints, find the same spec."""
    save(tmp_path, OPENMMLAB)
    spec = hierarch.import_config(tmp_path / "swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py").spec
    state = hierarch.export_weights(hierarch.build(spec), layout="mmdetection")
    same = {"name": spec.name, "drop_path_rate": 0.2, "out_indices": None}
    assert hierarch.load({**dict(hierarch.infer(state).spec), **same}) == spec


def test_classifiers_have_their_head(tmp_path):
    save(tmp_path, OPENMMLAB)
    tiny = hierarch.import_config(tmp_path / "swin/swin-tiny_16xb64_in1k.py")
    assert (tiny.preset, tiny.differences) == ("swin_tiny", ())
    assert alike(tiny.spec, "swin_tiny")
    assert "model.head.loss" in tiny.left_out
    assert "model.train_cfg" in tiny.left_out
    cub = hierarch.import_config(tmp_path / "swin/swin_large_8xb8_cub_384px.py")
    assert alike(cub.spec, "swin_large_384", drop_path_rate=0.1, head={"num_classes": 200})


def test_what_is_left_out_is_named(tmp_path):
    save(tmp_path, OPENMMLAB)
    found = hierarch.import_config(tmp_path / "swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py")
    named = {"model.neck", "model.roi_head", "model.backbone.init_cfg", "optim_wrapper"}
    assert named < {*found.left_out}
    assert not {"model", "model.backbone", "model.backbone.depths"} & {*found.left_out}
    for name in named:
        assert name in found.yaml().split("\nname:")[0]


@pytest.mark.parametrize(
    ("backbone", "preset", "fields"),
    [
        ("type='SwinTransformer', arch='t', drop_path_rate=0.2", "swin_tiny", {}),
        (
            "type='mmpretrain.SwinTransformer', arch='base', img_size=384, drop_path_rate=0.5,"
            "stage_cfgs=dict(block_cfgs=dict(window_size=12))",
            "swin_base_384",
            {},
        ),
        ("type='SwinTransformer', arch='small', drop_path_rate=0.3, drop_rate=0.1", "swin_small",
         {"drop_rate": 0.1, "stages": [
             {"dim": dim, "depth": depth, "drop_rate": 0.0}
             for dim, depth in zip((96, 192, 384, 768), (2, 2, 18, 2), strict=True)]}),
        (
            "type='SwinTransformer', drop_path_rate=0.2,"
            "arch=dict(embed_dims=96, depths=[2] + [2, 6, 2], num_heads=[3, 6, 12, 24])",
            "swin_tiny",
            {},
        ),
    ],
)  # fmt: skip
def test_mmpretrains_arguments(tmp_path, backbone, preset, fields):
    text = CLASSIFIER.replace(
        "type='SwinTransformer', arch='tiny', img_size=224, drop_path_rate=0.2", backbone
    )
    assert alike(imported(tmp_path, text).spec, preset, **fields)


def test_swin_v2_of_mmpretrain_has_a_window_per_stage(tmp_path):
    text = CLASSIFIER.replace(
        "type='SwinTransformer', arch='tiny', img_size=224",
        "type='SwinTransformerV2', arch='base', img_size=256, window_size=[16, 16, 16, 8],"
        "pretrained_window_sizes=[12, 12, 12, 6]",
    )
    found = imported(tmp_path, text)
    assert found.preset == "swin_v2_base_window12to16_192to256"
    assert found.differences == (
        "all stages: small_map clamp_both → pad",
        "stage 3: window_size 16 → 8; shift_size 0 / 8 → 0 / 4",
    )
    preset = hierarch.load(found.preset)
    assert params(found.spec) == params(preset)
    mixers = [[mixer.fit(size) for mixer in s.mixers] for s, size in plan_and_grids(found.spec)]
    assert mixers == [[mixer.fit(size) for mixer in s.mixers] for s, size in plan_and_grids(preset)]


def plan_and_grids(spec):
    return [(stage, (64 >> stage.index, 64 >> stage.index)) for stage in spec.plan()]


def test_json_and_yaml_are_read_as_python_is(tmp_path):
    backbone = {"type": "SwinTransformer", "embed_dims": 96, "drop_path_rate": 0.2}
    data = {"model": {"type": "MaskRCNN", "backbone": backbone}}
    found = imported(tmp_path, json.dumps(data, indent=2), "net.json").spec
    assert found == imported(tmp_path, json.dumps(data), "net.yaml").spec
    python = f"model = {data['model']!r}\n"
    assert found == imported(tmp_path, python, "net.py").spec


def test_a_missing_base_file_matters_only_if_something_comes_from_it(tmp_path):
    whole = imported(tmp_path, SWIN_T_1X, "alone/swin.py")  # its _base_ files are not there
    save(tmp_path, OPENMMLAB)
    assert alike(
        hierarch.import_config(tmp_path / "swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py").spec,
        "swin_tiny",
        **{name: value for name, value in dict(whole.spec).items() if name != "name"},
    )
    text = "_base_ = './gone.py'\n" + CLASSIFIER.replace("arch='tiny', ", "")
    assert refused(tmp_path, text) == (
        "config.py:1:10: model.backbone.arch: may come from './gone.py', which is not there; "
        "put the file there"
    )


# mistakes, and what a spec cannot say


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MODEL: {TYPE: swin_moe}", "1:15: MODEL.TYPE: should be one of swin, swinv2, swin_mlp, "),
        ("MODEL:\n  SWIN: {WINDOW: 7}", "2:18: MODEL.SWIN.WINDOW: unknown key 'WINDOW', did you "),
        ("MODEL:\n  DROPPATH: 1", "2:13: MODEL.DROPPATH: unknown key 'DROPPATH', did you mean "),
        ("MODEL: {SWIN: {QK_SCALE: 0.1}}", "1:26: MODEL.SWIN.QK_SCALE: should be null: a spec "),
        ("MODEL: {SWIN: {EMBED_DIM: 96.0}}", "MODEL.SWIN.EMBED_DIM: should be an integer from 1"),
        ("MODEL: {SWIN: {EMBED_DIM: 100}}", "MODEL.SWIN.NUM_HEADS: 3 heads do not divide a"),
        ("MODEL: {SWIN: {NUM_HEADS: [3, 6]}}", "should be a list of 4 integers, got a list of 2"),
        ("MODEL: {SWIN: {NUM_HEADS: [3, 6, 0, 24]}}", "0 heads do not divide a width of 384"),
        ("MODEL: {SWIN: {APE: 1}}", "1:21: MODEL.SWIN.APE: should be true or false, got 1"),
        ("MODEL: {SWIN: [1]}", "1:15: MODEL.SWIN: should be a mapping, got a list of 1"),
        ("MODEL: {DROP_RATE: x}", "1:20: MODEL.DROP_RATE: should be a number, got 'x'"),
        ("MODEL: {DROP_RATE: 3}", "no spec describes its network: drop_rate: "),
        ("MODEL: {SWIN: {WINDOW_SIZE: 99}}\nDATA: {IMG_SIZE: 3168}", "no spec describes its "),
        ("DATA: {DATASET: mine}", "1:17: DATA.DATASET: does not tell the classes, got 'mine': add"),
        ("MODEL: 3", "1:8: MODEL: should be a mapping, got 3"),
        ("BASE: [3]", "1:8: the files that it inherits from should be paths, in text"),
        ("BASE: ['mmdet::x.py']", "inherits from 'mmdet::x.py'; name a file"),
        ("BASE: ['https://example.org/x.yaml']", "name a file, .yaml, .yml, .json, .py, by its "),
        ("stages: []", "a config is a mapping with at least `MODEL` (Microsoft's) or `model` (Op"),
        ("- 1", "a config is a mapping"),
        ("MODEL: {NAME: {{x}}", "not YAML"),
    ],
)  # fmt: skip
def test_mistakes_in_microsofts_configs(tmp_path, text, message):
    found = refused(tmp_path, text, "net.yaml")
    assert found.startswith("net.yaml:")
    assert message in found


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("type='SwinTransformer'", "type='ResNet'", "model.backbone.type: should be Swin"),
        ("window_size=7,", "window_size=(7, 7),", "13:21: model.backbone.window_size: should be"),
        ("window_size=7", "windowsize=7", "model.backbone.windowsize: unknown key 'windowsize'"),
        ("strides=(4, 2, 2, 2)", "strides=(4, 2, 2, 1)", "model.backbone.strides: should be [4"),
        ("qk_scale=None", "qk_scale=0.1", "model.backbone.qk_scale: should be None: a spec has no"),
        ("attn_drop_rate=0.", "attn_drop_rate=.1", "should be 0: a spec has no dropout of"),
        ("patch_norm=True", "patch_norm=False", "should be True: a spec's patch merging"),
        ("dict(type='GELU')", "dict(type='SiLU')", "model.backbone.act_cfg.type: should be GELU"),
        ("type='LN', req", "type='BN', req", "4:31: model.backbone.norm_cfg.type: should be LN"),
        ("(0, 1, 2, 3)", "(0, 4)", "out_indices: should be a list of stages, from 0 to 3"),
        ("num_heads=[3,", "num_heads=[5,", "model.backbone.num_heads: 5 heads do not divide a wid"),
        ("backbone=dict(", "student=dict(", "model: has no backbone; it has decode_head, pretrain"),
        ("model = ", "module = ", "a config is a mapping with at least `MODEL` (Microsoft's) or"),
        ("model = ", "model = 2 * ", "5:9: model: comes from an operation on what is no number"),
        ("model = ", "model == ", "a config is a mapping with at least"),
        ("model = dict(", "model = dict((", "is not Python: "),
    ],
)  # fmt: skip
def test_mistakes_in_openmmlabs_configs(tmp_path, old, new, message):
    assert old in UPERNET
    found = refused(tmp_path, UPERNET.replace(old, new))
    assert found.startswith("config.py:")
    assert message in found


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("arch='tiny'", "arch='huge'", "model.backbone.arch: should be one of tiny, small"),
        ("img_size=224", "patch_cfg=dict(padding=1)", "patch_cfg: is more than a spec can say"),
        ("img_size=224", "norm_cfg=dict(type='LN', eps=1e-6)", "norm_cfg: should be 1e-5, as"),
        ("img_size=224", "stage_cfgs=dict(downsample_cfg=dict())", "unknown key 'downsample_cfg'"),
        ("img_size=224", "stage_cfgs=[dict()]", "stage_cfgs: should have 4 entries, got 1"),
        ("num_classes=1000", "num_classes=-1", "model.head.num_classes: should be an integer from"),
    ],
)  # fmt: skip
def test_mistakes_in_mmpretrains_configs(tmp_path, old, new, message):
    assert message in refused(tmp_path, CLASSIFIER.replace(old, new))


def test_another_head_is_left_out_and_told(tmp_path):
    text = CLASSIFIER.replace("LinearClsHead", "ArcFaceClsHead")
    found = imported(tmp_path, text)
    assert found.notes == (
        "features alone, without the head 'ArcFaceClsHead' after 'GlobalAveragePooling'",
    )
    assert found.spec.head is None
    assert found.spec.outputs == (3,)


def test_a_mapping_onto_another_value_is_an_error_unless_it_deletes_it(tmp_path):
    base = {"base.py": "model = 3\n"}
    save(tmp_path, base)
    assert refused(tmp_path, f"_base_ = 'base.py'\n{UPERNET}").startswith("config.py:")
    text = UPERNET.replace("model = dict(", "model = dict(_delete_=True,")
    assert imported(tmp_path, f"_base_ = 'base.py'\n{text}").spec
    save(tmp_path, {"base.py": MASK_RCNN, "again.py": MASK_RCNN})
    message = refused(tmp_path, f"_base_ = ['base.py', 'again.py']\n{CLASSIFIER}")
    assert "come from both" in message


# the command


def test_the_command_writes_the_yaml(run, tmp_path):
    path = save(tmp_path, {"swin.yaml": MICROSOFT["swin_tiny_patch4_window7_224"].text("swin")})
    status, out, err = run("import", path)
    assert (status, err) == (0, "")
    assert out == hierarch.import_config(path).yaml()
    assert run("import", path, "-o", tmp_path / "spec.yaml") == (0, "", "")
    assert hierarch.load(tmp_path / "spec.yaml") == hierarch.loads(out)
    status, out, err = run("import", tmp_path / "gone.py")
    assert (status, out) == (2, "")
    assert "no such file" in err


# the page


@pytest.mark.parametrize("reader", [microsoft, openmmlab])
def test_the_page_on_migration_has_every_argument(reader):
    page = (Path(__file__).parents[1] / "docs" / "migration.md").read_text("utf-8")
    words = {*re.findall(r"\w+", " ".join(re.findall(r"^\|.*", page, re.MULTILINE)))}
    assert {*reader.ARGUMENTS} <= words
