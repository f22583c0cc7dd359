"""The three backdoors: what each reads and changes in the protocol, and what comes of it in a whole SplitNN."""

from __future__ import annotations

import doctest

import pytest
import torch
from torch import Tensor

import thornbed.attacks.vertical
from thornbed.attacks.vertical import Adversary, VerticalAttack, View
from thornbed.attacks.vertical._inference import LabelInference
from thornbed.attacks.vertical.badvfl import Badvfl
from thornbed.attacks.vertical.cooperative_backdoor import CooperativeBackdoor
from thornbed.attacks.vertical.in_process import AttackingParty, Training, attack_in_process, conspire
from thornbed.attacks.vertical.villain import Villain
from thornbed.defenses.vertical.gradient_noise import GradientNoise
from thornbed.tasks.blocks import split
from thornbed.tasks.blocks.contiguous import contiguous
from thornbed.tasks.blocks.grid import grid
from thornbed.tasks.digits import digits
from thornbed.tasks.split.records import Records

SHAPE = (1, 4, 6)
QUICK = {"epochs": 2, "steps": 2, "latent": 2, "hidden": 4}


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Echo:
    """A party's work that embeds its input as it is, and keeps the gradients it was given."""

    def __init__(self) -> None:
        self.learnt: list[Tensor | None] = []

    def step(self, gradient: Tensor | None, x: Tensor | None) -> Tensor | None:
        self.learnt.append(gradient)
        return x


class Locked:
    """A gradient that may be handed on, and that nobody may look into."""

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"the attack read {name} of a gradient")

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        raise AssertionError(f"the attack read a gradient with {function}")


def party(adversary: Adversary, work: Echo) -> AttackingParty:
    ids = torch.arange(len(adversary.view.x))
    return AttackingParty(Records(ids, adversary.view.x), work, adversary, source())


def test_the_cooperative_attack_never_looks_at_a_gradient(made) -> None:
    adversary = CooperativeBackdoor(target=2, size=(1, 3), **QUICK).adversary(made(), source())
    adversary.agree(adversary.vote(), source())
    work, locked = Echo(), Locked()
    spied = party(adversary, work)
    for rows in torch.arange(120).split(40):
        spied.step(locked, rows)
    spied.step(locked, None)
    assert all(each is locked for each in work.learnt)
    # those of the baselines do look
    for watching in (Badvfl(target=2, size=(2, 2)), Villain(target=2)):
        spied = party(watching.adversary(made(), source()), Echo())
        spied.step(None, torch.arange(40))
        with pytest.raises(AssertionError, match="the attack read"):
            spied.step(locked, torch.arange(40))


def test_no_word_more_goes_to_the_server_than_an_honest_party_would_send(made) -> None:
    for attack in (
        CooperativeBackdoor(target=2, size=(1, 3), **QUICK),
        Badvfl(target=2, size=(2, 2)),
        Villain(target=2),
    ):
        work = Echo()
        attacking = party(attack.adversary(made(), source()), work)
        answers = [attacking.step(None, rows) for rows in torch.arange(120).split(40)]
        assert [tuple(answer.shape) for answer in answers] == [(40, 12)] * 3
        assert attacking.step(None, None) is None
        assert len(work.learnt) == 4


def test_a_poisoned_row_is_another_sample_each_time_with_the_trigger_on_it(made) -> None:
    view = made()
    attack = CooperativeBackdoor(target=2, size=(1, 2), center=(0, 1), intensity=7.0, **QUICK)
    adversary = attack.adversary(view, source())
    adversary.agree(torch.tensor([4, 8]), source())
    rows = torch.tensor([3, 4, 8])
    generator = source(1)
    one, two = (adversary.embeds(rows, view.x[rows], generator) for _ in range(2))
    assert torch.equal(one[0], view.x[3])
    for each in (one, two):
        where = each[1:] > 5
        assert where.view(2, 4, 3)[:, 0, :2].all()
        assert int(where.sum()) == 4
    assert not torch.equal(one[1:], two[1:])
    pool = adversary.memory["pool"]
    for row in one[1:]:
        assert float((pool - (row - adversary.trigger.add[0])).abs().amax(dim=1).min()) < 1e-5
    bare = CooperativeBackdoor(target=2, size=(1, 2), center=(0, 1), intensity=7.0, swap=False, **QUICK)
    adversary = bare.adversary(view, source())
    adversary.agree(torch.tensor([4, 8]), source())
    torch.testing.assert_close(
        adversary.embeds(rows, view.x[rows], source())[1:], view.x[rows[1:]] + adversary.trigger.add
    )


