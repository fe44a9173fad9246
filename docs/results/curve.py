"""Draws a run's metrics.csv: python docs/results/curve.py METRICS.csv CURVE.svg"""

import csv
import sys

from matplotlib.figure import Figure

with open(sys.argv[1], encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
figure = Figure(figsize=(8, 3), layout="constrained")
losses, accuracies = figure.subplots(1, 2)
for axes, column, label in [
    (losses, "loss", "training loss"),
    (losses, "val_loss", "loss on held-out images"),
    (accuracies, "val_top1", "top-1 on held-out images"),
]:
    taken = [row for row in rows if row[column]]
    axes.plot(
        [int(row["step"]) for row in taken], [float(row[column]) for row in taken], label=label
    )
for axes in (losses, accuracies):
    axes.set_xlabel("step")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
figure.savefig(sys.argv[2], metadata={"Date": None})
