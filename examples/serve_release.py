"""Serve a release over HTTP with onnxruntime and tokenizers alone; requests that come together share a batch.

    python examples/serve_release.py results/star-rating-tiny/release --port 8000
    curl -d '{"texts": ["It does what it promises."]}' http://127.0.0.1:8000/predict

A classifier answers with the probabilities of its labels, an embedder with its embeddings. A request waits at most
``--max-wait-ms`` for others. An int8 answer shifts a little with its batch; the file of the variant int8-invariant,
which is taken where the release has it, does not.
"""

import argparse
import json
import queue
import threading
import time
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

MOST_TEXTS = 256  # in one request
MOST_BYTES = 1_000_000
#: The files of a release, the one to serve first.
PREFERRED = ("onnx/model_quantized_invariant.onnx", "onnx/model_quantized.onnx", "onnx/model.onnx")


class Model:
    """A release's tokenizer and one of its ONNX files."""

    def __init__(self, folder: Path, file: str | None = None, threads: int = 0) -> None:
        """Load the model; ``threads`` 0 lets onnxruntime choose."""
        file = file or next(name for name in PREFERRED if (folder / name).is_file())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(folder / file, options, providers=["CPUExecutionProvider"])
        self.inputs = [value.name for value in self.session.get_inputs()]
        outputs = [value.name for value in self.session.get_outputs()]
        self.output = next(name for name in ("logits", "sentence_embedding") if name in outputs)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        labels = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("id2label", {})
        self.labels = [labels[str(index)] for index in range(len(labels))]

    def answer(self, texts: list[str]) -> list[Any]:
        """Return one answer a text: ``{label: probability}``, or an embedding as a list."""
        encodings = self.tokenizer.encode_batch(texts)
        values = {
            "input_ids": [encoding.ids for encoding in encodings],
            "attention_mask": [encoding.attention_mask for encoding in encodings],
            "token_type_ids": [encoding.type_ids for encoding in encodings],
        }
        (rows,) = self.session.run([self.output], {name: np.array(values[name]) for name in self.inputs})
        if self.output == "sentence_embedding":
            return rows.tolist()
        probabilities = np.exp(rows - rows.max(axis=1, keepdims=True))
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        return [dict(zip(self.labels, row, strict=True)) for row in probabilities.tolist()]


class Batcher:
    """Answers texts in batches, in a thread of its own: the model runs once at a time, with all its threads."""

    def __init__(self, model: Model, max_batch: int = 32, max_wait_s: float = 0.005) -> None:
        """Start answering; the first text of a batch waits at most ``max_wait_s`` for others."""
        self.model, self.max_batch, self.max_wait_s = model, max_batch, max_wait_s
        self.waiting: queue.Queue[tuple[str, Future[Any]]] = queue.Queue()
        self.sizes: list[int] = []  # of the batches so far
        threading.Thread(target=self.run, daemon=True).start()

    def submit(self, text: str) -> "Future[Any]":
        """Put a text in the queue; the future becomes its answer."""
        answer: Future[Any] = Future()
        self.waiting.put((text, answer))
        return answer

    def collect(self) -> list[tuple[str, "Future[Any]"]]:
        """Wait for a text, then a little for more."""
        batch = [self.waiting.get()]
        latest = time.monotonic() + self.max_wait_s
        while len(batch) < self.max_batch:
            try:
                batch.append(self.waiting.get(timeout=max(0.0, latest - time.monotonic())))
            except queue.Empty:
                break
        return batch

    def run(self) -> None:
        """Answer batch after batch, for ever; an error goes to those who wait for the batch."""
        while True:
            batch = self.collect()
            self.sizes.append(len(batch))
            try:
                answers = self.model.answer([text for text, _ in batch])
            except Exception as error:
                for _, future in batch:
                    future.set_exception(error)
                continue
            for (_, future), answer in zip(batch, answers, strict=True):
                future.set_result(answer)


class Handler(BaseHTTPRequestHandler):
    """``POST /predict`` with ``{"texts": […]}``, ``GET /health``."""

    batcher: Batcher

    def do_GET(self) -> None:
        """Say that the server is up."""
        self.reply(200, {"status": "ok"}) if self.path == "/health" else self.reply(404, {"error": "not found"})

    def do_POST(self) -> None:
        """Answer texts."""
        if self.path != "/predict":
            self.reply(404, {"error": "not found"})
            return
        length = int(self.headers.get("Content-Length") or 0)
        if length > MOST_BYTES:
            self.reply(413, {"error": f"at most {MOST_BYTES} bytes"})
            return
        try:
            texts = json.loads(self.rfile.read(length))["texts"]
        except (ValueError, KeyError, TypeError):
            texts = None
        if (
            not isinstance(texts, list)
            or not 0 < len(texts) <= MOST_TEXTS
            or not all(isinstance(t, str) for t in texts)
        ):
            self.reply(400, {"error": f'expected {{"texts": […]}} with 1 to {MOST_TEXTS} strings'})
            return
        waiting = [self.batcher.submit(text) for text in texts]
        try:
            self.reply(200, {"answers": [future.result() for future in waiting]})
        except Exception as error:  # the model's; the server goes on
            self.reply(500, {"error": type(error).__name__})

    def reply(self, status: int, content: dict[str, Any]) -> None:
        """Send JSON."""
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Log nothing: texts are nobody's business."""


def make_server(batcher: Batcher, port: int) -> ThreadingHTTPServer:
    """Return a server on this machine's own address only; port 0 takes a free one."""
    return ThreadingHTTPServer(("127.0.0.1", port), type("BoundHandler", (Handler,), {"batcher": batcher}))


def main(argv: list[str] | None = None) -> None:
    """Load the release and serve it until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path, help="release folder")
    parser.add_argument("--file", help="ONNX file in it (default: quantized where there is one)")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--threads", type=int, default=0, help="intra-op threads (default: as onnxruntime chooses)")
    parser.add_argument("--max-batch", type=int, default=32, help="texts in a batch")
    parser.add_argument("--max-wait-ms", type=float, default=5, help="how long the first text of a batch waits")
    args = parser.parse_args(argv)
    model = Model(args.release, args.file, args.threads)
    server = make_server(Batcher(model, args.max_batch, args.max_wait_ms / 1000), args.port)
    print(f"serving {args.release} on http://127.0.0.1:{server.server_address[1]}/predict", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
