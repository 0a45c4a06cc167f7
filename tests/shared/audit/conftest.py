"""Ledgers written from the specification, by no code that a silo runs."""

import base64
import hashlib
import json
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fondaco.shared.audit.plans import read_plan
from fondaco.shared.audit.verify import verify
from fondaco.shared.privacy import accountant
from fondaco.shared.privacy.events import Mechanism

DOMAIN = b"fondaco-ledger-v3\x00"
START = datetime(2026, 11, 22, 9, 0, 0, tzinfo=UTC)
GRID = 2**20
SILOS = ("north", "south", "east")


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def sha(text):
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


class Signer:
    """A name with an Ed25519 key that is the same in every test run."""

    def __init__(self, name, seed=""):
        self.name = name
        secret = hashlib.sha256(f"{name}{seed}".encode()).digest()
        self.private = Ed25519PrivateKey.from_private_bytes(secret)
        self.raw = self.private.public_key().public_bytes_raw()

    @classmethod
    def of(cls, silo, seed=""):
        return cls(f"fondaco/{quote(silo, safe='')}", seed)

    @property
    def vkey(self):
        material = b"\x01" + self.raw
        return f"{self.name}+{self._id(1).hex()}+{base64.b64encode(material).decode()}"

    def _id(self, algorithm):
        blob = self.name.encode() + b"\n" + bytes([algorithm]) + self.raw
        return hashlib.sha256(blob).digest()[:4]

    def _line(self, blob):
        return f"\u2014 {self.name} {base64.b64encode(blob).decode()}\n"

    def note_line(self, text):
        return self._line(self._id(1) + self.private.sign(text.encode()))

    def cosign_line(self, text, time=1_790_000_000):
        message = f"cosignature/v1\ntime {time}\n{text}".encode()
        return self._line(self._id(4) + time.to_bytes(8, "big") + self.private.sign(message))


KEYS = {silo: Signer.of(silo) for silo in SILOS}
COORDINATOR = Signer("fondaco-coordinator")


def release(kind="gram", round_num=1, *, stddev=8 * GRID, silo=None, ppm=10**6, steps=1):
    return {
        "kind": kind,
        "round_num": round_num,
        "dim": 12,
        "sens_grid": GRID,
        "stddev_grid": stddev,
        "silo_stddev_grid": stddev if silo is None else silo,
        "sampling_ppm": ppm,
        "steps": steps,
    }


def mechanism(event, noise="stddev_grid"):
    multiplier = Fraction(event[noise], event["sens_grid"])
    return Mechanism(multiplier, event["sampling_ppm"], event["steps"])


def units_at(releases, order):
    return sum(accountant.rdp_units(mechanism(e), Fraction(order)) for e in releases)


def best_order(releases):
    def worst(order):
        return accountant.epsilon_at(units_at(releases, order), Fraction(order), 1e-6)

    return min((f"{n}/1" for n in range(2, 64)), key=worst)


def make_plan(releases=None, **changes):
    """Return a plan's object whose claims are true unless `changes` break them."""
    releases = releases or [release("popularity"), *(release("gram", n) for n in (1, 2, 3))]
    order = changes.pop("order", None) or best_order(releases)
    units = units_at(releases, order)
    joint = tuple(mechanism(e) for e in releases)
    plan = {
        "schema": 4,
        "unit": "customer-at-silo",
        "adjacency": "add-or-remove-one",
        "max_silos_per_customer": 1,
        "trust": "aggregate",
        "secure_aggregation": "simulated",
        "key_agreement": "",
        "ring_bits": 0,
        "mode": "simulation",
        "cohort": {"n_silos": 3, "n_min": 3, "t_collude": 1},
        "grid": GRID,
        "target_delta": "1e-06",
        "target_epsilon": changes.get("target_epsilon")
        or f"{accountant.epsilon_pld(joint, 1e-6) + 1e-6:.6f}",
        "order": order,
        "budget_units": units,
        "releases": releases,
        "catalogue_digest": sha("catalogue"),
        "n_items": 50,
        "head": 10,
        "code_digest": sha("code"),
        "models": {"gram": {"rank": "8"}},
        "public": {"declared_users": "1000"},
        "earlier": [],
        "earlier_digest": "",
        "expires": "2027-01-31",
        "witnesses": 1,
        "roster": {silo: key.vkey for silo, key in KEYS.items()},
        "coordinator": COORDINATOR.vkey,
    }
    return {**plan, **changes}


def make_masked_plan(releases=None, **changes):
    """Return a plan whose sums of three silos are masked."""
    masks = {"secure_aggregation": "masked-sum", "key_agreement": "x25519", "ring_bits": 32}
    return make_plan(releases, **{**masks, **changes})


