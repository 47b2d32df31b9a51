"""What each program of a card answers to raw inputs, beside the original's own public interface.

    make clients

Nothing of the pipeline takes part in what is expected: it is computed here, from the model's folder.
"""

import argparse
import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import project_path  # noqa: F401 - the imports below are found through it
from card_programs import run_program, with_inputs
from kinds import KINDS, TASKS
from onnxproof.formatting import format_figure
from onnxproof.inputs.final_answers import USES, FinalAnswers
from onnxproof.inputs.reference import read_final_answers
from onnxproof.parity.card_programs import open_image
from onnxproof.parity.final_answers import measure
from project import Project, make_project

#: Uses whose JavaScript programs answer texts with what this script can read.
IN_NODE = frozenset(
    {"text-classification", "sentence-similarity", "feature-extraction", "text-generation", "text2text-generation"}
)
#: What stands around the table in its document.
MARK, END = "<!-- final answers -->", "<!-- end of final answers -->"
#: Characters of the longest text that no tiny tokenizer has to cut; and of one that leaves room for what is generated.
LONGEST_IN_NODE, LONGEST_PROMPT_IN_NODE = 46, 36
#: The classes of transformers that are asked about sounds where no pipeline is.
CLASSES_OF_SOUNDS = {
    "audio-frame-classification": "AutoModelForAudioFrameClassification",
    "audio-xvector": "AutoModelForAudioXVector",
    "sound-features": "AutoModel",
}
#: What transformers calls the pipeline of a use.
PIPELINES = {"semantic-segmentation": "image-segmentation", "speech-to-text": "automatic-speech-recognition"}


def ask_original(use: str, settings: dict[str, Any], folder: Path) -> Callable[[Any], Any]:
    """Return the original's public interface, as a function of one raw input."""
    from sentence_transformers import CrossEncoder, SentenceTransformer
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, pipeline

    path = str(folder)
    if use == "sentence-similarity":
        model = SentenceTransformer(path, device="cpu")
        by_prompt = {"query": model.encode_query, "document": model.encode_document}

        def embed(value: Any) -> np.ndarray:
            if isinstance(value, dict):
                return by_prompt[value["prompt"]]([value["text"]])[0]
            return model.encode([value])[0]

        return embed
    if use == "reranking":
        encoder = CrossEncoder(path, device="cpu")
        return lambda pair: float(encoder.predict([tuple(pair)])[0])
    if use == "multiple-choice":
        return ask_for_choices(path)
    if use in CLASSES_OF_SOUNDS:
        return ask_about_sounds(use, path)
    if use in ("text-generation", "text2text-generation"):
        tokenizer = AutoTokenizer.from_pretrained(path)
        loader = AutoModelForCausalLM if use == "text-generation" else AutoModelForSeq2SeqLM
        network = loader.from_pretrained(path).eval()

        def generate(text: str) -> list[int]:
            if tokenizer.chat_template:
                messages = [{"role": "user", "content": text}]
                text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            options = {"truncation": True, "max_length": 32, "add_special_tokens": not tokenizer.chat_template}
            features = tokenizer(text, return_tensors="pt", **options)
            fed = {name: features[name] for name in ("input_ids", "attention_mask")}
            tokens = network.generate(**fed, max_new_tokens=32, do_sample=False, num_beams=1)[0].tolist()
            return tokens[1:] if use == "text2text-generation" else tokens[features["input_ids"].shape[1] :]

        return generate
    if use in ("image-to-text", "image-to-image"):
        return ask_about_images_without_pipeline(use, path)
    if use == "image-text-to-text":
        return ask_about_prompts(pipeline(use, model=path), settings)
    ask = pipeline(PIPELINES.get(use, use), model=path)
    if use == "feature-extraction":
        return lambda text: np.array(ask(text, truncation=True)[0])
    if use == "token-classification":
        return ask
    if use == "fill-mask":
        token = ask.tokenizer.convert_ids_to_tokens
        options = {"truncation": True}
        return lambda text: {
            token(found["token"]): found["score"] for found in ask(text, top_k=5, tokenizer_kwargs=options)
        }
    if use == "text-classification":

        def classify(value: Any) -> dict[str, float]:
            asked = value if isinstance(value, str) else {"text": value[0], "text_pair": value[1]}
            return {found["label"]: found["score"] for found in ask([asked], top_k=None, truncation=True)[0]}

        return classify
    if use == "audio-classification":
        count = ask.model.config.num_labels
        return lambda sound: {found["label"]: found["score"] for found in ask(sound, top_k=count)}
    if use == "automatic-speech-recognition":
        return lambda sound: ask(sound)["text"]
    if use == "speech-to-text":
        options = {"max_new_tokens": 32, "num_beams": 1, "do_sample": False}
        return lambda sound: ask(sound, generate_kwargs=dict(options))["text"]
    return ask_about_images(use, ask, settings)


