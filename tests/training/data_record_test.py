"""A run is identified by its images: the records, and what is refused."""

import json

import jax
import numpy as np
import pytest

from fedu_jax.data import lazy_arrays
from fedu_jax.data import sources
from fedu_jax.runtime import multihost
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training import data_record

DRAW = np.random.RandomState(0)
IMAGES = DRAW.randint(0, 256, (12, 4, 4, 3)).astype(np.uint8)
LABELS = np.repeat(np.arange(3, dtype=np.int32), 4)
DATA = sources.Dataset(IMAGES, LABELS, IMAGES[:4], LABELS[:4])
PARTS = np.split(np.random.RandomState(1).permutation(12), [5, 9])
PROBED = DATA._replace(probe_images=IMAGES[:4], probe_labels=LABELS[:4])


def begin(folder, data=DATA, parts=PARTS):
  folder.mkdir()
  assert not data_record.write(folder, data, parts, data_record.digests(
      data, parts))
  return folder


def check(folder, data, parts=PARTS):
  data_record.check(folder, data, parts, data_record.digests(data, parts),
                    name='--there')


def flipped(images, row=7):
  """Changes one bit of one image."""
  other = images.copy()
  other[row, 1, 2, 0] ^= 1
  return other


@pytest.mark.parametrize('data, complaint', [
    (PROBED._replace(train_images=flipped(IMAGES)),
     'the images of 1 of 3 clients differ'),
    (DATA._replace(train_images=IMAGES[:, ::-1]), 'of 3 of 3 clients differ'),
    (DATA._replace(train_images=IMAGES.reshape(12, 2, 8, 3)), '3 of 3'),
    (DATA._replace(train_labels=LABELS[::-1]), 'the labels differ'),
    (DATA._replace(train_labels=None), 'the labels are not there'),
    (DATA._replace(test_images=flipped(IMAGES[:4], 2)),
     'the test images differ'),
    (DATA._replace(test_labels=LABELS[1:5]), 'the test labels differ'),
    (DATA._replace(test_images=None, test_labels=None),
     'the test images are not there'),
    (PROBED._replace(probe_images=flipped(IMAGES[:4], 1)),
     'the probe images differ'),
    (PROBED._replace(probe_labels=LABELS[1:5]), 'the probe labels differ'),
    (DATA, 'the probe images are not there')])
def test_other_images_of_the_same_counts_are_refused(tmp_path, data, complaint):
  folder = begin(tmp_path / 'run', PROBED)
  check(folder, PROBED)
  with pytest.raises(BadInput, match=f'no longer those.*{complaint}.*images.js'
                     'on.*--there'):
    check(folder, data)


def test_what_was_not_known_may_come(tmp_path):
  bare = sources.Dataset(IMAGES, owners=LABELS)
  folder = begin(tmp_path / 'run', bare)
  check(folder, DATA)
  check(folder, bare)


def test_a_run_of_an_earlier_version_has_counts_alone(tmp_path):
  folder = begin(tmp_path / 'run')
  (folder / 'images.json').unlink()
  other = DATA._replace(train_images=flipped(IMAGES))
  check(folder, other)
  with pytest.raises(BadInput, match='other numbers of images.*partition.json'):
    check(folder, DATA._replace(train_labels=LABELS[::-1]))
  # It gets one, and is known from then on.
  assert data_record.known(folder) is None
  assert data_record.damaged(folder) is None
  data_record.write(folder, DATA, PARTS, data_record.digests(DATA, PARTS))
  with pytest.raises(BadInput, match='images'):
    check(folder, other)
  for content in ('', '[]', '{"clients": 3}'):
    assert data_record.damaged(folder) is None
    (folder / 'images.json').write_text(content)
    assert data_record.known(folder) is None
    assert 'by their counts alone' in data_record.damaged(folder)
    data_record.write(folder, DATA, PARTS, data_record.digests(DATA, PARTS))


def test_a_run_that_has_not_begun_takes_any(tmp_path):
  check(tmp_path / 'run', DATA)


def test_lazy_images_and_several_hosts_give_the_same(monkeypatch):
  """Each of two hosts reads its own clients, once."""
  want = data_record.digests(DATA, PARTS)
  read = []

  def rows(wanted):
    read.extend(wanted.tolist())
    return IMAGES[wanted]
  late = DATA._replace(
      train_images=lazy_arrays.Lazy(IMAGES.shape, np.uint8, rows))
  assert data_record.digests(late, PARTS) == want
  assert sorted(read) == list(range(12))
  shares = []
  monkeypatch.setattr(multihost, 'several', lambda: True)
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(multihost.multihost_utils, 'process_allgather',
                      lambda x: shares.append(x) or np.stack(shares))
  for host in range(2):
    read.clear()
    monkeypatch.setattr(jax, 'process_index', lambda host=host: host)
    found = data_record.digests(late, PARTS, [0, 0, 1])
    assert sorted(read) == sorted(np.concatenate(
        [PARTS[:2], PARTS[2:]][host]).tolist())
  assert found == want


def test_what_cannot_be_written_is_told_by_its_name(tmp_path):
  """The other files are written nevertheless."""
  folder = tmp_path / 'run'
  (folder / 'images.json.part').mkdir(parents=True)  # in the way
  failure, = data_record.write(folder, DATA, PARTS,
                               data_record.digests(DATA, PARTS))
  assert str(failure) == 'images.json could not be written (Is a directory)'
  assert failure.advice == 'remove the folder that is in its way'
  assert (folder / 'partition.json').exists()


def test_the_file_is_small_json(tmp_path):
  folder = begin(tmp_path / 'run')
  found = json.loads((folder / 'images.json').read_text())
  assert found == data_record.digests(DATA, PARTS)
  assert [len(x) for x in found['clients']] == [32] * 3
  assert data_record.pixels_of(folder) == ((4, 4, 3), 'uint8')
  for wrong in ({'shape': [4, 4]}, {'dtype': 'colour'}, {'shape': None}):
    (folder / 'images.json').write_text(json.dumps(found | wrong))
    assert data_record.pixels_of(folder) is None


def test_without_labelled_images_of_their_own_digests_are_those_of_before():
  plain, probed = (data_record.digests(data, PARTS) for data in (DATA, PROBED))
  assert {name: probed[name] for name in plain} == plain
  assert probed.keys() - plain.keys() == {'probe_images', 'probe_labels'}


def test_a_run_may_get_labelled_images_later(tmp_path):
  check(begin(tmp_path / 'run'), PROBED)
