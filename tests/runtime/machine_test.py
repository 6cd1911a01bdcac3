"""Containers, clusters, closed streams and full disks."""

import errno
import io
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import tempfile

import pytest

from fedu_jax.runtime import durable_files
from fedu_jax.runtime import machine
from fedu_jax.runtime import terminal
from tests.faults import config as cases

ROOT = pathlib.Path(__file__).parents[2]


# --- folders of the user ----------------------------------------------------


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
  """A user without a home, with one temporary folder."""
  monkeypatch.delenv('HOME', raising=False)
  monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
  monkeypatch.setattr(pathlib.Path, 'home', _raises)
  monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
  return tmp_path / f'fedu_jax-{os.getuid()}'


def _raises():
  raise RuntimeError('no home')


def test_the_cache_of_a_user(monkeypatch, tmp_path):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'x'))
  assert machine.user_cache('c') == tmp_path / 'x' / 'fedu_jax' / 'c'
  assert machine.cache_note() == ''
  assert not list(tmp_path.iterdir())
  monkeypatch.setenv('XDG_CACHE_HOME', 'relative')  # its standard: ignored
  monkeypatch.setenv('HOME', str(tmp_path))
  assert machine.user_cache('c') == tmp_path / '.cache' / 'fedu_jax' / 'c'


def test_without_a_home_the_cache_is_temporary_and_private(nowhere):
  assert machine.home() is None
  assert machine.user_cache('c') == nowhere / 'c'
  assert stat.S_IMODE(nowhere.stat().st_mode) == 0o700
  assert 'no home folder' in machine.cache_note()
  assert str(nowhere) in machine.cache_note()


def test_a_file_where_the_cache_should_be(nowhere, monkeypatch, tmp_path):
  (tmp_path / 'file').touch()
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file' / 'x'))
  assert machine.user_cache('c') == nowhere / 'c'
  assert 'cannot be written to' in machine.cache_note()


@pytest.mark.parametrize('make', [
    lambda x: x.symlink_to('/tmp'), lambda x: x.touch(),
    lambda x: (x.mkdir(), x.chmod(0o777))])
def test_nobody_elses_folder_is_taken_for_ours(nowhere, make):
  """Programs that are cached there are executed."""
  make(nowhere)
  assert machine.user_cache('c') is None
  assert 'nothing is kept' in machine.cache_note()


# --- advice -----------------------------------------------------------------


def test_room_is_spoken_of_only_where_it_lacks():
  for number in errno.errorcode:
    for told in (OSError(number, os.strerror(number)),
                 f'checkpoint ({os.strerror(number)}): there is none yet'):
      asks_for_room = 'make room' in durable_files.advice(told)
      assert asks_for_room == (number in (errno.ENOSPC, errno.EDQUOT)), told
  assert 'ulimit -f' in durable_files.advice(OSError(errno.EFBIG, ''))
  assert 'ulimit -n' in durable_files.advice('x (Too many open files)')
  assert 'shorter' in durable_files.advice(OSError(errno.ENAMETOOLONG, ''))


# --- consoles ---------------------------------------------------------------


def test_letters_that_a_locale_lacks_are_escaped():
  raw = io.BytesIO()
  console = terminal.console(io.TextIOWrapper(raw, encoding='ascii'))
  console.print('客户')
  assert raw.getvalue() == b'\\u5ba2\\u6237\n'
  assert terminal.unprinted(console) == ''


@pytest.mark.parametrize('columns, width', [
    ('1', 40), ('0', 40), ('9' * 12, 1000), ('garbage', 80), ('100', 100)])
def test_a_width_that_can_be_read(monkeypatch, columns, width):
  monkeypatch.setenv('COLUMNS', columns)
  assert terminal.console(io.StringIO()).width == width


def test_what_is_not_printed_is_known():
  class Full(io.StringIO):
    def flush(self):
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
  console = terminal.console(Full())
  console.print('x')
  assert terminal.unprinted(console) == 'No space left on device'
  closed = io.StringIO()
  console = terminal.console(closed)
  closed.close()
  console.print('x')
  assert 'closed' in terminal.unprinted(console)


# --- commands ---------------------------------------------------------------


@pytest.fixture(scope='module')
def server():
  """Starts many commands for the price of one."""
  with cases.starts() as found:
    yield found


@pytest.mark.parametrize('module, flag', [
    ('main', '--help'), ('main', '-h'), ('main', '--helpfull'),
    ('evaluate', '--help'), ('plan', '--helpshort'), ('experiments', '-help')])
