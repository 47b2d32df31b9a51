"""Tiny models of many architectures and tasks, made from transformers' own config classes, with random weights.

Every weight is drawn so that signals neither vanish nor explode, and heads are scaled so that a decision has a margin:
what is left over then is the error of the chain, not the toss of a coin.
"""

import argparse
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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
    "proj_out",
    "decoder.weight",
    "predictions",
    "logit_proj",
)


@dataclass(frozen=True)
class Architecture:
    """One case: how a snapshot of it is saved, and for which task it goes through the chain.

    ``requested`` is the task to ask for, where the one inferred is another.
    """

    name: str
    task: str
    save: Callable[[Path], None]
    requested: str | None = None


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
            is_depthwise = parameter.ndim == 4 and parameter.shape[1] == 1  # a convolution of each channel by itself
            if (parameter.ndim >= 2 and min(parameter.shape) > 1) or is_depthwise:
                gain = HEAD_GAIN if any(part in name for part in HEADS) else 1.0
                parameter.copy_(noise(parameter) * gain / math.sqrt(parameter[0].numel()))
            elif parameter.ndim == 1 and "norm" not in name.lower() and (parameter.abs() < 0.5).all():
                if any(part in name for part in ("lambda", "gamma", "layer_scale")):
                    parameter.fill_(0.5)
                elif name.endswith("bias"):
                    parameter.copy_(noise(parameter) * 0.1)
    return model.eval()


def settle_batch_norms(model: Any, height: int, width: int) -> Any:
    """Give every batch normalization the statistics of what it is given, as training does.

    Without them signals vanish on their way through many convolutions, and a model answers all images alike.
    """
    import torch

    def measure(module: Any, inputs: tuple[Any, ...]) -> None:
        axes = [axis for axis in range(inputs[0].ndim) if axis != 1]
        module.running_mean.copy_(inputs[0].mean(axes))
        module.running_var.copy_(inputs[0].var(axes).clamp(min=1e-6))

    hooks = [
        module.register_forward_pre_hook(measure)
        for module in model.modules()
        if getattr(module, "running_var", None) is not None
    ]
    if hooks:
        with torch.no_grad():
            model(torch.randn((4, 3, height, width), generator=torch.Generator().manual_seed(0)))
    for hook in hooks:
        hook.remove()
    return model


TEXT_SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 80,
    "pad_token_id": 0,
}

XLM_SIZES = {"emb_dim": 64, "n_layers": 2, "n_heads": 4, "use_lang_emb": False, "pad_index": 0, "mask_index": 4}

#: Text encoders: config class, what differs from TEXT_SIZES.
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertConfig", {}),
    "albert": ("AlbertConfig", {"embedding_size": 32}),
    "roberta": ("RobertaConfig", {"type_vocab_size": 1}),
    "xlm-roberta": ("XLMRobertaConfig", {"type_vocab_size": 1}),
    "camembert": ("CamembertConfig", {"type_vocab_size": 1}),
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
    "data2vec-text": ("Data2VecTextConfig", {"type_vocab_size": 1}),
    "big_bird": ("BigBirdConfig", {"attention_type": "original_full"}),
    "esm": ("EsmConfig", {"position_embedding_type": "rotary", "mask_token_id": 4}),
    "longformer": ("LongformerConfig", {"attention_window": 8}),
    "flaubert": ("FlaubertConfig", XLM_SIZES),
    "xlm": ("XLMConfig", XLM_SIZES),
}

TEXT_TASKS = {
    "feature-extraction": ("AutoModel", {}),
    "text-classification": ("AutoModelForSequenceClassification", {"num_labels": 5}),
    "token-classification": ("AutoModelForTokenClassification", {"num_labels": 5}),
    "question-answering": ("AutoModelForQuestionAnswering", {}),
    "fill-mask": ("AutoModelForMaskedLM", {}),
    "multiple-choice": ("AutoModelForMultipleChoice", {}),
    "text-generation": ("AutoModelForCausalLM", {"tie_word_embeddings": False}),
    "text2text-generation": ("AutoModelForSeq2SeqLM", {}),
}

DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 80}),
    "llama": ("LlamaConfig", {"num_key_value_heads": 2}),
    "mistral": ("MistralConfig", {"num_key_value_heads": 2}),
    "qwen2": ("Qwen2Config", {"num_key_value_heads": 2}),
    "qwen3": ("Qwen3Config", {"num_key_value_heads": 2, "head_dim": 16}),
    "opt": ("OPTConfig", {"ffn_dim": 128, "word_embed_proj_dim": 64}),
}

