"""Compare what two versions of transformers answer from the same folders: the second one is a witness.

A model that transformers 4 saved may be misread by transformers 5, without an error. Both versions are asked: tokens,
pixels and features that the preprocessing makes, all floating-point outputs of the model's own class, the tokens that
it generates, and what SentenceTransformer and CrossEncoder answer.

    python tools/second_witness.py --other .venv-optimum/bin/python FOLDER_OF_MODELS

With ``--answers FILE`` it is one of the two: it asks the version that it runs with, and writes the answers.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import project_path  # noqa: F401 - the imports below are found through it
from onnxproof.checkpoint.inference import read_transformer_config
from onnxproof.checkpoint.misread_configs import check_config
from onnxproof.inputs.synthetic import draw_images, synthesize_sounds
from onnxproof.original.corrections import correct_biases, correct_tokenizer
from onnxproof.tasks.model_types import model_takes

#: Set by ``--uncorrected`` for the processes that are asked.
UNCORRECTED = "SECOND_WITNESS_UNCORRECTED"

#: Texts of several scripts, with capitals, accents, marks that tokenizers normalize, and names of special tokens.
TEXTS = (
    "The battery works after two weeks, and I would buy it again!",
    "Ein großes Ärgernis: die Übersetzung hält nicht, was sie verspricht.",
    "价格很好,但是屏幕坏了。",
    "とても良い製品です。また買います!",
    "هذا المنتج سيئ جدا ولن أشتريه مرة أخرى",
    "यह उत्पाद बहुत अच्छा है",
    "Очень хорошо, спасибо",
    "  two   spaces\tand a tab\nand a line ",
    "[MASK] </s> <pad> <unk> <special> café naïve ﬁne — “quoted” 🙂",
    "a",
    "it was not very good " * 20,
)
PAIRS = tuple(zip(TEXTS[:4], TEXTS[4:8], strict=True))
#: As many texts go into the network at once: the open detectors want as many for each of the three images.
COMMON = 9
LONGEST = 48
NEW_TOKENS = 16
IMAGE_SHAPES = ((37, 53), (64, 64), (101, 40))
#: Largest difference over largest value of a floating-point answer that both versions give.
TOLERANCE = 1e-4
#: Configurations of whole models whose decoder has to be told what it starts with.
START_TOKENS = 4


@dataclass(frozen=True)
class Difference:
    """One answer that the versions do not share.

    ``size`` is the largest difference over the largest value, or, of tokens, the share that differs; infinite where
    shapes differ or only one version answers. ``detail`` says which.
    """

    folder: str
    answer: str
    size: float
    detail: str = ""


def answers_of(folder: Path) -> dict[str, np.ndarray]:
    """Return what the installed version answers from one model's folder, by the name of the answer."""
    config = read_transformer_config(folder)
    takes = model_takes(config.get("model_type"))
    answers: dict[str, np.ndarray] = {}
    inputs: dict[str, Any] = {}

    def ask_for(what: str, part: Callable[..., dict[str, Any] | None], *values: Any) -> None:
        """Add what a part answers; an error is an answer too, for the other version may give the same."""
        try:
            inputs.update(part(folder, *values, answers) or {})
        except Exception as error:
            message = " ".join(str(error).split())[:200]
            answers[f"error.{what}"] = np.array(f"{type(error).__name__}: {message}")

    if any((folder / name).is_file() for name in ("tokenizer_config.json", "tokenizer.json", "vocab.txt")):
        ask_for("tokenizer", _tokenize)
    if takes not in ("text", "image+texts"):
        inputs.clear()
    if takes.startswith("image"):
        ask_for("image processor", _see)
    elif takes == "sound":
        ask_for("feature extractor", _hear)
    if (folder / "config_sentence_transformers.json").is_file():
        ask_for("sentence-transformers", _ask_sentence_transformers)
    ask_for("network", _ask_network, config, inputs)
    return answers


def _tokenize(folder: Path, answers: dict[str, np.ndarray]) -> dict[str, Any]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    _correct_tokenizer(folder, tokenizer)
    length = min(tokenizer.model_max_length, LONGEST)
    answers["tokenizer.model_max_length"] = np.array(min(tokenizer.model_max_length, 1 << 40))
    answers["tokenizer.special_ids"] = np.array(sorted(tokenizer.all_special_ids))
    for name, columns in {"texts": (list(TEXTS),), "pairs": tuple(map(list, zip(*PAIRS, strict=True)))}.items():
        padded = tokenizer.pad_token is not None
        for number, text in enumerate(zip(*columns, strict=True)):
            tokens = tokenizer(*text, truncation=True, max_length=length)["input_ids"]
            answers[f"tokens.{name}.{number}"] = np.array(tokens, dtype=np.int64)
        if padded:
            features = tokenizer(*columns, padding=True, truncation=True, max_length=length, return_tensors="np")
            answers |= {f"tokens.{name}.{key}": values for key, values in features.items()}
    plain = tokenizer(list(TEXTS[:3]))["input_ids"]
    answers["tokens.unlimited"] = np.array([token for tokens in plain for token in tokens], dtype=np.int64)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    texts = list(TEXTS[:COMMON])
    return dict(tokenizer(texts, padding=True, truncation=True, max_length=length, return_tensors="pt"))


