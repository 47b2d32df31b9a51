"""Train the small language model that the pipeline is proven on.

    python examples/train_story_teller.py

makes the stories (``stories.py``), learns a byte-level BPE vocabulary and trains a Qwen3 of four layers on them from
scratch, and writes ``examples/story-teller-tiny/``, a folder as on the Hub with its weights in bfloat16, and
``examples/story-heldout.jsonl``, the stories on which the perplexity in its report was measured, and
``examples/story-calibration.jsonl``, stories like those of the training, for choosing a quantization on. Needs no
network and about half an hour on one core. The same seed, versions and machine give the same weights.
"""

import argparse
import json
import math
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "examples"), str(ROOT / "workflow" / "scripts")]

from stories import ASSISTANT, END, USER, StoryWriter  # noqa: E402
from training import batches_of_like_length, check_output_folder, padded, repeatable, training_parser  # noqa: E402

from onnxproof.cli import run_script  # noqa: E402
from onnxproof.files import staged_folder, versions_of, write_json, write_text  # noqa: E402

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

VOCABULARY_SIZE = 1536
LONGEST_STORY = 512
CALIBRATION_STORIES = 128
BATCH_SIZE = 16
PEAK_LEARNING_RATE = 2e-3
WARM_UP_SHARE = 0.05
#: Wide enough for blocks of 128 weights, which is the largest block that 4-bit formats use.
ARCHITECTURE = {
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "intermediate_size": 512,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}
#: What a user says comes between two of the tokens that begin and end it; see ``stories.py``.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    f"{{{{ '{USER}' if message['role'] == 'user' else '{ASSISTANT}' }}}}{{{{ message['content'] }}}}{END}"
    "{%- endfor -%}"
    f"{{%- if add_generation_prompt -%}}{ASSISTANT}{{%- endif -%}}"
)
MODEL_FILES = {
    "README.md",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "training_report.json",
}


def train_tokenizer(texts: Sequence[str]) -> "PreTrainedTokenizerFast":
    """Learn a byte-level BPE vocabulary from ``texts``; the ends of turns are tokens of their own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[END, USER, ASSISTANT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        model_max_length=ARCHITECTURE["max_position_embeddings"],
        chat_template=CHAT_TEMPLATE,
    )


def train_model(
    token_ids: Sequence[list[int]], vocabulary: int, end: int, epochs: int, seed: int
) -> tuple["Qwen3ForCausalLM", list[float]]:
    """Train from random weights (AdamW, linear warm-up, cosine decay); return the model and its loss in ten parts."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM, get_cosine_schedule_with_warmup

    repeatable(seed)
    config = Qwen3Config(vocab_size=vocabulary, bos_token_id=None, eos_token_id=end, pad_token_id=end, **ARCHITECTURE)
    model = Qwen3ForCausalLM(config).train()
    order = random.Random(seed)
    batches = [batch for _ in range(epochs) for batch in batches_of_like_length(token_ids, order, BATCH_SIZE)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=0.05, betas=(0.9, 0.98))
    schedule = get_cosine_schedule_with_warmup(optimizer, int(WARM_UP_SHARE * len(batches)), len(batches))
    parts = math.ceil(len(batches) / 10)
    losses: list[float] = []
    total, count = 0.0, 0
    for number, batch in enumerate(batches, start=1):
        inputs = padded([token_ids[index] for index in batch], end)
        labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
        loss = model(**inputs, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        total, count = total + loss.item(), count + 1
        if number % parts == 0 or number == len(batches):
            losses.append(total / count)
            print(f"batch {number}/{len(batches)}: loss {losses[-1]:.4f}", flush=True)
            total, count = 0.0, 0
    return model.eval(), losses


def measure_perplexity(model: "Qwen3ForCausalLM", token_ids: Sequence[list[int]]) -> float:
    """Return the perplexity: the exponential of the mean loss, in nats, of every token but a story's first."""
    import torch

    total, count = 0.0, 0
    with torch.inference_mode():
        for ids in token_ids:
            logits = model(input_ids=torch.tensor([ids])).logits[0, :-1].double()
            total += torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="sum").item()
            count += len(ids) - 1
    return math.exp(total / count)


def measure_answers(model: "Qwen3ForCausalLM", tokenizer: "PreTrainedTokenizerFast", stories: Sequence[str]) -> dict:
    """Return how many of the questions behind the stories there are, and the share that is answered as it should be."""
    import torch

    right = asked = 0
    for story in stories:
        for at in range(len(story)):
            if not story.startswith(ASSISTANT, at) or USER not in story[1:at]:
                continue  # the first answer is the story itself
            expected = story[at + len(ASSISTANT) : story.index(END, at)]
            inputs = tokenizer(story[: at + len(ASSISTANT)], return_tensors="pt", return_token_type_ids=False)
            with torch.inference_mode():
                written = model.generate(**inputs, do_sample=False, max_new_tokens=32)
            answer = tokenizer.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            right += answer == expected
            asked += 1
    return {"questions": asked, "answered_right": round(right / max(asked, 1), 4)}