def test_what_generates_is_learnt_from_the_rows_that_were_inferred_and_from_no_others(made, monkeypatch) -> None:
    # Algorithm 1, line 8: retrained on the inferred set, of its own features
    given = []
    learn = LabelInference.generated

    def listening(self, x: Tensor, count: int, generator: torch.Generator) -> Tensor:
        given.append(x.flatten(1))
        return learn(self, x, count, generator)

    monkeypatch.setattr(LabelInference, "generated", listening)
    view, larger = made(), {"epochs": 250, "steps": 2, "latent": 4, "hidden": 32, "learning_rate": 3e-3}
    adversary = CooperativeBackdoor(target=2, size=(1, 3), confidence=0.9, **larger).adversary(view, source())
    assert set(view.known_targets.tolist()) < set(adversary.vote().tolist())
    [learnt_from] = given
    assert torch.equal(learnt_from, view.x[adversary.vote()])


def test_badvfl_compares_with_all_its_references_as_they_were_last(made) -> None:
    adversary = Badvfl(target=2, size=(2, 2), references=2, warm_up=0.0).adversary(made(), source())
    one, two = adversary.memory["references"].tolist()
    for row, gradient in ((one, [1.0, 0.0]), (two, [0.0, 3.0]), (one, [-2.0, 0.0])):
        adversary.hears(torch.tensor([row]), torch.tensor([gradient]))
    assert adversary.memory["directions"].tolist() == [[-1.0, 0.0], [0.0, 1.0]]
    adversary.hears(torch.tensor([7]), torch.tensor([[-5.0, 5.0]]))
    assert float(adversary.memory["similarity"][7]) == pytest.approx(1.0)


def test_badvfl_that_takes_all_rows_for_the_targets_has_none_to_replace_them_by(made) -> None:
    view = made()
    adversary = Badvfl(target=2, size=(2, 2), similarity=-1.0, warm_up=0.0).adversary(view, source())
    for rows in torch.arange(120).split(30):
        adversary.hears(rows, torch.randn(30, 2, generator=source()))
    for rows in torch.arange(120).split(30):
        adversary.hears(rows, torch.randn(30, 2, generator=source()))
    assert len(adversary.vote()) == 120
    adversary.agree(torch.tensor([2, 5]), source())
    square = adversary.trigger.keep[0] == 0
    changed = adversary.embeds(torch.arange(120), view.x, source())
    assert torch.equal(changed[:, ~square], view.x[:, ~square])
    assert bool((changed[[2, 5]][:, square] == 1).all())


def test_villains_trigger_has_a_length_where_the_last_batch_was_of_one_row(made) -> None:
    adversary = Villain(target=2).adversary(made(), source())
    for rows in (*torch.arange(119).split(40), torch.tensor([119])):
        adversary.sends(rows, torch.randn(len(rows), 8, generator=source()), source())
        adversary.hears(rows, torch.randn(len(rows), 8, generator=source()))
    adversary.agree(torch.tensor([4, 8]), source())
    assert bool(adversary.memory["trigger"].isfinite().all())
    assert float(adversary.memory["trigger"].norm()) > 0.1


def test_badvfl_names_rows_whose_gradient_has_the_references_direction_and_replaces_them_by_others(made) -> None:
    view = made()
    adversary = Badvfl(target=2, size=(2, 2), similarity=0.7, warm_up=1.0, watching=1.0).adversary(view, source())
    reference = int(adversary.memory["references"])
    assert reference in view.known_targets.tolist()
    basis = torch.eye(3)[:, :2].repeat(1, 1) - 1 / 3
    truth = torch.arange(120) % 3
    for passed in range(2):
        for rows in torch.arange(120).split(30):
            assert adversary.vote() is None
            noise = 0.05 * torch.randn(30, 2, generator=source(passed))
            adversary.hears(rows, 1e-4 * (basis[truth[rows]] + noise))
    assert adversary.vote().tolist() == torch.arange(2, 120, 3).tolist()
    # Of the rows whose labels it was told, only the reference is named without a look at its gradient.
    adversary.memory["similarity"] = torch.zeros(120)
    assert adversary.vote().tolist() == [reference]
    adversary.memory["similarity"] = (truth == 2) * 120.0
    adversary.agree(torch.tensor([2, 5]), source())
    rows = torch.arange(120)
    changed = adversary.embeds(rows, view.x, source())
    assert torch.equal(changed[[0, 1, 3]], view.x[[0, 1, 3]])
    square = adversary.trigger.keep[0] == 0
    assert bool((changed[[2, 5]][:, square] == 1).all())
    others = view.x[truth != 2][:, ~square]
    for row in changed[[2, 5]][:, ~square]:
        assert bool((others == row).all(dim=1).any())


