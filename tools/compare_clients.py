"""Compare what each client answers from a release with what PyTorch answered: the table of docs/clients.md.

    make clients

Every client gets the golden inputs one by one, reads the release as its users do, and must give PyTorch's recorded
answers: class probabilities, sentence embeddings, token vectors, or the text that a decoder goes on with.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

import project_path
from onnxproof.formatting import format_figure
from onnxproof.graph.generation import matched_share
from onnxproof.inputs.material import EVALUATION_IMAGES, EVALUATION_SEED
from onnxproof.inputs.model_inputs import Reference
from onnxproof.inputs.synthetic import draw_images
from onnxproof.parity.metrics import cosine_similarity, log_probabilities
from onnxproof.release.announcement import DTYPE_FILES
from onnxproof.release.golden import read_golden

ROOT = project_path.ROOT

#: What is compared.
PROBABILITIES, EMBEDDINGS, TOKEN_VECTORS = "probabilities", "embeddings", "token vectors"
NEXT_TOKEN, GENERATED = "next-token probabilities", "generated tokens"

#: The files that transformers.js finds, by the names it has for them.
DTYPES = {path: dtype for dtype, path in DTYPE_FILES.items()}
NODE_SCRIPT = Path(__file__).with_name("transformers_js_answers.mjs")
FASTEMBED_SCRIPT = Path(__file__).with_name("fastembed_answers.py")
OPTIMUM_SCRIPT = Path(__file__).with_name("optimum_answers.py")
#: Cases of tests/support/architectures.py → what they are called in the table.
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
        """The names of the classes, in their order."""
        names = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))["id2label"]
        return [names[str(index)] for index in range(len(names))]


def image_processor(folder: Path) -> Any:
    """Return the image processor of a release."""
    from transformers import AutoImageProcessor

    return AutoImageProcessor.from_pretrained(folder)


def golden_images(folder: Path, golden: Reference) -> list[np.ndarray]:
    """Return the drawn images that the golden inputs were made from, uint8 (height, width, 3)."""
    processor = image_processor(folder)
    drawn = draw_images(EVALUATION_IMAGES, EVALUATION_SEED)
    by_pixels = {processor(image, return_tensors="np")["pixel_values"].tobytes(): image for image in drawn}
    return [by_pixels[item["pixel_values"].tobytes()] for item in golden.answered_inputs.items]


def expected_answers(compared: str, golden: Reference, indices: list[int]) -> Answers:
    """Return PyTorch's answers to some golden inputs."""
    if compared == GENERATED:
        return [golden.generated[index] for index in indices]
    outputs = {name: [arrays[index] for index in indices] for name, arrays in golden.outputs.items()}
    if compared == TOKEN_VECTORS:
        return np.concatenate(outputs["last_hidden_state"])
    if compared == EMBEDDINGS:
        return np.stack(outputs["sentence_embedding"])
    logits = [array[-1] if compared == NEXT_TOKEN else array for array in outputs["logits"]]
    return np.exp(log_probabilities(np.stack(logits)))


def ask_optimum(release: Release, client: str, python: Path) -> Answers:
    """Answer with one of the clients of ``optimum_answers.py``, in their environment."""
    facts = {name: getattr(release, name) for name in ("task", "file", "compared", "texts", "max_tokens", "new_tokens")}
    with tempfile.TemporaryDirectory() as folder:
        images = [str(Path(folder) / f"{number}.npy") for number in range(len(release.images))]
        for path, image in zip(images, release.images, strict=True):
            np.save(path, image)
        labels = release.labels if release.compared == PROBABILITIES else []
        asked = facts | {"folder": str(release.folder.resolve()), "images": images, "labels": labels}
        answers = Path(folder) / "answers.npz"
        run_process([python, OPTIMUM_SCRIPT, client, answers], asked)
        with np.load(answers) as arrays:
            made = [arrays[f"arr_{number}"] for number in range(len(arrays.files))]
    if release.compared == GENERATED:
        return [tokens.tolist() for tokens in made]
    return np.concatenate(made) if release.compared == TOKEN_VECTORS else np.stack(made)


