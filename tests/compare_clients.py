"""Compare what each client answers from a release with what PyTorch answered: the table of docs/clients.md.

    make clients

Every client gets the golden inputs one by one, reads the release as its users do, and must give PyTorch's recorded
answers: class probabilities, sentence embeddings, token vectors, or the text that a decoder goes on with.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

from onnxproof.figures import format_figure
from onnxproof.metrics import cosine_similarity, log_probabilities
from onnxproof.stimuli import draw_images
from onnxproof.tasks.material import EVALUATION_IMAGES, EVALUATION_SEED
from verify_release import Golden, matched_share, read_golden

ROOT = Path(__file__).resolve().parents[1]

#: What is compared.
PROBABILITIES, EMBEDDINGS, TOKEN_VECTORS = "probabilities", "embeddings", "token vectors"
NEXT_TOKEN, GENERATED = "next-token probabilities", "generated tokens"

#: Task → the class of Optimum that gives its answers.
OPTIMUM_CLASSES = {
    "text-classification": "ORTModelForSequenceClassification",
    "image-classification": "ORTModelForImageClassification",
    "sentence-similarity": "ORTModelForCustomTasks",
    "feature-extraction": "ORTModelForFeatureExtraction",
    "text-generation": "ORTModelForCausalLM",
}
#: Task → the task of a transformers pipeline where that is another, which takes another class of Optimum too.
PIPELINES = {"sentence-similarity": "feature-extraction"}
#: The files that transformers.js finds, by the names it has for them.
DTYPES = {"onnx/model.onnx": "fp32", "onnx/model_quantized.onnx": "q8"}
NODE_SCRIPT = Path(__file__).with_name("transformers_js_answers.mjs")
FASTEMBED_SCRIPT = Path(__file__).with_name("fastembed_answers.py")
#: Cases of tests/architectures.py → what they are called in the table.
TINY_MODELS = {"vit image-classification": "tiny-vit", "gpt2 text-generation": "tiny-gpt2"}

#: One row an input, or a token; of generated text one list of tokens an input.
Answers = np.ndarray | list[list[int]]


@dataclass
class Release:
    """A release folder, one of its ONNX files, what to compare, and the inputs to answer.

    ``texts`` are empty for a model of images; ``images``, uint8 (height, width, 3), for one of texts.
    """

    folder: Path
    task: str
    file: str
    compared: str
    texts: list[str]
    images: list[np.ndarray]
    max_tokens: int | None
    new_tokens: int

    @property
    def labels(self) -> list[str]:
        names = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))["id2label"]
        return [names[str(index)] for index in range(len(names))]


def image_processor(folder: Path) -> Any:
    from transformers import AutoImageProcessor

    return AutoImageProcessor.from_pretrained(folder, use_fast=False)  # the fast ones need torchvision


def golden_images(folder: Path, golden: Golden) -> list[np.ndarray]:
    """Return the drawn images that the golden inputs were made from, uint8 (height, width, 3)."""
    processor = image_processor(folder)
    drawn = draw_images(EVALUATION_IMAGES, EVALUATION_SEED)
    by_pixels = {processor(image, return_tensors="np")["pixel_values"].tobytes(): image for image in drawn}
    return [by_pixels[item["pixel_values"].tobytes()] for item in golden.items[: golden.answered]]


def expected_answers(compared: str, golden: Golden, indices: list[int]) -> Answers:
    """Return PyTorch's answers to some golden inputs."""
    if compared == GENERATED:
        return [golden.generated[index] for index in indices]
    outputs = [golden.outputs[index] for index in indices]
    if compared == TOKEN_VECTORS:
        return np.concatenate([output["last_hidden_state"] for output in outputs])
    if compared == EMBEDDINGS:
        return np.stack([output["sentence_embedding"] for output in outputs])
    logits = [output["logits"][-1] if compared == NEXT_TOKEN else output["logits"] for output in outputs]
    return np.exp(log_probabilities(np.stack(logits)))


def load_optimum(release: Release, task: str) -> Any:
    """Return Optimum's model, on one thread."""
    import onnxruntime
    import optimum.onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model_class = getattr(optimum.onnxruntime, OPTIMUM_CLASSES[task])
    return model_class.from_pretrained(
        release.folder, subfolder="onnx", file_name=release.file.removeprefix("onnx/"), session_options=options
    )


