"""Coverage-guided fuzzing of one door by atheris (extra `fuzz`), which learns what opens branches.

    python -m fuzz.guided DOOR [-max_total_time=60] [-rss_limit_mb=2048] [FOLDER ...]

Options are libFuzzer's. It ends at the first fault and writes the input as `crash-*`, `timeout-*`
or `oom-*`; `python -m fuzz --door DOOR --input FILE` repeats it. The byte mutators of `fuzz.ways`
are faster on what needs a digest or a CRC; use this on doors that parse: header, inspect, metadata.
"""

import sys
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp

import atheris

with atheris.instrument_imports(include=["kedge_runtime", "kedge_models"]):
    from fuzz.doors import DOORS


def main() -> None:
    """Fuzz the door that is named first, from its good inputs."""
    door = DOORS[sys.argv.pop(1)]
    known = Path(mkdtemp(prefix="kedge-guided-"))
    for number, content in enumerate(door.seeds()):
        (known / str(number)).write_bytes(content)

    def feed(content: bytes) -> None:
        with suppress(*door.allowed):
            door.call(door.seal(content))

    atheris.Setup([*sys.argv, "-timeout=2", str(known)], feed)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
