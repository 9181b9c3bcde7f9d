"""The card beside every saved model: how it was trained, on what, with which scores, how to load it, what to beware of.

`README.md` with the metadata that the Hugging Face hub reads. It never says more of this machine than the last part of
a path, and shows only options that are listed here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from PIL import Image

from mgpo_core import Box, Sample, haystack
from mgpo_core.files.whole_file import whole_file
from mgpo_core.images.crop import CropOutcome
from mgpo_core.templates.base import Message, Template
from mgpo_train.config.data_spec import DataSpec, is_hub_id, is_synthetic
from mgpo_train.config.options import grouped_fields
from mgpo_train.output.public_names import public_source, public_text
from mgpo_train.output.summary import table_rows

if TYPE_CHECKING:
    from mgpo_train.config.config import MGPOConfig
    from mgpo_train.data.sources import SampleSet

CARD_FILES = ("README.md", "MODEL_CARD.md")
"""Where the card goes; the second where somebody else's README.md is in the first."""

MARK = "<!-- written by mgpo-train, which replaces this file; delete this line to keep your changes -->"
"""By which our cards are known."""

HERE = 'name = "."  # the folder of this card'
"""The line of the loading code that an upload replaces by the repository's name."""

OTHER_OPTIONS = (
    *("adam_beta1", "adam_beta2", "adam_epsilon", "data_seed", "delta", "entropy_coef", "epsilon", "epsilon_high"),
    *("fp16", "generation_batch_size", "importance_sampling_level", "loss_type", "lr_scheduler_type"),
    *("max_grad_norm", "min_p", "num_iterations", "optim", "repetition_penalty", "scale_rewards", "shuffle_dataset"),
    *("steps_per_generation", "sync_ref_model", "top_entropy_quantile", "top_k", "top_p", "trust_remote_code"),
    *("use_liger_kernel", "vllm_max_model_length", "warmup_steps", "weight_decay"),
)
"""Options of TRL's and transformers' that a card shows; no others, because some hold tokens, paths and addresses."""

_NOT_SHOWN = ("Data", "Evaluation", "Output")
_KINDS = {"sft": "supervised fine-tuning", "grpo": "GRPO", "mgpo": "MGPO", "mirg": "MIRG-RL"}
_LOOKS = "It names the area to look at first, is shown that area cut from the original image, and then answers."
_SETS = {"train": "train_data", "held_out": "eval_data", "ood": "eval_ood_data"}


@dataclass(frozen=True)
class RunFacts:
    """What a card says of a run beside its options."""

    rows: Mapping[str, tuple[int, int]]
    """Samples used and rows skipped of `train_data`, `eval_data` and `eval_ood_data`, where there are any."""
    summary: Mapping[str, Any]
    """`summary.json` as far as it is known: scores by `before`, `after`, ..., steps and versions."""

    @classmethod
    def of(cls, data: Any, summary: Mapping[str, Any]) -> RunFacts:
        """From the sample sets of a run (`mgpo_train.run.Data`)."""
        found: dict[str, SampleSet | None] = {option: getattr(data, name) for name, option in _SETS.items()}
        return cls({name: (len(s), len(s.skipped)) for name, s in found.items() if s is not None}, summary)


def write_card(
    folder: str | Path,
    config: MGPOConfig,
    facts: RunFacts | None,
    *,
    step: int | None = None,
    best: Mapping[str, Any] | None = None,
) -> Path | None:
    """Write the card of the weights in `folder`, over an earlier one of ours alone; gives its path.

    `step` is that of a checkpoint, None for the finished model; `best` the record of the best checkpoint. None is
    returned, and nothing written, where both possible names are taken by files of somebody else.
    """
    folder = Path(folder)
    path = card_place(folder)
    if path is None:
        return None
    text = card_text(config, facts, adapter=(folder / "adapter_config.json").is_file(), step=step, best=best)
    with whole_file(path, encoding="utf-8") as file:
        file.write(text)
    return path


def card_place(folder: Path) -> Path | None:
    """Where `write_card` writes: at the first of its names that no file of somebody else has; None without one."""
    return next((folder / name for name in CARD_FILES if _is_free(folder / name)), None)


def find_card(folder: str | Path) -> Path | None:
    """The card that `write_card` wrote into a folder; None without one."""
    return next((path for name in CARD_FILES if is_ours(path := Path(folder) / name)), None)


def is_ours(path: Path) -> bool:
    """Whether a file is a card of ours, still with its mark."""
    return path.is_file() and MARK in path.read_text("utf-8", errors="replace")


def _is_free(path: Path) -> bool:
    return is_ours(path) or not (path.exists() or path.is_symlink())


