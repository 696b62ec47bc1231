"""Read the label lists that kedge ships, in the format of `kedge_runtime.artefact.labels`.

`imagenet.tsv` holds the synsets and WordNet's first lemma, spelled as Keras's `decode_predictions`
spells them. Two names stand there twice (`crane` the bird and the machine, `maillot` with one and
two pieces), which is why a label has an id besides its name.
"""

from functools import cache
from importlib.resources import files

from kedge_runtime.artefact.contract import Label
from kedge_runtime.artefact.labels import parse
from kedge_runtime.errors import UsageError


def imagenet() -> tuple[Label, ...]:
    """Return the 1000 classes of ILSVRC 2012 in the order of their synsets."""
    return shipped("imagenet")


@cache
def shipped(name: str) -> tuple[Label, ...]:
    """Read one of kedge's own lists. Raises UsageError naming the lists that exist."""
    resource = files(__package__).joinpath(f"{name}.tsv")
    if not resource.is_file():
        raise UsageError(f"no label list {name!r}; kedge ships {', '.join(_lists())}")
    return parse(resource.read_text(encoding="utf-8"), f"{name}.tsv")


def _lists() -> list[str]:
    names = (item.name for item in files(__package__).iterdir())
    return sorted(name.removesuffix(".tsv") for name in names if name.endswith(".tsv"))
