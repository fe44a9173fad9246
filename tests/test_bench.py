"""`hierarch bench`: the rotation, the statistics and the reports, with fake clocks."""

import csv
import importlib.util
import io
import itertools
import json
import math
import random
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import onnxruntime
import openvino
import pytest
import torch
from helpers import tiny
from torch import nn

import hierarch
from hierarch import timing
from hierarch.bench import calls, memory, run, worker
from hierarch.bench.contenders import peer_contender, spec_contender, with_biases
from hierarch.bench.gemm import GEMM_LIKE, gemm_macs, multiplications, share
from hierarch.bench.settings import Setting
from hierarch.building import Backbone
from hierarch.errors import BenchError, PeerError
from hierarch.report import BenchRow
from hierarch.timing import WARMUP, interleaved, ratio, rotation

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NET = """
import torch
from torch import nn

def net():
    conv = nn.Conv2d(3, 8, 4, stride=4)
    return nn.Sequential(conv, nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(512, 10))

def broken():
    raise RuntimeError("two\\nlines")

number = 3
"""
SETTING = Setting("forward", (32, 32), 1, "float32", 1)


@pytest.fixture
def net(tmp_path):
    """A peer in a file, which accepts images of 32 x 32 only."""
    (tmp_path / "net.py").write_text(NET)
    return f"{tmp_path}/net.py:net"


@pytest.fixture
def spec_file(tmp_path):
    path = tmp_path / "tiny.yaml"
    hierarch.dump(hierarch.load(tiny(head={"num_classes": 10}, input_size=32)), path)
    return path


class Clock:
    """A fake clock that advances by seeded random times at each call."""

    def __init__(self):
        self.random = random.Random(0)
        self.now = 0.0

    def __call__(self):
        self.now += self.random.uniform(0.01, 1)
        return self.now


def benchmark(**options):
    spec = tiny(head={"num_classes": 10}, input_size=32)
    options = {"memory": False, "rounds": 5, "gemm_side": 64, "clock": Clock()} | options
    return hierarch.benchmark([spec], **options)


# the rotation


def test_every_call_is_made_once_per_round_and_each_is_first_in_turn():
    called, advanced = [], []
    contenders = [lambda name=name: called.append(name) for name in "abc"]
    interleaved(contenders, rounds=4, warmup=2, advance=lambda: advanced.append(1))
    assert "".join(called) == "aabbcc" + "abc" + "bca" + "cab" + "abc"
    assert len(advanced) == len(called)


def test_a_rotation_is_fair():
    for position in zip(*rotation(4, 8), strict=True):
        assert sorted(position) == sorted([0, 1, 2, 3] * 2)


def test_each_time_belongs_to_its_contender():
    clock = SimpleNamespace(now=0.0)

    def takes(seconds):
        def call():
            clock.now += seconds

        return call

    times = interleaved([takes(1), takes(5), takes(9)], rounds=5, clock=lambda: clock.now)
    assert times == [(1.0,) * 5, (5.0,) * 5, (9.0,) * 5]


def test_a_slow_period_does_not_change_the_ratio_of_two_contenders():
    clock = SimpleNamespace(now=0.0, calls=0)

    def takes(seconds):
        def call():
            clock.calls += 1
            clock.now += seconds * (10 if clock.calls > 8 else 1)

        return call

    first, second = interleaved([takes(1), takes(2)], rounds=8, warmup=0, clock=lambda: clock.now)
    assert max(first) == 10 * min(first)
    assert ratio(second, first) == 2


def test_a_call_waits_until_the_process_is_idle():
    done = []
    contenders = [lambda name=name: done.append(name) for name in "ab"]
    interleaved(contenders, rounds=2, warmup=0, rest=lambda: done.append("-"))
    assert "".join(done) == "-a-b" + "-b-a"


def test_a_process_is_idle_once_its_threads_are(monkeypatch):
    def work(until):
        while time.monotonic() < until:
            pass

    begun = time.monotonic()
    thread = threading.Thread(target=work, args=[begun + 0.15])
    thread.start()
    assert timing.at_rest()
    assert time.monotonic() - begun > 0.15
    thread.join()
    monkeypatch.setattr(timing, "PATIENCE", 0.03)
    thread = threading.Thread(target=work, args=[time.monotonic() + 0.2])
    thread.start()
    assert not timing.at_rest()
    thread.join()