def card_text(
    config: MGPOConfig,
    facts: RunFacts | None,
    *,
    adapter: bool,
    step: int | None = None,
    best: Mapping[str, Any] | None = None,
) -> str:
    """The whole card; see `write_card`."""
    summary = {} if facts is None else facts.summary
    parts = [
        f"---\n{yaml.safe_dump(_metadata(config, facts, adapter), sort_keys=False, allow_unicode=True)}---",
        MARK,
        _opening(config, summary, adapter, step, best),
        _loading(config, adapter),
        _prompts(config.make_template()),
        _rollout_settings(config),
        _training(config, facts),
        _scores(summary, step),
        _caveats(config, summary, best),
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(config: MGPOConfig, facts: RunFacts | None, adapter: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if is_hub_id(config.model):
        found |= {"base_model": config.model, "base_model_relation": "adapter" if adapter else "finetune"}
    found |= {"library_name": "peft" if adapter else "transformers", "pipeline_tag": "image-text-to-text"}
    found["tags"] = ["mgpo", *({config.method} - {"mgpo"}), *(["lora"] if config.use_peft else [])]
    paths = [DataSpec.parse(getattr(config, name)).path for name in (() if facts is None else facts.rows)]
    hub = [path for path in dict.fromkeys(paths) if is_hub_id(path)]
    return found | ({"datasets": hub} if hub else {})


def _opening(
    config: MGPOConfig, summary: Mapping[str, Any], adapter: bool, step: int | None, best: Mapping[str, Any] | None
) -> str:
    base = public_text(config.model)
    what = "A LoRA adapter for" if adapter else "LoRA training of" if config.use_peft else "Training of"
    merged = ", merged into its weights" if config.use_peft and not adapter else ""
    if best is not None:
        state = f"The weights after step {best['step']}, with the best `{best['metric']}` ({best['value']:.3f})."
    elif step is not None:
        state = f"A checkpoint after step {step}, not the finished model."
    else:
        state = f"The finished model, after {summary.get('steps', 'all')} steps."
    return (
        f"# {Path(base).name.replace(':', '-')}, {_KINDS[config.method]}{', adapter' if adapter else ''}\n\n{what} "
        f"`{base}`{'' if is_hub_id(config.model) or is_synthetic(config.model) else ' (a local folder)'} by "
        f"{_KINDS[config.method]} with mgpo-train{merged}. {state}\n\nIt answers questions about images. "
        + (_LOOKS if config.make_template().max_turns > 1 else "It looks once, at the image as the budget shows it.")
    )


def _loading(config: MGPOConfig, adapter: bool) -> str:
    pixels = f"min_pixels={config.budget.min_pixels}, max_pixels={config.budget.max_pixels}"
    auto = "from transformers import AutoModelForImageTextToText, AutoProcessor"
    trust = ", trust_remote_code=True" if config.trust_remote_code else ""
    read = f'AutoModelForImageTextToText.from_pretrained({{}}, dtype="auto"{trust})'
    processor = f"processor = AutoProcessor.from_pretrained(name, {pixels}{trust})"
    if not adapter:
        lines = [auto, "", HERE, f"model = {read.format('name')}", processor]
    elif is_hub_id(config.model):
        base = f"base = {read.format(json.dumps(config.model))}"
        lines = [auto, "from peft import PeftModel", "", HERE, base, "model = PeftModel.from_pretrained(base, name)"]
        lines.append(processor)
    else:
        lines = ["from mgpo_core.engines.loading import load_model, load_processor", "", HERE]
        lines += ["model = load_model(name)  # the base that adapter_config.json names, the adapter merged"]
        lines += ["processor = load_processor(name)"]
    code = "\n".join(lines)
    return (
        f"## Loading\n\n```python\n{code}\n```\n\n`mgpo-demo --model NAME` runs it on your images, and `mgpo-eval "
        "--model mgpo --model_args pretrained=NAME --tasks ...` scores it; both read `mgpo.json`, which says how."
    )


def _prompts(template: Template) -> str:
    text = "\n\n".join(f"{title}:\n\n````text\n{said}\n````" for title, said in prompt_texts(template))
    return (
        f"## Prompts\n\nTemplate `{template.name}`. `<image>` is an image, and what is in braces comes from the "
        f"question; choices are listed where there are some.\n\n{text}"
    )


def prompt_texts(template: Template) -> list[tuple[str, str]]:
    """(heading, text) of everything that the template says, for a question with two choices about one image."""
    image = Image.new("RGB", (28, 28))
    sample = Sample("{question}", (image,), choices=("{choice A}", "{choice B}"))
    found = [(message["role"].capitalize(), _shown(message)) for message in template.opening(sample, [image])]
    outcomes = {
        "with the crop": CropOutcome(image, Box(0, 0, 28, 28), None),
        "after an invalid box": CropOutcome(None, None, "outside"),
    }
    for turn in range(template.max_turns - 1):
        for title, outcome in outcomes.items():
            message = template.follow_up(sample, [image], outcome, turn)
            if message is not None:
                found.append((f"{message['role'].capitalize()}, turn {turn + 2}, {title}", _shown(message)))
    return found


def _shown(message: Message) -> str:
    return "".join("<image>" if part["type"] == "image" else part["text"] for part in message["content"])


def _rollout_settings(config: MGPOConfig) -> str:
    budget, rules = config.budget, config.rules
    rows = {
        "pixels of an image (and of a crop)": f"{budget.min_pixels:,} to {budget.max_pixels:,}, sides multiples of "
        f"{budget.factor}",
        "coordinates of boxes": f"`{config.space.value}`",
        "valid boxes": f"sides over {rules.min_side:g} pixels, aspect under {rules.max_aspect:g}"
        + (", the exact format alone" if config.strict_boxes else ""),
        "turns": str(config.make_template().max_turns),
        "tokens of a response": f"at most {config.max_response}",
        "decoding in training": "none (answers were given)" if config.method == "sft" else _decoding(config),
        "decoding in evaluation": "temperature 1" + (", and greedy" if config.eval_greedy else ""),
    }
    return "## Pixel budget, boxes, decoding\n\n" + _table(["", ""], rows.items())


def _decoding(config: MGPOConfig) -> str:
    more = [f"{name} {value}" for name in ("top_p", "top_k") if (value := getattr(config, name)) not in (None, 0, 1.0)]
    return ", ".join([f"temperature {config.temperature:g}", *more])


def _training(config: MGPOConfig, facts: RunFacts | None) -> str:
    text = "## Training\n\nOptions of mgpo-train that differ from its defaults:\n\n"
    text += f"```yaml\n{yaml.safe_dump(options_given(config), sort_keys=False, allow_unicode=True)}```"
    if facts is None:
        return text + "\n\nThe data are not recorded: the trainer was called from Python."
    rows = [
        (f"`{name}`", public_source(getattr(config, name)), f"{used:,}", f"{skipped:,}")
        for name, (used, skipped) in facts.rows.items()
    ]
    text += "\n\n" + _table(["data", "source", "samples", "rows skipped"], rows)
    versions = facts.summary.get("versions", {})
    return text + ("\n\n" + ", ".join(f"{name} {number}" for name, number in versions.items()) if versions else "")


def options_given(config: MGPOConfig) -> dict[str, Any]:
    """The method, the model, and every other option that a card may show and whose value is not the default."""
    shown = [option.name for title, group in grouped_fields().items() if title not in _NOT_SHOWN for option in group]
    declared = {field.name: field for field in fields(config)}
    found: dict[str, Any] = {"method": config.method, "model": public_text(config.model)}
    for name in [*shown, *OTHER_OPTIONS]:
        if name in found or name not in declared or isinstance(getattr(config, name), Mapping):
            continue  # mappings (vllm_options) may hold anything
        field, value = declared[name], getattr(config, name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if value != default:
            found[name] = _public(getattr(value, "value", value))
    return found


def _public(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_public(entry) for entry in value]
    return value if isinstance(value, (bool, int, float)) or value is None else public_text(str(value))


def _scores(summary: Mapping[str, Any], step: int | None) -> str:
    rows = table_rows(summary)
    text = "## Scores\n\n"
    if len(rows) > 1:
        text += "Means with their 95% intervals, over n samples.\n\n" + _table(rows[0], rows[1:])
    if step is not None or not any(key.startswith(("after", "ood_after")) for key in summary):
        late = "" if step is None else "The scores after training come with the finished model. "
        text += ("\n\n" if len(rows) > 1 else "") + (late or "This run did not evaluate the trained model.")
    if best := summary.get("best"):
        text += f"\n\nBest in training: `{best['metric']}` {best['value']:.3f} after step {best['step']}."
    return text.rstrip()


def _caveats(config: MGPOConfig, summary: Mapping[str, Any], best: Mapping[str, Any] | None) -> str:
    counts = {scores["n"] for scores in summary.values() if isinstance(scores, Mapping) and "n" in scores}
    found = [
        "The scores hold for the pixel budget, the prompts and the decoding above. Others were not measured.",
        f"They are from {min(counts):,} samples: differences within the intervals say nothing."
        if counts
        else "No score is recorded here.",
        "What the model does on images unlike its training data was not measured, beyond what the table shows.",
        "A research model, not a product: it may be wrong, and sure of it. Check its answers.",
        "Its licence follows from those of the base model and the data; this card does not know them.",
    ]
    if config.model == "haystack:base":
        found.insert(0, f"{haystack.BASE_WAS_TAUGHT} What training adds is to be read against that.")
    if best is not None:
        found.insert(0, "Chosen for its score among many: that score is too good by some. Measure it on other samples.")
    if config.reward_control != "none":
        found.insert(0, "A control: rewards were dealt out at random, so that nothing could be learnt from them.")
    return "## Caveats\n\n" + "\n".join(f"- {line}" for line in found)


def _table(headings: list[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', '&#124;') for cell in line)} |" for line in lines)