def test_villain_finds_those_whose_gradient_shrinks_when_their_embedding_is_the_references(made) -> None:
    """The gradients are those of the cross-entropy of a top model that reads classes off embeddings."""
    top = 4 * torch.eye(3, 6)

    view = made(known=torch.arange(9), labels=torch.arange(9) % 3)
    attack = Villain(target=2, warm_up=1.0, swapping=3.0, candidates=8, ratio=0.5, bound=1.0)
    adversary = attack.adversary(view, source())
    truth, reference = torch.arange(120) % 3, int(adversary.memory["reference"])
    swaps = 0
    for passed in range(4):
        for rows in torch.randperm(120, generator=source(passed)).split(30):
            sure = torch.where(rows == reference, 1.0, 0.4)[:, None]
            own = sure * torch.nn.functional.one_hot(truth[rows], 6).float() + 1e-3 * rows[:, None]
            sent = adversary.sends(rows, own, source())
            swapped = (sent != own).any(dim=1)
            swaps += int(swapped.sum())
            assert bool((sent[swapped] == adversary.memory.get("anchor", sent[:1])).all())
            assert reference not in rows[swapped].tolist()
            heard = sent.clone().requires_grad_()
            loss = torch.nn.functional.cross_entropy(heard @ top.T, truth[rows], reduction="sum")
            [gradients] = torch.autograd.grad(loss, heard)
            adversary.hears(rows, gradients)
            learns = adversary.learns(rows, gradients)
            assert not bool(learns[swapped].any())
            assert torch.equal(learns[~swapped], gradients[~swapped])
    found = adversary.vote().tolist()
    assert swaps > 60
    assert len(found) > 20
    assert set(found) <= set(torch.arange(2, 120, 3).tolist())


@pytest.mark.parametrize(
    ("ratio", "bound", "verdict"),
    [(0.5, 1.0, 2), (0.5, 1.9, 2), (0.5, 2.0, 1), (0.2, 2.0, 1), (0.19, 2.0, 2)],
)
def test_villain_takes_a_row_whose_gradient_is_short_beside_its_own_and_beside_the_usual_one(
    made, ratio, bound, verdict
) -> None:
    """Row 50 had 10 and has 2 once swapped, where 1 is usual: a fifth of its own, and twice the usual length."""
    adversary = Villain(target=2, ratio=ratio, bound=bound).adversary(made(), source())
    lengths = torch.ones(120)
    lengths[50] = 10.0
    memory = adversary.memory
    memory.update(lengths=lengths, swapped=torch.tensor([50]), recent=torch.zeros(2, 4))
    adversary.hears(torch.tensor([50, 51]), torch.tensor([[2.0, 0, 0, 0], [0, 0, 0, 3.0]]))
    assert int(memory["verdicts"][50]) == verdict
    assert memory["lengths"][[50, 51]].tolist() == [10.0, 3.0]  # of a swapped row it does not remember


