"""Weights to the Hugging Face hub: which files, when, and what to do when an upload fails (no torch).

Files are sent by a list of names, from folders of weights: never an output folder, in which a user's own files may lie.
`push_to_hub` sends the finished model once, at the end; `hub_strategy` may add checkpoints.
"""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from mgpo_core.episodes.settings import SETTINGS_FILE
from mgpo_core.errors import MGPOError
from mgpo_core.messages.command_line import SuggestingParser
from mgpo_train.config.options import ConfigError
from mgpo_train.output.model_card import CARD_FILES, HERE, MARK, find_card
from mgpo_train.output.public_names import public_text

if TYPE_CHECKING:
    from mgpo_train.config.config import MGPOConfig

WEIGHTS = (
    *("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model-*-of-*.bin", "pytorch_model.bin.index.json"),
    *("adapter_model.safetensors", "adapter_model.bin"),
)
DESCRIPTIONS = ("config.json", "generation_config.json", "adapter_config.json", SETTINGS_FILE)
PROCESSOR = (
    *("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja", "chat_template.json"),
)
PUBLISHED = (*WEIGHTS, *DESCRIPTIONS, *PROCESSOR)
"""Names of the files of a model's folder that are sent, beside the card; no others are."""

TRAINING_STATE = (
    *("optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt", "rng_state*.pth", "trainer_state.json"),
    *("latest", "zero_to_fp32.py", "global_step*/*.pt"),
    *("pytorch_model_fsdp.bin", "pytorch_model_fsdp_*/*", "optimizer_[0-9]*/*"),
)
"""What a checkpoint needs beside them to be resumed from; sent with hub_strategy=checkpoint and all_checkpoints alone.
"""


class UploadError(MGPOError):
    """An upload failed; the message says where the model is, and how to upload it later."""


@dataclass(frozen=True)
class Destination:
    """A repository of the hub. The token is the login's where it is None."""

    repo: str
    private: bool | None = None
    revision: str | None = None
    token: str | None = None

    @classmethod
    def of(cls, config: MGPOConfig) -> Destination:
        """Where a run's options say; the repository is named like the output folder unless `hub_model_id` names it."""
        repo = config.hub_model_id or Path(str(config.output_dir)).absolute().name
        return cls(repo, config.hub_private_repo, config.hub_revision, config.hub_token)

    def command(self, folder: str | Path) -> str:
        """The command that uploads `folder` there later."""
        words = ["mgpo-train", "upload", str(folder), self.repo]
        words += ["--private"] if self.private else []
        words += ["--revision", self.revision] if self.revision else []
        return shlex.join(words)


def check_login(destination: Destination, *, option: str = "push_to_hub=true") -> None:
    """Raise ConfigError when an upload is bound to fail: an impossible name, no network, no login, no right to write.

    Asks the hub once. Sends nothing, and makes no repository.
    """
    repo = destination.repo
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ConfigError(
            f"{option}: {repo!r} cannot be the name of a repository ({_line(error)}); set hub_model_id=OWNER/NAME"
        ) from error
    if constants.HF_HUB_OFFLINE:
        raise ConfigError(f"{option}: HF_HUB_OFFLINE=1 forbids uploads; unset it, {_instead(option)}")
    token, login = destination.token or get_token(), "run `hf auth login` or set HF_TOKEN"
    if token is None:
        raise ConfigError(f"{option}: not logged in to the hub; {login}, {_instead(option)}")
    try:
        account = HfApi().whoami(token=token)
    except Exception as error:
        refused = isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403)
        what = "the hub refuses the token" if refused else f"{constants.ENDPOINT} does not answer"
        remedy = login if refused else "check the network"
        raise ConfigError(f"{option}: {what} ({_line(error)}); {remedy}, {_instead(option)}") from error
    role = ((account.get("auth") or {}).get("accessToken") or {}).get("role")
    if role == "read":
        raise ConfigError(f"{option}: the token may only read; log in with one that may write, {_instead(option)}")
    owners = [account["name"], *(found["name"] for found in account.get("orgs") or ())]
    owner = repo.partition("/")[0] if "/" in repo else account["name"]
    if role == "write" and owner not in owners:  # fine-grained tokens may write where the account's list does not say
        raise ConfigError(
            f"{option}: the account {account['name']!r} may not write to {repo!r}; choose another hub_model_id "
            f"(owners: {', '.join(owners)})"
        )


def _instead(option: str) -> str:
    return "or leave push_to_hub out and upload later (mgpo-train upload)" if "push" in option else "and run it again"


def published_files(folder: Path, patterns: Sequence[str] = PUBLISHED) -> list[Path]:
    """The files of a folder that may be sent, sorted; the card is not among them."""
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


