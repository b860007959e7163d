"""The command `page`, its errors, and that no text of a run can become markup or script."""

import base64
import hashlib
import json
import os
import re
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

import train
from gptjax import __main__ as command
from gptjax.errors import InputError
from gptjax.page import build
from gptjax.page.data import curves, spread
from gptjax.page.weights import pack
from gptjax.store import runs
from gptjax.tokenizer import CharTokenizer

from conftest import damage_newest, tiny
from page_models import NODE

HOSTILE = "</script><img src=x onerror=alert(1)><!--<script>&amp;\u2028{{worker}}"


def page(capsys, *argv, status=0):
    capsys.readouterr()
    assert command.main(["page", *map(str, argv)]) == status
    out, err = capsys.readouterr()
    return out if status == 0 else err


class Elements(HTMLParser):
    """The elements of a page, as a browser sees them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.policy = [], {}, ""
        self._inside = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        found = dict(attrs)
        if tag == "script":
            self._inside = found.get("id", "main")
        elif tag == "style":
            self._inside = "style"
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"]

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside:
            self.scripts[self._inside] = self.scripts.get(self._inside, "") + data


def test_the_page_is_written_into_the_run_and_its_size_is_said(run_copy, capsys):
    line = page(capsys, run_copy)
    assert line.startswith(f"{run_copy / 'page.html'}: 0.1 MB, step ")
    data = json.loads(Elements((run_copy / "page.html").read_text()).scripts["data"])
    assert data["name"] == "copy"
    assert [sample["step"] for sample in data["samples"]] == [3, 6]
    assert data["curves"]["val_loss"][-1][0] == 6
    assert data["text"] == "text.txt"


def test_out_step_and_dtype(run_copy, tmp_path, capsys):
    for dtype in ("float32", "float16"):
        out = tmp_path / f"{dtype}.html"
        line = page(capsys, run_copy, "--out", out, "--step", 3, "--dtype", dtype)
        assert f"step 3, weights in {dtype}" in line
    sizes = [
        len(Elements(x.read_text()).scripts["weights"]) for x in sorted(tmp_path.glob("*.html"))
    ]
    assert sizes[1] == pytest.approx(2 * sizes[0], rel=0.01)
    assert not (run_copy / "page.html").exists()


def test_the_weights_are_those_of_the_checkpoint(finished_run, tmp_path, capsys):
    page(capsys, finished_run, "--out", tmp_path / "x.html", "--dtype", "float32", "--step", 6)
    found = Elements((tmp_path / "x.html").read_text()).scripts
    numbers = np.frombuffer(base64.b64decode(found["weights"]), "<f4")
    params = runs.load_run(finished_run, 6).params
    at = 0
    for tensor in json.loads(found["data"])["tensors"]:
        array = params
        for name in tensor["path"].split("/"):
            array = array[name]
        assert list(array.shape) == tensor["shape"]
        np.testing.assert_array_equal(numbers[at : at + array.size], np.ravel(array))
        at += array.size
    assert at == len(numbers)


def test_train_writes_the_page_at_its_end_or_says_how(tmp_path, text_file, capsys):
    path = tmp_path / "run"
    flags = tiny("--data", text_file, "--out-dir", path)
    assert train.main(flags) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(rf"    .*gptjax page {re.escape(str(path))}", last)
    assert not (path / "page.html").exists()
    assert train.main(["--out-dir", str(path), "--resume", "--page"]) == 0  # it is finished
    assert "open it in a browser" in capsys.readouterr().out.splitlines()[-1]
    (path / "page.html").unlink()
    assert train.main([*flags, "--overwrite", "--page"]) == 0
    assert (path / "page.html").exists()
    assert train.main([*flags, "--overwrite"]) == 0
    assert not (path / "page.html").exists()


def test_a_page_that_browsers_cannot_open_is_refused_before_the_training(
    tmp_path, text_file, refused, monkeypatch
):
    monkeypatch.setattr(build, "MAX_BYTES", 1000)
    error = refused(train, *tiny("--data", text_file, "--out-dir", tmp_path / "run"), "--page")
    assert "browsers open at most" in error
    assert not (tmp_path / "run").exists()


def test_too_many_parameters_say_what_to_do():
    build.check_size(20_000_000, "float16")
    with pytest.raises(InputError, match="--dtype float16 halves it"):
        build.check_size(20_000_000, "float32")
    with pytest.raises(InputError, match=r"would have 80 MB.*sample\.py runs models of this size"):
        build.check_size(30_000_000, "float16")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["nowhere"], "no such folder"),
        (["RUN", "--step", "4"], "no checkpoint of step 4: its steps are 3, 6"),
        (["RUN", "--dtype", "int8"], "must be one of float16, float32"),
        (["RUN", "--out", "."], "is a folder: give the path of a file"),
        (["RUN", "--out", "no/page.html"], "there is no such folder to write it in"),
        (["RUN", "RUN"], "is not a flag"),
        (["RUN", "--size", "3"], "unknown flag --size"),
    ],
)
def test_wrong_input_is_one_line(finished_run, capsys, argv, said):
    argv = [str(finished_run) if word == "RUN" else word for word in argv]
    error = page(capsys, *argv, status=2)
    assert said in error
    assert len(error.splitlines()) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(run_copy, capsys):
    run_copy.chmod(0o500)
    assert "Permission denied" in page(capsys, run_copy, status=2)


def test_a_page_that_is_a_link_is_not_written_through(run_copy, tmp_path, capsys):
    (tmp_path / "precious").write_text("mine")
    (run_copy / "page.html").symlink_to(tmp_path / "precious")
    assert "is a link" in page(capsys, run_copy, status=2)
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_damaged_checkpoint_is_told_and_the_whole_one_is_shown(run_copy, capsys):
    damage_newest(run_copy, "flipped")
    assert "damaged" in page(capsys, run_copy, "--step", 6, status=2)
    assert "step 3" in page(capsys, run_copy)


def test_numbers_of_no_use_are_named():
    large, none = ({"a": {"b": np.array([x], np.float32)}} for x in (7e4, np.nan))
    with pytest.raises(InputError, match=r"^a/b contains numbers too large.*--dtype float32"):
        pack(large, "float16")
    assert pack(large, "float32") == ([{"path": "a/b", "shape": [1]}], np.float32(7e4).tobytes())
    with pytest.raises(InputError, match=r"^a/b contains numbers that are not finite"):
        pack(none, "float32")


def test_a_page_is_not_for_eval_only(run_copy, refused):
    error = refused(train, "--out-dir", run_copy, "--eval-only", "--page")
    assert "leave out --page" in error
    assert train.main(["--out-dir", str(run_copy), "--eval-only"]) == 0


def hostile_page(run_copy):
    """The page of a run in which every text is markup."""
    run = runs.load_run(run_copy)
    characters = "".join(sorted(set(HOSTILE) | set(run.tokenizer.characters)))
    config = run.config.replace(data=f"/home/{HOSTILE}", preset=HOSTILE)
    (run_copy / runs.SAMPLES).write_text(json.dumps({"step": 1, "text": HOSTILE}) + "\n")
    run = run._replace(tokenizer=CharTokenizer(characters), config=config)
    return build.build_page(run_copy, run)


def test_text_of_a_run_is_neither_markup_nor_script(run_copy):
    text = hostile_page(run_copy)
    found = Elements(text)
    assert found.tags == Elements(build.source("page.html")).tags
    assert "img" not in found.tags
    assert not set("<>&") & set(found.scripts["data"])
    data = json.loads(found.scripts["data"])
    assert data["samples"] == [{"step": 1, "text": HOSTILE}]
    assert data["training"]["preset"] == HOSTILE
    assert found.scripts["main"].count("function start()") == 1


def test_the_policy_allows_this_script_and_this_style_and_no_request(run_copy):
    found = Elements(hostile_page(run_copy))
    directives = dict(part.strip().split(" ", 1) for part in found.policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert set(directives) == {
        *("default-src", "script-src", "style-src", "worker-src", "base-uri", "form-action")
    }
    for name, part in (("script-src", "main"), ("style-src", "style")):
        digest = hashlib.sha256(found.scripts[part].encode()).digest()
        assert directives[name] == f"'sha256-{base64.b64encode(digest).decode()}'"


def test_the_page_uses_no_interface_that_makes_markup_of_text():
    names = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\("
    )
    for name in (*build.WORKER, *build.PAGE):
        assert not names.search(build.source(name)), name


@pytest.mark.skipif(NODE is None, reason="needs Node")
def test_the_joined_scripts_are_one_script_each(run_copy, tmp_path):
    """No two modules may define the same name at top level."""
    found = Elements(hostile_page(run_copy)).scripts
    for name in ("main", "worker"):
        path = tmp_path / f"{name}.js"
        path.write_text(found[name])
        assert not re.search(r"^(import|export)\b", found[name], re.MULTILINE)
        done = subprocess.run([str(NODE), "--check", str(path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_curves_are_thinned_and_keep_their_last_point():
    lines = [{"step": i, "train_loss": float(i)} for i in range(1, 3001)]
    points = curves(lines)["train_loss"]
    assert len(points) <= 1001
    assert points[0] == (1, 1.0)
    assert points[-1] == (3000, 3000.0)


def test_samples_are_spread_from_the_first_to_the_last():
    assert spread(list(range(1000)), 5) == [0, 250, 500, 749, 999]
    assert spread([1, 2], 5) == [1, 2]
