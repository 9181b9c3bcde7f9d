"""Journals of one record a line: what a kill cut short is counted, and costs no other record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mgpo_core.files.json_lines import append_record, read_records


@dataclass(frozen=True)
class Note:
    key: str
    text: str = ""


def test_a_journal_cut_anywhere_loses_only_the_record_cut(tmp_path: Path) -> None:
    notes = [Note("a", "ünïcode\nin two lines"), Note("b"), Note("c")]
    path = tmp_path / "notes.jsonl"
    for note in notes:
        append_record(path, note, sync=True)
    whole = path.read_bytes()
    assert read_records(path, Note) == (notes, 0)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        kept = (whole[:length] + b"\n").count(b"}\n")  # records whose text is whole, with or without the line end
        cut = not whole[:length].endswith((b"\n", b"}")) and length > 0
        append_record(path, notes[-1])
        assert read_records(path, Note) == ([*notes[:kept], notes[-1]], int(cut))
