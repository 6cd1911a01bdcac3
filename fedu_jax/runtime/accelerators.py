"""Which devices this machine has, which JAX uses, and which the user asked for.

JAX falls back to the CPU if a driver is too old or a library is missing. A run
would then take days in place of minutes, so it is said in one line.
"""

from collections.abc import Mapping, Sequence
import importlib.metadata
import importlib.util
import logging
import os
import pathlib
import pkgutil
import shutil
from typing import Any, NamedTuple

import jax

from fedu_jax.runtime.errors import BadInput

KINDS = ('cpu', 'gpu', 'tpu')
_ROOT = pathlib.Path('/')
_NVIDIA = ('dev/nvidia0', 'dev/nvidiactl', 'dev/dxg')  # dxg: Windows' WSL
_GOOGLE = '0x1ae0'  # PCI vendor; it also makes network cards
_TPUS = ('0x0027', '0x0056', '0x005e', '0x0062', '0x0063', '0x006f', '0x0076')
_ACCELERATOR = '0x12'  # PCI class of accelerators
_CUDA = {'xla_cuda12': '12', 'xla_cuda13': '13'}  # JAX's plugins


class Wanted(NamedTuple):
  """The devices that `config.devices` asks for."""
  kind: str  # one of KINDS; '' for any
  most: int  # the most devices; 0 for all


def wanted(text: str) -> Wanted:
  """Parses a value of `config.devices`: auto, 4, gpu, gpu:4."""
  kind, _, most = text.rpartition(':')
  if most in KINDS:
    kind, most = most, 'auto'
  return Wanted(kind, 0 if most == 'auto' else int(most))


class _Said(logging.Filter):
  """Keeps what JAX logs while it looks for devices, in place of printing it."""

  def __init__(self) -> None:
    super().__init__()
    self.records: list[logging.LogRecord] = []

  def filter(self, record: logging.LogRecord) -> bool:
    if record.levelno < logging.WARNING:
      return True
    self.records.append(record)
    return False

  def words(self) -> str:
    """The last line of each record, without a traceback."""
    found = []
    for record in self.records:
      cause = record.exc_info[1] if record.exc_info else None
      found.append(' '.join(str(cause or record.getMessage()).split()))
    return '; '.join(dict.fromkeys(found))[:300]


_said = _Said()
_log = logging.getLogger('jax._src.xla_bridge')


def choose(text: str, *, env: Mapping[str, str] = os.environ,
           root: pathlib.Path = _ROOT) -> None:
  """Tells JAX where to look for devices. Call it before JAX uses one.

  JAX is told to use the CPU if `text` says so, or if no accelerator is in the
  machine and only NVIDIA's or Google's plugins are installed. Looking for
  devices by a plugin that serves to plan prints errors.

  Args:
    text: the value of `config.devices`.
    env: the environment variables.
    root: the root of the file system with dev and sys.
  """
  _log.addFilter(_said)
  kind = wanted(text).kind
  plugins = _plugins()
  plans = plugins <= set(_CUDA) and bool(
      plugins or importlib.util.find_spec('libtpu'))
  # `hardware` may not know a new TPU, so who asks for one gets JAX's own look.
  if kind == 'cpu' or (kind != 'tpu' and plans and not _asked(env)
                       and not hardware(root)):
    jax.config.update('jax_platforms', 'cpu')


def see(text: str, *, env: Mapping[str, str] = os.environ,
        root: pathlib.Path = _ROOT) -> str:
  """Checks that JAX uses the kind of device that is asked for.

  Arguments as in `choose`.

  Returns:
    A line for the user if the CPU is used though there, or though installed
    for, is an accelerator; '' otherwise.

  Raises:
    BadInput: JAX finds no device, or another kind.
  """
  try:
    uses = jax.default_backend()
  except RuntimeError as error:
    hint = ''
    if asked := _asked(env):
      hint = f': JAX_PLATFORMS is {asked!r}; cpu, cuda or tpu may be there'
    elif 'cuda' in str(error).lower():
      hint = (': another process may hold the memory of the GPU (nvidia-smi '
              'lists them)')
    raise BadInput(
        f'JAX finds no device ({str(error)[:300]}){hint}') from error
  finally:
    _log.removeFilter(_said)
  kind = wanted(text).kind
  if kind and kind != uses:
    asked = _asked(env)
    why = (f'JAX_PLATFORMS is {asked!r}: unset it' if asked
           else 'set JAX_PLATFORMS=cpu' if kind == 'cpu'
           else _why(kind, root))
    raise BadInput(f'config.devices is {text}, but JAX uses the {uses.upper()}'
                   f': {why}')
  if uses == 'cpu' and not kind and not _asked(env) and (
      there := hardware(root) or _installed_for() or _warned()):
    return (f'the CPU trains, and no {there.upper()}: {_why(there, root)}; '
            'set --config.devices=cpu if a CPU is meant')
  for record in _said.records:
    _log.handle(record)
  _said.records.clear()
  return ''


