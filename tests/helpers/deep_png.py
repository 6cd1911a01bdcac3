"""Writes PNG files of 16 bits, which Pillow cannot write in colour."""

import struct
import zlib


def deep_png(values, kind):
  """Returns the content of a PNG file.

  Args:
    values: [H, W] or [H, W, C], from 0 to 65535.
    kind: PNG's colour type: 0 for grey, 2 for RGB, 4 and 6 with alpha.
  """
  def chunk(name, data):
    return (struct.pack('>I', len(data)) + name + data
            + struct.pack('>I', zlib.crc32(name + data)))
  height, width = values.shape[:2]
  rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in values)
  return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack(
      '>IIBBBBB', width, height, 16, kind, 0, 0, 0))
          + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b''))
