"""What the YAML of a sweep means, and values as Hydra reads them."""

import math

import pytest
import sweep as script
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from searches import parsed

from engrec.config import check
from engrec.errors import quoted
from engrec.search import checking, space

SWEEPS = sorted((script.ROOT / "conf" / "sweep").glob("*.yaml"))


def test_there_are_the_four_sweeps_that_the_docs_name():
    assert {path.stem for path in SWEEPS} >= {"small", "speed", "vgg_finetune", "vgg_pretrain"}


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_key_of_every_sweep_is_one_of_the_configuration(compose, path):
    sweep = space.read(path)
    needed = [f"init_from={path}"] if "stage=finetune" in sweep.overrides else []
    for key, values in sweep.search.items():
        drawn = checking.example(values, 1)
        cfg = compose(*space.merged(sweep.overrides, needed, space.arguments({key: drawn})))
        check(cfg)
        if not OmegaConf.is_config(OmegaConf.select(cfg, key)):  # a group's option is no value
            assert OmegaConf.select(cfg, key) == drawn
    checking.check_fits(sweep, cfg)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_says_its_command(path):
    assert f"python scripts/sweep.py sweep={path.stem} " in path.read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"serch": {}}, r"serch is unknown \(did you mean search\?\); it must be one of overrides, search"),
        ({"search": {}}, "search is missing"),
        ({"search": {"x": {"low": 1, "hihg": 2}}}, r"search.x.hihg is unknown \(did you mean high\?\)"),
        ({"search": {"x": {"low": 1}}}, "search.x.high= must be a number; it needs low and high, or choices"),
        ({"search": {"x": {"low": 2, "high": 1}}}, "search.x must have low < high"),
        ({"search": {"x": {"low": 0, "high": 1, "log": True}}}, "with log: true, low > 0"),
        ({"search": {"x": {"low": True, "high": 2}}}, "search.x.low=True must be a number"),
        ({"search": {"x": {"choices": []}}}, r"search.x.choices must be a list such as \[16, 32\]"),
        ({"search": {"x": {"choices": [1], "low": 0}}}, "search.x.low is unknown; it must be one of choices"),
        ({"search": {"x": 3}}, "search.x must be a mapping"),
        ({"search": {"x": {"low": 0.1, "high": math.inf}}}, "search.x.high=inf must be a number from -1e300 to 1e300"),
        ({"search": {"x": {"low": math.nan, "high": 1}}}, "search.x.low=nan must be a number from -1e300 to 1e300"),
        ({"search": {"x": {"low": 1, "high": 10**400}}}, r"search.x.high=10+ must be a number from -1e300 to 1e300"),
        ({"search": {"x": {"low": 0.1, "high": 1, "step": math.inf}}}, "search.x.step=inf must be a number from"),
        ({"search": {"x": {"low": 0.0, "high": 1, "step": 1e-30}}}, "search.x.step=1e-30 must be larger"),
        ({"overrides": 3}, r"overrides=3 must be a list such as \[stage=scratch, max_epochs=8\]"),
        ({"overrides": "stage=scratch"}, "overrides=stage=scratch must be a list"),
        ({"objectives": 3}, r"objectives=3 must be a list such as \[\{metric: val/auc\}\]"),
        ({"objectives": {"metric": "val/auc"}}, r"objectives=.* must be a list"),
        ({"overrides": ["stage"]}, "overrides: stage must be KEY=VALUE"),
        ({"objectives": [{"metric": "test/auc"}]}, "test/auc would select on the test images"),
        ({"objectives": [{"metric": "val/acuracy"}]}, r"val/acuracy is unknown \(did you mean val/accuracy"),
        ({"objectives": [{"metric": "val/auc", "direction": "up"}]}, "direction=up must be minimize or maximize"),
        ({"objectives": [{"metric": "val/auc"}] * 2}, "objectives: val/auc is listed twice"),
        (
            {"objectives": [{"metric": "val/loss"}], "search": {"module.label_smoothing": {"choices": [0, 0.1]}}},
            r"val/loss cannot choose module\.label_smoothing, as it is another loss with each value: set val/auc",
        ),
        ({"pruner": {"name": "medain"}}, r"pruner.name=medain is unknown \(did you mean median\?\)"),
        ({"pruner": {"name": "median", "reduction_factor": 3}}, "pruner.reduction_factor is unknown"),
        ({"pruner": {"name": "median", "n_warmup_steps": -1}}, "pruner.n_warmup_steps=-1 must be a whole number"),
        ({"sampler": {"name": "grid"}}, "sampler.name=grid is unknown; it must be one of tpe, random"),
        ({"sampler": {"name": ["x"]}}, r"sampler.name=\['x'\] is unknown; it must be one of tpe, random"),
        ({"folds": 3}, r"folds=3 must be a list such as \[0, 1, 2\]"),
        ({"folds": 0}, r"folds=0 must be a list such as \[0, 1, 2\]"),
        ({"folds": [0, 0]}, r"folds=\[0, 0\] must be different whole numbers from 0"),
        ({"seed": -1}, "seed=-1 must be a whole number from 0"),
        (
            {"objectives": [{"metric": "val/auc"}, {"metric": "num_parameters"}], "pruner": {"name": "median"}},
            "several objectives allow no pruning: set pruner: null",
        ),
        (
            {"objectives": [{"metric": "num_parameters"}], "pruner": {"name": "median"}},
            "known only at the end",
        ),
    ],
)
def test_what_is_wrong_with_a_sweep_is_reported_in_one_line(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message) as error:
        parsed(tmp_path, **changes)
    assert str(error.value).startswith(f"{tmp_path / 'mine.yaml'}: ")
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_yaml_is_named(tmp_path):
    (tmp_path / "mine.yaml").write_text("search: {x: [")
    with pytest.raises(ValueError, match=r"mine.yaml is not YAML") as error:
        space.read(tmp_path / "mine.yaml")
    assert "\n" not in str(error.value)