def ask_for_choices(path: str) -> Callable[[Any], list[float]]:
    """Return a model of multiple choice, asked as its documentation does, as a function of a text with its choices."""
    from transformers import AutoModelForMultipleChoice, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForMultipleChoice.from_pretrained(path).eval()

    def choose(value: Any) -> list[float]:
        pairs = [[value[0], choice] for choice in value[1]]
        inputs = tokenizer(pairs, return_tensors="pt", padding=True, truncation=True)
        outputs = model(**{name: values.unsqueeze(0) for name, values in inputs.items()})
        return outputs.logits.softmax(dim=-1)[0].tolist()

    return choose


def ask_about_sounds(use: str, path: str) -> Callable[[Any], np.ndarray]:
    """Return a model of sounds, asked as the documentation of its class does, as a function of a sound's samples."""
    import torch
    import transformers

    extractor = transformers.AutoFeatureExtractor.from_pretrained(path)
    model = getattr(transformers, CLASSES_OF_SOUNDS[use]).from_pretrained(path).eval()

    def answer(sound: Any) -> np.ndarray:
        with torch.no_grad():
            outputs = model(**extractor(sound, sampling_rate=extractor.sampling_rate, return_tensors="pt"))
        if use == "audio-frame-classification":
            return torch.sigmoid(outputs.logits[0]).numpy()
        if use == "audio-xvector":
            return torch.nn.functional.normalize(outputs.embeddings, dim=-1)[0].numpy()
        return outputs.last_hidden_state[0].numpy()

    return answer


def ask_about_images_without_pipeline(use: str, path: str) -> Callable[[Any], Any]:
    """Return what the documentation of transformers shows where version 5 has no pipeline, of an image's bytes."""
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoModelForImageToImage, AutoTokenizer

    processor = AutoImageProcessor.from_pretrained(path)
    loader = AutoModelForImageTextToText if use == "image-to-text" else AutoModelForImageToImage
    network = loader.from_pretrained(path).eval()

    @torch.no_grad()
    def restore(content: Any) -> np.ndarray:
        inputs = processor(open_image(content).convert("RGB"), return_tensors="pt")
        output = network(**inputs).reconstruction.data.squeeze().float().cpu().clamp_(0, 1).numpy()
        return (np.moveaxis(output, 0, -1) * 255.0).round().astype(np.uint8)

    def describe(content: Any) -> dict[str, Any]:
        inputs = processor(images=open_image(content).convert("RGB"), return_tensors="pt")
        (tokens,) = network.generate(**inputs, max_new_tokens=32, do_sample=False)
        return {"text": tokenizer.decode(tokens, skip_special_tokens=True), "tokens": tokens[1:].tolist()}

    if use == "image-to-image":
        return restore
    tokenizer = AutoTokenizer.from_pretrained(path)
    return describe


def ask_about_prompts(write: Any, settings: dict[str, Any]) -> Callable[[Any], Any]:
    """Return a pipeline that writes, as a function of an image's bytes and a prompt: ``{image, text}``."""

    def answer(value: dict[str, Any]) -> dict[str, Any]:
        image, text = open_image(value["image"]).convert("RGB"), value["text"]
        if write.processor.chat_template:
            content = [{"type": "image", "image": image}, {"type": "text", "text": text}]
            asked: dict[str, Any] = {"text": [{"role": "user", "content": content}]}
            told = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
            prompt = write.processor.apply_chat_template(asked["text"], **told)
        else:
            asked = {"images": image, "text": f"{settings['mark']}{text}"}
            prompt = write.processor(**asked, return_tensors="pt")
        options = {"generate_kwargs": {"do_sample": False, "max_new_tokens": 32}}
        (found,) = write(**asked, return_full_text=False, **options)
        (tensors,) = write(**asked, return_tensors=True, **options)
        tokens = tensors["generated_token_ids"].tolist()
        return {"text": found["generated_text"], "tokens": tokens[prompt["input_ids"].shape[1] :]}

    return answer


