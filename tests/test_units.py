"""Numbers with units in `kedge.toml`."""

import pytest

from kedge_convert.matrix.config import read_ratio, read_share, read_size


@pytest.mark.parametrize(
    ("written", "size"),
    [
        (4_000_000, 4_000_000),
        (0, 0),
        ("4MB", 4_000_000),
        ("1.5 MB", 1_500_000),
        ("500kB", 500_000),
        ("500KB", 500_000),
        ("2GB", 2_000_000_000),
        (" 10B ", 10),
    ],
)
def test_a_size_in_bytes_or_with_a_unit(written: object, size: int) -> None:
    assert read_size(written) == size


@pytest.mark.parametrize(
    "written", ["4", "4 MiB", "-1MB", "MB", 1.5, True, -1, None, [], "4MB x", f"{9:9<400}MB"]
)
def test_other_sizes_are_refused(written: object) -> None:
    with pytest.raises(ValueError, match="allowed are bytes, such as 4000000, or '4MB'"):
        read_size(written)


@pytest.mark.parametrize(
    ("written", "share"), [(0.95, 0.95), (1, 1.0), (0, 0.0), ("95%", 0.95), ("99.5 %", 0.995)]
)
def test_a_share_as_a_number_or_in_percent(written: object, share: float) -> None:
    assert read_share(written) == pytest.approx(share)


@pytest.mark.parametrize(
    "written",
    [1.01, "101%", -0.1, "-5%", float("nan"), float("inf"), "0.95", True, None, {}, 10**400],
)
def test_other_shares_are_refused(written: object) -> None:
    with pytest.raises(ValueError, match="allowed are"):
        read_share(written)


@pytest.mark.parametrize(("written", "ratio"), [(1.5, 1.5), ("50%", 0.5), ("150%", 1.5)])
def test_a_ratio_may_be_above_one(written: object, ratio: float) -> None:
    assert read_ratio(written) == pytest.approx(ratio)


@pytest.mark.parametrize("written", [float("inf"), 10**400, f"{9:9<400}%"])
def test_an_endless_ratio_is_refused(written: object) -> None:
    """No artefact could miss it."""
    with pytest.raises(ValueError, match=r"allowed are numbers, such as 0\.5, or '50%'"):
        read_ratio(written)