def _correct_tokenizer(folder: Path, tokenizer: Any) -> None:
    """Apply the pipeline's corrections, where this is the newer version and they are wanted."""
    if is_corrected():
        place = folder / "0_Transformer" if (folder / "0_Transformer/tokenizer_config.json").is_file() else folder
        types = read_transformer_config(folder).get("type_vocab_size") or 0
        correct_tokenizer(folder.name, place, tokenizer, types)


def is_corrected() -> bool:
    """Tell whether the answers are those of transformers 5 with the pipeline's corrections."""
    import transformers

    return int(transformers.__version__.split(".")[0]) >= 5 and not os.environ.get(UNCORRECTED)


def _see(folder: Path, answers: dict[str, np.ndarray]) -> dict[str, Any]:
    import torch
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    pixels = [dict(processor(image, return_tensors="np")) for image in draw_images(3, 0, IMAGE_SHAPES)]
    for number, features in enumerate(pixels):
        answers |= {f"pixels.{number}.{name}": np.asarray(values) for name, values in features.items()}
    names = [name for name in pixels[0] if len({item[name].shape for item in pixels}) == 1]
    return {name: torch.from_numpy(np.concatenate([item[name] for item in pixels])) for name in names} or {
        name: torch.from_numpy(values) for name, values in pixels[0].items()
    }


def _hear(folder: Path, answers: dict[str, np.ndarray]) -> dict[str, Any]:
    from transformers import AutoFeatureExtractor

    extractor = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
    sounds = synthesize_sounds(2, extractor.sampling_rate, 0, (0.7, 1.0))
    features = extractor(sounds, sampling_rate=extractor.sampling_rate, padding=True, return_tensors="pt")
    answers |= {f"sound.{name}": values.numpy() for name, values in features.items()}
    return dict(features)


def _ask_sentence_transformers(folder: Path, answers: dict[str, np.ndarray]) -> None:
    import sentence_transformers

    kind = json.loads((folder / "config_sentence_transformers.json").read_text()).get("model_type")
    if kind == "CrossEncoder":
        reranker = sentence_transformers.CrossEncoder(str(folder), device="cpu", local_files_only=True)
        _correct_tokenizer(folder, reranker.tokenizer)
        answers["predict"] = np.asarray(reranker.predict(list(PAIRS)))
    elif (folder / "modules.json").is_file():
        model = sentence_transformers.SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        _correct_tokenizer(folder, model.tokenizer)
        answers["max_seq_length"] = np.array(model.max_seq_length)
        answers["encode"] = np.asarray(model.encode(list(TEXTS)))


def _ask_network(folder: Path, config: dict[str, Any], inputs: dict[str, Any], answers: dict[str, np.ndarray]) -> None:
    import inspect

    import torch
    import transformers

    if is_corrected():
        check_config(folder.name, config)
    network_class = getattr(transformers, (config.get("architectures") or ["AutoModel"])[0])
    place = folder if (folder / "config.json").is_file() else folder / "0_Transformer"
    options: dict[str, Any] = {"local_files_only": True, "dtype": torch.float32, "output_loading_info": True}
    try:
        network, report = network_class.from_pretrained(place, attn_implementation="eager", **options)
    except (ValueError, TypeError):  # models with one attention of their own
        network, report = network_class.from_pretrained(place, **options)
    network.eval()
    missing = set(report["missing_keys"]) & {name for name, _ in network.named_parameters()}
    if is_corrected():
        missing -= set(correct_biases(network, missing))
    if missing := {name for name in missing if "pooler" not in name}:  # they have other values each time
        raise ValueError(f"no weights for {sorted(missing)}")
    parameters = inspect.signature(network.forward).parameters
    features = {name: values for name, values in inputs.items() if name in parameters}
    if (getattr(network.config, "type_vocab_size", 0) or 0) <= 1:
        features.pop("token_type_ids", None)
    if "labels" in features:
        features.pop("labels")
    if network_class.__name__.endswith("ForMultipleChoice"):
        features = {name: values[:8].reshape(4, 2, -1) for name, values in features.items()}
    mask = features.get("attention_mask")
    whole = slice(None) if mask is None or "input_ids" not in features else mask[0] != 0  # without padding
    prompt = {name: values[:1, whole] if values.ndim == 2 else values[:1] for name, values in features.items()}
    if getattr(network.config, "is_encoder_decoder", False) and "decoder_input_ids" in parameters:
        rows = next(iter(features.values())).shape[0]
        features["decoder_input_ids"] = torch.arange(5, 5 + START_TOKENS).repeat(rows, 1)
    with torch.inference_mode():
        outputs = network(**features)
        for name, values in outputs.items():
            if torch.is_tensor(values) and values.is_floating_point():
                if mask is not None and values.shape[:2] == mask.shape:  # what stands at padding is no answer
                    values = values * mask.reshape(*mask.shape, *[1] * (values.ndim - 2))
                answers[f"outputs.{name}"] = values.numpy()
        if network.can_generate() and network_class.__name__.endswith(GENERATING):
            prompt.pop("token_type_ids", None)
            tokens = network.generate(**prompt, max_new_tokens=NEW_TOKENS, do_sample=False, num_beams=1)
            answers["generated"] = tokens.numpy()


