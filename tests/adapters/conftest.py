import pytest

from tests.adapters.tiny_llama import write_llama


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def tied_llama(tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("tied_llama"), tied=True)
