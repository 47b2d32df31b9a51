"""Values of a ``config.json`` that no model can have, or that contradict each other. Standard library only.

transformers checks types when it makes a model, with a traceback, after the weights were fetched; and takes some of
these values without a word.
"""

import difflib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from onnxproof.checkpoint.problem import ProblemError
from onnxproof.checkpoint.reading import Checkpoint
from onnxproof.checkpoint.untrusted import shortened
from onnxproof.tasks.heads import PROBLEM_TYPES

#: Keys that hold a whole number, as the architectures spell them. Some have a number a stage.
WHOLE_NUMBERS = frozenset(
    [
        "attention_window",
        "d_ff",
        "d_kv",
        "d_model",
        "decoder_attention_heads",
        "decoder_ffn_dim",
        "decoder_layers",
        "embedding_size",
        "encoder_attention_heads",
        "encoder_ffn_dim",
        "encoder_layers",
        "head_dim",
        "hidden_size",
        "image_size",
        "intermediate_size",
        "max_position_embeddings",
        "n_embd",
        "n_head",
        "n_heads",
        "n_inner",
        "n_layer",
        "n_layers",
        "n_positions",
        "num_attention_heads",
        "num_channels",
        "num_decoder_layers",
        "num_hidden_layers",
        "num_key_value_heads",
        "num_layers",
        "patch_size",
        "projection_dim",
        "sliding_window",
        "type_vocab_size",
        "vocab_size",
        "num_labels",
    ]
)
#: Those of which nothing is left at zero.
POSITIVE = frozenset(["hidden_size", "num_attention_heads", "vocab_size", "d_model", "n_embd", "n_head", "n_heads"])
#: Keys that hold a fraction or a small number.
NUMBERS = frozenset(
    ["layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps", "rope_theta", "norm_eps", "layernorm_epsilon"]
)
#: Keys that hold true or false, and change answers.
SWITCHES = frozenset(
    [
        "is_decoder",
        "add_cross_attention",
        "tie_word_embeddings",
        "scale_embedding",
        "use_cache",
        "do_stable_layer_norm",
        "is_encoder_decoder",
        "attention_bias",
        "mlp_bias",
        "scale_attn_weights",
    ]
)
#: Keys that name an activation function.
ACTIVATION_KEYS = frozenset(
    ["hidden_act", "activation_function", "activation", "hidden_activation", "dense_act_fn", "feat_extract_activation"]
)
#: The activation functions of transformers 5.24; a test holds them against the installed one.
ACTIVATIONS = frozenset(
    [
        "gelu",
        "gelu_10",
        "gelu_accurate",
        "gelu_fast",
        "gelu_new",
        "gelu_python",
        "gelu_python_tanh",
        "gelu_pytorch_tanh",
        "hardswish",
        "laplace",
        "leaky_relu",
        "linear",
        "mish",
        "prelu",
        "quick_gelu",
        "relu",
        "relu2",
        "relu6",
        "sigmoid",
        "silu",
        "sqrtsoftplus",
        "swish",
        "tanh",
        "xielu",
    ]
)
#: Types that weights are saved in, as torch names them.
TYPES = ("float32", "float16", "bfloat16", "float64", "auto", "torch.float32", "torch.float16", "torch.bfloat16")


#: Every key that a configuration class of transformers knows, written by tools/list_config_keys.py.
KEYS_FILE = Path(__file__).with_name("config_keys.txt")
#: A key that no class knows is taken for a slip where it is that much like one of the keys above, which is not there.
#: Published configurations have many keys that nothing reads; none of them comes so near.
LIKENESS = 0.9


@cache
def known_keys() -> frozenset[str]:
    """Return the keys of ``KEYS_FILE``."""
    return frozenset(KEYS_FILE.read_text(encoding="utf-8").split())


