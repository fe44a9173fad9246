"""torch.compile makes one graph of the whole network, in which sizes may change."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers import (
    assert_same,
    assert_same_to_scale,
    newer_compiler,
    noise,
    perturb,
    shifted_block,
    tiny,
    without_mask,
)
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func
from torch._inductor import config as inductor

import hierarch
from hierarch.engine.onednn import compiled_linear, compiled_outer
from hierarch.nn.init import linear as Linear

HEAD = {"num_classes": 5}
STAGES = [{"dim": 8, "depth": 2}, {"dim": 16, "depth": 1}]


@pytest.fixture(autouse=True)
def compiler():
    """A fresh one, which takes numbers such as a norm's epsilon for constants from the start:
    otherwise it finds so after a first trace, and begins again."""
    torch.compiler.reset()
    with torch._dynamo.config.patch(specialize_float=True):
        yield


def outputs_and_gradients(model, images, run):
    model.zero_grad()
    found = run(images)
    outputs = found if isinstance(found, tuple) else (found,)
    sum(out.square().sum() for out in outputs).backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.requires_grad]
    return [*(out.detach() for out in outputs), *gradients]


@pytest.mark.parametrize("mixer", ["window_attention", "window_mlp", "cosine_window_attention"])
def test_compiled_outputs_and_gradients_equal_eager_ones(mixer):
    model = perturb(hierarch.build(tiny(mixer, stages=STAGES, head=HEAD)))
    images = noise(2, 3, 37, 50)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    expected = outputs_and_gradients(model, images, model)
    assert_same_to_scale(outputs_and_gradients(model, images, compiled), expected)


@pytest.mark.parametrize("mixer", ["window_attention", "cosine_window_attention"])
def test_compiled_without_the_mask_outputs_and_gradients_equal_eager_ones(mixer):
    spec = without_mask(tiny(mixer, stages=STAGES, head=HEAD))
    model, images = perturb(hierarch.build(spec)), noise(2, 3, 37, 50)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    expected = outputs_and_gradients(model, images, model)
    assert_same_to_scale(outputs_and_gradients(model, images, compiled), expected)


@pytest.mark.parametrize("per", ["block", "stage"])
def test_compiled_in_training_with_checkpointing(per):
    model = perturb(hierarch.build(tiny(stages=STAGES[:1], head=HEAD))).train()
    images = noise(2, 3, 37, 50)
    expected = outputs_and_gradients(model, images, model)
    model.set_grad_checkpointing(per=per)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert_same_to_scale(outputs_and_gradients(model, images, compiled), expected)


@newer_compiler
@pytest.mark.parametrize(
    ("mixer", "fields", "grad"),
    [
        ("window_attention", {}, False),
        ("window_attention", {}, True),
        ("window_attention", {"shift_mask": False}, True),
        ("window_mlp", {}, True),
    ],
)
def test_compiled_once_for_changing_sizes(mixer, fields, grad):
    model = shifted_block(mixer, **fields)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    # as users have it, once
    numbers_are_constants = grad or mixer != "window_attention"
    floats = torch._dynamo.config.patch(specialize_float=numbers_are_constants)
    with torch.set_grad_enabled(grad), floats:
        compiled(noise(2, 3, 75, 101))
        with torch.compiler.set_stance("fail_on_recompile"):
            for batch, height, width in [(3, 83, 90), (2, 97, 131)]:
                images = noise(batch, 3, height, width)
                assert_same(compiled(images), model(images))


class Graphs(list):
    """A compiler backend that records graphs and runs them unchanged."""

    def __call__(self, graph, inputs):
        self.append(graph)
        return graph.forward


def keeping(graphs):
    """The same for a training step: graphs of the forward and the backward pass."""

    def keep(graph, inputs):
        return make_boxed_func(graphs(graph, inputs))

    return aot_autograd(fw_compiler=keep)


@newer_compiler
def test_one_program_serves_all_sizes_of_several_windows():
    """Through regular windows, and shifted ones on the grid of a merging, whose sizes are the more
    intricate expressions; `test_compiled_once_for_changing_sizes` shifts on the stem's. All mixers
    of windows are cut by the same code."""
    regular = {"type": "window_attention", "head_dim": 4, "window_size": 7}
    shifted = regular | {"shift_size": 3}
    stages = [{"dim": 8, "depth": 1, "mixer": regular}, {"dim": 16, "depth": 1, "mixer": shifted}]
    spec = tiny(stages=stages, head=HEAD) | {"mixer": regular}
    model, graphs = perturb(hierarch.build(spec)), Graphs()
    compiled = torch.compile(model, backend=graphs, fullgraph=True, dynamic=True)
    several = [(384, 512), (224, 224), (256, 256), (320, 320), (64, 96), (416, 736)]
    # sizes with padded patches or mergings get their own program, and so does a map of one window
    with torch.no_grad():
        for sizes, count in [(several, 1), ([(75, 101), (75, 101)], 2), ([(32, 40)], 3)]:
            for height, width in sizes:
                images = noise(2, 3, height, width)
                assert_same(compiled(images), model(images))
            assert len(graphs) == count


@newer_compiler
@inductor.patch({"cpp.simdlen": 1})  # sooner made than vectors, and laid out alike
def test_one_step_serves_all_sizes():
    entry = {"type": "window_attention", "head_dim": 4, "window_size": 4, "shift_size": 2}
    spec = tiny(stages=[{"dim": 8, "depth": 1}], head=HEAD) | {"mixer": entry}
    model = perturb(hierarch.build(spec))
    # by inductor: it lays out what a step keeps
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    # no two sizes alike, which torch takes for one
    outputs_and_gradients(model, noise(2, 3, 80, 112), compiled)
    with torch.compiler.set_stance("fail_on_recompile"):
        for batch, height, width in [(3, 64, 96), (4, 100, 72), (2, 128, 44)]:
            images = noise(batch, 3, height, width)
            expected = outputs_and_gradients(model, images, model)
            assert_same_to_scale(outputs_and_gradients(model, images, compiled), expected)


@newer_compiler
@pytest.mark.parametrize("mixer", ["window_attention", "cosine_window_attention"])
def test_compiled_windows_are_not_views_of_a_rolled_map(mixer):
    # which torch's compiler takes long to simplify where sizes are symbolic
    model, graphs = shifted_block(mixer), Graphs()
    with torch.no_grad():
        torch.compile(model, backend=graphs, fullgraph=True)(noise(2, 3, 64, 48))
    assert calls_in(graphs[0], "index_copy") > 0
    assert calls_in(graphs[0], "roll") == calls_in(graphs[0], "pad") == 0


def calls_in(graph, name):
    nodes = (node for module in graph.modules() for node in module.graph.nodes)
    return sum(name in str(node.target) for node in nodes if node.op.startswith("call"))


def linears_in(graph, operator="linear"):
    return calls_in(graph, f"hierarch.{operator}")


@newer_compiler
def test_compiled_inference_uses_oneDNN(onednn_faster):
    model, graphs = shifted_block("window_attention"), Graphs()
    images = noise(2, 3, 37, 50)
    compiled = torch.compile(model, backend=graphs, fullgraph=True)
    with torch.no_grad():
        assert_same(compiled(images), model(images))
        exported = torch.export.export(model, (images,))
        compiled.bfloat16()(images.bfloat16())
        model.float()
    assert [linears_in(graph) for graph in graphs] == [5, 0]
    assert linears_in(exported.graph_module) == 0


@newer_compiler
@pytest.mark.parametrize("frozen", ["", "bias", "weight"])
def test_a_compiled_training_step_uses_oneDNN(frozen, onednn_faster):
    model, graphs = shifted_block("window_attention"), Graphs()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not (frozen and name.endswith(f"mlp.fc1.{frozen}")))
    images = noise(2, 3, 37, 50)
    expected = outputs_and_gradients(model, images, model)
    with torch._dynamo.config.patch(error_on_recompile=True):
        compiled = torch.compile(model, backend=keeping(graphs), fullgraph=True)
        for _ in range(2):
            assert_same_to_scale(outputs_and_gradients(model, images, compiled), expected)
    # backward, for the gradient of each one's input, and of its weight
    assert [linears_in(graph) for graph in graphs] == [5, 4]
    assert [linears_in(graph, "outer") for graph in graphs] == [0, 5 - (frozen == "weight")]


def test_a_compiled_step_has_gradients_whatever_would_be_frozen_without():
    layer, x = perturb(Linear(8, 5)), noise(3, 8)
    with inductor.patch(freezing=True):
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        found = torch.autograd.grad(compiled(x).square().sum(), layer.parameters())
    expected = torch.autograd.grad(layer(x).square().sum(), layer.parameters())
    assert_same_to_scale(found, expected)


@newer_compiler
@pytest.mark.parametrize("grad", [False, True])
def test_a_compiled_layer_can_be_transformed(grad):
    layer, x = Linear(8, 5), noise(3, 2, 8)
    transforms = [
        torch.vmap(layer),
        torch.func.grad(lambda x: layer(x).square().sum()),
        lambda x: torch.func.jvp(layer, (x,), (x,)),
    ]
    for transformed in transforms:
        with torch.set_grad_enabled(grad):
            compiled = torch.compile(transformed, backend="aot_eager", fullgraph=True)
            assert_same(compiled(x), transformed(x))


@pytest.mark.parametrize("activation", ["none", "gelu"])
@pytest.mark.parametrize("shape", [(8,), (3, 8), (2, 3, 8), (0, 8)])
def test_the_fake_kernel_of_a_linear_layer(shape, activation):
    layer = Linear(8, 5).requires_grad_(False)
    for bias in (layer.bias, None):
        torch.library.opcheck(compiled_linear, (noise(*shape), layer.weight, bias, activation))


@pytest.mark.parametrize("shape", [(8,), (3, 8), (2, 3, 8)])
@pytest.mark.parametrize("width", [5, 11])
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # of what it makes itself
def test_the_fake_kernel_of_its_gradients(shape, width):
    layer, x = perturb(Linear(8, width)), noise(*shape).requires_grad_()
    inputs = (x, layer.weight, layer.bias)
    torch.library.opcheck(compiled_linear, inputs)

    def gradients(linear):
        return torch.autograd.grad(linear(*inputs).square().sum(), inputs)

    assert_same_to_scale(gradients(compiled_linear), gradients(F.linear))
    torch.library.opcheck(compiled_outer, (noise(*shape[:-1], width), noise(*shape)))


def as_large_as_the_attention_maps(graph, *, windows, tokens):
    """Nodes of a graph, except attention, with an element per window and pair of its tokens."""
    nodes = [n for n in graph.nodes if n.op == "call_function"]
    values = [n.meta.get("example_value", n.meta.get("val")) for n in nodes]
    tensors = [x for x in values if isinstance(x, torch.Tensor)]
    assert len(tensors) > 20
    return [x.shape for x in tensors if x.numel() >= windows * tokens**2]


@newer_compiler
@pytest.mark.parametrize(("batch", "least", "parts"), [(1, 0, 1), (5, 2, 2), (3, 0, 3), (7, 1, 4)])
def test_a_program_takes_some_images_at_a_time_through_a_stage(
    monkeypatch, onednn_faster, batch, least, parts
):
    model, graphs, seen = shifted_block("window_attention"), Graphs(), []
    images = noise(batch, 3, 64, 48)
    monkeypatch.setattr("hierarch.engine.compiled.MIN_CHUNK_BYTES", max(1, least * 16 * 12 * 8 * 4))
    compiled = torch.compile(model, backend=graphs, fullgraph=True)
    with torch.no_grad():
        assert_same(compiled(images), model(images))
        model.stages[0].blocks[0].register_forward_hook(lambda *call: seen.append(len(call[2])))
        assert_same(compiled(images), model(images))
        assert seen == [batch, batch]
    assert [linears_in(graph) for graph in graphs] == [1 + 4 * parts, 5]


@newer_compiler
@pytest.mark.parametrize("mixer", ["window_attention", "cosine_window_attention"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_masks_do_not_grow_with_the_image(mixer, dynamic):
    layer = shifted_block(mixer, window_size=7, shift_size=3).stages[0].blocks[0].mixer
    x, graphs = noise(2, 70, 80, 8), Graphs()
    limits = {"windows": 10 * 12, "tokens": 49}  # a token of a window has 24 numbers at most
    with torch.no_grad():
        compiled = torch.compile(layer, backend=graphs, fullgraph=True, dynamic=dynamic)
        assert_same(compiled(x), layer(x))
        assert as_large_as_the_attention_maps(graphs[0].graph, **limits) == []
        exported = torch.export.export(layer, (x,))
    assert as_large_as_the_attention_maps(exported.graph, **limits), "an export has such a mask"
