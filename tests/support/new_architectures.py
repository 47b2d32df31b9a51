"""Cases of model types that only transformers 5 has, or that Optimum's exporter never had; see ``architectures``."""

from functools import partial
from pathlib import Path
from typing import Any

from architectures import (
    GROUPED,
    IMAGE_SIZES,
    SIZED,
    Architecture,
    randomize,
    save_image_model,
    save_network,
    text_cases,
    write_image_processor,
)
from tiny_models import write_tokenizer

#: Text encoders: config class, what differs from TEXT_SIZES.
NEW_ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "nomic_bert": ("NomicBertConfig", {}),
    "eurobert": ("EuroBertConfig", {"mask_token_id": 4}),
    "gte": ("GteConfig", {}),
    "jina_embeddings_v3": ("JinaEmbeddingsV3Config", {}),
    "ultrabert": ("UltrabertConfig", {"sliding_window": 16, "prediction_head_size": 64}),
    "esmc": ("EsmcConfig", {"mask_token_id": 4}),
    "ernie": ("ErnieConfig", {}),
    "fnet": ("FNetConfig", {}),
    "roberta-prelayernorm": ("RobertaPreLayerNormConfig", {"type_vocab_size": 1}),
    "xlm-roberta-xl": ("XLMRobertaXLConfig", {}),
    "xmod": ("XmodConfig", {"type_vocab_size": 1, "default_language": "en_XX"}),
    "yoso": ("YosoConfig", {}),
    "xlnet": (
        "XLNetConfig",
        {"d_model": 64, "n_layer": 2, "n_head": 4, "d_inner": 128, "max_position_embeddings": None},
    ),
    "luke": ("LukeConfig", {"entity_vocab_size": 10, "entity_emb_size": 16}),
    "bert-generation": ("BertGenerationConfig", {}),
    "modernbert-decoder": ("ModernBertDecoderConfig", {"local_attention": 16}),
    "embedding_gemma2_text": (
        "EmbeddingGemma2TextConfig",
        SIZED | {"sliding_window": 16, "hidden_size_per_layer_input": 16, "embedding_dim": 48},
    ),
}

#: Which heads of them are tried.
NEW_HEADS: dict[str, tuple[str, ...]] = {
    "feature-extraction": tuple(NEW_ENCODERS),
    "text-classification": (
        *("nomic_bert", "eurobert", "gte", "jina_embeddings_v3", "ultrabert", "esmc", "ernie", "fnet"),
        *("roberta-prelayernorm", "xlm-roberta-xl", "xmod", "xlnet", "luke", "modernbert-decoder"),
    ),
    "token-classification": ("nomic_bert", "eurobert", "gte", "ultrabert", "esmc", "ernie"),
    "question-answering": ("jina_embeddings_v3", "ultrabert", "ernie", "xlnet"),
    "fill-mask": ("nomic_bert", "eurobert", "gte", "ultrabert", "esmc", "jina_embeddings_v3", "fnet"),
    "multiple-choice": ("ernie", "roberta-prelayernorm", "xlnet"),
}
LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 32,
    "kv_lora_rank": 32,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "qk_nope_head_dim": 16,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "n_group": 1, "topk_group": 1}
