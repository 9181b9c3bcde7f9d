"""Running evaluations as users do, and reading what they leave."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import warm_start

from mgpo_core.boxes.parse import Box
from mgpo_core.episodes.trajectory import Trajectory
from mgpo_core.runs.response_payload import ResponsePayload, decode_payload

SCRIPTS = Path(sys.executable).parent


def command(name: str, *arguments: str) -> list[str]:
    """The command line of a script of this environment."""
    return [str(SCRIPTS / name), *arguments]


def run(
    arguments: list[str], folder: Path, *, processes: int = 1, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a script, or `-m` and a module, in a folder to its end."""
    return warm_start.run(arguments, folder=folder, processes=processes, **variables)


def scores(output: Path, task: str = "haystack") -> dict[str, Any]:
    """The task's scores as lmms-eval wrote them last."""
    newest = max(output.glob("*/*_results.json"), key=lambda path: path.stat().st_mtime_ns)
    return dict(json.loads(newest.read_text())["results"][task])


def payloads(output: Path, task: str = "haystack") -> dict[int, ResponsePayload]:
    """Every sample's envelope by its row, out of lmms-eval's sample log."""
    newest = max(output.glob(f"*/*_samples_{task}.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    found = {}
    for line in newest.read_text().splitlines():
        row = json.loads(line)
        text = row.get("resps", row["filtered_resps"])
        while isinstance(text, list):
            text = text[0]
        found[int(row["doc_id"])] = decode_payload(text)
    return found


def trajectories(output: Path, task: str = "haystack") -> dict[int, Trajectory]:
    """Every sample's trajectory by its row."""
    found = {row: payload.trajectory() for row, payload in payloads(output, task).items()}
    assert all(trajectory is not None for trajectory in found.values())
    return found  # type: ignore[return-value]


def seen(output: Path, task: str = "haystack") -> dict[int, tuple[str, list[str], list[Box | None]]]:
    """(answer, what was said in every turn, every turn's box in pixels of the original) by row."""
    answers = {row: payload.answer for row, payload in payloads(output, task).items()}
    return {
        row: (answers[row], [turn.text for turn in played.turns], [turn.box_original for turn in played.turns])
        for row, played in trajectories(output, task).items()
    }


def journal_keys(output: Path) -> list[str]:
    """The keys of all finished samples as often as they were written, in their order; lines cut short are left out."""
    keys = []
    for path in sorted(output.glob("mgpo/*/rank*.jsonl")):
        for line in path.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                keys.append(json.loads(line)["key"])
    return keys
