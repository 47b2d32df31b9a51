"""The report in a real browser, from a file, on a phone and on a desktop, in light and in dark."""

from pathlib import Path

import pytest

import summary
import synthetic_results as synthetic
from chromium import needs_chromium, open_chromium

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SIZES = {"phone": (360, 740), "desktop": (1280, 900)}

pytestmark = [
    pytest.mark.browser,
    needs_chromium,
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_chromium(FLAGS, tmp_path_factory.mktemp("profile")) as driver:
        yield driver


def write_report(folder: Path, copies: int) -> str:
    """Write a report on two models and as many more as asked for; return its address."""
    import json

    results, settings = synthetic.write_results(folder)
    for number in range(copies):
        name = f"another-sentence-model-with-a-rather-long-name-{number}"
        settings[name] = synthetic.write_embedding_model(results, name)
    csv, html = results / "summary.csv", results / "report.html"
    arguments = ["--results", str(results), "--settings", json.dumps(settings)]
    summary.main([*arguments, "--output-csv", str(csv), "--output-html", str(html)])
    return html.resolve().as_uri()


@pytest.fixture(scope="module")
def short_report(tmp_path_factory):
    return write_report(tmp_path_factory.mktemp("short"), copies=0)


@pytest.fixture(scope="module")
def folded_report(tmp_path_factory):
    return write_report(tmp_path_factory.mktemp("folded"), copies=7)


@pytest.fixture(scope="module")
def report_of_many(tmp_path_factory):
    return write_report(tmp_path_factory.mktemp("many"), copies=248)


def show(browser, address: str, size: str, scheme: str = "light") -> None:
    width, height = SIZES[size]
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "phone"}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(address)


