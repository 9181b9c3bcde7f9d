"""Small copies of what a sample's episode showed, kept beside the results for the report."""

from __future__ import annotations

import re
from pathlib import Path

from mgpo_core.episodes.episode import Episode
from mgpo_core.errors import EngineError
from mgpo_core.images.encode import small_image

__all__ = ["save_images"]

_SIDE = 640
"""The longer side of a kept image in pixels."""


def save_images(episode: Episode, output: Path, folder: Path, name: str) -> dict[str, str]:
    """Write every image of an episode below `output / folder`; file names relative to `output` by their own names.

    EngineError when they cannot be written.
    """
    kept = {}
    stem = re.sub(r"[^\w.-]+", "-", name)
    try:
        (output / folder).mkdir(parents=True, exist_ok=True)
        for image_name, image in episode.trajectory.named_images(episode.originals).items():
            kind, data = small_image(image, _SIDE)
            place = folder / f"{stem}-{Path(image_name).stem}.{kind}"
            (output / place).write_bytes(data)
            kept[image_name] = place.as_posix()
    except OSError as error:
        raise EngineError(
            f"images for the report cannot be written to {output / folder} ({error}); free space, choose another "
            "--output_path, or keep fewer with keep_images=0 in --model_args"
        ) from error
    return kept
