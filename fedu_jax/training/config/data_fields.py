"""The fields of a config's section `data`, see `fields`."""

from fedu_jax.data import image_files
from fedu_jax.data import pixel_arrays
from fedu_jax.training.config.field import Field
from fedu_jax.training.config.value_checks import client_depth
from fedu_jax.training.config.value_checks import count
from fedu_jax.training.config.value_checks import flag
from fedu_jax.training.config.value_checks import folder
from fedu_jax.training.config.value_checks import labelled
from fedu_jax.training.config.value_checks import MANY
from fedu_jax.training.config.value_checks import names
from fedu_jax.training.config.value_checks import one_of
from fedu_jax.training.config.value_checks import source
from fedu_jax.training.config.value_checks import window

FIELDS = (
    Field('data.source', 'tfds:cifar10', source,
          'tfds:<set>, digits, npz:<file>, folder:<dir>, or your own '
          'package.module:function'),
    Field('data.dir', '', folder, "folder of TFDS's sets; '' = TFDS's default"),
    Field('data.image_size', 0, count(0, 4096),
          "pixels of a side; 0 = the images' own, and 32 for folder:<dir>"),
    Field('data.fit', 'crop', one_of(*image_files.FITS),
          'folder: how an image becomes square; pad = with black around it',
          before='crop'),
    Field('data.depth', 0, one_of(*image_files.DEPTHS),
          'folder: the bits of images of 16 bits; with 12, 4095 becomes white. '
          '0 = as many as the largest value of a client needs', before=0),
    Field('data.colours', 'stored', one_of(*image_files.COLOURS),
          'folder: stored = colours as in the file; seen = as a viewer shows '
          'transparent pixels and colour profiles, in sRGB over white',
          before='stored'),
    Field('data.channels', 3, one_of(*pixel_arrays.CHANNELS[::-1]),
          '3 = colours; 1 = grey images, of colours their luma', before=3),
    Field('data.keep_depth', False, flag,
          'whether images of more than 8 bits keep their depth, as uint16 with '
          '65535 as full scale. False = 8 bits', before=False),
    Field('data.window', 'file', window,
          'DICOM: file = the window that a file has, or full; full = all '
          "stored values; '40,400' = centre and width, for all files",
          before='file'),
    Field('data.leave_out', '', names,
          "folder: names of folders in it that are not read, such as 'test,"
          "site 0/old'", before=''),
    Field('data.client_depth', '1', client_depth,
          "folder: 1 = the clients' folders are in it; 2 = they are in folders "
          'in it, and so on; leaf = each folder that has images is a client',
          before='1'),
    Field('data.test', '', labelled,
          'labelled images for scores: folder:<dir> with a folder for each '
          'class, or csv:<file> with the columns file and label. Half of them '
          "train probes. '' = the source's own", before=''),
    Field('data.max_examples', 0, count(0, MANY),
          'training images to keep, evenly over owners and classes; 0 = all'),
)
