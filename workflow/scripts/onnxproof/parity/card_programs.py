"""The program of a release's card for onnxruntime alone, asked about raw inputs.

The program runs as it is printed, but for the folder and the ONNX file that it names. The function that it defines
answers other inputs than its own. This is what the gate of final answers holds to the original.
"""

import ast
import contextlib
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxproof.inputs.final_answers import IMAGE_PROMPTS, IMAGES, USES, FinalAnswers

#: Inputs in a batch of unlike lengths.
BATCH_SIZE = 6

Answer = Callable[..., Sequence[Any]]


def program_of(card: str, heading: str) -> str | None:
    """Return the Python program below a heading of a card; None where the card has no such heading."""
    section = re.search(rf"^### {re.escape(heading)}\n(.*?)(?=^### |^## |\Z)", card, flags=re.DOTALL | re.MULTILINE)
    found = re.search(r"```python\n(.*?)```", section[1], flags=re.DOTALL) if section else None
    return found[1] if found else None


def with_file(program: str, shown: str, file: str) -> str:
    """Return a program that loads another variant: what follows "model" in its files' names becomes that variant's.

    Args:
        program: its text.
        shown: the ONNX file that it loads as printed, such as ``onnx/model_quantized.onnx``.
        file: the same file of the other variant, such as ``onnx/model.onnx``.
    """
    endings = [Path(name).stem.partition("model")[2].removeprefix("_merged") for name in (shown, file)]
    return program.replace(f"{endings[0]}.onnx", f"{endings[1]}.onnx")


def load_function(program: str, name: str, folder: Path, threads: int = 0) -> Answer:
    """Run a program in this process, in a release's folder, and return the function of that name that it defines.

    What the program prints is left out.

    Args:
        program: its text.
        name: the function's name.
        folder: the release.
        threads: intra-op threads of the sessions that the program opens; with 0, onnxruntime chooses how many.
    """
    tree = ast.parse(program)
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and [ast.unparse(target) for target in statement.targets] == ["folder"]:
            place = next(node for node in ast.walk(statement) if isinstance(node, ast.Constant))
            place.value = str(folder)
    variables: dict[str, Any] = {"__name__": "program"}
    if threads:
        _give_threads(tree, threads, variables)
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(tree, "a program of the card", "exec"), variables)  # the release's own card, with its sha256
    answer: Answer = variables[name]
    return answer


def _give_threads(tree: ast.Module, threads: int, variables: dict[str, Any]) -> None:
    """Have the sessions that a program opens take so many intra-op threads, by another argument of what opens them.

    A program sets no number, and onnxruntime then starts a thread for each core and binds it there, whichever cores
    the process was given. So limiting the process's own cores would not help.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    arguments: dict[str, tuple[str, ast.expr]] = {
        "onnxruntime.InferenceSession": ("sess_options", ast.Name("session_options", ast.Load())),
        "open_model": ("threads", ast.Constant(threads)),  # of the release's own verify_release.py
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (found := arguments.get(ast.unparse(node.func))):
            name, value = found
            node.keywords = [*(word for word in node.keywords if word.arg != name), ast.keyword(name, value)]
    ast.fix_missing_locations(tree)
    variables["session_options"] = options


def ask(final: FinalAnswers, function: Answer, size: int = 1) -> list[Any]:
    """Return a program's answers to the raw inputs, in their order, with ``size`` inputs in a call.

    Inputs with a prompt, ``{text, prompt}``, are asked one at a time: the function takes one prompt a call.
    """
    prompts = final.settings.get("prompts", {})
    prompted = [index for index, value in enumerate(final.inputs) if isinstance(value, dict) and "prompt" in value]
    plain = [index for index in range(len(final.inputs)) if index not in prompted]
    answers: list[Any] = [None] * len(final.inputs)
    for start in range(0, len(plain), size):
        indices = plain[start : start + size]
        values = [final.inputs[index] for index in indices]
        made = function([_as_argument(final, value) for value in values], **final.settings.get("arguments", {}))
        for index, answer in zip(indices, made, strict=True):
            answers[index] = answer
    for index in prompted:
        value = final.inputs[index]
        answers[index] = function([value["text"]], prompt=prompts[value["prompt"]])[0]
    return answers


def open_image(content: NDArray[np.uint8]) -> Any:
    """Return the image, one of PIL's, of a file's bytes."""
    from PIL import Image

    return Image.open(io.BytesIO(content.tobytes()))


def _as_argument(final: FinalAnswers, value: Any) -> Any:
    """Return a raw input as a program takes it: a pair as a tuple, an image's file as an image."""
    if USES[final.use].takes == IMAGE_PROMPTS:
        return open_image(value["image"]), value["text"]
    if USES[final.use].takes == IMAGES:
        return open_image(value)
    return tuple(value) if isinstance(value, list) else value
