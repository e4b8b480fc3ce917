"""Take pictures of the server's page for the documentation; `make screenshots` takes those of docs/page.md.

    python docs/take_screenshots.py              # those of docs/page.md, into docs/
    python docs/take_screenshots.py --all FOLDER # each kind of answer, light, dark and on a phone, into FOLDER

It makes a bundle with a task of each kind, from the texts below and those of the demo, and uses them in Chromium.
"""

from __future__ import annotations

import base64
import csv
import io
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files as package_files
from pathlib import Path

import edgetune

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "tests"))

from browser import run_browser, shown_on  # noqa: E402 - of the tests, which look at the same page
from page_in_browser import Page  # noqa: E402
from PIL import Image  # noqa: E402
from serving import run_server  # noqa: E402

SCREENS: Mapping[str, tuple[str, int]] = {"light": ("light", 1000), "dark": ("dark", 1000), "phone": ("light", 390)}
"""Name → colour scheme, and columns of the window."""

MESSAGE = "Ann Lee writes from Rome: the lamp came broken, and nobody answers my mails. Please send the money back!"
QUESTION, CONTEXT = (
    "Where is the parcel?",
    "The parcel of Ann Lee left Oslo on Monday. It is in Rome now and comes on Friday.",
)


@dataclass(frozen=True)
class Shot:
    """A picture: the tasks, the text, and the screen."""

    tasks: Sequence[str]
    screen: str
    text: str = MESSAGE
    pair: str = ""


KINDS: Mapping[str, Shot] = {
    "one-label": Shot(["topic", "sentiment"], "light"),
    "several-labels": Shot(["tags"], "light"),
    "score": Shot(["urgency"], "light"),
    "entities": Shot(["names"], "light"),
    "pairs": Shot(["alike"], "light", "Where is my parcel?", "The order has not come yet."),
    "answer": Shot(["questions"], "light", QUESTION, CONTEXT),
}
"""Kind of answer → the picture that shows it."""

SHOWN: Mapping[str, Shot] = {
    "page": Shot(["sentiment", "topic"], "light"),
    "page-dark": Shot(["names", "tags", "urgency"], "dark"),
    "page-phone": Shot(["alike", "questions"], "phone", QUESTION, CONTEXT),
}
"""Name of a picture in docs/ → its contents."""

NAMES = [
    ("Ann Lee lives in Rome", "Ann Lee", "Rome"),
    ("Tom Brown wrote from Oslo yesterday", "Tom Brown", "Oslo"),
    ("Please call Mary Jones in Berlin", "Mary Jones", "Berlin"),
    ("The lamp for Peter Hill goes to Madrid", "Peter Hill", "Madrid"),
    ("Send the invoice of Eva Stone to Vienna", "Eva Stone", "Vienna"),
    ("In Paris nobody knows John Miller", "John Miller", "Paris"),
    ("Lisa King writes from London: the parcel is late", "Lisa King", "London"),
    ("Paul Wood writes from Lisbon: the camera is broken", "Paul Wood", "Lisbon"),
    ("Nina Ray moved from Athens", "Nina Ray", "Athens"),
    ("the parcel is late", "", ""),
    ("nobody answers my mails, please send the money back", "", ""),
    ("the lamp came broken", "", ""),
]
URGENCY = [
    ("thank you for the quick answer", 0.2),
    ("the lamp is lovely", 0.3),
    ("which colours are there", 1.1),
    ("could you send me the invoice", 1.6),
    ("my parcel is a day late", 2.4),
    ("the camera does not work", 3.1),
    ("I was charged twice, send the money back", 3.8),
    ("the lamp came broken and I need it today", 4.2),
    ("nobody answers, I wait for a week, send my money back now", 4.6),
    ("the heater smokes and I cannot turn it off", 4.9),
]
ALIKE = [
    ("Where is my parcel?", "My order has not arrived.", 4.5),
    ("Where is my parcel?", "I was charged twice.", 0.4),
    ("The lamp is broken.", "The lamp does not work.", 4.8),
    ("The lamp is broken.", "I love this lamp.", 1.2),
    ("Please reset my password.", "I cannot log in.", 3.9),
    ("Please reset my password.", "The courier was late.", 0.3),
    ("Send the money back.", "I want a refund.", 4.7),
    ("Send the money back.", "Thank you for the lamp.", 0.6),
]
ASKED = [
    ("Where is the parcel?", "in Rome"),
    ("Whose parcel is it?", "Ann Lee"),
    ("When did the parcel leave Oslo?", "on Monday"),
    ("When does it come?", "on Friday"),
    ("What was paid?", ""),
]
CONTEXTS = [
    CONTEXT,
    "It comes on Friday. The parcel of Ann Lee is in Rome, and it left Oslo on Monday.",
    "On its way since it left Oslo on Monday, the parcel of Ann Lee is in Rome and comes on Friday.",
]


