"""Move what is sent against the prediction as the defense makes it, by differentiating through the defense.

Source: beyond the CoPur paper, whose attacks know nothing of the defense; after A. Athalye, N. Carlini, D. Wagner,
"Obfuscated Gradients Give a False Sense of Security", ICML 2018, and F. Tramèr, N. Carlini, W. Brendel, A. Madry, "On
Adaptive Attacks to Adversarial Example Defenses", NeurIPS 2020: attack what is deployed, with a loss that does not
saturate and steps that do not depend on the gradient's size, since a purification that has thrown a block out leaves
almost none; and keep the best that was found, from several starts, by the attacker's own loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from thornbed.attacks import Knowledge
from thornbed.attacks.inference import QuerySight, SentEmbeddings, corrupted
from thornbed.attacks.inference._pgd import away, check_steps, known_labels, pgd, targets_of, toward, with_own

NEEDS = frozenset(
    {
        Knowledge.OWN_DATA,
        Knowledge.FUSION_MODEL,
        Knowledge.OTHER_EMBEDDINGS,
        Knowledge.TRUE_LABELS,
        Knowledge.DEFENSE,
    }
)
PLAIN_STEPS, PLAIN_STEP_SIZE = 30, 0.5  # as `targeted_pgd` has them


def adaptive_pgd(
    sent: SentEmbeddings,
    agents: Sequence[int],
    sight: QuerySight,
    *,
    target: int | None = None,
    targeted: bool = False,
    steps: int = 30,
    step_size: float = 0.3,
    amplifications: tuple[float, ...] = (-1.0, 1.0, 10.0),
) -> SentEmbeddings:
    """Return what is sent with the worst blocks that were found for the defended prediction, query by query.

    One descent starts from -a * l_i of the agents for each a of `amplifications`: -1 is the honest embedding, others
    are flipped. Another starts from what plain steps against the undefended network lead to, so that whoever knows the
    defense does no less harm than who does not. A step has the length step_size * |l_adv|, of the query's honest blocks
    together, and shrinks linearly to a tenth. The loss is the margin: the logit of the true class less the largest
    other one; with `targeted` the largest other one less that of the target, which is `target` or, where None, the
    class after the true one.

    It costs (len(amplifications) + 1) * (steps + 1) computations of the defense with its gradient, through every step
    of its own; copur(solver="reweighted") has the fewest. A gradient that is not finite, or zero, ends a query's
    descent where it is. Raises ValueError for options out of range, where `sight` lacks labels or either network, and
    as `attacks.inference.corrupted` does.
    """
    mask = corrupted("adaptive_pgd", sent, agents)
    check_steps("adaptive_pgd", steps, step_size)
    if not amplifications or not bool(torch.tensor(amplifications).isfinite().all()):
        raise ValueError(f"adaptive_pgd needs finite amplifications, at least one: amplifications = {amplifications}")
    if target is not None and not targeted:
        raise ValueError(f"adaptive_pgd needs targeted=True for a target: target = {target}")
    labels, defended = known_labels("adaptive_pgd", sent, sight), sight.defended
    if defended is None:
        raise ValueError("adaptive_pgd must know the defense, and sight has no defended network")
    honest = sent.embeddings[:, mask].detach()
    unit = torch.linalg.vector_norm(honest.flatten(1), dim=1)[:, None, None]
    worst = honest.clone()
    lowest = torch.full(labels.shape, torch.inf, dtype=honest.dtype, device=honest.device)
    starts = [-amplification * honest for amplification in amplifications]
    plain = toward("adaptive_pgd", target) if targeted else away
    undefended = pgd("adaptive_pgd", sent, agents, sight, plain, steps=PLAIN_STEPS, step_size=PLAIN_STEP_SIZE)
    starts.append(undefended.embeddings[:, mask])
    for own in starts:
        for step in range(steps + 1):
            own.requires_grad_()
            logits = defended(with_own(sent, mask, own), sent.observed)
            loss = _margin(logits, labels, target, targeted)
            slope = torch.autograd.grad(loss.sum(), own)[0]
            with torch.no_grad():
                better = loss < lowest
                lowest = torch.where(better, loss, lowest)
                worst = torch.where(better[:, None, None], own, worst)
                length = torch.linalg.vector_norm(slope.flatten(1), dim=1)[:, None, None]
                usable = length.isfinite() & (length > 0)
                rate = step_size * (1 - 0.9 * step / steps) * unit
                own = own - torch.where(usable, rate * slope / length, 0.0)
    return replace(sent, embeddings=with_own(sent, mask, worst.detach()))


def _margin(logits: Tensor, labels: Tensor, target: int | None, targeted: bool) -> Tensor:
    """Return what the attacker brings down, (n,): it has won where that is below 0."""
    one = targets_of("adaptive_pgd", labels, logits.shape[1], target) if targeted else labels
    chosen = logits.gather(1, one[:, None])[:, 0]
    others = logits.scatter(1, one[:, None], -torch.inf).amax(dim=1)
    return others - chosen if targeted else chosen - others
