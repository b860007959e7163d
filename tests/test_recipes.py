"""docs/recipes.md and docs/faq.md: the code runs, and links and anchors exist."""

import importlib.util
import re
from pathlib import Path

import pytest

import train

from conftest import tiny

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = ["recipes.md", "faq.md", "lecture.md"]


def anchors(page):
    lines = [line.lstrip("#").strip() for line in page.splitlines() if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.slow
def test_the_recipes_and_the_answers_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = tmp_path / "my.txt"
    text.write_text("ROMEO: I would I were thy bird.\nJULIET: Sweet, so would I.\n" * 40)
    flags = tiny("--data", text, "--out-dir", "runs/big", "--block-size", 32)
    assert train.main(flags) == 0
    import jax

    for page in ("recipes.md", "faq.md"):
        names: dict = {"__name__": page}
        blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
        assert blocks
        with jax.numpy_rank_promotion("allow"):  # as in a reader's session
            for block in blocks:
                if "bpe.learn" in block and importlib.util.find_spec("tokenizers") is None:
                    continue  # it needs the extra `data`
                exec(compile(block, f"docs/{page}", "exec"), names)


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name):
    page = (DOCS / name).read_text()
    prose = re.sub(r"```.*?```", "", page, flags=re.DOTALL)
    for target in re.findall(r"\]\((?!http)([^)]+)\)", prose):
        path, _, anchor = target.partition("#")
        linked = (DOCS / path).resolve() if path else DOCS / name
        assert linked.is_file(), target
        if anchor:
            assert anchor in anchors(linked.read_text()), target
