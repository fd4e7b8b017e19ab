"""What the search is compared with: a plain Trainer, and a plain loop in PyTorch."""

import math
import tempfile
import time
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import nn

from benchmarks.search_sets import SEED, Timing, n_steps, total_steps
from custom_aesthetic.heads.schedule import learning_rate_factor
from custom_aesthetic.heads.training import HeadParameters
from custom_aesthetic.search.trials import Problem


def time_trainer(problem: Problem, features: torch.Tensor, sets: Sequence[HeadParameters]) -> Timing:
    """Time (a): a plain Trainer with the same model, data and settings, evaluated every epoch, else its defaults."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    data, judge = problem.data, problem.judge
    eval_rows = torch.from_numpy(judge.rows["eval"])
    scores: list[tuple[float, float]] = []

    def measure(prediction: transformers.EvalPrediction) -> dict[str, float]:
        outputs = torch.from_numpy(np.asarray(prediction.predictions))
        measured.append(judge.measure("spearman", "eval", lambda rows: outputs))
        return {"spearman": measured[-1]}

    start = time.perf_counter()
    for parameters in sets:
        measured: list[float] = []

        with tempfile.TemporaryDirectory() as folder:
            arguments = transformers.TrainingArguments(
                output_dir=folder,
                num_train_epochs=parameters.train_epochs,
                per_device_train_batch_size=parameters.batch_size,
                per_device_eval_batch_size=256,
                learning_rate=10**parameters.log_lr,
                weight_decay=0.01,
                warmup_steps=round(parameters.warmup_ratio * n_steps(parameters, len(data.train_rows))),
                lr_scheduler_type="cosine",
                eval_strategy="epoch",
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                use_cpu=data.features.device.type == "cpu",
                logging_strategy="no",
                seed=SEED,
            )
            trainer = transformers.Trainer(
                PlainHead(features.shape[1], parameters),
                arguments,
                train_dataset=Rows(features[data.train_rows], data.scores[data.train_rows]),
                eval_dataset=Rows(features[eval_rows], data.scores[eval_rows]),
                compute_metrics=measure,
            )
            trainer.remove_callback(transformers.PrinterCallback)
            trainer.train()
        scores.append((time.perf_counter() - start, max(measured)))
    return Timing(time.perf_counter() - start, total_steps(problem, sets), tuple(scores))


class PlainHead(nn.Module):
    """The predictor as a user of Trainer writes it."""

    def __init__(self, n_features: int, parameters: HeadParameters) -> None:
        super().__init__()
        first, second = parameters.first_layer_size, parameters.second_layer_size
        self.main_process = nn.Sequential(
            nn.Dropout(parameters.input_dropout),
            nn.Linear(n_features, first),
            nn.ReLU(),
            nn.Dropout(parameters.dropout),
            nn.Linear(first, second),
            nn.ReLU(),
            nn.Dropout(parameters.output_dropout),
            nn.Linear(second, 1),
        )

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        outputs = self.main_process(x)
        return {"loss": nn.functional.mse_loss(outputs[:, 0], labels), "logits": outputs}


class Rows(torch.utils.data.Dataset):
    def __init__(self, features: torch.Tensor, scores: torch.Tensor) -> None:
        self.features, self.scores = features, scores

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {"x": self.features[row], "labels": self.scores[row]}


def time_plain_loop(problem: Problem, features: torch.Tensor, sets: Sequence[HeadParameters]) -> Timing:
    """Time (b): a loop in plain PyTorch with the same model, data and settings, judged after every epoch."""
    data, judge = problem.data, problem.judge
    eval_features = features[judge.rows["eval"]]
    train_features, train_scores = features[data.train_rows], data.scores[data.train_rows]
    scores = []
    start = time.perf_counter()
    for index, parameters in enumerate(sets):
        torch.manual_seed(SEED + index)
        model = PlainHead(features.shape[1], parameters).main_process
        optimiser = torch.optim.AdamW(model.parameters(), lr=10**parameters.log_lr, weight_decay=0.01, fused=True)
        total = n_steps(parameters, len(train_scores))
        warmup = round(parameters.warmup_ratio * total)
        shares = [learning_rate_factor(step, total, warmup) for step in range(total)] + [0.0]
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, shares.__getitem__)
        best, kept = -math.inf, None
        for _ in range(parameters.train_epochs):
            model.train()
            for rows in torch.randperm(len(train_scores)).split(parameters.batch_size):
                loss = nn.functional.mse_loss(model(train_features[rows])[:, 0], train_scores[rows])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
            model.eval()
            with torch.no_grad():
                outputs = model(eval_features)
            score = judge.measure("spearman", "eval", partial(returned, outputs))
            if score > best:
                best, kept = score, {name: value.clone() for name, value in model.state_dict().items()}
        assert kept is not None
        scores.append((time.perf_counter() - start, best))
    return Timing(time.perf_counter() - start, total_steps(problem, sets), tuple(scores))


def returned(outputs: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return the outputs of all eval rows, which are those asked for."""
    return outputs
