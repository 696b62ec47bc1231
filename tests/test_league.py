"""The league's table: figures from cells, the lines that must hold, and ways that can't run."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import league_table
import paired
from league_table import BUDGET, STOCK, Row

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")
IMAGES = 400


def cell(way: str, kl: float, agreement: float, split: int = 0, **changes: Any) -> dict[str, Any]:
    """Return a line of a way whose images diverge by `kl` in the mean."""
    rng = np.random.default_rng(split)
    agree = (np.arange(IMAGES) < agreement * IMAGES).astype(int)
    known = {
        "model": "net",
        "way": way,
        "split": split,
        "format": "tflite",
        "images": [f"{i}.jpg" for i in range(IMAGES)],
        "kl": (kl * rng.exponential(1, IMAGES)).tolist(),
        "agree": agree.tolist(),
        "right": agree.tolist(),
        "float_right": [1] * IMAGES,
        "sqnr": 20.0,
        "bytes": 1000,
        "seconds": 60.0,
        "passed": None if way == STOCK["tflite"] else True,
        "precision": "int8",
        "note": "",
    }
    return known | changes


def rows(tmp_path: Path, *cells: dict[str, Any]) -> list[Row]:
    lines = tmp_path / "cells.jsonl"
    lines.write_text("".join(json.dumps(each) + "\n" for each in cells))
    return league_table.rows(league_table.read(lines), {})


STOCK_CELL = cell(STOCK["tflite"], 0.04, 0.9)


def test_a_row_is_held_against_the_stock_file_of_its_splits(tmp_path: Path) -> None:
    second = [cell(STOCK["tflite"], 0.08, 0.9, 1), cell("kedge", 0.02, 0.95, 1, bytes=1010)]
    found = rows(tmp_path, STOCK_CELL, cell("kedge", 0.01, 0.95, bytes=1010), *second)
    stock, ours = found
    assert (ours.splits, ours.images, ours.size) == (2, IMAGES, 1.01)
    assert ours.kl_gain is not None
    assert ours.gain is not None
    assert ours.drop is not None
    assert ours.kl_gain[0] == pytest.approx(4)  # image by image, in both splits
    assert ours.gain[0] == pytest.approx(0.05)
    assert ours.drop[0] == pytest.approx(0.05)
    assert stock.kl_gain == pytest.approx((1, 1, 1))


def test_a_repeated_cell_counts_once_and_the_last_one(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, cell(STOCK["tflite"], 0.5, 0.1), STOCK_CELL)
    assert row.agreement == 0.9


def test_a_way_that_could_not_run_says_why(tmp_path: Path) -> None:
    failed = cell("nncf", 0, 0) | {"format": "", "kl": [], "note": "not installed"}
    found = rows(tmp_path, STOCK_CELL, failed)
    assert [(row.way, row.note) for row in found[1:]] == [("nncf", "not installed")]
    assert "| nncf |" in league_table.markdown(found, league_table.lines(found))


@pytest.mark.parametrize(("kl", "holds"), [(0.01, True), (0.0401, True), (0.08, False)])
def test_worse_than_stock_is_told_beyond_the_noise(tmp_path: Path, kl: float, holds: bool) -> None:
    ours = cell("kedge", kl, 0.9)
    noisy = np.random.default_rng(9).normal(0, 0.01, IMAGES)
    ours["kl"] = (np.array(ours["kl"]) + noisy).tolist()
    line = league_table.lines(rows(tmp_path, STOCK_CELL, ours))[0]
    assert line.holds is holds, line


@pytest.mark.parametrize(
    ("agreements", "passed", "holds"),
    [
        ([0.98] * 10, True, True),
        ([0.98] * 9 + [0.95], True, True),
        ([0.98] * 8 + [0.95] * 2, True, False),
        ([0.98] * 10, False, False),
    ],
)
def test_a_budget_holds_in_nine_of_ten_splits(
    tmp_path: Path, agreements: list[float], passed: bool, holds: bool
) -> None:
    cells = [cell(BUDGET, 0.01, share, i) for i, share in enumerate(agreements)]
    cells[0]["passed"] = passed
    assert league_table.lines(rows(tmp_path, *cells))[1].holds is holds


def test_what_was_not_measured_holds_nothing() -> None:
    assert {line.holds for line in league_table.lines([Row("net", "tflite", "kedge")])} == {None}


def test_a_ratio_of_many_images_is_that_of_its_means() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = rng.exponential(2, 4000), rng.exponential(1, 4000)
    ratio, low, high = paired.ratio(ours, theirs, range(4000))
    assert ratio == pytest.approx(ours.mean() / theirs.mean())
    # The delta method: relative variances of both means add up.
    half = 1.96 * ratio * np.sqrt(2 / 4000)
    np.testing.assert_allclose((low, high), (ratio - half, ratio + half), atol=0.1 * half)


def test_a_tool_that_is_not_there_is_named(tmp_path: Path) -> None:
    from league_table import RESULTS

    script, model = (
        RESULTS.parent / "peer_quantise.py",
        RESULTS.parents[1] / "tests/models/tiny.onnx",
    )
    np.save(tmp_path / "inputs.npy", np.zeros((6, 1, 8, 8, 3), np.float32))
    files = [script, "nncf", model, tmp_path / "inputs.npy", tmp_path / "o"]
    command = [sys.executable, "-I", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "not installed: ModuleNotFoundError: No module named 'nncf'" in done.stderr


def test_every_way_of_kedge_has_a_row_of_its_own() -> None:
    import league
    import league_kedge

    assert len(set(league.WAYS)) == len(league.WAYS)
    assert set(league_kedge.WAYS) < set(league.WAYS)
    assert set(STOCK.values()) < set(league.PEERS)
    assert replace(league.NET).preprocess == "load_img"
