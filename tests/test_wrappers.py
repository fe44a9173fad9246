"""Networks with layers that other libraries wrap, replace, hook, quantize or prune.

The rule: replace any leaf by a wrapper that computes the same, and the network computes the same;
by one that computes something else, and the network computes that. It is tested with the real
libraries, against `engine.disabled()`.
"""

from __future__ import annotations

import contextlib
import copy
from functools import partial
from operator import itemgetter

import pytest
import torch
from helpers import assert_same, assert_same_to_scale, noise, perturb, tiny
from peft import LoraConfig, get_peft_model
from timm.utils import ModelEmaV3
from torch import nn
from torch.autograd import forward_ad
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.utils import parametrizations, prune

import hierarch
from hierarch import engine
from hierarch.nn import functional
from hierarch.nn.stage import Stage

HEAD = {"num_classes": 5}
MIXERS = {
    "window_attention": {"head_dim": 4, "window_size": 4, "shift_size": 2},
    "cosine_window_attention": {"head_dim": 4, "window_size": 4, "shift_size": 2},
    "window_mlp": {"head_dim": 4, "window_size": 4, "shift_size": 2},
    "grid_attention": {"head_dim": 4, "window_size": 4},
    "global_attention": {"head_dim": 4},
    "linear_attention": {"head_dim": 4},
    "neighborhood_attention": {"head_dim": 4, "kernel_size": 3},
    "separable_conv": {},
    "token_mlp": {"grid": 10, "hidden_dim": 6},
}
IMAGES = noise(2, 3, 40, 56)


def network(mixer, std=0.1):
    entry = {"type": mixer, **MIXERS[mixer]}
    spec = tiny(head=HEAD, stages=[{"dim": 8, "depth": 2}, {"dim": 16, "depth": 1}])
    return perturb(hierarch.build(spec | {"mixer": entry}), std=std)


def gradients(model):
    model.zero_grad()
    images = IMAGES.clone().requires_grad_()
    model(images).square().sum().backward()
    return [images.grad, *(p.grad for p in model.parameters() if p.grad is not None)]


def assert_the_engine_changes_nothing(model):
    with torch.no_grad():
        found = model(IMAGES)
        with engine.disabled():
            assert_same(found, model(IMAGES))
    for training in (False, True):
        model.train(training)
        found = gradients(model)
        with engine.disabled():
            assert_same_to_scale(found, gradients(model))
    return model.eval()


def assert_the_engine_changes_no_map(model):
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            found = model(IMAGES)
            with engine.disabled():
                assert_same(found, model(IMAGES))
    return found


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("mixer", MIXERS)
def test_an_adapter_of_peft_computes_the_same_as_when_merged(mixer, dora):
    plain = network(mixer)
    layers = [name for name, layer in plain.named_modules() if type(layer) is nn.Linear]
    config = LoraConfig(
        r=2, lora_alpha=1, target_modules=layers, use_dora=dora, init_lora_weights=False
    )
    with torch.no_grad():
        before = plain(IMAGES)
    model = get_peft_model(plain, config).eval()
    assert_the_engine_changes_nothing(model)
    with torch.no_grad():
        adapted = model(IMAGES)
        assert (adapted - before).abs().max() > 1e-3
        assert_same(model.merge_and_unload()(IMAGES), adapted)


@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization.*", "ignore:.*TypedStorage.*")
@pytest.mark.filterwarnings("ignore")  # torch deprecates this quantization, which is still used
@pytest.mark.parametrize("mixer", ["window_attention", "separable_conv"])
def test_dynamic_quantization_finds_the_layers(mixer):
    model = network(mixer)
    quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    swapped = [m for m in quantized.modules() if "dynamic" in type(m).__module__]
    assert len(swapped) == sum(type(m) is nn.Linear for m in model.modules())
    with torch.no_grad():
        found = quantized(IMAGES)
        with engine.disabled():
            assert_same(found, quantized(IMAGES))
        assert 0 < (found - model(IMAGES)).abs().max() < 0.1 * model(IMAGES).abs().max() + 0.1


