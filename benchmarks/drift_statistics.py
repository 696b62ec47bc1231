"""Do drift's intervals and verdicts keep their word? Simulated, 2 000 draws a scenario, seeded.

Coverage of the paired interval, beside two that were not taken; false PASS at the gate; and how
often the number of images that an inconclusive verdict states does decide: when the truth is
drawn from what the images told (what is promised), and when it is fixed and each draw begins
with images of its own.

    python benchmarks/drift_statistics.py
"""

import argparse
import json
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import multinomial

from kedge_runtime.drift.gates import Gate, Pairs, max_drop, min_agreement
from kedge_runtime.drift.statistics import Z, drop_differs, paired_drop, share_differs, wilson

RESULTS = Path(__file__).parent / "results"
DRAWS = 2000
GATE, AGREEMENT = 0.01, 0.95
IMAGES = (500, 1000, 5000)
# Images, share of discordant ones, drop.
SCENARIOS = list(product(IMAGES, (0.02, 0.06, 0.15), (0.0, 0.005, GATE)))
# Up to ten discordant images are expected here: counts are coarse, and no interval is exact.
FEW = [(100, 0.01, GATE), (100, 0.04, GATE), (500, 0.01, GATE), (1000, 0.01, GATE)]
# Lost, gained, images: inconclusive at the gate.
PILOTS = [(6, 4, 500), (6, 2, 500), (0, 0, 100), (25, 10, 1000), (40, 25, 2000), (3, 0, 100)]
AGREED = [(97, 100), (60, 60), (480, 500), (466, 500), (1910, 2000)]
# True drops, in standard errors of 500 images' drop from the gate.
DISTANCES = (1.5, 1.0, 0.5, 0.25)

Counts = NDArray[np.int64]
Method = Callable[[Any, Any, Any], tuple[Any, Any]]
Rows = list[dict[str, Any]]


def wald(lost: Counts, gained: Counts, n: int) -> tuple[Any, Any]:
    """The textbook's: a normal estimate with its own variance."""
    return _normal(lost / n, gained / n, n)


def agresti_min(lost: Counts, gained: Counts, n: int) -> tuple[Any, Any]:
    """The same with half a image in each cell (Agresti and Min 2005)."""
    return _normal((lost + 0.5) / (n + 2), (gained + 0.5) / (n + 2), n + 2)


def _normal(lost: Any, gained: Any, n: int) -> tuple[Any, Any]:
    drop = lost - gained
    half = Z * np.sqrt((lost + gained - drop**2) / n)
    return drop - half, drop + half


METHODS: dict[str, Method] = {"Tango": paired_drop, "Agresti-Min": agresti_min, "Wald": wald}


def main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    report = {
        "draws": DRAWS,
        "coverage": coverage(SCENARIOS),
        "few": coverage(FEW),
        "agreement": agreement(),
        "promised": promised(),
        "fixed": fixed(),
    }
    (RESULTS / "drift-statistics.json").write_text(json.dumps(report, indent=2) + "\n")
    text = "\n".join(_table(name, rows) for name, rows in report.items() if name != "draws")
    (RESULTS / "drift-statistics.md").write_text(text)
    print(text)
    return int(not _held(report))


def _held(report: dict[str, Any]) -> bool:
    # 2 000 draws have a standard error of .005: single ones may stray, the exact ones may not.
    rows = report["coverage"]
    covered = all(abs(row["Tango, exactly"] - 0.95) <= 0.01 for row in rows)
    covered &= abs(np.mean([row["Tango"] for row in rows]) - 0.95) <= 0.01
    false = all(row["Tango, false PASS"] <= 0.05 for row in rows + report["few"])
    false &= all(row["false PASS"] <= 0.05 for row in report["agreement"])
    return covered and false and all(row["decides"] >= 0.9 for row in report["promised"])


def coverage(scenarios: list[tuple[int, float, float]]) -> Rows:
    """Return each method's coverage, and the share of PASS if the gate lay at the true drop."""
    rows = []
    for n, discordant, drop in scenarios:
        lost, gained = drawn(n, discordant, drop)
        row: dict[str, Any] = {"images": n, "discordant": discordant, "drop": drop}
        for name, method in METHODS.items():
            low, high = method(lost, gained, n)
            row[name] = float(((low <= drop) & (drop <= high)).mean())
            row[f"{name}, false PASS"] = float((high <= drop).mean())
        row["Tango, exactly"] = exact(n, discordant, drop)
        rows.append(row)
    return rows


