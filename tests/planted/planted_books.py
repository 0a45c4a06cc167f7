"""Bugs of the books: plan, ledger, accountant, and the networks of a silo."""

from planted_tools import row

PLAN, LEDGER, COST = "shared.privacy.plan", "shared.privacy.ledger", "shared.privacy.accountant"
NETWORKS = "client.dpsgd"

_SPENT = 'for r in self._chain.of_type("DEBIT") if r["plan_digest"] == digest)'
_TIMES = "times[multiplier, sampling_ppm] += steps"

BOOKS = (
    # the plan
    row(
        "share of noise by n in place of its root",
        PLAN,
        "conformance: noise shares",
        ("share = math.isqrt(stddev_grid**2 // honest)", "share = stddev_grid // honest"),
        ("return share if share**2 * honest >= stddev_grid**2 else share + 1", "return share"),
        also=("ledger audit: plan-terms",),
    ),
    row(
        "colluding and absent silos counted on for noise",
        PLAN,
        "conformance: noise shares",
        ("honest = self.n_min - self.t_collude", "honest = self.n_silos"),
        also=("ledger audit: plan-terms",),
    ),
    row(
        "replace-one promised at the price of add-or-remove-one",
        PLAN,
        "conformance: promises",
        ('("add-or-remove-one",)', '("add-or-remove-one", "replace-one")'),
    ),
    row(
        "several silos per customer promised at the price of one",
        PLAN,
        "conformance: promises",
        ('"max_silos_per_customer": (1,)', '"max_silos_per_customer": (1, 2, 3)'),
    ),
    row(
        "epsilon of the plan is taken on trust",
        PLAN,
        "conformance: promises",
        ("if not epsilon <= float(self.target_epsilon):", "if False:"),
    ),
    row(
        "each silo's share of noise is taken on trust",
        PLAN,
        "conformance: promises",
        ("if event.silo_stddev_grid < self.cohort", "if False and self.cohort"),
    ),
    # the ledger
    row(
        "filter off by one",
        LEDGER,
        "conformance: budget filter",
        ("if cost > left:", "if left < 0:"),
        also=("ledger audit: over-budget",),
    ),
    row(
        "filter grants while anything is left",
        LEDGER,
        "conformance: budget filter",
        ("if cost > left:", "if left <= 0:"),
        also=("ledger audit: over-budget",),
    ),
    row(
        "accountant reset each round",
        LEDGER,
        "conformance: budget filter",
        (_SPENT, 'for r in self._chain.of_type("DEBIT")[-1:])'),
        also=("ledger audit: arithmetic",),
    ),
    row(
        "accountant reset by a restart",
        LEDGER,
        "conformance: restart",
        ("self._chain = Chain(path, owner)",
         "self._chain = Chain(path, owner)\n"
         '        self._known = len(self._chain.of_type("DEBIT"))'),
        (_SPENT, 'for r in self._chain.of_type("DEBIT")[self._known :])'),
        also=("ledger audit: arithmetic",),
    ),
    row(
        "refund after a crash",
        LEDGER,
        "conformance: restart",
        ("digest = self._agreed().digest",
         'done = {r["debit_seq"] for r in self._chain.of_type("RELEASE")}'),
        (_SPENT, 'for r in self._chain.of_type("DEBIT") if r["seq"] in done)'),
        also=("ledger audit: arithmetic",),
    ),
    row(
        "debit after release",
        LEDGER,
        "conformance: debit first",
        ('paid = self._chain.append({**body, "request": request, "commit": commit})',
         'paid = {**body, "request": request, "seq": len(self._chain.bodies) + 1}'),
    ),
    row(
        "release without any debit",
        LEDGER,
        "ledger audit: no-debit",
        ('paid = self._chain.append({**body, "request": request, "commit": commit})',
         'paid = {**body, "request": request, "seq": len(self._chain.bodies) + 1}'),
        ('if paid is None or (paid["seq"], self.silo_id) != (debit.seq, debit.silo_id):',
         "if False:"),
        also=("conformance: debit first",),
    ),
    row(
        "metrics without debit",
        LEDGER,
        "conformance: debit first",
        ("cost, left = plan.cost(event),", 
         "cost, left = plan.cost(event) * (event.kind != 'fusion'),"),
        also=("ledger audit: cost",),
    ),
    row(
        "another request answered under the same debit",
        LEDGER,
        "conformance: retry",
        ('if paid["request"] != request:', "if False:"),
    ),
    row(
        "other bytes sent under the same debit",
        LEDGER,
        "conformance: retry",
        ('if done["blob"] != _sha256(blob):', "if False:"),
    ),
    row(
        "release recorded under another ledger's debit",
        LEDGER,
        "conformance: proof of payment",
        ('if paid is None or (paid["seq"], self.silo_id) != (debit.seq, debit.silo_id):',
         "if False:"),
    ),
    # the accountant
    row(
        "delta wrong: its root",
        COST,
        "conformance: sampled epsilon",
        ("accountant = PLDAccountant(value", 
         "target_delta **= 0.5\n    accountant = PLDAccountant(value"),
    ),
    row("T wrong: a mechanism's steps count once", COST, "conformance: sampled epsilon",
         (_TIMES, _TIMES.replace("+= steps", "+= 1"))),
    row("T wrong: equal rounds count once", COST, "conformance: sampled epsilon",
         (_TIMES, _TIMES.replace("+= steps", "= steps"))),
    row("T wrong: unsampled steps count once", COST, "conformance: gaussian epsilon",
         ("math.sqrt(sum(m.steps / m.multiplier**2", "math.sqrt(sum(1 / m.multiplier**2")),
    row("sampling rate ten times too small", COST, "conformance: sampled epsilon",
         ("PoissonSampledDpEvent(sampling_ppm / EVERYBODY,",
          "PoissonSampledDpEvent(sampling_ppm / EVERYBODY / 10,")),
    row("filter costs rounded down", COST, "conformance: budget units",
         ("return math.ceil(UNITS_PER_RDP * gaussian)", "return int(UNITS_PER_RDP * gaussian)")),
    row("filter ignores local steps", COST, "conformance: debit first",
         ("gaussian = order * mechanism.steps /", "gaussian = order /"),
         ("accountant.compose(as_dp_event([mechanism]))",
          "accountant.compose(as_dp_event([mechanism._replace(steps=1)]))")),
    row("spent RDP told as epsilon, delta forgotten", COST, "conformance: epsilon of units",
         ("return max(units / UNITS_PER_RDP + rest, 0.0)", "return units / UNITS_PER_RDP")),
    # networks
    row("BatchNorm let in, which couples customers", NETWORKS, "property: networks_are_checked",
         ("isinstance(layer, nn.modules.batchnorm._NormBase)", "False")),
    row("EmbeddingBag let in, whose norms are wrong", NETWORKS, "property: networks_are_checked",
         ("if isinstance(layer, nn.EmbeddingBag):", "if False:"),
         ("type(layer) is not nn.Linear", "not isinstance(layer, nn.Linear | nn.EmbeddingBag)")),
    row("one table used for two layers", NETWORKS, "property: networks_are_checked",
         ("if len(names) != len(list(network.parameters())):", "if False:")),
    row("steps divided by the silo's own number of customers", "client.training",
         "property: divisors_are_public",
         ('declared = float(task.plan.public["declared_users"]) / task.plan.cohort.n_silos',
          "declared = float(task.dataset.n_users)")),
    row("biases left out of the clipped norm", NETWORKS, "property: gradients_are_whole",
         ("if layer.bias is not None:", "if False:")),
)  # fmt: skip
