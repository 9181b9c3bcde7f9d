"""The errors that mgpo_core raises; each message names the input and the remedy."""


class MGPOError(Exception):
    """Base of every error of this project."""


class ImageError(MGPOError, ValueError):
    """An image that cannot be used: unreadable, too large, animated, empty or of an impossible shape."""


class SampleError(MGPOError, ValueError):
    """A sample that contradicts itself or lacks a part."""


class TokenAlignmentError(MGPOError, RuntimeError):
    """Tokens, images and features of one sample do not line up."""


class EngineError(MGPOError, RuntimeError):
    """An engine cannot be loaded or cannot run the given model."""


class RegistryError(MGPOError, ValueError):
    """A reward, template, layout, family or plugin that cannot be found, imported or used."""


class Stopped(MGPOError):  # noqa: N818 - nothing went wrong
    """The user or a time limit stopped the generation: for an `on_text` callback to raise, which ends the run."""
