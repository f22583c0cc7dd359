"""Sweep files: what they say, and what is refused in one sentence."""

import pytest

from thornbed.experiments.sweeps import presets
from thornbed.experiments.sweeps.plan import Published, key_of, matches, read_plan
from thornbed.experiments.sweeps.run import spoken
from thornbed.flower_apps.settings import BadSettings

FILE = """
task = "digits"
num-clients = 6
rounds = 2
strategy = ["fedavg", "median"]
attack = ["none", "sign_flip"]
seed = [0, 1]
"""


@pytest.fixture
def plan_of(tmp_path):
    def make(text, **options):
        path = tmp_path / "sweep.toml"
        path.write_text(text)
        return read_plan(path, **options)

    return make


def test_the_product_of_the_lists_is_run(plan_of):
    plan = plan_of(FILE)
    assert plan.swept == ("strategy", "attack", "seed")
    assert [cell.title for cell in plan.cells] == [
        f"{strategy}, {attack}, seed {seed}"
        for strategy in ("fedavg", "median")
        for attack in ("none", "sign_flip")
        for seed in (0, 1)
    ]
    assert {cell.settings.num_clients for cell in plan.cells} == {6}
    assert [cell.settings.num_malicious for cell in plan.cells][:4] == [
        0,
        0,
        1,
        1,
    ]  # the task's share where one attacks


def test_the_hash_is_of_what_matters(plan_of):
    keys = [cell.key for cell in plan_of(FILE).cells]
    assert len(set(keys)) == 8
    assert all(len(key) == 12 for key in keys)
    assert [cell.key for cell in plan_of(FILE + 'device = "cpu"\ndata-dir = "elsewhere"\n').cells] == keys
    assert [cell.key for cell in plan_of(FILE.replace('"median"', '"median( )"')).cells] == keys
    with pytest.raises(BadSettings, match="two cells are the same run"):
        plan_of('strategy = ["invariant(tau=0.2, alpha=0.3)", "invariant(alpha=0.3, tau=0.2)"]')
    with pytest.raises(BadSettings, match="two cells are the same run"):
        plan_of('num-clients = 6\nattack = "sign_flip"\nmalicious-ids = ["5", ""]\n')
    assert not set(keys) & {cell.key for cell in plan_of(FILE + "learning-rate = 0.5\n").cells}
    assert not set(keys) & {cell.key for cell in plan_of(FILE.replace("rounds = 2", "rounds = 3")).cells}
    assert not set(keys) & {cell.key for cell in plan_of(FILE + 'start-from = "m.safetensors"\n').cells}
    with pytest.raises(BadSettings, match="two cells are the same run"):
        plan_of('start-from = ["m.safetensors", "./m.safetensors"]')
    [alone] = plan_of('task = "digits"\nrounds = 2\n').cells
    assert key_of(alone.settings) == alone.key
    assert alone.title == ""


def test_scales_and_overrides_replace_values(plan_of):
    text = FILE + "[scale.cpu]\nrounds = 7\nseed = [5]\n[scale.paper]\nrounds = 70\n"
    assert {cell.settings.rounds for cell in plan_of(text).cells} == {2}
    assert {(cell.settings.rounds, cell.settings.seed) for cell in plan_of(text, scale="cpu").cells} == {(7, 5)}
    assert {cell.settings.seed for cell in plan_of(text, overrides={"seed": [8, 9]}).cells} == {8, 9}
    with pytest.raises(BadSettings, match="has no scale 'gpu'; it has cpu, paper"):
        plan_of(text, scale="gpu")


def test_published_numbers_find_their_cells(plan_of):
    text = FILE + '[[published]]\nwhere = {strategy = "median", attack = "none"}\nmetric = "accuracy"\nvalue = 1\n'
    plan = plan_of(text)
    assert [matches(plan.published[0], cell.settings) for cell in plan.cells] == [False] * 4 + [True] * 2 + [False] * 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("strategi = 'krum'", "there is no key strategi; there are task, model, strategy"),
        ("strategy = []", "strategy is an empty list"),
        ("output = 'x'", "there is no key output"),
        ("resume = true", "there is no key resume"),
        ("strategy = ['krum', 'krum()']", "two cells are the same run, (krum) and (krum()); drop one"),
        ("seed = [1, 1]", "two cells are the same run, (seed 1) and (seed 1)"),
        (
            "strategy = ['krum', 'krumm']",
            "the cell (strategy = 'krumm'): there is no strategy called krumm",
        ),
        ("rounds = ['ten']", "--rounds takes a whole number"),
        ("rounds = [[1]]", "--rounds takes a whole number"),
        ("rounds = 0", "--rounds 0 trains nothing and tests the model of --start-from; name one, or train"),
        ("data-dir = ['a', 'b']", "data_dir takes one value, not a list"),
        ("engine = 'deployment'", "a sweep runs inline or in simulation"),
        ("num-clients = 3\nnum_clients = 5", "a key is there twice"),
        ("origin = '{}'", "there is no key origin"),
        ("[scale.cpu]\nroundz = 3", "there is no key roundz"),
        ("seed = " + "[" * 5000, "it is no TOML"),
        ("about = 5", "at the table of About"),
        (
            "[[published]]\nwhere = {task = 'digits'}\nmetric = 'acuracy'\nvalue = 1",
            "Input should be 'accuracy', 'loss'",
        ),
        (
            "rounds = [1, 2]\n[[published]]\nwhere = {task = 'digits'}\nmetric = 'loss'\nvalue = 1",
            "its cells differ in more than their seed",
        ),
        ("scale = 3", "scale takes tables of settings"),
        ("[about]\ntitel = 'x'", "Extra inputs are not permitted at titel of About"),
        ("[[published]]\nvalue = 1.0", "Field required at where of Published"),
        ("[[published]]\nwhere = {strategi = 'krum'}\nmetric = 'accuracy'\nvalue = 1", "there is no setting strategi"),
        ("[[published]]\nwhere = {strategy = 'krum'}\nmetric = 'accuracy'\nvalue = 1", "no cell is like that"),
        ("a = ", "it is no TOML"),
        ("\udcff", "it is no TOML"),
    ],
)
def test_bad_files_are_refused_in_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "bad.toml"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(BadSettings) as refused:
        read_plan(path)
    assert sentence in str(refused.value)
    assert "bad.toml" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadSettings, match=r"none\.toml cannot be read"):
        read_plan(tmp_path / "none.toml")


