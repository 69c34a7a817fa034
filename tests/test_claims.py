"""Claims, verdicts, and a chapter's comparison with its reference."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from reactivation_core import experiments, phases, store
from reactivation_core.edition import chapters, claims
from reactivation_core.edition.chapters import Chapter
from reactivation_core.edition.claims import Measurement

CLAIM = """
[[claim]]
id = "a"
source = "Fig. 1"
statement = "It is small."
chapter = "results/one"
metric = "size"
test = "below"
threshold = 1.0
reason = "Because."
"""


def measurement(mean, low, high):
    return Measurement(mean=mean, low=low, high=high, values=[low, high], unit="", tolerance=0.02)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder with one claim, its chapter and no results."""
    (tmp_path / "claims.toml").write_text(CLAIM)
    monkeypatch.setattr(claims, "CLAIMS", tmp_path / "claims.toml")
    monkeypatch.setattr(claims, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(chapters, "BOOK", tmp_path)
    notebook(tmp_path, "n = 1\nseed = 0")
    monkeypatch.delenv(chapters.RECORD, raising=False)
    return tmp_path


def chapter(values=(0.4, 0.5, 0.6), **parameters):
    run = Chapter("results/one", {"n": 1, "seed": 0} | parameters)
    run.measure("size", np.array(values))
    return run


def record(data, monkeypatch, run):
    """Make a run the reference."""
    with monkeypatch.context() as patched:
        patched.setenv(chapters.RECORD, str(data / "results"))
        run.finish()


@pytest.fixture
def reference(data, monkeypatch):
    """The results of a reference run."""
    record(data, monkeypatch, chapter())
    return data / "results" / "one.json"


@pytest.mark.parametrize(
    ("test", "values", "expected"),
    [
        ("below", (0.4, 0.5, 0.6), "reproduced"),
        ("below", (0.6, 0.9, 1.0), "undecided"),
        ("below", (0.9, 1.1, 1.2), "undecided"),
        ("below", (1.4, 1.5, 1.6), "not reproduced"),
        ("above", (1.4, 1.5, 1.6), "reproduced"),
        ("above", (0.9, 1.1, 1.2), "undecided"),
        ("above", (0.6, 0.9, 1.0), "undecided"),
        ("above", (0.4, 0.5, 0.6), "not reproduced"),
    ],
)
def test_a_verdict_is_of_the_whole_interval(data, test, values, expected):
    claim = claims.load()[0].model_copy(update={"test": test})
    assert stands(claim, size=values)["verdict"] == expected
    beyond = claim.model_copy(update={"section": "beyond"})
    known = {"reproduced": "holds", "not reproduced": "does not hold", "undecided": "undecided"}
    assert stands(beyond, size=values)["verdict"] == known[expected]


SMALL, LARGE, BOTH = (0.4, 0.5, 0.6), (1.4, 1.5, 1.6), (0.6, 0.9, 1.1)


@pytest.mark.parametrize(
    ("should", "values", "null", "expected"),
    [
        ("fail", SMALL, LARGE, "reproduced"),
        ("fail", SMALL, BOTH, "reproduced"),
        ("fail", SMALL, SMALL, "uninformative"),
        ("fail", LARGE, SMALL, "not reproduced"),
        ("fail", LARGE, LARGE, "not reproduced"),
        ("fail", BOTH, SMALL, "undecided"),
        ("pass", LARGE, LARGE, "uninformative"),
        ("pass", LARGE, SMALL, "not reproduced"),
        ("pass", SMALL, SMALL, "reproduced"),
    ],
)
def test_a_test_that_cannot_tell_a_claim_from_its_null_is_uninformative(data, should, values, null, expected):
    control = claims.Null(what="frozen", metric="still", should=should)
    claim = claims.load()[0].model_copy(update={"null": control})
    found = stands(claim, size=values, still=null)
    assert found["verdict"] == expected
    assert found["null"]["passes"] is {SMALL: True, LARGE: False, BOTH: None}[null]


def test_a_null_is_of_another_chapter_or_a_known_value_or_of_the_same_law(data):
    claim = claims.load()[0]

    def null(law="", **keys):
        with_null = claim.model_copy(update={"null": claims.Null(what="frozen", **keys)})
        rows = {"size": SMALL, "size_uniform": LARGE, "still": SMALL, "still_uniform": LARGE, "mean": SMALL}
        record = claims.Record({"results/one": rows_of(**rows), "results/two": rows_of(still=LARGE)})
        found = claims.standing(with_null, record, law)["null"]
        return found["value"], found["passes"]

    assert null(metric="still") == (0.5, True)
    assert null(metric="still", chapter="results/two") == (1.5, False)
    assert null("_uniform", metric="still") == (1.5, False)
    assert null("_uniform", metric="mean") == (0.5, True)
    assert null(value=2.0) == (2.0, False)
    assert null() == null(metric="missing") == null(metric="still", chapter="results/three") == (None, None)


def test_the_interval_of_a_claim_is_on_its_scale(data):
    claim = claims.load()[0].model_copy(update={"scale": "log"})
    found = stands(claim, size=(0.01, 0.1, 1.0))
    linear = stands(claim.model_copy(update={"scale": "linear"}), size=(0.01, 0.1, 1.0))
    assert found["interval"][0] > 0 > linear["interval"][0]
    assert found["value"] == linear["value"] == 0.37
    assert found["values"] == [0.01, 0.1, 1.0]
    with (data / "claims.toml").open("a") as file:
        file.write('scale = "log"\n')
    for name in ("size", "size_uniform"):
        run = Chapter("results/one", {"n": 1, "seed": 0})
        measured = run.measure(name, np.array((0.01, 0.1, 1.0)))
        assert [measured.low, measured.high] == found["interval"]
    assert run.measure("other", np.array((0.01, 0.1, 1.0))).low == linear["interval"][0]
    assert run.measure("third", np.array((0.01, 0.1, 1.0)), scale="log").low == found["interval"][0]


def rows_of(**values):
    return {name: Measurement(mean=0, low=0, high=0, values=x, unit="", tolerance=0.02) for name, x in values.items()}


def stands(claim, **values):
    return claims.standing(claim, claims.Record({"results/one": rows_of(**values)}))


def test_what_was_not_measured_has_no_verdict(data):
    found = stands(claims.load()[0])
    assert (found["verdict"], found["value"], found["values"]) == ("not measured", None, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CLAIM + CLAIM, "several of a"),
        (CLAIM.replace('"below"', '"about"'), "below"),
        (CLAIM.replace("reason", "raison"), "reason"),
        ("nonsense", "Expected"),
    ],
)
def test_malformed_claims_are_refused(data, text, message):
    (data / "claims.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        claims.load()


def test_the_claims_of_the_paper_are_well_formed():
    record = claims.Record()
    for claim in claims.load():
        assert claim.reason and claim.statement and claim.source
        assert claim.null, f"{claim.id} names no null, nor why there is none"
        if claim.null.metric:
            chapter = claim.null.chapter or claim.chapter
            assert claim.null.metric in record[chapter], f"the null of {claim.id} is not in the results of {chapter}"


def test_no_limit_is_where_its_quantity_cannot_be():
    for claim, entry in zip(claims.load(), claims.scorecard(), strict=True):
        for row in (entry, entry["uniform"], entry["text"], entry["null"]):
            if row and row["interval"] and claim.scale != "linear":
                assert row["interval"][0] >= 0, claim.id
                assert row["interval"][1] <= 1 or claim.scale == "log", claim.id


def test_finish_agrees_with_its_reference(reference, capsys):
    chapter().finish()
    assert capsys.readouterr().out.splitlines()[-2:] == ["a: reproduced", "1 measurements agree with one.json."]


@pytest.mark.parametrize("values", [(0.6, 0.6, 0.6), (0.4, 0.5, 0.64)])
def test_finish_fails_where_a_measurement_differs(reference, values):
    before = reference.read_bytes()
    with pytest.raises(AssertionError, match="expected size = 0.5 within"):
        chapter(values).finish()
    assert reference.read_bytes() == before


@pytest.mark.parametrize(("mean", "spread", "fine", "other"), [(3.0, 1.0, 3.5, 9.5), (0.01, 1.0, 0.4, 0.6)])
def test_a_mean_is_compared_by_its_size_or_where_that_is_small_by_its_interval(mean, spread, fine, other):
    expected = measurement(mean, mean - spread, mean + spread).model_copy(update={"tolerance": 0.5})
    differs = [
        bool(chapters._differences(results(measurement(got, got - spread, got + spread)), results(expected)))
        for got in (mean, fine, other, -other)
    ]
    assert differs == [False, False, True, True]


def results(measured):
    return claims.Results(chapter="results/one", parameters={}, ensembles={}, measurements={"size": measured})


def test_a_value_that_is_not_finite_is_refused(data):
    with pytest.raises(ValueError, match="expected finite values of size, got .*inf"):
        chapter((0.4, np.inf))


def test_finish_fails_where_a_measurement_is_missing_or_new(reference):
    run = chapter()
    run.measure("new", np.ones(2))
    with pytest.raises(AssertionError, match="new is measured in only one"):
        run.finish()


def test_finish_fails_where_an_ensemble_is_read_that_the_reference_did_not_read(reference):
    run = chapter()
    run.ensembles["position-noisy-unbiased"] = "a" * 64
    with pytest.raises(AssertionError, match="position-noisy-unbiased to be file none, got aaaaaaaaaaaa"):
        run.finish()


def test_finish_fails_where_an_ensemble_is_another(reference):
    content = json.loads(reference.read_text())
    content["ensembles"] = {"position-noisy-unbiased": "f" * 64}
    reference.write_text(json.dumps(content))
    with pytest.raises(AssertionError, match="position-noisy-unbiased to be file ffffffffffff, got none"):
        chapter().finish()


def test_finish_does_not_compare_other_parameters(reference, capsys):
    chapter((9.0, 9.1, 9.2), n=2).finish()
    assert "Other parameters" in capsys.readouterr().out


def test_finish_without_reference_says_how_to_make_it(data):
    with pytest.raises(AssertionError, match="reactivation run-chapters one"):
        chapter().finish()


def test_a_claim_that_was_not_measured_is_named(data):
    run = Chapter("results/one", {"n": 1, "seed": 0})
    for use in (run.table, run.finish):
        with pytest.raises(ValueError, match="expected a measurement of size for the claim a, got none"):
            use()


def test_malformed_results_are_refused(reference):
    reference.write_text(reference.read_text()[:40])
    with pytest.raises(ValueError, match=r"one\.json"):
        chapter().finish()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("n_steps", 0, "n_steps >= 2, got 0"),
        ("n_steps", 7, "n_steps a multiple of 5, got 7"),
        ("n_steps", 2.5, "a whole number for the parameter n_steps, got 2.5"),
        ("n_steps", "abc", "a whole number for the parameter n_steps, got 'abc'"),
        ("n_steps", True, "a whole number for the parameter n_steps, got True"),
        ("n_shown", 0, "n_shown >= 1, got 0"),
        ("n_shown", 21, r"n_shown <= 2 \* n_steps = 20, got 21"),
        ("seed", -1, "seed >= 0, got -1"),
        ("seed", 2**32, r"seed < 2\*\*32 = 4294967296, got 4294967296"),
        ("scale", float("nan"), "a finite number for the parameter scale, got nan"),
        ("scale", -0.5, "scale >= 0, got -0.5"),
        ("ensemble", 3, "a text for the parameter ensemble, got 3"),
    ],
)
def test_bad_parameters_are_refused(data, name, value, message):
    own = {"seed": 0, "n_steps": 10, "n_shown": 3, "scale": 1.0, "ensemble": "mine"}
    notebook(
        data,
        "seed = 0\nn_steps = 10  # >= 2, a multiple of 5\nn_shown = 3  # <= 2 * n_steps\nscale = 1.0\n"
        "ensemble = 'mine'  # or another, >= nothing",
    )
    assert Chapter("results/one", own | {"scale": 2}).parameters == {"seed": 0, "n_steps": 10, "n_shown": 3, "scale": 2}
    with pytest.raises(ValueError, match=f"^expected {message}$"):
        Chapter("results/one", own | {name: value})


