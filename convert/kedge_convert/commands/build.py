"""`kedge build`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kedge_convert.worker import process
from kedge_convert.worker.process import ended_by_signals
from kedge_runtime.commands.options import scheduler
from kedge_runtime.drift.gates import EXIT_CODES
from kedge_runtime.output import echo_page, note
from kedge_runtime.pool import MAX_JOBS

if TYPE_CHECKING:
    from kedge_convert.matrix.run import BuildRequest

PATH = click.Path(path_type=Path)


@dataclass(frozen=True)
class BuildOptions:
    """Hold the command's options as click reads them."""

    config: Path
    cache: Path | None
    jobs: int
    scheduler: str | None
    update_baseline: bool
    reports: Path | None
    memory_limit: str
    time_limit: str
    as_json: bool

    @property
    def request(self) -> "BuildRequest":
        """The build. Raises UsageError for limits or pools that can't be."""
        from kedge_convert.matrix.cache import default_folder
        from kedge_convert.matrix.run import BuildRequest
        from kedge_runtime.pool import Pool

        return BuildRequest(
            config=self.config,
            cache=self.cache or default_folder(),
            limits=process.ProcessLimits(self.memory_limit, self.time_limit),
            pool=Pool(self.jobs, self.scheduler),
            silent=self.as_json,
        )


@click.command()
@click.argument("config", type=PATH, default=Path("kedge.toml"))
@click.option(
    "--cache",
    type=PATH,
    metavar="DIR",
    help="Folder of cached results [default: kedge in the user's cache].",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, MAX_JOBS),
    default=1,
    show_default=True,
    help="Models to build in parallel; a conversion takes 2.5 GB.",
)
@scheduler
@click.option(
    "--update-baseline", is_flag=True, help="Accept the artefacts that pass: write kedge.lock.toml."
)
@click.option(
    "--reports",
    type=PATH,
    metavar="DIR",
    help="Folder of the reports [default: that of the artefacts].",
)
@click.option(
    "--memory-limit",
    default=process.MEMORY,
    show_default=True,
    help="Of each conversion, as for kedge convert.",
)
@click.option(
    "--time-limit",
    default=process.TIME,
    show_default=True,
    help="Of each conversion, as for kedge convert.",
)
@click.option("--json", "as_json", is_flag=True, help="Print report.json on stdout.")
def build(**values: Any) -> int:
    """Build the matrix of CONFIG (default kedge.toml): convert, measure, judge, report.

    Unchanged cells come from the cache. Reports: report.json, report.md, report.html and junit.xml;
    the Markdown is also appended to $GITHUB_STEP_SUMMARY where that is set.

    Exit codes: 0 all passed, 1 a gate failed, 2 usage error, 3 inconclusive.
    """
    from kedge_convert.matrix import lock, reports, run, tables

    options = BuildOptions(**values)
    request = options.request
    with ended_by_signals():
        report = run.build(request)
    written = reports.publish(report, options.reports or Path(report.out))
    if options.update_baseline:
        path = lock.lock_path(request.config)
        lock.write(path, lock.updated(lock.read(path), report))
        written = [*written, path]
    render = reports.as_json if options.as_json else tables.terminal
    echo_page(render(report).rstrip("\n"))
    note(f"wrote {', '.join(map(str, written))}")
    return EXIT_CODES[report.verdict]