def ask_about_images(use: str, ask: Any, settings: dict[str, Any]) -> Callable[[Any], Any]:
    """Return a pipeline of images as a function of the bytes of an image's file."""
    labels = getattr(ask.model.config, "id2label", {})

    def segment(content: Any) -> np.ndarray:
        parts = ask(open_image(content), subtask="semantic")
        numbers = {label: number for number, label in labels.items()}
        found = np.full(np.shape(parts[0]["mask"]), -1)
        for part in parts:
            found[np.asarray(part["mask"]) > 0] = numbers[part["label"]]
        return found

    def detect(content: Any) -> list[dict[str, Any]]:
        options = {"candidate_labels": settings["candidates"]} if "candidates" in settings else {}
        return [
            {"label": found["label"], "score": found["score"], "box": list(found["box"].values())}
            for found in ask(open_image(content), threshold=settings["threshold"], **options)
        ]

    def segment_things(content: Any) -> dict[str, Any]:
        parts = ask(open_image(content), threshold=settings["threshold"])
        places = sum(np.where(np.asarray(part["mask"]), number, 0) for number, part in enumerate(parts, start=1))
        names = [part | {"id": number} for number, part in enumerate(parts, start=1)]
        return {"segments": names, "places": places if parts else np.zeros(open_image(content).size[::-1], int)}

    def classify(content: Any) -> dict[str, float]:
        options = {"candidate_labels": settings["candidates"]} if "candidates" in settings else {"top_k": len(labels)}
        return {found["label"]: found["score"] for found in ask(open_image(content), **options)}

    return {
        "image-classification": classify,
        "zero-shot-image-classification": classify,
        "object-detection": detect,
        "zero-shot-object-detection": detect,
        "image-segmentation": segment_things,
        "semantic-segmentation": segment,
        "image-feature-extraction": lambda content: np.array(ask(open_image(content))[0]),
        "depth-estimation": lambda content: np.asarray(ask(open_image(content))["predicted_depth"]),
    }[use]


def as_expression(use: str, inputs: list[Any], folder: Path) -> tuple[str, str]:
    """Return the name of a program's inputs, and a Python expression that has these instead."""
    takes = USES[use].takes
    if takes == "images":
        paths = []
        for number, content in enumerate(inputs):
            paths.append(str(folder / f"{number}.image"))
            Path(paths[-1]).write_bytes(content.tobytes())
        return "images", f"[Image.open(path) for path in {paths!r}]"
    if takes == "images with prompts":
        _, images = as_expression("image-to-text", [value["image"] for value in inputs], folder)
        return "prompts", f"list(zip({images}, {[value['text'] for value in inputs]!r}))"
    if takes == "sounds":
        np.savez(folder / "sounds.npz", *inputs)
        return "sounds", f"list(np.load({str(folder / 'sounds.npz')!r}).values())"
    return "texts", repr([tuple(value) if isinstance(value, list) else value for value in inputs])


