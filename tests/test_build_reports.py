"""Reports of a build: one record, told in five ways, each held against its own rules."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import click
import jsonschema
import pytest
import xmlschema

import build_reports
from kedge_convert.matrix import html, record, reports, tables
from kedge_convert.matrix.drawing import Axis, canvas
from kedge_convert.matrix.plots import PlotPoint, front, waterfall, write_numbers
from kedge_convert.matrix.record import BuildReport
from kedge_convert.matrix.reports import RENDERERS, as_json, publish
from kedge_runtime.records import decode

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, artefacts: Path) -> BuildReport:
    folder = tmp_path_factory.mktemp("desk")
    artefact = artefacts / "tiny.tflite"
    made = build_reports.report(build_reports.write_desk(folder, artefact), artefact)
    photos = str(folder / "photos")
    return replace(made, cells=tuple(replace(cell, folder=photos) for cell in made.cells))


def test_the_report_has_a_cell_of_every_verdict(report: BuildReport) -> None:
    assert [cell.verdict for cell in report.cells] == ["PASS", "FAIL", "INCONCLUSIVE", "FAIL"]
    drift = report.cells[0].drift
    assert drift
    assert drift.flips.count > 3
    assert drift.calibration


def test_the_published_schema_is_the_records() -> None:
    published = (ROOT / "docs" / "report.schema.json").read_text(encoding="utf-8")
    assert published == record.text()
    jsonschema.Draft202012Validator.check_schema(json.loads(published))


def test_the_json_keeps_to_the_published_schema(report: BuildReport) -> None:
    published = json.loads((ROOT / "docs" / "report.schema.json").read_text(encoding="utf-8"))
    found = json.loads(as_json(report))
    jsonschema.Draft202012Validator(published).validate(found)
    assert decode(BuildReport, found, "report") == report


@pytest.mark.parametrize(
    "spoil",
    [
        {"verdict": "GREEN"},
        {"schema": 2},
        {"unknown": 1},
        {"cells": [{"name": "x"}]},
    ],
)
def test_the_schema_refuses_other_things(report: BuildReport, spoil: dict[str, object]) -> None:
    spoilt = asdict(report) | spoil
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(json.dumps(spoilt)), record.schema())


@pytest.fixture(scope="module")
def common() -> xmlschema.XMLSchema:
    return xmlschema.XMLSchema(Path(__file__).with_name("junit.xsd"))


def test_the_junit_file_keeps_to_the_common_schema(
    report: BuildReport, common: xmlschema.XMLSchema
) -> None:
    root = ElementTree.fromstring(reports.junit(report))
    common.validate(root)
    assert [suite.get("name") for suite in root] == [cell.name for cell in report.cells]
    for suite in root:
        _check_counts(suite, suite.findall("testcase"))
    totals = [sum(int(suite.get(name, "x")) for suite in root) for name in ("tests", "failures")]
    assert [root.get("tests"), root.get("failures")] == list(map(str, totals))


# What a report may not be: the element that is spoilt, and how.
SPOILT: dict[str, tuple[str, Callable[[ElementTree.Element], object]]] = {
    "another root": (".", lambda e: setattr(e, "tag", "report")),
    "suite without name": ("testsuite", lambda e: e.attrib.pop("name")),
    "suite without tests": ("testsuite", lambda e: e.attrib.pop("tests")),
    "suite without failures": ("testsuite", lambda e: e.attrib.pop("failures")),
    "suite without errors": ("testsuite", lambda e: e.attrib.pop("errors")),
    "suite twice": ("testsuite[2]", lambda e: e.set("name", "m.float32.tflite")),
    "no count": ("testsuite", lambda e: e.set("errors", "none")),
    "negative count": (".", lambda e: e.set("tests", "-1")),
    "no time": ("testsuite", lambda e: e.set("time", "1 s")),
    "unknown attribute": ("testsuite", lambda e: e.set("verdict", "PASS")),
    "unknown element": ("testsuite", lambda e: ElementTree.SubElement(e, "note")),
    "case without name": ("testsuite/testcase", lambda e: e.attrib.pop("name")),
    "case after output": ("testsuite", lambda e: e.append(e[0])),
    "case in a case": ("testsuite/testcase", lambda e: ElementTree.SubElement(e, "testcase")),
    "words in a suite": ("testsuite", lambda e: setattr(e, "text", "words")),
    "two outcomes": ("testsuite[2]/testcase", lambda e: e.append(e[0])),
    "unknown outcome": ("testsuite[2]/testcase/failure", lambda e: setattr(e, "tag", "fail")),
    "verdict for type": ("testsuite[2]/testcase/failure", lambda e: e.set("verdict", "FAIL")),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_the_common_schema_refuses_other_files(
    report: BuildReport, common: xmlschema.XMLSchema, spoilt: str
) -> None:
    root = ElementTree.fromstring(reports.junit(report))
    assert common.is_valid(root)
    place, spoil = SPOILT[spoilt]
    element = root.find(place)
    assert element is not None
    spoil(element)
    assert not common.is_valid(root)


def _check_counts(suite: ElementTree.Element, cases: list[ElementTree.Element]) -> None:
    children = [child for case in cases for child in case]
    assert all(child.get("message") and child.get("type") for child in children)
    tags = [child.tag for child in children]
    stated = [int(suite.get(name, "x")) for name in ("tests", "failures", "errors")]
    assert stated == [len(cases), tags.count("failure"), tags.count("error")]
    assert len(tags) == tags.count("failure") + tags.count("error")


def test_the_junit_file_has_the_seconds_of_the_work(
    report: BuildReport, common: xmlschema.XMLSchema
) -> None:
    """Conversion and measurement have their own gates; what the cache had takes no time."""
    cells = [replace(cell, converting=2.5, measuring=0.25) for cell in report.cells[:1]]
    gates: list[record.GateName] = ["conversion", "max_bytes", "max_drop", "min_agreement"]
    first = replace(cells[0], gates=tuple(replace(cells[0].gates[0], name=n) for n in gates))
    cached = replace(first, name="cached", converting=0.0, measuring=0.0)
    bare = replace(first, name="bare", converting=None, measuring=None)
    root = ElementTree.fromstring(reports.junit(replace(report, cells=(first, cached, bare))))
    common.validate(root)
    suites = [suite.findall("testcase") for suite in root]
    times = [[float(case.get("time", "")) for case in cases] for cases in suites]
    assert times[0] == [2.5, 0.0, 0.25, 0.0]
    assert not any(map(any, times[1:])), times
    assert [float(suite.get("time", "")) for suite in root] == [2.75, 0, 0]
    assert float(root.get("time", "")) == 2.75


def test_a_failed_gate_is_a_failure_and_an_open_one_an_error(report: BuildReport) -> None:
    root = ElementTree.fromstring(reports.junit(report))
    found = {suite.get("name"): [c.tag for case in suite for c in case] for suite in root}
    assert found == {
        "m.float32.tflite": [],
        "m.int8.tflite": ["failure"],
        "m.int8.onnx": ["error"],
        "m.float16.onnx": ["failure"],
    }


def test_the_markdown_has_a_row_a_cell_and_no_foreign_markup(report: BuildReport) -> None:
    lines = tables.markdown(report).splitlines()
    rows = [line for line in lines if line.startswith("| ")]
    # A table's bars are those that aren't escaped.
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {9}
    assert len(rows) == 3 + len(report.cells)
    assert rows[2].startswith("|  | m, float model | ")
    assert "<script>" not in "\n".join(lines)


def test_the_table_names_every_cell_with_its_verdict(report: BuildReport) -> None:
    text = click.unstyle(tables.terminal(report))
    for cell in report.cells:
        assert re.search(rf"{cell.verdict} {re.escape(cell.name)}", text)
    assert "4 artefacts: 1 passed, 2 failed, 1 inconclusive" in text


class Page(HTMLParser):
    """What a page holds: tags that are open, all that were, ids, links, images."""

    VOID = frozenset({"meta", "br", "img"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(report: BuildReport) -> Page:
    return Page(html.render(report))


def test_the_page_is_whole_and_its_links_lead_within_it(page: Page) -> None:
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) == 4
    assert {link["href"] for link in page.all("a")} == {f"#{name}" for name in ids}


def test_the_page_needs_no_network_and_runs_no_foreign_code(
    page: Page, report: BuildReport
) -> None:
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "use"})
    sources = [str(image["src"]) for image in page.all("img")]
    assert len(sources) > 3
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    style = re.findall(r"<style>(.*?)</style>", html.render(report), flags=re.DOTALL)
    assert not re.search(r"@import|url\(", style[0])
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on")]


def test_every_plot_and_image_of_the_page_has_a_name(page: Page) -> None:
    ours = [svg for svg in page.all("svg") if svg.get("class") == "plot"]
    # Two for the model; reliability and waterfall of two cells, the coverage of three.
    assert len(ours) == 9
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in ours)
    assert all(image["alt"] for image in page.all("img"))


def test_verdicts_of_the_page_are_told_without_colours(report: BuildReport) -> None:
    text = html.render(report)
    for verdict, shape in (("PASS", "✔"), ("FAIL", "✘"), ("INCONCLUSIVE", "?")):
        assert f">{shape} {verdict}</span>" in text


def test_the_same_record_gives_the_same_bytes(report: BuildReport) -> None:
    for render in RENDERERS.values():
        assert render(report) == render(report)


def test_reports_are_written_and_shown_by_github(
    report: BuildReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = tmp_path / "summary"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    written = publish(report, tmp_path / "a" / "b")
    assert [path.name for path in written] == list(RENDERERS)
    assert summary.read_text() == "before\n" + written[2].read_text()


def test_a_name_that_is_no_text_is_written_all_the_same(
    report: BuildReport, tmp_path: Path
) -> None:
    cells = tuple(replace(cell, name="caf\udce9") for cell in report.cells)
    for path in publish(replace(report, cells=cells), tmp_path):
        assert "caf" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("places", "best"),
    [
        ([(1, 0.5), (2, 0.6), (3, 0.55)], [1, 2]),
        ([(2, 0.6), (1, 0.6)], [2]),
        ([(1, 0.5), (1, 0.7)], [2]),
        ([(3, 0.9), (2, 0.8), (1, 0.7)], [3, 2, 1]),
    ],
)
def test_the_front_are_those_that_none_beats(
    places: list[tuple[float, float]], best: list[int]
) -> None:
    found = front(
        [PlotPoint(i, cost, good, good, good, "PASS") for i, (cost, good) in enumerate(places, 1)]
    )
    assert [place.number for place in found] == best


def test_the_number_of_a_mark_keeps_off_a_close_one() -> None:
    costs = (2.72, 2.78, 1.0)  # megabytes; the first two are a few pixels apart
    marks = [PlotPoint(i, cost, 0.6, 0.5, 0.7, "PASS") for i, cost in enumerate(costs, 1)]
    root = canvas(300, 200, "plot")
    across = Axis(0.0, 3.2, 50, 290)
    write_numbers(root, marks, across, Axis(0.4, 1, 180, 10))
    found = {text.text: text for text in root if text.tag == "text"}
    sides = {name: text.get("text-anchor", "start") for name, text in found.items()}
    assert sides == {"1": "end", "2": "start", "3": "start"}
    assert float(found["1"].get("x", 0)) < across.at(2.72) < across.at(2.78)


def test_a_waterfalls_bars_follow_each_other_to_the_total(report: BuildReport) -> None:
    drift = report.cells[0].drift
    assert drift
    assert drift.attribution
    root = ElementTree.fromstring(waterfall(drift.attribution))
    bars = [
        (str(bar.get("class")), float(bar.get("x", "")), float(bar.get("width", "")))
        for bar in root.iter("rect")
    ]
    # Three points lost, one of them won back: two are left.
    assert [look for look, _, _ in bars] == ["bar worse", "bar better", "bar total"]
    lost, back, total = ((start, start + width, width) for _, start, width in bars)
    assert lost[1] == pytest.approx(back[1], abs=0.2)
    assert back[0] == pytest.approx(total[1], abs=0.2)
    assert total[0] == pytest.approx(lost[0], abs=0.2)
    assert lost[2] / back[2] == pytest.approx(3, rel=0.02)


# A script of the test's own tells how wide the page is; the page has none.
WIDTH = "<script>document.title = 'width ' + document.documentElement.scrollWidth</script>"
CHROMIUM = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]


@pytest.mark.slow
@pytest.mark.parametrize("width", [500, 820, 1440])
def test_a_browser_shows_the_page_without_scrolling_sideways(
    report: BuildReport, tmp_path: Path, width: int
) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if browser is None:
        pytest.skip("no chromium on PATH: apt install chromium")
    page = tmp_path / "report.html"
    page.write_text(html.render(report).replace("</body>", f"{WIDTH}</body>"), encoding="utf-8")
    size, profile = f"--window-size={width},900", f"--user-data-dir={tmp_path / 'profile'}"
    image = tmp_path / "page.png"
    shown = [browser, *CHROMIUM, size, profile, f"--screenshot={image}", page.as_uri()]
    subprocess.run(shown, check=True, capture_output=True, timeout=120)
    dumped = [browser, *CHROMIUM, size, profile, "--dump-dom", page.as_uri()]
    done = subprocess.run(dumped, check=True, capture_output=True, text=True, timeout=120)
    assert f"<title>width {width}</title>" in done.stdout
    assert image.stat().st_size > 20_000


@pytest.mark.parametrize("render", [*RENDERERS.values(), tables.terminal])
def test_no_name_acts_on_who_reads_a_report(
    report: BuildReport, render: Callable[[BuildReport], str]
) -> None:
    name = "a\x1b[2J\u202e\n::error::forged ##[error]x"
    cells = tuple(replace(cell, name=name, notes=(name,)) for cell in report.cells)
    text = click.unstyle(render(replace(report, config=name, cells=cells)))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    assert not re.search(r"(?m)^\s*(- )?::", text)
    assert "##[" not in text
