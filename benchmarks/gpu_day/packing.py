"""What travels to a machine without a network: wheels, data, and their size."""

import json
import pathlib
import subprocess
import sys

from benchmarks.gpu_day import data

ROOM = 64 * 2**20  # bytes of the tree, the wheels and the data together

# Our run's own dependencies. TFDS, requests and scikit-learn only read other
# data than the archive that is carried.
_WANTED = ('flax>=0.12', 'optax>=0.2.8', 'orbax-checkpoint>=0.12,<0.13',
           'ml-collections>=1.1', 'absl-py', 'numpy', 'psutil', 'pillow>=10',
           'rich>=13', 'tensorboard>=2.18')
# JAX brings these.
_THERE = ('jax', 'jaxlib', 'ml-dtypes', 'numpy', 'opt-einsum', 'scipy')
# TensorBoard's server and a faster event loop, which a run does not import.
_UNUSED = ('grpcio', 'markdown', 'markupsafe', 'setuptools',
           'tensorboard-data-server', 'uvloop', 'werkzeug')
_PLATFORMS = ('manylinux_2_28_x86_64', 'manylinux_2_27_x86_64',
              'manylinux_2_17_x86_64', 'manylinux2014_x86_64',
              'manylinux1_x86_64')
_TARGET = ['--only-binary=:all:', '--implementation=cp',
           f'--python-version={sys.version_info[0]}.{sys.version_info[1]}',
           *(f'--platform={name}' for name in _PLATFORMS)]


def prepare(folder: pathlib.Path, data_dir: str, *, jax: str,
            there: str = '') -> str:
  """Fills the folder that is carried to the machine.

  The machine must have this process's version of Python.

  Args:
    folder: the folder, which git ignores.
    data_dir: TFDS's root with CIFAR-10.
    jax: the version of JAX on the machine.
    there: a file with the machine's packages, as pip lists or freezes them;
      these are not carried. '' for none besides JAX's own.

  Returns:
    The sizes, for people.

  Raises:
    SystemExit: it would be too large.
  """
  wheels = folder / 'wheels'
  wheels.mkdir(parents=True, exist_ok=True)
  for old in wheels.glob('*.whl'):
    old.unlink()
  left_out = {_plain(x) for x in (*_THERE, *_UNUSED)} | (
      _listed(pathlib.Path(there)) if there else set())
  chosen = [name for name in _resolved(jax)
            if _plain(name.partition('==')[0]) not in left_out]
  if chosen:
    _pip('download', '--no-deps', '--dest', str(wheels), *_TARGET, *chosen)
  note = data.pack(data_dir, folder / 'cifar10.xz')
  return f'{note}\n{measured(folder)}'


def measured(folder: pathlib.Path) -> str:
  """Measures all that is carried.

  Raises:
    SystemExit: it is too large.
  """
  listed = subprocess.run(
      ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
      check=True, capture_output=True, text=True).stdout.split('\0')
  tree = sum(path.stat().st_size for path in map(pathlib.Path, filter(
      None, listed)) if path.is_file())
  carried = {path.name: path.stat().st_size for path in folder.rglob('*')
             if path.is_file()}
  total = tree + sum(carried.values())
  text = f'tree {tree / 2**20:.1f} MiB' + ''.join(
      f', {name} {size / 2**20:.1f}' for name, size in sorted(
          carried.items(), key=lambda x: -x[1]) if size > 2**20)
  text += f'; in all {total / 2**20:.1f} of {ROOM / 2**20:.0f} MiB'
  if total > ROOM:
    raise SystemExit(f'too large: {text}. Name packages that the machine has '
                     'in a file, and give it as --there')
  return text


def _resolved(jax: str) -> list[str]:
  """Returns name==version of all packages that pip would install."""
  report = _pip('install', '--dry-run', '--ignore-installed', '--report', '-',
                '--target', 'unused', *_TARGET, f'jax=={jax}', *_WANTED)
  return [f'{x["metadata"]["name"]}=={x["metadata"]["version"]}'
          for x in json.loads(report)['install']]


def _pip(*arguments: str) -> str:
  done = subprocess.run([sys.executable, '-m', 'pip', '--quiet', *arguments],
                        check=False, capture_output=True, text=True)
  if done.returncode:
    raise SystemExit(f'pip failed: {done.stderr.strip()[-2000:]}')
  return done.stdout


def _listed(path: pathlib.Path) -> set[str]:
  """Reads names from lines such as 'rich 15.0.0', 'rich==15.0.0' or 'rich'."""
  return {_plain(line.replace('==', ' ').split()[0])
          for line in path.read_text().splitlines() if line.split()}


def _plain(name: str) -> str:
  return name.lower().replace('_', '-').replace('.', '-')
