"""CLIP and the other transformers towers, compared with a step-by-step computation from the whole model."""

import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.extractors import build_extractor
from tests.tiny_checkpoints import (
    CLIP_PROCESSOR,
    VISION,
    make_model,
    make_picture,
    pillow_processor,
    processor_settings,
    save_checkpoint,
)

CPU = torch.device("cpu")


def pictures():
    return [make_picture(90, 60, seed=1), make_picture(60, 90, seed=2), make_picture(40, 40, seed=3)]


def features_of(folder, hidden_states=(0, 1, 2, 3)):
    extractor = build_extractor(str(folder), CPU)
    return extractor.features(torch.stack([extractor.transform(p) for p in pictures()]), hidden_states)


def processor_of(kind):
    settings = processor_settings(kind)
    options = {key: value for key, value in settings.items() if key != "image_processor_type"}
    return pillow_processor(settings["image_processor_type"])(**options)


def block_outputs(blocks, call):
    """Return the output of each block while `call` runs, recorded by hooks: independent of `hidden_states`."""
    outputs = []

    def keep(_module, _inputs, output):
        outputs.append(output[0] if isinstance(output, tuple) else output)

    handles = [block.register_forward_hook(keep) for block in blocks]
    try:
        with torch.inference_mode():
            result = call()
    finally:
        for handle in handles:
            handle.remove()
    return result, outputs


@pytest.mark.parametrize("kind", ["clip", "clip_vision_model"])
def test_clip_features_are_the_projected_class_tokens_of_each_block(kind, tmp_path):
    folder, model = save_checkpoint(kind, tmp_path / kind), make_model(kind)
    pixels = processor_of(kind)(images=pictures(), return_tensors="pt")["pixel_values"]
    tower = model.vision_model

    def own_output():
        if kind == "clip_vision_model":
            return model(pixels).image_embeds
        found = model.get_image_features(pixels)
        return found if isinstance(found, torch.Tensor) else found.pooler_output  # transformers 4 and 5

    image_embeds, outputs = block_outputs(tower.encoder.layers, own_output)
    found = features_of(folder)
    torch.testing.assert_close(found[0], image_embeds, rtol=1e-5, atol=1e-5)
    with torch.inference_mode():
        for k in range(3):
            expected = model.visual_projection(tower.post_layernorm(outputs[-1 - k][:, 0]))
            torch.testing.assert_close(found[k], expected, rtol=1e-5, atol=1e-5)
        embedding = tower.pre_layrnorm(tower.embeddings(pixels))
        expected = model.visual_projection(tower.post_layernorm(embedding[:, 0]))
    torch.testing.assert_close(found[3], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["siglip", "siglip_vision_model"])
def test_siglip_features_are_the_attention_pooled_block_outputs(kind, tmp_path):
    folder, model = save_checkpoint(kind, tmp_path / kind), make_model(kind)
    tower = getattr(model, "vision_model", model)
    pixels = processor_of(kind)(images=pictures(), return_tensors="pt")["pixel_values"]
    pooled, outputs = block_outputs(tower.encoder.layers, lambda: tower(pixels).pooler_output)
    found = features_of(folder)
    torch.testing.assert_close(found[0], pooled, rtol=1e-5, atol=1e-5)
    with torch.inference_mode():
        for k in range(3):
            expected = tower.head(tower.post_layernorm(outputs[-1 - k]))
            torch.testing.assert_close(found[k], expected, rtol=1e-5, atol=1e-5)


def test_siglip2_features_of_pictures_of_different_shapes_are_what_its_own_processor_and_mask_give(tmp_path):
    folder, model = save_checkpoint("siglip2", tmp_path / "siglip2"), make_model("siglip2")
    tower = model.vision_model
    inputs = processor_of("siglip2")(images=pictures(), return_tensors="pt")
    given = [inputs[name] for name in ("pixel_values", "pixel_attention_mask", "spatial_shapes")]
    assert len({tuple(shape) for shape in inputs["spatial_shapes"].tolist()}) == 3
    pooled, outputs = block_outputs(tower.encoder.layers, lambda: tower(*given).pooler_output)
    found = features_of(folder)
    torch.testing.assert_close(found[0], pooled, rtol=1e-4, atol=1e-4)
    with torch.inference_mode():
        for k in range(3):
            expected = tower.head(tower.post_layernorm(outputs[-1 - k]), inputs["pixel_attention_mask"])
            torch.testing.assert_close(found[k], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["dinov2", "dinov2_with_registers"])
