"""How Sphinx makes a site of these pages: see CONTRIBUTING.md."""

import importlib
import inspect
import pathlib
import re

README = pathlib.Path(__file__).parents[1] / 'README.md'

project = 'fedu_jax'
author = 'The fedu_jax authors'
project_copyright = 'the fedu_jax authors'

# MyST reads Markdown; autodoc and napoleon read our docstrings.
extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon']
html_theme = 'furo'
html_title = 'fedu_jax'
html_show_copyright = False
html_show_sourcelink = False

myst_heading_anchors = 3  # as GitHub, so that page.md#a-heading resolves
myst_links_external_new_tab = False

default_role = 'code'  # our docstrings write `name`
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
autodoc_typehints = 'signature'
autodoc_member_order = 'bysource'
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 80


def _read(app, docname, source):
  """Makes README.md the home page, and links to other files plain text."""
  text = source[0]
  if docname == 'index':
    app.env.note_dependency(str(README))
    contents = re.search(r'```{toctree}\n.*', text, re.DOTALL)[0]
    text = README.read_text().replace('](docs/', '](') + '\n' + (
        contents.replace('{toctree}', '{toctree}\n:hidden:\n'))
  text = text.replace('](../README.md', '](index.md')
  source[0] = re.sub(r'\[([^]]*)\]\((?:\.\./)?[A-Z]+(?:\.md)?\)', r'\1', text)


def _name_fields(app, what, name, obj, options, signature, returned):
  """Shows a NamedTuple by its fields' names: their types follow below it."""
  del app, name, options
  if what == 'class' and hasattr(obj, '_fields'):
    return f'({", ".join(obj._fields)})', None
  return signature, returned


def _field_comment(app, what, name, obj, options, lines):
  """Describes a NamedTuple's field by the comment behind it, if any."""
  del app, what, obj, options
  if lines and lines[0].startswith('Alias for field number'):
    owner, field = name.rsplit('.', 1)
    found = re.search(rf'^  {field}: (?:(?!  # ).)*  # (?:type: \S+  # )?(.*)$',
                      inspect.getsource(_found(owner)), re.MULTILINE)
    lines[:] = [found[1] if found else '', '']


def _found(name):
  """The class of a dotted name."""
  module, name = name.rsplit('.', 1)
  return getattr(importlib.import_module(module), name)


def setup(app):
  app.connect('source-read', _read)
  app.connect('autodoc-process-signature', _name_fields)
  app.connect('autodoc-process-docstring', _field_comment)
