"""Settings of the A/B scorer and of the folder scorer."""

from dataclasses import dataclass

from custom_aesthetic.settings.declaration import setting
from custom_aesthetic.settings.training import OFFLINE, REQUIRED, TABLE, TABLE_OF_PICTURES, DeviceSettings

STRATEGIES = ("adaptive", "random")
MODES = ("pair", "stars", "pick")

ENGINES = ("plain", "ray")
"""What the folder scorer runs on: this process, or Ray."""

XMP_PROGRAMS = ("darktable", "digikam", "immich", "lightroom")
"""Photo programs that read star ratings from XMP sidecars."""


@dataclass(frozen=True)
class ComparisonSettings:
    """Pictures and scores"""

    directory: str = setting(REQUIRED, "top-level image directory; sub-directories are included", short="-d")
    scores: str | None = setting(
        None,
        "score file to write, as JSON and as CSV, relative to the directory or absolute; an existing file is the "
        "starting point, and a backup of it is kept; the default is the first that exists of scores.json, score.json "
        "and scores.csv, else scores.json",
    )
    mode: str = setting(
        "pair",
        "what is asked: pair = which of two (or more) pictures is better, stars = 1 to 5 stars for one picture, pick = "
        "those you like of twelve; all answers go to the same log",
        choices=MODES,
    )
    question: str | None = setting(
        None, "the question that stands on the page; if not given, 'Which do you like more?', or what suits the mode"
    )
    criterion: str | None = setting(
        None,
        "a name, such as sharpness: its answers and scores are in files of their own, comparisons-NAME.csv and "
        "scores-NAME.json",
    )
    number_to_compare: int = setting(2, "pictures shown together, in the mode pair", low=2, high=4)
    strategy: str = setting(
        "adaptive",
        "how to choose the next pictures: adaptive = the most informative ones, random = all equally often",
        choices=STRATEGIES,
    )
    from_xmp: bool = setting(
        False,
        "start from the stars, pick flags and colour labels that you gave in photo programs, where they are in XMP, in "
        "the picture or beside it",
    )
    merge: tuple[str, ...] = setting((), "add the choices of another comparisons.csv first; can be given several times")
    recompute: bool = setting(False, "compute the scores from comparisons.csv, write them and stop, without a page")
    pairs: str | None = setting(
        None,
        "write the choices of comparisons.csv to this .parquet file as preference pairs with the pictures themselves, "
        "for DPO and reward models, and stop, without a page",
    )


@dataclass(frozen=True)
class PriorSettings:
    """A first guess for pictures not yet compared"""

    model: str | None = setting(
        None,
        "trained model whose scores and features give the first guess, relative to the directory or a path",
        short="-m",
    )
    prior_model: str | None = setting(
        None,
        "the same as --model, by the name that training gives it; also a public linear head on CLIP embeddings (.pth), "
        "which needs --feature_extractor_model or --features",
    )
    feature_extractor_model: str | None = setting(
        None, "features that spread scores to similar pictures; efficientnet-lite2 needs no download"
    )
    features: str | None = setting(None, TABLE_OF_PICTURES)
    offline: bool = setting(False, OFFLINE)


@dataclass(frozen=True)
class PageSettings:
    """Page"""

    port: int = setting(8111, "port of the page; 0 = any free port", low=0, high=65535)
    host: str = setting(
        "127.0.0.1",
        "address of the page; 0.0.0.0 lets phones and other machines of the network in, by a key in the address and "
        "its QR code; they see the pictures, and what is sent is not encrypted",
    )
    no_browser: bool = setting(False, "do not open a browser")


@dataclass(frozen=True)
class ABArguments:
    """All settings of `aesthetic_ab_scorer.py`."""

    images: ComparisonSettings
    prior: PriorSettings
    page: PageSettings
    device: DeviceSettings


@dataclass(frozen=True)
class FolderSettings:
    """Pictures and model"""

    directory: str | None = setting(
        None,
        "folder of pictures to score; sub-directories are included. With --features it may be left away, and is then "
        "the current directory",
        short="-d",
        yields_to=(("features",), "."),
    )
    model: str | None = setting(None, "trained model, relative to the directory or a path", short="-m")
    feature_extractor_model: str | None = setting(None, "only for a model file that does not name its extractor")
    offline: bool = setting(False, OFFLINE)
    features: str | None = setting(None, f"{TABLE}; all its pictures are scored")
    export_features: str | None = setting(
        None, "write the features that the model takes of each picture to this .parquet file, which --features reads"
    )
    output: str | None = setting(
        None,
        "file for the scores, .csv, .json or .parquet; without it and without an action, the scores are printed",
        short="-o",
    )


