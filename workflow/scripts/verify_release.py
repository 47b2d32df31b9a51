"""Verify a release where it is deployed: its files, its tokenizer, and its answers on this machine's CPU.

This file is part of every release and needs only Python 3.10, onnxruntime, numpy and tokenizers. It

1. compares every file with the sha256 in ``manifest.json``, and ``manifest.json`` with ``SHA256SUMS``;
2. tokenizes the golden texts and compares the ids with those that PyTorch was given;
3. runs the golden inputs through each ONNX file, each alone and again in padded batches, and holds the answers
   to the ones recorded from PyTorch, under the limits of the gate that let the release pass.

It prints what it measured and exits with 1 where anything is missing, changed or beyond its limit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

MANIFEST, SUMS, GOLDEN, GOLDEN_FACTS = "manifest.json", "SHA256SUMS", "golden.npz", "golden.json"
TOKENS, MASK, POSITIONS, DECODER_TOKENS = "input_ids", "attention_mask", "position_ids", "decoder_input_ids"
PAST, PRESENT = "past_key_values.", "present."
WITH_PAST, MERGED, USE_CACHE = "decoder_with_past_model", "decoder_model_merged", "use_cache_branch"
VISION, EMBEDDING, EMBEDDINGS, TOKEN_KINDS = "vision_encoder", "embed_tokens", "inputs_embeds", "token_type_ids"
PIXELS, PIXEL_MASK, GRID, GRAPH_GRID = "pixel_values", "pixel_attention_mask", "image_grid_thw", "grid_thw"
#: Image tokens of model types whose configuration may leave them out.
IMAGE_TOKENS = {"gemma3": 262144, "idefics3": 128257, "llava": 32000, "smolvlm": 128257}
IMAGE_TOKENS |= {"qwen2_vl": 151655, "qwen2_5_vl": 151655}
BATCH_SIZE = 8
NEEDED = "onnxruntime, numpy and tokenizers"

#: Of a machine without one of these, int8 is slower and, where its verdict says so, may saturate.
FLAGS_OF_INTEREST = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8", "asimddp", "i8mm")

#: Shares of all golden inputs: their limit is rounded to whole inputs, so that 0.99 allows one of 32 to differ.
SHARES = frozenset({"top1_agreement", "next_token_agreement", "token_agreement", "pixel_agreement", "span_agreement"})

#: Of an answer to a question, the most tokens; of the detections in an image, how many are looked for, and how much of
#: two boxes must be common to both.
LONGEST_SPAN, DETECTIONS, LEAST_OVERLAP = 30, 10, 0.5

#: Tasks whose outputs are sets: value by value, two equal answers may differ.
UNORDERED = frozenset({"object-detection"})

#: Tasks whose graphs take one input at a time.
ONE_BY_ONE = frozenset({"zero-shot-object-detection"})


class ReleaseError(Exception):
    """The folder holds no release that could be verified at all."""


@dataclass
class Check:
    """One thing that was looked at: what was seen here, what is allowed, and whether that is met."""

    subject: str
    what: str
    seen: str
    allowed: str
    verdict: str  #: "pass", "FAIL", or "skipped": cannot be said from the golden inputs alone


@dataclass
class Golden:
    """The golden inputs, and PyTorch's answers to the first ``answered`` of them.

    ``items`` and ``outputs`` hold arrays without a batch axis by name, one mapping an input; ``shared`` holds whole
    arrays that are fed as they are. ``texts`` has the text, or the pair, of each input; None where a tokenizer alone
    does not make the inputs. ``generated`` holds the tokens that PyTorch generates after some of the inputs, by the
    input's number.
    """

    items: list[dict[str, Any]]
    shared: dict[str, Any]
    outputs: list[dict[str, Any]]
    padding: dict[str, Any]
    per_token: frozenset[str]
    labels: int
    texts: list[str | tuple[str, str]] | None
    max_tokens: int | None
    generated: dict[int, list[int]]

    @property
    def answered(self) -> int:
        """How many of the inputs have answers."""
        return len(self.outputs)

    def batches(self, names: list[str], size: int) -> list[list[int]]:
        """Return the answered inputs in batches; without a mask that tells padding apart, only of one shape each."""
        groups: dict[Any, list[int]] = {}
        for index, item in enumerate(self.items[: self.answered]):
            shape = None if MASK in names else tuple((name, item[name].shape) for name in names if name in item)
            groups.setdefault(shape, []).append(index)
        return [group[start : start + size] for group in groups.values() for start in range(0, len(group), size)]

    def feed(self, indices: list[int], names: list[str]) -> dict[str, Any]:
        """Return the inputs by name, padded along every axis to the largest."""
        return {name: self.shared[name] if name in self.shared else self._batch(name, indices) for name in names}

    def _batch(self, name: str, indices: list[int]) -> Any:
        import numpy as np

        arrays = [self.items[index][name] for index in indices]
        if name == PIXELS and GRID in self.items[0]:  # patches of several images follow each other
            return np.concatenate(arrays)
        largest = np.max([array.shape for array in arrays], axis=0)
        rows = []
        for array in arrays:
            widths = [(0, int(most - size)) for size, most in zip(array.shape, largest, strict=True)]
            if self.padding["side"] == "left":
                widths = [(after, before) for before, after in widths]
            rows.append(np.pad(array, widths, constant_values=self.padding["values"].get(name, 0)))
        # Of positions with several parts each, the parts come first.
        return np.stack(rows, axis=1 if name == POSITIONS and rows[0].ndim == 2 else 0)

    def output_of(self, name: str, row: Any, index: int) -> Any:
        """Return what one row of a batch's output says about an input: of texts, the rows of its tokens only."""
        if name not in self.per_token:
            return row
        item = self.items[index]
        length = item[DECODER_TOKENS if DECODER_TOKENS in item else TOKENS].shape[-1]
        tokens = row[-length:] if self.padding["side"] == "left" else row[:length]
        positions = self.items[index].get("masked_positions")
        return tokens if positions is None else tokens[positions]


