"""Which of several ways to compute one thing is fastest here: measured once per shape."""

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import tensorflow as tf

_BATCH = 64  # where the batch size is not known while tracing
_REPEATS = 5
_PREFERENCE = 0.9  # the first way is kept unless another is clearly faster
_chosen: dict[Hashable, str] = {}


def fastest(key: Hashable, ways: Mapping[str, Callable[..., Any]], *like: tf.Tensor) -> str:
    """Name the fastest of several functions; the first if it is nearly so, or a shape unknown.

    Each is compiled and run a few times on random tensors. The choice is kept for the process, so
    equal shapes are computed in the same way, to the last bit, ever after.

    Args:
        key: what the functions depend on besides their arguments' shapes.
        ways: the functions, by name.
        *like: tensors in the shape of their arguments; the batch size may be unknown.
    """
    names = list(ways)
    if len(names) == 1 or any(None in tensor.shape[1:].as_list() for tensor in like):
        return names[0]
    shapes = tuple((tuple(tensor.shape[1:]), tensor.dtype.name) for tensor in like)
    if (key, shapes) not in _chosen:
        with tf.init_scope():
            values = [
                tf.cast(tf.random.normal([tensor.shape[0] or _BATCH, *shape]), tensor.dtype)
                for tensor, (shape, _) in zip(like, shapes, strict=True)
            ]
            compiled = {name: tf.function(way, autograph=False) for name, way in ways.items()}
            seconds: dict[str, list[float]] = {name: [] for name in names}
            for repeat in range(_REPEATS + 1):
                for name in names:
                    start = time.perf_counter()
                    _wait(compiled[name](*values))
                    if repeat:
                        seconds[name].append(time.perf_counter() - start)
        medians = {name: statistics.median(seconds[name]) for name in names}
        medians[names[0]] *= _PREFERENCE
        _chosen[key, shapes] = min(names, key=medians.__getitem__)
    return _chosen[key, shapes]


def _wait(result: Any) -> None:
    for tensor in tf.nest.flatten(result):
        tf.reduce_sum(tensor[:1]).numpy()
