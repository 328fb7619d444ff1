"""What the README and the pages tell people to do."""

import re
from pathlib import Path

import click
import pytest
import typer

from lepton_flwr.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def commands(text):
    """The `lepton` commands in a page's code, each as a list of words."""
    code = re.findall(r"```(?:bash|sh)\n(.*?)```", text, flags=re.DOTALL)
    code += re.findall(r"(?<!`)`([^`]+)`(?!`)", text)
    for line in "\n".join(code).replace("\\\n", " ").splitlines():
        for found in re.findall(r"(?:^|[\s/])lepton ([a-z][^#&>]*)", line):
            yield found.partition(" | ")[0].split()


@each_page
def test_every_command_and_option_of_a_page_exists(page):
    for words in commands(page.read_text(encoding="utf-8")):
        command, rest = typer.main.get_command(app), words
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            for name in rest[0].split("|"):
                assert name in command.commands, words
            command, rest = command.commands[rest[0].split("|")[0]], rest[1:]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word.split("=")[0] for word in rest if word.startswith("--")} <= known, words


@each_page
def test_every_link_of_a_page_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_commands_are_found():
    text = "```bash\nlepton keys show x && lepton watch \\\n  y --once # z\n```\nor `lepton budget`"
    assert list(commands(text)) == [["keys", "show", "x"], ["watch", "y", "--once"], ["budget"]]
