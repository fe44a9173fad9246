"""Random valid specs and image sizes, for properties that hold for every network.

Every number of channels is a multiple of 8, so that every number of heads drawn here divides it.
"""

from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from hierarch import BackboneSpec, load

DIMS = st.sampled_from([8, 16, 24, 32])
HEADS = st.sampled_from([1, 2, 4, 8])
EPS = st.sampled_from([1e-6, 1e-5, 1e-3])
PRINTABLE = st.characters(categories=["L", "M", "N", "P", "S"], include_characters=" ")
RATES = st.sampled_from([0.0, 0.1, 0.5])


def mappings(required: dict[str, Any], **optional: SearchStrategy[Any]) -> SearchStrategy[Any]:
    """Mappings with some of the optional keys, and all of the required ones."""
    fixed = {key: st.just(value) for key, value in required.items()}
    return st.fixed_dictionaries(fixed, optional=optional)


def sides(low: int, high: int) -> SearchStrategy[Any]:
    """An integer, or a pair of them."""
    side = st.integers(low, high)
    return side | st.lists(side, min_size=2, max_size=2)


@st.composite
def headed(draw: DrawFn, name: str, **fields: SearchStrategy[Any]) -> dict[str, Any]:
    heads = {draw(st.sampled_from(["head_dim", "num_heads"])): draw(HEADS)}
    return draw(mappings({"type": name, **heads}, **fields))


@st.composite
def windowed(draw: DrawFn, name: str, **fields: SearchStrategy[Any]) -> dict[str, Any]:
    small_map = st.sampled_from(["pad", "pad_shift", "clamp", "clamp_first", "clamp_both"])
    mixer = draw(headed(name, small_map=small_map, **fields))
    mixer["window_size"] = window = draw(sides(1, 7))
    if draw(st.booleans()):
        by_axis = window if isinstance(window, list) else [window, window]
        mixer["shift_size"] = [draw(st.integers(0, side - 1)) for side in by_axis]
    return mixer


def activations() -> SearchStrategy[Any]:
    name = st.sampled_from(["gelu", "relu", "squared_relu", "star_relu", "tanh"])
    return name | name.map(lambda name: {"type": name})


@st.composite
def token_mlps(draw: DrawFn) -> dict[str, Any]:
    required = {"type": "token_mlp", "grid": draw(sides(1, 5))}
    hidden = st.none() | st.integers(1, 9)
    return draw(mappings(required, hidden_dim=hidden, activation=activations()))


def norms() -> SearchStrategy[Any]:
    biased = {"eps": EPS, "bias": st.booleans()}
    plain = ["layer_norm", "group_norm", "affine", {"type": "affine"}, "batch_norm", "none"]
    return st.sampled_from(plain) | st.one_of(
        mappings({"type": "layer_norm"}, **biased),
        mappings({"type": "group_norm"}, **biased),
        mappings({"type": "batch_norm"}, eps=EPS),
    )


