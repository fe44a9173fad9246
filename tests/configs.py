"""Configs of other libraries, with the keys and values of the published ones."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

import hierarch
from hierarch.importing.imported import Imported


def save(folder: Path, files: dict[str, str]) -> Path:
    """The last of some files, all of which are written."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return path


def imported(folder: Path, text: str, name: str = "config.py") -> Imported:
    """What a config says."""
    return hierarch.import_config(save(folder, {name: text}))


def refused(folder: Path, text: str, name: str = "config.py") -> str:
    """The error for a config."""
    with pytest.raises(hierarch.SpecError) as caught:
        imported(folder, text, name)
    return str(caught.value).replace(f"{folder}/", "")


TINY, DEEP = (2, 2, 6, 2), (2, 2, 18, 2)
T, B, L = (3, 6, 12, 24), (4, 8, 16, 32), (6, 12, 24, 48)
TRAIN = """TRAIN:
  EPOCHS: 30
  WARMUP_EPOCHS: 5
  WEIGHT_DECAY: 1e-8
  BASE_LR: 2e-05
"""
TEST = "TEST:\n  CROP: False\n"
MASKS = "  MASK_PATCH_SIZE: 32\n  MASK_RATIO: 0.6\n"


class Config(NamedTuple):
    """One of Microsoft's YAML files."""

    section: str
    dim: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int
    drop_path: float
    size: int | None
    """None where the file does not say it."""
    preset: str
    """The preset that it is, or that it resembles most."""
    but: tuple[str, ...] = ()
    """What is another in it than in the preset."""
    model: str = ""
    fields: str = ""
    data: str = ""
    rest: str = ""

    def text(self, name: str) -> str:
        size = f"  IMG_SIZE: {self.size}\n" if self.size else ""
        data = f"DATA:\n{size}{self.data}" if size or self.data else ""
        return (
            f"{data}MODEL:\n  TYPE: {self.section.lower()}\n  NAME: {name}\n"
            f"  DROP_PATH_RATE: {self.drop_path}\n{self.model}  {self.section}:\n"
            f"    EMBED_DIM: {self.dim}\n    DEPTHS: {[*self.depths]}\n"
            f"    NUM_HEADS: {[*self.heads]}\n    WINDOW_SIZE: {self.window}\n"
            f"{self.fields}{self.rest}"
        )


LARGER = "head {num_classes: 1000} → {num_classes: 21841}"
FEATURES = "head {num_classes: 1000} → {num_classes: 0}"
TO_22K = {"data": "  DATASET: imagenet22K\n", "rest": TRAIN}
TUNED = {"rest": TRAIN}
LARGER_IMAGES = {"rest": TRAIN + TEST}
FROM_12 = "    PRETRAINED_WINDOW_SIZES: [ 12, 12, 12, 6 ]\n"
BASE_384 = ("SWIN", 128, DEEP, B, 12)


def rate(old: float, new: float) -> str:
    return f"drop_path_rate {old} → {new}"


def windows(old: int, new: int) -> str:
    shifts = f"; shift_size 0 / {old // 2} → 0 / {new // 2}" if old // 2 != new // 2 else ""
    return f"all stages: window_size {old} → {new}{shifts}"