def load_tokenizer(release: Release) -> Any:
    """Return transformers' tokenizer; a prompt is cut before the model's limit, to leave room for new tokens."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(release.folder)
    tokenizer.model_max_length = release.max_tokens
    return tokenizer


def ask_optimum(release: Release) -> Answers:
    """Answer with Optimum's model class for the task; the one for embeddings is the class that keeps every output."""
    model = load_optimum(release, release.task)
    if release.images:
        processor = image_processor(release.folder)
        features = [processor(image, return_tensors="np") for image in release.images]
    else:
        tokenizer = load_tokenizer(release)
        tensors = "pt" if release.task == "text-generation" else "np"
        features = [tokenizer(text, truncation=True, return_tensors=tensors) for text in release.texts]
    if release.compared == GENERATED:
        made = [model.generate(**values, max_new_tokens=release.new_tokens, do_sample=False) for values in features]
        return [tokens[0, -release.new_tokens :].tolist() for tokens in made]
    name = {EMBEDDINGS: "sentence_embedding", TOKEN_VECTORS: "last_hidden_state"}.get(release.compared, "logits")
    outputs = [np.asarray(model(**values)[name]) for values in features]
    if release.compared == NEXT_TOKEN:
        outputs = [output[:, -1] for output in outputs]
    if name == "logits":
        return np.exp(log_probabilities(np.concatenate(outputs)))
    return np.concatenate([output[0] for output in outputs] if release.compared == TOKEN_VECTORS else outputs)


def ask_optimum_pipeline(release: Release) -> Answers:
    """Answer with a transformers pipeline on Optimum's model; for embedders that gives token vectors."""
    from PIL import Image
    from transformers import pipeline

    task = PIPELINES.get(release.task, release.task)
    if release.images:
        part: dict[str, Any] = {"image_processor": image_processor(release.folder)}
    else:
        part = {"tokenizer": load_tokenizer(release)}
    pipe = pipeline(task, model=load_optimum(release, task), **part)
    if release.compared == GENERATED:
        options = {"max_new_tokens": release.new_tokens, "do_sample": False, "return_tensors": True}
        made = [pipe(text, truncation=True, add_special_tokens=True, **options)[0] for text in release.texts]
        return [answer["generated_token_ids"][-release.new_tokens :] for answer in made]
    if release.images:
        images = [Image.fromarray(image) for image in release.images]
        return by_label(pipe(images, top_k=len(release.labels), function_to_apply="softmax"), release.labels)
    if release.compared == PROBABILITIES:
        answers = pipe(release.texts, top_k=None, truncation=True, function_to_apply="softmax")
        return by_label(answers, release.labels)
    return np.concatenate([np.array(pipe(text, truncation=True)[0]) for text in release.texts])


def by_label(answers: list[list[dict[str, Any]]], labels: list[str]) -> np.ndarray:
    """Return a classification pipeline's scores in the order of the labels, shape (inputs, labels)."""
    scores = [{entry["label"]: entry["score"] for entry in answer} for answer in answers]
    return np.array([[score[label] for label in labels] for score in scores])


