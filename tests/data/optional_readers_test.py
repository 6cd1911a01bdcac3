"""HEIC and DICOM: their pixels, and what of them is never read."""

import io
import json

import numpy as np
from PIL import Image
import pydicom
from pydicom import uid
import pytest
from rich.console import Console

from fedu_jax.data import dicom_files
from fedu_jax.data import image_files
from fedu_jax.data import optional_readers
from fedu_jax.data import reading_report
from fedu_jax.data import sources
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training import data_record

pillow_heif = pytest.importorskip('pillow_heif')

RAMP = np.arange(64, dtype=np.uint16).reshape(8, 8) * 65  # 0 to 4095
SECRET = 'Zyx^Marked'


def dicom(stored=RAMP, syntax=None, **tags):
  """Encodes an image of 12 bits, with the names of a patient."""
  meta = pydicom.dataset.FileMetaDataset()
  meta.MediaStorageSOPClassUID = '1.2.840.10008.5.1.4.1.1.7'
  meta.MediaStorageSOPInstanceUID = '1.2.3.4'
  meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
  file = pydicom.Dataset()
  file.file_meta = meta
  for name in ('PatientName', 'PatientID', 'InstitutionName',
               'StudyDescription', 'ReferringPhysicianName'):
    setattr(file, name, SECRET)
  file.Rows, file.Columns = stored.shape[-3 if stored.shape[-1] == 3 else -2:][
      :2]
  for name, value in (dict(
      SamplesPerPixel=1, PhotometricInterpretation='MONOCHROME2',
      BitsAllocated=16, BitsStored=12, HighBit=11, PixelRepresentation=0)
      | tags).items():
    setattr(file, name, value)
  file.PixelData = stored.tobytes()
  if syntax:
    file.compress(syntax)
  buffer = io.BytesIO()
  file.save_as(buffer, enforce_file_format=True)
  return buffer.getvalue()


def decoded(tmp_path, content, **how):
  path = tmp_path / 'x'
  path.write_bytes(content)
  return image_files.decode(path, image_files.How(
      **({'size': 8, 'channels': 1} | how)))


def deep(tmp_path, content, **how):
  return decoded(tmp_path, content, keep_depth=True, **how).pixels[..., 0]


# --- DICOM -------------------------------------------------------------------


@pytest.mark.parametrize('syntax', [None, uid.RLELossless])
def test_stored_values_become_their_share_of_the_full_scale(tmp_path, syntax):
  content = dicom(syntax=syntax)
  np.testing.assert_array_equal(
      deep(tmp_path, content), np.rint(RAMP / 4095 * 65535))
  found = decoded(tmp_path, content, channels=3).pixels
  assert found.shape == (8, 8, 3) and found.dtype == np.uint8
  np.testing.assert_array_equal(found[..., 1], np.rint(RAMP / 4095 * 255))


def test_low_values_of_monochrome1_are_white(tmp_path):
  content = dicom(PhotometricInterpretation='MONOCHROME1')
  np.testing.assert_array_equal(
      deep(tmp_path, content), 65535 - np.rint(RAMP / 4095 * 65535))


def test_signed_values_begin_below_zero(tmp_path):
  stored = (RAMP.astype(np.int16) - 2048)
  content = dicom(stored, PixelRepresentation=1, RescaleSlope=2,
                  RescaleIntercept=-7)
  np.testing.assert_array_equal(
      deep(tmp_path, content), np.rint(RAMP / 4095 * 65535))


