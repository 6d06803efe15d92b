import pytest

from yolov7_jax.config_file import config_names, read_config
from yolov7_jax.errors import InputError
from yolov7_jax.experiment.tuning.space import Choices, Interval, read_space, setting, space_dict, with_settings
from yolov7_jax.files import yaml_text

START = read_config("finetune", ["train.epochs=60"])


def test_a_file_says_what_is_varied(tmp_path):
    file = tmp_path / "space.yaml"
    file.write_text(
        "optim.lr0: {low: 1e-5, high: 1e-1, log: true}\n"
        "train.batch_size: {low: 4, high: 32, step: 4}\n"
        "augment.degrees: {low: 0, high: 10, step: 2.5}\n"
        "optim.name: [sgd, adamw]\n"
        "train.size: [320, 640]\n"
        "data.processes: [true, false]\n"
    )
    space = read_space(file, read_config("finetune"))
    assert space == {
        "optim.lr0": Interval(1e-5, 0.1, log=True),
        "train.batch_size": Interval(4, 32, step=4),
        "augment.degrees": Interval(0.0, 10.0, step=2.5),
        "optim.name": Choices(("sgd", "adamw")),
        "train.size": Choices((320, 640)),
        "data.processes": Choices((True, False)),
    }
    file.write_text(yaml_text(space_dict(space)))
    assert read_space(file, read_config("finetune")) == space


@pytest.mark.parametrize("name", [name for name in config_names() if name.startswith(("recipe", "finetune"))])
def test_the_space_of_yolov5_comes_along_and_has_every_recipe_in_it(name):
    space = read_space("evolve", read_config(name))
    assert len(space) == 24
    assert space["optim.lr0"] == Interval(1e-5, 0.1, log=True)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("optim.lr: {low: 1, high: 2}", "optim.lr is not a setting (did you mean 'optim.lrf'?"),
        ("speed: [1, 2]", "speed is not a setting"),
        ("optim.lr0: {low: 0.1, high: 0.01}", "optim.lr0: low is 0.1 and high 0.01; expected low below high"),
        ("optim.lr0: {low: 0, high: 0.1, log: true}", "optim.lr0: low is 0, which has no logarithm"),
        ("optim.lr0: {low: 0.001, high: 0.1, log: yes please}", "log of optim.lr0 is 'yes please'; expected true or"),
        ("optim.lr0: {low: 0.01, high: 0.1, log: true, step: 0.01}", "optim.lr0: log and step are both given"),
        ("optim.lr0: {low: 0.01, high: 0.1, step: 0.04}", "optim.lr0: step is 0.04; expected a number that leads from"),
        ("optim.lr0: {low: 0.01, high: 0.1, step: -0.01}", "optim.lr0: step is -0.01"),
        ("optim.lr0: {low: -1, high: 1}", "optim.lr0 is -1.0; expected a number at least 0"),
        ("optim.momentum: {low: 0.5, high: 2}", "optim.momentum is 2.0; expected a number from 0 to 0.9999"),
        ("optim.lr0: {low: 0.01}", "optim.lr0 has no high; expected {low: …, high: …}"),
        ("optim.lr0: {low: 0.01, high: 0.1, steps: 3}", "optim.lr0 has no key 'steps' (did you mean 'step'?"),
        ("optim.lr0: {low: a, high: 0.1}", "low of optim.lr0 is 'a'; expected a number"),
        ("train.batch_size: {low: 1.5, high: 16}", "low of train.batch_size is 1.5; expected a whole number"),
        ("optim.lr0: 0.1", "optim.lr0 is 0.1; expected {low: …, high: …} for numbers, or a list of choices"),
        ("optim.name: {low: 1, high: 2}", "optim.name is no number; expected a list of choices"),
        ("optim.name: [sgd, adan]", "optim.name: 'adan' is not known (did you mean 'adam'?"),
        ("train.dtype: [float32, float16]", "train.dtype is 'float16'; expected one of float32, bfloat16"),
        ("train.rect: [yes, 3]", "train.rect has the choice 3; expected true or false"),
        ("optim.name: [sgd, 1]", "optim.name has the choice 1; expected text"),
        ("optim.name: [sgd]", "optim.name has the choices ['sgd']; expected two or more that differ"),
        ("optim.name: [sgd, sgd, adam]", "expected two or more that differ"),
        ("train.multi_scale: [[0.5, 1], [1]]", "train.multi_scale is a list, which cannot be varied"),
        ("train.best_by: [AP, AP50]", "train.best_by says what a score is, so trials cannot differ in it"),
        ("optim.lr0: {low: 0.1, high: 0.2}", "optim.lr0 is from 0.1 to 0.2, and the configuration, which is the first"),
        ("optim.name: [adam, lion]", "optim.name is one of adam, lion, and the configuration, which is the first tr"),
        ("train.epochs: {low: 30, high: 90, step: 20}", "train.epochs is from 30 to 90 in steps of 20"),
        ("- optim.lr0", "expected settings such as optim.lr0: {low: 0.001, high: 0.1}"),
        ("", "expected settings such as optim.lr0"),
        ("optim.lr0: {low: 1", "line 2"),
    ],
)
def test_what_is_wrong_with_a_space_is_one_sentence_with_file_and_setting(tmp_path, line, problem):
    file = tmp_path / "space.yaml"
    file.write_text(line + "\n")
    with pytest.raises(InputError) as caught:
        read_space(file, START)
    text = str(caught.value)
    assert text.startswith(str(file))
    assert problem in text
    assert "\n" not in text


def test_spaces_are_found_by_name():
    with pytest.raises(InputError, match=r"no space is named 'evolv' \(did you mean 'evolve'"):
        read_space("evolv", read_config("finetune"))


def test_settings_are_put_into_a_configuration():
    config = with_settings(read_config("finetune"), {"optim.lr0": 0.5, "optim.name": "adamw"})
    assert (setting(config, "optim.lr0"), config.optim.name, config.train.epochs) == (0.5, "adamw", 100)
