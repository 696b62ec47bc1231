"""Count the words of every sentence in the documentation: `python tools/sentences.py [FILE...]`.

Code blocks and headings don't count. An inline code span and a URL are one word, a link's target is
none. A table cell or list item without a full stop counts from six words on; a shorter one is a
label.
"""

import argparse
import math
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
LABEL_WORDS = 6
LONG = 24

_FENCE = re.compile(r"^```.*?^```", flags=re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", flags=re.DOTALL)
_CODE = re.compile(r"``.+?``|`[^`]+`")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_URL = re.compile(r"https?://\S+")
_ITEM = re.compile(r"^\s*(?:[-*]|\d+\.)\s+")
_RULE = re.compile(r"^\|?[\s:|-]+\|?$")
_ABBREVIATIONS = re.compile(r"\b(e\.g|i\.e|et al|etc|vs|cf|No)\.")
_END = re.compile(r"(?<=[.!?])[\"')*]*\s+")
_WORD = re.compile(r"[^\W_]|\x00")


class Sentence(NamedTuple):
    """A sentence, with its file and its number of words."""

    file: str
    text: str
    words: int


def pages(root: Path = ROOT) -> list[Path]:
    """Return the pages of the first folder, but the changelog, and every page of docs/."""
    first = [root / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")]
    return [*(page for page in first if page.exists()), *sorted((root / "docs").rglob("*.md"))]


def sentences(path: Path) -> list[Sentence]:
    """Return the sentences of a Markdown file."""
    text = _COMMENT.sub("", _FENCE.sub("\n\n", path.read_text(encoding="utf-8")))
    found = []
    for block, is_label in _blocks(text):
        for sentence in _END.split(_plain(block)):
            words = sum(1 for word in sentence.split() if _WORD.search(word))
            stops = sentence.rstrip("\"')* ").endswith((".", "!", "?"))
            if words and (stops or not is_label or words >= LABEL_WORDS):
                found.append(Sentence(str(path), sentence.strip(), words))
    return found


def percentile(counts: list[int], share: float) -> int:
    """Return the least count that `share` (0..1) of the counts don't exceed."""
    return sorted(counts)[max(0, math.ceil(share * len(counts)) - 1)]


def _plain(block: str) -> str:
    """Return a block with code spans as the word NUL, links as their text, URLs as one word."""
    block = _CODE.sub("\x00", block)
    block = _URL.sub("\x00", _LINK.sub(r"\1", block))
    return _ABBREVIATIONS.sub(r"\1", block)


def _blocks(text: str) -> list[tuple[str, bool]]:
    """Return the paragraphs, list items and table cells, and whether each may be a label."""
    blocks: list[tuple[str, bool]] = []
    lines: list[str] = []
    in_item = False

    def close() -> None:
        if lines:
            blocks.append((" ".join(lines), in_item))
            lines.clear()

    for line in text.splitlines():
        if line.startswith("|"):
            close()
            cells = [] if _RULE.match(line) else re.split(r"(?<!\\)\|", _CODE.sub("\x00", line))
            blocks += [(cell.strip(), True) for cell in cells if cell.strip()]
        elif not line.strip() or line.startswith("#"):
            close()
            in_item = False
        elif _ITEM.match(line):
            close()
            in_item = True
            lines.append(_ITEM.sub("", line))
        else:
            lines.append(line.strip())
    close()
    return blocks


def main() -> None:
    """Print median and p90 of each file and of all, and the longest sentences of named files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", metavar="FILE", nargs="*", type=Path)
    named: list[Path] = parser.parse_args().files
    everything: list[int] = []
    for path in named or pages():
        found = sentences(path)
        counts = [sentence.words for sentence in found]
        everything += counts
        if counts:
            print(_row(path, counts))
        for sentence in found if named else ():
            if sentence.words > LONG:
                print(f"  {sentence.words}: {sentence.text.replace(chr(0), '`...`')}")
    print(_row(Path("all"), everything))


def _row(path: Path, counts: list[int]) -> str:
    name = str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
    median, p90 = percentile(counts, 0.5), percentile(counts, 0.9)
    figures = f"median {median:2}, p90 {p90:2}, most {max(counts)}"
    return f"{name:24} {len(counts):5} sentences, {figures}"


if __name__ == "__main__":
    main()