def test_a_window_is_of_values_after_the_rescale(tmp_path):
  """The functions are those of pydicom's own rendering."""
  tags = dict(RescaleSlope=0.5, RescaleIntercept=-1024,
              WindowCenter=[40, 300], WindowWidth=[400, 1500])
  values = RAMP * 0.5 - 1024
  for function in (None, 'LINEAR', 'LINEAR_EXACT', 'SIGMOID'):
    file = dicom(**tags, **({'VOILUTFunction': function} if function else {}))
    header = pydicom.dcmread(io.BytesIO(file))
    shown = pydicom.pixels.apply_windowing(values, header)
    share = (shown - shown.min()) / (shown.max() - shown.min())
    if function == 'SIGMOID':
      share = 1 / (1 + np.exp(-4 * (values - 40) / 400))
    np.testing.assert_allclose(
        deep(tmp_path, file), share * 65535, atol=1, err_msg=str(function))
  file = dicom(**tags)
  np.testing.assert_allclose(
      deep(tmp_path, file, window='100,301'),
      np.clip((values - 99.5) / 300 + 0.5, 0, 1) * 65535, atol=1)
  np.testing.assert_array_equal(
      deep(tmp_path, file, window='full'), np.rint(RAMP / 4095 * 65535))
  without = dicom(RescaleSlope=0.5, RescaleIntercept=-1024)
  np.testing.assert_array_equal(
      deep(tmp_path, without), deep(tmp_path, file, window='full'))


@pytest.mark.parametrize('function', ['LINEAR_EXACT', 'SIGMOID'])
def test_a_window_may_be_narrower_than_one(tmp_path, function):
  file = dicom(WindowCenter=1040, WindowWidth=0.5, VOILUTFunction=function)
  share = np.clip((RAMP - 1040.0) / 0.5, -9, 9)
  want = (np.clip(share + 0.5, 0, 1) if function == 'LINEAR_EXACT'
          else 1 / (1 + np.exp(-4 * share)))
  np.testing.assert_array_equal(deep(tmp_path, file), np.rint(want * 65535))


