"""`report.html`: the run's table and some of its trajectories, with boxes, crops and tokens coloured by mask.

The same trajectories are left in `trajectories.jsonl`, for the demo to browse.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mgpo_core.episodes.trajectory import Trajectory
from mgpo_core.files.output_folder import OutputFolderError
from mgpo_core.render import write_report
from mgpo_core.render.environment import template
from mgpo_core.runs.trajectory_log import write_trajectories
from mgpo_train.output.summary import table_rows


def write_run_report(
    path: str | Path,
    parts: Mapping[str, Sequence[Trajectory]],
    *,
    title: str,
    summary: Mapping[str, Any] | None = None,
    curves: str | Path | None = None,
) -> Path | None:
    """Write the report of a run, and beside it its trajectories: `parts` maps a heading ("after") to them.

    Written aside and renamed, so that a reader never meets half a page; None when there is no trajectory to show. What
    somebody else's file is in the way of is left out, with a warning.
    """
    shown = [_labelled(trajectory, part) for part, trajectories in parts.items() for trajectory in trajectories]
    if not shown:
        return None
    one_part = sum(bool(trajectories) for trajectories in parts.values()) == 1
    header = template("mgpo_train/run_report.html.j2").render(
        warnings=(summary or {}).get("warnings") or (),
        rows=table_rows(summary) if summary is not None else (),
        curves=_base64(curves),
        counts=[f"{len(trajectories)} {part}" for part, trajectories in parts.items() if trajectories],
        tiles=one_part,
    )
    path = Path(path)
    with _skip_foreign_files():
        write_report(path, shown, title, header, tiles=one_part)  # no average over before and after
    with _skip_foreign_files():
        write_trajectories(path.parent, parts)
    return path


@contextlib.contextmanager
def _skip_foreign_files() -> Iterator[None]:
    """Leave out what would go in the place of somebody's file: a run must not be lost for its report."""
    try:
        yield
    except OutputFolderError as error:
        print(f"mgpo-train: warning: {error}", file=sys.stderr)


def _labelled(trajectory: Trajectory, part: str) -> Trajectory:
    """The trajectory with the part of the run it is from in front of its sample's name."""
    return dataclasses.replace(trajectory, sample_id=f"{part}: {trajectory.sample_id}")


def _base64(image: str | Path | None) -> str:
    """The file in base64; empty when there is none."""
    if image is None or not Path(image).is_file():
        return ""
    return base64.b64encode(Path(image).read_bytes()).decode("ascii")
