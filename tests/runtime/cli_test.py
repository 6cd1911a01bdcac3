"""The program exits with its code, even if its last line has no reader."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
REFUSED = ['-m', 'fedu_jax.main', '--config=configs/smoke.py',
           '--config.rounds=0', '--workdir=/nowhere']
SIGNALLED = ['-c', 'import os, signal, time\n'
             'from fedu_jax.runtime import signals\n'
             'signals.listen()\n'
             'os.kill(os.getpid(), signal.SIGTERM)\n'
             'time.sleep(60)']
LOST = ['-c', 'from fedu_jax.runtime import heartbeat\n'
        'print("what waits to be written")\n'
        'heartbeat.end(3, "another host is lost")']


@pytest.mark.parametrize('argv, code', [(REFUSED, 2), (SIGNALLED, 5),
                                        (LOST, 3)])
@pytest.mark.parametrize('full', [(1,), (2,), (1, 2)])
def test_a_full_disk_behind_the_output(argv, code, full):
  """stdout, stderr or both. Earlier it hung, or exited with code 120."""
  with open('/dev/full', 'w', encoding='utf-8') as nowhere:
    streams = [nowhere if number in full else subprocess.PIPE
               for number in (1, 2)]
    done = subprocess.run(
        [sys.executable, *argv], cwd=ROOT, text=True, stdout=streams[0],
        stderr=streams[1], check=False, timeout=40,
        env=os.environ | {'PYTHONPATH': str(ROOT), 'PYTHONUNBUFFERED': ''})
  assert done.returncode == code
  if 2 not in full:
    assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1


def test_a_signal_that_comes_when_all_is_done_ends_nothing():
  """When Python exits it resets signals, and the system would kill the process.
  """
  done = subprocess.run([sys.executable, '-c', """
import os
from fedu_jax.runtime import signals

class Last:
  def __del__(self, kill=os.kill, me=os.getpid()):
    for number in (2, 15):
      kill(me, number)

signals.listen()
last = Last()  # until Python takes its modules apart
"""], cwd=ROOT, text=True, capture_output=True, check=False, timeout=120)
  assert (done.returncode, done.stderr) == (0, '')
