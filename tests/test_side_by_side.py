"""The images of a batch are shared among threads, with the same outputs and settings."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time

import pytest
import torch
from helpers import noise, perturb, tiny

import hierarch
from hierarch import engine
from hierarch.engine import batches
from hierarch.engine import threads as threads_module
from hierarch.engine.threads import each

HEAD = {"num_classes": 5}


@pytest.fixture
def threads():
    """Sets torch to two threads, and restores their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield 2
    torch.set_num_threads(before)


@pytest.fixture
def shared(monkeypatch):
    """Records the number of images of each call in a thread, for every shared batch."""
    seen = []

    def watched(run, parts, threads):
        def counted(part):
            seen.append((len(part), torch.get_num_threads(), threading.current_thread()))
            return run(part)

        return each(counted, parts, threads)

    monkeypatch.setattr(batches, "each", watched)
    return seen


def one_by_one(model, images):
    with torch.no_grad(), engine.disabled():
        outputs = [model(image[None]) for image in images]
    if isinstance(outputs[0], tuple):
        return [torch.cat(maps) for maps in zip(*outputs, strict=True)]
    return [torch.cat(outputs)]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("head", [HEAD, None])
@pytest.mark.parametrize("batch", [2, 3, 17])
def test_the_result_is_that_of_each_image_alone(threads, shared, mode, head, batch):
    model = perturb(hierarch.build(tiny(head=head)))
    images = noise(batch, 3, 40, 56)
    with mode():
        found = model(images)
    found = list(found) if isinstance(found, tuple) else [found]
    assert all(one.is_inference() is (mode is torch.inference_mode) for one in found)
    assert sum(count for count, _, _ in shared) == batch
    assert {inside for _, inside, _ in shared} == {1}
    assert threading.current_thread() not in {thread for _, _, thread in shared}
    shared.clear()
    for one, other in zip(found, one_by_one(model, images), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    assert shared == []


@pytest.mark.parametrize("shape", [(3, 32, 32), (4, 4, 32, 32), (2, 32, 32, 3), (3, 32), ()])
def test_the_error_for_a_wrong_shape_has_the_whole_shape(threads, shared, shape):
    message = rf"\(batch, 3, height, width\), got {re.escape(str(tuple(shape)))}$"
    model = hierarch.build(tiny(head=HEAD)).eval()
    with torch.no_grad(), pytest.raises(ValueError, match=message):
        model(noise(*shape))
    assert shared == []


@pytest.mark.parametrize("can_be_asked", [True, False])
def test_the_number_of_threads_of_other_threads_does_not_change(threads, monkeypatch, can_be_asked):
    monkeypatch.setattr(threads_module, "_pools", {})
    if not can_be_asked:
        monkeypatch.setattr(threads_module, "_uses_one", lambda: False)
    model = perturb(hierarch.build(tiny(head=HEAD)))
    with torch.no_grad():
        model(noise(4, 3, 32, 32))
    found = []
    new = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    new.start()
    new.join()
    assert [torch.get_num_threads(), *found] == [2, 2]
    assert set(each(lambda item: torch.get_num_threads(), [1, 2], threads)) == {1}


MKLS = """
import ctypes
import threading

import torch

from hierarch.engine.threads import each

mkl = ctypes.CDLL(torch._C.__file__)
if not hasattr(mkl, "mkl_serv_get_dynamic"):
    print("none")
    raise SystemExit


def state():
    of_thread = mkl.MKL_Set_Num_Threads_Local(0)  # returns what it was
    mkl.MKL_Set_Num_Threads_Local(of_thread)
    return mkl.mkl_serv_get_dynamic(), of_thread


before = state()
inside = each(lambda item: (torch.get_num_threads(), state()[1]), [1, 2], 2)
new = threading.Thread(target=torch.get_num_threads)  # takes over what was set, if it was
new.start()
new.join()
after = state()
torch.set_num_threads(torch.get_num_threads())
print(before == after, set(inside), before[0], state()[0])
"""


def test_mkls_settings_do_not_change():
    command = [sys.executable, "-c", MKLS]
    ran = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    if ran.stdout.strip() == "none":
        pytest.skip("torch has no MKL here, or not inside it")
    assert ran.stdout.strip() == "True {(1, 1)} 1 0"  # the 0 where torch itself was asked


def test_subnormal_numbers_are_flushed_in_the_pool_only(threads):
    subnormal = torch.full((64,), 1e-40)
    inside = each(lambda factor: subnormal * factor, [1, 1], threads)
    assert not any(part.any() for part in inside)
    assert (subnormal * 1).all()


@pytest.mark.parametrize("watcher", ["training", "gradient", "hook", "autocast", "few", "norm"])
def test_a_batch_is_not_split_where_that_could_be_observed(threads, shared, watcher):
    norm = "group_norm" if watcher == "norm" else "layer_norm"
    model = perturb(hierarch.build(tiny(head=HEAD, norm=norm)))
    images = noise(1 if watcher == "few" else 4, 3, 32, 32)
    if watcher == "hook":
        model.stages[0].downsample.register_forward_hook(lambda *seen: None)
    model.train(watcher == "training")
    with (
        torch.set_grad_enabled(watcher == "gradient"),
        torch.autocast("cpu", enabled=watcher == "autocast"),
    ):
        model(images)
    assert shared == []


def test_an_error_in_a_thread_is_raised(threads):
    def fail(part):
        raise ValueError("of this part")

    with pytest.raises(ValueError, match="of this part"):
        each(fail, noise(2, 3, 8, 8), threads)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_has_threads_of_its_own(threads):
    images = noise(2, 3, 8, 8)
    each(torch.Tensor.neg_, images.clone(), threads)
    child = os.fork()
    if child == 0:
        same = torch.equal(torch.stack(each(torch.clone, images, threads)), images)
        os._exit(0 if same else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_in_one_thread_stops_the_others(threads, failing):
    done, both = [], threading.Barrier(2)

    def run(item):
        if item < 2:
            both.wait()
        if item == failing:
            raise KeyError(item)
        time.sleep(0.02)
        done.append(item)

    with pytest.raises(KeyError):
        each(run, range(100), threads)
    count = len(done)
    time.sleep(0.1)
    assert len(done) <= count + 1
    assert len(done) < 90
    assert each(str, [1, 2], threads) == ["1", "2"]