MIXED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16}
#: Decoders: config class, what differs from TEXT_SIZES.
NEW_DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma4_text": (
        "Gemma4TextConfig",
        SIZED | MIXED | {"global_head_dim": 16, "vocab_size_per_layer_input": 200, "hidden_size_per_layer_input": 16},
    ),
    "lfm2": ("Lfm2Config", GROUPED | {"layer_types": ["conv", "full_attention"]}),
    "lfm3": ("Lfm3Config", SIZED | {"layer_types": ["conv", "full_attention"], "sliding_window": 16}),
    "ministral3": ("Ministral3Config", SIZED),
    "olmo3": ("Olmo3Config", MIXED),
    "exaone4": ("Exaone4Config", GROUPED | MIXED),
    "jais2": ("Jais2Config", {}),
    "youtu": ("YoutuConfig", LATENT),
    "nanochat": ("NanoChatConfig", {"bos_token_id": 2, "eos_token_id": 3}),
    "hyperclovax": ("HyperCLOVAXConfig", GROUPED),
    "cwm": ("CwmConfig", SIZED | MIXED | {"bos_token_id": 2, "eos_token_id": 3}),
    "apertus": ("ApertusConfig", GROUPED),
    "seed_oss": ("SeedOssConfig", SIZED),
    "hunyuan_v1_dense": ("HunYuanDenseV1Config", SIZED),
    "minicpm3": ("MiniCPM3Config", LATENT),
    "ernie4_5": ("Ernie4_5Config", SIZED),
    "glm4": ("Glm4Config", SIZED),
    "starcoder2": ("Starcoder2Config", GROUPED),
    "diffllama": ("DiffLlamaConfig", GROUPED),
    "internlm3": ("InternLM3Config", SIZED),
    "iquestcoder": ("IQuestCoderConfig", SIZED),
    "dory": (
        "DoryConfig",
        SIZED | {"sliding_window": 16, "n_input_layers": 1, "n_output_layers": 1} | {"num_hidden_layers": 3},
    ),
    "afmoe": ("AfmoeConfig", SIZED | MIXED | EXPERTS),
    "biogpt": ("BioGptConfig", {}),
    "kolibri1": ("Kolibri1Config", SIZED | MIXED | EXPERTS | {"shared_expert_intermediate_size": 64}),
    "beam": ("BeamConfig", SIZED | MIXED | EXPERTS | {"n_group": 2, "topk_group": 1}),
    "flint": ("FlintConfig", SIZED | MIXED | EXPERTS | {"shared_expert_intermediate_size": 64}),
    "persimmon": ("PersimmonConfig", {}),
    "mixtral": ("MixtralConfig", GROUPED | {"num_local_experts": 4}),
    "exaone": ("ExaoneConfig", GROUPED),
    "granite_swa": ("GraniteSWAConfig", GROUPED | MIXED),
    "granitemoe_swa": ("GraniteMoeSWAConfig", GROUPED | MIXED | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "mellum": ("MellumConfig", SIZED | MIXED | EXPERTS),
    "minimax_m2": ("MiniMaxM2Config", SIZED | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "solar_open": ("SolarOpenConfig", SIZED | ROUTED),
    "hy_v3": ("HYV3Config", SIZED | EXPERTS),
    "glm4_moe_lite": ("Glm4MoeLiteConfig", LATENT | ROUTED),
    "gemma4_unified_text": ("Gemma4UnifiedTextConfig", SIZED | MIXED | {"global_head_dim": 16}),
    "laguna": ("LagunaConfig", SIZED | MIXED | EXPERTS),
}
DECODER_HEADS: dict[str, tuple[str, ...]] = {
    "feature-extraction": ("gemma4_text", "lfm2", "lfm3", "youtu", "hyperclovax", "jais2"),
    "text-classification": ("ministral3", "olmo3", "exaone4", "seed_oss", "glm4", "minicpm3"),
    "text-generation": tuple(name for name in NEW_DECODERS),
}


STAGES = [f"stage{number}" for number in range(1, 5)]
FOUR = {"hidden_sizes": [8, 16, 24, 32], "depths": [1] * 4}
#: Image models: config class, sizes, and how many pixels a side the processor makes.
NEW_BACKBONES: dict[str, tuple[str, dict[str, Any], int]] = {
    "dinov3_vit": ("DINOv3ViTConfig", IMAGE_SIZES | {"num_register_tokens": 2}, 32),
    "dinov3_convnext": ("DINOv3ConvNextConfig", FOUR | {"image_size": 64}, 64),
    "dinov2_with_registers": ("Dinov2WithRegistersConfig", IMAGE_SIZES | {"mlp_ratio": 2}, 32),
    "siglip_vision_model": ("SiglipVisionConfig", IMAGE_SIZES, 32),
    "clip_vision_model": ("CLIPVisionConfig", IMAGE_SIZES, 32),
    "aimv2_vision_model": ("Aimv2VisionConfig", IMAGE_SIZES, 32),
    "tipsv2_vision_model": ("Tipsv2VisionConfig", IMAGE_SIZES | {"mlp_ratio": 2}, 32),
    "pixio": ("PixioConfig", IMAGE_SIZES | {"mlp_ratio": 2}, 32),
    "vitdet": ("VitDetConfig", IMAGE_SIZES | {"pretrain_image_size": 32, "mlp_ratio": 2}, 32),
    "ijepa": ("IJepaConfig", IMAGE_SIZES, 32),
    "focalnet": ("FocalNetConfig", FOUR | {"image_size": 64, "embed_dim": 8}, 64),
    "bit": ("BitConfig", FOUR | {"embedding_size": 8, "num_groups": 4}, 64),
    "swiftformer": (
        "SwiftFormerConfig",
        {"image_size": 64, "depths": [1] * 4, "embed_dims": [8, 16, 24, 32], "layer_scale_init_value": 0.5},
        64,
    ),
    "pvt_v2": ("PvtV2Config", FOUR | {"image_size": 64, "num_attention_heads": [1, 2, 3, 4]}, 64),
    "mobilevitv2": (
        "MobileViTV2Config",
        {"image_size": 64, "n_attn_blocks": [1, 1, 1], "base_attn_unit_dims": [16, 24, 32], "width_multiplier": 0.25},
        64,
    ),
    "hgnet_v2": (
        "HGNetV2Config",
        {
            "embedding_size": 8,
            "hidden_sizes": [16, 24, 32, 48],
            "stem_channels": [3, 8, 8],
            "stage_in_channels": [8, 16, 24, 32],
            "stage_mid_channels": [8, 8, 16, 16],
            "stage_out_channels": [16, 24, 32, 48],
            "stage_num_blocks": [1, 1, 1, 1],
            "stage_numb_of_layers": [2, 2, 2, 2],
        },
        64,
    ),
    "textnet": (
        "TextNetConfig",
        {"image_size": [64, 64], "stem_out_channels": 8, "hidden_sizes": [8, 8, 16, 24, 32]},
        64,
    ),
    "dinat": ("DinatConfig", {"embed_dim": 8, "depths": [1] * 4, "num_heads": [1, 2, 2, 4]}, 64),
}
NEW_IMAGE_HEADS: dict[str, tuple[str, str]] = {
    "image-feature-extraction": (
        "AutoModel",
        "dinov3_vit dinov3_convnext siglip_vision_model clip_vision_model aimv2_vision_model "
        "tipsv2_vision_model pixio vitdet ijepa focalnet",
    ),
    "image-classification": (
        "AutoModelForImageClassification",
        "dinov2_with_registers ijepa focalnet bit swiftformer pvt_v2 mobilevitv2 hgnet_v2 textnet",
    ),
}


def _known(sizes: dict[str, Any]) -> dict[str, Any]:
    """Return sizes without those that are None: the type does not have them."""
    return {key: value for key, value in sizes.items() if value is not None}


def save_with_parts(
    folder: Path,
    config_class: str,
    auto_class: str,
    options: dict[str, Any],
    side: int,
    width: int | None = None,
    **parts: tuple[str, dict[str, Any]],
) -> None:
    """Save an image model whose config holds those of its parts, such as a backbone's."""
    import transformers

    built = {name: getattr(transformers, part)(**_known(sizes)) for name, (part, sizes) in parts.items()}
    save_image_model(folder, config_class, auto_class, _known(options) | built, side, width)


RESNET = ("ResNetConfig", {"embedding_size": 16, **FOUR, "out_features": ["stage4"]})
VIT_STAGES = IMAGE_SIZES | {"num_hidden_layers": 4, "out_features": STAGES, "reshape_hidden_states": False}
HGNET = ("HGNetV2Config", NEW_BACKBONES["hgnet_v2"][1] | {"out_features": STAGES[1:]})
DETR = {
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "num_queries": 20,
    "num_labels": 6,
}
REAL_TIME = DETR | {
    "d_model": 32,
    "encoder_hidden_dim": 32,
    "encoder_in_channels": [24, 32, 48],
    "decoder_in_channels": [32, 32, 32],
    "num_denoising": 0,
    "max_num_bins": 8,
}
GROUPED_DETR = {
    "d_model": 32,
    "decoder_layers": 2,
    "decoder_ffn_dim": 64,
    "decoder_self_attention_heads": 4,
    "decoder_cross_attention_heads": 4,
    "num_queries": 20,
    "num_labels": 6,
    "group_detr": 2,
    "c2f_num_blocks": 1,
}
DPT_NECK = {"neck_hidden_sizes": [8, 16, 24, 32], "fusion_hidden_size": 16}

#: Case → task, config class, class, sizes, pixels a side, parts.
COMPOSED: dict[str, tuple[str, str, str, dict[str, Any], int, dict[str, tuple[str, dict[str, Any]]]]] = {
    "conditional_detr": (
        "object-detection",
        "ConditionalDetrConfig",
        "AutoModelForObjectDetection",
        DETR | {"d_model": 64},
        64,
        {"backbone_config": RESNET},
    ),
    "deformable_detr": (
        "object-detection",
        "DeformableDetrConfig",
        "AutoModelForObjectDetection",
        DETR | {"d_model": 64, "num_feature_levels": 1, "disable_custom_kernels": True},
        64,
        {"backbone_config": RESNET},
    ),
    "dab-detr": (
        "object-detection",
        "DabDetrConfig",
        "AutoModelForObjectDetection",
        DETR | {"hidden_size": 64},
        64,
        {"backbone_config": RESNET},
    ),
    "d_fine": (
        "object-detection",
        "DFineConfig",
        "AutoModelForObjectDetection",
        REAL_TIME,
        64,
        {"backbone_config": HGNET},
    ),
    "lw_detr": (
        "object-detection",
        "LwDetrConfig",
        "AutoModelForObjectDetection",
        GROUPED_DETR | {"projector_scale_factors": [1.0]},
        64,
        {
            "backbone_config": (
                "LwDetrViTConfig",
                IMAGE_SIZES
                | {"image_size": 64, "pretrain_image_size": 64, "mlp_ratio": 2, "num_windows": 4}
                | {"window_block_indices": [0], "out_indices": [1, 2], "intermediate_size": None},
            )
        },
    ),
    "rf_detr": (
        "object-detection",
        "RfDetrConfig",
        "AutoModelForObjectDetection",
        GROUPED_DETR,
        64,
        {
            "backbone_config": (
                "RfDetrDinov2Config",
                IMAGE_SIZES | {"image_size": 64, "mlp_ratio": 2, "num_windows": 2, "out_indices": [1, 2]},
            )
        },
    ),
    "upernet": (
        "semantic-segmentation",
        "UperNetConfig",
        "AutoModelForSemanticSegmentation",
        {"hidden_size": 16, "auxiliary_in_channels": 24, "auxiliary_channels": 8, "num_labels": 5},
        64,
        {"backbone_config": ("ResNetConfig", {"embedding_size": 16, **FOUR, "out_features": STAGES})},
    ),
    "sapiens2": (
        "semantic-segmentation",
        "Sapiens2Config",
        "AutoModelForSemanticSegmentation",
        IMAGE_SIZES | {"num_key_value_attention_heads": 2, "num_labels": 5},
        32,
        {"head_config": ("Sapiens2HeadConfig", {"upsample_out_channels": [16, 8], "conv_out_channels": [8]})},
    ),
    "mobilevitv2": (
        "semantic-segmentation",
        "MobileViTV2Config",
        "AutoModelForSemanticSegmentation",
        NEW_BACKBONES["mobilevitv2"][1] | {"aspp_out_channels": 16, "num_labels": 5},
        64,
        {},
    ),
    "depth_anything": (
        "depth-estimation",
        "DepthAnythingConfig",
        "AutoModelForDepthEstimation",
        DPT_NECK | {"patch_size": 8, "reassemble_hidden_size": 64, "head_hidden_size": 8},
        32,
        {"backbone_config": ("Dinov2Config", VIT_STAGES | {"mlp_ratio": 2, "intermediate_size": None})},
    ),
    "zoedepth": (
        "depth-estimation",
        "ZoeDepthConfig",
        "AutoModelForDepthEstimation",
        DPT_NECK | {"bottleneck_features": 16, "num_relative_features": 8, "bin_embedding_dim": 8},
        32,
        {"backbone_config": ("BeitConfig", VIT_STAGES | {"use_relative_position_bias": True})},
    ),
    "chmv2": (
        "depth-estimation",
        "CHMv2Config",
        "AutoModelForDepthEstimation",
        {"patch_size": 8, "fusion_hidden_size": 16, "head_hidden_size": 8, "number_output_channels": 16}
        | {"post_process_channels": [8, 16, 24, 32]},
        32,
        {
            "backbone_config": (
                "DINOv3ViTConfig",
                VIT_STAGES | {"num_register_tokens": 2, "return_class_token": True, "reshape_hidden_states": True},
            )
        },
    ),
    "mask2former": (
        "image-segmentation",
        "Mask2FormerConfig",
        "AutoModelForUniversalSegmentation",
        {
            "feature_size": 32,
            "mask_feature_size": 32,
            "hidden_dim": 32,
            "encoder_feedforward_dim": 64,
            "dim_feedforward": 64,
            "encoder_layers": 1,
            "decoder_layers": 2,
            "num_attention_heads": 4,
            "num_queries": 10,
            "num_labels": 5,
        },
        64,
        {
            "backbone_config": (
                "SwinConfig",
                {"image_size": 64, "embed_dim": 16, "depths": [1] * 4, "num_heads": [1, 2, 2, 4], "window_size": 4}
                | {"out_features": STAGES},
            )
        },
    ),
}


def save_listener_of_spectrograms(
    folder: Path, extractor: tuple[str, dict[str, Any]], config: Any, auto_class: str = "AutoModelForCTC"
) -> None:
    """Save a model of spectrograms with its feature extractor."""
    import torch
    import transformers

    getattr(transformers, extractor[0])(**extractor[1]).save_pretrained(folder)
    torch.manual_seed(0)
    randomize(getattr(transformers, auto_class).from_config(config)).save_pretrained(folder)


CONFORMER = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}


