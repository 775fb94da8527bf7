"""Check that the platform which the user chose for jax exists."""

from collections import Counter

import jax

from alexnet_jax.errors import NoDeviceError


def check_platforms() -> None:
    """Raise NoDeviceError if JAX_PLATFORMS names a platform that does not exist here; the message names those that do.

    It starts jax's backend, unless the platform is the CPU, which always exists.
    """
    chosen: str | None = getattr(jax.config, "jax_platforms")  # noqa: B009 - jax gives it no type
    if not chosen or chosen == "cpu":
        return
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as problem:  # the latter where no plugin for the platform is installed
        reason = str(problem).partition(" (set JAX_PLATFORMS")[0].rstrip(".") or "no such device was found"
        jax.config.update("jax_platforms", None)
        kinds = Counter(device.device_kind for device in jax.devices())
        jax.config.update("jax_platforms", chosen)
        found = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
        raise NoDeviceError(
            f"JAX_PLATFORMS={chosen}: {reason}. Without this variable jax finds {found}. Unset it, or install jax for your "
            "accelerator."
        ) from problem
