"""Lists of images of several sizes: the outputs of each are those of it alone."""

from __future__ import annotations

import pytest
import torch
from helpers import noise, perturb, tiny
from hypothesis import given, settings
from hypothesis import strategies as st

import hierarch
from hierarch import engine
from hierarch.engine import lists, streaming
from hierarch.nn.backbone import Backbone

HEAD = {"num_classes": 5}
WINDOWED = ["window_attention", "cosine_window_attention", "window_mlp", "grid_attention"]
SIDES = [(40, 56), (33, 70), (64, 64), (9, 12), (40, 56), (1, 100)]


def images(sides=SIDES, in_chans=3):
    return [noise(in_chans, *side, seed=i) for i, side in enumerate(sides)]


def network(mixer="window_attention", **fields):
    spec = tiny("window_attention", head=HEAD) | fields
    if mixer != "window_attention":
        own = {"type": mixer, "head_dim": 4, "window_size": 4}
        shifted = {} if mixer == "grid_attention" else {"shift_size": 2}
        spec["mixer"] = [own, own | shifted]
    return perturb(hierarch.build(spec))


def alone(model, given):
    """The outputs of each image, by the definition."""
    with engine.disabled():
        return model(given)


def assert_close(found, wanted):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        if isinstance(one, tuple):
            assert_close(one, other)
        else:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mixer", WINDOWED)
@torch.no_grad()
def test_every_image_has_the_logits_of_it_alone(mixer):
    model, given = network(mixer), images()
    assert lists.run_lists.refuses(model, given) is None
    found = model(given)
    assert [logits.shape for logits in found] == [(5,)] * len(given)
    assert_close(found, alone(model, given))
    assert_close(found, [model(image[None])[0] for image in given])


@pytest.mark.parametrize("small_map", ["pad", "pad_shift", "clamp", "clamp_first", "clamp_both"])
@torch.no_grad()
def test_maps_that_shrink_windows_are_mixed_apart(small_map):
    mixer = {"type": "window_attention", "head_dim": 4, "window_size": 4, "small_map": small_map}
    model = perturb(hierarch.build(tiny() | {"mixer": [mixer, mixer | {"shift_size": 2}]}))
    given = images()
    found = model(given)
    assert [len(maps) for maps in found] == [3] * len(given)
    assert_close(found, alone(model, given))
    assert found[1][0].shape == (8, 9, 18)


@given(
    st.lists(st.tuples(st.integers(1, 70), st.integers(1, 70)), min_size=2, max_size=6),
    st.sampled_from([1, 40, "auto"]),
    st.integers(1, 2),
)
@settings(deadline=None, max_examples=25)
@torch.no_grad()
def test_any_sizes_and_tiles(sides, tile, threads):
    model, given = network(), images(sides)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        streaming.set_tile_size(model, tile)
        assert_close(model(given), alone(model, given))
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def test_images_are_left_as_they_are():
    model, given = network(), images()
    copies = [image.clone() for image in given]
    model(given)
    assert all(map(torch.equal, given, copies))


@torch.no_grad()
def test_videos_of_several_lengths():
    mixer = {"type": "window_attention", "head_dim": 4, "window_size": [2, 3, 3]}
    spec = {
        "input_size": [8, 16, 16],
        "stem": {"type": "patch_embed", "patch_size": [2, 2, 2]},
        "mixer": [mixer, mixer | {"shift_size": [1, 1, 1], "small_map": "clamp"}],
        "stages": [{"dim": 8, "depth": 2}],
        "head": HEAD,
    }
    model, given = perturb(hierarch.build(spec)), images([(4, 10, 12), (7, 9, 9), (2, 2, 3)])
    assert_close(model(given), alone(model, given))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda model: model.train(), "training mode"),
        (lambda model: streaming.set_tile_size(model, None), "a tile size of None"),
    ],
)
@torch.no_grad()
def test_others_run_one_by_one(change, reason):
    model, given = network(), images()
    change(model)
    assert reason in lists.run_lists.refuses(model, given).reason
    assert_close(model(given), alone(model, given))


class Doubled(Backbone):
    """A network that somebody changed."""

    def forward_features(self, images):
        return 2 * super().forward_features(images)


class Counting(Backbone):
    calls = 0

    def forward(self, images):
        self.calls += 1
        return super().forward(images)


@pytest.mark.parametrize("cls", [Doubled, Counting])
@torch.no_grad()
def test_a_subclass_computes_what_it_says(cls):
    plain, given = network(), images()
    model = cls(plain.spec).eval()
    model.load_state_dict(plain.state_dict())
    found, before = model(given), getattr(model, "calls", 0)
    assert_close(found, [model(image[None])[0] for image in given])
    assert before == (1 + len(given) if cls is Counting else 0)


@torch.no_grad()
def test_a_hook_and_a_replaced_forward_see_every_image():
    model, given, seen = network(), images(), []
    hook = model.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    model(given)
    assert len(seen) == 1 + len(given)
    hook.remove()
    replaced = model.forward
    model.forward = lambda images: seen.append(images) or replaced(images)
    seen.clear()
    model(given)
    assert len(seen) == 1 + len(given)


def test_with_autograd_every_image_runs_by_itself():
    model, given = network(), images(SIDES[:2])
    assert lists.run_lists.refuses(model, given).reason == "autograd is on"
    sum(logits.sum() for logits in model(given)).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@torch.no_grad()
def test_a_mixer_without_windows_takes_lists_as_well():
    model = perturb(hierarch.build(tiny(head=HEAD) | {"mixer": "pooling"}))
    assert_close(model(images()), alone(model, images()))


@torch.no_grad()
def test_short_lists_and_wrong_images():
    model = network()
    assert model([]) == []
    [logits] = model(images(SIDES[:1]))
    assert logits.shape == (5,)
    with pytest.raises(ValueError, match=r"images should be \(batch, 3, height, width\)"):
        model([noise(3, 8, 8), noise(1, 8, 8)])
    with pytest.raises(ValueError, match=r"images should be \(batch, 3, height, width\)"):
        model([noise(3, 8, 8), noise(2, 3, 8, 8)])
