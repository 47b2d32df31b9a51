"""The words that all steps share: tasks, variants, providers and metrics.

Only words: what imports this module depends on nothing else.
"""

import math
from typing import Literal, NamedTuple

#: Names of the tasks, see ``onnxproof/tasks/registry.py``.
SUPPORTED_TASKS = (
    "text-generation",
    "text2text-generation",
    "speech-to-text",
    "image-to-text",
    "image-text-to-text",
    "feature-extraction",
    "sentence-similarity",
    "text-classification",
    "token-classification",
    "question-answering",
    "fill-mask",
    "multiple-choice",
    "image-classification",
    "image-feature-extraction",
    "object-detection",
    "semantic-segmentation",
    "image-segmentation",
    "depth-estimation",
    "text-recognition",
    "zero-shot-image-classification",
    "zero-shot-object-detection",
    "image-to-image",
    "audio-classification",
    "automatic-speech-recognition",
    "audio-frame-classification",
    "audio-xvector",
)

#: The ONNX forms with less than 32 bits a weight, each made by a ladder of recipes of its own.
QUANTIZED_VARIANTS = (
    "fp16",
    "int8",
    "uint8",
    "int8-invariant",
    "int8-static",
    "int8-symmetric",
    "w8a16",
    "w8",
    "q4",
    "q4-cpu",
    "q4f16",
)

#: All ONNX forms of a model, in the order in which they are made.
VARIANTS = ("fp32", "optimized", *QUANTIZED_VARIANTS)

#: What a quantized variant is made of, where that is not ``optimized``: a graph of plain operators.
MADE_OF = dict.fromkeys(("int8-static", "int8-symmetric", "w8a16"), "fp32")

#: The variant whose search has found out much of what a variant's search is to find out: it is asked first.
SEARCHED_LIKE = {"int8-invariant": "int8", "uint8": "int8"}

#: Those that compute in float16.
HALF_VARIANTS = ("fp16", "q4f16")

#: What is measured beside the ONNX forms; no kind of machine may have the name of either.
PYTORCH = "pytorch"

#: The execution provider of onnxruntime that the gate judges on, and that times are compared with.
CPU_PROVIDER = "CPUExecutionProvider"

#: What is timed of a model that writes: reading a prompt until its first token is known, and each token after it.
Step = Literal["first_token", "next_token"]

#: The domain of onnxruntime's own operators.
MICROSOFT = "com.microsoft"

#: How the limit of a metric over all inputs is applied to a few of them: as it is; rounded down to whole inputs, so
#: that 0.99 of 32 inputs allows one to differ; or not at all, because a few inputs do not tell.
OfFew = Literal["held", "whole inputs", "not held"]


class Metric(NamedTuple):
    """A measure the parity gate can limit."""

    bound: Literal["at least", "at most"]  #: what a measurement must be of its threshold
    lowest: float
    highest: float
    meaning: str
    of_few: OfFew = "held"  #: how the limit is applied to the few inputs that a release carries


METRICS = {
    "cosine_min": Metric("at least", -1, 1, "lowest cosine between a text's output and PyTorch's"),
    "cosine_mean": Metric("at least", -1, 1, "mean cosine between the outputs and PyTorch's"),
    "rank_overlap": Metric("at least", 0, 1, "share of each text's nearest neighbours that stay the same", "not held"),
    "top1_agreement": Metric("at least", 0, 1, "share of texts given the same label as by PyTorch", "whole inputs"),
    "label_agreement": Metric(
        "at least", 0, 1, "share of yes-or-no decisions on a label that stay the same", "whole inputs"
    ),
    "token_agreement": Metric(
        "at least", 0, 1, "share of tokens, or frames of speech, given the same label", "whole inputs"
    ),
    "span_agreement": Metric("at least", 0, 1, "share of questions answered with the same words", "whole inputs"),
    "greedy_token_match": Metric(
        "at least", 0, 1, "share of 32 generated tokens before the first that PyTorch does not generate"
    ),
    "next_token_agreement": Metric(
        "at least", 0, 1, "share of places where the same next token is the likeliest", "whole inputs"
    ),
    "order_agreement": Metric("at least", 0, 1, "share of pairs that a reranker's scores put into the same order"),
    "detection_agreement": Metric("at least", 0, 1, "share of the surest detections found again, label and place"),
    "pixel_agreement": Metric("at least", 0, 1, "share of pixels given the same label", "whole inputs"),
    "max_abs_diff": Metric("at most", 0, math.inf, "largest absolute difference of any output value"),
    "max_relative_diff": Metric("at most", 0, math.inf, "largest difference over the largest value, or over 1"),
    "mean_relative_diff": Metric("at most", 0, math.inf, "mean difference over the mean value, of depths"),
    "max_norm_diff": Metric("at most", 0, math.inf, "largest difference of an embedding's norm, over PyTorch's norm"),
    "value_nrmse": Metric(
        "at most", 0, math.inf, "root mean square error of a regression's values over their standard deviation"
    ),
    "max_value_diff": Metric("at most", 0, math.inf, "largest difference of a regression's values"),
    "max_probability_diff": Metric("at most", 0, math.inf, "largest difference of any class probability"),
    "mean_kl": Metric("at most", 0, math.inf, "mean KL divergence from PyTorch's class probabilities, in nats"),
    "next_token_kl": Metric(
        "at most", 0, math.inf, "mean KL divergence from PyTorch's probabilities of the next token, in nats"
    ),
    "perplexity_ratio": Metric("at most", 0, math.inf, "perplexity of the texts over PyTorch's", "not held"),
    "batch_cosine_min": Metric("at least", -1, 1, "lowest cosine between a text alone and in a padded batch"),
    "batch_max_abs_diff": Metric("at most", 0, math.inf, "largest difference of a text alone and in a batch"),
}
