"""What holds for the whole process, set for one test and put back behind it."""

import pytest

from fastrnn import _core, config


@pytest.fixture
def use(monkeypatch):
    """use(isa="v3", gemm="own") for the rest of the test."""
    isa = _core.isa_in_use()
    monkeypatch.setattr(config, "_gemm", config._gemm)

    def use(isa: str | None = None, gemm: str | None = None) -> None:
        if isa is not None:
            config.use_isa(isa)
        if gemm is not None:
            config.set_gemm(gemm)

    yield use
    config.use_isa(isa)


@pytest.fixture
def own(use):
    """The engine for which the promises about bits are made."""
    use(gemm="own")


@pytest.fixture(params=config.available_isas())
def isa(request, use, own):
    """Each instruction set in turn, with the engine "own"."""
    use(isa=request.param)
    return request.param
