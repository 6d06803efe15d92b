import io
import math

from rich.console import Console

from tests.viz.test_figures import result_of
from yolov7_jax.cli.console import class_table


def test_table_of_classes():
    console = Console(file=io.StringIO(), width=60)
    console.print(class_table(result_of([0.25, math.nan], ["[red]cat[/red]", "dog"])))
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    assert lines == [
        ["class", "boxes", "AP50", "AP"],
        ["all", "4", "0.250", "0.250"],
        ["[red]cat[/red]", "4", "0.250", "0.250"],
        ["dog", "0", "-", "-"],
    ]
