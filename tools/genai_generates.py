"""Let onnxruntime-genai write after a prompt, in an environment of its own; print the tokens of both as JSON.

python tools/genai_generates.py RELEASE PROMPT COUNT
"""

import json
import sys


def main() -> None:
    """Load a release's folder and write."""
    import onnxruntime_genai

    folder, prompt, count = sys.argv[1:]
    model = onnxruntime_genai.Model(folder)
    tokens = onnxruntime_genai.Tokenizer(model).encode(prompt)
    parameters = onnxruntime_genai.GeneratorParams(model)
    parameters.set_search_options(max_length=len(tokens) + int(count), do_sample=False)
    generator = onnxruntime_genai.Generator(model, parameters)
    generator.append_tokens(tokens)
    while not generator.is_done():
        generator.generate_next_token()
    written = [int(token) for token in generator.get_sequence(0)]
    print(json.dumps([[int(token) for token in tokens], written[len(tokens) :]]))


if __name__ == "__main__":
    main()