# ------------------------------------------------------------------------------------------------- files


def sha256_of(path: Path) -> str:
    """Return the hex sha256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def read_sums(path: Path) -> dict[str, str]:
    """Return ``{file: hex sha256}`` of a file in the format of ``sha256sum``.

    Raises:
        ReleaseError: a line is not of that format.
    """
    sums = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        digest, separator, name = line.partition("  ")
        if not separator or len(digest) != 64:
            raise ReleaseError(f"{path}, line {number}: not a line of sha256sum: {line[:80]!r}")
        sums[name] = digest
    return sums


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a release.

    Raises:
        ReleaseError: it is missing, or not the manifest of a release.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ReleaseError(f"{path}: no such file: this folder is not a release, or not all of one") from None
    except ValueError as error:
        raise ReleaseError(f"{path}: not JSON: {error}") from None
    missing = {"model", "task", "files", "variants"} - set(manifest if isinstance(manifest, dict) else ())
    if missing:
        raise ReleaseError(f"{path}: has no {', '.join(sorted(missing))}")
    return manifest


def check_files(folder: Path, manifest: dict[str, Any], digest: str | None = None) -> list[Check]:
    """Compare every file with the manifest, the manifest with ``SHA256SUMS``, and that with ``digest``, if given."""
    checks = []
    wanted = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    sums_file = folder / SUMS
    if sums_file.is_file():
        sums = read_sums(sums_file)
        wanted[MANIFEST] = sums.get(MANIFEST, "absent")
        checks += [
            Check(name, "in both lists", f"{SUMS} and {MANIFEST} disagree", "", "FAIL")
            for name in sorted(wanted.keys() | sums.keys())
            if wanted.get(name) != sums.get(name)
        ]
        if digest is not None:
            found = sha256_of(sums_file)
            verdict = "pass" if found == digest else "FAIL"
            checks.append(Check(SUMS, "sha256", found, digest, verdict))
    else:
        checks.append(Check(SUMS, "exists", "missing", "", "FAIL"))
    whole = 0
    for name, expected in sorted(wanted.items()):
        path = folder / name
        size = manifest["files"].get(name, {}).get("size")
        if not path.is_file():
            checks.append(Check(name, "exists", "missing", "", "FAIL"))
        elif size is not None and path.stat().st_size != size:
            checks.append(Check(name, "bytes", f"{path.stat().st_size:,}", f"{size:,}", "FAIL"))
        elif (found := sha256_of(path)) != expected:
            checks.append(Check(name, "sha256", f"{found[:12]}…", f"{expected[:12]}…", "FAIL"))
        else:
            whole += 1
    verdict = "pass" if whole == len(wanted) else "FAIL"
    return [Check("files", "sha256", f"{whole} of {len(wanted)} as released", "all", verdict), *checks]


# ------------------------------------------------------------------------------- tokenizer and golden inputs


def read_golden(folder: Path) -> Golden:
    """Read the golden inputs and answers."""
    import numpy as np

    facts = json.loads((folder / GOLDEN_FACTS).read_text(encoding="utf-8"))
    texts = facts.get("texts")
    with np.load(folder / GOLDEN) as arrays:
        kinds: dict[str, dict[str, Any]] = {"input": {}, "output": {}, "shared": {}}
        for key in arrays.files:
            kind, _, name = key.partition(".")
            kinds[kind][name] = arrays[key]
    return Golden(
        items=unpack(kinds["input"]),
        shared=kinds["shared"],
        outputs=unpack(kinds["output"])[: facts["answered"]],
        padding=facts["padding"],
        per_token=frozenset(facts["per_token"]),
        labels=facts["label_count"],
        texts=texts and [text if isinstance(text, str) else tuple(text) for text in texts],
        max_tokens=facts.get("max_tokens"),
        generated={int(index): tokens for index, tokens in facts.get("generated", {}).items()},
    )


def unpack(packed: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the items of flat arrays: ``name`` holds all items end to end, ``name.shapes`` their shapes."""
    import numpy as np

    columns = {}
    for name, values in packed.items():
        if not name.endswith(".shapes"):
            shapes = packed[f"{name}.shapes"]
            ends = np.cumsum(shapes.prod(axis=1))[:-1]
            parts = np.split(values, ends)
            columns[name] = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def check_tokenizer(folder: Path, golden: Golden) -> Check:
    """Compare the ids that the shipped tokenizer gives for the golden texts with those that PyTorch was given."""
    path = folder / "tokenizer.json"
    if golden.texts is None:
        return Check("tokenizer", "token ids", "the inputs are not made by a tokenizer alone", "", "skipped")
    if not path.is_file():
        return Check("tokenizer", "token ids", "no tokenizer.json to check", "", "skipped")
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_padding()
        tokenizer.enable_truncation(golden.max_tokens)
        found = [encoding.ids for encoding in tokenizer.encode_batch(golden.texts)]
    except Exception as error:  # tokenizers raises a bare Exception for a file that it cannot read
        return Check("tokenizer", "token ids", f"cannot be used: {error}", "", "FAIL")
    expected = [item[TOKENS].tolist() for item in golden.items]
    same = [left == right for left, right in zip(found, expected, strict=True)]
    seen = f"{sum(same)} of {len(same)} texts alike"
    if not all(same):
        seen += f"; the first other one: {str(golden.texts[same.index(False)])[:40]!r}"
    return Check("tokenizer", "token ids", seen, "all", "pass" if all(same) else "FAIL")


