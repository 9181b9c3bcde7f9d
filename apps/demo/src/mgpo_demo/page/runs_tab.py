"""The second tab: the runs below a folder, their trajectories page by page, and how each went."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from mgpo_core.errors import MGPOError
from mgpo_core.runs.run_folder import RunFolder, RunFolderError
from mgpo_demo.page import views
from mgpo_demo.session.browse import FILTERS, OpenRuns, counts, find_runs, page

__all__ = ["add_runs_tab"]

_NO_ROOT = (
    "Start the demo with `--root FOLDER` to open what `mgpo-train` and `mgpo-eval` left below that folder: their "
    "trajectories with boxes and crops, filtered by right, wrong, refused and missed, and the curves of the training."
)
_ALL_PARTS = "all parts"
_POINTS = 75
"A curve of more steps is drawn as means over neighbouring ones: single steps are noisy."

_TO_THE_TOP = "() => document.querySelector('#run-filter').scrollIntoView()"


def add_runs_tab(root: Path | None) -> None:
    """Add the tab to the `gr.Tabs` that are being built; it reads what lies below `root`, and nothing else."""
    with gr.Tab("Runs", elem_id="runs-tab") as tab:
        if root is None:
            gr.Markdown(_NO_ROOT)
            return
        _Browser(root.resolve()).connect(tab)


_NOTHING = (gr.skip(), 1, "", *[gr.skip()] * 4)
"In place of what `_page` gives, where a run cannot be opened."


class _Browser:
    """The tab's components and events; what is open is in the components, nothing is kept of a visitor."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runs = OpenRuns(root)
        with gr.Row():
            self.run = gr.Dropdown([], label="Run", scale=3, min_width=260, elem_id="run-name")
            self.part = gr.Dropdown(
                [_ALL_PARTS], value=_ALL_PARTS, label="Part", scale=2, min_width=260, elem_id="run-part"
            )
        self.status = gr.HTML(elem_id="run-status")
        with gr.Row():
            self.rewards = _plot("Reward", "reward", "run-reward")
            self.rates = _plot("Hit rate, accuracy, valid boxes", "share", "run-rates", color="metric", y_lim=[0, 1])
        self.filter = gr.Radio(_words({}), value="all", label="Show", elem_id="run-filter")
        with gr.Row(elem_classes="pager"):
            self.back = gr.Button("Previous page", size="sm", min_width=110, elem_id="run-back")
            self.number = gr.Number(1, label="Page", precision=0, minimum=1, min_width=110, elem_id="run-page")
            self.on = gr.Button("Next page", size="sm", min_width=110, elem_id="run-next")
            self.refresh = gr.Button("Look for new runs", size="sm", min_width=150, elem_id="run-refresh")
        self.cards = gr.HTML(elem_id="run-cards")
        with gr.Row(elem_classes="pager"):
            self.back_below = gr.Button("Previous page", size="sm", min_width=110, elem_id="run-back-below")
            self.on_below = gr.Button("Next page", size="sm", min_width=110, elem_id="run-next-below")

    def connect(self, tab: Any) -> None:
        """Every event of the tab; none is an API."""
        chosen = [self.run, self.part, self.filter, self.number]
        buttons = [self.back, self.back_below, self.on, self.on_below]
        shown = [self.filter, self.number, self.cards, *buttons]
        rest = [self.part, self.status, self.rewards, self.rates]
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": 4}
        gr.on([tab.select, self.refresh.click], self._list, [self.run], [self.run, self.status], **quiet)
        self.run.change(self._open, [self.run], [*rest, *shown], **quiet)
        for event, turn in (
            (self.part.input, _first),
            (self.filter.input, _first),
            (self.number.submit, _same),
            (self.back.click, _before),
            (self.on.click, _after),
        ):
            event(self._turn(turn), chosen, [self.status, *shown], **quiet)
        for button, turn in ((self.back_below, _before), (self.on_below, _after)):
            turned = button.click(self._turn(turn), chosen, [self.status, *shown], **quiet)
            turned.then(None, js=_TO_THE_TOP, api_visibility="private")

    def _list(self, current: str | None) -> tuple[Any, str]:
        """The runs there are now; the one that is open stays, if it is still there."""
        found = find_runs(self.root)
        if not found:
            return gr.Dropdown([], value=None), views.note("No run lies below the folder yet.", "soft")
        return gr.Dropdown(found, value=current if current in found else found[0]), ""

    def _open(self, name: str | None) -> list[Any]:
        """The first page of a run, its parts, its curves and its problems."""
        try:
            run = self._run(name)
        except MGPOError as error:
            hidden = [gr.LinePlot(visible=False)] * 2
            return [gr.Dropdown([_ALL_PARTS], value=_ALL_PARTS), views.note(str(error), "bad"), *hidden, *_NOTHING]
        parts = gr.Dropdown([_ALL_PARTS, *run.parts], value=_ALL_PARTS)
        return [parts, _about(run), *_plots(run), *_page(run, None, "all", 1)]

    def _turn(self, turn: Callable[[int], int]) -> Callable[..., list[Any]]:
        def show(name: str | None, part: str, filter: str, number: float | None) -> list[Any]:
            try:
                run = self._run(name)
                only = None if part == _ALL_PARTS else part
                return [_about(run), *_page(run, only, filter, turn(int(number or 1)))]
            except MGPOError as error:
                return [views.note(str(error), "bad"), *_NOTHING]

        return show

    def _run(self, name: str | None) -> RunFolder:
        if not name:
            raise RunFolderError("choose a run first")
        return self.runs.open(name)


def _plot(title: str, unit: str, name: str, **options: Any) -> Any:
    return gr.LinePlot(
        x="step", y="value", y_title=unit, y_aggregate="mean", title=title, height=220, min_width=300, visible=False,
        elem_id=name, **options,
    )  # fmt: skip


def _first(number: int) -> int:
    return 1


def _same(number: int) -> int:
    return number


def _before(number: int) -> int:
    return number - 1


def _after(number: int) -> int:
    return number + 1


def _about(run: RunFolder) -> str:
    about = views.note(f"{run.kind.capitalize()}: {run.title}. {len(run.entries)} trajectories.", "soft")
    return about + views.problems(run.problems)


def _words(found: dict[str, int]) -> list[tuple[str, str]]:
    """(what the filter is called, its name), with how many pass it."""
    return [(f"{words} ({found[name]})" if found else words, name) for name, words in FILTERS.items()]


def _page(run: RunFolder, part: str | None, filter: str, number: int) -> list[Any]:
    """The filter with its counts, the number of the page, and its cards in a frame that keeps their style in."""
    text, _, pages = page(run, filter, number, part=part)
    number = min(max(1, number), pages)
    chosen = gr.Radio(_words(counts(run, part)), value=filter)
    turns = [gr.Button(interactive=possible) for possible in (number > 1,) * 2 + (number < pages,) * 2]
    return [
        chosen,
        gr.Number(number, label=f"Page of {pages}", maximum=pages),
        views.cards_frame(text, number, pages),
        *turns,
    ]


def _plots(run: RunFolder) -> list[Any]:
    import pandas

    plots = []
    steps = max((points[-1][0] for points in run.curves.values()), default=0)
    for names in (("reward",), ("hit_rate", "accuracy", "valid_box_rate")):
        rows = [
            {"step": step, "value": value, "metric": name.replace("_", " ")}
            for name in names
            for step, value in run.curves.get(name, ())
        ]
        width = -(-steps // _POINTS) if steps > _POINTS else None
        plots.append(gr.LinePlot(pandas.DataFrame(rows) if rows else None, visible=bool(rows), x_bin=width))
    return plots