MICROSOFT = {
    "swin_tiny_patch4_window7_224": Config("SWIN", 96, TINY, T, 7, 0.2, None, "swin_tiny"),
    "swin_tiny_patch4_window7_224_22k": Config(
        *("SWIN", 96, TINY, T, 7, 0.1, None, "swin_tiny", (rate(0.2, 0.1), LARGER)), **TO_22K
    ),
    "swin_tiny_patch4_window7_224_22kto1k_finetune": Config(
        *("SWIN", 96, TINY, T, 7, 0.1, None, "swin_tiny", (rate(0.2, 0.1),)), **TUNED
    ),
    "swin_tiny_c24_patch4_window8_256": Config("SWIN", 96, TINY, B, 8, 0.2, 256, "swin_tiny_d24"),
    "swin_small_patch4_window7_224": Config("SWIN", 96, DEEP, T, 7, 0.3, None, "swin_small"),
    "swin_small_patch4_window7_224_22k": Config(
        *("SWIN", 96, DEEP, T, 7, 0.2, None, "swin_small", (rate(0.3, 0.2), LARGER)), **TO_22K
    ),
    "swin_small_patch4_window7_224_22kto1k_finetune": Config(
        *("SWIN", 96, DEEP, T, 7, 0.2, None, "swin_small", (rate(0.3, 0.2),)), **TUNED
    ),
    "swin_base_patch4_window7_224": Config("SWIN", 128, DEEP, B, 7, 0.5, None, "swin_base"),
    "swin_base_patch4_window7_224_22k": Config(
        *("SWIN", 128, DEEP, B, 7, 0.2, None, "swin_base", (rate(0.5, 0.2), LARGER)), **TO_22K
    ),
    "swin_base_patch4_window7_224_22kto1k_finetune": Config(
        *("SWIN", 128, DEEP, B, 7, 0.2, None, "swin_base", (rate(0.5, 0.2),)), **TUNED
    ),
    "swin_base_patch4_window12_384_finetune": Config(
        *BASE_384, 0.5, 384, "swin_base_384", **LARGER_IMAGES
    ),
    "swin_base_patch4_window12_384_22kto1k_finetune": Config(
        *BASE_384, 0.2, 384, "swin_base_384", (rate(0.5, 0.2),), **LARGER_IMAGES
    ),
    "swin_large_patch4_window7_224_22k": Config(
        *("SWIN", 192, DEEP, L, 7, 0.2, None, "swin_large", (LARGER,)), **TO_22K
    ),
    "swin_large_patch4_window7_224_22kto1k_finetune": Config(
        *("SWIN", 192, DEEP, L, 7, 0.2, None, "swin_large"), **TUNED
    ),
    "swin_large_patch4_window12_384_22kto1k_finetune": Config(
        *("SWIN", 192, DEEP, L, 12, 0.2, 384, "swin_large_384"), **LARGER_IMAGES
    ),
    "swinv2_tiny_patch4_window8_256": Config(
        "SWINV2", 96, TINY, T, 8, 0.2, 256, "swin_v2_tiny_window8_256"
    ),
    "swinv2_tiny_patch4_window16_256": Config(
        "SWINV2", 96, TINY, T, 16, 0.2, 256, "swin_v2_tiny_window16_256"
    ),
    "swinv2_small_patch4_window8_256": Config(
        "SWINV2", 96, DEEP, T, 8, 0.3, 256, "swin_v2_small_window8_256"
    ),
    "swinv2_small_patch4_window16_256": Config(
        "SWINV2", 96, DEEP, T, 16, 0.3, 256, "swin_v2_small_window16_256"
    ),
    "swinv2_base_patch4_window8_256": Config(
        "SWINV2", 128, DEEP, B, 8, 0.5, 256, "swin_v2_base_window8_256"
    ),
    "swinv2_base_patch4_window16_256": Config(
        "SWINV2", 128, DEEP, B, 16, 0.5, 256, "swin_v2_base_window16_256"
    ),
    "swinv2_base_patch4_window12_192_22k": Config(
        *("SWINV2", 128, DEEP, B, 12, 0.2, 192, "swin_v2_base_window8_256"),
        (windows(8, 12), "input_size 256 → 192", rate(0.5, 0.2), LARGER),
        **TO_22K,
    ),
    "swinv2_base_patch4_window12to16_192to256_22kto1k_ft": Config(
        *("SWINV2", 128, DEEP, B, 16, 0.2, 256, "swin_v2_base_window12to16_192to256"),
        fields=FROM_12,
        rest=TRAIN,
    ),
    "swinv2_base_patch4_window12to24_192to384_22kto1k_ft": Config(
        *("SWINV2", 128, DEEP, B, 24, 0.2, 384, "swin_v2_base_window12to24_192to384"),
        fields=FROM_12,
        rest=TRAIN + TEST,
    ),
    "swinv2_large_patch4_window12_192_22k": Config(
        *("SWINV2", 192, DEEP, L, 12, 0.2, 192, "swin_v2_large_window12to16_192to256"),
        (
            windows(16, 12),
            "stages 0, 1 and 2: pretrained_window_size 12 → none",
            "stage 3: pretrained_window_size 6 → none",
            "input_size 256 → 192",
            LARGER,
        ),
        **TO_22K,
    ),
    "swinv2_large_patch4_window12to16_192to256_22kto1k_ft": Config(
        *("SWINV2", 192, DEEP, L, 16, 0.2, 256, "swin_v2_large_window12to16_192to256"),
        fields=FROM_12,
        rest=TRAIN,
    ),
    "swinv2_large_patch4_window12to24_192to384_22kto1k_ft": Config(
        *("SWINV2", 192, DEEP, L, 24, 0.2, 384, "swin_v2_large_window12to24_192to384"),
        fields=FROM_12,
        rest=TRAIN + TEST,
    ),
    "swin_mlp_base_patch4_window7_224": Config(
        "SWIN_MLP", 128, DEEP, B, 7, 0.5, None, "swin_mixer_base_d24"
    ),
    "swin_mlp_tiny_c24_patch4_window8_256": Config(
        "SWIN_MLP", 96, TINY, B, 8, 0.2, 256, "swin_mixer_tiny_d24"
    ),
    "swin_mlp_tiny_c12_patch4_window8_256": Config(
        "SWIN_MLP", 96, TINY, (8, 16, 32, 64), 8, 0.2, 256, "swin_mixer_tiny_d12"
    ),
    "swin_mlp_tiny_c6_patch4_window8_256": Config(
        "SWIN_MLP", 96, TINY, (16, 32, 64, 128), 8, 0.2, 256, "swin_mixer_tiny_d6"
    ),
    "simmim_pretrain__swin_base__img192_window6__800ep": Config(
        *("SWIN", 128, DEEP, B, 6, 0.0, 192, "swin_base"),
        (windows(7, 6), "input_size 224 → 192", rate(0.5, 0), FEATURES),
        data=MASKS,
        rest=TRAIN,
    ),
    "simmim_pretrain__swinv2_base__img192_window12__800ep": Config(
        *("SWINV2", 128, DEEP, B, 12, 0.1, 192, "swin_v2_base_window8_256"),
        (windows(8, 12), "input_size 256 → 192", rate(0.5, 0.1), FEATURES),
        model="  SIMMIM:\n    NORM_TARGET:\n      ENABLE: True\n      PATCH_SIZE: 47\n",
        data=MASKS,
        rest=TRAIN,
    ),
    "simmim_finetune__swin_base__img224_window7__800ep": Config(
        *("SWIN", 128, DEEP, B, 7, 0.1, 224, "swin_base", (rate(0.5, 0.1),)), **TUNED
    ),
    "simmim_finetune__swinv2_base__img224_window14__800ep": Config(
        *("SWINV2", 128, DEEP, B, 14, 0.1, 224, "swin_v2_base_window12to16_192to256"),
        (windows(16, 14), "input_size 256 → 224", rate(0.2, 0.1)),
        fields=FROM_12,
        rest=TRAIN,
    ),
}