def test_what_depends_on_draws_must_hold_in_the_canonical_run_and_is_told_of_others(reference, capsys):
    run = chapter()
    run.check("it is near", True, np.bool_(True))
    with pytest.raises(AssertionError, match="does not hold: it is far"):
        run.check("it is far", True, False)
    chapter(n=2).check("it is far", False)
    assert capsys.readouterr().out.splitlines() == ["it is near", "does not hold with these parameters: it is far"]


def test_with_other_parameters_what_was_not_measured_is_left_out_and_scales_give_way(reference, data):
    with (data / "claims.toml").open("a") as file:
        file.write('scale = "log"\n' + CLAIM.replace('"a"', '"b"').replace('"size"', '"size_1000"'))
    run = chapter((-0.1, 0.2, 0.3), n=2)
    assert len(run.table().data.splitlines()) == 3
    assert run.beside(("here",), ("later", "size_1000")).data.splitlines()[-1] == "| later |  |"
    with pytest.raises(ValueError, match="scale log"):
        chapter((-0.1, 0.2, 0.3))


@pytest.mark.parametrize(
    ("tiny_experiment", "place"),
    [
        ("position-noisy-unbiased", ("", "unbiased")),
        ("position-noisy-biased-uniform", ("-uniform", "biased")),
        ("position-gru-biased", ("", "biased")),
        ("position-noisy-unbiased-rats", ("", "unbiased")),
    ],
    indirect=["tiny_experiment"],
)
def test_another_ensemble_stands_alone_in_the_place_of_the_one_most_like_it(data, tiny_ensemble, tmp_path, place):
    own = store.save(tiny_ensemble, tmp_path)
    run = Chapter("results/one", {"n": 1, "seed": 0})
    found = run.conditions("position-noisy-{bias}{law}", str(own), law=("", "-uniform"), bias=("unbiased", "biased"))
    assert list(found) == [place] and len(found[place].ensemble) == 3 and list(run.ensembles) == [str(own)]
    of = run.conditions("position-noisy-unbiased{law}", str(own), law=("", "-uniform"))[place[0]]
    of.measure("size", np.array((0.4, 0.5, 0.6)))
    law = " — with uniform noise" * bool(place[0])
    (row,) = run.table().data.splitlines()[2:]
    assert row == f"| It is small.{law} | Fig. 1 | below 1 | 0.5 | 0.252 to 0.748 |  | reproduced |"