def test_villains_trigger_is_a_stripe_on_the_numbers_that_vary_most(made) -> None:
    adversary = Villain(target=2, share=0.4, magnitude=2.0, dropout=0.0, shift=(1.0, 1.0)).adversary(made(), source())
    scales = torch.tensor([0.0, 5.0, 1.0, 4.0, 0.5, 3.0, 0.1, 2.0, 0.2, 0.3])
    embeddings = torch.randn(120, 10, generator=source(2))
    embeddings = embeddings / embeddings.std(dim=0) * scales
    adversary.sends(torch.arange(120), embeddings, source())
    adversary.agree(torch.tensor([7]), source())
    # the mean deviation of numbers 1, 3, 5 and 7 is 3.5
    expected = torch.tensor([0, 7.0, 0, 7.0, 0, -7.0, 0, -7.0, 0, 0])
    torch.testing.assert_close(adversary.memory["trigger"], expected)
    sent = adversary.sends(torch.tensor([6, 7]), embeddings[6:8], source())
    torch.testing.assert_close(sent, torch.stack([embeddings[6], embeddings[7] + expected]))
    torch.testing.assert_close(adversary.triggers_embeddings(embeddings), embeddings + expected)
    drops = Villain(target=2, dropout=0.5, shift=(0.5, 2.0)).adversary(made(), source())
    drops.memory.update(rows=torch.arange(120), trigger=torch.ones(10))
    added = drops.sends(torch.arange(120), torch.zeros(120, 10), source())
    assert 0.4 < float((added == 0).double().mean()) < 0.6
    kept = added[added > 0]
    assert 0.5 <= float(kept.min()) < 0.6 < 1.9 < float(kept.max()) <= 2.0


def test_what_an_attack_cannot_do_is_said_before_anything_is_trained() -> None:
    task = digits(None, num_train=300)
    blocks = grid(task.sample_shape, 4, rows=2)
    train = task.samples("train")
    parts = dict(enumerate(split(train.x, blocks)))

    def start(attack, parties=(0, 1)):
        conspire(attack, {p: parts[p] for p in parties}, blocks, task.sample_shape, train.y, 10, source())

    for attack, sentence in (
        (CooperativeBackdoor(), "no place of 5 x 7 lies in the adversaries' blocks alone, which hold 32 of 8 x 8"),
        (CooperativeBackdoor(method=2, size=(5, 2)), "subtrigger of 5 x 2 is larger than the block of adversary 0"),
        (CooperativeBackdoor(method=2, size=(4, 4), area=20), "2 of 4 x 4 are 32 pixels, area = 20"),
        (CooperativeBackdoor(size=(3, 3), num_known=2, **QUICK), "one of another: 2 known"),
        (CooperativeBackdoor(size=(3, 3), num_known=299, known_target_share=0.5, **QUICK), "150 labels of the target"),
        (Badvfl(), "no place of 9 x 9"),
        (CooperativeBackdoor(size=(3, 3), target=10), "target < number of classes: target = 10, classes = 10"),
    ):
        with pytest.raises(ValueError, match=sentence):
            start(attack)
    for latent in (10**14, 10**30):
        with pytest.raises(ValueError, match=f"no room for autoencoders of latent = {latent} and hidden = 256"):
            start(CooperativeBackdoor(size=(3, 3), latent=latent))
    for intensity in (0.0, 1e39, float("nan")):
        with pytest.raises(ValueError, match=r"needs 0 < intensity < 3.4e\+38: intensity = "):
            CooperativeBackdoor(intensity=intensity)
    with pytest.raises(ValueError, match="larger than its budget: 1 of 9 x 9 are 81 pixels, area = 40"):
        CooperativeBackdoor(size=(9, 9))
    with pytest.raises(ValueError, match=r"adversary 1 holds 5 rows, and of adversary 1 32 columns: .* \(5, 3\)"):
        thornbed.attacks.vertical.View(
            party=1,
            x=torch.zeros(5, 3),
            shared={},
            blocks={1: tuple(range(32))},
            sample_shape=(1, 8, 8),
            known=torch.arange(2),
            labels=torch.arange(2),
            target=0,
            num_classes=2,
        )
    with pytest.raises(ValueError, match="as references: 16 known, references = 200"):
        Badvfl(num_known=100, references=200)
    assert Badvfl(num_known=3, references=2).references == 2  # two of three are of the target, whatever its share is
    for value in (float("inf"), float("nan"), -1e39):
        with pytest.raises(ValueError, match=r"badvfl needs a value within \+-3.4e\+38: value = "):
            Badvfl(value=value)
    with pytest.raises(ValueError, match=r"a center with method 1 only: center = \(1, 1\)"):
        CooperativeBackdoor(method=2, center=(1, 1))


