"""Descriptions of chips: those that are shipped, and one's own."""

import pathlib
import tomllib

import pytest

from fedu_jax.plan import chip_files
from fedu_jax.plan import chip_model
from fedu_jax.plan.chip_model import Times
from fedu_jax.plan.program_counts import Loop
from fedu_jax.plan.program_counts import ProgramCounts
from fedu_jax.plan.program_counts import Work
from fedu_jax.runtime.errors import BadInput
from tests.plan.plan_test import SIZES

FOLDER = pathlib.Path(chip_files.__file__).parent / 'chips'


@pytest.mark.parametrize('name', chip_files.names())
def test_shipped_chips_are_whole(name):
  chip = chip_files.load(name)
  assert chip.peak.keys() == set(chip_files.ARITHMETICS)
  # More exact products are never faster.
  assert chip.peak['bfloat16'] >= chip.peak['float32_default'] >= (
      chip.peak['tensorfloat32']) >= chip.peak['float32']
  assert 10e9 < chip.usable < 200e9 and 1e11 < chip.bandwidth < 1e13
  # The description that the compiler gets agrees with the figures.
  if chip.compiler == 'gpu':
    words = chip.target.replace(':', ' ').split()
    bandwidth = float(words[words.index('memory_bandwidth') + 1])
    assert bandwidth == pytest.approx(chip.bandwidth, rel=0.01)
    assert int(words[words.index('device_memory_size') + 1]) == chip.memory


def test_six_chips_are_shipped():
  assert chip_files.names() == ['a100', 'h100', 'h200', 'l4', 'v5e', 'v6e']


def own(tmp_path, change):
  path = tmp_path / 'own.toml'
  path.write_text(change((FOLDER / 'v5e.toml').read_text()))
  return str(path)


def test_a_chip_of_ones_own_is_a_file(tmp_path):
  path = own(tmp_path, lambda text: text.replace('819e9', '5e11'))
  assert chip_files.load(path).bandwidth == 5e11
  assert chip_files.load(path)._replace(bandwidth=819e9) == (
      chip_files.load('v5e'))


@pytest.mark.parametrize('change, words', [
    (lambda text: text + '[', 'cannot be read'),
    (lambda text: text.replace('"tpu"', '"xpu"'), "compiler is 'xpu'"),
    (lambda text: text.replace('bandwidth = 819e9', ''), 'bandwidth is miss'),
    (lambda text: text.replace('bandwidth = 819e9', 'bandwith = 819e9'),
     'bandwidth is missing'),
    (lambda text: 'bandwith = 1\n' + text, "'bandwith'; did you mean 'bandwid"),
    (lambda text: text.replace('819e9', '"fast"'), "bandwidth is 'fast'"),
    (lambda text: text.replace('819e9', '-1'), 'bandwidth is -1'),
    (lambda text: text.replace('819e9', 'nan'), 'bandwidth is nan'),
    (lambda text: text.replace('819e9', 'true'), 'bandwidth is True'),
    (lambda text: text.replace('bfloat16 =', 'b16 ='), 'peak.bfloat16 is None'),
    (lambda text: text.replace('= 1.0\n', '= 2.0\n'), 'memory_share is above'),
    (lambda text: text.replace('["2x2"', '["2by2"'), 'slices is'),
    (lambda text: text.replace('topology = "v5e"', 'topology = 5'),
     'topology is not a text'),
    (lambda text: text[:text.index('[sources]')] + '[sources]\n',
     'sources.bandwidth is missing')])
def test_a_wrong_chip_file_is_refused_with_its_field(tmp_path, change, words):
  with pytest.raises(BadInput) as refused:
    chip_files.load(own(tmp_path, change))
  assert words in str(refused.value)


@pytest.mark.parametrize('name, words', [
    ('h10', "did you mean 'h100'"), ('none.toml', 'a100, h100')])
def test_an_unknown_chip_is_refused(name, words):
  with pytest.raises(BadInput, match='neither') as refused:
    chip_files.load(name)
  assert words in str(refused.value)


# --- the model of the time --------------------------------------------------

CHIP = chip_files.Chip(
    'own', 'gpu', 8e9, 0.5, bandwidth=1e3, launch_microseconds=1e6,
    peak=dict.fromkeys(chip_files.ARITHMETICS, 10.) | {'float32': 1.},
    sources={})
# A step of 4 kernels, 2000 bytes; 3 clients of 2 steps; and 5 kernels beside.
STEP = Loop('step', 2, 6, Work(3, 1500, 1, 500), 0, 0, 9)
COUNTS = ProgramCounts((Loop('clients', 3, 3, Work(), 0, 0, 0), STEP),
                       Work(5, 1000), (), 0, (), 0, 0)


def test_three_times_of_a_step():
  assert chip_model.times(STEP.work, 70., CHIP, 'bfloat16') == Times(7, 2, 4)
  assert chip_model.times(STEP.work, 70., CHIP, 'float32').compute == 70
  times = Times(7, 2, 4)
  assert (times.least, times.most, times.bound) == (7, 13, 'products')
  assert Times(1, 2, 0).bound == "memory's bandwidth"


def test_a_round_is_its_steps_and_the_rest_in_each_slice():
  """Six clients in two slices of three, on each of two groups of two devices.
  """
  sizes = SIZES._replace(groups=2, group=2, share=6, at_once=3, rounds=9,
                         images_trained=96.)
  found = chip_model.floor(COUNTS, sizes, 5., CHIP, 'bfloat16')
  # 96 images of two devices, in two slices, in six steps: 4 each.
  assert found.images == 4 and found.step == Times(2, 2, 4)
  assert found.rest == Times(0, 1, 5)
  assert found.round == (2 * (6 * 4 + 5), 2 * (6 * 8 + 6))
  assert found.run == (9 * 58, 9 * 108)
  assert found.rate == (192 / 108, 192 / 58)


@pytest.mark.parametrize('dtype, precision, kind', [
    ('bfloat16', 'float32', 'bfloat16'),
    ('float32', 'default', 'float32_default'),
    ('float32', 'tensorfloat32', 'tensorfloat32'),
    ('float32', 'float32', 'float32')])
def test_the_arithmetic_of_a_config(dtype, precision, kind):
  assert chip_model.arithmetic(dtype, precision) == kind


def test_each_figure_has_a_source():
  for name in chip_files.names():
    found = tomllib.loads((FOLDER / f'{name}.toml').read_text())
    assert set(found['sources']) == found.keys() - {
        'name', 'compiler', 'sources'}
