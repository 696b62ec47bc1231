"""What people say of the pixels becomes one input, or one message with everything it lacks."""

import shlex
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

from kedge_runtime.artefact.contract import Geometry, Input, Normalisation
from kedge_runtime.commands.options import pixel_options, pixel_words
from kedge_runtime.errors import UsageError
from kedge_runtime.image.input_options import (
    InputOptions,
    describe_input,
    missing_options,
    resolve_input,
)
from kedge_runtime.image.pipelines import NORMALISATIONS, PIPELINES
from kedge_runtime.image.preprocessing import preprocess

UNIT, METHOD = NORMALISATIONS["unit"], PIPELINES["image_dataset"].resize


def test_a_pipeline_and_a_normalisation_are_the_whole_input() -> None:
    """Only one line says what was taken, and why."""
    spec = resolve_input(InputOptions("image_dataset", "unit"), 160, 160, 3)
    assert spec == Input(
        Geometry(160, 160, METHOD, "stretch", 1.0, "ignore", False),
        UNIT,
        pipeline="image_dataset",
    )
    said = f"160x160 rgb, {METHOD}, stretch, no EXIF, x / 255 (--preprocess image_dataset)"
    assert describe_input(spec) == f"input: {said}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            InputOptions("imagenet", "tf"),
            "input: 96x128 rgb, pyramid, crop 87.5 %, EXIF, x / 127.5 - 1 (--preprocess imagenet)",
        ),
        (
            InputOptions("opencv", "unit", colour="rgb"),
            "input: 96x128 rgb, tf_bilinear, stretch, EXIF, x / 255 (--preprocess opencv)",
        ),
        (
            InputOptions("image_dataset", "unit", exif=True),
            f"input: 96x128 rgb, {METHOD}, stretch, EXIF, x / 255",
        ),
        (
            InputOptions(None, "raw", resize="area", fit="crop", crop=0.9, exif=False),
            "input: 96x128 rgb, area, crop 90 %, no EXIF, 0 to 255",
        ),
    ],
)
def test_the_line_says_each_part(words: InputOptions, said: str) -> None:
    """A pipeline of which a part was replaced is no longer named."""
    assert describe_input(resolve_input(words, 96, 128, 3)) == said


def test_a_pipeline_brings_its_normalisation_and_colour() -> None:
    """Only what the pipeline leaves open must be told."""
    for name, pipeline in PIPELINES.items():
        lacks = [each.option for each in missing_options(InputOptions(name))]
        assert lacks == ([] if pipeline.normalisation else ["--normalisation"])
    assert (
        resolve_input(InputOptions("teachable_machine"), 8, 8, 3).normalisation
        == NORMALISATIONS["tf"]
    )
    assert resolve_input(InputOptions("opencv", "unit"), 8, 8, 3).normalisation.colour == "bgr"
    assert resolve_input(InputOptions("load_img", "caffe"), 8, 8, 3).normalisation.colour == "bgr"
    assert (
        resolve_input(InputOptions("load_img", "caffe", "rgb"), 8, 8, 3).normalisation.colour
        == "rgb"
    )
    grey = resolve_input(InputOptions("load_img", "unit"), 28, 28, 1).normalisation
    assert grey == Normalisation("grey", 255.0, (0.0,), (1.0,))


def test_everything_missing_is_one_message() -> None:
    """A person should not have to come twice."""
    with pytest.raises(UsageError) as refused:
        resolve_input(InputOptions(), 160, 160, 3)
    said = str(refused.value)
    assert all(name in said for name in (*PIPELINES, *NORMALISATIONS, "--resize", "--fit"))
    assert "\n" not in said
    with pytest.raises(UsageError, match=r"give --crop \(a fraction, as .875\)$"):
        resolve_input(InputOptions(None, "unit", resize="area", fit="crop", exif=True), 8, 8, 3)
    parts = InputOptions(None, "unit", resize="area", fit="stretch")
    with pytest.raises(UsageError, match="--exif or --no-exif"):
        resolve_input(parts, 8, 8, 3)


def test_what_the_model_says_needs_no_word_and_gives_way_to_one() -> None:
    """A card's pipeline, or metadata in the file."""
    card, own = PIPELINES["imagenet"], Normalisation(mean=(128.0,) * 3, std=(128.0,) * 3)
    found = resolve_input(InputOptions(), 8, 8, 3, card, normalisation=own)
    assert (found.normalisation, found.pipeline) == (own, "imagenet")
    found = resolve_input(InputOptions("load_img", "unit"), 8, 8, 3, card, normalisation=own)
    assert (found.normalisation, found.pipeline) == (UNIT, "load_img")


