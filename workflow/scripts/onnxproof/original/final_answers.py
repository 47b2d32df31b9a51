"""What a user of the original gets from raw inputs, through its own public interface.

The interface is ``pipeline`` of transformers, ``SentenceTransformer.encode``, ``CrossEncoder.predict`` or ``generate``.
Questions and choices are asked in another way, because transformers 5 has no pipeline for them; see ``_ask_span`` and
``_ask_choose``. A release answers the same raw inputs with the program on its card; see
``onnxproof.parity.card_programs``.

Each kind of use has a function ``_ask_…`` here. It prepares the original and returns the name of the interface, for
readers, and a function that answers one raw input.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from onnxproof.cli import UserError, first_line
from onnxproof.inputs.final_answers import (
    CHOICES,
    IMAGE_PROMPTS,
    IMAGES,
    MASKED_TEXTS,
    QUESTIONS,
    SOUND_FEATURES,
    SOUNDS,
    TEXTS,
    USES,
    FinalAnswers,
    Use,
    use_of,
)
from onnxproof.inputs.material import MAX_TOKENS
from onnxproof.inputs.material import QUESTIONS as ASKED
from onnxproof.inputs.model_inputs import MASK, TOKENS
from onnxproof.inputs.texts import RAW_TEXTS, read_texts
from onnxproof.original.corrections import correct_tokenizer
from onnxproof.original.final_images import ASK_ABOUT_IMAGES, raw_image_prompts, raw_images
from onnxproof.original.final_sounds import ASK_ABOUT_SOUNDS, raw_sounds
from onnxproof.original.generation_settings import greedy_settings, told_greedily, told_settings
from onnxproof.original.interfaces import Interface, make_pipeline
from onnxproof.original.lean_imports import import_sentence_transformers
from onnxproof.original.model import Original, local_options
from onnxproof.parity.final_answers import likeliest_span
from onnxproof.records.answers import Span, Tag
from onnxproof.records.reference import ChatParts, FinalSettings
from onnxproof.tasks.heads import ACTIVATIONS, activation_of
from onnxproof.tasks.model_types import model_takes

#: Modules that servers of embeddings apply by themselves, to the vectors of tokens.
POOLED_BY_SERVERS = {"Transformer", "Pooling", "Normalize"}
#: How many texts of one length a pipeline takes at once.
BATCH_SIZE = 32
#: How many words a masked language model is asked for in the place of a masked one.
GUESSES = 5
#: How many choices come with the raw texts, by turns.
CHOICE_COUNTS = (2, 3, 5, 4)
#: The number of the word that is masked, from 0 on; in a shorter text, the middle one. It comes early, so that the
#: mask of a long text is not cut off.
MASKED_WORD = 5
#: Stands for a message where a chat template is looked at: a sign that no template has.
SIGN = "\u2402"


def record_final_answers(original: Original, model: str, snapshot: Path) -> FinalAnswers | None:
    """Ask the original about raw inputs; None for a task whose cards have no program for raw inputs.

    An input that the original itself cannot answer, such as an empty prompt, is left out.

    Args:
        original: the loaded model.
        model: its name, for messages.
        snapshot: its folder.

    Raises:
        UserError: the original has no answer to most of the inputs.
    """
    opened = open_interface(original, model, snapshot)
    if opened is None:
        return None
    use, interface = opened
    settings = _settings(use, original) | interface.settings
    inputs, answers, reasons = [], [], []
    for value in [*_raw_inputs(use, original), *_prompted_inputs(settings)]:
        try:
            answers.append(interface.ask(value))
        except Exception as error:  # whatever the original says: it has no answer that a release could be held to
            reasons.append(first_line(error))
            print(f"{model}: the original has no answer to {str(value)[:60]!r}: {reasons[-1]}", flush=True)
            continue
        inputs.append(value)
    if len(answers) < len(reasons):
        count = len(answers) + len(reasons)
        raise UserError(
            f"{model}: {interface.name} of the original has no answer to {len(reasons)} of {count} raw inputs: "
            f"{reasons[0]}"
        )
    return FinalAnswers(use.name, interface.name, inputs, answers, settings)


def open_interface(original: Original, model: str, snapshot: Path) -> tuple[Use, Interface] | None:
    """Return what a model is used for and its public interface for that; None where its card has no program for it.

    Raises:
        UserError: the interface does something that no program of a card can do.
    """
    takes = model_takes(original.config.get("model_type"))
    is_sound = original.task == "feature-extraction" and takes == "sound"
    use = USES[SOUND_FEATURES] if is_sound else use_of(original.task, original.config)
    if use is None:
        return None
    if use.takes not in (IMAGES, IMAGE_PROMPTS, SOUNDS):
        original.processor.model_max_length = original.most_tokens  # not every pipeline lets it be told
    interface = _ASK[use.name](original, model, snapshot)
    return None if interface is None else (use, interface)  # None has said why


def _settings(use: Use, original: Original) -> FinalSettings:
    """Return what the programs of a card must know of the original beside the files of a release."""
    settings: FinalSettings = {"takes": use.takes}
    if use.gives == "labels" and use.name != "zero-shot-image-classification":
        settings["activation"] = activation_of(original.task, original.config)
    if original.embedder is not None:
        # What servers that pool by themselves leave out: further modules, cut vectors, a prompt before every text.
        kinds = {type(module).__name__ for module in original.embedder}
        is_cut = original.embedder.truncate_dim is not None or original.embedder.default_prompt_name is not None
        settings["pooled_by_servers"] = kinds <= POOLED_BY_SERVERS and not is_cut
    if original.embedder is not None and any(original.embedder.prompts.values()):
        settings["prompts"] = {name: prompt for name, prompt in original.embedder.prompts.items() if prompt}
        settings["default_prompt"] = original.embedder.prompts.get(original.embedder.default_prompt_name, "")
    if use.takes == MASKED_TEXTS:
        settings["mask_token"] = original.processor.mask_token
    if use.gives == "tokens":
        settings.update(told_settings(original.own_settings, original.start_token))
        settings["chat"] = chat_parts(original.processor) if original.start_token is None else None
    return settings


def _raw_inputs(use: Use, original: Original) -> Iterator[Any]:
    """Yield raw inputs of the kind that a use takes."""
    if use.takes == IMAGES:
        yield from raw_images()
        return
    if use.takes == IMAGE_PROMPTS:
        yield from raw_image_prompts()
        return
    if use.takes == SOUNDS:
        yield from raw_sounds(use, original.processor.sampling_rate)
        return
    texts = read_texts(RAW_TEXTS)
    texts.insert(len(texts) // 2, _long_text(original, texts))
    if use.takes == TEXTS:
        yield from texts
    elif use.takes == MASKED_TEXTS:
        for text in texts:
            words = text.split(" ")
            words[min(len(words) // 2, MASKED_WORD)] = original.processor.mask_token
            yield " ".join(words)
    elif use.takes == CHOICES:
        for index, text in enumerate(texts):
            count = CHOICE_COUNTS[index % len(CHOICE_COUNTS)]
            yield [text, [texts[(index * 7 + 4 + step) % len(texts)] for step in range(count)]]
    elif use.takes == QUESTIONS:
        for index, text in enumerate(texts):
            yield ASKED[index % len(ASKED)], text
    else:
        for index, text in enumerate(texts):
            yield text, texts[(index * 7 + 4) % len(texts)]  # far from it in the file, so of another kind and length


def _prompted_inputs(settings: FinalSettings) -> Iterator[dict[str, str]]:
    """Yield a few texts with each prompt that a sentence-transformer has, by its name."""
    for name in settings.get("prompts", {}):
        yield from ({"text": text, "prompt": name} for text in read_texts(RAW_TEXTS)[4:8])


def _long_text(original: Original, texts: Sequence[str]) -> str:
    """Return a text that is longer than the model takes, or, where it takes very long ones, than the others."""
    wanted = min(original.most_tokens, MAX_TOKENS) + 16
    part = " ".join(text for text in texts if text.isascii() and text.strip())
    tokens = max(1, len(original.processor(part)[TOKENS]))
    return " ".join([part] * (wanted // tokens + 1))


def _ask_encode(original: Original, model: str, snapshot: Path) -> Interface:
    """Ask for embeddings, with the method for queries or documents where the prompt is of that name, else ``encode``.

    The answers are float32 (embedding size,).
    """
    methods = {"query": original.embedder.encode_query, "document": original.embedder.encode_document}

    def ask(value: Any) -> Any:
        text, name = (value, None) if isinstance(value, str) else (value["text"], value["prompt"])
        encode = methods.get(str(name), partial(original.embedder.encode, prompt_name=name))
        return np.asarray(encode([text], show_progress_bar=False)[0], dtype=np.float32)

    return Interface("SentenceTransformer.encode", ask)


def _ask_extract(original: Original, model: str, snapshot: Path) -> Interface:
    extract = make_pipeline("feature-extraction", original, tokenize_kwargs=_truncation(original))
    return Interface("pipeline('feature-extraction')", lambda text: np.array(extract(text)[0], dtype=np.float32))


def _ask_classify(original: Original, model: str, snapshot: Path) -> Interface:
    classify = make_pipeline("text-classification", original)

    def ask_together(values: Sequence[Any], batch_size: int = 1) -> list[dict[str, float]]:
        asked = [value if isinstance(value, str) else {"text": value[0], "text_pair": value[1]} for value in values]
        answers = classify(asked, top_k=None, batch_size=batch_size, **_truncation(original))
        return [{found["label"]: float(found["score"]) for found in answer} for answer in answers]

    def ask_all(values: Sequence[Any]) -> list[dict[str, float]]:
        # Texts of one length need no padding, with which some models answer otherwise.
        texts = [[value] if isinstance(value, str) else value for value in values]
        tokens = original.processor(*map(list, zip(*texts, strict=True)), **_truncation(original))[TOKENS]
        of_length: dict[int, list[int]] = defaultdict(list)
        for place, numbers in enumerate(tokens):
            of_length[len(numbers)].append(place)
        answers: list[dict[str, float]] = [{}] * len(values)
        for places in of_length.values():
            for place, answer in zip(places, ask_together([values[each] for each in places], BATCH_SIZE), strict=True):
                answers[place] = answer
        return answers

    name = "pipeline('text-classification')"
    can_batch = original.processor.pad_token_id is not None  # the pipeline insists on one
    return Interface(name, lambda value: ask_together([value])[0], ask_all=ask_all if can_batch else None)


def _ask_predict(original: Original, model: str, snapshot: Path) -> Interface:
    """Ask a cross-encoder; what makes its scores is its own: its settings come before those in ``config.json``."""
    encoder = import_sentence_transformers().CrossEncoder(
        str(snapshot), device="cpu", max_length=original.most_tokens, **local_options(snapshot)
    )
    encoder.eval().float()
    correct_tokenizer(model, snapshot, encoder.tokenizer, int(original.config.get("type_vocab_size") or 0))
    function = type(encoder.activation_fn).__name__
    if function not in ACTIVATIONS:
        raise UserError(
            f"{model}: its CrossEncoder has the activation function {function}, which the programs of a release cannot "
            f"apply; supported: {', '.join(ACTIVATIONS)}"
        )

    def ask(pair: Any) -> float:
        return float(encoder.predict([pair], show_progress_bar=False)[0])

    return Interface("CrossEncoder.predict", ask, {"activation": ACTIVATIONS[function]})


def _ask_tag(original: Original, model: str, snapshot: Path) -> Interface:
    tag = make_pipeline("token-classification", original)

    def ask(text: str) -> list[Tag]:
        return [
            {"entity": found["entity"], "score": float(found["score"]), "start": found["start"], "end": found["end"]}
            for found in tag(text)
        ]

    return Interface("pipeline('token-classification')", ask)


def _ask_fill(original: Original, model: str, snapshot: Path) -> Interface:
    fill = make_pipeline("fill-mask", original, tokenizer_kwargs=_truncation(original))

    def ask(text: str) -> dict[str, float]:
        name = original.processor.convert_ids_to_tokens
        return {name(found["token"]): float(found["score"]) for found in fill(text, top_k=GUESSES)}

    return Interface("pipeline('fill-mask')", ask)


def _ask_span(original: Original, model: str, snapshot: Path) -> Interface:
    """Ask questions as the pipeline of transformers 4 did, because version 5 has none; see ``likeliest_span``."""
    import torch

    def ask(value: Sequence[str]) -> Span:
        question, context = value
        features = original.processor(
            question,
            context,
            truncation="only_second",
            max_length=original.most_tokens,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        offsets = features.pop("offset_mapping")[0].tolist()
        is_context = np.array([part == 1 for part in features.sequence_ids(0)])
        fed = {name: values for name, values in features.items() if name in original.accepted}
        with torch.inference_mode():
            outputs = original.network(**fed)
        start_logits, end_logits = (outputs[name][0].float().numpy() for name in ("start_logits", "end_logits"))
        first, last, score = likeliest_span(start_logits, end_logits, is_context)
        start, end = offsets[first][0], offsets[last][1]
        return {"answer": context[start:end], "start": start, "end": end, "score": score}

    return Interface("AutoModelForQuestionAnswering and its likeliest span", ask)


def _ask_choose(original: Original, model: str, snapshot: Path) -> Interface:
    """Ask as the documentation of multiple choice does: the text beside each of its choices, in one call."""
    import torch

    def ask(value: Sequence[Any]) -> list[float]:
        text, choices = value
        pairs = [[text, choice] for choice in choices]
        features = original.processor(pairs, padding=True, return_tensors="pt", **_truncation(original))
        fed = {name: values.unsqueeze(0) for name, values in features.items() if name in original.accepted}
        with torch.inference_mode():
            logits = original.network(**fed).logits[0]
        return [float(probability) for probability in logits.softmax(dim=-1)]

    return Interface("AutoModelForMultipleChoice and the softmax of its logits", ask)


def _ask_generate(original: Original, model: str, snapshot: Path) -> Interface:
    """Generate greedily, with those settings of the model's own that a card's program applies."""
    import torch

    applied = greedy_settings(original.own_settings, original.new_tokens)
    chat = chat_parts(original.processor)

    def ask(text: str) -> list[int]:
        prompt = text if chat is None else render_chat(original.processor, text)
        features = original.processor(
            prompt,
            truncation=True,
            max_length=original.most_tokens - original.new_tokens,
            add_special_tokens=chat is None,
            return_tensors="pt",
        )
        fed = {name: values for name, values in features.items() if name in (TOKENS, MASK)}
        if not features[TOKENS].shape[1]:
            raise ValueError("it has no tokens")
        original.network.generation_config = applied
        with torch.inference_mode():
            tokens = original.network.generate(**fed)[0].tolist()
        return list(tokens[1:] if original.start_token is not None else tokens[features[TOKENS].shape[1] :])

    return Interface(told_greedily(original.new_tokens), ask)


def chat_parts(tokenizer: Any) -> ChatParts | None:
    """Return what a chat template makes of the first message of a user; None without a template.

    Raises:
        UserError: the template does something else to the message, which the programs of a card cannot do.
    """
    if not getattr(tokenizer, "chat_template", None):
        return None
    before, _, behind = render_chat(tokenizer, SIGN).partition(SIGN)
    rendered = render_chat(tokenizer, f" {SIGN}\n")
    for strips, message in ((False, f" {SIGN}\n"), (True, SIGN)):
        if rendered == f"{before}{message}{behind}":
            return {"before": before, "behind": behind, "strips": strips}
    raise UserError(
        f"its chat template makes {rendered!r} of a message of one sign, which the programs of a card cannot make"
    )


def render_chat(tokenizer: Any, message: str) -> str:
    """Return the prompt that a tokenizer's chat template makes of a user's first message."""
    rendered: str = tokenizer.apply_chat_template(
        [{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True
    )
    return rendered


def _truncation(original: Original) -> dict[str, Any]:
    return {"truncation": True, "max_length": original.most_tokens}


_ASK: dict[str, Callable[[Original, str, Path], Interface | None]] = {
    "sentence-similarity": _ask_encode,
    "feature-extraction": _ask_extract,
    "text-classification": _ask_classify,
    "reranking": _ask_predict,
    "token-classification": _ask_tag,
    "fill-mask": _ask_fill,
    "multiple-choice": _ask_choose,
    "question-answering": _ask_span,
    "text-generation": _ask_generate,
    "text2text-generation": _ask_generate,
    **ASK_ABOUT_IMAGES,
    **ASK_ABOUT_SOUNDS,
}
