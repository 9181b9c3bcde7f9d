"""`mgpo-demo --server`: the page's functions on a model behind the chat API, whose coordinates are declared."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from gradio_client import Client, handle_file
from PIL import Image

from mgpo_core import PixelBudget

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "core"))
from chat_server import Reply, chatting
from demo_process import demo

BOX = '```json\n[{"bbox_2d": [250, 500, 750, 1000], "label": "key image area"}]\n```'


def script(body: dict, number: int) -> Reply:
    """A box in thousandths where the paper's first turn is asked for, else an answer."""
    asked = str(body["messages"])
    boxed = len(body["messages"]) == 2 and "key image area" in asked
    return Reply([BOX] if boxed else ["It is ", "\\boxed{B}"], usage={"prompt_tokens": 5000, "completion_tokens": 3})


def test_a_served_model_looks_closer_in_the_space_it_was_declared_to_speak(tmp_path: Path, monkeypatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    with chatting(monkeypatch) as server:
        server.script = script
        options = ["--coordinate-space", "0-1000", "--patch-factor", "32", "--min-pixels", "65536"]
        options += ["--max-pixels", "262144"]
        with demo("--server", server.url, *options) as running:
            assert "tiny" in running.wait_for(r"ready: (.*),")
            client = Client(running.url, verbose=False)
            question = "Which is it?", "left\nright"
            outcome, crop = client.predict(handle_file(tmp_path / "noise.png"), *question, api_name="/look")
    assert outcome["box"] == [200, 300, 600, 600]
    assert (outcome["answer"], outcome["choice"], outcome["single_turn"]["answer"]) == ("B", "B: right", "B")
    assert outcome["input_size"] == list(PixelBudget(65536, 262144, 32).smart_resize(800, 600))
    assert outcome["confidence"] is None
    cut = Image.fromarray(noise).crop((200, 300, 600, 600)).resize(outcome["crop_size"], Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(Image.open(crop).convert("RGB")), np.asarray(cut))
