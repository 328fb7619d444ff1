"""Every rule against a loop of batch-of-one gradients, over random shapes and settings."""

import contextlib

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lepton_flwr.training.bookkeeping import BookkeepingEngine
from lepton_flwr.training.contributions import Outer

layers = keras.layers
ROWS = 5
# Norms are rounded up by at most 8e-6; half of that reaches a clipped gradient of a dense layer
# over one position twice.
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


@contextlib.contextmanager
def floats(dtype):
    before, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_floatx(before)
        keras.config.set_dtype_policy(policy)


def formed(key, ways, *like):
    return next(iter(ways))


@pytest.fixture(autouse=True)
def _first_way(monkeypatch):
    """No measured choices: gradients are formed where a test does not say otherwise."""
    monkeypatch.setattr("lepton_flwr.training.bookkeeping.fastest", formed)


def check(oracle, stack, shape, dtype="float32", ids=0, clips=(2.0**13, 2.0**-4), seed=3):
    """Clipped sums of a model of `stack` on random rows, without and with clipping."""
    with floats(dtype):
        keras.utils.set_random_seed(seed)
        model = keras.Sequential([keras.Input(shape, dtype="int32" if ids else dtype), *stack()])
        model.compile("sgd", "mse")
        rng = np.random.default_rng(seed)
        for v in model.trainable_variables:
            v.assign(np.asarray(v) + rng.normal(size=v.shape, scale=0.3))
        x = rng.integers(0, ids, (ROWS, *shape)) if ids else rng.normal(size=(ROWS, *shape))
        x = x.astype(np.int32 if ids else dtype)
        y = rng.normal(size=model(x).shape).astype(dtype)
        engine = BookkeepingEngine(model)
        for error in oracle.errors(engine, x, y, *clips):
            assert error < TOLERANCE[dtype]
        assert engine.fallback is None


CASES = {
    "dense": (lambda: [layers.Dense(4, "tanh"), layers.Dense(3)], (6,)),
    "dense over positions": (lambda: [layers.Dense(4, "tanh"), layers.Dense(3)], (5, 6)),
    "dense over a grid": (lambda: [layers.Dense(3, use_bias=False)], (2, 3, 4)),
    "einsum": (
        lambda: [
            layers.EinsumDense("abc,cde->abde", output_shape=(None, 2, 3), bias_axes="de"),
            layers.EinsumDense("abde,dec->abc", output_shape=(None, 4), bias_axes="c"),
            layers.EinsumDense("...c,cd->...d", output_shape=2, bias_axes="d"),
        ],
        (5, 6),
    ),
    "einsum by position": (
        lambda: [layers.EinsumDense("abc,bcd->abd", output_shape=(5, 4), bias_axes="bd")],
        (5, 6),
    ),
    "convolution": (
        lambda: [
            layers.Conv2D(4, 3, padding="same", strides=2, activation="relu"),
            layers.Conv2D(3, 2, dilation_rate=2),
        ],
        (8, 7, 2),
    ),
    "grouped convolution": (
        lambda: [layers.Conv2D(6, 3, groups=2, padding="same", strides=2)],
        (6, 7, 4),
    ),
    "convolution in time": (
        lambda: [
            layers.Conv1D(4, 3, padding="causal", dilation_rate=2, activation="tanh"),
            layers.Conv1D(2, 2, strides=2, padding="same"),
        ],
        (9, 3),
    ),
    "convolution in space": (
        lambda: [layers.Conv3D(3, (2, 3, 2), padding="same", strides=(2, 1, 2))],
        (5, 6, 4, 2),
    ),
    "depthwise": (
        lambda: [layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", strides=2)],
        (6, 7, 3),
    ),
    "depthwise in time": (lambda: [layers.DepthwiseConv1D(3, padding="same")], (9, 3)),
    "separable": (
        lambda: [layers.SeparableConv2D(4, 3, depth_multiplier=2, strides=2, padding="same")],
        (6, 7, 3),
    ),
    "separable in time": (
        lambda: [layers.SeparableConv1D(4, 3, dilation_rate=2, activation="tanh")],
        (9, 3),
    ),
    "layer norm": (
        lambda: [
            layers.LayerNormalization(),
            layers.LayerNormalization(axis=[1, 2]),
            layers.LayerNormalization(axis=1, center=False),
            layers.RMSNormalization(),
        ],
        (5, 6),
    ),
    "group norm": (
        lambda: [
            layers.GroupNormalization(3),
            layers.GroupNormalization(-1, scale=False),
            layers.GroupNormalization(1, axis=1),
        ],
        (5, 6),
    ),
    "prelu": (lambda: [layers.PReLU(), layers.PReLU(shared_axes=[1])], (5, 6)),
    "frozen batch norm": (
        lambda: [layers.BatchNormalization(trainable=False), layers.Dense(2)],
        (6,),
    ),
    "frozen layer": (
        lambda: [layers.Dense(4), layers.Dense(5, trainable=False), layers.Dense(2)],
        (6,),
    ),
    "dropout of nothing": (lambda: [layers.Dense(4), layers.Dropout(0.0)], (6,)),
}
for kind in (layers.SimpleRNN, layers.LSTM, layers.GRU):
    CASES |= {
        f"{kind.__name__} read backwards": (
            lambda kind=kind: [kind(4, return_sequences=True, go_backwards=True), kind(3)],
            (5, 3),
        ),
        f"{kind.__name__} in both directions": (
            lambda kind=kind: [layers.Bidirectional(kind(3)), layers.Dense(2)],
            (4, 3),
        ),
        f"{kind.__name__} without bias": (
            lambda kind=kind: [kind(3, use_bias=False, unroll=True)],
            (4, 3),
        ),
    }
CASES["GRU, reset before"] = (lambda: [layers.GRU(4, reset_after=False)], (5, 3))
SLOW = [name for name in CASES if "RNN" in name or "LSTM" in name or "GRU" in name]


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=pytest.mark.slow) if c in SLOW else c for c in CASES]
)
def test_clipped_sums_are_those_of_a_loop(oracle, case, dtype):
    check(oracle, *CASES[case], dtype)


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
def test_an_embedding_adds_up_what_one_id_gets(oracle, dtype):
    check(oracle, lambda: [layers.Embedding(4, 3), layers.Dense(2)], (7,), dtype, ids=4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [layers.SimpleRNN, layers.LSTM, layers.GRU])
