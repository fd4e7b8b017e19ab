"""Star ratings in XMP: read from a picture or its sidecar, written to sidecars only.

`xmp:Rating` is 0 ... 5, or -1 for a rejected picture, which counts as 0 here. Sidecars have one of two names:
`photo.jpg.xmp` (darktable, digiKam) or `photo.xmp` (Lightroom, Bridge). The first has priority when reading and is the
one written.

`write_stars` also writes the attribute `aesthetic:Rating` with the same number. If that attribute is missing or
differs, the stars were set by the user and are never replaced.
"""

import re
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.files import is_file, write_atomically

MOST_STARS = 5
_RATING = re.compile(rb"""xmp:Rating(\s*=\s*(["'])\s*|\s*>\s*)(-?\d+(?:\.\d+)?)""")
_DESCRIPTION = re.compile(rb"<rdf:Description(?=[\s/>])")
_NAMESPACE = b"http://ns.adobe.com/xap/1.0/"
_XMP_KEYS = ("xmp", "XML:com.adobe.xmp")
_TIFF_XMP = 700
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")

MOST_BYTES = 16 * 2**20
"""A larger sidecar is not read."""

_OURS = re.compile(rb"""aesthetic:Rating\s*=\s*["'](\d)["']""")
_OUR_NAMESPACE = b"urn:custom-aesthetic-training"

_NEW_SIDECAR = b"""<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
   xmlns:aesthetic="urn:custom-aesthetic-training" xmp:Rating="%d" aesthetic:Rating="%d"/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""


def read_stars(picture: Path) -> int | None:
    """Return the stars of a picture, 0 ... 5, from its sidecar or else from the picture itself; None if it has none.

    Raises UserError if a sidecar cannot be read.
    """
    for sidecar in (sidecar_of(picture), lightroom_sidecar_of(picture)):
        stars = stars_in(_read_sidecar(sidecar) or b"")
        if stars is not None:
            return stars
    return stars_in(_embedded(picture))


def stars_in(packet: bytes) -> int | None:
    """Return the stars in an XMP packet, 0 ... 5; None if it has none."""
    found = _RATING.search(packet)
    return None if found is None else round(min(max(float(found[3]), 0), MOST_STARS))


def sidecar_of(picture: Path) -> Path:
    """Return the path of the picture's sidecar: `photo.jpg.xmp` for `photo.jpg`."""
    return picture.with_name(picture.name + ".xmp")


def lightroom_sidecar_of(picture: Path) -> Path:
    """Return the path of the sidecar that Lightroom uses: `photo.xmp` for `photo.jpg`, shared with `photo.cr2`."""
    return picture.with_suffix(".xmp")


def write_stars(picture: Path, stars: int) -> Path | None:
    """Write the stars, 0 ... 5, to the picture's sidecar and return its path; None if the user has set stars.

    The rest of an existing sidecar is kept, and the picture itself is not changed. Raises UserError if the sidecar
    cannot be read or written, or is not XMP.
    """
    assert 0 <= stars <= MOST_STARS
    sidecar = sidecar_of(picture)
    before = _read_sidecar(sidecar)
    if not _is_ours(before) and read_stars(picture) is not None:
        return None
    after = _NEW_SIDECAR % (stars, stars) if before is None else _with_stars(before, stars)
    if after is None:
        raise UserError(f"the sidecar {sidecar} is not XMP that stars can be written to; repair it or move it away")
    write_atomically(sidecar, after)
    return sidecar


def _read_sidecar(sidecar: Path) -> bytes | None:
    """Return the content of a sidecar, None if there is no such file; UserError if it cannot be read."""
    if not is_file(sidecar):
        return None
    try:
        with sidecar.open("rb") as stream:
            packet = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"the sidecar {sidecar} cannot be read: {error.strerror}; check its permissions") from None
    if len(packet) > MOST_BYTES:
        raise UserError(
            f"the sidecar {sidecar} is larger than {MOST_BYTES // 2**20} MiB, so it is not XMP; move it away"
        )
    return packet


def _is_ours(packet: bytes | None) -> bool:
    """Return whether the stars in a sidecar were written by `write_stars` and not changed since."""
    mark = None if packet is None else _OURS.search(packet)
    return packet is not None and mark is not None and stars_in(packet) == int(mark[1])


def _with_stars(packet: bytes, stars: int) -> bytes | None:
    """Return the packet with the stars replaced, or added to its first description; None if that is not possible."""
    after = _put_in(packet, stars)
    return after if after is not None and stars_in(after) == stars and _is_xml(after) else None


def _put_in(packet: bytes, stars: int) -> bytes | None:
    digit = b"%d" % stars
    if _is_ours(packet):
        for pattern, group in ((_RATING, 3), (_OURS, 1)):
            found = pattern.search(packet)
            assert found is not None
            packet = packet[: found.start(group)] + digit + packet[found.end(group) :]
        return packet
    description = _DESCRIPTION.search(packet)
    if description is None:
        return None
    declared = b"" if b"xmlns:xmp=" in packet else b' xmlns:xmp="%s"' % _NAMESPACE
    ours = b' xmlns:aesthetic="%s" aesthetic:Rating="%s"' % (_OUR_NAMESPACE, digit)
    return packet[: description.end()] + declared + b' xmp:Rating="%s"' % digit + ours + packet[description.end() :]


def _is_xml(packet: bytes) -> bool:
    try:
        ElementTree.fromstring(packet)
    except (ElementTree.ParseError, ValueError, LookupError):  # LookupError: an unknown encoding
        return False
    return True


def _embedded(picture: Path) -> bytes:
    """Return the XMP packet in a picture; empty if it has none or cannot be read."""
    Image.init()
    try:
        with Image.open(picture, formats=_FORMATS) as image:
            packet = next((image.info[key] for key in _XMP_KEYS if key in image.info), b"")
            if not packet and image.format == "TIFF":
                packet = getattr(image, "tag_v2", {}).get(_TIFF_XMP, b"")
    except Exception:  # what a decoder raises depends on the format and the damage
        return b""
    if isinstance(packet, str):
        return packet.encode("utf-8", "replace")
    return packet if isinstance(packet, bytes) else b""  # a TIFF tag may have any type
