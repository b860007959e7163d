import hashlib
import http.server
import socket
import subprocess
import threading
import time
import zipfile
from pathlib import Path

import pytest

from gptjax.errors import InputError
from gptjax.text import corpora, fetching

from standins import prepare_py

SHAKESPEARE = corpora.CORPORA["shakespeare"]
[FILE] = SHAKESPEARE.files
WEB, WHEEL = FILE.sources
CONTENT = b"First Citizen:\nSpeak.\n"


@pytest.fixture
def small_corpus(monkeypatch):
    """A corpus of a few bytes in tiny Shakespeare's place."""
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    small = SHAKESPEARE._replace(files=(FILE._replace(size=len(CONTENT), sha256=sha256),))
    monkeypatch.setitem(corpora.CORPORA, "shakespeare", small)
    return small


def fail(message):
    def source(*_):
        raise OSError(message)

    return source


def test_a_file_is_read_as_it_is(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes("a\r\nb\n\u00e9\U0001f600".encode())
    text = corpora.load_text(str(path), tmp_path)
    assert text.text == "a\r\nb\n\u00e9\U0001f600"
    assert text.source == str(path)
    assert text.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"ab\0cd", "binary, not text: byte 2"),
        (b"ab\xff", "not UTF-8: byte 2 (0xff)"),
        (b"\xff\xfea\0", "looks like UTF-16, not UTF-8 text (byte 3 is NUL)"),
    ],
)
def test_files_that_are_no_text_are_refused(tmp_path, content, message):
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        corpora.load_text(str(path), tmp_path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        corpora.load_text(str(tmp_path / "nope"), tmp_path)
    with pytest.raises(InputError, match="is a directory"):
        corpora.load_text(str(tmp_path), tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        corpora.load_text("a\0b", tmp_path)


def test_the_first_source_that_answers_is_used_and_kept(tmp_path, small_corpus, monkeypatch):
    monkeypatch.setattr(fetching, "from_web", fail("no route"))
    monkeypatch.setattr(fetching, "from_wheel", lambda *_: [CONTENT])
    told = []
    text = corpora.load_text("shakespeare", tmp_path / "data", told.append)
    assert (text.text.encode(), text.source) == (CONTENT, "shakespeare")
    assert len(told) == 2
    monkeypatch.setattr(fetching, "from_wheel", fail("not asked again"))
    assert corpora.load_text("shakespeare", tmp_path / "data").text.encode() == CONTENT
    assert [p.name for p in (tmp_path / "data").iterdir()] == [FILE.name]


def test_a_source_with_another_text_is_passed_over(tmp_path, small_corpus, monkeypatch):
    monkeypatch.setattr(fetching, "from_web", lambda *_: [b"a captive portal's page"])
    monkeypatch.setattr(fetching, "from_wheel", lambda *_: [CONTENT])
    [path] = corpora.fetch(corpora.CORPORA["shakespeare"], tmp_path)
    assert path.read_bytes() == CONTENT


def test_when_no_source_answers_all_are_named_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "from_web", fail("no route to host"))
    monkeypatch.setattr(fetching, "from_wheel", lambda *_: [b"x" * FILE.size])
    with pytest.raises(InputError) as caught:
        corpora.fetch(corpora.CORPORA["shakespeare"], tmp_path)
    message = str(caught.value)
    for part in (
        WEB.url,
        "no route to host",
        "dm-sonnet",
        "sha256",
        str(tmp_path / FILE.name),
    ):
        assert part in message
    assert list(tmp_path.iterdir()) == []


def test_a_local_copy_of_another_text_is_refused_and_stays(tmp_path):
    path = tmp_path / FILE.name
    path.write_bytes(CONTENT)
    with pytest.raises(InputError, match="is not tiny Shakespeare"):
        corpora.fetch(corpora.CORPORA["shakespeare"], tmp_path)
    assert path.read_bytes() == CONTENT


def test_a_file_is_written_whole_or_not_at_all(tmp_path, small_corpus, monkeypatch):
    monkeypatch.setattr(fetching, "from_web", lambda *_: [CONTENT])

    def interrupted(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gptjax.files.os.replace", interrupted)
    with pytest.raises(OSError, match="No space"):
        corpora.fetch(corpora.CORPORA["shakespeare"], tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def web_server():
    """A server on this machine that answers with the content of `pages`."""
    pages = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            page = pages.get(self.path)
            self.send_response(200 if page is not None else 404)
            self.end_headers()
            self.wfile.write(page or b"")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # a client that has enough closes the connection
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", pages
    server.shutdown()
    thread.join()
    server.server_close()


def got(url, size, **options):
    return b"".join(fetching.from_web(url, size, **options))


def test_the_web_source_reads_a_page(web_server):
    address, pages = web_server
    pages["/input.txt"] = CONTENT * 1000
    assert got(f"{address}/input.txt", 10**6) == CONTENT * 1000
    with pytest.raises(OSError, match="404"):
        got(f"{address}/nope", 10**6)


def test_the_web_source_does_not_read_on_for_ever(web_server, monkeypatch):
    address, pages = web_server
    pages["/"] = b"x" * 5_000_000
    assert len(got(f"{address}/", 100)) < 200_000


def test_a_server_that_never_answers_costs_only_the_time_given():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(OSError, match=r"no answer within|timed out"):
            got(f"http://127.0.0.1:{silent.getsockname()[1]}/", 100, answer_within=0.3)
        assert time.monotonic() - began < 3


def test_the_wheel_is_its_three_parts_in_order(monkeypatch):
    def pip(command, **_):
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "dm_sonnet-1.36-py3-none-any.whl", "w") as wheel:
            for part, text in zip(WHEEL.parts, (b"one ", b"two ", b"three"), strict=True):
                wheel.writestr(part, text)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(fetching.subprocess, "run", pip)
    parts = fetching.from_wheel(WHEEL.requirement, WHEEL.parts)
    assert list(parts) == [b"one ", b"two ", b"three"]


def test_a_python_without_pip_is_no_answer(monkeypatch):
    monkeypatch.setattr(fetching.sys, "executable", "/bin/false")
    with pytest.raises(OSError, match="pip failed"):
        list(fetching.from_wheel(WHEEL.requirement, WHEEL.parts))


def test_what_pip_says_is_passed_on(monkeypatch):
    def pip(command, **_):
        error = "WARNING: a\nERROR: No matching distribution found for dm-sonnet==1.36\nnotice\n"
        return subprocess.CompletedProcess(command, 1, "", error)

    monkeypatch.setattr(fetching.subprocess, "run", pip)
    with pytest.raises(OSError, match="No matching distribution"):
        list(fetching.from_wheel(WHEEL.requirement, WHEEL.parts))


def test_prepare_fetches_into_data(tmp_path, small_corpus, monkeypatch, capsys):
    prepare = prepare_py()
    monkeypatch.setattr(fetching, "from_web", fail("down"))
    monkeypatch.setattr(fetching, "from_wheel", fail("down"))
    assert prepare.main([], data_dir=tmp_path) == 2
    assert capsys.readouterr().err.count("\n") == 1
    monkeypatch.setattr(fetching, "from_wheel", lambda *_: [CONTENT])
    assert prepare.main([], data_dir=tmp_path) == 0
    assert [(x.name, x.read_bytes()) for x in tmp_path.iterdir()] == [(FILE.name, CONTENT)]
