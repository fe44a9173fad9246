"""`hierarch bench --stream`: sizes that are read, processes that take turns, and the report."""

from __future__ import annotations

import io
import json
import os
from contextlib import contextmanager
from dataclasses import asdict

import pytest
import torch
from helpers import stream_call, stream_report, stream_row, tiny
from PIL import Image

import hierarch
from hierarch.bench import benchmark_stream, folder_sizes, memory, random_sizes, stream_worker
from hierarch.bench.processes import worker
from hierarch.bench.settings import Setting
from hierarch.bench.stream_sizes import groups
from hierarch.bench.worker import resident
from hierarch.building import Backbone
from hierarch.complexity.peers import find_peer
from hierarch.errors import BenchError, PeerError, SpecError
from hierarch.report import FORMATS, StreamReport, text

PEER = """
import json, os, torch
from torch import nn

class Spy(nn.Module):
    def __init__(self, only=None):
        super().__init__()
        self.conv, self.only = nn.Conv2d(3, 8, 4), only

    def forward(self, x):
        print("loud")
        os.write(1, b"loud, not from Python\\n")
        assert not self.only or x.shape[2:] == self.only, "this size is not mine"
        seen = [os.getpid(), list(x.shape), self.training, torch.is_inference_mode_enabled()]
        with open(__file__ + ".seen", "a") as file:
            file.write(json.dumps([*seen, torch.get_num_threads(), str(x.dtype)]) + "\\n")
        return self.conv(x).mean((2, 3))

def net():
    return Spy()

def fixed():
    return Spy((32, 32))
"""


@pytest.fixture
def spec_file(tmp_path):
    path = tmp_path / "tiny.yaml"
    hierarch.dump(hierarch.load(tiny(head={"num_classes": 10}, input_size=32)), path)
    return path


@pytest.fixture
def peer_file(tmp_path):
    (tmp_path / "net.py").write_text(PEER)
    return tmp_path / "net.py"


@pytest.fixture
def no_process(monkeypatch):
    """A mistake in an option is told before a process starts."""
    monkeypatch.setattr("hierarch.bench.stream.worker", None)


def photos(folder, **sizes):
    """Image files of these (width, height), in folders that are made."""
    for name, size in sizes.items():
        file = folder / name.replace("__", "/").replace("_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(file)
    return folder


# the sizes


def test_random_sizes_are_the_same_each_time_and_reach_both_ends():
    drawn = random_sizes(300, 40, 50)
    assert drawn == random_sizes(300, 40, 50)
    assert drawn != random_sizes(300, 40, 50, seed=1)
    for sides in zip(*drawn, strict=True):
        assert {*sides} == {*range(40, 51)}
    assert any(height != width for height, width in drawn)
    assert random_sizes(2, 7, 7, axes=3) == [(7, 7, 7)] * 2


def test_a_folder_has_the_sizes_of_its_images_in_the_order_of_their_paths(tmp_path):
    folder = photos(tmp_path / "in", b_png=(20, 10), a__z_jpg=(30, 40), c_JPEG=(5, 6))
    (folder / "notes.txt").write_text("not an image")
    (folder / "folder.png").mkdir()
    assert folder_sizes(folder) == [(40, 30), (10, 20), (6, 5)]


def test_an_image_that_is_broken_is_named(tmp_path):
    folder = photos(tmp_path, a_png=(20, 10))
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:20])
    with pytest.raises(BenchError, match=r"b\.png: cannot be read as an image: \w+: "):
        folder_sizes(folder)


