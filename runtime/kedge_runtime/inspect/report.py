"""What is inside a file, all of it: what `kedge inspect` shows and devices are held against."""

from dataclasses import dataclass
from pathlib import Path

from kedge_runtime.artefact import artefact_of, ends_in_digest
from kedge_runtime.content import read_content
from kedge_runtime.contract import Contract, Precision
from kedge_runtime.inspect import Network, Summary, read_network, summarise
from kedge_runtime.inspect.precision import precision_of
from kedge_runtime.inspect.sizes import sizes
from kedge_runtime.inspect.sound import check_model


@dataclass(frozen=True)
class Report:
    """`contract` is None for a file that kedge didn't seal. `sizes`: bytes by part."""

    path: Path
    network: Network
    summary: Summary
    sizes: dict[str, int]
    precision: Precision
    contract: Contract | None


def inspect(path: Path) -> Report:
    """Read a file.

    Raises ArtefactError when it is no model, an invalid one, or sealed and changed since.
    """
    content = read_content(path)
    check_model(content)
    network = read_network(content)
    contract = artefact_of(content).contract if ends_in_digest(content.data) else None
    precision = contract.provenance.precision if contract else precision_of(network)
    return Report(path, network, summarise(network), sizes(content, network), precision, contract)
