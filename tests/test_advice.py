"""Follows the advice in errors: each test does what a message says, and it must work.

This file has the table of all advice, and the tests about runs and flags; test_advice_files.py has
the rest.
"""

import ast
import re
import shutil
from pathlib import Path

import pytest

import sample
import train
from gptjax.app import verify
from gptjax.app.train_flags import parse
from gptjax.lecture import __main__ as lecture
from gptjax.store.lock import locked
from gptjax.text.shell import found

from advice import SHORT, bash, refusal, ticked, works
from conftest import tiny

ROOT = Path(train.__file__).parent

# Words from each piece of advice, and the test that follows it.
FOLLOWED = {
    "--help lists the flags": "test_help_lists_the_flags",
    "did you mean": "test_did_you_mean",
    "there is no ": "test_other_programs_flags_are_told_what_to_do_here",
    "was given twice": "test_a_flag_given_twice_is_given_once",
    "must be true or false, or be left out": "test_a_switch_takes_true_and_false",
    "the command is ` RUN`": "test_verify_takes_the_folder_of_a_run",
    "give a smaller min_lr": "test_a_smaller_min_lr",
    "--out-dir is empty: give": "test_an_out_dir_that_is_no_folder",
    "is a file: give the path of a folder": "test_an_out_dir_that_is_no_folder",
    "--overwrite starts from step 0": "test_overwrite_alone",
    "--resume continues it": "test_a_folder_that_holds_a_run",
    "move that away": "test_a_folder_that_holds_a_file_of_the_same_name",
    "leave the flag out, or start another run": "test_a_flag_that_contradicts_the_run",
    "a resume can only extend it": "test_a_resume_extends",
    "add --resume, or leave it out": (
        "test_extending_a_run_says_what_it_does_to_the_rate_and_offers_a_warm_up"
    ),
    "leave out one of them": "test_a_run_of_so_many_minutes_is_any_run_of_as_many_steps",
    "leave the `with` block": "test_a_setting_of_this_thread_alone_is_refused",
    "continue with\n": "test_the_commands_of_a_run_in_an_odd_folder",
    "a larger --max-iters extends it": "test_a_resume_extends",
    "train a model first": "test_a_run_is_trained_first",
    "train one with": "test_a_run_is_trained_first",
    "give a folder that train.py wrote": "test_a_run_is_trained_first",
    "continue training with --resume": "test_without_a_whole_checkpoint",
    "to keep runs on another disk": "test_runs_on_another_disk",
    "wait until it ends": "test_another_process_is_training",
    "let no other process train in it": "test_where_there_are_no_locks_it_says_so_and_goes_on",
    "--skip-nonfinite skips": (
        "test_a_run_stops_at_a_step_that_is_not_finite_and_goes_on_without_it"
    ),
    "--stop is empty": "test_flags_of_sample_py",
    "give one": "test_flags_of_sample_py",
    "leave out --out-dir and --step": "test_flags_of_sample_py",
    "--stride is for --score": "test_flags_of_sample_py",
    "can never appear": "test_flags_of_sample_py",
    "is for samples, and --score generates none": "test_flags_of_sample_py",
    "no such file; give the path of a text file": "test_a_text_that_is_not_there",
    "is empty: give a file": "test_a_text_that_is_not_there",
    "is a directory: give": "test_a_text_that_is_not_there",
    "standard input is closed": "test_a_text_that_is_not_there",
    "give a part of it": "test_a_part_of_a_text_that_is_too_large",
    "bring the file by hand": "test_a_corpus_that_cannot_be_fetched",
    "delete it to have it fetched again": "test_a_corpus_that_is_another_text",
    "--resume will need it again, as --data FILE": (
        "test_a_text_from_standard_input_is_told_at_once_and_resumed_with_a_file"
    ),
    "came through a pipe": (
        "test_a_text_from_standard_input_is_told_at_once_and_resumed_with_a_file"
    ),
    "of the weights' vocabulary: leave it out": (
        "test_a_character_that_the_vocabulary_lacks_is_named_with_its_line"
    ),
    "is another text than the run's": "test_another_text_contradicts_the_run",
    "the text that the run names": "test_a_text_that_has_moved_is_asked_for",
    "use a ": "test_a_text_that_is_too_short",
    "is a folder: give the path of a file": "test_a_place_for_log_probabilities",
    "there is no such folder to write it in": "test_a_place_for_log_probabilities",
    "needs the package": "test_a_missing_package_is_installed_by_the_command",
    "download a GPT-2 with": "test_a_gpt2_is_downloaded_by_the_command",
    "download it again": "test_a_gpt2_is_downloaded_by_the_command",
    "GPT-2's own is fetched by": "test_a_gpt2_is_downloaded_by_the_command",
    "is the hub's cache": "test_the_folder_around_the_snapshots_leads_to_the_one",
    "Git LFS pointer": "test_a_pointer_is_pulled_by_the_command",
    "this is a whole checkpoint; pass": "test_a_whole_checkpoint_in_place_of_its_weights_is_named",
    "give --field NAME": "test_a_text_is_the_same_however_it_is_stored",
    "convert it with `iconv": "test_what_is_no_text_is_named_with_its_place",
    "--overwrite removes it": "test_the_beginning_of_another_corpus_is_not_gone_on_with",
    "--overwrite starts again": "test_the_beginning_of_another_corpus_is_not_gone_on_with",
    "give the command again (`prepare`": "test_files_that_change_while_they_are_read",
    "--overwrite replaces it": "test_the_command",
    "needs the files or folders": "test_wrong_arguments_are_one_line_and_make_nothing",
    "--out is missing: give": "test_wrong_arguments_are_one_line_and_make_nothing",
    "prepare it once, with": "test_the_name_of_a_corpus_leads_to_the_command_that_prepares_it",
    "files and folders are prepared by": "test_wrong_arguments_are_one_line_and_fetch_nothing",
    "is not for : leave it out": "test_wrong_arguments_are_one_line_and_fetch_nothing",
    "contains prepared text: give it to": "test_the_folder_may_be_within_one_that_is_read",
    "give the same `prepare` ": "test_an_interrupted_preparation_is_named_and_goes_on",
    "give the text that the run was trained on": (
        "test_a_resume_on_tokens_of_another_vocabulary_is_refused"
    ),
    "another --val-fraction": "test_wrong_arguments_are_one_line_and_make_nothing",
    "RUN --to FORMAT --out DIR": "test_a_folder_with_something_in_it_is_refused",
    "give the path of a new folder": "test_a_folder_with_something_in_it_is_refused",
    "starts from: give another --out-dir": "test_a_source_is_not_overwritten",
    "leave out --init-from": "test_advice_about_a_source_is_followed",
    "give at most that": "test_advice_about_a_source_is_followed",
    "give the original text": "test_a_prepared_text_must_have_the_sources_vocabulary",
    "leave the flag out": "test_advice_about_prepared_text_is_followed",
    "a pattern for several": "test_advice_about_prepared_text_is_followed",
    "which can run code and is never opened": (
        "test_nanogpts_pickle_is_never_opened_and_the_command_makes_a_meta_json_of_it"
    ),
    "add --tokenizer gpt2": ("test_nanogpts_folder_of_gpt2s_tokens_is_read_with_its_vocabulary"),
    "add --tokenizer bpe, or leave ": "test_a_size_is_for_a_vocabulary_that_is_learned",
    "the folder has no vocabulary": "test_a_wrong_tokenizer_is_one_line",
    "must be one of ": "test_a_wrong_tokenizer_is_one_line",
    "copy it to ": "test_without_the_web_gpt2s_vocabulary_is_brought_by_hand",
    "add --pictures": "test_flags_of_the_lecture",
    "--text is what the model of --run reads": "test_flags_of_the_lecture",
    "it must have 1 to ": "test_flags_of_the_lecture",
    "choose a --batch-size": "test_each_process_must_get_sequences",
    "where JAX recognises no cluster": (
        "test_two_processes_train_as_one_and_a_run_goes_on_anywhere"
    ),
    "one less than --num-processes": "test_two_processes_train_as_one_and_a_run_goes_on_anywhere",
    "--num-processes 1 trains alone": (
        "test_a_process_that_used_its_devices_does_not_look_for_a_cluster"
    ),
    "leave that to train.py": "test_a_program_that_joined_others_leaves_it_to_train_py",
    "--budget-minutes measures one process": "test_what_several_processes_cannot_do",
    "each process must read the text": "test_what_several_processes_cannot_do",
    "--page is for one process: leave it out": "test_what_several_processes_cannot_do",
    "--eval-only writes nothing: leave out --page": "test_a_page_is_not_for_eval_only",
    "numbers that are not finite: choose another --step": "test_numbers_of_no_use_are_named",
    "too large for float16: give --dtype float32": "test_numbers_of_no_use_are_named",
    "drew other random numbers": (
        "test_a_run_of_a_version_with_other_random_numbers_says_that_it_differs"
    ),
    "choose from": "test_flags_of_the_lecture",
    "a run of --preset layernorm or later": "test_flags_of_the_lecture",
    "add --dry-run, or leave it out": "test_advice_about_a_plan_is_followed",
    "plans a new run and writes nothing: leave out": "test_advice_about_a_plan_is_followed",
    "is not a GPT: name another": "test_advice_about_a_plan_is_followed",
    "devices at most": "test_advice_about_a_plan_is_followed",
    "planned with --batch-size": "test_advice_about_a_plan_is_followed",
    "--dry-run-tokens": "test_advice_about_a_plan_is_followed",
}


