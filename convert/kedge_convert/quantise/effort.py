"""How much work an integer target is worth: the registry behind `--effort`.

- fast: stock weights with one method for ranges, from one observation.
- default: stock and prepared weights, with every method for ranges.
- high: also pairs and copied channels, which give the noisiest activations finer steps (finer.py).

docs/quantisation.md states what each one costs.
"""

from dataclasses import dataclass

from kedge_convert.quantise.ranges import RANGE_METHODS


@dataclass(frozen=True)
class Effort:
    """The quantisation candidates of an integer target.

    `prepares`: whether there are candidates with prepared weights. `range_methods`: of
    RANGE_METHODS, tried on prepared weights. `pairs`, `copies`: how many times the work a file
    may take for pairs, and then for copied channels.
    """

    name: str
    prepares: bool = True
    range_methods: tuple[str, ...] = RANGE_METHODS
    pairs: float = 1.0
    copies: float = 1.0

    @property
    def refines(self) -> bool:
        """Whether int8 also has a candidate with finer steps."""
        return max(self.pairs, self.copies) > 1


FAST = Effort("fast", prepares=False, range_methods=("minmax",))
DEFAULT = Effort("default")
# With all of its LeakyReLUs as pairs a network takes up to 2.7 times the work, for a quarter of the
# noise. Of copies the first ones bring most.
HIGH = Effort("high", pairs=3.0, copies=1.2)
EFFORTS = {effort.name: effort for effort in (FAST, DEFAULT, HIGH)}


def read_effort(value: object) -> Effort:
    """Return the effort of a name. Raises ValueError for an unknown one."""
    if not isinstance(value, str) or value not in EFFORTS:
        raise ValueError(f"got {value!r}, allowed are {', '.join(EFFORTS)}")
    return EFFORTS[value]
