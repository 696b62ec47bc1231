"""Open the model that a command line names: the part that classify, watch and serve share.

`open_model` is the one place where a stream's model is opened; whatever wraps a model, such as a
second opinion, wraps it there.
"""

import shlex
from collections.abc import Sequence, Sized
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kedge_runtime.artefact.foreign import ModelFile, read_model
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.ensemble import Ensemble
from kedge_runtime.classify.predictor import Predictor
from kedge_runtime.classify.results import Rule
from kedge_runtime.commands.arguments import SHARE
from kedge_runtime.commands.options import (
    ForeignOptions,
    contract_options,
    group,
    isolated_engine_options,
    record,
    trust_options,
)
from kedge_runtime.commands.paths import FILE
from kedge_runtime.confidence.conformal import floor_for
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.errors import UsageError
from kedge_runtime.frozen import dataclass
from kedge_runtime.output import quiet, say

if TYPE_CHECKING:
    from kedge_runtime.artefact.signing import Trust

# Images from which on copies of an engine are opened: each takes the time of a few images to open.
MANY = 8


@dataclass(frozen=True)
class ModelRequest:
    """What a command line says of its model: how to open it, and when its answer is unknown."""

    ensemble: bool
    second: Path | None
    rule: Rule
    foreign: ForeignOptions
    trust: "Trust | None"
    engine: EngineOptions

    def for_images(self, images: Sized) -> "ModelRequest":
        """Return the request for so many images: small models are opened once for each thread."""
        return replace(self, engine=replace(self.engine, copies=len(images) >= MANY))


def _rule(**limits: float | None) -> Rule:
    return Rule(**{name: limit for name, limit in limits.items() if limit is not None})


# When an answer is unknown, as `rule`: Rule.
_rule_options = record(
    "rule",
    _rule,
    click.option(
        "--min-confidence", type=SHARE, help='Below this confidence the answer is "unknown".'
    ),
    click.option(
        "--max-entropy",
        type=SHARE,
        help='Above this normalised entropy (0 to 1) the answer is "unknown".',
    ),
    click.option("--threshold", type=SHARE, help="Override the threshold of a multi-label model."),
    click.option(
        "--coverage",
        type=SHARE,
        help="Name the fewest classes that hold the truth this often, as 90%; more than --top are "
        '"unknown". `kedge calibrate` prepares the artefact.',
    ),
)

# `ensemble`, `second`, `rule`, `foreign`, `trust` and `engine`: the fields of a ModelRequest.
answer_options = group(
    click.option("--ensemble", is_flag=True, help="Average the artefacts' probabilities."),
    click.option(
        "--second",
        type=FILE,
        metavar="FILE2",
        help="Ask this better artefact again where the answer is a near tie (`kedge calibrate "
        "--second`).",
    ),
    _rule_options,
)
opening_options = group(contract_options, trust_options, isolated_engine_options)


def model_request(options: dict[str, Any]) -> ModelRequest:
    """Take the fields of a ModelRequest out of a command's options, and return it."""
    return ModelRequest(**{name: options.pop(name) for name in ModelRequest.__dataclass_fields__})


def open_model(artefacts: Sequence[Path], request: ModelRequest) -> Predictor:
    """Open the one model of a stream. Raises UsageError for several without --ensemble."""
    predictors = predictors_of(open_all(artefacts, request), request)
    if len(predictors) != 1:
        raise UsageError("a stream takes one artefact, or several with --ensemble")
    return predictors[0]


# What a command classifies, in a message that shows its call; the others take a stream.
_SUBJECTS = {"classify": "IMAGE"}


def open_all(artefacts: Sequence[Path], request: ModelRequest) -> list[Classifier]:
    """Open the artefacts. Raises ArtefactError, ContractError, EngineError, UsageError."""
    classifiers = [_open(read_model(path, request.trust), request) for path in artefacts]
    request.foreign.refuse_all_sealed(bool(each.artefact.digest) for each in classifiers)
    return classifiers


def _open(model: ModelFile, request: ModelRequest) -> Classifier:
    name = click.get_current_context().info_name
    command = f"kedge {name} {shlex.quote(model.name)} {_SUBJECTS.get(str(name), '--camera 0')}"
    contract = request.foreign.contract(model, request.engine, command)
    with quiet():
        # A file without a seal isn't trusted, so it runs isolated.
        isolate = request.engine.isolate or contract is not None
        classifier = Classifier.of(
            model.content, replace(request.engine, isolate=isolate), contract
        )
    if classifier.engine.note:
        say(f"{model.name}: {classifier.engine.note}")
    return classifier


def predictors_of(classifiers: Sequence[Classifier], request: ModelRequest) -> Sequence[Predictor]:
    """Return the classifiers, or their ensemble. Raises UsageError where options don't fit them."""
    for classifier in classifiers:
        classifier.check_answers()
    if request.rule.threshold is not None and not any(c.classes.multi_label for c in classifiers):
        raise UsageError("--threshold is for multi-label models only; see --min-confidence")
    predictors: Sequence[Predictor] = [Ensemble(classifiers)] if request.ensemble else classifiers
    if request.second:
        predictors = [_with_second(classifiers, request.second, request)]
    if request.rule.coverage is not None:
        for predictor in predictors:
            floor_for(request.rule.coverage, predictor.classes.floors)
    return predictors


def _with_second(
    classifiers: Sequence[Classifier], second: Path, request: ModelRequest
) -> Predictor:
    """Return the artefact with a second opinion. Raises UsageError for several artefacts."""
    from kedge_runtime.classify.second_opinion import SecondOpinion

    if request.ensemble or len(classifiers) != 1:
        raise UsageError("--second: is for the answers of one artefact; give it alone")
    model = read_model(second, request.trust)
    return SecondOpinion(classifiers[0], _open(model, request), model.content)
