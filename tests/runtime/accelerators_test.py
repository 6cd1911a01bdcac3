"""Devices: their kind and number, and a line where the CPU is an accident."""

import logging
from types import SimpleNamespace

import jax
import pytest

from fedu_jax.runtime import accelerators
from fedu_jax.runtime.errors import BadInput

LOG = logging.getLogger('jax._src.xla_bridge')


@pytest.fixture
def bare(monkeypatch):
  """A machine without plugins, whose JAX_PLATFORMS is not set."""
  monkeypatch.setattr(accelerators, '_plugins', set)
  monkeypatch.setattr(accelerators.shutil, 'which', lambda name: None)
  monkeypatch.setattr(accelerators.importlib.util, 'find_spec',
                      lambda name: None)
  told = []
  monkeypatch.setattr(accelerators.jax.config, 'update',
                      lambda name, value: told.append((name, value)))
  yield told
  accelerators._said.records.clear()
  LOG.removeFilter(accelerators._said)


def made(root, *names, text=''):
  for name in names:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
  return root


@pytest.mark.parametrize('text, found', [
    ('auto', ('', 0)), ('4', ('', 4)), ('gpu', ('gpu', 0)),
    ('gpu:4', ('gpu', 4)), ('cpu:2', ('cpu', 2)), ('tpu', ('tpu', 0))])
def test_what_config_devices_asks_for(text, found):
  assert accelerators.wanted(text) == found


@pytest.mark.parametrize('pci, kind', [
    (('0x1ae0', '0x0063', '0x088000'), 'tpu'),
    (('0x1ae0', '0xffff', '0x120000'), 'tpu'),  # a later one
    (('0x1ae0', '0x0042', '0x020000'), ''),  # Google's network card
    (('0x10de', '0x2330', '0x030200'), '')])  # a GPU without a driver
def test_accelerators_on_the_bus(tmp_path, pci, kind):
  for name, text in zip(('vendor', 'device', 'class'), pci):
    made(tmp_path, f'sys/bus/pci/devices/0/{name}', text=f'{text}\n')
  assert accelerators.hardware(tmp_path) == kind


def test_a_cpu_that_nobody_asked_for_is_one_line(tmp_path, bare):
  """A GPU is there, and JAX could not use it. What JAX logged is in the line.
  """
  root = made(tmp_path, 'dev/nvidia0')
  assert accelerators.see('auto', env={}, root=tmp_path / 'nothing') == ''
  accelerators.choose('auto', env={}, root=root)
  assert bare == []  # JAX looks for itself
  try:
    raise RuntimeError('Outdated CUDA\ninstallation found.')
  except RuntimeError:
    LOG.exception('Exception when calling initialize()')
  found = accelerators.see('auto', env={}, root=root)
  assert found == (
      'the CPU trains, and no GPU: JAX says: Outdated CUDA installation found.;'
      ' a GPU is in this machine, but JAX lacks CUDA: pip install '
      f"'jax[cuda13]=={jax.__version__}'; set --config.devices=cpu if a CPU is "
      'meant')
  for asked, env in ('cpu', {}), ('auto', {'JAX_PLATFORMS': 'cpu'}):
    assert accelerators.see(asked, env=env, root=root) == ''


def test_a_cuda_installation_without_a_gpu_is_one_line(
    tmp_path, bare, monkeypatch):
  """The plugin without NVIDIA's libraries is there to plan: no word, no look.
  """
  monkeypatch.setattr(accelerators, '_plugins', lambda: {'xla_cuda13'})
  have = set()

  def version(name):
    if name not in have:
      raise accelerators.importlib.metadata.PackageNotFoundError(name)
    return '9'
  monkeypatch.setattr(accelerators.importlib.metadata, 'version', version)
  accelerators.choose('auto', env={}, root=tmp_path)
  assert bare == [('jax_platforms', 'cpu')]
  assert accelerators.see('auto', env={}, root=tmp_path) == ''
  have.add('nvidia-cudnn-cu13')
  assert 'no GPU is visible (no /dev/nvidia0): ask the scheduler' in (
      accelerators.see('auto', env={}, root=tmp_path))


@pytest.mark.parametrize('asked, env, files, plugins, told', [
    ('auto', {}, [], set(), False),  # nothing to leave out
    ('cpu', {}, ['dev/nvidia0'], set(), True),
    ('auto', {}, [], {'xla_cuda13'}, True),
    ('auto', {}, ['dev/nvidiactl'], {'xla_cuda13'}, False),
    ('auto', {}, ['dev/accel0'], {'xla_cuda13'}, False),
    ('auto', {}, [], {'xla_cuda13', 'xla_rocm7'}, False),  # a kind we know not
    ('auto', {'JAX_PLATFORMS': 'cuda'}, [], {'xla_cuda13'}, False),
    ('gpu', {}, [], {'xla_cuda13'}, True),  # `see` refuses, without noise
    ('tpu', {}, [], {'xla_cuda13'}, False)])
def test_when_jax_is_told_to_use_the_cpu(tmp_path, bare, monkeypatch, asked,
                                         env, files, plugins, told):
  monkeypatch.setattr(accelerators, '_plugins', lambda: plugins)
  accelerators.choose(asked, env=env, root=made(tmp_path, *files))
  assert bare == [('jax_platforms', 'cpu')] * told


def test_another_kind_than_asked_for_is_refused(tmp_path, bare):
  with pytest.raises(BadInput, match='config.devices is gpu:4, but JAX uses the'
                     " CPU: JAX_PLATFORMS is 'cpu': unset it"):
    accelerators.see('gpu:4', env={'JAX_PLATFORMS': 'cpu'}, root=tmp_path)
  with pytest.raises(BadInput, match='no GPU is visible'):
    accelerators.see('gpu', env={}, root=tmp_path)
  with pytest.raises(BadInput, match=r"uses the CPU: no TPU is visible: pip "
                     r"install 'jax\[tpu\]'"):
    accelerators.see('tpu', env={}, root=tmp_path)


def test_what_jax_logs_for_another_reason_is_printed(tmp_path, bare, caplog):
  accelerators.choose('cpu', env={}, root=tmp_path)
  LOG.warning('Platform is experimental')
  assert 'experimental' not in caplog.text
  accelerators.see('cpu', env={}, root=tmp_path)
  LOG.warning('later')
  assert 'experimental' in caplog.text and 'later' in caplog.text


def test_devices_are_named_with_those_of_each_process(monkeypatch):
  def device(process):
    return SimpleNamespace(device_kind='NVIDIA H100', platform='gpu',
                           process_index=process)
  there = [device(i) for i in (0, 0, 0, 0, 1, 1)]
  monkeypatch.setattr(jax, 'devices', lambda: there)
  assert accelerators.described(there[:4]) == '4 of 6 NVIDIA H100 (gpu)'
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  assert accelerators.described(there) == (
      '6 NVIDIA H100 (gpu); process 0 has 4, process 1 has 2')
  there[:2] = []
  assert accelerators.described(there) == (
      '4 NVIDIA H100 (gpu); each of 2 processes has 2')
  assert accelerators.record(there) == {
      'device': 'NVIDIA H100', 'platform': 'gpu', 'devices': 4}
