"""docs/walkthrough.md, executed block by block as its reader would."""

import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
from PIL import Image, ImageOps
import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / 'docs/walkthrough.md').read_text()
BLOCKS = re.findall(r'```(python|sh)\n(.*?)```', PAGE, re.DOTALL)


def execute(kind, code, place):
  """Runs one block in a process of its own; returns what it printed."""
  done = subprocess.run(
      [sys.executable, '-c', code] if kind == 'python' else
      ['bash', '-euo', 'pipefail', '-c', code],
      cwd=place, text=True, capture_output=True, check=False,
      env={**os.environ, 'PYTHONPATH': str(ROOT), 'COLUMNS': '200',
           'PATH': f'{pathlib.Path(sys.executable).parent}:'
                   + os.environ['PATH']})
  assert done.returncode == 0, f'{code}\n{done.stdout}\n{done.stderr}'
  return done.stdout


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  """The reader's folder after all blocks, and what each block printed."""
  pytest.importorskip('timm')
  folder = tmp_path_factory.mktemp('walkthrough')
  (_, folders), *others = [block for block in BLOCKS
                           if not block[1].startswith('pip ')]
  execute('python', folders, folder)
  add_odd_files(folder / 'images/south')
  printed = [execute(kind, code, folder) for kind, code in others]
  return folder, '\n'.join(printed)


def add_odd_files(site):
  """Adds what real sites have: three images of other kinds, and no image."""
  from sklearn.datasets import load_sample_images
  colours = load_sample_images().images[0]  # [427, 640, 3]
  Image.fromarray(colours).convert('CMYK').save(site / 'print.jpg')
  Image.fromarray(colours.sum(2, dtype=np.uint16) * 85).save(
      site / 'microscope.png')
  frames = [Image.fromarray(colours[i:i + 300]) for i in (0, 50)]
  frames[0].save(site / 'moving.gif', save_all=True, append_images=frames[1:])
  (site / 'notes.txt').write_text('from the camera')
  (site / '.DS_Store').write_bytes(b'Bud1')


def test_the_damaged_file_is_named(place):
  folder, printed = place
  assert 'damaged.jpg' in (folder / 'run/skipped.json').read_text()
  assert 'read 63 of 66 files' in printed


def test_the_run_is_scored_on_the_labelled_folder(place):
  folder, _ = place
  summary = json.loads((folder / 'run/summary.json').read_text())
  assert summary['rounds'] == 2
  assert 0.5 < summary['linear_accuracy'] <= 1


def test_the_exported_file_has_the_score_of_the_run(place):
  folder, printed = place
  summary = json.loads((folder / 'run/summary.json').read_text())
  score = f"{100 * summary['linear_accuracy']:.2f} %"
  assert score in printed[printed.rindex('encoder.safetensors'):]


def test_embeddings_have_a_row_for_each_file(place):
  from pyarrow import parquet
  folder, _ = place
  table = parquet.read_table(folder / 'embeddings.parquet').to_pydict()
  names = next(values for values in table.values()
               if isinstance(values[0], str))
  assert len(names) == len(set(names)) == 63
  assert 'south/camera 2/003.jpg' in names
  page = (folder / 'page.html').read_text()
  assert 'south/camera 2/003.jpg' in page and 'Near-duplicates' in page


def test_the_snippets_for_other_programs_run(place):
  """All of docs/encoders.md, on the run of the walkthrough."""
  folder, _ = place
  page = (ROOT / 'docs/encoders.md').read_text().replace('/tmp/run', 'run')
  blocks = re.findall(r'```python\n(.*?)```', page, re.DOTALL)
  assert len(blocks) > 4
  # timm's, of which the page reads any file.
  (folder / 'start.safetensors').rename(folder / 'resnet18.safetensors')
  prelude = ('import numpy as np\npath = "images/north/000.jpg"\n'
             'images = np.zeros((2, 96, 96, 3), np.uint8)\n')
  execute('python', '\n'.join([prelude, *blocks]), folder)


def test_other_programs_give_the_same_features(place):
  """ONNX Runtime on pixels, beside the PyTorch of the page."""
  runtime = pytest.importorskip('onnxruntime')
  import fedu_jax
  folder, _ = place
  files = sorted((folder / 'images').rglob('0*.jpg'))[:5]
  pixels = np.stack([np.asarray(ImageOps.fit(
      Image.open(file), (96, 96), Image.Resampling.BILINEAR))
      for file in files])
  session = runtime.InferenceSession(str(folder / 'encoder.onnx'))
  theirs, = session.run(None, {session.get_inputs()[0].name: pixels})
  ours = fedu_jax.load(folder / 'encoder.safetensors')(pixels)
  np.testing.assert_allclose(theirs, ours, atol=1e-4 * np.abs(ours).max())
