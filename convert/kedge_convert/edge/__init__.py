"""What edge devices ask of an artefact: forecasts, their compilers, and rewrites that help."""

from types import ModuleType

from kedge_convert.edge import edgetpu, vela

# By the word in a device's profile; twins, see compilation.py.
COMPILERS: dict[str, ModuleType] = {"edgetpu": edgetpu, "vela": vela}
