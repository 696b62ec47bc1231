"""Every card against Keras itself: nothing in the zoo is taken on trust."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from kedge_models.cards import Card, card, cards, parse
from kedge_runtime.artefact.contract import Geometry, Normalisation
from kedge_runtime.errors import ContractError, UsageError
from kedge_runtime.image.pipelines import NORMALISATIONS

GOOD = (
    'module = "vgg16"\nnormalisation = "caffe"\nparameters = 1\nyear = 2014\npaper = "1409.1556"\n'
)
ALL = sorted(cards())


@pytest.fixture(scope="module")
def keras() -> Any:
    pytest.importorskip("tensorflow", reason="the cards are held against Keras")
    return pytest.importorskip("keras")


def floats(values: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.asarray(values, dtype=np.float32)


def table(normalisation: Normalisation) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(256, 3) float32 in the network's own channel order, each step in float32 as Keras does."""
    steps = floats(np.arange(256))[:, None] / floats(normalisation.divisor)
    return floats((steps - floats(normalisation.mean)) / floats(normalisation.std))


@pytest.mark.parametrize("name", ALL)
def test_card_is_complete(name: str) -> None:
    found = card(name)
    assert found.normaliser() is NORMALISATIONS[found.normalisation]
    assert found.geometry() == Geometry(found.size, found.size)
    assert len(found.label_list()) == 1000
    assert found.parameters > 0
    assert 2014 <= found.year <= 2026


@pytest.mark.parametrize("name", ALL)
def test_card_says_only_what_differs(name: str) -> None:
    root = Path(__file__).parents[1] / "models" / "kedge_models" / "cards"
    keys = {line.split(" = ")[0] for line in (root / f"{name}.toml").read_text().splitlines()}
    defaults = {
        key: Card.__dataclass_fields__[key].default
        for key in ("size", "resize", "fit", "crop_fraction", "labels", "top1", "top1_source")
    } | {"name": name, "application": name}
    assert [key for key in keys & set(defaults) if getattr(card(name), key) == defaults[key]] == []


def test_every_keras_application_has_a_card(keras: Any) -> None:
    offered = {
        name
        for name, value in vars(keras.applications).items()
        if name[0].isupper() and not isinstance(value, ModuleType)
    }
    assert {item.application for item in cards().values()} == offered


@pytest.mark.parametrize("module", sorted({item.module for item in cards().values()}))
def test_normalisation_equals_keras_bit_for_bit(keras: Any, module: str) -> None:
    (mode,) = {item.normalisation for item in cards().values() if item.module == module}
    bytes_ = np.repeat(np.arange(256, dtype=np.float32)[:, None], 3, axis=1)
    expected = getattr(keras.applications, module).preprocess_input(bytes_.reshape(1, 256, 1, 3))
    actual = table(NORMALISATIONS[mode])
    assert expected.dtype == np.float32
    np.testing.assert_array_equal(actual, np.reshape(expected, (256, 3)))


@pytest.mark.parametrize("mode", sorted({item.normalisation for item in cards().values()}))
def test_colour_order_equals_keras(keras: Any, mode: str) -> None:
    module = next(item.module for item in cards().values() if item.normalisation == mode)
    red = floats([[[[200, 100, 50]]]])
    given = (50, 100, 200) if NORMALISATIONS[mode].colour == "bgr" else (200, 100, 50)
    actual = [table(NORMALISATIONS[mode])[byte, channel] for channel, byte in enumerate(given)]
    expected = getattr(keras.applications, module).preprocess_input(red)
    np.testing.assert_array_equal(actual, np.ravel(expected))


class SizeFoundError(Exception):
    """Ends the building of a model as soon as it has told its default size."""


@pytest.mark.parametrize("name", ALL)
def test_size_is_keras_default(keras: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    if card(name).module == "mobilenet_v3":
        pytest.skip("MobileNetV3 has no default size in Keras 3: it leaves height and width open")

    def tell(*_: Any, default_size: int, **__: Any) -> None:
        raise SizeFoundError(default_size)

    utils = pytest.importorskip("keras.src.applications.imagenet_utils")
    monkeypatch.setattr(utils, "obtain_input_shape", tell)
    with pytest.raises(SizeFoundError) as found:
        getattr(keras.applications, card(name).application)(weights=None, **card(name).arguments)
    assert found.value.args == (card(name).size,)


def count(keras: Any, item: Card) -> int:
    # Weights have shapes there and no values, which takes a quarter of the time.
    with keras.StatelessScope():
        model = getattr(keras.applications, item.application)(weights=None, **item.arguments)
    parameters: int = model.count_params()
    keras.backend.clear_session()
    return parameters


SMALLEST = sorted(ALL, key=lambda name: cards()[name].parameters)


@pytest.mark.parametrize("name", SMALLEST[:3])
def test_parameters_of_the_smallest(keras: Any, name: str) -> None:
    assert count(keras, card(name)) == card(name).parameters


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SMALLEST[3:] if cards()[name].parameters < 1e8])
def test_parameters_of_the_others(keras: Any, name: str) -> None:
    assert count(keras, card(name)) == card(name).parameters


def test_names_match_in_any_case() -> None:
    assert card("mobilenetv2") is card("MOBILENETV2") is cards()["MobileNetV2"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mobilenet2", "did you mean MobileNetV2 or MobileNet"),
        ("resnet-50", "did you mean ResNet50"),
        ("", "no model called ''"),
        ("zzz", "kedge models lists all"),
    ],
)
def test_unknown_names(name: str, words: str) -> None:
    with pytest.raises(UsageError) as error:
        card(name)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_application_defaults_to_the_name() -> None:
    assert parse("VGG16", GOOD).application == "VGG16"
    assert parse("Other", GOOD + 'application = "VGG16"').application == "VGG16"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD + "sise = 224", "unknown key 'sise'"),
        (GOOD.replace("parameters = 1\n", ""), "the key 'parameters' is missing"),
        (
            GOOD.replace("caffe", "cafe"),
            "normalisation is 'cafe', known are unit, tf, caffe, torch, raw",
        ),
        (GOOD + 'size = "224"', "expected int"),
        (GOOD + "size = 0", "input size is 0x0"),
        (GOOD + 'resize = "lanczos"', "got 'lanczos', allowed are nearest"),
        (GOOD + "top1 = 0", "top1 is 0.0"),
        (GOOD + 'labels = "imagnet"', "no label list 'imagnet'; kedge ships"),
        ("module = ", "cards/X.toml"),
    ],
)
def test_a_wrong_card_fails_loudly(text: str, words: str) -> None:
    with pytest.raises((ContractError, UsageError)) as error:
        parse("X", text).label_list()
    assert words in str(error.value)
