"""Damaged data is skipped, refused or read, in processes of their own."""

import numpy as np
import pytest

from fedu_jax.data import partition
from fedu_jax.data import sources
from fedu_jax.runtime import host_memory
from fedu_jax.runtime.errors import BadInput
from tests.faults import attack
from tests.faults import data
from tests.faults import specimens


def test_poor_data_is_skipped_or_refused_in_a_line(tmp_path):
  """The short form of `python -m tests.faults --only=data`."""
  said = []
  found = data.run(attack.Order(tmp_path, True, 0, said.append))
  assert found.keys() == data.BROKEN.keys()
  assert not any(x.lost for x in found.values()), '\n'.join(said)
  assert all(x.tried for x in found.values())


@pytest.mark.parametrize('name, pixels', [
    ('plain.png', specimens.PIXELS),
    ('alpha.png', specimens.PIXELS), ('jpeg_inside.png', None),
    ('animated.gif', np.full((9, 9, 3), 9)),
    ('animated.png', np.full((9, 9, 3), 9)),
    ('one_pixel.png', np.zeros((1, 1, 3)))])
def test_what_is_read_is_what_was_drawn(tmp_path, name, pixels):
  """The first frame, without transparency, at the given size."""
  (tmp_path / 'a').mkdir()
  (tmp_path / 'a' / name).write_bytes(specimens.files()[name][0])
  found = sources.load(f'folder:{tmp_path}', image_size=8).train_images[0]
  assert found.shape == (8, 8, 3)
  if pixels is not None:
    np.testing.assert_allclose(found.mean((0, 1)), pixels.mean((0, 1)), atol=9)


def test_a_missing_class_leaves_no_client_poorer():
  """A number without examples is no class, and no client gets it."""
  labels = np.repeat([0, 2, 3], 10)
  for clients, per, sizes in ((2, 2, [10, 10]), (4, 1, [5, 5, 5, 5])):
    parts = partition.by_class(labels, clients, np.random.RandomState(0),
                               classes_per_client=per)
    assert [len(part) for part in parts] == sizes
    assert all(len(set(labels[part])) == per for part in parts)


def test_what_no_memory_holds_is_refused_before_it_is_taken(
    tmp_path, monkeypatch):
  monkeypatch.setattr(host_memory, 'host_bytes', lambda: 10**6)
  # A thousandth of its size on disk.
  np.savez_compressed(tmp_path / 'bomb.npz',
                      train_images=np.zeros((1000, 20, 20, 3), np.uint8))
  with pytest.raises(BadInput, match='bomb.npz takes .* GB, more than'):
    sources.load(f'npz:{tmp_path}/bomb.npz')
  with pytest.raises(BadInput, match='digits at 512 pixels takes 1 GB'):
    sources.load('digits', image_size=512)


def test_links_and_folders_that_may_not_be_read_are_refused(tmp_path):
  (tmp_path / 'a').mkdir()
  (tmp_path / 'a' / '0.png').symlink_to(tmp_path / 'gone.png')
  with pytest.raises(BadInput, match='0.png cannot be read .No such file'):
    sources.load(f'folder:{tmp_path}')
