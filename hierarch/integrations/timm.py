"""hierarch in timm: every preset as the model `hierarch_<name>`, any spec as `hierarch_spec`.

Importing this module registers them: `timm.create_model("hierarch_swin_tiny")`. A preset's folder,
as in "convnext/convnext_tiny", is no part of the model's name.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from hierarch.building import Backbone
from hierarch.needs import require
from hierarch.nn.backbone import FeatureInfo, stage_indices
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.claim import claim
from hierarch.spec.grid import Sides, per_axis
from hierarch.spec.load import Source, load, of_images, override, presets
from hierarch.weights.load import load_weights

require("timm", extra="timm")

from timm import models  # noqa: E402

__all__ = ["TimmBackbone", "hierarch_spec"]


class TimmBackbone(Backbone):
    """The `Backbone` of a spec, with what timm asks of a model. It has the weights of a network of
    `hierarch.build`, and computes the same.

    It always has a head: with `num_classes=0` it returns the mean features. A `global_pool` of ""
    applies the head to each token, (B, h, w, num_classes), rather than to their mean. `drop_rate`
    is the head's, as in timm, and `proj_drop_rate` the spec's. Raises `SpecError` for arguments
    that describe no network, and `ValueError` for another pooling.

    >>> import timm
    >>> model = timm.create_model("hierarch_swin_tiny", num_classes=10)
    >>> isinstance(model, TimmBackbone), model.num_classes, model.num_features
    (True, 10, 768)
    """

    output_fmt, feature_dim = "NHWC", -1
    """Of what `forward_features` returns."""
    pretrained_cfg: dict[str, Any]

    def __init__(
        self,
        cfg: BackboneSpec,
        *,
        num_classes: int | None = None,
        in_chans: int | None = None,
        img_size: int | Sequence[int] | None = None,
        global_pool: str = "avg",
        drop_rate: float | None = None,
        drop_path_rate: float | None = None,
        proj_drop_rate: float | None = None,
    ) -> None:
        head = dict(cfg.head or {"num_classes": 0})
        fields = {
            "head": head | _given(num_classes=num_classes, drop_rate=drop_rate),
            "stem": dict(cfg.stem) | _given(in_chans=in_chans),
            "out_indices": None,
        }
        rates = _given(drop_path_rate=drop_path_rate, drop_rate=proj_drop_rate)
        super().__init__(override(cfg, fields | rates | _given(input_size=img_size)))
        self.global_pool = _pooling(global_pool)
        for module in (*self.children(), *self.stages):
            models.register_notrace_module(type(module))  # a node of a torch.fx graph

    @property
    def num_classes(self) -> int:
        """Classes of the head; 0 for none."""
        return self.spec.head.num_classes if self.spec.head else 0

    @property
    def in_chans(self) -> int:
        """Channels of an image."""
        return self.spec.stem.in_chans

    @property
    def head_hidden_size(self) -> int:
        """Channels of what `forward_head` returns with `pre_logits`."""
        return self.num_features

    @property
    def feature_info(self) -> FeatureInfo:
        """Channels and stride of each stage's map; the larger one of two strides."""
        stages = super().feature_info
        return FeatureInfo(s | {"reduction": max(per_axis(s["reduction"]))} for s in stages)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, h, w, num_features) -> (B, num_classes), or (B, num_features) if `pre_logits`; (B, h,
        w, ...) without pooling."""
        if self.global_pool:
            return super().forward_head(features, pre_logits)
        # each token as a map of its own, in the places of those outside of the grid, too
        tokens = features.flatten(0, 2)[:, None, None].expand(-1, -1, 1 + self.extra_count, -1)
        return torch.unflatten(super().forward_head(tokens, pre_logits), 0, features.shape[:3])

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a new one, or by none for 0 classes; and the pooling, if given,
        by "avg" or ""."""
        if global_pool is not None:
            self.global_pool = _pooling(global_pool)
        super().reset_classifier(num_classes)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove the stages after the last of these. The last norm and the head go with them, or
        alone. Returns the stages' indices."""
        taken = stage_indices(indices, len(self.stages))
        count, before = taken[-1] + 1, self.spec.stages
        if count < len(before):
            self.stages, stages = self.stages[:count], before[:count]
            last, last_before = (sum(stage.depth for stage in s) - 1 for s in (stages, before))
            rate = self.spec.drop_path_rate * last / max(last_before, 1)  # of each block as before
            self.spec = override(self.spec, {"stages": stages, "drop_path_rate": rate})
            self.num_features = stages[-1].dim
            prune_norm = prune_head = True
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0, "")
            self.head.norm = nn.Identity()
        return taken

    def set_input_size(self, img_size: int | Sides) -> None:
        """Change the nominal size of images. Windows stay, and images may have any size."""
        self.spec = override(self.spec, {"input_size": img_size})
        traits = {"img_size": per_axis(self.spec.input_size)}
        self._traits = getattr(self, "_traits", {}) | traits  # for timm's get_model_input_config

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """The parameters' names by depth, for learning rates that decay by layer."""
        stage, stem = r"^stages\.(\d+)", r"^stem|position_embedding|extra_tokens"
        layers = (stage + r"\.downsample", (0,)), (stage + r"\.blocks\.(\d+)", None)
        return {"stem": stem, "blocks": stage if coarse else [*layers, (r"^norm", (99999,))]}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load a state dict of any layout that `load_weights` reads, as timm's `checkpoint_path`
        asks for. Raises `WeightsError` if it does not fit."""
        if strict and state_dict.keys() != self.state_dict().keys():
            load_weights(self, state_dict)
            state_dict = self.state_dict()
        return super().load_state_dict(state_dict, strict, assign)

    def __prepare_scriptable__(self) -> nn.Module:
        """What `torch.jit.script` takes for the network: its trace in the mode that it is in, which
        serves images of any number and size."""
        images = torch.zeros(2, self.in_chans, *per_axis(self.spec.input_size))
        with torch.no_grad(), warnings.catch_warnings():
            # of what is checked once, and of sizes, which the network does not branch on
            warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
            trace: Callable[..., nn.Module] = torch.jit.trace
            return nn.Sequential(trace(self, images.to(next(self.parameters())), check_trace=False))


def hierarch_spec(pretrained: bool = False, *, spec: Source, **kwargs: Any) -> nn.Module:
    """The network of any spec: a YAML file's path, a preset's name, or a mapping.

    >>> spec = {
    ...     "mixer": {"type": "window_attention", "head_dim": 8},
    ...     "stages": [{"dim": 16, "depth": 2}, {"dim": 32, "depth": 2}],
    ... }
    >>> hierarch_spec(spec=spec, num_classes=7)(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 7])
    """
    return _create("hierarch_spec", of_images(load(spec)), pretrained, **kwargs)


def _create(variant: str, spec: BackboneSpec, pretrained: bool, **kwargs: Any) -> nn.Module:
    """What an entry point of timm does. Keywords replace fields of the spec, as in `build`, where
    timm has no argument of that name."""
    indices = kwargs.pop("out_indices", None)
    names = kwargs.keys() & BackboneSpec.model_fields.keys() - {"drop_rate", "drop_path_rate"}
    spec = override(spec, {name: kwargs.pop(name) for name in names})
    if variant not in default_cfgs:
        kwargs["pretrained_cfg"] = kwargs.get("pretrained_cfg") or _config(spec)
    indices = indices or spec.outputs or tuple(range(len(spec.stages)))
    return models.build_model_with_cfg(
        TimmBackbone,
        variant,
        pretrained,
        model_cfg=spec,
        pretrained_filter_fn=_renamed,
        feature_cfg={"out_indices": indices, "feature_cls": "getter"},
        **kwargs,
    )


def _renamed(state_dict: Mapping[str, Any], model: TimmBackbone) -> dict[str, Tensor]:
    """A checkpoint's weights under our names, for timm to load. The head stays the model's own if
    it has other classes than the checkpoint."""
    other_head = model.num_classes != model.pretrained_cfg["num_classes"]
    load_weights(model, state_dict, new_head=other_head)
    return model.state_dict()


def _config(spec: BackboneSpec) -> dict[str, Any]:
    """timm's `pretrained_cfg` of a network."""
    size = per_axis(spec.input_size)
    whole = spec if spec.head else override(spec, {"out_indices": None})
    return {
        "num_classes": spec.head.num_classes if spec.head else 0,
        "input_size": (spec.stem.in_chans, *size),
        "pool_size": claim(whole, size).stages[-1].grid,
        "first_conv": "stem.proj",
        "classifier": "head.fc",
    }


def _pooling(kind: str) -> str:
    if kind not in ("avg", ""):
        raise ValueError(f"global_pool={kind!r} should be 'avg', or '' for none")
    return kind


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _entry_point(preset: str) -> Callable[..., nn.Module]:
    name, spec = f"hierarch_{preset.rpartition('/')[2]}", load(preset)

    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        return _create(name, spec, pretrained, **kwargs)

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"The preset {preset}."
    default_cfgs[name] = _config(spec)
    return cast(Callable[..., nn.Module], models.register_model(create))


default_cfgs: dict[str, dict[str, Any]] = {}
"""timm's configurations, by the model's name: where `register_model` looks for them."""
models.register_model(hierarch_spec)
globals().update({create.__name__: create for create in map(_entry_point, presets(axes=2))})
