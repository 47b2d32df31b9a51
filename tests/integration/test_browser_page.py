"""``verify.html`` of a release in headless Chromium, on WebAssembly and on WebGPU, as a visitor opens it."""

import functools
import http.server
import json
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from chain import THRESHOLDS, run_chain
from chromium import needs_chromium, open_chromium
from kinds import save_case, save_embedder
from onnxproof.files import describe_files
from onnxproof.inputs.reference import read_reference
from onnxproof.parity.browser import FLAGS, find_packages
from onnxproof.release.browser_page import PAGE, RUNTIME, render_page
from onnxproof.release.golden import write_golden
from records import make_gate, make_prepared, make_released_variant
from tiny_models import save_classifier

#: onnxruntime-web's FlashAttention is wrong from 32 tokens on where WebGPU is computed by SwiftShader: shorter texts.
TEXTS = ["good", "not very good but the price is fine", "i love it , would buy again !"]
LOOSE = {"cosine_min": 0.9, "cosine_mean": 0.95}
#: The limits of each variant: the gate's own of fp32; the weights are random, so int8 has one that is easily kept.
LIMITS = {"fp32": THRESHOLDS["fp32"], "int8": {"max_relative_diff": 0.9}}
KINDS = {
    "embedder": save_embedder,
    "classifier": save_classifier,
    "token classifier": lambda folder: save_case(folder, "bert token-classification"),
    "image classifier": lambda folder: save_case(folder, "vit image-classification"),
    "generator": lambda folder: save_case(folder, "gpt2 text-generation"),
    "speech recognizer": lambda folder: save_case(folder, "wav2vec2 automatic-speech-recognition"),
}
SIZES = {"phone": (360, 740), "desktop": (1280, 900)}
#: How far a metric in the page may be from the same metric of the same file in Python.
TOLERANCE = 1e-4

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    needs_chromium,
]


@dataclass(frozen=True)
class Released:
    """A folder with what the page of a release reads, and what Python measured of its variants."""

    folder: Path
    metrics: dict[str, dict[str, float]]


def make_release(folder: Path, kind: str, node_modules: Path, **browser) -> Released:
    """Convert a tiny model of a kind; put fp32, int8, the golden inputs, the runtime and the page into a folder."""
    source, results, texts = folder / "source", folder / "results", folder / "texts.txt"
    source.mkdir(parents=True)
    KINDS[kind](source)
    texts.write_text("\n".join(TEXTS))
    parity = {made["variant"]: found for made, found in run_chain("m", source, results, texts, LOOSE)}
    released = folder / "release"
    (released / "onnx").mkdir(parents=True)
    files = {"fp32": "onnx/model.onnx", "int8": "onnx/model_quantized.onnx"}
    for variant, path in files.items():
        shutil.copyfile(results / "onnx" / variant / "model.onnx", released / path)
    reference = read_reference(results / "reference", results / "reference.json")
    counts = write_golden(reference, released)
    prepared = make_prepared(
        {variant: make_released_variant(path, gate=make_gate(LIMITS[variant])) for variant, path in files.items()},
        reference={"outputs": reference.manifest["outputs"]},
        golden=counts,
        **browser,
    )
    page = render_page(prepared, reference.manifest["judged_as"], describe_files(released))
    (released / PAGE).write_text(page)
    copy_runtime(node_modules, released / "runtime")
    return Released(released, {variant: parity[variant] for variant in files})


def copy_runtime(node_modules: Path, folder: Path) -> None:
    """Copy transformers.js and its onnxruntime to where the page is told to look for them."""
    folder.mkdir()
    places = [package / "dist" for package in find_packages(node_modules)]
    for file in RUNTIME:
        shutil.copyfile(
            next(place / file["name"] for place in places if (place / file["name"]).is_file()), folder / file["name"]
        )


