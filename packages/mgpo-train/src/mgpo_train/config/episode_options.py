"""What the options of a run say about its episodes: budget, space, crop rules, template; kept as `mgpo.json`.

An option that is not given is what the model was trained with, where its folder holds an `mgpo.json`, else the paper's.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mgpo_core import CoordinateSpace, PixelBudget
from mgpo_core.engines.families import find_family, visual_factor
from mgpo_core.engines.loading import load_settings, resolve_model
from mgpo_core.episodes.settings import EpisodeSettings
from mgpo_core.errors import EngineError, MGPOError, RegistryError
from mgpo_core.images.crop import CropRules
from mgpo_train.config.model_description import model_config
from mgpo_train.config.options import METHODS, ConfigError, RunOptions

if TYPE_CHECKING:
    from mgpo_core import Episode, Sample
    from mgpo_core.templates.base import Template

OF_THE_MODEL = (
    "min_pixels",
    "max_pixels",
    "coordinate_space",
    "crop_min_side",
    "crop_max_aspect",
    "strict_boxes",
    "max_completion_length",
)
"""Options that say how a model is used, and are kept with it in `mgpo.json`."""

_RESPONSE = 512
"""Tokens of one response where `max_completion_length` is null."""


def saved_settings(model: str) -> EpisodeSettings | None:
    """The `mgpo.json` of a model; None without one, EngineError for a broken one."""
    try:
        resolve_model(model)
    except MGPOError:
        return None  # a model that is not there is refused when the run starts
    return load_settings(model)


def leave_to_model(recipe: Mapping[str, Any], options: Mapping[str, Any], model: str) -> dict[str, int | None]:
    """What belongs to a model, of the `options` that a recipe set for its own model, where the run takes another one.

    Such an option gets the value that the other model's `mgpo.json` has, None standing for "what that file says".
    Without one only the coordinate space, which is of the family, is left to the model. Raises EngineError.
    """
    own = recipe.get("model", RunOptions.model)
    names = [name for name in OF_THE_MODEL if options.get(name) is not None]
    if not names or model == own:
        return {}
    saved = saved_settings(model)
    if saved is None:
        return {name: None for name in names if name == "coordinate_space"}
    return {name: saved.max_new_tokens if name == "max_completion_length" else None for name in names}


class EpisodeOptions(RunOptions):
    """The part of `MGPOConfig` that decides how episodes are run."""

    left_to_model: tuple[str, ...] = ()
    """Options of the recipe that were left to the model, which is not the recipe's own."""

    @property
    def budget_origin(self) -> str:
        """One line: the image budget, and where it comes from."""
        budget, names = self.budget, ("min_pixels", "max_pixels")
        given = [name for name in names if getattr(self, name) is not None]
        default = "the paper's" if self._saved is None else f"mgpo.json of {self.model}"
        origin = ", ".join([f"{' and '.join(given)} as set"] * bool(given) + [default] * (len(given) < len(names)))
        left = f"; left to the model: {', '.join(self.left_to_model)}" if self.left_to_model else ""
        return f"images of {budget.min_pixels} to {budget.max_pixels} pixels ({origin}){left}"

    def resolve_episodes(self) -> None:
        """Fill in the options of boxes that were not given; raises EngineError for a broken `mgpo.json`."""
        saved = self._saved or EpisodeSettings()
        if self.strict_boxes is None:
            self.strict_boxes = saved.strict_boxes
        if self.crop_min_side is None:
            self.crop_min_side = float(saved.crop_min_side)
        if self.crop_max_aspect is None:
            self.crop_max_aspect = float(saved.crop_max_aspect)

    @cached_property
    def _saved(self) -> EpisodeSettings | None:
        return saved_settings(self.model)

    @cached_property
    def _described(self) -> Any:
        """transformers' configuration of the model, read when it is first needed; EngineError when it cannot be."""
        return model_config(self.model, trust_remote_code=self.trust_remote_code)[0]  # type: ignore[attr-defined]

    @property
    def episode_settings(self) -> EpisodeSettings:
        """What `mgpo.json` says beside the weights of this run; raises what `budget` and `space` raise."""
        budget, rules = self.budget, self.rules
        return EpisodeSettings(
            template=self.template or METHODS[self.method],
            min_pixels=budget.min_pixels,
            max_pixels=budget.max_pixels,
            coordinate_space=self.space.value,
            crop_min_side=rules.min_side,
            crop_max_aspect=rules.max_aspect,
            strict_boxes=bool(self.strict_boxes),
            max_new_tokens=self.max_response,
        )

    @property
    def max_response(self) -> int:
        """Most tokens of one response."""
        return self.max_completion_length or _RESPONSE

    @property
    def budget(self) -> PixelBudget:
        """The image budget: the given pixels, else those of the model's `mgpo.json`, else the paper's.

        Raises EngineError where the model's configuration, which says how large a visual token is, cannot be read.
        """
        return self.budget_of(visual_factor(self._described))

    def budget_of(self, factor: int) -> PixelBudget:
        """The image budget for visual tokens of `factor` pixels a side; ConfigError when it is none."""
        default = self._saved or EpisodeSettings()
        try:
            return PixelBudget(
                min_pixels=default.min_pixels if self.min_pixels is None else self.min_pixels,
                max_pixels=default.max_pixels if self.max_pixels is None else self.max_pixels,
                factor=factor,
            )
        except ValueError as error:
            raise ConfigError(f"min_pixels, max_pixels: {error}; set both when you set one") from error

    @property
    def space(self) -> CoordinateSpace:
        """The coordinate space in which the model writes boxes: as given, else its `mgpo.json`'s, else its family's.

        Raises ConfigError where none is known, and EngineError where the model's configuration cannot be read.
        """
        if self.coordinate_space is None:
            return self._own_space()
        given = CoordinateSpace.parse(self.coordinate_space)
        try:
            own = self._own_space()
        except (ConfigError, EngineError):
            return given  # nobody else says anything
        if own is not given:
            warnings.warn(
                f"coordinate_space={given.value} is given, but models like {self.model} write boxes as {own.value} "
                "unless they were trained otherwise: if this one was not, leave coordinate_space out",
                stacklevel=2,
            )
        return given

    def _own_space(self) -> CoordinateSpace:
        """What the model was trained to write, else what its family writes."""
        if self._saved is not None and self._saved.coordinate_space is not None:
            return CoordinateSpace.parse(self._saved.coordinate_space)
        described = self._described
        try:
            return find_family(described).space
        except EngineError as error:
            raise ConfigError(
                f"coordinate_space: which one does model={self.model!r} write boxes in, absolute pixels of its resized "
                f"input, or 0-1000? set coordinate_space to absolute or 0-1000 ({error})"
            ) from error

    @property
    def rules(self) -> CropRules:
        """When a box is refused."""
        assert self.crop_min_side is not None and self.crop_max_aspect is not None  # resolve_episodes has seen to it
        return CropRules(min_side=self.crop_min_side, max_aspect=self.crop_max_aspect)

    def episode(self, sample: Sample) -> Episode:
        """An episode of the run: its template, image budget, coordinate space and rules for boxes."""
        from mgpo_core.episodes.episode import Episode

        return Episode(
            sample,
            template=self.make_template(),
            budget=self.budget,
            space=self.space,
            rules=self.rules,
            strict=bool(self.strict_boxes),
        )

    def make_template(self) -> Template:
        """The conversation's template; raises ConfigError for an unknown name, and a spec that leads to none."""
        from mgpo_core.templates.registry import load_template

        try:
            return load_template(self.template or METHODS[self.method])
        except RegistryError as error:
            raise ConfigError(str(error)) from error
