"""Images are spread over threads; the answers and their order stay those of one thread."""

from pathlib import Path

import numpy as np
import pytest

from kedge_convert import parity
from kedge_runtime.artefact.content import read_content
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.errors import ImageError


@pytest.fixture
def file(artefacts: Path, form: str) -> Path:
    return artefacts / f"tiny.{form}"


def test_answers_are_those_of_one_after_the_other(file: Path, pictures: Path) -> None:
    images, ticks = sorted(pictures.iterdir())[:12], list[int]()
    found = parity.answers(read_content(file), images, lambda: ticks.append(1))
    classifier = Classifier.open(file)
    np.testing.assert_array_equal(found, np.stack([classifier.outputs(each) for each in images]))
    assert len(ticks) == len(images)


def test_answers_to_images_at_the_networks_size_are_the_same(file: Path, pictures: Path) -> None:
    images, content = sorted(pictures.iterdir())[:6], read_content(file)
    found = parity.answers(content, images, at_size=True)
    np.testing.assert_array_equal(found, parity.answers(content, images))


def test_the_first_error_is_raised(file: Path, pictures: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        parity.answers(read_content(file), [*sorted(pictures.iterdir())[:3], broken])