def test_colours_and_frames(tmp_path):
  colours = np.random.RandomState(0).randint(0, 256, (8, 8, 3)).astype('u1')
  eight = dict(SamplesPerPixel=3, PhotometricInterpretation='RGB',
               PlanarConfiguration=0, BitsAllocated=8, BitsStored=8, HighBit=7)
  content = dicom(colours, **eight)
  found = decoded(tmp_path, content, channels=3)
  np.testing.assert_array_equal(found.pixels, colours)
  assert not found.pages
  np.testing.assert_array_equal(
      decoded(tmp_path, content, channels=3, keep_depth=True).pixels,
      colours * np.uint16(257))
  frames = decoded(tmp_path, dicom(np.stack([RAMP, RAMP // 2]),
                                   NumberOfFrames=2))
  assert frames.pages
  np.testing.assert_array_equal(
      frames.pixels[..., 0], np.rint(RAMP / 4095 * 255))


@pytest.mark.parametrize('change, words', [
    (lambda x: x[:-40], 'damaged DICOM'),
    (lambda x: x[:200], 'DICOM file'),
    (lambda x: x.replace(b'MONOCHROME2 ', b'PALETTE COLO'), 'DICOM'),
    (lambda x: dicom(PhotometricInterpretation='PALETTE COLOR'), 'palette'),
    (lambda x: dicom(RescaleSlope='1.5').replace(b'1.5 ', b'nan '),
     'rescale or window is no finite'),
    (lambda x: dicom(RescaleIntercept='1.5').replace(b'1.5 ', b'inf '),
     'rescale or window is no finite'),
    (lambda x: dicom(WindowCenter='1.5', WindowWidth='9').replace(
        b'1.5 ', b'nan '), 'rescale or window is no finite'),
    (lambda x: x.replace(b'1.2.840.10008.1.2.1\0', b'1.2.840.10008.1.2.4.70'),
     'DICOM')])
def test_what_cannot_be_read_says_why_without_a_value(tmp_path, change, words):
  with pytest.raises(image_files.Unreadable, match=words) as refusal:
    decoded(tmp_path, change(dicom()))
  assert 'Zyx' not in repr(refusal.value) and refusal.value.__cause__ is None


def test_no_element_of_a_patient_comes_into_any_output(tmp_path, capsys):
  data = tmp_path / 'data'
  for client in 'ab':
    (data / client).mkdir(parents=True)
    (data / client / 'IM0001').write_bytes(dicom())
    (data / client / '1.dcm').write_bytes(dicom(RAMP // 2))
    (data / client / '2.dcm').write_bytes(dicom()[:-50])
    (data / client / '3.dcm').write_bytes(dicom(BitsStored=99))
  read = set()
  element = pydicom.Dataset.__getitem__

  def watched(self, key):
    read.add(pydicom.tag.Tag(key) if not isinstance(key, slice) else key)
    return element(self, key)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(pydicom.Dataset, '__getitem__', watched)
    found = sources.load(f'folder:{data}', image_size=8)
  assert len(found.train_images) == 4 and len(found.skipped) == 4
  assert read and not any(
      tag.group in (0x0010, 0x0008) for tag in read
      if not isinstance(tag, slice) and tag != 0x00080005)
  header = dicom_files.header(dicom())
  assert {x.keyword for x in header} <= set(dicom_files._TAGS)
  console = Console(file=io.StringIO(), width=200)
  parts = [np.flatnonzero(found.owners == i) for i in range(2)]
  data_record.show(found, parts, console)
  (tmp_path / 'run').mkdir()
  data_record.write(tmp_path / 'run', found, parts,
                    data_record.digests(found, parts))
  said = console.file.getvalue() + json.dumps(found.files.summary()) + ''.join(
      capsys.readouterr()) + ''.join(reading_report.lines(found.files))
  assert 'Zyx' not in said and 'damaged DICOM' in said
  kept = [path for path in tmp_path.rglob('*') if path.is_file()
          and path.suffix != '.dcm' and path.name != 'IM0001']
  assert len(kept) >= 3
  for path in kept:  # caches, skipped.json, images.json
    assert b'Zyx' not in path.read_bytes(), path


# --- HEIC --------------------------------------------------------------------


def heic(mode, size, content):
  buffer = io.BytesIO()
  pillow_heif.from_bytes(mode=mode, size=size, data=content.tobytes()).save(
      buffer, quality=-1)
  return buffer.getvalue()


def test_photographs_of_phones_are_read(tmp_path):
  ramp = np.linspace(0, 255, 64 * 64).astype(np.uint8).reshape(64, 64)
  content = heic('RGB', (64, 64), np.repeat(ramp[..., None], 3, -1))
  found = decoded(tmp_path, content, size=64, channels=3)
  np.testing.assert_allclose(found.pixels[..., 1].astype(int), ramp, atol=3)
  assert not found.pages
  assert not {'HEIF', 'HEIC'} & set(Image.OPEN)


def test_photographs_of_ten_bits_keep_them(tmp_path):
  ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
  content = heic('I;16', (64, 64), ramp)
  found = deep(tmp_path, content, size=64)
  np.testing.assert_allclose(found.astype(int), ramp, atol=300)
  assert len(np.unique(found)) > 500 and found.max() > 65300
  eight = decoded(tmp_path, content, size=64).pixels[..., 0]
  np.testing.assert_allclose(eight.astype(int), ramp >> 8, atol=3)


# --- without the extras ------------------------------------------------------


def test_a_line_says_which_extra_reads_what_was_passed_over(
    tmp_path, monkeypatch):
  photograph = heic('RGB', (8, 8), np.zeros((8, 8, 3), np.uint8))
  for client in 'ab':
    (tmp_path / client).mkdir()
    Image.new('L', (8, 8)).save(tmp_path / client / '0.png')
    (tmp_path / client / '1.HEIC').write_bytes(photograph)
    (tmp_path / client / 'IM0001').write_bytes(dicom())
  (tmp_path / 'a' / '2.dcm').write_bytes(dicom())
  (tmp_path / 'a' / '3.jpg').write_bytes(photograph)

  def load():
    image_files._extensions.cache_clear()
    return sources.load(f'folder:{tmp_path}', image_size=8)
  monkeypatch.setattr(optional_readers, '_is_installed', lambda _: False)
  try:
    data = load()
    assert len(data.train_images) == 2
    assert reading_report.lines(data.files)[1:3] == [
        "data: 2 HEIC files were passed over; pip install 'fedu_jax[heic]' "
        'lets them be read',
        "data: 3 DICOM files were passed over; pip install 'fedu_jax[dicom]' "
        'lets them be read']
    assert 'a/3.jpg (in HEIC, which fedu_jax[heic] reads)' in data.skipped
  finally:
    monkeypatch.undo()
    image_files._extensions.cache_clear()
  data = load()
  assert len(data.train_images) == 8 and not data.skipped
  with pytest.raises(BadInput, match='window is set, which is for folder'):
    sources.load('digits', window='full')