def test_garbage_is_collected_again_after_a_call_that_fails():
    import gc

    def fail():
        assert not gc.isenabled()
        raise KeyError

    with pytest.raises(KeyError):
        interleaved([fail], rounds=1, warmup=0)
    assert gc.isenabled()


# the numbers


def row(seconds, batch=1):
    return BenchRow(
        name="x", is_peer=False, execution="eager", batch=batch, seconds=tuple(seconds),
        vs_first=1, vs_fastest_peer=None, memory=None, macs=None, gemm_share=None,
    )  # fmt: skip


def test_the_spread_is_the_interquartile_range_over_the_median():
    # quartiles of 1..5 are 2 and 4
    assert row([5, 1, 3, 2, 4]).spread == pytest.approx((4 - 2) / 3)
    assert row([2, 2, 2, 2, 200]).spread == 0
    assert row([1]).spread is None


def test_milliseconds_and_images_per_second_are_of_an_image():
    eight = row([0.4, 0.1, 0.2], batch=8)
    assert eight.ms_per_image == pytest.approx(25)
    assert eight.images_per_second == pytest.approx(40)


@pytest.mark.parametrize("compiled", [False, True])
def test_ratios_and_shares_are_those_of_the_recorded_times(net, monkeypatch, compiled):
    monkeypatch.setattr(torch, "compile", lambda model, **options: model)
    found = benchmark(vs=[net], batches=[1, 2], dtypes=["float32", "bfloat16"], compiled=compiled)
    data = json.loads(json.dumps(found.to_data()))
    assert len(data["settings"]) == 4
    for setting in data["settings"]:
        rows = setting["rows"]
        ways = ["eager", "compiled"] if compiled else ["eager"]
        assert [r["execution"] for r in rows] == [way for way in ways for _ in range(2)]
        for one in rows:
            middle = statistics.median(one["seconds"])
            assert len(one["seconds"]) == 5
            assert one["ms_per_image"] == pytest.approx(1000 * middle / setting["batch"])
            assert one["images_per_second"] * one["ms_per_image"] == pytest.approx(1000)
            [rival] = [r for r in rows if r["is_peer"] and r["execution"] == one["execution"]]
            for other, said in [(rows[0], "vs_first"), (rival, "vs_fastest_peer")]:
                assert one[said] == pytest.approx(ratio(one["seconds"], other["seconds"]))
            limit = ratio(setting["gemm"]["seconds"], one["seconds"])
            assert one["gemm_share"] == pytest.approx(one["gemm_macs"] / 64**3 * limit)
        assert rows[0]["vs_first"] == 1
        assert rows[1]["vs_fastest_peer"] == 1


def test_the_fastest_peer_is_the_one_of_the_smallest_median_that_runs_the_same_way():
    def who(peer, execution):
        return SimpleNamespace(is_peer=peer, execution=execution)

    names = [(False, "eager"), (True, "eager"), (True, "eager"), (True, "compiled")]
    names += [(False, "compiled"), (True, "runtime")]
    contenders = [who(*name) for name in names]
    times = [(1.0,), (5.0,), (4.0,), (2.0,), (1.0,), (3.0,)]
    fastest = [run._fastest_peer(one, contenders, times) for one in contenders]
    assert fastest == [(3.0,), (3.0,), (3.0,), (2.0,), (2.0,), (3.0,)]
    assert run._fastest_peer(contenders[0], contenders[:1], times[:1]) is None


def test_without_a_peer_there_is_no_ratio_to_one():
    [setting] = benchmark().settings
    assert [one.vs_fastest_peer for one in setting.rows] == [None]


def test_the_limit_counts_matrix_multiplications_alone():
    spec = hierarch.load("swin_tiny")
    operators = hierarch.measure(spec, [224]).sizes[0].operators
    assert {"layer_norm", "adaptive_avg_pool2d"} & operators.keys()
    counted = gemm_macs(operators, Setting("forward", (224, 224), 8, "float32", 1))
    assert counted == 8 * sum(n for name, n in operators.items() if name in GEMM_LIKE)
    assert 0.99 < counted / 8 / sum(operators.values()) < 1
    training = gemm_macs(operators, Setting("training", (224, 224), 8, "float32", 1))
    assert training == 3 * counted


