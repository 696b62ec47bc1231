"""The zoo's applications, and the demo."""

from kedge_convert.sources import keras_file, zoo
from kedge_convert.sources.found import Facts, Found, Request
from kedge_models import NORMALISATIONS, card, demo
from kedge_runtime.pipelines import PIPELINES

DEMO = "demo"


def load(request: Request) -> Found:
    """Return the demo, or the application that a card describes."""
    if request.model == DEMO:
        facts = Facts("", PIPELINES["imagenet"], NORMALISATIONS["tf"], demo.LABELS)
        return Found(DEMO, keras_file.load_file(demo.MODEL), facts)
    found = card(request.model)
    # Nobody shall take random weights for the application's own.
    suffix = "-untrained" if request.weights == zoo.UNTRAINED else ""
    model = zoo.build(found, request.weights)
    return Found(found.name.lower() + suffix, model, Facts.of(found))
