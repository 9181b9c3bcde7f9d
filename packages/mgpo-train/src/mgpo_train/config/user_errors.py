"""Errors of the libraries below that a user's options cause, as one line that names the option and the remedy.

Everything else keeps its traceback: it would be a bug.
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from mgpo_core.errors import EngineError, MGPOError
from mgpo_core.messages.shown import one_line
from mgpo_train.config.options import ConfigError
from mgpo_train.config.trackers import PACKAGES

if TYPE_CHECKING:
    from transformers import TrainingArguments

_REFUSALS = (ValueError, TypeError, ImportError, NotImplementedError, RuntimeError, OSError, KeyError, AssertionError)
_LIBRARIES = ("trl", "transformers", "accelerate", "peft", "deepspeed", "bitsandbytes", "torch")

_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
_DISK_WORDS = {
    # what safetensors and tokenizers, and torch.save, raise in place of an OSError
    rf"([\w -]+) \(os error ({'|'.join(map(str, _OF_THE_DISK))})\)": None,
    r"inline_container\.cc.*unexpected pos|PytorchStreamWriter failed writing": "the disk may be full",
}

_REMEDIES = {
    # what a library says: the option, and what to do
    r"doesn't support bf16": ("bf16", "this machine does not compute in bfloat16; leave bf16 out"),
    r"fp16.*(GPU|CUDA|device)|FP16 Mixed precision": ("fp16", "this machine has no GPU for it; leave fp16 out"),
    r"tf32": ("tf32", "this machine has no GPU for it; leave tf32 out"),
    r"deepspeed.*(path|file|config)|HfDeepSpeedConfig|Expected a string path": (
        "deepspeed",
        "it is not the path of a DeepSpeed configuration in JSON; see that the file is there",
    ),
}


def as_config_error(error: BaseException, options: Mapping[str, Any]) -> ConfigError:
    """A refusal by TRL or transformers in this project's form: `name=value: what is wrong`."""
    text = one_line(error, 300)
    for pattern, (option, remedy) in _REMEDIES.items():
        if re.search(pattern, text, re.IGNORECASE):
            return ConfigError(f"{option}={options.get(option)}: {remedy}")
    quoted = re.findall(r"[`']([^`']+)[`']", text)
    words = [word for word in re.findall(r"\w+", text) if "_" in word]
    by_value = (name for name, value in options.items() if isinstance(value, str) and value in quoted)
    named = next(by_value, None) or next((word for word in [*quoted, *words] if word in options), None)
    return ConfigError(text if named is None else f"{named}={options[named]}: {text}")


def disk_failure(error: BaseException) -> str | None:
    """One line for a file that could not be written, whatever library tried to; None for any other error."""
    name = reason = None
    if isinstance(error, OSError):
        name, reason = error.filename, error.strerror if error.errno in _OF_THE_DISK else None
    else:
        found = ((re.search(pattern, one_line(error, 300)), words) for pattern, words in _DISK_WORDS.items())
        reason = next((words or match[1].strip() for match, words in found if match), None)
    if reason is None:
        return None
    return (
        f"{name or 'a file'} cannot be written ({reason}): free space, or name another folder; a run that had begun is "
        "continued by --resume"
    )


@contextlib.contextmanager
def worded(config: TrainingArguments, *, starting: bool = False) -> Iterator[None]:
    """Within it, what the user's machine, trackers and options cause ends in one line.

    While a run is `starting`, that includes what the libraries refuse themselves; later, such an error is a bug.
    """
    try:
        yield
    except (MGPOError, ConfigError):
        raise
    except Exception as error:
        told = _told(error, config, starting=starting)
        if told is None:
            raise
        raise told from error


def _told(error: Exception, config: TrainingArguments, *, starting: bool) -> Exception | None:
    root = type(error).__module__.partition(".")[0]
    if type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error):
        return EngineError(
            f"out of memory ({one_line(error, 120)}): lower per_device_train_batch_size (it is "
            f"{config.per_device_train_batch_size}) and raise gradient_accumulation_steps, or lower max_pixels or "
            "max_completion_length; --dry-run estimates what fits"
        )
    trackers = {module for modules in PACKAGES.values() for module in modules}
    if root in trackers or _raised_in(error.__traceback__) in trackers:
        return ConfigError(f"report_to={config.report_to}: {one_line(error)}; --report_to none trains without it")
    if starting and isinstance(error, _REFUSALS) and _raised_in(error.__traceback__) in _LIBRARIES:
        return as_config_error(error, vars(config))
    return None


def _raised_in(trace: TracebackType | None) -> str:
    """The package whose code raised."""
    package = ""
    while trace is not None:
        package = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        trace = trace.tb_next
    return package