def test_another_ensemble_is_measured_alone_and_neither_compared_nor_stored(
    data, tiny_ensemble, tiny_experiment, tmp_path, monkeypatch, capsys
):
    own = store.save(tiny_ensemble, tmp_path)
    run = Chapter("results/one", {"n": 1, "seed": 0})
    of = run.conditions("position-noisy-{bias}{law}", str(own), law=("", "-uniform"), bias=("unbiased", "biased"))
    assert list(of) == [("", "unbiased")] and of["", "unbiased"].suffix == "_unbiased"
    assert len(of["", "unbiased"].ensemble) == 3 and list(run.ensembles) == [str(own)]
    assert f"Networks of {own}, not those" in capsys.readouterr().out
    run.measure("size", np.array((0.4, 0.5, 0.6)))
    record(data, monkeypatch, run)
    assert not (data / "results" / "one.json").exists()
    assert capsys.readouterr().out == f"1 measurements of {own}: not compared, and not stored.\n"


def test_the_scorecard_has_every_claim_with_its_verdict_for_every_law(data, monkeypatch):
    (data / "claims.toml").write_text(CLAIM + CLAIM.replace('"a"', '"b"').replace("results/one", "results/two"))
    run = chapter()
    run.measure("size_uniform", np.array([1.9, 2.0, 2.1]))
    record(data, monkeypatch, run)
    first, second = claims.scorecard()
    assert (first["id"], first["value"], first["verdict"]) == ("a", 0.5, "reproduced")
    assert first["values"] == [0.4, 0.5, 0.6] and first["null"] is None and first["text"] is None
    low, high = first["interval"]
    assert low < 0.5 < high
    assert (first["uniform"]["value"], first["uniform"]["verdict"]) == (2.0, "not reproduced")
    assert (second["id"], second["value"], second["interval"], second["uniform"]) == ("b", None, None, None)
    assert claims.summary([first, second]) == "2 claims: 1 reproduced, 1 not measured"
    beyond = second | {"section": "beyond", "verdict": "does not hold"}
    assert claims.summary([first, beyond]) == "1 claims: 1 reproduced; 1 predictions beyond the paper: 1 do not hold"
    pairs = [["holds", "undecided"], ["reproduced", "not reproduced"], ["holds", "holds"]]
    rows = {str(i): [[0.5, verdict] for verdict in pair] for i, pair in enumerate(pairs)}
    (data / "results" / "draws.json").write_text(json.dumps({"rows": rows}))
    limits = claims.limits(20 * [first])
    assert "by chance: 1 of 40," in limits and "2 of 3 rows have another verdict, 1 of them the opposite" in limits