@dataclass(frozen=True)
class SelectionSettings:
    """Selection: pictures that meet all of these conditions; all pictures if there is no condition"""

    top: int | None = setting(None, "the N best pictures", low=1)
    worst: int | None = setting(None, "the N worst pictures, worst first", low=1)
    above: float | None = setting(None, "pictures with a score above X")
    below: float | None = setting(None, "pictures with a score below X")
    percentile: float | None = setting(None, "pictures above the P-th percentile of all scores", low=0, high=100)
    per_group: int | None = setting(
        None,
        "of each group of near-duplicates and each burst, the N best pictures (with --worst, the N worst); groups are "
        "found by the features of the model and by the times when the photographs were taken",
        low=1,
    )


@dataclass(frozen=True)
class ActionSettings:
    """Actions on the selected pictures; no picture is ever overwritten, and its pixels never change"""

    copy_to: str | None = setting(None, "copy them to this directory, with their sub-directories")
    link_to: str | None = setting(None, "create links to them in this directory")
    move_to: str | None = setting(None, "move them to this directory and write an undo file there")
    rank_prefix: bool = setting(
        False, "begin the names of the copies, links or moved files with their rank, 001_photo.jpg, best first"
    )
    undo: str | None = setting(
        None, "move the files listed in this undo file back, or take its stars back, and do nothing else"
    )
    dry_run: bool = setting(False, "only print what would be copied, linked, moved or written")
    sheet: str | None = setting(None, "write a contact sheet as one self-contained HTML file, best first")
    write_xmp: bool = setting(
        False,
        "write stars beside the pictures, 1...5 by fifths of all scores; your stars are kept, and an undo file is "
        "written to the directory",
    )
    captions: bool = setting(
        False,
        "put a tag by tenths of all scores into each picture's caption file photo.txt, for kohya's trainers: score_9 "
        "for the best tenth, then score_8_up to score_4_up, none for the worst 40 %; other text is kept, and an undo "
        "file is written to the directory",
    )
    xmp_for: str | None = setting(
        None,
        "with --write_xmp, the program that reads the stars: lightroom = photo.xmp, of raw files only; digikam = "
        "photo.jpg.xmp; the others = photo.jpg.xmp, or photo.xmp where only that exists, as without this option",
        choices=XMP_PROGRAMS,
    )
    embed: bool = setting(
        False,
        "with --xmp_for=lightroom, write the stars inside JPEG, TIFF, PNG and WEBP files; their pixels and other "
        "metadata are verified to stay equal",
    )
    immich: str | None = setting(
        None,
        "address of an Immich server, http://photos.local:2283: write the stars there, to the pictures that it has; "
        "ratings of yours are kept; the environment variable IMMICH_API_KEY holds an API key",
    )
    immich_album: str | None = setting(
        None,
        "with --immich, the album that gets the selected pictures; if not given, a selection is put into the album "
        "'Selected from FOLDER'",
    )


@dataclass(frozen=True)
class ServiceSettings:
    """HTTP service: scores for other programs, in place of all the above but -m and -d"""

    serve: bool = setting(False, "serve the model until Ctrl-C; -d, if given, is the folder whose paths may be scored")
    port: int = setting(8112, "port of the service; 0 = any free port", low=0, high=65535)
    host: str = setting(
        "127.0.0.1",
        "address to listen at; any other than 127.0.0.1 lets other machines in, by a token that is printed or taken "
        "from the environment variable AESTHETIC_TOKEN",
    )


@dataclass(frozen=True)
class ClusterSettings:
    """Cluster: scores of any number of pictures, by all machines of a Ray cluster or all cores of this one"""

    engine: str = setting(
        ENGINES[0],
        "ray = by Ray Data, into a folder of parquet parts that -o names; -d is then a folder that all machines see, "
        "a URL such as s3://bucket/folder, tar files by .../*.tar or .../{00000..00099}.tar, or parquet with the "
        "columns bytes (or image) and key (or relative_path). The same command goes on with the parts that are missing",
        choices=ENGINES,
    )
    ray_address: str = setting(
        "local", "with --engine=ray, where Ray runs: local = start it here, auto = found here, or ray://host:port"
    )
    part_pictures: int = setting(
        1000, "with --engine=ray, about how many pictures a part holds; of tar files, one is one part", low=1
    )
    with_features: bool = setting(False, "with --engine=ray, write the features that the model takes to the parts too")


@dataclass(frozen=True)
class FolderArguments:
    """All settings of `aesthetic_scorer.py`."""

    folder: FolderSettings
    selection: SelectionSettings
    action: ActionSettings
    device: DeviceSettings
    service: ServiceSettings
    cluster: ClusterSettings