@pytest.fixture(scope="module", params=KINDS)
def released(request, tmp_path_factory, node_modules):
    return make_release(tmp_path_factory.mktemp("kind"), request.param, node_modules)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory, node_modules):
    return make_release(tmp_path_factory.mktemp("classifier"), "classifier", node_modules)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_chromium(FLAGS, tmp_path_factory.mktemp("profile")) as driver:
        yield driver


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A static server that says nothing."""

    def log_message(self, *_):
        pass


@pytest.fixture
def serve():
    """The function that serves a folder on 127.0.0.1 and returns its address."""
    servers = []

    def start(folder: Path) -> str:
        handler = functools.partial(Quiet, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def check(browser, timeout: float = 240) -> tuple[str, dict]:
    """Click the button and wait; return the page's sentence and its results."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.find_element("id", "start").click()
    ended = "return !document.getElementById('alarm').hidden || !document.getElementById('details').hidden"
    WebDriverWait(browser, timeout).until(lambda page: page.execute_script(ended))
    alarm = browser.execute_script("return document.getElementById('alarm').textContent")
    assert not alarm, alarm
    told = browser.execute_script("return document.getElementById('json').textContent")
    return browser.find_element("id", "status").text, json.loads(told)


def requests_of(browser) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [
        message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
    ]


def test_the_page_measures_what_python_measures(browser, released, serve):
    address = serve(released.folder)
    browser.get_log("performance")
    browser.get(f"{address}/{PAGE}?runtime=runtime/")
    told, result = check(browser)

    assert [(run["file"], run["device"], run["state"]) for run in result["runs"]] == [
        (file, device, "right")
        for device in ("wasm", "webgpu")
        for file in ("onnx/model.onnx", "onnx/model_quantized.onnx")
    ], result
    assert told.startswith(
        "On WebAssembly, all 2 files answer within the limits of the release. "
        "On WebGPU, all 2 files answer within the limits of the release. The fastest is onnx/model"
    )
    for run in result["runs"]:
        parity = released.metrics[run["variant"]]
        assert result["inputs"] == parity["inputs"]["count"]
        compared = parity["task_metrics"] | {
            "max_relative_diff": max(output["max_relative_diff"] for output in parity["outputs"].values())
        }
        common = compared.keys() & run["metrics"].keys()
        assert len(common) > 1, (compared, run)
        for metric in common:
            assert run["metrics"][metric] == pytest.approx(compared[metric], abs=TOLERANCE), (metric, run)
        assert run["ms"] > 0
    assert {url for url in requests_of(browser) if not url.startswith((address, "blob:"))} == set()


def test_altered_files_are_named(browser, classifier, tmp_path, serve):
    folder = tmp_path / "release"
    shutil.copytree(classifier.folder, folder)
    change_last_byte(folder / "onnx" / "model_quantized.onnx")
    address = serve(folder)
    browser.get(f"{address}/{PAGE}?runtime=runtime/")
    told, result = check(browser)

    assert told.endswith("Not as released: onnx/model_quantized.onnx.")
    for run in result["runs"]:
        if run["file"] == "onnx/model.onnx":
            assert run["state"] == "right", run
        else:
            assert run["state"] == "failed", run
            assert run["reason"].startswith(
                "onnx/model_quantized.onnx is not the file that was released: its sha256 is "
            )
    cell = browser.find_element("id", "int8-wasm")
    assert "onnx/model_quantized.onnx is not the file that was released" in cell.text

    for name in ("golden.npz", f"runtime/{RUNTIME[0]['name']}"):
        change_last_byte(folder / name)
        browser.get(f"{address}/{PAGE}?runtime=runtime/")
        with pytest.raises(AssertionError, match=f"The check stopped: {name} is not the file that was released"):
            check(browser)
        change_last_byte(folder / name)