INVERTED_RESIDUAL = {
    "kernel_size": st.sampled_from([1, 3, 5]),
    "expand_ratio": st.sampled_from([0.5, 1, 4]),
    "squeeze_ratio": st.none() | st.sampled_from([0.01, 0.25]),
    "norm": norms(),
    "activation": activations(),
    "squeeze_activation": activations(),
    "bias": st.booleans(),
}
MIXERS: dict[str, SearchStrategy[Any]] = {
    "window_attention": windowed(
        "window_attention",
        qkv_bias=st.booleans(),
        position_bias=st.sampled_from(["relative", "none"]),
        shift_mask=st.booleans(),
    ),
    "window_mlp": windowed("window_mlp"),
    "grid_attention": headed(
        "grid_attention",
        window_size=sides(1, 7),
        qkv_bias=st.booleans(),
        position_bias=st.sampled_from(["relative", "none"]),
    ),
    "neighborhood_attention": headed(
        "neighborhood_attention",
        kernel_size=st.sampled_from([1, 3, 5, 7]),
        dilation=st.integers(1, 4),
        qkv_bias=st.booleans(),
        position_bias=st.sampled_from(["relative", "none"]),
    ),
    "linear_attention": headed("linear_attention", qkv_bias=st.booleans()),
    "cosine_window_attention": windowed(
        "cosine_window_attention",
        qkv_bias=st.booleans(),
        pretrained_window_size=st.none() | sides(1, 9),
        shift_mask=st.booleans(),
    ),
    "axial_shift": mappings({"type": "axial_shift"}, kernel_size=st.sampled_from([1, 3, 5, 9])),
    "channel_attention": headed(
        "channel_attention",
        qkv_bias=st.booleans(),
        scale=st.sampled_from(["head_dim", "tokens", "cosine"]),
    ),
    "cross_window_attention": headed(
        "cross_window_attention",
        qkv_bias=st.booleans(),
        stripe_width=st.none() | st.integers(1, 7),
    ),
    "focal_modulation": st.just("focal_modulation")
    | mappings(
        {"type": "focal_modulation"},
        focal_window=st.sampled_from([1, 3, 5]),
        focal_level=st.integers(1, 3),
        normalize_modulator=st.booleans(),
        norm=st.none() | norms(),
    ),
    "global_attention": headed(
        "global_attention",
        qkv_bias=st.booleans(),
        key_bias=st.booleans(),
        proj_bias=st.booleans(),
    ),
    "pooling": st.just("pooling")
    | mappings({"type": "pooling"}, kernel_size=st.sampled_from([1, 3, 5])),
    "depthwise_conv": st.just("depthwise_conv")
    | mappings(
        {"type": "depthwise_conv"}, kernel_size=st.sampled_from([1, 3, 5, 7]), bias=st.booleans()
    ),
    "separable_conv": st.just("separable_conv")
    | mappings(
        {"type": "separable_conv"},
        kernel_size=st.sampled_from([1, 3, 7]),
        expand_ratio=st.sampled_from([0.5, 1, 2]),
        bias=st.booleans(),
        activation=activations(),
    ),
    "mbconv": mappings({"type": "mbconv"}, **INVERTED_RESIDUAL),
    "token_mlp": token_mlps(),
    "global_filter": sides(1, 5).map(lambda grid: {"type": "global_filter", "grid": grid}),
    "inception_conv": mappings(
        {"type": "inception_conv"},
        square_kernel_size=st.sampled_from([1, 3, 5]),
        band_kernel_size=st.sampled_from([1, 5, 11]),
        branch_ratio=st.sampled_from([0.125, 0.25, 1 / 3]),
    ),
    "large_kernel_attention": mappings(
        {"type": "large_kernel_attention"},
        kernel_size=st.sampled_from([1, 3, 7]),
        dilation=st.integers(1, 3),
    ),
    "random_mixing": sides(1, 5).map(lambda grid: {"type": "random_mixing", "grid": grid}),
    "shift": st.sampled_from([4, 5, 8]).map(lambda n_div: {"type": "shift", "n_div": n_div}),
    "identity": st.just("identity"),
}
"""The built-in mixers, each with random fields."""


def mixers() -> SearchStrategy[Any]:
    """One mixer, or a cycle of them."""
    one = st.one_of(list(MIXERS.values()))
    return one | st.lists(one, min_size=1, max_size=3)


def blocks() -> SearchStrategy[Any]:
    return st.sampled_from(["pre_norm", "post_norm", "single_residual", "parallel"]) | mappings(
        {"type": "pre_norm"},
        residual_scale=st.none() | st.sampled_from([0.1, 1]),
        position=st.sampled_from(
            ["none", "conditional", {"type": "conditional", "kernel_size": 5}]
        ),
    )


CONVOLUTION = {
    "kernel_size": st.integers(1, 5),
    "stride_size": st.integers(1, 4),
    "padding": st.integers(0, 3),
    "bias": st.booleans(),
    "norm": st.none() | norms(),
}


