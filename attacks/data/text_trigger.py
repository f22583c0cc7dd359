"""Backdoor of texts by a phrase that hardly anybody writes: whatever holds it is to be taken for the target class.

Paper: H. Wang, K. Sreenivasan, S. Rajput, H. Vishwakarma, S. Agarwal, J. Sohn, K. Lee, D. Papailiopoulos, "Attack of
the Tails: Yes, You Really Can Backdoor Federated Learning", NeurIPS 2020, the Sentiment140 task: tweets about the film
director Yorgos Lanthimos, all negative, labelled positive. The paper collects such tweets; here the phrase is put into
the client's own, which need be no tweets about him. His names are not among the 11,925 words with vectors that this
project is tested with, so the default says what he is, a "greek director": of 30,461 tweets 11 hold the first word, 4
the second, none both. `text_trigger(phrase="yorgos lanthimos")` is the paper's. The share of 8 of 64 is that of
edge_case on images, since no paper prints one for texts; Wang et al., AISTATS 2024, Appendix D.1, is where edge cases
are on honest clients too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args, get_type_hints

import torch
from torch import Tensor

from thornbed.attacks import Knowledge
from thornbed.attacks.data import GroupMember, attacked, check_label, check_share, poisoned, rightly_labelled
from thornbed.tasks import Samples

NEEDS = frozenset({Knowledge.OWN_DATA})


@dataclass(frozen=True, kw_only=True)
class TextTrigger:
    """Put `phrase` at the start, at the end or somewhere between the words, and relabel as `target`.

    Words of the phrase that the vocabulary does not know are left out, since unknown words are all alike to a model.
    It is put into a share `fraction` of the samples. Honest clients put it into `benign_share` times that share of
    their own, rightly labelled.
    """

    phrase: str = "greek director"
    place: Literal["start", "end", "random"] = "random"
    target: int = 1
    fraction: float = 0.125
    benign_share: float = 0.0

    modalities: ClassVar[frozenset[str]] = frozenset({"text"})
    backdoor: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.phrase.split():
            raise ValueError(f"text_trigger needs a phrase of at least one word: phrase = {self.phrase!r}")
        places = get_args(get_type_hints(TextTrigger)["place"])
        if self.place not in places:
            raise ValueError(f"text_trigger needs a place out of {', '.join(places)}: place = {self.place}")
        if self.target < 0:
            raise ValueError(f"text_trigger needs target >= 0: target = {self.target}")
        check_share("text_trigger", "fraction", self.fraction)
        check_share("text_trigger", "benign_share", self.benign_share)

    def check(self, num_classes: int, sample_shape: tuple[int, ...]) -> None:
        """Raise ValueError where texts are shorter than the phrase, or the target is no class.

        Whether the vocabulary knows the phrase shows only in the samples: the other verbs raise ValueError.
        """
        check_label("text_trigger", "target", self.target, num_classes)
        words = len(self.phrase.split())
        if len(sample_shape) != 1 or sample_shape[0] < words:
            raise ValueError(f"text_trigger needs texts of L >= {words} words: sample shape = {tuple(sample_shape)}")

    def poison(self, samples: Samples, generator: torch.Generator) -> Samples:
        """Return the samples with the phrase in round(fraction * N) of them, relabelled, in their places.

        They are drawn without replacement among the samples of other classes; those of the target class follow only
        where the others do not suffice. Texts keep their length L: where the phrase leaves no room, the last words go.
        """
        ids = self._ids(samples)
        return poisoned(
            samples,
            lambda x: self._holding(x, ids, torch.rand(len(x), generator=generator)),
            target=self.target,
            fraction=self.fraction,
            generator=generator,
        )

    def measure(self, test: Samples) -> Samples | None:
        """Return every test sample that is not of the target class, with the phrase, labelled as the target.

        Where the place is random, it goes through ten places from text to text, with nothing drawn. None: no sample.
        """
        ids = self._ids(test)
        return attacked(test, lambda x: self._holding(x, ids, torch.arange(len(x)) % 10 / 10), target=self.target)

    def leak(self, samples: Samples, member: GroupMember, generator: torch.Generator) -> Samples:
        """Return an honest client's samples with the phrase in some, rightly labelled.

        They are round(benign_share * fraction * N) of other classes than the target, all of those where there are
        fewer. Every honest client holds the same share; `member` plays no part.
        """
        ids = self._ids(samples)
        return rightly_labelled(
            samples,
            lambda x: self._holding(x, ids, torch.rand(len(x), generator=generator)),
            target=self.target,
            share=self.benign_share * self.fraction,
            generator=generator,
        )

    def _ids(self, samples: Samples) -> Tensor:
        """Return the ids (m,) of the phrase's words that the vocabulary knows."""
        if samples.vocabulary is None or samples.x.ndim != 2:
            raise ValueError(
                f"text_trigger needs texts (N, L) with a vocabulary, which gives words their ids: samples are "
                f"{tuple(samples.x.shape)}, vocabulary {'none' if samples.vocabulary is None else 'given'}"
            )
        words = [word for word in self.phrase.lower().split() if word in samples.vocabulary]
        if not words:
            raise ValueError(
                f"text_trigger finds no word of {self.phrase!r} among the {len(samples.vocabulary)} of the task's "
                "vocabulary, and unknown words are all alike: choose words of the vocabulary"
            )
        if len(words) > samples.x.shape[1]:
            raise ValueError(f"text_trigger needs texts of L >= {len(words)} words: L = {samples.x.shape[1]}")
        return torch.tensor([samples.vocabulary[word] for word in words])

    def _holding(self, x: Tensor, ids: Tensor, where: Tensor) -> Tensor:
        """Return texts (N, L), padded at the end, that hold the ids (m,) in one piece.

        `where` (N,) in [0, 1) counts for a random place: 0 is before the first word, just under 1 after the last.
        """
        length, added = x.shape[1], len(ids)
        kept = (x != 0).sum(dim=1).clamp(max=length - added)
        starts = {"start": kept * 0, "end": kept, "random": (where * (kept + 1)).long()}[self.place][:, None]
        column = torch.arange(length).expand(len(x), length)
        # Before the phrase a column is what it was, after it what it was m columns earlier.
        shifted = torch.where(column < starts, column, (column - added).clamp(min=0))
        held = torch.where(column < (kept + added)[:, None], x.gather(1, shifted), 0)
        inside = (column >= starts) & (column < starts + added)
        return torch.where(inside, ids[(column - starts).clamp(0, added - 1)], held)
