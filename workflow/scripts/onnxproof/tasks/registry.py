"""The tasks: for each, what it is inferred from, what is fed to a model and what is read from it.

Plain data, cheap to import. How answers are read and compared is in ``answers``; how evaluation inputs are made and
PyTorch is run, in ``pytorch``.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Task:
    """One task that the whole chain serves."""

    name: str
    optimum: tuple[str, ...]  #: what Optimum's exporter calls it: the first that it knows for a model's type
    heads: tuple[str, ...]  #: endings of the names in ``architectures`` of config.json that were made for it
    auto_class: str  #: the class of transformers that loads it
    outputs: tuple[str, ...]  #: outputs that are recorded and compared
    takes: tuple[str, ...] = ("text",)  #: kinds of model input it is served for, see ``model_types.model_takes``
    per_token: tuple[str, ...] = ()  #: outputs with one row a token of a text, which padding makes longer
    largest_batch: int | None = None  #: inputs that an exported graph takes at once; None for any number

    def fit_batch(self, size: int) -> int:
        """Return how many inputs go into a batch that is to hold ``size``."""
        return size if self.largest_batch is None else min(size, self.largest_batch)


_TASKS = (
    # First, because the names of some of its heads end in "Model" too.
    Task(
        "text-generation",
        ("text-generation",),
        ("ForCausalLM", "LMHeadModel"),
        "AutoModelForCausalLM",
        ("logits",),
        per_token=("logits",),
    ),
    Task(
        "text2text-generation",
        ("text2text-generation",),
        ("ForConditionalGeneration", "MTModel", "EncoderDecoderModel"),
        "AutoModelForSeq2SeqLM",
        ("logits",),
        per_token=("logits",),
    ),
    Task(
        "speech-to-text",
        ("automatic-speech-recognition",),
        ("ForConditionalGeneration",),
        "AutoModelForSpeechSeq2Seq",
        ("logits",),
        ("sound",),
        per_token=("logits",),
    ),
    Task(
        "image-to-text",
        ("image-to-text",),
        ("ForConditionalGeneration", "VisionEncoderDecoderModel"),
        "AutoModelForImageTextToText",
        ("logits",),
        ("image",),
        per_token=("logits",),
    ),
    Task(
        "image-text-to-text",
        ("image-text-to-text",),
        ("ForConditionalGeneration",),
        "AutoModelForImageTextToText",
        ("logits",),
        ("image+prompt",),
        per_token=("logits",),
    ),
    Task(
        "feature-extraction",
        ("feature-extraction",),
        ("Model", "ForMaskedLM", "ForPreTraining", "GenerationEncoder"),
        "AutoModel",
        ("last_hidden_state",),
        ("text", "sound"),
        per_token=("last_hidden_state",),
    ),
    Task(
        "sentence-similarity",
        ("feature-extraction",),
        (),  # told by modules.json
        "SentenceTransformer",
        ("last_hidden_state", "sentence_embedding"),
        per_token=("last_hidden_state",),
    ),
    Task(
        "text-classification",
        ("text-classification",),
        ("ForSequenceClassification",),
        "AutoModelForSequenceClassification",
        ("logits",),
    ),
    Task(
        "token-classification",
        ("token-classification",),
        ("ForTokenClassification",),
        "AutoModelForTokenClassification",
        ("logits",),
        per_token=("logits",),
    ),
    Task(
        "question-answering",
        ("question-answering",),
        ("ForQuestionAnswering", "ForQuestionAnsweringSimple"),
        "AutoModelForQuestionAnswering",
        ("start_logits", "end_logits"),
        per_token=("start_logits", "end_logits"),
    ),
    Task(
        "fill-mask",
        ("fill-mask",),
        ("ForMaskedLM", "WithLMHeadModel"),
        "AutoModelForMaskedLM",
        ("logits",),
        per_token=("logits",),
    ),
    Task("multiple-choice", ("multiple-choice",), ("ForMultipleChoice",), "AutoModelForMultipleChoice", ("logits",)),
    Task(
        "image-classification",
        ("image-classification",),
        ("ForImageClassification", "ForImageClassificationWithTeacher"),
        "AutoModelForImageClassification",
        ("logits",),
        ("image",),
    ),
    Task(
        "image-feature-extraction",
        ("feature-extraction",),
        ("Model", "ForMaskedImageModeling", "ForPreTraining"),
        "AutoModel",
        ("last_hidden_state",),
        ("image",),
    ),
    Task(
        "object-detection",
        ("object-detection",),
        ("ForObjectDetection",),
        "AutoModelForObjectDetection",
        ("logits", "pred_boxes"),
        ("image",),
    ),
    Task(
        "semantic-segmentation",
        ("semantic-segmentation", "image-segmentation"),
        ("ForSemanticSegmentation",),
        "AutoModelForSemanticSegmentation",
        ("logits",),
        ("image",),
    ),
    Task(
        "image-segmentation",
        ("image-segmentation",),
        ("ForInstanceSegmentation", "ForSegmentation", "ForUniversalSegmentation"),
        "AutoModelForUniversalSegmentation",
        ("class_queries_logits", "masks_queries_logits", "logits", "pred_masks"),
        ("image",),
    ),
    Task(
        "depth-estimation",
        ("depth-estimation",),
        ("ForDepthEstimation",),
        "AutoModelForDepthEstimation",
        ("predicted_depth",),
        ("image",),
    ),
    Task(
        "text-recognition",
        ("text-recognition",),
        ("ForTextRecognition",),
        "AutoModelForTextRecognition",
        ("last_hidden_state",),  # a likelihood of each character, at each place along a line of writing
        ("image",),
    ),
    Task(
        "zero-shot-image-classification",
        ("zero-shot-image-classification",),
        ("Model",),
        "AutoModelForZeroShotImageClassification",
        ("logits_per_image",),
        ("image+texts",),
    ),
    Task(
        "zero-shot-object-detection",
        ("zero-shot-object-detection",),
        ("ForObjectDetection",),
        "AutoModelForZeroShotObjectDetection",
        ("logits", "pred_boxes"),
        ("image+texts",),
        largest_batch=1,
    ),
    Task(
        "image-to-image",
        ("image-to-image",),
        ("ForImageSuperResolution",),
        "AutoModelForImageToImage",
        ("reconstruction",),
        ("image",),
    ),
    Task(
        "audio-classification",
        ("audio-classification",),
        ("ForSequenceClassification", "ForAudioClassification"),
        "AutoModelForAudioClassification",
        ("logits",),
        ("sound",),
    ),
    Task(
        "automatic-speech-recognition",
        ("automatic-speech-recognition",),
        ("ForCTC",),
        "AutoModelForCTC",
        ("logits",),
        ("sound",),
    ),
    Task(
        "audio-frame-classification",
        ("audio-frame-classification",),
        ("ForAudioFrameClassification",),
        "AutoModelForAudioFrameClassification",
        ("logits",),
        ("sound",),
    ),
    Task(
        "audio-xvector",
        ("audio-xvector",),
        ("ForXVector",),
        "AutoModelForAudioXVector",
        ("logits", "embeddings"),
        ("sound",),
    ),
)

#: Every task by its name, as users write it in ``task:``.
TASKS: dict[str, Task] = {task.name: task for task in _TASKS}


#: Tasks whose models read their input once, then write a text about it token by token.
ENCODER_DECODER_TASKS = frozenset({"text2text-generation", "speech-to-text", "image-to-text"})

#: Tasks whose models write texts token by token.
GENERATING_TASKS = ENCODER_DECODER_TASKS | {"text-generation", "image-text-to-text"}

#: What the graphs before a decoder that writes about images are judged as, each by itself.
PARTS: dict[str, Task] = {
    part.name: part
    for part in (
        Task("image-features", (), (), "", ("image_features",), largest_batch=1),
        Task("token-embeddings", (), (), "", ("inputs_embeds",), per_token=("inputs_embeds",)),
    )
}

#: What classification heads of other kinds than "one of these labels" are judged as, see ``heads.judged_as``; and
#: embeddings that are compared by something else than their cosine.
MULTI_LABEL, REGRESSION = "multi-label-classification", "regression"
SIMILARITIES = {name: f"sentence-similarity by {name}" for name in ("dot", "euclidean", "manhattan")}
HEADS: dict[str, Task] = {
    **{name: Task(name, (), (), "", ("logits",), ("text", "image", "sound")) for name in (MULTI_LABEL, REGRESSION)},
    **{name: replace(TASKS["sentence-similarity"], name=name) for name in SIMILARITIES.values()},
}
