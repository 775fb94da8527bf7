"""Every data set by its name. What `load` returns was checked; what is read from disk as it is needed is checked then."""

from collections.abc import Callable

from alexnet_jax.data import cifar10, digits, prepared
from alexnet_jax.data.split import DataSet
from alexnet_jax.experiment import Data


def load(data: Data, *, log: Callable[[str], None] = print) -> DataSet:
    """The data set that `data` names; `log` is told what takes long.

    Raises DataNotFoundError (neither there nor downloadable), UsageError (a folder that is not there),
    RunError (damaged data, a label out of range).
    """
    match data.name:
        case "digits":
            return digits.load()
        case "cifar10":
            return cifar10.load(data, log)
        case "imagenet2012" | "folder":
            return prepared.load(data)