# ------------------------------------------------------------------------------------------------ answers


def cosines(left: Any, right: Any) -> Any:
    """Return the cosine similarity of each pair of rows, in float64; two zero rows are equal."""
    import numpy as np

    left, right = left.astype(np.float64), right.astype(np.float64)
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    both_zero = ~left.any(axis=1) & ~right.any(axis=1)
    similarity = np.divide((left * right).sum(axis=1), norms, out=np.zeros(len(left)), where=norms != 0)
    return np.where(both_zero, 1.0, similarity)


def log_probabilities(logits: Any) -> Any:
    """Return log-softmax in float64; a single logit becomes the two classes of its sigmoid."""
    import numpy as np

    logits = logits.astype(np.float64)
    if logits.shape[1] == 1:
        logits = np.hstack([np.zeros_like(logits), logits])
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def compare_embeddings(expected: Any, actual: Any) -> dict[str, float]:
    """Return the lowest and the mean cosine similarity."""
    similarity = cosines(expected, actual)
    return {"cosine_min": similarity.min(), "cosine_mean": similarity.mean()}


def compare_labels(expected: Any, actual: Any) -> dict[str, float]:
    """Return the agreement on labels, the largest change of a probability, and the mean KL divergence in nats.

    Of single scores, as a reranker gives, also the share of pairs of inputs in the same order.
    """
    import numpy as np

    left, right = log_probabilities(expected), log_probabilities(actual)
    measured = {
        "top1_agreement": (left.argmax(axis=1) == right.argmax(axis=1)).mean(),
        "max_probability_diff": np.abs(np.exp(left) - np.exp(right)).max(),
        "mean_kl": max(0.0, (np.exp(left) * (left - right)).sum(axis=1).mean()),
    }
    if expected.shape[1] == 1 and len(expected) > 1:
        first, second = np.triu_indices(len(expected), 1)
        signs = [np.sign(scores[first, 0] - scores[second, 0]) for scores in (expected, actual)]
        measured["order_agreement"] = (signs[0] == signs[1]).mean()
    return measured


def compare_tokens(expected: Any, actual: Any) -> dict[str, float]:
    """Return the measures of labels, of every token or frame of a sound."""
    measured = compare_labels(expected, actual)
    return {"token_agreement": measured.pop("top1_agreement")} | measured


def compare_pixels(expected: Any, actual: Any) -> dict[str, float]:
    """Return how often a pixel has the same label, and the mean KL divergence in nats."""
    measured = compare_labels(expected, actual)
    return {"pixel_agreement": measured["top1_agreement"], "mean_kl": measured["mean_kl"]}


def compare_depths(expected: Any, actual: Any) -> dict[str, float]:
    """Return the mean difference over the mean depth."""
    import numpy as np

    return {"mean_relative_diff": np.abs(expected - actual).sum() / np.abs(expected).sum()}


