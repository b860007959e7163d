"""The ladder: training many seeds at once gives the same runs, and a climb can be interrupted."""

import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sample
import train
from gptjax.lecture import __main__ as lecture
from gptjax.lecture import ladder, results
from gptjax.lecture.ladder import LADDER
from gptjax.lecture.results import mean, spread
from gptjax.loss import cross_entropy
from gptjax.model import forward, num_params
from gptjax.optimizer import learning_rate_schedule
from gptjax.presets import PRESETS
from gptjax.store import runs
from gptjax.store.runs import abstract_params, make_model
from gptjax.training import evaluate, init_state, make_keys, make_train_loop

ROOT = Path(__file__).parents[1]
WORDS = "".join(f"{n}: to be or not to be, that is the question.\n" for n in range(60))
SMALLER = ["--n-layer", "1"]  # more layers would only add compilation time
TOKENS = np.random.default_rng(0).integers(0, 11, 400).astype(np.uint8)


@pytest.fixture
def words(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text(WORDS)
    return str(path)


def climb_lecture(*argv):
    return lecture.main([str(a) for a in argv])


# A model without attention is quick enough for the ordinary tests; `head` is resumed below.
QUICK = ("bigram",)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ladder.LADDER],
)
def test_every_rung_trains_saves_resumes_and_samples(name, words, tmp_path, capsys):
    out = str(tmp_path / "run")
    common = ["--out-dir", out, "--data", words]
    given = [*common, *SMALLER, "--preset", name, "--eval-interval", "2", "--batch-size", "4"]
    assert train.main([*given, "--max-iters", "2"]) == 0
    assert train.main([*common, "--resume", "--max-iters", "4"]) == 0
    loaded = runs.load_run(out, "latest")  # type: ignore[arg-type]
    assert loaded.step == 4
    assert loaded.config.preset == name
    assert type(loaded.model) is type(make_model(PRESETS[name]))
    capsys.readouterr()
    assert sample.main(["--out-dir", out, "--prompt", "to be", "--max-new-tokens", "200"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("to be")
    assert len(text) == len("to be") + 200 + len("\n---------------\n")


def test_a_resumed_rung_is_the_uninterrupted_one(words, tmp_path):
    given = ["--preset", "head", "--data", words, "--eval-interval", "2"]
    for out, stops in (("whole", ["4"]), ("halves", ["2", "4"])):
        path = str(tmp_path / out)
        for i, stop in enumerate(stops):
            how = ["--resume"] if i else given
            assert train.main([*how, "--out-dir", path, "--max-iters", stop]) == 0
    whole, halves = (runs.load_run(tmp_path / out, "latest") for out in ("whole", "halves"))
    jax.tree.map(np.testing.assert_array_equal, whole.params, halves.params)


@pytest.mark.parametrize("name", list(ladder.LADDER))
def test_the_rate_of_a_rung_never_changes(name):
    train_config = PRESETS[name].train
    schedule = learning_rate_schedule(train_config)
    for step in (0, 1, 2, train_config.max_iters // 2, train_config.max_iters):
        assert float(schedule(step)) == pytest.approx(train_config.learning_rate, rel=1e-6)


def test_a_rungs_optimizer_is_pytorchs_default():
    train_config = PRESETS["head"].train
    assert (train_config.beta1, train_config.beta2, train_config.weight_decay) == (0.9, 0.999, 0.01)
    assert (train_config.decay, train_config.grad_clip) == ("all", 0)


def test_a_seed_of_the_ladder_is_the_run_of_that_seed():
    """Other seeds in the batch change a seed's losses no more than rounding does."""
    run_config = PRESETS["multihead"].replace(vocab_size=11, batch_size=4, max_iters=30)
    model = make_model(run_config)
    states, keys = ladder.init_seeds(model, run_config, [3, 4])
    tokens = jnp.asarray(TOKENS)
    states, _ = ladder.make_seeds_loop(model, run_config)(states, tokens, keys, 30)
    init, loop = jax.jit(partial(init_state, model, run_config)), make_train_loop(model, run_config)
    for i, seed in enumerate((3, 4)):
        own = make_keys(seed)
        state, _ = loop(init(own.params), tokens, own, 30)
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, atol=1e-4),
            states.params,
            state.params,
        )
    differ = [bool((a[0] != a[1]).any()) for a in jax.tree.leaves(states.params)]
    assert all(differ), "two seeds must not be one"


def test_the_number_of_updates_per_dispatch_changes_no_bit():
    run_config = PRESETS["head"].replace(vocab_size=11, batch_size=4)
    model = make_model(run_config)
    loop = ladder.make_seeds_loop(model, run_config)
    tokens = jnp.asarray(TOKENS)
    results_of = []
    for dispatches in ([6], [1, 2, 3]):
        states, keys = ladder.init_seeds(model, run_config, [0, 1])
        for updates in dispatches:
            states, _ = loop(states, tokens, keys, updates)
        results_of.append(states.params)
    jax.tree.map(np.testing.assert_array_equal, *results_of)


def test_the_lectures_estimate_is_near_the_whole_splits_loss():
    run_config = PRESETS["bigram"].replace(vocab_size=11)
    model = make_model(run_config)
    states, keys = ladder.init_seeds(model, run_config, [0, 1])
    tokens = jnp.asarray(TOKENS)
    estimates = ladder.estimate_losses(model, states.params, tokens, keys.data, 32)
    for i, estimate in enumerate(estimates):
        params = jax.tree.map(lambda a, i=i: a[i], states.params)
        assert estimate == pytest.approx(evaluate(model, params, tokens), abs=0.05)
    batch = ladder.sample_batch(tokens, keys.data[0], 0, 32, 8)
    one = cross_entropy(
        forward(model, jax.tree.map(lambda a: a[0], states.params), batch.x_BT), batch.y_BT
    )
    assert estimates[0] == pytest.approx(float(one), abs=0.3)


def test_a_climb_writes_its_table_its_picture_and_its_numbers(words, tmp_path, capsys):
    out = tmp_path / "out"
    given = ["--rungs", "head,bigram", "--seeds", 2, "--max-iters", 3, "--data", words]
    assert climb_lecture(*given, "--out", out) == 0
    assert sorted(p.name for p in out.iterdir()) == ["ladder.json", "ladder.md", "ladder.png"]
    stored = json.loads((out / "ladder.json").read_text())
    assert stored["seeds"] == [1337, 1338]
    assert [rung["name"] for rung in stored["rungs"]] == ["bigram", "head"], "the ladder's order"
    vocab_size = len(set(WORDS))
    bigram = stored["rungs"][0]
    assert bigram["parameters"] == vocab_size**2
    assert bigram["lecture"] == 2.5
    assert bigram["seconds"] > 0
    assert len(bigram["losses"]) == len(bigram["estimates"]) == 2
    assert len(set(bigram["losses"])) == 2, "two seeds, two losses"
    page = (out / "ladder.md").read_text()
    shown = capsys.readouterr().out
    for text in (page, shown):
        assert results.spread(bigram["losses"]) in text
        assert results.spread(bigram["estimates"]) in text
        assert f"{vocab_size**2:,}" in text
    assert "--seeds 2 --rungs bigram,head" in page
    assert (out / "ladder.png").read_bytes().startswith(b"\x89PNG")


def test_an_interrupted_climb_goes_on_at_the_rung_it_was_in(words, tmp_path, monkeypatch, capsys):
    given = ["--rungs", "bigram,head", "--seeds", 2, "--max-iters", 2, "--data", words]
    out, straight = tmp_path / "out", tmp_path / "straight"
    climbed, climb = [], ladder.climb

    def interrupted(name, *args):
        climbed.append(name)
        if climbed.count("head") == 1 and name == "head":
            raise KeyboardInterrupt
        return climb(name, *args)

    monkeypatch.setattr(lecture, "climb", interrupted)
    assert climb_lecture(*given, "--out", out) == 130
    assert (out / results.UNFINISHED).is_file()
    assert not (out / results.JSON).exists()
    assert climb_lecture(*given, "--out", out) == 0
    assert climbed == ["bigram", "head", "head"]
    assert "done before the interruption" in capsys.readouterr().out
    assert climb_lecture(*given, "--out", straight) == 0
    whole, resumed = (
        [rung | {"seconds": 0} for rung in json.loads((folder / results.JSON).read_text())["rungs"]]
        for folder in (straight, out)
    )
    assert whole == resumed


def test_another_climb_does_not_go_on_with_an_interrupted_one(words, tmp_path, monkeypatch):
    given = ["--rungs", "bigram", "--max-iters", 2, "--data", words, "--out", tmp_path / "out"]
    monkeypatch.setattr(results, "write_results", lambda *_: (_ for _ in ()).throw(OSError()))
    assert climb_lecture(*given, "--seeds", 1) == 1
    monkeypatch.undo()
    assert climb_lecture(*given, "--seeds", 2) == 0
    stored = json.loads((tmp_path / "out" / results.JSON).read_text())
    assert len(stored["rungs"][0]["losses"]) == 2


@pytest.mark.parametrize("content", ["", "[1]", '{"rungs": 3}', '{"rungs": [{"name": 1}]}'])
def test_a_torn_record_of_an_interrupted_climb_is_ignored(content, tmp_path):
    (tmp_path / results.UNFINISHED).write_text(content)
    assert results.load_unfinished(tmp_path, results.Climb("d", "s", [1], None)) == []


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--rungs", "bigram,heads"], "'heads'"),
        (["--rungs", ""], "--rungs"),
        (["--seeds", "0"], "--seeds (0)"),
        (["--seeds", "two"], "'two'"),
        (["--max-iters", "0"], "--max-iters (0)"),
        (["--data", "no-such-file.txt"], "no-such-file.txt"),
        (["--run", "runs/x"], "--run"),
        (["--text", "fox"], "--text"),
        (["--pictures", "--run", "no-such-run"], "no-such-run"),
        (["--sedes", "3"], "--seeds"),
    ],
    ids=str,
)
def test_a_wrong_flag_is_named(argv, named, tmp_path, capsys):
    assert climb_lecture(*argv, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.startswith("gptjax.lecture: error: ")
    assert len(error.splitlines()) == 1


def test_out_must_be_a_folder(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert climb_lecture("--out", tmp_path / "file") == 2
    assert "is a file" in capsys.readouterr().err


def test_a_text_too_short_for_a_rung_is_refused(tmp_path, capsys):
    (tmp_path / "short.txt").write_text("abc" * 20)
    given = ["--data", tmp_path / "short.txt", "--rungs", "notebook", "--out", tmp_path / "out"]
    assert climb_lecture(*given) == 2
    assert "block_size" in capsys.readouterr().err


def test_a_sample_line_breaks_no_table():
    rung = ladder.Climbed("head", 1, [2.0], [2.0], 2.4, 1.0, "x\n" + "a|b`c" * 30)
    row = results._row(rung)
    assert row.count("|") - row.count("\\|") == 9
    assert "\n" not in row
    assert results.sample_line("") == ""


@pytest.mark.slow
def test_one_head_reaches_the_lectures_loss(tmp_path):
    """The figure itself, one seed, where the text is at hand."""
    assert climb_lecture("--rungs", "head", "--seeds", 1, "--out", tmp_path) == 0
    stored = json.loads((tmp_path / results.JSON).read_text())
    assert stored["rungs"][0]["losses"][0] == pytest.approx(2.40, abs=0.04)


def rows(page: str, columns: int) -> dict[str, list[str]]:
    """The cells of a page's first table of rungs with this number of columns, by rung."""
    lines = [line.strip("|").split("|") for line in (ROOT / page).read_text().splitlines()]
    found: dict[str, list[str]] = {}
    for name, *rest in ([cell.strip() for cell in line] for line in lines if len(line) == columns):
        if name.strip("`") in LADDER:
            found.setdefault(name.strip("`"), rest)
    return found


def test_the_tables_of_readme_and_docs_are_those_of_the_rungs_and_of_the_last_climb():
    """Each figure comes from one place: parameters from the presets, losses from ladder.json."""
    climbed = {
        rung["name"]: rung["losses"]
        for rung in json.loads((ROOT / "docs/ladder.json").read_text())["rungs"]
    }
    readme, ladder = rows("README.md", 5), rows("docs/ladder.md", 8)
    ideas, losses = rows("docs/lecture.md", 3), rows("docs/lecture.md", 4)
    # A new rung has its rows after its first climb.
    assert list(readme) == list(ladder) == list(losses) == list(climbed)
    for name in climbed:
        rung, model = LADDER[name], make_model(PRESETS[name])
        size = f"{num_params(abstract_params(model)):,}"
        assert (readme[name][1], ladder[name][1], losses[name][0]) == (size, size, size)
        assert readme[name][2] == f"{mean(climbed[name]):.2f}"
        assert ladder[name][2] == losses[name][1] == spread(climbed[name])
        assert rung.lecture is not None
        assert ladder[name][0] == rung.adds
        assert losses[name][2] == ladder[name][4] == f"{rung.lecture:.2f}"
        assert name in ideas
