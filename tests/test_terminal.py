"""Tests for afmlib.terminal."""

import os

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from afmlib.cli import main
from afmlib.engine.hooks.progress import ProgressHook
from afmlib.terminal import printable, say


@given(st.text(st.characters(exclude_categories=[])))  # Also halves of surrogate pairs.
def test_only_printable_characters_are_left(text):
    shown = printable(text)

    assert all(character.isprintable() or character in "\n\t" for character in shown)
    assert shown.encode().decode() == shown
    assert printable(shown) == shown


@given(st.text().filter(str.isprintable))
def test_printable_text_stays(text):
    assert printable(f"{text}\n\t") == f"{text}\n\t"


def test_escapes_name_the_character():
    assert printable("\x1b[2J\r\x07\x9b\u202e\u2028") == r"\x1b[2J\r\x07\x9b\u202e\u2028"
    assert printable(os.fsdecode(b"caf\xe9")) == r"caf\udce9"  # Not UTF-8.


def test_say_prints_one_message(capsys):
    say("a\x1bb")

    assert capsys.readouterr().out == "a\\x1bb\n"


def test_names_in_errors_and_reports_are_escaped(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name = "evil\x1b[31m\x07\u202e"
    plugin = tmp_path / f"{name}.py"
    plugin.write_text(
        "from afmlib.interfaces import AdversarialLoss\n"
        "from afmlib.registry import LOSSES\n"
        "@LOSSES.register_module(name='MyLoss\\x1b[2J')\n"
        "class MyLoss(AdversarialLoss):\n"
        "    def discriminator_loss(self, logits_real, logits_fake):\n"
        "        return logits_fake - logits_real\n"
        "    def generator_loss(self, logits_real, logits_fake):\n"
        "        return -logits_fake\n"
    )

    for command in (
        ["sample", "--checkpoint", name],
        ["train", f"{name}.yaml"],
        ["encode", "--images", name, "--out", "latents"],
        ["list", "losses", "--plugin", str(plugin)],
        ["doctor", "--plugin", str(plugin)],
        ["check", str(plugin)],
    ):
        main(command)
        output = capsys.readouterr()
        shown = output.out + output.err
        assert "\\x1b[" in shown, command
        assert printable(shown) == shown, command


def test_name_of_a_run_is_escaped():
    assert ProgressHook("run\x1b[2J", Console()).name == r"run\x1b[2J"
