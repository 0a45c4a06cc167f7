import pytest
from hypothesis import given
from hypothesis import strategies as st

from fondaco.shared.address import is_host, split_address
from fondaco.shared.errors import ConfigError
from fondaco.shared.fields import fits


def test_address_splits_into_host_and_port():
    assert split_address("fondaco.example:8443") == ("fondaco.example", 8443)
    assert split_address("127.0.0.1:1") == ("127.0.0.1", 1)
    assert split_address("[::1]:65535") == ("::1", 65535)


HOSTS = st.from_regex(r"\A[A-Za-z0-9_.-]{1,260}\Z") | st.ip_addresses().map(str)


@given(HOSTS | st.sampled_from(["my_hub", "a." * 126, "fe80::1%eth0", "fe80::1%a b"]))
def test_every_host_that_is_one_may_stand_in_a_log(host):
    address = f"[{host}]:65535" if ":" in host else f"{host}:65535"
    assert fits("address", address) == is_host(host)
    assert " " not in address or not is_host(host)


ODD = """
host host: host:0 host:65536 host:+80 ::1:80 [host]:80 [::1:80 https://host:80 -host:80 host:\u0663
"""


@pytest.mark.parametrize("text", ["", "ho st:80", "host:80\n", f"{'h' * 64}:80", *ODD.split()])
def test_text_that_is_no_address_is_refused(text):
    with pytest.raises(ConfigError, match="is no address; expected HOST:PORT"):
        split_address(text)
