"""ONNX graphs in transformers.js: Node or headless Chromium runs it, and each graph there is used as a session here.

A page on 127.0.0.1, or a script in Node, asks for jobs and posts their answers, see ``resources/transformers_js/``. So
what measures a variant on the CPU measures it there too, with the same recorded inputs and in the same terms.
"""

import base64
import json
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from onnxproof.cli import UserError
from onnxproof.graph.encoder_decoder import Branch, EncoderDecoder, files_of_variant, open_graphs
from onnxproof.graph.files import ENCODER_FILE, MERGED_FILE
from onnxproof.graph.sessions import Session, Value
from onnxproof.places import RESOURCES

Array = NDArray[Any]
#: What a graph is run on, as transformers.js calls it: ``cpu`` is onnxruntime-node in Node, the others are
#: onnxruntime-web in a browser.
Device = Literal["cpu", "wasm", "webgpu"]
DEVICES: tuple[Device, ...] = ("cpu", "wasm", "webgpu")

SERVED = RESOURCES / "transformers_js"
PAGE, NODE_SCRIPT = SERVED / "page.html", SERVED / "node.mjs"
#: The programs that are looked for, in this order.
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: SwiftShader computes WebGPU on the CPU where there is no GPU. A container has no sandbox of its own for Chromium, and
#: often little shared memory. The page is this project's own and loads nothing from elsewhere.
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--enable-unsafe-swiftshader",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
#: A job that takes longer has come to a halt, or its page has crashed.
JOB_S = 300

MEDIA_TYPES = {".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}


class BrowserError(Exception):
    """What transformers.js could not do, in its words or those of its onnxruntime."""


class BrowserSession:
    """One graph that is open in transformers.js; used as onnxruntime's ``InferenceSession`` is."""

    def __init__(self, place: "Place", opened: Mapping[str, Any]) -> None:
        """Take what was said of the graph that was opened."""
        self._place, self._number = place, opened["session"]
        self._inputs, self._outputs = ([_value(told) for told in opened[key]] for key in ("inputs", "outputs"))

    def get_inputs(self) -> list[Value]:
        """Return what the graph is fed."""
        return self._inputs

    def get_outputs(self) -> list[Value]:
        """Return what the graph makes."""
        return self._outputs

    def run(self, names: Sequence[str] | None, feed: Mapping[str, Array], /) -> list[Array]:
        """Return the named outputs, all of them for None, one array each.

        Raises:
            BrowserError: the graph cannot be run.
        """
        names = [value.name for value in self._outputs] if names is None else list(names)
        feeds = {name: _tensor(values) for name, values in feed.items()}
        answers = self._place.ask("run", session=self._number, names=names, feed=feeds)
        return [_array(answers[name]) for name in names]


class Place:
    """A process that runs transformers.js for the graphs of one folder; ended with everything that it opened.

    ``NAME`` is what it is, for messages.
    """

    NAME = ""

    def __init__(self, program: str, node_modules: Path, folder: Path) -> None:
        """Start the program.

        Args:
            program: its path.
            node_modules: where transformers.js is installed.
            folder: holds the ONNX files, and the model's ``config.json``.

        Raises:
            UserError: transformers.js is not there.
        """
        library, runtime = find_packages(node_modules)
        places = {"library": library / "dist", "runtime": runtime / "dist", "own": SERVED, "models": folder}
        self.program, self.folder = program, folder.resolve()
        self._jobs: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        handler = partial(_Handler, places, self._jobs, self._answers)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self._scratch = tempfile.TemporaryDirectory(prefix="onnxproof-", ignore_cleanup_errors=True)
        command = self._command(library, f"http://127.0.0.1:{self._server.server_address[1]}")
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _command(self, library: Path, address: str) -> list[str]:
        """Return how the program is started; it asks for jobs at ``address``."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        """Return the place."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the program and the server."""
        self._jobs.put(None)
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._server.shutdown()
        self._server.server_close()
        self._scratch.cleanup()

    def ask(self, job: str, **asked: Any) -> Any:
        """Return the answer to a job.

        Raises:
            BrowserError: the answer is an error, or there is none.
        """
        self._jobs.put({"job": job, **asked})
        for _ in range(JOB_S):
            try:
                reply = self._answers.get(timeout=1)
                break
            except queue.Empty:
                if self._process.poll() is not None:
                    raise BrowserError(f"{self.NAME} ended with status {self._process.returncode}") from None
        else:
            raise BrowserError(f"no answer from {self.NAME} within {JOB_S} s")
        if "error" in reply:
            raise BrowserError(reply["error"])
        return reply["answer"]

    def open_graph(self, path: Path, device: Device) -> BrowserSession:
        """Open one graph of the folder on a device of the place.

        Raises:
            BrowserError: it does not load there.
        """
        asked = self._names(device, path.name)
        return BrowserSession(self, self.ask("open", name=path.stem, **asked))

    def open_variant(self, device: Device) -> Session:
        """Open the graphs of the folder that transformers.js loads, run as if they were one.

        Of an encoder-decoder these are the encoder and the merged decoder.

        Raises:
            BrowserError: one of them does not load there.
        """
        files = files_of_variant(self.folder)
        if ENCODER_FILE not in files:
            return open_graphs(files, self.folder, partial(self.open_graph, device=device))
        if MERGED_FILE not in files:
            raise BrowserError(f"transformers.js needs {MERGED_FILE}, and this model has a decoder without a cache")
        encoder, decoder = (self.open_graph(files[name], device) for name in (ENCODER_FILE, MERGED_FILE))
        return EncoderDecoder(encoder, Branch(decoder, False), Branch(decoder, True))

    def generate(self, prompts: Sequence[Array], counts: Sequence[int], device: Device) -> list[list[int]]:
        """Return the likeliest tokens after each prompt, int64 (tokens,), by transformers.js's own ``generate``.

        Raises:
            BrowserError: it does not load the model, or cannot go on with it.
        """
        asked = self._names(device, "model.onnx")
        tokens: list[list[int]] = self.ask(
            "generate", prompts=[prompt.tolist() for prompt in prompts], counts=list(counts), **asked
        )
        return tokens

    def _names(self, device: Device, file: str) -> dict[str, Any]:
        outside = int((self.folder / f"{file}_data").is_file())
        return {"folder": self.folder.name, "device": device, "outside": outside}


class Browser(Place):
    """A page of headless Chromium: the devices ``wasm`` and ``webgpu``."""

    NAME = "Chromium"

    def _command(self, library: Path, address: str) -> list[str]:
        return [self.program, *FLAGS, f"--user-data-dir={self._scratch.name}", f"{address}/"]


class Node(Place):
    """A script in Node: the device ``cpu``."""

    NAME = "Node"

    def _command(self, library: Path, address: str) -> list[str]:
        entry = library / "dist" / "transformers.node.mjs"
        return [self.program, *map(str, (NODE_SCRIPT, entry.resolve(), self.folder.parent)), address]


def find_chromium() -> str | None:
    """Return Chromium's path; None where it is not installed."""
    return next(filter(None, map(shutil.which, CHROMIUM)), None)


def version_of_program(program: str) -> str:
    """Return the version of Chromium or Node, such as ``156.0.8078.108``."""
    told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=False).stdout
    return next((word for word in told.removeprefix("v").split() if word[0].isdigit()), told.strip())


