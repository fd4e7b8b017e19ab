"""Stars in XMP: read from a picture or the sidecar beside it, written to sidecars only.

`xmp:Rating` is 0 ... 5, and -1 for a rejected picture, which counts as 0 here. Two names of sidecars are in use:
`photo.jpg.xmp` (darktable, digiKam) and `photo.xmp` (Lightroom, Bridge); the first wins, and is the one written.

Stars written here carry a second attribute of their own, with the same number. Where it is missing or differs, the
stars are the user's, and are never replaced.
"""

import re
from pathlib import Path

from PIL import Image

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.files import write_atomically

MOST_STARS = 5
_RATING = re.compile(rb"""xmp:Rating(\s*=\s*(["'])\s*|\s*>\s*)(-?\d+(?:\.\d+)?)""")
_DESCRIPTION = re.compile(rb"<rdf:Description(?=[\s/>])")
_NAMESPACE = b"http://ns.adobe.com/xap/1.0/"
_XMP_KEYS = ("xmp", "XML:com.adobe.xmp")
_TIFF_XMP = 700
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")

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
    """Return the stars of a picture, 0 ... 5: from its sidecar, else from the picture itself; None if it has none."""
    for sidecar in (sidecar_of(picture), picture.with_suffix(".xmp")):
        if sidecar.is_file():
            stars = stars_in(sidecar.read_bytes())
            if stars is not None:
                return stars
    return stars_in(_embedded(picture))


def stars_in(packet: bytes) -> int | None:
    """Return the stars that an XMP packet gives, 0 ... 5; None if it gives none."""
    found = _RATING.search(packet)
    return None if found is None else min(max(round(float(found[3])), 0), MOST_STARS)


def sidecar_of(picture: Path) -> Path:
    """Return the sidecar's place: the picture's whole name with `.xmp`."""
    return picture.with_name(picture.name + ".xmp")


def write_stars(picture: Path, stars: int) -> Path | None:
    """Write the stars, 0 ... 5, to the picture's sidecar and return it; None if the user has given stars already.

    All else in an existing sidecar is kept, and the picture itself is never written to.
    """
    assert 0 <= stars <= MOST_STARS
    sidecar = sidecar_of(picture)
    try:
        before = sidecar.read_bytes() if sidecar.exists() else None
    except OSError as error:
        raise UserError(f"the sidecar {sidecar} cannot be read: {error.strerror}; check its permissions") from None
    if not _is_ours(before) and read_stars(picture) is not None:
        return None
    after = _NEW_SIDECAR % (stars, stars) if before is None else _with_stars(before, stars)
    if after is None:
        raise UserError(f"the sidecar {sidecar} is not XMP that stars can be put in; mend it or move it away")
    write_atomically(sidecar, after)
    return sidecar


def _is_ours(packet: bytes | None) -> bool:
    """Whether the stars in a sidecar were written here, and not changed since."""
    mark = None if packet is None else _OURS.search(packet)
    return packet is not None and mark is not None and stars_in(packet) == int(mark[1])


def _with_stars(packet: bytes, stars: int) -> bytes | None:
    """Return the packet with our stars replaced, or put into its first description; None if it has none."""
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


def _embedded(picture: Path) -> bytes:
    """Return the XMP packet in a picture; empty if there is none or the picture cannot be read."""
    Image.init()
    try:
        with Image.open(picture, formats=_FORMATS) as image:
            packet = next((image.info[key] for key in _XMP_KEYS if key in image.info), b"")
            if not packet and image.format == "TIFF":
                packet = getattr(image, "tag_v2", {}).get(_TIFF_XMP, b"")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return b""
    return packet.encode("utf-8", "replace") if isinstance(packet, str) else bytes(packet)