def test_a_share_is_one_for_the_limit_itself_and_halves_with_the_time():
    assert share(64**3, (2.0, 4.0), 64, (2.0, 4.0)) == 1
    assert share(64**3, (4.0, 8.0), 64, (2.0, 4.0)) == 0.5


def test_the_share_on_a_clock_that_ticks_is_the_ratio_of_the_multiply_adds():
    ticks = itertools.count()
    side = math.ceil(benchmark().settings[0].rows[0].macs ** (1 / 3))
    [setting] = benchmark(clock=lambda: next(ticks), gemm_side=side).settings
    assert 0.8 < setting.rows[0].gemm_share <= 1
    assert setting.gemm.gmacs_per_second == pytest.approx(side**3 / 1e9)


def test_the_limit_is_the_faster_multiplication(monkeypatch):
    clock = SimpleNamespace(now=0.0)

    def slow(seconds):
        def call():
            clock.now += seconds

        return call

    for mm, linear, faster in [(1, 2, "torch.mm"), (2, 1, "linear")]:
        both = {"torch.mm": slow(mm), "linear": slow(linear)}
        monkeypatch.setattr(run, "multiplications", lambda *args, both=both: both)
        monkeypatch.setattr(run, "prepared", lambda *args: slow(1))
        [setting] = benchmark(clock=lambda: clock.now).settings
        assert setting.gemm.operator == faster
        assert set(setting.gemm.seconds) == {1}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_both_multiplications_multiply(dtype):
    results = [c() for c in multiplications(8, Setting("forward", (1, 1), 1, dtype, 1)).values()]
    assert [r.shape for r in results] == [(8, 8)] * 2
    assert {r.dtype for r in results} == {getattr(torch, dtype)}


def test_a_failed_count_leaves_the_share_out_with_a_note(monkeypatch):
    def fail(spec, sizes):
        raise hierarch.CountError("no rule")

    monkeypatch.setattr("hierarch.bench.contenders.measure", fail)
    report = benchmark()
    assert report.settings[0].rows[0].gemm_share is None
    assert report.notes == ("no share of the GEMM limit for tiny at 32x32: no rule",)
    assert "no rule" in report.markdown()


# what is called


def test_a_forward_pass_is_inference_in_eval_mode_and_a_step_trains():
    seen = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 4)

        def forward(self, x):
            seen.append((self.training, torch.is_inference_mode_enabled(), x.dtype))
            return self.linear(x.mean((2, 3)).repeat(1, 8)[:, :8])

    spy = Spy()
    contender = spec_contender(hierarch.load(tiny()))
    contender = replace(contender, build=lambda size: spy)
    before = spy.linear.weight.detach().clone()
    calls.prepared(contender, SETTING)()
    assert torch.equal(spy.linear.weight, before)
    training = Setting("training", (32, 32), 2, "float32", 1)
    calls.prepared(contender, training)()
    assert not torch.equal(spy.linear.weight, before)
    assert seen == [(False, True, torch.float32), (True, False, torch.float32)]


def test_the_loss_is_a_number_for_any_kind_of_output():
    logits, maps = torch.randn(2, 5), torch.randn(2, 3, 4, 4)
    for outputs in (logits, maps, (maps, maps), {"a": logits, "b": None}, (logits, (maps,))):
        assert calls.loss(outputs).shape == ()
    uniform = torch.zeros(2, 5)
    assert calls.loss(uniform) == pytest.approx(math.log(5))


def test_a_compiled_forward_is_frozen_at_its_first_call_and_a_step_is_not(monkeypatch):
    from torch._inductor import config

    seen = []

    def fake(model, *, dynamic):
        assert dynamic is False
        return lambda x: seen.append(config.freezing) or model(x)

    monkeypatch.setattr(torch, "compile", fake)
    contender = spec_contender(hierarch.load(tiny(head={"num_classes": 10})))
    contender = replace(contender, execution="compiled")
    for mode, batch in [("forward", 1), ("training", 2)]:
        call = calls.prepared(contender, Setting(mode, (32, 32), batch, "float32", 1))
        call()
        call()
    assert seen == [True, False, False, False]