@pytest.mark.parametrize("name", presets.available())
@pytest.mark.parametrize("scale", ["cpu", "paper"])
def test_every_preset_has_both_scales_and_says_what_it_is(name, scale):
    plan = read_plan(presets.find(name), scale=scale)
    assert plan.cells or plan.figures  # one that counts on made updates runs nothing
    assert plan.about.title
    assert plan.about.source
    assert plan.about.data
    assert 0 < plan.about.minutes["cpu"] <= 60
    assert plan.about.minutes["paper"] > 0


def test_a_preset_that_is_not_there_is_guessed():
    with pytest.raises(BadSettings, match="did you mean digits/rules_by_attacks"):
        presets.find("digits/rule_by_attack")


def test_times_are_said_as_one_says_them():
    assert [spoken(seconds) for seconds in (0.2, 40, 300, 9000)] == ["1 s", "40 s", "5 min", "2.5 h"]


BLOCKS = """
rounds = 2
strategy = ["fedavg", "median"]
[scale.cpu]
rounds = 1
[[block]]
task = "digits"
num-clients = 6
[[block]]
task = "digits(num_train=300)"
num-clients = 4
attack = ["sign_flip", "none"]
[block.scale.cpu]
num-clients = 5
[[published]]
where = { task = "digits", strategy = "median", num-clients = 5, attack = "none" }
metric = "accuracy"
value = 0.5
"""


def test_a_block_is_a_product_of_its_own_with_scales_of_its_own(plan_of):
    plan = plan_of(BLOCKS, scale="cpu")
    assert [
        (c.settings.task, c.settings.num_clients, c.settings.rounds, c.settings.strategy, c.settings.attack)
        for c in plan.cells
    ] == [
        ("digits", 6, 1, "fedavg", "none"),
        ("digits", 6, 1, "median", "none"),
        *(
            ("digits(num_train=300)", 5, 1, rule, attack)
            for rule in ("fedavg", "median")
            for attack in ("sign_flip", "none")
        ),
    ]
    assert plan.cells[0].title == "fedavg, digits, 6"  # what differs between blocks is special about a cell too
    with pytest.raises(BadSettings, match="has no scale 'gpu'; it has cpu"):
        plan_of(BLOCKS, scale="gpu")
    with pytest.raises(BadSettings, match="no cell is like that"):
        plan_of(BLOCKS)


def test_a_block_for_some_scales_takes_its_published_numbers_with_it(plan_of):
    text = """
[scale.cpu]
[scale.paper]
[[block]]
task = "digits"
[[block]]
task = "digits(num_train=300)"
only = ["paper"]
[[published]]
where = { task = "digits(num_train=300)" }
metric = "accuracy"
value = 0.5
"""
    assert [cell.settings.task for cell in plan_of(text, scale="cpu").cells] == ["digits"]
    assert plan_of(text, scale="cpu").published == []
    assert len(plan_of(text, scale="paper").cells) == 2
    assert len(plan_of(text, scale="paper").published) == 1
    with pytest.raises(BadSettings, match="only takes the scales at which a block has cells"):
        plan_of(text.replace('["paper"]', '"paper"'), scale="paper")


def test_numbers_of_cells_that_a_smaller_scale_leaves_out_are_left_out_with_them(plan_of):
    text = """
task = "digits"
strategy = ["fedavg", "median"]
[scale.cpu]
strategy = "fedavg"
[scale.paper]
[[published]]
where = { strategy = "fedavg" }
metric = "accuracy"
value = 0.5
[[published]]
where = { strategy = "median" }
metric = "accuracy"
value = 0.6
"""
    assert [number.value for number in plan_of(text, scale="cpu").published] == [0.5]
    assert [number.value for number in plan_of(text, scale="paper").published] == [0.5, 0.6]
    with pytest.raises(BadSettings, match="no cell is like that"):
        plan_of(text.replace('median" }', 'krum" }'), scale="cpu")


def test_a_published_number_names_the_options_that_matter(plan_of):
    plan = plan_of('strategy = ["krum", "krum(num_byzantine=2)", "median"]\nnum-clients = 8\n')
    number = Published(where={"strategy": "krum(num_byzantine=2)"}, metric="accuracy", value=1.0)
    assert [matches(number, cell.settings) for cell in plan.cells] == [False, True, False]
    number = Published(where={"strategy": "krum"}, metric="accuracy", value=1.0)
    assert [matches(number, cell.settings) for cell in plan.cells] == [True, True, False]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[block]\nrounds = 1\n", r"block takes tables of settings, \[\[block\]\]"),
        ("[[block]]\nround = 1\n", "there is no key round; there are task"),
        ("[[block]]\nrounds = 1\n[[block]]\nrounds = 1\n", "two cells are the same run"),
    ],
)
def test_bad_blocks_are_refused(plan_of, text, sentence):
    with pytest.raises(BadSettings, match=sentence):
        plan_of(text)