def drawn(n: int, discordant: float, drop: float) -> tuple[Counts, Counts]:
    """Return DRAWS times lost and gained of n images."""
    lost = (discordant + drop) / 2
    shares = [lost, discordant - lost, 1 - discordant]
    seed = (n, round(1e4 * discordant), round(1e4 * (1 + drop)))
    b, c, _ = np.random.default_rng(seed).multinomial(n, shares, DRAWS).T
    return b, c


def exact(n: int, discordant: float, drop: float) -> float:
    """Return Tango's coverage summed over all counts that are likelier than 1e-8 by far."""
    share = (discordant + drop) / 2
    likely = [_likely(n * share), _likely(n * (discordant - share))]
    b, c = (grid.ravel() for grid in np.meshgrid(*likely))
    b, c = b[b + c <= n], c[b + c <= n]
    cells = np.stack([b, c, n - b - c], axis=1)
    weights = multinomial.pmf(cells, n, [share, discordant - share, 1 - discordant])
    return float(weights[~drop_differs(b, c, n, drop)].sum())


def _likely(mean: float) -> Counts:
    """Return the counts within six standard deviations, and some more for small means."""
    reach = 6 * mean**0.5
    return np.arange(max(0, int(mean - reach - 5)), int(mean + reach + 12))


def agreement() -> Rows:
    """Return the coverage of the agreement's interval, and its false PASS, at the gate."""
    rows = []
    for n in (100, *IMAGES):
        agreed = np.random.default_rng(0).binomial(n, AGREEMENT, DRAWS)
        low, high = wilson(agreed, n)
        held = float(((low <= AGREEMENT) & (high >= AGREEMENT)).mean())
        passed = float((low >= AGREEMENT).mean())
        rows.append({"images": n, "Wilson": held, "false PASS": passed})
    return rows


def promised() -> Rows:
    """Return how often the stated numbers decide when the truth is as uncertain as was measured."""
    rng = np.random.default_rng(2)
    rows = []
    for lost, gained, n in PILOTS:
        gate = max_drop(GATE, Pairs(n - lost - gained, lost, gained, 0))
        counts = np.array([lost, gained, n - lost - gained])
        needed = gate.images_needed or 0
        b, c, _ = rng.multinomial(needed, rng.dirichlet(counts + 0.5, DRAWS)).T
        decided = drop_differs(b, c, needed, GATE).mean()
        rows.append(_promise(f"-{lost} +{gained} of {n}", needed, decided))
    for agreed, n in AGREED:
        gate = min_agreement(AGREEMENT, agreed, n)
        needed = gate.images_needed or 0
        shares = rng.beta(agreed + 0.5, n - agreed + 0.5, DRAWS)
        decided = share_differs(rng.binomial(needed, shares), needed, AGREEMENT).mean()
        rows.append(_promise(f"{agreed} of {n} agree", needed, decided))
    return rows


def _promise(pilot: str, needed: int, decided: Any) -> dict[str, Any]:
    return {"measured": pilot, "images needed": needed, "decides": float(decided)}


def fixed(n: int = 500, discordant: float = 0.04) -> Rows:
    """Return how often the numbers decide that inconclusive runs on n images state, by how far
    the true drop lies below the gate.
    """
    error = float(np.sqrt(discordant / n))
    return [
        _fixed(n, discordant, GATE - distance * error) | {"errors": distance}
        for distance in DISTANCES
    ]


def _fixed(n: int, discordant: float, drop: float) -> dict[str, Any]:
    lost, gained = drawn(n, discordant, drop)
    pairs = [(int(b), int(c)) for b, c in zip(lost, gained, strict=True)]
    judged = {pair: max_drop(GATE, Pairs(n - sum(pair), *pair, 0)) for pair in set(pairs)}
    numbers = np.array(
        [judged[pair].images_needed or 10**9 for pair in pairs if _is_open(judged[pair])]
    )
    share = (discordant + drop) / 2
    shares = [share, discordant - share, 1 - discordant]
    b, c, _ = np.random.default_rng(3).multinomial(numbers, shares).T
    return {
        "drop": round(drop, 4),
        "inconclusive": len(numbers) / DRAWS,
        "median images needed": int(np.median(numbers)),
        "decides": float(drop_differs(b, c, numbers, GATE).mean()),
    }


def _is_open(gate: Gate) -> bool:
    return gate.images_needed is not None


def _table(name: str, rows: Rows) -> str:
    keys = list(rows[0])
    lines = [" | ".join(keys), " | ".join("--:" for _ in keys)]
    lines += [" | ".join(_cell(row[key]) for key in keys) for row in rows]
    return f"## {name}\n\n" + "".join(f"| {line} |\n" for line in lines)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
