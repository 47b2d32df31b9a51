"""Which models of sentence-transformers are served: their modules, and what ``encode()`` applies beside them.

Whatever cannot be served is refused by its name; nothing is left out of the chain in silence.
"""

from collections.abc import Callable
from typing import Any

from onnxproof.checkpoint.layout import MODULE_FOLDER
from onnxproof.checkpoint.problem import ProblemError
from onnxproof.checkpoint.reading import MODULES, SENTENCE_CONFIG, Checkpoint, Module
from onnxproof.checkpoint.untrusted import is_own_module, shortened

#: Kinds of models that sentence-transformers saves and that are served.
SERVED_KINDS = ("transformers", "SentenceTransformer", "CrossEncoder")
#: The modules that are served: class → whether it has weights of its own.
SERVED_MODULES = {
    "Transformer": True,
    "Pooling": False,
    "Dense": True,
    "LayerNorm": True,
    "Normalize": False,
    "Dropout": False,
    "CNN": True,
    "WordWeights": False,
    "WeightedLayerPooling": True,
}
#: Others that sentence-transformers has: class → what it does.
OTHER_MODULES = {
    "Asym": "it embeds queries and documents by different modules, and a graph has one way through",
    "BoW": "it counts words, without a transformer",
    "CLIPModel": "it embeds images and texts by two towers; export the CLIP model itself, without modules.json",
    "LSTM": "sentence-transformers 6 cannot run it on what its Transformer gives",
    "LogitScore": "it scores by single tokens of a language model",
    "MLMTransformer": "it gives sparse vectors",
    "MultiVectorMask": "it gives a vector a token, which are compared token by token",
    "Router": "it embeds queries and documents by different modules, and a graph has one way through",
    "SparseAutoEncoder": "it gives sparse vectors",
    "SparseStaticEmbedding": "it gives sparse vectors",
    "SpladePooling": "it gives sparse vectors",
    "StaticEmbedding": "it looks words up in a table, without a transformer",
    "TokenPooling": "it gives several vectors a text",
    "WordEmbeddings": "it looks words up in a table, without a transformer",
}
#: Modules that read the vector of a text, and so come behind Pooling.
AFTER_POOLING = ("Dense", "LayerNorm", "Normalize", "Dropout")
POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
#: How older versions name them: a switch each.
POOLING_SWITCHES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
#: Activation functions of torch that a Dense module is exported with.
ACTIVATIONS = frozenset(
    [
        "CELU",
        "ELU",
        "GELU",
        "GLU",
        "Hardshrink",
        "Hardsigmoid",
        "Hardswish",
        "Hardtanh",
        "LeakyReLU",
        "LogSigmoid",
        "LogSoftmax",
        "Mish",
        "PReLU",
        "ReLU",
        "ReLU6",
        "SELU",
        "Sigmoid",
        "SiLU",
        "Softmax",
        "Softplus",
        "Softshrink",
        "Softsign",
        "Tanh",
        "Tanhshrink",
    ]
)
#: What the Transformer module may be made with: key → what a value must be so that nothing changes but what is served.
TRANSFORMER_KEYS: dict[str, Callable[[Any], bool]] = {
    "max_seq_length": lambda value: value is None or (type(value) is int and value > 0),
    "do_lower_case": lambda value: isinstance(value, bool),
    "transformer_task": lambda value: value in (None, "feature-extraction", "sequence-classification"),
    "module_output_name": lambda value: value in (None, "token_embeddings", "scores"),
    "unpad_inputs": lambda value: not value,
    "processing_kwargs": lambda value: not value,
    "query_length": lambda value: value is None,
    "document_length": lambda value: value is None,
    "query_expansion": lambda value: not value,
    "tokenizer_name_or_path": lambda value: value is None,
}
#: What sentence-transformers reads of the network, by the task that it loads it for.
MODEL_OUTPUTS = {"feature-extraction": "last_hidden_state", "sequence-classification": "logits"}
#: Options of the loaders that change no answer in float32 on a CPU.
HARMLESS_OPTIONS = frozenset(
    [
        "attn_implementation",
        "torch_dtype",
        "dtype",
        "trust_remote_code",
        "device_map",
        "low_cpu_mem_usage",
        "use_safetensors",
    ]
)
OPTION_KEYS = (
    *("model_args", "model_kwargs", "config_args", "config_kwargs"),
    *("tokenizer_args", "processor_kwargs"),
)


