"""The four numbers of docs/evaluation.md and the README: base and mgpo, single-turn and two-turn, by `mgpo-eval`.

uv run tools/four_numbers.py               run what is missing in outputs/eval, print the table
uv run tools/four_numbers.py --write       and put it into the documents
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from between_marks import write_between_marks

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "outputs/four-numbers"
DOCUMENTS = (ROOT / "README.md", ROOT / "docs/evaluation.md")
RUNS = [(name, mode) for name in ("base", "mgpo") for mode in ("single_turn", "two_turn")]
WORDS = {"single_turn": "single turn", "two_turn": "two turns"}
COLUMNS = {"accuracy": "accuracy", "hit_rate": "hit rate", "valid_box_rate": "valid boxes", "mean_iou": "mean IoU"}


def scores(name: str, mode: str) -> dict[str, Any]:
    """The scores of one run, which is run unless it is there."""
    folder = OUTPUT / f"{name}-{mode}"
    written = sorted(folder.glob("*/*_results.json"))
    if not written:
        command = ["mgpo-eval", "--model", "mgpo", "--model_args", f"pretrained=haystack:{name},mode={mode}"]
        command[0] = str(Path(sys.executable).with_name("mgpo-eval"))
        subprocess.run([*command, "--tasks", "haystack", "--output_path", str(folder)], check=True, cwd=ROOT)
        written = sorted(folder.glob("*/*_results.json"))
    return dict(json.loads(written[-1].read_text())["results"]["haystack"])


def table() -> str:
    """The table as Markdown."""
    lines = [f"| checkpoint | mode | {' | '.join(COLUMNS.values())} |", f"|---|---|{'---|' * len(COLUMNS)}"]
    for name, mode in RUNS:
        found = scores(name, mode)
        cells = [f"{found[f'{column},none']:.3f}" if f"{column},none" in found else "–" for column in COLUMNS]
        cells[0] += f" ({found['accuracy_low,none']:.3f} to {found['accuracy_high,none']:.3f})"
        lines.append(f"| `haystack:{name}` | {WORDS[mode]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run, print, and with `--write` put the table into the documents."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into the documents")
    write = parser.parse_args().write
    found = table()
    print(found)
    for document in DOCUMENTS if write else ():
        write_between_marks(document, "four", found)


if __name__ == "__main__":
    main()
