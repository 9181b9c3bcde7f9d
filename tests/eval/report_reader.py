"""Reports written from the fixture's folders, and read back: tables as texts, items with their flags and words."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from report_fixture import BAD_BOX, NO_BOX, Evaluation, ours, run_json, skipped

from mgpo_eval.report.page import write_results_report

FIRST, SECOND = "a" * 16, "b" * 16
VOID = {"meta", "img", "input", "rect", "circle", "wbr"}


class Page(HTMLParser):
    """A page's elements, its tables as rows of cell texts, and its items with the words on them."""

    def __init__(self, path: Path):
        super().__init__(convert_charrefs=True)
        self.source = path.read_text(encoding="utf-8")
        self.elements, self.tables, self.items, self.buttons, self._open = [], {}, [], {}, []
        self.words = ""
        self.feed(self.source)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.elements.append((tag, attrs))
        if tag == "table":
            self.rows = self.tables.setdefault(attrs["class"].split()[1], [])
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag in ("article", "section") and "data-right" in attrs:
            self.items.append(attrs | {"tag": tag, "words": "", "inside": "section" in self._open})
        elif tag == "button" and "data-filter" in attrs:
            self.buttons[attrs["data-filter"]] = ""
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] in ("script", "style"):
            return
        self.words += data
        if "td" in self._open or "th" in self._open:
            self.rows[-1][-1] += data if self._open[-1] in ("td", "th") else f" {data} "
        if "main" in self._open and self.items:
            self.items[-1]["words"] += f" {data}"
        if self._open[-1:] == ["b"] and "button" in self._open:
            self.buttons[list(self.buttons)[-1]] = int(data)

    def table(self, kind):
        return [[" ".join(cell.split()) for cell in row] for row in self.tables[kind]]

    @property
    def shown(self):
        """The items that filters hide and show: rows of cards where there are several runs, else cards."""
        return [item for item in self.items if not item["inside"]]

    def all(self, tag, **wanted):
        return [a for t, a in self.elements if t == tag and all(a.get(name) == value for name, value in wanted.items())]


def report(folders, tmp_path, **options) -> Page:
    folders = folders if isinstance(folders, list) else [folders]
    return Page(write_results_report(folders, tmp_path / "page.html", **options))


def one_task(folder, samples, *, run_id=FIRST, task="mgpo_haystack", **fields) -> Path:
    settings = {"provenance": run_json(run_id)} | fields
    return Evaluation(folder, {task: samples}, **settings).write()


def mixed(run_id=FIRST, n=12, wrong=(1, 4, 6), **generate):
    """Right and wrong ones; of the boxes some refused, some without, some beside the point."""
    boxes = {2: {"box": BAD_BOX}, 4: {"box": NO_BOX}, 5: {"hit": False}, 6: {"hit": False}}
    return [
        ours(i, i not in wrong, category=("colour", "count")[i % 2], run_id=run_id, **boxes.get(i, {}), **generate)
        for i in range(n)
    ]


def page_of_one_run(folder: Path) -> Page:
    """One run of one task of ours: 12 samples and a skipped one."""
    return report(one_task(folder, [*mixed(), skipped(12, "image 0 is truncated", FIRST)]), folder)


def page_of_two_runs(folder: Path) -> Page:
    """Two runs of 12 samples that differ in 1, 3 and 6."""
    a = one_task(folder / "a", mixed(), provenance=run_json(FIRST, mode="single_turn"))
    b = one_task(folder / "b", mixed(SECOND, wrong=(3, 4)), run_id=SECOND)
    return report([a, b], folder)
