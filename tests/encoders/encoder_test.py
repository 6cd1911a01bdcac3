"""An encoder comes out of a run, without the run's data, and can be called."""

import jax
import numpy as np
from PIL import Image
import pytest

import fedu_jax
from fedu_jax.data import image_files
from fedu_jax.encoders import image_rows
from fedu_jax.encoders import pictures as pictures_lib
from fedu_jax.evaluation import probes
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training import finished_run
from fedu_jax.training.config import binding
from tests.helpers import saved_run

SIZE = saved_run.SIZE
DRAW = np.random.RandomState(3)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  return saved_run.make(tmp_path_factory.mktemp('runs') / 'run')


@pytest.fixture(scope='module')
def encoder(run):
  return fedu_jax.load(run)


def pictures(count, *shape):
  return DRAW.randint(0, 256, (count, *(shape or (SIZE, SIZE, 3)))).astype(
      np.uint8)


def test_features_are_those_that_evaluation_scores(run, encoder):
  """The data of the run is nowhere, and images of its size are not resized."""
  config = finished_run.config_of(run)
  online = saved_run.network(config)
  module = binding.bind(config, 'model')().encoder
  images = pictures(5)
  for apply, own in ((probes.features, encoder),
                     (probes.projections, fedu_jax.load(run, projector=True))):
    want = probes.embed(apply, module, online.encoder, images)
    assert own.about.features == want.shape[1]
    np.testing.assert_allclose(own(images), want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(own.apply(images), want, rtol=1e-5, atol=1e-6)
  assert encoder.about.rounds == 3
  assert jax.tree.structure(encoder.variables) == jax.tree.structure(
      online.encoder)


def test_any_number_of_images_and_any_shape(encoder):
  images = pictures(40)  # more than a batch
  found = encoder(images)
  assert found.shape == (40, encoder.about.features)
  assert found.dtype == np.float32
  np.testing.assert_array_equal(encoder(images[7]), found[7])
  np.testing.assert_array_equal(encoder(images[:0]), found[:0])
  grey = images[..., 0]
  np.testing.assert_array_equal(
      encoder(grey), encoder(np.repeat(grey[..., None], 3, -1)))
  np.testing.assert_array_equal(encoder(grey[0]), encoder(grey)[0])
  mixed = [images[3], pictures(1, 20, 30, 3)[0], grey[0]]
  np.testing.assert_array_equal(
      encoder(mixed), [encoder(image) for image in mixed])


@pytest.mark.parametrize('fit', ['crop', 'pad'])
def test_a_photograph_becomes_what_its_file_becomes(fit, tmp_path, encoder):
  """Pixels given as an array, and the decoder's of the same file."""
  about = encoder.about._replace(reading={'fit': fit})
  for shape in ((31, 50, 3), (47, 20, 3), (33, 33)):
    image = pictures(1, *shape)[0]
    Image.fromarray(image).save(tmp_path / 'a.png')
    want = image_files.decode(tmp_path / 'a.png',
                              image_files.How(SIZE, fit)).pixels
    np.testing.assert_array_equal(
        pictures_lib.fitted(image, about), want)


def test_a_deep_grey_file_is_its_array(tmp_path, encoder):
  """A 16-bit PNG as `embed` reads it, and as an array; grey and in colours.

  Equal pixels have equal features.
  """
  deep = DRAW.randint(0, 65536, (31, 50)).astype(np.uint16)
  grey = pictures(1, 20, 33)[0]
  (tmp_path / 'files').mkdir()
  Image.fromarray(deep).save(tmp_path / 'files' / 'a.png')
  Image.fromarray(grey).save(tmp_path / 'files' / 'b.png')
  for channels in (1, 3):
    for fit in ('crop', 'pad'):
      about = encoder.about._replace(channels=channels, dtype='uint16')
      about = about._replace(reading={
          'fit': fit, 'channels': channels, 'keep_depth': True, 'depth': 16})
      found = image_rows.of(str(tmp_path / 'files'), about).read(range(2))
      for mine, image in zip(found, (deep, grey), strict=True):
        assert mine.dtype == np.uint16 and mine.shape == about.shape
        np.testing.assert_array_equal(
            pictures_lib.fitted(image, about), mine)


def test_colours_become_the_grey_of_their_file(tmp_path, encoder):
  about = encoder.about._replace(channels=1)
  image = pictures(1, 31, 50, 3)[0]
  Image.fromarray(image).save(tmp_path / 'a.png')
  want = image_files.decode(tmp_path / 'a.png',
                            image_files.How(SIZE, channels=1)).pixels
  np.testing.assert_array_equal(pictures_lib.fitted(image, about), want)


def test_deep_images_are_resized_in_their_own_depth(encoder):
  """65535 is as bright as 255, so features are almost those of 8 bits."""
  image = pictures(1, 30, 40, 3)[0]
  deep = image.astype(np.uint16) * 257
  np.testing.assert_allclose(encoder(deep), encoder(image), rtol=0.05,
                             atol=0.01)


@pytest.mark.parametrize('images', [
    np.zeros((4, 4), np.float32), np.zeros((2, 4, 4, 2), np.uint8),
    [np.zeros((4, 4, 4), np.uint8)], np.zeros((9, 9, 4), np.uint8),
    np.zeros((0, 4), np.uint8),
    np.zeros(4, np.uint8), [np.zeros((4, 4), np.int64)]])
def test_other_images_are_refused(images, encoder):
  with pytest.raises(ValueError, match='uint8 or uint16 .*are|is'):
    encoder(images)
  with pytest.raises(ValueError, match='must be uint8'):
    encoder.apply(np.zeros((1, 4, 4, 1), np.uint8))
  with pytest.raises(ValueError, match='which resizes them'):
    encoder.apply(np.zeros((1, 4, 5, 3), np.uint8))


def test_a_run_that_does_not_say_its_images_shape(tmp_path, run):
  """A folder's size is in the config; another source is asked for one image."""
  old = saved_run.make(tmp_path / 'old', records=False)
  images = pictures(2)
  np.testing.assert_array_equal(fedu_jax.load(old)(images),
                                fedu_jax.load(run)(images))
  digits = saved_run.make(tmp_path / 'digits', records=False,
                          data__source='digits', data__image_size=0,
                          partition__name='iid')
  assert fedu_jax.load(digits).about.shape == (8, 8, 3)
  lost = saved_run.make(tmp_path / 'lost', records=False,
                        data__source='npz:/no/such.npz')
  with pytest.raises(BadInput, match='earlier version.*--source'):
    fedu_jax.load(lost)


def test_the_untrained_encoder_and_what_is_not_there(run, tmp_path):
  untrained = fedu_jax.load(run, encoder='untrained')
  assert untrained.about.rounds == 0
  first = jax.tree.leaves(untrained.variables)[0]
  assert not np.array_equal(
      first, jax.tree.leaves(fedu_jax.load(run).variables)[0])
  for asked, complaint in (('alone0', 'has no checkpoints'),
                           ('best', "--encoder is 'best'")):
    with pytest.raises(BadInput, match=complaint):
      fedu_jax.load(run, encoder=asked)
  with pytest.raises(BadInput, match='holds no run'):
    fedu_jax.load(tmp_path / 'none')


def test_an_encoder_says_no_path_of_its_machine(encoder):
  assert encoder.about.config['data.source'] == 'folder'
  assert '/' not in str(encoder.about.config)
