"""The paper's update rule, the original program's and the libraries', from optax parts; the schedules of their rates."""

import dataclasses

import optax

from alexnet_jax.experiment import Optim
from alexnet_jax.table import Layer, Table


def optimizer(optim: Optim, table: Table, steps_per_epoch: int, total_steps: int) -> optax.GradientTransformation:
    """The named rule, with the rates and decays that layers of the table have of their own.

    paper (section 5): v <- m v - decay * rate * w - rate * g; w <- w + v, rate and decay INSIDE the momentum. sgd: as in
    `optax.sgd`, v <- m v + decay * w + g; w <- w - rate * v, which differs after every change of rate. original: the weights
    follow the paper's rule; biases have no decay and keep a constant rate of their own (the 2012 layer files).
    """
    rate = schedule(optim, steps_per_epoch, total_steps)
    rules, labels = {}, {}
    for spec in table.layers:
        labels[spec.name] = {kind: _label(optim, spec, kind) for kind in ("kernel", "bias")}
        rules |= {label: _rule(optim, spec, kind, rate) for kind, label in labels[spec.name].items()}
    return optax.partition(rules, lambda _: labels) if len(rules) > 1 else next(iter(rules.values()))


def with_rate(table: Table, layers: tuple[str, ...], factor: float) -> Table:
    """The table with the rate of these layers times `factor`: a new last layer learns faster than those it stands on."""
    changed = (dataclasses.replace(s, rate=factor * s.rate) if s.name in layers else s for s in table.layers)
    return dataclasses.replace(table, layers=tuple(changed))


def _label(optim: Optim, spec: Layer, kind: str) -> str:
    """Parameters of one label share a rule; checkpoints keep their velocities under it."""
    if kind == "bias" and optim.rule == "original":
        return "bias"
    decay = _decay(optim, spec, kind)
    own = [f"rate x{spec.rate:g}"] * (spec.rate != 1) + [f"decay {decay:g}"] * (decay != optim.weight_decay)
    return ", ".join(own) or "kernel"


def _rule(optim: Optim, spec: Layer, kind: str, rate: optax.Schedule) -> optax.GradientTransformation:
    if kind == "bias" and optim.rule == "original":
        return optax.chain(optax.scale_by_learning_rate(optim.bias_learning_rate), optax.trace(optim.momentum))
    parts = (
        optax.add_decayed_weights(_decay(optim, spec, kind)),
        optax.scale_by_learning_rate(lambda step: spec.rate * rate(step)),
        optax.trace(optim.momentum),
    )
    return optax.chain(*parts) if optim.rule != "sgd" else optax.chain(parts[0], parts[2], parts[1])


def _decay(optim: Optim, spec: Layer, kind: str) -> float:
    """A layer's own decay is its weights'; its biases have the optimizer's."""
    return spec.decay if kind == "kernel" and spec.decay is not None else optim.weight_decay


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
