"""How tests have XLA compile: for a CPU in a sixth of the time, as compiling takes longer than all that is computed.

What the compiler makes of a program by default is tried where a command runs in a process of its own, with no flags.
"""

FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
"""For the environment variable XLA_FLAGS."""
