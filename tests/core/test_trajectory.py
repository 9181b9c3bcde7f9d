"""Trajectories: metrics by hand-worked cases, intervals by their definition, saving by round trip."""

import json
import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mgpo_core.boxes.parse import Box, CoordinateSpace
from mgpo_core.episodes.intervals import mean_interval, wilson_interval
from mgpo_core.episodes.metrics import aggregate
from mgpo_core.episodes.trajectory import METRICS, Tokens, Trajectory, Turn
from mgpo_core.errors import SampleError, TokenAlignmentError
from mgpo_core.files.output_folder import OutputFolderError
from mgpo_core.images.budget import PixelBudget

TRUE = Box(40, 40, 60, 60)


def looked(box=None, *, reason=None, last="\\boxed{B}", **fields):
    """A finished two-turn trajectory on a 100x200 original; `box` in original pixels."""
    first = Turn("a", box=box and Box(1, 2, 3, 4), box_original=box, rejection=reason)
    fields = {"ground_truth": "B", "true_boxes": (TRUE,), "original_sizes": ((100, 200),)} | fields
    return Trajectory(turns=[first, Turn(last)], **fields)


def test_a_hit_contains_the_centre_of_the_true_box():
    metrics = looked(Box(30, 30, 50, 50)).metrics()
    assert metrics == {
        "accuracy": 1.0,
        "valid_box_rate": 1.0,
        "hit_rate": 1.0,
        "mean_iou": pytest.approx(100 / (400 + 400 - 100)),
        "crop_area_fraction": pytest.approx(400 / 20_000),
        "answered_rate": 1.0,
    }
    assert tuple(metrics) == tuple(name for name in METRICS if name != "image_accuracy")


def test_a_box_beside_the_centre_overlaps_without_a_hit():
    metrics = looked(Box(30, 30, 49, 50)).metrics()
    assert metrics["hit_rate"] == 0.0
    assert metrics["mean_iou"] > 0


def test_a_refused_box_counts_as_no_hit_and_no_overlap():
    assert looked(None, reason="reversed", last="none").metrics() == {
        "accuracy": 0.0,
        "valid_box_rate": 0.0,
        "hit_rate": 0.0,
        "mean_iou": 0.0,
        "answered_rate": 0.0,
    }


def test_without_true_boxes_or_an_answer_there_is_nothing_to_measure():
    assert set(looked(Box(0, 0, 9, 9), true_boxes=()).metrics()) == {
        "accuracy",
        "valid_box_rate",
        "crop_area_fraction",
        "answered_rate",
    }
    assert "accuracy" not in looked(Box(0, 0, 9, 9), ground_truth=None).metrics()
    assert Trajectory(turns=[Turn("\\boxed{B}")], ground_truth="B", true_boxes=(TRUE,)).metrics() == {
        "accuracy": 1.0,
        "answered_rate": 1.0,
    }


def test_a_box_on_the_wrong_image_hits_nothing():
    wrong = looked(Box(30, 30, 70, 70, image=1), original_sizes=((100, 200), (100, 200)))
    assert (wrong.metrics()["hit_rate"], wrong.metrics()["mean_iou"]) == (0.0, 0.0)


def test_any_of_several_true_boxes_counts():
    two = looked(Box(0, 0, 10, 10), true_boxes=(TRUE, Box(0, 0, 10, 10)))
    assert (two.metrics()["hit_rate"], two.metrics()["mean_iou"]) == (1.0, 1.0)


def test_the_answer_is_the_last_responses():
    early = looked(Box(0, 0, 9, 9), last="I do not know")
    early.turns[0].text = "\\boxed{B}"
    assert early.answer is None
    assert early.correct is False
    assert looked(Box(0, 0, 9, 9), last="\\boxed{A} no, \\boxed{B}").answer == "B"


def test_a_live_episode_has_no_answer_yet():
    assert Trajectory(turns=[Turn("\\boxed{B}")], ground_truth="B", done=False).answer is None


def test_a_refused_box_is_placed_on_the_original_for_drawing():
    turn = Turn("a", box=Box(10, 20, 5, 30), rejection="reversed")
    drawn = Trajectory(turns=[turn], input_sizes=((50, 100),), original_sizes=((100, 200),))
    assert drawn.turn_box(turn) == Box(20, 40, 10, 60)
    thousandths = Trajectory(
        turns=[turn], input_sizes=((50, 100),), original_sizes=((100, 200),), space=CoordinateSpace.RELATIVE_1000
    )
    assert thousandths.turn_box(turn) == Box(1, 4, 0.5, 6)
    assert drawn.turn_box(Turn("a", box=Box(1, 2, 3, 4, image=7), rejection="outside")) is None


