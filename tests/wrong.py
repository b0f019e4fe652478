"""Tables of wrong calls: {name: (the call, its error, how the message begins)}."""

import pytest


def names_the_argument(table):
    """A test of each of them."""

    @pytest.mark.parametrize("case", table)
    def test(case):
        call, error, message = table[case]
        with pytest.raises(error) as caught:
            call()
        assert str(caught.value).startswith(message), caught.value

    return test
