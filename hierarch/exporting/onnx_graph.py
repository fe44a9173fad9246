"""What makes the ONNX graph of torch's exporter faster and smaller, with standard operators."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

SMALL = 4096
"""Numbers that are not worth keeping out of a file."""
ATTENTION = torch.ops.aten.scaled_dot_product_attention.default


def attention_translation(program: ExportedProgram) -> dict[Any, Any]:
    """A table for torch's exporter, with which attention is softmax(q kᵀ scale + mask) v in so many
    operators. Runtimes fuse the transposition of keys with the product; torch's own translation has
    three of them, which OpenVINO computes.

    It is empty where a program has attention that is causal, that drops, or that masks by truth
    values.
    """
    import onnxscript

    op: Any = onnxscript.opset20
    if not all(map(_is_plain, program.graph.nodes)):
        return {}

    def translated(
        q: Any,
        k: Any,
        v: Any,
        mask: Any = None,
        dropout_p: float = 0,
        is_causal: bool = False,
        scale: float | None = None,
    ) -> Any:
        factor = op.Constant(value_float=q.shape[3] ** -0.5 if scale is None else scale)
        logits = op.MatMul(op.Mul(q, op.CastLike(factor, q)), op.Transpose(k, perm=[0, 1, 3, 2]))
        return op.MatMul(op.Softmax(logits if mask is None else op.Add(logits, mask), axis=-1), v)

    return {ATTENTION: translated}


def _is_plain(node: Any) -> bool:
    """Whether a node is no attention, or one that `attention_translation` translates."""
    if node.target is not ATTENTION:
        return True
    given = dict(zip(("q", "k", "v", "attn_mask"), node.args, strict=False)) | node.kwargs
    mask = given.get("attn_mask")
    floats = mask is None or mask.meta["val"].is_floating_point()
    return floats and not any(node.args[4:]) and node.kwargs.keys() <= {"attn_mask", "scale"}


def tidy(model: Any, *, onnxruntime: bool) -> None:
    """Changes a model of onnx_ir in place; it computes the same. `onnxruntime`: what is faster
    there, and not in OpenVINO, too."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass
    from onnxscript.optimizer import optimize_ir

    optimize_ir(model, should_fold=_unless_larger)
    for node in model.graph.all_nodes():
        node.metadata_props.clear()  # lines of the code that made it, in paths of this machine
    for node in list(model.graph):
        if node.op_type in ("ScatterND", "Gather"):
            _reorder(model.graph, node)
        elif node.op_type == "Transpose" and onnxruntime:
            _take_first(model.graph, node)
    _share_integers(model.graph)
    RemoveUnusedNodesPass()(model)


def _unless_larger(node: Any) -> bool | None:
    """False where numbers would take the place of fewer ones, such as a table of position biases
    that of the layers which compute it; a runtime works it out when it loads the file. Else None:
    the exporter's own rules."""
    [made] = node.outputs[:1]
    if made.dtype is None or not made.dtype.is_floating_point() or made.shape is None:
        return None
    sizes = [given.const_value.size for given in node.inputs if given is not None]
    larger = made.shape.is_static() and math.prod(made.shape) > max(SMALL, sum(sizes))
    return False if larger else None


def _reorder(graph: Any, node: Any) -> None:
    """Rows are put in another order by one copy, where the exporter writes them into zeros first:
    those of windows in which no slot stays empty. And by none, where they are in that order."""
    import onnx_ir

    data, index = node.inputs[:2]
    values, axis = onnx_ir.convenience.get_const_tensor(index), node.attributes.get_int("axis", 0)
    if values is None or data.shape is None or axis or "reduction" in node.attributes:
        return
    order = values.numpy().reshape(-1)
    in_order = np.arange(order.size)
    writes = node.op_type == "ScatterND"
    of_rows = values.shape == ((order.size, 1) if writes else (order.size,))
    if not of_rows or data.shape[0] != order.size or not np.array_equal(np.sort(order), in_order):
        return
    [old], rows = node.outputs, node.inputs[2 if writes else 0]
    if np.array_equal(order, in_order):
        old.replace_all_uses_with(rows, replace_graph_outputs=True)
        graph.remove(node, safe=True)
    elif writes:
        inverse = _integers(graph, f"{node.name}_inverse", np.argsort(order))
        new = onnx_ir.node("Gather", [rows, inverse], {"axis": 0}, name=node.name)
        onnx_ir.convenience.replace_nodes_and_values(graph, node, [node], [new], [old], new.outputs)


def _take_first(graph: Any, node: Any) -> None:
    """Queries, keys and values are each taken from the product that has them, and then transposed:
    ONNX Runtime transposes four axes in half of the time that it takes for five. OpenVINO's own
    attention is a little slower with them."""
    import onnx_ir

    [rows], [whole] = node.inputs, node.outputs
    [first, *rest] = node.attributes.get_ints("perm", [0])
    taken = [(use, *use.outputs[0].consumers()) for use in whole.consumers()]
    if not first or not taken or whole.is_graph_output() or not all(map(_is_taken, taken)):
        return
    axis = _integers(graph, f"{node.name}_axis", np.array([first]))
    perm = [place - (place > first) for place in rest]
    for part, squeezed in taken:
        one = onnx_ir.node("Slice", [rows, *part.inputs[1:3], axis])
        flat = onnx_ir.node("Squeeze", [*one.outputs, axis])
        new = onnx_ir.node("Transpose", flat.outputs, {"perm": perm})
        onnx_ir.convenience.replace_nodes_and_values(
            graph, part, [part, squeezed], [one, flat, new], squeezed.outputs, new.outputs
        )
    graph.remove(node, safe=True)


def _is_taken(nodes: tuple[Any, ...]) -> bool:
    """Whether these nodes take what is at one place of the first axis."""
    if [node.op_type for node in nodes] != ["Slice", "Squeeze"]:
        return False
    (_, _, _, *along), (_, axes) = (node.inputs for node in nodes)
    return [_values(given) for given in (*along, axes)] == [[0], [0]]


def _values(given: Any) -> list[int] | None:
    import onnx_ir

    values = onnx_ir.convenience.get_const_tensor(given)
    return None if values is None else values.numpy().tolist()


def _integers(graph: Any, name: str, values: Any) -> Any:
    """A new table of integers in the graph."""
    import onnx_ir

    table = onnx_ir.tensor(values, name=name)
    kind, shape = onnx_ir.TensorType(table.dtype), onnx_ir.Shape(values.shape)
    given = onnx_ir.Value(name=name, type=kind, shape=shape, const_value=table)
    graph.register_initializer(given)
    return given


def _share_integers(graph: Any) -> None:
    """Equal tables of integers are one: each block has its index of positions and of windows."""
    import onnx_ir

    first: dict[Any, Any] = {}
    for value in list(graph.initializers.values()):
        if value.dtype == onnx_ir.DataType.INT64:
            table = value.const_value.numpy()
            kept = first.setdefault((table.shape, table.tobytes()), value)
            if kept is not value:
                value.replace_all_uses_with(kept)