def compare_guesses(expected: Any, actual: Any) -> dict[str, float]:
    """Return how often the same next token is the likeliest."""
    return {"next_token_agreement": compare_labels(expected, actual)["top1_agreement"]}


def compare_outputs(expected: list[dict[str, Any]], actual: list[dict[str, Any]]) -> dict[str, float]:
    """Return the largest difference of any output, and of any output over its largest value (over 1 if smaller)."""
    import numpy as np

    differences, relative = [], []
    for name in expected[0]:
        pairs = [(left[name].astype(np.float64), right[name]) for left, right in zip(expected, actual, strict=True)]
        differences.append(max(np.abs(left - right).max() for left, right in pairs))
        relative.append(differences[-1] / max(1.0, *(np.abs(left).max() for left, _ in pairs)))
    return {"max_abs_diff": max(differences), "max_relative_diff": max(relative)}


def embedding_of(outputs: dict[str, Any], last: str) -> Any:
    """Return one row: the embedding, or the mean of the vectors of tokens, frames or places."""
    vectors = outputs[last]
    if vectors.ndim == 3:  # feature maps: channels, height, width
        vectors = vectors.reshape(len(vectors), -1).T
    return vectors.reshape(1, -1) if vectors.ndim == 1 else vectors.mean(axis=0, keepdims=True)


def logits_of(outputs: dict[str, Any], name: str) -> Any:
    """Return rows of logits, shape (rows, classes)."""
    return outputs[name].reshape(-1, outputs[name].shape[-1])


def likelihoods_of(outputs: dict[str, Any], name: str) -> Any:
    """Return rows of the logarithms of likelihoods, shape (places along a line of writing, characters)."""
    import numpy as np

    return np.log(logits_of(outputs, name) + np.finfo(np.float32).tiny)


def pixels_of(outputs: dict[str, Any], name: str) -> Any:
    """Return rows of logits, shape (pixels, classes), of an output (classes, height, width)."""
    return outputs[name].reshape(len(outputs[name]), -1).T


#: Task → what its users read from one input's outputs, from which of them, and how two models' rows are compared. Of
#: any other task only the outputs themselves are compared.
TASKS: dict[str, tuple[Callable[[dict[str, Any], str], Any], str, Callable[[Any, Any], dict[str, float]]]] = {
    "text-classification": (logits_of, "logits", compare_labels),
    "fill-mask": (logits_of, "logits", compare_labels),
    "multiple-choice": (logits_of, "logits", compare_labels),
    "image-classification": (logits_of, "logits", compare_labels),
    "audio-classification": (logits_of, "logits", compare_labels),
    "zero-shot-image-classification": (logits_of, "logits_per_image", compare_labels),
    "token-classification": (logits_of, "logits", compare_tokens),
    "automatic-speech-recognition": (logits_of, "logits", compare_tokens),
    "audio-frame-classification": (logits_of, "logits", compare_tokens),
    "text-recognition": (likelihoods_of, "last_hidden_state", compare_tokens),
    "semantic-segmentation": (pixels_of, "logits", compare_pixels),
    "depth-estimation": (logits_of, "predicted_depth", compare_depths),
    "text-generation": (logits_of, "logits", compare_guesses),
    "text2text-generation": (logits_of, "logits", compare_guesses),
    "speech-to-text": (logits_of, "logits", compare_guesses),
    "image-to-text": (logits_of, "logits", compare_guesses),
    "image-text-to-text": (logits_of, "logits", compare_guesses),
    "audio-xvector": (embedding_of, "embeddings", compare_embeddings),
    "sentence-similarity": (embedding_of, "sentence_embedding", compare_embeddings),
    "feature-extraction": (embedding_of, "last_hidden_state", compare_embeddings),
    "image-feature-extraction": (embedding_of, "last_hidden_state", compare_embeddings),
}


def same_span(expected: dict[str, Any], actual: dict[str, Any], labels: int) -> float:
    """Return 1 where two models find the same first and last token of the answer to one question, else 0."""
    import numpy as np

    def best_span(outputs: dict[str, Any]) -> int:
        scores = outputs["start_logits"][:, None] + outputs["end_logits"][None, :]
        first, last = np.indices(scores.shape)
        return int(np.where((first <= last) & (last < first + LONGEST_SPAN), scores, -np.inf).argmax())

    return float(best_span(expected) == best_span(actual))