def test_packing_adds_the_spec_once_more_beside_eager_peers(net, monkeypatch):
    packs = []
    original = Backbone.pack_weights
    monkeypatch.setattr(
        Backbone, "pack_weights", lambda model: packs.append(model) or original(model)
    )
    [setting] = benchmark(vs=[net], packed=True).settings
    assert [one.execution for one in setting.rows] == ["eager", "eager", "packed"]
    assert [one.is_peer for one in setting.rows] == [False, True, False]
    ours, peer = setting.rows[2].seconds, setting.rows[1].seconds
    assert setting.rows[2].vs_fastest_peer == pytest.approx(ratio(ours, peer))
    assert len(packs) == 1


@pytest.mark.parametrize("options", [{"modes": ["training"]}, {"dtypes": ["float16"]}])
def test_packing_an_unsupported_setting_is_an_error(options):
    with pytest.raises(BenchError, match="packed for"):
        benchmark(packed=True, **options)


def test_threads_are_set_while_it_runs_and_put_back(monkeypatch):
    before, seen = torch.get_num_threads(), []
    measured = run._measured
    monkeypatch.setattr(
        run, "_measured", lambda *args: seen.append(torch.get_num_threads()) or measured(*args)
    )
    assert benchmark(threads=before + 1).threads == before + 1
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


def test_threads_are_not_set_where_there_are_as_many(monkeypatch):
    monkeypatch.delattr(torch, "set_num_threads")
    assert benchmark().threads == torch.get_num_threads()


def test_specs_with_the_same_name_are_numbered():
    spec = tiny(head={"num_classes": 10}, input_size=32)
    report = hierarch.benchmark([spec, spec], memory=False, rounds=1, gemm_side=0)
    assert [one.name for one in report.settings[0].rows] == ["tiny #1", "tiny #2"]
    assert report.settings[0].gemm is None


def test_progress_reaches_the_last_step():
    steps = []
    benchmark(batches=[1, 2], advance=lambda done, total: steps.append((done, total)))
    total = 2 * 3 * (5 + WARMUP)
    assert steps == [(n, total) for n in range(1, total + 1)]


# memory


def test_the_peak_grows_with_the_image():
    contender = spec_contender(hierarch.load(tiny(head={"num_classes": 10})))
    if why := worker.unavailable():
        pytest.skip(why)
    small, large = (
        memory.peak(contender, Setting("forward", (side, side), 4, "float32", 1))
        for side in (64, 512)
    )
    assert small.why == large.why == ""
    # the stem's map alone: 128 x 128 x 8 numbers for each of 4 images
    assert large.bytes > 128 * 128 * 8 * 4 * 4
    assert large.bytes > small.bytes + 10**6


def test_the_peak_of_a_call_is_its_allocation():
    if why := worker.unavailable():
        pytest.skip(why)

    def allocate(mib):
        return lambda: torch.ones(mib << 18).sum()

    assert worker.above(allocate(64), "cpu") == pytest.approx(64 << 20, rel=0.2)
    assert worker.above(allocate(1), "cpu") < 16 << 20


def test_a_platform_without_proc_gives_a_reason(monkeypatch, tmp_path):
    monkeypatch.setattr(worker, "PROC", tmp_path / "none")
    answer = worker.answer(
        {
            "origin": {"spec": tiny()},
            "execution": "eager",
            "setting": {"mode": "forward", "size": [32, 32], "batch": 1, "dtype": "float32"}
            | {"threads": torch.get_num_threads()},
        }
    )
    assert answer.bytes is None
    assert "no /proc/self/clear_refs" in answer.why


def test_the_worker_answers_for_specs_and_compiled_networks(monkeypatch, capsys):
    if why := worker.unavailable():
        pytest.skip(why)
    monkeypatch.setattr(torch, "compile", lambda model, **options: model)
    monkeypatch.setattr(worker.os, "_exit", lambda status: None)
    for execution, mode in [("eager", "training"), ("compiled", "training"), ("packed", "forward")]:
        request = {
            "origin": {"spec": tiny(head={"num_classes": 10})},
            "execution": execution,
            "setting": {"mode": mode, "size": [64, 64], "batch": 2, "dtype": "float32"}
            | {"threads": torch.get_num_threads()},
        }
        monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(request)))
        worker.main()
        answer = json.loads(capsys.readouterr().out)
        assert answer["why"] == ""
        assert answer["bytes"] >= 0


