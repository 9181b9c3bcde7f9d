"""What is drawn, and that the report page is self-contained, safe and says true sizes."""

import base64
import hashlib
import html
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hostile_text import HOSTILE, assert_shown_as_text, poisoned
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops

from mgpo_core.boxes.parse import Box
from mgpo_core.episodes.episode import Episode
from mgpo_core.episodes.trajectory import Tokens, Trajectory, Turn
from mgpo_core.images.budget import PixelBudget
from mgpo_core.images.encode import small_image
from mgpo_core.render import draw_boxes, report_style, trajectory_html, write_report
from mgpo_core.render import page as page_module
from mgpo_core.render.card import Card, card_view
from mgpo_core.render.page import Row, frame_html, write_gallery
from mgpo_core.samples.sample import Sample
from mgpo_core.templates.base import message_images
from mgpo_core.templates.single_image import SingleTurn

BUDGET = PixelBudget(min_pixels=28 * 28 * 4, max_pixels=168 * 168)
VOID = {"meta", "img", "input", "rect", "circle", "br", "link"}


class Page(HTMLParser):
    """Every element of a page, and whether the elements are closed in the order in which they were opened."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.texts, self._open, self.balanced = [], [], [], True
        self.feed(text)
        self.close()
        self.balanced = self.balanced and not self._open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        self.balanced = self.balanced and bool(self._open) and self._open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self._open[-1] if self._open else "", data))

    def all(self, tag, **wanted):
        named = {name.rstrip("_"): value for name, value in wanted.items()}
        return [a for t, a in self.elements if t == tag and all(a.get(n) == v for n, v in named.items())]


def box_text(*numbers):
    return f'```json\n[\n    {{"bbox_2d": {list(numbers)}, "label": "key image area"}}\n]\n```'


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


LOOK = box_text(10, 20, 52, 97)


def played(first=LOOK, last="\\boxed{B}", *, image=None, **fields):
    image = Image.radial_gradient("L").convert("RGB").resize((1344, 1344)) if image is None else image
    fields = {"choices": ("left", "right"), "answer": "B", "boxes": (Box(200, 400, 260, 460),), "id": "s1"} | fields
    episode = Episode(Sample.of("Which side?", image, **fields), budget=BUDGET)
    episode.observe(first, tokens=30, seconds=0.25)
    episode.observe(last, tokens=5)
    return episode.trajectory


def decoded(uri):
    head, data = uri.split(",", 1)
    assert head in ("data:image/jpeg;base64", "data:image/png;base64")
    return Image.open(io.BytesIO(base64.b64decode(data)))


def report(tmp_path, trajectories, **options):
    return write_report(tmp_path / "report.html", trajectories, "A run", **options).read_text(encoding="utf-8")


def test_a_box_is_drawn_on_its_border_and_the_image_stays_as_it_was():
    image = Image.new("RGB", (60, 50), "white")
    drawn = draw_boxes(image, [Box(10, 20, 40, 45)], colors=["#ff0000"])
    assert ImageChops.difference(drawn, image).getbbox() == (10, 20, 40, 45)
    assert drawn.getpixel((10, 20)) == drawn.getpixel((39, 44)) == (255, 0, 0)
    assert drawn.getpixel((25, 32)) == (255, 255, 255)
    assert image.getbbox() == (0, 0, 60, 50)
    assert image.getcolors() == [(3000, (255, 255, 255))]


def test_a_label_is_written_inside_the_image():
    image = Image.new("RGB", (200, 200), "white")
    plain = draw_boxes(image, [Box(150, 0, 199, 30)], colors=["black"])
    labelled = draw_boxes(image, [Box(150, 0, 199, 30)], labels=["key image area"], colors=["black"])
    left, *_ = ImageChops.difference(plain, labelled).getbbox()
    assert 0 <= left < 150


def test_boxes_get_different_colours_by_themselves():
    drawn = draw_boxes(Image.new("RGB", (60, 50), "white"), [Box(1, 1, 20, 20), Box(30, 1, 50, 20)])
    assert drawn.getpixel((1, 1)) != drawn.getpixel((30, 1))


numbers = st.floats(-1e12, 1e12) | st.integers(-10, 70)


@settings(max_examples=50, deadline=None)
@given(st.builds(Box, numbers, numbers, numbers, numbers), st.sampled_from(["", "x", "日本\n€"]))
def test_any_finite_box_can_be_drawn(box, label):
    assert draw_boxes(Image.new("L", (60, 50)), [box], labels=[label]).size == (60, 50)


def test_a_box_that_is_nowhere_cannot_be_drawn():
    with pytest.raises(ValueError, match="finite"):
        draw_boxes(Image.new("RGB", (60, 50)), [Box(0, 0, float("nan"), 9)])


def test_the_page_refers_to_nothing_outside_itself(tmp_path):
    text = report(tmp_path, [played(), played("none"), played(box_text(9, 9, 1, 1))])
    page = Page(text)
    assert page.balanced
    loading = ("src", "href", "xlink:href", "srcset", "action", "formaction", "poster", "data", "background")
    references = [attrs[name] for _, attrs in page.elements for name in loading if name in attrs]
    assert references
    assert all(reference.startswith("data:image/") for reference in references)
    assert not page.all("link")
    assert not page.all("iframe")
    assert not page.all("base")
    without_images = re.sub(r"data:image/(jpeg|png);base64,[\w+/=]+", "", text)
    assert not re.search(r"https?:|//\w|url\(|@import|fetch\(|XMLHttp", without_images)


def test_the_page_allows_its_own_script_only(tmp_path):
    text = report(tmp_path, [played()])
    [policy] = [a["content"] for a in Page(text).all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    [script] = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.split("script-src")[1]


def test_hostile_text_stays_text(tmp_path):
    trajectory = played(HOSTILE, HOSTILE + "\\boxed{" + HOSTILE + "}", choices=(), answer=HOSTILE, id=HOSTILE)
    trajectory.question = trajectory.template = HOSTILE
    trajectory.choices = (HOSTILE, HOSTILE)
    trajectory.turns[0].rejection = trajectory.turns[1].finish_reason = HOSTILE
    trajectory.tokens = Tokens(ids=[1, 2], mask=[0, 1], texts=[HOSTILE, HOSTILE], spans=[(1, 2)])
    path = write_report(tmp_path / "r.html", [trajectory], HOSTILE)
    page = Page(path.read_text(encoding="utf-8"))
    assert page.balanced
    assert len(page.all("script")) == 1
    assert all(image["src"].startswith("data:") for image in page.all("img"))
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]
    assert page.texts.count(("h2", HOSTILE)) == 1
    assert HOSTILE in [text for tag, text in page.texts if tag == "pre"]


def test_hostile_text_in_any_field_of_a_card_stays_text():
    trajectory = played("no box")
    trajectory.tokens = Tokens(ids=[1, 2], mask=[0, 1], texts=["a\n", "b"], spans=[(1, 2)], logprobs=[0.0, -3.0])
    for one in (Card(trajectory, True, hit=True, run="A"), card(False)):
        assert_shown_as_text(frame_html([poisoned(card_view(one), {"kind"})]))
    assert_shown_as_text(frame_html([HOSTILE]))


def test_hostile_text_in_any_field_of_a_page_stays_text(tmp_path, monkeypatch):
    for name in ("_summary", "_bar", "_row_view"):
        made = getattr(page_module, name)
        monkeypatch.setattr(page_module, name, lambda *args, made=made: poisoned(made(*args), {"kind"}))
    write_report(tmp_path / "page.html", [played("no box")], HOSTILE)
    assert_shown_as_text((tmp_path / "page.html").read_text(encoding="utf-8"), scripts=1)
    rows = [Row((card(True, "A"),), "task/1", (("A", True),))]
    assert_shown_as_text(gallery(tmp_path, rows, runs={HOSTILE: HOSTILE}), scripts=1)


def test_a_page_is_written_card_by_card(tmp_path, monkeypatch):
    sizes = []

    def view(*args, **options):
        sizes.append(sum(file.stat().st_size for file in tmp_path.iterdir()))
        return card_view(*args, **options)

    monkeypatch.setattr(page_module, "card_view", view)
    write_gallery(tmp_path / "page.html", [card(True, image=noise(400, 400, seed)) for seed in range(3)], "Three")
    assert sizes[0] < sizes[1] < sizes[2]


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_is_shown_as_it_is(question, answer):
    trajectory = Trajectory(question=question, turns=[Turn(answer)])
    trajectory.messages = [{"role": "assistant", "content": [{"type": "text", "text": answer}]}]
    page = Page(trajectory_html(trajectory))
    assert page.balanced

    def seen(text):
        return "".join(c if c in "\t\n\r" or c.isprintable() or ord(c) > 0x9F else "\ufffd" for c in text)

    assert "".join(text for tag, text in page.texts if tag == "h2") == seen(question)
    assert "".join(text for tag, text in page.texts if tag == "pre") == seen(answer)


def test_lone_surrogates_and_control_characters_do_not_break_the_file(tmp_path):
    trajectory = played("\ud800 \x00 \x1b[31m", "\udfff \\boxed{\ud83d}")
    assert "\ufffd \ufffd \ufffd[31m" in report(tmp_path, [trajectory])


def test_true_sizes_are_stated_with_the_images():
    text = html.unescape(trajectory_html(played()))
    assert "seen at 168×168, really 1344×1344" in text
    width, height = BUDGET.smart_resize(336, 616)  # 42 x 77 pixels of the input, 8 original pixels to one
    assert f"The crop, seen at {width}×{height}, really 336×616 of the original" in text


def test_the_crop_on_the_page_is_the_one_the_model_got():
    trajectory = played(image=Image.radial_gradient("L").convert("RGB").resize((1344, 1344)))
    crop = message_images(trajectory.messages)[1]
    images = [decoded(image["src"]) for image in Page(trajectory_html(trajectory)).all("img")]
    [shown] = [image for image in images if image.size == crop.size]
    difference = np.asarray(shown, dtype=int) - np.asarray(crop, dtype=int)
    assert np.abs(difference).mean() < 3


def test_a_big_original_makes_a_small_page(tmp_path):
    trajectory = played(box_text(10, 20, 52, 97), image=noise(4000, 3000))
    text = report(tmp_path, [trajectory])
    page = Page(text)
    assert max(max(decoded(image["src"]).size) for image in page.all("img")) == 900
    assert "really 4000×3000" in text
    assert len(text) < 1_200_000  # noise is what JPEG is worst at; a photograph takes a third


def test_an_image_that_is_gone_is_named_on_the_page_and_costs_nothing_else(tmp_path):
    file = tmp_path / "photo.png"
    noise(300, 200).save(file)
    trajectory = played(image=file)
    file.unlink()
    text = report(tmp_path, [trajectory])
    assert "photo.png" in text
    assert "does not exist" in text
    assert "The crop, seen at" in text


def test_what_a_small_model_saw_is_kept_to_the_pixel():
    trajectory = played(image=Image.linear_gradient("L").resize((1344, 1344)))
    [seen] = Page(trajectory_html(trajectory)).all("img", class_="seen")
    assert (
        ImageChops.difference(decoded(seen["src"]).convert("RGB"), message_images(trajectory.messages)[0]).getbbox()
        is None
    )


def test_the_boxes_are_drawn_in_original_coordinates():
    page = Page(trajectory_html(played()))
    assert page.all("svg", viewbox="0 0 1344 1344")
    assert len(page.all("rect", x="80.0", y="160.0", width="336.0", height="616.0")) == 2  # the halo and the line
    assert page.all("rect", x="200.0", y="400.0", width="60.0", height="60.0")
    assert page.all("g", class_="model")
    assert page.all("g", class_="true")
    assert not page.all("g", class_="refused")


def test_a_refused_box_is_drawn_as_such_and_its_reason_given():
    text = trajectory_html(played(box_text(52, 20, 10, 97)))
    assert Page(text).all("g", class_="refused")
    assert "Reversed: the image again, at 168×168." in text


def test_a_trajectory_without_boxes_tokens_or_ground_truth_has_a_page_too(tmp_path):
    episode = Episode(Sample.of("Which side?", noise(100, 50)), template=SingleTurn(), budget=BUDGET)
    episode.observe("left")
    text = report(tmp_path, [episode.trajectory, Trajectory(), Episode(episode.sample).trajectory])
    assert Page(text).balanced
    assert text.count("<article") == 3
    assert "not graded" in text


def test_a_trajectory_that_let_go_of_its_messages_still_shows_what_was_said():
    trajectory = played()
    trajectory.messages = []
    said = [text for tag, text in Page(trajectory_html(trajectory)).texts if tag == "pre"]
    assert said == [box_text(10, 20, 52, 97), "\\boxed{B}"]


def test_filters_count_and_mark_the_trajectories(tmp_path):
    right = played(box_text(25, 50, 80, 90))
    wrong_and_missed = played(box_text(100, 100, 150, 150), "\\boxed{A}")
    wrong_and_refused = played("no box", "\\boxed{A}")
    page = Page(report(tmp_path, [right, wrong_and_missed, wrong_and_refused]))
    names = ("right", "wrong", "refused", "missed")
    marks = [tuple(int(card[f"data-{name}"]) for name in names) for card in page.all("article")]
    assert marks == [(1, 0, 0, 0), (0, 1, 0, 1), (0, 1, 1, 0)]
    buttons = [a["data-filter"] for a in page.all("button") if "data-filter" in a]
    counts = [text for tag, text in page.texts if tag == "b"][: len(buttons)]
    assert dict(zip(buttons, counts, strict=True)) == {
        "all": "3",
        "wrong": "2",
        "right": "1",
        "refused": "1",
        "missed": "1",
    }


def test_filters_and_cards_can_be_reached_by_keyboard(tmp_path):
    page = Page(report(tmp_path, [played()]))
    assert all(button.get("type") == "button" and "aria-pressed" in button for button in page.all("button"))
    assert all(card.get("tabindex") == "-1" for card in page.all("article"))
    assert all("alt" in image for image in page.all("img"))
    assert [output["aria-live"] for output in page.all("output")] == ["polite"]


def test_the_summary_and_the_header_are_on_the_page(tmp_path):
    text = report(tmp_path, [played(), played("no box", "\\boxed{A}")], header_html="<p>budget 168×168, T = 1</p>")
    assert "<p>budget 168×168, T = 1</p>" in text
    assert "<dt>Accuracy</dt><dd>0.500</dd>" in text and '<dd class="interval">95%: 0.095 to 0.905</dd>' in text
    assert "Boxes refused: no json 1." in text
    assert "<dt>Accuracy</dt>" not in report(tmp_path, [played()], tiles=False)


def gallery(tmp_path, items, **options):
    return write_gallery(tmp_path / "gallery.html", items, "Two runs", **options).read_text(encoding="utf-8")


def card(correct, run="", first=LOOK, **fields):
    return Card(played(first, "\\boxed{B}", **fields), correct, run=run)


def filter_counts(page):
    buttons = [a["data-filter"] for a in page.all("button") if "data-filter" in a]
    counts = [text for tag, text in page.texts if tag == "b"]
    return dict(zip(buttons, [int(count) for count in counts if count.isdigit()][: len(buttons)], strict=True))


def test_a_card_says_what_its_scorer_said_and_not_what_the_trajectory_thinks(tmp_path):
    trajectory = played()
    assert trajectory.correct
    for correct, word in ((True, "✓ right"), (False, "✗ wrong"), (None, "not graded")):
        page = Page(gallery(tmp_path, [Card(trajectory, correct, hit=False)]))
        [article] = page.all("article")
        assert (article["data-right"], article["data-wrong"]) == (str(int(correct is True)), str(int(correct is False)))
        assert article["data-missed"] == "1"
        assert [text for tag, text in page.texts if text == word]


def test_a_row_holds_the_cards_of_one_sample_and_is_what_filters_count(tmp_path):
    rows = [
        Row((card(False, "A"), card(True, "B")), "task/1", (("A", False), ("B", True))),
        Row((card(True, "A"), card(True, "B", "no box")), "task/2", (("A", True), ("B", True))),
        Row((card(None, "A"),), "task/3", (("A", None), ("B", False)), (("category", "colour", ""),)),
    ]
    text = gallery(tmp_path, rows, runs={"A": "single turn", "B": "two turns"})
    page = Page(text)
    assert page.balanced
    names = ("right", "wrong", "refused", "missed", "changed")
    marks = [tuple(int(row[f"data-{name}"]) for name in names) for row in page.all("section") if "data-right" in row]
    assert marks == [(1, 1, 0, 0, 1), (1, 0, 1, 0, 0), (0, 0, 0, 0, 0)]
    assert filter_counts(page) == {"all": 3, "wrong": 1, "right": 2, "refused": 1, "missed": 0, "changed": 1}
    assert [article["data-run"] for article in page.all("article")] == ["A", "B", "A", "B", "A"]
    assert [option["value"] for option in page.all("option")] == ["", "A", "B"]
    assert page.texts.count(("h2", "Which side?")) == 3  # once a row
    assert '<span class="run">B</span><span class="verdict wrong">' in text  # of a run without a card
    assert "category</small> colour" in text


def test_a_question_that_was_put_in_two_ways_stands_on_each_card(tmp_path):
    other = card(True, "B")
    other.trajectory.question = "Which side is it?"
    page = Page(gallery(tmp_path, [Row((card(True, "A"), other), "task/1")]))
    assert [text for tag, text in page.texts if tag == "h2"] == ["Which side?", "Which side is it?"]


def test_a_page_without_anything_to_browse_has_no_filters(tmp_path):
    text = gallery(tmp_path, [], header_html="<p>scores</p>")
    page = Page(text)
    assert page.balanced
    assert "<p>scores</p>" in text
    assert not page.all("button")


def test_the_switch_for_tokens_is_there_where_there_are_tokens(tmp_path):
    assert not Page(gallery(tmp_path, [card(True)])).all("button", id="all-tokens")
    with_them = card(True)
    with_them.trajectory.tokens = Tokens(ids=[1], mask=[1])
    assert Page(gallery(tmp_path, [with_them])).all("button", id="all-tokens")


def test_sizes_are_what_the_model_saw_where_the_images_are_small_copies():
    trajectory = played()
    for message in trajectory.messages:
        for part in message["content"]:
            if part["type"] == "image":
                part["image"] = Image.new("RGB", (8, 8))
    text = html.unescape(trajectory_html(trajectory))
    width, height = trajectory.turns[0].shown_size
    assert f"The crop, seen at {width}×{height}, really 336×616 of the original" in text
    assert f"[image {width}×{height}]" in text
    assert "[image 168×168]" in text
    assert "8×8" not in text.replace("168×168", "")


def test_only_what_was_small_to_begin_with_is_kept_lossless():
    drawing = Image.new("RGB", (168, 168), "white")
    assert small_image(drawing)[0] == "png"
    assert small_image(drawing.resize((1000, 1000)), 168)[0] == "jpeg"


def token_texts(page_html):
    """[(text, coloured as sampled?)] of the token view, read back from its HTML."""
    view = re.search(r'<pre class="tokens">(.*?)</pre>', page_html, re.DOTALL).group(1)
    view = view.replace('<span class="nl">↵</span>', "")
    spans = re.findall(r'<span class="(shown|tok[^"]*)"[^>]*>(.*?)</span>', view, re.DOTALL)
    return [(html.unescape(text), kind.startswith("tok")) for kind, text in spans]


def with_tokens(texts, mask, **fields):
    tokens = Tokens(ids=list(range(len(texts))), mask=mask, texts=texts, **fields)
    return trajectory_html(Trajectory(tokens=tokens))


@given(st.lists(st.tuples(st.text("ab<&\n", min_size=1, max_size=3), st.booleans()), max_size=12))
def test_tokens_are_coloured_by_their_mask(tokens):
    distinct = [(f"{index}{text}", sampled) for index, (text, sampled) in enumerate(tokens)]
    found = token_texts(with_tokens([text for text, _ in distinct], [int(sampled) for _, sampled in distinct]))
    coloured = [(character, sampled) for text, sampled in found for character in text]
    assert coloured == [(character, sampled) for text, sampled in distinct for character in text]


def test_turns_have_colours_of_their_own_and_unlikely_tokens_are_marked():
    text = with_tokens(["a", "b", "c"], [1, 0, 1], spans=[(0, 1), (2, 3)], logprobs=[-0.5, 0.0, -2.5], prompt_length=0)
    assert '<span class="tok turn0" title="turn 1, id 0, log-prob -0.500">a</span>' in text
    assert '<span class="tok turn1 rare" title="turn 2, id 2, log-prob -2.500">c</span>' in text


def test_long_runs_of_one_token_are_written_once_with_their_number():
    texts = ["<|vision_start|>", *["<|image_pad|>"] * 36, "<|vision_end|>", "x", "x"]
    text = html.unescape(with_tokens(texts, [0] * 40))
    view = re.search(r'<pre class="tokens">(.*?)</pre>', text, re.DOTALL).group(1)
    assert view.count("<|image_pad|>") == 1
    assert '<|image_pad|><span class="times"> ×36 </span><|vision_end|>xx' in view


def test_a_run_is_not_counted_across_the_mask():
    text = with_tokens(["x"] * 10, [0] * 5 + [1] * 5, spans=[(5, 10)])
    assert text.count("×5") == 2


def test_tokens_without_texts_show_their_ids():
    text = trajectory_html(Trajectory(tokens=Tokens(ids=[151643, 7], mask=[0, 1])))
    assert "[151643]" in text
    assert "[7]" in text


def test_the_style_serves_dark_screens():
    assert "prefers-color-scheme: dark" in report_style()
