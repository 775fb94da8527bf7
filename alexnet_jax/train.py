"""The training step, and the loop that repeats it, logs, validates and saves."""

import contextlib
import functools
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np
import optax
from jax.tree_util import DictKey

from alexnet_jax import columns, optim
from alexnet_jax.data import augment
from alexnet_jax.data.pipeline import Feed, OnDevice
from alexnet_jax.data.statistics import Statistics
from alexnet_jax.errors import Diverged, Interrupted, RunError
from alexnet_jax.evaluate import Evaluator, Scores, Stopped
from alexnet_jax.experiment import Experiment
from alexnet_jax.model import Parameters, dropout_masks, initialize, loss_and_gradients, shardings
from alexnet_jax.network.placement import Placement
from alexnet_jax.network.table import Table
from alexnet_jax.processes.distributed import Agreement, is_multiprocess
from alexnet_jax.processes.signals import Signals, exit_when_stuck
from alexnet_jax.run.checkpoint import Checkpoints
from alexnet_jax.run.metrics import Metrics

INIT, AUGMENT, DROPOUT = 0, 1, 2
"""Streams of random numbers. Each draw is a function of (seed, stream, step, layer or example)."""


@dataclass(frozen=True)
class State:
    """Everything that training changes. With the seed and the data it determines all later states.

    A record of shardings or of abstract arrays has the same form, so the fields are trees of any leaves.
    """

    parameters: Any  # {layer: {'kernel', 'bias'}}
    optimizer: Any  # velocities, and the step count that the learning rate is computed from
    step: Any  # int32 []: number of steps done


jax.tree_util.register_dataclass(State, ["parameters", "optimizer", "step"], [])


class StepResult(NamedTuple):
    """What a training step reports, each float32 []."""

    loss: jax.Array
    """Mean cross-entropy of the batch, in nats."""
    error: jax.Array
    """Fraction of wrong answers on the batch, with augmentation and dropout."""
    rate: jax.Array
    """Learning rate of the step."""


def stream(seed: int | jax.Array, name: int) -> jax.Array:
    """Return the key of one stream of random numbers."""
    return jax.random.fold_in(jax.random.key(seed), name)


@dataclass(frozen=True)
class Trainer:
    """An experiment on a mesh: how its state is initialized, and what a step does to it."""

    experiment: Experiment
    table: Table
    placement: Placement
    stats: Statistics
    steps_per_epoch: int

    @property
    def total_steps(self) -> int:
        """Number of steps of the whole training."""
        return max(1, round(self.experiment.train.epochs * self.steps_per_epoch))

    def optimizer(self) -> optax.GradientTransformationExtraArgs:
        """Return the update rule with its schedule."""
        return optim.optimizer(self.experiment.optim, self.table, self.steps_per_epoch, self.total_steps)

    @functools.cached_property
    def shardings(self) -> State:
        """The sharding of each leaf of the state: velocities as their parameters, counts replicated."""
        parameters = shardings(self.table, self.placement)
        whole = self.placement.sharding(columns.WHOLE)
        rule = self.optimizer()
        abstract = jax.eval_shape(lambda: rule.init(initialize(self.table, jax.random.key(0), self.placement)))

        def sharding(path: tuple, _: Any) -> Any:
            match path:  # the path of a velocity ends as that of its parameter, under every rule
                case (*_, DictKey(layer), DictKey(kind)):
                    return parameters[layer][kind]
            return whole

        return State(parameters, jax.tree.map_with_path(sharding, abstract), whole)

    def initial_state(self, parameters: Parameters | None = None) -> State:
        """Return the state of step 0. Layers that `parameters` does not contain are initialized at random."""
        parameters = parameters or {}
        if len(parameters) < len(self.table.layers):
            parameters = initialize(self.table, stream(self.experiment.train.seed, INIT), self.placement) | parameters
        rule, shardings = self.optimizer(), self.shardings
        velocities = jax.jit(rule.init, out_shardings=shardings.optimizer)(parameters)
        return State(parameters, velocities, jax.device_put(np.int32(0), shardings.step))

    def abstract_state(self) -> State:
        """Return the shapes, dtypes and shardings of the state, for restoring it."""

        def leaf(shape: jax.ShapeDtypeStruct, sharding: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)

        return jax.tree.map(leaf, jax.eval_shape(self.initial_state), self.shardings)

    def images(self, batch: jax.Array, key: jax.Array, step: jax.Array) -> jax.Array:
        """Normalize and augment a batch uint8 [batch, height, width, 3]; return [channels, height, width, batch]."""
        options, batch_first = self.experiment, self.placement.sharding(columns.BATCH_FIRST)
        images = augment.normalize(jax.lax.with_sharding_constraint(batch, batch_first), self.stats)
        epochs = options.data.colour_epochs
        recolour = True if epochs is None else step < round(epochs * self.steps_per_epoch)
        images = augment.augment(images, key, options.data, self.stats, recolour, self.placement.replicas)
        return images.transpose(3, 1, 2, 0).astype(options.train.precision)

    def step(self) -> Callable[[State, OnDevice, np.ndarray | None, np.uint32], tuple[State, StepResult]]:
        """Return the compiled step: (state, examples, indices, seed) -> (next state, result).

        `examples` and `indices` are what `Feed.training` yields. The memory of the old state is reused for the new one. The
        seed is an argument of the program, so that trainings with different seeds share one compiled program.
        """
        rule, shardings = self.optimizer(), self.shardings
        schedule = optim.schedule(self.experiment.optim, self.steps_per_epoch, self.total_steps)

        def step(
            state: State, examples: OnDevice, indices: jax.Array | None, seed: jax.Array
        ) -> tuple[State, StepResult]:
            draw = lambda name: jax.random.fold_in(stream(seed, name), state.step)  # noqa: E731
            batch = examples.take(indices)
            images = self.images(batch.images, draw(AUGMENT), state.step)
            masks = dropout_masks(self.table, draw(DROPOUT), len(batch))
            network = self.table, self.placement, state.parameters
            (loss, error), gradients = loss_and_gradients(*network, images, batch.labels, masks)
            with jax.named_scope("update"):
                updates, velocities = rule.update(gradients, state.optimizer, state.parameters)
                parameters = optax.apply_updates(state.parameters, updates)
            rate = schedule(state.step) * optim.plateau_scale(state.optimizer)
            return State(parameters, velocities, state.step + 1), StepResult(loss, error, rate)

        return jax.jit(step, donate_argnums=0, out_shardings=(shardings, None), compiler_options=self.placement.compiler_options)


