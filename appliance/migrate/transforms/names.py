"""What clients ask for."""

from __future__ import annotations

from appliance.migrate.transforms.setting import AS_THE_RULE_SAYS, Result, Setting, manual


def names(setting: Setting) -> Result:
    """One name, a list, or names with commas between them."""
    value = setting.value
    found = value if isinstance(value, list) else str(value or "").split(",")
    wanted = [str(name).strip() for name in found if str(name).strip()]
    model = setting.found.model
    if model is None or not wanted:
        return manual("Names no model.")
    if any(set(name) & set("*?[") for name in wanted):
        return manual("`*`, `?` and `[` match any name here; write the alias yourself, if that is meant.")
    first = setting.found.word in ("served_model_name", "--alias", "model_list.model_name")
    fresh = [name for name in wanted if name not in model.names]
    model.names[:] = [*fresh, *model.names] if first else [*model.names, *fresh]
    return AS_THE_RULE_SAYS
