"""Every text that people read, as a list to read aloud, and how often it has forms that trip a reader.

    python tests/words.py errors      # or help, docs, page, metrics, comments; without a name, all of them
    python tests/words.py --count

Errors are the strings of `raise` and of notes, with `…` for what is filled in. Of documents, code blocks are left out.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("edgetune", "export/edgetune_export", "runtime/edgetune_runtime")
PAGES = ("*.md", "docs/**/*.md", "benchmarks/results/*.md", "examples/**/*.md", "web/*.md", "deploy/**/*.md")
SPEAKING = {"note", "remark", "warn", "say", "problem", "BadParameter", "UsageError", "ClickException"}
"""What is called with a message for people, besides exceptions."""

Text = tuple[str, str]
"""Where a text is, and the text."""

FORMS = {
    '"where" for "if" or "that"': r"(?<!says )(?<!see )(?<!and )(?<!is )\b[Ww]here(?! is my| are my|ver| to\b|as\b)",
    '"beside" for "compared with" or "with"': r"\b[Bb]eside\b",
    '"anew"': r"\banew\b",
    '"is said", "is told", "says so"': r"\b(?:is|are|was|were) (?:said|told)\b",
    '"so often", "so it is", "so they"': r"\b[Ss]o (?:often|it is|it does|they|is it|takes?)\b",
    '"a" for "per"': r"\b(?:rows|texts|tokens|characters|numbers|bytes|lines?|threads?|MB|kB|run|runs|once) an? "
    r"(?:row|second|step|text|body|label|task|batch|request|run|token|class|time)\b",
    '"is there" for "exists"': r"\b(?:is|are|was|were) there\b(?! (?:a|an|no|any)\b)",
    "a clause as the subject": r"(?:^|(?<=[.:;] ))(?:What(?:ever)?|Who(?:ever|m)?|That which) [^?.]*?(?:\.|;|$)",
    '"such", "all" or "none" alone at the end': r"\b(?:none does|none is|none has|no such)\b",
    '"of" in front': r"(?:^|(?<=[.:;] ))Of [a-z]",
    '"of late", "in the midst", "again and again"': r"\b(?:of late|in the midst|again and again)\b",
    '"else" for "otherwise"': r"(?:[,;:] |^)[Ee]lse\b(?! if)",
    '"there" alone': r"\b(?:put|puts|known|found|lies|lie|stands?) there\b",
    '"lies", "stands" for "is"': r"\b(?:lies|stands|lie) (?:in|at|on|before|behind|below|beside)\b",
}
"""Form → how it is found."""


def errors(root: Path = ROOT) -> Iterator[Text]:
    """Messages of exceptions and notes of the three packages."""
    for path in _modules(root):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)) or _speaks(node):
                call = node.exc if isinstance(node, ast.Raise) else node
                for text in _strings(call):
                    yield f"{path.relative_to(root)}:{node.lineno}", text


def help_texts(root: Path = ROOT) -> Iterator[Text]:
    """Help of every command and option, in the installed edgetune."""
    from edgetune.cli import cli

    def below(command: click.Command, name: str) -> Iterator[Text]:
        yield name, command.help or ""
        for option in command.params:
            if isinstance(option, click.Option) and option.help:
                yield f"{name} {max(option.opts, key=len)}", option.help
        for own in command.commands.values() if isinstance(command, click.Group) else ():
            yield from below(own, f"{name} {own.name}")

    yield from below(cli, "edgetune")


def docs(root: Path = ROOT) -> Iterator[Text]:
    """Paragraphs, list items and rows of tables of all pages."""
    for path in sorted({path for pattern in PAGES for path in root.glob(pattern)}):
        if ".venv" in path.parts or "node_modules" in path.parts:
            continue
        text = re.sub(r"^ *```.*?^ *```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for block in re.split(r"\n\s*\n|\n(?=\s*[-*|] )|\n(?=\s*\d+\. )", text):
            yield str(path.relative_to(root)), " ".join(block.split())


def page(root: Path = ROOT) -> Iterator[Text]:
    """What the server's page shows."""
    folder = root / "edgetune/server/page"
    yield "index.html", re.sub(r"<[^>]*>|\s+", " ", (folder / "index.html").read_text(encoding="utf-8"))
    for path in sorted([*folder.glob("*.js"), *(root / "web/site").glob("*.js")]):
        for found in re.findall(r"[\"`]([^\"`\n]* [^\"`\n]*)[\"`]", path.read_text(encoding="utf-8")):
            yield path.name, found


def metrics(root: Path = ROOT) -> Iterator[Text]:
    """Help of the server's metrics, in the installed edgetune."""
    from edgetune.server.metrics import Metrics

    yield from re.findall(r"^# HELP (\w+) (.*)$", Metrics(lambda: 0).exposition().decode(), re.MULTILINE)


def comments(root: Path = ROOT) -> Iterator[Text]:
    """Docstrings and comments of the three packages."""
    for path in _modules(root):
        source = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                yield f"{path.relative_to(root)}", ast.get_docstring(node) or ""
        for found in re.findall(r"(?:^|  )# (.*)$", source, re.MULTILINE):
            yield f"{path.relative_to(root)}", found


SORTS = {
    "help": help_texts, "errors": errors, "docs": docs, "page": page, "metrics": metrics, "comments": comments,
}  # fmt: skip


def counted(texts: Iterable[Text]) -> dict[str, int]:
    """Form → how often it stands in the texts."""
    texts = list(texts)
    return {form: sum(len(re.findall(found, text)) for _, text in texts) for form, found in FORMS.items()}


def _modules(root: Path) -> list[Path]:
    return sorted(path for room in ROOMS for path in (root / room).rglob("*.py"))


def _speaks(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name in SPEAKING


def _strings(node: ast.AST) -> Iterator[str]:
    """The strings that a call is given; of an f-string, `…` for what is filled in."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str) and " " in node.value:
            yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
    else:
        for below in ast.iter_child_nodes(node):
            yield from _strings(below)


def main(arguments: list[str]) -> None:
    """Print the texts, or how often each has each form."""
    names = [name for name in arguments if name in SORTS] or list(SORTS)
    if "--count" not in arguments:
        for name in names:
            print(f"== {name} ==", *(f"{where}: {text}" for where, text in SORTS[name]()), sep="\n")
        return
    table = {name: counted(SORTS[name]()) for name in names}
    print(f"{'':<48}" + "".join(f"{name:>9}" for name in names))
    for form in FORMS:
        print(f"{form[:47]:<48}" + "".join(f"{table[name][form]:>9}" for name in names))
    print(f"{'in all':<48}" + "".join(f"{sum(table[name].values()):>9}" for name in names))


if __name__ == "__main__":
    main(sys.argv[1:])