def ask_sentence_transformers(release: Release) -> Answers:
    """Answer with sentence-transformers' ONNX backend."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        str(release.folder), backend="onnx", model_kwargs={"file_name": release.file}, local_files_only=True
    )
    return np.concatenate([model.encode([text]) for text in release.texts])


def ask_onnxruntime(release: Release) -> Answers:
    """Answer with onnxruntime, and tokenizers with the release's own settings or transformers' image processor."""
    import onnxruntime
    from tokenizers import Tokenizer

    session = onnxruntime.InferenceSession(release.folder / release.file, providers=["CPUExecutionProvider"])
    if release.images:
        processor = image_processor(release.folder)
        feeds = [dict(processor(image, return_tensors="np")) for image in release.images]
    else:
        tokenizer = Tokenizer.from_file(str(release.folder / "tokenizer.json"))
        if release.task == "text-generation":
            tokenizer.enable_truncation(release.max_tokens)
            prompts = [np.array(tokenizer.encode(text).ids) for text in release.texts]
            return generate_with_cache(session, prompts, release)
        feeds = [
            {
                "input_ids": np.array([encoding.ids]),
                "attention_mask": np.array([encoding.attention_mask]),
                "token_type_ids": np.array([encoding.type_ids]),
            }
            for encoding in map(tokenizer.encode, release.texts)
        ]
    names = [value.name for value in session.get_inputs()]
    outputs = [session.run(None, {name: feed[name] for name in names}) for feed in feeds]
    if release.compared == PROBABILITIES:
        return np.exp(log_probabilities(np.concatenate([values[0] for values in outputs])))
    return np.concatenate([values[1] if release.compared == EMBEDDINGS else values[0][0] for values in outputs])


def generate_with_cache(session: Any, prompts: list[np.ndarray], release: Release) -> Answers:
    """Return the likeliest next tokens, feeding each with the keys and values of those before it."""
    inputs = [value.name for value in session.get_inputs()]
    outputs = [value.name for value in session.get_outputs()]
    empty = {
        value.name: np.zeros((1, value.shape[1], 0, value.shape[3]), dtype=np.float32)
        for value in session.get_inputs()
        if value.name.startswith("past_key_values.")
    }
    first, tokens = [], []
    for prompt in prompts:
        cache, new, made = empty, prompt, []
        for length in range(len(prompt), len(prompt) + release.new_tokens):
            feed = {
                "input_ids": new[None],
                "attention_mask": np.ones((1, length), dtype=np.int64),
                "position_ids": np.arange(length - len(new), length)[None],
            } | cache
            results = dict(zip(outputs, session.run(outputs, {name: feed[name] for name in inputs}), strict=True))
            cache = {name: results[name.replace("past_key_values", "present")] for name in empty}
            if not made:
                first.append(results["logits"][0, -1])
            new = results["logits"][0, -1:].argmax(axis=1)
            made.append(int(new[0]))
        tokens.append(made)
    return tokens if release.compared == GENERATED else np.exp(log_probabilities(np.stack(first)))


def ask_fastembed(release: Release, python: Path) -> Answers:
    """Answer with fastembed, registered as a custom model, in an environment of its own."""
    size = json.loads((release.folder / "config.json").read_text(encoding="utf-8"))["hidden_size"]
    return np.array(run_client([python, FASTEMBED_SCRIPT, release.folder, release.file, size], release.texts))


def ask_transformers_js(release: Release, node_modules: Path, scaled: bool = False) -> Answers:
    """Answer with transformers.js in Node; ``node_modules`` is where it was installed.

    The script is run from there, because Node looks for packages beside the script. ``scaled``: images are given in
    the size that the model takes.
    """
    script = node_modules.parent / NODE_SCRIPT.name
    script.write_text(NODE_SCRIPT.read_text(encoding="utf-8"), encoding="utf-8")
    command = ["node", script, release.folder.resolve(), release.compared, DTYPES[release.file]]
    with tempfile.TemporaryDirectory() as folder:
        inputs = release.texts or write_images(release, Path(folder), scaled)
        answers = run_client(command, {"task": release.task, "inputs": inputs, "newTokens": release.new_tokens})
    if release.compared == PROBABILITIES:
        return by_label(answers, release.labels)
    if release.compared == NEXT_TOKEN:
        return np.exp(log_probabilities(np.array(answers)))
    return answers if release.compared == GENERATED else np.concatenate([np.array(answer) for answer in answers])


def write_images(release: Release, folder: Path, scaled: bool) -> list[str]:
    """Write the images as PNG files, scaled by the model's own processor where asked; return their paths."""
    from PIL import Image

    processor = image_processor(release.folder)
    paths = []
    for number, image in enumerate(release.images):
        if scaled:
            image = processor.resize(image, processor.size, processor.resample)
        paths.append(str(folder / f"{number}.png"))
        Image.fromarray(image).save(paths[-1])
    return paths


def run_client(command: list[Any], inputs: Any) -> Any:
    """Run a client in a process of its own, JSON in and JSON out.

    Raises:
        RuntimeError: it failed; the end of what it wrote to standard error is in the message.
    """
    process = subprocess.run(
        list(map(str, command)), input=json.dumps(inputs), capture_output=True, text=True, timeout=600, check=False
    )
    if process.returncode:
        raise RuntimeError(f"{command[0]}: {process.stderr[-2000:]}")
    return json.loads(process.stdout)


class Client(NamedTuple):
    """A client's name, how it answers, and what is compared of its answers, by task."""

    name: str
    ask: Callable[[Release], Answers]
    compared: dict[str, tuple[str, ...]]


CLASSIFIES = {"text-classification": (PROBABILITIES,), "image-classification": (PROBABILITIES,)}
EMBEDS = {"sentence-similarity": (EMBEDDINGS,), "feature-extraction": (TOKEN_VECTORS,)}
GENERATES = {"text-generation": (NEXT_TOKEN, GENERATED)}
CLIENTS = (
    Client("Optimum", ask_optimum, CLASSIFIES | EMBEDS | GENERATES),
    Client(
        "Optimum in a pipeline",
        ask_optimum_pipeline,
        CLASSIFIES | dict.fromkeys(EMBEDS, (TOKEN_VECTORS,)) | {"text-generation": (GENERATED,)},
    ),
    Client("sentence-transformers", ask_sentence_transformers, {"sentence-similarity": (EMBEDDINGS,)}),
    Client("onnxruntime", ask_onnxruntime, CLASSIFIES | EMBEDS | GENERATES),
)
TRANSFORMERS_JS = "transformers.js"


