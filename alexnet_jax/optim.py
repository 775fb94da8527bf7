"""Update rules of the paper, the original program and common libraries, composed from optax; learning rate schedules."""

import dataclasses
from typing import Any, NamedTuple

import jax
import optax
from optax.contrib import reduce_on_plateau

from alexnet_jax.experiment import Optim
from alexnet_jax.network.table import Layer, Table


def optimizer(
    optim: Optim, table: Table, steps_per_epoch: int, total_steps: int
) -> optax.GradientTransformationExtraArgs:
    """Return the update rule, with the learning rate factors and weight decays of each layer of the table.

    paper (section 5): v <- m v - decay * rate * w - rate * g; w <- w + v, with rate and decay INSIDE the momentum. sgd: as in
    `optax.sgd`, v <- m v + decay * w + g; w <- w - rate * v, which differs after every change of rate. original: weights
    follow the paper's rule; biases have no decay and a constant rate of their own (layer files of 2012).
    """
    rules, labels = {}, {}
    for spec in table.layers:
        labels[spec.name] = {kind: _label(optim, spec, kind) for kind in ("kernel", "bias")}
        rate = schedule(optim, steps_per_epoch, total_steps, spec.name)
        rules |= {label: _rule(optim, spec, kind, rate) for kind, label in labels[spec.name].items()}
    rule = optax.partition(rules, lambda _: labels) if len(rules) > 1 else next(iter(rules.values()))
    rule = optax.with_extra_args_support(rule)
    return _with_plateau(optim, rule) if optim.schedule == "plateau" else rule


def with_rate(table: Table, layers: tuple[str, ...], factor: float) -> Table:
    """Multiply the learning rate of some layers by `factor`, so that a new last layer learns faster than restored layers."""
    changed = (dataclasses.replace(s, rate=factor * s.rate) if s.name in layers else s for s in table.layers)
    return dataclasses.replace(table, layers=tuple(changed))


def _label(optim: Optim, spec: Layer, kind: str) -> str:
    """Return the label of a parameter: those of one label share a rule, and checkpoints store velocities by label."""
    if kind == "bias" and optim.rule == "original":
        return "bias"
    decay = _decay(optim, spec, kind)
    own = [spec.name] * (optim.schedule == "original" and spec.name in BY_HAND)  # a schedule of its own
    own += [f"rate x{spec.rate:g}"] * (spec.rate != 1) + [f"decay {decay:g}"] * (decay != optim.weight_decay)
    return ", ".join(own) or "kernel"


def _rule(optim: Optim, spec: Layer, kind: str, rate: optax.Schedule) -> optax.GradientTransformation:
    if kind == "bias" and optim.rule == "original":
        return optax.chain(optax.scale_by_learning_rate(optim.bias_learning_rate), optax.trace(optim.momentum))
    decay = optax.add_decayed_weights(_decay(optim, spec, kind))
    factor = (_scale_by_plateau(),) if optim.schedule == "plateau" else ()
    scale = (*factor, optax.scale_by_learning_rate(lambda step: spec.rate * rate(step)))
    velocity = optax.trace(optim.momentum)
    return optax.chain(decay, velocity, *scale) if optim.rule == "sgd" else optax.chain(decay, *scale, velocity)


def _decay(optim: Optim, spec: Layer, kind: str) -> float:
    """Return the weight decay. A layer's own applies to its weights; biases have the optimizer's."""
    return spec.decay if kind == "kernel" and spec.decay is not None else optim.weight_decay


