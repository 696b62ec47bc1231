"""Call a classifier or an ensemble with an image, with a list, or with a stream of images."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar, overload

from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.kinds import Colour
from kedge_runtime.classify.arguments import CallOptions, check_iterable, check_single
from kedge_runtime.classify.results import Classes, Result, Rule
from kedge_runtime.errors import ImageError
from kedge_runtime.image.decode import LIMITS
from kedge_runtime.image.objects import Source, plain

# Programs that show `_repr_html_`.
NOTEBOOKS = ("IPython", "marimo")

if TYPE_CHECKING:
    from typing_extensions import Self

AnySource = TypeVar("AnySource", bound=Source)


class Predictor(ABC):
    """Classifies images: a classifier, or an ensemble of them."""

    classes: Classes

    @abstractmethod
    def probabilities(self, image: Source, colour: Colour = "rgb") -> Floats:
        """Return the probability of every class.

        Args:
            image: One image, as for a call.
            colour: The order of an array's channels, "rgb" or "bgr".

        Returns:
            float32 [classes], 0 to 1.

        Raises:
            ImageError: The image can't be read.
            UsageError: The model outputs features, not classes, or an argument is wrong.
            EngineError: The engine fails, or is closed.
        """

    def counts(self) -> dict[str, int]:
        """Count what its answers took so far.

        Returns:
            Numbers by name; none, but for a second opinion.
        """
        return {}

    def summary(self) -> tuple[str, ...]:
        """Return lines on what its answers took so far.

        Returns:
            None, but for a second opinion.
        """
        return ()

    def prepared(self, image: Source, colour: Colour = "rgb") -> Callable[[], Floats]:
        """Do all of `probabilities` that needs no engine; return a function for the rest.

        Threads call it while the engine runs (`image/ahead.py`). Raises ImageError, UsageError.
        """
        return partial(self.probabilities, image, colour)

    @abstractmethod
    def close(self) -> None:
        """Release the memory of the models. Every later call raises EngineError."""

    def __enter__(self) -> "Self":
        """Return itself; the end of the `with` block closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    @overload
    def __call__(
        self, image: Source, *, top: int = ..., rule: Rule = ..., colour: Colour = ...
    ) -> Result: ...

    @overload
    def __call__(
        self,
        image: list[AnySource] | tuple[AnySource, ...],
        *,
        top: int = ...,
        rule: Rule = ...,
        colour: Colour = ...,
    ) -> list[Result]: ...

    def __call__(
        self,
        image: Source | list[AnySource] | tuple[AnySource, ...],
        *,
        top: int = 5,
        rule: Rule = Rule(),
        colour: Colour = "rgb",
    ) -> Result | list[Result]:
        """Classify one image, or a list of them one after the other.

        Args:
            image: A path, encoded bytes, an open binary file, a Pillow image, or an array, uint8
                [height, width, 3]; or a list or a tuple of these. A file is read from its start,
                and stays open.
            top: The most classes to return. Independent classes (sigmoid) ignore it.
            rule: Decides when the result is unknown.
            colour: The order of an array's channels, "rgb" or "bgr". OpenCV gives "bgr".

        Returns:
            A result; of a list, a list of results in the same order.

        Raises:
            ImageError: The first image that can't be read. See `each`, which goes on.
            UsageError: The model outputs features, not classes, or an argument is wrong.
            EngineError: The engine fails, or is closed.
        """
        options = CallOptions(top, rule, colour)
        if not isinstance(image, list | tuple):
            return self._result(image, options)
        answers = []
        for i, item in enumerate(image, 1):
            try:
                answers.append(self._result(item, options))
            except ImageError as error:
                raise ImageError(f"image {i} of {len(image)}: {error}") from None
        return answers

    def each(
        self,
        images: Iterable[Source],
        *,
        top: int = 5,
        rule: Rule = Rule(),
        colour: Colour = "rgb",
    ) -> Iterator[Result | ImageError]:
        """Classify images one by one, and go on after one that can't be read.

        Args:
            images: The images, e.g. a list, a generator, or an array [n, height, width, 3]. They
                are taken when they are needed.
            top: The most classes to return.
            rule: Decides when a result is unknown.
            colour: The order of an array's channels, "rgb" or "bgr".

        Yields:
            The result of each image, or the ImageError of one that can't be read.

        Raises:
            UsageError: The model outputs features, not classes, or an argument is wrong.
            EngineError: The engine fails, or is closed.
        """
        check_iterable(images)
        options = CallOptions(top, rule, colour)
        return (self._result_or_error(image, options) for image in images)

    def _result_or_error(self, image: Source, options: CallOptions) -> Result | ImageError:
        try:
            return self._result(image, options)
        except ImageError as error:
            return error

    def prepared_result(self, image: Source, options: CallOptions) -> Callable[[], Result]:
        """Prepare an image, as `prepared`; return the function that gives its result."""
        check_single(image)
        image = plain(image, LIMITS.bytes)  # an open file is read once
        return partial(self._finished, self.prepared(image, options.colour), image, options)

    def _finished(
        self, probabilities: Callable[[], Floats], image: Source, options: CallOptions
    ) -> Result:
        result = self.classes.result(probabilities(), options.top, options.rule)
        return _illustrated(result, image, options) if is_notebook() else result

    def _result(self, image: Source, options: CallOptions) -> Result:
        return self.prepared_result(image, options)()


def is_notebook() -> bool:
    """Whether this process is a notebook's, or IPython."""
    return any(name in sys.modules for name in NOTEBOOKS)


def _illustrated(result: Result, image: Source, options: CallOptions) -> Result:
    from kedge_runtime.classify.notebook import thumbnail  # not needed on a device

    return replace(result, thumbnail=thumbnail(image, options.colour))