def test_dinov2_features_are_the_normalised_class_tokens_of_each_block(kind, tmp_path):
    folder, model = save_checkpoint(kind, tmp_path / kind), make_model(kind)
    pixels = processor_of(kind)(images=pictures(), return_tensors="pt")["pixel_values"]
    pooled, outputs = block_outputs(model.encoder.layer, lambda: model(pixels).pooler_output)
    found = features_of(folder)
    torch.testing.assert_close(found[0], pooled, rtol=1e-5, atol=1e-5)
    with torch.inference_mode():
        for k in range(3):
            expected = model.layernorm(outputs[-1 - k])[:, 0]
            torch.testing.assert_close(found[k], expected, rtol=1e-5, atol=1e-5)


def test_dinov3_features_are_the_normalised_class_tokens_of_each_block(tmp_path):
    """Its processor needs torchvision, so the pixels are the extractor's; test_transforms.py is about those."""
    folder, model = save_checkpoint("dinov3_vit", tmp_path / "dinov3"), make_model("dinov3_vit")
    extractor = build_extractor(str(folder), CPU)
    pixels = torch.stack([extractor.transform(p) for p in pictures()])
    layers = getattr(model, "model", model).layer  # transformers 5, 4
    pooled, outputs = block_outputs(layers, lambda: model(pixels).pooler_output)
    found = extractor.features(pixels, range(3))
    torch.testing.assert_close(found[0], pooled, rtol=1e-5, atol=1e-5)
    with torch.inference_mode():
        for k in range(3):
            torch.testing.assert_close(found[k], model.norm(outputs[-1 - k])[:, 0], rtol=1e-5, atol=1e-5)


def test_aimv2_features_are_the_attention_pooled_block_outputs(tmp_path):
    folder, model = save_checkpoint("aimv2", tmp_path / "aimv2"), make_model("aimv2")
    tower = model.vision_model
    pixels = processor_of("aimv2")(images=pictures(), return_tensors="pt")["pixel_values"]
    pooled, outputs = block_outputs(tower.encoder.layers, lambda: tower(pixels).pooler_output)
    found = features_of(folder)
    torch.testing.assert_close(found[0], pooled, rtol=1e-5, atol=1e-5)
    with torch.inference_mode():
        for k in range(3):
            torch.testing.assert_close(found[k], tower.head(tower.rms_norm(outputs[-1 - k])), rtol=1e-5, atol=1e-5)


def test_aimv2_without_a_head_gives_the_mean_of_the_normalised_patches(tmp_path):
    kind = "aimv2_vision_model"
    folder, model = save_checkpoint(kind, tmp_path / kind), make_model(kind)
    pixels = processor_of(kind)(images=pictures(), return_tensors="pt")["pixel_values"]
    last, outputs = block_outputs(model.encoder.layers, lambda: model(pixels).last_hidden_state)
    found = features_of(folder)
    torch.testing.assert_close(found[0], last.mean(dim=1), rtol=1e-5, atol=1e-5)
    with torch.inference_mode():
        torch.testing.assert_close(found[2], model.rms_norm(outputs[0]).mean(dim=1), rtol=1e-5, atol=1e-5)


def test_a_full_clip_checkpoint_is_read_without_its_text_tower(tmp_path, monkeypatch):
    from custom_aesthetic.extractors import clip

    seen = []
    real = clip.from_tensors

    def watch(model_class, config, tensors, dtype):
        seen.extend(tensors)
        return real(model_class, config, tensors, dtype)

    monkeypatch.setattr(clip, "from_tensors", watch)
    folder = save_checkpoint("clip", tmp_path / "clip")
    assert any(name.startswith("text_model.") for name in load_file(folder / "model.safetensors"))
    features_of(folder, [0])
    assert seen
    assert all(name.startswith(("vision_model.", "visual_projection.")) for name in seen)


def test_a_full_clip_and_its_vision_only_copy_give_the_same_features(tmp_path):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    folder, model = save_checkpoint("clip", tmp_path / "clip"), make_model("clip")
    alone = CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION, projection_dim=24))
    alone.vision_model.load_state_dict(model.vision_model.state_dict())
    alone.visual_projection.load_state_dict(model.visual_projection.state_dict())
    alone.save_pretrained(tmp_path / "alone")
    (tmp_path / "alone" / "preprocessor_config.json").write_text(json.dumps(CLIP_PROCESSOR))
    first, second = features_of(folder), features_of(tmp_path / "alone")
    for k, features in first.items():
        torch.testing.assert_close(features, second[k], rtol=1e-5, atol=1e-5)