def test_help(server, module, flag):
  done = server.run(f'fedu_jax.{module}', flag)
  assert (done.returncode, done.stderr) == (0, '')
  wanted = [f'python -m fedu_jax.{module} --', 'exit codes: 0 done',
            '--config: ' if module in ('main', 'plan') else '--workdir: ']
  if module in ('main', 'plan'):
    wanted.append('--config.optimizer.learning_rate=0.032'
                  if flag == '--helpfull' else '--helpfull lists and explains')
  for words in wanted:
    assert words in done.stdout.replace('\n', ' ')


@pytest.mark.parametrize('flag, words', [
    ('--config.optimizer.lr=0.1', "'optimizer.lr'; did you mean "
     "'optimizer.learning_rate'?"),
    ('--config.optim.momentum=0.1', "did you mean 'optimizer.momentum'?"),
    ('--config.rounds=two', "config.rounds is 'two'; it must be a whole"),
    ('--config.rounds', '--config.rounds lacks its value'),
    ('--config.rounds.x=1', 'config.rounds has no fields'),
    ('--config.model=resnet10', 'such as --config.model.name=...'),
    ('--config.data=digits', 'such as --config.data.source=...'),
    ('--config.learner.ema=maybe', 'must be one of False, True'),
    ('--lr=0.1', '--config.optimizer.learning_rate?'),
    ('--workdir=gs://b/r', 'not on a disk of this machine'),
    ('--config=methods:fedprox', "no method 'fedprox'")])
def test_flags_that_mean_nothing(server, tmp_path, flag, words):
  done = server.run('fedu_jax.main', '--config=smoke', flag,
                    *[f'--workdir={tmp_path}/x'] * ('workdir' not in flag))
  assert done.returncode == 2
  line, = done.stderr.splitlines()
  assert line.startswith('error: ') and words in line
  assert not list(tmp_path.iterdir())


def _as_nobody():
  """A command that starts another one as a user without a name."""
  right = '+dac_read_search'
  return ['setpriv', '--reuid=54321', '--clear-groups', f'--inh-caps={right}',
          f'--ambient-caps={right}']


def test_a_run_without_home_name_or_streams(tmp_path):
  """As in a container with --user 54321 and all outputs closed."""
  me = []
  if os.getuid() == 0 and shutil.which('setpriv'):
    me = _as_nobody()
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents[:2]:
      folder.chmod(0o755)
  env = {name: value for name, value in os.environ.items()
         if name not in ('HOME', 'XDG_CACHE_HOME', 'USER', 'LOGNAME')}
  done = subprocess.run(
      ['sh', '-c', '"$@" <&- >&- 2>&-', 'sh', *me, sys.executable, '-B', '-m',
       'fedu_jax.main', '--config=smoke', '--config.rounds=1',
       f'--workdir={tmp_path}/run'], cwd=ROOT, check=False, timeout=300,
      env=env | {'TMPDIR': str(tmp_path), 'PYTHONPATH': str(ROOT)})
  assert done.returncode == 0
  assert (tmp_path / 'run' / 'summary.json').exists()
  if me:
    assert (tmp_path / 'fedu_jax-54321').stat().st_uid == 54321
  # Nothing that was printed went into a file that took a stream's number.
  for path in (tmp_path / 'run').glob('*.json'):
    assert path.read_text()[0] in '{['


@pytest.mark.parametrize('tail, code, words', [
    ('>/dev/full', 4, 'stdout cannot be written (No space left on device)'),
    ('>&-', 0, ''), ('| head -1', 0, '')])
def test_a_list_that_nobody_reads(tail, code, words):
  done = subprocess.run(
      ['bash', '-o', 'pipefail', '-c', f'"$@" {tail}', 'bash', sys.executable,
       '-m', 'fedu_jax.experiments', '--list'], cwd=ROOT, text=True,
      check=False, capture_output=True, timeout=100)
  assert done.returncode == code, done.stderr
  assert words in done.stderr and done.stderr.count('\n') == bool(words)


def test_no_device(tmp_path):
  done = subprocess.run(
      [sys.executable, '-m', 'fedu_jax.main', '--config=smoke',
       f'--workdir={tmp_path}/x'], cwd=ROOT, text=True, check=False,
      capture_output=True, timeout=100,
      env=os.environ | {'JAX_PLATFORMS': 'garbage'})
  assert done.returncode == 2 and not list(tmp_path.iterdir())
  line, = done.stderr.splitlines()
  assert 'JAX finds no device' in line and "'garbage'" in line
