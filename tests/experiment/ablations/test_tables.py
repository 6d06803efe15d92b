import pytest

import yolov7_jax as yolo
from yolov7_jax.config_file import config_dict
from yolov7_jax.errors import InputError
from yolov7_jax.experiment.ablations.tables import AblationRow, Table, find_table, network_size, tables

ROWS = [(table, row) for table in tables().values() for row in table.rows]
EACH_ROW = pytest.mark.parametrize(("table", "row"), ROWS, ids=[f"{table.number}-{row.slug}" for table, row in ROWS])


def test_the_tables_are_those_of_the_paper() -> None:
    assert {number: len(table.rows) for number, table in tables().items()} == {
        3: 4,
        4: 6,
        5: 6,
        6: 4,
        7: 3,
        8: 3,
        10: 4,
    }
    assert all(number == table.number for number, table in tables().items())


@EACH_ROW
def test_a_row_is_a_configuration_that_differs_in_what_it_says(table: Table, row: AblationRow) -> None:
    assert row.network in yolo.zoo_names()
    sources = {row.config, table.small} if table.trains else {row.config}
    for source in sources:
        plain = config_dict(yolo.read_config(source))
        ours = config_dict(yolo.read_config(source, row.overrides))
        for text in row.overrides:
            path, _, value = text.partition("=")
            section, key = path.split(".")
            plain[section][key] = type(plain[section][key])(ours[section][key])
            assert str(ours[section][key]).lower() in (value, value.rstrip("0"))
        assert ours == plain


@EACH_ROW
def test_a_row_has_a_number_for_every_measure_and_a_base_in_its_table(table: Table, row: AblationRow) -> None:
    assert len(row.precision) == len(table.measures)
    if len(row.precision) > 1:
        assert row.precision[0] < row.precision[2] < row.precision[1]  # AP < AP75 < AP50
    assert sorted(row.precision[3:]) == list(row.precision[3:])  # small < medium < large
    assert not row.base or table.row(row.base).base == ""
    assert [other.slug for other in table.rows].count(row.slug) == 1


def test_rows_that_differ_in_the_loss_alone_have_one_network() -> None:
    for number in (6, 7):
        with_aux = [row for row in tables()[number].rows if row.base]
        assert {row.network for row in with_aux} == {"yolov7-e6"}
        assert len({yolo.read_config(row.config, row.overrides).loss for row in with_aux}) == len(with_aux)


@pytest.mark.parametrize("row", tables()[3].rows, ids=lambda row: row.slug)
def test_sizes_are_those_published(row: AblationRow) -> None:
    assert row.size is not None
    found = network_size(row.network)
    # the paper rounds, and its width-only and depth-only rows are a few tenths of a million off ours
    assert found.parameters_m == pytest.approx(row.size.parameters_m, rel=0.01)
    assert found.gflops == pytest.approx(row.size.gflops, rel=0.01)


def test_rows_are_found_by_name_and_by_folder() -> None:
    table = find_table("6")
    assert table.row("Lead guided") is table.row("lead-guided") is table.rows[2]
    with pytest.raises(InputError, match=r"table 6 has no row 'lead'; expected one of 'no auxiliary head', "):
        table.row("lead")


@pytest.mark.parametrize("number", [1, "9", "six", ""])
def test_a_table_that_is_not_there_is_refused(number: object) -> None:
    with pytest.raises(InputError, match="expected one of 3, 4, 5, 6, 7, 8, 10"):
        find_table(number)
