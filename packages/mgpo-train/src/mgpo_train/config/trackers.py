"""`report_to`: checks that the named trackers can be used, before the model is loaded.

Relies on `transformers.integrations.integration_utils.INTEGRATION_TO_CALLBACK` (5.17).
"""

from __future__ import annotations

import configparser
import contextlib
import netrc
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from mgpo_core.messages.suggest import nearest
from mgpo_train.config.options import ConfigError

PACKAGES: dict[str, tuple[str, ...]] = {
    # the name in report_to: modules of which one must be installed
    "azure_ml": ("azureml",),
    "clearml": ("clearml",),
    "codecarbon": ("codecarbon",),
    "comet_ml": ("comet_ml",),
    "dagshub": ("dagshub",),
    "dvclive": ("dvclive",),
    "flyte": ("flytekit",),
    "mlflow": ("mlflow",),
    "swanlab": ("swanlab",),
    "tensorboard": ("tensorboard", "tensorboardX"),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
}
"""The trackers that transformers (5.17) has a callback for, as far as a package decides."""

_PIP = {"comet_ml": "comet-ml", "azure_ml": "azureml-sdk", "flyte": "flytekitplugins-deck-standard"}


@dataclass(frozen=True)
class Login:
    """How a tracker knows whom a run belongs to: one of the variables, or an entry of a netrc file."""

    key: str
    mode: str
    """A variable that switches the tracker's server off."""
    without_server: tuple[str, ...]
    host: str
    command: str
    files: tuple[str, ...] = ()
    """Files in which the tracker's own login may have left the key."""


LOGINS: dict[str, Login] = {
    "wandb": Login(
        "WANDB_API_KEY",
        "WANDB_MODE",
        ("offline", "dryrun", "disabled"),
        "api.wandb.ai",
        "wandb login",
    ),
    "comet_ml": Login(
        "COMET_API_KEY", "COMET_START_MODE", ("offline",), "comet.com", "comet login", ("~/.comet.config",)
    ),
    "swanlab": Login(
        "SWANLAB_API_KEY",
        "SWANLAB_MODE",
        ("local", "offline", "disabled"),
        "api.swanlab.cn",
        "swanlab login",
        ("~/.swanlab/.netrc",),
    ),
}


def tracker_names(report_to: str | Sequence[str] | None) -> list[str]:
    """The trackers that are named; raises ConfigError for a name that transformers does not know."""
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    given = [report_to] if isinstance(report_to, str) else list(report_to or ())
    names = [name.strip() for text in given for name in str(text).split(",")]
    names = [name for name in names if name not in ("", "none", "all")]
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            hint = nearest(name, [*INTEGRATION_TO_CALLBACK, "none"])
            raise ConfigError(f"report_to={name}: {hint} (--report_to none: no tracker)")
    return names


def check_trackers(report_to: str | Sequence[str] | None) -> None:
    """Raise ConfigError for a tracker that is not installed, or that would ask for a login in the middle of a run."""
    for name in tracker_names(report_to):
        modules = PACKAGES.get(name, ())
        if modules and not any(find_spec(module) for module in modules):
            package = _PIP.get(name, name)
            raise ConfigError(f"report_to={name}: not installed; pip install {package}, or --report_to none")
        login = LOGINS.get(name)
        if login is not None and not _logged_in(name, login):
            raise ConfigError(
                f"report_to={name}: not logged in; run `{login.command}`, set {login.key}, set "
                f"{login.mode}={login.without_server[0]} to keep the run on this machine, or --report_to none"
            )


def _logged_in(name: str, login: Login) -> bool:
    mode = os.environ.get(login.mode, "").lower()
    if os.environ.get(login.key) or mode in login.without_server:
        return True
    if any(Path(file).expanduser().is_file() for file in login.files):
        return True
    if name != "wandb":
        return False
    if os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes") or os.environ.get(
        "WANDB_IDENTITY_TOKEN_FILE"
    ):
        return True
    settings = _wandb_settings()
    if settings.get("mode", "").lower() in login.without_server or settings.get("api_key"):
        return True
    url = os.environ.get("WANDB_BASE_URL") or settings.get("base_url") or f"https://{login.host}"
    return _in_netrc(urlsplit(url).hostname or login.host)


def _wandb_settings() -> dict[str, str]:
    """What `wandb offline` and `wandb login --host` have written, here or for the user."""
    home = os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb"
    files = [Path(folder).expanduser() / "settings" for folder in (home, "wandb", ".wandb")]
    parser = configparser.ConfigParser(interpolation=None)
    with contextlib.suppress(configparser.Error, UnicodeDecodeError, OSError):
        parser.read([file for file in files if file.is_file()])
    return dict(parser["default"]) if parser.has_section("default") else {}


def _in_netrc(host: str) -> bool:
    given = os.environ.get("NETRC")
    for file in [given] if given else ["~/.netrc", "~/_netrc"]:
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            if netrc.netrc(str(Path(file).expanduser())).authenticators(host):
                return True
    return False
