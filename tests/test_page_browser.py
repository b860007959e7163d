"""The page in Chromium: its results, its controls, and that it requests nothing."""

import json

import numpy as np
import pytest

from benchmarks.browser import DRIVER, browser
from gptjax.page import build
from gptjax.store import runs

from page_models import make, python_greedy, python_logits, texts
from test_page import HOSTILE, hostile_page
from test_page_model import SIX, loss_without, near, python_attention, window

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(DRIVER is None, reason="needs chromium and chromium-driver"),
]
PRESS = (
    "const press = (name) => [...document.querySelectorAll('button')]"
    ".find((x) => x.textContent === name).click();"
)
KEY = (
    "document.activeElement.dispatchEvent("
    "new KeyboardEvent('keydown', { key: given[0], bubbles: true }));"
)
SETTLE = "await new Promise((resolve) => setTimeout(resolve, 300));"


@pytest.fixture(scope="module")
def window_of_browser():
    with browser() as found:
        yield found


@pytest.fixture
def chromium(window_of_browser):
    window_of_browser.look_like(1280, "light")
    window_of_browser.logs("performance")
    window_of_browser.logs("browser")
    yield window_of_browser
    assert window_of_browser.logs("browser") == []  # no error, no violation of the policy


@pytest.mark.parametrize("name", SIX)
def test_the_page_computes_what_python_computes(chromium, tmp_path, name):
    one = make(name, tmp_path)
    ids, whole = texts(one), window(one)
    chromium.open(one.page)
    logits = chromium.run("return Promise.all(given[0].map((ids) => gptjax.logits(ids)))", ids)
    expected = python_logits(one.run, ids)
    assert np.abs(np.array(logits) - expected).max() <= 1e-4 * np.abs(expected).max()
    greedy = chromium.run("return gptjax.greedy(given[0], 200)", ids[2])
    assert greedy == python_greedy(one.run, ids[2], 200)
    loss = chromium.run("return gptjax.loss(given[0])", whole)
    assert loss == near(loss_without(one, whole, {}))
    if name != "bigram":
        attention = np.array(chromium.run("return gptjax.attention(given[0])", whole))
        np.testing.assert_allclose(attention, python_attention(one, whole), atol=1e-4)
    text = one.run.tokenizer.decode(ids[-1])
    assert chromium.run("return gptjax.encode(given[0])", text) == ids[-1]
    assert chromium.run("return gptjax.decode(given[0])", ids[-1]) == text


