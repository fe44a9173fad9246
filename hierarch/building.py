"""`build`, and the public `Backbone`: a network of `hierarch.nn`, run by `hierarch.engine`.

Without the folder `hierarch/engine`, the same networks run as they are defined.
"""

from __future__ import annotations

from importlib.util import find_spec
from os import PathLike
from typing import TYPE_CHECKING, Any

from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.load import load, override

if TYPE_CHECKING or find_spec("hierarch.engine"):
    from hierarch.engine import disabled as engine_disabled
    from hierarch.engine.backbone import Backbone

    unpack_weights = Backbone.unpack_weights
else:
    from contextlib import nullcontext as engine_disabled

    from hierarch.nn.backbone import Backbone

    def unpack_weights(model: Backbone) -> Backbone:
        return model


__all__ = ["Backbone", "build", "engine_disabled", "unpack_weights"]


def build(spec: BackboneSpec | str | PathLike[str] | dict[str, Any], **overrides: Any) -> Backbone:
    """Build a backbone from a spec, a preset's name, a YAML file or a mapping.

    Keywords override the spec's top-level fields: `build("swin_tiny", head=None)`. Raises
    `SpecError` for a spec, or an override, that describes no network.

    >>> import torch
    >>> model = build("swin_tiny", head=None, out_indices=(0, 3))
    >>> [tuple(m.shape) for m in model(torch.zeros(1, 3, 64, 96))]
    [(1, 96, 16, 24), (1, 768, 2, 3)]
    """
    return Backbone(override(load(spec), overrides))