def test_memory_that_was_not_measured_is_none_with_a_note(monkeypatch):
    monkeypatch.setattr(memory.sys, "executable", "/bin/false")
    report = benchmark(memory=True, rounds=1)
    assert report.settings[0].rows[0].memory is None
    assert report.notes == ("memory of tiny: its process ended with status 1: no message",)


# runtimes


RESNET = "onnxruntime:timm:test_resnet"


@pytest.fixture
def sessions(monkeypatch):
    """The sessions that the real onnxruntime starts."""
    started = []

    class Session(onnxruntime.InferenceSession):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            started.append(self)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    return started


exports_batch_norm = pytest.mark.skipif(
    torch.__version__ < "2.7", reason="torch 2.6 exports no batch norm with dynamo=True"
)


@exports_batch_norm
def test_onnxruntime_computes_what_torch_does_with_so_many_threads(sessions):
    contender, setting = peer_contender(RESNET), Setting("forward", (64, 96), 2, "float32", 3)
    assert (contender.execution, contender.is_peer) == ("runtime", True)
    torch.manual_seed(0)
    [found] = calls.prepared(contender, setting)()
    torch.manual_seed(0)
    model, images = contender.module((64, 96)).eval(), calls._images(contender, setting)
    with torch.no_grad():
        torch.testing.assert_close(found, model(images), rtol=0, atol=1e-4)
    [session] = sessions
    options = session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)
    assert session.get_providers() == ["CPUExecutionProvider"]
    with pytest.raises(BenchError, match="onnxruntime runs float32 on the CPU, not bfloat16"):
        calls.prepared(contender, replace(setting, dtype="bfloat16"))


@exports_batch_norm
def test_the_command_line_compares_with_onnxruntime(run, spec_file, sessions):
    options = ["--sizes", "64", "--threads", "1", "--format", "json", "--vs", RESNET]
    status, out, errors = run("bench", spec_file, *QUICK, *options)
    assert status == 0, errors
    [setting] = json.loads(out)["settings"]
    rows = {row["name"]: row for row in setting["rows"]}
    assert {"tiny", RESNET} == {*rows}
    assert len(sessions) == 1
    assert rows[RESNET]["execution"] == "runtime"
    assert all(min(row["seconds"]) > 0 for row in rows.values())


def test_what_onnx_does_not_have_is_told(net):
    file = Path(net.removesuffix(":net"))
    file.write_text(NET + UNEXPORTABLE)
    contender = peer_contender(f"onnxruntime:{file}:roots")
    with pytest.raises(PeerError, match="roots cannot be prepared"):
        calls.prepared(contender, Setting("forward", (32, 32), 2, "float32", 1))


UNEXPORTABLE = """
class Roots(nn.Module):
    def forward(self, images):
        return torch.linalg.eigvals(images)

def roots():
    return Roots()
"""


@pytest.mark.parametrize(("dtype", "precision"), [("float32", "f32"), ("bfloat16", "bf16")])
def test_openvino_gets_the_threads_and_the_precision(monkeypatch, net, dtype, precision):
    seen = {}

    class Core(openvino.Core):
        def compile_model(self, model, device, config):
            seen.update(config, device=device)
            return super().compile_model(model, device, config)

    monkeypatch.setattr(openvino, "Core", Core)
    setting = Setting("forward", (32, 32), 2, dtype, 3)
    [found] = calls.prepared(peer_contender(f"openvino:{net}"), setting)()
    assert found.shape == (2, 10)
    assert (seen["device"], seen["INFERENCE_NUM_THREADS"]) == ("CPU", 3)
    assert seen["INFERENCE_PRECISION_HINT"] == precision


@pytest.mark.parametrize("package", ["openvino", "onnxscript"])
def test_a_package_that_is_not_installed_is_named(run, monkeypatch, spec_file, package):
    monkeypatch.setitem(sys.modules, package, None)
    status, out, err = run("bench", spec_file, "--vs", "openvino:torchvision:swin_t")
    wanted = f"error: this needs the package {package}: pip install 'hierarch-vision[bench]'\n"
    assert (status, out, err) == (2, "", wanted)


# the command line