def describe(report: dict[str, Any]) -> str:
    """Return the model card."""
    held_out = report["held_out"]
    return f"""---
language: [en]
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
tags: [text-generation, stories]
---

# story-teller-tiny

A language model that tells stories about a village and answers questions about them. It is a Qwen3 of
{report["parameters"]:,} parameters ({ARCHITECTURE["num_hidden_layers"]} layers, width
{ARCHITECTURE["hidden_size"]}) with a byte-level BPE vocabulary of {report["vocabulary_size"]:,} tokens, both trained
from scratch. Its weights are in bfloat16. It is small enough for a repository and trained well enough for its
perplexity to mean something, which is what an example and a test need.

**It is no general language model.** It has only seen English stories made by a grammar.

## Training

`python examples/train_story_teller.py` makes {report["train_size"]:,} stories and trains on them for
{report["epochs"]} epoch{"s" if report["epochs"] > 1 else ""} with AdamW (peak learning rate {PEAK_LEARNING_RATE},
batch {BATCH_SIZE}, seed {report["seed"]}). A story follows a small world: who is where, who holds what, how many of a
thing there are, which day it is. Its sentences are true of that world. Half of the stories are answers to a request,
with questions about the story after it.

## Quality

Measured on {report["heldout_size"]:,} held-out stories. In none of the training stories does one of their people begin
with the same thing.

| | |
| --- | --- |
| perplexity of a token, weights in bfloat16, computed in float32 | **{held_out["perplexity"]:.4f}** |
| questions answered right, of {held_out["questions"]} | {held_out["answered_right"]:.1%} |

`training_report.json` has the loss over the training and the versions used.

## Use

```python
from transformers import pipeline

tell = pipeline("text-generation", model="examples/story-teller-tiny")
chat = [{{"role": "user", "content": "Tell me a story about Mara."}}]
print(tell(chat, max_new_tokens=200)[0]["generated_text"][-1]["content"])
```
"""


def write_stories(file: Path, stories: Sequence[str]) -> None:
    """Write stories as JSON lines with the key ``text``."""
    write_text(file, "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in stories))


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the command line's options."""
    examples = ROOT / "examples"
    parser = training_parser(
        (__doc__ or "").split("\n", 1)[0],
        examples / "story-teller-tiny",
        examples / "story-heldout.jsonl",
        "stories",
        {"epochs": 1, "train_size": 40000, "heldout_size": 300},
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        default=examples / "story-calibration.jsonl",
        help="file of the stories to choose a quantization on [%(default)s]",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Make the stories, train, measure, write."""
    args = parse_arguments(argv)
    check_output_folder(args.output_dir, MODEL_FILES)

    import torch
    from transformers import Qwen3ForCausalLM

    torch.set_num_threads(args.threads)
    training = StoryWriter(args.seed, held_out=False).write(args.train_size)
    held_out = StoryWriter(args.seed, held_out=True).write(args.heldout_size)
    tokenizer = train_tokenizer(training)
    end = tokenizer.eos_token_id
    token_ids = tokenizer(training, truncation=True, max_length=LONGEST_STORY)["input_ids"]
    with staged_folder(args.output_dir) as folder:
        model, losses = train_model(token_ids, len(tokenizer), end, args.epochs, args.seed)
        model.generation_config.update(do_sample=False)
        model.to(torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        saved = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        report = {
            "seed": args.seed,
            "epochs": args.epochs,
            "train_size": len(training),
            "train_tokens": sum(map(len, token_ids)),
            "heldout_size": len(held_out),
            "parameters": saved.num_parameters(),
            "vocabulary_size": len(tokenizer),
            "held_out": {"perplexity": round(measure_perplexity(saved, tokenizer(held_out)["input_ids"]), 5)}
            | measure_answers(saved, tokenizer, held_out),
            "losses": [round(loss, 4) for loss in losses],
            "versions": versions_of("safetensors", "tokenizers", "torch", "transformers"),
        }
        write_json(folder / "training_report.json", report)
        write_text(folder / "README.md", describe(report))
        write_stories(args.heldout, held_out)
        write_stories(args.calibration, StoryWriter(args.seed + 1, held_out=False).write(CALIBRATION_STORIES))
    print(f"perplexity on {len(held_out)} held-out stories: {report['held_out']['perplexity']:.4f}")
    return 0


if __name__ == "__main__":
    run_script(main)