def found_again(expected: dict[str, Any], actual: dict[str, Any], labels: int) -> float:
    """Return the share of the likeliest objects in one image that the other model finds too, wherever in its list.

    ``logits`` are (queries, labels), with one more for "nothing here" or without, ``pred_boxes`` (queries, 4): centre
    and size.
    """
    import numpy as np

    def strongest(outputs: dict[str, Any], count: int) -> tuple[Any, Any]:
        logits = outputs["logits"].astype(np.float64)
        if logits.shape[1] == labels + 1:
            logits = logits[:, :labels] - logits[:, labels:]
        kept = np.argsort(-logits.max(axis=1), kind="stable")[:count]
        return logits[kept].argmax(axis=1), outputs["pred_boxes"][kept].astype(np.float64)

    (names, boxes), (other_names, others) = strongest(expected, DETECTIONS), strongest(actual, 2 * DETECTIONS)
    low, high = ([box[:, :2] + sign * box[:, 2:] / 2 for box in (boxes, others)] for sign in (-1, 1))
    common = np.minimum(high[0][:, None], high[1]) - np.maximum(low[0][:, None], low[1])
    shared = np.clip(common, 0, None).prod(axis=2)
    union = boxes[:, 2:].prod(axis=1)[:, None] + others[:, 2:].prod(axis=1) - shared
    same = (shared >= LEAST_OVERLAP * union) & (union > 0) & (names[:, None] == other_names)
    return float(same.any(axis=1).mean())


#: Task → the gate's metric for it, and what it is the mean of: a comparison of two models' outputs for one input, which
#: also takes the number of the model's labels.
PAIRED: dict[str, tuple[str, Callable[[dict[str, Any], dict[str, Any], int], float]]] = {
    "question-answering": ("span_agreement", same_span),
    "object-detection": ("detection_agreement", found_again),
    "zero-shot-object-detection": ("detection_agreement", found_again),
}


def run_golden(session: Any, golden: Golden, batch_size: int) -> list[dict[str, Any]]:
    """Run the golden inputs that have answers, some at a time; return the outputs as they were recorded."""
    known = golden.items[0].keys() | golden.shared.keys()
    wanted = [value.name for value in session.get_inputs() if value.name in known]
    names = list(golden.outputs[0])
    found: list[dict[str, Any]] = [{} for _ in golden.outputs]
    for indices in golden.batches(wanted, batch_size):
        feed = golden.feed(indices, wanted) | empty_cache(session, len(indices))
        for name, output in zip(names, session.run(names, feed), strict=True):
            for row, index in zip(output, indices, strict=True):
                found[index][name] = golden.output_of(name, row, index)
    return found


def empty_cache(session: Any, batch: int) -> dict[str, Any]:
    """Return a cache of keys and values without tokens, float32 (batch, heads, 0, size), where the graph takes one."""
    import numpy as np

    return {
        value.name: np.empty([batch, *(size if isinstance(size, int) else 0 for size in value.shape[1:])], np.float32)
        for value in session.get_inputs()
        if value.name.startswith(PAST)
    }


def generate(session: Any, prompt: Any, count: int) -> list[int]:
    """Return the ``count`` tokens that the model finds likeliest after a prompt, one after another, with its cache."""
    import numpy as np

    names = {value.name for value in session.get_inputs()}
    past, fed, made = empty_cache(session, 1), prompt, []
    outputs = ["logits", *(PRESENT + name.removeprefix(PAST) for name in past)]
    for length in range(len(prompt), len(prompt) + count):
        feed = {
            TOKENS: fed[None],
            MASK: np.ones((1, length), dtype=np.int64),
            POSITIONS: np.arange(length - len(fed), length)[None],
        }
        logits, *present = session.run(outputs, {name: feed[name] for name in feed if name in names} | past)
        made.append(int(logits[0, -1].argmax()))
        past, fed = dict(zip(past, present, strict=True)), np.array(made[-1:], dtype=np.int64)
    return made


def matched_share(expected: list[int], actual: list[int]) -> float:
    """Return the share of the expected tokens that come before the first other one."""
    same = [left == right for left, right in zip(expected, actual, strict=True)]
    return same.index(False) / len(same) if False in same else 1.0