def test_programs_are_told_what_is_wrong(chromium, finished_run, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(build.build_page(finished_run, runs.load_run(finished_run)))
    chromium.open(path)
    for call, said in {
        "gptjax.encode('\u00fc')": "not in the vocabulary",
        "await gptjax.logits([])": "0 ids",
        "await gptjax.logits([10000])": "10000 is not a token id",
        "await gptjax.attention(Array(99).fill(0))": "99 ids: give 1 to 16",
    }.items():
        told = chromium.run(f"try {{ {call} }} catch (error) {{ return error.message }}")
        assert said in told


def requests_of(chromium) -> list[str]:
    events = chromium.logs("performance")
    sent = [x["params"] for x in events if x["method"] == "Network.requestWillBeSent"]
    return [x["request"]["url"] for x in sent]


def test_nothing_is_requested_and_text_of_a_run_stays_text(chromium, run_copy):
    page = run_copy / "page.html"
    page.write_text(hostile_page(run_copy))
    for view in ("write", "look", "follow", "parts", "run"):
        chromium.open(page, f"#{view}")
        chromium.run(SETTLE)
        assert chromium.run("return document.querySelectorAll('img').length") == 0
    asked = [url for url in requests_of(chromium) if not url.startswith(("blob:", "about:"))]
    assert {url.partition("#")[0] for url in asked} == {page.resolve().as_uri()}
    shown = chromium.run("return document.querySelector('.card pre').textContent")
    assert shown == HOSTILE
    # The policy limits the effect of a vulnerability in the page.
    blocked = "return fetch('https://example.org/').then(() => 'open', () => 'blocked')"
    assert chromium.run(blocked) == "blocked"
    assert "Content Security Policy" in json.dumps(chromium.logs("browser"))


@pytest.fixture
def opened(chromium, finished_run, tmp_path):
    """The page of a run, and what it says of an element."""
    path = tmp_path / "page.html"
    path.write_text(build.build_page(finished_run, runs.load_run(finished_run)))

    def open_view(view):
        chromium.open(path, f"#{view}")
        chromium.run(SETTLE)

    return open_view


def test_write_makes_tokens_and_explains_them(chromium, opened):
    opened("write")
    chromium.run(
        "const paper = document.querySelector('.paper');"
        "while (paper.children.length < 200) await new Promise((r) => setTimeout(r, 50));"
        "window.paper = paper;" + SETTLE
    )
    before = chromium.run("return paper.children.length")
    chromium.run(f"{PRESS} press('Step'); {SETTLE}")
    assert chromium.run("return paper.children.length") == before + 1
    assert "a loss of" in chromium.run("return document.querySelector('.write .panel').textContent")
    bars = chromium.run("return [...document.querySelectorAll('.write .bars li')].length")
    assert bars == 10
    # The same seed draws the same text, another seed another.
    again = (
        f"{PRESS} const seeds = document.querySelectorAll('.settings input[type=number]');"
        "seeds[1].value = given[0]; seeds[2].value = 30; press('Start over');"
        "await new Promise((r) => setTimeout(r, 600)); return paper.textContent"
    )
    first, second, other = (chromium.run(again, seed) for seed in (5, 5, 6))
    assert first == second != other


def test_an_unknown_character_is_marked_and_said_and_nothing_is_written(chromium, opened):
    opened("write")
    said = chromium.run(
        "const prompt = document.querySelector('.prompt-field textarea');"
        "prompt.value = 'the qu\u00efck'; prompt.dispatchEvent(new Event('input'));"
        "const before = document.querySelector('.paper').textContent;"
        f"{PRESS} press('Write');"
        f"{SETTLE} const wrong = document.querySelector('.complaint');"
        "return [wrong.textContent, wrong.querySelector('mark').textContent,"
        " document.querySelector('.paper').textContent.startsWith(before.slice(0, 50))]"
    )
    assert "This model does not know \u201c\u00ef\u201d" in said[0]
    assert said[1:] == ["\u00ef", True]


def test_a_head_turned_off_changes_the_loss_that_look_shows(chromium, opened):
    opened("look")
    verdict = "return document.querySelector('.look .verdict').textContent"
    whole = chromium.run(verdict)
    assert whole.startswith("Loss of this text: ")
    chromium.run(f"document.querySelector('.switch').click(); {SETTLE}")
    assert "with 1 off" in chromium.run(verdict)
    chromium.run(f"{PRESS} press('Turn everything on'); {SETTLE}")
    assert chromium.run(verdict) == whole


def test_views_and_tokens_are_reached_by_keyboard(chromium, opened):
    opened("write")
    shown = "return document.querySelector('[role=tabpanel]:not([hidden])').id"
    chromium.run("document.getElementById('tab-write').focus()")
    assert chromium.run(f"{KEY} {SETTLE} {shown}", "ArrowRight") == "panel-look"
    chosen = (
        "const row = document.querySelector('#panel-look .tokens'); row.focus();"
        f"{KEY} {SETTLE} return row.querySelector('[aria-selected=true]').dataset.at"
    )
    assert chromium.run(chosen, "Home") == "0"
    assert chromium.run(chosen, "ArrowRight") == "1"
    assert chromium.run(f"location.hash = 'run'; {SETTLE} {shown}") == "panel-run"


@pytest.mark.parametrize("width", [390, 1280])
def test_no_view_is_wider_than_the_window(chromium, opened, width):
    for scheme in ("light", "dark"):
        chromium.look_like(width, scheme)
        for view in ("write", "look", "follow", "parts", "run"):
            opened(view)
            assert chromium.run("return document.documentElement.scrollWidth") <= width, view


def test_memory_stays_flat_while_it_writes(chromium, finished_run, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(build.build_page(finished_run, runs.load_run(finished_run)))
    chromium.open(path)
    used = []
    for _ in range(2):
        chromium.run(
            "document.querySelectorAll('.settings input[type=number]')[2].value = 2500;"
            "await new Promise((r) => setTimeout(r, 500));"
            "const write = document.querySelector('.buttons .primary'); write.click();"
            "do await new Promise((r) => setTimeout(r, 200)); while (write.disabled);"
        )
        chromium.tell("HeapProfiler.collectGarbage")
        used.append(chromium.run("return performance.memory.usedJSHeapSize"))
    assert used[1] < 1.2 * used[0]
    assert chromium.run("return document.querySelector('.paper').children.length") == 2000