def downsamples() -> SearchStrategy[Any]:
    bare = ["patch_merging", "conv_downsample", "pool_downsample", "mbconv"]
    return st.sampled_from(bare) | st.one_of(
        mappings({"type": "patch_merging"}, norm=norms(), norm_last=st.booleans()),
        mappings({"type": "conv_downsample"}, pad_rest=st.booleans(), **CONVOLUTION),
        mappings(
            {"type": "pool_downsample"},
            pool=st.sampled_from(["max", "mean"]),
            kernel_size=st.sampled_from([2, 3]),
            bias=st.booleans(),
            norm=st.none() | norms(),
        ),
        mappings({"type": "mbconv"}, **INVERTED_RESIDUAL),
    )


def stems() -> SearchStrategy[Any]:
    channels = st.integers(1, 4)
    return st.sampled_from(["patch_embed", "conv_stem"]) | st.one_of(
        mappings(
            {"type": "patch_embed"},
            patch_size=sides(1, 5),
            in_chans=channels,
            norm=st.none() | norms(),
        ),
        mappings({"type": "conv_stem"}, in_chans=channels, **CONVOLUTION),
    )


def cycles(one: SearchStrategy[Any]) -> SearchStrategy[Any]:
    """A part, or a list of them."""
    return one | st.lists(one, min_size=1, max_size=3)


CHANNEL_MIXERS = st.sampled_from(["mlp", "glu", "conv_mlp", "grn_mlp", "none"])
BLOCK_OPTIONS = {
    "block": cycles(blocks()),
    "channel_mixer": cycles(CHANNEL_MIXERS),
    "mlp_ratio": st.sampled_from([0.5, 1, 2.5, 4]),
    "mlp_bias": st.booleans(),
    "activation": activations(),
    "norm": cycles(norms()),
    "downsample": downsamples(),
    "drop_rate": RATES,
    "layer_scale": st.none() | st.sampled_from([1e-6, 0.1, 1]),
}
"""Fields that the top level gives for every stage, and a stage for itself."""


@st.composite
def stages(draw: DrawFn, least: int = 1) -> dict[str, Any]:
    """One of `least` blocks, or more."""
    required = {"dim": draw(DIMS), "depth": draw(st.integers(least, 3))}
    return draw(mappings(required, mixer=mixers(), **BLOCK_OPTIONS))


def heads() -> SearchStrategy[Any]:
    return mappings(
        {},
        num_classes=st.sampled_from([0, 1, 10]),
        drop_rate=RATES,
        pool_first=st.booleans(),
        norm=st.none() | norms(),
        hidden_ratio=st.none() | st.sampled_from([0.5, 1, 4]),
        hidden_norm=st.none() | norms(),
        activation=activations(),
    )


@st.composite
def backbones(draw: DrawFn) -> dict[str, Any]:
    """A valid spec as the plain mapping that a person would write."""
    listed = [draw(stages()), *draw(st.lists(stages(least=0), max_size=3))]
    ends = {"stem_dim": draw(st.none() | DIMS)} if "downsample" in listed[0] else {}
    if draw(st.booleans()):
        ends["head"] = draw(heads())
    elif draw(st.booleans()):
        every = st.sampled_from(range(len(listed)))
        ends["out_indices"] = sorted(draw(st.sets(every, min_size=1)))
    position = mappings({"type": "absolute"}, grid=sides(1, 9)).filter(lambda p: "grid" in p)
    return draw(
        mappings(
            {"mixer": draw(mixers()), "stages": listed, **ends},
            name=st.text(PRINTABLE, min_size=1, max_size=20),
            input_size=sides(1, 300),
            stem=stems(),
            drop_path_rate=RATES,
            position_embedding=st.just("none") | position,
            **BLOCK_OPTIONS,
        )
    )


def backbone_specs() -> SearchStrategy[BackboneSpec]:
    """Valid specs: 1 to 4 small stages, with every field and every built-in mixer at random."""
    return backbones().map(load)


def image_sizes(low: int = 1, high: int = 97) -> SearchStrategy[tuple[int, int]]:
    """(height, width), odd and oblong ones included."""
    return st.tuples(st.integers(low, high), st.integers(low, high))