class EncoderDecoder:
    """Runs the graphs of an encoder-decoder as if they were one: encoder, first decoder, decoder with cache if any."""

    def __init__(self, encoder: Any, decoder: Any, decoder_with_past: Any = None) -> None:
        """Take onnxruntime sessions."""
        self.encoder, self.decoder, self.decoder_with_past = encoder, decoder, decoder_with_past

    def get_inputs(self) -> list[Any]:
        """Return the inputs of the encoder and the decoder's tokens."""
        return [*self.encoder.get_inputs(), SimpleNamespace(name=DECODER_TOKENS)]

    def run(self, names: list[str], feed: dict[str, Any]) -> list[Any]:
        """Return outputs of the first decoder."""
        return self._decode(self.decoder, names, self._encode(feed), feed[DECODER_TOKENS])

    def generate(self, feed: dict[str, Any], count: int) -> list[int]:
        """Return the ``count`` tokens that the model finds likeliest, one after another, with its cache."""
        import numpy as np

        values, tokens, session = self._encode(feed), feed[DECODER_TOKENS][:, :1], self.decoder
        for _ in range(count):
            names = [value.name for value in session.get_outputs()]
            outputs = dict(zip(names, self._decode(session, names, values, tokens), strict=True))
            tokens = np.hstack([tokens, outputs["logits"][:, -1:].argmax(axis=2)])
            session = self.decoder_with_past or self.decoder
            values |= {PAST + name.removeprefix(PRESENT): outputs[name] for name in names if name.startswith(PRESENT)}
        return [int(token) for token in tokens[0, -count:]]

    def _encode(self, feed: dict[str, Any]) -> dict[str, Any]:
        (vectors,) = self.encoder.run(["last_hidden_state"], self._known(self.encoder, feed))
        return {"encoder_hidden_states": vectors} | ({"encoder_attention_mask": feed[MASK]} if MASK in feed else {})

    def _decode(self, session: Any, names: list[str], values: dict[str, Any], tokens: Any) -> list[Any]:
        """Run a decoder on all tokens, int64 (batch, tokens), or on the last one, where the cache has the rest."""
        import numpy as np

        fed = tokens[:, -1:] if session is self.decoder_with_past else tokens
        return session.run(names, self._known(session, values | {TOKENS: fed, MASK: np.ones_like(tokens)}))

    @staticmethod
    def _known(session: Any, values: dict[str, Any]) -> dict[str, Any]:
        return {put.name: values[put.name] for put in session.get_inputs() if put.name in values}


class Branch:
    """One branch of a merged decoder's session, as if it were a session of a decoder of its own."""

    def __init__(self, session: Any, use_cache: bool) -> None:
        """Take a session of a merged decoder, and which of its branches to run."""
        self.session, self.use_cache = session, use_cache

    def get_inputs(self) -> list[Any]:
        """Return the inputs that the branch reads."""
        unread = USE_CACHE if self.use_cache else (USE_CACHE, PAST)
        return [value for value in self.session.get_inputs() if not value.name.startswith(unread)]

    def get_outputs(self) -> list[Any]:
        """Return the outputs that the branch makes."""
        return [value for value in self.session.get_outputs() if not (self.use_cache and ".encoder." in value.name)]

    def run(self, names: list[str], feed: dict[str, Any]) -> list[Any]:
        """Return outputs of the branch."""
        import numpy as np

        return self.session.run(names, empty_cache(self.session, 1) | feed | {USE_CACHE: np.array([self.use_cache])})


class VisionLanguage:
    """Runs the three graphs of a model that writes about images as if they were one."""

    def __init__(self, vision: Any, embedding: Any, decoder: Any, image_token: int) -> None:
        """Take onnxruntime sessions, and the token that stands for a part of an image."""
        self.vision, self.embedding, self.decoder, self.image_token = vision, embedding, decoder, image_token

    def get_inputs(self) -> list[Any]:
        """Return the inputs of the vision encoder and of the prompt; ``run`` starts with an empty cache."""
        names = [GRID if put.name == GRAPH_GRID else put.name for put in self.vision.get_inputs()]
        own = [put.name for put in self.decoder.get_inputs() if not put.name.startswith((PAST, EMBEDDINGS))]
        return [SimpleNamespace(name=name) for name in (*names, TOKENS, *own)]

    def run(self, names: list[str], feed: dict[str, Any]) -> list[Any]:
        """Return outputs of the decoder after prompts."""
        values = feed | {EMBEDDINGS: self.embed(feed)} | empty_cache(self.decoder, len(feed[TOKENS]))
        return self.decoder.run(names, self._known(self.decoder, values))

    def embed(self, feed: dict[str, Any]) -> Any:
        """Return the vectors of prompts with those of their images in place, float32 (batch, tokens, size)."""
        (vectors,) = self.embedding.run([EMBEDDINGS], {TOKENS: feed[TOKENS]})
        images = feed | ({GRAPH_GRID: feed[GRID]} if GRID in feed else {})
        if PIXEL_MASK in feed:  # images that are all 0 are padding
            is_real = feed[PIXELS].any(axis=(2, 3, 4))
            images = {name: feed[name][is_real][None] for name in (PIXELS, PIXEL_MASK)}
        (features,) = self.vision.run(["image_features"], self._known(self.vision, images))
        vectors[feed[TOKENS] == self.image_token] = features.reshape(-1, features.shape[-1])
        return vectors

    def generate(self, feed: dict[str, Any], count: int) -> list[int]:
        """Return the ``count`` tokens that the model finds likeliest after one prompt, with its cache."""
        import numpy as np

        values = feed | {EMBEDDINGS: self.embed(feed)} | empty_cache(self.decoder, 1)
        names, made = [value.name for value in self.decoder.get_outputs()], []
        after = int(feed[POSITIONS].max()) + 1 if POSITIONS in feed else 0
        for step in range(count):
            outputs = dict(zip(names, self.decoder.run(names, self._known(self.decoder, values)), strict=True))
            made.append(int(outputs["logits"][0, -1].argmax()))
            (values[EMBEDDINGS],) = self.embedding.run([EMBEDDINGS], {TOKENS: np.array([made[-1:]])})
            for name, value in ((MASK, 1), (TOKEN_KINDS, 0)):
                if name in values:
                    values[name] = np.append(values[name], [[value]], axis=1)
            if POSITIONS in feed:
                values[POSITIONS] = np.full_like(feed[POSITIONS][..., :1], after + step)
            values |= {PAST + name.removeprefix(PRESENT): outputs[name] for name in names if name.startswith(PRESENT)}
        return made

    @staticmethod
    def _known(session: Any, values: dict[str, Any]) -> dict[str, Any]:
        return {put.name: values[put.name] for put in session.get_inputs() if put.name in values}


