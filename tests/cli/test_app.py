"""Exit codes, messages and help, without heavy imports."""

from __future__ import annotations

import subprocess
import sys

import pytest

import scions
from scions.cli import main
from scions.errors import DataError, Interrupted, UsageError


@pytest.mark.parametrize("command", ["train", "evaluate", "embed", "list", "compare", "mix", "select", "prune"])
def test_help_has_an_example_and_defaults(run, command):
    code, out, _ = run(command, "--help")
    assert code == 0
    assert f"scions {command}" in out.split("Example")[1]
    assert "default:" in out


def test_version(run):
    assert run("--version")[:2] == (0, f"scions {scions.__version__}\n")


def test_no_command_shows_the_help(run):
    code, out, _ = run()
    assert code == 2
    assert "evaluate" in out


@pytest.mark.parametrize("command", ["train", "evaluate", "embed", "reindex", "importance", "compare", "mix", "prune"])
def test_a_command_that_needs_arguments_shows_its_help_without_any(run, command):
    code, out, _ = run(command)
    assert code == 2
    assert f"scions {command}" in out.split("Example")[1]


def test_output_is_still_accepted_for_the_folder_of_adapters(run, tmp_path):
    code, out, err = run("list", "--adapters", tmp_path)
    assert (code, err) == (0, "")
    for old in (["--output", tmp_path], [f"--output={tmp_path}"]):
        assert run("list", *old) == (0, out, "Warning: --output is deprecated; use --adapters\n")
    assert "--output" not in run("list", "--help")[1]


@pytest.mark.parametrize("arguments", [["frobnicate"], ["list", "--nope"], ["embed", "x"], ["train", "--data", "x"]])
def test_wrong_usage_is_two(run, arguments):
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert "Usage: scions" in err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DataError("a.txt:3: broken"), 1, "Error: a.txt:3: broken\n"),
        (UsageError("no such thing"), 2, "Error: no such thing\n"),
        (Interrupted("at row 5"), 130, "Stopped: at row 5\n"),
        (KeyboardInterrupt(), 130, None),
        (RuntimeError("boom\nmore"), 1, "Unexpected error: RuntimeError: boom\n"),
    ],
)
def test_errors_become_a_line_and_a_code(run, monkeypatch, error, code, said):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("scions.store.list_adapters", fail)
    got, out, err = run("list")
    assert got == code
    assert out == ""
    assert "Traceback" not in err
    if said:
        assert err.startswith(said)


def test_ctrl_c_says_that_it_stopped(run, monkeypatch):
    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("scions.store.list_adapters", fail)
    assert run("list")[2].strip() == "Stopped."


def test_ctrl_c_while_the_first_module_is_imported_says_so_too():
    script = (
        "import sys\n"
        "class Stop:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Stop())\n"
        "from scions.cli import main\n"
        "sys.exit(main(['list']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Stopped.\n")


@pytest.mark.parametrize("error", [DataError("broken"), RuntimeError("boom")])
def test_debugging_shows_where_it_arose(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("scions.store.list_adapters", fail)
    monkeypatch.setenv("SCIONS_DEBUG", "1")
    with pytest.raises(type(error)):
        main(["list"])


def test_help_and_list_import_nothing_heavy():
    script = (
        "import sys; from scions.cli import main; main(['--help']); main(['list', '--help']); main(['list']); "
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'pandas', 'sklearn', 'numpy', 'matplotlib'}; "
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_interrupted_training_is_told_as_one():
    from scions.training.fit import Interrupted as Stopped

    assert issubclass(Stopped, Interrupted)