def save_conformer(folder: Path, kind: str) -> None:
    """Save a Parakeet or LASR that writes letters."""
    import transformers

    encoder = CONFORMER | {"num_mel_bins": 16, "subsampling_conv_channels": 16, "conv_kernel_size": 5}
    extractor, config_class = {
        "parakeet_ctc": ("ParakeetFeatureExtractor", "ParakeetCTCConfig"),
        "lasr_ctc": ("LasrFeatureExtractor", "LasrCTCConfig"),
    }[kind]
    config = getattr(transformers, config_class)(vocab_size=20, pad_token_id=0, encoder_config=encoder)
    save_listener_of_spectrograms(folder, (extractor, {"feature_size": 16}), config)


def save_wav2vec2_bert(folder: Path, auto_class: str) -> None:
    """Save a wav2vec2-BERT."""
    import transformers

    sizes = CONFORMER | {"feature_projection_input_dim": 32, "vocab_size": 20, "conv_depthwise_kernel_size": 5}
    sizes |= {"num_labels": 6, "classifier_proj_size": 32, "position_embeddings_type": "relative_key"}
    config = transformers.Wav2Vec2BertConfig(**sizes)
    extractor = ("SeamlessM4TFeatureExtractor", {"feature_size": 16, "num_mel_bins": 16})
    save_listener_of_spectrograms(folder, extractor, config, auto_class)


