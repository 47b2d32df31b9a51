"""Let onnxruntime-genai write after several prompts at once, in an environment of its own; print the tokens as JSON.

python genai_batches.py FOLDER PROMPTS COUNT

The prompts are a JSON list of lists of tokens. Printed is what is written after each of them. The search's longest text
is what the folder says, so that a shared buffer has room for more than is written.
"""

import json
import sys
from pathlib import Path


def main(folder: str, prompts: str, count: str) -> None:
    """Write ``count`` tokens after each prompt."""
    import numpy as np
    import onnxruntime_genai

    model = onnxruntime_genai.Model(folder)
    texts = json.loads(prompts)
    settings = json.loads((Path(folder) / "genai_config.json").read_text(encoding="utf-8"))
    # As the library's own tokenizer pads a batch.
    tokens = np.full((len(texts), max(map(len, texts))), settings["model"]["pad_token_id"], dtype=np.int32)
    for row, text in zip(tokens, texts, strict=True):
        row[: len(text)] = text
    parameters = onnxruntime_genai.GeneratorParams(model)
    parameters.set_search_options(batch_size=len(texts), do_sample=False)
    generator = onnxruntime_genai.Generator(model, parameters)
    generator.append_tokens(tokens)
    written: list[list[int]] = [[] for _ in texts]
    for _ in range(int(count)):
        generator.generate_next_token()
        for row, token in zip(written, generator.get_next_tokens(), strict=True):
            row.append(int(token))
    print(json.dumps(written))


if __name__ == "__main__":
    main(*sys.argv[1:])
