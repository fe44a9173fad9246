"""hierarch in transformers: a config, and models for its Auto classes, heads and Trainer.

Importing this module registers them. Each model runs a `hierarch.Backbone`, its `network`, and
returns what that returns.
"""

# mypy: allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from einops import rearrange
from torch import Tensor

from hierarch.building import build
from hierarch.needs import require
from hierarch.nn.backbone import to_nchw
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.grid import per_axis
from hierarch.spec.load import Source, load, of_images, override, with_classes

require("transformers", extra="transformers")

import transformers as hf  # noqa: E402
from transformers import backbone_utils, modeling_outputs  # noqa: E402
from transformers.utils.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD  # noqa: E402
from transformers.utils.generic import can_return_tuple  # noqa: E402


class HierarchConfig(backbone_utils.BackboneConfigMixin, hf.PreTrainedConfig):
    """A spec, as `hierarch.load` takes it, with labels and the maps that a backbone returns.

    A classifier has `num_labels` classes: by default the spec's. `out_features` are among "stem",
    "stage1", "stage2" and so on, `out_indices` their numbers from 0: by default the outputs of a
    spec without a head, and the last stage of one with a head. Raises `SpecError`.

    >>> config = HierarchConfig("swin_tiny", num_labels=10)
    >>> config.model_type, config.backbone_spec().head.num_classes
    ('hierarch', 10)
    """

    model_type = "hierarch"

    def __init__(self, spec: Source = "swin_tiny", **kwargs: Any) -> None:
        features, indices = (kwargs.pop(key, None) for key in ("out_features", "out_indices"))
        spec = of_images(load(spec))
        if spec.head and kwargs.get("id2label") is None:
            kwargs.setdefault("num_labels", spec.head.num_classes)
        self.spec: Any = spec
        super().__init__(**kwargs)
        self.spec = self.backbone_spec().to_data()
        if features is None and indices is None and not spec.head:
            indices = [i + 1 for i in spec.outputs]
        self.set_output_features_output_indices(features, indices)

    def backbone_spec(self) -> BackboneSpec:
        """The spec, whose head, if it has one, has a class for each label."""
        spec = load(self.spec)
        return with_classes(spec, self.num_labels or 0) if spec.head else spec

    @property
    def num_hidden_layers(self) -> int:
        """Stages."""
        return len(load(self.spec).stages)

    @property
    def stage_names(self) -> list[str]:
        return ["stem", *(f"stage{i + 1}" for i in range(self.num_hidden_layers))]

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "spec": self.backbone_spec().to_data()}

    def image_processor(
        self,
        *,
        crop_ratio: float = 0.875,
        mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
        std: Sequence[float] = IMAGENET_DEFAULT_STD,
    ) -> hf.BitImageProcessor:
        """Makes images ready as a recipe's evaluation does: resized (bicubic) to the spec's
        `input_size` over `crop_ratio`, cropped in the center, and normed, by the averages of `mean`
        and `std` where the images are not in color. Needs torchvision."""
        spec = load(self.spec)
        height, width = per_axis(spec.input_size)
        chans = spec.stem.in_chans
        mean, std = (v if len(v) == chans else [sum(v) / len(v)] * chans for v in (mean, std))
        sides = {"height": round(height / crop_ratio), "width": round(width / crop_ratio)}
        return hf.BitImageProcessor(
            size={"shortest_edge": sides["height"]} if height == width else sides,
            crop_size={"height": height, "width": width},
            image_mean=list(mean),
            image_std=list(std),
            do_convert_rgb=chans == 3,
        )


class HierarchPreTrainedModel(hf.PreTrainedModel):
    """What the models share. `hidden_states` are the stem's map and those of all stages, each
    (B, C, h, w), of the grid's tokens alone and before any norm."""

    config_class = HierarchConfig
    base_model_prefix = "network"
    main_input_name = "pixel_values"
    input_modalities = "image"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["Stage"]  # noqa: RUF012

    def __init__(self, config: HierarchConfig, spec: BackboneSpec) -> None:
        super().__init__(config)
        self.network = build(spec)
        self.post_init()

    def _init_weights(self, module: Any) -> None:
        """As published; transformers protects the weights that it has read."""
        if module is not self.network and hasattr(module, "reset_parameters"):
            module.reset_parameters()

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether blocks are recomputed in the backward pass. transformers sets it."""
        return any(getattr(m, "grad_checkpointing", None) for m in self.network.modules())

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, enable: bool) -> None:
        self.network.set_grad_checkpointing(enable)

    def _shows_states(self, wanted: bool | None) -> bool:
        """Whether hidden states are asked for. The network runs faster as a whole."""
        return bool(self.config.output_hidden_states if wanted is None else wanted)

    def _states(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What leaves the last stage, all tokens of it, and `hidden_states`. What follows a state
        is computed from it, where it has all tokens, so that it has a gradient."""
        network, told = self.network, self.network.told(images)
        x, states = network.embed(images), []
        for stage in (*network.stages, None):
            states.append(network.nchw(x, images))
            x = x if network.extra_count else _nhwc(states[-1])
            x = stage(x, *told) if stage else x
        return x, tuple(states)