def hardware(root: pathlib.Path = _ROOT) -> str:
  """Returns the kind of accelerator in this machine: gpu, tpu, or ''."""
  if any((root / name).exists() for name in _NVIDIA):
    return 'gpu'
  for device in (root / 'sys/bus/pci/devices').glob('*'):
    vendor, name, class_ = (_text(device / what)
                            for what in ('vendor', 'device', 'class'))
    if vendor == _GOOGLE and (name in _TPUS or class_.startswith(_ACCELERATOR)):
      return 'tpu'
  if any((root / 'dev').glob('accel[0-9]*')):
    return 'tpu'
  return ''


def described(used: Sequence[jax.Device]) -> str:
  """Names devices for the console: '4 of 8 NVIDIA H100 (gpu)'.

  Args:
    used: the devices that a run uses, of all hosts.
  """
  there, host = jax.devices(), jax.process_count()
  kind, platform = used[0].device_kind, used[0].platform
  text = (f'{len(used)} of {len(there)}' if len(used) < len(there)
          else f'{len(used)}')
  text += f' {kind}' + (f' ({platform})' if platform != kind else '')
  if host == 1:
    return text
  each = [sum(device.process_index == i for device in there)
          for i in range(host)]
  if len(set(each)) == 1:
    return f'{text}; each of {host} processes has {each[0]}'
  return text + '; ' + ', '.join(f'process {i} has {count}'
                                 for i, count in enumerate(each))


def record(used: Sequence[jax.Device]) -> dict[str, Any]:
  """Returns kind, platform and count of devices, for rows and summaries."""
  return {'device': used[0].device_kind, 'platform': used[0].platform,
          'devices': len(used)}


def _why(kind: str, root: pathlib.Path) -> str:
  """Says why JAX uses no accelerator of a kind, and what to do."""
  said = f'JAX says: {_said.words()}; ' if _said.records else ''
  if kind == 'tpu':
    return said + ('a TPU is in this machine' if hardware(root) == 'tpu' else
                   'no TPU is visible') + (
                       ": pip install 'jax[tpu]', and end other programs that "
                       'use it')
  install = f"pip install 'jax[cuda13]=={jax.__version__}'"
  if hardware(root) != 'gpu':
    return said + ('no GPU is visible (no /dev/nvidia0): ask the scheduler for '
                   'one, or start the container with --gpus=all')
  if not _plugins() & set(_CUDA):
    return said + f'a GPU is in this machine, but JAX lacks CUDA: {install}'
  return said + (
      'a GPU is in this machine, and JAX cannot use it: update the NVIDIA '
      f'driver (nvidia-smi shows its version), or {install}')


def _warned() -> str:
  """The kind of accelerator that JAX's warnings are about."""
  words = _said.words()
  return '' if not words else 'tpu' if 'TPU' in words else 'gpu'


def _asked(env: Mapping[str, str]) -> str:
  """The user's own choice of a platform."""
  return env.get('JAX_PLATFORMS') or env.get('JAX_PLATFORM_NAME') or ''


def _plugins() -> set[str]:
  """The names of JAX's installed plugins."""
  found = importlib.util.find_spec('jax_plugins')
  places = list(found.submodule_search_locations or ()) if found else []
  return {name for _, name, _ in pkgutil.iter_modules(places)} | {
      entry.value.rpartition('.')[2] for entry in
      importlib.metadata.entry_points(group='jax_plugins')}


def _installed_for() -> str:
  """'gpu' if a driver, or JAX's plugin and its libraries, are installed.

  The plugin alone serves to plan for a GPU that is elsewhere.
  """
  if shutil.which('nvidia-smi'):
    return 'gpu'
  for plugin in _plugins() & set(_CUDA):
    try:
      importlib.metadata.version(f'nvidia-cudnn-cu{_CUDA[plugin]}')
      return 'gpu'
    except importlib.metadata.PackageNotFoundError:
      pass
  return ''


def _text(path: pathlib.Path) -> str:
  try:
    return path.read_text().strip()
  except OSError:
    return ''
