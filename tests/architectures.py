"""Tiny models of many architectures and tasks, made from transformers' own config classes, with random weights.

Every weight is drawn so that signals neither vanish nor explode, and heads are scaled so that a decision has a margin:
what is left over then is the error of the chain, not the toss of a coin.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiny_models import write_tokenizer

HEAD_GAIN = 6.0
#: Parameters of the last layer of a task, by parts of their names.
HEADS = (
    "classifier",
    "qa_outputs",
    "score",
    "class_embed",
    "class_labels_classifier",
    "lm_head",
    "decoder.weight",
    "predictions",
    "logit_proj",
)


@dataclass(frozen=True)
class Architecture:
    """One case: how a snapshot of it is saved, and for which task it goes through the chain.

    ``requested`` is the task to ask for, where the one inferred is another. ``expected`` says why the chain must not
    accept it, as a part of the message or the metric that misses; None where it must pass.
    """

    name: str
    task: str
    save: Callable[[Path], None]
    requested: str | None = None
    expected: str | None = None


def randomize(model: Any, seed: int = 0) -> Any:
    """Draw a model's weights anew: matrices scaled to their inputs, biases small, layer scales away from zero."""
    import torch

    generator = torch.Generator().manual_seed(seed)

    def noise(parameter: Any) -> Any:
        return torch.randn(parameter.shape, generator=generator)

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.is_floating_point() or "parametrizations" in name or "logit_scale" in name:
                continue
            if parameter.ndim >= 2 and min(parameter.shape) > 1:
                gain = HEAD_GAIN if any(part in name for part in HEADS) else 1.0
                parameter.copy_(noise(parameter) * gain / math.sqrt(parameter[0].numel()))
            elif parameter.ndim == 1 and "norm" not in name.lower() and parameter.abs().max() < 0.5:
                if any(part in name for part in ("lambda", "gamma", "layer_scale")):
                    parameter.fill_(0.5)
                elif name.endswith("bias"):
                    parameter.copy_(noise(parameter) * 0.1)
    return model.eval()


TEXT_SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 80,
    "type_vocab_size": 2,
    "pad_token_id": 0,
}

#: Text encoders: config class, what differs from TEXT_SIZES.
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertConfig", {}),
    "albert": ("AlbertConfig", {"embedding_size": 32}),
    "roberta": ("RobertaConfig", {}),
    "xlm-roberta": ("XLMRobertaConfig", {}),
    "camembert": ("CamembertConfig", {}),
    "electra": ("ElectraConfig", {"embedding_size": 32}),
    "distilbert": ("DistilBertConfig", {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128}),
    "mpnet": ("MPNetConfig", {}),
    "deberta": ("DebertaConfig", {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
    "deberta-v2": ("DebertaV2Config", {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
    "modernbert": ("ModernBertConfig", {"local_attention": 16, "global_attn_every_n_layers": 2}),
    "mobilebert": (
        "MobileBertConfig",
        {"embedding_size": 32, "intra_bottleneck_size": 32, "true_hidden_size": 32, "num_feedforward_networks": 2},
    ),
    "convbert": ("ConvBertConfig", {"embedding_size": 64, "conv_kernel_size": 5}),
    "squeezebert": ("SqueezeBertConfig", {"embedding_size": 64}),
    "nystromformer": ("NystromformerConfig", {"num_landmarks": 8, "segment_means_seq_len": 8}),
    "rembert": ("RemBertConfig", {"input_embedding_size": 32, "output_embedding_size": 32}),
    "roformer": ("RoFormerConfig", {"embedding_size": 64}),
    "ibert": ("IBertConfig", {}),
    "megatron-bert": ("MegatronBertConfig", {}),
    "data2vec-text": ("Data2VecTextConfig", {}),
    "big_bird": ("BigBirdConfig", {"attention_type": "original_full"}),
    "esm": ("EsmConfig", {"position_embedding_type": "rotary", "mask_token_id": 4}),
    "longformer": ("LongformerConfig", {"attention_window": 8}),
}

TEXT_TASKS = {
    "feature-extraction": ("AutoModel", {}),
    "text-classification": ("AutoModelForSequenceClassification", {"num_labels": 5}),
    "token-classification": ("AutoModelForTokenClassification", {"num_labels": 5}),
    "question-answering": ("AutoModelForQuestionAnswering", {}),
    "fill-mask": ("AutoModelForMaskedLM", {}),
    "multiple-choice": ("AutoModelForMultipleChoice", {}),
}

DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 80}),
    "llama": ("LlamaConfig", {"num_key_value_heads": 2}),
    "mistral": ("MistralConfig", {"num_key_value_heads": 2}),
    "qwen2": ("Qwen2Config", {"num_key_value_heads": 2}),
    "qwen3": ("Qwen3Config", {"num_key_value_heads": 2, "head_dim": 16}),
    "opt": ("OPTConfig", {"ffn_dim": 128, "word_embed_proj_dim": 64}),
}


def save_text_model(folder: Path, config_class: str, auto_class: str, options: dict[str, Any]) -> None:
    """Save a text model with the tiny WordPiece tokenizer."""
    import torch
    import transformers

    size = write_tokenizer(folder)
    config = getattr(transformers, config_class)(**TEXT_SIZES | {"vocab_size": size} | options)
    torch.manual_seed(0)
    model = getattr(transformers, auto_class).from_config(config)
    randomize(model).save_pretrained(folder)


def text_cases(task: str, names: dict[str, tuple[str, dict[str, Any]]]) -> list[Architecture]:
    """Return the cases of a text task for some architectures."""
    auto_class, head = TEXT_TASKS[task]
    cases = []
    for name, (config_class, sizes) in names.items():

        def save(folder: Path, config_class=config_class, options=sizes | head) -> None:
            save_text_model(folder, config_class, auto_class, options)

        expected = "cosine" if name == "longformer" else None
        requested = task if task == "fill-mask" else None
        cases.append(Architecture(f"{name} {task}", task, save, requested, expected))
    return cases


def save_sentence_transformer(folder: Path, pooling: str, dense: bool, encoder: str = "bert") -> None:
    """Save a sentence-transformer with one kind of pooling, with or without a Dense module and normalization."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    base = folder.parent / f"{folder.name}-encoder"
    config_class, sizes = (ENCODERS | DECODERS)[encoder]
    save_text_model(base, config_class, "AutoModel", sizes)
    transformer = Transformer(str(base), max_seq_length=48)
    modules = [transformer, Pooling(transformer.get_embedding_dimension(), pooling_mode=pooling)]
    if dense:
        modules += [randomize(Dense(64, 32)), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))


def save_cross_encoder(folder: Path, encoder: str = "bert") -> None:
    """Save a reranker the way sentence-transformers does."""
    from sentence_transformers import CrossEncoder

    base = folder.parent / f"{folder.name}-encoder"
    config_class, sizes = ENCODERS[encoder]
    save_text_model(base, config_class, "AutoModelForSequenceClassification", sizes | {"num_labels": 1})
    CrossEncoder(str(base), device="cpu").save_pretrained(str(folder))
