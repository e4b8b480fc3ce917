"""The words of a text with their places: the pieces of kinds that answer word by word.

A word is a run of letters, digits and their marks; or one character of a script that is written without spaces, such as
Chinese or Thai; or one other visible character, such as a comma or an emoji. White space and control characters do not
belong to words. Invisible characters, such as a zero-width joiner, belong to a word only inside it.
"""

from __future__ import annotations

import re
import unicodedata

Place = tuple[int, int]

_WITHOUT_SPACES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x0FFF),  # Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),  # more Katakana
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),  # Katakana of half width
    (0x1B000, 0x1B16F),  # more Kana
    (0x20000, 0x3FFFF),  # more Han
)
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_FLAG_LETTERS = range(0x1F1E6, 0x1F200)
_JOINER = 0x200D

_ASCII = re.compile(r"[A-Za-z0-9]+|[!-~]")

# Of texts as their characters' classes: w letters and digits, c characters that are words of their own, m marks,
# p other visible characters, f letters of flags, z the joiner of emojis, j what cannot be seen, and spaces.
_CLASSES = re.compile(r"w(?:[wm]|[jz]+(?=[wm]))*|(?:p|ff?|c)m*(?:zpm*)*|m+")


class _Classes(dict[int, str]):
    """Character → its class, computed on first use."""

    def __missing__(self, code: int) -> str:
        self[code] = found = _class_of(code)
        return found


def _class_of(code: int) -> str:
    category = unicodedata.category(chr(code))
    if code == _JOINER:
        return "z"
    if category[0] == "M" or code in _SKIN_TONES:
        return "m"
    if category[0] in "LN":
        return "c" if any(first <= code <= last for first, last in _WITHOUT_SPACES) else "w"
    if category == "Cf":
        return "j"
    if category[0] == "Z" or category in ("Cc", "Cs"):
        return " "
    return "f" if code in _FLAG_LETTERS else "p"


_class_table = _Classes()


def words(text: str) -> list[Place]:
    """The places of a text's words, in order.

    Returns:
        Start and end of each word, in characters.
    """
    if text.isascii():
        return [found.span() for found in _ASCII.finditer(text)]
    return [found.span() for found in _CLASSES.finditer(text.translate(_class_table))]
