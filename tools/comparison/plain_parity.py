"""The parity script of the chain of public commands: PyTorch beside ONNX files, one text at a time.

What one writes for oneself: the original answers the bundled texts, each ONNX file answers them too, and the lowest
cosine is printed. Usage: plain_parity.py snapshot task threads model.onnx …
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "workflow" / "scripts"))

from onnxproof.benchmark.runtimes import LoadedModel, limit_torch_threads, load_pytorch
from onnxproof.graph.sessions import open_session
from onnxproof.inputs.texts import EVALUATION_TEXTS, read_texts
from onnxproof.parity.metrics import cosine_similarity
from onnxproof.tasks.registry import TASKS


def main(snapshot: str, task: str, threads: str, *files: str) -> None:
    """Compare and print."""
    import transformers

    limit_torch_threads(int(threads))
    original: LoadedModel = load_pytorch(Path(snapshot), task)
    output = TASKS[task].outputs[-1]
    classes: Any = transformers
    tokenizer = classes.AutoTokenizer.from_pretrained(snapshot)
    feeds = [dict(tokenizer(text, truncation=True, return_tensors="np")) for text in read_texts(EVALUATION_TEXTS)]
    expected = np.concatenate([original.read(original.predict(original.prepare(feed)), output) for feed in feeds])
    for file in files:
        session: Any = open_session(Path(file), int(threads))
        names = {value.name for value in session.get_inputs()}
        answers = [session.run([output], {key: feed[key] for key in feed if key in names})[0] for feed in feeds]
        print(file, float(cosine_similarity(expected, np.concatenate(answers)).min()))


if __name__ == "__main__":
    main(*sys.argv[1:])
