"""Write onnxproof/tasks/architectures.py: the model types that the installed transformers has, by what they serve.

`python tools/list_architectures.py` after another version of transformers was locked. The lists are a copy, so that a
model of another type is refused before anything is downloaded, by steps that do not have transformers.
"""

import textwrap

import project_path
from onnxproof.tasks.registry import TASKS

ROOT = project_path.ROOT
TARGET = ROOT / "workflow" / "scripts" / "onnxproof" / "tasks" / "architectures.py"

#: Classes of transformers whose models are of one kind of input: all of these, and no others.
SOUND_CLASSES = ("AutoModelForCTC", "AutoModelForAudioClassification", "AutoModelForAudioFrameClassification")
IMAGE_CLASSES = (
    "AutoModelForImageClassification",
    "AutoModelForObjectDetection",
    "AutoModelForSemanticSegmentation",
    "AutoModelForUniversalSegmentation",
    "AutoModelForInstanceSegmentation",
    "AutoModelForDepthEstimation",
    "AutoModelForImageToImage",
    "AutoModelForMaskedImageModeling",
    "AutoModelForTextRecognition",
)
OTHER_CLASSES = ("AutoModelForImageTextToText", "AutoModelForMultimodalLM", "AutoModelForMaskGeneration")
IMAGE_AND_TEXT_CLASSES = ("AutoModelForZeroShotImageClassification", "AutoModelForZeroShotObjectDetection")
#: Of the kinds that no class of transformers sets apart.
SOUNDS = "moonshine speech_to_text whisper"
IMAGES = "clip_vision_model mgp-str pix2struct siglip_vision_model siglip2_vision_model trocr vision-encoder-decoder"
IMAGES += " dinov3_vit dinov3_convnext vit_mae pixio mlcd aimv2_vision_model tipsv2_vision_model vitdet radio"
#: They write about an image and a prompt; other models of these classes take their inputs in ways of their own.
PROMPTED = "gemma3 idefics3 llava qwen2_5_vl qwen2_vl smolvlm"
#: They take a layout, a table, a series, entities or a modality beside the text, and no inputs are made for that.
OTHERS = """
autoformer bros decision_transformer dpr fastspeech2_conformer fastspeech2_conformer_with_hifigan informer layoutlm lilt
lxmert markuplm openai_privacy_filter patchtsmixer patchtst perceiver tapas time_series_transformer timesfm timesfm2_5
visual_bert vits vjepa2 maskformer-swin edgetam_video timm_backbone
"""
#: What the tasks that write texts about sounds and images, and those with two inputs, are served for: other models of
#: these classes take their inputs in ways of their own.
SERVED = {
    "speech-to-text": "moonshine speech_to_text whisper",
    "image-to-text": "pix2struct vision-encoder-decoder",
    "image-text-to-text": PROMPTED,
    "zero-shot-image-classification": "chinese_clip clip metaclip_2 siglip siglip2",
    "zero-shot-object-detection": "owlv2 owlvit",
    "text2text-generation": """
        bart bigbird_pegasus blenderbot blenderbot-small encoder-decoder fsmt led longt5 m2m_100 marian mbart mt5 mvp
        nllb-moe pegasus pegasus_x plbart prophetnet switch_transformers t5 t5gemma umt5
    """,
}
#: Model types that transformers has a class for, and that no task is served for: type → why.
FAILING = {
    "deimv2": "the graph takes the traced number of images alone",
    "eomt": "a buffer of its own decides what it computes, which torch.export refuses to read",
    "eomt_dinov3": "a buffer of its own decides what it computes, which torch.export refuses to read",
    "funnel": "the graph takes texts of the traced length alone",
    "granite_speech5_ctc": "its feature extractor needs torchaudio, which is not installed here",
    "mra": "a CUDA kernel computes its attention; on a CPU transformers answers with zeros in its place",
    "pp_doclayout_v2": "the graph takes the traced number of images alone",
    "pp_doclayout_v3": "the graph takes the traced number of images alone",
    "pp_doclayout_v4": "the graph takes the traced number of images alone",
    "pp_ocrv5_mobile_det": "it answers with a map of where text is, which the measures for boxes do not compare",
    "pp_ocrv5_server_det": "it answers with a map of where text is, which the measures for boxes do not compare",
    "pp_ocrv6_medium_det": "it answers with a map of where text is, which the measures for boxes do not compare",
    "pp_ocrv6_small_det": "it answers with a map of where text is, which the measures for boxes do not compare",
    "qwen3_5_text": "the graph does not run on texts of more than 64 tokens",
    "radio": "it has no image processor of its own",
    "siglip2": "it takes patches with their positions, which are not made here",
    "siglip2_vision_model": "it takes patches with their positions, which are not made here",
    "vit_mae": "it hides patches at random",
}
#: The same for some tasks only: (task, model type) → why.
FAILING_TASKS: dict[tuple[str, str], str] = {
    ("image-classification", "pp_lcnet"): "its class gives no output that is named logits",
}
#: Model types that are parts of others; nobody publishes them alone.
PARTS = ("_text", "_vision", "_audio", "_encoder", "_decoder", "_assistant", "_vqmodel", "_qformer", "_model")
#: But text encoders among them are.
TEXTS = frozenset({"embedding_gemma2_text"})

