"""Pickles of numpy arrays are read, and no pickle runs code, or takes more memory than it has."""

from __future__ import annotations

import collections
import io
import pathlib
import pickle
import pickletools
import struct
import sys

import numpy as np
import pytest
import torch
from helpers import perturb, tiny

import hierarch
from hierarch import WeightsError
from hierarch.weights.pickles import read_pickle

ARRAYS = {
    "float32": np.arange(12, dtype="f4").reshape(3, 4),
    "float16": np.ones((2, 1), dtype="f2"),
    "columns first": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "a view": np.arange(24.0).reshape(4, 6)[::2, ::3],
    "big endian": np.arange(6, dtype=">f8").reshape(2, 3),
    "big endian, columns first": np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)),
    "uint8": np.arange(5, dtype="u1"),
    "bool": np.array([True, False]),
    "scalar array": np.array(3.5),
    "empty": np.zeros((0, 3)),
}


def pickled(content, protocol):
    return pickle.dumps(content, protocol=protocol)


def zipped(content, protocol=None):
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


WRITERS = {f"protocol {n}": lambda content, n=n: pickled(content, n) for n in range(6)}


@pytest.mark.parametrize("write", [*WRITERS.values(), zipped], ids=[*WRITERS, "torch.save"])
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_tensors(tmp_path, write, name):
    array = ARRAYS[name]
    path = tmp_path / "arrays.pkl"
    path.write_bytes(write({"model": {"x": array, "y": array}, "scalar": np.float32(0.5)}))
    before = torch.serialization.get_safe_globals()
    found = read_pickle(path)
    assert found["scalar"] == 0.5
    for tensor in (found["model"]["x"].tensor, found["model"]["y"].tensor):
        assert tensor.is_contiguous()
        np.testing.assert_array_equal(tensor.numpy(), array)
        assert tensor.numpy().dtype == array.dtype.newbyteorder("=")
    assert {*torch.serialization.get_safe_globals()} == {*before}