def epsilons(plan):
    delta, everything = float(plan["target_delta"]), plan["earlier"] + plan["releases"]
    joint = tuple(mechanism(e) for e in everything)
    share = tuple(mechanism(e, "silo_stddev_grid") for e in everything)
    more = Fraction(plan["cohort"]["n_min"] ** 0.5 if plan["trust"] == "aggregate" else 1.0)
    honest = tuple(m._replace(multiplier=m.multiplier * more) for m in share)
    epsilon = accountant.epsilon_pld(joint, delta)
    values = {
        "epsilon": epsilon,
        "epsilon_rdp": accountant.epsilon_rdp(joint, delta),
        "all_honest": min(epsilon, accountant.epsilon_bound(honest, delta)),
        "clear_shares": epsilon if share == joint else accountant.epsilon_bound(share, delta),
    }
    return {name: f"{value:.6f}" for name, value in values.items()}


class Writer:
    """Writes a ledger record by record; every record is sound unless a test bends its body."""

    def __init__(self, silo="north", key=None, plan=None):
        self.silo, self.key = silo, key or KEYS[silo]
        self.time = START
        self.bodies, self.signers = [], []
        self.spent = {}
        self.plan = plan or make_plan()
        self.policy = None
        self._lines = []
        self.add(type="GENESIS", schema=4, silo_id=silo, key=self.key.vkey)

    def add(self, **body):
        self.time += timedelta(seconds=20)
        stamp = self.time.isoformat(timespec="seconds")
        self.bodies.append({"seq": len(self.bodies) + 1, "ts": stamp, **body})
        self.signers.append(self.key)
        return self.bodies[-1]

    def approve(self, plan=None, approved=1, **changes):
        self.plan = plan or self.plan
        simulated = self.plan["mode"] == "simulation"
        body = {
            "plan_digest": sha(canonical(self.plan)),
            "plan": deepcopy(self.plan),
            "approved": approved,
            "reason": "",
            "claims": "none (simulation)" if simulated else "as planned",
            **epsilons(self.plan),
        }
        return self.add(type="PLAN", **{**body, **changes})

    def set_policy(self, epsilon="3.0", order="10/1", **changes):
        rest = accountant.epsilon_at(0, Fraction(order), 1e-6)
        terms = {
            "epsilon_per_year": epsilon,
            "epsilon_if_masking_broke": "50",
            "target_delta": "1e-06",
            "order": order,
        }
        units = int((float(epsilon) - rest) * 1e9)
        body = {"policy": terms, "budget_units": units, **changes}
        self.policy = body
        return self.add(type="POLICY", **body)

    def debit(self, kind="popularity", round_num=1, attempt=1, **changes):
        plan = self.plan
        digest = sha(canonical(plan))
        found = [e for e in plan["releases"] if (e["kind"], e["round_num"]) == (kind, round_num)]
        event = found[0] if found else release(kind, round_num)
        cost = accountant.rdp_units(mechanism(event), Fraction(plan["order"]))
        order = self.policy and Fraction(self.policy["policy"]["order"])
        self.spent[digest] = self.spent.get(digest, 0) + changes.get("cost", cost)
        body = {
            "kind": kind,
            "round_num": round_num,
            "attempt": attempt,
            "plan_digest": digest,
            "unit": plan["unit"],
            "adjacency": plan["adjacency"],
            "mechanism": "gauss-rounded-int",
            "event": deepcopy(event),
            "grid": plan["grid"],
            "sampling": "none" if event["sampling_ppm"] == 10**6 else "poisson",
            "n_min": plan["cohort"]["n_min"],
            "t_collude": plan["cohort"]["t_collude"],
            "order": plan["order"],
            "cost": cost,
            "left": plan["budget_units"] - self.spent[digest],
            "budget": plan["budget_units"],
            "policy_cost": accountant.rdp_units(mechanism(event), order) if order else 0,
            "request": sha(f"{kind}{round_num}"),
            "commit": "ab" * 32,
            "witnessed": self.note() if plan["witnesses"] else "",
        }
        return self.add(type="DEBIT", **{**body, **changes})

    def release(self, debit, **changes):
        body = {
            **{n: debit[n] for n in ("kind", "round_num", "attempt", "plan_digest")},
            "debit_seq": debit["seq"],
            "blob": sha(f"{self.silo}{debit['seq']}"),
            "size_bytes": 48,
            "rng": "seeded chacha20: no claim",
            "masked": sha(f"participants {debit['seq']}") if self._masked else "",
        }
        return self.add(type="RELEASE", **{**body, **changes})

    def unmask(self, released, **changes):
        body = {
            **{n: released[n] for n in ("kind", "round_num", "attempt", "plan_digest")},
            "survivors": sha(f"survivors {released['debit_seq']}"),
            "answer": sha(f"answer {released['seq']}"),
        }
        return self.add(type="UNMASK", **{**body, **changes})

    def pay(self, *key, **changes):
        sent = self.release(self.debit(*key, **changes))
        if self._masked:
            self.unmask(sent)
        return sent

    @property
    def _masked(self):
        return self.plan["secure_aggregation"] == "masked-sum"

    def rotate(self, key, proof_by=None):
        prev = self.hashes()[-1]
        proof = (proof_by or key).private.sign(b"fondaco-keyrot-v1\x00" + prev + key.raw)
        self.add(type="KEYROT", key=key.vkey, proof=base64.b64encode(proof).decode())
        self.key = key

    def records(self):
        """(hash, prev, body, signature) of every record, made afresh where a body changed."""
        prev = bytes(32)
        for num, (body, key) in enumerate(zip(self.bodies, self.signers, strict=True)):
            text = canonical(body)
            known = self._lines[num] if num < len(self._lines) else None
            if known is None or known[:3] != (prev, text, key.name):
                digest = hashlib.sha256(text.encode()).digest()
                digest = hashlib.sha256(DOMAIN + prev + digest).digest()
                known = (prev, text, key.name, digest, key.private.sign(DOMAIN + digest))
                self._lines[num:] = [known]
            yield known[3], prev, text, known[4]
            prev = known[3]

    def hashes(self):
        return [record[0] for record in self.records()]

    def lines(self):
        return [
            canonical(
                {
                    "body": json.loads(text),
                    "hash": digest.hex(),
                    "prev": prev.hex(),
                    "sig": base64.b64encode(signature).decode(),
                }
            )
            for digest, prev, text, signature in self.records()
        ]

    def note(
        self, size=None, *, root=None, by=None, owner=None, coordinator=COORDINATOR, time=None
    ):
        size = len(self.bodies) if size is None else size
        root = root or (self.hashes()[size - 1] if size else bytes(32))
        text = f"fondaco/{self.silo}\n{size}\n{base64.b64encode(root).decode()}\n"
        by = [k for s, k in KEYS.items() if s != self.silo][:1] if by is None else by
        time = time or int(START.timestamp())
        lines = [(owner or self.key).note_line(text)]
        lines += [k.cosign_line(text, time) for k in [*by, *([coordinator] if coordinator else [])]]
        return f"{text}\n{''.join(lines)}"

    def save(self, path):
        path.write_text("".join(f"{line}\n" for line in self.lines()), encoding="utf-8")
        return path


