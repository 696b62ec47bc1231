"""The compiled file beside its artefact, sealed: the last step of a conversion for a device."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kedge_convert.edge import COMPILERS
from kedge_convert.edge.compilation import Compilation, reseal
from kedge_convert.errors import ConversionError
from kedge_models.devices import Device
from kedge_runtime.files import write_whole


@contextmanager
def compiled(path: Path, device: Device) -> Iterator[tuple[Compilation, Path] | None]:
    """Yield what the device's compiler says of a file, and what it made, in a temporary folder.

    None where the device has no compiler, or it can't be called here: `COMPILERS[...].missing()`
    says why. Raises ConversionError, naming the file, when the compiler fails.
    """
    compiler = COMPILERS.get(device.compiler)
    if compiler is None or compiler.missing():
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="kedge-") as folder:
        # A plain name: what compilers make of `demo.int8.tflite` is their own affair.
        model = Path(folder) / "model.tflite"
        shutil.copyfile(path, model)
        try:
            found = compiler.compile_model(model, device, Path(folder))
        except ConversionError as error:
            raise ConversionError(f"{path}: {error}") from None
        yield found


def compile_beside(path: Path, device: Device) -> tuple[Compilation, Path] | None:
    """Compile an artefact and write `NAME_edgetpu.tflite` or `NAME_vela.tflite` beside it.

    Returns what the compiler said and the file, or None as `compiled` does: the forecast stands
    alone then. Raises ConversionError when the compiler fails, UsageError when the file can't be
    written.
    """
    final = path.with_name(f"{path.stem}_{device.compiler}.tflite")
    with compiled(path, device) as found:
        if found is None:
            return None
        made, file = found
        write_whole(final, reseal(path, file, made.compiler))
    return made, final
