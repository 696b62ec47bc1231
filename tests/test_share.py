"""The one grammar of a drop in accuracy: convert, drift and kedge.toml read it alike."""

from pathlib import Path

import click
import pytest

from kedge_convert.commands.convert import convert
from kedge_convert.matrix.config import read_config
from kedge_runtime.commands.arguments import DROP, read_drop
from kedge_runtime.commands.drift import drift

DROPS = {
    "0.5pp": 0.005,
    "1pp": 0.01,
    ".5 pp": 0.005,
    "1.5pp": 0.015,
    "0.5%": 0.005,
    "0.005": 0.005,
    ".01": 0.01,
    "0": 0.0,
    "100pp": 1.0,
}


@pytest.mark.parametrize("text", DROPS)
def test_a_drop_is_read(text: str) -> None:
    assert read_drop(text) == pytest.approx(DROPS[text])
    assert DROP.convert(text, None, None) == pytest.approx(DROPS[text])


@pytest.mark.parametrize("number", [0, 0.0, 0.01, 1e-05])
def test_a_number_of_a_table_is_read(number: float) -> None:
    assert read_drop(number) == number


@pytest.mark.parametrize("text", ["", "pp", "-1pp", "101pp", "a lot", "0.5p", "nan", "inf", "200"])
def test_no_drop(text: str) -> None:
    with pytest.raises(ValueError, match="is no drop: allowed are 0pp to 100pp"):
        read_drop(text)


@pytest.mark.parametrize(("text", "remedy"), [("1", ".01"), ("1.5", ".015"), ("10", ".1")])
def test_a_bare_number_of_points_is_refused_with_a_remedy_that_works(
    text: str, remedy: str
) -> None:
    with pytest.raises(click.BadParameter) as error:
        DROP.convert(text, None, None)
    assert error.value.message.endswith(f"points: give {text}pp or {remedy}")
    assert read_drop(f"{text}pp") == read_drop(remedy) == pytest.approx(float(text) / 100)


@pytest.mark.parametrize("command", [convert, drift])
def test_the_commands_read_it(command: click.Command) -> None:
    types = [option.type for option in command.params if option.name == "max_drop"]
    assert types == [DROP]


@pytest.mark.parametrize("written", ['"0.5pp"', '"0.5%"', '".005"', "0.005"])
def test_kedge_toml_reads_it(tmp_path: Path, written: str) -> None:
    path = tmp_path / "kedge.toml"
    path.write_text(f'[[model]]\nname = "demo"\n[model.gates]\nmax_drop = {written}\n')
    assert read_config(path).model[0].gates.max_drop == 0.005


def test_kedge_toml_reads_units(tmp_path: Path) -> None:
    path = tmp_path / "kedge.toml"
    gates = 'max_bytes = "2MB"\nmin_agreement = "98%"\nmax_latency_ratio = "50%"\n'
    path.write_text(f'[[model]]\nname = "demo"\n[model.gates]\n{gates}')
    found = read_config(path).model[0].gates
    assert (found.max_bytes, found.min_agreement) == (2_000_000, 0.98)
    assert found.max_latency_ratio == 0.5