def test_arrays_that_numpy_1_and_python_2_wrote(tmp_path):
    """The same pickles but for the module's name, and for bytes that are a `str`."""
    path = tmp_path / "arrays.pkl"
    data = pickled({"x": ARRAYS["float32"]}, 2)
    assert b"numpy._core.multiarray" in data
    path.write_bytes(data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    np.testing.assert_array_equal(read_pickle(path)["x"].tensor.numpy(), ARRAYS["float32"])
    raw = ARRAYS["float32"].tobytes()
    name = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    dtype = b"cnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNK\x00K\x00K\x00tb"
    state = b"(K\x01(K\x03K\x04t" + dtype + b"\x89U" + bytes([len(raw)]) + raw + b"tb"
    path.write_bytes(b"\x80\x02}U\x01x" + name + state + b"s.")
    np.testing.assert_array_equal(read_pickle(path)["x"].tensor.numpy(), ARRAYS["float32"])


def test_containers_are_read(tmp_path):
    content = {"a": [1, 2.5, None, "é", b"x"], "b": collections.OrderedDict(c={1, 2}), "d": (True,)}
    for protocol in range(6):
        (tmp_path / "plain.pkl").write_bytes(pickled(content, protocol))
        assert read_pickle(tmp_path / "plain.pkl") == content


# what is refused


def refused(path, data):
    path.write_bytes(data)
    model = hierarch.build(tiny())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    globals_before = {*torch.serialization.get_safe_globals()}
    with pytest.raises(WeightsError) as caught:
        hierarch.load_weights(model, path)
    assert all(torch.equal(tensor, before[n]) for n, tensor in model.state_dict().items())
    assert {*torch.serialization.get_safe_globals()} == globals_before
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600
    return str(caught.value)


class Calls:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


EVIL = """
import pathlib
pathlib.Path(__file__).with_suffix(".ran").touch()
def function(*arguments): pass
"""


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A module that leaves a file when it is imported."""
    (tmp_path / "evil_module.py").write_text(EVIL)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "evil_module.ran"
    sys.modules.pop("evil_module", None)


OPCODES = {
    "GLOBAL": b"cevil_module\nfunction\n.",
    "INST": b"(ievil_module\nfunction\n.",
    "STACK_GLOBAL": b"\x80\x04\x8c\x0bevil_module\x8c\x08function\x93.",
    "within a mapping": b"\x80\x04}(\x8c\x05modelcevil_module\nfunction\n)Ru.",
    "below a module": b"\x80\x04\x8c\x0bevil_module\x8c\x14function.__globals__\x93.",
}


@pytest.mark.parametrize("kind", OPCODES)
def test_a_global_is_named_and_not_imported(tmp_path, evil, kind):
    assert "it asks for evil_module.function" in refused(tmp_path / "w.pkl", OPCODES[kind])
    assert "evil_module" not in sys.modules
    assert not evil.exists()
    if kind == "GLOBAL":  # as it would be by pickle itself
        pickle.loads(OPCODES[kind])
        assert evil.exists()


@pytest.mark.parametrize("write", [pickle.dumps, zipped], ids=["pickle", "torch.save"])
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (eval, "builtins.eval"),
        (getattr, "builtins.getattr"),
        (np.load, "numpy.load"),
        (np.fromfile, "numpy.fromfile"),
        (torch.load, "torch.serialization.load"),
        (pickle.loads, "_pickle.loads"),
    ],
)
def test_functions_beside_arrays_are_refused(tmp_path, write, function, name):
    data = write({"x": ARRAYS["float32"], "y": Calls(function, "1 / 0")})
    message = refused(tmp_path / "w.pth", data)
    assert "which could run code when read" in message
    assert name.rpartition(".")[2] in message


@pytest.mark.parametrize("write", [pickle.dumps, zipped], ids=["pickle", "torch.save"])
@pytest.mark.parametrize(
    "array",
    [
        np.array([1, "a", None], dtype=object),
        np.array(["text"]),
        np.zeros(2, dtype=[("a", "f4"), ("b", "i4")]),
        np.zeros(2, dtype=complex),
        np.array(["2020-01-01"], dtype="M8[D]"),
    ],
    ids=lambda array: str(array.dtype),
)
def test_arrays_of_other_things_than_numbers_are_refused(tmp_path, write, array):
    message = refused(tmp_path / "w.pkl", write({"model": {"x": array}}))
    code = {"object": "O8", "datetime64[D]": "M8"}.get(str(array.dtype), array.dtype.str[1:])
    assert f"it holds a numpy array of dtype {code!r}" in message


def array_pickle(shape=(2, 3), raw=b"\0" * 24, dtype=b"\x8c\x02f4", order=b"<"):
    """A pickle of {"x": array} in which any part of the array's state may be odd."""
    numbers = b"".join(b"\x8a\x08" + struct.pack("<q", n) for n in shape)
    made = (
        b"cnumpy\ndtype\n(" + dtype + b"tR(K\x03U\x01" + order + b"NNNJ\xff\xff\xff\xffK\x00K\x00tb"
    )
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    state = (
        b"(K\x01(" + numbers + b"t" + made + b"\x89B" + struct.pack("<i", len(raw)) + raw + b"tb"
    )
    return b"\x80\x04}\x8c\x01x" + array + state + b"s."


def test_the_array_whose_parts_are_odd_below_is_read_when_none_is(tmp_path):
    (tmp_path / "w.pkl").write_bytes(array_pickle())
    assert read_pickle(tmp_path / "w.pkl")["x"].tensor.shape == (2, 3)


@pytest.mark.parametrize(
    "options",
    [
        {"shape": (2, 4)},
        {"shape": (1 << 40, 1 << 40)},
        {"shape": (-2, -3)},
        {"shape": (1,) * 65 + (6,)},
        {"raw": b"\0" * 23},
        {"raw": b""},
        {"dtype": b"\x8c\x03f16"},
        {"dtype": b"K\x04"},
        {"dtype": b"]"},
    ],
    ids=str,
)
def test_arrays_whose_bytes_do_not_fit_are_refused(tmp_path, options):
    assert "holds a numpy array" in refused(tmp_path / "w.pkl", array_pickle(**options))


DAMAGED = {
    "an index of 4 billion": b"\x80\x02}r\xff\xff\xff\xff.",
    "a string of 2 to the 62 bytes": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"x.",
    "a bytearray of 2 to the 62 bytes": b"\x80\x05\x96" + struct.pack("<Q", 1 << 62) + b"x.",
    "a number of 2 to the 31 bytes": b"\x80\x02\x8b\xff\xff\xff\x7fx.",
    "another file": b"\x80\x02K\x01Q.",
    "an extension": b"\x80\x02\x82\x01.",
    "a buffer elsewhere": b"\x80\x05\x97.",
    "no end": b"\x80\x02}",
    "nothing": b"",
    "text": b"weights",
    "state for a class": b"cnumpy\nndarray\n}\x8c\x01xK\x01sb.",
    "attributes for a function": (
        b"cnumpy.core.multiarray\n_reconstruct\nN}\x8c\x08__code__K\x01s\x86b."
    ),
    "a call of an array": b"cnumpy.core.multiarray\n_reconstruct\n)R)R.",
    "state for nothing": b"\x80\x02NNb.",
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_hostile_and_damaged_pickles_are_refused(tmp_path, kind):
    message = refused(tmp_path / "w.pkl", DAMAGED[kind])
    assert "is no" in message or "not a state dict" in message or "holds a" in message


def test_a_pickle_changes_nothing_for_the_next(tmp_path):
    """What a pickle sets on the stand-ins goes with it."""
    hostile = (
        b"\x80\x04]"
        b"(cnumpy\nndarray\nN}\x8c\x0c__setstate__Ns\x86b"
        b"cnumpy.core.multiarray\n_reconstruct\nN}\x8c\x0c__defaults__)s\x86b"
        b"e."
    )
    pickletools.dis(hostile, io.StringIO())
    refused(tmp_path / "w.pkl", hostile)
    (tmp_path / "good.pkl").write_bytes(pickled({"x": ARRAYS["float32"]}, 4))
    found = read_pickle(tmp_path / "good.pkl")["x"].tensor
    np.testing.assert_array_equal(found.numpy(), ARRAYS["float32"])


@pytest.mark.parametrize("kept", [0, 1, 10, 100, 1000, -1, -100])
def test_a_truncated_pickle_is_refused(tmp_path, kept):
    model = perturb(hierarch.build(tiny()))
    whole = pickle.dumps({name: tensor.numpy() for name, tensor in model.state_dict().items()})
    refused(tmp_path / "w.pkl", whole[:kept])


def test_a_special_file_is_refused():
    with pytest.raises(WeightsError, match="/dev/zero: is no checkpoint"):
        read_pickle(pathlib.Path("/dev/zero"))
