"""The configuration: read once, checked whole, before a port is bound, handed out in pieces.

Four layers, the stronger first: command line, environment (`TINKEX_PROXY_SECTION__NAME`), one TOML
file, defaults. Every default carries its reason in its description; the README's table and the
options of the command line are made from the same fields.

What was decided here:

* A key nobody knows is an error that names the nearest known one. A misspelt limit that is silently
  ignored is found weeks later, in an incident.
* `Settings()` reads nothing; only `load` looks at the environment and at a file.
* `TINKER_BASE_URL` is never read. Users set it to point their SDK at this proxy; a proxy that
  obeyed it would call itself.
* Secrets come from the environment or from a file that only its owner can read, never from the
  command line, which every user of the machine sees in the process list.
"""

from tinkex_proxy.config.checks import find_contradictions, find_warnings
from tinkex_proxy.config.faults import ConfigError
from tinkex_proxy.config.load import Settings, environment_without_settings, wants_colour
from tinkex_proxy.config.show import masked, settings_table

__all__ = [
    "ConfigError",
    "Settings",
    "environment_without_settings",
    "find_contradictions",
    "find_warnings",
    "masked",
    "settings_table",
    "wants_colour",
]
