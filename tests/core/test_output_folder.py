"""`run.json`: which folders a command takes for its own, what it may remove, and what a kill leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mgpo_core.files import output_record
from mgpo_core.files.file_identity import identity, is_unchanged
from mgpo_core.files.output_folder import HERE, MODEL_FILES, OutputFolderError, OutputRecord, Owner, open_output

OWNER = Owner(
    "tool",
    "out",
    files=r"log\.txt|page\.html",
    folders={r"model|part|step-\d+": MODEL_FILES},
    renamed={"part": "model"},
)


def start(folder: Path) -> OutputRecord:
    return OutputRecord.create(folder, OWNER, {"options": {}})


def written(folder: Path, name: str, text: str = "ours") -> None:
    record = open_output(folder, OWNER)
    assert record is not None
    with record.writing(name.partition("/")[0], fresh=False):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def files(folder: Path) -> list[str]:
    found = (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    return sorted(path.relative_to(folder).as_posix() for path in found if path.name != "run.json")


@pytest.mark.parametrize(
    "harmless", [[], [".DS_Store"], ["Thumbs.db", ".gitignore"], [".ipynb_checkpoints/x"], [".nfs0001"], ["._a"]]
)
def test_a_new_folder_and_one_of_droppings_count_as_empty(tmp_path: Path, harmless: list[str]) -> None:
    out = tmp_path / "a" / "b"
    assert open_output(out, OWNER) is None and not out.exists()
    for name in harmless:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("theirs")
    assert open_output(out, OWNER) is None
    start(out).clear()
    assert files(out) == sorted(harmless)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"a.txt": "1", "b/c.txt": "2"}, r"did not write \(a\.txt, b/\): name a new or an empty folder"),
        ({f"{n}.txt": "" for n in range(9)}, r"0\.txt, 1\.txt, 2\.txt, 3\.txt, 4\.txt and 4 more"),
        ({"bell\a\n.txt": ""}, r"'bell\\x07\\n\.txt'"),
        ({"run.json": "{}"}, "run.json that tool did not write"),
        ({"run.json": ""}, "run.json that tool did not write"),
        ({"run.json": '{"program": "wandb", "id": 1}'}, "run.json that tool did not write"),
        ({"run.json": '{"program": "mgpo", "command": "tool"}'}, "or that was changed since"),
        ({"run.json": '{"program": "mgpo", "command": "other", "wrote": {}, "open": []}'}, "the output of other"),
        ({"run.json": '{"program": "mgpo", "command": "tool", "format": 9, "wrote": {}, "open": []}'}, "newer version"),
    ],
)
def test_any_other_folder_is_refused_with_what_was_found(tmp_path: Path, made: dict[str, str], words: str) -> None:
    for name, text in made.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(OutputFolderError, match=words) as told:
        open_output(tmp_path, OWNER)
    assert "\n" not in str(told.value) and str(told.value).startswith(f"out={str(tmp_path)!r}")


def test_places_that_can_be_no_folder_are_refused_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for place, words in {
        "file": "is a file: name a folder",
        "file/below": "cannot be made .*is a file",
        "link": "symbolic link to something that is not there",
        "x" * 300: "cannot be used .*too long",
        "/": "files that tool did not write|cannot be written",
        "/proc/run": "cannot be written|cannot be used",
    }.items():
        with pytest.raises(OutputFolderError, match=words):
            open_output(tmp_path / place, OWNER)
    monkeypatch.setattr(os, "access", lambda place, mode: False)  # who runs tests may write everywhere
    with pytest.raises(OutputFolderError, match="cannot be written .no permission in"):
        open_output(tmp_path / "new", OWNER)


def test_a_disk_that_fails_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(output_record, "_write_first", full)
    with pytest.raises(OutputFolderError, match=r"cannot be written \(No space left on device\): name another folder"):
        start(tmp_path / "new")


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    start(tmp_path / "out")
    written(tmp_path / "out", "model/config.json")
    record = open_output(tmp_path / "out", OWNER)
    assert record is not None
    record.clear()
    assert files(tmp_path / "disk") == [] and (tmp_path / "out").is_symlink()


def test_clearing_removes_what_was_written_and_nothing_else(tmp_path: Path) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside"
    outside.mkdir()
    (outside / "model.safetensors").write_text("theirs")
    start(out)
    for name in ("log.txt", "model/config.json", "model/model.safetensors", "step-2/optimizer.pt"):
        written(out, name)
    for name in ("notes.txt", "model/notes.txt", "step-2-copy/optimizer.pt", "stepping-3/model.bin"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("theirs")
    record = open_output(out, OWNER)
    assert record is not None and record.in_the_way() == []
    record.clear()
    assert files(out) == ["model/notes.txt", "notes.txt", "step-2-copy/optimizer.pt", "stepping-3/model.bin"]
    assert not (out / "step-2").exists()
    assert files(outside) == ["model.safetensors"]


@pytest.mark.parametrize("change", ["edited", "same size", "link", "folder", "beside"])
def test_what_was_changed_since_is_not_ours_and_stops_an_overwriting(tmp_path: Path, change: str) -> None:
    start(tmp_path)
    written(tmp_path, "model/config.json", "ours")
    written(tmp_path, "log.txt", "ours")
    path = tmp_path / "model/config.json"
    os.utime(path, ns=(1, 1))  # a copy that lost its time is still ours
    record = open_output(tmp_path, OWNER)
    assert record is not None and record.owns("model/config.json")
    if change == "beside":
        (tmp_path / "model/tokenizer.json").write_text("theirs")
    else:
        path.unlink()
    if change in ("edited", "same size"):
        path.write_text("theirs" if change == "edited" else "OURS")
    if change == "link":
        path.symlink_to(tmp_path / "log.txt")
    if change == "folder":
        path.mkdir()
        (path / "model.bin").write_text("theirs")
    before = files(tmp_path)
    with pytest.raises(OutputFolderError, match=r"or that were changed since.*model/.*move them elsewhere"):
        record.clear()
    assert files(tmp_path) == before


def test_half_written_files_are_ours_and_notes_are_not(tmp_path: Path) -> None:
    record = start(tmp_path)
    record.begin("step-4")
    (tmp_path / "step-4").mkdir()
    for name in ("model.safetensors", "rng_state_1.pth", "notes.md"):
        (tmp_path / "step-4" / name).write_text("half")
    (tmp_path / ".mgpo-0123456789abcdef.tmp").write_text("half")
    again = open_output(tmp_path, OWNER)
    assert again is not None
    again.clear()
    assert files(tmp_path) == ["step-4/notes.md"]


def test_a_folder_that_is_renamed_stays_ours_under_each_of_its_names(tmp_path: Path) -> None:
    start(tmp_path)
    for text in ("first", "second"):
        record = open_output(tmp_path, OWNER)
        assert record is not None
        with record.writing("part"):
            (tmp_path / "part").mkdir()
            (tmp_path / "part/model.safetensors").write_text(text)
        if text == "first":
            (tmp_path / "part").rename(tmp_path / "model")
    record = open_output(tmp_path, OWNER)
    assert record is not None
    assert record.owns("model/model.safetensors") and record.owns("part/model.safetensors")
    record.clear()
    assert files(tmp_path) == []


def test_what_comes_into_the_way_while_writing_is_renamed_and_kept(tmp_path: Path) -> None:
    record = start(tmp_path)
    for _ in range(2):
        (tmp_path / "step-4").mkdir()
        (tmp_path / "step-4/model.bin").write_text("theirs")
        record.begin("step-4")
        record.done("step-4")
    assert files(tmp_path) == ["step-4.kept-2/model.bin", "step-4.kept/model.bin"]


def test_of_two_that_begin_at_once_one_is_refused(tmp_path: Path) -> None:
    assert open_output(tmp_path, OWNER) is None
    start(tmp_path)
    with pytest.raises(OutputFolderError, match="another tool has just begun"):
        start(tmp_path)


def test_a_folder_is_refused_while_another_process_writes_into_it(tmp_path: Path) -> None:
    start(tmp_path)
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        started = Path(f"/proc/{sleeper.pid}/stat").read_text().rpartition(")")[2].split()[19]
        data = json.loads((tmp_path / "run.json").read_text())
        data["process"] |= {"pid": sleeper.pid, "started": started}
        (tmp_path / "run.json").write_text(json.dumps(data))
        with pytest.raises(OutputFolderError, match=f"is writing into it .process {sleeper.pid}."):
            open_output(tmp_path, OWNER)
    finally:
        sleeper.kill()
    while Path(f"/proc/{sleeper.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        pass
    assert open_output(tmp_path, OWNER) is not None  # killed, and not even waited for
    sleeper.wait()


@pytest.mark.parametrize("size", [10, 20_000_000])
def test_a_file_is_known_by_its_bytes_where_its_time_was_lost(tmp_path: Path, size: int) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(size))
    entry = identity(path)
    assert entry is not None
    os.utime(path, ns=(1, 1))
    assert is_unchanged(path, entry)
    path.write_bytes(b"\1" + bytes(size - 1))
    assert not is_unchanged(path, entry)
    assert not is_unchanged(tmp_path, entry) and identity(tmp_path) is None


def test_a_record_that_is_open_claims_only_names_of_the_command(tmp_path: Path) -> None:
    record = start(tmp_path)
    record.begin(HERE)
    for name in ("log.txt", "log.txt.bak", "LOG.TXT"):
        (tmp_path / name).write_text("x")
    record.done()
    record.clear()
    assert files(tmp_path) == ["LOG.TXT", "log.txt.bak"]
