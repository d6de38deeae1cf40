"""A log for reading: what a terminal would still show of it, and nothing that moves a terminal."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinksched.operations.logs import LAST_LINES_BYTES, clean, last_lines

# ---------------------------------------------------------------- text stays as it is

visible = st.characters(blacklist_categories=("Cs", "Cc"), whitelist_characters="\t\n")


@given(st.text(visible))
def test_text_without_control_characters_is_unchanged(text: str) -> None:
    assert clean(text.encode()) == text


@pytest.mark.parametrize(
    "text", ["", "\n", "\n\n\n", "a", "a\n", "\na", "a\tb\n", "  indented\n", "ends with spaces  \n", "5 % {x} \\n\n"]
)
def test_lines_and_their_spaces_are_kept(text: str) -> None:
    assert clean(text.encode()) == text


def test_crlf_is_an_end_of_line(tmp_path: Path) -> None:
    assert clean(b"one\r\ntwo\r\n\r\nthree") == "one\ntwo\n\nthree"


def test_a_terminal_that_adds_another_carriage_return_changes_nothing() -> None:
    assert clean(b"one\r\r\ntwo\r\r\n") == "one\ntwo\n"


@settings(deadline=None)
@given(st.binary())
@example(bytes(range(256)))
@example(b"\x1b" * 100)
@example(b"\x1b[" + b"9" * 1000)
@example(b"\xff" * 10 + b"\r" + b"\xff")
def test_nothing_that_a_program_can_write_raises(data: bytes) -> None:
    assert clean(data).count("\n") == data.count(b"\n")


def test_what_is_not_utf8_becomes_the_sign_for_that() -> None:
    assert clean(b"caf\xe9\n\xff") == "caf\ufffd\n\ufffd"


# ---------------------------------------------------------------- progress bars


def test_a_bar_collapses_to_its_last_state() -> None:
    bar = b"".join(b"\r%3d%%|%-10s| %d/10" % (n * 10, b"#" * n, n) for n in range(11))
    assert clean(b"start\n" + bar + b"\nend\n") == "start\n100%|##########| 10/10\nend\n"


def test_a_bar_that_is_going_on_shows_its_state_so_far() -> None:
    assert clean(b" 10%|#    |\r 20%|##   |") == " 20%|##   |"
    assert clean(b" 10%|#    |\r 20%|##   |\r") == " 20%|##   |"


def test_a_shorter_text_keeps_the_tail_as_a_terminal_does() -> None:
    assert clean(b"loading data\rdone\n") == "doneing data\n"
    assert clean(b"abc\rx\ry\n") == "ybc\n"
    assert clean(b"abc\r\rx\n") == "xbc\n"
    assert clean(b"abc\r    \rx") == "x   "


def test_carriage_returns_of_one_line_don_t_touch_the_next() -> None:
    assert clean(b"a\rb\nc\rd\n") == "b\nd\n"


TQDM = (
    "\rEpoch 1:   0%|          | 0/3 [00:00<?, ?it/s]"
    "\rEpoch 1:  67%|██████▋   | 2/3 [00:00<00:00, 18.53it/s]"
    "\rEpoch 1: 100%|██████████| 3/3 [00:00<00:00, 18.60it/s]"
)


def test_a_bar_of_tqdm_reads_as_its_last_state() -> None:
    assert clean(f"{TQDM}\n".encode()) == "Epoch 1: 100%|██████████| 3/3 [00:00<00:00, 18.60it/s]\n"


def test_a_bar_of_tqdm_that_begins_anew_on_its_line_leaves_nothing_of_the_old_one() -> None:
    """`leave=False` and nested bars: tqdm pads with spaces to the width of the old bar, in characters."""
    again = "\rEpoch 2:   0%|          | 0/3 [00:00<?, ?it/s]          "
    assert clean(f"{TQDM}{again}\n".encode()).rstrip() == again.strip()


@given(st.text("abcXYZ 0%|█▋äλ"), st.text("abcXYZ 0%|█▋äλ"))
@example("██", "a")
def test_an_overwritten_line_shows_the_new_text_and_the_rest_of_the_old_one(old: str, new: str) -> None:
    assert clean(f"{old}\r{new}".encode()) == (new + old[len(new) :])


ERASED = [
    pytest.param(b"Downloading 100%\r\x1b[Kdone\n", "done\n", id="erase to the end, at the beginning"),
    pytest.param(b"Downloading 100%\rdone\x1b[K\n", "done\n", id="erase to the end, after the text"),
    pytest.param(b"Downloading 100%\rdone\x1b[0K\n", "done\n", id="erase to the end, with its number"),
    pytest.param(b"Downloading 100%\r\x1b[2Kdone\n", "done\n", id="erase the line, as rich does"),
    pytest.param(b"Downloading 100%\x1b[2K\rdone\n", "done\n", id="erase the line, then go to its beginning"),
    pytest.param(b"Downloading 100%\r\x1b[K\n", "\n", id="erase and write nothing"),
]


@pytest.mark.parametrize(("data", "shown"), ERASED)
def test_what_was_erased_is_gone(data: bytes, shown: str) -> None:
    assert clean(data) == shown


# ---------------------------------------------------------------- escapes and control characters


@pytest.mark.parametrize(
    "escape",
    [
        b"\x1b[31m", b"\x1b[0m", b"\x1b[m", b"\x1b[1;38;5;196m", b"\x1b[38:2::255:0:0m", b"\x1b[?25l", b"\x1b[?1049h",
        b"\x1b[2J", b"\x1b[H", b"\x1b[10;20H", b"\x1b[A", b"\x1b[>0c", b"\x1b[!p", b"\x1b[ q", b"\x1b[200~",
        b"\x1b]0;a title\x07", b"\x1b]0;a title\x1b\\", b"\x1b]8;;http://x.y/?a=b;c\x07", b"\x1b]8;;\x1b\\",
        b"\x1b]52;c;aGVsbG8=\x07", b"\x1bP1$r0m\x1b\\", b"\x1b_payload\x1b\\", b"\x1b^note\x1b\\", b"\x1bXsos\x1b\\",
        b"\x1b(B", b"\x1b)0", b"\x1b=", b"\x1b>", b"\x1bM", b"\x1b7", b"\x1b8", b"\x1bc", b"\x1b#8", b"\x1b%G",
        b"\x00", b"\x01", b"\x0e", b"\x0f", b"\x7f", b"\x1a", b"\x05",
    ],
    ids=repr,
)  # fmt: skip
def test_colours_titles_and_cursor_moves_are_removed(escape: bytes) -> None:
    assert clean(b"be" + escape + b"fore\n" + escape + b"x") == "before\nx"


def test_a_coloured_bar_collapses_like_a_plain_one() -> None:
    assert clean(b"\x1b[32m 50%\x1b[0m\r\x1b[32m100%\x1b[0m\x1b[?25h\n") == "100%\n"


def test_escapes_don_t_count_when_a_line_is_overwritten() -> None:
    assert clean(b"\x1b[31mabcdef\x1b[0m\rxy") == "xycdef"
    assert clean(b"abcdef\r\x1b[31m\x1b[0m") == "abcdef"


def test_a_title_with_umlauts_and_newlines_far_away_is_removed_alone() -> None:
    assert clean("\x1b]0;größe λ\x07text\nmore".encode()) == "text\nmore"


@pytest.mark.parametrize("data", [b"\x1b[31", b"\x1b]0;title", b"\x1bP", b"\x1b["])
def test_an_escape_that_is_cut_off_moves_no_terminal(data: bytes) -> None:
    assert "\x1b" not in clean(b"text" + data)
    assert clean(b"text" + data + b"\nnext").endswith("\nnext")


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        pytest.param(b"1/3\x08\x08\x082/3\x08\x08\x083/3\n", "3/3\n", id="a bar of Keras"),
        pytest.param(b"a\x07b\n", "ab\n", id="a bell"),
        pytest.param(b"text\x1b", "text", id="an escape at the end"),
        pytest.param(b"\x1b\x1b[31mred\n", "red\n", id="an escape before an escape"),
        pytest.param(b"a\x1b\nb", "a\nb", id="an escape at the end of a line"),
    ],
)
def test_what_moves_a_terminal_is_removed(data: bytes, shown: str) -> None:
    assert clean(data) == shown


@settings(deadline=None)
@given(st.binary())
@example(b"\x1b\x00[31mred")
@example(b"\x1b\x01]0;owned\x07")
def test_nothing_that_a_terminal_obeys_is_left(data: bytes) -> None:
    left = {char for char in clean(data) if char < "\x80" and unicodedata.category(char) == "Cc"}
    assert left <= {"\n", "\t"}


@pytest.mark.parametrize("data", ["\x9b31mred", "\x9d0;owned\x9c", "\x90q\x9c"], ids=ascii)
def test_the_second_set_of_control_characters_moves_no_terminal_either(data: str) -> None:
    assert not {char for char in clean(data.encode()) if unicodedata.category(char) == "Cc"}


ONE_CELL = "abcXYZ 0%|█▋äλ"


@given(st.lists(st.text(ONE_CELL) | st.sampled_from(("\r", "\b", "\x1b[K", "\x1b[2K", "\x1b[1K", "\x1b[31m", "\a"))))
def test_a_line_reads_as_a_terminal_shows_it(pieces: list[str]) -> None:
    """A terminal of one endless line, written as its manual says: ECMA-48 for EL, a cell for each character."""
    cells: dict[int, str] = {}
    at = 0
    for piece in pieces:
        if piece == "\r":
            at = 0
        elif piece == "\b":
            at = max(0, at - 1)
        elif piece.startswith("\x1b[") and piece.endswith("K"):
            gone = {"": range(at, 10_000), "2": range(10_000), "1": range(at + 1)}[piece[2:-1]]
            cells = {cell: char for cell, char in cells.items() if cell not in gone}
        elif piece[:1] not in ("\x1b", "\a"):
            cells |= {at + number: char for number, char in enumerate(piece)}
            at += len(piece)
    shown = "".join(cells.get(cell, " ") for cell in range(max(cells, default=-1) + 1))
    assert clean("".join(pieces).encode()).rstrip(" ") == shown.rstrip(" ")


@given(st.binary())
def test_to_clean_a_second_time_raises_nothing_either(data: bytes) -> None:
    clean(clean(data).encode())


# ---------------------------------------------------------------- the last lines


def test_the_last_lines_are_those_that_say_something(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"one\r\n\n   \ntwo  \n\x1b[31m\x1b[0m\n10%\r20%\n\n")
    assert last_lines(log, 2) == ["two", "20%"]
    assert last_lines(str(log), 99) == ["one", "two", "20%"]


def test_no_log_has_no_last_lines(tmp_path: Path) -> None:
    assert last_lines(tmp_path / "none.log", 5) == []
    assert last_lines(tmp_path, 5) == []
    (tmp_path / "empty.log").touch()
    assert last_lines(tmp_path / "empty.log", 5) == []


def test_of_a_large_log_only_the_end_is_read(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    with log.open("wb") as file:
        file.truncate(3 * 2**30)  # a hole: 3 GiB that take no room
        file.seek(0, 2)
        file.write(b"\nlast\n")
    assert last_lines(log, 1) == ["last"]


def test_an_end_that_begins_within_a_character_or_a_line_does_no_harm(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(("ä" * LAST_LINES_BYTES).encode() + b"x\nlast\n")
    assert last_lines(log, 1) == ["last"]
    assert len(last_lines(log, 2)) == 2


def test_a_bar_that_was_never_ended_is_one_line(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"".join(b"\rstep %7d of 10000000" % number for number in range(20_000)))
    assert last_lines(log, 5) == ["step   19999 of 10000000"]
