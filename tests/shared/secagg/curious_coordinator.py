"""What a coordinator can compute from all that it saw: the yardstick of harmless lies.

A masked vector is numbers plus keystreams. Streams of unknown keys are independent of everything
else, so the coordinator learns about exactly those combinations of vectors in which they cancel.
"""

from collections import defaultdict
from contextlib import contextmanager, suppress

import numpy as np
import pytest
from scipy.linalg import null_space

from fondaco.shared.errors import RefusalError, RoundError
from fondaco.shared.secagg.keys import commitment, mask_keys_of
from fondaco.shared.secagg.parcels import (
    Route,
    pair_key,
    post_quantum_secret,
    self_key,
    unpack_mask_secret,
)
from fondaco.shared.secagg.sharing import combine


@contextmanager
def refused(code):
    """Assert that the block is refused with this code."""
    with pytest.raises(RefusalError) as info:
        yield
    assert info.value.code == code


class Curious:
    """Masked vectors and answers of one roster, whoever was told what.

    Attributes:
        rows: silo -> keys of the mask over its vector; only their signs are looked at, unless
            they follow from what was told.
    """

    def __init__(self, whole):
        self.whole, self.terms, self.roster = whole, whole.terms, whole.roster
        self.rows, self.digests, self.bribed = {}, {whole.known.digest}, {}
        self.own = {}
        self.self_shares, self.mask_shares = defaultdict(dict), defaultdict(dict)

    def saw(self, *silos):
        """Take the masked vectors that these silos have sent."""
        for silo in silos:
            self.rows[silo.name] = silo.masks.keys
            self.digests.add(silo.masks.participants)
        return self

    def told(self, *answers):
        """Take silos' answers."""
        for said in answers:
            self.own[said.silo_id] = said.self_seed
            self._take(said.silo_id, said.self_shares, said.mask_shares)
        return self

    def bribe(self, *silos):
        """Take all that these silos know, before they wipe it."""
        for silo in silos:
            state = silo.session
            self.own[silo.name] = state.secrets.self_seed
            self.bribed[silo.name] = state.secrets.mask_seed
            self._take(silo.name, state.self_shares, state.mask_shares)
        return self

    def _take(self, holder, self_shares, mask_shares):
        for silo, part in self_shares.items():
            self.self_shares[silo][holder] = part
        for silo, part in mask_shares.items():
            self.mask_shares[silo][holder] = part

    def _seeds(self, shares, fits):
        holders = self.terms.holders(self.roster)
        for silo, hello in self.roster.by_silo.items():
            places = {name: num for num, name in enumerate(sorted({*holders[silo], silo}))}
            known = {places[name]: part for name, part in shares[silo].items()}
            with suppress(RoundError):
                yield silo, combine(known, self.terms.share_threshold, fits(hello), silo)

    def keys(self):
        """Return all keys that follow from what was told."""
        own = dict(self._seeds(self.self_shares, lambda h: lambda s: commitment(s) == h.commitment))
        masks = dict(self._seeds(self.mask_shares, self._is_mask_seed)) | self.bribed
        known = {
            self_key(self.whole.task, self.roster.digest, silo, seed, digest)
            for silo, seed in (own | self.own).items()
            for digest in self.digests
        }
        for silo, seed in masks.items():
            for peer in self.terms.neighbours(self.roster)[silo]:
                known.update(self._pair_keys(silo, seed, peer))
        return known

    def _is_mask_seed(self, hello):
        def fits(seed):
            return mask_keys_of(seed, hybrid=self.terms.hybrid).public()[0] == hello.mask_key

        return fits

    def _pair_keys(self, silo, seed, peer):
        low, high = sorted((silo, peer))
        route = Route(task=self.whole.task, roster=self.roster, sender=low, receiver=high)
        keys, extra = mask_keys_of(seed, hybrid=self.terms.hybrid), b""
        if self.terms.hybrid and silo == low:
            extra = post_quantum_secret(route, seed)
        elif self.terms.hybrid:
            extra = unpack_mask_secret(route, keys, self.whole.known.shares[low].parcels[high])
        return [pair_key(route, keys, peer, digest, extra) for digest in self.digests]

    def learns(self):
        """Return sets of silos, one for each sum of vectors that stands bare.

        Any other combination than a plain sum fails the test.
        """
        known = self.keys()
        unknown = sorted({key for row in self.rows.values() for key, _ in row} - known)
        if not unknown:
            return [{name} for name in self.rows]
        table = np.zeros((len(self.rows), len(unknown)))
        for num, row in enumerate(self.rows.values()):
            for key, sign in row:
                if key not in known:
                    table[num, unknown.index(key)] += sign
        return [self._summed(combination) for combination in null_space(table.T).T]

    def _summed(self, combination):
        weights = combination / combination[np.abs(combination).argmax()]
        inside = np.abs(weights) > 1e-9
        np.testing.assert_allclose(weights[inside], 1, atol=1e-9)
        return {name for name, is_in in zip(self.rows, inside, strict=True) if is_in}


def shared_round(federation, **task):
    """Return a round in which all have shared."""
    return federation.round(**task).until("share")


def released_round(federation, **task):
    """Return a round in which all have released."""
    return federation.round(**task).until("release")


def sees_all(whole):
    """Return what a coordinator knows who saw every silo that was asked."""
    return Curious(whole).saw(*(whole.silos[name] for name in whole.words))