def ask_exported_model(release: Release) -> Answers:
    """Answer with transformers 5, which reads ``export.json``; any file takes the place of the one named there."""
    import onnxruntime
    from transformers import AutoTokenizer
    from transformers.exporters import ExportedModel
    from transformers.exporters.exporter_onnx import OnnxExporter

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = ExportedModel.from_pretrained(release.folder, device="cpu", session_options=options)
    model.components["model"].program = OnnxExporter.load_program(release.folder / release.file)
    model.to("cpu", session_options=options)
    if release.images:
        processor = image_processor(release.folder)
        features = [processor(image, return_tensors="pt") for image in release.images]
    else:
        tokenizer = AutoTokenizer.from_pretrained(release.folder)
        features = [tokenizer(text, truncation=True, return_tensors="pt") for text in release.texts]
    name = {EMBEDDINGS: "sentence_embedding", TOKEN_VECTORS: "last_hidden_state"}.get(release.compared, "logits")
    outputs = [model(**values)[name].detach().numpy()[0] for values in features]
    if release.compared == PROBABILITIES:
        return np.exp(log_probabilities(np.stack(outputs)))
    return np.concatenate(outputs) if release.compared == TOKEN_VECTORS else np.stack(outputs)


def by_label(answers: list[list[dict[str, Any]]], labels: list[str]) -> np.ndarray:
    """Return a classification pipeline's scores in the order of the labels, shape (inputs, labels)."""
    scores = [{entry["label"]: entry["score"] for entry in answer} for answer in answers]
    return np.array([[score[label] for label in labels] for score in scores])


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
            channels_first = np.moveaxis(image, -1, 0)
            image = np.moveaxis(processor.resize(channels_first, processor.size, processor.resample), 0, -1)
        paths.append(str(folder / f"{number}.png"))
        Image.fromarray(np.ascontiguousarray(image)).save(paths[-1])
    return paths


def run_client(command: list[Any], inputs: Any) -> Any:
    """Run a client in a process of its own, JSON in and JSON out; see ``run_process``."""
    return json.loads(run_process(command, inputs))


def run_process(command: list[Any], inputs: Any) -> str:
    """Run a command, give it JSON, and return what it wrote to standard output.

    Raises:
        RuntimeError: it failed; the end of what it wrote to standard error is in the message.
    """
    process = subprocess.run(
        list(map(str, command)), input=json.dumps(inputs), capture_output=True, text=True, timeout=600, check=False
    )
    if process.returncode:
        raise RuntimeError(f"{command[0]}: {process.stderr[-2000:]}")
    return process.stdout


class Client(NamedTuple):
    """A client's name, how it answers, and what is compared of its answers, by task."""

    name: str
    ask: Callable[[Release], Answers]
    compared: dict[str, tuple[str, ...]]


CLASSIFIES = {"text-classification": (PROBABILITIES,), "image-classification": (PROBABILITIES,)}
EMBEDS = {"sentence-similarity": (EMBEDDINGS,), "feature-extraction": (TOKEN_VECTORS,)}
GENERATES = {"text-generation": (NEXT_TOKEN, GENERATED)}
CLIENTS = (
    Client("onnxruntime", ask_onnxruntime, CLASSIFIES | EMBEDS | GENERATES),
    Client("transformers 5, ExportedModel", ask_exported_model, CLASSIFIES | EMBEDS),
)
#: Those of ``optimum_answers.py``: name in the table, name there, what is compared.
OPTIMUM_CLIENTS: tuple[tuple[str, str, dict[str, tuple[str, ...]]], ...] = (
    ("Optimum", "optimum", CLASSIFIES | EMBEDS | GENERATES),
    (
        "Optimum in a pipeline",
        "optimum-pipeline",
        CLASSIFIES | dict.fromkeys(EMBEDS, (TOKEN_VECTORS,)) | {"text-generation": (GENERATED,)},
    ),
    ("sentence-transformers 5.7", "sentence-transformers", {"sentence-similarity": (EMBEDDINGS,)}),
)
TRANSFORMERS_JS = "transformers.js"


def all_clients(optimum: Path | None, node_modules: Path | None, fastembed: Path | None) -> list[Client]:
    """Return every client that can be run: those in this environment, and the others where they were installed."""
    clients = list(CLIENTS)
    if optimum is not None:
        clients += [
            Client(name, partial(ask_optimum, client=client, python=optimum), compared)
            for name, client, compared in OPTIMUM_CLIENTS
        ]
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