def test_aggregate_averages_over_those_for_which_a_metric_is_defined():
    summary = aggregate(
        [
            looked(Box(30, 30, 70, 70)),
            looked(None, reason="reversed", last="\\boxed{A}"),
            looked(None, reason="no_json"),
            looked(Box(0, 0, 10, 10), true_boxes=(), ground_truth=None),
        ]
    )
    assert summary["n"] == 4
    assert summary["accuracy"] == pytest.approx(2 / 3)
    assert summary["valid_box_rate"] == 0.5
    assert summary["hit_rate"] == pytest.approx(1 / 3)
    assert summary["crop_area_fraction"] == pytest.approx((1600 + 100) / 2 / 20_000)
    assert summary["counts"]["accuracy"] == 3
    assert summary["counts"]["crop_area_fraction"] == 2
    assert summary["rejections"] == {"no_json": 1, "reversed": 1}
    assert summary["intervals"]["accuracy"] == list(wilson_interval(2, 3))
    json.dumps(summary, allow_nan=False)


def test_aggregate_of_nothing_is_empty_but_counts():
    assert aggregate([]) == {"n": 0, "counts": {}, "intervals": {}, "rejections": {}}


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_bounds_are_the_shares_that_the_score_test_just_accepts(k_of_n):
    k, n = k_of_n
    low, high = wilson_interval(k, n)
    assert 0 <= low <= k / n <= high <= 1
    z = statistics.NormalDist().inv_cdf(0.975)
    for bound in (low, high):
        if 0 < bound < 1:
            assert abs(k / n - bound) == pytest.approx(z * math.sqrt(bound * (1 - bound) / n), abs=1e-9)


def test_wilson_of_no_trials_says_nothing_and_of_impossible_ones_raises():
    assert wilson_interval(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="5 successes in 4"):
        wilson_interval(5, 4)


def test_mean_interval_is_two_standard_errors():
    values = [0.1, 0.4, 0.35, 0.9]
    low, high = mean_interval(values)
    z = statistics.NormalDist().inv_cdf(0.975)
    assert (low + high) / 2 == pytest.approx(statistics.mean(values))
    assert (high - low) / 2 == pytest.approx(z * statistics.stdev(values) / 2)
    with pytest.raises(ValueError, match="at least two"):
        mean_interval([0.5])


def test_tokens_of_different_lengths_are_refused():
    with pytest.raises(TokenAlignmentError, match="3 token ids but 2 mask"):
        Tokens(ids=[1, 2, 3], mask=[0, 1])
    with pytest.raises(TokenAlignmentError, match="logprobs"):
        Tokens(ids=[1], mask=[0], logprobs=[])


texts = st.text(max_size=20)
finite = st.floats(allow_nan=False, allow_infinity=False)
boxes = st.builds(Box, finite, finite, finite, finite, st.integers(0, 3))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
images = st.builds(
    lambda w, h, seed: Image.fromarray(np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 99),
)
turns = st.builds(
    Turn,
    text=texts,
    finish_reason=st.sampled_from(["stop", "length", "cut"]),
    box=st.none() | boxes,
    box_original=st.none() | boxes,
    rejection=st.none() | st.sampled_from(["no_json", "outside"]),
    label=st.none() | texts,
    seconds=finite,
    tokens=st.integers(0, 9999),
    shown_size=st.none() | st.tuples(st.integers(1, 99), st.integers(1, 99)),
)


@st.composite
def tokens(draw):
    n = draw(st.integers(0, 6))

    def rows(values):
        return st.lists(values, min_size=n, max_size=n)

    return Tokens(
        ids=draw(rows(st.integers(0, 2**20))),
        mask=draw(rows(st.integers(0, 1))),
        logprobs=draw(st.none() | rows(finite)),
        texts=draw(st.none() | rows(texts)),
        spans=draw(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=2)),
        prompt_length=draw(st.integers(0, 9)),
    )


