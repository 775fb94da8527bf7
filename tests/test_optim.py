"""Compare the update rules with plain loops, and check the rates of every schedule at its first and last steps."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alexnet_jax.experiment import Optim
from alexnet_jax.network.table import Conv, Dense, Table
from alexnet_jax.optim import after_validation, optimizer, plateau_scale, schedule, with_rate

ONE_LAYER = Table("one layer", (1, 1, 1), 1, (Conv("conv1", 1, 1),))


@pytest.fixture(autouse=True)
def float64():
    """Enable 64-bit numbers without strict type promotion, which optax does not support."""
    with jax.enable_x64(True):
        yield


def trained(rule, parameters, gradients):
    """Return the parameters after one step per gradient."""
    state = rule.init(parameters)
    update = jax.jit(rule.update)
    for gradient in gradients:
        change, state = update(gradient, state, parameters)
        parameters = optax.apply_updates(parameters, change)
    return jax.device_get(parameters)


def tree(kernel, bias):
    return {"conv1": {"kernel": jnp.asarray(kernel, float), "bias": jnp.asarray(bias, float)}}


DROP_AT_3 = Optim(learning_rate=0.01, schedule="drops", drops=(3,))  # with one step per epoch: step 3, counted from 0


def test_the_papers_rule_has_the_rate_inside_the_momentum():
    after = trained(optimizer(DROP_AT_3, ONE_LAYER, 1, 6), tree(1, 1), [tree(0.5, 0.5)] * 6)
    assert f"{after['conv1']['kernel']:.6f}" == f"{after['conv1']['bias']:.6f}" == "0.936033"


def test_optax_sgd_has_it_outside_and_gives_another_number():
    other = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(schedule(DROP_AT_3, 1, 6), momentum=0.9))
    assert f"{trained(other, tree(1, 1), [tree(0.5, 0.5)] * 6)['conv1']['kernel']:.6f}" == "0.965806"


def test_the_original_rule_spares_biases_decay_and_the_drop():
    optim = Optim(rule="original", learning_rate=0.01, bias_learning_rate=0.02, drops=(3,))
    after = trained(optimizer(optim, ONE_LAYER, 1, 6), tree(1, 1), [tree(0.5, 0.5)] * 6)
    assert f"{after['conv1']['kernel']:.6f}" == "0.936033"
    bias, velocity = 1.0, 0.0
    for _ in range(6):
        velocity = 0.9 * velocity - 0.02 * 0.5
        bias += velocity
    np.testing.assert_allclose(after["conv1"]["bias"], bias, rtol=1e-12)


def test_the_rule_named_sgd_is_optax_sgd():
    optim = Optim(**{**vars(DROP_AT_3), "rule": "sgd"})
    after = trained(optimizer(optim, ONE_LAYER, 1, 6), tree(1, 1), [tree(0.5, 0.5)] * 6)
    assert f"{after['conv1']['kernel']:.6f}" == f"{after['conv1']['bias']:.6f}" == "0.965806"


@pytest.mark.parametrize("rule", ["paper", "original", "sgd"])
def test_layers_have_their_own_rates_and_decays(rule):
    """Compare with a plain loop per layer: conv1 has half the rate, conv2 its own decay, fc3 neither, conv4 both."""
    table = Table(
        "rates",
        (1, 1, 1),
        1,
        (
            Conv("conv1", 1, 1, rate=0.5),
            Conv("conv2", 1, 1, decay=0.3),
            Dense("fc3", 1),
            Dense("conv4", 1, rate=2.0, decay=0.0),
        ),
    )
    optim = Optim(rule, learning_rate=0.1, bias_learning_rate=0.02, weight_decay=0.01, momentum=0.8, drops=(2,))
    leaf = lambda value: {"kernel": jnp.asarray(value), "bias": jnp.asarray(value)}  # noqa: E731
    parameters, gradient = ({spec.name: leaf(value) for spec in table.layers} for value in (1.0, 0.5))
    after = trained(optimizer(optim, table, 1, 4), parameters, [gradient] * 4)
    for spec in table.layers:
        for kind in ("kernel", "bias"):
            value, velocity = 1.0, 0.0
            constant = rule == "original" and kind == "bias"
            decay = spec.decay if kind == "kernel" and spec.decay is not None else 0.01
            for step in range(4):
                rate = 0.02 if constant else spec.rate * (0.1 if step < 2 else 0.01)
                slope = 0.5 + (0 if constant else decay * value)
                velocity = 0.8 * velocity + slope * (1 if rule == "sgd" else rate)
                value -= velocity * (rate if rule == "sgd" else 1)
            np.testing.assert_allclose(after[spec.name][kind], value, rtol=1e-6, err_msg=f"{spec.name} {kind}")


def test_original_rule_decays_weights_but_not_biases():
    after = trained(optimizer(Optim(rule="original"), ONE_LAYER, 1, 5), tree(1, 1), [tree(0, 0)] * 5)
    assert after["conv1"]["bias"] == 1 and after["conv1"]["kernel"] < 1


def test_without_gradients_the_papers_rule_moves_both():
    after = trained(optimizer(Optim(), ONE_LAYER, 1, 5), tree(1, 1), [tree(0, 0)] * 5)
    assert after["conv1"]["bias"] == after["conv1"]["kernel"] < 1


PER_EPOCH, STEPS = 4, 20
SCHEDULES = {
    "constant": Optim(schedule="constant"),
    "constant, warm-up": Optim(schedule="constant", warmup=1.5),
    "drops": Optim(schedule="drops", drops=(1.25, 3.0)),
    "drops, warm-up": Optim(schedule="drops", drops=(2.0, 3.0), warmup=1.0, drop_factor=0.5),
    "drops on one step": Optim(schedule="drops", drops=(2.0, 2.1), drop_factor=0.5),
    "drops in the warm-up": Optim(schedule="drops", drops=(0.25, 0.5), warmup=1.0, drop_factor=0.5),
    "linear": Optim(schedule="linear"),
    "linear, warm-up": Optim(schedule="linear", warmup=1.0),
    "cosine": Optim(schedule="cosine"),
    "cosine, warm-up of one step": Optim(schedule="cosine", warmup=0.25),
}


def rate(optim, step):
    """Return the rate of a step; the warm-up comes first, and drops count from the start of training."""
    warmup = round(optim.warmup * PER_EPOCH)
    if step < warmup:
        return optim.learning_rate * (step + 1) / warmup
    done = (step - warmup) / (STEPS - warmup)
    return (
        optim.learning_rate
        * {
            "constant": 1.0,
            "drops": optim.drop_factor ** sum(step >= round(epoch * PER_EPOCH) for epoch in optim.drops),
            "linear": 1 - done,
            "cosine": (1 + math.cos(math.pi * done)) / 2,
        }[optim.schedule]
    )


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("rule", ["paper", "original"])
def test_twenty_steps_of_every_schedule_equal_a_plain_loop(name, rule):
    optim = Optim(
        **{**vars(SCHEDULES[name]), "rule": rule, "learning_rate": 0.05, "weight_decay": 0.01, "momentum": 0.8}
    )
    generator = np.random.default_rng(0)
    values = {"kernel": generator.normal(size=3), "bias": generator.normal(size=2)}
    gradients = [{"kernel": generator.normal(size=3), "bias": generator.normal(size=2)} for _ in range(STEPS)]

    expected = {kind: value.copy() for kind, value in values.items()}
    velocity = {"kernel": 0.0, "bias": 0.0}
    for step, gradient in enumerate(gradients):
        for kind in expected:
            own = rule == "original" and kind == "bias"
            eta, decay = (optim.bias_learning_rate, 0.0) if own else (rate(optim, step), optim.weight_decay)
            velocity[kind] = optim.momentum * velocity[kind] - decay * eta * expected[kind] - eta * gradient[kind]
            expected[kind] = expected[kind] + velocity[kind]

    after = trained(optimizer(optim, ONE_LAYER, PER_EPOCH, STEPS), tree(**values), [tree(**g) for g in gradients])
    for kind, value in expected.items():
        np.testing.assert_allclose(after["conv1"][kind], value, rtol=1e-6, atol=1e-7)  # rates are 32-bit


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_rate_of_every_step(name):
    optim = SCHEDULES[name]
    rates = [float(schedule(optim, PER_EPOCH, STEPS)(step)) for step in range(STEPS)]
    np.testing.assert_allclose(rates, [rate(optim, step) for step in range(STEPS)], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("constant", 0.01, 0.01),
        ("drops", 0.01, 0.0001),
        ("drops, warm-up", 0.0025, 0.0025),
        ("linear", 0.01, 0.01 / 20),
        ("linear, warm-up", 0.0025, 0.01 / 16),
        ("cosine", 0.01, 0.01 * (1 - math.cos(math.pi / 20)) / 2),
    ],
)
def test_first_and_last_rates(name, first, last):
    rates = schedule(SCHEDULES[name], PER_EPOCH, STEPS)
    np.testing.assert_allclose([float(rates(0)), float(rates(STEPS - 1))], [first, last], rtol=1e-6)


def test_rates_of_whole_epochs_drop_at_their_first_step():
    rates = schedule(Optim(schedule="drops", drops=(3.0,)), PER_EPOCH, STEPS)
    np.testing.assert_allclose([float(rates(11)), float(rates(12))], [0.01, 0.001], rtol=1e-6)


def test_linear_and_cosine_rates_end_after_the_last_step():
    for name in ("linear", "cosine"):
        rates = schedule(SCHEDULES[name], PER_EPOCH, STEPS)
        assert float(rates(STEPS - 1)) > 0
        assert abs(float(rates(STEPS))) < 1e-12


@pytest.mark.parametrize("rule", ["paper", "sgd"])
def test_a_new_layers_rate_is_a_factor_on_its_own(rule):
    table = Table("new", (1, 1, 1), 1, (Conv("conv1", 1, 1), Dense("fc2", 1, rate=0.5)))
    faster = with_rate(table, ("fc2",), 10)
    assert [spec.rate for spec in faster.layers] == [1, 5]
    numbers = {name: tree(1, 1)["conv1"] for name in ("conv1", "fc2")}
    gradients = [jax.tree.map(lambda x: 0.5 * x, numbers)] * 3
    optim = Optim(rule=rule, weight_decay=0.0, schedule="constant")
    slow, fast = (trained(optimizer(optim, t, 1, 3), numbers, gradients) for t in (table, faster))
    np.testing.assert_allclose(1 - fast["fc2"]["kernel"], 10 * (1 - slow["fc2"]["kernel"]), rtol=1e-12)
    assert fast["conv1"]["kernel"] == slow["conv1"]["kernel"]


# --- schedules of large trainings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "drops"), [("conv1", {25: 0.1, 51: 0.1, 67: 0.1, 72: 0.0}), ("conv2", {25: 0.1, 51: 0.1, 79: 0.1})]
)
def test_net_145s_rates_are_its_authors(layer, drops):
    table = Table("two layers", (1, 1, 1), 1, (Conv("conv1", 1, 1), Dense("conv2", 1)))
    optim = Optim(rule="original", schedule="original", momentum=0.0, weight_decay=0.0)
    values = {spec.name: {"kernel": jnp.zeros(1), "bias": jnp.zeros(1)} for spec in table.layers}
    gradient = jax.tree.map(jnp.ones_like, values)
    rule = optimizer(optim, table, 1, 91)
    state, update = rule.init(values), jax.jit(rule.update)
    expected = 0.01
    for epoch in range(91):
        expected *= drops.get(epoch, 1.0)
        change, state = update(gradient, state, values)
        np.testing.assert_allclose(change[layer]["kernel"], -expected, rtol=1e-5)
        np.testing.assert_allclose(change[layer]["bias"], -0.02, rtol=1e-6)


ERRORS = [0.9, 0.8, 0.8, 0.85, 0.7, 0.75, 0.7, 0.71, 0.8, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]
"""Validation errors. With a patience of 2 the rate would drop at epochs 3, 6, 8 and 10, counted from 0."""


@pytest.mark.parametrize("rule", ["paper", "sgd"])
def test_a_plateau_lowers_the_rate_three_times_at_most(rule):
    optim = Optim(rule=rule, schedule="plateau", patience=2, learning_rate=0.01)
    ours, state = optimizer(optim, ONE_LAYER, 1, len(ERRORS)), None
    values = tree(1, 1)
    state, update = ours.init(values), jax.jit(ours.update)
    weight, velocity, rate, best, worse, drops = 1.0, 0.0, 0.01, math.inf, 0, 0
    rates = []
    for error in ERRORS:
        change, state = update(tree(0.5, 0.5), state, values)
        values = optax.apply_updates(values, change)
        if rule == "paper":
            velocity = 0.9 * velocity - rate * (5e-4 * weight + 0.5)
            weight += velocity
        else:
            velocity = 0.9 * velocity + 5e-4 * weight + 0.5
            weight -= rate * velocity
        np.testing.assert_allclose(values["conv1"]["kernel"], weight, rtol=1e-6)
        state = after_validation(optim, state, error)
        worse = 0 if error < best else worse + 1
        best = min(best, error)
        if worse == 2 and drops < 3:
            rate, worse, drops = rate / 10, 0, drops + 1
        rates.append(float(plateau_scale(state)) * optim.learning_rate)
        np.testing.assert_allclose(rates[-1], rate, rtol=1e-5)
    assert len({round(math.log10(rate)) for rate in rates}) == 4  # 1e-2 to 1e-5


def test_biases_of_the_original_rule_know_no_plateau():
    optim = Optim(rule="original", schedule="plateau", patience=1)
    rule = optimizer(optim, ONE_LAYER, 1, 9)
    state = rule.init(tree(1, 1))
    for _ in range(2):
        state = after_validation(optim, state, 0.5)
    change, _ = rule.update(tree(1, 1), state, tree(0, 0))
    np.testing.assert_allclose(change["conv1"]["kernel"], -0.001, rtol=1e-6)
    np.testing.assert_allclose(change["conv1"]["bias"], -0.02, rtol=1e-6)


def test_other_schedules_do_not_hear_of_the_error():
    state = optimizer(DROP_AT_3, ONE_LAYER, 1, 6).init(tree(1, 1))
    assert after_validation(DROP_AT_3, state, 0.5) is state and plateau_scale(state) == 1.0
