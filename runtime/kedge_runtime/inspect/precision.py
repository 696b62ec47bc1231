"""Which precision a file has, told from its tensors: a foreign file carries no contract."""

from kedge_runtime.contract import Precision
from kedge_runtime.inspect.network import Network
from kedge_runtime.inspect.summary import is_weight

INTEGER = frozenset({"int8", "uint8"})


def precision_of(network: Network) -> Precision:
    """Return the precision that the weights and the activations together make.

    `unknown`: weights that no precision of kedge's has, or none, as in a compiled file.
    """
    kernels = {value.dtype for value in network.values if is_weight(value)}
    quantised = {
        value.dtype for value in network.values if value.scales is not None and not value.constant
    }
    if kernels & INTEGER:
        return _integer(quantised, bool(kernels & {"float32", "float16"}))
    if "float16" in kernels:
        return "float16"
    return "float32" if "float32" in kernels else "unknown"


def _integer(quantised: set[str], floats: bool) -> Precision:
    """Tell apart what the integer weights meet: floats, 8 bits, 16 bits, or several of them."""
    if not quantised & {*INTEGER, "int16"}:
        return "dynamic"
    if floats:
        return "mixed"
    return "int16x8" if "int16" in quantised else "int8"
