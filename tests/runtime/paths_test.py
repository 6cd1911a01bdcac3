"""Paths as users type them."""

import os
import pathlib
import pwd

import pytest

from fedu_jax import configs
from fedu_jax.data import sources
from fedu_jax.runtime import paths
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training import workdir_lock
from tests.helpers import tiny


def test_a_tilde_is_a_home(monkeypatch, tmp_path):
  """As in `--workdir=~/r`, which a shell does not expand."""
  monkeypatch.setenv('HOME', str(tmp_path))
  assert paths.typed('~/r', 'x') == tmp_path / 'r'
  assert paths.typed('~', 'x') == tmp_path
  home = pathlib.Path(pwd.getpwnam('root').pw_dir)
  assert paths.typed('~root/r', 'x') == home / 'r'
  assert paths.typed('./~/r', 'x') == pathlib.Path('~/r').absolute()
  assert paths.typed(str(paths.typed('./~/r', 'x')), 'x').parent.name == '~'
  assert paths.typed('r~/~x', 'x') == pathlib.Path('r~/~x')


@pytest.mark.parametrize('text', [
    'gs://bucket/r', 's3://b/r', 'hdfs:/r', 'file:///r', 'https://x.org/r',
    'GS://bucket', 'az+x://r', '', ' ', '\t', 'a\0b', '~nobody-of-ours/r'])
def test_what_is_no_path_of_this_machine(text):
  with pytest.raises(BadInput, match='^--workdir') as caught:
    paths.typed(text, '--workdir')
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('text', ['C:/x', 'a:b', 'x:/y', 'run:1/x', '//x', 'é'])
def test_odd_names_are_names(text):
  assert paths.workdir(text) == pathlib.Path(text)


def test_without_a_home(monkeypatch):
  monkeypatch.delenv('HOME')
  monkeypatch.setattr(os, 'getuid', lambda: 12345)
  with pytest.raises(BadInput, match='home folder of this user'):
    paths.typed('~/r', 'x')


def test_from_a_folder_that_is_gone(monkeypatch, tmp_path):
  (tmp_path / 'gone').mkdir()
  monkeypatch.chdir(tmp_path / 'gone')
  (tmp_path / 'gone').rmdir()
  assert paths.workdir('/tmp/r') == pathlib.Path('/tmp/r')
  assert configs.find('smoke') == configs.FOLDER / 'smoke.py'
  for read in paths.workdir, configs.find:
    with pytest.raises(BadInput, match='current folder, which is gone'):
      read('r')


@pytest.mark.parametrize('text, words', [
    ('/tmp/\udcff', 'not UTF-8'), ('/tmp/' + 'x/' * 2000, 'bytes long')])
def test_where_no_checkpoint_can_be(text, words):
  with pytest.raises(BadInput, match=words) as caught:
    paths.workdir(text)
  str(caught.value).encode()  # so that it can be printed
  assert len(str(caught.value)) < 250


@pytest.mark.parametrize('source', ['npz:', 'folder:'])
def test_of_data(source, monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path))
  for typed, words in (('gs://b/x', 'not on a disk of this machine'),
                       ('~/x', str(tmp_path / 'x'))):
    with pytest.raises(BadInput, match=words):
      sources.load(source + typed)


def test_of_data_sets():
  with pytest.raises(BadInput, match='^config.data.dir is s3'):
    sources.load('digits', data_dir='s3://b/x')


@pytest.mark.parametrize('make, words', [
    (lambda x: x.write_text(''), 'Not a directory.*in its way'),
    (lambda x: x.symlink_to(x), 'File exists.*link that is in its way'),
    (lambda x: x.symlink_to('/nowhere/at/all'), 'File exists.*in its way')])
def test_a_workdir_with_something_in_its_way(make, words, tmp_path):
  """A file, a link to itself, a link to nothing; the message says what to do.
  """
  make(tmp_path / 'x')
  folder = tmp_path / 'x' if (tmp_path / 'x').is_symlink() else (
      tmp_path / 'x' / 'y')
  with pytest.raises(BadInput, match=words) as caught:
    with workdir_lock.held(workdir_lock.claim(folder, tiny.get_config()),
                           tiny.get_config()):
      pass
  assert 'make room' not in str(caught.value)


def test_a_pattern_above_a_workdir(monkeypatch, tmp_path):
  """TensorStore uses the whole path of a relative workdir."""
  for name in ('[a]', 'a\\b'):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    with pytest.raises(BadInput, match='TensorStore takes for a pattern'):
      workdir_lock.claim(pathlib.Path('r'), tiny.get_config())


# --- configs ----------------------------------------------------------------


@pytest.mark.parametrize('name', ['quickstart', 'quickstart.py',
                                  'configs/quickstart.py'])
def test_a_shipped_config_is_found_anywhere(name, monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  assert configs.find(name) == configs.FOLDER / 'quickstart.py'


def test_a_path_goes_first(monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'smoke').mkdir()  # a folder is no config
  assert configs.find('smoke') == configs.FOLDER / 'smoke.py'
  (tmp_path / 'smoke.py').write_text('')
  assert configs.find('smoke') == pathlib.Path('smoke.py')
  monkeypatch.setenv('HOME', str(tmp_path))
  assert configs.find('~/smoke.py') == tmp_path / 'smoke.py'


@pytest.mark.parametrize('name, words', [
    ('smok', "no file; did you mean 'smoke'"), ('/nowhere/smoke.py', 'no file'),
    ('configs', 'choose cifar10, cifar100'), ('gs://x/y.py', 'not on a disk'),
    ('', 'is empty')])
def test_a_config_that_is_not_there(name, words):
  with pytest.raises(BadInput, match=words):
    configs.find(name)


def test_all_configs_are_shipped_and_known_by_name():
  folder = pathlib.Path(__file__).parents[2] / 'configs'
  assert configs.names() == sorted(x.stem for x in folder.glob('*.py'))