def schedule(optim: Optim, steps_per_epoch: int, total_steps: int, layer: str = "") -> optax.Schedule:
    """Return the learning rate as a function of the step, counted from 0. Times in `optim` are in epochs.

    The original program's schedule differs for the weights of some layers. `plateau_scale` multiplies the result.
    """
    warmup = round(optim.warmup * steps_per_epoch)
    after = max(1, total_steps - warmup)
    main = {
        "constant": lambda: optax.constant_schedule(optim.learning_rate),
        "plateau": lambda: optax.constant_schedule(optim.learning_rate),
        "drops": lambda: _drops(optim, dict.fromkeys(optim.drops, optim.drop_factor), steps_per_epoch, warmup),
        "original": lambda: _drops(optim, ALL_BY_HAND | BY_HAND.get(layer, {}), steps_per_epoch, warmup),
        "linear": lambda: optax.linear_schedule(optim.learning_rate, 0.0, after),
        "cosine": lambda: optax.cosine_decay_schedule(optim.learning_rate, after),
    }[optim.schedule]()
    if not warmup:
        return main
    # The rate rises from 1/warmup of the peak at step 0 to the peak at step warmup - 1.
    rise = optax.linear_schedule(optim.learning_rate / warmup, optim.learning_rate, max(1, warmup - 1))
    return optax.join_schedules([rise, main], [warmup])


ALL_BY_HAND = {25.0: 0.1, 51.0: 0.1, 79.0: 0.1}
BY_HAND = {"conv1": {67.0: 0.1, 72.0: 0.0}}
"""{epoch: factor}: the manual changes of net 145's learning rate, for the weights of all layers and, in addition, of one."""


def _drops(optim: Optim, factors: dict[float, float], steps_per_epoch: int, warmup: int) -> optax.Schedule:
    """Return a schedule of drops. `factors` count epochs from the start of training, the schedule from the end of warm-up."""
    at: dict[int, float] = {}
    for epoch, factor in factors.items():  # drops at the same step multiply
        step = max(0, round(epoch * steps_per_epoch) - warmup)
        at[step] = at.get(step, 1.0) * factor
    return optax.piecewise_constant_schedule(optim.learning_rate, at)


# --- the paper's schedule: a tenth of the rate when the validation error stops improving ------------------------------

PLATEAU_DROPS = 3
"""Number of times that the rate was lowered (section 5)."""


class PlateauState(NamedTuple):
    """State of a rule with the plateau schedule; saved and restored with the velocities."""

    plateau: Any  # optax's ReduceLROnPlateauState
    rule: Any


def _plateau(optim: Optim) -> optax.GradientTransformationExtraArgs:
    """Return optax's transformation, updated once per validation. Any lower error is an improvement (atol must not be 0)."""
    lowest = optim.drop_factor**PLATEAU_DROPS
    return reduce_on_plateau(optim.drop_factor, optim.patience, rtol=0.0, atol=1e-9, min_scale=lowest)


def _with_plateau(optim: Optim, rule: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    def init(params: Any) -> PlateauState:
        return PlateauState(_plateau(optim).init({}), rule.init(params))

    def update(updates: Any, state: Any, params: Any = None, **_: Any) -> tuple[Any, PlateauState]:
        updates, inner = rule.update(updates, state.rule, params, plateau_scale=state.plateau.scale)
        return updates, PlateauState(state.plateau, inner)

    return optax.GradientTransformationExtraArgs(init, update)


def _scale_by_plateau() -> optax.GradientTransformationExtraArgs:
    """Return the scaling by the plateau: before the velocity in the paper's rule, after it in optax.sgd's."""

    def update(updates: Any, state: Any, params: Any = None, *, plateau_scale: Any = 1.0, **_: Any) -> tuple[Any, Any]:
        return jax.tree.map(lambda update: plateau_scale * update, updates), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def plateau_scale(state: Any) -> Any:
    """Return the factor on the scheduled learning rate; 1.0 without the plateau schedule."""
    return state.plateau.scale if isinstance(state, PlateauState) else 1.0


def after_validation(optim: Optim, state: Any, error: float) -> Any:
    """Return the state after a validation with this top-1 error, which may lower the rate; other rules' states are unchanged."""
    if not isinstance(state, PlateauState):
        return state
    _, plateau = _plateau(optim).update({}, state.plateau, value=error)
    return PlateauState(
        jax.tree.map(lambda old, new: jax.device_put(new, old.sharding), state.plateau, plateau), state.rule
    )
