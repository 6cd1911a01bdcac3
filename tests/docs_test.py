"""README.md and docs/: snippets run, and the names in them exist."""

import ast
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = {str(path.relative_to(ROOT)): path.read_text()
         for pattern in ('*.md', 'docs/**/*.md', 'benchmarks/*.md',
                         'benchmarks/*/README.md', '.github/**/*.md')
         for path in sorted(ROOT.glob(pattern))}
# A changelog also names what is gone.
NOW = {name: text for name, text in PAGES.items() if name != 'CHANGELOG.md'}
NOTEBOOK = 'docs/notebooks/digits.md'
# Pages with tests of their own: their blocks need what stands before them. The
# last two are those of tests/walkthrough_test.py.
APART = {'README.md', 'docs/swapping.md', NOTEBOOK, 'docs/walkthrough.md',
         'docs/encoders.md'}
MODULE = re.compile(r'python3? -m ((?:fedu_jax|benchmarks)[\w.]*)([^\n`&\']*)')


@pytest.fixture
def names():
  """An empty namespace with JAX's default, which allows rank promotion."""
  import jax
  with jax.numpy_rank_promotion('allow'):
    yield {}


def run_snippets(page, names):
  """Executes a page's Python in order; returns the number of blocks."""
  blocks = re.findall(r'```python\n(.*?)```', PAGES[page], re.DOTALL)
  for block in blocks:
    exec(compile(block, page, 'exec'), names)
  return len(blocks)


def test_the_readme_is_short():
  assert 5000 <= (ROOT / 'README.md').stat().st_size <= 7000


def test_its_commands_are_what_others_run():
  """`.ci/run` greps the second. Users know both by heart."""
  assert re.findall('^python3 .*', PAGES['README.md'], re.MULTILINE) == [
      'python3 -m venv .venv && .venv/bin/pip install -q -e . && '
      '.venv/bin/python -m fedu_jax.main --config=configs/quickstart.py '
      '--workdir=/tmp/quickstart',
      "python3 -m venv .venv && .venv/bin/pip install -q -e '.[test,parity]' "
      '&& .venv/bin/python -m pytest']


def test_the_map_names_what_there_is():
  block = re.search(r'```text\n(.*?)```', PAGES['README.md'], re.DOTALL)[1]
  for line in block.splitlines():
    for name in line.partition('  ')[0].split():
      path = ROOT / 'fedu_jax' / name
      assert (path.is_dir() or path.with_suffix('.py').exists()
              or name == '...'), name


def test_the_composition_and_the_swapped_pieces_train(names):
  """The blocks of both pages train a round of the same federation."""
  assert run_snippets('README.md', names) == 1
  assert run_snippets('docs/swapping.md', names) == 1
  assert names['server'].round == 2
  assert names['clients'].last_round.tolist() == [1, 1, 1]
  assert 0 < float(names['metrics']['loss'].mean()) < 8


def test_other_snippets_run(names):
  """Those of pages that need no names of another page."""
  for page in PAGES.keys() - APART:
    run_snippets(page, dict(names))


def test_a_method_in_one_file_runs_by_its_name(tmp_path):
  """Its clients send and receive the network and a mean of 8 numbers."""
  page = PAGES['docs/adding-a-method.md']
  code, = re.findall(r'```python\n(.*?)```', page, re.DOTALL)
  assert len(code.splitlines()) < 60
  (tmp_path / 'my_method.py').write_text(code)
  command, = re.findall(r'```sh\npython (.*?)```', page, re.DOTALL)
  command = command.replace('\\\n', '').replace('/tmp', str(tmp_path))
  done = subprocess.run(
      [sys.executable, *command.split()], cwd=tmp_path, text=True,
      capture_output=True, check=False,
      env={**os.environ, 'PYTHONPATH': str(ROOT)})
  assert done.returncode == 0, done.stdout + done.stderr
  rows = [json.loads(line) for line in (
      tmp_path / 'my_method' / 'metrics.jsonl').read_text().splitlines()]
  clients, network = 5, network_bytes()
  for row in rows:
    assert row['bytes_up'] == row['bytes_down'] == clients * (network + 4 * 8)
    assert 0 < row['loss'] < 20
  assert len(rows) == 2


def network_bytes():
  """Returns the bytes of the online network of the config `smoke`."""
  import jax

  from configs import smoke
  import fedu_jax
  from fedu_jax.training.config import binding
  nets = binding.bind(smoke.get_config(), 'model')()
  return fedu_jax.trees.num_bytes(jax.eval_shape(
      lambda: fedu_jax.init_online(nets, jax.random.key(0), jax.numpy.zeros(
          (2, 8, 8, 3)))))


def test_the_notebook_runs(names, monkeypatch, capsys):
  """As a program, with small numbers: it trains, scores and draws."""
  pytest.importorskip('matplotlib').use('Agg')
  size = re.search(r'(?<=ROUNDS, EPOCHS, EXAMPLES, WIDTH = ).*',
                   PAGES[NOTEBOOK])
  small = PAGES[NOTEBOOK].replace(size[0], '2, 1, 200, 2')
  monkeypatch.setitem(PAGES, NOTEBOOK, small)
  run_snippets(NOTEBOOK, names)
  assert names['server'].round == 2
  assert names['clients'].last_round.tolist() == 5 * [1]
  assert [row['drift'].shape for row in names['history']] == 2 * [(5,)]
  for kinds in names['scores'].values():
    assert all(0.1 < score <= 1 for score in kinds.values())
  folder = pathlib.Path(capsys.readouterr().out.split()[-1])
  assert {path.name for path in folder.iterdir()} == {
      path.name for path in (ROOT / NOTEBOOK).parent.glob('*.png')}


