"""Open the model of a stream: with --updates the one in use, which newer ones replace."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kedge_runtime.classify.predictor import Predictor
from kedge_runtime.commands.arguments import SHARE
from kedge_runtime.commands.field_watch import field_observers
from kedge_runtime.commands.opening import ModelRequest, open_model, predictors_of
from kedge_runtime.commands.options import record
from kedge_runtime.commands.paths import FOLDER
from kedge_runtime.commands.stream import FrameSourceRequest, SinkRequest
from kedge_runtime.errors import UsageError
from kedge_runtime.streams.events import Observer

if TYPE_CHECKING:
    from kedge_runtime.updates.updater import UpdatePlan


@dataclass(frozen=True)
class StreamModel:
    """The model of a stream. `names`: its artefacts, which an update changes; `observers`: its."""

    model: Predictor
    names: Sequence[str]
    observers: Sequence[Observer] = ()


@dataclass(frozen=True)
class UpdateRequest:
    """What a command line says of updates; None where an option is missing."""

    updates: Path | None
    shadow: int | None
    shadow_agreement: float | None

    def open(
        self,
        artefacts: Sequence[Path],
        request: ModelRequest,
        source: FrameSourceRequest,
        sinks: SinkRequest,
    ) -> StreamModel:
        """Open the model. Raises UsageError for options that don't fit, and what opening raises."""
        if self.updates is None:
            if self.shadow is not None or self.shadow_agreement is not None:
                raise UsageError("--shadow, --shadow-agreement: are for --updates DIR")
            model, names = open_model(artefacts, request), [str(path) for path in artefacts]
            live = source.given and source.live
            return StreamModel(model, names, field_observers(model, sinks.folder, live=live))
        self._check(artefacts, request, source)
        return _begun(artefacts[0], self._plan(self.updates, request), request, sinks)

    def _check(
        self, artefacts: Sequence[Path], request: ModelRequest, source: FrameSourceRequest
    ) -> None:
        reasons = {
            "needs --camera: new models are tried on live frames": not (
                source.given and source.live
            ),
            "takes one artefact, without --ensemble": len(artefacts) > 1 or request.ensemble,
            "a second opinion is chosen for one artefact; omit --second": request.second,
            "an accelerator runs one model at a time; omit --delegate": request.engine.delegate,
            f"artefacts have their own contract; omit {request.foreign.flags}": (
                request.foreign.flags
            ),
            "no such folder; create it": not (self.updates and self.updates.is_dir()),
        }
        if reason := next((reason for reason, holds in reasons.items() if holds), None):
            raise UsageError(f"--updates {self.updates}: {reason}")

    def _plan(self, folder: Path, request: ModelRequest) -> "UpdatePlan":
        from kedge_runtime.updates.shadow import ShadowLimits
        from kedge_runtime.updates.updater import UpdatePlan

        given = {"frames": self.shadow, "agreement": self.shadow_agreement}
        limits = ShadowLimits(**{name: x for name, x in given.items() if x is not None})  # type: ignore[arg-type]
        return UpdatePlan(folder, request.trust, request.engine, limits)


def _begun(
    base: Path, plan: "UpdatePlan", request: ModelRequest, sinks: SinkRequest
) -> StreamModel:
    """Begin with the model in use, and watch the folder for a newer one."""
    from kedge_runtime.updates.beginning import begin
    from kedge_runtime.updates.store import ModelStore
    from kedge_runtime.updates.switching import Following, SwitchingPredictor
    from kedge_runtime.updates.updater import REVERTED, Updater

    store = ModelStore(sinks.folder)
    begun = begin(base, store, plan)
    predictors_of([begun.model], request)
    model = SwitchingPredictor(begun.model)
    updater = Updater(plan, store, begun.state, model)
    for line in begun.lines:
        updater.tell(REVERTED, line)
    field = Following(model, lambda each: field_observers(each, sinks.folder, live=True))
    return StreamModel(model, updater.names, [updater, field])


# How a stream's model is updated, as `updates`: UpdateRequest.
update_options = record(
    "updates",
    UpdateRequest,
    click.option(
        "--updates", type=FOLDER, metavar="DIR", help="Try newer artefacts of a folder, and switch."
    ),
    click.option(
        "--shadow",
        type=click.IntRange(min=1),
        metavar="N",
        help="Run a new model beside the old one on N frames [default: 200].",
    ),
    click.option(
        "--shadow-agreement",
        type=SHARE,
        help="Minimum agreement of both on these frames [default: .8].",
    ),
)