GENERATING = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "MTModel", "EncoderDecoderModel")


def write_answers(folders: Sequence[Path], file: Path) -> None:
    """Ask the installed version about some folders; write ``{folder: {answer: values}}`` and errors to one file."""
    import pickle

    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    answers: dict[str, Any] = {}
    for folder in folders:
        answers[folder.name] = answers_of(folder)
    with file.open("wb") as stream:
        pickle.dump(answers, stream)


def ask(interpreter: Path, folders: Sequence[Path], scratch: Path) -> dict[str, Any]:
    """Return the answers of another interpreter's version, see ``write_answers``."""
    import pickle

    file = scratch / "answers.pickle"
    environment = dict(os.environ) | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [str(interpreter), str(Path(__file__).resolve()), "--answers", str(file), *map(str, folders)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"{interpreter} failed: {run.stderr[-2000:]}")
    with file.open("rb") as stream:
        answers: dict[str, Any] = pickle.load(stream)
    return answers


def compare(first: dict[str, Any], second: dict[str, Any]) -> Iterator[Difference]:
    """Yield what differs between the answers of two versions, whatever its size."""
    for folder, answers in first.items():
        others = second[folder]
        for name in dict.fromkeys([*answers, *others]):
            one, other = answers.get(name), others.get(name)
            if one is None or other is None:
                detail = "only one version answers" if name[:6] != "error." else f"{one} | {other}"
                yield Difference(folder, name, float("inf"), detail)
            elif name.startswith("error."):
                continue  # neither answers
            elif one.shape != other.shape:
                yield Difference(folder, name, float("inf"), f"shapes {one.shape} and {other.shape}")
            elif not np.issubdtype(one.dtype, np.floating):
                yield Difference(folder, name, float(np.mean(one != other)))
            elif not np.array_equal(one, other, equal_nan=True):
                largest = np.abs(np.where(np.isfinite(one), one, 0)).max() or 1.0
                same = (one == other) | (np.isnan(one) & np.isnan(other))
                size = np.where(same, 0.0, np.abs(one - other)).max() / largest
                yield Difference(folder, name, float(size) if np.isfinite(size) else float("inf"))


def models_in(folder: Path) -> list[Path]:
    """Return the folders of models in a folder, sorted; encoders that a test saved beside its model are left out."""
    found = (path for path in folder.iterdir() if (path / "config.json").is_file())
    return sorted(path for path in found if not path.name.endswith("-encoder"))


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, ask and compare; the status is 1 where answers differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="a folder of models; with --answers, each a model")
    parser.add_argument("--other", type=Path, help="the interpreter of the other environment")
    parser.add_argument("--others-folder", type=Path, help="the same models, saved another way, for the other version")
    parser.add_argument("--uncorrected", action="store_true", help="leave the pipeline's corrections out")
    parser.add_argument("--answers", type=Path, help="write this version's answers to this file, and compare nothing")
    args = parser.parse_args(argv)
    if args.answers:
        write_answers(args.folders, args.answers)
        return 0
    if args.uncorrected:
        os.environ[UNCORRECTED] = "1"
    models = [model for folder in args.folders for model in models_in(folder)]
    others = [args.others_folder / model.name for model in models] if args.others_folder else models
    with tempfile.TemporaryDirectory() as scratch:
        second = ask(args.other, others, Path(scratch))
        first = ask(Path(sys.executable), models, Path(scratch))
    differing = [item for item in compare(first, second) if item.size > TOLERANCE]
    for item in differing:
        print(f"{item.folder} | {item.answer} | {item.size:.2g} | {item.detail}")
    print(f"{len(models)} models, {len({item.folder for item in differing})} answer otherwise")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
