"""The transform compared with the transformers processors, and its views with plain Pillow."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.extractors import VIEWS
from custom_aesthetic.extractors.naflex import NaflexTransform, naflex_transform, patch_grid
from custom_aesthetic.extractors.processors import DEFAULTS, processor_transform
from custom_aesthetic.extractors.transforms import IMAGENET_MEAN, IMAGENET_STD, Transform
from tests.tiny_checkpoints import make_picture, pillow_processor

SETTINGS = {
    "clip": {"image_processor_type": "CLIPImageProcessor"},
    "clip-336": {"image_processor_type": "CLIPImageProcessor", "size": 336, "crop_size": 336, "resample": 3},
    "bit": {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 256},
        "crop_size": {"height": 224, "width": 224},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    },
    "siglip": {"image_processor_type": "SiglipImageProcessor"},
    "siglip-384": {
        "image_processor_type": "SiglipImageProcessor",
        "size": {"height": 384, "width": 384},
        "resample": 2,
    },
    "rescale": {"image_processor_type": "SiglipImageProcessor", "rescale_factor": 0.01},
}
SHAPES = [(320, 256), (256, 321), (224, 224), (100, 61), (997, 331), (1, 50)]


def our_transform(config):
    return processor_transform({**DEFAULTS[config["image_processor_type"]], **config}, "x")


def their_processor(config):
    settings = {key: value for key, value in config.items() if key != "image_processor_type"}
    return pillow_processor(config["image_processor_type"])(**settings)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_centre_is_exactly_what_the_processor_of_the_checkpoint_gives(name, shape):
    picture = make_picture(*shape)
    expected = their_processor(SETTINGS[name])(images=picture, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(our_transform(SETTINGS[name])(picture), expected)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_the_whole_picture_is_what_the_processor_gives_when_told_to_squeeze(name):
    picture = make_picture(333, 200)
    processor = their_processor(SETTINGS[name])
    options = {"size": {"height": 224, "width": 224}, "return_tensors": "pt"}
    if name == "clip":
        options["do_center_crop"] = False
    expected = processor(images=picture, **options)["pixel_values"][0]
    assert torch.equal(our_transform(SETTINGS[name])(picture, "whole"), expected)


@pytest.mark.parametrize("shape", [(1, 20_000), (20_000, 1), (3, 20_000)], ids=str)
def test_a_very_narrow_picture_is_transformed_quickly(shape):
    """The whole picture would have 256 x 5,120,000 pixels after the resize."""
    colour = Image.new("RGB", shape, (10, 200, 90))
    transform = our_transform(SETTINGS["bit"])
    for view in VIEWS:
        assert torch.equal(transform(colour, view), transform(Image.new("RGB", (300, 300), (10, 200, 90)), view))


def test_mirrors_are_flipped_left_to_right():
    transform, picture = our_transform(SETTINGS["clip"]), make_picture(333, 200)
    for view, mirror in (("centre", "mirror"), ("whole", "mirror_whole")):
        assert torch.equal(transform(picture, mirror), transform(picture, view).flip(2))
        assert not torch.equal(transform(picture, mirror), transform(picture, view))


def test_corners_are_the_corners_of_the_resized_picture():
    transform = Transform(crop=(20, 20), resize=40, mean=(0.0,) * 3, std=(1.0,) * 3, scale=1.0)
    picture = make_picture(120, 80)
    resized = torch.from_numpy(np.array(picture.resize((60, 40), Image.Resampling.BICUBIC))).permute(2, 0, 1).float()
    expected = [resized[:, :20, :20], resized[:, :20, 40:], resized[:, 20:, :20], resized[:, 20:, 40:]]
    for i, corner in enumerate(expected):
        assert torch.equal(transform(picture, f"corner_{i}"), corner)


def test_corners_of_a_squeezed_picture_are_seven_eighths_of_it():
    transform = Transform(crop=(28, 28), resize=(28, 28), mean=(0.0,) * 3, std=(1.0,) * 3, scale=1.0)
    picture = make_picture(90, 64)
    resized = torch.from_numpy(np.array(picture.resize((32, 32), Image.Resampling.BICUBIC))).permute(2, 0, 1).float()
    assert torch.equal(transform(picture, "corner_0"), resized[:, :28, :28])
    assert torch.equal(transform(picture, "corner_3"), resized[:, 4:, 4:])


@pytest.mark.parametrize("name", [*SETTINGS, "dinov3"])
@pytest.mark.parametrize("shape", [(320, 256), (100, 61), (1, 20_000)], ids=str)
def test_all_views_at_once_are_those_one_by_one(name, shape):
    kind = {"image_processor_type": "DINOv3ViTImageProcessor"} if name == "dinov3" else SETTINGS[name]
    transform, picture = our_transform(kind), make_picture(*shape)
    views = VIEWS[::-1]
    together = transform.views(picture, views)
    assert list(together) == list(views)
    for view, pixels in together.items():
        assert torch.equal(pixels, transform(picture, view)) and pixels.is_contiguous()


def test_views_share_one_resize_where_they_can(monkeypatch):
    transform, picture = Transform(crop=(20, 20), resize=40, mean=(0.0,) * 3, std=(1.0,) * 3), make_picture(120, 80)
    sizes, resize = [], Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda self, size, *_: sizes.append(size) or resize(self, size, *_))
    transform.views(picture, VIEWS)
    assert sorted(sizes) == [(20, 20), (60, 40)]


@given(width=st.integers(1, 300), height=st.integers(1, 300))
@settings(max_examples=30)
def test_pixels_stay_within_the_range_of_the_levels(width, height):
    transform = Transform(crop=(24, 24), resize=32, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    pixels = transform(make_picture(width, height))
    assert pixels.shape == (3, 24, 24)
    low, high = (torch.tensor([(x - m) / s for m, s in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]) for x in (0, 1))
    assert (pixels.amin(dim=(1, 2)) >= low - 1e-5).all()
    assert (pixels.amax(dim=(1, 2)) <= high + 1e-5).all()


def test_the_transform_is_the_same_from_many_threads():
    from concurrent.futures import ThreadPoolExecutor

    transform, pictures = our_transform(SETTINGS["clip"]), [make_picture(100 + i, 80, seed=i) for i in range(16)]
    with ThreadPoolExecutor(8) as pool:
        threaded = list(pool.map(transform, pictures))
    assert all(torch.equal(a, transform(p)) for a, p in zip(threaded, pictures, strict=True))


def test_dinov3_resizes_the_scaled_floats_with_a_triangle_as_wide_as_the_shrinking():
    """Compared with a slow bilinear resize with antialiasing, because its processor needs torchvision."""
    picture = make_picture(40, 30)
    transform = processor_transform(
        {
            **DEFAULTS["DINOv3ViTImageProcessor"],
            "image_processor_type": "DINOv3ViTImageProcessor",
            "size": {"height": 10, "width": 16},
        },
        "x",
    )
    scaled = np.asarray(picture).transpose(2, 0, 1) / 255
    resized = np.einsum("oh,chw,pw->cop", triangle_weights(30, 10), scaled, triangle_weights(40, 16))
    expected = (resized - np.array(IMAGENET_MEAN)[:, None, None]) / np.array(IMAGENET_STD)[:, None, None]
    np.testing.assert_allclose(transform(picture).numpy(), expected, atol=1e-5)


def triangle_weights(n_in, n_out):
    """Return the weight of each input for each output, (n_out, n_in)."""
    shrink = n_in / n_out
    centres = (np.arange(n_out)[:, None] + 0.5) * shrink
    weights = np.clip(1 - np.abs(np.arange(n_in) + 0.5 - centres) / max(shrink, 1), 0, None)
    return weights / weights.sum(axis=1, keepdims=True)


def test_the_defaults_are_those_of_the_transformers_classes():
    for kind in ("CLIPImageProcessor", "BitImageProcessor", "SiglipImageProcessor"):
        theirs = their_processor({"image_processor_type": kind}).to_dict()
        for key, value in DEFAULTS[kind].items():
            found = theirs.get(key)
            if isinstance(value, bool):
                assert bool(found) is value, (kind, key)
            elif isinstance(value, tuple):
                assert tuple(found) == value, (kind, key)
            else:
                assert found == value, (kind, key)


@pytest.mark.parametrize("shape", [(320, 256), (256, 321), (1000, 90), (16, 16), (3, 700), (224, 224)], ids=str)
def test_naflex_patches_are_exactly_those_of_the_siglip2_processor(shape):
    picture = make_picture(*shape)
    expected = pillow_processor("Siglip2ImageProcessor")()(images=picture, return_tensors="pt")
    transform = naflex_transform({}, "x")
    strip = transform(picture)
    assert strip.shape == (3, 16, 16 * 257)
    patches, mask, shapes = transform.patches(strip[None])
    assert torch.equal(patches, expected["pixel_values"])
    assert torch.equal(mask, expected["pixel_attention_mask"])
    assert torch.equal(shapes, expected["spatial_shapes"])


@given(height=st.integers(1, 5000), width=st.integers(1, 5000))
@settings(max_examples=100)
def test_a_naflex_grid_uses_no_more_patches_than_allowed(height, width):
    rows, columns = patch_grid(height, width, 16, 256)
    assert 1 <= rows * columns <= 256


def test_a_naflex_mirror_is_the_mirrored_picture():
    transform, picture = NaflexTransform(patch_size=4, n_patches=16), make_picture(64, 64)
    mirrored = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert torch.equal(transform(picture, "mirror"), transform(mirrored))
    assert torch.equal(transform(picture, "mirror_whole"), transform(mirrored, "whole"))


@pytest.mark.parametrize(
    "change",
    [
        {"image_processor_type": "NobodysImageProcessor"},
        {"do_resize": False},
        {"do_normalize": False},
        {"do_center_crop": False},
        {"size": {"longest_edge": 300}},
        {"size": {"shortest_edge": 200}},
    ],
    ids=str,
)
def test_a_processor_that_is_not_understood_is_an_error(change):
    config = {**DEFAULTS["CLIPImageProcessor"], **SETTINGS["clip"], **change}
    with pytest.raises(UserError, match="image processor"):
        processor_transform(config, "x")


def test_two_transforms_have_the_same_key_only_if_they_are_equal():
    first = our_transform(SETTINGS["clip"])
    others = [our_transform(SETTINGS[name]) for name in SETTINGS if name != "clip"]
    assert first.key == our_transform(SETTINGS["clip"]).key
    assert len({t.key for t in [first, *others]}) == len(SETTINGS)
