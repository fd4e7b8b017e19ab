"""The schedule of one training run: batches and dropout masks."""

import pytest
import torch

from custom_aesthetic.heads.schedule import Schedule


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