def change_last_byte(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def test_wrong_answers_and_what_is_not_announced_are_told(browser, tmp_path, node_modules, serve):
    failed = {"int8": {"webgpu": "differs from the original: cosine_min: measured 0.2, allowed >= 0.9"}}
    released = make_release(tmp_path / "made", "embedder", node_modules, browser={"failed": failed})
    page = released.folder / PAGE
    limit = '"metric": "max_relative_diff",\n     "allowed": 0.9'
    assert page.read_text().count(limit) == 1
    page.write_text(page.read_text().replace(limit, limit.replace("0.9", "1e-9")))
    browser.get(f"{serve(released.folder)}/{PAGE}?runtime=runtime/")
    announced = browser.find_element("id", "int8-webgpu")
    assert announced.text == f"not announced: {failed['int8']['webgpu']}"
    told, result = check(browser)

    assert told.startswith(
        "On WebAssembly, 1 of 2 files answers within the limits of the release. "
        "On WebGPU, 1 of 1 files answers within the limits of the release."
    )
    states = {(run["variant"], run["device"]): run for run in result["runs"]}
    assert states["int8", "wasm"]["state"] == "wrong"
    assert states["int8", "wasm"]["missed"][0].endswith("allowed <= 1e-9")
    assert states["int8", "webgpu"]["state"] == "not run"
    assert states["int8", "webgpu"]["reason"] == f"not announced: {failed['int8']['webgpu']}"

    browser.find_element("id", "every").click()
    _, result = check(browser)
    (run,) = [run for run in result["runs"] if (run["variant"], run["device"]) == ("int8", "webgpu")]
    assert run["state"] == "wrong"


def test_no_other_place_is_asked_for_a_runtime_and_no_other_script_runs(browser, classifier, serve):
    address, elsewhere = serve(classifier.folder), serve(classifier.folder / "runtime")
    browser.get(f"{address}/{PAGE}?runtime={elsewhere}/")
    with pytest.raises(AssertionError, match="The check stopped"):
        check(browser)
    assert any(
        "violates the following Content Security Policy" in entry["message"] for entry in browser.get_log("browser")
    )
    script = "const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s);"
    browser.execute_script(script)
    assert browser.execute_script("return window.ran === undefined")


def test_a_page_from_disk_runs_on_the_folder_that_is_chosen(browser, classifier):
    browser.get(f"{(classifier.folder / PAGE).as_uri()}?runtime=runtime/")
    assert browser.find_element("id", "from-disk").is_displayed()
    assert not browser.find_element("id", "start").is_enabled()
    browser.find_element("id", "folder").send_keys(str(classifier.folder))
    told, result = check(browser)
    assert [run["state"] for run in result["runs"]] == ["right"] * 4
    assert "The fastest is onnx/model" in told


def test_without_webgpu_the_page_says_so_and_judges_the_rest(browser, classifier, serve):
    hide = {"source": "Object.defineProperty(Navigator.prototype, 'gpu', {get: () => undefined});"}
    hidden = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", hide)
    try:
        browser.get(f"{serve(classifier.folder)}/{PAGE}?runtime=runtime/")
        told, result = check(browser)
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", hidden)
    assert told.startswith(
        "On WebAssembly, all 2 files answer within the limits of the release. On WebGPU, no file was run."
    )
    assert [run.get("reason") for run in result["runs"] if run["device"] == "webgpu"] == [
        "this browser has no WebGPU"
    ] * 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_the_page_fits_the_screen_and_can_be_read(browser, classifier, serve, size, scheme):
    width, height = SIZES[size]
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "phone"}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get_log("browser")
    browser.get(f"{serve(classifier.folder)}/{PAGE}")
    # Chromium asks for an icon, which a release does not have.
    assert [entry for entry in browser.get_log("browser") if "favicon" not in entry["message"]] == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    background, colour = (
        browser.execute_script(f"return getComputedStyle(document.documentElement).{name}")
        for name in ("colorScheme", "color")
    )
    assert (background, colour) == ("light dark", "rgb(0, 0, 0)" if scheme == "light" else "rgb(255, 255, 255)")
    named = "return [...document.querySelectorAll('input, button')].map(e => e.labels[0]?.textContent ?? e.textContent)"
    assert all(name.strip() for name in browser.execute_script(named))
    assert browser.execute_script("return document.getElementById('status').getAttribute('aria-live')") == "polite"
    assert browser.execute_script("return document.getElementById('start').offsetHeight") >= 44