def upload(
    folder: Path, destination: Destination, *, message: str, within: str = "", patterns: Sequence[str] = PUBLISHED
) -> str:
    """Send the weights in `folder` with their card, in one commit, and give the address of the repository.

    `within` is a folder of the repository. A README.md there that is not ours stays: the card is then MODEL_CARD.md.
    Raises UploadError, with the command that uploads later.
    """
    files = published_files(folder, patterns)
    if not any(fnmatchcase(path.name, pattern) for path in files for pattern in WEIGHTS):
        raise UploadError(f"{folder} holds no weights; name the folder of a model (model/ in an output folder)")
    try:
        api = HfApi(token=destination.token)
        made = api.create_repo(destination.repo, private=destination.private, exist_ok=True)
        if destination.revision:
            api.create_branch(made.repo_id, branch=destination.revision, exist_ok=True)
        prefix = f"{within}/" if within else ""
        sent = [CommitOperationAdd(prefix + path.relative_to(folder).as_posix(), _content(path)) for path in files]
        card = find_card(folder)
        if card is not None:
            text = card.read_text("utf-8")
            if not within:
                text = text.replace(HERE, f'name = "{made.repo_id}"', 1)
            place = _place_of_card(api, made.repo_id, destination.revision, prefix)
            sent.append(CommitOperationAdd(place, text.encode()))
        api.create_commit(made.repo_id, sent, commit_message=message, revision=destination.revision)
    except Exception as error:  # whatever fails: the run must not be lost over it, nor its end be a traceback
        raise UploadError(
            f"the upload to {destination.repo!r} failed ({_line(error)}); the model is whole in {folder}, upload it "
            f"later with: {destination.command(folder)}"
        ) from error
    return str(made)


def _content(path: Path) -> str | bytes:
    """The path of a file to send, or what to send in its place: an adapter's base without its path on this machine."""
    if path.name != "adapter_config.json":
        return str(path)
    described = json.loads(path.read_text("utf-8"))
    described["base_model_name_or_path"] = public_text(described.get("base_model_name_or_path") or "")
    return json.dumps(described, indent=2).encode()


def _place_of_card(api: HfApi, repo: str, revision: str | None, prefix: str) -> str:
    """README.md, or MODEL_CARD.md where the repository has a README.md that we did not write."""
    with tempfile.TemporaryDirectory() as aside:
        try:
            found = api.hf_hub_download(repo, prefix + CARD_FILES[0], revision=revision, local_dir=aside)
        except EntryNotFoundError:
            return prefix + CARD_FILES[0]
        ours = MARK in Path(found).read_text("utf-8", errors="replace")
    return prefix + CARD_FILES[0 if ours else 1]


def upload_checkpoint(folder: Path, step: int, config: MGPOConfig) -> Future[None] | None:
    """Send a checkpoint beside the training, as `hub_strategy` says; None where it says not to.

    `every_save`: weights, processor and card, as a model (adapters into `adapter/`). `checkpoint`: the whole checkpoint
    into `last-checkpoint/`; `all_checkpoints`: into `checkpoint-N/`. A failure is logged and does not end training.
    """
    strategy = _strategy(config)
    if strategy == "end":
        return None
    within = {"every_save": "adapter" if config.use_peft else "", "checkpoint": "last-checkpoint"}
    patterns = PUBLISHED if strategy == "every_save" else (*PUBLISHED, *TRAINING_STATE)

    def send() -> None:
        try:
            upload(
                folder,
                Destination.of(config),
                message=f"Training in progress, step {step}",
                within=within.get(strategy, folder.name),
                patterns=patterns,
            )
        except UploadError as error:
            print(f"mgpo-train: warning: {error}", file=sys.stderr)

    return HfApi().run_as_future(send)


def publish_run(out: Path, config: MGPOConfig, model_folder: str, adapter_folder: str, steps: int) -> None:
    """Send the finished model of a run; beside it the adapter where the checkpoints' adapters were sent.

    Raises UploadError, naming the folder and the command that uploads later.
    """
    destination, message = Destination.of(config), f"{config.method}, {steps} steps"
    print(f"uploaded to {upload(out / model_folder, destination, message=message)}")
    if config.use_peft and _strategy(config) == "every_save":
        upload(out / adapter_folder, destination, message=message, within="adapter")


def _strategy(config: MGPOConfig) -> str:
    return str(getattr(config.hub_strategy, "value", config.hub_strategy))


def _line(error: BaseException) -> str:
    """The first line of an error's message, at most a line long; a login in it is taken out."""
    cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ is not None else error
    text = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
    return text if len(text) <= 200 else f"{text[:197]}..."


def main(argv: Sequence[str]) -> int:
    """`mgpo-train upload FOLDER REPOSITORY`: what `push_to_hub` does, later."""
    parser = SuggestingParser(
        prog="mgpo-train upload",
        description="Upload a saved model to the Hugging Face hub: its weights, processor, mgpo.json and card alone.",
    )
    parser.add_argument("folder", type=Path, help="model/, best/, adapter/ or a checkpoint in an output folder")
    parser.add_argument("repository", help="OWNER/NAME, or NAME in your own account")
    parser.add_argument("--private", action="store_true", default=None, help="make a new repository private")
    parser.add_argument("--revision", help="branch to commit to [main]")
    given = parser.parse_args(argv)
    folder = given.folder
    if not published_files(folder, WEIGHTS) and published_files(folder / "model", WEIGHTS):
        raise ConfigError(f"{folder} holds no weights; name {folder / 'model'}")
    if not published_files(folder, WEIGHTS):
        raise ConfigError(f"{folder} holds no weights; name the folder of a model (model/ in an output folder)")
    destination = Destination(given.repository, given.private, given.revision)
    check_login(destination, option="upload")
    print(upload(folder, destination, message="Upload of a trained model"))
    return 0
