"""What was measured of a bundle. Values only, and their form as JSON."""

from dataclasses import dataclass

from edgepack.bench.machine import Machine
from edgepack.trust.decode import encode
from edgepack.trust.strict_json import JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Latency of `predict` for one sample at a time, after warm-up, in milliseconds.

    Attributes:
        p50_ms, p90_ms, p99_ms: Quantiles of all calls.
        mean_ms: Mean of all calls.
        calls: How many calls were timed.
    """

    p50_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float
    calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """How right the variant is on data with truth; what does not apply is None.

    Attributes:
        rows: Rows compared.
        accuracy: Share of right labels.
        accuracy_low, accuracy_high: Wilson interval of it, 95 %.
        r2: Coefficient of determination.
        mae: Mean absolute error, in the target's unit.
    """

    rows: int
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    r2: float | None = None
    mae: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantReport:
    """One variant, measured in a process of its own.

    Attributes:
        variant: Its name.
        precision: "fp32", "int8", …
        engine: Engine and its version.
        size_bytes: Of its files.
        start_ms: Time from starting the process to the first answer, Python's own start and all
            imports included, in milliseconds.
        load_ms: Time to open the bundle, check it and make the session when the engine is already
            imported, in milliseconds.
        latency: Of single samples.
        passed: Whether the golden samples came out as the contract demands.
        metric, value, bound: Parity with the original model on the golden samples.
        figures: Every other figure of that comparison.
        peak_memory_bytes: Largest resident memory of the whole process; None if unknown.
        model_memory_bytes: What loading and running the model added to it; None if unknown.
        reason: Why it did not pass.
        on_data: How right it is on the data that was given with a label.
    """

    variant: str
    precision: str
    engine: str
    size_bytes: int
    start_ms: float
    load_ms: float
    latency: Latency
    passed: bool
    metric: str
    value: float
    bound: float
    figures: dict[str, float]
    peak_memory_bytes: int | None = None
    model_memory_bytes: int | None = None
    reason: str | None = None
    on_data: Accuracy | None = None

    def to_json(self) -> dict[str, JsonValue]:
        """Give one flat object; what is not known is left out."""
        nested = encode(self)
        assert isinstance(nested, dict)
        flat: dict[str, JsonValue] = {}
        for key, value in nested.items():
            if key == "on_data" and isinstance(value, dict):
                flat |= {"data_rows" if name == "rows" else name: v for name, v in value.items()}
            elif key == "latency" and isinstance(value, dict):
                flat |= value
            else:
                flat[key] = value
        if "agreement" in self.figures:
            flat["agreement"] = self.figures["agreement"]
        elif self.metric == "agreement":
            flat["agreement"] = self.value
        return flat


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantFailure:
    """A variant that could not be measured, and why."""

    variant: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchReport:
    """A bundle, measured on one machine.

    Attributes:
        name, version: Of the model.
        digest: Of the bundle.
        golden_rows: Golden samples in the bundle.
        machine: Where.
        variants: Those that were measured, in the bundle's order.
        failures: Those that were not.
    """

    name: str
    version: str
    digest: str
    golden_rows: int
    machine: Machine
    variants: tuple[VariantReport, ...]
    failures: tuple[VariantFailure, ...]

    @property
    def passed(self) -> bool:
        """Whether every variant was measured and came out as the contract demands."""
        return not self.failures and all(variant.passed for variant in self.variants)

    def to_json(self) -> dict[str, JsonValue]:
        """Give plain JSON values; each variant is one flat object."""
        return {
            "name": self.name,
            "version": self.version,
            "digest": self.digest,
            "golden_rows": self.golden_rows,
            "passed": self.passed,
            "machine": encode(self.machine),
            "variants": [variant.to_json() for variant in self.variants],
            "failures": [encode(failure) for failure in self.failures],
        }