@pytest.mark.parametrize("zeros", [False, True])
def test_masked_steps_of_a_recurrent_layer_count_for_nothing(oracle, kind, zeros):
    def stack():
        return [
            layers.Embedding(4, 3, mask_zero=True),
            kind(4, return_sequences=True, zero_output_for_mask=zeros),
            kind(3, zero_output_for_mask=zeros),
        ]

    check(oracle, stack, (6,), ids=4)


@pytest.mark.parametrize("forced", ["ghost", "formed", "pieces"])
@pytest.mark.parametrize("case", ["dense over positions", "grouped convolution", "convolution"])
def test_every_way_to_a_norm_agrees_with_the_loop(oracle, monkeypatch, case, forced):
    preferring(monkeypatch, "rows")
    pieces = []
    original = Outer._norms_in_pieces

    def in_pieces(self):
        pieces.append(self.piece)
        return original(self)

    def chosen(key, ways, *like):
        return forced if forced in ways else next(iter(ways))

    monkeypatch.setattr(Outer, "_norms_in_pieces", in_pieces)
    if forced == "pieces":  # of two to four of the five rows
        monkeypatch.setattr("lepton_flwr.training.bookkeeping._FEW", 0)
        monkeypatch.setattr("lepton_flwr.training.bookkeeping._PIECE", 50)

    monkeypatch.setattr("lepton_flwr.training.bookkeeping.fastest", chosen)
    check(oracle, *CASES[case], clips=(2.0**13,))
    with monkeypatch.context() as patch:  # a ghost norm is rounded up by more
        patch.setitem(TOLERANCE, "float32", 3e-4 if forced == "ghost" else 1e-5)
        check(oracle, *CASES[case], clips=(2.0**-4,))
    assert bool(pieces) == (forced == "pieces")
    assert all(piece < ROWS for piece in pieces)


def preferring(monkeypatch, *names):
    """Convolutions take the first of `names` that there is; returns what they took."""
    taken = []

    def choose(key, ways, *like):
        taken.append(next((name for name in names if name in ways), next(iter(ways))))
        return taken[-1]

    for module in ("rules.convolution", "patches"):
        monkeypatch.setattr(f"lepton_flwr.training.{module}.fastest", choose)
    return taken