def save_omniasr(folder: Path) -> None:
    """Save an OmniASR that writes letters."""
    import transformers

    audio = CONFORMER | {"conv_dim": [32] * 3, "conv_stride": [8, 8, 4], "conv_kernel": [10, 8, 4]}
    audio |= {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    config = transformers.OmniASRCTCConfig(vocab_size=20, audio_config=audio, pad_token_id=1)
    save_listener_of_spectrograms(folder, ("OmniASRFeatureExtractor", {"sampling_rate": 4000}), config)


TOWER = {
    key: IMAGE_SIZES[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
}


def save_metaclip_2(folder: Path) -> None:
    """Save a MetaCLIP 2 with the tiny tokenizer."""
    import transformers

    size = write_tokenizer(folder)
    names = ["input_ids", "attention_mask"]
    transformers.AutoTokenizer.from_pretrained(folder, model_input_names=names).save_pretrained(folder)
    write_image_processor(folder, 32)
    text = TOWER | {"vocab_size": size, "max_position_embeddings": 64, "pad_token_id": 0}
    text |= {"bos_token_id": 2, "eos_token_id": 3}
    config = transformers.MetaClip2Config(text_config=text, vision_config=dict(IMAGE_SIZES), projection_dim=32)
    save_network(folder, "MetaClip2Model", config)


#: Writers about images: model class, config class, what differs from the sizes of their text and their vision model,
#: other settings, and the image processor's class and settings. Their image token is the first after the tokenizer's.
WRITER_VISION = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
WRITER_VISION |= {"image_size": 32, "patch_size": 8}
TILES = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}
IMAGE_WRITERS: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, Any], tuple[str, dict[str, Any]]]] = {
    "smolvlm": (
        "SmolVLMConfig",
        {"model_type": "llama"},
        WRITER_VISION,
        {"scale_factor": 2},
        ("SmolVLMImageProcessorPil", TILES),
    ),
    "idefics3": (
        "Idefics3Config",
        {"model_type": "llama"},
        WRITER_VISION,
        {"scale_factor": 2},
        ("Idefics3ImageProcessorPil", TILES),
    ),
    "llava": (
        "LlavaConfig",
        {"model_type": "llama"},
        WRITER_VISION | {"model_type": "clip_vision_model", "num_hidden_layers": 3},
        {},
        ("CLIPImageProcessorPil", {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}),
    ),
    "gemma3": (
        "Gemma3Config",
        {"head_dim": 16, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]},
        WRITER_VISION,
        {"mm_tokens_per_image": 4, "boi_token_index": 201, "eoi_token_index": 202},
        ("Gemma3ImageProcessorPil", {"size": {"height": 32, "width": 32}}),
    ),
    "qwen2_vl": (
        "Qwen2VLConfig",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]}},
        {"depth": 2, "embed_dim": 64, "hidden_size": 64, "num_heads": 4, "mlp_ratio": 2, "patch_size": 4},
        {"video_token_id": 200, "vision_start_token_id": 201, "vision_end_token_id": 202},
        ("Qwen2VLImageProcessorPil", {"patch_size": 4, "min_pixels": 256, "max_pixels": 1024}),
    ),
    "qwen2_5_vl": (
        "Qwen2_5_VLConfig",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]}},
        {"depth": 3, "hidden_size": 64, "out_hidden_size": 64, "num_heads": 4, "intermediate_size": 128}
        | {"patch_size": 4, "window_size": 16, "fullatt_block_indexes": [1]},
        {"video_token_id": 200, "vision_start_token_id": 201, "vision_end_token_id": 202},
        ("Qwen2VLImageProcessorPil", {"patch_size": 4, "min_pixels": 256, "max_pixels": 1024}),
    ),
}


