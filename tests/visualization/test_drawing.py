from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from selfsup_cli.visualization.drawing import fitted, font, lines, plain, shortened


@given(text=st.text(max_size=60), room=st.integers(20, 400))
def test_text_is_shortened_to_its_room_and_keeps_its_ends(text: str, room: int) -> None:
    face = font(13, False)
    text = plain(text)
    out = fitted(text, room, face)
    assert face.getlength(out) <= room
    if out != text:
        start, _, end = out.partition("…")
        assert text.startswith(start)
        assert text.endswith(end)
        longer = shortened(text, len(start) + len(end) + 1)
        assert face.getlength(longer) > room


@given(st.text(max_size=40))
def test_plain_text_has_no_invisible_characters(text: str) -> None:
    assert plain(text).isprintable()
    assert len(plain(text)) == len(text)
    assert plain(plain(text)) == plain(text)


@given(st.text("ab …\n", max_size=60), st.integers(20, 200))
def test_broken_lines_hold_the_text_and_no_more_than_their_room(text: str, room: int) -> None:
    broken = lines(text, 12, room)
    assert " ".join(broken) == text
    face = font(12, False)
    for line in broken:
        assert face.getlength(plain(line)) <= room or " " not in line
    for line, following in pairwise(broken):
        longer = f"{line} {following.split(' ')[0]}"
        assert face.getlength(plain(longer)) > room
