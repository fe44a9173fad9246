"""Who may take over which operation: for each, the ways in the order in which they are asked."""

from __future__ import annotations

from contextlib import AbstractContextManager

from hierarch.engine import (
    alignment,
    attention,
    batches,
    caches,
    compiled,
    gathering,
    linear,
    lists,
    recomputing,
    streaming,
    strips,
    training,
)
from hierarch.engine.seam import Op, Seam, definition, dispatch
from hierarch.nn import functional
from hierarch.nn.attention import SelfAttention
from hierarch.nn.backbone import Backbone
from hierarch.nn.stage import Block, Stage
from hierarch.nn.window_mixer import MaskedWindowMixer, WindowMixer

SEAM = Seam(
    [
        Op(Backbone, "forward", batches.run_shared),
        Op(Backbone, "forward_each", lists.run_lists),
        Op(Backbone, "maps", batches.run_overwriting),
        Op(Stage, "forward", streaming.run_stage, compiled.run_chunks),
        Op(Block, "forward", streaming.run_block),
        Op(WindowMixer, "forward", gathering.run_gathered),
        Op(MaskedWindowMixer, "masks", caches.run_remembered, alignment.run_aligned),
        Op(SelfAttention, "attend", recomputing.run_attend),
        Op(
            *(functional, "attention"),
            *(attention.run_recomputing, attention.run_by_mask, attention.run_by_operators),
        ),
        Op(functional, "mlp", training.run_mlp, linear.run_gelu),
        Op(functional, "linear", linear.run_onednn),
        Op(functional, "patches", linear.run_patches),
        Op(functional, "by_rows", strips.run_strips),
        Op(functional, "constant", caches.run_constant),
    ]
)


def install() -> None:
    """Lets the ways be asked; called when `hierarch.engine` is imported."""
    SEAM.run_by(dispatch)


def disabled() -> AbstractContextManager[None]:
    """While entered, every operation runs its definition, in all threads of the process.

    A program of torch.compile stays as it was compiled.

    >>> import torch
    >>> from hierarch import build
    >>> model = build("swin_tiny").eval()
    >>> images = torch.ones(1, 3, 64, 64)
    >>> with torch.no_grad():
    ...     fast = model(images)
    ...     with disabled():
    ...         defined = model(images)
    >>> torch.allclose(fast, defined, atol=1e-5)
    True
    """
    return SEAM.running(definition)
