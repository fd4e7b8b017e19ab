"""Star ratings in XMP: read from a picture or its sidecar, and put into an XMP packet.

`xmp:Rating` (older programs: `xap:Rating`) is 1 ... 5, 0 for unrated, or -1 for rejected, which `read_stars` reads as
0. Sidecars have one of two names: `photo.jpg.xmp` (darktable, digiKam) or `photo.xmp` (Lightroom, Bridge). The first
has priority when reading.

`with_stars` also writes `aesthetic:Rating` with the same number. If that is missing or differs, the rating was set by
the user and is never replaced.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.files import is_file
from custom_aesthetic.pictures.camera import open_metadata

MOST_STARS = 5
_RATING = re.compile(rb"""\bx[am]p:Rating(?:\s*=\s*["']\s*|\s*>\s*)(?P<value>-?\d+(?:\.\d+)?)""")
_DESCRIPTION = re.compile(rb"<rdf:Description(?=[\s/>])")
_NAMESPACE = b"http://ns.adobe.com/xap/1.0/"
_XMP_KEYS = ("xmp", "XML:com.adobe.xmp")
_TIFF_XMP = 700
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")

MOST_BYTES = 16 * 2**20
"""A larger sidecar is not read."""

_OURS = re.compile(rb"""aesthetic:Rating(?:\s*=\s*["']|\s*>\s*)(?P<value>\d)\b""")
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
    return next((stars for packet in packets_of(picture) if (stars := stars_in(packet)) is not None), None)


def packets_of(picture: Path) -> Iterator[bytes]:
    """Yield the XMP packets of a picture, empty if there is none: of `photo.jpg.xmp`, of `photo.xmp`, of the picture.

    Raises UserError if a sidecar cannot be read.
    """
    yield read_sidecar(sidecar_of(picture)) or b""
    yield read_sidecar(lightroom_sidecar_of(picture)) or b""
    yield embedded_packet(picture)


def stars_in(packet: bytes) -> int | None:
    """Return the stars in an XMP packet, 0 ... 5; None if it has none."""
    rating = rating_in(packet)
    return None if rating is None else max(rating, 0)


def rating_in(packet: bytes) -> int | None:
    """Return the rating in an XMP packet, 0 ... 5, or -1 for rejected; None if it has none."""
    found = _RATING.search(packet)
    return None if found is None else round(min(max(float(found["value"]), -1), MOST_STARS))


def sidecar_of(picture: Path) -> Path:
    """Return the path of the picture's sidecar: `photo.jpg.xmp` for `photo.jpg`."""
    return picture.with_name(picture.name + ".xmp")


def lightroom_sidecar_of(picture: Path) -> Path:
    """Return the path of the sidecar that Lightroom uses: `photo.xmp` for `photo.jpg`, shared with `photo.cr2`."""
    return picture.with_suffix(".xmp")


def read_sidecar(sidecar: Path) -> bytes | None:
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


def is_ours(packet: bytes) -> bool:
    """Return whether the rating of the packet is ours, and not changed since."""
    mark = _OURS.search(packet)
    return mark is not None and rating_in(packet) == int(mark["value"])


def is_rated_by_user(packet: bytes) -> bool:
    """Return whether the packet has a rating that the user set: 1 ... 5 stars, rejected, or a change of ours.

    A rating of 0 means unrated, and many cameras write it into every picture, so on its own it is not the user's.
    """
    rating = rating_in(packet)
    if rating is None or is_ours(packet):
        return False
    return rating != 0 or _OURS.search(packet) is not None


def with_stars(packet: bytes | None, stars: int) -> bytes | None:
    """Return the packet with our stars, 0 ... 5, and all else unchanged; a new packet for None.

    Returns None if the packet is not XMP that stars can be written to.
    """
    assert 0 <= stars <= MOST_STARS
    if packet is None:
        return _NEW_SIDECAR % (stars, stars)
    digit = b"%d" % stars
    after: bytes | None = packet
    for pattern, name, prefix, namespace in (
        (_RATING, b"xmp:Rating", b"xmlns:xmp", _NAMESPACE),
        (_OURS, b"aesthetic:Rating", b"xmlns:aesthetic", _OUR_NAMESPACE),
    ):
        after = None if after is None else _with_value(after, pattern, digit, name, prefix, namespace)
    return after if after is not None and stars_in(after) == stars and _is_xml(after) else None


def _with_value(
    packet: bytes, pattern: re.Pattern[bytes], digit: bytes, name: bytes, prefix: bytes, namespace: bytes
) -> bytes | None:
    """Return the packet with the value replaced, or added to the first description; None if it has none."""
    found = pattern.search(packet)
    if found is not None:
        return packet[: found.start("value")] + digit + packet[found.end("value") :]
    description = _DESCRIPTION.search(packet)
    if description is None:
        return None
    tag = packet[description.start() : packet.find(b">", description.end())]
    declared = b"" if prefix + b"=" in tag else b' %s="%s"' % (prefix, namespace)
    return packet[: description.end()] + declared + b' %s="%s"' % (name, digit) + packet[description.end() :]


def _is_xml(packet: bytes) -> bool:
    try:
        ElementTree.fromstring(packet)
    except (ElementTree.ParseError, ValueError, LookupError):  # LookupError: an unknown encoding
        return False
    return True


def embedded_packet(picture: Path) -> bytes:
    """Return the XMP packet in a picture; empty if it has none or cannot be read."""
    Image.init()
    try:
        with open_metadata(picture, _FORMATS) as image:
            packet = next((image.info[key] for key in _XMP_KEYS if key in image.info), b"")
            if not packet and image.format == "TIFF":
                packet = getattr(image, "tag_v2", {}).get(_TIFF_XMP, b"")
    except Exception:  # what a decoder raises depends on the format and the damage
        return b""
    if isinstance(packet, str):
        return packet.encode("utf-8", "replace")
    return packet if isinstance(packet, bytes) else b""  # a TIFF tag may have any type