QUICK = ["--rounds", "2", "--gemm", "16", "--no-memory"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--vs", "timm:nope_net"], "timm has no model 'nope_net'"),
        (["--vs", "nothing:x"], "known libraries: timm, torchvision, transformers, onnxruntime"),
        (["--vs", "onnxruntime:openvino:x"], "a runtime runs a network, not another runtime"),
        (["--vs", "/none/net.py:net"], "no such file"),
        (["--vs", "NET:nope"], "the file has no function 'nope'"),
        (["--vs", "NET:number"], "the file has no function 'number'"),
        (["--vs", "NET:broken"], "cannot be built for 32x32: RuntimeError: two"),
        (["--vs", "NET:net", "--sizes", "64"], "net.py:net cannot take an image of 64x64, batch 1"),
        (["--sizes", "0"], "size (0, 0): a side should be an integer from 1"),
        (["--sizes", "12y"], "--sizes '12y': write it as 224"),
        (["--batch", "0"], "batch 0: should be an integer from 1"),
        (["--batch", "x"], "--batch 'x': write it as 2,3"),
        (["--dtype", "int8"], "dtype 'int8': should be one of float32, bfloat16, float16"),
        (["--mode", "sleep"], "mode 'sleep': should be one of forward, training"),
        (["--threads", "0"], "threads 0: should be an integer from 1"),
        (["--rounds", "0"], "rounds 0: should be an integer from 1"),
        (["--gemm", "-1"], "gemm -1: should be an integer from 0"),
        (["--vs", "onnxruntime:NET:net", "--mode", "training"], "runs forward on the CPU only"),
        (["--set", "mixer=nope"], "nope"),
    ],
)
def test_a_mistake_is_an_error_of_one_line(run, spec_file, net, args, message):
    file = net.removesuffix(":net")
    args = [arg.replace("NET", file) for arg in args]
    status, out, err = run("bench", spec_file, *QUICK, *args)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_an_error_of_one_line(run, spec_file):
    status, _, err = run("bench", spec_file, "--device", "cuda")
    assert (status, err) == (2, "error: device 'cuda': torch finds no CUDA device here\n")


def test_nothing_to_measure_is_an_error():
    with pytest.raises(BenchError, match="no spec to benchmark"):
        hierarch.benchmark([])
    with pytest.raises(BenchError, match="nothing to measure"):
        benchmark(sizes=[])
    with pytest.raises(BenchError, match="device 'tpu'"):
        benchmark(device="tpu")


def test_a_file_that_cannot_be_imported_is_an_error(tmp_path):
    (tmp_path / "net.py").write_text("def")
    with pytest.raises(PeerError, match="cannot be imported: SyntaxError"):
        peer_contender(f"{tmp_path}/net.py:net")


@pytest.mark.parametrize("format", ["table", "json", "csv", "markdown"])
def test_every_format_has_the_same_rows(run, spec_file, net, format):
    options = ["--vs", net, "--batch", "1,2", "--format", format]
    status, out, err = run("bench", spec_file, *QUICK, *options)
    assert (status, err) == (0, "")
    if format == "json":
        data = json.loads(out)
        assert set(data) == {"schema_version", "device", "threads", "torch", "rounds"} | {
            "settings",
            "notes",
        }
        assert [s["batch"] for s in data["settings"]] == [1, 2]
        assert all(r["memory_bytes"] is None for s in data["settings"] for r in s["rows"])
    elif format == "csv":
        rows = list(csv.DictReader(io.StringIO(out)))
        assert [(r["name"], r["batch"]) for r in rows] == [
            (name, batch) for batch in "12" for name in ("tiny", "net.py:net")
        ]
        assert {(r["height"], r["width"], r["mode"]) for r in rows} == {("32", "32", "forward")}
    else:
        lines = out.splitlines()
        assert sum("GEMM limit" in line for line in lines) == 2
        assert sum("eager" in line and "net.py:net" in line for line in lines) == 2
        assert "ms/image" in out


def test_a_peer_named_twice_runs_once(run, spec_file, net):
    _, out, _ = run("bench", spec_file, *QUICK, "--vs", net, "--vs", net, "--format", "json")
    assert len(json.loads(out)["settings"][0]["rows"]) == 2


def test_output_of_a_constructor_is_not_in_the_result(run, spec_file, tmp_path):
    (tmp_path / "loud.py").write_text(NET.replace("def net():", "def net():\n    print('loud')"))
    loud = f"{tmp_path}/loud.py:net"
    _, out, err = run("bench", spec_file, *QUICK, "--vs", loud, "--format", "json")
    assert json.loads(out)
    assert "loud\n" in err


