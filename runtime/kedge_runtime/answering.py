"""What a classifier and an ensemble have in common: pictures in, answers out."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import TypeVar, overload

from kedge_runtime.contract import Colour
from kedge_runtime.errors import ImageError
from kedge_runtime.head import Floats
from kedge_runtime.image import Source
from kedge_runtime.results import Classes, Result, Rule

AnySource = TypeVar("AnySource", bound=Source)


class Answering(ABC):
    """Something that gives probabilities for a picture, and names for them."""

    classes: Classes

    @abstractmethod
    def probabilities(self, image: Source, colour: Colour = "rgb") -> Floats:
        """Return each class's probability, float32 [classes], 0..1."""

    @overload
    def __call__(
        self, image: Source, *, top: int = ..., rule: Rule = ..., colour: Colour = ...
    ) -> Result: ...

    @overload
    def __call__(
        self, image: list[AnySource], *, top: int = ..., rule: Rule = ..., colour: Colour = ...
    ) -> list[Result]: ...

    def __call__(
        self,
        image: Source | list[AnySource],
        *,
        top: int = 5,
        rule: Rule = Rule(),
        colour: Colour = "rgb",
    ) -> Result | list[Result]:
        """Classify one picture, or a list of them one after the other.

        A picture is a path, encoded bytes, or a uint8 array [h, w, 3], whose channels stand in the
        order of `colour`: a frame of cv2.VideoCapture is "bgr". `top`: the most classes to name.
        Raises ImageError for the first picture that can't be read; see `each`.
        """
        if not isinstance(image, list):
            return self.classes.result(self.probabilities(image, colour), top, rule)
        answers = []
        for i, item in enumerate(image, 1):
            try:
                answers.append(self(item, top=top, rule=rule, colour=colour))
            except ImageError as error:
                raise ImageError(f"picture {i} of {len(image)}: {error}") from None
        return answers

    def each(
        self,
        images: Iterable[Source],
        *,
        top: int = 5,
        rule: Rule = Rule(),
        colour: Colour = "rgb",
    ) -> Iterator[Result | ImageError]:
        """Yield an answer per picture, or the error of one that can't be read, and go on."""
        for image in images:
            try:
                yield self(image, top=top, rule=rule, colour=colour)
            except ImageError as error:
                yield error
