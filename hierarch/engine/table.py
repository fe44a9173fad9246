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
    recomputing,
    streaming,
    strips,
    training,
)
from hierarch.engine.seam import Op, Seam, Way, definition, dispatch
from hierarch.nn import functional
from hierarch.nn.attention import SelfAttention
from hierarch.nn.backbone import Backbone
from hierarch.nn.stage import Block, Stage
from hierarch.nn.window_mixer import MaskedWindowMixer, WindowMixer

SEAM = Seam(
    [
        Op(
            Backbone,
            "forward",
            Way("images shared among threads", batches.refuses_shared, batches.run_shared),
        ),
        Op(
            Backbone,
            "maps",
            Way("overwriting", batches.refuses_overwriting, batches.run_overwriting),
        ),
        Op(
            Stage,
            "forward",
            Way("streamed", streaming.refuses_stage, streaming.run_stage),
            Way("compiled in chunks", compiled.refuses_chunks, compiled.run_chunks),
        ),
        Op(
            Block,
            "forward",
            Way("streamed", streaming.refuses_block, streaming.run_block),
        ),
        Op(
            WindowMixer,
            "forward",
            Way("gathered", gathering.refuses_gathered, gathering.run_gathered),
        ),
        Op(
            MaskedWindowMixer,
            "masks",
            Way("remembered", caches.refuses_remembered, caches.run_remembered),
            Way("aligned", alignment.refuses_aligned, alignment.run_aligned),
        ),
        Op(
            SelfAttention,
            "attend",
            Way("recomputed", recomputing.refuses_attend, recomputing.run_attend),
        ),
        Op(
            functional,
            "attention",
            Way("maps recomputed", attention.refuses_recomputing, attention.run_recomputing),
            Way("mask by mask", attention.refuses_by_mask, attention.run_by_mask),
        ),
        Op(
            functional,
            "mlp",
            Way("recomputed", training.refuses_mlp, training.run_mlp),
            Way("GELU in the multiplication", linear.refuses_gelu, linear.run_gelu),
        ),
        Op(
            functional,
            "linear",
            Way("oneDNN", linear.refuses_onednn, linear.run_onednn),
            Way("oneDNN, trained", linear.refuses_trained, linear.run_trained),
            Way("oneDNN, compiled", linear.refuses_compiled, linear.run_compiled),
            Way("oneDNN, packed", linear.refuses_packed, linear.run_packed),
        ),
        Op(
            functional,
            "patches",
            Way("a multiplication", linear.refuses_patches, linear.run_patches),
        ),
        Op(
            functional,
            "by_rows",
            Way("in strips", strips.refuses_strips, strips.run_strips),
        ),
        Op(
            functional,
            "constant",
            Way("kept on the GPU", caches.refuses_constant, caches.run_constant),
        ),
    ]
)


def install() -> None:
    """Lets the ways be asked; called when `hierarch.engine` is imported."""
    SEAM.run_by(dispatch)


def disabled() -> AbstractContextManager[None]:
    """While entered, every operation runs its definition, in all threads of the process.

    A program of torch.compile stays as it was compiled.
    """
    return SEAM.running(definition)