MASK_RCNN = """
model = dict(
    type='MaskRCNN',
    data_preprocessor=dict(type='DetDataPreprocessor', mean=[123.675, 116.28, 103.53]),
    backbone=dict(type='ResNet', depth=50, num_stages=4, out_indices=(0, 1, 2, 3)),
    neck=dict(type='FPN', in_channels=[256, 512, 1024, 2048], out_channels=256, num_outs=5),
    roi_head=dict(type='StandardRoIHead', bbox_head=dict(type='Shared2FCBBoxHead')))
"""
SWIN_T_1X = """
_base_ = ['../_base_/models/mask-rcnn_r50_fpn.py', '../_base_/schedule_1x.py']
pretrained = 'https://example.org/swin_tiny_patch4_window7_224.pth'  # noqa
model = dict(
    type='MaskRCNN',
    backbone=dict(
        _delete_=True,
        type='SwinTransformer',
        embed_dims=96,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        window_size=7,
        mlp_ratio=4,
        qkv_bias=True,
        qk_scale=None,
        drop_rate=0.,
        attn_drop_rate=0.,
        drop_path_rate=0.2,
        patch_norm=True,
        out_indices=(0, 1, 2, 3),
        with_cp=False,
        convert_weights=True,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained)),
    neck=dict(in_channels=[96, 192, 384, 768]))
max_epochs = 12
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'norm': dict(decay_mult=0.)}),
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4 * 2, betas=(0.9, 0.999)))
"""
SWIN_S_3X = """
_base_ = './mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py'
pretrained = 'https://example.org/swin_small_patch4_window7_224.pth'
model = dict(
    backbone=dict(
        depths=[2, 2, 18, 2],
        init_cfg=dict(type='Pretrained', checkpoint=pretrained)))
"""
MASK2FORMER = """
_base_ = ['../_base_/models/mask-rcnn_r50_fpn.py']
pretrained = 'https://example.org/swin_tiny_patch4_window7_224.pth'
depths = [2, 2, 6, 2]
model = dict(
    type='Mask2Former',
    backbone=dict(
        _delete_=True,
        type='SwinTransformer',
        embed_dims=96,
        depths=depths,
        num_heads=[3, 6, 12, 24],
        window_size=7,
        drop_path_rate=0.3,
        patch_norm=True,
        frozen_stages=-1,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained)),
    init_cfg=None)
backbone_norm_multi = dict(lr_mult=0.1, decay_mult=0.0)
custom_keys = {'backbone': dict(lr_mult=0.1, decay_mult=1.0)}
custom_keys.update({
    f'backbone.stages.{stage_id}.blocks.{block_id}.norm': backbone_norm_multi
    for stage_id, num_blocks in enumerate(depths)
    for block_id in range(num_blocks)
})
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=custom_keys, norm_decay_mult=0.0))
"""
UPERNET = """
checkpoint_file = 'https://example.org/swin_tiny.pth'
norm_cfg = dict(type='SyncBN', requires_grad=True)
backbone_norm_cfg = dict(type='LN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    pretrained=None,
    backbone=dict(
        type='SwinTransformer',
        pretrain_img_size=224,
        embed_dims=96,
        patch_size=4,
        window_size=7,
        mlp_ratio=4,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        strides=(4, 2, 2, 2),
        out_indices=(0, 1, 2, 3),
        qkv_bias=True,
        qk_scale=None,
        patch_norm=True,
        drop_rate=0.,
        attn_drop_rate=0.,
        drop_path_rate=0.3,
        use_abs_pos_embed=False,
        act_cfg=dict(type='GELU'),
        norm_cfg=backbone_norm_cfg),
    decode_head=dict(type='UPerHead', in_channels=[96, 192, 384, 768], norm_cfg=norm_cfg),
    test_cfg=dict(mode='whole'))
"""
CLASSIFIER = """
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='SwinTransformer', arch='tiny', img_size=224, drop_path_rate=0.2),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=768,
        init_cfg=None,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        cal_acc=False),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
"""
LAZY_MODEL = """
from mmpretrain.models import (CrossEntropyLoss, GlobalAveragePooling,
                               ImageClassifier, LinearClsHead, SwinTransformer)

model = dict(
    type=ImageClassifier,
    backbone=dict(
        type=SwinTransformer,
        arch='base',
        img_size=384,
        stage_cfgs=dict(block_cfgs=dict(window_size=12))),
    neck=dict(type=GlobalAveragePooling),
    head=dict(
        type=LinearClsHead,
        num_classes=1000,
        in_channels=1024,
        loss=dict(type=CrossEntropyLoss, loss_weight=1.0)))
"""
LAZY_CUB = """
from mmengine.config import read_base
from torch.optim.adamw import AdamW

with read_base():
    from .._base_.models.swin_transformer_base import *

checkpoint = 'https://example.org/swin-large.pth'
model.update(
    backbone=dict(arch='large', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    head=dict(num_classes=200, in_channels=1536))
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=5e-6))
"""
FORK = """
model = dict(
    type='MaskRCNN',
    pretrained=None,
    backbone=dict(
        type='SwinTransformer',
        embed_dim=96,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        window_size=7,
        mlp_ratio=4.,
        qkv_bias=True,
        qk_scale=None,
        drop_rate=0.,
        attn_drop_rate=0.,
        ape=False,
        patch_norm=True,
        out_indices=(0, 1, 2, 3),
        use_checkpoint=False))
"""
OPENMMLAB = {
    "_base_/models/mask-rcnn_r50_fpn.py": MASK_RCNN,
    "_base_/schedule_1x.py": "train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=12)\n",
    "_base_/models/swin_transformer_base.py": LAZY_MODEL,
    "swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py": SWIN_T_1X,
    "swin/mask-rcnn_swin-s-p4-w7_fpn_3x_coco.py": SWIN_S_3X,
    "swin/mask2former_swin-t.py": MASK2FORMER,
    "swin/upernet_swin.py": UPERNET,
    "swin/swin-tiny_16xb64_in1k.py": CLASSIFIER,
    "swin/swin_large_8xb8_cub_384px.py": LAZY_CUB,
    "swin/mask_rcnn_swin_fpn.py": FORK,
}