def all_clients(node_modules: Path | None, fastembed: Path | None) -> list[Client]:
    """Return every client that can be run: those in this environment, and the others where they were installed."""
    clients = list(CLIENTS)
    if fastembed is not None:
        clients.append(
            Client("fastembed", partial(ask_fastembed, python=fastembed), {"sentence-similarity": (EMBEDDINGS,)})
        )
    if node_modules is not None:
        scaled = {"image-classification": (PROBABILITIES,)}
        in_node = partial(ask_transformers_js, node_modules=node_modules)
        clients += [
            Client(TRANSFORMERS_JS, in_node, CLASSIFIES | EMBEDS | GENERATES),
            Client(f"{TRANSFORMERS_JS}, given scaled images", partial(in_node, scaled=True), scaled),
        ]
    return clients


def compare(folder: Path, node_modules: Path | None = None, fastembed: Path | None = None) -> list[dict[str, Any]]:
    """Return, for each client and ONNX file of a release, how far its answers are from PyTorch's.

    transformers.js 4.3 gets no text that must be cut: it cuts behind the special tokens, so that the last one is lost.
    """
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    task, golden = manifest["task"], read_golden(folder)
    texts, images = (golden.texts, []) if golden.texts else ([], golden_images(folder, golden))
    rows = []
    for variant, facts in manifest["variants"].items():
        for client in all_clients(node_modules, fastembed):
            in_node = client.name.startswith(TRANSFORMERS_JS)
            if in_node and facts["file"] not in DTYPES:
                continue
            for compared in client.compared.get(task, ()):
                indices = sorted(golden.generated) if compared == GENERATED else list(range(golden.answered))
                if in_node and texts:
                    indices = [i for i in indices if len(golden.items[i]["input_ids"]) < golden.max_tokens]
                release = Release(
                    folder,
                    task,
                    facts["file"],
                    compared,
                    [texts[index] for index in indices] if texts else [],
                    [images[index] for index in indices] if images else [],
                    golden.max_tokens,
                    new_tokens=len(next(iter(golden.generated.values()), [])),
                )
                expected, answers = expected_answers(compared, golden, indices), client.ask(release)
                row = {"model": manifest["model"], "client": client.name, "variant": variant, "compared": compared}
                rows.append(row | {"inputs": len(indices)} | difference(compared, expected, answers))
    return rows


def difference(compared: str, expected: Answers, answers: Answers) -> dict[str, float]:
    """Return the largest difference and the lowest cosine, or the share of PyTorch's tokens before the first other."""
    if compared == GENERATED:
        pairs = zip(expected, answers, strict=True)
        return {"token_match": float(np.mean([matched_share(left, right) for left, right in pairs]))}
    return {
        "max_abs_diff": float(np.abs(answers - expected).max()),
        "cosine_min": float(cosine_similarity(expected, answers).min()),
    }


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| model | client | variant | compared | inputs | largest difference | lowest cosine | the same tokens |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        figures = [
            format_figure(row[name]) if name in row else "" for name in ("max_abs_diff", "cosine_min", "token_match")
        ]
        cells = (row["model"], row["client"], row["variant"], row["compared"], str(row["inputs"]), *figures)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def make_releases(folder: Path) -> list[Path]:
    """Run the workflow on the default models and two tiny ones with random weights; return the releases.

    Raises:
        RuntimeError: the run failed; the end of its output is in the message.
    """
    from architectures import all_cases
    from project import make_project

    folder.mkdir()
    project = make_project(folder)
    shutil.copytree(ROOT / "examples", folder / "examples")
    models = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))["models"]
    for case in all_cases():
        if name := TINY_MODELS.get(case.name):
            case.save(folder / "models" / name)
            models[name] = {"source": {"path": f"models/{name}"}}
    project.configure({"models": models, "benchmark": project.config["benchmark"] | {"pytorch": False}})
    run = project.snakemake(timeout=3600)
    if run.returncode:
        raise RuntimeError(run.stdout[-4000:])
    return [folder / "results" / model / "release" for model in models]


def main(argv: list[str] | None = None) -> None:
    """Compare the clients on some releases and write the table between the marks of the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("releases", type=Path, nargs="*", help="release folders (default: made on the spot)")
    parser.add_argument("--node-modules", type=Path, help="where npm installed @huggingface/transformers")
    parser.add_argument("--fastembed", type=Path, metavar="PYTHON", help="Python of an environment with fastembed")
    parser.add_argument("--output", type=Path, help="document whose table is to be replaced")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        releases = args.releases or make_releases(Path(scratch) / "project")
        table = as_markdown([row for folder in releases for row in compare(folder, args.node_modules, args.fastembed)])
    if args.output is None:
        print(table)
        return
    before, _, rest = args.output.read_text(encoding="utf-8").partition("<!-- table -->\n")
    after = rest.partition("<!-- end of table -->\n")[2]
    args.output.write_text(f"{before}<!-- table -->\n{table}<!-- end of table -->\n{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
