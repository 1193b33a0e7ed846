"""Blocks: a text that is cut beside the blocks of one before comes to the same as one that is cut as a whole."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator

import pytest

from beatd.config.toml_blocks import FEWEST, Block, Cut, cut, lines_of

MANY = FEWEST + 40

LINES = [
    "# a comment",
    "",
    "  # [beat_schedule.of-a-comment]",
    "x = 1",
    "args = [1,",
    "[2, 3]]",
    "]",
    "  [beat_schedule.indented]",
    "[defaults]",
    '[defaults] # queue = "q"',
    "[[beat_schedule.several]]",
    "[beat_schedule]",
    "[ beat_schedule.spaced ]",
    "[beat_schedule.inside.of.it]",
    "[beat_schedule.e-3.kwargs]",
    '[beat_schedule."quoted name"]',
    "[beat_schedule.'quoted'] # comment",
    '[beat_schedule."not\\"plain"]',
    'text = """',
    'text = """[beat_schedule.in-a-text]"""',
    "text = '''",
    'args = ["${NAME}"]',
    "[beat_schedule.crlf]\r",
    "\r",
    "beat_schedule.dotted.task = 1",
]
"""Lines that are hard to cut, or hide a header."""


def entry(number: int) -> str:
    return f'[beat_schedule.e-{number}]\ntask = "t"\n'


def edited(text: str, dice: random.Random) -> str:
    """The text after one edit: of a line, of some characters, of a stretch, or of its ends."""
    at, end = sorted(dice.randrange(len(text) + 1) for _ in range(2))
    end = min(end, at + dice.choice([0, 1, 5, 40, 400, 4_000, 9_000]))
    match dice.randrange(8):
        case 0:
            line = text.find("\n", at) + 1
            return text[:line] + dice.choice(LINES) + dice.choice(["\n", "\n", ""]) + text[line:]
        case 1:
            return text[:at] + text[end:]
        case 2:
            return text[:at] + dice.choice(["x", "\n", "[", '"', "'''", "\n\n[", "ä", "\U0001f600"]) + text[at:]
        case 3:
            return text[:end] + text[at:end] + text[end:]
        case 4:
            return text[:at] if dice.random() < 0.2 else text + dice.choice([*LINES, "\n"])
        case 5:
            return dice.choice(["\n", "# top\n", "[redis]\n", 'timezone = "UTC"\n', *LINES]) + text
        case 6:
            return text.replace("\n", "\r\n", dice.choice([3, -1])) if dice.random() < 0.1 else text
        case _:
            headers = [place for place in range(len(text)) if text.startswith("[beat_schedule.", place)] or [0]
            at, end = sorted(dice.choices(headers, k=2))
            middle = "" if end - at > 9_000 else dice.choice(["", text[at:end] * 2, entry(dice.randrange(10**6))])
            return text[:at] + middle + (text[end:] if end - at < 9_000 else text[at:])


def starts_of(found: Cut, text: str, blocks: list[Block]) -> Iterator[int]:
    """The offsets that a cut and its blocks stand for: those of the entries between, and of the blocks around them."""
    at = 0
    for block in blocks:
        if block.entries:
            yield at
        at += block.length
    assert at == len(text)
    yield from found.starts


@pytest.mark.parametrize("seed", range(12))
def test_however_a_text_is_edited_it_is_cut_as_if_it_were_new(seed: int) -> None:
    dice = random.Random(seed)
    first = "".join(map(entry, range(MANY)))
    text, blocks, seen = first, [], set[str]()
    for _ in range(150):
        changed = edited(text, dice)
        found, whole = cut(changed, blocks), cut(changed)
        if found is None or whole is None:
            assert found is whole
            seen.add("whole")
            if dice.random() < 0.7:
                continue  # the daemon keeps what was good, too
            text, blocks = first, []
            continue
        offsets = whole.starts
        own = found.blocks(changed, dice.choice([1, 3, 50]))
        assert found.first == whole.first == offsets[0]
        assert set(starts_of(found, changed, own)) <= {*offsets, len(changed)}
        start, end = sum(block.length for block in found.head), found.starts[-1]
        assert found.starts == array("I", [at for at in offsets[:-1] if start <= at < end] + [end])
        assert sum(block.entries for block in own) == len(offsets) - 1
        assert lines_of(own) == changed.count("\n")
        assert found.line(changed) == 1 + changed.count("\n", 0, found.starts[0])
        seen.add("head" if found.head else "")
        seen.add("tail" if found.tail else "")
        text, blocks = changed, own
    assert seen >= {"head", "tail", "whole"}


def test_one_change_has_one_block_cut_again() -> None:
    text = 'timezone = "UTC"\n' + "".join(map(entry, range(10_000)))
    first = cut(text)
    assert first is not None
    found = cut(text.replace("e-5000]", "e-other]"), first.blocks(text))
    assert found is not None
    assert len(found.starts) - 1 == 100


def test_entries_with_variables_are_never_as_before() -> None:
    text = "".join(map(entry, range(MANY))) + 'args = ["${NAME}"]\n'
    first = cut(text)
    assert first is not None
    found = cut(text, first.blocks(text))
    assert found is not None
    assert found.tail == []
    assert found.head
