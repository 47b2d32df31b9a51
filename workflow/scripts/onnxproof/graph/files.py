"""The files of the graphs in the folder of an ONNX variant: names and functions of names."""

from collections.abc import Iterable
from pathlib import Path

MODEL_FILE = "model.onnx"
#: The graphs of an encoder-decoder, as Optimum names them. The two decoders hold the same weights. Merged into one
#: graph, with a subgraph each, neither fusions nor quantization would reach them: so they are merged last, see
#: ``merged_decoder``.
ENCODER_FILE = "encoder_model.onnx"
DECODER_FILE = "decoder_model.onnx"
DECODER_WITH_PAST_FILE = "decoder_with_past_model.onnx"
MERGED_FILE = "decoder_model_merged.onnx"
ENCODER_DECODER_FILES = (ENCODER_FILE, DECODER_FILE, DECODER_WITH_PAST_FILE, MERGED_FILE)
#: The graphs of a model that writes about images, as transformers.js names them: see ``vision_language``. Its decoder
#: has the name of a merged one, but is one graph from the start.
VISION_FILE = "vision_encoder.onnx"
EMBEDDING_FILE = "embed_tokens.onnx"
VISION_LANGUAGE_FILES = (VISION_FILE, EMBEDDING_FILE, MERGED_FILE)
GRAPH_FILES = (MODEL_FILE, *ENCODER_DECODER_FILES[:-1], *VISION_LANGUAGE_FILES)


def graph_files(folder: Path) -> list[str]:
    """Return the names of the graphs in an ONNX folder: one, or those of a model of several."""
    return [name for name in GRAPH_FILES if (folder / name).is_file()]


def separate_graphs(folder: Path) -> list[str]:
    """Return the names of the graphs that are optimized and quantized, each by itself: all but a merged one."""
    names = graph_files(folder)
    return [name for name in names if name != MERGED_FILE or DECODER_FILE not in names]


def decoder_file(graphs: Iterable[str]) -> str:
    """Return which of several graphs writes the text: the first decoder, or the only one."""
    return DECODER_FILE if DECODER_FILE in graphs else MERGED_FILE