@st.composite
def trajectories(draw):
    shown = draw(st.lists(images, min_size=1, max_size=3))
    parts = st.builds(lambda text: {"type": "text", "text": text}, texts) | st.builds(
        lambda image: {"type": "image", "image": image}, st.sampled_from(shown)
    )
    messages = st.builds(
        lambda role, content: {"role": role, "content": content},
        st.sampled_from(["system", "user", "assistant"]),
        st.lists(parts, max_size=3),
    )
    originals = draw(st.lists(images, max_size=2))
    return Trajectory(
        sample_id=draw(texts),
        question=draw(texts),
        choices=tuple(draw(st.lists(texts, max_size=3))),
        ground_truth=draw(st.none() | texts),
        sources=tuple(originals),
        true_boxes=tuple(draw(st.lists(boxes, max_size=2))),
        messages=draw(st.lists(messages, max_size=4)),
        turns=draw(st.lists(turns, max_size=3)),
        tokens=draw(st.none() | tokens()),
        template=draw(st.sampled_from(["two_turn", "single_turn"])),
        space=draw(st.sampled_from(CoordinateSpace)),
        budget=draw(st.none() | st.just(PixelBudget(56 * 56, 168 * 168))),
        original_sizes=tuple(image.size for image in originals),
        input_sizes=tuple(image.size for image in originals),
        reward=draw(st.none() | finite),
        metadata=draw(st.dictionaries(texts, json_values, max_size=3)),
        done=draw(st.booleans()),
    )


def pixels(images):
    return [(image.size, image.mode, image.tobytes()) for image in images]


def test_files_of_older_versions_are_read():
    data = looked(Box(0, 0, 9, 9), metadata={"truth": 1}).to_dict()
    old = {("truth" if name == "ground_truth" else name): value for name, value in data.items()}
    image = {name: Image.new("RGB", (4, 4)) for name in data["originals"]}
    assert Trajectory.from_dict(old, image).to_dict() == data and data["ground_truth"] == "B"


def test_the_old_name_of_the_ground_truth_is_read_with_a_warning():
    with pytest.warns(FutureWarning, match="read trajectory.ground_truth"):
        assert looked(Box(0, 0, 9, 9)).truth == "B"


@settings(max_examples=60, deadline=None)
@given(trajectories())
def test_saving_and_loading_gives_the_same_trajectory_back(tmp_path_factory, trajectory):
    folder = trajectory.save(tmp_path_factory.mktemp("trajectory") / "new" / "folder")
    loaded = Trajectory.load(folder)
    assert pixels(loaded.originals) == pixels(trajectory.originals)
    assert pixels(loaded.named_images().values()) == pixels(trajectory.named_images().values())
    assert loaded.to_dict() == trajectory.to_dict()
    for name in ("choices", "true_boxes", "turns", "tokens", "space", "budget", "original_sizes", "metadata"):
        assert getattr(loaded, name) == getattr(trajectory, name), name
    for before, after in zip(trajectory.messages, loaded.messages, strict=True):
        assert before["role"] == after["role"]
        for a, b in zip(before["content"], after["content"], strict=True):
            assert a["type"] == b["type"]
            assert (a == b) if a["type"] == "text" else pixels([a["image"]]) == pixels([b["image"]])


def saved(tmp_path, **fields):
    image = Image.new("RGB", (8, 8), "red")
    message = {"role": "user", "content": [{"type": "image", "image": image}, {"type": "image", "image": image}]}
    return Trajectory(sample_id="s1", sources=(image,), messages=[message], **fields).save(tmp_path / "saved")


def test_an_image_shown_twice_is_saved_once_and_loaded_as_one(tmp_path):
    folder = saved(tmp_path)
    assert sorted(path.name for path in folder.glob("*.png")) == ["original-0.png", "shown-0.png"]
    first, second = Trajectory.load(folder).messages[0]["content"]
    assert first["image"] is second["image"]


@pytest.mark.parametrize("name", ["original-0.png", "shown-0.png"])
def test_a_missing_image_is_named(tmp_path, name):
    folder = saved(tmp_path)
    (folder / name).unlink()
    with pytest.raises(SampleError, match=name):
        Trajectory.load(folder)


def test_metadata_that_is_no_json_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(SampleError, match=r"'s1' cannot be saved.*metadata"):
        saved(tmp_path, metadata={"model": object()})
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("name", ["trajectory.json", "original-0.png", "shown-0.png"])
def test_a_folder_with_somebody_s_file_of_that_name_is_refused(tmp_path, name):
    image = Image.new("RGB", (8, 8))
    message = {"role": "user", "content": [{"type": "image", "image": image}]}
    trajectory = Trajectory(sources=(image,), messages=[message], original_sizes=((8, 8),))
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputFolderError, match=f"no Trajectory.save wrote .{name}"):
        trajectory.save(tmp_path)
    assert (tmp_path / name).read_text() == "mine" and len(list(tmp_path.iterdir())) == 1
    (tmp_path / name).unlink()
    trajectory.save(trajectory.save(tmp_path))  # in place of its own


def test_an_unknown_format_is_refused(tmp_path):
    data = Trajectory().to_dict() | {"format": 99}
    with pytest.raises(SampleError, match="99"):
        Trajectory.from_dict(data, {})
