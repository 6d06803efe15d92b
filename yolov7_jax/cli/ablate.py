"""`yolov7-jax ablate TABLE [KEY=VALUE...]`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yolov7_jax.experiment.ablations.results import Results

SHOWN = 3  # average precisions; the files have all
WIDTH = 140  # columns, so that the table is the same wherever it is written to


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("table", help="number of a table of the paper: 3, 4, 5, 6, 7, 8 or 10")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of all rows, such as loss.top_k=5")
    parser.add_argument(
        "--scale",
        choices=("small", "paper"),
        default="small",
        help="small: narrow networks, drawn images, minutes on a CPU (default); paper: its recipes, on COCO",
    )
    parser.add_argument("--row", action="append", default=[], metavar="NAME", help="run this row only; may be repeated")
    parser.add_argument("--seeds", type=int, metavar="N", help="runs of each row (default 3, on the paper's scale 1)")
    parser.add_argument("--output", type=Path, help="folder (default runs/ablate/TABLE-SCALE)")
    parser.add_argument("--processes", type=int, metavar="N", help="how many share the runs and the folder")
    parser.add_argument("--process-id", type=int, metavar="I", help="number of this one, from 0; Slurm's if not given")
    parser.add_argument("--plan", action="store_true", help="print rows, sizes and published figures, and stop")


def run(parsed: argparse.Namespace) -> int:
    """Prints what is known before training, trains, prints the table; 128 + its number where a signal stopped it."""
    from yolov7_jax.cli.console import TrainingConsole
    from yolov7_jax.errors import InputError
    from yolov7_jax.experiment import ablate
    from yolov7_jax.training.cluster import place_in_slurm

    if (parsed.process_id is None) != (parsed.processes is None):
        raise InputError("--processes and --process-id belong together; give both")
    share = place_in_slurm() if parsed.processes is None else (parsed.process_id, parsed.processes)
    asked = {"scale": parsed.scale, "rows": parsed.row, "seeds": parsed.seeds, "overrides": parsed.overrides}
    _show(ablate(parsed.table, **asked))
    if parsed.plan:
        return 0
    folder = parsed.output or Path(f"runs/ablate/{parsed.table}-{parsed.scale}")
    with TrainingConsole() as console:
        results = ablate(parsed.table, folder, **asked, share=share, callbacks=[console], progress=console.progress)
    _show(results)
    if results.signal is not None:
        print("saved; the same command resumes")
        return 128 + results.signal
    print(f"see {folder}")
    return 0


def _show(results: Results) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False, title=results.heading, title_justify="left")
    head, *rows = results.columns(results.table.measures[:SHOWN])
    for place, heading in enumerate(head):
        table.add_column(heading, justify="left" if place in (0, 1, len(head) - 1) else "right")
    for cells in rows:
        table.add_row(*map(Text, cells))
    console = Console(width=WIDTH)
    console.print(table)
    for remark in results.remarks:
        console.print(Text(f"\n{remark}"))