def without_code(text):
  return re.sub(r'```.*?```|`[^`\n]*`', '', text, flags=re.DOTALL)


def anchors(path):
  """Returns the ids of a Markdown file's headings, as GitHub makes them."""
  text = re.sub(r'```.*?```', '', path.read_text(), flags=re.DOTALL)
  titles = re.findall(r'^#+ (.*)$', text, re.MULTILINE)
  return {re.sub(r'[^\w\- ]', '', title.lower()).strip().replace(' ', '-')
          for title in titles}


@pytest.mark.parametrize('page', PAGES)
def test_links_resolve(page):
  here = (ROOT / page).parent
  for link in re.findall(r'\]\(([^)\s]+)\)', without_code(PAGES[page])):
    if re.match(r'https?://|mailto:', link):
      continue
    file, _, anchor = link.partition('#')
    target = here / file if file else ROOT / page
    assert target.exists(), link
    if anchor:
      assert anchor in anchors(target), link


def test_a_page_is_found():
  """The README and the site's contents link to each page of docs/."""
  for page in PAGES:
    if page.startswith('docs/') and page != 'docs/index.md':
      name = page.removeprefix('docs/').removesuffix('.md')
      assert f'(docs/{name}.md' in PAGES['README.md'], page
      assert f'\n{name}\n' in PAGES['docs/index.md'], page


@pytest.mark.parametrize('page', NOW)
def test_paths_exist(page):
  ours = (r'(?<![\w/.])(?:configs|tests|benchmarks|fedu_jax|docs|\.github)/'
          r'[\w/.-]*\w')
  for path in re.findall(ours, NOW[page]):
    assert (ROOT / path).exists(), path


@pytest.mark.parametrize('page', NOW)
def test_fields_exist(page):
  from fedu_jax.training.config import checks
  for name in re.findall(r'--config\.([\w.]*\w)', NOW[page]):
    assert name in checks.FIELDS, name


@pytest.mark.parametrize('page', NOW)
def test_fields_in_sentences_exist(page):
  """For example `data.depth=0`, without the rest of the flag."""
  from fedu_jax.training.config import checks
  sections = {name.partition('.')[0] for name in checks.FIELDS if '.' in name}
  for section, name in re.findall(
      r'`(?:config\.)?(\w+)\.(\w+)(?:=[^`]*)?`', NOW[page]):
    if section in sections and name not in ('name', 'py', 'json', 'jsonl'):
      assert f'{section}.{name}' in checks.FIELDS, (section, name)


def flags_of(module):
  """Returns the flags of one of our commands, read from its source."""
  path = ROOT / (module.replace('.', '/') + '.py')
  if not path.exists():
    path = path.with_suffix('') / '__main__.py'
  text = path.read_text()
  found = set(re.findall(r'DEFINE_\w+\(\s*[\'"](\w+)', text))
  found |= set(re.findall(r'add_argument\(\s*[\'"]--([\w-]+)', text))
  if 'config_flag.define()' in text:
    found.add('config')
  if 'import plan_flags' in text:
    found |= flags_of('fedu_jax.plan.plan_flags')
  if 'import named_flags' in text:
    found |= flags_of('fedu_jax.training.named_flags')
  if 'timing.parser' in text:
    found |= flags_of('benchmarks.lib.timing')
  if 'add_convolution' in text:
    found.add('convolution')
  return found | {'help', 'helpfull'}


COMMANDS = [f'fedu_jax.{name}' for name in (
    'main', 'evaluate', 'export', 'embed', 'plan', 'experiments')] + [
        'tests.faults', 'benchmarks.gpu_day'] + [
        f'benchmarks.{path.stem}'
        for path in sorted((ROOT / 'benchmarks').glob('*_bench.py'))]


@pytest.mark.parametrize('page', NOW)
def test_flags_exist(page):
  """Flags in commands, and flags in sentences."""
  for module, rest in MODULE.findall(NOW[page]):
    for name in re.findall(r'--(\w[\w-]*)', rest):
      assert name in flags_of(module), (module, name)
  every = set().union(*map(flags_of, COMMANDS))
  for name in re.findall(r'(?<!`)`--(\w[\w-]*)', NOW[page]):
    assert name in every or name.startswith('xla_'), name


def public_names():
  """Returns the names in fedu_jax/__init__.py."""
  tree = ast.parse((ROOT / 'fedu_jax' / '__init__.py').read_text())
  return [(node.module, alias.name) for node in tree.body
          if isinstance(node, ast.ImportFrom) for alias in node.names]


def test_the_site_builds_without_a_warning(tmp_path):
  """The command of CONTRIBUTING.md builds it; its API page has all public
  names.
  """
  for module in ('sphinx', 'myst_parser', 'furo'):
    pytest.importorskip(module, reason="the extra 'docs' is not installed")
  command = re.search(r'^python (-m sphinx .*) docs build/docs$',
                      PAGES['CONTRIBUTING.md'], re.MULTILINE)
  assert command
  done = subprocess.run(
      [sys.executable, *command[1].split(), 'docs', tmp_path], cwd=ROOT,
      text=True, capture_output=True, check=False)
  assert done.returncode == 0, done.stdout + done.stderr
  api = (tmp_path / 'api.html').read_text()
  for module, name in public_names():
    file = ROOT.joinpath(*module.split('.'), f'{name}.py')
    wanted = (f'module-{module}.{name}' if file.exists()
              else f'fedu_jax.{name}')
    assert f'id="{wanted}"' in api, wanted
