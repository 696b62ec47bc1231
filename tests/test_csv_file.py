"""The CSV sink: every message a row, whatever happens to process and disk."""

import csv
import os
import time
from pathlib import Path

import pytest

from kedge_runtime import UsageError
from kedge_runtime.watch.csv_file import HEAD, CsvFile
from messages import answer, event


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_each_message_is_a_row_at_once(tmp_path: Path) -> None:
    path = tmp_path / "seen.csv"
    sink = CsvFile(str(path))
    sink.put(answer(41, 'a "heron", grey'))
    sink.put(event())
    first, second = rows(path)
    assert first == {
        "time": "2026-11-22T00:42:44.250+00:00",
        "event": "",
        "frame": "41",
        "label": 'a "heron", grey',
        "unknown": "false",
        "id": "n3",
        "probability": "0.900000",
        "margin": "0.800000",
        "text": "",
    }
    assert (second["event"], second["text"]) == ("source-back", "camera 0: back after 12 s")
    sink.close()


def test_a_restart_appends_and_cuts_half_a_row(tmp_path: Path) -> None:
    path = tmp_path / "seen.csv"
    for index in range(2):
        sink = CsvFile(str(path), live=False)
        sink.put(answer(index))
        sink.close()
        with path.open("a") as file:
            file.write("half a r")
    sink = CsvFile(str(path), live=False)
    sink.close()
    assert [row["frame"] for row in rows(path)] == ["0", "1"]
    assert path.read_text().count("time,event") == 1


def test_a_head_cut_short_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "seen.csv"
    path.write_text(",".join(HEAD)[:9])
    CsvFile(str(path)).close()
    assert path.read_text() == ",".join(HEAD) + "\n"


def test_the_name_has_the_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    day = ["01"]
    monkeypatch.setattr(time, "strftime", lambda text: text.replace("%d", day[0]))
    sink = CsvFile(str(tmp_path / "days" / "%d.csv"))
    sink.put(answer(0))
    day[0] = "02"
    sink.put(answer(1))
    sink.close()
    assert [(p.name, len(rows(p))) for p in sorted((tmp_path / "days").iterdir())] == [
        ("01.csv", 1),
        ("02.csv", 1),
    ]


def test_another_files_columns_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("image,artefact\n")
    with pytest.raises(UsageError, match="has other columns than kedge writes"):
        CsvFile(str(path))
    assert path.read_text() == "image,artefact\n"


def test_a_folder_that_can_not_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"--csv: .*: can't be written"):
        CsvFile(str(tmp_path / "file" / "seen.csv"))


def test_a_full_disk_loses_whole_rows_and_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, write = tmp_path / "seen.csv", os.write
    sink = CsvFile(str(path))
    sink.put(answer(0))
    monkeypatch.setattr(os, "write", lambda file, row: write(file, row[:9]))  # room for nine bytes
    for index in range(1, 4):
        sink.put(answer(index))
    monkeypatch.setattr(os, "write", write)
    sink.put(answer(4))
    sink.close()
    assert [row["frame"] for row in rows(path)] == ["0", "4"]
    full, lost = capsys.readouterr().err.splitlines()
    assert "no space left on device; rows are lost until there is room" in full
    assert "3 rows lost" in lost