def misspelled(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each key that transformers would ignore, with the key that was meant."""
    meant = sorted((WHOLE_NUMBERS | NUMBERS | SWITCHES | ACTIVATION_KEYS) - config.keys())
    for key in config:
        if key not in known_keys() and not key.startswith("_"):
            for other in difflib.get_close_matches(key, meant, 1, LIKENESS):
                yield key, other


def check_config_values(checkpoint: Checkpoint) -> None:
    """Refuse values of the wrong type, unknown names of functions, and labels that contradict each other."""
    if checkpoint.has_own_code:
        return
    for problem in problems_in(checkpoint.config):
        raise ProblemError(f"{checkpoint.place}config.json: {problem}")


def problems_in(config: Mapping[str, Any], place: str = "") -> Iterator[str]:
    """Yield what is wrong with a configuration and those inside it, as ``'key' is value, must be …``."""
    model_type, architectures = config.get("model_type"), config.get("architectures")
    if model_type is not None and not isinstance(model_type, str):
        yield f"'{place}model_type' is {shortened(model_type)}, must be a text such as 'bert'"
    if architectures is not None and not (
        isinstance(architectures, list) and all(isinstance(name, str) for name in architectures)
    ):
        yield f"'{place}architectures' is {shortened(architectures)}, must be a list of names of classes"
    for key, value in config.items():
        if fault := _fault_of(key, value):
            yield f"'{place}{key}' is {shortened(value)}, must be {fault}"
    yield from (f"'{place}{problem}" for problem in _label_problems(config))
    for key, other in misspelled(config):
        yield f"'{place}{key}' is a key of no model of transformers, which would ignore it; '{other}' may be meant"
    for key, value in config.items():
        if isinstance(value, dict) and (key.endswith("_config") or key in ("encoder", "decoder")):
            yield from problems_in(value, f"{place}{key}.")


def _fault_of(key: str, value: Any) -> str | None:
    """Return what the value of a key must be, where it is something else."""
    if value is None:
        return None
    if key in WHOLE_NUMBERS:
        numbers = value if isinstance(value, list) and value else [value]
        least = 1 if key in POSITIVE else 0
        if isinstance(value, dict) and key in ("image_size", "patch_size"):
            numbers = list(value.values())
        if not all(_is_whole(number) or isinstance(number, list) for number in numbers):
            return "a whole number"
        if any(number < least and number != -1 for number in numbers if _is_whole(number)):
            return f"a whole number of at least {least}"
    if key in NUMBERS and (isinstance(value, bool) or not isinstance(value, int | float)):
        return "a number"
    if key in SWITCHES and not isinstance(value, bool) and value not in (0, 1):
        return "true or false"
    if key in ACTIVATION_KEYS and not (isinstance(value, str) and value in ACTIVATIONS):
        return f"an activation function of transformers: {', '.join(sorted(ACTIVATIONS))}"
    if key in ("dtype", "torch_dtype") and value not in TYPES:
        return f"one of {', '.join(TYPES)}"
    if key == "problem_type" and value not in PROBLEM_TYPES:
        return f"one of {', '.join(PROBLEM_TYPES)}"
    return None


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _label_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the names of a head's classes; the sentence begins behind the first quote."""
    names, count = config.get("id2label"), config.get("num_labels")
    if names is None:
        return
    if not isinstance(names, dict) or not all(isinstance(name, str | int | float) for name in names.values()):
        yield f"id2label' is {shortened(names)}, must map the number of each class to its name"
        return
    numbers = sorted(int(key) if str(key).isdecimal() else -1 for key in names)
    if numbers != list(range(len(numbers))):
        yield f"id2label' has the keys {shortened(list(names))}, must number the classes 0, 1, 2 … without a gap"
    elif _is_whole(count) and count != len(names):
        yield f"num_labels' is {count}, but 'id2label' names {len(names)} classes: they must agree"
    if config.get("problem_type") == "single_label_classification" and len(names) == 1:
        yield "problem_type' is 'single_label_classification', which needs at least two classes; 'id2label' names one"