def programs_of(release: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the heading, the language and the text of each program of a release's card."""
    card = (release / "README.md").read_text()
    pattern = r"^### ([^\n]+)\n(?:(?!^##).)*?```(python|js)\n(.*?)```"
    yield from re.findall(pattern, card, flags=re.DOTALL | re.MULTILINE)


def expected_answers(final: FinalAnswers, model: Path) -> list[Any]:
    """Return what the original answers to the raw inputs of a release."""
    ask = ask_original(final.use, final.settings, model)
    return [ask(value) for value in final.inputs]


def as_answers(use: str, answers: Any) -> list[Any]:
    """Return a program's answers, which come as JSON has them, as ``measure`` takes them."""
    if USES[use].gives in ("vectors", "token vectors", "pixels", "fields", "frames", "images"):
        return [np.array(answer) for answer in answers]
    if USES[use].gives == "labels" and isinstance(answers[0], list):  # of a pipeline in Node
        return [{found["label"]: found["score"] for found in answer} for answer in answers]
    return list(answers)


def run_in_node(text: str, inputs: list[str], release: Path, node_modules: Path) -> Any:
    """Run a JavaScript program of a card on other texts; return the JSON that it prints."""
    script = node_modules.parent / "program.mjs"
    changed = re.sub(r"texts = \[.*?\];", lambda _: f"texts = {json.dumps(inputs)};", text, count=1, flags=re.DOTALL)
    script.write_text(changed, encoding="utf-8")
    run = subprocess.run(["node", script], cwd=release, capture_output=True, text=True, timeout=300, check=False)
    if run.returncode:
        raise RuntimeError(run.stderr[-2000:])
    return json.loads(run.stdout)


def compare_programs(
    release: Path, model: Path, scratch: Path, optimum_python: Path | None = None, node_modules: Path | None = None
) -> Iterator[tuple[str, int, dict[str, float | None]]]:
    """Yield, for each program of a card, its heading, how many raw inputs it answered, and how far it is off.

    Programs in Python are asked where Optimum's interpreter is given, those in JavaScript where transformers.js is.
    """
    final = read_final_answers(release.parent / "reference")  # a release carries as many of them as 2 MB hold
    assert final is not None
    activation = str(final.settings.get("activation", ""))
    expected = expected_answers(final, model)
    yield "recorded", len(expected), measure(final.use, activation, expected, final.answers)
    plain = [index for index, value in enumerate(final.inputs) if not (isinstance(value, dict) and "prompt" in value)]
    name, expression = as_expression(final.use, [final.inputs[index] for index in plain], scratch)
    for heading, language, text in programs_of(release):
        asked = plain
        if language == "python" and optimum_python is not None:
            answers = run_program(with_inputs(text, name, expression), release, ["answers"], optimum_python)["answers"]
        elif language == "js" and node_modules is not None and final.use in IN_NODE:
            # transformers.js cuts behind the special tokens, so that the last one is lost: no text that must be cut.
            longest = LONGEST_PROMPT_IN_NODE if USES[final.use].gives == "tokens" else LONGEST_IN_NODE
            asked = [index for index in plain if len(final.inputs[index]) < longest]
            answers = run_in_node(text, [final.inputs[index] for index in asked], release, node_modules)
        else:
            continue
        wanted = [expected[index] for index in asked]
        yield heading, len(asked), measure(final.use, activation, wanted, as_answers(final.use, answers))


def as_table(compared: Iterable[tuple[str, str, str, int, dict[str, float | None]]]) -> str:
    """Return rows of model, use, program, inputs and metrics as a Markdown table."""
    lines = ["| model | use | program | raw inputs | difference from the original |", "| --- | --- | --- | --- | --- |"]
    for model, use, heading, count, metrics in compared:
        figures = ", ".join(
            f"{name} {'none' if value is None else format_figure(value)}" for name, value in metrics.items()
        )
        lines.append(f"| {model} | {use} | {heading} | {count} | {figures} |")
    return "\n".join(lines) + "\n"


def make_releases(folder: Path) -> Project:
    """Run the workflow on a model of every kind, whose releases hold the fp32 file alone; return the project.

    Raises:
        RuntimeError: the run failed; the end of its output is in the message.
    """
    folder.mkdir(parents=True, exist_ok=True)
    project = make_project(folder)
    for name, save in KINDS.items():
        save(folder / "models" / name)
    models: dict[str, Any] = {name: {"source": {"path": f"models/{name}"}} for name in KINDS}
    for name, task in TASKS.items():
        models[name]["task"] = task
    benchmark = project.config["benchmark"] | {"pytorch": False}
    project.configure(project.config | {"models": models, "variants": ["fp32"], "benchmark": benchmark})
    run = project.snakemake("--keep-going", timeout=3600)
    if run.returncode:
        raise RuntimeError(run.stdout[-4000:])
    return project


def main(argv: list[str] | None = None) -> None:
    """Compare the programs of every kind of card and write the table between the marks of the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--optimum", type=Path, required=True, help="Python of the environment with optimum-onnx")
    parser.add_argument("--node-modules", type=Path, help="where npm installed @huggingface/transformers")
    parser.add_argument("--output", type=Path, help="document whose table is to be replaced")
    args = parser.parse_args(argv)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        project = make_releases(Path(scratch) / "project")
        for kind in KINDS:
            release = project.folder / "results" / kind / "release"
            use = read_final_answers(release.parent / "reference").use
            if use == "question-answering":  # transformers 5 has no pipeline for it; a test asks that of version 4
                continue
            compared = compare_programs(
                release, project.folder / "models" / kind, Path(scratch), args.optimum, args.node_modules
            )
            rows += [(kind, use, *row) for row in compared]
    if args.output is None:
        print(as_table(rows))
        return
    before, _, rest = args.output.read_text(encoding="utf-8").partition(f"{MARK}\n")
    after = rest.partition(f"{END}\n")[2]
    args.output.write_text(f"{before}{MARK}\n{as_table(rows)}{END}\n{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