@pytest.mark.parametrize("way", ["gather", "extract", "convolve"])
def test_every_way_to_patches_agrees_with_the_loop(oracle, monkeypatch, way):
    preferring(monkeypatch, way)
    check(oracle, lambda: [layers.Conv2D(4, (3, 2), strides=(2, 1), padding="same")], (6, 7, 2))


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("way", ["multiply", "rows"])
def test_every_way_to_convolve_agrees_with_the_loop(oracle, monkeypatch, way, padding):
    taken = preferring(monkeypatch, way)

    def stack():
        first = layers.Conv2D(3, (3, 2), strides=(2, 1), padding=padding, activation="tanh")
        return [layers.Dense(2, "tanh"), first, layers.Conv2D(2, 2, use_bias=False)]

    check(oracle, stack, (7, 8, 2))
    assert way in taken


@st.composite
def convolutions(draw):
    rank = draw(st.integers(1, 3))
    sizes = st.tuples(*[st.integers(1, 3)] * rank)
    strided = draw(st.booleans())
    groups = draw(st.sampled_from([1, 1, 2]))
    arguments = {
        "filters": groups * draw(st.integers(1, 3)),
        "kernel_size": draw(sizes),
        "strides": draw(sizes) if strided else 1,
        "dilation_rate": 1 if strided else draw(sizes),
        "padding": draw(st.sampled_from(["valid", "same", *["causal"] * (rank == 1)])),
        "groups": groups,
        "use_bias": draw(st.booleans()),
    }
    shape = (*draw(st.tuples(*[st.integers(7, 9)] * rank)), 2 * groups)
    ways = draw(st.permutations(["convolve", "extract", "gather", "multiply", "rows"]))
    return rank, arguments, shape, ways


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(convolutions())
def test_any_convolution(oracle, convolution):
    rank, arguments, shape, ways = convolution
    kind = (layers.Conv1D, layers.Conv2D, layers.Conv3D)[rank - 1]
    with pytest.MonkeyPatch.context() as patch:
        preferring(patch, *ways)
        check(oracle, lambda: [kind(**arguments)], shape)


@pytest.mark.slow
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_recurrent_layer(oracle, data):
    kind = data.draw(st.sampled_from([layers.SimpleRNN, layers.LSTM, layers.GRU]))
    options = ("use_bias", "return_sequences", "go_backwards", "zero_output_for_mask")
    arguments = {name: data.draw(st.booleans()) for name in options}
    if kind is layers.GRU:
        arguments["reset_after"] = data.draw(st.booleans())
    mask = data.draw(st.booleans())

    def stack():
        units = data.draw(st.integers(1, 4))
        return [layers.Embedding(4, 3, mask_zero=mask), kind(units, **arguments)]

    check(oracle, stack, (data.draw(st.integers(1, 6)),), ids=4)


@pytest.mark.slow
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.integers(1, 5),
    st.booleans(),
    st.sampled_from(["float32", "float64"]),
)
def test_any_dense_layer(oracle, shape, units, use_bias, dtype):
    check(oracle, lambda: [layers.Dense(units, "tanh", use_bias=use_bias)], tuple(shape), dtype)


def test_a_subclass_of_a_known_layer_is_not_taken_for_it(caplog):
    class Doubled(layers.Dense):
        def call(self, inputs, training=None):
            return 2 * super().call(inputs)

    model = keras.Sequential([keras.Input((3,)), Doubled(1)])
    model.compile("sgd", "mse")
    engine = BookkeepingEngine(model)
    assert "Doubled" in engine.fallback
    assert [record.message for record in caplog.records if "Doubled" in record.message]


def test_a_rule_of_ones_own_takes_a_few_lines(oracle):
    from lepton_flwr.training.contributions import Summed
    from lepton_flwr.training.rules import register

    class Scale(layers.Layer):
        def build(self, shape):
            self.gamma = self.add_weight(shape=(shape[-1],), initializer="ones")

        def call(self, inputs):
            return inputs * self.gamma

    @register(Scale)
    def scale(site, inputs):
        layer = site.layer
        return site.tap(
            inputs * site.cut(layer.gamma),
            lambda g: [(layer.gamma, Summed.over(g * inputs, layer.gamma.shape))],
        )

    check(oracle, lambda: [layers.Dense(4), Scale(), layers.Dense(2)], (5, 3))
