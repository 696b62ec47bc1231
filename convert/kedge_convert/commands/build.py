"""`kedge build`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kedge_convert.worker import process
from kedge_convert.worker.process import ended_by_signals
from kedge_runtime.commands.options import scheduler
from kedge_runtime.drift.gates import EXIT_CODES
from kedge_runtime.output import say
from kedge_runtime.pool.executors import MAX_JOBS

if TYPE_CHECKING:
    from kedge_convert.matrix.run import Settings

PLACE = click.Path(path_type=Path)


@click.command()
@click.argument("config", type=PLACE, default=Path("kedge.toml"))
@click.option("--cache", type=PLACE, metavar="DIR", help="[default: kedge in the user's cache]")
@click.option(
    "--jobs",
    type=click.IntRange(1, MAX_JOBS),
    default=1,
    show_default=True,
    help="Models at once; a conversion takes 2.5 GB.",
)
@scheduler
@click.option("--update-baseline", is_flag=True, help="Accept what passes: write kedge.lock.toml.")
@click.option(
    "--reports", type=PLACE, metavar="DIR", help="Folder of the reports [default: the artefacts']."
)
@click.option(
    "--memory-limit",
    default=process.MEMORY,
    show_default=True,
    help="Of each conversion, as for kedge convert.",
)
@click.option("--time-limit", default=process.TIME, show_default=True, help="As for kedge convert.")
@click.option("--json", "as_json", is_flag=True, help="Print report.json on stdout.")
def build(**options: Any) -> int:
    """Build the matrix of CONFIG (default kedge.toml): convert, measure, judge, report.

    What was built before isn't built again. Reports: report.json, report.md, report.html and
    junit.xml; the Markdown goes to $GITHUB_STEP_SUMMARY, too, where that is set.

    Exit codes: 0 all passed, 1 a gate failed, 2 a mistake, 3 inconclusive.
    """
    from kedge_convert.matrix import json, lock, run, terminal
    from kedge_convert.matrix.reports import publish

    settings = _settings(options)
    with ended_by_signals():
        report = run.build(settings)
    written = publish(report, options["reports"] or Path(report.out))
    if options["update_baseline"]:
        place = lock.place(settings.config)
        lock.write(place, lock.updated(lock.read(place), report))
        written = [*written, place]
    click.echo(json.render(report) if options["as_json"] else terminal.render(report), nl=False)
    say(f"wrote {', '.join(map(str, written))}")
    return EXIT_CODES[report.verdict]


def _settings(options: dict[str, Any]) -> "Settings":
    from kedge_convert.matrix.cache import default_folder
    from kedge_convert.matrix.run import Settings
    from kedge_runtime.pool.executors import Pool

    return Settings(
        config=options["config"],
        cache=options["cache"] or default_folder(),
        limits=process.ProcessLimits(options["memory_limit"], options["time_limit"]),
        pool=Pool(options["jobs"], options["scheduler"]),
        silent=options["as_json"],
    )
