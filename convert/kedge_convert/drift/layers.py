"""`kedge drift --by-layer`: where each of several artefacts of one original loses accuracy."""

from collections.abc import Sequence
from pathlib import Path

from kedge_convert.drift.recording import load_original
from kedge_convert.localise import Localisation, by_layer, svg
from kedge_convert.toolkit import quiet
from kedge_runtime.artefact import Artefact
from kedge_runtime.drift.original import Original, Sample
from kedge_runtime.files import write_whole
from kedge_runtime.image import is_readable
from kedge_runtime.progress import Bar


def localised(
    original: Original, artefacts: Sequence[Artefact], sample: Sample
) -> list[Localisation]:
    """Return every artefact's layers, worst first; pictures that can't be read are left out.

    Raises UsageError when no picture can be read, or for an artefact of another original.
    """
    source = load_original(original)
    pictures = [picture for picture in sample.pictures if is_readable(picture)]
    found = []
    for artefact in artefacts:
        with Bar(f"layers of {artefact.path.name}", len(pictures)) as bar, quiet():
            found.append(by_layer(artefact.path, source, pictures, bar.advance))
    return found


def draw(found: Sequence[Localisation], report: Path) -> None:
    """Write a picture of each beside the report: REPORT.ARTEFACT.svg."""
    for each in found:
        place = report.with_name(f"{report.stem}.{each.artefact}.svg")
        write_whole(place, svg(each).encode())