def test_every_piece_of_advice_has_a_test_that_follows_it():
    """The table above must have each message with a flag, a command or an imperative."""
    advice = re.compile(
        r"(?<=.)--[a-z]|`|did you mean|\b(give|leave|add|move|delete|download|wait|bring|pass|"
        r"convert|choose|use|let|train a|continue with)\b"
    )
    tests = "".join(path.read_text() for path in Path(__file__).parent.rglob("test_*.py"))
    for test in FOLLOWED.values():
        assert f"def {test}(" in tests, test
    unused, without = set(FOLLOWED), []
    for path in [*(ROOT / "gptjax").rglob("*.py"), ROOT / "data" / "prepare.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name not in ("InputError", "RunError", "check", "error", "tell", "say", "warn"):
                continue
            parts = [x.value for x in ast.walk(node) if isinstance(x, ast.Constant)]
            message = "".join(x for x in parts if isinstance(x, str))
            named = {words for words in FOLLOWED if words in message}
            unused -= named
            if advice.search(message) and not named:
                without.append(f"{path}:{node.lineno}: {message}")
    assert without == []
    # Advice that is not built in the call that raises it.
    assert unused <= {"use a ", "download it again", "GPT-2's own is fetched by"}


def test_help_lists_the_flags(capsys):
    error = refusal(train, "--n-layer")
    assert "--help lists the flags" in error
    with pytest.raises(SystemExit):
        train.main(["--help"])
    assert "--n-layer int" in capsys.readouterr().out


def test_a_flag_given_twice_is_given_once():
    error = refusal(train, "--seed", 1, "--seed", 2)
    first, second = re.findall(r"as (\d)", error)
    for seed in (first, second):
        assert parse(["--seed", seed], found()) == {"seed": int(seed)}


def test_verify_takes_the_folder_of_a_run(finished_run):
    assert "RUN is the folder of a run" in refusal(verify)
    works(verify, finished_run)


def test_a_smaller_min_lr(text_file, tmp_path):
    flags = [*tiny(*SHORT, "--data", text_file, "--out-dir", tmp_path / "run")]
    assert "give a smaller min_lr" in refusal(train, *flags, "--min-lr", 1)
    works(train, *flags, "--min-lr", 1e-3)


def test_an_out_dir_that_is_no_folder(text_file, tmp_path):
    flags = tiny(*SHORT, "--data", text_file)
    assert "give the path of a folder" in refusal(train, *flags, "--out-dir", "")
    assert "give the path of a folder" in refusal(train, *flags, "--out-dir", text_file)
    assert "give the path of a folder" in refusal(lecture, "--out", text_file)
    works(train, *flags, "--out-dir", tmp_path / "folder")


def test_overwrite_alone(run_copy, text_file):
    flags = ["--out-dir", run_copy, "--overwrite"]
    assert "cannot go with --resume" in refusal(train, *flags, "--resume")
    works(train, *tiny(*SHORT, "--data", text_file), *flags)


def test_a_folder_that_holds_a_run(run_copy, text_file, tmp_path):
    new = tiny(*SHORT, "--data", text_file)
    error = refusal(train, *new, "--out-dir", run_copy)
    assert re.findall("--[a-z-]+", error) == ["--resume", "--overwrite", "--out-dir"]
    works(train, "--out-dir", run_copy, "--resume")
    works(train, *new, "--out-dir", run_copy, "--overwrite")
    works(train, *new, "--out-dir", tmp_path / "another")


def test_a_folder_that_holds_a_file_of_the_same_name(text_file, tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / "metrics.jsonl").write_text("of another program")
    new = tiny(*SHORT, "--data", text_file)
    assert "its metrics.jsonl: move that away" in refusal(train, *new, "--out-dir", path)
    works(train, *new, "--out-dir", tmp_path / "another")
    (path / "metrics.jsonl").rename(tmp_path / "away")
    works(train, *new, "--out-dir", path)


def test_a_flag_that_contradicts_the_run(run_copy, text_file, tmp_path):
    flags = ["--out-dir", run_copy, "--resume"]
    assert "leave the flag out, or start" in refusal(train, *flags, "--n-layer", 2)
    works(train, *flags)
    works(train, *tiny(*SHORT, "--n-layer", 2, "--data", text_file, "--out-dir", tmp_path / "two"))


def test_a_resume_extends(run_copy, capsys):
    flags = ["--out-dir", run_copy, "--resume"]
    assert "a resume can only extend it" in refusal(train, *flags, "--max-iters", 3)
    works(train, *flags)
    assert "a larger --max-iters extends it" in capsys.readouterr().out
    works(train, *flags, "--max-iters", 7)


@pytest.mark.slow
def test_a_run_is_trained_first(tmp_path, monkeypatch, finished_run):
    """The printed command works in the folder where it was printed; here it trains a few steps."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    text = finished_run.parent / "text.txt"
    for flags in ([], ["--out-dir", "gone"]):
        [command] = ticked(refusal(sample, *flags))
        done = bash(f"{command} {' '.join(tiny(*SHORT, '--data', text))}")
        assert done.returncode == 0, done.stderr
        works(sample, "--max-new-tokens", 2)
        shutil.rmtree("runs")
    (tmp_path / "empty").mkdir()
    assert "give a folder that train.py wrote" in refusal(sample, "--out-dir", "empty")
    works(sample, "--out-dir", finished_run, "--max-new-tokens", 2)


def test_without_a_whole_checkpoint(run_copy):
    shutil.rmtree(run_copy / "checkpoints")
    error = refusal(sample, "--out-dir", run_copy)
    assert "continue training with --resume" in error
    works(train, "--out-dir", run_copy, "--resume")
    works(sample, "--out-dir", run_copy, "--max-new-tokens", 2)


def test_runs_on_another_disk(run_copy, text_file, tmp_path):
    disk = tmp_path / "disk"
    (run_copy / "checkpoints").rename(disk)
    (run_copy / "checkpoints").symlink_to(disk)
    assert "give an --out-dir there" in refusal(train, "--out-dir", run_copy, "--resume")
    works(train, *tiny(*SHORT, "--data", text_file, "--out-dir", disk / "run"))


def test_another_process_is_training(run_copy, text_file, tmp_path):
    with locked(run_copy, print):
        error = refusal(train, "--out-dir", run_copy, "--resume")
        assert "wait until it ends, or stop it, or give another --out-dir" in error
        works(train, *tiny(*SHORT, "--data", text_file, "--out-dir", tmp_path / "another"))
    works(train, "--out-dir", run_copy, "--resume")


@pytest.mark.slow
def test_flags_of_the_lecture(finished_run, tmp_path):
    assert "add --pictures" in refusal(lecture, "--run", finished_run)
    error = refusal(lecture, "--rungs", "")
    first = error.split("choose from ")[1].split(",")[0]
    assert lecture.choose(first) == [first]
    text = tmp_path / "text"
    text.write_text("ROMEO:\nI would I were thy bird.\n" * 40)
    for preset in ("residual", "layernorm"):
        new = tiny(*SHORT, "--preset", preset, "--block-size", 32, "--data", text)
        works(train, *new, "--out-dir", tmp_path / preset)
    drawn = ["--pictures", "--out", tmp_path / "drawn", "--run"]
    assert "--preset layernorm or later" in refusal(lecture, *drawn, tmp_path / "residual")
    works(lecture, *drawn, tmp_path / "layernorm")
    assert "add --pictures and --run" in refusal(lecture, "--text", "thy bird")
    assert "add --run" in refusal(lecture, "--pictures", "--text", "thy bird")
    read = [*drawn, tmp_path / "layernorm", "--text"]
    assert "it must have 1 to 32" in refusal(lecture, *read, "thy bird " * 4)
    works(lecture, *read, "thy bird " * 3)
