"""Record where an artefact comes from."""

from dataclasses import field

from kedge_runtime.artefact.kinds import Kind, Method, Precision
from kedge_runtime.frozen import dataclass


@dataclass(frozen=True)
class Provenance:
    """The origin of an artefact: enough to make it again and to recognise its float model.

    `method`: whether the weights were prepared for int8 (docs/quantisation.md).
    `calibration_images`: the start of each file's SHA-256 (`calibration_mark`). `ranges`: how the
    ranges of int8 activations were chosen. `kept`: layers that stay float in a mixed file.
    `copied`: layers whose channels are written several times, as `conv1 x2`, or as positive and
    negative part, as `conv1 +-`.
    `device`: the device profile that chose its integer layout, if any. `head`: the float model's
    output type, None where unknown. `output`, `signature`: the one of several that the user chose,
    else empty. `validation_images`: marks of the images that it was compared with the float model
    on.
    """

    source: str
    weights_digest: str
    precision: Precision
    target: str
    card: str = ""
    parameters: int = 0
    method: Method = "stock"
    calibration_digest: str = ""
    calibration_count: int = 0
    tools: dict[str, str] = field(default_factory=dict)
    ranges: str = ""
    kept: tuple[str, ...] = ()
    copied: tuple[str, ...] = ()
    device: str = ""
    head: Kind | None = None
    output: str = ""
    signature: str = ""
    calibration_images: tuple[str, ...] = ()
    validation_images: tuple[str, ...] = ()


def calibration_mark(digest: bytes) -> str:
    """Return what an artefact keeps of an image file's SHA-256: 12 hexadecimal digits.

    A million images have one of a thousand marks by chance with a probability of 4e-6.
    """
    return digest[:6].hex()


FOREIGN = Provenance(source="", weights_digest="", precision="unknown", target="")
