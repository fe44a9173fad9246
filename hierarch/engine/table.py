"""Who may take over which operation: for each, the ways in the order in which they are asked.

The first way that does not refuse a call's arguments runs in place of the definition in
`hierarch.nn.functional`.
"""

from __future__ import annotations

from typing import Any

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
from hierarch.nn import functional as F
from hierarch.nn.ops import Op, Way

TABLE: dict[Op[Any, Any], list[Way]] = {
    F.batch: [
        Way("images shared among threads", batches.refuses_shared, batches.run_shared),
    ],
    F.maps: [
        Way("overwriting", batches.refuses_overwriting, batches.run_overwriting),
    ],
    F.stage: [
        Way("streamed", streaming.refuses_stage, streaming.run_stage),
        Way("compiled in chunks", compiled.refuses_chunks, compiled.run_chunks),
    ],
    F.block: [
        Way("streamed", streaming.refuses_block, streaming.run_block),
    ],
    F.windows: [
        Way("gathered", gathering.refuses_gathered, gathering.run_gathered),
    ],
    F.masks: [
        Way("remembered", caches.refuses_remembered, caches.run_remembered),
        Way("aligned", alignment.refuses_aligned, alignment.run_aligned),
    ],
    F.self_attention: [
        Way("recomputed", recomputing.refuses_self_attention, recomputing.run_self_attention),
    ],
    F.attention: [
        Way("maps recomputed", attention.refuses_recomputing, attention.run_recomputing),
        Way("mask by mask", attention.refuses_by_mask, attention.run_by_mask),
    ],
    F.mlp: [
        Way("recomputed", training.refuses_mlp, training.run_mlp),
        Way("GELU in the multiplication", linear.refuses_gelu, linear.run_gelu),
    ],
    F.linear: [
        Way("oneDNN", linear.refuses_onednn, linear.run_onednn),
        Way("oneDNN, trained", linear.refuses_trained, linear.run_trained),
        Way("oneDNN, compiled", linear.refuses_compiled, linear.run_compiled),
        Way("oneDNN, packed", linear.refuses_packed, linear.run_packed),
    ],
    F.patches: [
        Way("a multiplication", linear.refuses_patches, linear.run_patches),
    ],
    F.by_rows: [
        Way("in strips", strips.refuses_strips, strips.run_strips),
    ],
    F.constant: [
        Way("kept on the GPU", caches.refuses_constant, caches.run_constant),
    ],
}


def install() -> None:
    """Registers the ways; called when `hierarch.engine` is imported."""
    for op, ways in TABLE.items():
        op.ways[:] = ways
