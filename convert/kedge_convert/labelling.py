"""The names of a source's classes: the user's, the card's, or those of the folders of images."""

from dataclasses import dataclass
from pathlib import Path

from kedge_convert.heads import Head
from kedge_convert.photos import CALIBRATE
from kedge_convert.sources import Found, Request
from kedge_models import imagenet, read_labels, without_numbers
from kedge_runtime.contract import Label
from kedge_runtime.errors import UsageError, counted
from kedge_runtime.pictures import find
from kedge_runtime.pixels import Missing


@dataclass(frozen=True)
class Labelling:
    """`labels` in the order of the output; `offset`: outputs before the first label's; what is
    `missing` to know them; `notes`: what the user should know, a line each.
    """

    labels: tuple[Label, ...] = ()
    offset: int = 0
    missing: tuple[Missing, ...] = ()
    notes: tuple[str, ...] = ()


def labelled(request: Request, found: Found, head: Head) -> Labelling:
    """Return the names of a head's classes. Raises UsageError where their number is another."""
    name, outputs = found.name, head.model.outputs[0].shape[-1]
    if head.kind == "features":
        if request.labels:
            raise UsageError(f"--labels: {name} gives features, which have no names; leave it out")
        return Labelling()
    known, notes = _named(request, found, outputs)
    if known is None:
        return Labelling(missing=(classes(outputs),))
    # TensorFlow's own ImageNet models: output 0 is the background, and has no label.
    if outputs == len(known) + 1 and known == imagenet():
        return Labelling(known, 1, notes=notes)
    if len(known) != outputs:
        raise _miscounted(request, name, outputs, len(known))
    return Labelling(known, notes=notes)


Named = tuple[tuple[Label, ...] | None, tuple[str, ...]]


def _named(request: Request, found: Found, outputs: int) -> Named:
    """Return the labels that the user, the card or the folders give, and what is to be said."""
    if request.labels == "imagenet":
        return imagenet(), ()
    if request.labels:
        return _read(request.labels)
    if found.facts.labels is not None:
        return found.facts.labels, ()
    folders = class_folders(request.folder)
    if len(folders) != outputs:
        return None, ()
    order = "in alphabetical order, as Keras takes them"
    note = f"labels: the {outputs} folders of {request.folder} {order}"
    return tuple(Label(folder, folder) for folder in folders), (note,)


def _read(path: str) -> Named:
    given = read_labels(Path(path))
    names = without_numbers(given)
    if names == given:
        return given, ()
    return names, (f"labels: {path} numbers its lines; the numbers are left out",)


def _miscounted(request: Request, name: str, outputs: int, count: int) -> UsageError:
    if request.labels in (None, "imagenet"):
        return UsageError(
            f"{name}: it has {outputs} classes, but there are {count} labels: "
            f"give --labels FILE with {outputs} lines"
        )
    return UsageError(
        f"{name}: it has {outputs} classes, but {request.labels} has {counted(count, 'line')}: "
        "a label file has one class a line, in the order of the output"
    )


def classes(outputs: int) -> Missing:
    """Return the question for the names of so many classes."""
    words = f"FILE with the names of its {outputs} classes, one a line, or imagenet"
    return Missing("--labels", f"{words}; without names for features: --head features")


def class_folders(folder: str | None) -> list[str]:
    """Return the names of the folders in a folder that hold images, in the order of Keras's
    `image_dataset_from_directory`: alphabetical; none where images lie beside them.
    """
    if folder is None:
        return []
    images = find(Path(folder), CALIBRATE)
    names = {path.relative_to(folder).parts[0] for path in images}
    return sorted(names) if all((Path(folder) / name).is_dir() for name in names) else []