def read_image_token(folder: Path) -> int:
    """Return the token that stands for a part of an image in prompts, from the release's configuration."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    named = (config.get("image_token_id"), config.get("image_token_index"))
    return int(next(token for token in (*named, IMAGE_TOKENS.get(config.get("model_type"))) if token is not None))


def open_model(path: Path, threads: int) -> Any:
    """Open an ONNX file; of a decoder that needs other graphs beside it, these too."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    names = [path.name]
    sees = path.name.startswith(MERGED) and path.with_name(path.name.replace(MERGED, VISION)).is_file()
    if sees:
        names = [path.name.replace(MERGED, part) for part in (VISION, EMBEDDING, MERGED)]
    elif path.name.startswith(MERGED):
        names = [path.name.replace(MERGED, "encoder_model"), path.name]
    elif path.name.startswith("decoder_model"):
        names = [path.name.replace("decoder_model", part) for part in ("encoder_model", "decoder_model", WITH_PAST)]
        names = [name for name in names if path.with_name(name).is_file()]
    sessions = [
        onnxruntime.InferenceSession(str(path.with_name(name)), options, providers=["CPUExecutionProvider"])
        for name in names
    ]
    if sees:
        return VisionLanguage(*sessions, read_image_token(path.parents[1]))
    if path.name.startswith(MERGED):
        sessions[1:] = [Branch(sessions[1], False), Branch(sessions[1], True)]
    return sessions[0] if len(sessions) == 1 else EncoderDecoder(*sessions)


def generate_after(session: Any, golden: Golden, index: int, count: int) -> list[int]:
    """Return the likeliest ``count`` tokens after one of the golden inputs."""
    if isinstance(session, (EncoderDecoder, VisionLanguage)):
        return session.generate(golden.feed([index], [value.name for value in session.get_inputs()]), count)
    return generate(session, golden.items[index][TOKENS], count)


def measure(path: Path, task: str, golden: Golden, threads: int) -> dict[str, float]:
    """Return how far one ONNX file's answers are from PyTorch's, by the names of the gate's metrics."""
    import numpy as np

    session = open_model(path, threads)
    batch_size = 1 if task in ONE_BY_ONE else BATCH_SIZE
    alone, batched = run_golden(session, golden, 1), run_golden(session, golden, batch_size)
    measured: dict[str, float] = {}
    if task not in UNORDERED:
        measured |= compare_outputs(golden.outputs, alone)
    if task in TASKS:
        read, name, compare = TASKS[task]
        expected, actual, in_batch = (
            np.concatenate([read(item, name) for item in items]) for items in (golden.outputs, alone, batched)
        )
        measured |= compare(expected, actual)
        measured["batch_max_abs_diff"] = np.abs(actual.astype(np.float64) - in_batch).max()
        if actual.shape[1] == 1:  # one score has a sign but no direction
            actual, in_batch = actual.T, in_batch.T
        measured["batch_cosine_min"] = cosines(actual, in_batch).min()
    if task in PAIRED:
        metric, agreement = PAIRED[task]
        pairs = zip(golden.outputs, alone, strict=True)
        measured[metric] = np.mean([agreement(left, right, golden.labels) for left, right in pairs])
    if golden.generated:
        matches = [
            matched_share(tokens, generate_after(session, golden, index, len(tokens)))
            for index, tokens in golden.generated.items()
        ]
        measured["greedy_token_match"] = np.mean(matches)
    return {name: float(value) for name, value in measured.items()}


