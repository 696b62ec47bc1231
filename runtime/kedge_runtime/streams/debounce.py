"""Answers that stay: one counts when enough of the last frames agree on it."""

import re
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass

from kedge_runtime.errors import UsageError


@dataclass(frozen=True)
class Votes:
    """`needed` of the last `frames` must agree, 1 <= needed <= frames. Raises UsageError."""

    needed: int
    frames: int

    def __post_init__(self) -> None:
        """Refuse what no frames could meet."""
        if not 1 <= self.needed <= self.frames:
            raise UsageError(f"{self.needed}/{self.frames}: can't be; 3/5 means 3 of 5 frames")

    @classmethod
    def read(cls, text: str) -> "Votes":
        """Return the votes of a text such as "3/5"."""
        found = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text)
        if not found:
            raise UsageError(f"{text}: expected k/n, such as 3/5 for 3 of the last 5 frames")
        return cls(int(found[1]), int(found[2]))


class Debounce:
    """The stable answer of a stream; asked frame by frame."""

    def __init__(self, votes: Votes) -> None:
        """Begin without a stable answer."""
        self._votes = votes
        self._last: deque[Hashable] = deque(maxlen=votes.frames)
        self._stable: tuple[Hashable, ...] = ()

    def __call__(self, answer: Hashable) -> bool:
        """Take a frame's answer; return whether it has just become the stable one."""
        self._last.append(answer)
        if self._stable == (answer,) or self._last.count(answer) < self._votes.needed:
            return False
        self._stable = (answer,)
        return True
