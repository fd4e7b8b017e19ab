"""Public linear heads on CLIP embeddings: which files are read, and what becomes of an embedding's length."""

from pathlib import Path

import numpy as np
import pytest
import torch

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.priors.public_heads import linear_in_raw_features, read_public_head

WIDTH = 64
RANDOM = np.random.default_rng(2)


def linear_state(prefix: str, n_in: int, n_out: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(n_in)
    return {
        f"{prefix}weight": torch.randn(n_out, n_in, generator=generator),
        f"{prefix}bias": torch.randn(n_out, generator=generator),
    }


def improved(numbers: tuple[int, ...] = (0, 2, 4, 6, 7)) -> dict[str, torch.Tensor]:
    sizes = (WIDTH, 32, 16, 8, 4, 1)
    layers = [linear_state(f"layers.{number}.", *sizes[i : i + 2]) for i, number in enumerate(numbers)]
    return {name: tensor for layer in layers for name, tensor in layer.items()}


def embeddings(n: int = 50) -> np.ndarray:
    """Embeddings with a common direction and lengths that differ by a tenth, as CLIP's have."""
    directions = RANDOM.normal(size=(n, WIDTH)) + 2
    lengths = RANDOM.normal(10, 1, size=(n, 1))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True) * lengths


def test_a_linear_head_takes_embeddings_of_length_1(tmp_path: Path) -> None:
    state = linear_state("", WIDTH, 1)
    torch.save(state, tmp_path / "head.pth")
    given = embeddings()
    unit = torch.from_numpy(given / np.linalg.norm(given, axis=1, keepdims=True))
    expected = torch.nn.functional.linear(unit.float(), state["weight"], state["bias"])[:, 0].numpy()
    np.testing.assert_allclose(read_public_head(tmp_path / "head.pth").predict(given), expected, atol=1e-5)


def test_layers_without_activations_are_one_linear_head(tmp_path: Path) -> None:
    state = improved()
    torch.save(state, tmp_path / "head.pth")
    given = embeddings()
    values = torch.from_numpy(given / np.linalg.norm(given, axis=1, keepdims=True)).float()
    for number in (0, 2, 4, 6, 7):
        values = torch.nn.functional.linear(values, state[f"layers.{number}.weight"], state[f"layers.{number}.bias"])
    found = read_public_head(tmp_path / "head.pth").predict(given)
    np.testing.assert_allclose(found, values[:, 0].numpy(), rtol=1e-3, atol=1e-3)


def test_without_the_length_the_order_stays(tmp_path: Path) -> None:
    state = linear_state("", WIDTH, 1)
    torch.save({**state, "weight": state["weight"] + 0.7}, tmp_path / "head.pth")  # scores that are high on average
    head, given, new = read_public_head(tmp_path / "head.pth"), embeddings(), embeddings(200)
    linear = linear_in_raw_features(head, given)
    assert np.corrcoef(linear.predict(new), head.predict(new))[0, 1] > 0.9
    naive = new @ head.weight
    assert np.corrcoef(naive, head.predict(new))[0, 1] < 0.85, "the lengths do matter here"
    unit = given / np.linalg.norm(given, axis=1, keepdims=True)
    exact = linear_in_raw_features(head, unit)
    np.testing.assert_allclose(exact.predict(unit), head.predict(unit), atol=1e-6)


class Hostile:
    def __reduce__(self) -> tuple:
        return (Path("owned").touch, ())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (improved((0, 3, 6, 9, 11)), "activations between"),
        ({"weight": torch.randn(2, WIDTH)}, "one score"),
        ({"weight": torch.full((1, WIDTH), torch.nan)}, "not finite"),
        ({"weight": torch.randn(1, WIDTH), "bias": torch.randn(3)}, "shape"),
        ({"weight": torch.randn(1, WIDTH, 2)}, "shape"),
        ({"weight": torch.ones(1, WIDTH, dtype=torch.int64)}, "plain tensor"),
        ([1, 2], "no dictionary"),
        ({}, "no weight"),
        (Hostile(), "not a linear head"),
    ],
)
def test_other_files_are_refused_in_one_line(
    content: object, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "head.pth")
    with pytest.raises(UserError, match=reason) as error:
        read_public_head(tmp_path / "head.pth")
    assert "\n" not in str(error.value)
    assert not Path("owned").exists()
    Path("text.pth").write_text("no head")
    with pytest.raises(UserError, match="not a linear head"):
        read_public_head(Path("text.pth"))
