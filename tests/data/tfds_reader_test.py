"""Which splits of a TFDS set are read, without a set on disk."""

import types

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import resource

from fedu_jax.data import cifar_without_tensorflow
from fedu_jax.data import tfds_reader


def builder(**splits):
  """Makes a set of 4x4 images, each as bright as its label, from -1 on."""
  rows = {name: [{'image': np.full((4, 4, 3), label + 1, np.uint8),
                  'label': np.int64(label)} for label in labels]
          for name, labels in splits.items()}
  return types.SimpleNamespace(
      name='own', data_path='/nowhere',
      as_data_source=lambda split, decoders: rows[split],
      info=types.SimpleNamespace(
          features={'image': tfds.features.Image(shape=(4, 4, 3)),
                    'label': tfds.features.ClassLabel(num_classes=3)},
          supervised_keys=('image', 'label'), splits=splits))


@pytest.mark.parametrize('splits, want', [
    # ImageNet and others hold their test labels back.
    ({'test': [-1, -1], 'validation': [2, 1]}, [2, 1]),
    ({'test': [1, 0], 'validation': [2, 1]}, [1, 0]),
    ({'validation': [2, 1]}, [2, 1]),
    # Refused by what reads labels, with the numbers that they go from and to.
    ({'test': [-1, -1]}, [-1, -1])])
def test_a_test_half_has_labels_where_there_are_any(splits, want):
  train, train_labels, test, labels = tfds_reader.read(
      builder(train=[0, 1, 2], **splits), 0)
  assert train_labels.tolist() == [0, 1, 2] and labels.tolist() == want
  for images, own in ((train, train_labels), (test, labels)):
    np.testing.assert_array_equal(images[:, 0, 0, 0], own + 1)


@pytest.mark.parametrize('name', ['own/1.0.0', 'own/large/1.0.0'])
@pytest.mark.parametrize('kept', [True, False])
def test_what_was_downloaded_is_not_asked_for(name, kept, tmp_path,
                                              monkeypatch):
  """The file is in the root's downloads, for a set with or without a config."""
  url = 'https://example.org/images.zip'
  file = resource.get_dl_fname(url, 'a' * 64)
  if kept:
    (tmp_path / 'downloads').mkdir()
    (tmp_path / 'downloads' / file).touch()
  asked = []
  monkeypatch.setattr(cifar_without_tensorflow, 'reach', asked.append)
  tfds_reader._reach(types.SimpleNamespace(
      data_path=str(tmp_path / name),
      url_infos={url: types.SimpleNamespace(checksum='a' * 64)},
      info=types.SimpleNamespace(full_name=name)))
  assert asked == ([] if kept else [url])