def sound(silo="north", plan=None):
    """A ledger with every type of record, all of which hold."""
    writer = Writer(silo, plan=plan)
    writer.set_policy()
    writer.approve()
    writer.pay("popularity", 1)
    other = next(name for name in SILOS if name != silo)
    root = base64.b64encode(Writer(other).hashes()[0]).decode()
    writer.add(type="COSIGN", heads=[{"origin": f"fondaco/{other}", "size": 1, "root": root}])
    writer.pay("gram", 1)
    why = {"code": "budget", "reason": "0.1 left, 0.2 needed", "failed": 1}
    failed = writer.debit("gram", 2)
    named = {n: failed[n] for n in ("kind", "round_num", "attempt", "plan_digest")}
    writer.add(type="REFUSAL", **named, **why)
    writer.add(type="ERASURE", count="1 to 9")
    writer.add(type="AUDIT", report=sha("report"), verdict="holds", by="an auditor")
    return writer


@pytest.fixture(scope="session")
def kit():
    """The tools above, for tests."""
    return SimpleNamespace(
        Signer=Signer,
        Writer=Writer,
        keys=KEYS,
        coordinator=COORDINATOR,
        canonical=canonical,
        epsilons=epsilons,
        make_plan=make_plan,
        make_masked_plan=make_masked_plan,
        release=release,
        sha=sha,
        sound=sound,
    )


@pytest.fixture
def checked(tmp_path):
    """(writers or lists of lines, plans, witness texts) -> the verification of their files."""

    def check(*ledgers, plans=(), notes=(), copies=()):
        def saved(ledger, folder, num):
            path = tmp_path / f"{folder}{num}.jsonl"
            lines = ledger if isinstance(ledger, list) else ledger.lines()
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            return path

        paths = [saved(ledger, "ledger", num) for num, ledger in enumerate(ledgers)]
        seen = [saved(copy, "copy", num) for num, copy in enumerate(copies)]
        if notes:
            seen.append(tmp_path / "newest.note")
            seen[-1].write_text("".join(notes), encoding="utf-8")
        return verify(paths, [read_plan(plan) for plan in plans], seen, lambda *_: None)

    return check