GROUPED = {"num_key_value_heads": 2}
SIZED = GROUPED | {"head_dim": 16}
GPT = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 80}
#: Decoders that generate text, beside DECODERS.
GENERATORS: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma": ("GemmaConfig", SIZED),
    "gemma2": ("Gemma2Config", SIZED | {"sliding_window": 16}),
    "gemma3_text": ("Gemma3TextConfig", SIZED | {"sliding_window": 16}),
    "phi": ("PhiConfig", {}),
    "phi3": ("Phi3Config", GROUPED | {"bos_token_id": 2, "eos_token_id": 3}),
    "bloom": ("BloomConfig", {"n_layer": 2, "n_head": 4}),
    "gpt_neox": ("GPTNeoXConfig", {}),
    "gpt_neo": (
        "GPTNeoConfig",
        {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 16},
    ),
    "gptj": ("GPTJConfig", GPT | {"rotary_dim": 8}),
    "gpt_bigcode": ("GPTBigCodeConfig", GPT),
    "codegen": ("CodeGenConfig", GPT | {"rotary_dim": 8}),
    "falcon": ("FalconConfig", {}),
    "mpt": ("MptConfig", {"d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 80, "expansion_ratio": 2}),
    "granite": ("GraniteConfig", GROUPED),
    "olmo": ("OlmoConfig", {}),
    "olmo2": ("Olmo2Config", {}),
    "stablelm": ("StableLmConfig", GROUPED),
    "cohere": ("CohereConfig", GROUPED),
    "smollm3": ("SmolLM3Config", GROUPED),
    "nemotron": ("NemotronConfig", GROUPED),
    "glm": ("GlmConfig", SIZED),
    "helium": ("HeliumConfig", SIZED),
    "arcee": ("ArceeConfig", GROUPED),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        SIZED | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "mlp_only_layers": []},
    ),
    "gpt_oss": ("GptOssConfig", SIZED | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16}),
    "deepseek_v3": (
        "DeepseekV3Config",
        {
            "num_key_value_heads": 4,
            "q_lora_rank": 32,
            "kv_lora_rank": 32,
            "qk_rope_head_dim": 8,
            "v_head_dim": 16,
            "qk_nope_head_dim": 16,
            "n_routed_experts": 4,
            "n_group": 2,
            "topk_group": 1,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 64,
            "first_k_dense_replace": 1,
        },
    ),
}

T5_SIZES = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
T5_SIZES |= {"decoder_start_token_id": 0, "eos_token_id": 3, "tie_word_embeddings": False}
BART_SIZES = {"d_model": 64, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 2}
for side in ("encoder", "decoder"):
    BART_SIZES |= {f"{side}_layers": 2, f"{side}_attention_heads": 4, f"{side}_ffn_dim": 128}
#: Encoder-decoders that write text.
TRANSLATORS: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("T5Config", T5_SIZES),
    "mt5": ("MT5Config", T5_SIZES),
    "longt5": ("LongT5Config", T5_SIZES | {"tie_word_embeddings": True}),
    "bart": ("BartConfig", BART_SIZES),
    "mbart": ("MBartConfig", BART_SIZES),
    "marian": ("MarianConfig", BART_SIZES),
    "m2m_100": ("M2M100Config", BART_SIZES),
    "pegasus": ("PegasusConfig", BART_SIZES),
    "blenderbot": ("BlenderbotConfig", BART_SIZES),
    "blenderbot-small": ("BlenderbotSmallConfig", BART_SIZES),
    "bigbird_pegasus": ("BigBirdPegasusConfig", BART_SIZES | {"attention_type": "original_full"}),
}


def save_text_model(folder: Path, config_class: str, auto_class: str, options: dict[str, Any]) -> None:
    """Save a text model with the tiny WordPiece tokenizer."""
    import torch
    import transformers

    size = write_tokenizer(folder)
    sizes = TEXT_SIZES | {"vocab_size": size} | options
    # None is for a size that the type does not have.
    config = getattr(transformers, config_class)(**{key: value for key, value in sizes.items() if value is not None})
    torch.manual_seed(0)
    model = getattr(transformers, auto_class).from_config(config)
    randomize(model).save_pretrained(folder)
    # Tokenizers of models without types of tokens name none; XLM and FlauBERT look them up among the words.
    if (getattr(config, "type_vocab_size", None) or 0) < 2 and config.model_type not in ("xlm", "flaubert"):
        names = ["input_ids", "attention_mask"]
        transformers.AutoTokenizer.from_pretrained(folder, model_input_names=names).save_pretrained(folder)