newer_torchao = pytest.mark.skipif(
    torch.__version__ < "2.11", reason="torchao has these classes for a newer torch"
)


def int8(mixer, config):
    """A quantized network, and what it computes before and after."""
    from torchao import quantization

    model = network(mixer)
    with torch.no_grad():
        before = model(IMAGES)
        quantization.quantize_(model, getattr(quantization, config)())
        weights = [layer.weight for layer in model.modules() if type(layer) is nn.Linear]
        assert {type(weight) for weight in weights} == {quantization.Int8Tensor}
        return model, before, model(IMAGES)


@newer_torchao
@pytest.mark.parametrize("mixer", MIXERS)
def test_int8_weights_of_torchao(mixer):
    model, before, after = int8(mixer, "Int8WeightOnlyConfig")
    assert 1e-4 < (after - before).abs().max() < 0.1 * before.abs().max()
    assert_the_engine_changes_no_map(model)


@newer_torchao
@pytest.mark.parametrize("mixer", MIXERS)
def test_int8_activations_of_torchao(mixer):
    """An activation is rounded to 8 bits, up or down by its last bit in float32: therefore layers
    are compared one by one, and the network to what the last bit of an image does."""
    model, before, after = int8(mixer, "Int8DynamicActivationInt8WeightConfig")
    assert 1e-4 < (after - before).abs().max() < 0.1 * before.abs().max()
    with torch.no_grad(), engine.disabled():
        wanted = model(IMAGES)
        moved = [model(IMAGES * (1 + last)) for last in (-2e-7, -1e-7, 1e-7, 2e-7)]
        rounding = max(float((one - wanted).abs().max()) for one in moved)
        torch.testing.assert_close(after, wanted, rtol=0, atol=3 * rounding + 1e-5)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            steps = engine.explain(model, IMAGES).steps
            layers = {step.way for step in steps if step.operation in ("linear", "mlp")}
            assert layers == {"definition"}
            assert "streamed" not in {step.way for step in steps}
            for layer in model.modules():
                if type(layer) is nn.Linear:
                    x = noise(6, layer.in_features)
                    assert torch.equal(functional.linear(layer, x), layer(x))


def pruned(layer):
    prune.l1_unstructured(layer, "weight", amount=0.5)


