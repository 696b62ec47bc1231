"""What the runtime's `kedge drift` calls by name: `kedge_runtime.drift.recording.Converter`."""

from kedge_convert.drift.attribution import attribute
from kedge_convert.drift.layer_show import table
from kedge_convert.drift.layers import plain
from kedge_convert.drift.recording import draw, localised, record

__all__ = ["attribute", "draw", "localised", "plain", "record", "table"]
