"""Texts that are not specs, each with its error message: (text or bytes, pattern of the message).

The library and the command line are held against the same list.
"""

from itertools import pairwise

STAGES = "stages: [{dim: 32, depth: 1}]\n"
IDENTITY = "mixer: identity\n"
WINDOWS = "mixer: {type: window_attention, head_dim: 8, window_size: 7, shift_size: 3}\n"

BAD = {
    "empty": ("", r"spec\.yaml: is empty; a spec is a mapping with at least `stages`"),
    "only comments": ("# nothing\n\n", r"spec\.yaml: is empty"),
    "not yaml": ("a: [1, 2\nb: }", r":2:2: not YAML: .*parsing a flow"),
    "tab": ("stages:\n\t- {dim: 8}\n", r":2:1: a tab; YAML indents with spaces"),
    "no mapping": ("- 1\n- 2\n", r":1:1: a spec is a mapping with at least `stages`, found list"),
    "a word": ("swin_tiny", r":1:1: a spec is a mapping with at least `stages`, found str"),
    "duplicate key": (
        STAGES + "norm: layer_norm\nnorm: layer_norm\n" + IDENTITY,
        r":3:1: norm: duplicate key 'norm', first in line 2",
    ),
    "unknown key": (
        IDENTITY + "drop_pth_rate: 0.1\n" + STAGES,
        r":2:1: drop_pth_rate: unknown key 'drop_pth_rate', did you mean 'drop_path_rate'\?",
    ),
    "unknown key in a stage": (
        IDENTITY + "stages:\n  - {dim: 8, depth: 1}\n  - {dim: 8, dept: 1, depth: 1}\n",
        r":4:14: stages\[1\]\.dept: unknown key 'dept', did you mean 'depth'\?",
    ),
    "unknown key in a mixer": (
        STAGES + "mixer:\n  - {type: pooling, kernal_size: 3}\n",
        r":3:21: mixer\[0\]\.kernal_size: unknown key 'kernal_size', did you mean 'kernel_size'\?",
    ),
    "unknown mixer": (
        STAGES + "mixer: {type: window_atention, head_dim: 8}\n",
        r":2:15: mixer\.type: unknown mixer 'window_atention', did you mean 'window_attention'\?",
    ),
    "unknown mixer by name": (
        STAGES + "mixer: poling\n",
        r":2:8: mixer: unknown mixer 'poling', did you mean 'pooling'\?",
    ),
    "mixer like no other": (
        STAGES + "mixer: xyz\n",
        r":2:8: mixer: unknown mixer 'xyz', known: axial_shift, channel",
    ),
    "mixer without type": (
        STAGES + "mixer: {window_size: 7}\n",
        r":2:8: mixer\.type: should name a",
    ),
    "mixer is a number": (STAGES + "mixer: 7\n", r":2:8: mixer: should be the name of a mixer, or"),
    "no mixer": (STAGES, r":1:10: stages\[0\]: has no mixer; give it one"),
    "no stages": (IDENTITY, r":1:1: stages: is missing"),
    "empty stages": (IDENTITY + "stages: []\n", r":2:9: stages: should have at least 1 entry"),
    "stages is a mapping": (
        IDENTITY + "stages: {dim: 8}\n",
        r":2:9: stages: should be a list, got",
    ),
    "stage is a number": (
        IDENTITY + "stages: [96, 192]\n",
        r":2:10: stages\[0\]: should be a mapping, got 96\n.*:2:14: stages\[1\]: should be",
    ),
    "word for a number": (
        IDENTITY + "stages: [{dim: wide, depth: 1}]\n",
        r":2:16: stages\[0\]\.dim: should be a valid integer, got 'wide'",
    ),
    "number in quotes": (
        IDENTITY + "stages: [{dim: '32', depth: 1}]\n",
        r":2:16: stages\[0\]\.dim: should be a valid integer, got '32'",
    ),
    "fraction for a whole": (
        IDENTITY + "stages: [{dim: 32, depth: 1.5}]\n",
        r":2:27: stages\[0\]\.depth: should be a valid integer, got 1\.5",
    ),
    "true for a number": (
        IDENTITY + STAGES + "mlp_ratio: true\n",
        r":3:12: mlp_ratio: should be a valid number, got True",
    ),
    "number for a name": (IDENTITY + STAGES + "name: 7\n", r":3:7: name: should be text, got 7"),
    "dim and head_dim": (
        STAGES + WINDOWS.replace("8", "12"),
        r":1:16: stages\[0\]\.dim: dim=32 is not divisible by head_dim=12 \(window_attention\)",
    ),
    "dim and num_heads": (
        STAGES + WINDOWS.replace("head_dim: 8", "num_heads: 5"),
        r":1:16: stages\[0\]\.dim: dim=32 is not divisible by num_heads=5 \(window_attention\)",
    ),
    "both kinds of heads": (
        STAGES + WINDOWS.replace("head_dim: 8", "head_dim: 8, num_heads: 4"),
        r":2:8: mixer: give head_dim or num_heads; both given",
    ),
    "no heads": (
        STAGES + WINDOWS.replace("head_dim: 8, ", ""),
        r":2:8: mixer: give head_dim or num_heads; neither given",
    ),
    "shift of a window": (
        STAGES + WINDOWS.replace("shift_size: 3", "shift_size: 7"),
        r":2:74: mixer\.shift_size: should be smaller than window_size=7 on 2 axes, got 7",
    ),
    "dim of zero": (
        IDENTITY + "stages: [{dim: 0, depth: 1}]",
        r":2:16: stages\[0\]\.dim: should be greater than or equal to 1, got 0",
    ),
    "negative depth": (
        IDENTITY + "stages: [{dim: 8, depth: -2}]",
        r":2:26: stages\[0\]\.depth: should be greater than or equal to 0, got -2",
    ),
    "window of zero": (
        STAGES + WINDOWS.replace("window_size: 7", "window_size: 0"),
        r":2:59: mixer\.window_size: should be an integer from 1 to 64, or a list .*, got 0",
    ),
    "even kernel": (
        STAGES + "mixer: {type: pooling, kernel_size: 4}\n",
        r":2:37: mixer\.kernel_size: should be odd, got 4",
    ),
    "rate of one": (
        IDENTITY + STAGES + "drop_rate: 1\n",
        r":3:12: drop_rate: should be less than 1",
    ),
    "nan": (
        IDENTITY + STAGES + "mlp_ratio: .nan\n",
        r":3:12: mlp_ratio: should be a finite number",
    ),
    "infinity": (IDENTITY + STAGES + "mlp_ratio: .inf\n", r":3:12: mlp_ratio: .*finite.*, got inf"),
    "no room": (IDENTITY + STAGES + "drop_path_rate: -.inf\n", r":3:17: drop_path_rate: .*finite"),
    "MLP of no width": (
        IDENTITY + STAGES + "mlp_ratio: 0.01\n",
        r"mlp_ratio: leaves an MLP of no width at dim=32, got 0\.01",
    ),
    "dim of 2 GB": (
        IDENTITY + "stages: [{dim: 2147483648, depth: 1}]",
        r":2:16: stages\[0\]\.dim: should be less than or equal to 16384, got 2147483648",
    ),
    "2,000 stages": (
        IDENTITY + "stages:\n" + "  - {dim: 8, depth: 1}\n" * 2_000,
        r":3:3: stages: should have at most 16 entries, got a list of 2000",
    ),
    "alias in itself": (IDENTITY + "stages: &a [*a]\n", r":2:9: stages\[0\].*: nested too deeply"),
    "mapping in itself": (
        "&a {stages: *a}\n",
        r":1:1: stages\.stages.*: nested too deeply \(or an",
    ),
    "exploding aliases": (
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefgh")),
        r": more values than any spec has \(do aliases repeat it\?\)",
    ),
    "nested lists": ("stages: " + "[" * 5_000, r"spec\.yaml: is nested too deeply"),
    "nested blocks": ("- " * 5_000, r"spec\.yaml: is nested too deeply"),
    "nested mappings": ("{a: " * 30 + "1" + "}" * 30, r":1:97: a\.a\.a.*: nested too deeply"),
    "binary": (bytes(range(256)), r"spec\.yaml: is not UTF-8 text \(byte 0x80 at 128\)"),
    "zeros": (bytes(100), r"spec\.yaml: is not YAML text: unacceptable character #x0000"),
    "not utf-8": (
        "name: é\n".encode("latin-1"),
        r"spec\.yaml: is not UTF-8 text \(byte 0xe9 at 6\)",
    ),
    "huge": (b"#" * 10_000_000, r"spec\.yaml: is larger than 256 kB; this is no spec"),
    "object tag": (
        '!!python/object/apply:os.mkdir ["pwned"]\n',
        r":1:1: the tag !!python/object/apply:os\.mkdir is not allowed; write a plain value",
    ),
    "object tag inside": (
        STAGES + 'mixer: !!python/object/apply:os.mkdir ["pwned"]\n',
        r":2:8: mixer: the tag !!python/object/apply:os\.mkdir is not allowed",
    ),
    "own tag": (STAGES + "mixer: !swin pooling\n", r":2:8: mixer: the tag !swin is not allowed"),
    "two documents": (
        IDENTITY + STAGES + "---\n" + STAGES,
        r":3:1: a second document; a file holds",
    ),
    "merge key": (
        "stages:\n  - &s {dim: 8, depth: 1}\n  - {<<: *s, depth: 2}\n",
        r":3:6: stages\[1\]: merge keys \(<<\) are not part of YAML 1\.2; write them out",
    ),
    "huge integer": (
        IDENTITY + f"stages: [{{dim: {'9' * 5_000}, depth: 1}}]",
        r":2:16: stages\[0\]\.dim: '9{50,60}\.\.\. is no number, or none that can be read",
    ),
    "huge hexadecimal integer": (
        IDENTITY + f"stages: [0x{'f' * 5_000}]",
        r":2:10: stages\[0\]: should be a mapping, got a value \(int\) too large to show",
    ),
    "list of a huge integer": (
        IDENTITY + STAGES + f"name: [0x{'f' * 5_000}]",
        r":3:7: name: should be text, got a value \(list\) too large to show",
    ),
    "not that number": (STAGES + "mlp_ratio: !!int ''\n", r":2:12: mlp_ratio: '' is no number"),
    "not that boolean": (STAGES + "mlp_ratio: !!bool x\n", r":2:12: mlp_ratio: 'x' is no number"),
    "half a surrogate pair": (
        IDENTITY + STAGES + 'name: "\\ud800"\n',
        r":3:7: name: should be text",
    ),
    "escape sequence": (
        IDENTITY + STAGES + 'name: "\\e[31m"\n',
        r":3:7: name: should be printable",
    ),
    "key is a number": (
        IDENTITY + STAGES + "1: 2\n",
        r":3:1: 1: unknown key '1', known: activation, b",
    ),
    "key is null": (
        IDENTITY + STAGES + "~: 2\n",
        r":3:1: ~: unknown key '~', known: activation, b",
    ),
    "unknown block": (
        IDENTITY + STAGES + "block: post_nrm\n",
        r":3:8: block: unknown block 'post_nrm', did you mean 'post_norm'\?",
    ),
    "unknown activation of a stage": (
        IDENTITY + "stages: [{dim: 8, depth: 1, activation: {type: relux}}]\n",
        r"stages\[0\]\.activation\.type: unknown activation 'relux', did you mean 'relu'\?",
    ),
    "residual scale of a block without one": (
        IDENTITY + STAGES + "block: {type: post_norm, residual_scale: 1}\n",
        r":3:26: block\.residual_scale: unknown key 'residual_scale', known: type",
    ),
    "no width in a convolution": (
        "mixer: {type: separable_conv, expand_ratio: 0.01}\n" + STAGES,
        r"stages\[0\]\.dim: expand_ratio=0\.01 leaves no width at dim=32 \(separable_conv\)",
    ),
    "no width in the head": (
        IDENTITY + STAGES + "head: {hidden_ratio: 0.01}\n",
        r":3:22: head\.hidden_ratio: leaves a hidden layer of no width at dim=32, got 0\.01",
    ),
    "no grid for a token MLP": (
        STAGES + "mixer: token_mlp\n",
        r":2:8: mixer: 'token_mlp' needs grid; write it as a mapping",
    ),
    "key is a list": (STAGES + "? [a, b]\n: 1\n", r":2:3: a key should be a plain name"),
    "key of a tag": (STAGES + "!!binary aa: 1\n", r":2:1: the tag !!binary is not allowed"),
    "long key": (
        IDENTITY + STAGES + f"? {'k' * 100_000}\n: 1\n",
        r":3:3: k{80}: unknown key 'k{50,60}\.\.\., known: activation, b",
    ),
    "long name": (
        IDENTITY + STAGES + f"name: {'n' * 100_000}",
        r":3:7: name: should have at most 200",
    ),
    "long mixer": (
        STAGES + f"mixer: {'n' * 100_000}",
        r":2:8: mixer: unknown mixer 'n{50,60}\.\.\., k",
    ),
}
