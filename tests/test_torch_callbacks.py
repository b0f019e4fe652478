"""The callbacks for Lightning and skorch, with the real packages: models made inside `fit` compute here, with the same losses."""

import os
import sys
from unittest import mock

import numpy as np
import pytest

if os.environ.get("FASTRNN_SANITIZED") == "1":
    pytest.skip("PyTorch is not run under sanitizers", allow_module_level=True)
torch = pytest.importorskip("torch", reason="PyTorch is not installed; `pip install 'fastrnn[torch]'` brings it")
from torch import nn  # noqa: E402

import fastrnn.torch  # noqa: E402

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore")  # the packages' own


class Last(nn.Module):
    """A GRU whose last output is read."""

    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.GRU(3, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, x):
        return self.out(self.rnn(x)[0][:, -1])


def problem(dtype=torch.float32):
    x = torch.randn(16, 5, 3, generator=torch.Generator().manual_seed(0))
    return x.to(dtype), (x[:, -1, 0] > 0).long()


def lightning_run(package, callbacks, precision="32-true", configured=False):
    """The model and the losses of three epochs, where `package` is lightning.pytorch or pytorch_lightning."""

    class Model(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.losses = []
            if not configured:
                self.net = Last()

        def configure_model(self):
            if configured:
                self.net = Last()

        def training_step(self, batch, _):
            x, labels = batch
            loss = nn.functional.cross_entropy(self.net(x.to(self.net.out.weight.dtype)).float(), labels)
            self.losses.append(loss.item())
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    torch.manual_seed(1)
    model = Model()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = package.Trainer(max_epochs=3, accelerator="cpu", precision=precision, callbacks=callbacks, **quiet)
    trainer.fit(model, torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*problem()), batch_size=8))
    return model, model.losses


@pytest.fixture(params=["lightning.pytorch", "pytorch_lightning"])
def package(request):
    return pytest.importorskip(request.param, reason=f"{request.param} is not installed")


@pytest.mark.parametrize("configured", [False, True])
def test_lightning(package, configured):
    from fastrnn.torch.lightning import Accelerate

    callback = Accelerate()
    assert isinstance(callback, package.Callback) and callback.report is None
    model, losses = lightning_run(package, [callback], configured=configured)
    assert callback.report.replaced == {"net.rnn": "GRU(3, 8, batch_first=True)"}
    assert "Recorded" in model.net.rnn(problem()[0])[0].grad_fn.name()
    assert losses == pytest.approx(lightning_run(package, [], configured=configured)[1], rel=1e-6)


def test_lightning_reports_once(package):
    """Validation starts within the fit, when there is nothing left to do."""
    from fastrnn.torch.lightning import Accelerate

    callback, model = Accelerate(), torch.nn.Sequential(torch.nn.GRU(3, 8))
    callback.on_fit_start(None, model)
    callback.on_validation_start(None, model)
    assert callback.report.replaced == {"0": "GRU(3, 8)"}


def test_lightning_in_bfloat16(package):
    """Where the callback finds a module in bfloat16, and where the model was accelerated before."""
    from fastrnn.torch.lightning import Accelerate

    callback = Accelerate()
    expected = lightning_run(package, [], "bf16-true")[1]
    assert lightning_run(package, [callback], "bf16-true")[1] == expected
    assert callback.report.left["net.rnn"].startswith("its parameters are torch.bfloat16")
    plain = Last.__init__

    def accelerated(self):
        plain(self)
        fastrnn.torch.accelerate(self)

    with mock.patch.object(Last, "__init__", accelerated):
        assert lightning_run(package, [], "bf16-true")[1] == expected


def skorch_run(callbacks):
    skorch = pytest.importorskip("skorch", reason="skorch is not installed")
    torch.manual_seed(1)
    net = skorch.NeuralNetClassifier(
        Last, max_epochs=3, lr=0.1, batch_size=8, train_split=None, verbose=0, criterion=nn.CrossEntropyLoss, callbacks=callbacks
    )
    x, labels = problem()
    net.fit(x.numpy(), labels.numpy())
    return net, net.history[:, "train_loss"]


def test_skorch():
    pytest.importorskip("skorch", reason="skorch is not installed")
    from sklearn.base import clone

    from fastrnn.torch.skorch import Accelerate

    net, losses = skorch_run([("accelerate", Accelerate())])
    (callback,) = (callback for name, callback in net.callbacks_ if name == "accelerate")
    assert callback.report_.replaced == {"module_.rnn": "GRU(3, 8, batch_first=True)"}
    assert "Recorded" in net.module_.rnn(problem()[0])[0].grad_fn.name()
    assert losses == pytest.approx(skorch_run([])[1], rel=1e-6)
    again = clone(net).fit(problem()[0].numpy(), problem()[1].numpy())
    assert "Recorded" in again.module_.rnn(problem()[0])[0].grad_fn.name()
    np.testing.assert_array_equal(net.predict(problem()[0].numpy()).shape, (16,))


@pytest.mark.parametrize("name, missing", [("lightning", "Lightning"), ("skorch", "skorch")])
def test_a_missing_package_is_named(name, missing):
    hidden = dict.fromkeys(("lightning", "pytorch_lightning", "skorch", "skorch.callbacks"))
    with mock.patch.dict(sys.modules, hidden), mock.patch("importlib.util.find_spec", lambda name: None):
        sys.modules.pop(f"fastrnn.torch.{name}", None)
        message = f"fastrnn.torch.{name}: needs {missing}, which is not installed; pip install {name}"
        with pytest.raises(ImportError, match=f"^{message}$"):
            __import__(f"fastrnn.torch.{name}")
