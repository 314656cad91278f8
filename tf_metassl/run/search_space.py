"""The settings that a search varies, and how their values are chosen.

Imports no TensorFlow, so that a wrong search is reported at once.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tf_metassl import config as config_lib
from tf_metassl.config import Config
from tf_metassl.errors import ConfigError

# Settings that say what is compared, or where, not how it is trained.
_FIXED = (
    *("algo", "dataset", "run_dir", "extend_to", "allow_changed", "verbose"),
    *("tracker", "profile_steps"),
    *("seed", "split_seed", "num_labeled", "num_validation"),
)


@dataclasses.dataclass(frozen=True)
class Range:
    """The values that a setting can have.

    Attributes:
        name: of the setting.
        default: its value without a search.
        choices: the values, if they are listed; else empty.
        low: the smallest value of an interval.
        high: the largest one.
        log: whether the logarithm is uniform.
    """

    name: str
    default: Any
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False

    def suggest(self, trial: Any) -> Any:
        """A value by Optuna.

        Args:
            trial: an `optuna.Trial`.
        """
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        suggest = trial.suggest_float
        if isinstance(self.default, int):
            suggest = trial.suggest_int
        return suggest(self.name, self.low, self.high, log=self.log)


def parse(texts: Sequence[str], given: Mapping[str, Any]) -> tuple[Range, ...]:
    """The ranges that flags describe.

    Args:
        texts: `name=a,b,c` for a list, `name=low:high` for an interval,
            `name=log:low:high` for one whose logarithm is uniform.
        given: the settings that do not vary, name -> value; a value of one
            that does vary is its default.

    Raises:
        ConfigError: if one cannot be read, a value is not allowed, or the
            default is not among the values.
    """
    if not texts:
        raise ConfigError(
            "--search is missing: name at least one setting, as in "
            "--search=learning_rate=log:0.01:0.3."
        )
    base = values_of(config_lib.resolve(given))
    found = tuple(_parse(text, base) for text in texts)
    names = [part.name for part in found]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ConfigError(
            f"--search: {', '.join(sorted(repeated))} is given twice."
        )
    for part in found:
        for value in part.choices or (part.low, part.high):
            config_lib.resolve({**given, part.name: value})
        inside = (
            part.default in part.choices
            if part.choices
            else part.low <= part.default <= part.high
        )
        if not inside:
            raise ConfigError(
                f"--search: the values of {part.name} do not include "
                f"{part.default}, which the search starts from. Include it, or "
                f"give another --{part.name}."
            )
    return found


def values_of(config: Config) -> dict[str, Any]:
    """The settings of a configuration, name -> value."""
    values = config.to_json()
    return values | values.pop("hyperparameters")


def _parse(text: str, base: Mapping[str, Any]) -> Range:
    name, _, values = text.partition("=")
    name = name.strip().removeprefix("--")
    if name in _FIXED or name not in base:
        raise ConfigError(
            f"--search={text}: {name!r} is not a setting of "
            f"--algo={base['algo']} that can be varied. Write name=a,b,c or "
            "name=low:high."
        )
    default = base[name]
    try:
        if ":" in values and not isinstance(default, str):
            return _interval(name, default, values)
        chosen = [_read(part.strip(), default) for part in values.split(",")]
    except ValueError as error:
        raise ConfigError(
            f"--search={text}: {error}. Write {name}=a,b,c, {name}=low:high or "
            f"{name}=log:low:high."
        ) from error
    return Range(name, default, tuple(dict.fromkeys(chosen)))


def _interval(name: str, default: Any, text: str) -> Range:
    *scale, low_text, high_text = text.split(":")
    if scale not in ([], ["log"]):
        raise ValueError("expected low:high or log:low:high")
    if isinstance(default, bool):
        raise ValueError("a truth value has no interval")
    low, high = _read(low_text, default), _read(high_text, default)
    if not low < high or not math.isfinite(high - low):
        raise ValueError(f"expected low < high, got {low_text} and {high_text}")
    if scale and low <= 0:
        raise ValueError(f"a logarithm needs a positive low, got {low_text}")
    return Range(name, default, low=low, high=high, log=bool(scale))


def _read(text: str, default: Any) -> Any:
    """A value of the type of `default`."""
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(f"expected true or false, got {text!r}")
        return text.lower() == "true"
    return type(default)(text)
