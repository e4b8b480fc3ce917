"""Write tokens.json: what Rust's tokenizers makes of odd text, with the tokenizers of the conformance bundles.

python web/test/write_tokens.py
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from tokenizers import Tokenizer

HERE = Path(__file__).parent
BUNDLES = HERE.parents[1] / "tests/conformance/bundle"
TEXTS = 150
PIECES = [
    *("é", "e\u0301", "n\u0303\u0323", "İ", "ß", "ﬁ", "½", "①", "Σ", "ΑΣ", "ς", "ﷺ", "™", "˜", "~", "…", "क्षि"),
    *(
        "赤",
        "い",
        "𠀀",
        "한",
        "\u1112\u1161\u11ab",
        "😀",
        "👍🏽",
        "\u200b",
        "\u00ad",
        "\u00a0",
        "\u3000",
        "  ",
        "\t",
        "\n",
    ),
    *("don't", "Hello", "the", "lamp", "good ", ",", ".", "a", "B", "1", "23", "[SEP]", "[MASK]", "</s>"),
]
NEWER = ["\u061d", "\u08ca", "\u0c3c", "\u1ac0", "\u2e52", "\U00011070", "\U0001e4ec"]
"""Marks and punctuation that Unicode got after the tables of Rust's tokenizers were made."""


def main() -> None:
    """Write the file."""
    rng = random.Random(0)
    joined = [[rng.choice(PIECES) + rng.choice(("", "", " ")) for _ in range(rng.randint(1, 9))] for _ in range(TEXTS)]
    texts = ["", *PIECES, *map("".join, joined)]
    found: dict[str, object] = {"texts": texts, "newer": [f"a{one}b" for one in NEWER]}
    for path in sorted(BUNDLES.glob("*/tokenizer.json")):
        tokenizer = Tokenizer.from_file(str(path))
        encodings = tokenizer.encode_batch([*texts, *found["newer"]], add_special_tokens=False)  # type: ignore[misc]
        found[path.parent.name] = [{"ids": one.ids, "offsets": one.offsets} for one in encodings]
    (HERE / "tokens.json").write_text(json.dumps(found, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
