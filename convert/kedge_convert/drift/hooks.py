"""Export what the runtime's `kedge drift` calls by name; mypy checks it against its Protocol."""

from typing import TYPE_CHECKING

from kedge_convert.drift.attribution import attribute
from kedge_convert.drift.recording import localise, record

if TYPE_CHECKING:
    from kedge_convert.drift import hooks
    from kedge_runtime.drift.recording import Converter

    CONFORMS: Converter = hooks

__all__ = ["attribute", "localise", "record"]