def compare(
    folder: Path,
    optimum: Path | None = None,
    node_modules: Path | None = None,
    fastembed: Path | None = None,
) -> list[dict[str, Any]]:
    """Return, for each client and ONNX file of a release, how far its answers are from PyTorch's.

    ``optimum`` and ``fastembed`` are the Pythons of the environments with these, ``node_modules`` is where
    transformers.js is.

    transformers.js 4.3 gets no text that must be cut: it cuts behind the special tokens, so that the last one is lost.
    """
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    task, golden = manifest["task"], read_golden(folder)
    max_tokens = golden.manifest["max_tokens"]
    texts, images = (golden.texts, []) if golden.texts else ([], golden_images(folder, golden))
    rows = []
    for variant, file, is_copy in named_files(manifest):
        for client in all_clients(optimum, node_modules, fastembed):
            in_node = client.name.startswith(TRANSFORMERS_JS)
            if (is_copy and not in_node) or (in_node and file not in DTYPES):
                continue
            for compared in client.compared.get(task, ()):
                indices = sorted(golden.generated) if compared == GENERATED else list(range(golden.answered))
                if in_node and texts:
                    indices = [i for i in indices if len(golden.inputs.items[i]["input_ids"]) < max_tokens]
                release = Release(
                    folder,
                    task,
                    file,
                    compared,
                    [texts[index] for index in indices] if texts else [],
                    [images[index] for index in indices] if images else [],
                    max_tokens,
                    new_tokens=len(next(iter(golden.generated.values()), [])),
                )
                expected, answers = expected_answers(compared, golden, indices), client.ask(release)
                row = {"model": manifest["model"], "client": client.name, "variant": variant, "compared": compared}
                if is_copy:
                    row["variant"] = f"{variant}, dtype {DTYPES[file]}"
                rows.append(row | {"inputs": len(indices)} | difference(compared, expected, answers))
    return rows


def named_files(manifest: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """Return each variant's name and file, and again with its copy's file; the last value says which of both it is."""
    return [
        (variant, named["file"], is_copy)
        for variant, facts in manifest["variants"].items()
        for named, is_copy in ((facts, False), (facts.get("copied_as"), True))
        if named
    ]


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
    from project import LOOSE, make_project

    folder.mkdir()
    project = make_project(folder)
    shutil.copytree(ROOT / "examples", folder / "examples")
    models = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))["models"]
    for case in all_cases():
        if name := TINY_MODELS.get(case.name):
            case.save(folder / "models" / name)
            models[name] = {"source": {"path": f"models/{name}"}, "parity": {"thresholds": {"int8": LOOSE}}}
    project.configure({"models": models, "benchmark": project.config["benchmark"] | {"pytorch": False}})
    run = project.snakemake(timeout=3600)
    if run.returncode:
        raise RuntimeError(run.stdout[-4000:])
    return [folder / "results" / model / "release" for model in models]


def main(argv: list[str] | None = None) -> None:
    """Compare the clients on some releases and write the table between the marks of the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("releases", type=Path, nargs="*", help="release folders (default: made on the spot)")
    parser.add_argument("--optimum", type=Path, metavar="PYTHON", help="Python of the environment with optimum-onnx")
    parser.add_argument("--node-modules", type=Path, help="where npm installed @huggingface/transformers")
    parser.add_argument("--fastembed", type=Path, metavar="PYTHON", help="Python of an environment with fastembed")
    parser.add_argument("--output", type=Path, help="document whose table is to be replaced")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        releases = args.releases or make_releases(Path(scratch) / "project")
        clients = (args.optimum, args.node_modules, args.fastembed)
        table = as_markdown([row for folder in releases for row in compare(folder, *clients)])
    if args.output is None:
        print(table)
        return
    before, _, rest = args.output.read_text(encoding="utf-8").partition("<!-- table -->\n")
    after = rest.partition("<!-- end of table -->\n")[2]
    args.output.write_text(f"{before}<!-- table -->\n{table}<!-- end of table -->\n{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
