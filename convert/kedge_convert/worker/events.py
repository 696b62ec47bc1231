"""What a conversion tells while it runs. Events are small and plain: they cross processes."""

from dataclasses import dataclass

PREPARATION = "preparation"


@dataclass(frozen=True)
class Turned:
    """The work turns to another part: a target, or `PREPARATION`. What precedes has no part."""

    part: str


@dataclass(frozen=True)
class Begun:
    """A stage began; `total` is the number of ticks to come, where it is known."""

    stage: str
    total: int | None = None


@dataclass(frozen=True)
class Ticked:
    """One of the stage's items is done."""


@dataclass(frozen=True)
class Ended:
    """The stage ended; not `whole` when it was broken off."""

    whole: bool = True


@dataclass(frozen=True)
class Said:
    """A line for the user."""

    line: str


@dataclass(frozen=True)
class Noted:
    """A line for whoever watches: what was found, nothing to worry about."""

    line: str


Event = Turned | Begun | Ticked | Ended | Said | Noted


@dataclass(frozen=True)
class Position:
    """Where the work stands: the part, "" before the first, and its stage."""

    part: str = ""
    stage: str = ""

    def __str__(self) -> str:
        """Return e.g. `export tflite:int8`."""
        words = (self.stage,) if self.part in self.stage else (self.part, self.stage)
        return ", ".join(filter(None, words)) or "start"

    def after(self, event: Event) -> "Position":
        """Return where the work stands after an event; a stage that broke off is still there."""
        match event:
            case Turned(part):
                return Position(part)
            case Begun(stage):
                return Position(self.part, stage)
            case Ended(whole=True):
                return Position(self.part, f"after {self.stage}")
        return self