def test_half_precision_weights_compute_in_float32_on_a_cpu(tmp_path):
    folder = save_checkpoint("clip_vision_model", tmp_path / "full")
    half = tmp_path / "half"
    make_model("clip_vision_model").half().save_pretrained(half)
    (half / "preprocessor_config.json").write_text(json.dumps(CLIP_PROCESSOR))
    assert json.loads((half / "config.json").read_text())["dtype"] == "float16"
    rounded = {name: tensor.half().float() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(rounded, folder / "model.safetensors")
    torch.testing.assert_close(features_of(half)[0], features_of(folder)[0], rtol=0, atol=0)
    assert build_extractor(str(half), CPU).fingerprint.endswith("float32")
    assert build_extractor(str(half), torch.device("cuda")).fingerprint.endswith("float16")
    assert build_extractor(str(folder), torch.device("cuda")).fingerprint.endswith("float32")


def test_the_size_of_the_projection_is_taken_from_the_weights(tmp_path):
    """Published configurations of full models have a wrong size in the image part."""
    folder = save_checkpoint("clip", tmp_path / "clip")
    config = json.loads((folder / "config.json").read_text())
    assert config["vision_config"]["projection_dim"] == 512
    assert features_of(folder)[0].shape == (3, 24)


def test_weights_that_lack_a_tensor_are_an_error_and_not_filled_with_noise(tmp_path):
    folder = save_checkpoint("clip_vision_model", tmp_path / "clip")
    tensors = load_file(folder / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"lack visual_projection\.weight"):
        features_of(folder)


def test_weights_of_another_size_than_the_configuration_are_an_error(tmp_path):
    folder = save_checkpoint("dinov2", tmp_path / "dinov2")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 64}))
    with pytest.raises(UserError, match=r"do not fit config\.json"):
        features_of(folder)


def test_a_configuration_without_a_depth_has_that_of_its_class():
    import transformers as t

    from custom_aesthetic.extractors.build import KINDS

    classes = {
        "clip": t.CLIPVisionConfig,
        "siglip": t.SiglipVisionConfig,
        "siglip2": t.Siglip2VisionConfig,
        "dinov2": t.Dinov2Config,
        "dinov2_with_registers": t.Dinov2WithRegistersConfig,
        "dinov3_vit": t.DINOv3ViTConfig,
        "aimv2": t.Aimv2VisionConfig,
    }
    assert {name: KINDS[name].n_blocks for name in classes} == {
        name: config().num_hidden_layers for name, config in classes.items()
    }


@pytest.mark.parametrize("value", ["'many'", 0, -1, None, 2.5])
def test_a_depth_that_is_not_a_positive_integer_is_an_error(value, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dinov2", "num_hidden_layers": value}))
    with pytest.raises(UserError, match="num_hidden_layers"):
        build_extractor(str(tmp_path), CPU)


def test_loading_leaves_the_logging_of_transformers_as_it_was(tmp_path, capfd):
    from transformers.utils import logging as transformers_logging

    folder = save_checkpoint("siglip", tmp_path / "siglip")
    before = (transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled())
    capfd.readouterr()
    features_of(folder, [0])
    assert (transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()) == before
    assert capfd.readouterr() == ("", "")


def test_without_a_processor_file_the_standard_transform_is_used_and_logged(tmp_path, caplog):
    folder = save_checkpoint("clip_vision_model", tmp_path / "clip")
    with_file = build_extractor(str(folder), CPU)
    (folder / "preprocessor_config.json").unlink()
    with caplog.at_level(logging.INFO, logger="custom_aesthetic.extractors"):
        without = build_extractor(str(folder), CPU)
    assert "no image processor file, using CLIPImageProcessor at 28 pixels" in caplog.text
    assert torch.equal(without.transform(make_picture()), with_file.transform(make_picture()))
    assert without.fingerprint == with_file.fingerprint


def test_the_processor_is_also_found_inside_processor_config(tmp_path):
    folder = save_checkpoint("clip_vision_model", tmp_path / "clip")
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(
        json.dumps(
            {"processor_class": "CLIPProcessor", "image_processor": {**CLIP_PROCESSOR, "image_mean": [0.1, 0.2, 0.3]}}
        )
    )
    assert "mean=(0.1, 0.2, 0.3)" in build_extractor(str(folder), CPU).fingerprint


def test_threads_that_share_an_extractor_get_the_features_of_their_own_pictures(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    extractor = build_extractor(str(save_checkpoint("dinov2", tmp_path / "dinov2")), CPU)
    batches = [
        torch.stack([extractor.transform(make_picture(50, 40, seed=seed))] * (1 + seed % 3)) for seed in range(24)
    ]
    alone = [extractor.features(batch, [0, 2]) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda batch: extractor.features(batch, [0, 2]), batches))
    for expected, found in zip(alone, together, strict=True):
        for k in (0, 2):
            torch.testing.assert_close(found[k], expected[k], rtol=1e-5, atol=1e-5)
