"""The contract of all extractors."""

import sys

import pytest
import torch

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.extractors import VIEWS, FeatureExtractor, build_extractor, build_extractors
from tests.tiny_checkpoints import KINDS, make_picture, save_checkpoint

CPU = torch.device("cpu")
PACKAGED = "efficientnet-lite0"


@pytest.fixture(scope="module", params=[PACKAGED, *KINDS])
def name(request, tmp_path_factory) -> str:
    """A name for build_extractor: the packaged one, and the folder of a tiny checkpoint of every kind."""
    if request.param == PACKAGED:
        return PACKAGED
    return str(save_checkpoint(request.param, tmp_path_factory.mktemp(request.param)))


@pytest.fixture(scope="module")
def extractor(name) -> FeatureExtractor:
    return build_extractor(name, CPU)


@pytest.fixture(scope="module")
def batch(extractor) -> torch.Tensor:
    """Four pictures of different shapes, transformed and stacked."""
    shapes = [(70, 45), (45, 70), (50, 50), (400, 300)]
    return torch.stack([extractor.transform(make_picture(*shape, seed=i)) for i, shape in enumerate(shapes)])


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_of_any_shape_has_the_same_pixel_shape(extractor, view):
    shapes = {extractor.transform(make_picture(*size), view).shape for size in [(70, 45), (45, 70), (1, 300), (300, 1)]}
    pixels = extractor.transform(make_picture(), view)
    assert shapes == {pixels.shape}
    assert pixels.shape[0] == 3
    assert pixels.dtype == torch.float32
    assert pixels.isfinite().all()


def test_an_unknown_view_is_refused(extractor):
    with pytest.raises(ValueError, match="sideways"):
        extractor.transform(make_picture(), "sideways")


def test_views_of_a_long_picture_see_different_things(extractor):
    pixels = [extractor.transform(make_picture(150, 50), view) for view in ("centre", "mirror", "corner_0", "corner_1")]
    assert all(not torch.equal(first, other) for i, first in enumerate(pixels) for other in pixels[:i])


def test_all_hidden_states_come_as_finite_float32_rows(extractor, batch):
    found = extractor.features(batch, range(extractor.n_hidden_states))
    assert list(found) == list(range(extractor.n_hidden_states))
    for features in found.values():
        assert features.dtype == torch.float32
        assert features.shape[0] == len(batch)
        assert features.ndim == 2
        assert features.isfinite().all()
        assert not features.requires_grad


def test_features_tell_pictures_apart(extractor, batch):
    """Except the embedding, the last one: a class token first sees the picture in the first block."""
    for features in extractor.features(batch, range(extractor.n_hidden_states - 1)).values():
        assert features.std(dim=0).max() > 1e-3


def test_hidden_states_differ_from_each_other(extractor, batch):
    found = list(extractor.features(batch, range(extractor.n_hidden_states)).values())
    same_width = [(a, b) for i, a in enumerate(found) for b in found[:i] if a.shape == b.shape]
    assert not any(torch.allclose(a, b, atol=1e-3) for a, b in same_width)


def test_one_pass_gives_each_hidden_state_in_the_requested_order(extractor, batch):
    wanted = [extractor.n_hidden_states - 1, 0, 1]
    together = extractor.features(batch, wanted)
    assert list(together) == wanted
    for k in wanted:
        torch.testing.assert_close(together[k], extractor.features(batch, [k])[k])


def test_features_of_a_picture_do_not_depend_on_its_batch(extractor, batch):
    together = extractor.features(batch, [0, 1])
    for i in range(len(batch)):
        alone = extractor.features(batch[i : i + 1], [0, 1])
        for k in (0, 1):
            torch.testing.assert_close(alone[k][0], together[k][i], rtol=1e-4, atol=1e-4)


def test_an_empty_batch_gives_no_rows(extractor, batch):
    assert extractor.features(batch[:1], []) == {}


@pytest.mark.parametrize("k", [-1, 100])
def test_a_hidden_state_out_of_range_is_an_error_that_names_the_range(extractor, batch, k):
    with pytest.raises(UserError, match=rf"{k} asked for.*to {extractor.n_hidden_states - 1}"):
        extractor.features(batch, [0, k])


def test_the_attributes_match_the_features(extractor, name):
    assert extractor.name == name
    assert extractor.default_mode in ("join", "average")
    assert all(0 <= k < extractor.n_hidden_states for k in extractor.default_hidden_states)
    assert extractor.default_hidden_states
    assert extractor.target_size >= 28


def test_building_twice_gives_the_same_fingerprint_and_features(extractor, name, batch):
    again = build_extractor(name, CPU)
    assert again.fingerprint == extractor.fingerprint
    assert torch.equal(again.features(batch, [0])[0], extractor.features(batch, [0])[0])


