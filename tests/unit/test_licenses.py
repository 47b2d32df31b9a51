"""The list of licences is that of the locks, and holds none that a user could not live with."""

import re

import pytest

from licenses import LIST, license_of, locked, table

#: Reviewed: docutils offers its parts under the first two, and the GPL for one Emacs file that is not installed.
REVIEWED = ("docutils",)


def test_the_list_is_up_to_date():
    assert LIST.read_text() == table(), "the locks changed: run `make licenses`"


@pytest.mark.parametrize("distribution", locked())
def test_every_licence_is_known_and_permits_redistribution(distribution):
    licence = license_of(distribution)
    assert licence != "unknown"
    assert distribution in REVIEWED or not re.search(r"\bA?GPL|General Public|Proprietary|Commercial", licence)