def check_kind(checkpoint: Checkpoint) -> None:
    """Refuse kinds of models and modules of sentence-transformers that are not served, by their names."""
    if checkpoint.kind not in SERVED_KINDS:
        raise ProblemError(
            f"{SENTENCE_CONFIG}: 'model_type' is {shortened(checkpoint.kind)}, which is not served: take a "
            "SentenceTransformer, which gives one dense vector a text, or a CrossEncoder"
        )
    for module in checkpoint.modules:
        if is_own_module(module.type):
            _check_kind(module)


def check_modules(checkpoint: Checkpoint) -> None:
    """Refuse settings of modules, and of ``encode()``, that sentence-transformers does not know or apply."""
    modules = checkpoint.modules
    if not modules or not all(is_own_module(module.type) for module in modules):
        return  # code of the repository's own says what it does
    _check_order(checkpoint)
    _check_transformer(checkpoint)
    for module in checkpoint.modules[1:]:
        _check_module(checkpoint, module)
    _check_settings(checkpoint)


def _check_kind(module: Module) -> None:
    if module.kind not in SERVED_MODULES:
        why = OTHER_MODULES.get(module.kind, "this program does not know it")
        raise ProblemError(
            f"{MODULES} names the module {module.kind} of sentence-transformers, which is not served: {why}; served "
            f"are {', '.join(SERVED_MODULES)}"
        )


def _check_order(checkpoint: Checkpoint) -> None:
    modules = checkpoint.modules
    kinds = [module.kind for module in modules]
    if kinds[0] != "Transformer" or kinds.count("Transformer") > 1:
        raise ProblemError(f"{MODULES} names the modules {', '.join(kinds)}: one Transformer must come first")
    names = [entry.get("name") for entry in checkpoint.read(MODULES)]
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ProblemError(f"{MODULES}: the 'name' of each module must be there, and its own: {shortened(names)}")
    for module in modules:
        if module.path and not all(map(MODULE_FOLDER.fullmatch, module.path.split("/"))):
            raise ProblemError(
                f"{MODULES}: the 'path' {shortened(module.path)} must be a folder that begins with a number, such as "
                f"'1_{module.kind}'"
            )
    if checkpoint.kind == "CrossEncoder":
        if len(kinds) > 1:
            raise ProblemError(
                f"{MODULES} names the modules {', '.join(kinds)} of a CrossEncoder, of which only a Transformer alone "
                "is served: take a reranker with a head for sequence classification"
            )
        return
    if "Pooling" not in kinds:
        raise ProblemError(f"{MODULES} names the modules {', '.join(kinds)}: none of them makes a vector of a text")
    early = [kind for kind in kinds[: kinds.index("Pooling")] if kind in AFTER_POOLING]
    if early:
        raise ProblemError(f"{MODULES} names {early[0]} before Pooling: there is no vector of a text yet that it reads")


def _check_transformer(checkpoint: Checkpoint) -> None:
    file, settings = checkpoint.transformer_settings_file, checkpoint.transformer_settings
    task = "sequence-classification" if checkpoint.kind == "CrossEncoder" else "feature-extraction"
    if checkpoint.kind == "CrossEncoder":
        if settings.get("transformer_task") != task:
            raise ProblemError(
                f"{file or 'sentence_bert_config.json'}: 'transformer_task' is "
                f"{shortened(settings.get('transformer_task'))}, must be '{task}' for a CrossEncoder"
            )
        for key in ("max_seq_length", "do_lower_case"):
            if settings.get(key):
                raise ProblemError(
                    f"{file}: {key!r} is {shortened(settings[key])}, which only sentence-transformers would apply: "
                    "say it in tokenizer_config.json"
                )
    for key, value in settings.items():
        if key == "modality_config":
            wanted = {"method": "forward", "method_output_name": MODEL_OUTPUTS[task]}
            if not isinstance(value, dict) or value.get("text") != wanted:
                raise ProblemError(f"{file}: 'modality_config' is {shortened(value)}, must have for 'text' {wanted}")
        elif key in OPTION_KEYS:
            options = value if isinstance(value, dict) else {"": value}
            if set(options) - HARMLESS_OPTIONS:
                raise ProblemError(
                    f"{file}: {key!r} is {shortened(value)}, which only sentence-transformers would apply: save the "
                    "model with these settings in config.json or tokenizer_config.json"
                )
        elif key not in TRANSFORMER_KEYS:
            raise ProblemError(f"{file}: {key!r} is no setting of sentence-transformers' Transformer: remove it")
        elif not TRANSFORMER_KEYS[key](value) or (key == "transformer_task" and value not in (None, task)):
            raise ProblemError(f"{file}: {key!r} is {shortened(value)}, which is not served for a {checkpoint.kind}")