def save_image_writer(folder: Path, kind: str) -> None:
    """Save a model that writes about images, with the tiny tokenizer and its own image processor."""
    import torch
    import transformers

    config_class, text, vision, options, (processor_class, settings) = IMAGE_WRITERS[kind]
    words = write_tokenizer(folder)
    getattr(transformers, processor_class)(**settings).save_pretrained(folder)
    text = TOWER | GROUPED | {"vocab_size": 300, "max_position_embeddings": 256, "pad_token_id": 0} | text
    config = getattr(transformers, config_class)(
        text_config=text, vision_config=vision, image_token_id=words, **{"tie_word_embeddings": False} | options
    )
    torch.manual_seed(0)
    network = randomize(transformers.AutoModelForImageTextToText.from_config(config))
    network.save_pretrained(folder)


#: Blocks of a PP-LCNetV3 that leave three rows of a line 48 pixels high: kernel, channels, stride, squeeze.
LINE_BLOCKS = [
    [[3, 16, 32, 1, False]],
    [[3, 32, 64, [2, 1], False]],
    [[3, 64, 96, [1, 2], False]],
    [[5, 96, 128, [2, 1], False]],
    [[5, 128, 128, [2, 1], True]],
]
#: The same of a PP-HGNetV2.
LINE_STRIDES = {"stage_downsample_strides": [2, [2, 1], [1, 2], [2, 1]]}
READER_SIZES = {"hidden_size": 32, "depth": 1, "num_attention_heads": 4, "head_out_channels": 30}
#: Text recognizers: config class, sizes, the backbone's config class and sizes.
READERS: dict[str, tuple[str, dict[str, Any], tuple[str, dict[str, Any]]]] = {
    "pp_ocrv5_mobile_rec": (
        "PPOCRV5MobileRecConfig",
        READER_SIZES,
        ("PPLCNetV3Config", {"scale": 0.5, "block_configs": LINE_BLOCKS, "out_features": ["stage5"], "divisor": 16}),
    ),
    "pp_ocrv5_server_rec": (
        "PPOCRV5ServerRecConfig",
        READER_SIZES,
        ("HGNetV2Config", NEW_BACKBONES["hgnet_v2"][1] | LINE_STRIDES | {"out_features": ["stage4"]}),
    ),
    "pp_ocrv6_tiny_rec": (
        "PPOCRV6TinyRecConfig",
        {"hidden_size": 32, "head_out_channels": 30},
        ("PPLCNetV4Config", {"scale": 0.25, "out_features": ["stage4"]}),
    ),
}