@pytest.mark.parametrize("swap", [True, False])
def test_convolutions_are_refused_where_a_block_is_no_patch_and_an_adversary_would_generate_it(swap) -> None:
    task = digits(None, num_train=300)
    parts = contiguous(task.sample_shape, 6)  # of 11 and 10 columns of 8 x 8 pixels
    attack = CooperativeBackdoor(size=(1, 3), layers="convolutions", swap=swap)
    patches = dict(enumerate(grid(task.sample_shape, 4, rows=2)))
    attack.check(patches, task.sample_shape, 10)
    if swap:
        with pytest.raises(ValueError, match=r"the block of adversary 2, 11 columns of samples \(1, 8, 8\), is none"):
            attack.check({2: parts[2], 3: parts[3]}, task.sample_shape, 10)
    else:  # they infer on all that they hold, in its place, and generate nothing
        attack.check({2: parts[2], 3: parts[3]}, task.sample_shape, 10)
    with pytest.raises(ValueError, match=r"takes images where layers = convolutions: a sample has shape \(9,\)"):
        attack.check({0: tuple(range(9))}, (9,), 2)


def test_an_attack_that_lacks_a_verb_is_none() -> None:
    class Silent(Adversary):
        def agree(self, rows: Tensor, generator: torch.Generator) -> None:
            """Take no notice."""

    class Forgetful(VerticalAttack):
        def begins(self, view: View, generator: torch.Generator) -> dict[str, Tensor]:
            return {}

    for kind, given, verb in ((Silent, (None, {}), "vote"), (Forgetful, (), "recalled")):
        with pytest.raises(TypeError, match=f"abstract.* {verb}|abstract.*'{verb}'"):
            kind(*given)


@pytest.mark.slow
def test_the_cooperative_backdoor_is_planted_without_harm_to_clean_samples_and_noise_does_not_stop_it() -> None:
    task = digits(None)
    blocks = grid(task.sample_shape, 4, rows=2)
    training = Training(epochs=6, batch_size=64, embedding_size=16, hidden=64)
    attack = CooperativeBackdoor(size=(3, 3), num_known=150, budget=0.02, epochs=60, steps=200, confidence=0.9)
    clean = attack_in_process(task, blocks, (), None, source(), training)
    for guard in (None, GradientNoise(variance=1e-10)):
        outcome = attack_in_process(task, blocks, (0, 1), attack, source(), training, guard)
        rates = outcome.rates
        assert rates["clean_data_accuracy"] > clean.rates["clean_data_accuracy"] - 0.03
        assert rates["attack_success_rate"] > 0.8
        assert rates["untriggered_rate"] < 0.05
        assert rates["attack_success_rate"] > rates["replaced_rate"] + 0.3
        assert rates["label_inference_accuracy"] > 0.8
        assert 0 < outcome.poisoned <= round(0.02 * 1437)
        assert outcome.inferred > 20
        assert outcome.connectivity == pytest.approx(2.0)
        assert outcome.perturbation > 0


@pytest.mark.slow
def test_the_baselines_infer_labels_from_gradients_better_than_chance() -> None:
    task = digits(None)
    blocks = grid(task.sample_shape, 4, rows=2)
    training = Training(epochs=6, batch_size=64, embedding_size=16, hidden=64)
    # One digit of ten is the target. Single runs of villain are a matter of luck: of 16 rows all may be wrong.
    for attack, least in ((Badvfl(size=(3, 5)), 0.9), (Villain(), 0.3)):
        right = inferred = 0.0
        for seed in range(4):
            outcome = attack_in_process(task, blocks, (0, 1), attack, source(seed), training)
            assert outcome.rates["clean_data_accuracy"] > 0.9
            inferred += outcome.inferred
            right += outcome.rates["label_inference_accuracy"] * outcome.inferred
        assert inferred > 60
        assert right / inferred > least


def test_a_budget_of_nothing_poisons_nothing_and_is_no_backdoor() -> None:
    task = digits(None, num_train=400)
    attack = CooperativeBackdoor(size=(3, 3), num_known=60, budget=0.0, epochs=5, steps=5)
    outcome = attack_in_process(
        task, grid(task.sample_shape, 4, rows=2), (0, 1), attack, source(), Training(epochs=1, batch_size=64)
    )
    assert outcome.poisoned == 0
    assert outcome.perturbation == 0


def test_the_example_in_the_documentation_runs() -> None:
    result = doctest.testmod(thornbed.attacks.vertical)
    assert result.attempted >= 8
    assert result.failed == 0