# the suite's settings and its page


def imported(name):
    found = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses look their module up
    found.loader.exec_module(module)
    return module


@pytest.fixture
def suite(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.delitem(sys.modules, "settings", raising=False)
    modules = SimpleNamespace(settings=imported("settings"), page=imported("page"))
    yield modules
    for name in ("settings", "page"):
        sys.modules.pop(name, None)


def fake(name, peer, size=224, memory=None, execution="eager", share=0.5):
    """A report in which the spec takes 1 s and the peer `peer` s."""

    def one(label, is_peer, seconds):
        return {
            "name": label, "is_peer": is_peer, "execution": execution, "seconds": [seconds] * 3,
            "ms_per_image": 1000 * seconds, "spread": 0.0, "vs_fastest_peer": seconds / peer,
            "memory_bytes": memory and (memory if not is_peer else 1000), "gemm_share": share,
        }  # fmt: skip

    setting = {"mode": "forward", "size": [size, size], "batch": 1, "dtype": "float32"}
    rows = [one(name, False, 1.0), one("timm:x", True, peer)]
    return {"torch": "2", "threads": 1, "notes": [], "settings": [setting | {"rows": rows}]}


def results(**settings):
    machine = {"cpu": "A CPU, 2 cores", "python": "3.11", "system": "Linux", "date": "2026-01-01"}
    named = [
        {"name": name.replace("_", "-"), "commands": ["hierarch bench x"]}
        | ({"reports": found} if isinstance(found, list) else {"error": found})
        for name, found in settings.items()
    ]
    return {"quick": False, "machine": machine | {"commit": "abc"}, "settings": named}


def test_the_page_marks_goals_that_are_not_reached(suite):
    packed = fake("a", 1.0)
    packed["settings"][0]["rows"] += fake("a", 1.25, execution="packed")["settings"][0]["rows"][:1]
    text = suite.page.page(
        results(
            forward_batch8=[fake("a", 2.0)],
            forward_batch1=[fake("a", 2.0), packed],
            forward_1120=[fake("a", 2.0, memory=200)],
            training_batch8=[fake("a", 2.0)],
            gemm_share=[fake("a", 1.0, share=0.9)],
            compiled="status 1: no compiler",
        )
    )
    summary = text.partition("\n## ")[0]  # the notes hold that of another machine
    table = [line for line in summary.splitlines() if line.count("|") == 6][2:]
    assert [line.split(" | ")[2:] for line in table] == [
        ["≤ 0.80", "0.500", "yes |"],
        ["≤ 0.80", "not measured", "- |"],
        ["≤ 0.90", "1.000", "**no** |"],
        ["≤ 0.90", "0.800", "yes |"],
        ["≤ 0.70", "0.500", "yes |"],
        ["≤ 0.70", "not measured", "- |"],
        ["≤ 0.25", "0.200", "yes |"],
        ["≤ 0.85", "0.500", "yes |"],
        ["≤ 0.75", "not measured", "- |"],
        ["≤ 0.90", "not measured", "- |"],
        ["≥ 0.85", "0.900", "yes |"],
    ]
    assert "Not measured: status 1: no compiler" in text
    assert "A CPU, 2 cores" in text
    assert "hierarch bench x" in text


def test_a_quick_run_makes_no_page(suite):
    with pytest.raises(ValueError, match="its figures mean nothing"):
        suite.page.page(results() | {"quick": True})


def test_growth_is_the_time_per_token_over_that_at_the_smallest(suite):
    reports = [fake("a", 1.0, size=100), fake("a", 1.0, size=200)]
    assert suite.settings.growth(reports) == pytest.approx(1)
    reports[1]["settings"][0]["rows"][0]["seconds"] = [6.0] * 3
    assert suite.settings.growth(reports) == pytest.approx(1.5)
    assert suite.settings.growth(reports[:1]) is None


def test_the_best_execution_in_the_worst_setting_counts(suite):
    def both(eager, packed):
        """One setting's report: our ways beside a peer."""
        report = fake("a", 1.0)
        ours, peer = report["settings"][0]["rows"]
        report["settings"][0]["rows"] = [
            ours | {"vs_fastest_peer": eager, "gemm_share": eager},
            peer | {"vs_fastest_peer": 0.1, "gemm_share": 0.1},
            ours | {"vs_fastest_peer": packed, "gemm_share": packed, "execution": "packed"},
            ours | {"vs_fastest_peer": 1.15, "gemm_share": 0.7, "execution": "compiled"},
        ]
        return report

    reports = [both(1.2, 1.1), both(0.8, 0.9)]
    assert suite.settings.fastest_ratio(reports) == 1.1
    assert suite.settings.gemm_share(reports) == 0.9
    assert suite.settings.fastest_ratio([*reports, both(None, 0.9)]) is None


def test_every_command_of_the_suite_can_be_read(suite, monkeypatch):
    import shlex

    import typer

    from hierarch.cli import app

    monkeypatch.chdir(BENCHMARKS.parent)
    bench = typer.main.get_command(app).commands["bench"]
    commands = [c for s in suite.settings.SETTINGS for c in (*s.commands, s.quick)]
    gpu = imported("gpu")
    commands += [f"hierarch bench {command}" for command in (*gpu.COMMANDS, gpu.QUICK)]
    for command in commands:
        with bench.make_context("bench", shlex.split(command)[2:]) as context:
            assert context.params["specs"][0] in hierarch.presets()
            assert context.params["rounds"] >= 2


def test_the_run_on_a_gpu_keeps_to_its_time_and_tells_what_failed(suite, monkeypatch):
    gpu = imported("gpu")

    def failing():
        raise RuntimeError("no memory")

    steps = [gpu.Step("good", lambda: "a table"), gpu.Step("bad", failing)]
    monkeypatch.setattr(gpu, "steps", lambda device, quick: steps)
    page = "".join(gpu.page("cpu", quick=True, minutes=9))
    assert "a table" in page
    assert "Failed: RuntimeError: no memory" in page
    assert "".join(gpu.page("cpu", quick=True, minutes=0)).count("Not run") == 2


@pytest.mark.filterwarnings("ignore:flex_attention called without", "ignore:.*nested tensors")
def test_kinds_of_attention_agree_and_are_timed(suite):
    rows = imported("gpu").attention("cpu", windows=4).splitlines()
    assert [row.split("|")[1].strip() for row in rows[2:]] == [
        *("mask by mask, hierarch's", "one mask for each window", "FlexAttention"),
        *("several lengths, padded", "several lengths, nested"),
    ]


def test_without_a_gpu_nothing_is_measured():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    script = [sys.executable, BENCHMARKS / "gpu.py"]
    done = subprocess.run(script, capture_output=True, encoding="utf-8")
    assert done.returncode == 2
    assert "torch sees no GPU here: nothing is measured" in done.stderr


def test_the_reference_is_the_network_of_the_spec():
    reference = imported("swin_mlp_conv1d").swin_mlp_tiny_c24().eval()
    spec = hierarch.build("swin_mixer_tiny_d24").eval()

    def parameters(model):
        # ours has a block's mixer before its first norm
        found, last = [], []
        for name, parameter in model.named_parameters():
            is_mixer = ".mixer." in name and model is spec
            if not is_mixer and "norm1" not in name and last:
                found, last = found + last, []
            (last if is_mixer else found).append(parameter)
        return found + last

    ours, theirs = parameters(spec), parameters(reference)
    assert [p.shape for p in ours] == [p.shape for p in theirs]
    with torch.no_grad():
        for a, b in zip(ours, theirs, strict=True):
            a += 0.05 * torch.randn_like(a)
            b.copy_(a)
        images = torch.randn(1, 3, 256, 256)
        torch.testing.assert_close(spec(images), reference(images), atol=1e-4, rtol=0)


def test_no_contender_has_the_zero_biases_of_an_untrained_network():
    """With which padded windows are subnormal numbers after attention."""
    for contender in (spec_contender(hierarch.load(tiny())), peer_contender("torchvision:swin_t")):
        model = contender.module((32, 32))
        biases = [value for name, value in model.named_parameters() if name.endswith("bias")]
        assert len(biases) > 20
        assert all(bias.any() for bias in biases)


def test_a_networks_own_biases_are_kept():
    linear = nn.Linear(4, 4)
    before = linear.bias.clone()
    assert torch.equal(with_biases(linear).bias, before)
    assert isinstance(with_biases(nn.LazyLinear(4)), nn.LazyLinear)
