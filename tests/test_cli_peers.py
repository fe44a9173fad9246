"""`hierarch flops --vs`: peers beside specs, and one line for a peer that cannot be counted."""

import csv
import io
import json
import socket
import sys

import pytest

import hierarch
from hierarch.complexity import peers

SPEC = ["swin_tiny", "--sizes", "56,112"]
PEER = "timm:resnet18"
BAD = [
    ("timm:", "timm has no model ''"),
    ("timm:../../x", "timm has no model '../../x'"),
    ("timm:hf-hub:timm/resnet18", "timm has no model 'hf-hub:timm/resnet18'"),
    ("timm:hf_hub:timm/resnet18", "timm has no model"),
    ("timm:local-dir:/tmp", "timm has no model 'local-dir:/tmp'"),
    ("timm:resnet18.hf-hub:x/y", "timm has no model 'resnet18.hf-hub:x/y'"),
    ("timm:resnet50.nope", "timm has no model 'resnet50.nope', did you mean 'resnet50."),
    ("timm:efficientnet_b33", "did you mean 'efficientnet_b3'?"),
    ("timm:resnet50\nerror: two lines", r"'resnet50\nerror: two lines'"),
    ("timm:" + "x" * 5_000, "timm has no model 'xxx"),
    ("torchvision:raft_large", "torchvision has no model 'raft_large'"),
    ("torchvision:ResNet50", "torchvision has no model 'ResNet50', did you mean 'resnet50'?"),
    ("torchvision:../x", "torchvision has no model '../x'"),
    ("transformers:bert", "transformers has no model 'bert', did you mean 'beit'?"),
    ("transformers:microsoft/swin-tiny", "transformers has no model"),
    ("transformers:/tmp", "transformers has no model '/tmp'"),
    ("nothing:x", "'nothing:x': a peer is written library:model, such as timm:resnet50"),
    ("resnet50", "known libraries: timm, torchvision, transformers"),
    ("", "'': a peer is written"),
    ("os:system", "'os:system': a peer is written"),
    (":" * 5_000, "a peer is written"),
    ("timm.models:resnet50", "a peer is written"),
]


@pytest.mark.parametrize(("name", "message"), BAD, ids=[name[:30] for name, _ in BAD])
def test_an_unknown_peer_is_an_error_of_one_line(run, monkeypatch, name, message):
    def refuse(*args, **kwargs):
        raise AssertionError("a name that is none reached the network or a module")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    imported = []
    monkeypatch.setattr(peers, "import_module", lambda module: imported.append(module))
    status, out, err = run("flops", *SPEC, "--vs", name)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert len(err) < 300
    assert set(imported) <= {"timm", "torchvision", "transformers"}


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("torchvision:vit_b_16", "64x96", "ValueError: it takes squares only"),
        ("torchvision:vit_b_16", "100", "cannot be built for 100x100: AssertionError: "),
        ("torchvision:maxvit_t", "100", "cannot be built for 100x100: ValueError: "),
        ("timm:inception_v3", "32", "takes no image of 32x32: "),
    ],
)
def test_a_size_that_a_peer_does_not_accept_is_an_error_of_one_line(run, name, size, message):
    status, out, err = run("flops", "swin_tiny", "--vs", name, "--sizes", size)
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {name} ")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("library", ["timm", "torchvision", "transformers"])
def test_a_library_that_is_not_installed_is_named(run, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    status, out, err = run("flops", *SPEC, "--vs", f"{library}:resnet50")
    assert (status, out) == (2, "")
    assert (
        err == f"error: '{library}:resnet50': {library} is not installed: pip install {library}\n"
    )


# the command line


@pytest.mark.parametrize("by", ["stage", "part", "operator", "module"])
@pytest.mark.parametrize("format", ["table", "json", "csv", "markdown"])
def test_peers_are_listed_with_specs_in_every_format(run, by, format, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")  # in one table, however many columns
    status, out, err = run("flops", *SPEC, "--vs", PEER, "--by", by, "--format", format)
    assert (status, err) == (0, "")
    report = hierarch.measure_peer(PEER, [56, 112])
    if format == "json":
        written = json.loads(out)
        assert set(written) == {"schema_version", "reports", "peers"}
        assert written["peers"] == [report.to_dict(by=by)]
    elif format == "csv":
        rows = [row for row in csv.DictReader(io.StringIO(out)) if row["name"] == PEER]
        assert [int(row["macs"]) for row in rows if row[by] == "total"] == [
            size.macs for size in report.sizes
        ]
        assert not any(row["claimed_macs"] for row in rows)
        if by in ("stage", "part"):
            first = [int(r["macs"]) for r in rows if r["height"] == "56" and r[by] != "total"]
            assert sum(first) == report.sizes[0].macs
    else:
        compared = [line for line in out.splitlines() if PEER in line][1:]
        assert len(compared) == 2
        for line, size in zip(compared, report.sizes, strict=True):
            cells = [
                "11,689,512",
                f"{size.macs / 1e9:.3f}",
                "measured, no claim",
                f"{report.exponent:.4f}",
            ]
            assert all(cell in line for cell in cells)


def test_the_json_of_a_peer_has_these_keys(run):
    _, out, _ = run("flops", *SPEC, "--vs", PEER, "--format", "json")
    [peer] = json.loads(out)["peers"]
    assert set(peer) == {"name", "input_size", "params", "sizes", "fit", "verdict", "why"}
    assert peer["verdict"] == "measured, no claim"
    assert peer["input_size"] == [224, 224]
    for size in peer["sizes"]:
        assert set(size) == {"size", "macs", "claimed_macs", "activations", "children", "head"}
        assert size["claimed_macs"] is None
        assert sum(size["children"].values()) == size["macs"]


def test_without_peers_the_json_has_no_peers(run):
    _, out, _ = run("flops", *SPEC, "--format", "json")
    assert set(json.loads(out)) == {"schema_version", "reports"}


def test_a_peer_never_fails_the_assertion_and_a_spec_still_does(run, tmp_path):
    deit = "timm:deit_small_patch16_224"
    assert run("flops", *SPEC, "--vs", deit, "--assert-linear")[0] == 0
    mixer = "mixer={type: global_attention, head_dim: 32}"
    status, _, err = run("flops", *SPEC, "--vs", deit, "--assert-linear", "--set", mixer)
    assert status == 1
    assert err.startswith("swin_tiny is superlinear")
    assert "deit" not in err


def test_a_peer_named_twice_is_shown_once(run):
    _, out, _ = run("flops", *SPEC, "--vs", PEER, "--vs", PEER, "--format", "json")
    assert len(json.loads(out)["peers"]) == 1
