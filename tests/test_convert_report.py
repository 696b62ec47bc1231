"""What `kedge convert` prints of targets that passed, missed, or couldn't be made."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from kedge_convert.export.exported import Recipe
from kedge_convert.job import Checked, Outcome, failed
from kedge_convert.parity import OwnPixels, Parity
from kedge_convert.targets import TARGETS, parse_targets
from kedge_convert.verdict import Verdict
from kedge_convert.worker import supervisor

Run = Callable[..., tuple[int, str, str]]
SAME = Parity(1, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, math.inf, 0.0, agreement_interval=(0.2, 1.0))
NAN = math.nan
WRECK = Parity(1, 0.0, 0.0, NAN, NAN, NAN, NAN, NAN, NAN)
REASON = "m.keras: export tflite:dynamic: the process crashed (SIGSEGV); log out/m.keras.log"


def checked(name: str, parity: Parity) -> Checked:
    return Checked(Path(name), 1000, 0.5, parity, Recipe("float32"), "softmax")


OUTCOMES = [
    Outcome(TARGETS[0], Verdict(), checked("a[v2].tflite", SAME), ("one op stays [float]",)),
    Outcome(TARGETS[1], Verdict(("wrong",)), checked("b.tflite.rejected", WRECK)),
    failed(TARGETS[2], REASON),
]


def instead(outcomes: list[Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "convert", lambda *_: outcomes)


def refused(name: str) -> NoReturn:
    raise AssertionError(f"{name} is no JSON")


def test_json_knows_neither_nan_nor_files_that_are_not_there(
    kedge: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    instead(OUTCOMES, monkeypatch)
    code, out, err = kedge("convert", "demo", "--json")
    assert (code, err) == (1, "")
    payload: dict[str, Any] = json.loads(out, parse_constant=refused)
    first, second, third = payload["artefacts"]
    assert (first["passed"], first["notes"]) == (True, ["one op stays [float]"])
    assert (first["parity"]["sqnr"], first["parity"]["agreement"]) == (None, 1.0)
    assert (first["parity"]["agreement_interval"], first["parity"]["agreement_by"]) == (
        [0.2, 1],
        "best",
    )
    assert (second["passed"], second["path"]) == (False, "b.tflite.rejected")
    assert second["parity"]["kl"] is None
    assert (third["passed"], third["reasons"]) == (False, [REASON])
    assert {third[key] for key in ("path", "bytes", "ratio", "method", "parity")} == {None}
    assert first.keys() == third.keys()


def test_the_table_tells_failed_from_rejected(kedge: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    instead(OUTCOMES, monkeypatch)
    code, out, _ = kedge("convert", "demo")
    assert code == 1
    rows = {line.split()[0]: line.split()[-1] for line in out.splitlines() if " MB " in line}
    assert rows == {"tflite:float32": "passed", "tflite:float16": "rejected"}
    lines = [line.strip() for line in out.splitlines()]
    assert any(line.startswith("tflite:dynamic") and line.endswith("failed") for line in lines)
    assert "a[v2].tflite" in lines
    assert "one op stays [float]" in lines
    assert "rejected: wrong" in lines
    assert f"failed: {REASON}" in lines
    assert "on 1 image not used" in out


def test_the_table_tells_what_agrees_in_independent_classes(
    kedge: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    parity = replace(SAME, agreement_top5=None, agreement_by="labels")
    instead([Outcome(TARGETS[0], Verdict(), checked("a.tflite", parity))], monkeypatch)
    _, out, _ = kedge("convert", "demo")
    assert "top-1" not in out
    assert "agreement: images with the float model's set of labels\n" in out
    assert "95 % CI of the agreement on 1 image: 20.0 % to 100.0 %" in out


def test_the_table_tells_which_weights_were_prepared_and_why(
    kedge: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = [
        Recipe("int8", "prepared"),
        Recipe("int16x8", "stock"),
        Recipe("mixed", "prepared"),
        Recipe("float32"),
        Recipe("int8", "prepared"),
    ]
    names = ["tflite:int8", "tflite:int16x8", "onnx:int8", "onnx:float32", "tflite:dynamic"]
    made = [
        Outcome(
            parse_targets(name)[0], Verdict(), replace(checked("a.tflite", SAME), recipe=recipe)
        )
        for name, recipe in zip(names, recipes, strict=True)
    ]
    instead(made, monkeypatch)
    _, out, _ = kedge("convert", "demo")
    words = " ".join(out.split())
    assert (
        "Prepared int8 weights used (closer to the float model than stock): "
        "tflite:int8, tflite:dynamic a.tflite"
    ) in words
    instead(made[1:4], monkeypatch)
    assert "Prepared" not in kedge("convert", "demo")[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"images": 60, "drop": 0.0123, "drop_interval": (-0.02, 0.0456)},
            "drop in accuracy: 1.23 points (95 % CI: -2.00 to 4.56) on 60 images",
        ),
        (
            {"agreement": 0.975},
            "drop in accuracy: at most 2.50 points, as there is no ground truth",
        ),
    ],
)
def test_a_drop_that_is_limited_is_told(
    kedge: Run, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], said: str
) -> None:
    instead([Outcome(TARGETS[0], Verdict(), checked("a", replace(SAME, **change)))], monkeypatch)
    assert said in kedge("convert", "demo", "--max-drop", "3pp")[1]
    assert "accuracy drop" not in kedge("convert", "demo")[1]


def test_the_table_tells_how_many_pictures_each_figure_is_of(
    kedge: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target that the first pictures left open was checked on more."""
    few = replace(SAME, images=100, agreement_interval=(0.963, 1.0))
    many = replace(SAME, images=400, agreement=0.9, agreement_interval=(0.867, 0.926))
    made = [Outcome(TARGETS[0], Verdict(), checked("a", each)) for each in (few, many)]
    instead(made, monkeypatch)
    _, out, _ = kedge("convert", "demo")
    assert "on 100 to 400 images not used for calibration" in out
    assert f"95 % CI of the lowest agreement ({TARGETS[0]}) on 400 images: 86.7 % to 92.6 %" in out


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_no_line_ends_in_a_blank_or_breaks_a_word(
    kedge: Run, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    recipe = Recipe("int8", "prepared")
    one = Outcome(TARGETS[0], Verdict(), replace(checked("a.tflite", SAME), recipe=recipe))
    made = [replace(one, target=target, notes=("some words " * 12,)) for target in TARGETS]
    instead(made, monkeypatch)
    _, out, _ = kedge("convert", "demo")
    table, words = out.split("ratio: ")
    assert columns < 80 or max(map(len, table.splitlines())) <= columns
    assert all(len(line) <= columns and line == line.rstrip() for line in words.splitlines())
    assert f"{', '.join(map(str, TARGETS))} a.tflite" in " ".join(words.split())


def test_the_widest_table_fits_80_columns(kedge: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    own = OwnPixels("Keras", 1, 1.0, (0.2, 1.0), 1.0)
    widest = replace(SAME, logit_max_error=8.6e-6, logit_mean_error=1.2e-6, own_pixels=own)
    made = list[Outcome]()
    for target, size in zip(TARGETS, (250_000, 14_090_000, 553_430_000) * 3, strict=False):
        one = replace(checked("a", widest), size=size)
        made.append(Outcome(target, Verdict(("wrong",) * (size > 10**8)), one))
    instead(made, monkeypatch)
    monkeypatch.setenv("COLUMNS", "80")
    table = kedge("convert", "demo")[1].split("ratio: ")[0]
    assert "…" not in table
    assert max(map(len, table.splitlines())) <= 80
    for word in ("verdict", "rejected", "553 MB", "14.1 MB", "8.6e-6"):
        assert word in table


def test_when_all_failed_there_is_nothing_to_explain(
    kedge: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    instead([failed(TARGETS[0], REASON)], monkeypatch)
    code, out, _ = kedge("convert", "demo")
    assert (code, "errors:" in out) == (1, False)


@pytest.mark.parametrize(
    ("option", "said"),
    [("--memory-limit", "allowed are e.g. 8G"), ("--time-limit", "allowed are e.g. 90s")],
)
def test_a_limit_that_is_none_is_one_line(kedge: Run, option: str, said: str) -> None:
    code, out, err = kedge("convert", "demo", option, "lots")
    assert (code, out) == (2, "")
    assert err.startswith(f"kedge: {option}: got 'lots', {said}")
    assert len(err.splitlines()) == 1


def test_features_have_a_cosine_in_place_of_an_agreement(
    kedge: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = replace(
        SAME, agreement=None, agreement_interval=None, agreement_by="cosine", cosine=0.99987
    )
    instead([Outcome(TARGETS[0], Verdict(), checked("a.tflite", features))], monkeypatch)
    _, out, _ = kedge("convert", "demo")
    assert "0.9999" in out
    assert "agreement: mean cosine to the float model's features" in out
    assert "errors: in features, on 1 image" in out
    assert "best class" not in out
