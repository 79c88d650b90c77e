"""Folders of PEFT: `adapter_config.json` and tensors `base_model.model.PATH.lora_A.weight`, `.lora_B.weight`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import regex

from jaxphoton.messages import first_line, quoted, short
from jaxphoton.models.naming import WeightsError
from jaxphoton.models.tensors import AdapterNames
from jaxphoton.weights.adapters.pairs import Faults, Stored, adapted, check_modules, paired, without_merged
from jaxphoton.weights.mapped import MappedFile

CONFIG, WEIGHTS = "adapter_config.json", ("adapter_model.safetensors", "adapter_model.bin")

# Beside these, initialisations take a part out of the base's weights: the pairs stand for what is left of it.
PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
# What changes the result, but as plain pairs do; off when it is absent, false, null or empty.
REFUSED = {
    "use_dora": "DoRA scales the rows of the sum",
    "lora_bias": "a bias beside the pairs",
    "modules_to_save": "whole modules beside the pairs",
    "target_parameters": "pairs of parameters such as stacked experts",
    "trainable_token_indices": "rows of the embedding",
    "layer_replication": "another model, of repeated layers",
    "fan_in_fan_out": "matrices stored the other way round",
    "use_qalora": "QA-LoRA pools the input",
    "alora_invocation_tokens": "activated LoRA starts behind some tokens",
    "use_bdlora": "BD-LoRA has block-diagonal matrices",
    "arrow_config": "Arrow routes between adapters",
    "monteclora_config": "MonteCLoRA draws its pairs",
    "kasa_config": "KaSA has singular values between the matrices",
    "velora_config": "VeLoRA keeps more tensors",
}
# What says how it was made or trained, and nothing about the result.
PASSED_OVER = frozenset(
    "auto_mapping base_model_name_or_path corda_config ensure_weight_tying eva_config exclude_modules inference_mode "
    "layers_pattern layers_to_transform loftq_config lora_dropout lora_ga_config megatron_config megatron_core "
    "peft_version qalora_group_size revision runtime_config target_modules task_type".split()
)
READ = frozenset("peft_type r lora_alpha rank_pattern alpha_pattern use_rslora bias init_lora_weights".split())

_PAIR = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_([AB])\.weight", re.DOTALL)
_OTHERS = (
    (re.compile(r".*\.lora_magnitude_vector(\.weight)?", re.DOTALL), "DoRA's magnitudes"),
    (re.compile(r".*\.lora_B\.bias", re.DOTALL), "biases beside pairs (lora_bias)"),
    (re.compile(r".*\.base_layer\.bias", re.DOTALL), "biases of the base"),
    (re.compile(r".*\.lora_embedding_[AB]", re.DOTALL), "pairs of an embedding"),
    (re.compile(r".*\.trainable_tokens_delta", re.DOTALL), "rows of the embedding"),
)
_LONGEST = 1.0  # seconds for one pattern: some take longer than anybody waits
_MOST_REPEATS = 10_000  # all counts of a pattern together: a compiled one has a place for each


def stored(file: MappedFile, config: Any, names: AdapterNames, merging: bool = False) -> dict[str, Stored]:
    """The pairs of a folder, without those of modules that are never run.

    Args:
      config: of its `adapter_config.json`.
      merging: those of `AdapterNames.merged` too; otherwise they must be zero, and are left out.

    Raises:
      WeightsError: settings or tensors that are not computed here, or do not go together, by name.
    """
    if not isinstance(config, dict):
        raise WeightsError(f"{CONFIG}: not a JSON object")
    try:
        settings = _Settings(config)
    except WeightsError as error:
        raise WeightsError(f"{CONFIG}: {error}") from None
    faults, found, paths = Faults(), {}, {}
    for name in file.entries:
        match = _PAIR.fullmatch(name)
        if match is None:
            faults.add(next((what for form, what in _OTHERS if form.fullmatch(name)), "unknown tensors"), name)
            continue
        key = names.module(match[1]), match[2].lower()
        if key in found:
            faults.add(f"the same as {short(found[key])}", name)
        found[key], paths[key[0]] = name, match[1]
    pairs = paired(found, faults)
    pairs = {module: pair for module, pair in pairs.items() if not names.is_unused(module)}
    if not merging:
        pairs = without_merged(file, pairs, names, faults)
    check_modules(list(pairs), adapted(names, merging), faults)
    faults.raise_any()
    scaled = {}
    for module, pair in pairs.items():
        rank, scale = settings.of(paths[module])
        if file.entries[pair.a].shape[:1] != (rank,):
            faults.add(f"not of rank {rank}, which {CONFIG} says", pair.a)
        scaled[module] = Stored(pair.a, pair.b, scale)
    faults.raise_any()
    return scaled


class _Settings:
    """What `adapter_config.json` says of ranks and scales.

    Raises:
      WeightsError: it says more, which is not computed here, or is not valid.
    """

    def __init__(self, config: Mapping[str, Any]):
        if config.get("peft_type") != "LORA":
            raise WeightsError(f"peft_type {quoted(config.get('peft_type'))}; only LORA is supported")
        if wrong := [*_refused(config)]:
            raise WeightsError(f"not supported: {'; '.join(wrong)}")
        self._rank = _rank("r", config.get("r"))
        self._alpha = _number("lora_alpha", config.get("lora_alpha"))
        self._ranks = _pattern(config, "rank_pattern", _rank)
        self._alphas = _pattern(config, "alpha_pattern", _number)
        rooted = config.get("use_rslora")
        if rooted not in (None, False, True):
            raise WeightsError(f"use_rslora must be true or false, not {quoted(rooted)}")
        self._rooted = bool(rooted)

    def of(self, path: str) -> tuple[int, float]:
        """Rank and scale of the module at a path.

        Raises:
          WeightsError: a pattern takes too long.
        """
        rank = _matched(self._ranks, path, self._rank)
        return rank, _matched(self._alphas, path, self._alpha) / (math.sqrt(rank) if self._rooted else rank)


def _refused(config: Mapping[str, Any]):
    for name, reason in REFUSED.items():
        if config.get(name) not in (None, False, [], {}, ""):
            yield f"{name} ({reason})"
    if config.get("bias") not in (None, "none"):
        yield f"bias {quoted(config['bias'])} (biases of the base are changed)"
    start = config.get("init_lora_weights")
    if (start.lower() if isinstance(start, str) else start) not in PLAIN_STARTS:
        yield f"init_lora_weights {quoted(start)} (the pairs are for a base that it has changed)"
    # What a later PEFT adds is off when it is null or false; numbers and texts are details of something else.
    for name in sorted(config.keys() - REFUSED.keys() - PASSED_OVER - READ):
        if config[name] is True or (isinstance(config[name], dict | list) and config[name]):
            yield f"{short(name)} (not known here)"


def _pattern(config: Mapping[str, Any], name: str, value: Callable[[str, Any], Any]) -> list[tuple[regex.Pattern, Any]]:
    """Its expressions, in their order, as PEFT completes them: the end of a path, behind a dot."""
    held = config.get(name) or {}
    if not isinstance(held, dict):
        raise WeightsError(f"{name} must be an object")
    compiled = []
    for key, one in held.items():
        counts = (
            int(count[:9]) for braces in re.findall(r"\{([0-9,]*)\}", key) for count in re.findall("[0-9]+", braces)
        )
        if math.prod(counts) > _MOST_REPEATS:
            raise WeightsError(f"{name}: {quoted(key)} repeats a part more than {_MOST_REPEATS} times")
        try:
            # Python's syntax, in a library that gives up in time.
            compiled.append((regex.compile(rf"(.*\.)?({key})$"), value(f"{name} of {short(key)}", one)))
        except (regex.error, OverflowError, RecursionError) as error:
            raise WeightsError(f"{name}: {quoted(key)} is not a regular expression ({first_line(error)})") from None
    return compiled


def _matched(pattern: list[tuple[regex.Pattern, Any]], path: str, default: Any) -> Any:
    try:
        return next((value for key, value in pattern if key.match(path, timeout=_LONGEST)), default)
    except TimeoutError:
        raise WeightsError(f"{CONFIG}: a pattern takes too long to match") from None


def _rank(name: str, value: Any) -> int:
    if type(value) is not int or not 1 <= value < 1e9:
        raise WeightsError(f"{name} must be a whole number from 1 to 1e9, not {quoted(value)}")
    return value


def _number(name: str, value: Any) -> float:
    if type(value) not in (int, float) or not -1e9 < value < 1e9:
        raise WeightsError(f"{name} must be a number, not {quoted(value)}")
    return float(value)
