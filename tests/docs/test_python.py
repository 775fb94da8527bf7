"""Run the code blocks of docs/python.md in their order, as one program in a separate process."""

import os
import re
import shutil
import subprocess
import sys

import pages

pytest_plugins = ["running"]


def test_the_python_of_the_page_runs(learned, compile_cache, tmp_path):
    shutil.copytree(learned, tmp_path / "runs" / "alexnet_digits")
    blocks = re.findall(r"```python\n(.*?)```", pages.PAGES["docs/python.md"], re.DOTALL)
    assert len(blocks) >= 6
    two_devices = "import jax\njax.config.update('jax_num_cpu_devices', 2)\n"
    checks = (
        "assert logits.shape == (8, 10) and losses[-1] < 0.7 * losses[0] and error < 0.5 and after < before\n"
        "assert model.conv4.kernel.shape[2] * 2 == variant.conv4.kernel.shape[2]\n"
        "assert answer.names[0] == '1' and len(answer.probabilities) == 3\n"
        "assert 'column' in str(model.conv2.kernel.sharding.spec) and mesh.shape['column'] == 2\n"
    )
    variables = {"PYTHONPATH": str(pages.ROOT), "JAX_COMPILATION_CACHE_DIR": str(compile_cache)}
    command = [sys.executable, "-c", two_devices + "\n".join(blocks) + checks]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | variables, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.splitlines()) == 7
