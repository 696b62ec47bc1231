"""Answer with one of two models: a new one on its first frames, the old one where it fails."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from kedge_runtime.arrays import Floats, Pixels
from kedge_runtime.artefact.kinds import Colour
from kedge_runtime.classify.arguments import CallOptions
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.predictor import Predictor
from kedge_runtime.classify.results import Classes, Result
from kedge_runtime.errors import ImageError
from kedge_runtime.image.objects import Source
from kedge_runtime.streams.events import Event, Observer
from kedge_runtime.streams.sources import ended


class ModelTrial:
    """Counts the images that a new model answers; ends with the last of them, or with a failure."""

    def __init__(self, images: int) -> None:
        """Take the number of images."""
        self._left, self._lock = images, threading.Lock()
        self.error: Exception | None = None
        self.ended = threading.Event()

    def count(self) -> None:
        """Count an answer."""
        with self._lock:
            self._left -= 1
            if self._left <= 0:
                self.ended.set()

    def fail(self, error: Exception) -> None:
        """Note what the model raised first."""
        with self._lock:
            self.error = self.error or error
            self.ended.set()


@dataclass(frozen=True)
class _Serving:
    """The model that answers. `before`: the old one, while the new one is on trial."""

    model: Classifier
    before: Classifier | None = None
    trial: ModelTrial | None = None


class SwitchingPredictor(Predictor):
    """Classifies with the model in use; another thread may change that between two images.

    Each call has one model from its start to its end. An old model is closed when its last call
    has ended.
    """

    def __init__(self, model: Classifier) -> None:
        """Take the first model."""
        self._serving = _Serving(model)

    @property
    def model(self) -> Classifier:
        """The model that answers now."""
        return self._serving.model

    @property
    def classes(self) -> Classes:  # type: ignore[override]
        """The classes of the model that answers now."""
        return self.model.classes

    def begin(self, model: Classifier, images: int) -> ModelTrial:
        """Answer with a new model; return its trial of so many images."""
        trial = ModelTrial(images)
        self._serving = _Serving(model, self.model, trial)
        return trial

    def keep(self) -> None:
        """End the trial with the model that answers now."""
        self._serving = _Serving(self.model)

    def go_back(self) -> None:
        """End the trial with the old model."""
        self._serving = _Serving(self._serving.before or self.model)

    def probabilities(self, image: Source, colour: Colour = "rgb") -> Floats:
        """Return the probability of every class, by the model in use."""
        return self.model.probabilities(image, colour)

    def prepared_result(self, image: Source, options: CallOptions) -> Callable[[], Result]:
        """Prepare an image; return the function that gives its result."""
        serving = self._serving
        if serving.before is None:
            return serving.model.prepared_result(image, options)
        return partial(self._on_trial, serving, image, options)

    def close(self) -> None:
        """Release the memory of the models."""
        for model in (self._serving.model, self._serving.before):
            if model is not None:
                model.close()

    def _on_trial(self, serving: _Serving, image: Source, options: CallOptions) -> Result:
        assert serving.before is not None and serving.trial is not None
        try:
            result = serving.model.prepared_result(image, options)()
        except ImageError:
            raise
        except Exception as error:
            # Whatever it is, the old model answers this image and the next ones.
            serving.trial.fail(error)
            self.go_back()
            return serving.before.prepared_result(image, options)()
        serving.trial.count()
        return result


class Following:
    """Observes a stream with what belongs to the model in use, made anew when that changes.

    The frame at the switch is left out: its result may be the other model's.
    """

    def __init__(
        self, model: SwitchingPredictor, make: Callable[[Classifier], Sequence[Observer]]
    ) -> None:
        """Take the model, and what makes its observers."""
        self._model, self._make = model, make
        self._followed = model.model
        self._observers = make(self._followed)

    def observe(self, pixels: Pixels, result: Result) -> Iterator[Event]:
        """Return the events of the observers."""
        if self._model.model is not self._followed:
            self.close()
            self._followed = self._model.model
            self._observers = self._make(self._followed)
            return
        for observer in self._observers:
            yield from observer.observe(pixels, result)

    def close(self) -> None:
        """Close the observers."""
        for observer in self._observers:
            with ended(observer):
                pass