def test_lower_is_better_for_losses_and_costs_unless_set_otherwise(tmp_path):
    metrics = ["val/auc", "val/loss", "seconds_per_epoch", "train_images_per_second", "num_parameters"]
    sweep = parsed(tmp_path, objectives=[{"metric": metric} for metric in metrics])
    assert [objective.sign for objective in sweep.objectives] == [1, -1, -1, 1, -1]
    assert parsed(tmp_path, objectives=[{"metric": "val/auc", "direction": "minimize"}]).objectives[0].sign == -1


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9999, 9999) | st.floats(1e-9, 1e9) | st.sampled_from(["relu", "32-true"]),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(VALUES)
def test_hydra_reads_a_value_as_it_was_drawn(value):
    read = OverridesParser.create().parse_override(f"key={space.text(value)}").value()
    assert read == to_six_digits(value)


def to_six_digits(value):
    if isinstance(value, list):
        return [to_six_digits(part) for part in value]
    return float(f"{value:.5e}") if isinstance(value, float) else value


PATHS = [
    "plain/0", "with space", " a ", "a=b,c", "it's", "[x]{y}", "a\\b", "a\\'b\\", "a\\\n", "grün", "",
    "m/${x}", "\\\\${x}\\", "${it's", "$${a}\\'${b}'", "${oc.env:HOME}",
    "1e3", "-1E+3", "7", "-7", "1_000", ".5", "1.", "-.5e-1_0", "0x10", "1/2", "inf", "-Inf", "NaN",
    "null", "None", "True", "false", "~", "-", "[a]", "[1,2]", "{a:1}", "range(3)", "a,b", "1,2", "glob(*)",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_hydra_reads_a_path_as_it_is(path):
    override = OverridesParser.create().parse_override(f"output_dir={quoted(path)}")
    assert not override.is_sweep_override()
    read = OmegaConf.create({"output_dir": override.value()}).output_dir
    assert (read, type(read)) == (path, str)


@settings(max_examples=300, deadline=None)
@given(st.text("ab1e.-_+/\\'\"${}[](),:=~ \n\tü") | st.text("1e.-_+INFinfa", max_size=5))
def test_hydra_reads_any_path_as_it_is(path):
    test_hydra_reads_a_path_as_it_is(path)


def test_what_the_command_line_fixes_is_not_searched(tmp_path):
    sweep = parsed(tmp_path).fixed(["x=0.5", "stage=pretrain", "+new=1"])
    assert list(sweep.search) == ["kind"]
    assert sweep.overrides == ("stage=pretrain", "x=0.5", "+new=1")
    with pytest.raises(ValueError, match="leave nothing to search for"):
        sweep.fixed(["kind=a"])


def test_costs_are_read_from_what_a_run_measured(tmp_path):
    metrics = ["val/loss", "seconds_per_epoch", "train_images_per_second", "num_parameters"]
    objectives = parsed(tmp_path, objectives=[{"metric": metric} for metric in metrics]).objectives
    written = {
        "validation": {"val/loss": 0.5}, "num_images": {"train": 600}, "train_images_per_second": 200.0,
        "num_parameters": 7, "seconds": 99.0,
    }  # fmt: skip
    assert space.figures(written, objectives) == dict(zip(metrics, [0.5, 3.0, 200.0, 7.0], strict=True))
    with pytest.raises(ValueError, match="seconds_per_epoch is not in it"):
        space.figures(written | {"train_images_per_second": None}, objectives)
