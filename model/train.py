"""Trains the model on replayed transactions and writes it with its thresholds: `python -m model.train [FILE]`.

Equal input and settings give equal bytes, so a shipped model can be made again by anyone who doubts it.
"""

import hashlib
import math
import platform
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import typer
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from feature_store.definitions import DAYS
from feature_store.features import SHIPPED
from feature_store.table_options import parse_columns, parse_delay
from feature_store.tables import read_table
from model import evaluate, export
from model.dataset import Dataset, Rows, build
from model.manifest import Manifest, Thresholds, Training
from model.simulator import Parameters, simulate
from model.split import Settings, TrainingError, split

_DEFAULTS = Settings()


def fit(train: Dataset, settings: Settings) -> tuple[HistGradientBoostingClassifier, float]:
    """Train on all frauds and a sample of the genuine; give the classifier, and the share of genuine ones it saw.

    Its scores are probabilities in unsampled traffic: keeping a share s of the genuine divides the odds of fraud by s,
    so ln s is added to the log-odds the trees start from (Elkan, 2001, "The foundations of cost-sensitive learning").
    """
    rng = np.random.Generator(np.random.PCG64(settings.seed))
    genuine, frauds = np.flatnonzero(~train.is_fraud), np.flatnonzero(train.is_fraud)
    kept = rng.choice(genuine, min(settings.genuine_rows, len(genuine)), replace=False)
    rows = np.sort(np.append(kept, frauds))
    classifier = HistGradientBoostingClassifier(
        max_iter=settings.trees,
        max_leaf_nodes=settings.leaves,
        learning_rate=settings.learning_rate,
        min_samples_leaf=50,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=settings.seed,
    )
    with threadpool_limits(1):  # sums of floats depend on who adds first
        classifier.fit(train.features[rows], train.is_fraud[rows])
    share = len(kept) / len(genuine)
    classifier._baseline_prediction += np.log(share)  # noqa: SLF001 - the intercept has no public name
    return classifier, share