def text_cases(task: str, names: dict[str, tuple[str, dict[str, Any]]]) -> list[Architecture]:
    """Return the cases of a text task for some architectures."""
    auto_class, head = TEXT_TASKS[task]
    cases = []
    for name, (config_class, sizes) in names.items():

        def save(folder: Path, config_class=config_class, options=sizes | head) -> None:
            save_text_model(folder, config_class, auto_class, options)

        requested = task if task == "fill-mask" else None
        cases.append(Architecture(f"{name} {task}", task, save, requested))
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


IMAGE_SIZES = {"image_size": 32, "patch_size": 8, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
IMAGE_SIZES |= {"intermediate_size": 128}
HIERARCHY = {"image_size": 32, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4}
CONVOLUTIONS = {"depths": [1, 1], "hidden_sizes": [16, 32]}

#: Image models: config class, sizes, and how many pixels a side the processor makes.
BACKBONES: dict[str, tuple[str, dict[str, Any], int]] = {
    "vit": ("ViTConfig", IMAGE_SIZES, 32),
    "deit": ("DeiTConfig", IMAGE_SIZES | {"architectures": ["DeiTForImageClassification"]}, 32),
    "beit": ("BeitConfig", IMAGE_SIZES, 32),
    "data2vec-vision": ("Data2VecVisionConfig", IMAGE_SIZES, 32),
    "dinov2": ("Dinov2Config", IMAGE_SIZES | {"mlp_ratio": 2}, 32),
    "vit_msn": ("ViTMSNConfig", IMAGE_SIZES, 32),
    "swin": ("SwinConfig", HIERARCHY | {"patch_size": 4}, 32),
    "swinv2": ("Swinv2Config", HIERARCHY | {"patch_size": 4}, 32),
    "convnext": ("ConvNextConfig", CONVOLUTIONS | {"num_stages": 2}, 32),
    "convnextv2": ("ConvNextV2Config", CONVOLUTIONS | {"num_stages": 2}, 32),
    "resnet": ("ResNetConfig", CONVOLUTIONS | {"embedding_size": 16}, 32),
    "regnet": ("RegNetConfig", CONVOLUTIONS | {"embedding_size": 16, "groups_width": 8}, 32),
    "poolformer": ("PoolFormerConfig", {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 16, 32, 32]}, 64),
    "mobilenet_v1": ("MobileNetV1Config", {"depth_multiplier": 0.25, "image_size": 64}, 64),
    "mobilenet_v2": ("MobileNetV2Config", {"depth_multiplier": 0.25, "image_size": 64}, 64),
    "mobilevit": (
        "MobileViTConfig",
        {"image_size": 64, "hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8] * 7},
        64,
    ),
    "levit": (
        "LevitConfig",
        {
            "image_size": 64,
            "hidden_sizes": [16, 32, 48],
            "num_attention_heads": [1, 2, 3],
            "depths": [1, 1, 1],
            "architectures": ["LevitForImageClassification"],
        },
        64,
    ),
    "segformer": (
        "SegformerConfig",
        {
            "hidden_sizes": [8, 16, 24, 32],
            "depths": [1, 1, 1, 1],
            "decoder_hidden_size": 32,
            "num_attention_heads": [1, 2, 3, 4],
        },
        64,
    ),
    "hiera": ("HieraConfig", {"image_size": [64, 64], "embed_dim": 16, "depths": [1, 1, 1, 1]}, 64),
    "pvt": (
        "PvtConfig",
        {"image_size": 64, "hidden_sizes": [8, 16, 24, 32], "depths": [1] * 4, "num_attention_heads": [1, 2, 3, 4]},
        64,
    ),
    "cvt": ("CvtConfig", {"embed_dim": [16, 32, 48], "num_heads": [1, 2, 3], "depth": [1, 2, 3]}, 64),
    "efficientnet": (
        "EfficientNetConfig",
        {"width_coefficient": 0.25, "depth_coefficient": 0.3, "hidden_dim": 320},
        64,
    ),
}

RESNET_BACKBONE = {"model_type": "resnet", "embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1] * 4}
DETECTOR_SIZES: dict[str, Any] = {
    "d_model": 64,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "num_queries": 20,
    "num_labels": 6,
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "backbone": None,
}


def write_image_processor(folder: Path, side: int) -> None:
    """Save an image processor that scales to a square and normalizes."""
    from transformers import ViTImageProcessor

    ViTImageProcessor(size={"height": side, "width": side}).save_pretrained(folder)


def save_image_model(
    folder: Path, config_class: str, auto_class: str, options: dict[str, Any], side: int, width: int | None = None
) -> None:
    """Save an image model with its processor, for squares unless there is a ``width``."""
    import torch
    import transformers

    write_image_processor(folder, side)
    config = getattr(transformers, config_class)(**options)
    torch.manual_seed(0)
    model = getattr(transformers, auto_class).from_config(config)
    settle_batch_norms(randomize(model), side, width or side).save_pretrained(folder)


def image_cases(task: str, auto_class: str, names: list[str], **head: Any) -> list[Architecture]:
    """Return the cases of an image task for some backbones."""
    cases = []
    for name in names:
        config_class, options, side = BACKBONES[name]

        def save(folder: Path, config_class=config_class, options=options | head, side=side) -> None:
            save_image_model(folder, config_class, auto_class, options, side)

        cases.append(Architecture(f"{name} {task}", task, save))
    return cases


def save_detr(folder: Path, config_class: str = "DetrConfig") -> None:
    """Save a DETR, or a model like it, with a ResNet backbone."""
    from transformers import ResNetConfig

    backbone = ResNetConfig(**RESNET_BACKBONE, out_features=["stage4"])
    options = DETECTOR_SIZES | {"backbone_config": backbone}
    save_image_model(folder, config_class, "AutoModelForObjectDetection", options, 64)


def save_rt_detr(folder: Path, config_class: str = "RTDetrConfig") -> None:
    """Save an RT-DETR with its own kind of ResNet."""
    from transformers import RTDetrResNetConfig

    backbone = RTDetrResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32, 48, 64], depths=[1] * 4, out_features=["stage2", "stage3", "stage4"]
    )
    options = {
        "backbone_config": backbone,
        "encoder_hidden_dim": 32,
        "encoder_in_channels": [32, 48, 64],
        "feat_strides": [8, 16, 32],
        "encoder_ffn_dim": 64,
        "encoder_attention_heads": 4,
        "d_model": 32,
        "num_queries": 20,
        "decoder_in_channels": [32, 32, 32],
        "decoder_ffn_dim": 64,
        "decoder_attention_heads": 4,
        "decoder_layers": 2,
        "num_denoising": 0,
        "anchor_image_size": None,
        "num_labels": 6,
    }
    save_image_model(folder, config_class, "AutoModelForObjectDetection", options, 64)