class HierarchModel(HierarchPreTrainedModel):
    """Images to the last stage's normed map, `last_hidden_state` (B, C, h, w), and what a head
    would classify, the mean over its tokens or the class token, `pooler_output` (B, C).

    >>> import torch
    >>> spec = {
    ...     "mixer": {"type": "window_attention", "head_dim": 8},
    ...     "stages": [{"dim": 16, "depth": 1}, {"dim": 32, "depth": 1}],
    ...     "head": {"num_classes": 3},
    ... }
    >>> model = HierarchModel(HierarchConfig(spec))
    >>> model(torch.zeros(1, 3, 64, 64)).pooler_output.shape
    torch.Size([1, 32])
    """

    def __init__(self, config: HierarchConfig) -> None:
        super().__init__(config, with_classes(config.backbone_spec(), 0))

    @can_return_tuple
    def forward(self, pixel_values: Tensor, output_hidden_states: bool | None = None) -> Any:
        network, states = self.network, None
        if self._shows_states(output_hidden_states):
            last, states = self._states(pixel_values)
            features = network.norm(last)
        else:
            features = network.forward_features(pixel_values)
        return modeling_outputs.BaseModelOutputWithPoolingAndNoAttention(
            network.nchw(features, pixel_values), network.forward_head(features), states
        )


class HierarchForImageClassification(HierarchPreTrainedModel):
    """Images to `logits` (B, num_labels), with transformers' `loss` where there are `labels`.

    >>> import torch
    >>> spec = {
    ...     "mixer": {"type": "window_attention", "head_dim": 8},
    ...     "stages": [{"dim": 16, "depth": 1}, {"dim": 32, "depth": 1}],
    ...     "head": {"num_classes": 3},
    ... }
    >>> model = HierarchForImageClassification(HierarchConfig(spec))
    >>> model(torch.zeros(1, 3, 64, 64)).logits.shape
    torch.Size([1, 3])
    """

    def __init__(self, config: HierarchConfig) -> None:
        super().__init__(config, with_classes(config.backbone_spec(), config.num_labels or 0))

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> Any:
        network, states = self.network, None
        if self._shows_states(output_hidden_states):
            last, states = self._states(pixel_values)
            logits = network.forward_head(network.norm(last))
        else:
            logits = network(pixel_values)
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return modeling_outputs.ImageClassifierOutputWithNoAttention(loss, logits, states)


class HierarchBackbone(backbone_utils.BackboneMixin, HierarchPreTrainedModel):
    """Images to `feature_maps` (B, C_i, h_i, w_i), one for each of the config's `out_features`; the
    stem's has no norm. Stages after the last of them are not built.

    >>> import torch
    >>> spec = {
    ...     "mixer": {"type": "window_attention", "head_dim": 8},
    ...     "stages": [{"dim": 16, "depth": 1}, {"dim": 32, "depth": 1}],
    ...     "head": {"num_classes": 3},
    ... }
    >>> model = HierarchBackbone(HierarchConfig(spec, out_features=["stage1", "stage2"]))
    >>> [tuple(m.shape) for m in model(torch.zeros(1, 3, 64, 64)).feature_maps]
    [(1, 16, 16, 16), (1, 32, 8, 8)]
    """

    has_attentions = False

    def __init__(self, config: HierarchConfig) -> None:
        spec = config.backbone_spec()
        outputs = [i - 1 for i in map(config.stage_names.index, config.out_features) if i]
        super().__init__(config, override(spec, {"head": None, "out_indices": outputs}))
        self.num_features = [spec.in_dim, *(stage.dim for stage in spec.stages)]

    @can_return_tuple
    def forward(self, pixel_values: Tensor, output_hidden_states: bool | None = None) -> Any:
        indices = [*map(self.stage_names.index, self.out_features)]
        if [i - 1 for i in indices if i] != [*self.network.spec.outputs]:
            raise ValueError(f"build the network again for out_features={self.out_features}")
        shown = self._shows_states(output_hidden_states)
        if not shown and 0 not in indices:
            return modeling_outputs.BackboneOutput(self.network(pixel_values))
        _, states = self._states(pixel_values)
        maps: Any = tuple(
            to_nchw(self.network.normed(i - 1, _nhwc(states[i]))) if i else states[0]
            for i in indices
        )
        return modeling_outputs.BackboneOutput(maps, states if shown else None)


def _nhwc(x: Tensor) -> Tensor:
    return rearrange(x, "b c h w -> b h w c")


hf.AutoConfig.register("hierarch", HierarchConfig)
hf.AutoModel.register(HierarchConfig, HierarchModel)
hf.AutoBackbone.register(HierarchConfig, HierarchBackbone)
hf.AutoModelForImageClassification.register(HierarchConfig, HierarchForImageClassification)
