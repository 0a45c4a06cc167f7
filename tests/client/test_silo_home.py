import pytest

from fondaco.client.home import SiloHome


@pytest.mark.parametrize("silo_id", ["..", ".", "a/b", "../../etc", "Süd", "a b", "%2E."])
def test_silos_name_never_leads_out_of_its_folder(tmp_path, silo_id):
    home = SiloHome(tmp_path, silo_id)
    assert home.ledger.resolve().parent == tmp_path / "ledgers"
    assert home.sent.resolve().parent == tmp_path / "outbox"


def test_silos_names_never_share_a_folder(tmp_path):
    names = ["..", "%2E.", "%252E.", "a/b", "a%2Fb", ".a", "%2Ea"]
    assert len({SiloHome(tmp_path, name).ledger for name in names}) == len(names)
