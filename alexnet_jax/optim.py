"""The paper's update rule and the original program's, from optax parts; the schedules of their rates."""

import jax
import optax

from alexnet_jax.experiment import Optim


def optimizer(optim: Optim, steps_per_epoch: int, total_steps: int) -> optax.GradientTransformation:
    """The named rule. paper (section 5): v <- m v - decay * rate * w - rate * g; w <- w + v, rate and decay INSIDE the momentum.

    `optax.sgd` applies the rate after the momentum instead and differs after every change of rate. original: the weights
    follow the paper's rule; biases have no decay and keep a constant rate of their own (the 2012 layer files).
    """
    rate = schedule(optim, steps_per_epoch, total_steps)
    paper = optax.chain(
        optax.add_decayed_weights(optim.weight_decay),
        optax.scale_by_learning_rate(rate),
        optax.trace(optim.momentum),
    )
    if optim.rule == "paper":
        return paper
    biases = optax.chain(optax.scale_by_learning_rate(optim.bias_learning_rate), optax.trace(optim.momentum))
    return optax.partition({"kernel": paper, "bias": biases}, kinds)


def kinds(parameters: dict) -> dict:
    """The tree of parameters with each leaf replaced by its kind: 'kernel' or 'bias'."""
    return jax.tree.map_with_path(lambda path, _: path[-1].key, parameters)


def schedule(optim: Optim, steps_per_epoch: int, total_steps: int) -> optax.Schedule:
    """The rate of the step with this number, counted from 0; times in the record are epochs."""
    warmup = round(optim.warmup * steps_per_epoch)
    after = max(1, total_steps - warmup)
    main = {
        "constant": lambda: optax.constant_schedule(optim.learning_rate),
        "drops": lambda: _drops(optim, steps_per_epoch, warmup),
        "linear": lambda: optax.linear_schedule(optim.learning_rate, 0.0, after),
        "cosine": lambda: optax.cosine_decay_schedule(optim.learning_rate, after),
    }[optim.schedule]()
    if not warmup:
        return main
    # The first step already moves: its rate is 1/warmup of the peak, and step number `warmup` has the whole of it.
    rise = optax.linear_schedule(optim.learning_rate / warmup, optim.learning_rate, max(1, warmup - 1))
    return optax.join_schedules([rise, main], [warmup])


def _drops(optim: Optim, steps_per_epoch: int, warmup: int) -> optax.Schedule:
    """Drops count from the start of training, while `join_schedules` counts from the end of the warm-up."""
    at: dict[int, float] = {}
    for epoch in optim.drops:  # two that fall on one step both count
        step = max(0, round(epoch * steps_per_epoch) - warmup)
        at[step] = at.get(step, 1.0) * optim.drop_factor
    return optax.piecewise_constant_schedule(optim.learning_rate, at)