def _check_module(checkpoint: Checkpoint, module: Module) -> None:
    if module.kind == "Pooling":
        _check_pooling(module)
    if module.kind == "Dense":
        _check_dense(module)
    for key in ("module_input_name", "module_output_name"):
        if module.config.get(key) not in (None, "sentence_embedding"):
            raise ProblemError(
                f"{module.config_file}: {key!r} is {shortened(module.config[key])}, must be 'sentence_embedding'"
            )
    if SERVED_MODULES[module.kind]:
        files = [f"{module.path}/{name}" for name in ("model.safetensors", "pytorch_model.bin")]
        if not any(map(checkpoint.has, files)):
            raise ProblemError(
                f"{module.path} holds no weights of the module {module.kind}: one of {', '.join(files)} is needed"
            )


def _check_pooling(module: Module) -> None:
    config = module.config
    modes = pooling_modes(config)
    unknown = [mode for mode in modes if mode not in POOLING_MODES]
    if unknown or not modes:
        raise ProblemError(
            f"{module.config_file}: 'pooling_mode' is {shortened(config.get('pooling_mode'))}, must be one or more of "
            f"{', '.join(POOLING_MODES)}"
        )
    known = {*POOLING_SWITCHES, "pooling_mode", "include_prompt", "embedding_dimension", "word_embedding_dimension"}
    for key in config.keys() - known:
        raise ProblemError(f"{module.config_file}: {key!r} is no setting of sentence-transformers' Pooling: remove it")
    for key in (*POOLING_SWITCHES, "include_prompt"):
        if key in config and not isinstance(config[key], bool):
            raise ProblemError(f"{module.config_file}: {key!r} is {shortened(config[key])}, must be true or false")


def pooling_modes(config: Any) -> list[str]:
    """Return the ways in which a Pooling module joins the vectors of tokens, in the order of their parts."""
    if "pooling_mode" in config:
        mode = config["pooling_mode"]
        return [str(each) for each in mode] if isinstance(mode, list) else [str(mode)]
    return [mode for switch, mode in POOLING_SWITCHES.items() if config.get(switch)] or ["mean"]


def _check_dense(module: Module) -> None:
    config = module.config
    function = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    place, _, name = str(function).rpartition(".")
    allowed = place.startswith("torch.nn") and (name in ACTIVATIONS or name == "Identity")
    if not allowed:
        raise ProblemError(
            f"{module.config_file}: 'activation_function' is {shortened(function)}, must be a class of torch.nn, such "
            "as torch.nn.modules.activation.Tanh: of others sentence-transformers makes a Tanh"
        )


def _check_settings(checkpoint: Checkpoint) -> None:
    saved = checkpoint.sentence_config
    prompts = saved.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, str | None) for text in prompts.values()):
        raise ProblemError(f"{SENTENCE_CONFIG}: 'prompts' is {shortened(prompts)}, must map names to texts")
    settings = checkpoint.sentence_settings
    if settings.default_prompt_name is not None and settings.default_prompt_name not in settings.prompts:
        raise ProblemError(
            f"{SENTENCE_CONFIG}: 'default_prompt_name' is {shortened(settings.default_prompt_name)}, must be one of "
            f"'prompts': {shortened(list(settings.prompts))}"
        )
    if checkpoint.kind == "CrossEncoder" and settings.default_prompt:
        raise ProblemError(
            f"{SENTENCE_CONFIG}: 'default_prompt_name' is {shortened(settings.default_prompt_name)}: prompts of a "
            "CrossEncoder are not served"
        )
    if settings.similarity not in SIMILARITIES and checkpoint.kind == "SentenceTransformer":
        raise ProblemError(
            f"{SENTENCE_CONFIG}: 'similarity_fn_name' is {shortened(settings.similarity)}, must be one of "
            f"{', '.join(SIMILARITIES)}"
        )
    width = settings.truncate_dim
    if width is not None and (type(width) is not int or width < 1):
        raise ProblemError(f"{SENTENCE_CONFIG}: 'truncate_dim' is {shortened(width)}, must be a positive whole number")
    if not settings.include_prompt and any(settings.prompts.values()):
        place = next(module.config_file for module in checkpoint.modules if module.kind == "Pooling")
        named = next(name for name, text in settings.prompts.items() if text)
        raise ProblemError(
            f"{place}: 'include_prompt' is false, so that pooling leaves out the tokens of the prompt "
            f"{shortened(named)} in {SENTENCE_CONFIG}, which no graph can tell from the text: remove the prompts, or "
            "take a model that includes them"
        )