@pytest.mark.parametrize(
    ("words", "channels", "said"),
    [
        (
            {"preprocess": "torch_vision"},
            3,
            "--preprocess: got 'torch_vision', allowed are load_img",
        ),
        ({"preprocess": "load_img", "crop": 0.9}, 3, "--crop: --fit stretch cuts no fraction"),
        ({"preprocess": "load_img", "fit": "pillow_fit"}, 3, "fit pillow_fit needs a pillow"),
        ({"preprocess": "load_img", "colour": "grey"}, 3, "--colour grey: the model takes 3"),
        ({"preprocess": "load_img", "colour": "rgb"}, 1, "allowed are grey"),
        ({"preprocess": "load_img"}, 4, "the model takes 4 channels; kedge feeds"),
        ({"preprocess": "load_img", "normalisation": "x/255"}, 3, "--normalisation: got 'x/255'"),
        ({"preprocess": "load_img", "normalisation": "caffe"}, 1, "--normalisation caffe: mean"),
    ],
)
def test_what_cannot_be_is_one_line(words: dict[str, Any], channels: int, said: str) -> None:
    """What came, what is allowed."""
    with pytest.raises(UsageError) as refused:
        resolve_input(InputOptions(**{"normalisation": "unit", **words}), 8, 8, channels)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("word", "proposed"),
    [
        ("image_dataset_from_directory", "; did you mean image_dataset?"),
        ("keras.utils.load_img", "; did you mean load_img?"),
        ("tf.image.resize", "; did you mean tf_resize or tf_hub?"),
        ("cv2", "; did you mean opencv?"),
        ("PIL", "; did you mean pillow?"),
        ("CenterCrop", "; did you mean torchvision?"),
        ("flow_from_directry", "; did you mean flow_from_directory?"),
        ("by_hand", "opencv, imagenet"),
    ],
)
def test_the_nearest_pipeline_is_proposed(word: str, proposed: str) -> None:
    for said in (["--preprocess", word], None):
        with pytest.raises(UsageError) as refused:
            read(said) if said else InputOptions(word)
        assert str(refused.value).startswith(f"--preprocess: got '{word}', allowed are load_img")
        assert str(refused.value).endswith(proposed)


def test_the_nearest_of_other_words_is_proposed() -> None:
    with pytest.raises(UsageError, match=r"allowed are rgb, bgr, grey; did you mean grey\?"):
        read(["--colour", "gray"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"normalisation": "x/255"}, "allowed are unit, tf"),
        ({"normalisation": "mean=.5,.5"}, "rgb images have 3 channels"),
        ({"normalisation": "mean=nan"}, "mean (nan, nan, nan) must be finite numbers"),
        ({"normalisation": "scale=1/255 mean=1e400"}, "must be finite numbers"),
        ({"preprocess": "load_img", "crop": 0.9}, "--crop: --fit stretch cuts no fraction"),
        ({"resize": "bilinear", "fit": "pillow_fit"}, "fit pillow_fit needs a pillow"),
    ],
)
def test_words_are_refused_before_a_model_is_loaded(words: dict[str, Any], said: str) -> None:
    """A word that cannot be is known without the model, which takes TensorFlow ten seconds."""
    with pytest.raises(UsageError) as refused:
        InputOptions(**words)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_parts_give_the_pixels_that_the_pipeline_gives() -> None:
    """The name is a shorthand: its parts, said one by one, feed the same numbers."""
    image = np.random.default_rng(3).integers(0, 256, (40, 60, 3), np.uint8)
    named = resolve_input(InputOptions("image_dataset", "unit"), 16, 16, 3)
    parts = InputOptions(None, "scale=1/255", resize=METHOD, fit="stretch", exif=False)
    told = resolve_input(parts, 16, 16, 3)
    assert np.array_equal(preprocess(named, image), preprocess(told, image))
    assert not np.array_equal(
        preprocess(named, image),
        preprocess(resolve_input(InputOptions("imagenet", "unit"), 16, 16, 3), image),
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], InputOptions()),
        (["--preprocess", "tf_hub", "--no-exif"], InputOptions("tf_hub", exif=False)),
        (
            ["--normalisation", "mean=127.5 std=127.5", "--fit", "crop", "--crop", ".8", "--exif"],
            InputOptions(None, "mean=127.5 std=127.5", fit="crop", crop=0.8, exif=True),
        ),
    ],
)
def test_the_options_are_read_and_written(arguments: list[str], words: InputOptions) -> None:
    """What `options` writes, the command reads back."""
    assert read(arguments) == read(shlex.split(words.options())) == words
    assert words.given == bool(arguments)


def read(arguments: list[str]) -> InputOptions:
    """Return what a command with `pixel_options` reads from arguments."""
    found: list[InputOptions] = []

    @click.command()
    @pixel_options
    def command(**options: Any) -> None:
        found.append(pixel_words(options))

    ran = CliRunner().invoke(command, arguments, catch_exceptions=False, standalone_mode=False)
    if ran.exception:
        raise ran.exception
    return found[0]