def train(rows: Rows, out: Path, *, source: str, details: dict[str, Any], settings: Settings) -> Manifest:
    """Train on `rows`, verify the export, write the model directory `out`, and give its manifest.

    Raises:
        TrainingError: the rows do not allow it.
        model.export.ParityError: the export is not the model that was trained.
    """
    data = build(rows, label_delay=settings.label_delay)
    parts = split(data, settings)
    classifier, share = fit(parts.train, settings)
    model = export.to_onnx(classifier)
    export.verify(classifier, model, parts.test.features[:: max(1, len(parts.test) // 5_000)])
    thresholds = _thresholds(parts.choose, classifier, settings)
    manifest = Manifest(
        model_digest=export.digest(model),
        features=SHIPPED.names,
        features_version=SHIPPED.fingerprint,
        training=Training(
            source=source,
            source_details=details,
            order=getattr(rows, "order", "event_time"),
            settings=msgspec.to_builtins(settings),
            trained_on=_dates(parts.ranges[0]),
            thresholds_chosen_on=_dates(parts.ranges[1]),
            tested_on=_dates(parts.ranges[2]),
            rows=len(parts.train),
            frauds=int(np.count_nonzero(parts.train.is_fraud)),
            negative_sampling=share,
        ),
        metrics=_metrics(parts.test, classifier, thresholds),
        thresholds=thresholds,
        versions={"python": platform.python_version()}
        | {name: version(name) for name in ("numpy", "onnx", "scikit-learn", "skl2onnx")},
    )
    export.write(out, model, manifest)
    return manifest


def _scores(data: Dataset, classifier: HistGradientBoostingClassifier) -> evaluate.Scores:
    scores: evaluate.Scores = classifier.predict_proba(data.features)[:, 1]
    return scores


def _thresholds(data: Dataset, classifier: HistGradientBoostingClassifier, settings: Settings) -> Thresholds:
    score = _scores(data, classifier)
    decline = evaluate.lowest_threshold_with_precision(settings.decline_precision, data.is_fraud, score)
    review = min(decline, evaluate.threshold_for_share(settings.review_share, score))
    return Thresholds(
        review=review,
        decline=decline,
        meaning={
            "review": f"about {settings.review_share:.1%} of transactions scored this or more",
            "decline": f"the lowest score from which {settings.decline_precision:.0%} or more were fraud",
        },
    )


def _metrics(data: Dataset, classifier: HistGradientBoostingClassifier, thresholds: Thresholds) -> dict[str, float]:
    score = _scores(data, classifier)
    metrics = {
        "fraud_share": float(np.mean(data.is_fraud)),
        "average_precision": evaluate.average_precision(data.is_fraud, score),
        "card_precision_at_100": evaluate.card_precision_at(
            100, day=data.second // DAYS, card=data.card, is_fraud=data.is_fraud, score=score
        ),
        "mean_score": float(np.mean(score)),
    }
    for name, threshold in (("review", thresholds.review), ("decline", thresholds.decline)):
        metrics[f"share_at_{name}"] = float(np.mean(score >= threshold))
        metrics[f"recall_at_{name}"] = evaluate.recall_at(data.is_fraud, score, threshold)
        metrics[f"precision_at_{name}"] = evaluate.precision_at(data.is_fraud, score, threshold)
    return {name: round(value, 6) for name, value in metrics.items() if not math.isnan(value)}


def _dates(seconds: tuple[int, int]) -> tuple[str, str]:
    start, end = (datetime.fromtimestamp(second, UTC).isoformat() for second in seconds)
    return start, end


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def main(  # noqa: PLR0913, PLR0917 - one parameter for each option of the command
    file: Annotated[
        Path | None, typer.Argument(help="CSV or parquet file; without one, transactions are simulated.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Directory for model.onnx and manifest.json.")] = Path("var/model"),
    columns: Annotated[str, typer.Option(help="The file's names: card_id=customer_id,merchant_id=terminal_id")] = "",
    minor_units: Annotated[bool, typer.Option(help="Amounts in the file are in minor units.")] = False,
    currency: Annotated[str, typer.Option(help="Currency of rows that name none.")] = "EUR",
    start: Annotated[datetime | None, typer.Option(help="Leave out what happened before (UTC).")] = None,
    end: Annotated[datetime | None, typer.Option(help="Leave out what happened then or later (UTC).")] = None,
    label_delay: Annotated[str, typer.Option(help="How late labels are: 7d or 36h.")] = "7d",
    genuine_rows: Annotated[
        int, typer.Option(min=1, help="Train on at most so many genuine ones.")
    ] = _DEFAULTS.genuine_rows,
    trees: Annotated[int, typer.Option(min=1, help="How many trees.")] = _DEFAULTS.trees,
    seed: Annotated[int, typer.Option(help="Of the sample and the trees.")] = _DEFAULTS.seed,
) -> None:
    """Train a model, check its ONNX export row by row against scikit-learn, and write both files."""
    try:
        delay = parse_delay(label_delay)
        settings = replace(_DEFAULTS, label_delay=delay, genuine_rows=genuine_rows, trees=trees, seed=seed)
        if file is None:
            rows: Rows = simulate(Parameters())
            source, details = "simulator", msgspec.to_builtins(Parameters())
        else:
            options: dict[str, Any] = {"columns": parse_columns(columns), "minor_units": minor_units}
            options |= {"currency": currency, "start": start, "end": end}
            rows = read_table(file, **options, as_decided=True)
            source, details = file.name, {"sha256": _sha256(file), **msgspec.to_builtins(options)}
        manifest = train(rows, out, source=source, details=details, settings=settings)
    except (TrainingError, ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from error
    typer.echo(f"{out}: {manifest.training.rows:,} rows, {manifest.training.frauds:,} frauds")
    for name, value in manifest.metrics.items():
        typer.echo(f"  {name:24}{value:.4f}")


if __name__ == "__main__":
    typer.run(main)