CHANGES = {
    "pruned": pruned,
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("mixer", ["window_attention", "cosine_window_attention", "window_mlp"])
def test_pruned_and_parametrized_layers(mixer, change):
    model = network(mixer)
    with torch.no_grad():
        before = model(IMAGES)
        for layer in list(model.modules()):
            if type(layer) is nn.Linear:
                CHANGES[change](layer)
        if change != "weight_norm":  # which computes the same
            assert (model(IMAGES) - before).abs().max() > 1e-4
    with torch.no_grad():
        found = model(IMAGES)
        with engine.disabled():
            assert_same(found, model(IMAGES))
    if change != "spectral_norm":  # in training, each call goes on with its power iteration
        assert_the_engine_changes_nothing(model)


def test_an_average_of_models():
    model = network("window_attention")
    average = torch.optim.swa_utils.AveragedModel(model)
    other = perturb(copy.deepcopy(model), seed=1)
    average.update_parameters(model)
    average.update_parameters(other)
    assert_the_engine_changes_nothing(average)


def test_an_average_of_timm():
    model = network("window_attention")
    average = ModelEmaV3(model, decay=0.75)
    first = {name: weight.clone() for name, weight in model.state_dict().items()}
    average.update(perturb(model, seed=1))
    for name, weight in model.state_dict().items():
        assert_same(average.module.state_dict()[name], 0.75 * first[name] + 0.25 * weight)
    with torch.no_grad():
        assert (average(IMAGES) - model(IMAGES)).abs().max() > 1e-3
    assert_the_engine_changes_nothing(average)


class Other(nn.Module):
    """A wrapper of a leaf that computes the same, or something else."""

    def __init__(self, leaf, change):
        super().__init__()
        self.leaf, self.change = leaf, change

    def forward(self, *args, **kwargs):
        out = self.leaf(*args, **kwargs)
        # not a factor, which a norm behind it takes away
        return out + self.change * out.square() if self.change else out


LEAVES = (nn.Linear, nn.Conv2d, nn.LayerNorm, nn.GELU)


@pytest.mark.parametrize("change", [0.0, 0.5])
@pytest.mark.parametrize("mixer", MIXERS)
def test_each_leaf_may_be_replaced(mixer, change):
    model = network(mixer)
    with torch.no_grad():
        before = model(IMAGES)
    names = [name for name, leaf in model.named_modules() if type(leaf) in LEAVES]
    assert len(names) > 10
    for name in names:
        changed = copy.deepcopy(model)
        if ".cpb_mlp." in name:
            continue  # inside a position bias: tested with all others below
        changed.set_submodule(name, Other(changed.get_submodule(name), change))
        with torch.no_grad():
            found = changed(IMAGES)
            with engine.disabled():
                assert_same(found, changed(IMAGES))
            difference = (found - before).abs().max()
        assert difference > 1e-6 if change else difference < 1e-5, name
    for name in names:
        model.set_submodule(name, Other(model.get_submodule(name), change))
    assert_the_engine_changes_nothing(model)


@pytest.mark.parametrize("mixer", MIXERS)
def test_weights_that_are_no_parameters(mixer):
    """As inside FSDP, and of whoever works weights out in a hook."""
    model = network(mixer)
    source = dict(model.named_parameters())

    def put(scale):
        """Weights of which autograd knows where they are from."""
        for name, weight in source.items():
            owner, _, own = name.rpartition(".")
            module = model.get_submodule(owner)
            module._parameters.pop(own, None)
            object.__setattr__(module, own, weight * scale)

    def outputs_and_gradients():
        out = []
        for scale in (1.0, 1.5):
            put(scale)
            with torch.no_grad():
                out.append(model(IMAGES))
            gradients = torch.autograd.grad(model(IMAGES).square().sum(), source.values())
            out += gradients
        return out

    found = outputs_and_gradients()
    assert not list(model.parameters())
    with engine.disabled():
        assert_same_to_scale(found, outputs_and_gradients())


OUTPUTS = {"out_indices": [0, 1]}


def many(fields=None):
    """A network in which everything may be wrapped that is not a leaf."""
    stem = {"type": "patch_embed", "norm": "layer_norm"}
    position = {"type": "absolute", "grid": 6}
    stages = [{"dim": 8, "depth": 2}, {"dim": 16, "depth": 1}]
    spec = tiny(stem=stem, position_embedding=position, stages=stages, **(fields or {"head": HEAD}))
    return perturb(hierarch.build(spec), std=0.1)


def called(model):
    """Names of modules that are called, and made of others."""
    inner = [name for name, module in model.named_modules() if any(module.children())]
    return [name for name in inner if name and not name.endswith(("stages", "blocks"))]


@pytest.mark.parametrize("change", [0.0, 0.5])
@pytest.mark.parametrize("fields", [{"head": HEAD}, OUTPUTS], ids=["head", "maps"])
def test_each_stage_block_and_the_like_may_be_replaced(fields, change):
    model = many(fields)
    names = called(model)
    assert {"stem", "stages.0", "stages.1.blocks.0", "stages.1.downsample"} < {*names}
    with torch.no_grad():
        before = model(IMAGES)
    for name in names:
        changed = copy.deepcopy(model)
        changed.set_submodule(name, Other(changed.get_submodule(name), change))
        found = assert_the_engine_changes_no_map(changed)
        if change:
            assert (found[-1] - before[-1]).abs().max() > 1e-6, name
        else:
            assert_same(found, before)
    for name in reversed(names):  # what is inside first, whose name changes else
        model.set_submodule(name, Other(model.get_submodule(name), change))
    assert_the_engine_changes_no_map(model)


def test_a_module_that_takes_a_stages_place_has_no_norm_of_an_output():
    model = many(OUTPUTS)
    model.stages[1] = nn.MaxPool2d(1)  # of (H, W, C)
    model.set_grad_checkpointing()
    first, second = assert_the_engine_changes_no_map(model)
    with torch.no_grad():
        embedded = model.stages[0](model.embed(IMAGES))
        assert_same(second, embedded.permute(0, 3, 1, 2))
        assert_same(first, model.stages[0].norm(embedded).permute(0, 3, 1, 2))


WRAPPERS = {
    "torch.compile": lambda module: torch.compile(module, backend="eager"),
    "checkpoint_wrapper": checkpoint_wrapper,
    "other": lambda module: Other(module, 0.0),
}


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # of torch.compile's own
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrapped_stages_are_stages(wrapper):
    model = many(OUTPUTS)
    plain = copy.deepcopy(model)
    for i, stage in enumerate(model.stages):
        model.stages[i] = WRAPPERS[wrapper](stage)
    with torch.no_grad():
        assert_same(model(IMAGES), plain(IMAGES))
    decayed = {id(weight) for name, weight in model.named_parameters()}
    kept = [dict(model.named_parameters())[name] for name in model.no_weight_decay()]
    assert {id(weight) for weight in kept} < decayed
    assert len(kept) == len(plain.no_weight_decay()) == 4
    model.set_grad_checkpointing(per="stage")
    for one in (model, plain):
        sum(out.square().sum() for out in one.train()(IMAGES)).backward()
    found = [weight.grad for weight in model.parameters()]
    assert_same_to_scale(found, [weight.grad for weight in plain.parameters()])
    inner = [module for module in model.modules() if isinstance(module, Stage)]
    assert [stage.grad_checkpointing for stage in inner] == ["stage", "stage"]


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # of torch.compile's own
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_the_classifier_of_a_wrapped_head_is_replaced(wrapper):
    model = many()
    inside = model.head
    model.head = WRAPPERS[wrapper](inside)
    assert model.get_classifier() is inside.fc
    model.reset_classifier(3)
    assert model.get_classifier() is inside.fc
    assert model(IMAGES).shape == (2, 3)
    assert type(model.head) is type(WRAPPERS[wrapper](inside))
    model.head = nn.Flatten()
    with pytest.raises(ValueError, match="the head is a Flatten, without a Head inside"):
        model.reset_classifier(3)


# hooks


def outputs_and_gradients(model):
    with torch.no_grad():
        out = model(IMAGES)
    return [out, *gradients(model)]


def assert_hooks_see_the_same(model, register):
    """`register(see)` returns handles of hooks that call `see` with a tensor, and go on with what
    it returns. What is seen is compared in order, at each place apart if `see` is told one."""
    found = []
    for context in (contextlib.nullcontext, engine.disabled):
        seen = []

        def see(x, place=0, seen=seen):
            if x is None:
                return None
            seen.append((place, x.detach().clone()))
            return x + 0.25 * x.sin()

        with contextlib.ExitStack() as registered:
            for handle in register(see):
                registered.callback(handle.remove)
            with context():
                found.append((seen, outputs_and_gradients(model)))
    (seen, results), (wanted, expected) = found
    seen, wanted = sorted(seen, key=itemgetter(0)), sorted(wanted, key=itemgetter(0))
    assert [place for place, _ in seen] == [place for place, _ in wanted]
    assert_same_to_scale([x for _, x in seen], [x for _, x in wanted])
    assert_same_to_scale(results, expected)
    return len(seen)


def on_output(see):
    """A forward hook that puts a hook on the output's gradient."""

    def hook(module, args, out):
        if out.requires_grad:
            out.register_hook(see)

    return hook


HOOKS = {
    "forward_pre": lambda m, see: m.register_forward_pre_hook(lambda m, args: see(args[0])),
    "forward_pre, with kwargs": lambda m, see: m.register_forward_pre_hook(
        lambda m, args, kwargs: ((see(args[0]),), kwargs), with_kwargs=True
    ),
    "forward": lambda m, see: m.register_forward_hook(lambda m, args, out: see(out)),
    "forward, with kwargs": lambda m, see: m.register_forward_hook(
        lambda m, args, kwargs, out: see(out), with_kwargs=True, prepend=True
    ),
    "forward, always": lambda m, see: m.register_forward_hook(
        lambda m, args, out: see(out), always_call=True
    ),
    "full backward": lambda m, see: m.register_full_backward_hook(
        lambda m, given, grads: (see(given[0]), *given[1:])
    ),
    "full backward pre": lambda m, see: m.register_full_backward_pre_hook(
        lambda m, grads: (see(grads[0]),)
    ),
    "tensor": lambda m, see: m.register_forward_hook(on_output(see)),
}


NOT_CALLED = ("stages", "blocks", "stages.0.norm", "stages.1.norm")


@pytest.mark.parametrize("kind", HOOKS)
def test_hooks_on_any_module(kind):
    model = many()
    for name, module in model.named_modules():
        seen = assert_hooks_see_the_same(model, lambda see, m=module: [HOOKS[kind](m, see)])
        assert seen or name.endswith(NOT_CALLED), name
    everywhere = [module for module in model.modules() if not isinstance(module, nn.ModuleList)]
    assert_hooks_see_the_same(model, lambda see: [HOOKS[kind](m, see) for m in everywhere])


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # where an input is a constant
@pytest.mark.parametrize("kind", ["forward_pre", "forward", "full backward"])
@pytest.mark.parametrize("mixer", [name for name in MIXERS if name != "window_attention"])
def test_hooks_on_any_module_of_any_mixer(mixer, kind):
    model = network(mixer)
    mixer = model.stages[0].blocks[1].mixer
    for module in mixer.modules():
        assert_hooks_see_the_same(model, lambda see, m=module: [HOOKS[kind](m, see)])
    everywhere = [module for module in model.modules() if not isinstance(module, nn.ModuleList)]
    assert_hooks_see_the_same(model, lambda see: [HOOKS[kind](m, see) for m in everywhere])


GLOBAL = torch.nn.modules.module
GLOBAL_HOOKS = {
    "forward_pre": lambda see: GLOBAL.register_module_forward_pre_hook(
        lambda m, args: see(args[0]) if type(m) in LEAVES else None
    ),
    "forward": lambda see: GLOBAL.register_module_forward_hook(
        lambda m, args, out: see(out) if type(m) in LEAVES else None
    ),
    "forward, always": lambda see: GLOBAL.register_module_forward_hook(
        lambda m, args, out: see(out) if type(m) in LEAVES else None, always_call=True
    ),
    "full backward": lambda see: GLOBAL.register_module_full_backward_hook(
        lambda m, given, grads: (see(given[0]), *given[1:]) if type(m) in LEAVES else None
    ),
    "full backward pre": lambda see: GLOBAL.register_module_full_backward_pre_hook(
        lambda m, grads: (see(grads[0]),) if type(m) in LEAVES else None
    ),
}


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # where an input is a constant
@pytest.mark.parametrize("kind", GLOBAL_HOOKS)
@pytest.mark.parametrize("mixer", MIXERS)
def test_hooks_on_all_modules(mixer, kind):
    model = network(mixer)
    count = assert_hooks_see_the_same(model, lambda see: [GLOBAL_HOOKS[kind](see)])
    assert count > 20


@pytest.mark.parametrize("mixer", MIXERS)
def test_hooks_on_weights(mixer):
    model = network(mixer)
    weights = dict(model.named_parameters())

    def before(see):
        return [w.register_hook(partial(see, place=name)) for name, w in weights.items()]

    def after(see):
        """When a weight's gradient is added up; what it returns is not used."""

        def hook(weight, place):
            see(weight.grad, place)

        return [
            weight.register_post_accumulate_grad_hook(partial(hook, place=name))
            for name, weight in weights.items()
        ]

    assert assert_hooks_see_the_same(model, before) == len(weights)
    assert assert_hooks_see_the_same(model, after) == len(weights)


@pytest.mark.parametrize("mixer", MIXERS)
def test_hooks_on_what_is_kept_for_the_backward_pass(mixer):
    model = network(mixer)
    expected = gradients(model)
    packed = []

    def pack(x):
        packed.append(x.shape)
        return x.detach().clone(), x.requires_grad

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept[0]):
        found = gradients(model)
    assert packed
    assert_same_to_scale(found, expected)