def test_the_weights_are_read_by_the_first_features_only(name, monkeypatch, batch):
    def refuse(*_args, **_options):
        raise AssertionError("weights were read")

    monkeypatch.setattr("custom_aesthetic.extractors.weights.load_tensors", refuse)
    monkeypatch.setattr("custom_aesthetic.extractors.packaged.PackagedNetwork.load", refuse)
    extractor = build_extractor(name, CPU)
    extractor.transform(make_picture())
    with pytest.raises(AssertionError, match="weights were read"):
        extractor.features(batch, [0])


def test_a_list_gives_one_extractor_a_name_in_its_order(tmp_path):
    folder = str(save_checkpoint("aim", tmp_path / "mine"))
    assert [e.name for e in build_extractors(f"{folder}, {PACKAGED},", CPU)] == [folder, PACKAGED]


@pytest.mark.parametrize("names", ["", ",", "efficientnet-lite0,,", ",efficientnet-lite0"])
def test_a_gap_in_a_list_is_an_error(names):
    with pytest.raises(UserError, match="between the commas"):
        build_extractors(names, CPU)


def test_a_folder_without_config_is_an_error_that_names_the_choices(tmp_path):
    with pytest.raises(UserError, match=r"holds no config.json.*local folder.*efficientnet-lite2"):
        build_extractor(str(tmp_path), CPU)


@pytest.mark.parametrize("missing", ["./nowhere", "/no/such/folder", r"C:\models\x", r"models\x", "a/b/c", "~/no-such"])
def test_a_path_that_does_not_exist_never_goes_to_the_hub(missing, monkeypatch):
    monkeypatch.setattr("custom_aesthetic.extractors.checkpoint._open_hub", lambda _name: pytest.fail("asked the hub"))
    with pytest.raises(UserError, match=r"does not exist.*local folder.*efficientnet-lite2"):
        build_extractor(missing, CPU)


def test_a_name_with_backslashes_and_a_drive_is_a_local_folder_if_it_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = save_checkpoint("aim", tmp_path / r"C:\models\x")
    assert build_extractor(r"C:\models\x", CPU).n_hidden_states == 4
    assert folder.is_dir()


def test_an_unknown_model_type_is_an_error_that_names_the_known_ones(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match=r"'bert'.*clip.*dinov3_vit.*efficientnet-lite2"):
        build_extractor(str(tmp_path), CPU)


@pytest.mark.parametrize("content", ["", "{", "[1]", "\x00"])
def test_a_config_that_is_not_a_json_object_is_an_error(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json"):
        build_extractor(str(tmp_path), CPU)


def test_building_the_packaged_extractor_imports_no_transformers():
    import subprocess

    code = (
        "import sys, torch; from custom_aesthetic.extractors import build_extractor;"
        "extractor = build_extractor('efficientnet-lite0', torch.device('cpu'));"
        "extractor.features(torch.zeros(1, 3, 224, 224), [0]);"
        "sys.exit(any(m.split('.')[0] in ('transformers', 'huggingface_hub', 'torchvision') for m in sys.modules))"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


def test_the_half_precision_of_an_accelerator_gives_nearly_the_same_features(extractor, name, batch, monkeypatch):
    """Runs on the CPU, with half precision forced."""
    if name == "efficientnet-lite0":  # computes in float32 everywhere
        assert build_extractor(name, torch.device("cuda")).fingerprint == extractor.fingerprint
        return
    monkeypatch.setattr("custom_aesthetic.extractors.weights.precision", lambda *_arguments: "float16")
    half = build_extractor(name, CPU)
    for k, expected in extractor.features(batch, [0, 1]).items():
        found = half.features(batch, [0, 1])[k]
        assert found.dtype == torch.float32
        assert not torch.equal(found, expected)
        assert (found - expected).norm() / expected.norm() < 0.02


def test_the_weights_decide_the_precision_if_config_has_none(tmp_path):
    from safetensors.torch import load_file, save_file

    from custom_aesthetic.extractors.checkpoint import open_checkpoint
    from custom_aesthetic.extractors.weights import compute_dtype, load_tensors, precision

    folder = save_checkpoint("aim", tmp_path / "aim")
    tensors = {k: v.half() if v.is_floating_point() else v for k, v in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors")
    checkpoint = open_checkpoint(str(folder))
    wanted = precision(checkpoint.config, torch.device("cuda"))
    assert compute_dtype(wanted, load_tensors(checkpoint, lambda _name: True)) == torch.float16
    assert precision(checkpoint.config, CPU) == "float32"


@pytest.mark.parametrize(
    ("names", "words"), [("efficientnet-lite0,efficientnet-lite0", "twice"), ("my__clip", "separates the names")]
)
def test_names_that_a_model_file_cannot_store_are_an_error(names, words):
    with pytest.raises(UserError, match=words):
        build_extractors(names, CPU)
