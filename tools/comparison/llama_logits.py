"""Write the logits of texts in llama.cpp: run by the interpreter that has llama-cpp-python, alone.

Usage: llama_logits.py folder texts.npz logits.npz threads. The folder holds a GGUF file. Each array of the first file
is a text, int64 (tokens,); under the same name, the second gets float32 (tokens, vocabulary).
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "workflow" / "scripts"))

from onnxproof.benchmark.peer_writers import LlamaWriter
from onnxproof.benchmark.runtimes import load_llama


def main(folder: str, texts: str, logits: str, threads: str) -> None:
    """Read each text with an empty cache."""
    given = dict(np.load(texts))
    longest = max(len(tokens) for tokens in given.values())
    writer = load_llama(Path(folder), int(threads), most_tokens=longest, most_texts=1).writer
    assert isinstance(writer, LlamaWriter)
    found: dict[str, Any] = {name: writer.logits(tokens) for name, tokens in given.items()}
    np.savez(logits, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