@pytest.mark.parametrize("grad", [False, True])
def test_a_hook_that_is_always_called_is_called_where_a_layer_fails(grad):
    def fail(module, args):
        raise RuntimeError("no")

    def note(seen, name, module, args, out):
        seen.append(name)

    for context in (contextlib.nullcontext, engine.disabled):
        model, seen = many(), []
        model.stages[1].blocks[0].mlp.fc2.register_forward_pre_hook(fail)
        for name, module in model.named_modules():
            module.register_forward_hook(partial(note, seen, name), always_call=True)
        with context(), torch.set_grad_enabled(grad), pytest.raises(RuntimeError, match="no"):
            model(IMAGES)
        inside = ["stages.1.blocks.0.mlp", "stages.1.blocks.0", "stages.1", ""]
        assert [name for name in seen if name in inside] == inside
        assert seen.count("stages.0") == 1


# torch.func


def test_per_sample_gradients():
    model = network("window_attention")
    weights = dict(model.named_parameters())

    def loss(weights, image):
        return torch.func.functional_call(model, weights, image[None]).square().sum()

    found = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, IMAGES)
    for i, image in enumerate(IMAGES):
        model.zero_grad()
        model(image[None]).square().sum().backward()
        wanted = [weight.grad for weight in weights.values()]
        assert_same_to_scale([found[name][i] for name in weights], wanted)


