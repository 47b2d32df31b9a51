"""What makes a model's answers other than its folder promises: each found in the small files, and refused by one line.

A loader ignores what it does not know, and answers. So everything that these checks name is refused before weights are
fetched, where the files tell it, and before they are loaded where only the headers of the weights do. Each function
raises ``ProblemError`` with one sentence; ``FIRST_CHECKS`` and ``CHECKS`` list them in
the order in which they are asked.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from onnxproof.checkpoint.config_values import check_config_values
from onnxproof.checkpoint.layout import MODULE_FOLDER
from onnxproof.checkpoint.problem import ProblemError
from onnxproof.checkpoint.reading import Checkpoint
from onnxproof.checkpoint.sentence import check_kind, check_modules
from onnxproof.checkpoint.tokenizers import check_processors, check_tokenizer
from onnxproof.checkpoint.untrusted import shortened

#: Files that a library for adapters writes: they change the answers of the weights beside them.
ADAPTER_FILES = re.compile(r"adapter_config\.json|adapter_model\..+|pytorch_adapter\.bin|adapter\d*\.(safetensors|bin)")
#: Parts of the names of an adapter's weights.
ADAPTER_WEIGHTS = re.compile(
    r"(^|\.)(base_model\.model|lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector|ia3_l|hada_w\d_[ab]|lokr_w\d(_[ab])?|"
    r"oft_[rR]|boft_[rRs]|vera_lambda_[bd]|modules_to_save|prompt_embeddings|prompt_encoder)(\.|$)"
)
#: What wrappers put before the names of all weights: torch.compile, DataParallel, FSDP, DeepSpeed.
WRAPPERS = re.compile(r"(^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.|^module\.")
#: Endings of the names of weights that are packed, or of their scales.
QUANTIZED_WEIGHTS = re.compile(
    r"\.(qweight|qzeros|g_idx|SCB|weight_format|weight_scale(_inv)?|weight_packed|weight_shape|weight_zero_point|"
    r"input_scale|output_scale|activation_scale|absmax|quant_map|nested_absmax|nested_quant_map|"
    r"quant_state\.bitsandbytes__(nf4|fp4)|_(blocks|scales)|codebooks|codes)$|_(blocks|scales)$"
)
#: Files in which a quantizer keeps its settings.
QUANTIZER_FILES = ("quantize_config.json", "quant_config.json", "quant_method.json")
UNQUANTIZED = "take the model that it was made from, in float32, float16 or bfloat16"


def check_adapters(checkpoint: Checkpoint) -> None:
    """Refuse adapters, beside the weights or in their place; the names of the files tell, none is read."""
    for name in sorted(checkpoint.names):
        folder, _, file = name.rpartition("/")
        if (not folder or MODULE_FOLDER.fullmatch(folder)) and ADAPTER_FILES.fullmatch(file):
            raise ProblemError(
                f"{name} belongs to an adapter, such as LoRA's, which changes the answers of the weights: merge it "
                "first (PEFT: model.merge_and_unload(), then save_pretrained)"
            )


def check_quantization(checkpoint: Checkpoint) -> None:
    """Refuse weights that were quantized already: their reference needs kernels, and would be an approximation."""
    for place, config in _objects_in(checkpoint.config):
        for key in ("quantization_config", "compression_config"):
            if config.get(key) is not None:
                settings = config[key]
                method = settings.get("quant_method") if isinstance(settings, dict) else settings
                raise ProblemError(
                    f"{checkpoint.place}config.json: '{place}{key}' says that the weights are quantized already "
                    f"({shortened(method or 'method unknown')}): {UNQUANTIZED}"
                )
    for name in QUANTIZER_FILES:
        if checkpoint.has(f"{checkpoint.place}{name}"):
            raise ProblemError(f"{checkpoint.place}{name} says that the weights are quantized already: {UNQUANTIZED}")


def check_weight_names(checkpoint: Checkpoint) -> None:
    """Refuse weights whose names tell that a loader would not find them, or not understand them."""
    names = sorted(checkpoint.weight_names)
    file = next(iter(checkpoint.weight_files), "the weights")
    for pattern, fault in (
        (ADAPTER_WEIGHTS, "an adapter's: merge it first (PEFT: model.merge_and_unload(), then save_pretrained)"),
        (QUANTIZED_WEIGHTS, f"a quantized weight's: {UNQUANTIZED}"),
        (
            WRAPPERS,
            "that of a wrapped module (torch.compile, DataParallel, FSDP), which no loader finds: save the module "
            "inside the wrapper",
        ),
    ):
        found = [name for name in names if pattern.search(name)]
        if pattern is QUANTIZED_WEIGHTS and found and not _are_packed(checkpoint, found):
            continue
        if found:
            raise ProblemError(f"{file}: {shortened(found[0])} ({len(found)} of {len(names)} names) is {fault}")


def _are_packed(checkpoint: Checkpoint, names: Iterable[str]) -> bool:
    """Tell whether names that quantizers use belong to quantized weights: others are in floating point alone."""
    floats = {"F16", "BF16", "F32", "F64"}
    types = [kind for kind, _ in checkpoint.tensors.values()]
    certain = re.compile(r"\.(qweight|SCB|weight_scale(_inv)?|weight_packed|absmax|quant_state.*)$")
    return any(kind not in floats | {"I64", "BOOL", "I32"} for kind in types) or any(map(certain.search, names))


def _objects_in(config: Mapping[str, Any], place: str = "") -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Yield a configuration and those inside it, each with where it stands."""
    yield place, config
    for key, value in config.items():
        if isinstance(value, dict) and place.count(".") < 8:
            yield from _objects_in(value, f"{place}{key}.")


#: What is asked before anything else: such folders need not even have a ``config.json``.
FIRST_CHECKS: tuple[Callable[[Checkpoint], None], ...] = (check_adapters, check_kind)
CHECKS: tuple[Callable[[Checkpoint], None], ...] = (
    check_quantization,
    check_modules,
    check_config_values,
    check_tokenizer,
    check_processors,
    check_weight_names,
)


def refusals(checkpoint: Checkpoint) -> list[str]:
    """Return why a model cannot be served rightly, a sentence for each check that fails; empty where none does."""
    found: dict[str, None] = {}
    for check in (*FIRST_CHECKS, *CHECKS):
        try:
            check(checkpoint)
        except ProblemError as problem:
            found[str(problem)] = None
    return list(found)
