"""Serve a trained checkpoint with vLLM, and ask it about an image.

    python examples/serve_with_vllm.py outputs/haystack-mgpo/model photo.jpg "What colour is the car?"

Starts `vllm serve`, waits until it answers, runs one episode through the engine for OpenAI's chat API, and stops the
server. Needs vLLM, and mgpo-core with its extra `openai`.
"""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from mgpo_core import CoordinateSpace, Episode, Sample, Trajectory
from mgpo_core.engines import load_engine
from mgpo_core.engines.families import find_family, visual_factor
from mgpo_core.engines.loading import load_settings
from mgpo_core.episodes.settings import EpisodeSettings
from mgpo_core.templates.registry import load_template

PORT = 8000


def serve_command(model: Path, port: int = PORT) -> list[str]:
    """The command that serves a folder; an episode shows the image and its crop."""
    limits = ["--limit-mm-per-prompt", '{"image": 2}', "--generation-config", "vllm"]
    return ["vllm", "serve", str(model), "--port", str(port), *limits]


def ask(url: str, model: Path, image: str | Path, question: str) -> Trajectory:
    """One episode with the budget, boxes and template that the checkpoint was trained with (its `mgpo.json`)."""
    from transformers import AutoConfig

    config, settings = AutoConfig.from_pretrained(model), load_settings(model) or EpisodeSettings()
    declared = settings.coordinate_space
    episode = Episode(
        Sample.of(question, image),
        template=load_template(settings.template),
        budget=settings.budget(visual_factor(config)),
        space=CoordinateSpace.parse(declared) if declared else find_family(config).space,
        rules=settings.rules,
        strict=settings.strict_boxes,
    )
    engine = load_engine("openai", model=None, url=url, max_new_tokens=settings.max_new_tokens)
    engine.run([episode])
    return episode.trajectory


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with subprocess.Popen(serve_command(folder)) as server:
        try:
            while server.poll() is None:
                try:
                    urllib.request.urlopen(f"http://localhost:{PORT}/health").close()
                    print(ask(f"http://localhost:{PORT}/v1", folder, *sys.argv[2:4]).turns[-1].text)
                    break
                except OSError:
                    time.sleep(2)
        finally:
            server.terminate()
