"""The model that lmms-eval calls: what it returns, what it keeps, what it goes on from and what it refuses."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from oracle import CONFIG, Oracle
from requests_fixture import TAGS, generate, haystack_table, table

from mgpo_core import haystack
from mgpo_core.episodes.trajectory import Trajectory
from mgpo_core.errors import EngineError, ImageError, SampleError
from mgpo_core.runs.response_payload import decode_payload
from mgpo_eval.models import MGPO, MGPOOpenAI
from mgpo_eval.models.options import OptionError
from mgpo_eval.tasks import scoring

pytestmark = pytest.mark.slow


class Counting(Oracle):
    """An oracle that counts what it runs, and may die after some samples."""

    def __init__(self, dies_after: int | None = None) -> None:
        super().__init__({sample.question: sample.choices["ABCD".index(sample.answer)] for sample in SAMPLES})
        self.played = 0
        self.batches: list[int] = []
        self.dies_after = dies_after

    def run(self, episodes: Any) -> list[Trajectory]:
        self.batches.append(len(episodes))
        for episode in episodes:
            if self.played == self.dies_after:
                raise KeyboardInterrupt
            super().run([episode])
            self.played += 1
        return [episode.trajectory for episode in episodes]


SAMPLES = haystack.make("val", 12, 7)


class Kept(MGPO):
    """A model that runs on an oracle but keeps a journal, as one with weights of its own does."""

    def __init__(self, oracle: Counting, pretrained: str = "haystack:mgpo", **options: Any) -> None:
        super().__init__(pretrained=pretrained, **options)
        self._engine = oracle


def trajectories(texts: list[str]) -> list[Trajectory]:
    found = [decode_payload(text).trajectory() for text in texts]
    assert all(trajectory is not None for trajectory in found)
    return found  # type: ignore[return-value]


def seen(texts: list[str]) -> list[Any]:
    return [
        (decode_payload(text).answer, [turn.text for turn in trajectory.turns])
        for text, trajectory in zip(texts, trajectories(texts), strict=True)
    ]


def test_batches_of_one_and_of_many_answer_alike_and_a_single_turn_gives_no_box() -> None:
    rows = haystack_table(12)
    alone = generate(MGPO(pretrained="haystack:mgpo", batch_size="1"), rows)
    together = generate(MGPO(pretrained="haystack:mgpo", batch_size=16.0), rows, padding=2)
    assert together[12:] == ["", ""]
    assert seen(alone) == seen(together[:12])
    single = trajectories(generate(MGPO(pretrained="haystack:mgpo", batch_size="auto", mode="single_turn"), rows))
    assert all(len(trajectory.turns) == 1 and trajectory.box_turn is None for trajectory in single)
    assert {trajectory.template for trajectory in single} == {"single_turn"}
    assert {trajectory.budget for trajectory in single} == {haystack.BUDGET}


def test_a_single_turn_is_near_chance_where_two_turns_mostly_know() -> None:
    samples = haystack.make("val", 100, 7)

    def share_right(mode: str) -> float:
        texts = generate(MGPO(pretrained="haystack:mgpo", batch_size="auto", mode=mode), haystack_table(100))
        return sum(decode_payload(text).answer == s.answer for text, s in zip(texts, samples, strict=True)) / 100

    assert share_right("single_turn") < 0.4 < 0.75 < share_right("two_turn")


def test_what_was_finished_is_not_played_again_whatever_stopped_it(tmp_path: Path) -> None:
    rows = haystack_table(12)
    dying = Kept(Counting(dies_after=5))
    with pytest.raises(KeyboardInterrupt):
        generate(dying, rows, tmp_path)
    going_on = Counting()
    texts = generate(Kept(going_on), rows, tmp_path)
    assert going_on.played == 7
    assert seen(texts) == seen(generate(Kept(Counting()), rows))
    again = Counting()
    assert generate(Kept(again), rows, tmp_path) == texts
    assert again.played == 0


@pytest.mark.parametrize(
    "change",
    [
        {"mode": "single_turn"},
        {"max_pixels": 20_000},
        {"max_new_tokens": 32},
        {"coordinate_space": "0-1000"},
        {"seed": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_settings_use_nothing_of_an_earlier_run(change: dict[str, Any], tmp_path: Path) -> None:
    rows = haystack_table(3)
    generate(Kept(Counting()), rows, tmp_path)
    other = Counting()
    generate(Kept(other, **change), rows, tmp_path)
    assert other.played == 3


def test_other_weights_or_data_use_nothing_of_an_earlier_run(tmp_path: Path) -> None:
    folder = shutil.copytree(haystack.checkpoint("mgpo"), tmp_path / "model")
    generate(Kept(Counting(), str(folder)), haystack_table(3), tmp_path)
    same = Counting()
    generate(Kept(same, str(folder)), haystack_table(3), tmp_path)
    assert same.played == 0
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    trained_on = Counting()
    generate(Kept(trained_on, str(folder)), haystack_table(3), tmp_path)
    assert trained_on.played == 3
    other_rows = Counting()
    other_rows.answers |= {
        sample.question: sample.choices["ABCD".index(sample.answer)] for sample in haystack.make("ood", 3, 7)
    }
    generate(Kept(other_rows, str(folder)), haystack_table(3, split="ood"), tmp_path)
    assert other_rows.played == 3


def test_a_line_that_was_cut_short_is_played_again(tmp_path: Path) -> None:
    rows = haystack_table(4)
    texts = generate(Kept(Counting()), rows, tmp_path)
    [journal] = tmp_path.glob("mgpo/*/rank0.jsonl")
    journal.write_bytes(journal.read_bytes()[:-40])
    again = Counting()
    assert generate(Kept(again), rows, tmp_path) == texts
    assert again.played == 1
    lines = journal.read_text().splitlines()
    assert [json.loads(line)["key"].split("/")[1] for line in (*lines[:3], lines[-1])] == ["0", "1", "2", "3"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "mgpo").write_text("in the way")
    with pytest.raises(EngineError, match=f"cannot be written to {tmp_path}.*free space or choose another"):
        generate(Kept(Counting()), haystack_table(2), tmp_path)


def test_images_are_kept_small_for_as_many_samples_as_asked(tmp_path: Path) -> None:
    texts = generate(Kept(Counting(), keep_images=2), haystack_table(3), tmp_path)
    kept = [decode_payload(text).record["images"] for text in texts]
    assert [len(images) for images in kept] == [3, 3, 0]
    for name in kept[0].values():
        with Image.open(tmp_path / name) as image:
            assert max(image.size) <= 640
    first = decode_payload(texts[0]).trajectory(tmp_path)
    assert first.originals[0].size == (640, 640) and first.original_sizes == ((1344, 1344),)


def test_an_image_of_100_megapixels_is_looked_at_without_harm(tmp_path: Path) -> None:
    import resource

    Image.new("RGB", (12_500, 8_000), (90, 140, 60)).save(tmp_path / "huge.jpg", quality=30)
    prompt = "Which stripes are on the red circle?\n(A) horizontal\n(B) vertical"
    rows = table([{"prompt": prompt, "images": [str(tmp_path / "huge.jpg")]} for _ in range(6)])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    engine = Counting()
    engine.answers["Which stripes are on the red circle?"] = "horizontal"
    texts = generate(MGPO(engine=engine, config=CONFIG, pretrained="o", batch_size="auto", keep_images=0), rows)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    assert [decode_payload(text).answer for text in texts] == ["A"] * 6
    assert trajectories(texts)[0].original_sizes == ((12_500, 8_000),)
    assert engine.batches == [4, 2]  # 400 megapixels at a time, however many would be allowed by number
    assert grown < 3.0, f"{grown:.1f} GiB"


def test_batches_are_packed_by_tokens() -> None:
    sizes = [(28 * 4, 28 * 4)] * 4 + [(28 * 40, 28 * 32)] * 3
    prompt = "Is it?\n(A) yes\n(B) no"
    rows = table([{"prompt": prompt, "size": size} for size in sizes])
    engine = Counting()
    engine.answers["Is it?"] = "no"
    options = {"min_pixels": 784, "max_pixels": 1_003_520, "batch_size": "auto", "batch_tokens": 6_000}
    generate(MGPO(engine=engine, config=CONFIG, pretrained="o", **options), rows)
    # twice 16 or 1,280 tokens of images a conversation, and its text: two of the large ones fit, five do not
    assert engine.batches == [4, 2, 1]


def test_an_image_that_is_gone_stops_the_run_by_name_or_counts_as_wrong(tmp_path: Path) -> None:
    prompt = "Which?\n(A) this\n(B) that"
    Image.new("RGB", (300, 300)).save(tmp_path / "there.png")
    rows = table([{"prompt": prompt, "images": [str(tmp_path / f"{name}.png")]} for name in ("gone", "there")])
    engine = Counting()
    engine.answers["Which?"] = "that"
    given: dict[str, Any] = {"engine": engine, "config": CONFIG, "pretrained": "o"}
    with pytest.raises(ImageError, match=r"image 1 of t/0.*gone\.png.*does not exist"):
        generate(MGPO(**given), rows)
    texts = generate(MGPO(**given, on_bad_sample="skip"), rows)
    assert [decode_payload(text).answer for text in texts] == ["Z", "B"]
    assert "does not exist" in str(decode_payload(texts[0]).skipped)


def test_video_is_refused() -> None:
    with pytest.raises(SampleError, match="t/0 has video; this model takes images"):
        generate(MGPO(engine=Counting(), config=CONFIG, pretrained="o"), table([{"prompt": "?", "films": ["a.mp4"]}]))


def test_open_questions_are_answered_as_they_were_boxed() -> None:
    class Speaker(Oracle):
        def _answer(self, episode: Any) -> str:
            return r"It says \boxed{No Entry}." if "first" in episode.sample.question else "  a plain word "

    prompts = ["Read the first sign.", "Read the other sign. Answer the question using a single word or phrase."]
    rows = table([{"prompt": prompt, "size": (300, 300)} for prompt in prompts])
    texts = generate(MGPO(engine=Speaker({}), config=CONFIG, pretrained="o"), rows)
    assert [decode_payload(text).answer for text in texts] == ["No Entry", "a plain word"]
    assert trajectories(texts)[1].question == "Read the other sign."


@pytest.mark.parametrize(
    ("tags", "scorer", "bare"),
    [
        (TAGS, None, False),  # lmms-eval takes the trajectory off
        (None, None, True),  # called from Python without the command line's option
        ("none", None, True),
        ("none", scoring.score, False),  # our own tasks open it
    ],
)
def test_a_trajectory_stands_behind_the_answer_only_where_it_is_taken_off(tags: Any, scorer: Any, bare: bool) -> None:
    rows = haystack_table(1)
    [text] = generate(MGPO(engine=Counting(), config=CONFIG, pretrained="o"), rows, tags=tags, scorer=scorer)
    assert (text in "ABCD") is bare
    assert decode_payload(text).answer in "ABCD"


def test_a_server_that_is_down_is_named() -> None:
    model = MGPOOpenAI(pretrained="haystack:mgpo", url="http://127.0.0.1:9/v1", retries=0)
    with pytest.raises(EngineError, match=r"127\.0\.0\.1:9"):
        generate(model, haystack_table(1))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "pretrained is missing"),
        ({"pretrained": "haystack:mgpo", "max_pixel": 3}, "no option 'max_pixel': did you mean 'max_pixels'"),
        ({"pretrained": "haystack:mgpo", "mode": "three_turn"}, "known are single_turn, two_turn"),
        ({"pretrained": "haystack:mgpo", "max_pixels": 1.5}, "max_pixels=1.5: give an int"),
        ({"pretrained": "haystack:mgpo", "max_pixels": 100}, "set min_pixels and max_pixels both"),
        ({"pretrained": "haystack:mgpo", "temperature": -1}, "temperature=-1"),
        ({"pretrained": "haystack:mgpo", "batch_size": "many"}, "batch_size='many'"),
        ({"pretrained": "haystack:mgpo", "url": "x"}, "mgpo has no option 'url'"),
        ({"pretrained": "haystack:mgpo", "strict_boxes": 3}, "strict_boxes=3: give true or false"),
    ],
)
def test_options_that_cannot_be_are_refused_with_the_remedy(given: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        MGPO(**given)


def test_pixels_written_as_floating_point_numbers_are_numbers() -> None:
    model = MGPO(pretrained="haystack:mgpo", min_pixels=3136.0, max_pixels=2e4)
    assert (model.settings.budget.min_pixels, model.settings.budget.max_pixels) == (3136, 20_000)


def test_a_server_without_a_checkpoint_has_to_be_described() -> None:
    with pytest.raises(OptionError, match="patch_factor"):
        MGPOOpenAI(url="http://127.0.0.1:9")
    model = MGPOOpenAI(url="http://127.0.0.1:9", patch_factor=32, coordinate_space="0-1000")
    assert model.settings.budget.factor == 32
    with pytest.raises(OptionError, match="needs url"):
        MGPOOpenAI(pretrained="haystack:mgpo")


def test_only_generation_is_possible() -> None:
    model = MGPO(pretrained="haystack:mgpo")
    for ask in (model.loglikelihood, model.generate_until_multi_round):
        with pytest.raises(NotImplementedError, match="generate_until"):
            ask([])