@pytest.mark.parametrize("name", ["empty", "none"])
def test_a_folder_without_images_is_an_error(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(BenchError, match=r"no such folder|holds no images, such as \.jpg"):
        folder_sizes(tmp_path / name)


def test_turns_cover_the_stream():
    assert groups(7, 3) == [(0, 3), (3, 6), (6, 7)]
    assert groups(2, 8) == [(0, 2)]


# processes


def test_networks_take_turns_at_every_image_in_processes_of_their_own(run, spec_file, peer_file):
    sizes = [[32, 32], [40, 24], [33, 50]]
    options = ["--stream", "32,40x24,33x50", "--threads", 1, "--format", "json"]
    status, out, err = run("bench", spec_file, "--vs", f"{peer_file}:net", *options)
    assert (status, err) == (0, "")
    data = json.loads(out)
    assert (data["threads"], data["dtype"], data["sizes"]) == (1, "float32", sizes)
    eager, peer = data["rows"]
    names = [(r["name"], r["is_peer"], r["list_size"]) for r in data["rows"]]
    assert names == [("tiny", False, 0), ("net.py:net", True, 0)]
    for one in data["rows"]:
        for n, found in enumerate(one["passes"]):
            assert [c["sizes"] for c in found["calls"]] == [[size] for size in sizes]
            seconds = sum(c["seconds"] for c in found["calls"])
            assert found["seconds"] == pytest.approx(seconds)
            assert found["vs_first"] == pytest.approx(seconds / eager["passes"][n]["seconds"])
            assert found["vs_fastest_peer"] == pytest.approx(seconds / peer["passes"][n]["seconds"])
            last = found["calls"][-1]
            if one["built_bytes"] is None:  # a platform that does not say
                continue
            assert found["memory_bytes"] == last["resident_bytes"] - one["built_bytes"]
            assert last["memory_bytes"] == found["memory_bytes"]
            # a process with torch, and not one with a leak
            assert 10**8 < one["built_bytes"] < last["resident_bytes"] + 10**8 < 10**10
    # the peer saw an image of another size first, by another instance, and then two passes
    lines = peer_file.with_name("net.py.seen").read_text().splitlines()
    seen = [json.loads(line) for line in lines]
    assert [s[1] for s in seen] == [[1, 3, 64, 64], *([1, 3, *size] for size in sizes * 2)]
    assert {tuple(s[2:]) for s in seen} == {(False, True, 1, "torch.float32")}
    assert len({s[0] for s in seen} | {os.getpid()}) == 2


def request(origin, sizes, together=0):
    return {
        "origin": origin,
        "execution": "eager",
        "setting": asdict(Setting("forward", sizes[0], 1, "float32", 1)),
        "sizes": sizes,
        "together": together,
        "group": together or 1,
    }


def test_a_size_that_a_network_does_not_take_is_an_error(peer_file):
    with worker("net", 1) as started:
        started.ask(request({"peer": f"{peer_file}:fixed"}, [(32, 32), (48, 40)]))
        assert len(started.ask([0, 1])) == 1
        wanted = r"^net.py:fixed cannot take an image of 48x40, batch 1, float32: .*not mine$"
        with pytest.raises(PeerError, match=wanted):
            started.ask([1, 2])


def test_lists_are_taken_in_turns_of_as_many_images(monkeypatch):
    """The worker's answers, in this process; the lists that the network is called with are
    watched."""
    taken, sizes = [], [(32, 32), (40, 24), (33, 50)]
    called = Backbone.__call__

    def watched(network, images):
        if isinstance(images, list):
            taken.append([image.shape for image in images])
        return called(network, images)

    monkeypatch.setattr(Backbone, "__call__", watched)
    monkeypatch.setattr(stream_worker.sys, "stdin", io.StringIO("[0, 2]\n[2, 3]\n"))
    answers = io.StringIO()
    stream_worker.serve(request({"spec": tiny(head={"num_classes": 5})}, sizes, 2), answers)
    built, *calls = map(json.loads, answers.getvalue().splitlines())
    assert [len(each) for each in calls] == [1, 1]
    assert all(each[0]["seconds"] > 0 for each in calls)
    assert all(each[0]["resident"] or built is None for each in calls)
    assert taken == [[(3, 32, 32), (3, 40, 24)], [(3, 33, 50)]]


def test_a_call_of_a_list_is_said_to_be_of_its_sizes(monkeypatch):
    answers = {"sizes": [(8, 8), (9, 7), (8, 8)], "asked": []}

    class InPlaceOfAProcess:
        def ask(self, message):
            if isinstance(message, dict):
                return 1_000
            answers["asked"].append(tuple(message))
            return [{"seconds": 1.0, "resident": 2_000}] * (self.batches or message[1] - message[0])

    @contextmanager
    def started(name, threads):
        yield workers.pop(0)

    eager, lists = InPlaceOfAProcess(), InPlaceOfAProcess()
    eager.batches, lists.batches = 0, 1
    workers = [eager, lists]
    monkeypatch.setattr("hierarch.bench.stream.worker", started)
    steps = []
    found = benchmark_stream(
        [tiny()], answers["sizes"], lists=2, advance=lambda done, total: steps.append((done, total))
    )
    assert [(row.name, row.together) for row in found.rows] == [("tiny", 0), ("tiny", 2)]
    for one in found.rows[0].passes:
        assert [call.sizes for call in one] == [((8, 8),), ((9, 7),), ((8, 8),)]
    for one in found.rows[1].passes:
        assert [call.sizes for call in one] == [((8, 8), (9, 7)), ((8, 8),)]
    assert answers["asked"] == [(0, 2), (0, 2), (2, 3), (2, 3)] * 2
    assert steps == [(n, 2 * (1 + 2 * 2)) for n in range(1, 11)]


def test_a_process_that_ends_is_an_error(monkeypatch):
    monkeypatch.setattr(memory.sys, "executable", "/bin/false")
    with pytest.raises(BenchError, match="tiny: its process ended with status 1: no message"):
        benchmark_stream([tiny()], [32])


def test_a_process_ends_with_its_context(monkeypatch, tmp_path):
    (tmp_path / "python").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "python").chmod(0o700)
    monkeypatch.setattr(memory.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(KeyboardInterrupt), worker("x", 1) as started:
        raise KeyboardInterrupt
    assert started.process.returncode == -9


def test_resident_memory_is_that_of_the_process(monkeypatch, tmp_path):
    before = resident("cpu")
    if before is None:
        pytest.skip("the platform has no /proc/self/status")
    kept = torch.ones(64 << 18)
    assert resident("cpu") - before == pytest.approx(kept.nbytes, rel=0.1)
    monkeypatch.setattr("hierarch.bench.worker.PROC", tmp_path)
    assert resident("cpu") is None


# peers


def test_timms_networks_are_built_for_every_size_where_they_have_an_option():
    for name in ("swin_tiny_patch4_window7_224", "test_vit", "test_resnet"):
        peer = find_peer(f"timm:{name}")
        with torch.device("meta"):
            model = peer.build(None).eval()
            for size in ((61, 70), (96, 64)):
                assert model(torch.empty(1, 3, *size)).shape == (1, 1000)


def test_others_are_built_for_the_size_that_they_have():
    with torch.device("meta"):
        model = find_peer("torchvision:vit_b_16").build(None).eval()
        assert model(torch.empty(1, 3, 224, 224)).shape == (1, 1000)
        with pytest.raises(AssertionError, match="Wrong image height"):
            model(torch.empty(1, 3, 96, 64))


# the report


def test_ratios_are_of_sums_and_each_pass_has_its_fastest_peer():
    found = stream_report()
    own, slow, fast, lists = found.rows
    assert [r.seconds(0) for r in found.rows] == [2.0, 4.0, 1.0, 1.5]
    assert [found.vs_first(lists, n) for n in (0, 1)] == [0.75, 0.75]
    assert [found.vs_fastest_peer(own, n) for n in (0, 1)] == [2.0, 2.0]
    assert found.vs_fastest_peer(slow, 1) == 1.0
    assert (own.memory(0), own.memory(1), fast.memory(1), lists.memory(1)) == (
        *(2_000, 2_001),
        *(None, 3_000),
    )
    assert [found.vs_fastest_peer(own, 0)] != [found.vs_first(own, 0)]


def test_a_row_says_how_it_runs():
    ways = [("eager", 0), ("packed", 0), ("eager", 8), ("packed", 8)]
    assert [stream_row("x", [], execution=e, together=n).runs for e, n in ways] == [
        *("eager", "packed", "lists of 8", "packed, lists of 8")
    ]


def test_a_person_reads_it_in_80_columns():
    shown = text(stream_report())
    assert "images: 2, of 2 sizes from 40x24 to 32x32\n" in shown
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 80
    [first] = [i for i, line in enumerate(lines) if line == "first pass"]
    assert lines[first + 2 : first + 6] == [
        "own     eager         2.000     1.000            2.000          0.0",
        "timm:x  eager         4.000     2.000            4.000          0.0",
        "timm:y  eager         1.000     0.500            1.000            -",
        "own     lists of 2    1.500     0.750            1.500          0.0",
    ]


def test_without_a_peer_there_is_no_ratio_to_one():
    alone = StreamReport(
        device="", threads=1, torch="2", dtype="float32", sizes=((8, 8),),
        rows=(stream_row("own", [[stream_call(1.0, 2_000, (8, 8))]] * 2),),
    )  # fmt: skip
    assert {record["vs_fastest_peer"] for record in alone.records()} == {None}


# mistakes


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--stream", "12y"], "--stream '12y': write it as 224 or 896x1120"),
        (["--stream", "12y"], "random ones as 40:256-640 (forty, of sides from 256 to 640), or"),
        (["--stream", "224,"], "--stream '': write it as 224"),
        (["--stream", "3:256"], "--stream '3:256': write it as 224"),
        (["--stream", "no/such/folder"], "or name a folder of images"),
        (["--stream", "3:640-256"], "greatest side 256: should be an integer from 640"),
        (["--stream", "0:40-50"], "number of random sizes 0: should be an integer from 1"),
        (["--stream", "0"], "size (0, 0): a side should be an integer from 1"),
        (["--stream", "FOLDER"], "holds no images, such as .jpg or .png"),
        (["--stream", "32", "--lists", "1"], "lists 1: should be an integer from 2"),
        (["--lists", "2"], "--lists is of a stream: give one with --stream"),
        (["--stream", "32", "--sizes", "32"], "--sizes does not go with --stream"),
        (["--stream", "32", "--batch=2"], "--batch does not go with --stream"),
        (["--stream", "32", "--no-memory"], "--memory does not go with --stream"),
        (["--stream", "32", "--explain"], "--explain does not go with --stream"),
        (["--stream", "32", "--dtype", "float16,bfloat16"], "dtype 'float16,bfloat16': should be"),
        (["--stream", "32", "--threads", "0"], "threads 0: should be an integer from 1"),
        (["--stream", "32", "--vs", "timm:nope_net"], "timm has no model 'nope_net'"),
        (
            ["--stream", "32", "--vs", "onnxruntime:timm:test_resnet"],
            "onnxruntime:timm:test_resnet is exported for one size; leave it out of a stream",
        ),
    ],
)
def test_a_mistake_is_an_error_of_one_line(run, spec_file, tmp_path, no_process, args, message):
    (tmp_path / "empty").mkdir()
    args = [arg.replace("FOLDER", str(tmp_path / "empty")) for arg in args]
    status, out, err = run("bench", spec_file, *args)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_mistakes_in_python_are_errors(no_process):
    with pytest.raises(BenchError, match="no spec to benchmark"):
        benchmark_stream([], [32])
    with pytest.raises(BenchError, match="nothing to measure: no size"):
        benchmark_stream([tiny()], [])
    with pytest.raises(SpecError, match="the network has 2 axes"):
        benchmark_stream([tiny()], [(8, 8, 8)])
    with pytest.raises(PeerError, match="known libraries"):
        benchmark_stream([tiny()], [32], vs=["x:y"])


