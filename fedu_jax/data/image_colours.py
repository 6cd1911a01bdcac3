"""Converts the colours of an image file to those that a viewer shows.

A file may store invisible colours under transparent pixels, mostly black. A
colour profile defines the colours of a file's numbers. Without it, photographs
with a wide gamut look pale, and images for print have wrong colours.
"""

import io

from PIL import Image, ImageCms

# The first letters of descriptions of sRGB; some programs shorten the name.
_USUAL = 'srgb', 'c2', 'urgb'
_SPACES = {'RGB': 'RGB', 'L': 'GRAY', 'CMYK': 'CMYK'}  # by Pillow's modes


def differ(file: Image.Image) -> bool:
  """Whether a viewer shows other colours than those in a decoded file."""
  return _alpha(file) is not None or _profile(file) is not None


def seen(image: Image.Image, file: Image.Image) -> Image.Image:
  """Converts 8-bit colours to those that a viewer shows: sRGB, over white.

  Args:
    image: the file's colours, in any mode of 8 bits.
    file: the decoded file, of the same size, with its alpha and its profile.

  Returns:
    An image of mode RGB. A profile that cannot be applied is ignored.
  """
  profile = _profile(file)
  mode = {'LA': 'L', 'La': 'L', '1': 'L'}.get(image.mode, image.mode)
  plain = image.convert(mode if mode in _SPACES else 'RGB')
  shown = plain.convert('RGB')
  if profile and profile.profile.xcolor_space.strip() == _SPACES[plain.mode]:
    try:
      converted = ImageCms.profileToProfile(
          plain, profile, ImageCms.createProfile('sRGB'), outputMode='RGB')
      shown = converted or shown
    except ImageCms.PyCMSError:
      pass
  alpha = _alpha(file)
  if alpha is None:
    return shown
  over = Image.new('RGB', shown.size, 'white')
  over.paste(shown, mask=alpha)
  return over


def _alpha(file: Image.Image) -> Image.Image | None:
  """The opacity of each pixel, in mode L; None if all pixels are opaque."""
  if file.mode.startswith(('I', 'F')) or not file.has_transparency_data:
    return None
  holds = file if 'A' in file.getbands() else file.convert('RGBA')
  alpha = holds.getchannel('A')
  least, _ = alpha.getextrema()
  return alpha if isinstance(least, (int, float)) and least < 255 else None


def _profile(file: Image.Image) -> ImageCms.ImageCmsProfile | None:
  """The profile of a file, if it is readable and not sRGB."""
  content = file.info.get('icc_profile')
  if not content:
    return None
  try:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
    name = ImageCms.getProfileDescription(profile).strip().lower()
  except (ImageCms.PyCMSError, OSError):
    return None
  return None if name.startswith(_USUAL) else profile