def judge(name: str, limit: dict[str, Any], measured: dict[str, float], count: int) -> Check:
    """Hold one measurement to its limit from the gate; what is not finite fails."""
    metric, bound, at_least = limit["metric"], limit["allowed"], limit["at_least"]
    sign = ">=" if at_least else "<="
    if metric not in measured:
        return Check(name, metric, "not to be had from the golden inputs", f"{sign} {bound:g}", "skipped")
    value = measured[metric]
    if metric in SHARES:
        bound = math.floor(bound * count + 1e-9) / count
    passed = math.isfinite(value) and (value >= bound if at_least else value <= bound)
    return Check(name, metric, f"{value:.9g}", f"{sign} {bound:g}", "pass" if passed else "FAIL")


def check_answers(folder: Path, manifest: dict[str, Any], golden: Golden, threads: int) -> list[Check]:
    """Run every ONNX file of the release on the golden inputs and judge it."""
    checks = []
    named = [
        (name, facts)
        for facts in manifest["variants"].values()
        for name in dict.fromkeys(
            (facts["file"], *(file for file in facts.get("files", {}).values() if MERGED in file))
        )
    ]
    for name, facts in named:
        try:
            measured = measure(folder / name, manifest["task"], golden, threads)
        except Exception as error:  # whatever onnxruntime says about a damaged file is the finding
            reason = " ".join(str(error).split())
            checks.append(Check(name, "runs", f"{type(error).__name__}: {reason[:120]}", "", "FAIL"))
            continue
        checks += [judge(name, limit, measured, golden.answered) for limit in facts["gate"]["limits"]]
    return checks


# ------------------------------------------------------------------------------------------------- report


def cpu_name() -> str:
    """Return the CPU's name and the instruction sets that matter to int8, as far as the system tells."""
    name, flags = platform.processor() or platform.machine(), ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        facts: dict[str, str] = {}
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            facts.setdefault(key.strip(), value.strip())
        name = facts.get("model name", name)
        found = facts.get("flags", facts.get("Features", "")).split()
        flags = " ".join(flag for flag in FLAGS_OF_INTEREST if flag in found)
    return f"{name} ({flags})" if flags else name


def verify(folder: Path, threads: int = 0, digest: str | None = None) -> list[Check]:
    """Return every check of a release; ``threads`` 0 lets onnxruntime choose.

    Raises:
        ReleaseError: the folder holds no manifest that could be read.
    """
    manifest = read_manifest(folder)
    checks = check_files(folder, manifest, digest)
    try:
        golden = read_golden(folder)
    except Exception as error:  # missing, cut short or altered: in every case there is nothing to replay
        return [*checks, Check(GOLDEN, "can be read", f"{type(error).__name__}: {error}"[:120], "", "FAIL")]
    return [*checks, check_tokenizer(folder, golden), *check_answers(folder, manifest, golden, threads)]


def as_table(checks: list[Check]) -> str:
    """Lay the checks out as text, one line each."""
    header = ("what", "check", "here", "allowed", "verdict")
    rows = [header, *[(c.subject, c.what, c.seen, c.allowed, c.verdict) for c in checks]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def main(argv: list[str] | None = None) -> int:
    """Verify, print the table and the verdict; return 0 where everything passed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="verify_release.py"
    )
    own_folder = Path(__file__).resolve().parent
    parser.add_argument(
        "folder", type=Path, nargs="?", default=own_folder, help="the release (default: the folder of this file)"
    )
    parser.add_argument("--threads", type=int, default=0, help="intra-op threads (default: as onnxruntime chooses)")
    parser.add_argument("--digest", metavar="SHA256", help="what SHA256SUMS must hash to, from whom you trust")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result to this file")
    args = parser.parse_args(argv)
    try:
        import numpy
        import onnxruntime
        import tokenizers
    except ImportError as error:
        print(f"error: {error}; verify_release needs {NEEDED}", file=sys.stderr)
        return 2
    try:
        checks = verify(args.folder, args.threads, args.digest)
    except ReleaseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    manifest = read_manifest(args.folder)
    failed = [check for check in checks if check.verdict == "FAIL"]
    versions = {
        "python": platform.python_version(),
        **{module.__name__: module.__version__ for module in (numpy, onnxruntime, tokenizers)},
    }
    print(f"{manifest['model']} ({manifest['task']}) on {cpu_name()}")
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    if (args.folder / SUMS).is_file():
        print(f"{SUMS} has the sha256 {sha256_of(args.folder / SUMS)}")
    print(f"\n{as_table(checks)}\n")
    if args.json:
        result = {
            "model": manifest["model"],
            "passed": not failed,
            "cpu": cpu_name(),
            "versions": versions,
            "checks": [asdict(check) for check in checks],
        }
        args.json.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if failed:
        print(f"FAIL: {len(failed)} of {len(checks)} checks failed: do not use this release", file=sys.stderr)
        return 1
    skipped = sum(check.verdict == "skipped" for check in checks)
    print(f"PASS: {len(checks) - skipped} checks, {skipped} skipped; PyTorch's answers, on this machine")
    return 0


if __name__ == "__main__":
    sys.exit(main())
