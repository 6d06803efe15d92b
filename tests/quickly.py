"""How tests have XLA compile: for a CPU in a sixth of the time, as compiling takes longer than all that is computed.

What the compiler makes of a program by default is tried where a command runs in a process of its own, with no flags.
"""

from importlib.metadata import version

_EMITTERS = "xla_cpu_use_fusion_emitters"
_HAS_EMITTERS = [int(part) for part in version("jaxlib").split(".")[:2]] < [0, 11]  # a flag that is not known aborts

FLAGS = "--xla_backend_optimization_level=0" + (f" --{_EMITTERS}=false" if _HAS_EMITTERS else "")
"""For the environment variable XLA_FLAGS."""


def optimized(level: int) -> dict[str, int | bool]:
    """Options for the compiler, where a program needs more than `FLAGS` leave, or runs for long; 3 is XLA's default."""
    return {"xla_backend_optimization_level": level, **({_EMITTERS: True} if _HAS_EMITTERS else {})}
