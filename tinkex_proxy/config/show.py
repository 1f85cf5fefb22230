"""The configuration for people: masked values in force, and the README's table of defaults."""

from typing import Final

from tinkex_proxy.config import names
from tinkex_proxy.config.load import Settings

__all__ = ["masked", "settings_table"]

MASK: Final = "********"


def masked(settings: Settings) -> dict[str, object]:
    """Every value in force, ready for JSON; of a secret only whether it is set."""
    shown: dict[str, object] = {}
    for section, values in settings.model_dump(mode="json").items():
        secrets = {s.name for s in names.all_settings() if s.section == section and s.secret}
        shown[section] = {
            name: MASK if name in secrets and value is not None else value
            for name, value in values.items()
        }
    return shown


def settings_table() -> str:
    """Every setting with its default and the reason for it, as a Markdown table."""
    rows = ["| setting | default | meaning, and why this default |", "|---|---|---|"]
    for setting in names.all_settings():
        default = f"`{setting.default}`" if setting.default else "none"
        rows.append(f"| `{setting.key}` | {default} | {setting.field.description} |")
    return "\n".join(rows)
