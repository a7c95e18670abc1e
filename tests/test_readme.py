"""The README's program with PRDL alone runs as it is printed, says what the README says, and imports nothing else."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_program_with_prdl_alone():
    programs = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    program = next(text for text in programs if "prdl_loss" in text)
    assert set(re.findall(r"^(?:import|from) (\S+)", program, re.MULTILINE)) == {"jax", "jax.numpy", "jaxface.losses"}
    expected = [float(number) for number in re.findall(r"[\d.]+", program.split("# [")[1].split(";")[0])]
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    printed = [float(number) for number in re.findall(r"[\d.]+", run.stdout)]
    assert len(printed) == len(expected) == 4
    assert all(abs(a - b) < 0.1 for a, b in zip(printed, expected, strict=True))