def test_the_scorecard_agrees_with_the_verdicts_chapters_print(reference, capsys):
    chapter().finish()
    printed = capsys.readouterr().out.splitlines()[0]
    assert [f"{entry['id']}: {entry['verdict']}" for entry in claims.scorecard()] == [printed]


def test_the_table_of_a_chapter_has_nulls_and_a_row_for_each_law(data):
    with (data / "claims.toml").open("a") as file:
        file.write('post_hoc = true\nnull = {what = "all", value = 0.7}\n')
    run = chapter()
    run.measure("size_uniform", np.array([1.9, 2.0, 2.1]))
    assert run.table().data.splitlines()[2:] == [
        "| It is small. | Fig. 1, post hoc | below 1 | 0.5 | 0.252 to 0.748 | 0.7 | uninformative |",
        "| — with uniform noise |  | below 1 | 2 | 1.75 to 2.25 | 0.7 | not reproduced |",
    ]


def test_measurements_stand_side_by_side(data):
    run = chapter()
    shown = str(run.measurements["size"])
    assert shown == "0.5 (0.252 to 0.748)"
    table = run.beside(("here", "there"), ("of it", "size", None), ("of others", 0.25, 1))
    assert table.data.splitlines() == [
        "|  | here | there |",
        "| --- | --- | --- |",
        f"| of it | {shown} |  |",
        "| of others | 0.25 | 1 |",
    ]
    with pytest.raises(ValueError, match="expected a row of 3 cells, got"):
        run.beside(("here", "there"), ("of it", "size"))
    with pytest.raises(KeyError, match="weight"):
        run.beside(("here",), ("of it", "weight"))
    by_parts = run.compare({"ze": "of it"}, {"how large": "si"})
    assert by_parts.data.splitlines()[-1] == f"| how large | {shown} |"


