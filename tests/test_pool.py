"""Where work is done must not be seen in it: here, in processes, on a real Dask cluster; and a
worker that is killed in mid-run costs time only.
"""

import json
import socket
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import dask
import pytest
from distributed.cli import dask_scheduler, dask_worker

import clusters
import drift_references
from conftest import Run
from kedge_runtime import pool as on_dask
from kedge_runtime.drift import measure
from kedge_runtime.errors import ImageError, KedgeError, LostError, UsageError
from kedge_runtime.image.decode import read_bytes
from kedge_runtime.pool import Pool, executor

pytestmark = pytest.mark.slow
COUNT = 160
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a cluster's scheduler."""
    with clusters.cluster(tmp_path_factory.mktemp("cluster")) as found:
        yield found


@pytest.fixture(params=["here", "processes", "cluster"])
def pool(request: pytest.FixtureRequest) -> Pool:
    """Return each place in turn."""
    if request.param == "cluster":
        return Pool(scheduler=request.getfixturevalue("address"))
    return Pool({"here": 1, "processes": 2}[request.param])


def test_results_and_errors_come_as_if_it_were_done_here(pool: Pool, tmp_path: Path) -> None:
    with executor(pool) as workers:
        wrong = workers.submit(read_bytes, tmp_path / "none")
        assert list(workers.map(pow, range(20), [2] * 20)) == [n * n for n in range(20)]
        with pytest.raises(ImageError, match="none: no such file"):
            wrong.result()


def test_what_nobody_wants_any_more_is_dropped(pool: Pool, tmp_path: Path) -> None:
    places = [tmp_path / "none", *(tmp_path / f"{i}" for i in range(200))]
    with executor(pool) as workers, pytest.raises(KedgeError, match="none"):
        list(workers.map(clusters.noted, places))
    assert len(list(tmp_path.iterdir())) < 100


def test_what_is_under_way_is_ended_with_the_run(tmp_path: Path) -> None:
    def run() -> None:
        with executor(Pool(2)) as workers:
            workers.submit(clusters.endless, tmp_path)
            while not (tmp_path / "begun").exists():
                time.sleep(0.01)
            sys.exit(143)

    with pytest.raises(SystemExit):
        run()
    assert (tmp_path / "cleaned up").exists()


def test_work_that_ends_every_process_is_told_and_the_other_goes_on() -> None:
    with executor(Pool(2)) as workers:
        bad, *good = (
            workers.submit(clusters.always, "process"),
            *(workers.submit(pow, n, 2) for n in range(9)),
        )
        with pytest.raises(LostError, match="ended 4 processes"):
            bad.result()
        assert [each.result() for each in good] == [n * n for n in range(9)]


def test_work_that_ends_every_worker_is_told(address: str) -> None:
    with executor(Pool(scheduler=address)) as workers:
        with pytest.raises(LostError, match="ended 2 workers of the cluster"):
            workers.submit(clusters.always, "worker").result()
        assert workers.submit(pow, 3, 2).result() == 9


def test_a_worker_of_another_version_is_refused(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = on_dask.versions()
    monkeypatch.setattr(on_dask, "versions", lambda: {**ours, "numpy": "0.1"})
    with executor(Pool(scheduler=address)) as workers:
        said = rf"a worker has numpy {ours['numpy']} for 0\.1: install the same"
        with pytest.raises(UsageError, match=said):
            workers.submit(pow, 2, 2).result()


def test_a_scheduler_that_is_not_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        with (
            dask.config.set({"distributed.comm.timeouts.connect": "0.2s"}),
            pytest.raises(UsageError, match=f"--scheduler: {address}: can't be reached"),
            executor(Pool(scheduler=address)),
        ):
            pass


def test_the_documented_cluster_is_started_as_dask_has_it() -> None:
    known = {"scheduler": dask_scheduler.main, "worker": dask_worker.main}
    lines = (ROOT / "docs" / "build.md").read_text(encoding="utf-8").splitlines()
    calls = [line.partition("#")[0].split() for line in lines if line.startswith("dask ")]
    assert [call[1] for call in calls] == list(known)
    for _, name, *words in calls:
        options = {option for parameter in known[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options


def test_a_reference_that_the_workers_can_not_see_is_refused(kedge: Run, desk: Path) -> None:
    words = [word if word != desk / "near.npz" else "demo" for word in _words(desk)]
    code, _, error = kedge(*words, "--scheduler", "tcp://127.0.0.1:8786")
    assert code == 2
    assert error.startswith("kedge: --scheduler: its workers read the float model's answers")


def test_two_masters() -> None:
    with pytest.raises(UsageError, match="leave --jobs out"):
        Pool(2, "tcp://127.0.0.1:8786")


def test_the_missing_extra_is_named(
    kedge: Run, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    code, out, error = kedge(*_words(desk), "--scheduler", "tcp://127.0.0.1:8786")
    assert (code, out) == (2, "")
    assert error == (
        "kedge: --scheduler: distributed isn't installed: pip install 'keras-kedge[distributed]'\n"
    )


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, artefacts: Path) -> Path:
    """Return a folder of photos, an artefact and a reference near it."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "photos").mkdir()
    drift_references.write_photos(folder / "photos", COUNT)
    artefact = folder / "tiny.tflite"
    artefact.write_bytes((artefacts / "tiny.tflite").read_bytes())
    drift_references.write_for(artefact, folder / "photos", folder / "near.npz", 0.02)
    return folder


def _words(desk: Path) -> list[object]:
    photos, reference = desk / "photos", desk / "near.npz"
    return ["drift", desk / "tiny.tflite", "--images", photos, "--against", reference, "--json"]


def _timeless(printed: str) -> str:
    report = json.loads(printed)
    assert report["drifts"][0].pop("latency")
    return json.dumps(report)


@pytest.mark.parametrize(("where", "what"), [("--jobs", "process"), ("--scheduler", "worker")])
def test_a_lost_workers_shard_is_measured_again(
    kedge: Run,
    desk: Path,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    what: str,
) -> None:
    flag, out = tmp_path / "flag", tmp_path / "report.json"
    code, expected, _ = kedge(*_words(desk))
    place = 2 if where == "--jobs" else request.getfixturevalue("address")
    monkeypatch.setattr(measure, "measure", partial(clusters.measured, flag, what))
    assert kedge(*_words(desk), where, place, "--out", out)[0] == code
    assert flag.exists()
    assert _timeless(out.read_text()) == _timeless(expected)
    assert {path.name for path in tmp_path.iterdir()} == {"flag", "report.json"}


def test_shards_that_the_journal_knows_are_not_sent(
    kedge: Run, desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "report.json"
    _, expected, _ = kedge(*_words(desk))
    monkeypatch.setattr(measure, "measure", partial(clusters.measured_but, 3))
    assert kedge(*_words(desk), "--jobs", 2, "--out", out)[0] == 2
    monkeypatch.setattr(measure, "measure", partial(clusters.measured_only, 3))
    kedge(*_words(desk), "--jobs", 2, "--out", out)
    assert _timeless(out.read_text()) == _timeless(expected)
