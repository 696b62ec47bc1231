"""`kedge build` on workers that are lost in mid-run, for them to import."""

from pathlib import Path

from clusters import end_process, end_worker
from kedge_convert.matrix import make
from kedge_convert.matrix.cells import CellGroup
from kedge_convert.matrix.make import Workspace
from kedge_convert.matrix.verdict import Failures


def made(flag: Path, group: CellGroup, place: Workspace) -> Failures:
    """Make a group; its worker is lost once, when what was converted is to be measured."""
    if not flag.exists():
        flag.touch()
        vars(make)["measure_apart"] = lambda _: end_worker()
    return make.make(group, place)


def deadly(name: str, group: CellGroup, place: Workspace) -> Failures:
    """Make a group, unless it has a name that ends its process, each time."""
    return end_process() if group.name == name else make.make(group, place)