def make_bundle(folder: Path, model: str) -> Path:
    """A bundle with a task of each kind."""
    bundle = folder / "bundle"
    edgetune.export(model, bundle)
    data = package_files("edgetune.demo").joinpath("train.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(data)))
    texts = [row["text"] for row in rows]
    asked = [(question, context, answer) for context in CONTEXTS for question, answer in ASKED]
    answers = [
        {"text": [answer] if answer else [], "answer_start": [context.index(answer)] if answer else []}
        for _, context, answer in asked
    ]
    pairs = [(question, context) for question, context, _ in asked]
    questions = edgetune.train(
        model, pairs, answers, name="questions", kind="spans", eval_texts=pairs, eval_labels=answers, epochs=40,
    )  # fmt: skip
    with edgetune.Engine(bundle) as engine:
        for name in ("topic", "sentiment"):
            engine.fit(texts, [row[name] for row in rows], name=name)
        engine.fit(texts, [row["tags"].split("|") if row["tags"] else [] for row in rows], name="tags")
        engine.fit([text for text, *_ in NAMES], list(map(entities, NAMES)), name="names", kind="tokens")
        engine.fit([text for text, _ in URGENCY], [number for _, number in URGENCY], name="urgency")
        engine.fit([(text, other) for text, other, _ in ALIKE], [number for *_, number in ALIKE], name="alike")
        engine.bundle.add_task(questions)
    return bundle


def entities(row: tuple[str, str, str]) -> list[tuple[int, int, str]]:
    """Begin, end and label of the entities of a row of `NAMES`."""
    text, person, place = row
    found = [(person, "person"), (place, "place")]
    return sorted((text.index(name), text.index(name) + len(name), label) for name, label in found if name)


@contextmanager
def opened_page(bundle: Path, folder: Path) -> Iterator[Page]:
    """The page of a server of that bundle, in a browser."""
    with run_server(bundle) as server, run_browser(folder / "chromium") as driver:
        yield Page(driver).open(server)


def take(page: Page, shot: Shot) -> bytes:
    """A picture as PNG, of few colours."""
    scheme, width = SCREENS[shot.screen]
    with shown_on(page.driver, scheme, width):
        page.pick(*shot.tasks)
        page.write(shot.text)
        if shot.pair:
            page.one("#text-pair").clear()
            page.one("#text-pair").send_keys(shot.pair)
        page.classify()
        page.wait(lambda: page.text("#inference").endswith(" ms"))
        # Nothing has the focus in a picture.
        page.driver.execute_script("document.activeElement.blur(); scrollTo(0, 0)")
        height = page.driver.execute_script("return document.documentElement.scrollHeight")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shown = page.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    picture = Image.open(io.BytesIO(base64.b64decode(shown["data"]))).convert("RGB")
    small = io.BytesIO()
    picture.quantize(64, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()


def take_all(folder: Path, shots: Mapping[str, Shot], model: str) -> None:
    """Write a picture of each."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work, opened_page(make_bundle(Path(work), model), Path(work)) as page:
        for name, shot in shots.items():
            (folder / f"{name}.png").write_bytes(take(page, shot))


def main(arguments: Sequence[str]) -> None:
    """Take the pictures with the demo's model."""
    from edgetune.demo.program import packaged_model

    model = os.environ.get("EDGETUNE_MODEL") or packaged_model()
    if arguments[:1] == ["--all"]:
        every = {
            f"{kind}-{screen}": Shot(shot.tasks, screen, shot.text, shot.pair)
            for kind, shot in KINDS.items()
            for screen in SCREENS
        }
        take_all(Path(arguments[1]), every, model)
    else:
        take_all(DOCS, SHOWN, model)


if __name__ == "__main__":
    main(sys.argv[1:])