def test_a_row_leaves_empty_what_only_other_columns_measured(data):
    run = chapter()
    run.measure_each("{}_late", {"size": np.array([1.0, 2.0]), "weight": np.array([3.0, 4.0])}, "kg")
    assert run.measurements["weight_late"].unit == "kg"
    assert run.rows(("", "_late"), {"size": "size", "weight": "weight"}) == [
        ("size", "size", "size_late"),
        ("weight", None, "weight_late"),
    ]
    assert run.rows(("size", "weight"), {"late": "{}_late"}) == [("late", "size_late", "weight_late")]
    with pytest.raises(KeyError, match="height"):
        run.compare({"": "early", "_late": "late"}, {"height": "height"})


def test_a_condition_has_its_suffix_behind_each_name(data, monkeypatch):
    run = chapter()
    monkeypatch.setattr(run, "ensemble", lambda name: phases.untrained(experiments.get(name), 2, torch.Generator()))
    names = {"": "ring", "_other": "ring-even"}
    found = run.named(names)
    assert {suffix: of.ensemble.experiment.name for suffix, of in found.items()} == names
    found["_other"].measure_each("{}_early", {"size": np.array([1.0, 2.0])})
    assert "size_early_other" in run.measurements


def test_settings_stand_beside_the_papers():
    names = {"n_batches": "20 000", "task.peak": "no", "sigma": "0.1 / √0.02", "task.motion.turning": "11.52"}
    found = chapters.settings(experiments.get("head-direction-unbiased"), names).data.splitlines()
    assert found[2:] == [
        "| training batches | 20 000 | 20 000 |",
        "| scale the head-direction cells to a peak of 1 | no | yes |",
        "| noise σ; σ sqrt(dt) per step | 0.1 / √0.02 | 0.7071 |",
        "| s.d. of the angular velocity ω, rad/s | 11.52 | 11.52 |",
    ]


