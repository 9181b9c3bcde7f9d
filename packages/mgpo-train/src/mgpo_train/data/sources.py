"""Data sets: haystack, JSONL with images, parquet, local folders and hub ids, all checked before training starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mgpo_core import Sample
from mgpo_core.boxes.regions import WorkedSolution
from mgpo_core.errors import RegistryError, SampleError
from mgpo_core.images.source import as_source
from mgpo_core.messages.suggest import nearest
from mgpo_core.samples.annotations import AnnotatedSet
from mgpo_train.config.data_spec import HAYSTACK, HAYSTACK_MULTI, BoxFormat, BoxScale, DataSpec
from mgpo_train.data.formats import LAYOUTS, Row, recognise
from mgpo_train.data.formats.reading import Reading
from mgpo_train.data.row_boxes import BoxNumbers
from mgpo_train.data.rows import RowImage, digest_of, read_row, row_images
from mgpo_train.data.tables import Table, UnreachableDataError, open_table

__all__ = ["DataSpec", "SampleSet", "UnreachableDataError", "load_samples"]

SHOWN_ERRORS = 5
MULTI_OPTIONS = ("images", "tasks")
FIRST_ROWS = 8
"""Rows that tell the layout of a table whose rows all have the same columns."""


class SampleSet(list[Sample]):
    """Samples with where they came from and what was left out."""

    source: str = ""
    skipped: list[str]
    layout: str = ""
    """The layout that its rows were read in; "" where they were made."""

    def __init__(
        self, samples: list[Sample], source: str = "", skipped: list[str] | None = None, layout: str = ""
    ) -> None:
        super().__init__(samples)
        self.source = source
        self.skipped = skipped or []
        self.layout = layout

    def describe(self) -> str:
        """One line: how many samples from where, by which reader, and how many rows were skipped."""
        text = f"{len(self)} samples from {self.source}" + (f", read as {self.layout}" if self.layout else "")
        return text + (f" ({len(self.skipped)} bad rows skipped)" if self.skipped else "")


def load_samples(
    spec: str | Mapping[str, Any],
    *,
    columns: Mapping[str, str] | None = None,
    on_bad_sample: str = "error",
    max_bad_fraction: float = 0.1,
    check_images: str = "quick",
    answers_with_box: bool = False,
    box_scale: BoxScale | None = None,
    box_format: BoxFormat | None = None,
) -> SampleSet:
    """Read and check every row of a data set; images are verified (`check_image`), and decoded only when used.

    `answers_with_box` says that true boxes are what is asked for: then every row has some, and need not have an answer.
    `columns`, `box_scale` and `box_format` serve where the spec itself does not say. Raises SampleError naming row and
    column at the first bad row, or with `on_bad_sample="skip"` when more than `max_bad_fraction` of the rows are bad.
    """
    parsed = DataSpec.parse(spec)
    if parsed.path.startswith(HAYSTACK):
        return _haystack(parsed)
    if parsed.path.startswith(HAYSTACK_MULTI):
        return _haystack_multi(parsed)
    parsed = parsed.with_defaults(columns=columns, box_scale=box_scale, box_format=box_format)
    table = open_table(parsed)
    reading = _reading(table, parsed, "boxes" if answers_with_box else "answer")
    samples: list[Sample] = []
    bad: list[str] = []
    checked: dict[str, tuple[int, int]] = {}
    for number, (row_name, read) in enumerate(table.rows[: parsed.n]):
        try:
            sample = read_row(
                read(),
                reading,
                name=row_name,
                folder=table.folder,
                row_id=f"{number}",
                full=check_images == "full",
                checked=checked,
            )
        except SampleError as error:
            if on_bad_sample != "skip":
                raise SampleError(f"{error} (on_bad_sample=skip would leave bad rows out)") from error
            bad.append(str(error))
            continue
        samples.append(_lazy(sample, read, reading, table.folder, row_name))
    _check_bad(bad, len(samples) + len(bad), max_bad_fraction, table.source)
    return SampleSet(samples, table.source, bad, reading.layout.name)


def _reading(table: Table, spec: DataSpec, ground_truth: str) -> Reading:
    """How a table is read: in the layout that the spec names, else in the one that its rows are recognised by."""
    image = spec.columns.get("images") or spec.columns.get("image")
    try:
        layout = (
            LAYOUTS.get(spec.schema)
            if spec.schema is not None
            else recognise(spec.path, table.source, table.available, _known(table), image)
        )
    except RegistryError as error:
        raise SampleError(f"{table.source}: {error}") from error
    numbers = BoxNumbers(spec.box_scale, spec.box_format)
    reading = Reading(layout, table.source, tuple(table.available), spec.columns, ground_truth, numbers)
    reading.check()
    return reading


def _known(table: Table) -> Iterator[tuple[str, Row]]:
    """The rows that tell the layout, bad ones left out: they are reported when they are read."""
    for name, read in table.rows[: FIRST_ROWS if table.same_columns else None]:
        try:
            yield name, read()
        except SampleError:
            continue


def _check_bad(bad: list[str], total: int, limit: float, source: str) -> None:
    if total == 0:
        raise SampleError(f"{source} has no rows")
    shown = "\n  ".join(bad[:SHOWN_ERRORS]) + (
        f"\n  ... and {len(bad) - SHOWN_ERRORS} more" if len(bad) > SHOWN_ERRORS else ""
    )
    if len(bad) == total:
        raise SampleError(f"{source}: all {total} rows are bad:\n  {shown}")
    if len(bad) > limit * total:
        raise SampleError(
            f"{source}: {len(bad)} of {total} rows are bad, more than max_bad_fraction={limit} allows:\n  {shown}"
        )


def _haystack(spec: DataSpec) -> SampleSet:
    from mgpo_core import haystack

    split, seed = spec.path.removeprefix(HAYSTACK) or "train", spec.seed or 0
    try:
        return SampleSet(haystack.make(split, spec.n or 512, seed, **spec.options), f"{HAYSTACK}{split} (seed {seed})")
    except (TypeError, ValueError) as error:
        raise SampleError(f"data: {spec.path!r}: {error}") from error


def _haystack_multi(spec: DataSpec) -> SampleSet:
    """Samples over several images; with `solutions=true` each has the solution that the rule-based writer gives it,
    of which a share of `noisy_solutions` goes wrong at the end (`corrupt_solution`)."""
    from mgpo_core.haystack.multi import make_sets

    split, seed, options = spec.path.removeprefix(HAYSTACK_MULTI) or "train", spec.seed or 0, dict(spec.options)
    solved, noisy = options.pop("solutions", False), options.pop("noisy_solutions", 0)
    if not isinstance(solved, bool):
        raise SampleError(f"data: solutions={solved!r}: write true or false")
    if isinstance(noisy, bool) or not isinstance(noisy, int | float) or not 0 <= noisy <= 1 or (noisy and not solved):
        raise SampleError(f"data: noisy_solutions={noisy!r}: give a share from 0 to 1, with solutions=true")
    for name in options:
        if name not in MULTI_OPTIONS:
            known = ("n", "noisy_solutions", "seed", "solutions", *MULTI_OPTIONS)
            raise SampleError(f"data: {name!r} is not a valid option for {spec.path!r}: {nearest(name, known)}")
    sets = make_sets(split, spec.n or 500, seed, **options)
    solutions = _solutions(sets, noisy, seed) if solved else [None] * len(sets)
    samples = [one.sample(solution=solution) for one, solution in zip(sets, solutions, strict=True)]
    return SampleSet(samples, f"{HAYSTACK_MULTI}{split} (seed {seed})")


def _solutions(sets: Sequence[AnnotatedSet], noisy: float, seed: int) -> list[WorkedSolution]:
    from mgpo_train.reasoning_data.writers import write_trace
    from mgpo_train.reasoning_data.writers.corrupt import corrupt_solution

    rng = np.random.default_rng((seed, len(sets)))
    written = [(one, write_trace(one).solution) for one in sets]
    return [corrupt_solution(one, solution, rng) if rng.random() < noisy else solution for one, solution in written]


def _lazy(sample: Sample, read: Callable[[], Row], reading: Reading, folder: Path | None, name: str) -> Sample:
    """The same sample with images that are bytes in the table replaced by a way to fetch them again."""
    if all(isinstance(source, str) for source in sample.images):
        return sample

    def cell(position: int) -> Any:
        return as_source(row_images(reading.fields(read()))[1][position], folder)

    sources = tuple(
        source if isinstance(source, str) else RowImage(partial(cell, i), name, digest_of(source))
        for i, source in enumerate(sample.images)
    )
    return replace(sample, images=sources)