@pytest.mark.parametrize("mixer", MIXERS)
def test_a_call_with_other_weights(mixer):
    model, other = network(mixer), perturb(network(mixer), seed=1)
    weights = dict(other.named_parameters())
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            before = model(IMAGES)
            found = torch.func.functional_call(model, weights, IMAGES)
            assert_same(found, other(IMAGES))
            assert (found - before).abs().max() > 1e-3
            assert_same(model(IMAGES), before)
    wanted = torch.autograd.grad(other(IMAGES).square().sum(), weights.values())
    assert_same_to_scale(torch.autograd.grad(found.square().sum(), weights.values()), wanted)


@pytest.mark.parametrize("mixer", MIXERS)
def test_the_jacobian(mixer):
    model = network(mixer)
    image = IMAGES[:1].clone().requires_grad_()
    logits = model(image)[0]
    rows = [torch.autograd.grad(logit, image, retain_graph=True)[0] for logit in logits]
    wanted = torch.stack(rows)
    assert_same_to_scale([torch.func.jacrev(model)(IMAGES[:1])[0]], [wanted])
    tangent = noise(*IMAGES[:1].shape, seed=1)
    along = (wanted * tangent).sum((1, 2, 3, 4))[None]
    out, found = torch.func.jvp(model, (IMAGES[:1],), (tangent,))
    assert_same(out, model(IMAGES[:1]))
    assert_same_to_scale(found, along)
    with forward_ad.dual_level():
        dual = model(forward_ad.make_dual(IMAGES[:1], tangent))
        assert_same_to_scale(forward_ad.unpack_dual(dual).tangent, along)