def find_packages(node_modules: Path) -> tuple[Path, Path]:
    """Return where transformers.js lies, and the onnxruntime-web that it uses.

    Raises:
        UserError: one of them is not there.
    """
    library = node_modules / "@huggingface" / "transformers"
    own = library / "node_modules" / "onnxruntime-web"
    runtime = own if own.is_dir() else node_modules / "onnxruntime-web"
    for folder in (library, runtime):
        if not (folder / "dist").is_dir():
            raise UserError(
                f"parity.browser: {folder} is missing; install transformers.js with `make setup-browser`, or set "
                "parity.browser to false"
            )
    return library, runtime


class _Handler(BaseHTTPRequestHandler):
    """Serves the page and the files that it loads, hands out jobs and takes their answers."""

    def __init__(
        self,
        places: Mapping[str, Path],
        jobs: "queue.Queue[dict[str, Any] | None]",
        answers: "queue.Queue[dict[str, Any]]",
        *arguments: Any,
    ) -> None:
        self.places, self.jobs, self.answers = places, jobs, answers
        super().__init__(*arguments)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        place, *names = [part for part in path.split("/") if part] or [""]
        if place == "models":
            names = names[1:]
        file = PAGE if not place else self.places.get(place, Path()).joinpath(*names)
        if (place and place not in self.places) or ".." in names or not file.is_file():
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", MEDIA_TYPES.get(file.suffix, "application/octet-stream"))
        self.send_header("Content-Length", str(file.stat().st_size))
        self.end_headers()
        with file.open("rb") as stream:
            shutil.copyfileobj(stream, self.wfile)

    def do_POST(self) -> None:
        reply = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if reply is not None:
            self.answers.put(reply)
        job = self.jobs.get()
        if job is None:
            self.send_error(503)
            return
        body = json.dumps(job).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def _value(told: Mapping[str, Any]) -> Value:
    value: Value = SimpleNamespace(name=told["name"], type=told["type"], shape=told["shape"])
    return value


def _tensor(values: Array) -> dict[str, Any]:
    return {
        "type": values.dtype.name,
        "dims": list(values.shape),
        "data": base64.b64encode(values.tobytes()).decode(),
    }


def _array(told: Mapping[str, Any]) -> Array:
    data = np.frombuffer(base64.b64decode(told["data"]), dtype=np.dtype(told["type"]))
    return data.reshape(told["dims"])