def sizes_of(browser, selector: str) -> list[tuple[float, float]]:
    script = """return [...document.querySelectorAll(arguments[0])].map(element => {
        const box = element.getBoundingClientRect(); return [box.width, box.height]; })"""
    return [tuple(size) for size in browser.execute_script(script, selector)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("report", ["short_report", "folded_report"])
def test_page_fits_the_screen(browser, request, report, size):
    show(browser, request.getfixturevalue(report), size)
    browser.execute_script("document.querySelectorAll('details').forEach(element => { element.open = true; })")
    width, inner = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert inner == SIZES[size][0]
    assert width <= inner
    for selector in ("table", "svg.plot", "h1", ".alarm"):
        found = sizes_of(browser, selector)
        assert found
        assert all(wide > 0 and high > 0 for wide, high in found), selector
    assert all(wide <= inner for wide, _ in sizes_of(browser, "svg.plot, .scroll, pre, .alarm"))


@pytest.mark.parametrize("size", SIZES)
def test_page_asks_for_nothing_and_complains_of_nothing(browser, short_report, size):
    import json

    show(browser, short_report, size)
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [
        message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
    ]
    assert requests == [short_report]


def test_sections_unfold_by_click_and_by_link(browser, folded_report):
    show(browser, folded_report, "desktop")
    is_open = "return [...document.querySelectorAll('details.model')].map(element => element.open)"
    assert browser.execute_script(is_open) == [True] + [False] * 8
    browser.find_elements("css selector", "details.model > summary")[1].click()
    assert browser.execute_script(is_open)[:2] == [True, True]
    browser.find_elements("css selector", "tr.group a")[2].click()
    assert browser.execute_script(is_open)[2]


def shown_models(browser) -> list[str]:
    """Return the models in the overview that can be seen, in order; checks that their sections are the same."""
    script = """return [...document.querySelectorAll(arguments[0])].filter(element => !element.hidden)
        .map(element => element.dataset.slug || element.querySelector('[id]').id)"""
    rows = browser.execute_script(script, "#overview-table tbody")
    assert rows == browser.execute_script(script, ".model")
    return rows


def choose(browser, name: str, value: str) -> None:
    script = """const field = document.getElementById(arguments[0]); field.value = arguments[1];
        field.dispatchEvent(new Event('input', {bubbles: true}))"""
    browser.execute_script(script, name, value)


def test_models_are_found_filtered_and_sorted(browser, folded_report):
    show(browser, folded_report, "desktop")
    everything = shown_models(browser)
    assert len(everything) == 9
    browser.find_element("id", "filter-words").send_keys("CLASSIFICATION star")
    assert shown_models(browser) == ["model-star-rating-tiny"]
    assert browser.find_element("id", "shown").text == "1 of 9 models"
    choose(browser, "filter-words", "")
    choose(browser, "filter-verdict", "pass")
    assert shown_models(browser) == everything[1:]
    choose(browser, "filter-verdict", "")
    choose(browser, "order", "name")
    assert shown_models(browser) == sorted(everything)
    choose(browser, "order", "speedup")
    assert shown_models(browser)[-1] == "model-star-rating-tiny"
    choose(browser, "order", "")
    assert shown_models(browser) == everything
    assert browser.get_log("browser") == []


def test_a_link_to_a_model_unfolds_it_whatever_is_filtered(browser, folded_report):
    slug = "model-another-sentence-model-with-a-rather-long-name-5"
    show(browser, f"{folded_report}#{slug}", "desktop")
    state = """const target = document.getElementById(arguments[0]);
        return [target.closest('details').open, Math.round(target.getBoundingClientRect().top)]"""
    is_open, top = browser.execute_script(state, slug)
    assert is_open
    assert 0 <= top < SIZES["desktop"][1]
    choose(browser, "filter-words", "star")
    browser.execute_script("location.hash = arguments[0]", "model-another-sentence-model-with-a-rather-long-name-2")
    browser.execute_async_script("setTimeout(arguments[0], 100)")
    assert len(shown_models(browser)) == 9


def test_the_keyboard_reaches_everything(browser, folded_report):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    show(browser, folded_report, "desktop")
    focused = "const at = document.activeElement; return at.id || at.className || at.tagName"
    reached = []
    for _ in range(7):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        reached.append(browser.execute_script(focused))
    assert reached == ["skip", "filter-words", "filter-verdict", "order", "unfold", "scroll", "A"]
    browser.find_element("id", "unfold").send_keys(Keys.ENTER)
    assert browser.execute_script("return [...document.querySelectorAll('details.model')].every(e => e.open)")


def test_every_field_has_a_label(browser, short_report):
    show(browser, short_report, "desktop")
    script = "return [...document.querySelectorAll('input, select')].map(field => field.labels.length)"
    assert browser.execute_script(script) == [1, 1, 1]


def test_print_leaves_the_controls_out(browser, short_report):
    show(browser, short_report, "desktop")
    display = "return getComputedStyle(document.getElementById('controls')).display"
    assert browser.execute_script(display) != "none"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": []})
    assert browser.execute_script(display) == "none"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def contrast(browser, selector: str) -> float:
    """Return the lowest WCAG contrast of the matching elements' text with the background behind them."""
    script = """
    const parse = text => text.match(/[\\d.]+/g).map(Number);
    const light = rgb => { const [r, g, b] = rgb.slice(0, 3).map(c => c / 255)
        .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const behind = element => { for (; element; element = element.parentElement) {
        const back = parse(getComputedStyle(element).backgroundColor);
        if (back.length < 4 || back[3] > 0) return back; } return [255, 255, 255]; };
    return Math.min(...[...document.querySelectorAll(arguments[0])].map(element => {
        const style = getComputedStyle(element);
        const pair = [light(parse(element instanceof SVGElement ? style.fill : style.color)), light(behind(element))];
        return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05); }))"""
    return browser.execute_script(script, selector)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "selector",
    [
        "body",
        "td",
        "th",
        ".chip",
        "caption",
        "a",
        "svg.plot text",
        ".alarm li span",
        "#controls *",
        ".story li",
        ".anchor",
    ],
)
def test_text_can_be_read_in_light_and_dark(browser, short_report, scheme, selector):
    show(browser, short_report, "desktop", scheme)
    assert contrast(browser, selector) >= 4.5


def test_dark_is_dark(browser, short_report):
    background = "return getComputedStyle(document.body).backgroundColor"
    show(browser, short_report, "desktop", "light")
    light = browser.execute_script(background)
    show(browser, short_report, "desktop", "dark")
    assert browser.execute_script(background) != light


@pytest.mark.slow
def test_a_thousand_rows_stay_usable(browser, report_of_many):
    """Each model adds a few kilobytes and no plot, and finding one works as with a few."""
    page = Path(report_of_many.removeprefix("file://"))
    assert page.stat().st_size < 250 * 25_000
    show(browser, report_of_many, "desktop")
    count = "return document.querySelectorAll(arguments[0]).length"
    assert browser.execute_script(count, "#overview-table tbody tr:not(.group)") == 1000
    assert browser.execute_script(count, "svg.plot") <= 3
    choose(browser, "filter-words", "name-123")
    assert shown_models(browser) == ["model-another-sentence-model-with-a-rather-long-name-123"]
    choose(browser, "filter-words", "")
    choose(browser, "filter-verdict", "fail")
    assert shown_models(browser) == ["model-star-rating-tiny"]
    timing = "const [page] = performance.getEntriesByType('navigation'); return [page.domInteractive, page.duration]"
    print(
        "\n{:.1f} MB, interactive after {:.0f} ms, loaded after {:.0f} ms".format(
            page.stat().st_size / 1e6, *browser.execute_script(timing)
        )
    )
