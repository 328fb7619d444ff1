"""Fast float32 Gaussian draws: the ziggurat of Marsaglia and Tsang (2000), on whole arrays.

Half the bell is covered by 1024 layers of one area: layer i reaches to x_i, at heights from f(x_i)
to f(x_{i+1}), with f(x) = exp(-x^2 / 2); the lowest one has the tail beyond R = x_1 in it. A point
of a random layer lies below the bell for certain if its place is below x_{i+1}, which holds in 99.7
of 100 draws; otherwise a second coordinate decides, or the tail is drawn. Layer and place have bits
of their own, which Doornik (2005) shows to matter.
"""

import functools
import math

import numpy as np

from lepton_flwr.crypto.stream import CipherStream

_LAYERS = 1024  # a power of two
_CHUNK = 2**15  # draws whose arrays stay in cache
_CLEARLY = 1 - 2.0**-21  # more than the float32 roundings of a place can hide


def fill(stream: CipherStream, out: np.ndarray, stddev: float) -> None:
    """Overwrite `out` by draws of N(0, stddev^2).

    A draw is that of an ideal Gaussian moved by at most 2^-29 standard deviations and two float32
    roundings: a place has 32 random bits, and whether it is kept is decided in float64 wherever
    float32 could err. The tail has 64 random bits and ends at 15.8 standard deviations.

    Args:
        stream: the random bits; how many are used depends on what they are.
        out: float32, shape (d,), contiguous.
        stddev: the standard deviation.
    """
    reach, _, _, single_reach, single_inner = _tables()
    size = min(_CHUNK, out.size)
    layers, places = np.empty(size, np.uint16), np.empty(size, np.int32)
    index, sizes = np.empty(size, np.intp), np.empty(size, np.float32)
    clear = np.empty(size, np.bool_)
    scale, missed = np.float32(stddev), []
    for start in range(0, out.size, _CHUNK):
        part = out[start : start + _CHUNK]
        n = part.size
        stream.read_into(layers[:n].data.cast("B"))
        stream.read_into(places[:n].data.cast("B"))
        layers[:n] &= _LAYERS - 1
        index[:n] = layers[:n]
        part[:] = places[:n]
        part *= single_reach.take(index[:n], mode="wrap")
        np.abs(part, out=sizes[:n])
        np.less(sizes[:n], single_inner.take(index[:n], mode="wrap"), out=clear[:n])
        part *= scale
        (unclear,) = np.nonzero(~clear[:n])
        missed.append((unclear + start, index[unclear], places[unclear]))
    if missed:
        where, layer, place = (np.concatenate(column) for column in zip(*missed, strict=True))
        out[where] = stddev * _decided(stream, layer, place * reach[layer])


def _decided(stream: CipherStream, layer: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Draws that begin with these layers and places, where they are not clearly below the bell."""
    reach, edges, heights, _, _ = _tables()
    draws = np.empty(x.size)
    todo = np.arange(x.size)
    while todo.size:
        below, above = heights[layer], heights[layer + 1]
        height = below + (above - below) * _uniform(stream, x.size)
        kept = (np.abs(x) < edges[layer + 1]) | ((layer > 0) & (height < np.exp(-(x**2) / 2)))
        beyond = ~kept & (layer == 0)
        draws[todo[kept]] = x[kept]
        draws[todo[beyond]] = np.copysign(_tail(stream, int(beyond.sum())), x[beyond])
        todo = todo[~(kept | beyond)]
        layer = (stream.uint32(todo.size) % _LAYERS).astype(np.intp)
        x = stream.uint32(todo.size).view(np.int32) * reach[layer]
    return draws


def _tail(stream: CipherStream, count: int) -> np.ndarray:
    """Draws of |N(0, 1)| beyond R (Marsaglia 1964)."""
    radius = _tables()[1][1]
    draws = np.empty(count)
    todo = np.arange(count)
    while todo.size:
        beyond = -np.log(_uniform(stream, todo.size)) / radius
        kept = -2.0 * np.log(_uniform(stream, todo.size)) > beyond**2
        draws[todo[kept]] = radius + beyond[kept]
        todo = todo[~kept]
    return draws


def _uniform(stream: CipherStream, count: int) -> np.ndarray:
    """Float64 in (0, 1]."""
    return (stream.uint64(count) + 1.0) * 2.0**-64


@functools.cache
def _tables() -> tuple[np.ndarray, ...]:
    """x_i by a unit of 2^-31; the x_i and f(x_i); and of the first and the second float32 copies.

    x_0 is as if the lowest layer were a rectangle of its area. The float32 x_i are a little smaller
    than they are.
    """
    low, high = 2.0, 5.0
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (low, middle) if len(_edges(middle)) > _LAYERS else (middle, high)
    edges = np.array([*_edges(high)[:_LAYERS], 0.0])
    reach = edges[:-1] * 2.0**-31
    heights = np.exp(-(edges**2) / 2)
    single = reach.astype(np.float32), (edges[1:] * _CLEARLY).astype(np.float32)
    return reach, edges, heights, *single


def _edges(radius: float) -> list[float]:
    """x_0, x_1 = `radius`, and on, while the layers fit below the bell."""
    bell = math.exp(-(radius**2) / 2)
    area = radius * bell + math.sqrt(math.pi / 2) * math.erfc(radius / math.sqrt(2))
    edges = [area / bell, radius]
    while len(edges) <= _LAYERS:
        height = math.exp(-(edges[-1] ** 2) / 2) + area / edges[-1]
        if height >= 1:
            break
        edges.append(math.sqrt(-2 * math.log(height)))
    return edges
