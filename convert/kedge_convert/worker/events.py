"""The events of a running conversion. They are small and plain: they cross processes."""

from dataclasses import dataclass

PREPARATION = "preparation"


@dataclass(frozen=True)
class PartStarted:
    """The work starts a part: a target, or `PREPARATION`; "" is the part before both."""

    part: str


@dataclass(frozen=True)
class StageStarted:
    """A stage starts; `total` is its number of items, where it is known."""

    stage: str
    total: int | None = None


@dataclass(frozen=True)
class ItemDone:
    """One of the stage's items is done."""


@dataclass(frozen=True)
class StageEnded:
    """The stage has ended; not `complete` when it was broken off."""

    complete: bool = True


@dataclass(frozen=True)
class WarningLine:
    """A line for the user, which even a silent screen shows."""

    line: str


@dataclass(frozen=True)
class NoteLine:
    """A line of information, which a silent screen drops."""

    line: str


Event = PartStarted | StageStarted | ItemDone | StageEnded | WarningLine | NoteLine


@dataclass(frozen=True)
class Position:
    """The current part of the work, "" before the first, and its stage."""

    part: str = ""
    stage: str = ""

    def __str__(self) -> str:
        """Return e.g. `export tflite:int8`."""
        words = (self.stage,) if self.part in self.stage else (self.part, self.stage)
        return ", ".join(filter(None, words)) or "start"

    def after(self, event: Event) -> "Position":
        """Return the position after an event; a stage that broke off stays the current one."""
        match event:
            case PartStarted(part):
                return Position(part)
            case StageStarted(stage):
                return Position(self.part, stage)
            case StageEnded(complete=True):
                return Position(self.part, f"after {self.stage}")
        return self
