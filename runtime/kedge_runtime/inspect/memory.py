"""How much memory the activations of a network take at once, by the planner's own method.

TFLite plans one arena: the largest tensor first, each into the smallest gap between those that live
at the same time (greedy by size: Pisarchyk and Lee 2020, arXiv:2001.03288, section 4.2; TFLite's
arena_planner.cc). Weights, the engine itself and what XNNPACK packs come on top.
"""

from dataclasses import dataclass

from kedge_runtime.inspect.network import Network

ALIGNMENT = 64  # bytes: kDefaultTensorAlignment of tensorflow/lite/util.h
MAX_PLANNED = 5000  # activations; the plan takes their square


@dataclass(frozen=True)
class Life:
    """An activation's aligned size in bytes, and the first and the last operator that need it."""

    size: int
    first: int
    last: int


def arena(network: Network) -> int | None:
    """Return the bytes of the arena, or None where a shape is open or unknown."""
    found = lives(network)
    if found is None or len(found) > MAX_PLANNED:
        return None
    placed: list[tuple[int, Life]] = []
    for life in sorted(found, key=lambda life: (-life.size, life.first)):
        placed.append((_gap(life, placed), life))
    return max((offset + life.size for offset, life in placed), default=0)


def lives(network: Network) -> list[Life] | None:
    """Return every activation's life, or None where one's size can't be told."""
    end = len(network.operators)
    spans = {place: [0, 0] for place in network.inputs}
    for i, operator in enumerate(network.operators):
        for place in (*operator.inputs, *operator.outputs):
            if place >= 0 and not network.values[place].constant:
                spans.setdefault(place, [i, i])[1] = i
    for place in network.outputs:
        spans.setdefault(place, [end, end])[1] = end
    sizes = {place: network.values[place].bytes for place in spans}
    if None in sizes.values():
        return None
    return [Life(_aligned(sizes[place] or 0), *span) for place, span in spans.items()]


def _gap(life: Life, placed: list[tuple[int, Life]]) -> int:
    """Return the offset of the smallest gap that holds `life`, else the end of what is placed."""
    taken = sorted(
        (offset, offset + other.size)
        for offset, other in placed
        if other.first <= life.last and life.first <= other.last
    )
    end, best = 0, None
    for start, stop in taken:
        room = start - end
        if room >= life.size and (best is None or room < best[0]):
            best = (room, end)
        end = max(end, stop)
    return end if best is None else best[1]


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