def new_cases() -> list[Architecture]:
    """Return every case of the new types."""
    cases: list[Architecture] = []
    for task, names in NEW_HEADS.items():
        cases += text_cases(task, {name: NEW_ENCODERS[name] for name in names})
    for task, names in DECODER_HEADS.items():
        cases += text_cases(task, {name: NEW_DECODERS[name] for name in names})
    for task, (auto_class, names) in NEW_IMAGE_HEADS.items():
        for name in names.split():
            config_class, sizes, side = NEW_BACKBONES[name]
            head = {"num_labels": 6} if task == "image-classification" else {}
            save = partial(
                save_image_model,
                config_class=config_class,
                auto_class=auto_class,
                options=_known(sizes | head),
                side=side,
            )
            cases.append(Architecture(f"{name} {task}", task, save))
    for name, (task, config_class, auto_class, sizes, side, parts) in COMPOSED.items():
        save = partial(
            save_with_parts,
            config_class=config_class,
            auto_class=auto_class,
            options=sizes,
            side=side,
            **parts,
        )
        cases.append(Architecture(f"{name} {task}", task, save))
    for kind in ("parakeet_ctc", "lasr_ctc"):
        task = "automatic-speech-recognition"
        cases.append(Architecture(f"{kind} {task}", task, partial(save_conformer, kind=kind)))
    cases.append(Architecture("omniasr_ctc automatic-speech-recognition", "automatic-speech-recognition", save_omniasr))
    for task, auto_class in {
        "automatic-speech-recognition": "AutoModelForCTC",
        "audio-classification": "AutoModelForAudioClassification",
        "feature-extraction": "AutoModel",
    }.items():
        save = partial(save_wav2vec2_bert, auto_class=auto_class)
        cases.append(Architecture(f"wav2vec2-bert {task}", task, save))
    cases.append(Architecture("metaclip_2 zero-shot", "zero-shot-image-classification", save_metaclip_2))
    for kind in IMAGE_WRITERS:
        task = "image-text-to-text"
        cases.append(Architecture(f"{kind} {task}", task, partial(save_image_writer, kind=kind)))
    for name, (config_class, sizes, backbone) in READERS.items():
        save = partial(
            save_with_parts,
            config_class=config_class,
            auto_class="AutoModelForTextRecognition",
            options=sizes,
            side=48,
            width=320,
            backbone_config=backbone,
        )
        cases.append(Architecture(f"{name} text-recognition", "text-recognition", save))
    return cases
