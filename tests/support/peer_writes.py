"""Let a runtime write by its ``Writer``, in an environment of its own; print the tokens as JSON.

python peer_writes.py RUNTIME FOLDER OPTIONS PROMPT COUNT

The prompt is a JSON list of tokens, the options are a JSON object. Printed are the tokens of the text alone, the same
after the text was cut back to its prompt, and both of three copies of it.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "workflow" / "scripts"))

from onnxproof.benchmark.runtimes import load_contender
from onnxproof.benchmark.writing import Text


def main(runtime: str, folder: str, options: str, prompt: str, count: str) -> None:
    """Write ``count`` tokens, one by one."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # for what libraries print
    writer = load_contender(runtime, Path(folder), 1, None, json.loads(options)).writer
    assert writer is not None
    tokens = np.array([json.loads(prompt)], dtype=np.int64)

    def write(text: Text) -> tuple[Text, list[list[int]]]:
        """Return the text after the tokens, and the tokens of each of its rows."""
        rows = [text.token[:, 0]]
        for _ in range(int(count) - 1):
            text = writer.step(text)
            rows.append(text.token[:, 0])
        return text, np.stack(rows, axis=1).tolist()

    written = []
    for copies in (1, 3):
        text = writer.read(tokens)
        if copies > 1:
            text = writer.repeat(text, copies)
        end, made = write(text)
        cut = writer.cut(end, tokens.shape[1])
        written += [made, write(Text(text.token, cut.cache, cut.length))[1]]
    print(json.dumps(written), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