def test_a_folder_is_of_images_only(run, tmp_path, no_process):
    folder = photos(tmp_path, a_png=(20, 10))
    status, _, err = run("bench", "video/swin3d_tiny", "--stream", folder)
    assert status == 2
    assert "images are not what a network of 3 axes takes" in err


@pytest.mark.parametrize("format", FORMATS)
def test_the_command_line_passes_its_options_and_writes_every_format(
    run, spec_file, monkeypatch, format
):
    given = {}

    def in_place_of_processes(specs, sizes, **options):
        given.update(options, specs=[spec.name for spec in specs], sizes=sizes)
        return stream_report()

    monkeypatch.setattr("hierarch.bench.benchmark_stream", in_place_of_processes)
    options = [*("--stream", "32,2:7-7", "--lists", 4, "--threads", 3, "--dtype", "bfloat16")]
    options += [*("--vs", "timm:x", "--vs", "timm:y", "--pack", "--set", "name=mine")]
    status, out, err = run("bench", spec_file, *options, "--format", format)
    assert (status, err, out) == (0, "", text(stream_report(), format))
    assert given.pop("advance")
    assert given == {
        "specs": ["mine"],
        "sizes": [(32, 32), (7, 7), (7, 7)],
        "vs": ["timm:x", "timm:y"],
        "lists": 4,
        "dtype": "bfloat16",
        "packed": True,
        "threads": 3,
        "device": "cpu",
    }
