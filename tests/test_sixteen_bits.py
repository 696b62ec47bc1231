"""TensorFlow's quantiser of 16-bit activations reads a model that is still in memory."""

import os
import subprocess
import sys
from pathlib import Path

HELPERS = Path(__file__).parent / "helpers"
QUANTISED = """
import sys
from hashlib import sha256
from pathlib import Path
import families
from kedge_convert.export import tflite_converter, tflite_static
from kedge_convert.export.exported import ExportOptions
source, images = families.source("vgg"), sorted(Path(sys.argv[1]).iterdir())[:2]
floats = tflite_converter.float32(source)
ranges = tflite_converter.ranges(source, ExportOptions(tuple(images)))
for _ in range(3):
    print(sha256(tflite_static.quantise_16(floats, ranges, "int16")).hexdigest())
"""


def test_no_freed_memory_is_read(pictures: Path) -> None:
    # glibc overwrites what is freed, so that whoever still reads it fails at once.
    path = os.pathsep.join([str(HELPERS), *sys.path])
    environment = {**os.environ, "MALLOC_PERTURB_": "165", "PYTHONPATH": path}
    command = [sys.executable, "-c", QUANTISED, str(pictures)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{ran.returncode}: {ran.stderr[-500:]}"
    assert len(set(ran.stdout.split())) == 1
