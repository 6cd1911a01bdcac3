"""Progress of reading: a bar on a terminal, or else lines."""

import io
import re

from rich.console import Console

from fedu_jax.data import reading_progress


def shown(terminal, every):
  text = io.StringIO()
  console = Console(file=text, force_terminal=terminal, width=80)
  with reading_progress.shown(console, every) as progress:
    for done in range(5):
      progress(done, 4)
  return text.getvalue()


def test_a_line_now_and_then_where_there_is_no_terminal():
  assert re.fullmatch(
      r'read 1 of 4 files, [\d,]+ a second, about 0 s left',
      shown(False, 0).splitlines()[0])
  assert len(shown(False, 0).splitlines()) == 3  # none when all are read
  assert shown(False, 60) == ''


def test_a_bar_with_the_time_left_on_a_terminal():
  text = shown(True, 0)
  assert '4/4' in text and 'left' in text and 'about' not in text


def test_nothing_is_drawn_if_nothing_is_read():
  text = io.StringIO()
  with reading_progress.shown(Console(file=text, force_terminal=True)):
    pass
  assert text.getvalue() == ''


def test_the_time_left_is_by_the_files_of_this_start(monkeypatch):
  """An earlier start has done 900 of 2000; this one does 200 in 20 s."""
  now = 0.0
  monkeypatch.setattr(reading_progress.time, 'monotonic', lambda: now)
  for terminal, words in (
      (False, 'read 1,100 of 2,000 files, 10 a second, about 90 s left\n'),
      (True, 'files 10/s')):
    text, now = io.StringIO(), 0.0
    console = Console(file=text, force_terminal=terminal, width=100)
    with reading_progress.shown(console) as progress:
      progress(900, 2000)
      now = 10.0
      progress(950, 2000)
      now = 20.0
      progress(1100, 2000)
    assert words in text.getvalue()
