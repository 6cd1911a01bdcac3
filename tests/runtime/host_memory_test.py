"""Limits on memory: of control groups and ulimit; the message at the limit."""

import errno
import os
import pathlib
import re
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
from PIL import Image
import pytest

from fedu_jax.data import image_files
from fedu_jax.data import pixel_arrays
from fedu_jax.runtime import host_memory
from fedu_jax.runtime import memory_texts
from fedu_jax.runtime.errors import BadInput, OutOfMemory

ROOT = pathlib.Path(__file__).parents[2]
NONE = 2**63 - 4096  # what version 1 says where there is no limit


def tree(root, groups, files):
  """Makes the files of control groups: {folder/name: content}."""
  for name, text in {'proc/self/cgroup': groups, **files}.items():
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(text) + '\n')
  return sorted(host_memory.group_limits(root))


V1, V2 = 'sys/fs/cgroup/memory', 'sys/fs/cgroup'


@pytest.mark.parametrize('groups, files, found', [
    ('0::/', {f'{V2}/memory.max': 10**6}, [(10**6, 0)]),
    ('0::/', {f'{V2}/memory.max': 'max', f'{V2}/memory.high': 'max'}, []),
    ('0::/', {f'{V2}/memory.high': 7000}, [(7000, 0)]),
    # SLURM: the job's limit is above the step's group, which has none.
    ('0::/system/job_1/step_0', {
        f'{V2}/system/job_1/memory.max': 9000,
        f'{V2}/system/job_1/memory.current': 5000,
        f'{V2}/system/job_1/memory.stat': 'anon 3\ninactive_file 1000',
        f'{V2}/system/job_1/step_0/memory.max': 'max'}, [(9000, 4000)]),
    # Each level may have one; the lowest counts for `host_bytes`.
    ('0::/a/b', {f'{V2}/a/memory.max': 3000, f'{V2}/a/b/memory.max': 5000},
     [(3000, 0), (5000, 0)]),
    # Docker without a name space of its own: the path is that of the host.
    ('4:memory:/docker/0a1b\n0::/', {
        f'{V1}/memory.limit_in_bytes': 8000,
        f'{V1}/memory.usage_in_bytes': 6000,
        f'{V1}/memory.stat': 'total_inactive_file 500\ncache 2'},
     [(8000, 5500)]),
    ('9:cpu,memory:/x', {f'{V1}/x/memory.limit_in_bytes': 8000}, [(8000, 0)]),
    ('9:cpu:/x', {f'{V1}/x/memory.limit_in_bytes': 8000}, []),
    ('0::/../other', {f'{V2}/memory.max': 4000}, [(4000, 0)]),
    ('0::/a', {'sys/fs/cgroup/unified/a/memory.max': 4000}, [(4000, 0)]),
    ('0::/a:b', {f'{V2}/a:b/memory.max': 4000}, [(4000, 0)]),
    ('nonsense', {f'{V2}/memory.max': 'many'}, [])])
def test_limits_of_control_groups(groups, files, found, tmp_path):
  assert tree(tmp_path, groups, files) == found


def test_the_lowest_limit_counts(tmp_path):
  plain = host_memory.host_bytes(tmp_path)  # without any group
  assert plain == host_memory.host_bytes(tmp_path / 'nothing') > 10**8
  tree(tmp_path, '4:memory:/x', {f'{V1}/x/memory.limit_in_bytes': NONE})
  assert host_memory.host_bytes(tmp_path) == plain
  tree(tmp_path, '4:memory:/x', {
      f'{V1}/x/memory.limit_in_bytes': 10**8,
      f'{V1}/x/memory.usage_in_bytes': 4 * 10**7})
  assert host_memory.host_bytes(tmp_path) == 10**8
  assert host_memory.free_bytes(tmp_path) == 6 * 10**7
  tree(tmp_path, '4:memory:/x', {f'{V1}/x/memory.usage_in_bytes': 2 * 10**8})
  assert host_memory.free_bytes(tmp_path) == 0


IN_A_GROUP = '''
import pathlib, sys
from fedu_jax.runtime import host_memory
from fedu_jax.training.engine import device_mesh
from fedu_jax.training.engine import placement
pathlib.Path(sys.argv[1], 'cgroup.procs').write_text('0')
print(placement.machine(device_mesh.layout('auto', 3)).host)
print(host_memory.free_bytes())
'''


def test_a_real_control_group_limits_what_auto_chooses_by():
  lines = pathlib.Path('/proc/self/cgroup').read_text().splitlines()
  own = next((line.split(':')[2] for line in lines if ':memory:' in line), '')
  group = pathlib.Path(f'/sys/fs/cgroup/memory{own}/fedu_jax-{os.getpid()}')
  try:
    group.mkdir()
  except OSError:
    pytest.skip('this user cannot make a control group of version 1')
  try:
    (group / 'memory.limit_in_bytes').write_text(str(2**31))
    done = subprocess.run([sys.executable, '-c', IN_A_GROUP, str(group)],
                          cwd=ROOT, text=True, capture_output=True, check=False,
                          timeout=120)
  finally:
    group.rmdir()
  assert done.returncode == 0, done.stderr
  total, free = map(int, done.stdout.split())
  assert total == 2**31 and 0 < free < 2**31


def test_what_is_too_large_is_refused(monkeypatch):
  monkeypatch.setattr(host_memory, 'host_bytes', lambda: 10**8)
  host_memory.refuse(10**7, 'a thing')
  with pytest.raises(BadInput, match='a thing takes 2 GB, more than the memory '
                     r'here \(0.1 GB free of 0.1 GB\): read fewer'):
    host_memory.refuse(2 * 10**9, 'a thing', 'read fewer')


