"""Other people's packages and their trained weights: the same work on fastrnn gives the same results."""

import pytest

from clients import CLIENTS, STUDENTS, assert_same, nagisa_layer

pytestmark = pytest.mark.filterwarnings("ignore")  # of other people's code: newer Pythons and NumPys have their complaints about it


def works_of(name):
    try:
        return (CLIENTS | STUDENTS)[name]()
    except ModuleNotFoundError as error:
        if str(error.name).startswith("fastrnn"):
            raise
        pytest.skip(f"the package {name} is not installed: {error}")


@pytest.mark.parametrize("name", [*CLIENTS, *STUDENTS])
def test_the_same_work_gives_the_same_results(name):
    works = works_of(name)
    assert works
    for work in works:
        assert_same(work.ours(), work.theirs(), work.tolerance)


def test_nagisa_tags_the_same_with_our_layers(monkeypatch):
    works_of("nagisa")  # or skips
    import nagisa
    from nagisa import np_model

    texts = ["Pythonで簡単に使えるツールです", "吾輩は猫である。名前はまだ無い。", "福岡・博多の観光情報"]
    tagged, used = lambda: [(tags.words, tags.postags) for tags in map(nagisa.tagging, texts)], []
    before = tagged()

    def transduce(self, x):
        for both in self.layers:
            x, _ = nagisa_layer(both)(x)
            used.append(x.shape)
        return x

    monkeypatch.setattr(np_model._BiRNN, "transduce", transduce)
    assert tagged() == before
    assert len(used) == 2 * len(texts)