def notebook(data, source, tags=("parameters",)):
    path = data / "results" / "one.ipynb"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"cells": [{"metadata": {"tags": list(tags)}, "source": [source]}]}))


def test_parameters_are_those_of_the_notebooks_first_cell(data):
    notebook(data, "seed = 0\nn_steps = 5\nc = 2.0")
    run = Chapter("results/one", {"seed": 3, "n_steps": 7, "c": 1.5, "_i": 4, "np": np, "flag": True})
    assert run.parameters == {"seed": 3, "n_steps": 7, "c": 1.5}
    assert torch.equal(torch.rand(3, generator=run.generator(1)), torch.rand(3, generator=torch.manual_seed(4)))
    cells = ["", "np = 1", "import numpy", "seed = 0", "# Parameters\nn_stpes = 9", "import torch"]
    with pytest.raises(ValueError, match="expected parameters among seed, n_steps, c, got n_stpes"):
        Chapter("results/one", {"seed": 3, "n_steps": 7, "c": 1.5, "n_stpes": 9, "In": cells})
    # As where cells are run again by hand.
    Chapter(
        "results/one", {"seed": 3, "n_steps": 7, "c": 1.5, "i": 4, "In": [*cells, "seed = 0\nc = 1.5", "import torch"]}
    )
    notebook(data, "seed = 0", tags=())
    with pytest.raises(ValueError, match="expected a cell tagged `parameters`"):
        Chapter("results/one", {"seed": 3})


def test_a_name_is_measured_once(data):
    run = chapter()
    with pytest.raises(ValueError, match="got size twice"):
        run.measure("size", np.ones(3))


def test_conditions_are_ensembles_whose_measurements_carry_their_suffix(data, tiny_ensemble, monkeypatch):
    monkeypatch.setattr(chapters.store, "load", lambda name: replace(tiny_ensemble, sha256=name))
    run = Chapter("results/one", {"n": 1, "seed": 0})
    both = run.conditions("noisy-{bias}{law}", bias=("unbiased", "biased"), law=("", "-uniform"))
    assert list(both) == [("unbiased", ""), ("unbiased", "-uniform"), ("biased", ""), ("biased", "-uniform")]
    assert list(run.ensembles) == ["noisy-unbiased", "noisy-unbiased-uniform", "noisy-biased", "noisy-biased-uniform"]
    measured = both["biased", "-uniform"].measure("size", np.ones(3) + [0, 0.1, -0.1])
    assert run.measurements == {"size_biased_uniform": measured}
    one = run.conditions("noisy-unbiased{law}", law=("", "-uniform"))["-uniform"]
    assert one.suffix == "_uniform" and one.ensemble is both["unbiased", "-uniform"].ensemble
    asleep = one.sleep(4, 6, run.generator(), c=4.0, every=2)
    generator = run.generator()
    start = phases.starts(tiny_ensemble, 4, generator)
    quiescent = phases.quiescent(tiny_ensemble, 6, 2.0, start, generator, every=2)
    assert torch.equal(asleep.decoded, quiescent.decoded)
    assert one.wake(4, 6, run.generator()).decoded.shape == (3, 4, 6, 2)
    disturbed = one.under(both["biased", ""])
    assert disturbed.suffix == "_biased" and disturbed.ensemble.network is one.ensemble.network
    assert disturbed.ensemble.experiment is both["biased", ""].ensemble.experiment


def test_what_is_published_is_kept_by_a_reference_run_only(data, tiny_ensemble, monkeypatch):
    monkeypatch.setattr(chapters.store, "load", lambda name: replace(tiny_ensemble, sha256=name))
    for record in ("", str(data)):
        monkeypatch.setenv(chapters.RECORD, record)
        run = chapter()
        run.publish(axis=np.arange(3))
        run.conditions("noisy{law}", law=("-uniform",))["-uniform"].publish(density={"active": np.ones(2)})
        assert list(run.arrays) == ["axis", "density_active_uniform"]
        if record:
            run.finish()
    with np.load(data / "one.npz") as kept:
        assert kept["axis"].tolist() == [0, 1, 2] and kept["density_active_uniform"].dtype == np.float32
