"""Hold what a report says of single classes: their drift, and which are taken for which."""

from kedge_runtime.frozen import dataclass


@dataclass(frozen=True)
class ClassDrift:
    """Hold the drift of one class.

    With ground truth: its images, those that each side gets right, and those lost and gained.
    Without: the images whose best class it is by the reference, and the flips among them. `p`: see
    breakdown.per_class; `q`: the same, adjusted for the number of classes.
    """

    index: int
    id: str
    name: str
    images: int
    flips: int
    reference: int | None
    artefact: int | None
    lost: int | None
    gained: int | None
    p: float
    q: float


@dataclass(frozen=True)
class PerClass:
    """Hold the drift of every class that has images, the smallest p first.

    `by`: what tells an image's class, `truth` or `reference`; `drifted`: the number of classes with
    q <= `level`, the false discovery rate.
    """

    by: str
    level: float
    tested: int
    drifted: int
    classes: tuple[ClassDrift, ...]


@dataclass(frozen=True)
class ClassName:
    """Name a class; `index`: of the labels, -1 for the background."""

    index: int
    id: str
    name: str


@dataclass(frozen=True)
class Mistake:
    """Count the images of one class that each side answers with another one.

    `reference`: None where the row is the reference's own answer.
    """

    row: ClassName
    column: ClassName
    reference: int | None
    artefact: int


Counts = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Confusion:
    """Count images by class (rows) and answer (columns).

    `by`: what the rows are, the `truth` or the answers of the `reference`. `classes`: of rows and
    columns; empty with more than breakdown.MAX_CLASSES, as are both matrices. `reference`: None
    without ground truth. `mistakes`: the most frequent ones, breakdown.MAX_MISTAKES.
    """

    by: str
    classes: tuple[ClassName, ...]
    reference: Counts | None
    artefact: Counts
    mistakes: tuple[Mistake, ...]
