import pytest

from toys.views import drawn_views


@pytest.fixture(scope="session")
def drawn(anny):
    """Model, coefficients, views and true label maps of anny."""
    return anny, *drawn_views(anny)