def save_yolos(folder: Path) -> None:
    """Save a YOLOS."""
    options = IMAGE_SIZES | {"image_size": [64, 64], "num_detection_tokens": 20, "num_labels": 6}
    save_image_model(folder, "YolosConfig", "AutoModelForObjectDetection", options, 64)


def save_dpt(folder: Path, task: str) -> None:
    """Save a DPT for depth estimation or segmentation."""
    sizes = IMAGE_SIZES | {"num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3]}
    sizes |= {"neck_hidden_sizes": [8, 16, 24, 32], "fusion_hidden_size": 16, "num_labels": 5, "is_hybrid": False}
    auto_class = {"depth-estimation": "DepthEstimation", "semantic-segmentation": "SemanticSegmentation"}[task]
    save_image_model(folder, "DPTConfig", f"AutoModelFor{auto_class}", sizes, 32)


def save_glpn(folder: Path) -> None:
    """Save a GLPN."""
    sizes = {
        "hidden_sizes": [8, 16, 24, 32],
        "depths": [1] * 4,
        "decoder_hidden_size": 16,
        "num_attention_heads": [1, 2, 3, 4],
    }
    save_image_model(folder, "GLPNConfig", "AutoModelForDepthEstimation", sizes, 64)


def save_two_towers(folder: Path, kind: str) -> None:
    """Save a CLIP, Chinese CLIP or SigLIP with the tiny tokenizer."""
    import torch
    import transformers

    size = write_tokenizer(folder)
    if kind == "siglip":  # it was trained without a mask
        transformers.AutoTokenizer.from_pretrained(folder, model_input_names=["input_ids"]).save_pretrained(folder)
    write_image_processor(folder, 32)
    text = {key: TEXT_SIZES[key] for key in TEXT_SIZES if key != "max_position_embeddings"}
    text |= {"vocab_size": size, "bos_token_id": 2, "eos_token_id": 3}
    text["max_position_embeddings"] = 64
    config_class = {"clip": "CLIPConfig", "chinese_clip": "ChineseCLIPConfig", "siglip": "SiglipConfig"}[kind]
    config = getattr(transformers, config_class)(text_config=text, vision_config=dict(IMAGE_SIZES), projection_dim=32)
    torch.manual_seed(0)
    randomize(transformers.AutoModel.from_config(config)).save_pretrained(folder)


WAVE_SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "conv_dim": [32] * 3,
    "conv_stride": [8, 8, 4],
    "conv_kernel": [10, 8, 4],
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 20,
    "classifier_proj_size": 32,
    "num_labels": 6,
    "tdnn_dim": [32, 32, 64],
    "tdnn_kernel": [3, 3, 1],
    "tdnn_dilation": [1, 2, 1],
    "xvector_output_dim": 32,
}

