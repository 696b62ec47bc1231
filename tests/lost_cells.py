"""`kedge build` on workers that are lost in mid-run, for them to import."""

from pathlib import Path

from clusters import end_process, end_worker
from kedge_convert.build import making, measuring
from kedge_convert.build.making import Failures, Place
from kedge_convert.build.matrix import Group


def made(flag: Path, group: Group, place: Place) -> Failures:
    """Make a group; its worker is lost once, when what was converted is to be measured."""
    if not flag.exists():
        flag.touch()
        vars(measuring)["measure_apart"] = lambda _: end_worker()
    return making.make(group, place)


def deadly(name: str, group: Group, place: Place) -> Failures:
    """Make a group, unless it has a name that ends its process, each time."""
    return end_process() if group.name == name else making.make(group, place)