HEAD = '''
A copy of its registry, written by tools/list_architectures.py, so that a model of another type is refused before
anything is downloaded, by steps that do not have transformers. A test holds it against the installed one.
"""


def _types(names: str) -> frozenset[str]:
    return frozenset(names.split())


#: task → the values of ``model_type`` in config.json that transformers has a class for.
SERVED: dict[str, frozenset[str]] = {'''


def types_of(auto_class: str) -> set[str]:
    """Return the model types that a class such as ``AutoModelForCTC`` knows."""
    import transformers

    return {config.model_type for config in getattr(transformers, auto_class)._model_mapping}


def kinds() -> dict[str, set[str]]:
    """Return what models take, where that is not text alone → model types: see ``registry.model_takes``."""
    from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    sound = set(SOUNDS.split()).union(*map(types_of, SOUND_CLASSES))
    both = set().union(*map(types_of, IMAGE_AND_TEXT_CLASSES)) - sound
    image = set(IMAGES.split()).union(*map(types_of, IMAGE_CLASSES)) - both
    processed = {*FEATURE_EXTRACTOR_MAPPING_NAMES, *IMAGE_PROCESSOR_MAPPING_NAMES, *PROCESSOR_MAPPING_NAMES}
    parts = {name for name in types_of("AutoModel") if name.endswith(PARTS)}
    # A text model of a family with images, such as gemma3_text, is a decoder of its own.
    parts -= {name for name in parts if name.endswith("_text") and name in types_of("AutoModelForCausalLM")} | TEXTS
    prompted = set(PROMPTED.split())
    other = processed.union(parts, OTHERS.split(), *map(types_of, OTHER_CLASSES)) - sound - both - image - prompted
    return {"image": image, "image+prompt": prompted, "image+texts": both, "other": other, "sound": sound}


def served() -> dict[str, set[str]]:
    """Return the model types of each task."""
    takes = kinds()
    special = set().union(*takes.values())
    found = {}
    for name, task in TASKS.items():
        auto_class = "AutoModel" if task.auto_class == "SentenceTransformer" else task.auto_class
        known = types_of(auto_class)
        if name in SERVED:
            known &= set(SERVED[name].split())
        known -= FAILING.keys() | {model_type for task, model_type in FAILING_TASKS if task == name}
        found[name] = {
            model_type
            for model_type in known
            if any(model_type in takes[kind] if kind != "text" else model_type not in special for kind in task.takes)
        }
    return found


def module_text() -> str:
    """Return the text of the module."""
    import transformers

    lines = [
        f'"""What transformers {transformers.__version__} has: model types, what each takes, and the tasks they serve.',
        HEAD,
        *_entries(served()),
        "}",
        "",
        "#: What a model takes, where that is not text alone → its ``model_type``. No evaluation inputs are made for",
        '#: "other".',
        "TAKES: dict[str, frozenset[str]] = {",
        *_entries(kinds()),
        "}",
        "",
    ]
    return "\n".join(lines)


def _entries(table: dict[str, set[str]]) -> list[str]:
    lines = []
    for name in sorted(table):
        words = textwrap.wrap(" ".join(sorted(table[name])), 108, break_on_hyphens=False, break_long_words=False)
        lines += [
            f'    "{name}": _types(',
            '        """',
            *(f"        {line}" for line in words),
            '        """',
            "    ),",
        ]
    return lines


if __name__ == "__main__":
    TARGET.write_text(module_text(), encoding="utf-8")