def numpys():
  np.empty(2**50, np.uint8)


def chained():
  try:
    raise MemoryError
  except MemoryError as error:
    raise ValueError('an image is damaged') from error


def raises(error):
  def act():
    raise error
  return act


def misnamed():
  """A reader that reports damage if it has no memory to decode."""
  try:
    raise MemoryError
  except MemoryError as error:
    raise BadInput('a split is damaged: prepare it again') from error


@pytest.mark.parametrize('act', [
    numpys, chained, misnamed, raises(MemoryError()),
    raises(OSError(errno.ENOMEM, 'x')),
    raises(jax.errors.JaxRuntimeError(
        'RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.')),
    raises(jax.errors.JaxRuntimeError('INTERNAL: CUDNN_STATUS_ALLOC_FAILED')),
    raises(RuntimeError('std::bad_alloc'))])
def test_where_memory_runs_out_a_line_says_what_to_change(act):
  with pytest.raises(OutOfMemory,
                     match='memory ran out: .*: use less') as found:
    with host_memory.watched('use less'):
      act()
  assert found.value.code == 7 and '\n' not in str(found.value)


@pytest.mark.parametrize('text, found', [
    ('RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184 '
     'bytes.', (2**34, 0)),
    ('RESOURCE_EXHAUSTED: Out of memory while trying to allocate 16.00GiB.',
     (2**34, 0)),
    ('RESOURCE_EXHAUSTED: Out of memory allocating 8796093022208 bytes.',
     (2**43, 0)),
    ('RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory '
     'in memory space hbm. Used 24.50G of 15.75G hbm. Exceeded hbm capacity by '
     '8.75G.', (24.5 * 2**30, 15.75 * 2**30)),
    ('Ran out of memory on HBM, the total memory required for HLO temporaries '
     '(18.5G) exceeds available HBM (15.5G).', (18.5 * 2**30, 15.5 * 2**30)),
    ('Error loading program: Attempting to reserve 9.5G at the bottom of '
     'memory. That was not possible. There are 7.25G free, 0B reserved',
     (9.5 * 2**30, 7.25 * 2**30)),
    ('Allocating 4096 bytes exceeds the memory limit of 1024 bytes.',
     (4096, 1024)),
    ('Unable to allocate 1.00 PiB for an array', (2**50, 0)),
    ('std::bad_alloc', (0, 0))])
def test_amounts_in_errors(text, found):
  assert memory_texts.amounts(text) == found


def test_a_gpu_without_memory_is_named_with_its_bytes(monkeypatch):
  """The device's limit counts, not the host's; another process may have it."""
  gpu = SimpleNamespace(
      device_kind='NVIDIA H100', platform='gpu', memory_stats=lambda: {
          'bytes_limit': 60 * 10**9, 'bytes_in_use': 55 * 10**9})
  monkeypatch.setattr(jax, 'local_devices', lambda: [gpu])
  with pytest.raises(OutOfMemory) as found:
    with host_memory.watched('use less'):
      raise jax.errors.JaxRuntimeError(
          'RESOURCE_EXHAUSTED: Out of memory while trying to allocate 16GiB.')
  assert str(found.value) == (
      'memory ran out: 17 GB were needed, and 5 GB were free of the 60 GB of a '
      'NVIDIA H100, of which another process may hold a part (nvidia-smi lists '
      'them) (RESOURCE_EXHAUSTED: Out of memory while trying to allocate '
      '16GiB.): use less')


@pytest.mark.parametrize('error', [
    ValueError('wrong'), OSError(errno.ENOSPC, 'full'), BadInput('no memory'),
    KeyboardInterrupt()])
def test_other_errors_pass(error):
  with pytest.raises(type(error)) as found:
    with host_memory.watched('use less'):
      raise error
  assert found.value is error


LIMITED = '''
import resource
import numpy as np
from fedu_jax.runtime import errors, host_memory
for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
  before = host_memory.free_bytes()
  resource.setrlimit(kind, (2**31, resource.RLIM_INFINITY))
  assert host_memory.host_bytes() == 2**31
  assert host_memory.free_bytes() < 2**31 < before
  try:
    host_memory.refuse(2**31, 'it')
  except errors.BadInput as error:
    print(error)
  try:
    with host_memory.watched('use less'):
      np.ones(2**31, np.uint8)
  except errors.OutOfMemory as error:
    print(error)
  resource.setrlimit(kind, (resource.RLIM_INFINITY,) * 2)
'''


def test_a_reader_skips_no_image_for_want_of_memory(tmp_path, monkeypatch):
  Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / '0.png')
  monkeypatch.setattr(pixel_arrays, 'framed', lambda *_: np.empty(2**50))
  with pytest.raises(MemoryError):
    image_files.decode(tmp_path / '0.png', image_files.How(size=8))


WANTING = ('memory ran out: 2 GB were needed, and ... were free of the 2 GB of '
           'this process')


def test_limits_of_ulimit():
  """In a process of its own, with the limits of `ulimit -v` and `ulimit -d`."""
  done = subprocess.run([sys.executable, '-c', LIMITED], cwd=ROOT, text=True,
                        capture_output=True, check=False, timeout=60)
  assert done.returncode == 0, done.stderr
  lines = [re.sub(r'[\d.]+ GB were free', '... were free', line)
           for line in done.stdout.splitlines()]
  assert [line.split(' (')[0] for line in lines] == 2 * [
      'it takes 2 GB, more than the memory here', WANTING]
