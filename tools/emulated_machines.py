"""The processors that are emulated, and the releases of Debian that run on them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Processor:
    """What is emulated.

    `machine`: as `uname -m`, wheels and their markers call it; `debian`, `qemu`: as those do.
    `cpu`: QEMU's model of it. `cpuinfo`: one core's /proc/cpuinfo as the kernel on it writes it.
    `packages`: Debian's, beside Python; `provides`: the requirements that they meet.
    `links`: what their installation scripts would link, by name below /usr/lib.
    """

    machine: str
    debian: str
    qemu: str
    cpu: str
    cpuinfo: str
    packages: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Release:
    """A release of Debian: its Python, and the minor version of its glibc 2."""

    python: str
    glibc: int


# Never QEMU's `max`: QEMU 7.2's SME gives silently wrong integers.
PROCESSORS = {
    "arm64": Processor(
        machine="aarch64",
        debian="arm64",
        qemu="aarch64",
        cpu="cortex-a72",  # the Raspberry Pi 4's
        cpuinfo="Features\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\n"
        "CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n",
    ),
    "armv7": Processor(
        machine="armv7l",
        debian="armhf",
        qemu="arm",
        cpu="cortex-a7",  # the Raspberry Pi 2's
        cpuinfo="Features\t: half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 "
        "lpae evtstrm\nCPU implementer\t: 0x41\nCPU architecture: 7\nCPU variant\t: 0x0\n"
        "CPU part\t: 0xc07\nCPU revision\t: 5\n",
        # No wheels for it on the package index.
        packages=("python3-numpy", "python3-opencv"),
        provides=("numpy", "opencv-python-headless"),
        links=(
            ("arm-linux-gnueabihf/libblas.so.3", "blas/libblas.so.3"),
            ("arm-linux-gnueabihf/liblapack.so.3", "lapack/liblapack.so.3"),
        ),
    ),
}
RELEASES = {"bookworm": Release("3.11", 36), "trixie": Release("3.13", 41)}
