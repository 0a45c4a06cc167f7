"""A masked sum is the plain sum of those who survived, or nothing."""

from itertools import chain, combinations

import numpy as np
import pytest
from masked_federation import Federation
from scipy import stats

from fondaco.shared.errors import RefusalError, RoundError

STAGES = ("hello", "share", "release", "confirm", "unmask")
each_ring = pytest.mark.parametrize("ring_bits", [32, 64])
each_agreement = pytest.mark.parametrize("hybrid", [False, True], ids=["x25519", "hybrid"])
slow = pytest.mark.slow


def _numbers(names, dim, ring_bits, seed=0):
    """Numbers whose sum just stays in the ring."""
    rng = np.random.default_rng(seed)
    most = (2 ** (ring_bits - 1) - 1) // len(names)
    return {name: rng.integers(-most, most, dim, endpoint=True) for name in names}


def _subsets(names):
    return chain.from_iterable(combinations(names, size) for size in range(len(names) + 1))


@each_ring
@each_agreement
@pytest.mark.parametrize(
    ("n", "dim"),
    [
        (3, 1000),
        (5, 0),
        (5, 100_000),
        (10, 20_000),
        pytest.param(3, 1_000_000, marks=slow),
        pytest.param(5, 1_000_000, marks=slow),
        pytest.param(10, 1_000_000, marks=slow),
        pytest.param(30, 100_000, marks=slow),
    ],
)
def test_sum_equals_the_plain_sum_to_the_bit(n, dim, ring_bits, hybrid):
    federation = Federation.of(n, ring_bits=ring_bits, hybrid=hybrid)
    whole = federation.round(_numbers(federation.names, dim, ring_bits)).until("unmask")
    np.testing.assert_array_equal(whole.total(), whole.expected())


@each_ring
def test_sum_at_the_edge_of_the_ring_is_exact(ring_bits):
    federation = Federation.of(5, ring_bits=ring_bits)
    most = (2 ** (ring_bits - 1) - 1) // 5
    numbers = {name: np.array([most, -most, 0]) for name in federation.names}
    whole = federation.round(numbers).until("unmask", release=federation.names[:1])
    assert whole.total().tolist() == [4 * most, -4 * most, 0]


class Outcomes:
    """All ways in which silos of a round may fall silent, each at a stage or never."""

    def __init__(self, federation):
        self.federation, self.sums, self.aborts = federation, 0, 0

    def explore(self):
        numbers = {name: [1 << num, -num] for num, name in enumerate(self.federation.names)}
        self._go_on(self.federation.round(numbers), STAGES)
        return self

    def _go_on(self, whole, stages):
        if not stages:
            return self._end(whole)
        for silent in _subsets(whole.alive):
            other = whole.fork()
            enough = len(whole.alive) - len(silent) >= self.federation.quorum
            if enough or stages[0] == "unmask":
                getattr(other, stages[0])(silent)
                self._go_on(other, stages[1:])
            else:
                self._abort(other, stages[0], silent)
        return None

    def _abort(self, whole, stage, silent):
        """Those who are still there get no further, whatever the coordinator makes of it."""
        self.aborts += 1
        if stage in ("share", "confirm"):
            with pytest.raises(RefusalError, match=r"must|too few"):
                getattr(whole, stage)(silent)
            return
        getattr(whole, stage)(silent)
        for silo in (whole.silos[name] for name in whole.alive):
            with pytest.raises(RefusalError, match="too few"):
                silo.share(whole.roster) if stage == "hello" else silo.confirm(whole.survivors)

    def _end(self, whole):
        answers, survivors = set(whole.answers), set(whole.survivors.silos)
        complete = answers == survivors == set(whole.known.participants)
        if complete or len(answers) >= self.federation.terms.share_threshold:
            assert whole.total().tolist() == whole.expected().tolist()
            self.sums += 1
            return
        with pytest.raises(RoundError, match="shares of"):
            whole.total()
        self.aborts += 1


@pytest.mark.parametrize(
    ("n", "hybrid"),
    [
        (3, False),
        (3, True),
        (4, False),
        pytest.param(4, True, marks=slow),
        pytest.param(5, False, marks=slow),
        pytest.param(5, True, marks=slow),
        pytest.param(6, False, marks=slow),
    ],
)
def test_every_drop_out_at_every_stage_gives_the_exact_sum_or_an_abort(n, hybrid):
    outcomes = Outcomes(Federation.of(n, hybrid=hybrid)).explore()
    assert outcomes.sums > 0
    assert outcomes.aborts > 0