#: Models of waveforms: config class, what differs from WAVE_SIZES.
LISTENERS: dict[str, tuple[str, dict[str, Any]]] = {
    "wav2vec2": ("Wav2Vec2Config", {}),
    "wav2vec2 layer-norm": ("Wav2Vec2Config", {"feat_extract_norm": "layer", "do_stable_layer_norm": True}),
    "hubert": ("HubertConfig", {}),
    "wavlm": ("WavLMConfig", {}),
    "unispeech": ("UniSpeechConfig", {}),
    "unispeech-sat": ("UniSpeechSatConfig", {}),
    "data2vec-audio": ("Data2VecAudioConfig", {"num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 7}),
    "sew": ("SEWConfig", {"squeeze_factor": 2}),
    "sew-d": ("SEWDConfig", {"squeeze_factor": 2, "max_position_embeddings": 64, "position_buckets": 16}),
    "wav2vec2-conformer": ("Wav2Vec2ConformerConfig", {"conv_depthwise_kernel_size": 7}),
}


def save_listener(folder: Path, config_class: str, auto_class: str, options: dict[str, Any]) -> None:
    """Save a model of waveforms with its feature extractor."""
    import torch
    import transformers

    transformers.Wav2Vec2FeatureExtractor(sampling_rate=4000).save_pretrained(folder)
    config = getattr(transformers, config_class)(**WAVE_SIZES | options)
    torch.manual_seed(0)
    model = getattr(transformers, auto_class).from_config(config)
    randomize(model).save_pretrained(folder)


def sound_cases(task: str, auto_class: str, names: list[str]) -> list[Architecture]:
    """Return the cases of a sound task for some models of waveforms."""
    cases = []
    for name in names:
        config_class, options = LISTENERS[name]

        def save(folder: Path, config_class=config_class, options=options) -> None:
            save_listener(folder, config_class, auto_class, options)

        cases.append(Architecture(f"{name} {task}", task, save))
    return cases


def save_spectrogram_transformer(folder: Path) -> None:
    """Save an audio spectrogram transformer."""
    import torch
    import transformers

    transformers.ASTFeatureExtractor(num_mel_bins=32, max_length=64).save_pretrained(folder)
    sizes = IMAGE_SIZES | {"num_mel_bins": 32, "max_length": 64, "num_labels": 6}
    config = transformers.ASTConfig(**{key: value for key, value in sizes.items() if key != "image_size"})
    torch.manual_seed(0)
    model = transformers.AutoModelForAudioClassification.from_config(config)
    randomize(model).save_pretrained(folder)


WRITER_SIZES: dict[str, Any] = {"vocab_size": 200, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
WRITER_SIZES |= {"decoder_start_token_id": 2}
SPEECH_SIZES = BART_SIZES | WRITER_SIZES | {"max_target_positions": 80, "tie_word_embeddings": False}


def save_network(folder: Path, model_class: str, config: Any) -> None:
    """Save a model of one of transformers' own classes."""
    import torch
    import transformers

    torch.manual_seed(0)
    randomize(getattr(transformers, model_class)(config)).save_pretrained(folder)


def save_whisper(folder: Path, model_class: str, seconds: int = 1, bins: int = 16) -> None:
    """Save a Whisper that hears some seconds, in so many bands of frequencies."""
    import transformers

    words = write_tokenizer(folder)
    transformers.WhisperFeatureExtractor(feature_size=bins, chunk_length=seconds).save_pretrained(folder)
    sizes = SPEECH_SIZES | {
        "vocab_size": words,
        "num_mel_bins": bins,
        "max_source_positions": 50 * seconds,
        "num_labels": 6,
    }
    sizes |= {"suppress_tokens": [], "begin_suppress_tokens": []}
    save_network(folder, model_class, transformers.WhisperConfig(**sizes))


def save_moonshine(folder: Path) -> None:
    """Save a Moonshine."""
    import transformers

    transformers.Wav2Vec2FeatureExtractor(sampling_rate=4000, do_normalize=False).save_pretrained(folder)
    sizes: dict[str, Any] = WRITER_SIZES | {"hidden_size": 64, "intermediate_size": 128}
    for side in ("encoder", "decoder"):
        sizes |= {f"{side}_num_hidden_layers": 2, f"{side}_num_attention_heads": 4}
    save_network(folder, "MoonshineForConditionalGeneration", transformers.MoonshineConfig(**sizes))


def save_speech_to_text(folder: Path) -> None:
    """Save a Speech2Text."""
    import transformers

    transformers.Speech2TextFeatureExtractor(feature_size=16, num_mel_bins=16).save_pretrained(folder)
    sizes = SPEECH_SIZES | {"input_feat_per_channel": 16, "conv_channels": 32, "max_source_positions": 500}
    save_network(folder, "Speech2TextForConditionalGeneration", transformers.Speech2TextConfig(**sizes))


#: Decoders that are put behind an encoder of their own: config class, sizes.
SECOND_HALVES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", GPT | {"bos_token_id": 2, "eos_token_id": 3}),
    "bert": ("BertConfig", TEXT_SIZES),
    "trocr": (
        "TrOCRConfig",
        {
            "d_model": 64,
            "decoder_layers": 2,
            "decoder_attention_heads": 4,
            "decoder_ffn_dim": 128,
            "cross_attention_hidden_size": 64,
        },
    ),
}


def save_two_halves(folder: Path, model_class: str, encoder: Any, decoder: str) -> None:
    """Save an encoder with a decoder that writes about what it reads."""
    import transformers

    config_class, sizes = SECOND_HALVES[decoder]
    sizes = sizes | {"vocab_size": 200, "max_position_embeddings": 80, "is_decoder": True, "add_cross_attention": True}
    sizes |= {"tie_word_embeddings": False}
    joined = getattr(transformers, model_class.replace("Model", "Config"))
    config = joined.from_encoder_decoder_configs(encoder, getattr(transformers, config_class)(**sizes))
    config.decoder_start_token_id, config.pad_token_id = 2, 0
    save_network(folder, model_class, config)


def save_captioner(folder: Path, decoder: str) -> None:
    """Save an image encoder with a decoder that writes about what it sees."""
    import transformers

    write_tokenizer(folder)
    write_image_processor(folder, 32)
    save_two_halves(folder, "VisionEncoderDecoderModel", transformers.ViTConfig(**IMAGE_SIZES), decoder)


def save_translator(folder: Path, decoder: str) -> None:
    """Save a BERT with a decoder that writes about what it reads."""
    import transformers

    encoder = transformers.BertConfig(**TEXT_SIZES | {"vocab_size": write_tokenizer(folder)})
    save_two_halves(folder, "EncoderDecoderModel", encoder, decoder)


def save_pix2struct(folder: Path) -> None:
    """Save a Pix2Struct that reads 32 patches."""
    import transformers

    write_tokenizer(folder)
    words = transformers.AutoTokenizer.from_pretrained(folder).backend_tokenizer
    tokenizer = transformers.T5TokenizerFast(tokenizer_object=words, extra_ids=0)
    patches = transformers.Pix2StructImageProcessor(patch_size={"height": 4, "width": 4}, max_patches=32)
    transformers.Pix2StructProcessor(patches, tokenizer).save_pretrained(folder)
    layers = {"hidden_size": 64, "d_kv": 16, "d_ff": 128}
    text = layers | {"vocab_size": 200, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
    vision = layers | {"patch_embed_hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "seq_len": 32}
    config = transformers.Pix2StructConfig(text_config=text, vision_config=vision, tie_word_embeddings=False)
    save_network(folder, "Pix2StructForConditionalGeneration", config)


def save_open_detector(folder: Path, kind: str) -> None:
    """Save an OWL-ViT or OWLv2, which finds what texts name."""
    import transformers

    size = write_tokenizer(folder)
    names = ["input_ids", "attention_mask"]
    transformers.AutoTokenizer.from_pretrained(folder, model_input_names=names).save_pretrained(folder)
    write_image_processor(folder, 64)
    layers = {key: TEXT_SIZES[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
    layers |= {"intermediate_size": 128}
    text = layers | {"vocab_size": size, "max_position_embeddings": 64, "bos_token_id": 2, "eos_token_id": 3}
    vision = layers | {"image_size": 64, "patch_size": 16}
    config_class, model_class = {
        "owlvit": ("OwlViTConfig", "OwlViTForObjectDetection"),
        "owlv2": ("Owlv2Config", "Owlv2ForObjectDetection"),
    }[kind]
    config = getattr(transformers, config_class)(text_config=text, vision_config=vision, projection_dim=64)
    save_network(folder, model_class, config)


def save_maskformer(folder: Path) -> None:
    """Save a MaskFormer with a Swin backbone."""
    import transformers

    write_image_processor(folder, 64)
    stages = [f"stage{number}" for number in range(1, 5)]
    sizes = HIERARCHY | {"image_size": 64, "patch_size": 4, "depths": [1] * 4, "num_heads": [1, 2, 2, 4]}
    decoder = DETECTOR_SIZES | {
        "backbone_config": transformers.ResNetConfig(**RESNET_BACKBONE, out_features=["stage4"])
    }
    config = transformers.MaskFormerConfig(
        backbone_config=transformers.SwinConfig(**sizes, out_features=stages),
        decoder_config=transformers.DetrConfig(**decoder),
        fpn_feature_size=32,
        mask_feature_size=32,
        num_labels=5,
    )
    save_network(folder, "MaskFormerForInstanceSegmentation", config)


def save_detr_segmentation(folder: Path) -> None:
    """Save a DETR that segments."""
    import transformers

    write_image_processor(folder, 64)
    stages = [f"stage{number}" for number in range(1, 5)]
    backbone = transformers.ResNetConfig(**RESNET_BACKBONE, out_features=stages)
    sizes = DETECTOR_SIZES | {"backbone_config": backbone, "encoder_attention_heads": 8, "decoder_attention_heads": 8}
    save_network(folder, "DetrForSegmentation", transformers.DetrConfig(**sizes))


def save_upscaler(folder: Path) -> None:
    """Save a Swin2SR, which doubles the size of images."""
    import transformers

    transformers.Swin2SRImageProcessor(pad_size=4).save_pretrained(folder)
    sizes = {"image_size": 32, "embed_dim": 16, "depths": [1], "num_heads": [2], "window_size": 4, "upscale": 2}
    save_network(folder, "Swin2SRForImageSuperResolution", transformers.Swin2SRConfig(**sizes))


def all_cases() -> list[Architecture]:
    """Return every case of the matrix."""
    every = list(ENCODERS)
    some = ["bert", "roberta", "distilbert", "mpnet", "deberta-v2", "albert", "electra"]
    cases = text_cases("feature-extraction", ENCODERS)
    cases += text_cases("text-classification", {name: ENCODERS[name] for name in every if name not in ("esm", "ibert")})
    for task in ("token-classification", "question-answering", "fill-mask", "multiple-choice"):
        names = [name for name in (*some, "modernbert") if (name, task) not in WITHOUT]
        cases += text_cases(task, {name: ENCODERS[name] for name in names})
    cases += text_cases("text-classification", DECODERS)
    cases += text_cases("text-generation", DECODERS | GENERATORS)
    cases += text_cases("text2text-generation", TRANSLATORS)
    cases += [
        Architecture(
            f"{encoder} sentences, {pooling}{', Dense' if dense else ''}",
            "sentence-similarity",
            partial(save_sentence_transformer, pooling=pooling, dense=dense, encoder=encoder),
        )
        for encoder, pooling, dense in SENTENCE_TRANSFORMERS
    ]
    cases += [
        Architecture(f"{encoder} reranker", "text-classification", partial(save_cross_encoder, encoder=encoder))
        for encoder in ("bert", "xlm-roberta")
    ]
    vision = [name for name in BACKBONES if name not in ("segformer", "pvt")]
    cases += image_cases("image-classification", "AutoModelForImageClassification", vision, num_labels=6)
    cases += image_cases("image-feature-extraction", "AutoModel", ["vit", "dinov2", "swin", "resnet", "pvt"])
    cases += image_cases("semantic-segmentation", "AutoModelForSemanticSegmentation", ["segformer"], num_labels=5)
    cases += [
        Architecture("detr object-detection", "object-detection", save_detr),
        Architecture("rt_detr object-detection", "object-detection", save_rt_detr),
        Architecture("yolos object-detection", "object-detection", save_yolos),
        Architecture(
            "table-transformer object-detection",
            "object-detection",
            partial(save_detr, config_class="TableTransformerConfig"),
        ),
        Architecture(
            "rt_detr_v2 object-detection", "object-detection", partial(save_rt_detr, config_class="RTDetrV2Config")
        ),
        Architecture(
            "dpt semantic-segmentation", "semantic-segmentation", partial(save_dpt, task="semantic-segmentation")
        ),
        Architecture("dpt depth-estimation", "depth-estimation", partial(save_dpt, task="depth-estimation")),
        Architecture("glpn depth-estimation", "depth-estimation", save_glpn),
    ]
    cases += [
        Architecture(f"{kind} zero-shot", "zero-shot-image-classification", partial(save_two_towers, kind=kind))
        for kind in ("clip", "chinese_clip", "siglip")
    ]
    cases += sound_cases("automatic-speech-recognition", "AutoModelForCTC", list(LISTENERS))
    cases += sound_cases("audio-classification", "AutoModelForAudioClassification", ["wav2vec2", "hubert", "wavlm"])
    cases += sound_cases("feature-extraction", "AutoModel", ["wav2vec2", "hubert"])
    cases.append(Architecture("spectrogram audio-classification", "audio-classification", save_spectrogram_transformer))
    cases += sound_cases("audio-frame-classification", "AutoModelForAudioFrameClassification", ["wav2vec2", "wavlm"])
    cases += sound_cases("audio-xvector", "AutoModelForAudioXVector", ["wav2vec2", "unispeech-sat"])
    whisper = {"speech-to-text": "ForConditionalGeneration", "audio-classification": "ForAudioClassification"}
    cases += [
        Architecture(f"whisper {task}", task, partial(save_whisper, model_class=f"Whisper{head}"))
        for task, head in whisper.items()
    ]
    cases += [
        Architecture("moonshine speech-to-text", "speech-to-text", save_moonshine),
        Architecture("speech_to_text speech-to-text", "speech-to-text", save_speech_to_text),
        Architecture("pix2struct image-to-text", "image-to-text", save_pix2struct),
        Architecture("maskformer image-segmentation", "image-segmentation", save_maskformer),
        Architecture("detr image-segmentation", "image-segmentation", save_detr_segmentation),
        Architecture("swin2sr image-to-image", "image-to-image", save_upscaler),
    ]
    cases += image_cases("semantic-segmentation", "AutoModelForSemanticSegmentation", ["mobilevit"], num_labels=5)
    cases += [
        Architecture(f"vit and {decoder} image-to-text", "image-to-text", partial(save_captioner, decoder=decoder))
        for decoder in SECOND_HALVES
    ]
    cases += [
        Architecture(
            f"bert and {decoder} text2text-generation",
            "text2text-generation",
            partial(save_translator, decoder=decoder),
        )
        for decoder in ("gpt2", "bert")
    ]
    cases += [
        Architecture(
            f"{kind} zero-shot-object-detection", "zero-shot-object-detection", partial(save_open_detector, kind=kind)
        )
        for kind in ("owlvit", "owlv2")
    ]
    return cases


#: Heads that transformers, or the exporter, does not have.
WITHOUT = {("modernbert", "question-answering"), ("modernbert", "multiple-choice")}
SENTENCE_TRANSFORMERS = (
    ("bert", "mean", False),
    ("bert", "cls", True),
    ("bert", "max", False),
    ("bert", "lasttoken", True),
    ("mpnet", "mean", True),
    ("xlm-roberta", "cls", False),
    ("distilbert", "mean", False),
    ("qwen3", "lasttoken", False),
)


def main(argv: list[str] | None = None) -> None:
    """Save the cases of these names to folders of their names, unless they are there, with this transformers."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="+")
    args = parser.parse_args(argv)
    cases = {case.name: case for case in all_cases()}
    for name in args.names:
        if not (args.folder / name).is_dir():
            stage = args.folder / f"{name}.part"
            shutil.rmtree(stage, ignore_errors=True)
            cases[name].save(stage)
            stage.rename(args.folder / name)


if __name__ == "__main__":
    main()
