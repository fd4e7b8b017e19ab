"""The schedule of one training run: batches and dropout masks."""

import numpy as np
import pytest
import torch

from custom_aesthetic.heads.schedule import Schedule, learning_rate_factor, learning_rate_factors


def made(n_images: int = 10, batch_size: int = 4, probability: float = 0.25, width: int = 3, seed: int = 0) -> Schedule:
    return Schedule(
        torch.arange(n_images) + 100,
        n_epochs=2,
        batch_size=batch_size,
        warmup_ratio=0.1,
        dropouts=((width, probability), (5, 0.0)),
        generator=torch.Generator().manual_seed(seed),
    )


def test_every_epoch_uses_every_image_once_in_a_new_order() -> None:
    schedule = made()
    epochs = []
    for _ in range(2):
        batches = [schedule.next_batch().rows for _ in range(3)]
        assert [len(rows) for rows in batches] == [4, 4, 2]
        assert schedule.epoch_ended
        epochs.append(torch.cat(batches))
    assert all(sorted(epoch.tolist()) == list(range(100, 110)) for epoch in epochs)
    assert not torch.equal(*epochs)


def test_masks_drop_the_given_share_and_keep_the_mean() -> None:
    mask = made(100_000, 100_000).next_batch().masks[0]
    assert mask is not None
    assert mask.shape == (100_000, 3)
    assert float((mask == 0).float().mean()) == pytest.approx(0.25, abs=0.005)
    assert float(mask.mean()) == pytest.approx(1, abs=0.005)
    assert mask.unique().tolist() == pytest.approx([0, 4 / 3])


def test_a_layer_without_dropout_has_no_mask() -> None:
    assert made().next_batch().masks[1] is None


@pytest.mark.parametrize("n_numbers", [1, 100, 10**6])
def test_every_row_has_a_different_mask_however_many_are_drawn_at_once(
    n_numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("custom_aesthetic.heads.schedule.MASK_NUMBERS_AT_ONCE", n_numbers)
    schedule = made(width=40, probability=0.5)
    masks = [schedule.next_batch() for _ in range(6)]
    rows = torch.cat([batch.masks[0] for batch in masks if batch.masks[0] is not None])
    assert [len(batch.masks[0]) for batch in masks if batch.masks[0] is not None] == [4, 4, 2, 4, 4, 2]
    assert len(rows.unique(dim=0)) == 20


def test_a_seed_makes_batches_and_masks_reproducible() -> None:
    first, second, other = (made(seed=seed, width=40).next_batch() for seed in (1, 1, 2))
    assert torch.equal(first.rows, second.rows)
    assert first.masks[0] is not None and second.masks[0] is not None and other.masks[0] is not None
    assert torch.equal(first.masks[0], second.masks[0])
    assert not torch.equal(first.masks[0], other.masks[0])


def dropped(n_rows: int, width: int, probability: float) -> np.ndarray:
    """Return which units are dropped for which rows, of several epochs below each other."""
    schedule = made(n_rows, n_rows, probability, width, seed=5)
    masks = [schedule.next_batch().masks[0] for _ in range(2)]
    return np.concatenate([mask.numpy() == 0 for mask in masks if mask is not None])


@pytest.mark.parametrize("probability", [0.03, 0.3, 0.5])
def test_units_are_dropped_independently_of_each_other_and_of_other_rows(probability: float) -> None:
    found = dropped(2000, 300, probability)
    spread = np.sqrt(probability * (1 - probability))
    for axis in (0, 1):  # the shares of each unit and of each row vary as those of independent draws
        shares = found.mean(axis=axis)
        expected = spread / np.sqrt(found.shape[axis])
        assert shares.std() == pytest.approx(expected, rel=0.15)
        assert np.abs(shares - probability).max() < 6 * expected
    for values in (found, found.T[:, :300]):
        correlations = np.corrcoef(values, rowvar=False)[np.triu_indices(300, 1)]
        assert correlations.std() == pytest.approx(1 / np.sqrt(len(values)), rel=0.15)
        assert len(values) * probability < 50 or np.abs(correlations).max() < 6.5 / np.sqrt(len(values))


def test_the_rates_of_a_stack_are_those_of_each_schedule() -> None:
    steps, n_steps, n_warmup = torch.tensor([[0], [3], [9], [0]]), torch.tensor([[10], [10], [10], [1]]), 0
    found = learning_rate_factors(steps, n_steps, torch.tensor([[4], [4], [0], [n_warmup]]))
    wanted = [learning_rate_factor(*numbers) for numbers in ((0, 10, 4), (3, 10, 4), (9, 10, 0), (0, 1, 0))]
    assert found[:, 0].tolist() == pytest.approx(wanted)
