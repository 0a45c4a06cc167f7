import pytest

from fondaco.shared.address import split_address
from fondaco.shared.errors import ConfigError


def test_address_splits_into_host_and_port():
    assert split_address("fondaco.example:8443") == ("fondaco.example", 8443)
    assert split_address("127.0.0.1:1") == ("127.0.0.1", 1)
    assert split_address("[::1]:65535") == ("::1", 65535)


ODD = """
host host: host:0 host:65536 host:+80 ::1:80 [host]:80 [::1:80 https://host:80 -host:80 host:\u0663
"""


@pytest.mark.parametrize("text", ["", "ho st:80", "host:80\n", f"{'h' * 64}:80", *ODD.split()])
def test_text_that_is_no_address_is_refused(text):
    with pytest.raises(ConfigError, match="is no address; expected HOST:PORT"):
        split_address(text)
