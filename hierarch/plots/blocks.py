"""What a block computes, in steps: read from its module by a symbolic trace, so that a drawing of a
block needs no knowledge of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.fx import Graph, Node, Tracer
from torch.fx.proxy import TraceError

from hierarch.building import engine_disabled
from hierarch.nn.layers import DropPath
from hierarch.spec.plan import BlockPlan

INPUT = ""
"""The name of the step that a block starts with."""
_SKIPPED = (nn.Identity, nn.Dropout, DropPath)
"""Modules that change nothing in inference."""


@dataclass(frozen=True)
class Skip:
    """A branch around some steps, which ends in a sum."""

    origin: int
    """The step that it starts from."""
    modules: tuple[str, ...]
    """The names of the block's modules on it."""


@dataclass(frozen=True)
class Step:
    """One step along the longest way through a block."""

    name: str
    """That of the block's module, or of a function; `INPUT` for the first."""
    is_module: bool
    skips: tuple[Skip, ...] = ()
    """What is joined with the step before, as in a residual sum."""


def steps(plan: BlockPlan) -> tuple[Step, ...]:
    """The steps of a block, without dropout and drop path, which do nothing in
    inference; one step with no name of a module for a block that cannot be traced."""
    with torch.device("meta"), engine_disabled():
        block = plan.spec.build(plan, drop_path=0)
        try:
            graph = _Outline().trace(block, concrete_args={"grid": None})
        except TraceError:
            return (Step(INPUT, False), Step(plan.spec.type, False))
    return _steps(graph, block)


class _Outline(Tracer):
    """A trace of a module's own forward: what its parts do is theirs."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def _steps(graph: Graph, block: nn.Module) -> tuple[Step, ...]:
    """The longest way from the output back to the input, and what joins it."""
    parts = dict(block.named_modules())

    def inputs(node: Node) -> list[Node]:
        """The nodes before, past those that change nothing."""
        found = []
        for before in node.all_input_nodes:
            while before.op == "call_module" and isinstance(parts[str(before.target)], _SKIPPED):
                (before,) = before.all_input_nodes
            found.append(before)
        return found

    def depth(node: Node) -> int:
        return 1 + max(map(depth, inputs(node)), default=0)

    (end,) = (node for node in graph.nodes if node.op == "output")
    way: list[Node] = []
    while before := inputs(way[-1] if way else end):
        way.append(max(before, key=depth))
    way.reverse()
    found = []
    for i, node in enumerate(way):
        others = [other for other in inputs(node) if other is not way[i - 1]]
        skips = tuple(_skip(other, way, inputs) for other in others if other.op != "get_attr")
        name = INPUT if node.op == "placeholder" else str(node.target)
        if node.op == "call_function":
            name = getattr(node.target, "__name__", name)
        found.append(Step(name, node.op == "call_module", skips))
    return tuple(found)


def _skip(node: Node, way: list[Node], inputs: Callable[[Node], list[Node]]) -> Skip:
    modules = []
    while node not in way:
        modules.append(str(node.target))
        node = inputs(node)[0]
    return Skip(way.index(node), tuple(reversed(modules)))
