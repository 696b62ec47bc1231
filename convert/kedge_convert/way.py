"""How an exported model was made, as far as one can choose."""

from dataclasses import dataclass

from kedge_runtime.contract import Method, Precision


@dataclass(frozen=True)
class Way:
    """What goes into the provenance, see there. `device`: whose profile chose, if any."""

    precision: Precision
    method: Method = "stock"
    ranges: str = ""
    kept: tuple[str, ...] = ()
    device: str = ""
