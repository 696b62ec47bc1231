"""The converter's half of drift: the float original's answers, and what a drift comes from."""

from kedge_convert.drift.attribution import attribute
from kedge_convert.drift.layers import draw, localised
from kedge_convert.drift.recording import record
from kedge_convert.localise import plain, table

__all__ = ["attribute", "draw", "localised", "plain", "record", "table"]