def _p_value(words):
    counts = np.bincount(words.view(np.uint8), minlength=256)
    return stats.chisquare(counts).pvalue


@each_ring
@each_agreement
def test_masked_vectors_look_like_uniform_bytes(ring_bits, hybrid):
    """Zeros of 3 silos, masked by fresh keys; false alarms: 4 * 3 * 5e-11 per run."""
    federation = Federation.of(3, ring_bits=ring_bits, hybrid=hybrid)
    numbers = dict.fromkeys(federation.names, np.zeros(1 << 18, np.int64))
    whole = federation.round(numbers).until("release")
    assert min(_p_value(words) for words in whole.words.values()) > 5e-11


@each_ring
def test_sums_of_some_silos_still_look_like_uniform_bytes(ring_bits):
    """Any two of three silos, as a curious coordinator adds them; false alarms: 2 * 3 * 5e-11."""
    federation = Federation.of(3, ring_bits=ring_bits)
    numbers = dict.fromkeys(federation.names, np.zeros(1 << 18, np.int64))
    whole = federation.round(numbers).until("release")
    for pair in combinations(whole.words.values(), 2):
        assert _p_value(sum(pair)) > 5e-11


@each_agreement
def test_no_keystream_serves_twice_but_for_the_pair_that_shares_it(hybrid):
    """Over rounds, attempts and drop-outs of the same silos with the same numbers."""
    federation, seen = Federation.of(5, hybrid=hybrid), {}
    tasks = [
        federation.task(run_id="same", round_num=num, attempt=attempt, kind=kind)
        for kind in ("popularity", "gram")
        for num in range(4)
        for attempt in range(3)
    ]
    for task in tasks:
        whole = federation.round(run_id="same", **_turn(task)).until("release")
        for name, silo in whole.silos.items():
            for key, sign in silo.masks.keys:
                seen.setdefault(key, []).append((task, name, sign))
    pairs = [uses for uses in seen.values() if len(uses) == 2]
    own = [uses for uses in seen.values() if len(uses) == 1]
    assert len(pairs) + len(own) == len(seen)
    assert (len(pairs), len(own)) == (len(tasks) * 10, len(tasks) * 5)
    assert all(a[0] == b[0] and a[1] != b[1] and a[2] + b[2] == 0 for a, b in pairs)


def _turn(task):
    return {"kind": task.kind, "round_num": task.round_num, "attempt": task.attempt}


def test_same_task_again_has_other_keys(six):
    """What a silo that lost its state would do: even then no key comes back."""
    task = six.task()
    first, second = (six.round(run_id=task.run_id).until("release") for _ in range(2))
    keys = [{key for key, _ in silo.masks.keys} for silo in first.silos.values()]
    again = [{key for key, _ in silo.masks.keys} for silo in second.silos.values()]
    assert not set().union(*keys) & set().union(*again)


def test_one_participant_less_changes_every_key(six):
    """Two sets of participants of one roster share no mask."""
    whole = six.round().until("share")
    keys = []
    for silent in ((), six.names[5:]):
        other = whole.fork()
        other.agree([said for said in whole.known.shares.values() if said.silo_id not in silent])
        other.alive = [name for name in six.names if name not in silent]
        other.release()
        keys.append({key for name in other.alive for key, _ in other.silos[name].masks.keys})
    assert not keys[0] & keys[1]


def test_secrets_are_gone_after_the_answer(six):
    whole = six.round().until("confirm")
    before = {name: silo.session for name, silo in whole.silos.items()}
    whole.unmask()
    for name, silo in whole.silos.items():
        secrets, left = before[name].secrets, silo.session
        assert left.wiped
        assert not left.mask_shares
        assert not left.self_shares
        seeds = (secrets.mask_seed, secrets.self_seed, secrets.share_seed)
        assert not any(seed in part for part in _parts(left) for seed in seeds)


def _parts(state):
    kept = state.secrets
    return [kept.mask_seed, kept.self_seed, kept.share_seed, state.roster]