IN_FLIGHT = 2
"""Number of steps dispatched ahead of the device."""

AT_LEAST = 50
"""Smallest number of steps after which a network can be reported not to learn, however short its epochs."""

READ_EVERY = 1.0
"""Seconds after which losses are fetched although no line is due, so that the progress bar moves."""


@dataclass
class Loop:
    """The loop of a training: step, log, validate, save."""

    trainer: Trainer
    train: Feed
    validation: Feed
    evaluator: Evaluator
    metrics: Metrics
    checkpoints: Checkpoints
    _pending: deque[tuple[int, StepResult]] = field(default_factory=deque, init=False)
    _first_losses: list[float] = field(default_factory=list, init=False)
    _last_read: float = field(default_factory=time.monotonic, init=False)

    def run(self, state: State, *, validate: bool = False) -> State:
        """Train from a state to the last step, and return the final state.

        Args:
          state: The state, which is saved already or is that of step 0.
          validate: Whether to validate the state first if it is at the end of an epoch.

        Raises:
          Diverged: A loss is not finite; the message names the step.
          Interrupted: A signal was received, and the state was saved.
        """
        options, per_epoch = self.trainer.experiment.train, self.trainer.steps_per_epoch
        step, total = self.trainer.step(), self.trainer.total_steps
        start, seed = int(state.step), np.uint32(options.seed)
        feed = self.train.training(start, total, options.batch, options.seed)
        with (
            Signals(Agreement(self.trainer.placement.mesh)) as signals,
            contextlib.closing(feed) as batches,
            contextlib.ExitStack() as beginning,
        ):
            if validate and (start % per_epoch == 0 or start == total):
                state = self._end_of_epoch(state, start, signals)
            beginning.enter_context(exit_when_stuck(start))
            for done in range(start + 1, total + 1):
                try:
                    examples, indices = next(batches)
                except RunError:  # a signal to the whole group may have killed the workers
                    if is_multiprocess() or not signals.interrupted():  # other processes do not know, and would not save
                        raise
                    self._leave(state, done - 1, signals)
                state, result = step(state, examples, indices, seed)
                beginning.close()
                self._pending.append((done, result))
                self._keep_pace(done)
                if done % per_epoch == 0 or done == total:
                    state = self._end_of_epoch(state, done, signals)
                elif options.save_every and done % options.save_every == 0:
                    self._save(state, done)
                if signals.interrupted():
                    self._leave(state, done, signals)
            self.checkpoints.wait()
        return state

    def _leave(self, state: State, step: int, signals: Signals) -> NoReturn:
        self._save(state, step)
        self.checkpoints.wait()
        assert signals.received is not None
        raise Interrupted(signals.received, step)

    def _keep_pace(self, done: int) -> None:
        """Wait for devices that are too far behind. Losses are fetched in bulk, since a step is too short to wait for each."""
        if len(self._pending) > IN_FLIGHT:
            jax.block_until_ready(self._pending[-1 - IN_FLIGHT])
        due = done % self.trainer.experiment.train.log_every == 0
        if due or time.monotonic() - self._last_read > READ_EVERY:
            self._read(IN_FLIGHT)

    def _read(self, left: int) -> None:
        """Fetch and log losses until only those of `left` steps are in flight."""
        ready = [self._pending.popleft() for _ in range(len(self._pending) - left)]
        self._last_read = time.monotonic()
        results = jax.device_get(ready)
        if results:
            self.metrics.share(len(results))
        for step, result in results:
            loss = float(result.loss)
            if not math.isfinite(loss):
                raise Diverged(
                    f"The loss of step {step} is {loss}. Training stopped; {self._last_good()} "
                    f"Try a smaller --optim.learning_rate (now {self.trainer.experiment.optim.learning_rate:g}) or a warm-up."
                )
            rate, error = float(result.rate), float(result.error)
            self.metrics.train(step, loss=loss, error=error, rate=rate, images=self.trainer.experiment.train.batch)
            self._watch_for_a_stall(step, loss)

    def _last_good(self) -> str:
        self.checkpoints.wait()
        steps = self.checkpoints.steps()
        return f"the checkpoint of step {steps[-1]} is intact." if steps else "no checkpoint had been saved yet."

    def _watch_for_a_stall(self, step: int, loss: float) -> None:
        """Warn when the loss is still ln(classes) after a whole epoch at the full rate: some initial weights never learn."""
        options = self.trainer.experiment.optim
        last = max(math.ceil((1 + options.warmup) * self.trainer.steps_per_epoch), AT_LEAST)
        if step > last:
            return
        self._first_losses.append(loss)
        chance = math.log(self.trainer.table.classes)
        late = self._first_losses[-max(1, last // 4) :]
        if step == last and abs(sum(late) / len(late) - chance) < 0.01 * chance:
            warmup = "a longer --optim.warmup" if options.warmup else "--optim.warmup=1"
            init = "" if self.trainer.experiment.network.init == "he" else "--network.init=he, "
            self.metrics.note(
                f"Warning: after {step:,} steps the loss is still ln(classes) = {chance:.3f}; the network has not begun to "
                f"learn. Try {init}another --optim.learning_rate (now {options.learning_rate:g}), {warmup}, or another "
                "--train.seed."
            )

    def _end_of_epoch(self, state: State, step: int, signals: Signals) -> State:
        """Validate and save. After a signal save without validating; the resumed run then begins with the validation."""
        self._read(0)
        started = time.monotonic()
        try:
            with self.metrics.pause():
                scores: Scores = self.evaluator(state.parameters, self.validation, signals.interrupted)
        except Stopped:
            self._leave(state, step, signals)
        # Written before the checkpoint: a run killed between the two resumes at an earlier step and writes this line again.
        seconds, errors = time.monotonic() - started, {"top1_error": scores.top1_error, "top5_error": scores.top5_error}
        self.metrics.validation(step, loss=scores.loss, **errors, seconds=seconds)
        if step % self.trainer.steps_per_epoch == 0:  # a longer training would not validate where a shorter one ends
            optimizer = optim.after_validation(self.trainer.experiment.optim, state.optimizer, scores.top1_error)
            state = State(state.parameters, optimizer, state.step)
        with self.metrics.saving(step):
            self.checkpoints.save(step, state.parameters, state.optimizer, scores.top1_error)
        return state

    def _save(self, state: State, step: int) -> None:
        """Save a state, after checking that the losses up to it are finite."""
        self._read(0)
        with self.metrics.saving(step):
            self.checkpoints.save(step, state.parameters, state.optimizer)
